//! Access tokens: JWTs as RFC 9068 has them (`typ: at+jwt`), signed by the server itself with a key that lives sealed
//! in the store. [`verify`] is the one road from a token to a [`Caller`]. No IO: `oauth` loads the keys.

use std::collections::HashMap;
use std::sync::RwLock;

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::caller::{Caller, Who};
use super::person::Person;
use super::scope::Scopes;
use crate::error::{Error, Kind, Result};
use crate::world::Instant;

/// Life of an access token in seconds (SMART Backend Services recommends at most 300).
pub const TOKEN_SECONDS: i64 = 300;
/// Life of a person's access token in seconds at most (SMART App Launch: one hour).
pub const PERSON_TOKEN_SECONDS: i64 = 3600;
/// Characters of an access token at most.
pub const TOKEN_LENGTH_MAX: usize = 32 * 1024;
/// Servers of one database may disagree about the time by this much: a token from "the future" is still good.
pub const SKEW_SECONDS: i64 = 30;
/// Verified tokens kept in memory at most, so that a busy client costs one signature check per token.
const VERIFIED_MAX: u64 = 10_000;
const TYP: &str = "at+jwt";

/// The claims of an access token (RFC 9068, section 2.2). Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    /// The FHIR base URL.
    pub aud: String,
    /// The user, or the client itself when there is no user.
    pub sub: String,
    pub client_id: String,
    pub scope: String,
    pub jti: String,
    pub iat: i64,
    pub exp: i64,
    /// The person it was given for; None: a backend service acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Person>,
}

/// A public key that access tokens may be signed with.
#[derive(Clone)]
pub struct VerifyingKey {
    pub kid: String,
    /// ES256 or ES384; the token's `alg` must be this one.
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

/// What tokens are verified against: issuer, audience and the server's public keys. Holds the verified ones.
pub struct TokenKeys {
    issuer: String,
    audience: String,
    keys: RwLock<HashMap<String, VerifyingKey>>,
    verified: Cache<[u8; 32], Caller>,
}

impl TokenKeys {
    /// `audience` is the server's own FHIR base URL, without trailing slash.
    ///
    /// # Errors
    /// `Kind::Internal` when a key is of another algorithm than ES256 or ES384.
    pub fn new(issuer: &str, audience: &str, keys: Vec<VerifyingKey>) -> Result<TokenKeys> {
        let token_keys = TokenKeys {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            keys: RwLock::default(),
            verified: Cache::new(VERIFIED_MAX),
        };
        token_keys.replace(keys)?;
        Ok(token_keys)
    }

    /// Takes another set of keys (rotation); tokens of keys that are gone are refused at once.
    ///
    /// # Errors
    /// As [`TokenKeys::new`]; the old keys then stay.
    pub fn replace(&self, keys: Vec<VerifyingKey>) -> Result<()> {
        if keys.iter().any(|key| !matches!(key.algorithm, Algorithm::ES256 | Algorithm::ES384)) {
            return Err(Error::internal("access tokens are signed with ES256 or ES384 only"));
        }
        let keys = keys.into_iter().map(|key| (key.kid.clone(), key)).collect();
        *self.keys.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = keys;
        self.verified.invalidate_all();
        Ok(())
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The server's own FHIR base URL.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    fn key(&self, kid: &str) -> Option<VerifyingKey> {
        self.keys.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(kid).cloned()
    }
}

fn refused(why: &'static str) -> Error {
    Error::new(Kind::Unauthenticated, why)
}

/// The caller of an access token (the part after `Bearer `).
///
/// # Errors
/// `Kind::Unauthenticated` unless the token is genuine, ours, for this server and live at `now`.
pub fn verify(token: &str, keys: &TokenKeys, now: Instant) -> Result<Caller> {
    if token.len() > TOKEN_LENGTH_MAX {
        return Err(refused("The access token is longer than any this server gives."));
    }
    let mut fingerprint = [0u8; 32];
    fingerprint.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    if let Some(caller) = keys.verified.get(&fingerprint) {
        return if caller.who().expires.is_some_and(|expires| now < expires) {
            Ok(caller)
        } else {
            keys.verified.invalidate(&fingerprint);
            Err(expired())
        };
    }
    let claims = genuine(token, keys)?;
    let caller = live(claims, keys, now)?;
    keys.verified.insert(fingerprint, caller.clone());
    Ok(caller)
}

fn expired() -> Error {
    refused("The access token has expired.")
}

/// Checks form and signature: the algorithm is the one of the key that `kid` names, never what the token would like.
fn genuine(token: &str, keys: &TokenKeys) -> Result<Claims> {
    let malformed = || refused("The access token is not one of this server.");
    let header = decode_header(token).map_err(|error| malformed().caused_by(error))?;
    let typ = header.typ.as_deref().unwrap_or_default();
    if !(typ.eq_ignore_ascii_case(TYP) || typ.eq_ignore_ascii_case("application/at+jwt")) || header.crit.is_some() {
        return Err(malformed());
    }
    let key = header.kid.as_deref().and_then(|kid| keys.key(kid)).ok_or_else(malformed)?;
    if header.alg != key.algorithm {
        return Err(malformed());
    }
    // Only the signature is left to the library; the claims are checked below, against our own clock.
    let mut validation = Validation::new(key.algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    decode::<Claims>(token, &key.key, &validation)
        .map(|data| data.claims)
        .map_err(|error| refused("The access token's signature does not verify.").caused_by(error))
}

fn live(claims: Claims, keys: &TokenKeys, now: Instant) -> Result<Caller> {
    if claims.iss != keys.issuer {
        return Err(refused("The access token is of another issuer."));
    }
    if claims.aud != keys.audience {
        return Err(refused("The access token is for another server."));
    }
    if claims.exp <= now.seconds() {
        return Err(expired());
    }
    let ahead = claims.iat.saturating_sub(now.seconds());
    let life = claims.exp.saturating_sub(claims.iat);
    let longest = if claims.person.is_some() { PERSON_TOKEN_SECONDS } else { TOKEN_SECONDS };
    if ahead > SKEW_SECONDS || !(0..=longest).contains(&life) {
        return Err(refused("The access token's times are not those this server gives."));
    }
    let user = claims.person.is_some().then_some(claims.sub);
    let who = Who {
        client_id: claims.client_id,
        token_id: Some(claims.jti),
        issuer: Some(claims.iss),
        user,
        expires: Some(Instant(claims.exp.saturating_mul(1000))),
        task: None,
    };
    let unread = |error| refused("The access token's scopes cannot be read.").caused_by(error);
    let scopes = Scopes::parse(&claims.scope).map_err(unread)?;
    Caller::new(who, scopes, claims.person, &keys.audience, now).map_err(unread)
}

/// The caller of a login session on the server's own pages: `claims` were made by this server this moment and never
/// left it, so there is no signature to check.
///
/// # Errors
/// As [`verify`].
pub(crate) fn of_session(claims: Claims, keys: &TokenKeys, now: Instant) -> Result<Caller> {
    live(claims, keys, now)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use jsonwebtoken::{EncodingKey, Header, encode};

    use super::*;

    const ISSUER: &str = "https://phial.example";
    const BASE: &str = "https://phial.example/fhir";
    const NOW: Instant = Instant(1_800_000_000_000);

    struct Signer {
        private: EncodingKey,
        point: Vec<u8>,
    }

    fn signer() -> Signer {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Signer {
            private: EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref()),
            point: pair.public_key().as_ref().to_vec(),
        }
    }

    fn keys(of: &Signer) -> TokenKeys {
        let key = DecodingKey::from_ec_der(&of.point);
        TokenKeys::new(ISSUER, BASE, vec![VerifyingKey { kid: "k1".into(), algorithm: Algorithm::ES384, key }]).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            iss: ISSUER.into(),
            aud: BASE.into(),
            sub: "client".into(),
            client_id: "client".into(),
            scope: "system/Patient.rs".into(),
            jti: "j1".into(),
            iat: NOW.seconds(),
            exp: NOW.seconds() + TOKEN_SECONDS,
            person: None,
        }
    }

    fn header(alg: Algorithm, kid: &str) -> Header {
        let mut header = Header::new(alg);
        header.typ = Some(TYP.into());
        header.kid = Some(kid.into());
        header
    }

    fn why(result: Result<Caller>) -> String {
        let error = result.err().expect("refused");
        assert_eq!(error.kind, Kind::Unauthenticated);
        error.to_string()
    }

    #[test]
    fn a_genuine_token_gives_its_caller_until_it_expires() {
        let (signer, now) = (signer(), NOW);
        let keys = keys(&signer);
        let token = encode(&header(Algorithm::ES384, "k1"), &claims(), &signer.private).unwrap();
        // Twice: the second time from the cache.
        for _ in 0..2 {
            let caller = verify(&token, &keys, now).unwrap();
            assert_eq!(caller.who().client_id, "client");
            assert_eq!(caller.who().token_id.as_deref(), Some("j1"));
            assert_eq!(caller.who().user, None);
            assert_eq!(caller.scopes().to_string(), "system/Patient.rs");
        }
        let end = now.plus_ms(TOKEN_SECONDS * 1000);
        assert!(verify(&token, &keys, end.plus_ms(-1)).is_ok());
        assert!(why(verify(&token, &keys, end)).contains("expired"));
        assert!(why(verify(&token, &keys, end)).contains("expired"));
        keys.replace(Vec::new()).unwrap();
        assert!(why(verify(&token, &keys, now)).contains("not one of this server"));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let (mine, theirs) = (signer(), signer());
        let keys = keys(&mine);
        let good = encode(&header(Algorithm::ES384, "k1"), &claims(), &mine.private).unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0Iiwia2lkIjoiazEifQ";
        let hs = encode(&header(Algorithm::HS256, "k1"), &claims(), &EncodingKey::from_secret(&mine.point)).unwrap();
        let mut plain = header(Algorithm::ES384, "k1");
        plain.typ = Some("JWT".into());
        let mut critical = header(Algorithm::ES384, "k1");
        critical.crit = Some(vec!["exp".into()]);
        for (name, token) in [
            ("alg none", format!("{none}.{}.", parts[1])),
            ("alg none, signed", format!("{none}.{}.{}", parts[1], parts[2])),
            ("HS256 with the public key", hs),
            ("another key", encode(&header(Algorithm::ES384, "k1"), &claims(), &theirs.private).unwrap()),
            ("unknown kid", encode(&header(Algorithm::ES384, "k2"), &claims(), &mine.private).unwrap()),
            ("an assertion, not an access token", encode(&plain, &claims(), &mine.private).unwrap()),
            ("a critical header", encode(&critical, &claims(), &mine.private).unwrap()),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("altered claims", format!("{}.{}x.{}", parts[0], parts[1], parts[2])),
            ("empty", String::new()),
            ("dots", "..".into()),
            ("long", "a".repeat(TOKEN_LENGTH_MAX + 1)),
        ] {
            assert!(verify(&token, &keys, NOW).is_err_and(|e| e.kind == Kind::Unauthenticated), "{name}");
        }
        assert!(verify(&good, &keys, NOW).is_ok());
    }

    #[test]
    fn claims_that_do_not_fit_are_refused() {
        let signer = signer();
        let keys = keys(&signer);
        type Change = fn(&mut Claims);
        let changes: [(&str, Change); 8] = [
            ("issuer", |c| c.iss = "https://other.example".into()),
            ("another server", |c| c.aud = "https://phial.example".into()),
            ("expired", |c| c.exp = NOW.seconds()),
            ("times", |c| c.exp = c.iat + TOKEN_SECONDS + 1),
            ("times", |c| c.iat = NOW.seconds() + SKEW_SECONDS + 1),
            ("times", |c| c.iat = i64::MIN),
            ("scopes", |c| c.scope = "system/Patient.sr".into()),
            ("scopes", |c| c.scope = "system/Observation.rs?_sort=date".into()),
        ];
        for (name, change) in changes {
            let mut claims = claims();
            change(&mut claims);
            let token = encode(&header(Algorithm::ES384, "k1"), &claims, &signer.private).unwrap();
            assert!(why(verify(&token, &keys, NOW)).contains(name), "{name}");
        }
    }
}

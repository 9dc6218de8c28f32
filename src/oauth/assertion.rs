//! `private_key_jwt` client assertions (RFC 7523, SMART Backend Services): which client signs, and whether it did.
//! Pure: client and key are looked up, and the one-time `jti` remembered, by the caller.

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Number;

use super::client::Client;
use crate::world::Instant;

/// The one `client_assertion_type`.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// An assertion may expire at most so many seconds from now.
pub const LIFE_SECONDS: i64 = 300;
/// A client's clock may be ahead of ours by so many seconds. One that is behind gets no such grace: its assertions
/// still last for minutes.
pub const SKEW_SECONDS: i64 = 30;
const LENGTH_MAX: usize = 16 * 1024;
const JTI_LENGTH_MAX: usize = 256;

/// Why an assertion is refused: fixed text for `error_description`.
pub type Why = &'static str;

/// `aud` is one text or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct AssertionClaims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: Number,
    jti: String,
    nbf: Option<Number>,
    iat: Option<Number>,
}

/// Read, not yet believed.
pub struct Unverified<'a> {
    text: &'a str,
    header: Header,
    issuer: String,
}

/// A genuine assertion. It counts once: `jti` must be remembered until `forget_at`.
#[derive(Debug)]
pub struct Assertion {
    pub jti: String,
    pub forget_at: Instant,
}

impl<'a> Unverified<'a> {
    /// Form and header, up to the point where the client must be known.
    pub fn read(text: &'a str) -> Result<Unverified<'a>, Why> {
        if text.len() > LENGTH_MAX {
            return Err("The client assertion is too long.");
        }
        let header = decode_header(text).map_err(|_| {
            "The client assertion is not a signed JWT with a header this server knows; its alg must be RS384 or ES384."
        })?;
        if !matches!(header.alg, Algorithm::RS384 | Algorithm::ES384) {
            return Err("The client assertion's alg must be RS384 or ES384.");
        }
        if !header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")) || header.crit.is_some() {
            return Err("The client assertion's header must have typ JWT and no critical extensions.");
        }
        let claims: AssertionClaims = insecure_decode_claims(text)
            .map_err(|_| "The client assertion needs the claims iss, sub, aud, exp and jti.")?;
        Ok(Unverified { text, header, issuer: claims.iss })
    }

    /// The client that the assertion says it is of.
    pub fn client_id(&self) -> &str {
        &self.issuer
    }

    /// The id and algorithm of the key that it says it is signed with.
    ///
    /// # Errors
    /// When it says none, or names an address of keys that is not the client's.
    pub fn key_wanted(&self, client: &Client) -> Result<(&str, Algorithm), Why> {
        // Keys come from the registration alone; a jku can only contradict what is registered.
        if self.header.jku.is_some() && self.header.jku != client.jwks_url {
            return Err("The client assertion's jku is not the registered JWK Set URL.");
        }
        let kid = self.header.kid.as_deref().ok_or("The client assertion's header needs a kid.")?;
        Ok((kid, self.header.alg))
    }

    /// Verifies against that key of the client, and the token endpoint's URL.
    pub fn verify(
        &self,
        client: &Client,
        key: Option<DecodingKey>,
        token_url: &str,
        now: Instant,
    ) -> Result<Assertion, Why> {
        let key = key.ok_or("The client has no key with this kid for this alg.")?;
        // Only the signature is left to the library; the claims are checked below, against our own clock.
        let mut validation = Validation::new(self.header.alg);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = decode::<AssertionClaims>(self.text, &key, &validation)
            .map_err(|_| "The client assertion's signature does not verify.")?
            .claims;
        check(claims, client, token_url, now)
    }
}

/// NumericDate (RFC 7519) in whole seconds.
fn seconds(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| number.as_f64().filter(|n| n.is_finite() && n.abs() < 1e15).map(|n| n.floor() as i64))
}

fn check(claims: AssertionClaims, client: &Client, token_url: &str, now: Instant) -> Result<Assertion, Why> {
    if claims.iss != client.client_id || claims.sub != client.client_id {
        return Err("The client assertion's iss and sub must both be the client_id.");
    }
    let for_us = match &claims.aud {
        Audience::One(one) => one == token_url,
        Audience::Many(many) => many.iter().any(|one| one == token_url),
    };
    if !for_us {
        return Err("The client assertion's aud must be the URL of this token endpoint.");
    }
    let exp = seconds(&claims.exp).ok_or("The client assertion's exp is not a time.")?;
    if exp <= now.seconds() {
        return Err("The client assertion has expired.");
    }
    if exp > now.seconds() + LIFE_SECONDS + SKEW_SECONDS {
        return Err("The client assertion's exp is more than five minutes ahead.");
    }
    for begin in [&claims.nbf, &claims.iat].into_iter().flatten() {
        let begin = seconds(begin).ok_or("The client assertion's nbf or iat is not a time.")?;
        if begin > now.seconds() + SKEW_SECONDS {
            return Err("The client assertion is not valid yet.");
        }
    }
    if claims.jti.is_empty() || claims.jti.len() > JTI_LENGTH_MAX {
        return Err("The client assertion's jti must have 1 to 256 characters.");
    }
    // One second more than it lives, so that it is never forgotten while it could still be taken.
    Ok(Assertion { jti: claims.jti, forget_at: Instant((exp + 1).saturating_mul(1000)) })
}

#[cfg(test)]
pub mod tests {
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::oauth::client::{ClientKind, Registration};
    use crate::oauth::keys::SigningKey;

    pub const TOKEN_URL: &str = "https://phial.example/oauth/token";
    pub const NOW: Instant = Instant(1_800_000_000_000);

    /// What the conformance suite sends: no `iat`, no `nbf`.
    pub fn claims(client_id: &str, jti: &str) -> Json {
        json!({ "iss": client_id, "sub": client_id, "aud": TOKEN_URL, "exp": NOW.seconds() + 300, "jti": jti })
    }

    pub fn registration(client_id: &str, key: &SigningKey, scopes: &str) -> Registration {
        Registration {
            client_id: Some(client_id.into()),
            name: "Backend".into(),
            kind: ClientKind::Backend,
            jwks: Some(json!({ "keys": [key.public_jwk()] })),
            jwks_url: None,
            scopes: scopes.into(),
            redirect_uris: Vec::new(),
            launch_uri: None,
            ehr: false,
            demo: false,
        }
    }

    fn client(key: &SigningKey) -> Client {
        let asked = registration("client", key, "system/*.rs");
        Client::check(asked, "unused".into(), "https://phial.example/fhir", NOW).unwrap().0
    }

    fn verified(text: &str, client: &Client) -> Result<Assertion, Why> {
        let unverified = Unverified::read(text)?;
        let (kid, algorithm) = unverified.key_wanted(client)?;
        let key = client.jwks.as_ref().and_then(|jwks| jwks.find(kid, algorithm));
        unverified.verify(client, key, TOKEN_URL, NOW)
    }

    fn header(alg: Algorithm, kid: &str) -> Header {
        let mut header = Header::new(alg);
        header.kid = Some(kid.into());
        header
    }

    #[test]
    fn a_genuine_assertion_is_taken() {
        let key = SigningKey::generate().unwrap();
        let text = key.sign("JWT", &claims("client", "j1")).unwrap();
        assert_eq!(Unverified::read(&text).unwrap().client_id(), "client");
        let assertion = verified(&text, &client(&key)).unwrap();
        assert_eq!(assertion.jti, "j1");
        assert!(assertion.forget_at > Instant((NOW.seconds() + 300) * 1000));
        let mut several = claims("client", "j2");
        several["aud"] = json!(["https://other.example", TOKEN_URL]);
        several["exp"] = json!(NOW.seconds() as f64 + 100.5);
        assert!(verified(&key.sign("JWT", &several).unwrap(), &client(&key)).is_ok());
    }

    #[test]
    fn forged_assertions_are_refused() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let client = client(&key);
        let good = key.sign("JWT", &claims("client", "j")).unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        let private = EncodingKey::from_ec_der(key.pkcs8());
        let public = key.public_jwk()["x"].to_string();
        let hmac = EncodingKey::from_secret(public.as_bytes());
        let mut jku = header(Algorithm::ES384, key.kid());
        jku.jku = Some("https://evil.example/jwks".into());
        let mut critical = header(Algorithm::ES384, key.kid());
        critical.crit = Some(vec!["exp".into()]);
        let es384 = |header: &Header| encode(header, &claims("client", "j"), &private).unwrap();
        for (name, text) in [
            ("alg none", format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1])),
            ("HS256", encode(&header(Algorithm::HS256, key.kid()), &claims("client", "j"), &hmac).unwrap()),
            ("HS384", encode(&header(Algorithm::HS384, key.kid()), &claims("client", "j"), &hmac).unwrap()),
            ("another key", {
                let theirs = EncodingKey::from_ec_der(other.pkcs8());
                encode(&header(Algorithm::ES384, key.kid()), &claims("client", "j"), &theirs).unwrap()
            }),
            ("wrong kid", es384(&header(Algorithm::ES384, other.kid()))),
            ("no kid", es384(&Header::new(Algorithm::ES384))),
            ("typ", key.sign("at+jwt", &claims("client", "j")).unwrap()),
            ("crit", es384(&critical)),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("altered", format!("{}.{}A.{}", parts[0], parts[1], parts[2])),
            ("RS384 header over an EC key", {
                let rs = "eyJhbGciOiJSUzM4NCIsInR5cCI6IkpXVCJ9";
                format!("{rs}.{}.{}", parts[1], parts[2])
            }),
            ("empty", String::new()),
            ("long", "a".repeat(LENGTH_MAX + 1)),
        ] {
            assert!(verified(&text, &client).is_err(), "{name}");
        }
        assert!(verified(&es384(&jku), &client).unwrap_err().contains("jku"), "of a client without a URL");
        let mut with_url = client.clone();
        with_url.jwks_url = Some("https://app.example/jwks".into());
        assert!(verified(&es384(&jku), &with_url).unwrap_err().contains("jku"));
        jku.jku = with_url.jwks_url.clone();
        assert!(verified(&es384(&jku), &with_url).is_ok());
        assert!(verified(&good, &client).is_ok());
    }

    /// A JWT signed with an RSA key, whatever its header says.
    fn rsa_signed(alg: &str, pair: &aws_lc_rs::rsa::KeyPair) -> String {
        use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA384};
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let encoding = match alg {
            "RS256" => &RSA_PKCS1_SHA256,
            "RS512" => &RSA_PKCS1_SHA512,
            "PS384" => &RSA_PSS_SHA384,
            _ => &RSA_PKCS1_SHA384,
        };
        let header = json!({ "alg": alg, "typ": "JWT", "kid": "r" }).to_string();
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let text = format!("{}.{}", part(&header), part(&claims("client", "j").to_string()));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &aws_lc_rs::rand::SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn an_rsa_key_signs_with_rs384_and_nothing_else() {
        use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
        use aws_lc_rs::signature::KeyPair as _;
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public: PublicKeyComponents<Vec<u8>> = pair.public_key().into();
        let jwk = json!({ "kty": "RSA", "kid": "r", "alg": "RS384",
            "n": URL_SAFE_NO_PAD.encode(&public.n), "e": URL_SAFE_NO_PAD.encode(&public.e) });
        let mut asked = registration("client", &SigningKey::generate().unwrap(), "system/*.rs");
        asked.jwks = Some(json!({ "keys": [jwk.clone()] }));
        let client = Client::check(asked, "unused".into(), "https://phial.example/fhir", NOW).unwrap().0;
        assert!(verified(&rsa_signed("RS384", &pair), &client).is_ok());
        for alg in ["RS256", "RS512", "PS384"] {
            let why = verified(&rsa_signed(alg, &pair), &client).unwrap_err();
            assert!(why.contains("alg must be"), "{alg}: {why}");
        }
        // The public key as the secret of an HMAC, in the forms in which somebody has it.
        for secret in [jwk.to_string().into_bytes(), public.n.clone(), pair.public_key().as_ref().to_vec()] {
            for alg in [Algorithm::HS256, Algorithm::HS384] {
                let forged = encode(&header(alg, "r"), &claims("client", "j"), &EncodingKey::from_secret(&secret));
                assert!(verified(&forged.unwrap(), &client).is_err(), "{alg:?}");
            }
        }
        // Signed by another key of the same kind; and an elliptic key's kid with an RSA signature.
        let other = KeyPair::generate(KeySize::Rsa2048).unwrap();
        assert!(verified(&rsa_signed("RS384", &other), &client).unwrap_err().contains("signature"));
    }

    #[test]
    fn claims_that_do_not_fit_are_refused() {
        let key = SigningKey::generate().unwrap();
        let client = client(&key);
        let now = NOW.seconds();
        for (name, member, value) in [
            ("iss", "iss", json!("other")),
            ("sub", "sub", json!("other")),
            ("aud", "aud", json!("https://phial.example/oauth")),
            ("aud", "aud", json!([])),
            ("expired", "exp", json!(now)),
            ("five minutes", "exp", json!(now + LIFE_SECONDS + SKEW_SECONDS + 1)),
            ("not a time", "exp", json!(1e300)),
            ("claims", "exp", json!("soon")),
            ("not valid yet", "nbf", json!(now + SKEW_SECONDS + 1)),
            ("not valid yet", "iat", json!(now + SKEW_SECONDS + 1)),
            ("jti", "jti", json!("")),
            ("jti", "jti", json!("j".repeat(JTI_LENGTH_MAX + 1))),
            ("claims", "jti", Json::Null),
        ] {
            let mut claims = claims("client", "j");
            claims[member] = value.clone();
            let why = verified(&key.sign("JWT", &claims).unwrap(), &client).unwrap_err();
            assert!(why.contains(name), "{member} = {value}: {why}");
        }
    }
}

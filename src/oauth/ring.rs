//! The keys that tokens are signed with: ES384 for access tokens, RS256 for id_tokens (OpenID Connect wants it). One
//! ring for all servers of a database; a key that was replaced stays published until what it signed has expired.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::keys::SigningKey;
use super::shelf::Shelf;
use crate::access::VerifyingKey;
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::world::Instant;

pub(super) const SPACE: &str = "oauth-signing-key";
const NAME: &str = "ring";
/// A replaced key stays published so long: longer than any token lives.
const RETIRED_LIFE_MS: i64 = 2 * 3600 * 1000;

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Es384,
    Rs256,
}

/// One key as it is stored.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct StoredKey {
    kind: Kind,
    pkcs8: Vec<u8>,
    /// Milliseconds since 1970; None: in use.
    retired: Option<i64>,
}

/// What is stored, newest last.
pub(super) type Stored = Vec<StoredKey>;

/// A signing key as administrators see it.
pub struct KeyState {
    pub kid: String,
    pub algorithm: String,
    /// None: it signs. Otherwise until when it can still be checked with, in milliseconds since 1970.
    pub published_until: Option<i64>,
}

/// The keys of this moment, ready for use.
pub(super) struct Ring {
    access: SigningKey,
    identity: Option<RsaKey>,
    verifying: Vec<VerifyingKey>,
    public: Vec<Node>,
}

struct RsaKey {
    kid: String,
    pair: KeyPair,
}

fn generate(kind: Kind) -> Result<StoredKey> {
    let pkcs8 = match kind {
        Kind::Es384 => SigningKey::generate()?.pkcs8().to_vec(),
        Kind::Rs256 => {
            let pair = KeyPair::generate(KeySize::Rsa2048).map_err(Error::internal)?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(Error::internal)?;
            der.as_ref().to_vec()
        }
    };
    Ok(StoredKey { kind, pkcs8, retired: None })
}

impl Ring {
    /// Loads the ring, making it on the first start. Servers that start at once agree on the one that was first.
    pub(super) async fn load(shelf: &Shelf<Stored>) -> Result<Ring> {
        if let Some(stored) = shelf.get(NAME).await? {
            return Ring::read(&stored);
        }
        shelf.insert(NAME, &vec![generate(Kind::Es384)?], None, None).await?;
        let stored = shelf.get(NAME).await?.ok_or_else(|| Error::internal("the ring of signing keys is gone"))?;
        Ring::read(&stored)
    }

    /// The same with a key for id_tokens, which is made when it is first needed: that takes a moment.
    pub(super) async fn with_identity(shelf: &Shelf<Stored>) -> Result<Ring> {
        let ring = Ring::load(shelf).await?;
        if ring.identity.is_some() {
            return Ok(ring);
        }
        let made = tokio::task::spawn_blocking(|| generate(Kind::Rs256)).await.map_err(Error::internal)??;
        shelf
            .change(NAME, None, |stored| {
                if !stored.iter().any(|key| key.kind == Kind::Rs256 && key.retired.is_none()) {
                    stored.push(made.clone());
                }
                Ok(())
            })
            .await?;
        Ring::load(shelf).await
    }

    /// Begins to sign with new keys. Those of before stay published for two hours, then a later rotation drops them.
    pub(super) async fn rotate(shelf: &Shelf<Stored>, now: Instant) -> Result<Ring> {
        let made = tokio::task::spawn_blocking(|| Ok::<_, Error>([generate(Kind::Es384)?, generate(Kind::Rs256)?]));
        let made = made.await.map_err(Error::internal)??;
        Ring::load(shelf).await?;
        shelf
            .change(NAME, None, |stored| {
                stored.retain(|key| key.retired.is_none_or(|at| at + RETIRED_LIFE_MS > now.0));
                for key in stored.iter_mut().filter(|key| key.retired.is_none()) {
                    key.retired = Some(now.0);
                }
                stored.extend(made.iter().cloned());
                Ok(())
            })
            .await?;
        Ring::load(shelf).await
    }

    /// What an administrator sees of the keys, newest last.
    pub(super) async fn list(shelf: &Shelf<Stored>) -> Result<Vec<KeyState>> {
        let Some(stored) = shelf.get(NAME).await? else { return Ok(Vec::new()) };
        let public = Ring::read(&stored)?.public;
        let text = |key: &Node, name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let states = stored.iter().zip(&public).map(|(key, public)| KeyState {
            kid: text(public, "kid"),
            algorithm: text(public, "alg"),
            published_until: key.retired.map(|at| at + RETIRED_LIFE_MS),
        });
        Ok(states.collect())
    }

    fn read(stored: &Stored) -> Result<Ring> {
        let (mut access, mut identity) = (None, None);
        let (mut verifying, mut public) = (Vec::new(), Vec::new());
        for key in stored {
            match key.kind {
                Kind::Es384 => {
                    let signing = SigningKey::from_pkcs8(&key.pkcs8)?;
                    verifying.push(VerifyingKey {
                        kid: signing.kid().to_owned(),
                        algorithm: Algorithm::ES384,
                        key: signing.verifying()?,
                    });
                    public.push(signing.public_jwk());
                    if key.retired.is_none() {
                        access = Some(signing);
                    }
                }
                Kind::Rs256 => {
                    let rsa = RsaKey::read(&key.pkcs8)?;
                    public.push(rsa.1);
                    if key.retired.is_none() {
                        identity = Some(rsa.0);
                    }
                }
            }
        }
        let access = access.ok_or_else(|| Error::internal("the ring has no key for access tokens"))?;
        Ok(Ring { access, identity, verifying, public })
    }

    pub(super) fn access(&self) -> &SigningKey {
        &self.access
    }

    pub(super) fn verifying(&self) -> Vec<VerifyingKey> {
        self.verifying.clone()
    }

    /// Whether there is a key for id_tokens yet.
    pub(super) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    pub(super) fn public(&self) -> &[Node] {
        &self.public
    }

    /// An id_token of these claims.
    pub(super) fn sign_identity<T: Serialize>(&self, claims: &T) -> Result<String> {
        let key = self.identity.as_ref().ok_or_else(|| Error::internal("no key for id_tokens"))?;
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key.kid }).to_string();
        let claims = serde_json::to_vec(claims).map_err(Error::internal)?;
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0u8; key.pair.public_modulus_len()];
        key.pair
            .sign_digest(&RSA_PKCS1_SHA256, &digest(&SHA256, text.as_bytes()), &mut signature)
            .map_err(Error::internal)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl RsaKey {
    fn read(pkcs8: &[u8]) -> Result<(RsaKey, Node)> {
        let pair = KeyPair::from_pkcs8(pkcs8).map_err(Error::internal)?;
        let (n, e) = public_numbers(pair.public_key().as_ref()).ok_or_else(|| Error::internal("no RSA public key"))?;
        let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
        let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        let public = json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": n, "e": e });
        Ok((RsaKey { kid, pair }, public))
    }
}

/// Modulus and exponent of a DER `RSAPublicKey` (RFC 8017), without leading zeros.
fn public_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
        let (head, rest) = der.split_at_checked(2)?;
        let (length, rest) = match head[1] {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        (head[0] == tag).then(|| rest.split_at_checked(length))?
    }
    let plain = |number: &'_ [u8]| number.iter().position(|byte| *byte != 0).unwrap_or(0);
    let (sequence, _) = element(der, 0x30)?;
    let (n, rest) = element(sequence, 0x02)?;
    let (e, _) = element(rest, 0x02)?;
    Some((&n[plain(n)..], &e[plain(e)..]))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;

    #[test]
    fn an_id_token_verifies_against_the_published_key() {
        let stored = vec![generate(Kind::Es384).unwrap(), generate(Kind::Rs256).unwrap()];
        let ring = Ring::read(&stored).unwrap();
        let token = ring.sign_identity(&json!({ "sub": "x", "aud": "app", "exp": 4_000_000_000_u64 })).unwrap();
        let public = &ring.public()[1];
        let text = |name: &str| public[name].as_str().unwrap().to_owned();
        let key = DecodingKey::from_rsa_components(&text("n"), &text("e")).unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["app"]);
        let read = decode::<Node>(&token, &key, &validation).unwrap();
        assert_eq!(read.claims["sub"], "x");
        assert_eq!(read.header.kid, Some(text("kid")));
        assert_eq!(text("e"), "AQAB");
        assert!(["d", "p", "q"].iter().all(|part| public.get(part).is_none()));
    }

    #[test]
    fn what_is_no_public_key_has_no_numbers() {
        for der in [&b""[..], b"\x30", b"\x30\x05\x02\x01", b"\x02\x01\x01", b"\x30\x84\xff\xff\xff\xff"] {
            assert!(public_numbers(der).is_none());
        }
    }
}

//! Public keys of a client (RFC 7517): what may be registered, and which key an assertion is signed with.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fhir::json::Node;

/// Keys a client may register.
pub const KEYS_MAX: usize = 20;
/// Keys of a published set that are looked at.
const PUBLISHED_MAX: usize = 100;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const P384_BYTES: usize = 48;

/// The checked public keys of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks(Vec<PublicKey>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PublicKey {
    kid: String,
    material: Material,
}

/// Base64url as in the JWK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Material {
    Rsa { n: String, e: String },
    P384 { x: String, y: String },
}

impl Jwks {
    /// Each key by its `kid` and its RFC 7638 thumbprint: the same where the keys are.
    pub fn thumbprints(&self) -> Vec<String> {
        let one = |key: &PublicKey| {
            let canonical = match &key.material {
                Material::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
                Material::P384 { x, y } => format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#),
            };
            let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
            if thumbprint == key.kid { thumbprint } else { format!("{} ({thumbprint})", key.kid) }
        };
        self.0.iter().map(one).collect()
    }

    /// Checks a JWK Set (`{"keys": [...]}`) for registration: RS384 and ES384 keys with distinct `kid`s, public parts only.
    ///
    /// # Errors
    /// `Kind::Invalid` with the place of the fault.
    pub fn check(set: &Node) -> Result<Jwks> {
        let keys = set.get("keys").and_then(Node::as_array).ok_or_else(|| {
            Error::invalid("A JWK Set is a JSON object with an array 'keys' (RFC 7517).").at("jwks.keys")
        })?;
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(Error::invalid(format!("A client has between 1 and {KEYS_MAX} keys.")).at("jwks.keys"));
        }
        let mut checked: Vec<PublicKey> = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let place = format!("jwks.keys[{n}]");
            let key = public_key(key).map_err(|why| Error::invalid(why).at(place.clone()))?;
            if checked.iter().any(|other| other.kid == key.kid) {
                return Err(Error::invalid("Every key needs a kid of its own.").at(place));
            }
            checked.push(key);
        }
        Ok(Jwks(checked))
    }

    /// Those keys of a set published elsewhere that can be used here; others are none of this server's business (RFC
    /// 7517, section 5). None: it is no JWK Set. Of several keys of one id and kind the first counts.
    pub fn usable(set: &Node) -> Option<Jwks> {
        let keys = set.get("keys")?.as_array()?;
        Some(Jwks(keys.iter().take(PUBLISHED_MAX).filter_map(|key| public_key(key).ok()).collect()))
    }

    /// The key of this id that can verify this algorithm.
    pub fn find(&self, kid: &str, algorithm: Algorithm) -> Option<DecodingKey> {
        self.0.iter().filter(|key| key.kid == kid).find_map(|key| match (&key.material, algorithm) {
            (Material::Rsa { n, e }, Algorithm::RS384) => DecodingKey::from_rsa_components(n, e).ok(),
            (Material::P384 { x, y }, Algorithm::ES384) => DecodingKey::from_ec_components(x, y).ok(),
            _ => None,
        })
    }
}

fn public_key(key: &Node) -> Result<PublicKey, &'static str> {
    let text = |name: &str| key.get(name).and_then(Node::as_str);
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| key.get(name).is_some()) {
        return Err("The key has private parts: register public keys only, and replace this one.");
    }
    let kid = text("kid").filter(|kid| !kid.is_empty() && kid.len() <= 256).ok_or("The key needs a kid.")?;
    if text("use").is_some_and(|usage| usage != "sig") {
        return Err("The key is not for signatures ('use').");
    }
    if key.get("key_ops").and_then(Node::as_array).is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("The key is not for verifying signatures ('key_ops').");
    }
    let size = |value: &str| URL_SAFE_NO_PAD.decode(value).map(|bytes| bytes.len()).ok();
    let (material, algorithm) = match text("kty") {
        Some("RSA") => {
            let (n, e) = text("n").zip(text("e")).ok_or("An RSA key needs 'n' and 'e'.")?;
            if !size(n).is_some_and(|bytes| RSA_BYTES.contains(&bytes)) || size(e).is_none_or(|bytes| bytes > 8) {
                return Err("The RSA key must have 2048 to 8192 bits, in base64url without padding.");
            }
            (Material::Rsa { n: n.to_owned(), e: e.to_owned() }, "RS384")
        }
        Some("EC") if text("crv") == Some("P-384") => {
            let (x, y) = text("x").zip(text("y")).ok_or("An EC key needs 'x' and 'y'.")?;
            if size(x) != Some(P384_BYTES) || size(y) != Some(P384_BYTES) {
                return Err("A P-384 key has two coordinates of 48 bytes, in base64url without padding.");
            }
            (Material::P384 { x: x.to_owned(), y: y.to_owned() }, "ES384")
        }
        _ => return Err("Keys are RSA (for RS384) or EC on P-384 (for ES384)."),
    };
    if text("alg").is_some_and(|named| named != algorithm) {
        return Err("The key is for another algorithm than RS384 or ES384 ('alg').");
    }
    Ok(PublicKey { kid: kid.to_owned(), material })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::keys::generate_es384;

    #[test]
    fn only_public_signature_keys_of_the_two_algorithms_are_taken() {
        let (private, public) = generate_es384().unwrap();
        let changed = |name: &str, value: Node| {
            let mut key = public.clone();
            key[name] = value;
            json!({ "keys": [key] })
        };
        let set = Jwks::check(&json!({ "keys": [public.clone()] })).unwrap();
        let kid = public["kid"].as_str().unwrap();
        assert!(set.find(kid, Algorithm::ES384).is_some());
        assert!(set.find(kid, Algorithm::RS384).is_none());
        assert!(set.find(kid, Algorithm::HS256).is_none());
        assert!(set.find("other", Algorithm::ES384).is_none());
        let rsa = |bytes: usize| {
            let n = URL_SAFE_NO_PAD.encode(vec![0xd5; bytes]);
            json!({ "keys": [{ "kty": "RSA", "kid": "r", "n": n, "e": "AQAB" }] })
        };
        assert!(Jwks::check(&rsa(256)).unwrap().find("r", Algorithm::RS384).is_some());
        for bad in [
            json!({}),
            json!([]),
            json!({ "keys": [] }),
            json!({ "keys": [private] }),
            json!({ "keys": [public.clone(), public.clone()] }),
            changed("kid", json!("")),
            changed("use", json!("enc")),
            changed("alg", json!("ES256")),
            changed("crv", json!("P-256")),
            changed("x", json!("AQAB")),
            changed("key_ops", json!(["sign"])),
            changed("kty", json!("oct")),
            rsa(128),
            rsa(2048),
            json!({ "keys": vec![public.clone(); KEYS_MAX + 1] }),
        ] {
            assert!(Jwks::check(&bad).is_err());
        }
        let (_, other) = generate_es384().unwrap();
        let published = json!({ "keys": [private, changed("use", json!("enc"))["keys"][0], {}, 1, public, other] });
        let usable = Jwks::usable(&published).unwrap();
        assert!(usable.find(kid, Algorithm::ES384).is_some() && usable.0.len() == 2);
        assert!(Jwks::usable(&json!({})).is_none() && Jwks::usable(&json!({ "keys": [] })).unwrap().0.is_empty());
    }
}

//! Key pairs and JWKs of the authorization server and of test clients: ES384 (P-384) throughout.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::fhir::json::Node;

/// Bytes of one coordinate on P-384.
const COORDINATE: usize = 48;

/// A P-384 key pair that signs JWTs.
pub struct SigningKey {
    kid: String,
    pkcs8: Zeroizing<Vec<u8>>,
    x: String,
    y: String,
}

impl SigningKey {
    /// A new key; its id is its RFC 7638 thumbprint.
    pub fn generate() -> Result<SigningKey> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(Error::internal)?;
        let document = pair.to_pkcs8v1().map_err(Error::internal)?;
        SigningKey::from_pkcs8(document.as_ref())
    }

    /// Reads a key as [`SigningKey::pkcs8`] gives it.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<SigningKey> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, pkcs8).map_err(Error::internal)?;
        // An uncompressed point: 0x04, x, y.
        let point = pair.public_key().as_ref();
        let x = URL_SAFE_NO_PAD.encode(&point[1..=COORDINATE]);
        let y = URL_SAFE_NO_PAD.encode(&point[COORDINATE + 1..]);
        let canonical = format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Ok(SigningKey { kid, pkcs8: Zeroizing::new(pkcs8.to_vec()), x, y })
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key, to be sealed.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub fn public_jwk(&self) -> Node {
        json!({
            "kty": "EC", "crv": "P-384", "alg": "ES384", "use": "sig",
            "kid": self.kid, "x": self.x, "y": self.y
        })
    }

    pub fn verifying(&self) -> Result<DecodingKey> {
        DecodingKey::from_ec_components(&self.x, &self.y).map_err(Error::internal)
    }

    /// A JWT of these claims. `typ` is the media type of its header (`JWT`, `at+jwt`).
    pub fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String> {
        let mut header = Header::new(Algorithm::ES384);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.kid.clone());
        encode(&header, claims, &EncodingKey::from_ec_der(&self.pkcs8)).map_err(Error::internal)
    }
}

/// A new ES384 key for a client: (private JWK, public JWK). The private one is for its owner alone.
pub fn generate_es384() -> Result<(Node, Node)> {
    let key = SigningKey::generate()?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.pkcs8()).map_err(Error::internal)?;
    let private: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(Error::internal)?;
    let public = key.public_jwk();
    let mut with_private = public.clone();
    with_private["d"] = json!(URL_SAFE_NO_PAD.encode(private.as_ref()));
    Ok((with_private, public))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_after_storing() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(key.kid(), again.kid());
        assert_eq!(key.public_jwk(), again.public_jwk());
        assert!(key.public_jwk().get("d").is_none());
    }

    #[test]
    fn a_generated_private_jwk_is_that_of_its_public_one() {
        let (private, public) = generate_es384().unwrap();
        let text = |jwk: &Node, name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        let mut point = vec![4];
        point.extend(text(&public, "x"));
        point.extend(text(&public, "y"));
        let scalar = text(&private, "d");
        assert_eq!(scalar.len(), COORDINATE);
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P384_SHA384_FIXED_SIGNING, &scalar, &point).unwrap();
        assert!(public.get("d").is_none());
    }
}

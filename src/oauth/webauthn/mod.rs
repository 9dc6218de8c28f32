//! WebAuthn as a relying party (W3C Web Authentication, level 2): the checks of 7.1 for a registration and of 7.2 for an
//! assertion, in their order. Pure: no store, no HTTP. ES256 and RS256; attestation is not asked for (`adr/0019-passkeys.md`).

mod cbor;
#[cfg(test)]
pub(crate) mod tests;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use cbor::Item;

pub const ES256: i64 = -7;
pub const RS256: i64 = -257;
/// Bytes of a credential id at most (level 2, 6.5.1).
const ID_MAX: usize = 1023;
/// Flags of authenticator data.
const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const ATTESTED: u8 = 1 << 6;
const EXTENSIONS: u8 = 1 << 7;

/// Why something was refused, in fixed words for the record.
pub type Refused = &'static str;

/// Whom credentials are for: the server as browsers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The host.
    pub rp_id: String,
    /// `https://phial.example`.
    pub origin: String,
}

/// The public key of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublicKey {
    /// The point, uncompressed.
    Es256(Vec<u8>),
    Rs256 {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// A credential that has passed registration.
#[derive(Debug)]
pub struct Registered {
    pub id: Vec<u8>,
    pub key: PublicKey,
    pub count: u32,
}

/// What a browser gives for a login, decoded.
#[derive(Clone, Default)]
pub struct Assertion {
    pub id: Vec<u8>,
    pub client_data: Vec<u8>,
    pub auth_data: Vec<u8>,
    pub signature: Vec<u8>,
    /// Empty: the authenticator gave none.
    pub user_handle: Vec<u8>,
}

impl Site {
    /// None: at this address browsers offer no credentials. They want https and a name; `localhost` will do.
    pub fn of(issuer: &str) -> Option<Site> {
        let (scheme, rest) = issuer.split_once("://")?;
        let host_port = rest.split('/').next()?;
        let host = host_port.split(':').next()?;
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
            && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let fits = is_name && (scheme == "https" || (scheme == "http" && host == "localhost"));
        fits.then(|| Site { rp_id: host.to_owned(), origin: format!("{scheme}://{host_port}") })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Steps 5 to 11 of 7.1, 10 to 14 of 7.2: type, challenge, origin, token binding.
fn check_client_data(site: &Site, kind: &str, challenge: &[u8], bytes: &[u8]) -> Result<[u8; 32], Refused> {
    let data: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| "the client data is no JSON")?;
    if data["type"] != kind {
        return Err("the client data is of another ceremony");
    }
    let given = data["challenge"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
    let same: bool = given.ct_eq(challenge).into();
    if !same || challenge.is_empty() {
        return Err("the challenge is another");
    }
    if data["origin"] != site.origin.as_str() {
        return Err("the origin is another");
    }
    if data.get("crossOrigin").is_some_and(|cross| *cross != false) {
        return Err("it was asked for in the frame of another site");
    }
    // TLS token binding is not spoken here: nobody can have bound to it.
    if data.pointer("/tokenBinding/status").is_some_and(|status| status == "present") {
        return Err("it is bound to another connection");
    }
    Ok(sha256(bytes))
}

/// Authenticator data: flags, counter, and what follows them.
struct AuthData<'a> {
    flags: u8,
    count: u32,
    rest: &'a [u8],
}

/// Steps 13 to 15 of 7.1, 15 to 17 of 7.2: RP ID, user present, user verified.
fn check_auth_data<'a>(site: &Site, bytes: &'a [u8]) -> Result<AuthData<'a>, Refused> {
    let short = "the authenticator data is cut short";
    let (rp, rest) = bytes.split_at_checked(32).ok_or(short)?;
    let (head, rest) = rest.split_at_checked(5).ok_or(short)?;
    if rp != sha256(site.rp_id.as_bytes()) {
        return Err("the RP ID is another");
    }
    let flags = head[0];
    if flags & USER_PRESENT == 0 {
        return Err("nobody was present");
    }
    if flags & USER_VERIFIED == 0 {
        return Err("the person was not verified");
    }
    Ok(AuthData { flags, count: u32::from_be_bytes([head[1], head[2], head[3], head[4]]), rest })
}

/// Extensions were not asked for; what an authenticator adds by itself must be well-formed, and nothing may follow.
fn check_end(flags: u8, rest: &[u8]) -> Result<(), Refused> {
    let wrong = "something follows the authenticator data";
    match flags & EXTENSIONS != 0 {
        true => match cbor::read(rest) {
            Some((Item::Map(_), [])) => Ok(()),
            _ => Err(wrong),
        },
        false if rest.is_empty() => Ok(()),
        false => Err(wrong),
    }
}

/// Step 16 of 7.1: a key of an algorithm that was asked for.
fn public_key(cose: &Item<'_>) -> Result<PublicKey, Refused> {
    let number = |of: i64| cose.numbered(of).and_then(Item::int);
    let bytes = |of: i64| cose.numbered(of).and_then(Item::bytes);
    let wrong = "the public key is malformed";
    match (number(1), number(3)) {
        (Some(2), Some(ES256)) if number(-1) == Some(1) => match (bytes(-2), bytes(-3)) {
            (Some(x), Some(y)) if x.len() == 32 && y.len() == 32 => Ok(PublicKey::Es256([&[4u8][..], x, y].concat())),
            _ => Err(wrong),
        },
        (Some(3), Some(RS256)) => match (bytes(-1), bytes(-2)) {
            (Some(n), Some(e)) if (256..=1024).contains(&n.len()) && (1..=8).contains(&e.len()) => {
                Ok(PublicKey::Rs256 { n: n.to_vec(), e: e.to_vec() })
            }
            _ => Err(wrong),
        },
        _ => Err("the key is of an algorithm that was not asked for"),
    }
}

impl PublicKey {
    fn algorithm(&self) -> i64 {
        match self {
            PublicKey::Es256(_) => ES256,
            PublicKey::Rs256 { .. } => RS256,
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Refused> {
        let verified = match self {
            PublicKey::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
            PublicKey::Rs256 { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        verified.map_err(|_| "the signature is wrong")
    }
}

/// Registers a credential: 7.1.
///
/// # Errors
/// The first check that fails.
pub fn register(site: &Site, challenge: &[u8], client_data: &[u8], attestation: &[u8]) -> Result<Registered, Refused> {
    let hash = check_client_data(site, "webauthn.create", challenge, client_data)?;
    let malformed = "the attestation is malformed";
    let (object, behind) = cbor::read(attestation).ok_or(malformed)?;
    if !behind.is_empty() {
        return Err(malformed);
    }
    let auth_data = object.named("authData").and_then(Item::bytes).ok_or(malformed)?;
    let data = check_auth_data(site, auth_data)?;
    if data.flags & ATTESTED == 0 {
        return Err("no credential is in it");
    }
    // aaguid, length of the id, id, public key.
    let (_, rest) = data.rest.split_at_checked(16).ok_or(malformed)?;
    let (length, rest) = rest.split_at_checked(2).ok_or(malformed)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (id, rest) = rest.split_at_checked(length).ok_or(malformed)?;
    if id.is_empty() || id.len() > ID_MAX {
        return Err("the credential id is too long");
    }
    let (cose, rest) = cbor::read(rest).ok_or(malformed)?;
    let key = public_key(&cose)?;
    check_end(data.flags, rest)?;
    let statement = object.named("attStmt").ok_or(malformed)?;
    match object.named("fmt") {
        Some(Item::Text("none")) if *statement == Item::Map(Vec::new()) => {}
        // Self attestation: the key vouches for itself.
        Some(Item::Text("packed")) if statement.named("x5c").is_none() => {
            let signature = statement.named("sig").and_then(Item::bytes).ok_or(malformed)?;
            if statement.named("alg").and_then(Item::int) != Some(key.algorithm()) {
                return Err(malformed);
            }
            key.verify(&[auth_data, &hash].concat(), signature)?;
        }
        _ => return Err("the attestation is of a kind that was not asked for"),
    }
    Ok(Registered { id: id.to_vec(), key, count: data.count })
}

/// Checks an assertion of this credential: 7.2 from step 7 on. Gives the new count.
///
/// # Errors
/// The first check that fails.
pub fn check(site: &Site, challenge: &[u8], key: &PublicKey, count: u32, given: &Assertion) -> Result<u32, Refused> {
    let hash = check_client_data(site, "webauthn.get", challenge, &given.client_data)?;
    let data = check_auth_data(site, &given.auth_data)?;
    if data.flags & ATTESTED != 0 {
        return Err("something follows the authenticator data");
    }
    check_end(data.flags, data.rest)?;
    key.verify(&[&given.auth_data[..], &hash].concat(), &given.signature)?;
    // A counter that does not grow is that of a copy.
    if (data.count != 0 || count != 0) && data.count <= count {
        return Err("the counter did not grow: the credential may have been copied");
    }
    Ok(data.count)
}

//! A passkey in software, and each refusal of both ceremonies.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::*;

/// An authenticator with one key.
pub struct Authenticator {
    pub pair: EcdsaKeyPair,
    pub id: Vec<u8>,
    pub count: u32,
    pub flags: u8,
}

/// The site that ceremonies of tests are for.
pub fn site() -> Site {
    Site::of("https://phial.example").unwrap()
}

fn bytes(of: &[u8]) -> Vec<u8> {
    match of.len() {
        length @ 0..=23 => [&[0x40 | length as u8][..], of].concat(),
        length @ 24..=255 => [&[0x58, length as u8][..], of].concat(),
        length => [&[0x59, (length >> 8) as u8, length as u8][..], of].concat(),
    }
}

pub fn client_data(kind: &str, challenge: &[u8], origin: &str) -> Vec<u8> {
    let challenge = URL_SAFE_NO_PAD.encode(challenge);
    json!({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false}).to_string().into_bytes()
}

impl Authenticator {
    pub fn new() -> Authenticator {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Authenticator { pair, id: b"credential-1".to_vec(), count: 0, flags: USER_PRESENT | USER_VERIFIED }
    }

    fn cose(&self) -> Vec<u8> {
        let point = self.pair.public_key().as_ref();
        [&b"\xa5\x01\x02\x03\x26\x20\x01\x21"[..], &bytes(&point[1..33]), b"\x22", &bytes(&point[33..])].concat()
    }

    fn head(&self, site: &Site, flags: u8) -> Vec<u8> {
        [&sha256(site.rp_id.as_bytes())[..], &[flags], &self.count.to_be_bytes()].concat()
    }

    fn registration(&self, site: &Site, cose: &[u8]) -> Vec<u8> {
        let length = (self.id.len() as u16).to_be_bytes();
        [&self.head(site, self.flags | ATTESTED)[..], &[0; 16], &length, &self.id, cose].concat()
    }

    /// An attestation object of the format `none`.
    pub fn attestation(&self, site: &Site) -> Vec<u8> {
        attestation("none", b"\xa0", &self.registration(site, &self.cose()))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub fn assertion(&mut self, site: &Site, challenge: &[u8]) -> Assertion {
        self.count += 1;
        self.signed(site, client_data("webauthn.get", challenge, &site.origin), self.flags, &[])
    }

    fn signed(&self, site: &Site, client_data: Vec<u8>, flags: u8, behind: &[u8]) -> Assertion {
        let auth_data = [&self.head(site, flags)[..], behind].concat();
        let signature = self.sign(&[&auth_data[..], &sha256(&client_data)].concat());
        Assertion { id: self.id.clone(), client_data, auth_data, signature, user_handle: Vec::new() }
    }
}

fn attestation(format: &str, statement: &[u8], auth_data: &[u8]) -> Vec<u8> {
    let format = [&[0x60 | format.len() as u8][..], format.as_bytes()].concat();
    [&b"\xa3\x63fmt"[..], &format, b"\x67attStmt", statement, b"\x68authData", &bytes(auth_data)].concat()
}

const CHALLENGE: &[u8] = b"0123456789abcdef0123456789abcdef";

#[test]
fn a_site_is_a_name_under_https() {
    assert_eq!(site(), Site { rp_id: "phial.example".into(), origin: "https://phial.example".into() });
    assert_eq!(Site::of("http://localhost:8080").unwrap().origin, "http://localhost:8080");
    assert_eq!(Site::of("https://phial.example:8443/clinic").unwrap().origin, "https://phial.example:8443");
    for none in
        ["http://phial.example", "http://127.0.0.1:8080", "https://127.0.0.1", "https://[::1]", "phial", "https://"]
    {
        assert_eq!(Site::of(none), None, "{none}");
    }
}

#[test]
fn a_credential_registers_and_logs_in() {
    let (site, mut key) = (site(), Authenticator::new());
    let client = client_data("webauthn.create", CHALLENGE, &site.origin);
    let made = register(&site, CHALLENGE, &client, &key.attestation(&site)).unwrap();
    assert_eq!((made.id.as_slice(), made.count), (&b"credential-1"[..], 0));
    for count in 1..4 {
        let given = key.assertion(&site, CHALLENGE);
        assert_eq!(check(&site, CHALLENGE, &made.key, count - 1, &given), Ok(count));
    }
    // An authenticator without a counter says zero for ever.
    key.count = 0;
    let client = client_data("webauthn.get", CHALLENGE, &site.origin);
    let given = key.signed(&site, client, key.flags, &[]);
    assert_eq!(check(&site, CHALLENGE, &made.key, 0, &given), Ok(0));
    // Self attestation, and an extension that the authenticator added by itself.
    let client = client_data("webauthn.create", CHALLENGE, &site.origin);
    let auth_data = key.registration(&site, &key.cose());
    let signature = bytes(&key.sign(&[&auth_data[..], &sha256(&client)].concat()));
    let own = [&b"\xa2\x63alg\x26\x63sig"[..], &signature].concat();
    assert!(register(&site, CHALLENGE, &client, &attestation("packed", &own, &auth_data)).is_ok());
    let mut extended = [&auth_data[..], b"\xa1\x61a\xf5"].concat();
    extended[32] |= EXTENSIONS;
    assert!(register(&site, CHALLENGE, &client, &attestation("none", b"\xa0", &extended)).is_ok());
}

#[test]
fn each_check_of_a_registration_refuses() {
    let (site, key) = (site(), Authenticator::new());
    let client = || client_data("webauthn.create", CHALLENGE, &site.origin);
    let good = key.registration(&site, &key.cose());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut data = good.clone();
        change(&mut data);
        attestation("none", b"\xa0", &data)
    };
    let plain = key.attestation(&site);
    let mut bound: serde_json::Value = serde_json::from_slice(&client()).unwrap();
    bound["tokenBinding"] = json!({"status": "present", "id": "x"});
    let mut framed: serde_json::Value = serde_json::from_slice(&client()).unwrap();
    framed["crossOrigin"] = json!(true);
    let ed25519 = b"\xa4\x01\x01\x03\x27\x20\x06\x21\x58\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let short_key = [&b"\xa5\x01\x02\x03\x26\x20\x01\x21"[..], &bytes(&[1; 31]), b"\x22", &bytes(&[1; 32])].concat();
    let small_rsa = [&b"\xa4\x01\x03\x03\x39\x01\x00\x20"[..], &bytes(&[1; 128]), b"\x21\x43\x01\x00\x01"].concat();
    let forged = [&b"\xa2\x63alg\x26\x63sig"[..], &bytes(&key.sign(b"something else"))].concat();
    let other_alg = [&b"\xa2\x63alg\x27\x63sig"[..], &bytes(&key.sign(b"x"))].concat();
    let cases: Vec<(Vec<u8>, Vec<u8>, &str)> = vec![
        (b"{".to_vec(), plain.clone(), "no JSON"),
        (client_data("webauthn.get", CHALLENGE, &site.origin), plain.clone(), "another ceremony"),
        (client_data("webauthn.create", b"another", &site.origin), plain.clone(), "challenge"),
        (client_data("webauthn.create", b"", &site.origin), plain.clone(), "challenge"),
        (client_data("webauthn.create", CHALLENGE, "https://evil.example"), plain.clone(), "origin"),
        (client_data("webauthn.create", CHALLENGE, "http://phial.example"), plain.clone(), "origin"),
        (framed.to_string().into_bytes(), plain.clone(), "frame"),
        (bound.to_string().into_bytes(), plain.clone(), "connection"),
        (client(), b"\xa0".to_vec(), "malformed"),
        (client(), plain[..plain.len() - 1].to_vec(), "malformed"),
        (client(), [&plain[..], b"\x00"].concat(), "malformed"),
        (client(), with(&|data| data.truncate(36)), "cut short"),
        (client(), with(&|data| data[0] ^= 1), "RP ID"),
        (client(), with(&|data| data[32] &= !USER_PRESENT), "present"),
        (client(), with(&|data| data[32] &= !USER_VERIFIED), "verified"),
        (client(), with(&|data| data[32] &= !ATTESTED), "no credential"),
        (client(), with(&|data| data[53] = 0xff), "malformed"),
        (client(), with(&|data| data.extend(b"\x00")), "follows"),
        (client(), with(&|data| data[32] |= EXTENSIONS), "follows"),
        (client(), attestation("none", b"\xa0", &key.registration(&site, ed25519)), "algorithm"),
        (client(), attestation("none", b"\xa0", &key.registration(&site, &short_key)), "public key"),
        (client(), attestation("none", b"\xa0", &key.registration(&site, &small_rsa)), "public key"),
        (client(), attestation("none", b"\xa1\x01\x01", &good), "kind"),
        (client(), attestation("fido-u2f", b"\xa0", &good), "kind"),
        (client(), attestation("packed", b"\xa1\x63x5c\x80", &good), "kind"),
        (client(), attestation("packed", &forged, &good), "signature"),
        (client(), attestation("packed", &other_alg, &good), "malformed"),
    ];
    for (n, (client, attestation, why)) in cases.iter().enumerate() {
        let refused = register(&site, CHALLENGE, client, attestation).expect_err(why);
        assert!(refused.contains(why), "{n}: {refused}, expected {why}");
    }
    let mut nameless = Authenticator::new();
    nameless.id.clear();
    assert!(register(&site, CHALLENGE, &client(), &nameless.attestation(&site)).is_err());
    assert!(
        register(&site, b"", &client_data("webauthn.create", b"", &site.origin), &plain).is_err(),
        "no challenge was given out"
    );
}

#[test]
fn each_check_of_a_login_refuses() {
    let (site, mut key) = (site(), Authenticator::new());
    let other = Site::of("https://other.example").unwrap();
    let client = client_data("webauthn.create", CHALLENGE, &site.origin);
    let made = register(&site, CHALLENGE, &client, &key.attestation(&site)).unwrap();
    key.count = 9;
    let get = |challenge: &[u8], origin: &str| client_data("webauthn.get", challenge, origin);
    let good = key.signed(&site, get(CHALLENGE, &site.origin), key.flags, &[]);
    let mut flipped = good.clone();
    let last = flipped.signature.len() - 1;
    flipped.signature[last] ^= 1;
    let swapped =
        Assertion { client_data: get(CHALLENGE, &site.origin).into_iter().chain(*b" ").collect(), ..good.clone() };
    let stranger = Authenticator { count: 9, ..Authenticator::new() };
    let plain = |client: Vec<u8>| key.signed(&site, client, key.flags, &[]);
    for (n, (given, count, why)) in [
        (plain(client.clone()), 0, "another ceremony"),
        (plain(get(b"another", &site.origin)), 0, "challenge"),
        (plain(get(CHALLENGE, &other.origin)), 0, "origin"),
        (key.signed(&other, get(CHALLENGE, &site.origin), key.flags, &[]), 0, "RP ID"),
        (key.signed(&site, get(CHALLENGE, &site.origin), USER_VERIFIED, &[]), 0, "present"),
        (key.signed(&site, get(CHALLENGE, &site.origin), USER_PRESENT, &[]), 0, "verified"),
        (key.signed(&site, get(CHALLENGE, &site.origin), key.flags, b"\x00"), 0, "follows"),
        (key.signed(&site, get(CHALLENGE, &site.origin), key.flags | EXTENSIONS, b"\x01"), 0, "follows"),
        (key.signed(&site, get(CHALLENGE, &site.origin), key.flags | ATTESTED, b""), 0, "follows"),
        (stranger.signed(&site, get(CHALLENGE, &site.origin), key.flags, &[]), 0, "signature"),
        (flipped, 0, "signature"),
        (swapped, 0, "signature"),
        (Assertion { signature: Vec::new(), ..good.clone() }, 0, "signature"),
        (Assertion { auth_data: good.auth_data[..36].to_vec(), ..good.clone() }, 0, "cut short"),
        (good.clone(), 9, "counter"),
        (good.clone(), 10, "counter"),
        (
            Authenticator { count: 0, ..key_of(&key) }.signed(&site, get(CHALLENGE, &site.origin), key.flags, &[]),
            9,
            "counter",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = check(&site, CHALLENGE, &made.key, count, &given).expect_err(why);
        assert!(refused.contains(why), "{n}: {refused}, expected {why}");
    }
    assert_eq!(check(&site, CHALLENGE, &made.key, 8, &good), Ok(9));
}

/// The same key in another device.
fn key_of(of: &Authenticator) -> Authenticator {
    let pkcs8 = of.pair.to_pkcs8v1().unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    Authenticator { pair, id: of.id.clone(), count: of.count, flags: of.flags }
}

//! Time-based one-time passwords (RFC 6238: SHA-1, six digits, 30 seconds) and recovery codes. Pure.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::form::escaped;
use crate::world::{self, Instant};

pub const STEP_SECONDS: i64 = 30;
const SECRET_BYTES: usize = 20;
/// Steps that the clock of a phone may be off, either way.
const DRIFT_STEPS: i64 = 1;
pub const RECOVERY_CODES: usize = 10;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A new secret.
pub fn secret() -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0u8; SECRET_BYTES]);
    world::secret(&mut bytes);
    bytes
}

/// RFC 4648, without padding.
pub fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    let (mut held, mut bits) = (0u32, 0u32);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(BASE32[(held >> bits) as usize & 31]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(char::from(BASE32[(held << (5 - bits)) as usize & 31]));
    }
    out
}

/// The other way; None when it is no base32.
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut held, mut bits) = (0u32, 0u32);
    for byte in text.bytes().filter(|byte| !b" =-".contains(byte)) {
        let value = BASE32.iter().position(|known| *known == byte.to_ascii_uppercase())?;
        held = (held << 5) | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Some(out)
}

/// The code of a step.
fn code(secret: &[u8], step: i64) -> u32 {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[tag.len() - 1] & 15);
    let word = u32::from_be_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]);
    (word & 0x7fff_ffff) % 1_000_000
}

/// The code of this moment, as a person's device shows it.
pub fn code_at(secret: &[u8], now: Instant) -> String {
    format!("{:06}", code(secret, now.seconds().div_euclid(STEP_SECONDS)))
}

/// The step whose code this is, if it is one of now and later than `last_step`: a code counts once.
pub fn matched(secret: &[u8], given: &str, last_step: i64, now: Instant) -> Option<i64> {
    let given: String = given.chars().filter(|c| !c.is_whitespace()).collect();
    if given.len() != 6 {
        return None;
    }
    let present = now.seconds().div_euclid(STEP_SECONDS);
    let mut found = None;
    for step in present - DRIFT_STEPS..=present + DRIFT_STEPS {
        let same: bool = format!("{:06}", code(secret, step)).as_bytes().ct_eq(given.as_bytes()).into();
        if same && step > last_step {
            found = Some(step);
        }
    }
    found
}

/// The address that enrols a device (the key URI format of authenticator apps).
pub fn uri(secret: &[u8], issuer: &str, username: &str) -> String {
    let (issuer, username) = (escaped(issuer), escaped(username));
    format!("otpauth://totp/{issuer}:{username}?secret={}&issuer={issuer}", base32(secret))
}

/// New recovery codes, to be shown once: `ABCD-EFGH-IJKL-MNOP`.
pub fn recovery_codes() -> Vec<Zeroizing<String>> {
    let one = || {
        let mut bytes = Zeroizing::new([0u8; 10]);
        world::secret(&mut *bytes);
        let text = base32(&*bytes);
        let parts: Vec<&str> = (0..4).map(|n| &text[n * 4..n * 4 + 4]).collect();
        Zeroizing::new(parts.join("-"))
    };
    (0..RECOVERY_CODES).map(|_| one()).collect()
}

/// What is kept of a recovery code; it has 80 random bits, so a plain hash hides it.
pub fn recovery_hash(code: &str) -> [u8; 32] {
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    let mut out = [0u8; 32];
    out.copy_from_slice(digest(&SHA256, plain.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &[u8] = b"12345678901234567890";

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238, appendix B, the last six of eight digits.
        for (seconds, expected) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(code_at(RFC, Instant(seconds * 1000)), expected);
        }
    }

    #[test]
    fn a_code_counts_once_and_within_a_step() {
        let now = Instant(1_800_000_015_000);
        let code = code_at(RFC, now);
        let step = matched(RFC, &code, 0, now).unwrap();
        assert_eq!(matched(RFC, &code, step, now), None, "used");
        for (off, good) in [(-30, true), (30, true), (-60, false), (60, false)] {
            assert_eq!(matched(RFC, &code, 0, now.plus_ms(off * 1000)).is_some(), good, "{off}");
        }
        for wrong in ["", "000000x", "12345", "abcdef", &format!("{code}0")] {
            assert!(matched(RFC, wrong, 0, now).is_none());
        }
        assert!(matched(RFC, &format!("{} {}", &code[..3], &code[3..]), 0, now).is_some());
    }

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (plain, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(plain.as_bytes()), text);
            assert_eq!(from_base32(text).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(from_base32("mzxw 6ytb-oi==").as_deref(), Some(b"foobar".as_slice()));
        assert_eq!(from_base32("1"), None);
        let secret = secret();
        assert_eq!(from_base32(&base32(&secret)).as_deref(), Some(secret.as_slice()));
    }

    #[test]
    fn recovery_codes_are_found_however_they_are_typed() {
        let codes = recovery_codes();
        assert_eq!(codes.len(), RECOVERY_CODES);
        let typed = codes[0].to_lowercase().replace('-', " ");
        assert_eq!(recovery_hash(&codes[0]), recovery_hash(&typed));
        assert_ne!(recovery_hash(&codes[0]), recovery_hash(&codes[1]));
    }
}

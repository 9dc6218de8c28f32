//! Passwords: what is taken as one, and its argon2id hash. Pure, and slow on purpose: callers give it a thread.

use std::collections::HashSet;
use std::sync::OnceLock;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Result};
use crate::world;

/// Characters of a password of all four classes at least.
pub const LENGTH_MIN: usize = 12;
/// Characters of a passphrase of at least [`WORDS_MIN`] words, whatever their classes.
pub const PASSPHRASE_LENGTH_MIN: usize = 20;
pub const WORDS_MIN: usize = 4;
/// Characters at most: hashing is work.
pub const LENGTH_MAX: usize = 256;
/// Memory in KiB and passes of argon2id: the first of the parameter sets that OWASP recommends.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;

/// Passwords that lists of breaches hold, in lower case: those long enough to pass the other rules. One a line.
const BREACHED: &str = include_str!("breached.txt");

/// A stored password, with the cost it was hashed at.
#[derive(Clone, Serialize, Deserialize)]
pub struct PasswordHash {
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
    hash: [u8; 32],
}

/// Two spellings of the same characters are the same password.
fn normal(password: &str) -> String {
    password.nfkc().collect()
}

/// Whether a new password is good enough.
///
/// # Errors
/// What is wrong with it, in words for the person.
pub fn check(password: &str, username: &str) -> Result<(), &'static str> {
    let password = normal(password);
    let length = password.chars().count();
    if length > LENGTH_MAX {
        return Err("The password is longer than 256 characters.");
    }
    let class = |of: fn(char) -> bool| password.chars().any(of);
    let classes = class(char::is_lowercase)
        && class(char::is_uppercase)
        && class(char::is_numeric)
        && class(|c| !c.is_alphanumeric());
    let words = password.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() > 1);
    let distinct: HashSet<&str> = words.collect();
    let phrase = length >= PASSPHRASE_LENGTH_MIN && distinct.len() >= WORDS_MIN;
    if !(phrase || (length >= LENGTH_MIN && classes)) {
        return Err("A password has at least 12 characters with lower and upper case letters, digits and other \
                    characters; or it is a phrase of at least four different words and 20 characters.");
    }
    if password.chars().collect::<HashSet<char>>().len() < 6 {
        return Err("The password repeats too few different characters.");
    }
    let lower = password.to_lowercase();
    if username.chars().count() > 3 && lower.contains(&username.to_lowercase()) {
        return Err("The password may not contain the user name.");
    }
    if is_breached(&lower) {
        return Err("This password is in lists of passwords that have been stolen elsewhere. Choose another.");
    }
    Ok(())
}

/// Looks the password up as it is, and without the digits and signs that people put around a word.
fn is_breached(lower: &str) -> bool {
    static LIST: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let list = LIST.get_or_init(|| BREACHED.lines().map(str::trim).filter(|line| !line.is_empty()).collect());
    let leet = |text: &str| -> String {
        text.chars()
            .map(|c| match c {
                '0' => 'o',
                '1' | '!' => 'i',
                '3' => 'e',
                '4' | '@' => 'a',
                '5' | '$' => 's',
                '7' => 't',
                other => other,
            })
            .collect()
    };
    let word = lower.trim_matches(|c: char| !c.is_alphabetic());
    let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
    let (plain, all) = (leet(word), leet(lower));
    [lower, word, plain.as_str(), &letters(lower), &letters(&plain), &letters(&all)]
        .iter()
        .any(|form| list.contains(form))
}

impl PasswordHash {
    /// Hashes a password with a salt of its own.
    pub fn make(password: &str) -> Result<PasswordHash> {
        let mut salt = [0u8; 16];
        world::secret(&mut salt);
        let mut made = PasswordHash { memory_kib: MEMORY_KIB, passes: PASSES, salt, hash: [0; 32] };
        made.hash = made.of(password)?;
        Ok(made)
    }

    /// A hash that no password has: verifying against it takes as long as against a real one.
    pub fn of_nobody() -> PasswordHash {
        PasswordHash { memory_kib: MEMORY_KIB, passes: PASSES, salt: [0; 16], hash: [0; 32] }
    }

    fn of(&self, password: &str) -> Result<[u8; 32]> {
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32)).map_err(Error::internal)?;
        let mut hash = [0u8; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(normal(password).as_bytes(), &self.salt, &mut hash)
            .map_err(Error::internal)?;
        Ok(hash)
    }

    pub fn is_of(&self, password: &str) -> Result<bool> {
        // What is longer than any password is none; the same work is done for it.
        let fits = password.len() <= LENGTH_MAX * 4;
        let same: bool = self.of(if fits { password } else { "" })?.ct_eq(&self.hash).into();
        Ok(same && fits && self.salt != [0; 16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_and_mixed_or_a_phrase() {
        for good in ["Quiet-Lamp42", "Überfluß!2026x", "four lamps beside rivers", "correct-horse-stable-batteries!9"]
        {
            assert_eq!(check(good, "ann"), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "12 characters"),
            ("Quiet-Lamp4", "12 characters"),
            ("quiet-lamp42", "12 characters"),
            ("QuietLampsAre", "12 characters"),
            ("lamp lamp lamp lamp lamp", "12 characters"),
            ("Aa1!Aa1!Aa1!Aa1!", "different characters"),
            ("ann.smith-Lamp42", "user name"),
            ("P@ssw0rd12345!", "stolen"),
            ("Welcome-2026!", "stolen"),
            ("Qwertyuiop-123", "stolen"),
            ("correct horse battery staple", "stolen"),
        ] {
            assert!(
                check(bad, "Ann.Smith").is_err_and(|text| text.contains(why)),
                "{bad}: {:?}",
                check(bad, "Ann.Smith")
            );
        }
        assert!(check(&"aB3$efgh".repeat(40), "ann").is_err());
    }

    #[test]
    fn a_hash_is_of_its_password_only_and_of_nobody_of_none() {
        let hash = PasswordHash::make("Quiet-Lamp42").unwrap();
        assert!(hash.is_of("Quiet-Lamp42").unwrap());
        assert!(!hash.is_of("quiet-lamp42").unwrap() && !hash.is_of("").unwrap());
        assert_ne!(hash.hash, PasswordHash::make("Quiet-Lamp42").unwrap().hash);
        let nobody = PasswordHash::of_nobody();
        assert!(!nobody.is_of("").unwrap());
        assert_eq!((nobody.memory_kib, nobody.passes), (hash.memory_kib, hash.passes), "it costs the same");
        let composed = PasswordHash::make("Caf\u{e9}-Lamp4242").unwrap();
        assert!(composed.is_of("Cafe\u{301}-Lamp4242").unwrap(), "another spelling of the same characters");
    }
}

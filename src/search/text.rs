//! Text folding for string search. What it gives goes into blind terms, so it is pinned as [`SCHEME`]: a change of
//! the tables below, or of Unicode in a dependency, needs a new number and new terms (a test holds it to that).

use std::borrow::Cow;

use caseless::Caseless;
use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Version of the folding.
pub const SCHEME: u8 = 1;

/// Folds for search without regard to case, accents and punctuation: NFKD, marks dropped, full case fold, the letters
/// that Unicode does not take apart (ø, ł, đ, æ ...), everything that is neither letter nor digit to one space, trimmed.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        // AsciiFold gives ASCII only.
        return AsciiFold::new(text).map(char::from).collect();
    }
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    for letter in text.chars().nfkd().default_case_fold().nfkd() {
        if is_combining_mark(letter) || is_invisible(letter) {
            continue;
        }
        if !letter.is_alphanumeric() || matches!(letter, '\u{2b9}'..='\u{2ff}') {
            gap = true;
            continue;
        }
        if gap && !out.is_empty() {
            out.push(' ');
        }
        gap = false;
        match extra(letter) {
            Some(letters) => out.push_str(letters),
            None => out.push(letter),
        }
    }
    out
}

/// Letters with strokes and ligatures, which no normalisation takes apart.
fn extra(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ø' => "o",
        'ł' | 'ƚ' => "l",
        'đ' | 'ð' | 'ɖ' => "d",
        'þ' => "th",
        'æ' => "ae",
        'œ' => "oe",
        'ħ' => "h",
        'ı' => "i",
        'ŋ' => "n",
        'ŧ' => "t",
        'ĸ' => "k",
        'ƀ' => "b",
        'ɨ' => "i",
        _ => return None,
    })
}

/// Characters that show nothing and must not part a word: soft hyphen, joiners, direction marks.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// [`fold`] of ASCII text, byte by byte and without allocation.
struct AsciiFold<'a> {
    bytes: std::slice::Iter<'a, u8>,
    started: bool,
    held: Option<u8>,
}

impl<'a> AsciiFold<'a> {
    fn new(text: &'a str) -> Self {
        AsciiFold { bytes: text.as_bytes().iter(), started: false, held: None }
    }
}

impl Iterator for AsciiFold<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if let Some(byte) = self.held.take() {
            return Some(byte);
        }
        let mut gap = false;
        for byte in self.bytes.by_ref() {
            if !byte.is_ascii_alphanumeric() {
                gap = true;
                continue;
            }
            let byte = byte.to_ascii_lowercase();
            if gap && self.started {
                self.held = Some(byte);
                return Some(b' ');
            }
            self.started = true;
            return Some(byte);
        }
        None
    }
}

/// Whether `fold(text)` starts with `folded` (itself folded).
pub fn starts_with(text: &str, folded: &str) -> bool {
    if text.is_ascii() {
        let mut bytes = AsciiFold::new(text);
        return folded.bytes().all(|wanted| bytes.next() == Some(wanted));
    }
    fold(text).starts_with(folded)
}

/// Whether `fold(text)` contains `folded` (itself folded).
pub fn contains(text: &str, folded: &str) -> bool {
    fold(text).contains(folded)
}

/// Canonical composition, for comparisons that keep case and accents.
pub fn nfc(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Folds a code: case only, everything else kept.
pub fn fold_code(code: &str) -> Cow<'_, str> {
    if !code.is_ascii() {
        return Cow::Owned(code.chars().nfc().default_case_fold().nfc().collect());
    }
    match code.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(code.to_ascii_lowercase()),
        false => Cow::Borrowed(code),
    }
}

/// Whether `fold_code(code)` equals `folded` (itself folded).
pub fn code_equals(code: &str, folded: &str) -> bool {
    if code.is_ascii() { code.eq_ignore_ascii_case(folded) } else { fold_code(code) == folded }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folds_names_as_a_clerk_would_type_them() {
        let table = [
            ("Müller", "muller"),
            ("MÜLLER", "muller"),
            ("Mu\u{308}ller", "muller"),
            ("Straße", "strasse"),
            ("Łukasz Øst", "lukasz ost"),
            ("Đorđe", "dorde"),
            ("Æsir œuvre", "aesir oeuvre"),
            ("O'Brien-Smith", "o brien smith"),
            ("O\u{2019}Brien", "o brien"),
            ("  van   der\tBerg ", "van der berg"),
            ("ＡＢＣ", "abc"),
            ("ﬁn", "fin"),
            ("Ελλάς", "ελλασ"),
            ("İstanbul", "istanbul"),
            ("Kapıcı", "kapici"),
            ("a\u{ad}b\u{200d}c", "abc"),
            ("--", ""),
            ("Hawai\u{2bb}i", "hawai i"),
            ("Þór", "thor"),
        ];
        for (text, folded) in table {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn codes_fold_case_alone() {
        assert_eq!(fold_code("mm[Hg]"), "mm[hg]");
        assert!(code_equals("FINAL", "final"));
        assert!(code_equals("\u{212a}", "k"), "the Kelvin sign folds to k");
        assert!(!code_equals("a-b", "ab"));
    }

    /// Blind terms are derived from folded text: if this fails because a dependency was updated, terms written before
    /// would no longer be found. Raise `SCHEME` and rebuild terms, or pin the dependency.
    #[test]
    fn the_folding_of_every_character_is_pinned() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for letter in (0..=0x10_ffff).filter_map(char::from_u32) {
            let mut buffer = [0u8; 4];
            for byte in fold(letter.encode_utf8(&mut buffer)).bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        assert_eq!((SCHEME, hash), (1, 7_645_090_978_239_381_654));
    }

    proptest! {
        #[test]
        fn folding_is_idempotent(text in "\\PC{0,24}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn borrowed_comparisons_agree_with_the_folded_text(text in "[ -~äÉß]{0,16}", wanted in "[a-c ]{0,4}") {
            let folded = fold(&wanted);
            prop_assert_eq!(starts_with(&text, &folded), fold(&text).starts_with(&folded));
            prop_assert_eq!(code_equals(&text, &fold_code(&wanted)), fold_code(&text) == fold_code(&wanted));
        }

        #[test]
        fn a_prefix_of_the_text_is_found(text in "\\PC{1,16}", cut in 0usize..16) {
            let prefix: String = text.chars().take(cut).collect();
            // A cut inside a letter sequence that folds as a whole (a final sigma, a jamo syllable) is still a prefix.
            prop_assert!(starts_with(&text, &fold(&prefix)));
        }
    }
}

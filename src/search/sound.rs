//! Names by how they sound: every word as its Double Metaphone codes. The codes stand in capsules and blind terms are
//! made of them, so they are pinned like the folding (`text::SCHEME`): a test holds them to that.

use rphonetic::DoubleMetaphone;

use super::text;

/// Letters of a code. The four of the original algorithm make Christina a Christopher.
const LETTERS: usize = 8;
/// Letters of a code that its blind term is made of: it stands for all names that begin with these sounds.
const CLASS: usize = 3;
/// What begins a word that has no codes: one with digits, or with other letters than Latin ones, sounds like itself.
const AS_IT_IS: char = '=';
/// Characters of such a word.
const WORD_MAX: usize = 32;
/// Words of one text that count.
const WORDS_MAX: usize = 32;
/// Neighbouring words that may be meant as one (`Van Dyke`, `De la Cruz`).
const TOGETHER: usize = 3;

/// The codes by which one word is known: of how it is said, and of how else it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound(Vec<String>);

/// What a query asks for: names that hold a word that sounds like each of these, or all of them in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sounds {
    words: Vec<Sound>,
    together: Option<Sound>,
}

/// Words as a clerk would type them. What stands at an apostrophe is no word of its own: O'Brien is Obrien.
fn words(text: &str) -> Vec<String> {
    let joined: String = text.chars().filter(|c| !"'\u{2019}\u{2018}\u{2bc}\u{2bb}`\u{b4}".contains(*c)).collect();
    text::fold(&joined).split(' ').filter(|word| !word.is_empty()).take(WORDS_MAX).map(str::to_owned).collect()
}

impl Sound {
    /// Of a folded word.
    fn of(word: &str) -> Sound {
        let itself = || Sound(vec![AS_IT_IS.to_string() + &word.chars().take(WORD_MAX).collect::<String>()]);
        if !word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return itself();
        }
        let found = DoubleMetaphone::new(Some(LETTERS)).double_metaphone(word);
        let mut codes = Vec::with_capacity(2);
        for code in [found.primary(), found.alternate()] {
            // A last J may be silent: the library writes that as a space.
            let code = code.trim_end();
            if !code.is_empty() && !codes.iter().any(|known| known == code) {
                codes.push(code.to_owned());
            }
        }
        if codes.is_empty() { itself() } else { Sound(codes) }
    }

    fn is_in(&self, codes: &str) -> bool {
        codes.split(' ').any(|found| self.0.iter().any(|code| code == found))
    }

    /// What the blind terms of its codes are made of.
    fn classes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|code| class(code))
    }
}

fn class(code: &str) -> &str {
    let letters = if code.starts_with(AS_IT_IS) { CLASS + 1 } else { CLASS };
    code.char_indices().nth(letters).map_or(code, |(end, _)| &code[..end])
}

/// The codes of a name as they stand in a capsule: those of every word of its parts, and of neighbouring words taken as
/// one; sorted, distinct, a space between them. None: there is no word in it.
pub fn codes<'a>(parts: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut all = std::collections::BTreeSet::new();
    for part in parts {
        let words = words(part);
        for length in 1..=TOGETHER {
            all.extend(words.windows(length).flat_map(|words| Sound::of(&words.concat()).0));
        }
    }
    (!all.is_empty()).then(|| all.into_iter().collect::<Vec<_>>().join(" "))
}

/// What the blind terms of a name are made of.
pub fn classes(codes: &str) -> impl Iterator<Item = &str> {
    codes.split(' ').map(class)
}

impl Sounds {
    /// None: there is no letter or digit in the text.
    pub fn read(text: &str) -> Option<Sounds> {
        let words = words(text);
        let together = (2..=TOGETHER).contains(&words.len()).then(|| Sound::of(&words.concat()));
        let words: Vec<Sound> = words.iter().map(|word| Sound::of(word)).collect();
        (!words.is_empty()).then_some(Sounds { words, together })
    }

    /// Whether a name with these codes (see [`codes`]) is one of those asked for.
    pub fn are_in(&self, codes: &str) -> bool {
        let together = self.together.as_ref().is_some_and(|sound| sound.is_in(codes));
        together || self.words.iter().all(|word| word.is_in(codes))
    }

    /// For each word the classes of which a name that is asked for has one.
    pub fn narrowing(&self) -> impl Iterator<Item = Vec<&str>> {
        let together = || self.together.iter().flat_map(Sound::classes);
        self.words.iter().map(move |word| word.classes().chain(together()).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alike(asked: &str, name: &[&str]) -> bool {
        let codes = codes(name.iter().copied()).expect("a name");
        Sounds::read(asked).expect("words").are_in(&codes)
    }

    #[test]
    fn names_that_sound_alike_are_found() {
        for (asked, name) in [
            ("Smyth", &["Smith"][..]),
            ("Schmidt", &["Smith"]),
            ("meier", &["MEYER"]),
            ("Müller", &["Mueller"]),
            ("Catherine", &["Kathryn"]),
            ("Mohammed", &["Muhamad"]),
            ("Stephen", &["Steven"]),
            ("Filip", &["Phillip"]),
            ("Gonzales", &["González"]),
            ("Obrien", &["O\u{2019}Brien"]),
            ("O'Bryan", &["Obrien"]),
            ("Jon Smyth", &["Smith", "John"]),
            ("Vandike", &["van Dyke"]),
            ("van dike", &["Vandyke"]),
            ("De la Cruz", &["Delacruz"]),
            ("Anne-Marie", &["Annemarie"]),
            ("Иванов", &["ИВАНОВ"]),
            ("3m", &["3M Company"]),
        ] {
            assert!(alike(asked, name), "{asked} {name:?}");
        }
        for (asked, name) in [
            ("Christina", &["Christopher"][..]),
            ("Smith", &["Jones"]),
            ("John Smith", &["Smith", "Peter"]),
            ("Иванов", &["Петров"]),
            ("3m", &["4M Company"]),
            ("van", &["Vandyke"]),
        ] {
            assert!(!alike(asked, name), "{asked} {name:?}");
        }
        assert_eq!(Sounds::read("-- '"), None);
        assert_eq!(codes(["?!"].into_iter()), None);
    }

    #[test]
    fn terms_stand_for_more_than_one_name() {
        let of = |name: &str| codes([name].into_iter()).expect("a name");
        assert_eq!(of("Christopher"), "KRSTFR");
        assert_eq!(classes(&of("Christopher")).collect::<Vec<_>>(), ["KRS"]);
        assert_eq!(classes(&of("Christina")).collect::<Vec<_>>(), ["KRS"]);
        assert_eq!(of("王小明"), "=王小明");
        assert_eq!(classes("=Александр AN").collect::<Vec<_>>(), ["=Але", "AN"]);
    }

    /// Terms and capsules hold what the library gives: if this fails because it was updated, what was written before
    /// would no longer be found. Pin it, or raise `text::SCHEME` and have everything indexed again.
    #[test]
    fn the_codes_of_words_are_pinned() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |word: &str| {
            for byte in Sound::of(word).0.join("|").bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        };
        let letters = || (b'a'..=b'z').map(char::from);
        for (a, b, c) in letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| (a, b, c)))) {
            for word in [format!("{a}{b}{c}"), format!("{a}{b}{c}e{a}"), format!("{c}a{a}{b}{c}er")] {
                add(&word);
            }
        }
        for name in ["caesar", "michael", "mcclelland", "bacchus", "laugh", "schooner", "jose", "witz", "arnow"] {
            add(name);
        }
        assert_eq!((text::SCHEME, hash), (1, 4_985_610_671_123_483_980));
    }

    proptest! {
        /// What is narrowed by lets through what the capsule would, and every name sounds like itself.
        #[test]
        fn every_name_is_found_by_itself(name in "[a-zA-ZäÉß' -]{1,24}|\\PC{1,12}") {
            let (Some(codes), Some(asked)) = (codes([name.as_str()].into_iter()), Sounds::read(&name)) else {
                prop_assert!(words(&name).is_empty());
                return Ok(());
            };
            prop_assert!(asked.are_in(&codes));
            let classes: Vec<&str> = classes(&codes).collect();
            prop_assert!(asked.narrowing().all(|any| any.iter().any(|class| classes.contains(class))));
        }

        #[test]
        fn any_word_has_a_code(word in "[a-z]{1,40}") {
            let Sound(codes) = Sound::of(&word);
            prop_assert!((1..=2).contains(&codes.len()) && codes.iter().all(|code| !code.contains(' ')));
        }
    }
}

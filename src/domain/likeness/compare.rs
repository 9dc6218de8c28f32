//! How alike two lists of values are, by kind: 1 the same, 0 different, None where that cannot be told.

use serde::Deserialize;

use crate::fhir::date::Range;
use crate::search::text;
use crate::search::values::Value;

/// Letters that are less alike than this are another name.
const NAME_LEAST: f64 = 0.75;
/// Digits at the end of a telephone number that must agree: what stands before is prefix and country.
const DIGITS: usize = 7;
const DAY_MS: i64 = 86_400_000;

#[derive(Clone, Copy, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Compare {
    Name,
    Date,
    Code,
    Digits,
    Text,
    Identifier,
}

impl Compare {
    /// The best of all pairs.
    pub fn alike(self, ours: &[Value], theirs: &[Value]) -> Option<f64> {
        let pairs = ours.iter().flat_map(|our| theirs.iter().map(move |their| (our, their)));
        pairs.filter_map(|(our, their)| self.pair(our, their)).reduce(f64::max)
    }

    fn pair(self, our: &Value, their: &Value) -> Option<f64> {
        match (self, our, their) {
            (Compare::Identifier, our, their) => identifiers(our, their),
            (Compare::Date, Value::Date(our), Value::Date(their)) => Some(dates(*our, *their)),
            (Compare::Code, our, their) => {
                let (our, their) = (text(our)?, text(their)?);
                let said = |code: &str| !matches!(code, "unknown" | "other");
                (said(&our) && said(&their)).then(|| f64::from(u8::from(our == their)))
            }
            (Compare::Digits, our, their) => {
                let (our, their) = (digits(&text(our)?), digits(&text(their)?));
                let told = our.len() >= DIGITS && their.len() >= DIGITS;
                told.then(|| f64::from(u8::from(our[our.len() - DIGITS..] == their[their.len() - DIGITS..])))
            }
            (Compare::Text, our, their) => Some(f64::from(u8::from(text(our)? == text(their)?))),
            (Compare::Name, our, their) => Some(names(&text(our)?, &text(their)?)),
            (Compare::Date, ..) => None,
        }
    }
}

/// The folded text of a string or code.
fn text(value: &Value) -> Option<String> {
    let plain = match value {
        Value::Text(text) => text,
        Value::Token { code: Some(code), .. } => code,
        _ => return None,
    };
    Some(text::fold(plain)).filter(|folded| !folded.is_empty())
}

fn digits(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_digit).collect()
}

/// The same number of the same system; a number without a system may be one of any.
fn identifiers(our: &Value, their: &Value) -> Option<f64> {
    let Value::Identifier { system: our_system, value: Some(our), .. } = our else { return None };
    let Value::Identifier { system: their_system, value: Some(their), .. } = their else { return None };
    match (our_system, their_system) {
        (Some(a), Some(b)) if a == b => Some(f64::from(u8::from(our == their))),
        (Some(_), Some(_)) => None,
        _ => (our == their).then_some(0.7),
    }
}

/// Dates of birth: mistaken in one digit, or with day and month exchanged, they are nearly the same.
fn dates(our: Range, their: Range) -> f64 {
    if our == their {
        return 1.0;
    }
    if our.lo <= their.hi && their.lo <= our.hi {
        return 0.85;
    }
    let day = |range: Range| (range.hi - range.lo < DAY_MS).then(|| crate::world::Instant(range.lo).to_fhir());
    let (Some(our), Some(their)) = (day(our), day(their)) else { return 0.0 };
    let (our, their) = (&our[..10], &their[..10]);
    let exchanged = our[..4] == their[..4] && our[5..7] == their[8..10] && our[8..10] == their[5..7];
    let wrong = our.bytes().zip(their.bytes()).filter(|(a, b)| a != b).count();
    match (exchanged, wrong) {
        (true, _) | (_, 1) => 0.8,
        _ => 0.0,
    }
}

/// Whole names, or the words of one within the other (`Garcia` and `Garcia Lopez`).
fn names(our: &str, their: &str) -> f64 {
    let whole = winkler(our, their);
    let within = |few: &str, many: &str| few.split(' ').all(|word| many.split(' ').any(|other| other == word));
    let parted = within(our, their) || within(their, our);
    let alike = if parted { whole.max(0.95) } else { whole };
    ((alike - NAME_LEAST) / (1.0 - NAME_LEAST)).clamp(0.0, 1.0)
}

/// Jaro-Winkler similarity.
pub(super) fn winkler(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let jaro = jaro(&a, &b);
    let prefix = a.iter().zip(&b).take(4).take_while(|(a, b)| a == b).count();
    jaro + prefix as f64 * 0.1 * (1.0 - jaro)
}

fn jaro(a: &[char], b: &[char]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return f64::from(u8::from(a.len() == b.len()));
    }
    let reach = (a.len().max(b.len()) / 2).saturating_sub(1);
    let mut taken = vec![false; b.len()];
    let mut ours = Vec::new();
    for (n, letter) in a.iter().enumerate() {
        let near = n.saturating_sub(reach)..b.len().min(n + reach + 1);
        if let Some(at) = near.into_iter().find(|at| !taken[*at] && b[*at] == *letter) {
            taken[at] = true;
            ours.push(*letter);
        }
    }
    let matched = ours.len() as f64;
    if ours.is_empty() {
        return 0.0;
    }
    let theirs = b.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(letter, _)| letter);
    let moved = ours.iter().zip(theirs).filter(|(a, b)| a != b).count() as f64 / 2.0;
    (matched / a.len() as f64 + matched / b.len() as f64 + (matched - moved) / matched) / 3.0
}

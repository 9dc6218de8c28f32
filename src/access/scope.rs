//! SMART scopes, v1 (`system/Patient.read`) and v2 (`system/Observation.rs?category=laboratory`): grammar, display,
//! and what is left of a scope that is asked for when only some are allowed. Must not know tokens or callers.
//!
//! A scope is shown exactly as it was written. What cannot be read is an error: never a scope without its filter.

use std::fmt;

use crate::error::{Error, Result};
use crate::fhir::{TypeId, definitions};

/// Characters of one scope at most, so that a token stays of a size headers can carry.
pub const SCOPE_LENGTH_MAX: usize = 512;
/// Scopes of one request at most.
pub const SCOPES_MAX: usize = 256;

/// Whose data a resource scope is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// The compartment of the patient in context.
    Patient,
    /// What the user may see.
    User,
    /// What the client may see by itself: backend services.
    System,
}

/// A set of the SMART v2 letters `c r u d s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Letters(u8);

/// `system/Observation.rs?category=laboratory`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceScope {
    pub context: Context,
    /// None: `*`, every type.
    pub kind: Option<TypeId>,
    pub letters: Letters,
    /// Decoded (name, value) search arguments; empty: no filter.
    pub filter: Vec<(String, String)>,
    text: String,
}

/// One scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    Resource(ResourceScope),
    /// A scope that opens no resource by itself: `openid`, `launch/patient`, `offline_access`.
    Other(String),
}

/// The scopes of a token, in order, as granted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Scopes(pub Vec<Scope>);

pub(super) const LETTERS: [char; 5] = ['c', 'r', 'u', 'd', 's'];
/// Scopes that open no resource.
pub const OTHER: [&str; 8] = [
    "openid",
    "fhirUser",
    "profile",
    "launch",
    "launch/patient",
    "launch/encounter",
    "offline_access",
    "online_access",
];

impl Letters {
    pub const ALL: Letters = Letters(0b1_1111);
    pub(super) const READ: Letters = Letters(0b0_0010);
    const NONE: Letters = Letters(0);

    /// Whether the set has this letter.
    pub fn has(self, letter: char) -> bool {
        LETTERS.iter().position(|known| *known == letter).is_some_and(|n| self.0 & (1 << n) != 0)
    }

    pub fn is_empty(self) -> bool {
        self == Letters::NONE
    }

    pub fn and(self, other: Letters) -> Letters {
        Letters(self.0 & other.0)
    }

    /// v2 letters in the order `c r u d s`, or a v1 word.
    fn parse(text: &str) -> Option<Letters> {
        match text {
            "read" => return Some(Letters(0b1_0010)),
            "write" => return Some(Letters(0b0_1101)),
            "*" => return Some(Letters::ALL),
            _ => {}
        }
        let mut set = 0u8;
        for letter in text.chars() {
            let bit = 1u8 << LETTERS.iter().position(|known| *known == letter)?;
            // A letter must stand after all letters before it: this refuses repeats and any other order alike.
            if set >= bit {
                return None;
            }
            set |= bit;
        }
        (set != 0).then_some(Letters(set))
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LETTERS.iter().filter(|letter| self.has(**letter)).try_for_each(|letter| write!(f, "{letter}"))
    }
}

impl Context {
    fn name(self) -> &'static str {
        match self {
            Context::Patient => "patient",
            Context::User => "user",
            Context::System => "system",
        }
    }
}

impl ResourceScope {
    /// The part after `?`, as written.
    fn filter_text(&self) -> Option<&str> {
        self.text.split_once('?').map(|(_, filter)| filter)
    }

    /// What of this scope is allowed by `allowed`: the same text when all of it is, a narrower scope when some of it
    /// is, None when nothing is. A filter of either side stays in force.
    pub fn narrowed_by(&self, allowed: &ResourceScope) -> Option<ResourceScope> {
        let kind = match (self.kind, allowed.kind) {
            (Some(mine), Some(theirs)) if mine != theirs => return None,
            (Some(kind), _) | (None, Some(kind)) => Some(kind),
            (None, None) => None,
        };
        let letters = self.letters.and(allowed.letters);
        if self.context != allowed.context || letters.is_empty() {
            return None;
        }
        let filter = match (self.filter_text(), allowed.filter_text()) {
            (mine, None) => mine.map(str::to_owned),
            (None, Some(theirs)) => Some(theirs.to_owned()),
            (Some(mine), Some(theirs)) if mine == theirs => Some(mine.to_owned()),
            // Arguments of one query all have to hold: joined, they are the intersection.
            (Some(mine), Some(theirs)) => Some(format!("{mine}&{theirs}")),
        };
        if kind == self.kind && letters == self.letters && filter.as_deref() == self.filter_text() {
            return Some(self.clone());
        }
        let name = kind.map_or("*", |kind| definitions().type_name(kind));
        let mut text = format!("{}/{name}.{letters}", self.context.name());
        if let Some(filter) = filter {
            text = format!("{text}?{filter}");
        }
        parse_resource(&text).ok()
    }
}

impl Scope {
    /// Reads one scope.
    ///
    /// # Errors
    /// `Kind::Invalid` that names the scope and says what is wrong with it.
    pub fn parse(text: &str) -> Result<Scope> {
        if OTHER.contains(&text) || (text.len() <= SCOPE_LENGTH_MAX && context_scope(text).is_some()) {
            return Ok(Scope::Other(text.to_owned()));
        }
        parse_resource(text).map(Scope::Resource)
    }

    pub fn resource(&self) -> Option<&ResourceScope> {
        match self {
            Scope::Resource(scope) => Some(scope),
            Scope::Other(_) => None,
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Scope::Resource(scope) => &scope.text,
            Scope::Other(text) => text,
        }
    }
}

impl Scopes {
    /// Reads a space-separated list (RFC 6749, section 3.3); repeats are kept once.
    ///
    /// # Errors
    /// `Kind::Invalid` for the first scope that cannot be read.
    pub fn parse(text: &str) -> Result<Scopes> {
        let mut scopes = Vec::new();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if scopes.len() == SCOPES_MAX {
                return Err(Error::invalid(format!("More than {SCOPES_MAX} scopes.")));
            }
            let scope = Scope::parse(word)?;
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        Ok(Scopes(scopes))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn resources(&self) -> impl Iterator<Item = &ResourceScope> {
        self.0.iter().filter_map(Scope::resource)
    }

    /// Whether everything that `scope` opens is opened by these, several of them together if need be.
    pub fn cover(&self, scope: &Scope) -> bool {
        let Scope::Resource(asked) = scope else { return self.0.contains(scope) };
        let covers = |letter: char| {
            self.resources().any(|mine| {
                mine.context == asked.context
                    && mine.letters.has(letter)
                    && mine.kind.is_none_or(|kind| asked.kind == Some(kind))
                    && mine.filter.iter().all(|pair| asked.filter.contains(pair))
            })
        };
        LETTERS.iter().filter(|letter| asked.letters.has(**letter)).all(|letter| covers(*letter))
    }

    /// What of these scopes `allowed` lets through, in the order asked for; each of them as asked where it is wholly
    /// allowed, else the parts that are.
    pub fn narrowed_by(&self, allowed: &Scopes) -> Scopes {
        let mut granted: Vec<Scope> = Vec::new();
        for asked in &self.0 {
            let Scope::Resource(asked) = asked else {
                if allowed.0.contains(asked) && !granted.contains(asked) {
                    granted.push(asked.clone());
                }
                continue;
            };
            let parts: Vec<ResourceScope> = allowed.resources().filter_map(|one| asked.narrowed_by(one)).collect();
            // Wholly allowed by one of them: the other parts are within it.
            let parts = match parts.iter().position(|part| part.text == asked.text) {
                Some(whole) => vec![parts[whole].clone()],
                None => parts,
            };
            for part in parts.into_iter().map(Scope::Resource) {
                if !granted.contains(&part) {
                    granted.push(part);
                }
            }
        }
        Scopes(granted)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.text())?;
        }
        Ok(())
    }
}

/// A scope for a context other than patient and encounter, such as `launch/imagingstudy?role=https://a.example/x`: the
/// type in lower case, and the role.
pub fn context_scope(text: &str) -> Option<(&str, Option<&str>)> {
    let rest = text.strip_prefix("launch/")?;
    let (kind, role) = match rest.split_once("?role=") {
        Some((kind, role)) => (kind, Some(role)),
        None => (rest, None),
    };
    if role == Some("") || matches!(rest, "patient" | "encounter") {
        return None;
    }
    let lower = kind.bytes().all(|byte| byte.is_ascii_lowercase());
    let known = |id: &TypeId| definitions().type_name(*id).eq_ignore_ascii_case(kind);
    let plain = text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E));
    (lower && plain && definitions().types().iter().any(known)).then_some((kind, role))
}

fn parse_resource(text: &str) -> Result<ResourceScope> {
    if text.len() > SCOPE_LENGTH_MAX {
        return Err(Error::invalid(format!("A scope is longer than {SCOPE_LENGTH_MAX} characters.")));
    }
    // RFC 6749: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ).
    if !text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)) {
        return Err(Error::invalid("A scope holds a character that scopes may not hold."));
    }
    let fault = |why: &str| Error::invalid(format!("The scope '{text}' cannot be read: {why}."));
    let (context, rest) = text.split_once('/').ok_or_else(|| fault("it is not known here"))?;
    let context = match context {
        "patient" => Context::Patient,
        "user" => Context::User,
        "system" => Context::System,
        _ => return Err(fault("it must begin with patient/, user/ or system/")),
    };
    let (resource, filter) = rest.split_once('?').map_or((rest, None), |(head, tail)| (head, Some(tail)));
    let (name, letters) = resource.split_once('.').ok_or_else(|| fault("the permission after the dot is missing"))?;
    let kind = match name {
        "*" => None,
        _ => Some(definitions().type_id(name).ok_or_else(|| fault("R4 has no such resource type"))?),
    };
    let permission = "the permission must be read, write, * or letters of cruds in that order";
    let letters = Letters::parse(letters).ok_or_else(|| fault(permission))?;
    let filter = match filter {
        None => Vec::new(),
        Some(_) if kind.is_none() => return Err(fault("search arguments need a resource type, not *")),
        Some(filter) => pairs(filter).ok_or_else(|| fault("its search arguments are not name=value pairs"))?,
    };
    Ok(ResourceScope { context, kind, letters, filter, text: text.to_owned() })
}

/// `name=value&name=value`, percent-decoded (a plus sign is a plus sign); None unless every pair is whole.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let (name, value) = (percent_decoded(name)?, percent_decoded(value)?);
            (!name.is_empty() && !value.is_empty()).then_some((name, value))
        })
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn read(text: &str) -> ResourceScope {
        parse_resource(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn v1_words_mean_their_v2_letters() {
        for (word, letters) in [("read", "rs"), ("write", "cud"), ("*", "cruds")] {
            assert_eq!(read(&format!("system/Patient.{word}")).letters.to_string(), letters);
        }
        assert_eq!(read("system/*.*").kind, None);
        assert_eq!(read("system/*.*").letters, Letters::ALL);
    }

    #[test]
    fn letters_stand_in_order_and_once() {
        for good in ["c", "rs", "cud", "cruds", "us"] {
            assert_eq!(read(&format!("system/Observation.{good}")).letters.to_string(), good);
        }
        for bad in ["sr", "rr", "dc", "x", "", "readwrite", "Read", "rs ", "cruds*"] {
            assert_eq!(parse_resource(&format!("system/Observation.{bad}")).unwrap_err().kind, Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn filters_are_decoded_and_never_dropped() {
        let scope = read("system/Observation.rs?category=http://x|laboratory&code=a%26b%2Bc+d");
        let expected = [("category", "http://x|laboratory"), ("code", "a&b+c+d")];
        assert_eq!(scope.filter, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        for bad in ["?", "?category", "?=x", "?category=", "?a=b&", "?a=%4", "?a=%zz", "?a=%ff"] {
            assert!(parse_resource(&format!("system/Observation.rs{bad}")).is_err(), "{bad}");
        }
        assert!(parse_resource("system/*.rs?category=x").is_err());
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for bad in [
            "system/Unknown.rs",
            "system/patient.rs",
            "system.Patient.rs",
            "System/Patient.rs",
            "system/Patient",
            "*/Patient.rs",
            "admin",
            "launch/Patient",
            "system/Patient.rs\"",
            "system/Patient.rs\\",
        ] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
        assert!(Scope::parse(&format!("system/Patient.rs?_id={}", "a".repeat(SCOPE_LENGTH_MAX))).is_err());
        let many = (0..=SCOPES_MAX).map(|n| format!("system/Patient.rs?_id={n}")).collect::<Vec<_>>().join(" ");
        assert!(Scopes::parse(&many).is_err());
    }

    #[test]
    fn narrowing_works_both_ways() {
        for (asked, allowed, granted) in [
            ("system/Patient.rs", "system/*.cruds", "system/Patient.rs"),
            ("system/Patient.read", "system/*.*", "system/Patient.read"),
            ("system/*.rs", "system/Patient.rs", "system/Patient.rs"),
            ("system/*.cruds", "system/Patient.rs system/Observation.r", "system/Patient.rs system/Observation.r"),
            ("system/Patient.*", "system/Patient.read", "system/Patient.rs"),
            ("system/Patient.write", "system/Patient.read", ""),
            ("system/Patient.rs", "system/Observation.rs", ""),
            ("user/Patient.rs", "system/*.cruds", ""),
            ("system/Observation.rs", "system/Observation.rs?code=a", "system/Observation.rs?code=a"),
            ("system/Observation.rs?code=a", "system/*.rs", "system/Observation.rs?code=a"),
            ("system/Observation.rs?code=a", "system/Observation.rs?status=b", "system/Observation.rs?code=a&status=b"),
            ("system/Observation.rs?code=a", "system/Observation.rs?code=a", "system/Observation.rs?code=a"),
            ("system/Observation.rs", "system/Observation.r?code=a system/Observation.rs", "system/Observation.rs"),
            ("system/Patient.rs system/Patient.rs", "system/*.rs", "system/Patient.rs"),
            ("openid system/Patient.rs", "system/*.rs", "system/Patient.rs"),
            ("openid", "openid", "openid"),
        ] {
            let got = Scopes::parse(asked).unwrap().narrowed_by(&Scopes::parse(allowed).unwrap());
            assert_eq!(got.to_string(), granted, "{asked} of {allowed}");
        }
    }

    #[test]
    fn scopes_cover_what_they_open_together() {
        for (mine, asked, covered) in [
            ("patient/*.rs", "patient/Observation.rs", true),
            ("patient/*.rs", "patient/*.read", true),
            ("patient/*.rs", "user/Observation.rs", false),
            ("patient/Observation.r patient/Observation.s", "patient/Observation.rs", true),
            ("patient/Observation.rs", "patient/*.rs", false),
            ("patient/Observation.rs?category=a", "patient/Observation.rs", false),
            ("patient/Observation.rs", "patient/Observation.rs?category=a", true),
            ("patient/Observation.rs?category=a", "patient/Observation.rs?category=a&status=final", true),
            ("patient/Observation.rs?category=a", "patient/Observation.rs?category=b", false),
            ("openid launch/patient", "openid", true),
            ("openid", "offline_access", false),
        ] {
            let covers = Scopes::parse(mine).unwrap().cover(&Scope::parse(asked).unwrap());
            assert_eq!(covers, covered, "{mine} and {asked}");
        }
    }

    fn any_scope() -> impl Strategy<Value = String> {
        let context = prop_oneof![Just("patient"), Just("user"), Just("system")];
        let kind = prop_oneof![Just("Patient"), Just("Observation"), Just("AuditEvent")];
        let letters = prop_oneof![
            (1u8..32).prop_map(|set| Letters(set).to_string()),
            prop_oneof![Just("read"), Just("write"), Just("*")].prop_map(str::to_owned)
        ];
        let filter = proptest::option::of("[a-z]{1,6}=[a-zA-Z0-9|:/.,-]{1,12}(&[a-z]{1,6}=[a-z%]{0}[0-9]{1,4}){0,2}");
        (context, kind, letters, filter).prop_map(|(context, kind, letters, filter)| {
            let tail = filter.map_or(String::new(), |filter| format!("?{filter}"));
            format!("{context}/{kind}.{letters}{tail}")
        })
    }

    proptest! {
        #[test]
        fn a_scope_is_shown_as_written(texts in proptest::collection::vec(any_scope(), 1..6)) {
            let mut once: Vec<String> = Vec::new();
            for text in texts {
                if !once.contains(&text) {
                    once.push(text);
                }
            }
            prop_assert_eq!(Scopes::parse(&once.join(" ")).unwrap().to_string(), once.join(" "));
        }

        #[test]
        fn what_is_left_is_covered_by_both(asked in any_scope(), allowed in any_scope()) {
            let (asked, allowed) = (Scopes::parse(&asked).unwrap(), Scopes::parse(&allowed).unwrap());
            for granted in asked.narrowed_by(&allowed).0 {
                prop_assert!(asked.cover(&granted) && allowed.cover(&granted), "{granted}");
            }
        }

        #[test]
        fn narrowing_never_widens(asked in any_scope(), allowed in any_scope()) {
            let (asked, allowed) = (read(&asked), read(&allowed));
            if let Some(granted) = asked.narrowed_by(&allowed) {
                for limit in [&asked, &allowed] {
                    prop_assert_eq!(granted.context, limit.context);
                    prop_assert_eq!(granted.letters.and(limit.letters), granted.letters);
                    prop_assert!(limit.kind.is_none() || granted.kind == limit.kind);
                    prop_assert!(limit.filter.iter().all(|pair| granted.filter.contains(pair)));
                }
            }
        }

        #[test]
        fn reading_any_text_never_panics(text in "\\PC{0,60}") {
            let _ = Scopes::parse(&text);
        }
    }
}

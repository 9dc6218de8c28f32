//! Sets of codes for `:in`, `:not-in`, `:above` and `:below`: ValueSets and CodeSystems as they are stored, expanded in
//! memory. Does no IO: an expansion says which resource it needs next. What cannot be expanded whole is an error,
//! never a smaller or larger set.

mod compose;
mod system;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::text;
use crate::error::{Error, Kind, Result};
use crate::fhir::definitions;
use crate::fhir::json::Node;

use system::System;

/// Codes that one expansion may have.
pub const CODES_MAX: usize = 10_000;
/// Concepts of one code system that are looked through.
pub const CONCEPTS_MAX: usize = 200_000;
/// ValueSets in one another.
const DEPTH_MAX: usize = 8;

/// What a modifier asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Concepts {
    /// The codes of a ValueSet: its canonical url (perhaps with a version) or `ValueSet/id`.
    ValueSet(String),
    /// A concept and what it subsumes.
    Below { system: String, code: String },
    /// A concept and what subsumes it.
    Above { system: String, code: String },
}

/// Codes by system; folded, as codes are compared without regard to case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Codes {
    systems: HashMap<String, HashSet<String>>,
    count: usize,
}

impl Codes {
    pub fn contains(&self, system: Option<&str>, code: &str) -> bool {
        let Some(codes) = system.and_then(|system| self.systems.get(system)) else { return false };
        codes.contains(text::fold_code(code).as_ref())
    }

    /// Every system and (folded) code.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.systems.iter().flat_map(|(system, codes)| codes.iter().map(move |code| (system.as_str(), code.as_str())))
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, system: &str, code: &str) {
        let codes = self.systems.entry(system.to_owned()).or_default();
        self.count += usize::from(codes.insert(text::fold_code(code).into_owned()));
    }

    fn add_all(&mut self, other: &Codes) {
        other.iter().for_each(|(system, code)| self.add(system, code));
    }

    fn keep(&mut self, wanted: impl Fn(&str, &str) -> bool) {
        for (system, codes) in &mut self.systems {
            codes.retain(|code| wanted(system, code));
        }
        self.count = self.systems.values().map(HashSet::len).sum();
    }

    fn has(&self, system: &str, code: &str) -> bool {
        self.systems.get(system).is_some_and(|codes| codes.contains(code))
    }
}

/// A resource that an expansion needs: looked up by its canonical url or `Type/id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    ValueSet(String),
    CodeSystem(String),
}

/// What was looked up so far; None: it is not stored here, or not for this caller.
#[derive(Default)]
pub struct Library {
    found: HashMap<Need, Option<Node>>,
}

impl Library {
    pub fn put(&mut self, need: Need, found: Option<Node>) {
        self.found.insert(need, found);
    }

    /// How many resources were asked for.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn get(&self, need: &Need) -> Result<Option<&Node>, Stop> {
        self.found.get(need).map(Option::as_ref).ok_or_else(|| Stop::Need(need.clone()))
    }
}

/// Why an expansion goes no further.
enum Stop {
    Need(Need),
    Fault(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fault(error)
    }
}

/// How far an expansion came.
pub enum Step {
    Done(Codes),
    /// Look this up, put it into the library, ask again.
    Needs(Need),
}

/// Expands with what the library holds.
///
/// # Errors
/// `Kind::Invalid` for what is not stored or not known, `Kind::Unsupported` for what cannot be expanded,
/// `Kind::TooCostly` beyond the limits; all say which resource it is.
pub fn expand(concepts: &Concepts, library: &Library) -> Result<Step> {
    let expanded = match concepts {
        Concepts::ValueSet(url) => compose::value_set(url, library, 0),
        Concepts::Below { system, code } => hierarchy(system, code, library, false),
        Concepts::Above { system, code } => hierarchy(system, code, library, true),
    };
    match expanded {
        Ok(codes) => Ok(Step::Done(codes)),
        Err(Stop::Need(need)) => Ok(Step::Needs(need)),
        Err(Stop::Fault(error)) => Err(error),
    }
}

fn hierarchy(url: &str, code: &str, library: &Library, up: bool) -> Result<Codes, Stop> {
    let system = code_system(url, library)?;
    system.is_a()?;
    let at = system.find(code).ok_or_else(|| invalid(format!("The CodeSystem {url} has no code '{code}'.")))?;
    let mut codes = Codes::default();
    for at in if up { system.above(at) } else { system.below(at) } {
        codes.add(system.url(), system.code(at));
    }
    limited(codes, url)
}

/// A stored code system that lists all its concepts.
fn code_system<'a>(url: &str, library: &'a Library) -> Result<System<'a>, Stop> {
    let found = library.get(&Need::CodeSystem(url.to_owned()))?;
    let node = found.ok_or_else(|| invalid(format!("The CodeSystem {url} is not stored on this server.")))?;
    Ok(System::read(url, node)?)
}

fn limited(codes: Codes, url: &str) -> Result<Codes, Stop> {
    if codes.len() > CODES_MAX {
        let text = format!("The expansion of {url} has more than {CODES_MAX} codes: use a smaller value set.");
        return Err(Error::new(Kind::TooCostly, text).into());
    }
    Ok(codes)
}

fn invalid(text: String) -> Error {
    Error::invalid(text)
}

/// The codes of a value set that the definitions of R4 list, where it draws from one system.
fn of_definitions(url: &str) -> Option<Codes> {
    let plain = url.split('|').next().unwrap_or(url);
    let (all, system) = (definitions().codes(plain)?, definitions().code_system(plain)?);
    let mut codes = Codes::default();
    all.iter().for_each(|code| codes.add(system, code));
    Some(codes)
}

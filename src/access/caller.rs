//! Who is calling. A [`Caller`] is made only by `access::verify` from a genuine, live token, or for a named task of the
//! server itself.

use std::sync::Arc;

use super::filter;
use super::person::Person;
use super::reach::Reach;
use super::scope::{Context, Letters, Scopes};
use crate::error::Result;
use crate::fhir::{TypeId, definitions};
use crate::search::query::Criterion;
use crate::world::Instant;

/// A caller whose token is genuine and live, or a named system task. Clones are cheap.
///
/// It cannot be made outside `access`:
///
/// ```
/// fn scopes(caller: &phial::access::Caller) -> &phial::access::Scopes {
///     caller.scopes()
/// }
/// ```
/// ```compile_fail,E0451
/// fn forge(who: phial::access::Who, scopes: phial::access::Scopes) -> phial::access::Caller {
///     phial::access::Caller { who: who.into(), scopes: scopes.into(), rules: Vec::new().into(), person: None, reach: None }
/// }
/// ```
/// Nor as a task of the server from outside the crate:
///
/// ```compile_fail,E0624
/// let caller = phial::access::Caller::task("mine");
/// ```
#[derive(Clone)]
pub struct Caller {
    who: Arc<Who>,
    scopes: Arc<Scopes>,
    rules: Arc<[Rule]>,
    person: Option<Arc<Person>>,
    /// What the person reaches; looked up for each request. Without it a person is granted nothing.
    reach: Option<Arc<Reach>>,
}

/// What one scope lets the caller do.
pub(super) struct Rule {
    pub context: Context,
    /// None: every type.
    pub kind: Option<TypeId>,
    pub letters: Letters,
    /// None: every row.
    pub criteria: Option<Vec<Criterion>>,
}

/// The scope `fhirUser` lets an app read the record that its claim names (SMART App Launch, "Scopes for requesting identity
/// data"), as far as the policy lets the person.
fn own_record(scopes: &Scopes, person: &Person) -> Option<Rule> {
    let (kind, id) = person.fhir_user.as_deref()?.split_once('/')?;
    let kind = definitions().type_id(kind)?;
    let asked = scopes.0.iter().any(|scope| scope.text() == "fhirUser");
    let own = Criterion::IdIn(std::iter::once(id.to_owned()).collect());
    asked.then(|| Rule { context: Context::User, kind: Some(kind), letters: Letters::READ, criteria: Some(vec![own]) })
}

/// Facts about the caller for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub client_id: String,
    /// Token id (`jti`).
    pub token_id: Option<String>,
    pub issuer: Option<String>,
    /// Subject of a user token; None for backend services.
    pub user: Option<String>,
    pub expires: Option<Instant>,
    /// A task of the server itself (import, demo data): its name.
    pub task: Option<&'static str>,
}

impl Caller {
    /// The caller of a verified token.
    ///
    /// # Errors
    /// `Kind::Invalid` when the filter of a scope cannot be read.
    pub(super) fn new(who: Who, scopes: Scopes, person: Option<Person>, base: &str, now: Instant) -> Result<Caller> {
        let mut rules = Vec::new();
        // `patient/` and `user/` scopes are about a person, `system/` scopes about a client that acts for itself:
        // without one, or beside one, they open nothing.
        for scope in scopes.resources().filter(|scope| (scope.context == Context::System) == person.is_none()) {
            let criteria = match scope.kind {
                Some(kind) if !scope.filter.is_empty() => Some(filter::criteria(kind, &scope.filter, base, now)?),
                _ => None,
            };
            rules.push(Rule { context: scope.context, kind: scope.kind, letters: scope.letters, criteria });
        }
        rules.extend(person.as_ref().and_then(|person| own_record(&scopes, person)));
        let (who, scopes, person) = (Arc::new(who), Arc::new(scopes), person.map(Arc::new));
        Ok(Caller { who, scopes, rules: rules.into(), person, reach: None })
    }

    pub fn who(&self) -> &Arc<Who> {
        &self.who
    }

    /// The person behind the token; None for backend services and tasks.
    pub fn person(&self) -> Option<&Person> {
        self.person.as_deref()
    }

    /// What the person reaches, as looked up for this request.
    pub(crate) fn reach(&self) -> Option<&Reach> {
        self.reach.as_deref()
    }

    /// The same caller, reaching this. `None`: to be looked up again.
    pub(crate) fn reaching(&self, reach: Option<Reach>) -> Caller {
        Caller { reach: reach.map(Arc::new), ..self.clone() }
    }

    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// A named task of the server itself, allowed everything, recorded under its name.
    pub(crate) fn task(name: &'static str) -> Caller {
        let who = Who {
            client_id: name.to_owned(),
            token_id: None,
            issuer: None,
            user: None,
            expires: None,
            task: Some(name),
        };
        let everything = Rule { context: Context::System, kind: None, letters: Letters::ALL, criteria: None };
        let (who, scopes) = (Arc::new(who), Arc::new(Scopes::default()));
        Caller { who, scopes, rules: Arc::new([everything]), person: None, reach: None }
    }

    /// For tests of other rooms: a backend client that holds exactly these scopes.
    #[cfg(test)]
    pub(crate) fn stand_in(client_id: &str, scopes: &str, base: &str) -> Caller {
        let who = Who {
            client_id: client_id.to_owned(),
            token_id: Some("test-token".to_owned()),
            issuer: Some("https://phial.example".to_owned()),
            user: None,
            expires: None,
            task: None,
        };
        let scopes = Scopes::parse(scopes).expect("scopes of a test can be read");
        Caller::new(who, scopes, None, base, Instant(0)).expect("filters of a test can be read")
    }

    /// For tests of other rooms: a person with exactly these scopes, whose reach is yet to be looked up.
    #[cfg(test)]
    pub(crate) fn stand_in_person(user: &str, person: Person, scopes: &str, base: &str) -> Caller {
        let who = Who {
            client_id: "app".to_owned(),
            token_id: Some(format!("token-of-{user}")),
            issuer: Some("https://phial.example".to_owned()),
            user: Some(user.to_owned()),
            expires: None,
            task: None,
        };
        let scopes = Scopes::parse(scopes).expect("scopes of a test can be read");
        Caller::new(who, scopes, Some(person), base, Instant(0)).expect("filters of a test can be read")
    }
}

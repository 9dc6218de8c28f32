//! Looks at an entry's own facts before any AuditEvent is made of it: most slices of most entries are ruled out here at
//! almost no cost. Lets through too much, never too little; the matcher decides.

use std::collections::HashSet;

use super::balp::Slice;
use super::stored::Entry;
use crate::fhir::{TypeId, definitions};
use crate::search::Criterion;
use crate::search::query::{Modifier, Wanted, WantedCode, WantedReference};
use crate::search::text::fold_code;

/// What a slice must be about, read from the criteria once. Each list is one criterion: one of it must fit.
#[derive(Default)]
pub struct Prefilter {
    /// Logical ids of patients.
    patients: Vec<HashSet<String>>,
    /// `AuditEvent.action`, folded.
    actions: Vec<HashSet<String>>,
    /// `AuditEvent.outcome`, folded.
    outcomes: Vec<HashSet<String>>,
    /// Client ids or subjects of users.
    agents: Vec<HashSet<String>>,
}

impl Prefilter {
    pub fn new(kind: TypeId, criteria: &[Criterion]) -> Prefilter {
        let known = definitions();
        let of = |code: &str| known.param(kind, code).map(|param| param.id);
        let (patient, action, outcome, agent) = (of("patient"), of("action"), of("outcome"), of("agent"));
        let mut filter = Prefilter::default();
        for criterion in criteria {
            let (param, list) = match criterion {
                Criterion::Param { param, modifier: None | Some(Modifier::Type(_)), any_of } => {
                    let list = if Some(*param) == patient { ids(any_of) } else { codes(any_of, |code| &code.folded) };
                    (Some(*param).filter(|param| Some(*param) != agent), list)
                }
                Criterion::Param { param, modifier: Some(Modifier::Identifier), any_of } => {
                    (Some(*param).filter(|param| Some(*param) == agent), codes(any_of, |code| &code.exact))
                }
                Criterion::ReferenceIn { param, ids, .. } => {
                    (Some(*param).filter(|param| Some(*param) == patient), Some(ids.clone()))
                }
                _ => continue,
            };
            let lists = match param {
                None => continue,
                _ if param == patient => &mut filter.patients,
                _ if param == action => &mut filter.actions,
                _ if param == outcome => &mut filter.outcomes,
                _ if param == agent => &mut filter.agents,
                _ => continue,
            };
            lists.extend(list);
        }
        filter
    }

    /// Whether any slice of the entry can meet the criteria.
    pub fn may_hold(&self, entry: &Entry<'_>) -> bool {
        let who = entry.who.as_ref();
        let is_agent = |list: &HashSet<String>| {
            who.is_some_and(|who| {
                list.contains(&*who.client) || who.user.as_ref().is_some_and(|user| list.contains(&**user))
            })
        };
        holds(&self.outcomes, &entry.outcome) && self.agents.iter().all(is_agent)
    }

    /// Whether this slice can meet the criteria.
    pub fn may_be(&self, slice: &Slice<'_>) -> bool {
        let is_about = |list: &HashSet<String>| {
            slice.patient.is_some_and(|patient| list.contains(patient))
                || slice.touched.iter().any(|touch| touch.0 == "Patient" && list.contains(&*touch.1))
        };
        holds(&self.actions, slice.what.action()) && self.patients.iter().all(is_about)
    }
}

fn holds(lists: &[HashSet<String>], code: &str) -> bool {
    lists.is_empty() || lists.iter().all(|list| list.contains(&*fold_code(code)))
}

/// The codes of all wanted tokens; None when one is not plainly a code.
fn codes(any_of: &[Wanted], form: impl Fn(&WantedCode) -> &String) -> Option<HashSet<String>> {
    any_of
        .iter()
        .map(|wanted| match wanted {
            Wanted::Token { code: Some(code), .. } => Some(form(code).clone()),
            _ => None,
        })
        .collect()
}

/// The logical ids of all wanted references; None when one is not to this server.
fn ids(any_of: &[Wanted]) -> Option<HashSet<String>> {
    any_of
        .iter()
        .map(|wanted| match wanted {
            Wanted::Reference(WantedReference::Local { id, .. }) => Some(id.clone()),
            _ => None,
        })
        .collect()
}

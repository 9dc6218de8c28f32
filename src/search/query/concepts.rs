//! Sets of codes (`:in`, `:not-in`, `:above`, `:below`) are looked up before a search runs: [`next_concepts`] names the
//! next one, [`supply_concepts`] puts its codes in place.

use std::sync::Arc;

use super::{Criterion, Wanted};
use crate::search::terminology::{Codes, Concepts};

/// The next set of codes that is to be looked up.
pub fn next_concepts(criteria: &[Criterion]) -> Option<&Concepts> {
    criteria.iter().find_map(|criterion| match criterion {
        Criterion::Param { any_of, .. } => any_of.iter().find_map(|wanted| match wanted {
            Wanted::Concepts(concepts) => Some(concepts),
            _ => None,
        }),
        Criterion::Chain { inner, .. } | Criterion::Has { inner, .. } | Criterion::Hierarchy { inner, .. } => {
            next_concepts(std::slice::from_ref(inner))
        }
        Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => lists.iter().find_map(|list| next_concepts(list)),
        Criterion::Masked { criteria, .. } => next_concepts(criteria),
        Criterion::ReferenceIn { .. }
        | Criterion::IdIn(_)
        | Criterion::PatientIn(_)
        | Criterion::PatientsWithin(_)
        | Criterion::NoPatient
        | Criterion::NotForbidden(_) => None,
    })
}

/// Puts the codes in the place of every such set.
pub fn supply_concepts(criteria: &mut [Criterion], concepts: &Concepts, codes: &Arc<Codes>) {
    for criterion in criteria {
        match criterion {
            Criterion::Param { any_of, .. } => {
                for wanted in any_of.iter_mut() {
                    if matches!(wanted, Wanted::Concepts(found) if found == concepts) {
                        *wanted = Wanted::Codes(codes.clone());
                    }
                }
            }
            Criterion::Chain { inner, .. } | Criterion::Has { inner, .. } | Criterion::Hierarchy { inner, .. } => {
                supply_concepts(std::slice::from_mut(inner), concepts, codes);
            }
            Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => {
                lists.iter_mut().for_each(|list| supply_concepts(list, concepts, codes));
            }
            Criterion::Masked { criteria, .. } => supply_concepts(criteria, concepts, codes),
            Criterion::ReferenceIn { .. }
            | Criterion::IdIn(_)
            | Criterion::PatientIn(_)
            | Criterion::PatientsWithin(_)
            | Criterion::NoPatient
            | Criterion::NotForbidden(_) => {}
        }
    }
}

/// Whether a criterion of the list itself, or of one within it, asks for words in the text.
pub fn has_words(criteria: &[Criterion]) -> bool {
    criteria.iter().any(|criterion| match criterion {
        Criterion::Param { any_of, .. } => any_of.iter().any(|wanted| matches!(wanted, Wanted::Words(_))),
        Criterion::Chain { inner, .. } | Criterion::Has { inner, .. } | Criterion::Hierarchy { inner, .. } => {
            has_words(std::slice::from_ref(inner))
        }
        Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => lists.iter().any(|list| has_words(list)),
        Criterion::Masked { criteria, .. } => has_words(criteria),
        Criterion::ReferenceIn { .. }
        | Criterion::IdIn(_)
        | Criterion::PatientIn(_)
        | Criterion::PatientsWithin(_)
        | Criterion::NoPatient
        | Criterion::NotForbidden(_) => false,
    })
}

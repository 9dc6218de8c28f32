//! Chains and `_has` are answered by inner searches, innermost first: [`pending`] names the next one, [`supply`] puts
//! its answer in place.

use std::collections::HashSet;

use super::Criterion;
use crate::fhir::{ParamId, TypeId};

/// One inner search that has to run before the outer one can.
pub struct Pending<'a> {
    /// The type to search.
    pub kind: TypeId,
    /// What its resources must satisfy; resolved.
    pub criterion: &'a Criterion,
    /// What to collect of each hit.
    pub take: Take,
}

/// What an inner search collects: logical ids, and canonical urls where the type has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Its own names (`View::names`).
    Id,
    /// The names of the resources of type `of` that it refers to by `param` (`View::named`).
    References { param: ParamId, of: TypeId },
}

/// The next inner search, or None when all is resolved. Call again after each [`supply`].
pub fn pending(criteria: &[Criterion]) -> Option<Pending<'_>> {
    criteria.iter().find_map(next)
}

fn next(criterion: &Criterion) -> Option<Pending<'_>> {
    match criterion {
        Criterion::Chain { target, inner, .. } => {
            next(inner).or(Some(Pending { kind: *target, criterion: inner, take: Take::Id }))
        }
        Criterion::Has { source, param, of, inner } => next(inner).or(Some(Pending {
            kind: *source,
            criterion: inner,
            take: Take::References { param: *param, of: *of },
        })),
        Criterion::Hierarchy { target, up, via, inner, .. } => Some(Pending {
            kind: *target,
            criterion: inner,
            take: if *up { Take::References { param: *via, of: *target } } else { Take::Id },
        }),
        Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => lists.iter().find_map(|list| pending(list)),
        Criterion::Masked { criteria, .. } => pending(criteria),
        Criterion::Param { .. }
        | Criterion::ReferenceIn { .. }
        | Criterion::IdIn(_)
        | Criterion::PatientIn(_)
        | Criterion::PatientsWithin(_)
        | Criterion::NoPatient
        | Criterion::NotForbidden(_) => None,
    }
}

/// One step of a hierarchy: what is part of these, or these themselves, whose parents are wanted.
pub(super) fn step(target: TypeId, via: ParamId, up: bool, ids: HashSet<String>) -> Criterion {
    if up { Criterion::IdIn(ids) } else { Criterion::ReferenceIn { param: via, target, ids } }
}

/// Puts the answer (logical ids) of the search that [`pending`] named in its place. False: nothing was pending.
pub fn supply(criteria: &mut [Criterion], ids: HashSet<String>) -> bool {
    let mut answer = Some(ids);
    criteria.iter_mut().any(|criterion| place(criterion, &mut answer))
}

fn place(criterion: &mut Criterion, answer: &mut Option<HashSet<String>>) -> bool {
    match criterion {
        Criterion::Chain { param, target, inner } => {
            if place(inner, answer) {
                return true;
            }
            let Some(ids) = answer.take() else { return false };
            *criterion = Criterion::ReferenceIn { param: *param, target: *target, ids };
            true
        }
        Criterion::Has { inner, .. } => {
            if place(inner, answer) {
                return true;
            }
            let Some(ids) = answer.take() else { return false };
            *criterion = Criterion::IdIn(ids);
            true
        }
        Criterion::Hierarchy { param, target, up, via, inner, seen } => {
            let Some(ids) = answer.take() else { return false };
            let next: HashSet<String> = ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
            if next.is_empty() {
                let (param, target, ids) = (*param, *target, std::mem::take(seen));
                *criterion = Criterion::ReferenceIn { param, target, ids };
            } else {
                **inner = step(*target, *via, *up, next);
            }
            true
        }
        Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => {
            lists.iter_mut().flatten().any(|inner| place(inner, answer))
        }
        Criterion::Masked { criteria, .. } => criteria.iter_mut().any(|inner| place(inner, answer)),
        Criterion::Param { .. }
        | Criterion::ReferenceIn { .. }
        | Criterion::IdIn(_)
        | Criterion::PatientIn(_)
        | Criterion::PatientsWithin(_)
        | Criterion::NoPatient
        | Criterion::NotForbidden(_) => false,
    }
}

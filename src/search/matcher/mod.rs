//! The in-memory matcher: decides every hit, gives sort keys. Works on an opened capsule; fresh values are encoded
//! first, so that there is one logic. Must not know where capsules come from.

mod compare;
mod prefix;
mod sort;

use std::sync::Arc;

use super::borrowed::{ReferenceRef, ValueRef};
use super::capsule::View;
use super::query::{Criterion, Modifier, Wanted, has_words, next_concepts, pending};
use crate::error::{Error, Kind, Result};
use crate::fhir::ParamId;

pub use sort::{SortKey, sort_key};

/// Decides whether a resource satisfies all criteria. Chains and `_has` must have been resolved before.
#[derive(Clone)]
pub struct Matcher {
    criteria: Arc<[Criterion]>,
}

impl Matcher {
    /// # Errors
    /// `Kind::Internal` when a chain or `_has` is still unresolved, `Kind::Unsupported` when a set of codes is.
    pub fn new(criteria: Vec<Criterion>) -> Result<Matcher> {
        if pending(&criteria).is_some() {
            return Err(unresolved());
        }
        if next_concepts(&criteria).is_some() {
            let text = "Sets of codes (:in, :not-in, :above, :below) cannot be used here.";
            return Err(Error::unsupported(text));
        }
        if has_words(&criteria) {
            let text =
                "'_text' and '_content' can only be searched by directly, not through chains, _has or operations.";
            return Err(Error::unsupported(text));
        }
        Ok(Matcher { criteria: criteria.into() })
    }

    /// # Errors
    /// `Kind::Tampered` when the capsule does not decode.
    pub fn matches(&self, view: &View<'_>) -> Result<bool> {
        all(&self.criteria, view)
    }
}

pub(super) fn unresolved() -> Error {
    Error::new(Kind::Internal, "The server could not complete the request.").caused_by("a chain or _has is unresolved")
}

fn all(criteria: &[Criterion], view: &View<'_>) -> Result<bool> {
    for criterion in criteria {
        if !holds(criterion, view)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(criterion: &Criterion, view: &View<'_>) -> Result<bool> {
    match criterion {
        Criterion::Param { param, modifier, any_of } => param_holds(*param, *modifier, any_of, view),
        Criterion::ReferenceIn { param, target, ids } => {
            for value in view.values(*param)? {
                let ValueRef::Reference { to: Some(to), .. } = value? else { continue };
                let named = match to {
                    ReferenceRef::Local { kind, id, .. } => kind == *target && ids.contains(id),
                    ReferenceRef::Absolute(url) => ids.contains(url),
                    _ => false,
                };
                if named {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Criterion::IdIn(ids) => {
            if ids.contains(view.id()) {
                return Ok(true);
            }
            Ok(view.canonicals()?.iter().any(|url| ids.contains(url)))
        }
        Criterion::AnyOf(lists) => any(lists, view),
        Criterion::NoneOf(lists) => any(lists, view).map(|holds| !holds),
        Criterion::PatientIn(ids) => Ok(view.patients()?.iter().any(|id| ids.contains(*id))),
        Criterion::PatientsWithin(ids) => {
            let patients = view.patients()?;
            Ok(!patients.is_empty() && patients.iter().all(|id| ids.contains(*id)))
        }
        Criterion::NotForbidden(forbids) => {
            for patient in view.patients()? {
                if any(&forbids.forbids(patient), view)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Criterion::Masked { mask, criteria } => all(criteria, &view.masked(mask)),
        Criterion::NoPatient => Ok(view.patients()?.is_empty()),
        Criterion::Chain { .. } | Criterion::Has { .. } | Criterion::Hierarchy { .. } => Err(unresolved()),
    }
}

/// Whether one of the lists holds as a whole.
fn any(lists: &[Vec<Criterion>], view: &View<'_>) -> Result<bool> {
    for list in lists {
        if all(list, view)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn param_holds(param: ParamId, modifier: Option<Modifier>, any_of: &[Wanted], view: &View<'_>) -> Result<bool> {
    if modifier == Some(Modifier::Missing) {
        let missing = view.values(param)?.next().transpose()?.is_none();
        return Ok(any_of.iter().any(|wanted| matches!(wanted, Wanted::Missing(wanted) if *wanted == missing)));
    }
    let (mut found, mut other) = (false, false);
    for value in view.values(param)? {
        let value = value?;
        let mut hit = false;
        for wanted in any_of {
            if compare::hits(wanted, modifier, &value)? {
                hit = true;
                break;
            }
        }
        found |= hit;
        other |= !hit;
        if found && modifier != Some(Modifier::Other) {
            break;
        }
    }
    Ok(match modifier {
        // These also find resources that have no value at all.
        Some(Modifier::Not | Modifier::NotIn) => !found,
        Some(Modifier::Other) => other,
        _ => found,
    })
}

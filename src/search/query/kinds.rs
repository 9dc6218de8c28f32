//! Which types a query touches, for the grants.

use super::{Criterion, Include, Query};
use crate::fhir::definitions::Param;
use crate::fhir::{ParamKind, TypeId, definitions};

impl Query {
    /// The types without which the query cannot be answered at all (its own, those of `_has`, of chains to one type
    /// and of includes that name their type): the caller needs a grant for each. Sorted, distinct.
    pub fn kinds(&self) -> Vec<TypeId> {
        let mut kinds = vec![self.kind];
        criteria(&self.criteria, true, &mut kinds);
        kinds.extend(self.includes.iter().filter_map(|include| include.target));
        kinds.extend(self.revincludes.iter().map(|include| include.source));
        distinct(kinds)
    }

    /// The other types it may touch (chains and includes over several types): those without a grant are left out of
    /// the answer, and said to be. Sorted, distinct.
    pub fn optional_kinds(&self) -> Vec<TypeId> {
        let mut kinds = Vec::new();
        criteria(&self.criteria, false, &mut kinds);
        for include in self.includes.iter().filter(|include| include.target.is_none()) {
            targets(include, &mut kinds);
        }
        let needed = self.kinds();
        distinct(kinds).into_iter().filter(|kind| !needed.contains(kind)).collect()
    }
}

fn distinct(mut kinds: Vec<TypeId>) -> Vec<TypeId> {
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The types of chains and `_has`: outside of alternatives (`needed`), or within.
fn criteria(list: &[Criterion], needed: bool, kinds: &mut Vec<TypeId>) {
    for criterion in list {
        match criterion {
            Criterion::Chain { target: kind, inner, .. } | Criterion::Has { source: kind, inner, .. } => {
                if needed {
                    kinds.push(*kind);
                }
                criteria(std::slice::from_ref(inner), needed, kinds);
            }
            Criterion::Hierarchy { target, .. } if needed => kinds.push(*target),
            Criterion::NoneOf(lists) if needed => lists.iter().for_each(|list| everything(list, kinds)),
            // What stands in an alternative is optional as a whole.
            Criterion::AnyOf(lists) if !needed => lists.iter().for_each(|list| everything(list, kinds)),
            _ => {}
        }
    }
}

/// Every type, in whatever it stands.
fn everything(list: &[Criterion], kinds: &mut Vec<TypeId>) {
    for criterion in list {
        match criterion {
            Criterion::Chain { target: kind, inner, .. } | Criterion::Has { source: kind, inner, .. } => {
                kinds.push(*kind);
                everything(std::slice::from_ref(inner), kinds);
            }
            Criterion::Hierarchy { target, .. } => kinds.push(*target),
            Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => {
                lists.iter().for_each(|list| everything(list, kinds));
            }
            Criterion::Masked { criteria, .. } => everything(criteria, kinds),
            Criterion::Param { .. }
            | Criterion::ReferenceIn { .. }
            | Criterion::IdIn(_)
            | Criterion::PatientIn(_)
            | Criterion::PatientsWithin(_)
            | Criterion::NoPatient
            | Criterion::NotForbidden(_) => {}
        }
    }
}

fn targets(include: &Include, kinds: &mut Vec<TypeId>) {
    let of: Vec<&Param> = match include.param {
        Some(id) => definitions().param_by_id(id).into_iter().collect(),
        None => definitions().params(include.source).to_vec(),
    };
    for param in of.into_iter().filter(|param| param.kind == ParamKind::Reference) {
        match param.targets.as_slice() {
            [] => kinds.extend_from_slice(definitions().types()),
            targets => kinds.extend_from_slice(targets),
        }
    }
}

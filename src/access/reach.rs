//! What a person reaches at this moment: the patients that the policy's words `own`, `wards` and `assigned` stand for.
//! Looked up anew for every request by `interaction::reach` and kept by nobody, so that a care relation that ends, ends
//! at once. No IO here.

use std::collections::HashSet;
use std::sync::Arc;

use super::consent::{Directives, Forbidden};
use super::person::Person;
use super::policy::{Cell, Whose, owned};
use super::scope::Context;
use crate::fhir::TypeId;
use crate::fhir::date;
use crate::fhir::json::Node;
use crate::search::query::Criterion;
use crate::world::Instant;

/// Logical ids of patients.
pub type Patients = Arc<HashSet<String>>;

/// The patients that a person reaches. No Debug: logical ids are PHI.
#[derive(Clone, Default)]
pub struct Reach {
    pub own: Patients,
    pub wards: Patients,
    pub assigned: Patients,
    /// What patients forbid this person at this time.
    pub directives: Option<Arc<Directives>>,
}

/// Ways in which a row may lie within reach; one of the lists must hold as a whole.
pub type Ways = Vec<Vec<Criterion>>;

/// What a cell of the policy opens for this person under a scope of this context; empty: nothing.
pub fn ways(cell: &Cell, context: Context, person: &Person, reach: &Reach, kind: TypeId, writes: bool) -> Ways {
    // An emergency token is about one patient, whatever its scopes.
    let bound = context == Context::Patient || person.emergency.is_some();
    let launch = person.patient.as_ref();
    let mut patients: HashSet<String> = HashSet::new();
    let mut ways = Ways::new();
    for whose in &cell.whose {
        match whose {
            Whose::Own => patients.extend(reach.own.iter().cloned()),
            Whose::Wards => patients.extend(reach.wards.iter().cloned()),
            Whose::Assigned => {
                patients.extend(reach.assigned.iter().cloned());
                patients.extend(launch.filter(|_| person.emergency.is_some()).cloned());
            }
            Whose::Launch => patients.extend(launch.cloned()),
            Whose::Unowned if !owned(kind) => return vec![Vec::new()],
            Whose::Unowned => ways.push(vec![Criterion::NoPatient]),
            Whose::All if bound && owned(kind) => patients.extend(launch.cloned()),
            Whose::All => return vec![Vec::new()],
        }
    }
    if bound {
        patients.retain(|patient| Some(patient) == launch);
    }
    if !patients.is_empty() {
        let patients = Arc::new(patients);
        // What is written may name nobody else: else a resource could be moved out of, or into, somebody's record.
        let within = if writes { Criterion::PatientsWithin(patients) } else { Criterion::PatientIn(patients) };
        ways.push(vec![within]);
    }
    ways
}

/// What patients forbid of rows of a type, as conditions that rows must meet. Rows of no patient are nobody's to forbid.
pub fn forbidden(reach: &Reach, kind: TypeId, writes: bool) -> Vec<Criterion> {
    if !owned(kind) {
        return Vec::new();
    }
    let forbidden = |of: &Arc<Directives>| Criterion::NotForbidden(Arc::new(Forbidden::of(of.clone(), kind, writes)));
    reach.directives.iter().map(forbidden).collect()
}

/// Whether the moment lies in a Period. One whose ends cannot be read holds nothing.
pub fn holds(period: Option<&Node>, at: Instant) -> bool {
    let Some(period) = period else { return true };
    let end = |name: &str| period.get(name).and_then(Node::as_str).map(date::parse);
    let after_start = end("start").is_none_or(|start| start.is_ok_and(|start| start.lo <= at.0));
    after_start && end("end").is_none_or(|end| end.is_ok_and(|end| at.0 <= end.hi))
}

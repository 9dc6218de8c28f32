//! Blind terms: those of a stored resource, and those that narrow a query.

use super::query::Query;
use super::values::Values;
use crate::error::Result;
use crate::vault::{Pk, Vault};

/// How the database narrows candidates. Everything in it must hold; it may let through too much, never too little.
#[derive(Clone, Default)]
pub struct Narrow {
    /// One of these logical ids (`_id`).
    pub ids: Option<Vec<String>>,
    /// Rows of these patients' compartments (logical ids).
    pub patients: Option<Vec<String>>,
    /// Conjunction of disjunctions of blind terms.
    pub terms: Vec<Vec<i64>>,
    /// Inclusive range of `yr`, where the type's year parameter allows it (rows with no year always stay).
    pub years: Option<(i16, i16)>,
}

/// The terms of a resource, sorted, distinct. `pk` fixes the partitions. A resource of several patients also gets
/// one compartment term per patient.
pub fn terms(_values: &Values, _pk: Pk, _vault: &Vault) -> Vec<i64> {
    todo!()
}

/// The year for the clear `yr` column, if the mapping has one.
pub fn year(_values: &Values) -> Option<i16> {
    todo!()
}

/// What the database can narrow of a query whose chains are resolved.
pub fn narrow(_query: &Query, _vault: &Vault) -> Result<Narrow> {
    todo!()
}

/// The compartment term by which a row of several patients is found for one of them.
pub fn compartment_term(_patient: &str, _vault: &Vault) -> i64 {
    todo!()
}

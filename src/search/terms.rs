//! Blind terms: those of a stored resource, and those that narrow a query.

use super::query::Criterion;
use super::values::Values;
use crate::error::Result;
use crate::fhir::TypeId;
use crate::vault::{Pk, Vault};

/// How the database narrows candidates. Everything in it must hold; it may let through too much, never too little.
#[derive(Clone, Default)]
pub struct Narrow {
    /// Nothing can match: no need to ask the database.
    pub never: bool,
    /// One of these logical ids (`_id`).
    pub ids: Option<Vec<String>>,
    /// Rows of these patients.
    pub patients: Option<Patients>,
    /// Conjunction of disjunctions of blind terms.
    pub terms: Vec<Vec<i64>>,
    /// Inclusive range of `yr`, where the type's year parameter allows it (rows with no year always stay).
    pub years: Option<(i16, i16)>,
}

/// Rows sealed under the surrogate of one of `ids` (logical ids of Patients), or that hold one of `terms`
/// (compartment terms of rows of several patients; terms of other things the same parameter may refer to).
#[derive(Clone, Default)]
pub struct Patients {
    pub ids: Vec<String>,
    pub terms: Vec<i64>,
}

/// The terms of a resource, sorted, distinct. `pk` fixes the partitions. A resource of several patients also gets
/// one compartment term per patient.
pub fn terms(_values: &Values, _pk: Pk, _vault: &Vault) -> Vec<i64> {
    todo!()
}

/// The year for the clear `yr` column: where the mapping has a year parameter and all its values lie in one year.
pub fn year(_values: &Values) -> Option<i16> {
    todo!()
}

/// What the database can narrow of resolved criteria on a type (those of the query and of row filters together).
///
/// # Errors
/// `Kind::Internal` when a chain or `_has` is still unresolved.
pub fn narrow(_kind: TypeId, _criteria: &[Criterion], _vault: &Vault) -> Result<Narrow> {
    todo!()
}

/// The compartment term by which a row of several patients is found for one of them.
pub fn compartment_term(_kind: TypeId, _patient: &str, _vault: &Vault) -> i64 {
    todo!()
}

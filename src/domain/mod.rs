//! Domain rules over the mapped types: patients and their MRN, appointments and their status moves, medical records,
//! documents, care relations. Must not know HTTP or SQL.

use crate::error::Result;
use crate::fhir::Resource;
use crate::search::Values;

/// A row for a domain table, written in the same transaction as the resource. Fields are sealed by the store.
pub struct DomainRow {
    /// `patient`, `appointment`, `medical_record`, `document`, `care_relation`.
    pub table: &'static str,
    /// Field name and value (PHI).
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// Things that must be unique in the whole server: (domain, value), such as (`mrn`, `system|value`).
    pub unique: Vec<(&'static str, String)>,
}

/// What a rule needs from outside.
pub struct Rules<'a> {
    /// Identifier system of MRNs that this server gives.
    pub mrn_system: &'a str,
    /// The next MRN number, when one is needed (see [`needs_mrn`]).
    pub mrn_next: Option<u64>,
}

/// Whether this resource is a Patient without a medical record number.
pub fn needs_mrn(_resource: &Resource) -> bool {
    todo!()
}

/// Applies the rules of the type and gives its domain row, if it has one. `current` are the search values of the
/// version that is replaced.
///
/// # Errors
/// `Kind::BusinessRule` with the FHIRPath of the place (an illegal move of Appointment.status, say).
pub fn apply(_resource: &mut Resource, _current: Option<&Values>, _rules: &Rules<'_>) -> Result<Option<DomainRow>> {
    todo!()
}

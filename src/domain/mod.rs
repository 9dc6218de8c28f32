//! Domain rules over the mapped types: numbers that are given where they are absent, status moves, and the rows of the
//! domain tables (patients, appointments, medical records, documents, care relations). Which element means what is
//! said by the mappings; this room knows kinds of rules, not names. Must not know HTTP or SQL.

pub mod likeness;
mod moves;
mod number;
mod rows;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::fhir::Resource;
use crate::mapping::{Section, mapping};
use crate::search::Values;

/// A row for a domain table, written in the same transaction as the resource. Fields are sealed by the store. It is
/// PHI: no Debug, no Serialize.
pub struct DomainRow {
    /// `patient`, `appointment`, `medical_record`, `document`, `care_relation`.
    pub table: &'static str,
    /// Field names and values (PHI), by the section each is to be sealed in.
    pub fields: BTreeMap<Section, Map<String, Value>>,
    /// Things that must be unique in the whole server: (domain, value), such as (`mrn`, `system|value`).
    pub unique: Vec<(&'static str, String)>,
    /// The counter of this name must be at least this once the row is written: a number of ours that the client
    /// brought along must not be given again.
    pub raise: Option<(&'static str, u32)>,
}

/// What a rule needs from outside.
pub struct Rules<'a> {
    /// Identifier system of MRNs that this server gives.
    pub mrn_system: &'a str,
    /// The next number, when one is needed (see [`needs_number`]).
    pub mrn_next: Option<u64>,
}

/// The counter from which [`apply`] needs the next number: when the resource must have an identifier of a type that
/// neither it nor the version it replaces has (a Patient without a medical record number).
pub fn needs_number(resource: &Resource, current: Option<&Values>, mrn_system: &str) -> Option<&'static str> {
    let rule = mapping(resource.kind()).number.as_ref()?;
    let has = number::has_one(rule, resource, mrn_system) || number::kept(rule, current, mrn_system).is_some();
    (!has).then_some(rule.counter.as_str())
}

/// Applies the rules of the type and gives its domain rows, at most one per table. `current` are the search values of
/// the version that is replaced (None when there is none, or it was deleted).
///
/// # Errors
/// `Kind::BusinessRule` with the FHIRPath of the place (an illegal move of Appointment.status, say).
pub fn apply(resource: &mut Resource, current: Option<&Values>, rules: &Rules<'_>) -> Result<Vec<DomainRow>> {
    let mapping = mapping(resource.kind());
    if let Some(moves) = &mapping.moves {
        moves::check(moves, resource, current)?;
    }
    if let Some(rule) = &mapping.number {
        number::give(rule, resource, current, rules)?;
    }
    let mut rows = rows::rows(mapping, resource)?;
    if let (Some(rule), Some(first)) = (&mapping.number, rows.first_mut()) {
        number::claim(rule, resource, rules.mrn_system, first);
    }
    Ok(rows)
}

impl DomainRow {
    /// The value of a field, whatever its section.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.values().find_map(|fields| fields.get(name))
    }
}

#[cfg(test)]
mod tests;

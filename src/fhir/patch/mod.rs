//! Changes to a part of a resource: JSON Patch (RFC 6902) and FHIRPath Patch (fhirpatch.html). Both work on the JSON
//! tree, so that what is not touched stays as it was sent, digits included. Must not know storage or HTTP.
//!
//! A patch that cannot be read is `Kind::Invalid`; one that can, but does not fit the resource as it is now, is
//! `Kind::BusinessRule` at the place in the resource.

mod fhirpath;
mod pointer;
mod tree;

#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;

use super::json::Node;
use crate::error::{Error, Issue, Kind, Result};

use fhirpath::FhirPathPatch;
use pointer::JsonPatch;

/// Operations of one patch.
pub const OPERATIONS_MAX: usize = 500;

/// A patch that was read. It may hold PHI: no Debug.
#[derive(Clone)]
pub enum Patch {
    Json(JsonPatch),
    FhirPath(FhirPathPatch),
}

impl Patch {
    /// Reads a JSON Patch document.
    ///
    /// # Errors
    /// `Kind::Invalid` naming the operation and what is wrong with it; `Kind::TooCostly` for too many.
    pub fn json(document: Node) -> Result<Patch> {
        JsonPatch::read(document).map(Patch::Json)
    }

    /// Reads the Parameters of a FHIRPath Patch.
    ///
    /// # Errors
    /// `Kind::Invalid` with the place in the Parameters; `Kind::TooCostly` for too many operations.
    pub fn fhirpath(parameters: Node) -> Result<Patch> {
        FhirPathPatch::read(parameters).map(Patch::FhirPath)
    }

    /// Whether the outcome tells more of the resource than that a place is there: a `test` operation, a path with a
    /// filter. Who may change a resource without reading it must not ask.
    pub fn asks(&self) -> bool {
        match self {
            Patch::Json(patch) => patch.asks(),
            Patch::FhirPath(patch) => patch.asks(),
        }
    }

    /// Applies every operation, in order, to a resource. Elements that are left without content go.
    ///
    /// # Errors
    /// `Kind::BusinessRule` when an operation does not fit the resource; nothing is to be kept then.
    pub fn apply(&self, mut resource: Node) -> Result<Node> {
        match self {
            Patch::Json(patch) => resource = patch.apply(resource)?,
            Patch::FhirPath(patch) => patch.apply(&mut resource)?,
        }
        tree::prune(&mut resource);
        Ok(resource)
    }
}

/// An operation that does not fit the resource.
fn unfit(text: String, place: Option<String>) -> Error {
    let mut issue = Issue::error("processing", text);
    issue.expression = place;
    Error::with_issues(Kind::BusinessRule, vec![issue])
}

fn too_many() -> Error {
    Error::new(Kind::TooCostly, format!("A patch may have {OPERATIONS_MAX} operations at most."))
}

//! Structure of a resource over the definitions: names, types, cardinalities, choice types, primitive formats, ids,
//! empty objects, `_name` siblings, contained resources, codes of required bindings. Profiles and invariants are not
//! its business, but for the few that say what an element is (`ele-1`, `ext-1`).

mod narrative;
mod primitive;
mod walk;

use super::definitions::Primitive;
use super::json::Node;
use crate::error::{Issue, Severity};

/// So many faults are listed; a last issue says when there were more.
pub const MAX_ISSUES: usize = 100;

/// Every fault of structure, each with its FHIRPath; empty when there is none. Values of the resource are not quoted.
///
/// Two departures are only warnings, because published examples and exports carry them and nothing depends on them:
/// empty arrays (which XML cannot show), and text that is not base64 where it should be.
pub fn structure(node: &Node) -> Vec<Issue> {
    walk::check(node, None, true)
}

/// The same for a resource inside another document, whose faults are to be placed there: `Bundle.entry[3].resource`.
pub fn structure_at(node: &Node, place: &str) -> Vec<Issue> {
    walk::check(node, Some(place), true)
}

/// The same without looking into resources that are inside the document: for a Bundle whose entries stand each for
/// themselves.
pub fn envelope(node: &Node) -> Vec<Issue> {
    walk::check(node, None, false)
}

/// Every fault of a value of a datatype (`Meta`) at a place.
pub fn datatype(kind: &str, node: &Node, place: &str) -> Vec<Issue> {
    walk::check_datatype(kind, node, place)
}

/// Whether a value is one of a primitive type (by its FHIR name); the fault as fixed text.
pub fn simple(kind: &str, value: &Node) -> Result<(), &'static str> {
    match Primitive::of(kind) {
        Some(kind) => primitive::check(kind, value),
        None => Err("There is no such primitive type."),
    }
}

/// Whether any of the issues is reason to refuse the resource.
pub fn refuses(issues: &[Issue]) -> bool {
    issues.iter().any(|i| matches!(i.severity, Severity::Error | Severity::Fatal))
}

/// The faults found so far, up to [`MAX_ISSUES`].
#[derive(Default)]
struct Faults {
    issues: Vec<Issue>,
    unlisted: usize,
}

impl Faults {
    fn add(&mut self, make: impl FnOnce() -> Issue) {
        if self.issues.len() < MAX_ISSUES {
            self.issues.push(make());
        } else {
            self.unlisted += 1;
        }
    }

    fn into_issues(mut self) -> Vec<Issue> {
        if self.unlisted > 0 {
            let text = format!("{} more faults are not listed.", self.unlisted);
            let mut issue = Issue::error("informational", text);
            issue.severity = Severity::Information;
            self.issues.push(issue);
        }
        self.issues
    }
}

#[cfg(test)]
mod tests;

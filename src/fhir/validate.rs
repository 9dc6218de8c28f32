//! Structure of a resource over the definitions: names, types, cardinalities, choice types, primitive formats, ids,
//! empty objects, `_name` siblings, contained resources.

use super::json::Node;
use crate::error::Issue;

/// Every fault of structure, each with its FHIRPath; empty when there is none. Values of the resource are not quoted.
pub fn structure(_node: &Node) -> Vec<Issue> {
    todo!()
}

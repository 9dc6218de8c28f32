//! A resource whose structure has been checked. It is PHI: it has no Debug, Display or Serialize.

use super::definitions::TypeId;
use super::json::Node;
use crate::error::Result;
use crate::world::Instant;

/// A resource that passed `validate::structure`.
#[derive(Clone)]
pub struct Resource {
    kind: TypeId,
    node: Node,
}

impl Resource {
    /// Checks the structure and takes the tree (`validate::structure` says what is checked).
    ///
    /// # Errors
    /// `Kind::Invalid` with one issue per fault, each with its FHIRPath.
    pub fn check(_node: Node) -> Result<Resource> {
        todo!()
    }

    pub fn kind(&self) -> TypeId {
        self.kind
    }

    pub fn type_name(&self) -> &'static str {
        super::definitions::definitions().type_name(self.kind)
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    /// For `domain`, which may complete a resource (an MRN that is absent, say).
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    pub fn into_node(self) -> Node {
        self.node
    }

    /// The logical id, if it has one.
    pub fn id(&self) -> Option<&str> {
        self.node.get("id").and_then(Node::as_str)
    }

    /// Sets `id`, `meta.versionId` and `meta.lastUpdated`, keeping everything else of `meta` and the member order
    /// (`id` and `meta` come right after `resourceType` when they were absent).
    pub fn stamp(&mut self, _id: &str, _version: u32, _at: Instant) {
        todo!()
    }
}

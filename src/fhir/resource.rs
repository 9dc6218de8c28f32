//! A resource whose structure has been checked. It is PHI: it has no Debug, Display or Serialize.

use serde_json::{Map, Value};

use super::definitions::{TypeId, definitions};
use super::json::Node;
use super::validate;
use crate::error::{Error, Issue, Kind, Result};
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
    pub fn check(node: Node) -> Result<Resource> {
        let issues = validate::structure(&node);
        Self::checked(node, issues)
    }

    /// As [`Resource::check`], for a resource whose faults are to be placed inside another document
    /// (`Bundle.entry[3].resource`).
    ///
    /// # Errors
    /// As [`Resource::check`].
    pub fn check_at(node: Node, place: &str) -> Result<Resource> {
        let issues = validate::structure_at(&node, place);
        Self::checked(node, issues)
    }

    fn checked(node: Node, issues: Vec<Issue>) -> Result<Resource> {
        match Self::kind_of(&node) {
            Some(kind) if !validate::refuses(&issues) => Ok(Resource { kind, node }),
            _ => Err(Error::with_issues(Kind::Invalid, issues)),
        }
    }

    /// The tree of a version that was checked before it was stored.
    ///
    /// # Errors
    /// `Kind::Internal` when it does not say its type.
    pub fn stored(node: Node) -> Result<Resource> {
        match Self::kind_of(&node) {
            Some(kind) => Ok(Resource { kind, node }),
            None => Err(Error::internal("a stored resource names no type")),
        }
    }

    fn kind_of(node: &Node) -> Option<TypeId> {
        definitions().type_id(node.get("resourceType")?.as_str()?)
    }

    pub fn kind(&self) -> TypeId {
        self.kind
    }

    pub fn type_name(&self) -> &'static str {
        definitions().type_name(self.kind)
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
    pub fn stamp(&mut self, id: &str, version: u32, at: Instant) {
        let Value::Object(members) = &mut self.node else { return };
        if members.get("id").and_then(Value::as_str) != Some(id) {
            set(members, "id", Value::String(id.to_owned()), &["resourceType"]);
            // Extensions of a primitive that is replaced describe a value that is gone.
            members.shift_remove("_id");
        }
        if !members.get("meta").is_some_and(Value::is_object) {
            set(members, "meta", Value::Object(Map::with_capacity(2)), &["id", "resourceType"]);
        }
        if let Some(Value::Object(meta)) = members.get_mut("meta") {
            set(meta, "versionId", Value::String(version.to_string()), &["extension", "id"]);
            set(meta, "lastUpdated", Value::String(at.to_fhir()), &["versionId"]);
            meta.shift_remove("_versionId");
            meta.shift_remove("_lastUpdated");
        }
    }
}

/// Sets a member in its place, or puts it right after the first of `after` that is there (in front of all when none is).
fn set(members: &mut Map<String, Value>, name: &str, value: Value, after: &[&str]) {
    if let Some(slot) = members.get_mut(name) {
        *slot = value;
        return;
    }
    let place = after.iter().find_map(|wanted| members.keys().position(|key| key == wanted)).map_or(0, |n| n + 1);
    members.shift_insert(place, name.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::json;

    fn stamped(text: &str) -> String {
        let kind = definitions().type_id("Patient").expect("a type");
        let mut resource = Resource { kind, node: json::parse(text.as_bytes()).expect("valid") };
        resource.stamp("p1", 3, Instant(1_769_847_330_123));
        String::from_utf8(json::write(resource.node())).expect("text")
    }

    #[test]
    fn stamps_go_where_they_belong() {
        let meta = r#""versionId":"3","lastUpdated":"2026-01-31T08:15:30.123Z""#;
        for (text, expected) in [
            (
                r#"{"resourceType":"Patient","active":true}"#,
                format!(r#"{{"resourceType":"Patient","id":"p1","meta":{{{meta}}},"active":true}}"#),
            ),
            (
                r#"{"active":true,"resourceType":"Patient"}"#,
                format!(r#"{{"active":true,"resourceType":"Patient","id":"p1","meta":{{{meta}}}}}"#),
            ),
            (
                r#"{"meta":{"profile":["x"],"lastUpdated":"2020"},"resourceType":"Patient","active":true,"id":"old"}"#,
                r#"{"meta":{"versionId":"3","profile":["x"],"lastUpdated":"2026-01-31T08:15:30.123Z"},"resourceType":"Patient","active":true,"id":"p1"}"#
                    .to_owned(),
            ),
            (
                r#"{"resourceType":"Patient","meta":{"extension":[{"url":"u"}],"tag":[{"code":"t"}]}}"#,
                format!(
                    r#"{{"resourceType":"Patient","id":"p1","meta":{{"extension":[{{"url":"u"}}],{meta},"tag":[{{"code":"t"}}]}}}}"#
                ),
            ),
        ] {
            assert_eq!(stamped(text), expected);
            assert_eq!(stamped(&stamped(text)), expected);
        }
    }
}

//! The digest of a resource's content: what tells an unchanged resource from a changed one.

use aws_lc_rs::digest::{Context, SHA256};

use crate::fhir::json::Node;

/// SHA-256 over a canonical walk of the tree. `meta.versionId` and `meta.lastUpdated`, which the server sets, are left
/// out, and so is a `meta` that holds nothing else.
pub(super) fn content(root: &Node) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    if let Node::Object(members) = root {
        for (name, node) in members {
            match (name.as_str(), node) {
                ("meta", Node::Object(meta)) => {
                    let mut kept = meta.iter().filter(|(name, _)| !is_stamp(name)).peekable();
                    if kept.peek().is_some() {
                        text(&mut hash, b'm', name);
                        kept.for_each(|(name, node)| member(&mut hash, name, node));
                        hash.update(b"e");
                    }
                }
                _ => member(&mut hash, name, node),
            }
        }
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

fn is_stamp(name: &str) -> bool {
    name == "versionId" || name == "lastUpdated"
}

fn member(hash: &mut Context, name: &str, node: &Node) {
    text(hash, b'm', name);
    walk(hash, node);
}

/// Every piece carries its kind and length, so that no two trees give the same bytes.
fn walk(hash: &mut Context, node: &Node) {
    match node {
        Node::Null => hash.update(b"0"),
        Node::Bool(value) => hash.update(if *value { b"t" } else { b"f" }),
        Node::Number(number) => text(hash, b'n', number.as_str()),
        Node::String(value) => text(hash, b's', value),
        Node::Array(items) => {
            hash.update(b"a");
            items.iter().for_each(|item| walk(hash, item));
            hash.update(b"e");
        }
        Node::Object(members) => {
            hash.update(b"o");
            members.iter().for_each(|(name, node)| member(hash, name, node));
            hash.update(b"e");
        }
    }
}

fn text(hash: &mut Context, kind: u8, text: &str) {
    hash.update(&[kind]);
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> [u8; 32] {
        content(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn the_stamp_does_not_count_and_everything_else_does() {
        let plain = of(r#"{"resourceType":"Patient","id":"1","active":true}"#);
        for same in [
            r#"{"resourceType":"Patient","id":"1","meta":{"versionId":"3","lastUpdated":"2026-01-01T00:00:00Z"},"active":true}"#,
            r#"{"resourceType":"Patient","id":"1","meta":{},"active":true}"#,
        ] {
            assert!(of(same) == plain, "{same}");
        }
        for other in [
            r#"{"resourceType":"Patient","id":"1","active":false}"#,
            r#"{"resourceType":"Patient","id":"1","active":true,"meta":{"versionId":"3","source":"x"}}"#,
            r#"{"resourceType":"Patient","id":"1","active":true,"multipleBirthInteger":1}"#,
            r#"{"resourceType":"Patient","id":"2","active":true}"#,
        ] {
            assert!(of(other) != plain, "{other}");
        }
        assert!(of(r#"{"a":1.0}"#) != of(r#"{"a":1.00}"#), "digits count");
        assert!(of(r#"{"a":["b"],"c":1}"#) != of(r#"{"a":["b","c"]}"#));
    }
}

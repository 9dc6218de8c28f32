//! A Bundle as it was sent. The resources of its entries lie beside it as text: a tree takes some seven times as much
//! memory, and a large transaction looks at one resource after the other. Must not know what is asked for.

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{self, Apart, Node};
use crate::error::Result;

/// Bytes of text whose trees are kept beside it, so that small Bundles are read once. Tests meet both.
const TREES_MAX: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// A Bundle and, by entry, the resources apart from it.
pub struct SentBundle {
    pub(super) outer: Node,
    pub(super) resources: Vec<Option<Held>>,
}

/// The resource of an entry: its text, of a small Bundle with its tree.
pub struct Held {
    text: Bytes,
    tree: Option<Node>,
}

impl SentBundle {
    /// Reads JSON. The texts are parts of `bytes`, not copies.
    ///
    /// # Errors
    /// As [`json::parse`].
    pub fn parse(bytes: &Bytes) -> Result<SentBundle> {
        let Apart { outer, resources } = json::parse_apart(bytes, TREES_MAX)?;
        let held = |(place, tree)| Held { text: bytes.slice(place), tree };
        Ok(SentBundle { outer, resources: resources.into_iter().map(|found| found.map(held)).collect() })
    }

    /// Of a tree (what came as XML, or was made here).
    pub fn of(mut outer: Node) -> SentBundle {
        let mut left = Some(TREES_MAX);
        let take = |entry: &mut Node| {
            let tree = entry.get_mut("resource").filter(|resource| resource.is_object())?.take();
            let held = Held::of(tree);
            left = left.and_then(|left| left.checked_sub(held.text.len()));
            Some(if left.is_some() { held } else { Held { tree: None, ..held } })
        };
        let entries = outer.get_mut("entry").and_then(Node::as_array_mut);
        let resources = entries.map(|entries| entries.iter_mut().map(take).collect()).unwrap_or_default();
        SentBundle { outer, resources }
    }
}

impl Held {
    pub(super) fn of(tree: Node) -> Held {
        Held { text: json::write(&tree).into(), tree: Some(tree) }
    }

    /// As it was sent.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the tree is kept beside the text.
    pub fn has_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// # Errors
    /// None: it was read before.
    pub fn tree(&self) -> Result<Cow<'_, Node>> {
        match &self.tree {
            Some(tree) => Ok(Cow::Borrowed(tree)),
            None => json::parse(&self.text).map(Cow::Owned),
        }
    }

    /// # Errors
    /// As [`Held::tree`].
    pub fn into_tree(self) -> Result<Node> {
        self.tree.map_or_else(|| json::parse(&self.text), Ok)
    }
}

/// Of the text alone: a copy is made for another time.
impl Clone for Held {
    fn clone(&self) -> Held {
        Held { text: self.text.clone(), tree: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each entry: its text, and whether its tree is kept.
    fn held(sent: &SentBundle) -> Vec<Option<(String, bool)>> {
        let of = |held: &Held| (String::from_utf8_lossy(held.text()).into_owned(), held.tree.is_some());
        sent.resources.iter().map(|held| held.as_ref().map(of)).collect()
    }

    #[test]
    fn resources_are_put_apart_as_they_were_written() {
        let text = "\u{feff} {\"entry\": [ {\"resource\" : {\"a\": 1.0}, \"fullUrl\": \"é\"}, 7, {\"resource\": 8},\n\
                    {\"request\": {\"resource\": {\"b\": 2}}, \"resource\":{\"c\":[{\"resource\":{}}]}}], \"resource\": {}}";
        let sent = SentBundle::parse(&Bytes::from(text)).expect("JSON");
        let apart = |text: &str| Some((text.to_owned(), true));
        assert_eq!(held(&sent), [apart("{\"a\": 1.0}"), None, None, apart("{\"c\":[{\"resource\":{}}]}")]);
        let outer = "{\"entry\":[{\"resource\":null,\"fullUrl\":\"é\"},7,{\"resource\":8},\
                     {\"request\":{\"resource\":{\"b\":2}},\"resource\":null}],\"resource\":{}}";
        assert_eq!(json::write(&sent.outer), outer.as_bytes());
        // The same of a tree.
        let of_tree = SentBundle::of(json::parse(text.as_bytes()).expect("JSON"));
        assert_eq!(held(&of_tree), [apart("{\"a\":1.0}"), None, None, apart("{\"c\":[{\"resource\":{}}]}")]);
        assert_eq!(json::write(&of_tree.outer), outer.as_bytes());
        for (n, expected) in [(0, "{\"a\":1.0}"), (3, "{\"c\":[{\"resource\":{}}]}")] {
            for sent in [&sent, &of_tree] {
                let held = sent.resources[n].as_ref().expect("a resource");
                assert_eq!(json::write(&held.tree().expect("a tree")), expected.as_bytes());
                assert_eq!(json::write(&held.clone().into_tree().expect("a tree")), expected.as_bytes());
            }
        }
    }

    #[test]
    fn what_is_no_bundle_is_read_all_the_same_and_faults_have_their_place() {
        for text in ["[1]", "7", "{\"entry\":{\"resource\":{}}}", "{}", "{\"entry\":[]}"] {
            let sent = SentBundle::parse(&Bytes::from(text)).expect("JSON");
            assert_eq!((json::write(&sent.outer), sent.resources.len()), (text.as_bytes().to_vec(), 0));
        }
        for text in ["{\"entry\":[{\"resource\":{\"a\":1,\"a\":2}}]}", "{\"entry\":[{\"resource\":{\"a\":[}}]}", "{} x"]
        {
            let told = |error: crate::error::Error| error.issues[0].diagnostics.clone();
            let apart = SentBundle::parse(&Bytes::from(text)).err().map(told);
            assert_eq!((apart.is_some(), apart), (true, json::parse(text.as_bytes()).err().map(told)));
        }
    }

    #[test]
    fn trees_are_kept_for_a_small_bundle_only() {
        let resource = format!("{{\"a\":\"{}\"}}", "x".repeat(TREES_MAX / 3));
        let entry = format!("{{\"resource\":{resource}}}");
        let text = format!("{{\"entry\":[{}]}}", [entry.as_str(); 4].join(","));
        let kept =
            |sent: &SentBundle| -> Vec<bool> { held(sent).into_iter().flatten().map(|(_, kept)| kept).collect() };
        let sent = SentBundle::parse(&Bytes::from(text.clone())).expect("JSON");
        assert_eq!(kept(&sent), [true, true, false, false]);
        assert_eq!(kept(&SentBundle::of(json::parse(text.as_bytes()).expect("JSON"))), [true, true, false, false]);
        let last = sent.resources[3].as_ref().expect("a resource");
        assert_eq!(json::write(&last.tree().expect("a tree")), resource.as_bytes());
    }
}

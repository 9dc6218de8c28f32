//! Places in the JSON tree of a resource: finding where an item of a FHIRPath result stands, and changing lists
//! together with the siblings (`_given`) that hold the extensions of their primitives.

use serde_json::{Map, Value};

use crate::fhir::definitions::{Child, Shape, definitions};
use crate::fhir::json::Node;

pub(super) type Members = Map<String, Node>;

#[derive(Clone)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Where an element stands.
#[derive(Clone)]
pub(super) struct Place {
    /// From the resource to the object that holds the element.
    pub parent: Vec<Step>,
    /// Member without an underscore.
    pub key: String,
    /// In a list.
    pub index: Option<usize>,
    pub child: &'static Child,
}

/// The shape of a resource, by what it says it is.
pub(super) fn shape_of(resource: &Node) -> Option<&'static Shape> {
    resource.get("resourceType").and_then(Node::as_str).and_then(|name| definitions().shape(name))
}

/// Whether JSON has a list for the element.
pub(super) fn repeats(child: &Child) -> bool {
    child.element.max.is_none_or(|max| max > 1)
}

/// Finds a node of the tree by its identity: the value of an element, or the sibling of one that has no value.
pub(super) fn find(root: &Node, wanted: &Node) -> Option<Place> {
    let mut path = Vec::new();
    in_object(root, shape_of(root)?, wanted, &mut path)
}

fn in_object(node: &Node, shape: &'static Shape, wanted: &Node, path: &mut Vec<Step>) -> Option<Place> {
    for (key, value) in node.as_object()? {
        let bare = key.strip_prefix('_').unwrap_or(key);
        let Some(child) = shape.child(bare) else { continue };
        let inner = match bare == key {
            true => child.shape(),
            // Id and extensions of a primitive.
            false => definitions().shape("Element"),
        };
        let single = std::slice::from_ref(value);
        let (items, list) = value.as_array().map_or((single, false), |items| (items.as_slice(), true));
        for (n, item) in items.iter().enumerate() {
            let index = list.then_some(n);
            if std::ptr::eq(item, wanted) {
                return Some(Place { parent: path.clone(), key: bare.to_owned(), index, child });
            }
            let inner = match inner {
                Some(inner) if inner.path == "Resource" => shape_of(item),
                inner => inner,
            };
            if let Some(inner) = inner.filter(|_| item.is_object()) {
                let before = path.len();
                path.push(Step::Key(key.clone()));
                path.extend(index.map(Step::Index));
                if let Some(found) = in_object(item, inner, wanted, path) {
                    return Some(found);
                }
                path.truncate(before);
            }
        }
    }
    None
}

/// The object at the end of a path that was found in this tree.
pub(super) fn members<'n>(root: &'n mut Node, path: &[Step]) -> Option<&'n mut Members> {
    let found = path.iter().try_fold(root, |node, step| match (node, step) {
        (Value::Object(members), Step::Key(key)) => members.get_mut(key),
        (Value::Array(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    });
    found?.as_object_mut()
}

fn sibling(key: &str) -> String {
    format!("_{key}")
}

/// How many items a list has, those without a value included.
pub(super) fn length(members: &Members, key: &str) -> usize {
    let of = |key: &str| members.get(key).and_then(Node::as_array).map_or(0, Vec::len);
    of(key).max(of(&sibling(key)))
}

/// The list of this name, of a length; made where it is absent.
fn list<'n>(members: &'n mut Members, key: &str, length: usize) -> Option<&'n mut Vec<Node>> {
    let items = members.entry(key).or_insert_with(|| Node::Array(Vec::new())).as_array_mut()?;
    while items.len() < length {
        items.push(Node::Null);
    }
    Some(items)
}

/// Puts an item into a list. The index is within it or right behind it.
pub(super) fn insert(members: &mut Members, key: &str, index: usize, value: Node, extra: Option<Node>) -> Option<()> {
    let length = length(members, key);
    list(members, key, length)?.insert(index, value);
    let name = sibling(key);
    if extra.is_some() || members.contains_key(&name) {
        list(members, &name, length)?.insert(index, extra.unwrap_or(Node::Null));
    }
    tidy(members, key);
    Some(())
}

/// Takes an item out of a list, with what its sibling holds.
pub(super) fn remove(members: &mut Members, key: &str, index: usize) -> Option<(Node, Option<Node>)> {
    let length = length(members, key);
    if index >= length {
        return None;
    }
    let value = list(members, key, length)?.remove(index);
    let name = sibling(key);
    let extra = match members.contains_key(&name) {
        true => Some(list(members, &name, length)?.remove(index)).filter(|extra| !extra.is_null()),
        false => None,
    };
    tidy(members, key);
    Some((value, extra))
}

/// Drops lists that say nothing: empty ones, and siblings of nulls alone.
fn tidy(members: &mut Members, key: &str) {
    let nothing = |members: &Members, key: &str| {
        members.get(key).and_then(Node::as_array).is_some_and(|items| items.iter().all(Node::is_null))
    };
    for key in [key.to_owned(), sibling(key)] {
        if nothing(members, &key) {
            members.shift_remove(&key);
        }
    }
}

/// Sets an element that is no list, under a name that may differ from the one it has now (`valueString` for
/// `valueQuantity`); it keeps its place among the members.
pub(super) fn set(members: &mut Members, old: Option<&str>, key: &str, value: Node, extra: Option<Node>) {
    let at = old.and_then(|old| members.keys().position(|name| name == old || name.strip_prefix('_') == Some(old)));
    if let Some(old) = old {
        unset(members, old);
    }
    let mut at = at.unwrap_or(members.len()).min(members.len());
    if !value.is_null() {
        members.shift_insert(at, key.to_owned(), value);
        at += 1;
    }
    if let Some(extra) = extra {
        members.shift_insert(at, sibling(key), extra);
    }
}

pub(super) fn unset(members: &mut Members, key: &str) {
    members.shift_remove(key);
    members.shift_remove(&sibling(key));
}

/// The path to the sibling object of a primitive, made where it is absent: there its extensions lie.
pub(super) fn sibling_path(root: &mut Node, place: &Place) -> Option<Vec<Step>> {
    let members = members(root, &place.parent)?;
    let name = sibling(&place.key);
    let mut path = place.parent.clone();
    path.push(Step::Key(name.clone()));
    let empty = || Node::Object(Map::new());
    match place.index {
        None => {
            members.entry(name).or_insert_with(empty);
        }
        Some(index) => {
            let length = length(members, &place.key);
            let slot = list(members, &name, length)?.get_mut(index)?;
            if slot.is_null() {
                *slot = empty();
            }
            path.push(Step::Index(index));
        }
    }
    Some(path)
}

/// Takes away what has no content: FHIR knows no empty objects or lists.
pub(super) fn prune(node: &mut Node) {
    match node {
        Node::Object(members) => {
            members.values_mut().for_each(prune);
            members.retain(|_, value| !is_empty(value));
        }
        Node::Array(items) => {
            items.iter_mut().for_each(prune);
            if items.iter().all(Node::is_object) {
                items.retain(|item| !is_empty(item));
            }
        }
        _ => {}
    }
}

fn is_empty(node: &Node) -> bool {
    match node {
        Node::Object(members) => members.is_empty(),
        Node::Array(items) => items.is_empty(),
        _ => false,
    }
}

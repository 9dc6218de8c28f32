//! `_summary` and `_elements`: what of a released resource is sent. A resource that is cut carries the SUBSETTED tag.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fhir::definitions::{self as known, Element};
use crate::fhir::json::{self, Node};
use crate::fhir::{TypeId, definitions};
use crate::search::query::Summary;

/// What of a resource is asked for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Shape {
    #[default]
    Full,
    /// `_summary=true`: elements marked as summary in the definitions.
    Summary,
    /// `_summary=text`: text, id, meta and top-level mandatory elements.
    Text,
    /// `_summary=data`: all but text.
    Data,
    /// `_elements`: these and the mandatory and modifier elements. Paths without a type: `name`, `contact.name`.
    Elements(Arc<[String]>),
}

impl Shape {
    /// From a checked search.
    pub fn of(summary: Summary, elements: &[String]) -> Shape {
        match summary {
            Summary::True => Shape::Summary,
            Summary::Text => Shape::Text,
            Summary::Data => Shape::Data,
            Summary::False | Summary::Count if elements.is_empty() => Shape::Full,
            Summary::False | Summary::Count => Shape::Elements(elements.iter().cloned().collect()),
        }
    }

    /// From the query of a read; `kind` is None where resources of several types are read.
    ///
    /// # Errors
    /// `Kind::Invalid` for an unknown value, for both at once, and for other parameters or elements unless `lenient`.
    pub fn from_pairs(kind: Option<TypeId>, pairs: &[(String, String)], lenient: bool) -> Result<Shape> {
        let mut shape = Shape::Full;
        for (name, value) in pairs {
            let next = match (name.as_str(), value.as_str()) {
                ("_summary", "true") => Shape::Summary,
                ("_summary", "text") => Shape::Text,
                ("_summary", "data") => Shape::Data,
                ("_summary", "false") | ("_elements", "") => continue,
                ("_elements", names) => Shape::Elements(elements(kind, names, lenient)?),
                _ if lenient => continue,
                ("_summary", _) => return Err(Error::invalid("_summary here must be true, text, data or false.")),
                _ => return Err(undefined(name)),
            };
            if shape != Shape::Full {
                return Err(Error::invalid("_summary and _elements may be given once, and not together."));
            }
            shape = next;
        }
        Ok(shape)
    }

    /// Cuts the JSON bytes of one resource.
    ///
    /// # Errors
    /// `Kind::Internal` when the bytes are no JSON resource.
    pub fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if *self == Shape::Full {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut node = json::parse(bytes)?;
        self.cut_node(&mut node)?;
        Ok(Cow::Owned(json::write(&node)))
    }

    fn cut_node(&self, node: &mut Node) -> Result<()> {
        let Some(members) = node.as_object_mut() else { return Err(Error::internal("a resource is no object")) };
        let kind = members.get("resourceType").and_then(Node::as_str).unwrap_or_default().to_owned();
        let shape = definitions().shape(&kind).ok_or_else(|| Error::internal("a type without elements"))?;
        members.retain(|name, _| {
            let name = name.strip_prefix('_').unwrap_or(name);
            ["resourceType", "id", "meta"].contains(&name)
                || shape.child(name).is_some_and(|child| self.keeps(child.element))
        });
        if *self == Shape::Summary {
            for (name, value) in members.iter_mut().filter(|(name, _)| *name != "meta") {
                summarize(shape, name, value);
            }
        }
        if let Shape::Elements(paths) = self {
            for (name, value) in members.iter_mut().filter(|(name, _)| *name != "meta") {
                prune(shape, name, value, &paths.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
        tag(members);
        Ok(())
    }

    fn keeps(&self, element: &Element) -> bool {
        match self {
            Shape::Full => true,
            // What must be there stays, so that a summary is still a resource of its type.
            Shape::Summary => element.summary || element.min > 0,
            Shape::Text => element.name == "text" || element.min > 0,
            Shape::Data => element.name != "text",
            Shape::Elements(names) => {
                element.min > 0
                    || element.modifier
                    || !within(names.iter().map(String::as_str), element.name).is_empty()
            }
        }
    }
}

/// What paths ask for of an element: what they go on with below it, or nothing for all of it.
fn within<'p>(paths: impl Iterator<Item = &'p str>, element: &str) -> Vec<&'p str> {
    let below = |path: &'p str| path.strip_prefix(element).filter(|rest| rest.is_empty() || rest.starts_with('.'));
    paths.filter_map(below).map(|rest| rest.trim_start_matches('.')).collect()
}

/// Where paths go on below an element, takes out of it what they do not lead to, but for mandatory and modifier elements.
fn prune(shape: &known::Shape, name: &str, value: &mut Node, paths: &[&str]) {
    let Some(child) = shape.child(name) else { return };
    let (Some(inner), paths) = (child.shape(), within(paths.iter().copied(), child.element.name)) else { return };
    if paths.is_empty() || paths.contains(&"") {
        return;
    }
    match value {
        Node::Array(items) => items.iter_mut().for_each(|item| prune_in(inner, item, &paths)),
        value => prune_in(inner, value, &paths),
    }
}

fn prune_in(shape: &known::Shape, value: &mut Node, paths: &[&str]) {
    let Some(members) = value.as_object_mut() else { return };
    members.retain(|name, _| {
        let name = name.strip_prefix('_').unwrap_or(name);
        let child = shape.child(name);
        name == "id"
            || child.is_some_and(|child| {
                let element = child.element;
                element.min > 0 || element.modifier || !within(paths.iter().copied(), element.name).is_empty()
            })
    });
    for (name, value) in members.iter_mut() {
        prune(shape, name, value, paths);
    }
}

/// Takes what is no part of the summary out of a backbone element or datatype that is one. Whether a datatype has
/// summary elements of its own is told by its definition: one that marks none (a Reference marks all) is kept whole.
fn summarize(shape: &known::Shape, name: &str, value: &mut Node) {
    let Some(inner) = shape.child(name).and_then(known::Child::shape) else { return };
    match value {
        Node::Array(items) => items.iter_mut().for_each(|item| summarize(shape, name, item)),
        Node::Object(members) if inner.kind != known::ShapeKind::Resource => {
            if inner.elements.iter().any(|element| element.summary) {
                members.retain(|name, _| {
                    let name = name.strip_prefix('_').unwrap_or(name);
                    let child = inner.child(name);
                    ["id", "extension"].contains(&name)
                        || child.is_some_and(|child| child.element.summary || child.element.min > 0)
                });
            }
            members.iter_mut().for_each(|(name, value)| summarize(inner, name, value));
        }
        _ => {}
    }
}

/// The paths of `_elements`, with or without the type before them.
fn elements(kind: Option<TypeId>, text: &str, lenient: bool) -> Result<Arc<[String]>> {
    let mut wanted = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, rest) = part.split_once('.').unwrap_or((part, ""));
        let Some(kind) = kind else {
            let of_type = definitions().type_id(first).is_some();
            wanted.push(if of_type { rest } else { part }.to_owned());
            continue;
        };
        let type_name = definitions().type_name(kind);
        let path = if first == type_name { rest } else { part };
        match definitions().is_path(type_name, path) {
            true => wanted.push(path.to_owned()),
            false if lenient => {}
            false => {
                let text = format!("'{part}' in '_elements' is no element of {type_name}.");
                return Err(Error::invalid(text));
            }
        }
    }
    Ok(wanted.into())
}

/// A parameter that an address does not have.
pub(super) fn undefined(name: &str) -> Error {
    Error::invalid(format!("The parameter {name} is not defined for this address."))
}

/// Adds the SUBSETTED tag, after what `meta` has already.
fn tag(members: &mut serde_json::Map<String, Node>) {
    let subsetted = serde_json::json!({
        "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
        "code": "SUBSETTED"
    });
    let meta = members.entry("meta").or_insert_with(|| Node::Object(serde_json::Map::new()));
    let Some(meta) = meta.as_object_mut() else { return };
    let tags = meta.entry("tag").or_insert_with(|| Node::Array(Vec::new()));
    if let Some(tags) = tags.as_array_mut()
        && !tags.iter().any(|tag| tag.get("code") == Some(&Node::from("SUBSETTED")))
    {
        tags.push(subsetted);
    }
}

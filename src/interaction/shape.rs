//! `_summary` and `_elements`: what of a released resource is sent. A resource that is cut carries the SUBSETTED tag.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{definitions, definitions::Element};
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
    /// `_elements`: these and the mandatory and modifier elements. Names without a type.
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

    /// From the query of a read.
    ///
    /// # Errors
    /// `Kind::Invalid` for an unknown value, for both at once, and for other parameters unless `lenient`.
    pub fn from_pairs(pairs: &[(String, String)], lenient: bool) -> Result<Shape> {
        let mut shape = Shape::Full;
        for (name, value) in pairs {
            let next = match (name.as_str(), value.as_str()) {
                ("_summary", "true") => Shape::Summary,
                ("_summary", "text") => Shape::Text,
                ("_summary", "data") => Shape::Data,
                ("_summary", "false") | ("_elements", "") => continue,
                ("_elements", names) => Shape::Elements(names.split(',').map(|name| name.trim().to_owned()).collect()),
                _ if lenient => continue,
                ("_summary", _) => return Err(Error::invalid("_summary here must be true, text, data or false.")),
                _ => return Err(Error::invalid(format!("The parameter {name} is not defined for this address."))),
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
        tag(members);
        Ok(())
    }

    fn keeps(&self, element: &Element) -> bool {
        match self {
            Shape::Full => true,
            Shape::Summary => element.summary,
            Shape::Text => element.name == "text" || element.min > 0,
            Shape::Data => element.name != "text",
            Shape::Elements(names) => {
                element.min > 0
                    || element.modifier
                    || names.iter().any(|name| name.rsplit('.').next() == Some(element.name))
            }
        }
    }
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

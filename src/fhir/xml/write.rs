//! The JSON tree to XML.

use serde_json::Map;

use super::{DEEPEST, FHIR, Json, Place, is_xml_char, json_kind, narrative, repeats};
use crate::error::{Error, Kind, Result};
use crate::fhir::definitions::{Child, Primitive, Shape, definitions};
use crate::fhir::json::Node;

struct Writing {
    out: String,
    place: Place,
}

/// What stands in an object for one element name.
type Found<'n> = (&'static Child, Option<&'n Node>, Option<&'n Node>);

/// Writes the JSON tree of one resource as FHIR XML (UTF-8, with the FHIR namespace).
///
/// # Errors
/// `Kind::NotAcceptable` with the FHIRPath of what cannot be said in XML: what the definitions do not know, a narrative
/// that is not well-formed, characters that XML does not have.
pub fn write(node: &Node) -> Result<Vec<u8>> {
    let mut writing = Writing { out: String::with_capacity(4096), place: Place::default() };
    writing.out += "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    writing.resource(node)?;
    Ok(writing.out.into_bytes())
}

impl Writing {
    fn fault(&self, what: &str) -> Error {
        Error::new(Kind::NotAcceptable, format!("This cannot be written as XML: {what}.")).at(self.place.path())
    }

    fn enter(&mut self, name: &'static str, index: Option<usize>) -> Result<()> {
        self.place.push(name, index);
        if self.place.depth() > DEEPEST {
            return Err(self.fault("nested too deep"));
        }
        Ok(())
    }

    fn resource(&mut self, node: &Node) -> Result<()> {
        let object = node.as_object().ok_or_else(|| self.fault("a resource that is no object"))?;
        let kind = object.get("resourceType").and_then(Node::as_str).and_then(|name| definitions().type_id(name));
        let Some((name, shape)) =
            kind.and_then(|id| Some((definitions().type_name(id), definitions().resource_shape(id)?)))
        else {
            return Err(self.fault("a resource that is not of R4"));
        };
        let nested = self.place.depth() > 0;
        if !nested {
            self.enter(name, None)?;
        }
        self.out.push('<');
        self.out += name;
        if !nested {
            self.out += " xmlns=\"";
            self.out += FHIR;
            self.out.push('"');
        }
        let members = self.members(object, shape, true)?;
        self.content(name, &members)?;
        if !nested {
            self.place.pop();
        }
        Ok(())
    }

    /// The members of an object in the order of the definitions.
    fn members<'n>(&self, object: &'n Map<String, Node>, shape: &'static Shape, root: bool) -> Result<Vec<Found<'n>>> {
        let mut out: Vec<Found> = Vec::with_capacity(object.len());
        for (key, node) in object {
            if root && key == "resourceType" {
                continue;
            }
            let (name, sibling) = match key.strip_prefix('_') {
                Some(name) => (name, true),
                None => (key.as_str(), false),
            };
            let child = shape.child(name).filter(|child| !sibling || child.primitive.is_some());
            let Some(child) = child else {
                return Err(self.fault("a member that the definitions do not know"));
            };
            if !sibling {
                out.push((child, Some(node), object.get(&format!("_{name}")).filter(|_| child.primitive.is_some())));
            } else if !object.contains_key(name) {
                out.push((child, None, Some(node)));
            }
        }
        out.sort_by_key(|(child, ..)| child.at);
        Ok(out)
    }

    /// The rest of an element whose tag has been opened: attributes, children, the closing tag.
    fn content(&mut self, name: &str, members: &[Found]) -> Result<()> {
        let (attributes, children): (Vec<_>, Vec<_>) =
            members.iter().copied().partition(|(child, ..)| child.element.attribute);
        for (child, value, sibling) in attributes {
            let (Some(Node::String(text)), None) = (value, sibling) else {
                return Err(self.fault("an attribute that is no plain string"));
            };
            self.attribute(child.name, text)?;
        }
        if children.is_empty() {
            self.out += "/>";
            return Ok(());
        }
        self.out.push('>');
        for (child, value, sibling) in children {
            self.member(child, value, sibling)?;
        }
        self.close(name);
        Ok(())
    }

    fn close(&mut self, name: &str) {
        self.out += "</";
        self.out += name;
        self.out.push('>');
    }

    fn attribute(&mut self, name: &str, text: &str) -> Result<()> {
        self.out.push(' ');
        self.out += name;
        self.out += "=\"";
        let mut rest = text;
        while let Some(at) =
            rest.find(|c: char| c < ' ' || matches!(c, '&' | '<' | '>' | '"' | '\u{fffe}' | '\u{ffff}'))
        {
            self.out += &rest[..at];
            let c = rest[at..].chars().next().unwrap_or_default();
            if !is_xml_char(c) {
                return Err(self.fault("a character that XML does not have"));
            }
            self.out += match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\t' => "&#x9;",
                '\n' => "&#xA;",
                _ => "&#xD;",
            };
            rest = &rest[at + c.len_utf8()..];
        }
        self.out += rest;
        self.out.push('"');
        Ok(())
    }

    fn member(&mut self, child: &'static Child, value: Option<&Node>, sibling: Option<&Node>) -> Result<()> {
        if !repeats(child) {
            self.enter(child.element.name, None)?;
            self.element(child, value, sibling)?;
            self.place.pop();
            return Ok(());
        }
        let list = |node: Option<&'_ Node>| match node {
            None => Some(0),
            Some(Node::Array(nodes)) => Some(nodes.len()),
            Some(_) => None,
        };
        self.enter(child.element.name, None)?;
        let (Some(values), Some(siblings)) = (list(value), list(sibling)) else {
            return Err(self.fault("an element that repeats is no array"));
        };
        self.place.pop();
        for n in 0..values.max(siblings) {
            self.enter(child.element.name, Some(n))?;
            let value = value.and_then(|node| node.as_array()).and_then(|nodes| nodes.get(n));
            let sibling = sibling.and_then(|node| node.as_array()).and_then(|nodes| nodes.get(n));
            self.element(child, value, sibling)?;
            self.place.pop();
        }
        Ok(())
    }

    fn element(&mut self, child: &'static Child, value: Option<&Node>, sibling: Option<&Node>) -> Result<()> {
        let value = value.filter(|node| !node.is_null());
        let sibling = sibling.filter(|node| !node.is_null());
        match (child.primitive, value, child.shape()) {
            (Some(Primitive::Xhtml), Some(Node::String(text)), _) if sibling.is_none() => {
                self.out += &narrative::to_xml(text).map_err(|fault| self.fault(&narrative_fault(&fault)))?;
                Ok(())
            }
            (Some(Primitive::Xhtml), ..) => Err(self.fault("a narrative that is no string")),
            (Some(primitive), ..) => self.primitive(child, primitive, value, sibling),
            (None, Some(node), _) if child.kind == "Resource" => {
                self.out.push('<');
                self.out += child.name;
                self.out.push('>');
                self.resource(node)?;
                self.close(child.name);
                Ok(())
            }
            (None, Some(Node::Object(object)), Some(shape)) => {
                let members = self.members(object, shape, false)?;
                if members.is_empty() {
                    return Err(self.fault("an element without content"));
                }
                self.out.push('<');
                self.out += child.name;
                self.content(child.name, &members)
            }
            _ => Err(self.fault("a value of the wrong kind")),
        }
    }

    fn primitive(
        &mut self,
        child: &'static Child,
        primitive: Primitive,
        value: Option<&Node>,
        sibling: Option<&Node>,
    ) -> Result<()> {
        let sibling = match sibling {
            None => None,
            Some(Node::Object(object)) if !object.is_empty() => Some(object),
            Some(_) => return Err(self.fault("a `_` member that is no object with content")),
        };
        self.out.push('<');
        self.out += child.name;
        match (value, json_kind(primitive)) {
            (None, _) if sibling.is_none() => return Err(self.fault("null without an extension")),
            (None, _) => {}
            (Some(Node::Bool(value)), Json::Boolean) => {
                self.attribute("value", if *value { "true" } else { "false" })?
            }
            (Some(Node::Number(value)), Json::Integer | Json::Decimal) => self.attribute("value", value.as_str())?,
            (Some(Node::String(value)), Json::String) => self.attribute("value", value)?,
            _ => return Err(self.fault("a value of the wrong kind")),
        }
        let Some(object) = sibling else {
            self.out += "/>";
            return Ok(());
        };
        let shape = definitions().shape("Element").ok_or_else(|| self.fault("the definitions are incomplete"))?;
        let members = self.members(object, shape, false)?;
        self.content(child.name, &members)
    }
}

fn narrative_fault(error: &Error) -> String {
    error.issues.first().map_or_else(String::new, |issue| issue.diagnostics.trim_end_matches('.').to_owned())
}

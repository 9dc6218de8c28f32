//! XML to the JSON tree.

use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Number};

use super::source::Source;
use super::{DEEPEST, FHIR, Json, Place, XHTML, XSI, json_kind, narrative, repeats};
use crate::error::{Error, Result};
use crate::fhir::definitions::{Child, Primitive, Shape, definitions};
use crate::fhir::json::Node;

/// One element name of an object with all that was found of it.
struct Slot {
    child: &'static Child,
    values: Vec<Node>,
    /// Of primitives: id and extensions, `Null` where there are none.
    siblings: Vec<Node>,
}

struct Reading<'t> {
    source: Source<'t>,
    place: Place,
}

/// Reads one resource in FHIR XML into the JSON tree.
///
/// # Errors
/// `Kind::Invalid` with the line and the FHIRPath of the fault.
pub fn read(bytes: &[u8]) -> Result<Node> {
    let mut reading = Reading { source: Source::new(bytes)?, place: Place::default() };
    let node = match reading.source.element_token()? {
        Event::Start(start) => reading.resource(&start)?,
        _ => return Err(reading.source.fault("there is no element")),
    };
    match reading.source.element_token()? {
        Event::Eof => Ok(node),
        _ => Err(reading.source.fault("something follows the resource")),
    }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`, without the fraction and exponent for integers.
fn is_number(text: &str, integer: bool) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
        && !(integer && (fraction.is_some() || exponent.is_some()))
}

impl<'t> Reading<'t> {
    fn fault(&self, what: &str) -> Error {
        self.source.fault(what).at(self.place.path())
    }

    fn enter(&mut self, name: &'static str, index: Option<usize>) -> Result<()> {
        self.place.push(name, index);
        if self.place.depth() > DEEPEST {
            return Err(self.fault("nested too deep"));
        }
        Ok(())
    }

    fn resource(&mut self, start: &BytesStart<'t>) -> Result<Node> {
        if !self.source.is_in(start, FHIR) {
            return Err(self.fault("an element that is not of the namespace http://hl7.org/fhir"));
        }
        let local = start.local_name();
        let name = String::from_utf8_lossy(local.as_ref());
        let Some((kind, shape)) =
            definitions().type_id(&name).and_then(|id| Some((id, definitions().resource_shape(id)?)))
        else {
            return Err(self.fault(&format!("`{name}` is no resource of R4")));
        };
        let name = definitions().type_name(kind);
        let nested = self.place.depth() > 0;
        if !nested {
            self.enter(name, None)?;
        }
        self.source
            .attributes(start, |space, name, _| match space {
                Some(space) if space == XSI.as_bytes() => Ok(()),
                _ => Err(self.fault(&format!("the attribute `{name}` is not allowed here"))),
            })
            .map_err(|e| self.placed(e))?;
        let mut object = Map::new();
        object.insert("resourceType".into(), Node::from(name));
        let slots = self.children(shape)?;
        finish(slots, &mut object);
        if !nested {
            self.place.pop();
        }
        Ok(Node::Object(object))
    }

    /// Adds the place to an error of the source.
    fn placed(&self, error: Error) -> Error {
        if error.issues.first().is_some_and(|issue| issue.expression.is_some()) {
            return error;
        }
        error.at(self.place.path())
    }

    /// The children of the element that has begun, up to its end.
    fn children(&mut self, shape: &'static Shape) -> Result<Vec<Slot>> {
        let mut slots: Vec<Slot> = Vec::new();
        loop {
            let start = match self.source.element_token().map_err(|e| self.placed(e))? {
                Event::Start(start) => start,
                Event::End(_) => return Ok(slots),
                _ => return Err(self.fault("the document ends too early")),
            };
            let local = start.local_name();
            let name = String::from_utf8_lossy(local.as_ref());
            let Some(child) = shape.child(&name).filter(|child| !child.element.attribute) else {
                return Err(self.fault(&format!("the element `{name}` is not known here")));
            };
            let space = if child.primitive == Some(Primitive::Xhtml) { XHTML } else { FHIR };
            if !self.source.is_in(&start, space) {
                return Err(self.fault(&format!("the element `{name}` is not of the namespace {space}")));
            }
            let at = match slots.iter().rposition(|slot| std::ptr::eq(slot.child, child)) {
                Some(at) => at,
                None => {
                    slots.push(Slot { child, values: Vec::new(), siblings: Vec::new() });
                    slots.len() - 1
                }
            };
            let count = slots[at].values.len();
            let index = repeats(child).then_some(count);
            if index.is_none() && count > 0 {
                return Err(self.fault(&format!("the element `{name}` may come only once")));
            }
            self.enter(child.element.name, index)?;
            let (value, sibling) = self.element(child, &start)?;
            self.place.pop();
            slots[at].values.push(value);
            slots[at].siblings.push(sibling);
        }
    }

    /// The value of one element, and of a primitive what its sibling in JSON holds.
    fn element(&mut self, child: &'static Child, start: &BytesStart<'t>) -> Result<(Node, Node)> {
        match (child.primitive, child.shape()) {
            (Some(Primitive::Xhtml), _) => {
                let text = narrative::read(&mut self.source, start).map_err(|e| self.placed(e))?;
                Ok((Node::String(text), Node::Null))
            }
            (Some(primitive), _) => self.primitive(primitive, start),
            (None, Some(shape)) if child.kind == "Resource" => {
                self.no_attributes(start)?;
                let _ = shape;
                let node = match self.source.element_token().map_err(|e| self.placed(e))? {
                    Event::Start(inner) => self.resource(&inner)?,
                    _ => return Err(self.fault("a resource is missing")),
                };
                match self.source.element_token().map_err(|e| self.placed(e))? {
                    Event::End(_) => Ok((node, Node::Null)),
                    _ => Err(self.fault("several resources where one is allowed")),
                }
            }
            (None, Some(shape)) => {
                let mut object = Map::new();
                self.attributes(shape, start, &mut object)?;
                let slots = self.children(shape)?;
                finish(slots, &mut object);
                if object.is_empty() {
                    return Err(self.fault("an element without content"));
                }
                Ok((Node::Object(object), Node::Null))
            }
            (None, None) => Err(self.fault("an element that the definitions do not describe")),
        }
    }

    fn no_attributes(&self, start: &BytesStart<'t>) -> Result<()> {
        self.source
            .attributes(start, |_, name, _| Err(self.fault(&format!("the attribute `{name}` is not allowed here"))))
            .map_err(|e| self.placed(e))
    }

    /// `id` and what else the definitions make an attribute.
    fn attributes(&self, shape: &'static Shape, start: &BytesStart<'t>, object: &mut Map<String, Node>) -> Result<()> {
        self.source
            .attributes(start, |space, name, value| {
                match shape.child(name).filter(|child| child.element.attribute && space.is_none()) {
                    Some(child) => {
                        object.insert(child.name.to_owned(), Node::from(value));
                        Ok(())
                    }
                    None => Err(self.fault(&format!("the attribute `{name}` is not allowed here"))),
                }
            })
            .map_err(|e| self.placed(e))
    }

    fn primitive(&mut self, primitive: Primitive, start: &BytesStart<'t>) -> Result<(Node, Node)> {
        let (mut value, mut id) = (None, None);
        self.source
            .attributes(start, |space, name, text| {
                match (space, name) {
                    (None, "value") => value = Some(text.to_owned()),
                    (None, "id") => id = Some(text.to_owned()),
                    _ => return Err(self.fault(&format!("the attribute `{name}` is not allowed here"))),
                }
                Ok(())
            })
            .map_err(|e| self.placed(e))?;
        let value = value.map_or(Ok(Node::Null), |text| self.typed(primitive, text))?;
        let shape = definitions().shape("Element").ok_or_else(|| self.fault("the definitions are incomplete"))?;
        let slots = self.children(shape)?;
        let mut sibling = Map::new();
        sibling.extend(id.map(|id| ("id".to_owned(), Node::String(id))));
        finish(slots, &mut sibling);
        if value.is_null() && sibling.is_empty() {
            return Err(self.fault("an element without a value and without extensions"));
        }
        Ok((value, if sibling.is_empty() { Node::Null } else { Node::Object(sibling) }))
    }

    /// The text of a value as JSON has it.
    fn typed(&self, primitive: Primitive, text: String) -> Result<Node> {
        match json_kind(primitive) {
            Json::String => Ok(Node::String(text)),
            Json::Boolean => match text.as_str() {
                "true" => Ok(Node::Bool(true)),
                "false" => Ok(Node::Bool(false)),
                _ => Err(self.fault("a boolean is `true` or `false`")),
            },
            kind if is_number(&text, kind == Json::Integer) => Ok(Node::Number(Number::from_string_unchecked(text))),
            Json::Integer => Err(self.fault("not an integer")),
            _ => Err(self.fault("not a decimal")),
        }
    }
}

/// The members of the JSON object.
fn finish(slots: Vec<Slot>, object: &mut Map<String, Node>) {
    for Slot { child, mut values, mut siblings } in slots {
        let whole = |nodes: &[Node]| nodes.iter().any(|node| !node.is_null());
        let parts = [(child.name.to_owned(), &mut values), (format!("_{}", child.name), &mut siblings)];
        for (name, nodes) in parts {
            if !whole(nodes) {
                continue;
            }
            let node = if repeats(child) { Some(Node::Array(std::mem::take(nodes))) } else { nodes.pop() };
            object.extend(node.map(|node| (name, node)));
        }
    }
}

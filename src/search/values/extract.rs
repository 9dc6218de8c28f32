//! From the items that an expression finds to values, by the kind of the parameter and the FHIR type of the item
//! (R4, search, the tables of 2.21.1.5).

use super::{Coding, Value, implicit};
use crate::error::{Error, Result};
use crate::fhir::date::{self, Range};
use crate::fhir::definitions::Param;
use crate::fhir::json::Node;
use crate::fhir::path::Item;
use crate::fhir::reference::{self, Reference};
use crate::fhir::{ParamKind, TypeId, definitions};
use crate::search::sound;

/// The system of currencies: Money has a code of it.
const CURRENCIES: &str = "urn:iso:std:iso:4217";

/// Every value of a parameter in a resource, in document order.
pub(super) fn of_param(param: &Param, kind: TypeId, root: &Node, base: &str) -> Result<Vec<Value>> {
    let Some(expr) = param.expr(kind) else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for item in expr.eval(root)? {
        if param.kind != ParamKind::Composite {
            put(param, kind, &item, base, &mut out)?;
            continue;
        }
        let mut parts = Vec::with_capacity(param.components.len());
        for component in &param.components {
            let Some(of) = component.param() else { continue };
            let mut values = Vec::new();
            for found in component.expr().eval_at(root, &item)? {
                put(of, kind, &found, base, &mut values)?;
            }
            parts.push(values);
        }
        // A group that lacks a component can never match.
        if !parts.is_empty() && parts.iter().all(|values| !values.is_empty()) {
            out.push(Value::Composite(parts));
        }
    }
    Ok(out)
}

/// The values of one item.
pub(super) fn put(param: &Param, kind: TypeId, item: &Item<'_>, base: &str, out: &mut Vec<Value>) -> Result<()> {
    put_node(param, kind, item.node.as_ref(), item.kind.unwrap_or(""), base, out)
}

fn put_node(param: &Param, kind: TypeId, node: &Node, of: &str, base: &str, out: &mut Vec<Value>) -> Result<()> {
    if of == "Extension" {
        // Some published expressions end at the extension and mean its value.
        let shape = definitions().shape("Extension").zip(node.as_object());
        let values = shape
            .into_iter()
            .flat_map(|(shape, members)| members.iter().filter_map(|(name, value)| Some((shape.child(name)?, value))));
        return values
            .filter(|(child, _)| child.element.name == "value")
            .try_for_each(|(child, value)| put_node(param, kind, value, child.kind, base, out));
    }
    match param.kind {
        ParamKind::Token => token(node, of, implicit::system(kind, param.id), out),
        ParamKind::String => string(node, of, out),
        ParamKind::Phonetic => out.extend(sounds(node, of)),
        ParamKind::Date => out.extend(range(node, of)?.map(Value::Date)),
        ParamKind::Number => out.extend(number(node, of)?),
        ParamKind::Quantity => out.extend(quantity(node, of)?),
        ParamKind::Reference => out.extend(refers(param, node, base)),
        ParamKind::Uri => out.extend(node.as_str().map(|uri| Value::Uri(uri.to_owned()))),
        ParamKind::Special => out.extend(position(node)?),
        ParamKind::Composite => {}
    }
    Ok(())
}

fn text(node: &Node, name: &str) -> Option<String> {
    node.get(name).and_then(Node::as_str).map(str::to_owned)
}

/// The strings of a member that is a string or a list of them.
fn texts<'a>(node: &'a Node, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let member = node.get(name);
    let one = member.and_then(Node::as_str);
    let many = member.and_then(Node::as_array).into_iter().flatten().filter_map(Node::as_str);
    one.into_iter().chain(many)
}

fn list<'a>(node: &'a Node, name: &str) -> impl Iterator<Item = &'a Node> + use<'a> {
    node.get(name).and_then(Node::as_array).into_iter().flatten()
}

fn token(node: &Node, of: &str, implicit: Option<&str>, out: &mut Vec<Value>) {
    let code = |system: Option<&str>, code: String| Value::Token {
        system: system.map(str::to_owned),
        code: Some(code),
        text: None,
    };
    match node {
        Node::Bool(value) => out.push(code(None, value.to_string())),
        Node::Number(number) => out.push(code(None, number.to_string())),
        Node::String(value) => out.push(code(implicit.filter(|_| of == "code"), value.clone())),
        Node::Object(_) => match of {
            "Coding" => out.extend(coding(node)),
            "CodeableConcept" => {
                out.extend(list(node, "coding").filter_map(coding));
                let named = text(node, "text");
                out.extend(named.map(|text| Value::Token { system: None, code: None, text: Some(text) }));
            }
            "Identifier" => out.extend(identifier(node)),
            "ContactPoint" => out.extend(text(node, "value").map(|value| code(None, value))),
            _ => {}
        },
        Node::Null | Node::Array(_) => {}
    }
}

fn pair(node: &Node, code: &str) -> Option<Coding> {
    let (system, code) = (text(node, "system"), text(node, code));
    (system.is_some() || code.is_some()).then_some((system, code))
}

fn coding(node: &Node) -> Option<Value> {
    let (system, code) = pair(node, "code").unwrap_or_default();
    let text = text(node, "display");
    (system.is_some() || code.is_some() || text.is_some()).then_some(Value::Token { system, code, text })
}

fn identifier(node: &Node) -> Option<Value> {
    let kind = node.get("type");
    let types: Vec<Coding> =
        kind.into_iter().flat_map(|kind| list(kind, "coding")).filter_map(|coding| pair(coding, "code")).collect();
    let text = kind.and_then(|kind| text(kind, "text"));
    let (system, value) = pair(node, "value").unwrap_or_default();
    let any = system.is_some() || value.is_some() || text.is_some() || !types.is_empty();
    any.then_some(Value::Identifier { system, value, text, types })
}

fn string(node: &Node, of: &str, out: &mut Vec<Value>) {
    if let Some(text) = node.as_str() {
        return out.push(Value::Text(text.to_owned()));
    }
    let parts: &[&str] = match of {
        "HumanName" => &["text", "family", "given", "prefix", "suffix"],
        "Address" => &["text", "line", "city", "district", "state", "postalCode", "country"],
        "Annotation" | "CodeableConcept" | "Narrative" => &["text"],
        "Coding" | "Reference" => &["display"],
        "ContactPoint" | "Identifier" => &["value"],
        "Attachment" => &["title"],
        _ => &[],
    };
    let own = parts.iter().flat_map(|part| texts(node, part));
    let displays = list(node, "coding").filter(|_| of == "CodeableConcept").flat_map(|coding| texts(coding, "display"));
    out.extend(own.chain(displays).map(|text| Value::Text(text.to_owned())));
}

/// The codes of all that is one name. What stands before and behind it (Dr., Jr.) is none of it.
fn sounds(node: &Node, of: &str) -> Option<Value> {
    let codes = if of == "HumanName" {
        sound::codes(["text", "family", "given"].into_iter().flat_map(|part| texts(node, part)))
    } else {
        let mut found = Vec::new();
        string(node, of, &mut found);
        sound::codes(found.iter().filter_map(|value| if let Value::Text(text) = value { Some(&**text) } else { None }))
    };
    codes.map(Value::Text)
}

fn moment(node: Option<&Node>) -> Result<Option<Range>> {
    node.and_then(Node::as_str).map(date::parse).transpose()
}

/// From start to end; the end that is not given is open.
fn period(node: &Node) -> Result<Option<Range>> {
    let (start, end) = (moment(node.get("start"))?, moment(node.get("end"))?);
    let any = start.is_some() || end.is_some();
    let range = Range { lo: start.map_or(i64::MIN, |start| start.lo), hi: end.map_or(i64::MAX, |end| end.hi) };
    Ok(any.then_some(range))
}

/// Of a Timing the outer limits count, whatever the schedule between them.
fn range(node: &Node, of: &str) -> Result<Option<Range>> {
    match (node, of) {
        // A date in words (`scheduledString`) is none that can be searched by.
        (Node::String(_), "string") => Ok(None),
        (Node::String(_), _) => moment(Some(node)),
        (_, "Period") => period(node),
        (_, "Timing") => {
            let bounds = node.get("repeat").and_then(|repeat| repeat.get("boundsPeriod"));
            let mut whole = bounds.map(period).transpose()?.flatten();
            for event in list(node, "event") {
                let Some(event) = moment(Some(event))? else { continue };
                let before = whole.unwrap_or(event);
                whole = Some(Range { lo: before.lo.min(event.lo), hi: before.hi.max(event.hi) });
            }
            Ok(whole)
        }
        _ => Ok(None),
    }
}

/// A place on earth: latitude and longitude, as the two components of a composite.
fn position(node: &Node) -> Result<Option<Value>> {
    let of = |name: &str| -> Result<Option<Vec<Value>>> {
        Ok(decimal(node.get(name))?.map(|at| vec![Value::Number { lo: at, hi: at }]))
    };
    Ok(of("latitude")?.zip(of("longitude")?).map(|(latitude, longitude)| Value::Composite(vec![latitude, longitude])))
}

/// A decimal as written, as the nearest floating point number.
fn decimal(node: Option<&Node>) -> Result<Option<f64>> {
    let Some(Node::Number(number)) = node else { return Ok(None) };
    let value: f64 = number.as_str().parse().map_err(|_| Error::invalid("The number cannot be read."))?;
    if value.is_finite() { Ok(Some(value)) } else { Err(Error::invalid("The number is too large to be searched by.")) }
}

fn number(node: &Node, of: &str) -> Result<Option<Value>> {
    if of == "Range" {
        let end = |name: &str| decimal(node.get(name).and_then(|end| end.get("value")));
        return Ok(ends(end("low")?, end("high")?).map(|(lo, hi)| Value::Number { lo, hi }));
    }
    Ok(decimal(Some(node))?.map(|value| Value::Number { lo: value, hi: value }))
}

fn ends(lo: Option<f64>, hi: Option<f64>) -> Option<(f64, f64)> {
    (lo.is_some() || hi.is_some()).then_some((lo.unwrap_or(f64::NEG_INFINITY), hi.unwrap_or(f64::INFINITY)))
}

fn quantity(node: &Node, of: &str) -> Result<Option<Value>> {
    let value = |(lo, hi): (f64, f64), units: &Node| Value::Quantity {
        lo,
        hi,
        system: text(units, "system"),
        code: text(units, "code"),
        unit: text(units, "unit"),
    };
    Ok(match of {
        "Money" => decimal(node.get("value"))?.map(|amount| {
            let code = text(node, "currency");
            let system = code.is_some().then(|| CURRENCIES.to_owned());
            Value::Quantity { lo: amount, hi: amount, system, code, unit: None }
        }),
        "Range" => {
            let (low, high) = (node.get("low"), node.get("high"));
            let end = |of: Option<&Node>| decimal(of.and_then(|end| end.get("value")));
            ends(end(low)?, end(high)?).zip(low.or(high)).map(|(ends, units)| value(ends, units))
        }
        "SampledData" => {
            let ends = ends(decimal(node.get("lowerLimit"))?, decimal(node.get("upperLimit"))?);
            ends.zip(node.get("origin")).map(|(ends, units)| value(ends, units))
        }
        _ => decimal(node.get("value"))?.map(|exact| value(compared(exact, node), node)),
    })
}

/// What a comparator says of a value: below it, up to it, and so on.
fn compared(value: f64, node: &Node) -> (f64, f64) {
    match node.get("comparator").and_then(Node::as_str) {
        Some("<") => (f64::NEG_INFINITY, value.next_down()),
        Some("<=") => (f64::NEG_INFINITY, value),
        Some(">=") => (value, f64::INFINITY),
        Some(">") => (value.next_up(), f64::INFINITY),
        _ => (value, value),
    }
}

/// A Reference, a canonical or url, or (in a Bundle) the resource itself, if it is of a type that the parameter is for: the
/// first entry of any Bundle stands where that of a document has its Composition.
fn refers(param: &Param, node: &Node, base: &str) -> Option<Value> {
    if let Some(url) = node.as_str() {
        return Some(Value::Reference { to: Some(reference::parse(url, base)), identifier: None });
    }
    if let Some(kind) = node.get("resourceType").and_then(Node::as_str).and_then(|name| definitions().type_id(name)) {
        if !(param.targets.is_empty() || param.targets.contains(&kind)) {
            return None;
        }
        let to = Reference::Local { kind, id: text(node, "id")?, version: None };
        return Some(Value::Reference { to: Some(to), identifier: None });
    }
    let to = node.get("reference").and_then(Node::as_str).map(|text| reference::parse(text, base));
    let identifier = node.get("identifier").and_then(|identifier| pair(identifier, "value"));
    (to.is_some() || identifier.is_some()).then_some(Value::Reference { to, identifier })
}

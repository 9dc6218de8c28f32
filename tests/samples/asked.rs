//! What a client would search a resource by: the values that the official expression of a parameter finds in it, written
//! as the specification says, from the elements themselves. How the server reads them plays no part here.

use phial::fhir::definitions::Param;
use phial::fhir::path::Item;
use phial::fhir::{ParamKind, TypeId, definitions};
use serde_json::Value;

/// Longest string that is searched by: a search finds what begins with it.
const TEXT_MAX: usize = 60;

/// (modifier, value)
pub type Asked = (&'static str, String);

/// One search that must find a resource by a parameter; None: the resource holds no value for it.
pub fn of(param: &Param, kind: TypeId, resource: &Value) -> Option<Asked> {
    match param.code {
        "_id" => return Some(("", resource["id"].as_str()?.to_owned())),
        "_lastUpdated" => return Some(("", "ge2020-01-01".to_owned())),
        "_text" => return Some(("", word(&without_tags(resource.pointer("/text/div")?.as_str()?))?)),
        "_content" => return content(resource).map(|word| ("", word)),
        _ => {}
    }
    let items = param.expr(kind)?.eval(resource).unwrap_or_else(|error| panic!("{}: {error}", param.url));
    if param.kind == ParamKind::Composite {
        return items.iter().find_map(|item| composite(param, resource, item));
    }
    let items: Vec<(&str, &Value)> = items.iter().filter_map(|item| typed(item.kind?, &item.node)).collect();
    // Where a document has its Composition another Bundle has something else, which is no value of the parameter.
    let other = |of: &str| definitions().type_id(of).is_some_and(|of| !param.targets.contains(&of));
    let items: Vec<(&str, &Value)> = items.into_iter().filter(|(of, _)| !other(of)).collect();
    let plain = items.iter().filter_map(|(of, node)| value(param.kind, of, node)).next();
    // What is there and cannot be written as a value (a reference to a contained resource) can be asked for all the same.
    plain
        .or_else(|| items.iter().any(|(of, node)| is_value(param.kind, of, node)).then(|| (":missing", "false".into())))
}

/// The value of an extension stands for it.
fn typed<'a>(of: &'a str, node: &'a Value) -> Option<(&'a str, &'a Value)> {
    if of != "Extension" {
        return Some((of, node));
    }
    let value = node.as_object()?.iter().find(|(name, _)| name.starts_with("value"))?;
    Some((definitions().child("Extension", value.0)?.kind, value.1))
}

fn composite(param: &Param, resource: &Value, item: &Item<'_>) -> Option<Asked> {
    let mut parts = Vec::new();
    for component in &param.components {
        let of = component.param()?;
        let found = component.expr().eval_at(resource, item).expect("a component");
        let values = found.iter().filter_map(|found| value(of.kind, found.kind?, &found.node));
        parts.push(values.filter(|(modifier, _)| modifier.is_empty()).map(|(_, value)| value).next()?);
    }
    Some(("", parts.join("$")))
}

/// A reference by its display alone, a schedule without outer limits and a date in words hold nothing to search by.
fn is_value(kind: ParamKind, of: &str, node: &Value) -> bool {
    match (kind, of) {
        (ParamKind::Reference, "Reference") => node["reference"].is_string(),
        (ParamKind::Reference, _) => node.is_string(),
        (ParamKind::Date | ParamKind::Special, _) => false,
        (ParamKind::Token, "Identifier" | "ContactPoint") => node["value"].is_string(),
        _ => !node.is_null(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('|', "\\|").replace('$', "\\$")
}

fn text<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    node[name].as_str().filter(|text| !text.trim().is_empty())
}

fn value(kind: ParamKind, of: &str, node: &Value) -> Option<Asked> {
    match kind {
        ParamKind::Token => token(of, node),
        ParamKind::String | ParamKind::Phonetic => string(of, node),
        ParamKind::Date => date(of, node).map(|value| ("", value)),
        ParamKind::Number | ParamKind::Quantity => amount(of, node).map(|value| ("", value)),
        ParamKind::Reference => reference(of, node),
        ParamKind::Uri => Some(("", node.as_str()?.replace(',', "\\,"))),
        ParamKind::Special => {
            let at = |name: &str| node[name].as_number().map(ToString::to_string);
            Some(("", format!("{}|{}|1|km", at("latitude")?, at("longitude")?)))
        }
        ParamKind::Composite => None,
    }
}

fn coded(system: Option<&str>, code: &str) -> String {
    system.map_or_else(|| escaped(code), |system| format!("{}|{}", escaped(system), escaped(code)))
}

fn token(of: &str, node: &Value) -> Option<Asked> {
    let coding = |node: &Value| match (text(node, "system"), text(node, "code")) {
        (system, Some(code)) => Some(("", coded(system, code))),
        (Some(system), None) => Some(("", format!("{}|", escaped(system)))),
        (None, None) => text(node, "display").map(|display| (":text", escaped(display))),
    };
    match of {
        "Coding" => coding(node),
        "CodeableConcept" => {
            let codings = node["coding"].as_array().into_iter().flatten();
            codings.filter_map(coding).next().or_else(|| text(node, "text").map(|text| (":text", escaped(text))))
        }
        "Identifier" => text(node, "value").map(|value| ("", coded(text(node, "system"), value))),
        "ContactPoint" => text(node, "value").map(|value| ("", escaped(value))),
        _ => match node {
            Value::String(code) => Some(("", escaped(code))),
            Value::Bool(_) | Value::Number(_) => Some(("", node.to_string())),
            _ => None,
        },
    }
}

fn string(of: &str, node: &Value) -> Option<Asked> {
    let first = |name: &str| node[name].get(0).and_then(Value::as_str);
    let said = match of {
        "HumanName" => text(node, "family").or(first("given")).or(text(node, "text")),
        "Address" => text(node, "city").or(first("line")).or(text(node, "text")).or(text(node, "country")),
        _ => node.as_str().or(text(node, "text")).or(text(node, "display")).or(text(node, "title")),
    };
    let begin: String = said?.chars().take(TEXT_MAX).collect();
    match begin.chars().any(char::is_alphanumeric) {
        true => Some(("", escaped(&begin))),
        false => Some((":exact", escaped(said?))),
    }
}

fn date(of: &str, node: &Value) -> Option<String> {
    let period = |node: &Value| match (text(node, "start"), text(node, "end")) {
        (Some(start), _) => Some(format!("ge{start}")),
        (None, Some(end)) => Some(format!("le{end}")),
        (None, None) => None,
    };
    match of {
        "string" => None,
        "Period" => period(node),
        "Timing" => match node["event"].get(0).and_then(Value::as_str) {
            Some(event) => Some(format!("ge{event}")),
            None => period(&node["repeat"]["boundsPeriod"]),
        },
        _ => node.as_str().map(str::to_owned),
    }
}

fn amount(of: &str, node: &Value) -> Option<String> {
    let unit = |node: &Value| match (text(node, "system"), text(node, "code"), text(node, "unit")) {
        (Some(system), Some(code), _) => format!("|{}|{}", escaped(system), escaped(code)),
        (_, code, unit) => code.or(unit).map_or_else(String::new, |unit| format!("||{}", escaped(unit))),
    };
    let number = |node: &Value| node.as_number().map(ToString::to_string);
    match of {
        "Money" => {
            let currency =
                text(node, "currency").map_or_else(String::new, |code| format!("|urn:iso:std:iso:4217|{code}"));
            Some(format!("{}{currency}", number(&node["value"])?))
        }
        "Range" => match (number(&node["low"]["value"]), number(&node["high"]["value"])) {
            (Some(low), _) => Some(format!("ge{low}{}", unit(&node["low"]))),
            (None, high) => Some(format!("le{}{}", high?, unit(&node["high"]))),
        },
        "SampledData" => Some(format!("ge{}{}", number(&node["lowerLimit"])?, unit(&node["origin"]))),
        _ if node.is_object() => {
            let prefix = match text(node, "comparator") {
                Some("<" | "<=") => "lt",
                Some(_) => "gt",
                None => "",
            };
            Some(format!("{prefix}{}{}", number(&node["value"])?, unit(node)))
        }
        _ => number(node),
    }
}

fn reference(of: &str, node: &Value) -> Option<Asked> {
    if let Some(id) = definitions().type_id(of).and_then(|_| text(node, "id")) {
        return Some(("", format!("{of}/{id}")));
    }
    let literal = node.as_str().or(text(node, "reference")).filter(|text| {
        // `#id` is a place in the resource itself; what has a query names no resource yet.
        let local = text.split_once('/').is_some_and(|(kind, _)| definitions().type_id(kind).is_some());
        !text.starts_with('#') && !text.contains('?') && (local || text.contains(':'))
    });
    if let Some(literal) = literal {
        return Some(("", literal.replace(',', "\\,")));
    }
    let identifier = node.get("identifier").filter(|_| text(node, "reference").is_none())?;
    Some((":identifier", coded(text(identifier, "system"), text(identifier, "value")?)))
}

fn without_tags(markup: &str) -> String {
    let mut out = String::new();
    let mut until = None;
    for c in markup.chars() {
        match until {
            Some(end) if c == end => {
                until = None;
                out.push(' ');
            }
            Some(_) => {}
            None if c == '<' => until = Some('>'),
            None if c == '&' => until = Some(';'),
            None => out.push(c),
        }
    }
    out
}

/// The first word of some length.
fn word(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !c.is_alphabetic());
    words.filter(|word| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_alphabetic())).map(str::to_owned).next()
}

/// A word of some text that is neither markup nor coded bytes.
fn content(resource: &Value) -> Option<String> {
    let members = resource.as_object()?;
    members.iter().filter(|(name, _)| !["text", "data", "id"].contains(&name.as_str())).find_map(|(_, node)| match node
    {
        Value::String(text) => word(text),
        Value::Array(items) => items.iter().find_map(content),
        Value::Object(_) => content(node),
        _ => None,
    })
}

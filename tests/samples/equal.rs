//! What "comes back equal" means: everything that was sent, members in their order and numbers by their digits, but for
//! what a server must or may add.

use serde_json::{Map, Value};

use crate::harness;
use crate::harness::xml::{self, Token};

/// The first difference between what was sent and what came back.
pub fn difference(sent: &Value, back: &Value, through_xml: bool) -> Option<String> {
    let (mut sent, mut back) = (sent.clone(), back.clone());
    if sent["resourceType"] == "Patient" {
        without_given_number(&sent, &mut back);
    }
    for resource in [&mut sent, &mut back] {
        without_version(resource);
        if through_xml {
            // XML has an order of its own, and cannot show an empty array.
            sort(resource);
        }
    }
    harness::difference(&sent, &back, "")
}

/// Version and time of the last update are the server's.
fn without_version(resource: &mut Value) {
    let Some(members) = resource.as_object_mut() else { return };
    if let Some(meta) = members.get_mut("meta").and_then(Value::as_object_mut) {
        meta.shift_remove("versionId");
        meta.shift_remove("lastUpdated");
        if meta.is_empty() {
            members.shift_remove("meta");
        }
    }
    // A server may put the id first.
    if let Some(id) = members.shift_remove("id") {
        members.shift_insert(0, "id".to_owned(), id);
    }
    if let Some(meta) = members.shift_remove("meta") {
        members.shift_insert(0, "meta".to_owned(), meta);
    }
}

/// A patient without a medical record number is given one.
fn without_given_number(sent: &Value, back: &mut Value) {
    let given = |identifier: &Value| {
        let system = identifier["system"].as_str().unwrap_or_default();
        system.ends_with("/NamingSystem/mrn")
            && !sent["identifier"].as_array().is_some_and(|sent| sent.contains(identifier))
    };
    let Some(members) = back.as_object_mut() else { return };
    if let Some(identifiers) = members.get_mut("identifier").and_then(Value::as_array_mut) {
        identifiers.retain(|identifier| !given(identifier));
        if identifiers.is_empty() {
            members.shift_remove("identifier");
        }
    }
}

/// Members in one order, empty arrays left out.
fn sort(node: &mut Value) {
    match node {
        Value::Object(members) => {
            let mut sorted: Vec<(String, Value)> = std::mem::take(members).into_iter().collect();
            sorted.retain(|(_, value)| !value.as_array().is_some_and(Vec::is_empty));
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            sorted.iter_mut().for_each(|(_, value)| sort(value));
            *members = sorted.into_iter().collect::<Map<_, _>>();
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

/// System and value of the first identifier that has both.
pub fn identifier(resource: &Value) -> Option<(String, String)> {
    let identifiers = resource["identifier"].as_array()?;
    let both = |one: &Value| Some((one["system"].as_str()?.to_owned(), one["value"].as_str()?.to_owned()));
    identifiers.iter().find_map(both)
}

/// System and code of the first coding of a CodeableConcept that has both.
pub fn coding(concept: &Value) -> Option<(String, String)> {
    let codings = concept["coding"].as_array()?;
    let both = |one: &Value| Some((one["system"].as_str()?.to_owned(), one["code"].as_str()?.to_owned()));
    codings.iter().find_map(both)
}

/// Type and id, if it has one, of a resource in XML.
pub fn xml_identity(tokens: &[Token]) -> Option<(String, Option<String>)> {
    let Token::Open(kind, _) = tokens.first()? else { return None };
    let id = match tokens.get(1) {
        Some(Token::Open(name, list)) if name == "id" => list.iter().find(|(name, _)| name == "value"),
        _ => None,
    };
    Some((kind.clone(), id.map(|(_, value)| value.clone())))
}

/// The tokens of a document without an id with that which the server gave it.
pub fn with_id(mut tokens: Vec<Token>, id: &str) -> Vec<Token> {
    let given =
        [Token::Open("id".to_owned(), vec![("value".to_owned(), id.to_owned())]), Token::Close("id".to_owned())];
    tokens.splice(1..1, given);
    tokens
}

/// The first difference between two documents, version, time of update and a given record number aside.
pub fn xml_difference(sent: Vec<Token>, back: Vec<Token>) -> Option<String> {
    let sent = xml::without_version(sent);
    let back = without_number_in_xml(&sent, xml::without_version(back));
    let first = sent.iter().zip(&back).position(|(a, b)| a != b);
    match first {
        Some(n) => Some(format!("sent {:?}, came back {:?}", around(&sent, n), around(&back, n))),
        None if sent.len() != back.len() => Some(format!("{} pieces were sent, {} came back", sent.len(), back.len())),
        None => None,
    }
}

fn around(tokens: &[Token], n: usize) -> &[Token] {
    &tokens[n.saturating_sub(1)..tokens.len().min(n + 2)]
}

fn without_number_in_xml(sent: &[Token], back: Vec<Token>) -> Vec<Token> {
    let is_number = |token: &Token| {
        matches!(token, Token::Open(name, list) if name == "system"
            && list.iter().any(|(_, value)| value.ends_with("/NamingSystem/mrn")))
    };
    let patient = matches!(sent.first(), Some(Token::Open(name, _)) if name == "Patient");
    let Some(at) = back.iter().position(is_number).filter(|_| patient && !sent.iter().any(is_number)) else {
        return back;
    };
    let is = |token: &Token, name: &str, open: bool| match token {
        Token::Open(found, _) => open && found == name,
        Token::Close(found) => !open && found == name,
        Token::Text(_) => false,
    };
    let start = back[..at].iter().rposition(|token| is(token, "identifier", true)).unwrap_or(at);
    let end = back[at..].iter().position(|token| is(token, "identifier", false)).map_or(at, |n| at + n);
    back[..start].iter().chain(&back[end + 1..]).cloned().collect()
}

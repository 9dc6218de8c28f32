//! Bodies of GraphQL over HTTP, beside those that every operation takes.

use serde_json::Value;

use super::negotiate::{Format, Sent};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::interaction::Pairs;

/// What a body adds to the parameters of the address, and the Parameters resource it may be.
///
/// # Errors
/// `Kind::MediaType` for any but application/graphql, JSON and FHIR; `Kind::Invalid` for a body that is none of them.
pub(super) fn body(sent: &Sent, bytes: &[u8], pairs: &mut Pairs) -> Result<Option<Node>> {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match sent {
        Sent::Other(kind) if essence(kind) == "application/graphql" => {
            let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("The query is no UTF-8."))?;
            pairs.push(("query".to_owned(), text.to_owned()));
            Ok(None)
        }
        Sent::Fhir(Format::Json) => {
            let node = json::parse(bytes)?;
            match node {
                Value::Object(members) if !members.contains_key("resourceType") => {
                    for (name, value) in members {
                        add(pairs, name, value)?;
                    }
                    Ok(None)
                }
                node => Ok(Some(node)),
            }
        }
        Sent::Fhir(Format::Xml) => crate::fhir::xml::read(bytes).map(Some),
        Sent::Form | Sent::Other(_) => {
            let text = "The body must be application/json, application/graphql or a Parameters resource.";
            Err(Error::new(Kind::MediaType, text))
        }
    }
}

fn add(pairs: &mut Pairs, name: String, value: Node) -> Result<()> {
    let text = match (name.as_str(), value) {
        (_, Value::Null) => return Ok(()),
        ("query" | "operationName", Value::String(text)) => text,
        ("variables", value @ Value::Object(_)) => value.to_string(),
        // What a client tells of itself: there is nothing here that takes it.
        ("extensions", _) => return Ok(()),
        ("query" | "operationName", _) => return Err(Error::invalid(format!("'{name}' must be a text."))),
        ("variables", _) => return Err(Error::invalid("'variables' must be an object.")),
        _ => return Err(Error::invalid(format!("A GraphQL request has no member '{name}'."))),
    };
    pairs.push((name, text));
    Ok(())
}

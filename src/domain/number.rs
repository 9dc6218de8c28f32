//! Identifiers that the server gives: medical record numbers.

use serde_json::{Value as Json, json};

use super::{DomainRow, Rules};
use crate::error::{Error, Result};
use crate::fhir::Resource;
use crate::fhir::json::Node;
use crate::mapping::Numbering;
use crate::search::Values;
use crate::search::values::Value;

/// Digits of a number that a client may bring along and that is not given again; longer ones are no numbers of ours.
const DIGITS_MAX: usize = 9;

fn identifiers<'a>(rule: &Numbering, resource: &'a Resource) -> impl Iterator<Item = &'a Node> {
    resource.node().get(&rule.element).and_then(Node::as_array).into_iter().flatten()
}

fn text<'a>(identifier: &'a Node, name: &str) -> Option<&'a str> {
    identifier.get(name).and_then(Node::as_str)
}

/// Whether an identifier has a value and is of the type, or of the server's own system.
fn is_one(rule: &Numbering, identifier: &Node, own_system: &str) -> bool {
    let codings = identifier.get("type").and_then(|kind| kind.get("coding")).and_then(Node::as_array);
    let of_type = codings.into_iter().flatten().any(|coding| {
        text(coding, "code") == Some(&rule.type_code)
            && text(coding, "system").is_none_or(|system| system == rule.type_system)
    });
    text(identifier, "value").is_some() && (of_type || text(identifier, "system") == Some(own_system))
}

pub(super) fn has_one(rule: &Numbering, resource: &Resource, own_system: &str) -> bool {
    identifiers(rule, resource).any(|identifier| is_one(rule, identifier, own_system))
}

/// The number of the server's own system that the version to be replaced has.
pub(super) fn kept<'a>(rule: &Numbering, current: Option<&'a Values>, own_system: &str) -> Option<&'a str> {
    current?.params.get(&rule.param)?.iter().find_map(|value| match value {
        Value::Identifier { system: Some(system), value: Some(value), .. } if system == own_system => {
            Some(value.as_str())
        }
        _ => None,
    })
}

/// Gives the resource its number where it has none: the one it had, or the next one.
pub(super) fn give(
    rule: &Numbering,
    resource: &mut Resource,
    current: Option<&Values>,
    rules: &Rules<'_>,
) -> Result<()> {
    if has_one(rule, resource, rules.mrn_system) {
        return Ok(());
    }
    let value = match (kept(rule, current, rules.mrn_system), rules.mrn_next) {
        (Some(kept), _) => kept.to_owned(),
        (None, Some(next)) => format!("{}{next:0width$}", rule.prefix, width = rule.width),
        (None, None) => return Err(Error::internal("a number is needed and none was drawn")),
    };
    let identifier = json!({
        "type": { "coding": [{ "system": rule.type_system, "code": rule.type_code }] },
        "system": rules.mrn_system,
        "value": value,
    });
    let members = resource.node_mut().as_object_mut().ok_or_else(|| Error::internal("a resource is an object"))?;
    match members.entry(&rule.element).or_insert_with(|| Json::Array(Vec::new())) {
        Json::Array(all) => all.push(identifier),
        _ => return Err(Error::internal("identifiers are a list")),
    }
    Ok(())
}

/// Claims the numbers of the server's own system for this resource, and keeps their digits from being given again.
/// Those of other systems are their owners' business: sample sets of hospitals do repeat them between patients.
pub(super) fn claim(rule: &'static Numbering, resource: &Resource, own_system: &str, row: &mut DomainRow) {
    for identifier in identifiers(rule, resource) {
        let (Some(system), Some(value)) = (text(identifier, "system"), text(identifier, "value")) else { continue };
        if system != own_system {
            continue;
        }
        row.unique.push((rule.counter.as_str(), format!("{system}|{value}")));
        let digits = value.strip_prefix(&rule.prefix).filter(|digits| digits.len() <= DIGITS_MAX);
        if let Some(number) = digits.and_then(|digits| digits.parse::<u32>().ok()) {
            let least = row.raise.map_or(number, |(_, least)| least.max(number));
            row.raise = Some((rule.counter.as_str(), least));
        }
    }
}

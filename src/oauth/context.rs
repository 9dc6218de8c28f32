//! What a launch is about besides its patient and encounter (`fhirContext` of SMART App Launch 2.2): read strictly, told
//! the app exactly as the EHR said it. Pure.

use crate::access::scope::context_scope;
use crate::error::{Error, Result};
use crate::fhir::definitions;
use crate::fhir::json::Node;
use crate::fhir::reference::{self, Reference};

const ENTRIES_MAX: usize = 32;
const TEXT_LENGTH_MAX: usize = 2_000;
/// The role that an entry has which names none, and the only one that need not be an absolute URI.
const LAUNCH: &str = "launch";

/// Reads the entries that an EHR sent.
///
/// # Errors
/// `Kind::Invalid` with the place of the fault.
pub fn entries(sent: &Node) -> Result<Vec<Node>> {
    let list = sent.as_array().filter(|list| list.len() <= ENTRIES_MAX);
    let list = list.ok_or_else(|| Error::invalid(format!("A list of at most {ENTRIES_MAX} objects is expected.")))?;
    for (n, entry) in list.iter().enumerate() {
        check(entry).map_err(|(member, text)| {
            let place =
                if member.is_empty() { format!("fhirContext[{n}]") } else { format!("fhirContext[{n}].{member}") };
            Error::invalid(text).at(place)
        })?;
    }
    Ok(list.clone())
}

type Fault = (&'static str, &'static str);

fn check(entry: &Node) -> std::result::Result<(), Fault> {
    const MEMBERS: [&str; 5] = ["reference", "canonical", "identifier", "type", "role"];
    let members = entry.as_object().ok_or(("", "An object is expected."))?;
    if members.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(("", "An entry has reference, canonical, identifier, type and role, and nothing else."));
    }
    let text = |name: &'static str| match members.get(name) {
        None => Ok(None),
        Some(Node::String(text)) if (1..=TEXT_LENGTH_MAX).contains(&text.len()) => Ok(Some(text.as_str())),
        Some(_) => Err((name, "A text of 1 to 2000 characters is expected.")),
    };
    let (referred, canonical, role) = (text("reference")?, text("canonical")?, text("role")?);
    let kind = text("type")?;
    if kind.is_some_and(|kind| definitions().type_id(kind).is_none()) {
        return Err(("type", "R4 has no such resource type."));
    }
    if canonical.is_some_and(|url| !is_absolute(url)) {
        return Err(("canonical", "An absolute URL is expected."));
    }
    if role.is_some_and(|role| role != LAUNCH && !is_absolute(role)) {
        return Err(("role", "A role is an absolute URI, or launch."));
    }
    match members.get("identifier") {
        None if referred.is_none() && canonical.is_none() => {
            return Err(("", "An entry needs a reference, a canonical or an identifier."));
        }
        Some(identifier) if !is_identifier(identifier) => {
            return Err(("identifier", "An Identifier with a value is expected."));
        }
        _ => {}
    }
    let of_reference = referred.map(type_of).transpose()?;
    if let (Some(of), Some(kind)) = (of_reference, kind)
        && of != kind
    {
        return Err(("type", "The type is that of the reference."));
    }
    let about = of_reference.or(kind);
    if matches!(about, Some("Patient" | "Encounter")) && role.is_none_or(|role| role == LAUNCH) {
        return Err(("role", "The patient and the encounter of a launch stand outside; others need a role."));
    }
    Ok(())
}

/// `ImagingStudy` of `ImagingStudy/123`.
fn type_of(text: &str) -> std::result::Result<&str, Fault> {
    let local = match reference::parse(text, "") {
        Reference::Local { .. } => text.split_once('/'),
        _ => None,
    };
    local.map(|(kind, _)| kind).ok_or(("reference", "A relative reference is expected: ImagingStudy/123."))
}

fn is_absolute(uri: &str) -> bool {
    let plain = uri.bytes().all(|byte| matches!(byte, 0x21..=0x7E));
    plain && uri.split_once(':').is_some_and(|(scheme, rest)| reference::is_scheme(scheme) && !rest.is_empty())
}

fn is_identifier(node: &Node) -> bool {
    let text = |name: &str| node.get(name).is_none_or(|value| value.as_str().is_some_and(|text| !text.is_empty()));
    node.get("value").is_some() && text("value") && text("system")
}

/// Whether what a context scope asks for (`launch/imagingstudy?role=...`) is among the entries. None: it is no scope of
/// that kind.
pub fn fulfils(scope: &str, entries: &[Node]) -> Option<bool> {
    let (kind, role) = context_scope(scope)?;
    let role = role.unwrap_or(LAUNCH);
    Some(entries.iter().any(|entry| {
        let member = |name: &str| entry.get(name).and_then(Node::as_str);
        let of = member("reference").and_then(|text| text.split_once('/')).map(|(kind, _)| kind).or(member("type"));
        of.is_some_and(|of| of.eq_ignore_ascii_case(kind)) && member("role").unwrap_or(LAUNCH) == role
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_kept_as_they_are_and_what_is_none_is_refused_with_its_place() {
        let good = json!([
            {"reference": "ImagingStudy/123"},
            {"canonical": "http://example.org/Questionnaire/q|1.0", "type": "Questionnaire", "role": "https://a.example/r"},
            {"identifier": {"system": "urn:x", "value": "7"}, "type": "ServiceRequest", "role": "launch"},
            {"reference": "Patient/9", "role": "https://a.example/donor"},
            {"role": "urn:x:y", "reference": "Task/1", "type": "Task"},
        ]);
        assert_eq!(json!(entries(&good).unwrap()), good);
        for (entry, place) in [
            (json!("ImagingStudy/123"), "fhirContext[0]"),
            (json!({}), "fhirContext[0]"),
            (json!({"type": "Task"}), "fhirContext[0]"),
            (json!({"reference": "Task/1", "display": "x"}), "fhirContext[0]"),
            (json!({"reference": "Task/1", "role": ""}), "fhirContext[0].role"),
            (json!({"reference": "Task/1", "role": "donor"}), "fhirContext[0].role"),
            (json!({"reference": "Task/1", "role": null}), "fhirContext[0].role"),
            (json!({"reference": "https://other.example/Task/1"}), "fhirContext[0].reference"),
            (json!({"reference": "Nonsense/1"}), "fhirContext[0].reference"),
            (json!({"reference": "#x"}), "fhirContext[0].reference"),
            (json!({"reference": 7}), "fhirContext[0].reference"),
            (json!({"canonical": "Questionnaire/1"}), "fhirContext[0].canonical"),
            (json!({"identifier": {"system": "urn:x"}}), "fhirContext[0].identifier"),
            (json!({"identifier": "7"}), "fhirContext[0].identifier"),
            (json!({"canonical": "http://a.example/x", "type": "Nonsense"}), "fhirContext[0].type"),
            (json!({"reference": "Task/1", "type": "Patient"}), "fhirContext[0].type"),
            (json!({"reference": "Patient/1"}), "fhirContext[0].role"),
            (json!({"reference": "Encounter/1", "role": "launch"}), "fhirContext[0].role"),
            (json!({"identifier": {"value": "7"}, "type": "Patient"}), "fhirContext[0].role"),
        ] {
            let error = entries(&json!([entry])).err().unwrap_or_else(|| panic!("{entry}"));
            assert_eq!(error.issues[0].expression.as_deref(), Some(place), "{entry}");
        }
        assert!(entries(&json!({})).is_err() && entries(&json!(vec![good[0].clone(); 33])).is_err());
    }

    #[test]
    fn a_scope_is_fulfilled_by_an_entry_of_its_type_and_role() {
        let entries = [
            json!({"reference": "ImagingStudy/1"}),
            json!({"reference": "Patient/9", "role": "https://a.example/donor"}),
        ];
        for (scope, fulfilled) in [
            ("launch/imagingstudy", Some(true)),
            ("launch/imagingstudy?role=launch", Some(true)),
            ("launch/imagingstudy?role=https://a.example/donor", Some(false)),
            ("launch/task", Some(false)),
            ("launch/patient?role=https://a.example/donor", Some(true)),
            ("launch/patient", None),
            ("launch", None),
            ("patient/Task.rs", None),
        ] {
            assert_eq!(fulfils(scope, &entries), fulfilled, "{scope}");
        }
    }
}

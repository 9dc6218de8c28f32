//! Finding a patient or an encounter in the name of the person who is logged in: ordinary interactions, so that the
//! decision and the audit are those of any other caller.

use minijinja::{Value, context};

use super::Visit;
use crate::error::{Error, Kind, Result};
use crate::fhir::definitions;
use crate::fhir::json::{self, Node};
use crate::interaction::{self, Body, Content, Facts, Interaction, Pairs};
use crate::oauth::login::Live;

/// Rows of a picker.
const ROWS_MAX: usize = 20;
const QUERY_LENGTH_MAX: usize = 100;

/// What a search found, and whether there is more.
pub(super) struct Found {
    pub rows: Vec<Node>,
    pub more: bool,
}

async fn perform(visit: &Visit<'_>, live: &Live, asked: Interaction) -> Result<Body> {
    let caller = visit.oauth().session_caller(live)?;
    visit.server.admit_page(&caller, visit.parts, visit.request_id).await?;
    let facts = Facts { request: visit.facts().into(), ..Facts::default() };
    // Boxed: an interaction's future is large, and pages hold several in turn.
    Ok(Box::pin(interaction::perform(&visit.server.app, &caller, &facts, asked)).await?.body)
}

fn opened(content: &Content) -> Option<Node> {
    match content {
        Content::Released(released, _) => json::parse(released.bytes()).ok(),
        _ => None,
    }
}

async fn search(visit: &Visit<'_>, live: &Live, name: &str, query: Pairs) -> Result<Found> {
    let kind = definitions().type_id(name).ok_or_else(|| Error::internal("no such type"))?;
    let Body::Bundle(bundle) = perform(visit, live, Interaction::SearchType { kind, query }).await? else {
        return Ok(Found { rows: Vec::new(), more: false });
    };
    let contents = bundle.entries.iter().filter_map(|entry| entry.content.as_ref());
    let rows = contents.filter_map(opened).filter(|node| node["resourceType"] == name).collect();
    Ok(Found { rows, more: bundle.links.iter().any(|(relation, _)| *relation == "next") })
}

/// Patients by name, birth date or number; the first ones when nothing is asked for.
pub(super) async fn patients(visit: &Visit<'_>, live: &Live, text: &str) -> Result<Found> {
    let mut query: Pairs = vec![("_count".into(), ROWS_MAX.to_string())];
    let text: String = text.chars().take(QUERY_LENGTH_MAX).collect();
    for word in text.split_whitespace() {
        let is_date = word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let name = match (is_date && word.contains('-'), word.bytes().any(|byte| byte.is_ascii_digit())) {
            (true, _) => "birthdate",
            (_, true) => "identifier",
            _ => "name",
        };
        // The word is a value, whatever signs of the search language it has.
        let value: String =
            word.chars().flat_map(|c| ['\\'].into_iter().filter(move |_| ",|$\\".contains(c)).chain([c])).collect();
        query.push((name.into(), value));
    }
    search(visit, live, "Patient", query).await
}

/// The latest encounters of a patient.
pub(super) async fn encounters(visit: &Visit<'_>, live: &Live, patient: &str) -> Result<Found> {
    let query = vec![
        ("patient".into(), patient.to_owned()),
        ("_sort".into(), "-date".into()),
        ("_count".into(), ROWS_MAX.to_string()),
    ];
    search(visit, live, "Encounter", query).await
}

/// A resource that the person may see; None when there is none for them.
pub(super) async fn read(visit: &Visit<'_>, live: &Live, name: &str, id: &str) -> Result<Option<Node>> {
    let kind = definitions().type_id(name).ok_or_else(|| Error::internal("no such type"))?;
    if !crate::fhir::reference::is_id(id) {
        return Ok(None);
    }
    match perform(visit, live, Interaction::Read { kind, id: id.to_owned(), query: Vec::new() }).await {
        Ok(Body::Content(content)) => Ok(opened(&content)),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Gone | Kind::Forbidden) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The patient an encounter is of.
pub(super) fn patient_of(encounter: &Node) -> Option<&str> {
    let reference = encounter["subject"]["reference"].as_str()?;
    reference.rsplit_once("Patient/").map(|(_, id)| id)
}

fn text<'n>(node: &'n Node, name: &str) -> &'n str {
    node[name].as_str().unwrap_or_default()
}

/// The name by which a person is shown.
pub(super) fn name(patient: &Node) -> String {
    let names = patient["name"].as_array().map(Vec::as_slice).unwrap_or_default();
    let official = names.iter().find(|name| name["use"] == "official").or(names.first());
    let Some(name) = official else { return "(no name)".to_owned() };
    if !text(name, "text").is_empty() {
        return text(name, "text").to_owned();
    }
    let given = name["given"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parts: Vec<&str> = given.iter().filter_map(Node::as_str).chain([text(name, "family")]).collect();
    parts.join(" ")
}

/// What a picker or a page's head shows of a patient.
pub(super) fn patient(node: &Node) -> Value {
    let identifiers = node["identifier"].as_array().map(Vec::as_slice).unwrap_or_default();
    let number = identifiers.iter().find(|one| one["type"]["coding"][0]["code"] == "MR").or(identifiers.first());
    context! {
        id => text(node, "id"),
        name => name(node),
        born => text(node, "birthDate"),
        gender => text(node, "gender"),
        number => number.map(|number| text(number, "value")).unwrap_or_default(),
    }
}

pub(super) fn encounter(node: &Node) -> Value {
    let kind = &node["type"][0];
    let words = [text(kind, "text"), text(&kind["coding"][0], "display"), text(&node["class"], "display"), "Visit"];
    let start = text(&node["period"], "start");
    context! {
        id => text(node, "id"),
        kind => words.into_iter().find(|word| !word.is_empty()),
        day => start.get(..10).unwrap_or(start),
        status => text(node, "status"),
    }
}

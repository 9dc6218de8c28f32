//! An entry as IHE BALP AuditEvents (https://profiles.ihe.net/ITI/BALP): one per patient and resource where a single
//! resource was touched, one per patient where many were (searches, histories of a type). Pure: entry in, JSON out.
//!
//! The number of a slice is part of the id of its AuditEvent, so slicing depends on nothing but the entry.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::entry::What;
use super::stored::{Entry, StoredTouch, StoredWho};
use crate::fhir::json::Node;
use crate::world::Instant;

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const PROFILE: &str = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.";

/// The part of an entry that is one AuditEvent.
pub struct Slice<'e> {
    /// From 1; the id is that of the entry, a hyphen and this.
    pub number: usize,
    pub what: What,
    pub patient: Option<&'e str>,
    pub touched: Vec<&'e StoredTouch<'e>>,
}

/// Whether what was touched is stated together, as the result of one question.
fn is_query(what: What) -> bool {
    matches!(what, What::SearchType | What::SearchSystem | What::HistoryType | What::HistorySystem | What::Operation)
}

/// The AuditEvents that an entry reads as, in order. Never empty.
pub fn slices<'e>(entry: &'e Entry<'_>) -> Vec<Slice<'e>> {
    let whole = entry.what().unwrap_or(What::Operation);
    let mut slices: Vec<Slice<'_>> = Vec::new();
    // Where later touches of the same question (or of the same resource's history) belong.
    let mut open = HashMap::new();
    for touch in &entry.touched {
        let what = What::from_code(&touch.3).unwrap_or(whole);
        let of = match what {
            _ if is_query(what) => Some(None),
            What::HistoryInstance => Some(Some((&touch.0, &touch.1))),
            _ => None,
        };
        let patients = touch.4.iter().map(|place| Some(&*entry.patients[*place]));
        let patients: Vec<Option<&str>> = if touch.4.is_empty() { vec![None] } else { patients.collect() };
        for patient in patients {
            let key = of.map(|of| (what.code(), of, patient));
            if let Some(at) = key.and_then(|key| open.get(&key).copied()) {
                let slice: &mut Slice<'_> = &mut slices[at];
                slice.touched.push(touch);
                continue;
            }
            if let Some(key) = key {
                open.insert(key, slices.len());
            }
            slices.push(Slice { number: slices.len() + 1, what, patient, touched: vec![touch] });
        }
    }
    let seen: HashSet<&str> = slices.iter().filter_map(|slice| slice.patient).collect();
    for patient in entry.patients[..entry.named].iter().map(|id| &**id).filter(|patient| !seen.contains(patient)) {
        slices.push(Slice { number: slices.len() + 1, what: whole, patient: Some(patient), touched: Vec::new() });
    }
    if slices.is_empty() {
        slices.push(Slice { number: 1, what: whole, patient: None, touched: Vec::new() });
    }
    slices
}

/// The logical id of the AuditEvent of a slice.
pub fn id(entry: &Entry<'_>, slice: &Slice<'_>) -> String {
    format!("{}-{}", entry.id, slice.number)
}

/// The AuditEvent of a slice, without `id` and the rest of `meta` (they are stamped on it).
pub fn render(entry: &Entry<'_>, slice: &Slice<'_>) -> Node {
    let mut event = json!({ "resourceType": "AuditEvent" });
    let entities = entities(entry, slice);
    if let Some(profile) = profile(entry, slice, &entities) {
        event["meta"] = json!({ "profile": [format!("{PROFILE}{profile}")] });
    }
    let (kind, subtype) = kinds(slice.what);
    event["type"] = kind;
    if let Some(subtype) = subtype {
        event["subtype"] = json!([subtype]);
    }
    event["action"] = json!(slice.what.action());
    event["recorded"] = json!(Instant(entry.at).to_fhir());
    event["outcome"] = json!(entry.outcome);
    if let Some(reason) = &entry.reason {
        event["outcomeDesc"] = json!(reason);
    }
    event["agent"] = json!(agents(entry, slice));
    event["source"] = json!({
        "observer": observer(entry),
        "type": [{ "system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4" }]
    });
    if !entities.is_empty() {
        event["entity"] = json!(entities);
    }
    event
}

/// The profile that a successful event of a known caller conforms to.
fn profile(entry: &Entry<'_>, slice: &Slice<'_>, entities: &[Json]) -> Option<String> {
    let name = match slice.what {
        What::Read | What::Vread => "Read",
        What::SearchType | What::SearchSystem => "Query",
        What::Create => "Create",
        What::Update | What::Patch => "Update",
        What::Delete => "Delete",
        _ => return None,
    };
    let has_object = entities.iter().any(|entity| entity["type"]["system"] == ENTITY_TYPE);
    let has_network = !entry.request.address.is_empty() || entry.who.as_ref().is_some_and(|who| who.task);
    let conforms = entry.outcome == "0" && entry.who.is_some() && has_object && has_network;
    let patient = if slice.patient.is_some() { "Patient" } else { "" };
    conforms.then(|| format!("{patient}{name}"))
}

/// `type` and `subtype`.
fn kinds(what: What) -> (Json, Option<Json>) {
    let dcm = |code: &str| json!({ "system": DCM, "code": code });
    match what {
        What::TokenIssued
        | What::TokenRefused
        | What::TokenRevoked
        | What::AuthorizationGranted
        | What::AuthorizationRefused
        | What::AuthorizationEnded
        | What::LaunchMade => (dcm("110114"), Some(json!({ "system": "urn:ihe:event-type-code", "code": "ITI-71" }))),
        What::TokenIntrospected => {
            (dcm("110114"), Some(json!({ "system": "urn:ihe:event-type-code", "code": "ITI-102" })))
        }
        What::LoginSuccess | What::LoginFailed => (dcm("110114"), Some(dcm("110122"))),
        What::Logout | What::SessionEnded => (dcm("110114"), Some(dcm("110123"))),
        // Security alert: user security attributes changed.
        What::FactorEnrolled
        | What::FactorRemoved
        | What::RecoveryCodesMade
        | What::PasswordChanged
        | What::PasswordReset
        | What::InvitationMade
        | What::InvitationRevoked
        | What::UserAdded
        | What::UserChanged
        | What::UserDisabled
        | What::UserEnabled
        | What::UserUnlocked => (dcm("110113"), Some(dcm("110137"))),
        What::ServerStart => (dcm("110100"), Some(dcm("110120"))),
        What::ServerStop => (dcm("110100"), Some(dcm("110121"))),
        What::Import => (dcm("110107"), None),
        // Security alert: security configuration.
        What::ClientRegistered
        | What::ClientDisabled
        | What::ClientEnabled
        | What::ClientChanged
        | What::ProviderDisabled
        | What::ProviderEnabled
        | What::KeysRotated => (dcm("110113"), Some(dcm("110129"))),
        // What was done with the record of an access: audit log used.
        What::ReviewsListed | What::ReviewOpened | What::ReviewClosed => (dcm("110101"), None),
        What::RateLimited => (dcm("110113"), None),
        _ => (
            json!({ "system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest" }),
            Some(json!({ "system": "http://hl7.org/fhir/restful-interaction", "code": what.code() })),
        ),
    }
}

fn concept(codings: &[(&str, &str)]) -> Json {
    let codings: Vec<Json> = codings.iter().map(|(system, code)| json!({ "system": system, "code": code })).collect();
    json!({ "coding": codings })
}

/// The server as `source.observer`.
fn observer(entry: &Entry<'_>) -> Json {
    match &*entry.request.host {
        "" => json!({ "display": "Phial" }),
        host => json!({ "identifier": { "value": host }, "display": "Phial" }),
    }
}

/// Kinds of agents of an interaction: client, server, user.
fn agent_types(what: What) -> (Json, Json, Json) {
    const CLIENT: (&str, &str) = (DCM, "110150");
    let caster = (DCM, "110153");
    let receiver = (DCM, "110152");
    let acting = concept(&[(PARTICIPATION, "IRCP")]);
    // The user of a write is its author, and the one who holds the token: two profiles look at one agent.
    let writing = concept(&[(PARTICIPATION, "AUT"), (PARTICIPATION, "IRCP")]);
    match what {
        What::Read | What::Vread | What::HistoryInstance | What::Capabilities => {
            (concept(&[receiver, CLIENT]), concept(&[caster]), acting)
        }
        What::Create | What::Update | What::Patch | What::Import => {
            (concept(&[caster, CLIENT]), concept(&[receiver]), writing)
        }
        What::Delete => {
            let custodian = ("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "custodian");
            (concept(&[CLIENT]), concept(&[custodian]), writing)
        }
        What::TokenIssued
        | What::TokenRefused
        | What::TokenRevoked
        | What::TokenIntrospected
        | What::AuthorizationGranted
        | What::AuthorizationRefused
        | What::AuthorizationEnded
        | What::LoginSuccess
        | What::LoginFailed
        | What::Logout => {
            let authorizer = ("https://profiles.ihe.net/ITI/BALP/CodeSystem/UserAgentTypes", "AuthzOauthService");
            (concept(&[CLIENT]), concept(&[authorizer]), acting)
        }
        _ => (concept(&[caster, CLIENT]), concept(&[receiver]), acting),
    }
}

/// Client, server and user, with the OAuth facts of the Comprehensive pattern: client id, issuer, subject, token id.
fn agents(entry: &Entry<'_>, slice: &Slice<'_>) -> Vec<Json> {
    let (client_type, server_type, user_type) = agent_types(slice.what);
    let who = entry.who.as_ref();
    let user = who.and_then(|who| who.user.as_deref().map(|user| (who, user)));
    let policy = |who: &StoredWho<'_>| who.jti.as_ref().map(|jti| json!([format!("urn:ietf:params:oauth:jti:{jti}")]));

    let mut client = json!({ "type": client_type });
    match who {
        Some(who) => {
            client["who"] = json!({ "identifier": { "value": who.client } });
            client["name"] = json!(who.client);
        }
        None => client["who"] = json!({ "display": "Not authenticated" }),
    }
    client["requestor"] = json!(user.is_none());
    // A token without a user has no user agent to carry its id.
    if let Some(policy) = who.filter(|_| user.is_none()).and_then(policy) {
        client["policy"] = policy;
    }
    let address = match &*entry.request.address {
        "" if who.is_some_and(|who| who.task) => Some(json!({ "address": "localhost", "type": "1" })),
        "" => None,
        address => Some(json!({ "address": address, "type": "2" })),
    };
    if let Some(address) = address {
        client["network"] = address;
    }
    let host = if entry.request.host.is_empty() { "localhost" } else { &entry.request.host };
    let network = json!({ "address": host, "type": "1" });
    // Without an identifier: those of agents are client ids and subjects, and searched as such.
    let who_serves = json!({ "display": host });
    let server = json!({ "type": server_type, "who": who_serves, "requestor": false, "network": network });
    let mut agents = vec![client, server];
    if let Some((who, user)) = user {
        let mut agent = json!({ "type": user_type, "who": { "identifier": { "value": user } }, "requestor": true });
        if let Some(issuer) = &who.iss {
            agent["who"]["identifier"] = json!({ "system": issuer, "value": user });
        }
        if let Some(policy) = policy(who) {
            agent["policy"] = policy;
        }
        agents.push(agent);
    }
    agents
}

fn role(code: &str) -> Json {
    json!({ "system": OBJECT_ROLE, "code": code })
}

/// What the event was about: the resource or the question, what came of it, the patient, the request id.
fn entities(entry: &Entry<'_>, slice: &Slice<'_>) -> Vec<Json> {
    let mut entities = Vec::new();
    let raw = &*entry.request.raw;
    let single = if is_query(slice.what) { None } else { slice.touched.first() };
    if let Some(touch) = single {
        let mut data = json!({ "what": { "reference": reference(slice.what, touch) } });
        data["type"] = json!({ "system": ENTITY_TYPE, "code": "2" });
        data["role"] = role("4");
        entities.push(data);
    } else {
        let facts = entry.detail.iter().filter(|(name, value)| !name.is_empty() && !value.is_empty());
        let detail: Vec<Json> = facts.map(|(name, value)| json!({ "type": name, "valueString": value })).collect();
        let mut question = json!({ "type": { "system": ENTITY_TYPE, "code": "2" } });
        if !raw.is_empty() {
            question["role"] = role("24");
            question["query"] = json!(STANDARD.encode(raw));
        }
        // The query pattern allows no detail; only server and OAuth events have some.
        if !detail.is_empty() {
            question["detail"] = json!(detail);
        }
        if !raw.is_empty() || !detail.is_empty() {
            entities.push(question);
        }
    }
    if single.is_none() {
        // Typed as resources, so that they are none of the slices of the query pattern.
        entities.extend(slice.touched.iter().map(|touch| {
            json!({
                "what": { "reference": reference(slice.what, touch) },
                "type": { "system": "http://hl7.org/fhir/resource-types", "code": touch.0 },
                "role": role("4")
            })
        }));
    }
    if let Some(patient) = slice.patient {
        entities.push(json!({
            "what": { "reference": format!("Patient/{patient}") },
            "type": { "system": ENTITY_TYPE, "code": "1" },
            "role": role("1")
        }));
    }
    if !entry.request.id.is_empty() {
        let system = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType";
        entities.push(json!({
            "what": { "identifier": { "value": entry.request.id } },
            "type": { "system": system, "code": "XrequestId" }
        }));
    }
    entities
}

/// Versions are named where the pattern asks for them.
fn reference(what: What, touch: &StoredTouch<'_>) -> String {
    match (what, touch.2) {
        (What::Vread | What::Update | What::Patch, version) if version > 0 => {
            format!("{}/{}/_history/{version}", touch.0, touch.1)
        }
        _ => format!("{}/{}", touch.0, touch.1),
    }
}

#[cfg(test)]
mod tests;

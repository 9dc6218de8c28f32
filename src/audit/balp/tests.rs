//! The shape of every kind of event: the pattern of BALP it must keep, and the structure of R4.

use std::sync::Arc;

use super::*;
use crate::access::Who;
use crate::audit::entry::{Event, Outcome, Request, Touched};
use crate::fhir::{Resource, definitions, validate};

const AT: Instant = Instant(1_800_000_000_000);

fn who(user: Option<&str>) -> Arc<Who> {
    Arc::new(Who {
        client_id: "client-1".into(),
        token_id: Some("jti-1".into()),
        issuer: Some("https://phial.example".into()),
        user: user.map(str::to_owned),
        expires: None,
        task: None,
    })
}

fn touched(kind: &str, id: &str, patients: &[&str], what: What) -> Touched {
    Touched {
        kind: definitions().type_id(kind).unwrap(),
        id: id.into(),
        version: Some(3),
        patients: patients.iter().map(|id| (*id).to_owned()).collect(),
        what,
    }
}

fn event(what: What, touched: Vec<Touched>) -> Event {
    let request = Request {
        id: "request-1".into(),
        address: "192.0.2.7".into(),
        raw: "GET /fhir/Patient?family=Doe".into(),
        host: "phial.example".into(),
    };
    Event { who: Some(who(None)), touched, ..Event::new(AT, what, request) }
}

/// Every AuditEvent of the event, each checked against the structure of R4 and against what all of them share.
fn rendered(event: &Event) -> Vec<Json> {
    let mut entry = Entry::new(event, &[]);
    entry.id = "7-0-1-2".into();
    let mut all = Vec::new();
    for slice in slices(&entry) {
        let mut resource = Resource::check(render(&entry, &slice)).unwrap_or_else(|error| panic!("{error}"));
        resource.stamp(&id(&entry, &slice), 1, AT);
        let faults = validate::structure(resource.node());
        assert!(faults.is_empty(), "{faults:?}");
        let node = resource.into_node();
        assert_eq!(node["recorded"], "2027-01-15T08:00:00.000Z");
        assert!(!node["agent"].as_array().unwrap().is_empty());
        assert_eq!(node["agent"].as_array().unwrap().iter().filter(|a| a["requestor"] == true).count(), 1);
        assert_eq!(node["source"]["type"][0]["code"], "4");
        all.push(node);
    }
    all
}

fn has_coding(concept: &Json, code: &str) -> bool {
    concept["coding"].as_array().unwrap().iter().any(|coding| coding["code"] == code)
}

fn agent<'j>(event: &'j Json, code: &str) -> &'j Json {
    let agents = event["agent"].as_array().unwrap();
    let mut found = agents.iter().filter(|agent| has_coding(&agent["type"], code));
    let agent = found.next().unwrap_or_else(|| panic!("no agent {code} in {event}"));
    assert!(found.next().is_none(), "two agents {code}");
    agent
}

/// The entities of this type system and code (and role, when given).
fn entities<'j>(event: &'j Json, system: &str, code: &str, role: Option<&str>) -> Vec<&'j Json> {
    let all = event["entity"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |entity: &&Json| {
        entity["type"]["system"] == system
            && entity["type"]["code"] == code
            && role.is_none_or(|role| entity["role"]["code"] == role)
    };
    all.iter().filter(of).collect()
}

fn profile_of(event: &Json) -> &str {
    event["meta"]["profile"][0].as_str().map_or("", |profile| profile.strip_prefix(PROFILE).unwrap())
}

#[test]
fn single_resources_follow_their_patterns() {
    for (what, profile, action, client, server, reference) in [
        (What::Read, "PatientRead", "R", "110152", "110153", "Observation/o"),
        (What::Vread, "PatientRead", "R", "110152", "110153", "Observation/o/_history/3"),
        (What::Create, "PatientCreate", "C", "110153", "110152", "Observation/o"),
        (What::Update, "PatientUpdate", "U", "110153", "110152", "Observation/o/_history/3"),
        (What::Patch, "PatientUpdate", "U", "110153", "110152", "Observation/o/_history/3"),
        (What::Delete, "PatientDelete", "D", "110150", "custodian", "Observation/o"),
    ] {
        let all = rendered(&event(what, vec![touched("Observation", "o", &["p"], what)]));
        let [one] = all.as_slice() else { panic!("one event") };
        assert_eq!(profile_of(one), profile);
        assert_eq!((&one["action"], &one["outcome"]), (&json!(action), &json!("0")));
        assert_eq!(one["type"]["code"], "rest");
        assert_eq!(one["subtype"][0]["code"], what.code());
        let (client, server) = (agent(one, client), agent(one, server));
        assert_eq!(client["who"]["identifier"]["value"], "client-1");
        assert_eq!(client["network"], json!({ "address": "192.0.2.7", "type": "2" }));
        assert!(has_coding(&client["type"], "110150"));
        assert_eq!(client["policy"], json!(["urn:ietf:params:oauth:jti:jti-1"]));
        assert_eq!(server["network"]["address"], "phial.example");
        let data = entities(one, ENTITY_TYPE, "2", None);
        assert_eq!(data.len(), 1);
        assert_eq!((&data[0]["what"]["reference"], &data[0]["role"]["code"]), (&json!(reference), &json!("4")));
        let patient = entities(one, ENTITY_TYPE, "1", Some("1"));
        assert_eq!(patient.len(), 1);
        assert_eq!(patient[0]["what"]["reference"], "Patient/p");
        let balp = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType";
        assert_eq!(entities(one, balp, "XrequestId", None)[0]["what"]["identifier"]["value"], "request-1");
    }
}

#[test]
fn without_a_patient_the_plain_pattern_is_used() {
    let all = rendered(&event(What::Read, vec![touched("Organization", "o", &[], What::Read)]));
    assert_eq!((all.len(), profile_of(&all[0])), (1, "Read"));
    assert!(entities(&all[0], ENTITY_TYPE, "1", None).is_empty());
}

#[test]
fn a_user_is_an_agent_with_the_facts_of_the_token() {
    for (what, code) in [(What::Read, "IRCP"), (What::Update, "AUT")] {
        let touches = vec![touched("Patient", "p", &["p"], what)];
        let all = rendered(&Event { who: Some(who(Some("dr-1"))), ..event(what, touches) });
        let user = agent(&all[0], code);
        assert!(has_coding(&user["type"], "IRCP"));
        assert_eq!(user["who"]["identifier"], json!({ "system": "https://phial.example", "value": "dr-1" }));
        assert_eq!(user["policy"], json!(["urn:ietf:params:oauth:jti:jti-1"]));
        assert_eq!(user["requestor"], true);
        assert!(user.get("network").is_none());
        let client = agent(&all[0], "110150");
        assert_eq!(client["requestor"], false);
        assert!(client.get("policy").is_none());
    }
}

#[test]
fn a_search_is_one_event_per_patient_with_the_query_as_sent() {
    let touches = vec![
        touched("Observation", "a", &["p1"], What::SearchType),
        touched("Observation", "b", &["p2"], What::SearchType),
        touched("Observation", "c", &["p1"], What::SearchType),
        touched("Practitioner", "d", &[], What::SearchType),
    ];
    let all = rendered(&Event { patients: vec!["p3".into()], ..event(What::SearchType, touches) });
    let shown: Vec<(String, Vec<String>)> = all
        .iter()
        .map(|one| {
            let patient = entities(one, ENTITY_TYPE, "1", None);
            let patient = patient.first().map_or("", |entity| entity["what"]["reference"].as_str().unwrap());
            let found = one["entity"].as_array().unwrap().iter();
            let found = found.filter(|entity| entity["type"]["system"] == "http://hl7.org/fhir/resource-types");
            (patient.to_owned(), found.map(|e| e["what"]["reference"].as_str().unwrap().to_owned()).collect())
        })
        .collect();
    let expected: [(&str, &[&str]); 4] = [
        ("Patient/p1", &["Observation/a", "Observation/c"]),
        ("Patient/p2", &["Observation/b"]),
        ("", &["Practitioner/d"]),
        ("Patient/p3", &[]),
    ];
    assert_eq!(shown, expected.map(|(p, r)| (p.to_owned(), r.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>())));
    for (n, one) in all.iter().enumerate() {
        assert_eq!(one["id"], format!("7-0-1-2-{}", n + 1));
        assert_eq!(profile_of(one), if n == 2 { "Query" } else { "PatientQuery" });
        assert_eq!((&one["action"], &one["subtype"][0]["code"]), (&json!("E"), &json!("search-type")));
        agent(one, "110153");
        agent(one, "110152");
        let query = entities(one, ENTITY_TYPE, "2", Some("24"));
        assert_eq!(query.len(), 1);
        let sent = STANDARD.decode(query[0]["query"].as_str().unwrap()).unwrap();
        assert_eq!(sent, b"GET /fhir/Patient?family=Doe");
        assert!(query[0].get("what").is_none() && query[0].get("detail").is_none());
    }
}

#[test]
fn a_search_without_hits_is_one_event() {
    let all = rendered(&event(What::SearchType, vec![]));
    assert_eq!((all.len(), profile_of(&all[0])), (1, "Query"));
}

#[test]
fn a_transaction_is_an_event_for_every_resource_and_patient() {
    let touches = vec![
        touched("Patient", "p", &["p"], What::Create),
        touched("Observation", "o", &["p"], What::Update),
        touched("Group", "g", &["p", "q"], What::Read),
        touched("Organization", "h", &[], What::Delete),
    ];
    let all = rendered(&event(What::Transaction, touches));
    let shown: Vec<&str> = all.iter().map(profile_of).collect();
    assert_eq!(shown, ["PatientCreate", "PatientUpdate", "PatientRead", "PatientRead", "Delete"]);
    let codes: Vec<&str> = all.iter().map(|one| one["subtype"][0]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["create", "update", "read", "read", "delete"]);
}

#[test]
fn a_history_of_one_resource_is_one_event() {
    let versions = |id: &str| touched("Patient", id, &["p"], What::HistoryInstance);
    let all = rendered(&event(What::HistoryInstance, vec![versions("p"), versions("p")]));
    assert_eq!((all.len(), profile_of(&all[0])), (1, ""));
    assert_eq!(all[0]["subtype"][0]["code"], "history-instance");
}

#[test]
fn a_refused_request_says_why_and_claims_no_profile() {
    for (outcome, code) in [(Outcome::Minor, "4"), (Outcome::Serious, "8"), (Outcome::Major, "12")] {
        let refused = Event {
            outcome,
            reason: Some("the scopes do not cover it".into()),
            who: None,
            ..event(What::Read, vec![])
        };
        let all = rendered(&refused);
        assert_eq!((all.len(), profile_of(&all[0])), (1, ""));
        assert_eq!(all[0]["outcome"], code);
        assert_eq!(all[0]["outcomeDesc"], "the scopes do not cover it");
        assert_eq!(agent(&all[0], "110150")["who"]["display"], "Not authenticated");
    }
}

#[test]
fn tokens_follow_the_pattern_of_their_own() {
    let mut issued = event(What::TokenIssued, vec![]);
    Arc::make_mut(&mut issued.request).raw = "grant_type=client_credentials&client_assertion=&scope=system/*.rs".into();
    issued.detail = vec![("scope".into(), "system/*.rs".into())];
    let all = rendered(&issued);
    let one = &all[0];
    assert_eq!((&one["type"]["code"], &one["action"]), (&json!("110114"), &json!("E")));
    assert_eq!(one["subtype"], json!([{ "system": "urn:ihe:event-type-code", "code": "ITI-71" }]));
    assert_eq!(one["agent"].as_array().unwrap().len(), 2);
    assert_eq!(agent(one, "110150")["policy"], json!(["urn:ietf:params:oauth:jti:jti-1"]));
    agent(one, "AuthzOauthService");
    let request = entities(one, ENTITY_TYPE, "2", Some("24"));
    assert_eq!(request[0]["detail"], json!([{ "type": "scope", "valueString": "system/*.rs" }]));
}

#[test]
fn every_kind_of_event_keeps_to_r4() {
    for what in What::ALL.iter().copied() {
        for touches in [vec![], vec![touched("Patient", "p", &["p"], what)]] {
            for (address, raw, task) in [("", "", Some("import")), ("", "", None), ("192.0.2.7", "GET /fhir", None)] {
                let mut one = event(what, touches.clone());
                one.request = Arc::new(Request { address: address.into(), raw: raw.into(), ..Request::default() });
                one.who = Some(Arc::new(Who { task, ..(*who(None)).clone() }));
                rendered(&one);
                rendered(&Event { who: None, ..one });
            }
        }
        assert_eq!(What::from_code(what.code()), Some(what));
    }
}

//! The decision on both databases, across two servers of one database, and what it costs. The clock is held at
//! 2026-01-31.

use std::time::Instant;

use serde_json::{Value, json};

use super::people::{fill, put, sees};
use super::{TestApp, on_both, patient};
use crate::access::Role;

on_both![
    a_change_of_consent_or_care_counts_at_once_on_every_server,
    a_row_of_several_patients_is_denied_by_any_of_them,
    a_decision_costs_a_few_queries_however_many_patients_and_consents_there_are,
];

fn opted_out(id: &str, of: &str, status: &str) -> Value {
    json!({
        "resourceType": "Consent", "id": id, "status": status, "patient": {"reference": format!("Patient/{of}")},
        "scope": {"coding": [{"code": "patient-privacy", "system": "http://terminology.hl7.org/CodeSystem/consentscope"}]},
        "category": [{"coding": [{"code": "59284-0", "system": "http://loinc.org"}]}],
        "policyRule": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "OPTOUT"}]},
    })
}

async fn a_change_of_consent_or_care_counts_at_once_on_every_server() {
    let one = TestApp::new().await;
    fill(&one).await;
    let two = one.again().await;
    let office = one.persona("system/*.cruds").await;
    let gp = two.person(Role::Provider, "Practitioner/gp", None, "user/*.rs");
    let boss = two.person(Role::Admin, "Practitioner/boss", None, "user/*.rs");
    for (status, of_gp, of_boss) in
        [("inactive", "ann", "ann bob cid"), ("active", "", "bob cid"), ("inactive", "ann", "ann bob cid")]
    {
        put(&office, &opted_out("c", "ann", status)).await;
        assert_eq!((sees(&gp).await.as_str(), sees(&boss).await.as_str()), (of_gp, of_boss), "{status}");
    }
    put(&office, &opted_out("c", "ann", "active")).await;
    assert_eq!(sees(&boss).await, "bob cid");
    assert_eq!(office.delete("Consent/c").await.status, 204);
    assert_eq!(sees(&boss).await, "ann bob cid", "a deleted consent says nothing");

    let mut bob = patient("bob", "Bob");
    bob["generalPractitioner"] = json!([{"reference": "Practitioner/gp"}]);
    put(&office, &bob).await;
    assert_eq!(sees(&gp).await, "ann bob");
    put(&office, &patient("bob", "Bob")).await;
    assert_eq!(sees(&gp).await, "ann");
    two.app().close().await;
}

/// One of several patients of a row opted out: the row is gone for those whom that keeps out, whoever else is on it.
async fn a_row_of_several_patients_is_denied_by_any_of_them() {
    let app = TestApp::new().await;
    fill(&app).await;
    let office = app.persona("system/*.cruds").await;
    let actor = |id: &str| json!({"actor": {"reference": format!("Patient/{id}")}, "status": "accepted"});
    let group = json!({
        "resourceType": "Appointment", "id": "group", "status": "booked", "start": "2026-02-03T09:00:00Z",
        "end": "2026-02-03T10:00:00Z", "participant": [actor("ann"), actor("bob")],
    });
    put(&office, &group).await;
    let member = |id: &str| json!({"entity": {"reference": format!("Patient/{id}")}});
    let cohort = json!({
        "resourceType": "Group", "id": "cohort", "type": "person", "actual": true,
        "member": [member("ann"), member("bob")],
    });
    put(&office, &cohort).await;
    let gp = app.person(Role::Provider, "Practitioner/gp", None, "user/*.rs");
    let boss = app.person(Role::Admin, "Practitioner/boss", None, "user/*.rs");
    let ann = app.person(Role::Patient, "Patient/ann", None, "user/*.rs");
    let rows = ["Appointment/group", "Group/cohort"];
    for path in rows {
        assert_eq!((gp.get(path).await.status, boss.get(path).await.status), (200, 200), "{path}");
    }
    // Bob is none of the general practitioner's patients; his word counts all the same.
    put(&office, &opted_out("c", "bob", "active")).await;
    for path in rows {
        assert_eq!((gp.get(path).await.status, boss.get(path).await.status), (404, 404), "{path}");
    }
    assert_eq!(gp.get("Appointment?patient=ann").await.ids().len(), 0);
    assert_eq!(gp.get("Patient/ann").await.status, 200, "who did not opt out is seen as before");
    assert_eq!(ann.get("Appointment/group").await.status, 200, "it is Ann's record too");
    put(&office, &opted_out("c", "bob", "inactive")).await;
    assert_eq!(gp.get("Appointment/group").await.status, 200);
}

/// Queries to the database for one read, by who asks. More would be a decision that got dearer.
async fn a_decision_costs_a_few_queries_however_many_patients_and_consents_there_are() {
    let app = TestApp::new().await;
    let office = app.persona("system/*.cruds").await;
    let mut entries = Vec::new();
    let mut add = |node: Value| {
        let url = format!("{}/{}", node["resourceType"].as_str().unwrap(), node["id"].as_str().unwrap());
        entries.push(json!({"resource": node, "request": {"method": "PUT", "url": url}}));
    };
    add(json!({"resourceType": "Practitioner", "id": "gp"}));
    for n in 0..500 {
        let mut node = patient(&format!("p{n}"), "Many");
        node["generalPractitioner"] = json!([{"reference": "Practitioner/gp"}]);
        add(node);
        if n < 200 {
            add(opted_out(&format!("c{n}"), &format!("other{n}"), "active"));
        }
    }
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    assert_eq!(office.post("", &bundle).await.status, 200);
    let gp = app.person(Role::Provider, "Practitioner/gp", None, "user/*.rs");
    let boss = app.person(Role::Admin, "Practitioner/boss", None, "user/*.rs");
    let own = app.person(Role::Patient, "Patient/p1", None, "user/*.rs");
    let mut figures = Vec::new();
    for (who, most) in [(&office, 1), (&own, 1), (&boss, 2), (&gp, 12)] {
        assert_eq!(who.get("Patient/p1").await.status, 200);
        let (before, start) = (app.app().store.reads(), Instant::now());
        for n in 0..10 {
            assert_eq!(who.get(&format!("Patient/p{}", if most == 1 { 1 } else { n })).await.status, 200);
        }
        let (queries, took) = ((app.app().store.reads() - before) / 10, start.elapsed() / 10);
        figures.push(format!("{queries} queries, {took:?}"));
        assert!(queries <= most, "{figures:?}");
    }
    println!("a read by service, patient, admin, provider of 500: {}", figures.join("; "));
}

#[tokio::test]
async fn what_codes_mean_is_open_to_everybody_who_logs_in() {
    let app = TestApp::new().await;
    let office = app.persona("system/*.cruds").await;
    let codes = json!({
        "resourceType": "CodeSystem", "id": "cs", "url": "urn:cs", "status": "active", "content": "complete",
        "concept": [{"code": "a"}],
    });
    let set = json!({
        "resourceType": "ValueSet", "id": "vs", "url": "urn:vs", "status": "active",
        "compose": {"include": [{"system": "urn:cs"}]},
    });
    for node in [&codes, &set] {
        put(&office, node).await;
    }
    for role in Role::ALL {
        let record = match role {
            Role::Patient => "Patient/x",
            Role::Guardian => "RelatedPerson/x",
            _ => "Practitioner/x",
        };
        let person = app.person(role, record, None, "user/*.cruds");
        for path in ["CodeSystem/cs", "ValueSet/vs", "ValueSet?url=urn:vs"] {
            assert_eq!(person.get(path).await.status, 200, "{} {path}", role.name());
        }
        assert_eq!(person.get("ValueSet/vs").await.json()["compose"], set["compose"], "{}", role.name());
        for path in ["StructureDefinition", "SearchParameter", "ConceptMap", "NamingSystem"] {
            assert_eq!(person.get(path).await.status, 200, "{} {path}", role.name());
        }
        let written = person.put("ValueSet/vs", &set).await.status;
        assert_eq!(written == 200, role == Role::Admin, "{}: {written}", role.name());
    }
}

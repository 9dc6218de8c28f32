//! Conditions of writes that look at more than the values of one resource: chains, `_has` and sets of codes.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::people::put;
use super::{Persona, TestApp, observation};

const ALL: &str = "system/*.cruds";

async fn on_both<F: Future<Output = ()>>(case: impl Fn(TestApp) -> F) {
    case(TestApp::new().await).await;
    let (data, keys) = (crate::store::postgres::database(), crate::store::postgres::database());
    case(TestApp::with(&[("database_url", &data), ("key_database_url", &keys)]).await).await;
}

fn named(id: &str, number: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "identifier": [{"system": "http://a", "value": number}]})
}

async fn create(who: &Persona<'_>, condition: &str, resource: &Value) -> u16 {
    let headers = [("content-type", "application/fhir+json"), ("if-none-exist", condition)];
    who.call("POST", resource["resourceType"].as_str().unwrap(), &headers, resource.to_string()).await.status
}

fn anonymous(patient: &str) -> Value {
    let mut observation = observation("o", patient, "1");
    observation.as_object_mut().unwrap().shift_remove("id");
    observation
}

#[tokio::test]
async fn chains_and_has_decide_what_is_written() {
    on_both(chains_and_has).await;
}

async fn chains_and_has(app: TestApp) {
    let backend = app.persona(ALL).await;
    put(&backend, &named("ann", "1")).await;
    put(&backend, &named("bob", "2")).await;
    let condition = "subject:Patient.identifier=http://a|1";
    let replies = join_all((0..4).map(|_| async { create(&backend, condition, &anonymous("ann")).await })).await;
    let made = replies.iter().filter(|status| **status == 201).count();
    assert!(made == 1 && replies.iter().all(|status| [200, 201].contains(status)), "{replies:?}");
    // Bob's is another one.
    assert_eq!(create(&backend, "subject:Patient.identifier=http://a|2", &anonymous("bob")).await, 201);
    assert_eq!(create(&backend, "patient.identifier=http://a|9", &anonymous("bob")).await, 201);
    // The identifier moves from one patient to the other: what was found before holds no more.
    put(&backend, &named("ann", "3")).await;
    assert_eq!(create(&backend, "subject:Patient.identifier=http://a|1", &anonymous("ann")).await, 201);
    let mut changed = anonymous("bob");
    changed["status"] = json!("amended");
    let address = "Observation?subject:Patient.identifier=http://a%7C2&status=final&code=1";
    assert_eq!(backend.put(address, &changed).await.status, 412, "bob has two");
    let address = "Patient?_has:Observation:patient:status=amended";
    let reply = backend.put(address, &json!({"resourceType": "Patient", "gender": "other"})).await;
    assert_eq!(reply.status, 201, "nothing matches: {}", reply.text());
    let reply = backend.delete("Patient?_has:Observation:patient:status=final&identifier=http://a%7C3").await;
    assert_eq!(reply.status, 204);
    assert_eq!(backend.get("Patient/ann").await.status, 410);
    assert_eq!(backend.get("Patient/bob").await.status, 200);
    // Without permission to look at what the chain goes by nothing is decided.
    let narrow = app.persona("system/Observation.cruds").await;
    assert_eq!(create(&narrow, condition, &anonymous("ann")).await, 403);
}

#[tokio::test]
async fn sets_of_codes_decide_what_is_written() {
    on_both(sets_of_codes).await;
}

async fn sets_of_codes(app: TestApp) {
    let backend = app.persona(ALL).await;
    let set = |codes: &[&str]| {
        let codes: Vec<Value> = codes.iter().map(|code| json!({"code": code})).collect();
        json!({"resourceType": "ValueSet", "id": "vs", "url": "http://vs", "status": "active",
            "compose": {"include": [{"system": "http://loinc.org", "concept": codes}]}})
    };
    put(&backend, &set(&["1", "2"])).await;
    put(&backend, &observation("o1", "p", "1")).await;
    assert_eq!(create(&backend, "code:in=http://vs&patient=p", &anonymous("p")).await, 200);
    put(&backend, &set(&["2"])).await;
    assert_eq!(create(&backend, "code:in=http://vs&patient=p", &anonymous("p")).await, 201);
    assert_eq!(create(&backend, "code:not-in=http://vs&patient=p", &anonymous("p")).await, 412, "two are not in it");
    let unknown = create(&backend, "code:in=http://nowhere&patient=p", &anonymous("p")).await;
    assert!((400..500).contains(&unknown) && unknown != 412, "{unknown}: a set that is not there decides nothing");
    assert_eq!(backend.delete("Observation?code:in=http://vs").await.status, 204);
    assert_eq!(backend.get("Observation?_summary=count").await.json()["total"], 2, "none is in the set");
}

#[tokio::test]
async fn references_by_a_query_do_not_guess() {
    on_both(do_not_guess).await;
}

async fn do_not_guess(app: TestApp) {
    let backend = app.persona(ALL).await;
    put(&backend, &named("ann", "1")).await;
    let encounter = json!({"resourceType": "Encounter", "id": "e", "status": "finished", "class": {"code": "AMB"},
        "subject": {"reference": "Patient/ann"}});
    put(&backend, &encounter).await;
    let mut referring = anonymous("ann");
    referring["encounter"] = json!({"reference": "Encounter?subject:Patient.identifier=http://a|1"});
    let post = |entries: Vec<Value>| {
        let backend = &backend;
        async move { backend.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).await }
    };
    let entry = |method: &str, url: &str, resource: &Value| json!({"resource": resource, "request": {"method": method, "url": url}});
    let observed = || entry("POST", "Observation", &referring);
    let reply = post(vec![observed()]).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let found = backend.get("Observation?encounter=Encounter/e&_summary=count").await;
    assert_eq!(found.json()["total"], 1);
    // The same transaction writes what the chain goes by, or what it leads to.
    let mut second = encounter.clone();
    second["id"] = json!("f");
    for other in [entry("PUT", "Patient/ann", &named("ann", "2")), entry("PUT", "Encounter/f", &second)] {
        let reply = post(vec![observed(), other]).await;
        assert_eq!(
            (reply.status, reply.places()),
            (400, vec!["Bundle.entry[0].resource".to_owned()]),
            "{}",
            reply.text()
        );
    }
    let mut plain = anonymous("ann");
    plain["subject"] = json!({"reference": "Patient?identifier=http://a|2"});
    let patch = json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [
        {"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Patient.identifier[0].value"},
        {"name": "value", "valueString": "2"}]}]});
    let reply = post(vec![entry("POST", "Observation", &plain), entry("PATCH", "Patient/ann", &patch)]).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("is patched by the same transaction"), "{}", reply.text());
}

#[tokio::test]
async fn a_conditional_create_gives_what_is_there_to_who_may_read_it() {
    let app = TestApp::new().await;
    let backend = app.persona(ALL).await;
    put(&backend, &named("ann", "1")).await;
    let blind = app.persona("system/Patient.cs").await;
    for (who, prefer, body) in [
        (&backend, "", "Patient"),
        (&backend, "return=representation", "Patient"),
        (&backend, "return=minimal", ""),
        (&backend, "return=OperationOutcome", "OperationOutcome"),
        (&blind, "return=representation", ""),
    ] {
        let headers =
            [("content-type", "application/fhir+json"), ("if-none-exist", "identifier=http://a|1"), ("prefer", prefer)];
        let reply = who.call("POST", "Patient", &headers, named("x", "1").to_string()).await;
        assert_eq!((reply.status, reply.header("etag")), (200, "W/\"1\""), "{prefer}: {}", reply.text());
        assert!(reply.header("location").ends_with("/Patient/ann/_history/1"), "{prefer}");
        let kind = if reply.body.is_empty() { json!("") } else { reply.json()["resourceType"].take() };
        assert_eq!(kind, body, "{prefer}");
        if body == "Patient" {
            assert_eq!(reply.json()["id"], "ann");
            let record = serde_json::to_string(&backend.audit_of(reply.header("x-request-id")).await).unwrap();
            assert!(record.contains("Patient/ann"), "what leaves is on record: {record}");
        }
    }
    let entry = json!({"resource": named("x", "1"), "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=http://a|1"}});
    for kind in ["batch", "transaction"] {
        let bundle = json!({"resourceType": "Bundle", "type": kind, "entry": [entry]});
        let reply = backend.post("", &bundle).await.json();
        let entry = &reply["entry"][0];
        assert!(
            entry["response"]["status"].as_str().unwrap().starts_with("200") && entry.get("resource").is_none(),
            "{entry}"
        );
    }
}

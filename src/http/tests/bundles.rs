//! Batches and transactions through the real router.

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, patient};

fn bundle(kind: &str, entries: Vec<Value>) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

fn entry(method: &str, url: &str, full_url: Option<&str>, resource: Option<Value>) -> Value {
    let mut entry = json!({"request": {"method": method, "url": url}});
    if let Some(full_url) = full_url {
        entry["fullUrl"] = json!(full_url);
    }
    if let Some(resource) = resource {
        entry["resource"] = resource;
    }
    entry
}

fn statuses(reply: &Reply) -> Vec<String> {
    let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["response"]["status"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn post(backend: &Persona<'_>, bundle: &Value) -> Reply {
    backend.post("", bundle).await
}

#[tokio::test]
async fn a_transaction_rewrites_references_and_writes_all_at_once() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/old", &patient("old", "Old")).await;
    let organization = json!({"resourceType": "Organization", "identifier": [{"system": "http://a", "value": "1"}]});
    backend.post("Organization", &organization).await;
    let condition = json!({
        "resourceType": "Condition", "subject": {"reference": "urn:uuid:p"},
        "recorder": {"reference": "Practitioner/keep"},
        "extension": [{"url": "http://x", "valueReference": {"reference": "Organization?identifier=http://a|1"}}]
    });
    let sent = bundle(
        "transaction",
        vec![
            entry("GET", "Patient?family=New", None, None),
            entry("POST", "Condition", Some("urn:uuid:c"), Some(condition)),
            entry("PUT", "Patient/put", None, Some(patient("put", "Put"))),
            entry("POST", "Patient", Some("urn:uuid:p"), Some(patient("x", "New"))),
            entry("DELETE", "Patient/old", None, None),
        ],
    );
    let reply = post(&backend, &sent).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(statuses(&reply), ["200 OK", "201 Created", "201 Created", "201 Created", "204 No Content"]);
    let json = reply.json();
    assert_eq!(json["type"], "transaction-response");
    assert_eq!(json["entry"][0]["resource"]["total"], 1, "reads see what was written");
    assert_eq!(json["entry"][1].get("resource"), None, "no content unless it was asked for");
    let location = json["entry"][3]["response"]["location"].as_str().expect("a location");
    let new = location.trim_start_matches("http://phial.test/fhir/").trim_end_matches("/_history/1");
    let conditions = backend.get(&format!("Condition?subject={new}")).await.json();
    let stored = &conditions["entry"][0]["resource"];
    assert_eq!(stored["subject"]["reference"], new);
    assert_eq!(stored["recorder"]["reference"], "Practitioner/keep");
    let resolved = stored["extension"][0]["valueReference"]["reference"].as_str().expect("a reference");
    assert!(resolved.starts_with("Organization/"), "{resolved}");
    assert_eq!(backend.get("Patient/old").await.status, 410);
    let events = backend.audit_of(reply.header("x-request-id")).await;
    assert!(!events.is_empty(), "on record");
}

#[tokio::test]
async fn nothing_of_a_failed_transaction_is_kept_and_the_place_is_named() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let good = || entry("PUT", "Patient/good", None, Some(patient("good", "Good")));
    let table = [
        (
            entry("POST", "Patient", None, Some(json!({"resourceType": "Patient", "nam": 1}))),
            400,
            "Bundle.entry[1].resource.nam",
        ),
        (entry("PUT", "Patient/a", None, Some(patient("b", "B"))), 400, "Bundle.entry[1].resource.id"),
        (entry("PUT", "Patient/good", None, Some(patient("good", "Twice"))), 400, "Bundle.entry[1].request.url"),
        (entry("PUT", "Nothing/a", None, None), 404, "Bundle.entry[1].request.url"),
        (entry("FETCH", "Patient", None, None), 400, "Bundle.entry[1].request.method"),
        (entry("POST", "Patient", None, None), 400, "Bundle.entry[1].resource"),
        (json!({"resource": patient("a", "A")}), 400, "Bundle.entry[1].request"),
        (
            entry(
                "POST",
                "Condition",
                None,
                Some(json!({
                    "resourceType": "Condition", "subject": {"reference": "Patient?identifier=http://none|1"}
                })),
            ),
            412,
            "Bundle.entry[1].resource",
        ),
        (
            json!({"request": {"method": "PUT", "url": "Patient/m", "ifMatch": "W/\"3\""}, "resource": patient("m", "M")}),
            412,
            "Bundle.entry[1]",
        ),
    ];
    for (bad, status, place) in table {
        let reply = post(&backend, &bundle("transaction", vec![good(), bad])).await;
        assert_eq!((reply.status, reply.places()), (status, vec![place.to_owned()]), "{}", reply.text());
        assert_eq!(backend.get("Patient/good").await.status, 404);
        let events = backend.audit_of(reply.header("x-request-id")).await;
        assert!(events.iter().any(|event| event["outcome"] == "4"), "refusals are on record");
    }
}

#[tokio::test]
async fn a_batch_performs_each_entry_on_its_own() {
    let app = TestApp::new().await;
    let backend = app.persona("system/Patient.cruds").await;
    let entries = vec![
        entry("PUT", "Patient/a", None, Some(patient("a", "A"))),
        entry("GET", "Patient/none", None, None),
        entry("POST", "Condition", None, Some(json!({"resourceType": "Condition"}))),
        json!({"request": {"method": "GET"}}),
        entry("DELETE", "Patient?family=x", None, None),
        entry("GET", "http://phial.test/fhir/metadata?_elements=fhirVersion", None, None),
        entry("GET", "metadata", None, None),
        entry("GET", "_async/1", None, None),
    ];
    let reply = post(&backend, &bundle("batch", entries)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let expected = [
        "201 Created",
        "404 Not Found",
        "403 Forbidden",
        "400 Bad Request",
        "204 No Content",
        "200 OK",
        "422 Unprocessable Entity",
        "400 Bad Request",
    ];
    assert_eq!(statuses(&reply), expected);
    let stated = &reply.json()["entry"][5]["resource"];
    assert_eq!((&stated["resourceType"], &stated["fhirVersion"]), (&json!("CapabilityStatement"), &json!("4.0.1")));
    assert!(stated.get("software").is_none(), "shaped as it was asked for");
    let events = app.persona("system/*.rs").await.audit_of(reply.header("x-request-id")).await;
    assert!(events.iter().any(|event| event["subtype"][0]["code"] == "capabilities"), "{events:?}");
    let outcome = &reply.json()["entry"][3]["response"]["outcome"]["issue"][0];
    assert_eq!(outcome["expression"][0], "Bundle.entry[3].request.url");
    assert_eq!(backend.get("Patient/a").await.status, 200);
}

#[tokio::test]
async fn the_content_comes_back_when_it_is_asked_for() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for kind in ["batch", "transaction"] {
        let sent = bundle(kind, vec![entry("POST", "Patient", None, Some(patient("x", "Back")))]);
        let headers = [("content-type", "application/fhir+json"), ("prefer", "return=representation")];
        let reply = backend.call("POST", "", &headers, sent.to_string()).await.json();
        assert_eq!(reply["entry"][0]["resource"]["name"][0]["family"], "Back", "{kind}");
    }
}

#[tokio::test]
async fn if_none_exist_holds_inside_transactions() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let organization = json!({"resourceType": "Organization", "identifier": [{"system": "http://a", "value": "1"}]});
    let sent = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"fullUrl": "urn:uuid:o", "resource": organization,
         "request": {"method": "POST", "url": "Organization", "ifNoneExist": "identifier=http://a|1"}},
        {"resource": {"resourceType": "Patient", "managingOrganization": {"reference": "urn:uuid:o"}},
         "request": {"method": "POST", "url": "Patient"}}
    ]});
    let first = post(&backend, &sent).await;
    assert_eq!(statuses(&first), ["201 Created", "201 Created"], "{}", first.text());
    let second = post(&backend, &sent).await;
    assert_eq!(statuses(&second), ["200 OK", "201 Created"], "{}", second.text());
    let organizations = backend.get("Organization").await.ids();
    assert_eq!(organizations.len(), 1);
    let patients = backend.get(&format!("Patient?organization={}", organizations[0])).await;
    assert_eq!(patients.ids().len(), 2, "both refer to the one there is");
}

#[tokio::test]
async fn only_bundles_within_the_limits_are_taken() {
    let app = TestApp::with(&[("bundle_entries_max", "2")]).await;
    let backend = app.persona("system/*.cruds").await;
    let one = || entry("GET", "Patient/a", None, None);
    let large = post(&backend, &bundle("batch", vec![one(), one(), one()])).await;
    assert_eq!((large.status, large.places()), (422, vec!["Bundle.entry".to_owned()]));
    let other = post(&backend, &bundle("searchset", Vec::new())).await;
    assert_eq!((other.status, other.places()), (400, vec!["Bundle.type".to_owned()]));
    assert_eq!(post(&backend, &patient("a", "A")).await.status, 400);
    assert_eq!(post(&backend, &bundle("transaction", Vec::new())).await.status, 200);
}

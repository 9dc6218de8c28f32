//! Patches and conditional writes through the real router.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, patient};

const JSON_PATCH: &str = "application/json-patch+json";
const FHIR_JSON: &str = "application/fhir+json";

/// Path, operations, headers, status and places.
type Case<'a> = (&'a str, Value, &'a [(&'a str, &'a str)], u16, &'a [&'a str]);

async fn patch(backend: &Persona<'_>, path: &str, operations: &Value, headers: &[(&str, &str)]) -> Reply {
    let headers: Vec<(&str, &str)> = [("content-type", JSON_PATCH)].iter().chain(headers).copied().collect();
    backend.call("PATCH", path, &headers, operations.to_string()).await
}

fn replace(path: &str, value: Value) -> Value {
    json!([{"op": "replace", "path": path, "value": value}])
}

fn by_path(path: &str, suffix: &str, value: Value) -> Value {
    json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": path},
        {"name": "value", suffix: value},
    ]}]})
}

fn with_number(id: &str, family: &str, number: &str) -> Value {
    let mut patient = patient(id, family);
    patient["identifier"] = json!([{"system": "http://a", "value": number}]);
    patient
}

fn without_id(mut resource: Value) -> Value {
    resource.as_object_mut().expect("an object").remove("id");
    resource
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_keeps_the_rest() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let sent = r#"{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"valueQuantity":{"value":6.30}}"#;
    backend.call("PUT", "Observation/o", &[("content-type", FHIR_JSON)], sent).await;
    let reply = patch(&backend, "Observation/o", &replace("/status", json!("amended")), &[]).await;
    assert_eq!((reply.status, reply.header("etag")), (200, "W/\"2\""), "{}", reply.text());
    assert!(reply.text().contains("6.30") && reply.json()["status"] == "amended", "{}", reply.text());

    let parameters = by_path("Observation.value.value", "valueDecimal", json!(1));
    let text = parameters.to_string().replace("\"valueDecimal\":1", "\"valueDecimal\":7.00");
    let reply = backend.call("PATCH", "Observation/o", &[("content-type", FHIR_JSON)], text).await;
    assert_eq!((reply.status, reply.header("etag")), (200, "W/\"3\""), "{}", reply.text());
    assert!(reply.text().contains("7.00"));

    let xml = r#"<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>
        <part><name value="type"/><valueCode value="delete"/></part>
        <part><name value="path"/><valueString value="Observation.value"/></part></parameter></Parameters>"#;
    let reply = backend.call("PATCH", "Observation/o", &[("content-type", "application/fhir+xml")], xml).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json().get("valueQuantity"), None);
    let events = backend.audit_of(reply.header("x-request-id")).await;
    let subtypes: Vec<&Value> = events.iter().map(|event| &event["subtype"][0]["code"]).collect();
    assert!(subtypes.contains(&&json!("patch")) && subtypes.contains(&&json!("read")), "{subtypes:?}");
}

#[tokio::test]
async fn a_patch_that_cannot_be_taken_says_why_and_where() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p", &patient("p", "A")).await;
    backend.put("Patient/gone", &patient("gone", "A")).await;
    backend.delete("Patient/gone").await;
    let test = json!([{"op": "test", "path": "/name/0/family", "value": "B"}]);
    let table: [Case<'_>; 10] = [
        ("Patient/p", replace("/birthDate", json!("1980")), &[], 422, &["Patient.birthDate"]),
        ("Patient/p", test, &[], 422, &["Patient.name[0].family"]),
        ("Patient/p", json!([{"op": "add", "path": "/gender", "value": "x"}]), &[], 400, &["Patient.gender"]),
        ("Patient/p", replace("/id", json!("q")), &[], 400, &["Patient.id"]),
        ("Patient/p", replace("/resourceType", json!("Group")), &[], 400, &["Patient.resourceType"]),
        ("Patient/p", json!({"op": "add"}), &[], 400, &[]),
        ("Patient/p", replace("/active", json!(true)), &[("if-match", "W/\"7\"")], 412, &[]),
        ("Patient/none", replace("/active", json!(true)), &[], 404, &[]),
        ("Patient/gone", replace("/active", json!(true)), &[], 410, &[]),
        ("Patient/p?x=1", replace("/active", json!(true)), &[], 400, &[]),
    ];
    for (path, operations, headers, status, places) in table {
        let reply = patch(&backend, path, &operations, headers).await;
        assert_eq!(
            (reply.status, reply.places()),
            (status, places.iter().map(|p| (*p).to_owned()).collect()),
            "{path} {operations} {}",
            reply.text()
        );
    }
    for kind in ["application/xml-patch+xml", "text/plain", "application/x-www-form-urlencoded"] {
        let reply = backend.call("PATCH", "Patient/p", &[("content-type", kind)], "[]").await;
        assert_eq!(reply.status, 415, "{kind}");
    }
    assert_eq!(backend.get("Patient/p").await.header("etag"), "W/\"1\"", "nothing was written");
    let matched = [("if-match", "W/\"1\"")];
    let add = json!([{"op": "add", "path": "/active", "value": true}]);
    assert_eq!(patch(&backend, "Patient/p", &add, &matched).await.status, 200);
    assert_eq!(patch(&backend, "Patient/p", &add, &matched).await.status, 412);
}

#[tokio::test]
async fn rules_hold_for_patches_as_for_updates() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let appointment = json!({"resourceType": "Appointment", "id": "a", "status": "fulfilled",
        "participant": [{"actor": {"reference": "Patient/p"}, "status": "accepted"}]});
    assert_eq!(backend.put("Appointment/a", &appointment).await.status, 201);
    let moved = patch(&backend, "Appointment/a", &replace("/status", json!("booked")), &[]).await;
    assert_eq!((moved.status, moved.places()), (422, vec!["Appointment.status".to_owned()]), "{}", moved.text());
    backend.post("Patient", &patient("x", "A")).await;
    let number = backend.get("Patient").await.json()["entry"][0]["resource"].clone();
    let path = format!("Patient/{}", number["id"].as_str().expect("an id"));
    let removed = patch(&backend, &path, &json!([{"op": "remove", "path": "/identifier"}]), &[]).await;
    assert_eq!(removed.json()["identifier"], number["identifier"], "a number that was given stays");
}

#[tokio::test]
async fn who_may_not_read_learns_nothing_by_patching() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p", &patient("p", "Secret")).await;
    let writer = app.persona("system/Patient.u").await;
    let add = json!([{"op": "add", "path": "/active", "value": true}]);
    let reply = patch(&writer, "Patient/p", &add, &[("prefer", "return=representation")]).await;
    assert_eq!((reply.status, reply.body.len(), reply.header("etag")), (200, 0, "W/\"2\""), "{}", reply.text());
    let test = json!([{"op": "test", "path": "/name/0/family", "value": "Secret"}]);
    assert_eq!(patch(&writer, "Patient/p", &test, &[]).await.status, 403);
    let body = by_path("Patient.name.where(family = 'Secret').family", "valueString", json!("x")).to_string();
    assert_eq!(writer.call("PATCH", "Patient/p", &[("content-type", FHIR_JSON)], body).await.status, 403);
    let reader = app.persona("system/Patient.rs").await;
    assert_eq!(patch(&reader, "Patient/p", &add, &[]).await.status, 403);
    let narrow = app.persona("system/Patient.cruds?family=Other").await;
    assert_eq!(patch(&narrow, "Patient/p", &add, &[]).await.status, 404);
}

#[tokio::test]
async fn patches_go_into_bundles() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for kind in ["batch", "transaction"] {
        backend.put("Patient/p", &with_number("p", "A", "1")).await;
        backend.put("Patient/q", &patient("q", "A")).await;
        let data = STANDARD.encode(replace("/name/0/family", json!("J")).to_string());
        let binary = json!({"resourceType": "Binary", "contentType": JSON_PATCH, "data": data});
        let entry =
            |url: &str, resource: Value| json!({"request": {"method": "PATCH", "url": url}, "resource": resource});
        let bundle = |entries: Vec<Value>| json!({"resourceType": "Bundle", "type": kind, "entry": entries});
        let sent = bundle(vec![
            entry("Patient?identifier=http://a|1", binary.clone()),
            entry("Patient/q", by_path("Patient.name[0].family", "valueString", json!("F"))),
        ]);
        let reply = backend.post("", &sent).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        for n in 0..2 {
            assert_eq!(reply.json()["entry"][n]["response"]["status"], "200 OK", "{}", reply.text());
        }
        assert_eq!(backend.get("Patient/p").await.json()["name"][0]["family"], "J", "{kind}");
        assert_eq!(backend.get("Patient/q").await.json()["name"][0]["family"], "F", "{kind}");
        let wrong = bundle(vec![
            entry("Patient/q", by_path("Patient.birthDate", "valueDate", json!("1980"))),
            entry("Patient/p", json!({"resourceType": "Binary", "contentType": "text/plain", "data": data})),
            entry("Patient/p", patient("p", "x")),
        ]);
        let reply = backend.post("", &wrong).await;
        match kind {
            "transaction" => assert_eq!(
                (reply.status, reply.places()),
                (400, vec!["Bundle.entry[1].resource.contentType".to_owned(), "Bundle.entry[2].resource".to_owned()])
            ),
            _ => {
                let statuses: Vec<Value> =
                    (0..3).map(|n| reply.json()["entry"][n]["response"]["status"].clone()).collect();
                assert_eq!(statuses, ["422 Unprocessable Entity", "400 Bad Request", "400 Bad Request"]);
            }
        }
    }
}

#[tokio::test]
async fn an_update_by_condition_creates_or_changes_one() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let address = "Patient?identifier=http://a|7";
    let made = backend.put(address, &without_id(with_number("", "A", "7"))).await;
    assert_eq!((made.status, made.header("etag")), (201, "W/\"1\""), "{}", made.text());
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let changed = backend.put(address, &without_id(with_number("", "B", "7"))).await;
    assert_eq!((changed.status, changed.header("etag")), (200, "W/\"2\""), "{}", changed.text());
    assert_eq!(changed.json()["id"], id.as_str());
    assert_eq!(backend.put(address, &with_number(&id, "C", "7")).await.status, 200, "its own id may be there");
    assert_eq!(backend.put(address, &with_number("other", "C", "7")).await.status, 400);
    let named = backend.put("Patient?identifier=http://a|8", &with_number("eight", "D", "8")).await;
    assert_eq!((named.status, named.json()["id"].clone()), (201, json!("eight")), "{}", named.text());
    let taken = backend.put("Patient?identifier=http://a|9", &with_number("eight", "D", "9")).await;
    assert_eq!(taken.status, 409, "{}", taken.text());
    backend.post("Patient", &without_id(with_number("", "E", "7"))).await;
    assert_eq!(backend.put(address, &without_id(with_number("", "F", "7"))).await.status, 412);
    for wrong in ["Patient", "Patient?_count=1", "Patient?nothing=1", "Patient?_sort=family&family=A"] {
        assert_eq!(backend.put(wrong, &without_id(patient("", "A"))).await.status, 400, "{wrong}");
    }
    let blind = app.persona("system/Patient.u").await;
    assert_eq!(blind.put(address, &without_id(patient("", "A"))).await.status, 403, "a condition is a search");
}

#[tokio::test]
async fn a_patch_by_condition_needs_one_match() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p", &with_number("p", "A", "1")).await;
    let change = replace("/name/0/family", json!("B"));
    let reply = patch(&backend, "Patient?identifier=http://a|1", &change, &[]).await;
    assert_eq!((reply.status, reply.header("etag")), (200, "W/\"2\""), "{}", reply.text());
    assert_eq!(patch(&backend, "Patient?identifier=http://a|2", &change, &[]).await.status, 404);
    backend.put("Patient/q", &with_number("q", "A", "1")).await;
    assert_eq!(patch(&backend, "Patient?identifier=http://a|1", &change, &[]).await.status, 412);
}

#[tokio::test]
async fn a_delete_by_condition_stays_within_its_limit() {
    for (most, capability) in [("1", "single"), ("3", "multiple")] {
        let app = TestApp::with(&[("conditional_delete_max", most)]).await;
        let backend = app.persona("system/*.cruds").await;
        let statement = backend.get("metadata").await.json();
        let resources = statement["rest"][0]["resource"].as_array().expect("resources").clone();
        let patient_entry = resources.iter().find(|entry| entry["type"] == "Patient").expect("Patient");
        assert_eq!(patient_entry["conditionalDelete"], capability);
        assert!(statement["patchFormat"].as_array().is_some_and(|formats| formats.contains(&json!(JSON_PATCH))));
        for n in 0..4 {
            backend
                .put(&format!("Patient/p{n}"), &patient(&format!("p{n}"), if n < 3 { "Three" } else { "One" }))
                .await;
        }
        assert_eq!(backend.delete("Patient?family=Nobody").await.status, 204);
        assert_eq!(backend.delete("Patient?family=One").await.status, 204);
        assert_eq!(backend.get("Patient/p3").await.status, 410);
        let prefer = [("prefer", "return=OperationOutcome")];
        let several = backend.call("DELETE", "Patient?family=Three", &prefer, "").await;
        match most {
            "1" => assert_eq!(several.status, 412, "{}", several.text()),
            _ => {
                assert_eq!(several.status, 200, "{}", several.text());
                assert!(several.text().contains("Deleted 3 resources"), "{}", several.text());
                let events = backend.audit_of(several.header("x-request-id")).await;
                assert!(!events.is_empty(), "on record");
            }
        }
        let left = backend.get("Patient?family=Three").await.ids().len();
        assert_eq!(left, if most == "1" { 3 } else { 0 });
        assert_eq!(backend.delete("Patient").await.status, 400, "never all of a type");
    }
}

#[tokio::test]
async fn transactions_resolve_conditions_against_their_own_entries() {
    let app = TestApp::with(&[("conditional_delete_max", "5")]).await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/old", &with_number("old", "A", "1")).await;
    for n in 0..2 {
        backend
            .put(
                &format!("Group/g{n}"),
                &json!({"resourceType": "Group", "id": format!("g{n}"), "type": "person",
            "actual": true, "code": {"coding": [{"code": "x"}]}}),
            )
            .await;
    }
    let condition = |reference: &str| json!({"resourceType": "Condition", "subject": {"reference": reference}});
    let organization = json!({"resourceType": "Organization", "identifier": [{"system": "http://o", "value": "1"}]});
    let sent = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"request": {"method": "POST", "url": "Condition"}, "resource": condition("Patient?identifier=http://a|2")},
        {"request": {"method": "POST", "url": "Condition"}, "resource": condition("urn:uuid:up")},
        {"request": {"method": "PUT", "url": "Patient?identifier=http://a|1"}, "fullUrl": "urn:uuid:up",
         "resource": without_id(with_number("", "B", "2"))},
        {"request": {"method": "DELETE", "url": "Group?code=x"}},
        {"request": {"method": "POST", "url": "Organization", "ifNoneExist": "identifier=http://o|1"},
         "fullUrl": "urn:uuid:o1", "resource": organization},
        {"request": {"method": "POST", "url": "Organization", "ifNoneExist": "identifier=http://o|1"},
         "fullUrl": "urn:uuid:o2", "resource": organization},
        {"request": {"method": "POST", "url": "Patient"},
         "resource": {"resourceType": "Patient", "managingOrganization": {"reference": "urn:uuid:o2"}}},
        {"request": {"method": "HEAD", "url": "Patient/old"}},
    ]});
    let reply = backend.post("", &sent).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let statuses: Vec<String> = reply.json()["entry"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["response"]["status"].as_str().unwrap_or_default()[..3].to_owned())
        .collect();
    assert_eq!(statuses, ["201", "201", "200", "204", "201", "200", "201", "200"]);
    assert_eq!(reply.json()["entry"][7].get("resource"), None, "HEAD has no content");
    assert_eq!(backend.get("Condition?subject=Patient/old").await.ids().len(), 2, "both refer to the one");
    assert_eq!(backend.get("Group").await.ids().len(), 0);
    assert_eq!(backend.get("Organization").await.ids().len(), 1);

    let ambiguous = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"request": {"method": "POST", "url": "Condition"}, "resource": condition("Patient?identifier=http://a|2")},
        {"request": {"method": "POST", "url": "Patient"}, "resource": without_id(with_number("", "C", "2"))},
        {"request": {"method": "PUT", "url": "Patient/x"}, "resource": patient("y", "D")},
        {"request": {"method": "POST", "url": "Patient"}, "resource": {"resourceType": "Patient", "nam": 1, "gender": 2}},
        {"request": {"method": "PATCH", "url": "Patient?identifier=http://a|77"},
         "resource": by_path("Patient.active", "valueBoolean", json!(true))},
    ]});
    let reply = backend.post("", &ambiguous).await;
    let places = [
        "Bundle.entry[4].request.url",
        "Bundle.entry[0].resource",
        "Bundle.entry[2].resource.id",
        "Bundle.entry[3].resource.nam",
        "Bundle.entry[3].resource.gender",
    ];
    assert_eq!(reply.places(), places, "{}", reply.text());
    assert!((400..500).contains(&reply.status));
}

#[tokio::test]
async fn circular_references_are_written() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let linked =
        |other: &str| json!({"resourceType": "Patient", "link": [{"type": "seealso", "other": {"reference": other}}]});
    let sent = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"request": {"method": "POST", "url": "Patient"}, "fullUrl": "urn:uuid:a", "resource": linked("urn:uuid:b")},
        {"request": {"method": "POST", "url": "Patient"}, "fullUrl": "urn:uuid:b", "resource": linked("urn:uuid:a")},
    ]});
    let reply = backend.post("", &sent).await.json();
    let id = |n: usize| {
        let location = reply["entry"][n]["response"]["location"].as_str().expect("a location");
        location.split('/').nth_back(2).expect("an id").to_owned()
    };
    for (own, other) in [(id(0), id(1)), (id(1), id(0))] {
        let stored = backend.get(&format!("Patient/{own}")).await.json();
        assert_eq!(stored["link"][0]["other"]["reference"], format!("Patient/{other}"));
    }
}

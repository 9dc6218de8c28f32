//! The domain's rules as a client meets them: medical record numbers and the moves of an appointment, on both databases.

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine};

const MR: &str = "MR";

#[test]
fn rules_hold_on_sqlite() {
    rules(Engine::Sqlite);
}

#[test]
fn rules_hold_on_postgres() {
    rules(Engine::Postgres);
}

fn rules(engine: Engine) {
    let data = Data::new(engine);
    let server = data.serve();
    let ours = numbers_are_given_and_kept(&server.client);
    numbers_of_ours_are_unique(&server.client, &ours);
    numbers_brought_along_are_not_given_again(&server.client, &ours);
    numbers_of_others_may_repeat(&server.client);
    appointments_move_by_the_table(&server.client);
    assert!(server.terminate().success());
}

/// The MR identifiers of a stored Patient: (system, value).
fn numbers(client: &Client, id: &str) -> Vec<(String, String)> {
    let patient = client.get(&format!("/fhir/Patient/{id}")).unwrap().json();
    let text = |identifier: &Value, name: &str| identifier[name].as_str().unwrap_or_default().to_owned();
    let all = patient["identifier"].as_array().cloned().unwrap_or_default();
    let of_type = all.iter().filter(|identifier| identifier["type"]["coding"][0]["code"] == MR);
    of_type.map(|identifier| (text(identifier, "system"), text(identifier, "value"))).collect()
}

fn put(client: &Client, resource: &Value) -> (u16, Value) {
    let path = format!("/fhir/{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    let reply = client.put_json(&path, resource).unwrap();
    (reply.status, reply.json())
}

fn patient(id: &str) -> Value {
    json!({ "resourceType": "Patient", "id": id, "active": true })
}

fn with_number(id: &str, system: &str, value: &str) -> Value {
    let kind = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": MR }] });
    json!({ "resourceType": "Patient", "id": id, "identifier": [{ "type": kind, "system": system, "value": value }] })
}

/// Gives the system of the server's numbers.
fn numbers_are_given_and_kept(client: &Client) -> String {
    assert_eq!(put(client, &patient("n1")).0, 201);
    let given = numbers(client, "n1");
    let [(system, value)] = given.as_slice() else { panic!("one number: {given:?}") };
    assert!(system.ends_with("/NamingSystem/mrn"), "{system}");
    assert_eq!(value, "MRN000001");
    // A client that does not know the number does not take it away.
    let mut changed = patient("n1");
    changed["gender"] = json!("other");
    assert_eq!(put(client, &changed).0, 200);
    assert_eq!(numbers(client, "n1"), given);
    // Several in one transaction each get their own.
    let entry = |n: u32| {
        json!({ "fullUrl": format!("urn:uuid:00000000-0000-4000-8000-00000000000{n}"), "resource": { "resourceType": "Patient" },
                "request": { "method": "POST", "url": "Patient" } })
    };
    let bundle = json!({ "resourceType": "Bundle", "type": "transaction", "entry": [entry(1), entry(2), entry(3)] });
    let reply = client.post_json("/fhir", &bundle).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut all: Vec<String> = Vec::new();
    for entry in reply.json()["entry"].as_array().unwrap() {
        let location = entry["response"]["location"].as_str().unwrap();
        let id = location.rsplit_once("/_history").unwrap().0.rsplit('/').next().unwrap();
        all.extend(numbers(client, id).into_iter().map(|(_, value)| value));
    }
    all.sort();
    assert_eq!(all, ["MRN000002", "MRN000003", "MRN000004"]);
    system.clone()
}

fn numbers_of_ours_are_unique(client: &Client, ours: &str) {
    let (status, outcome) = put(client, &with_number("thief", ours, "MRN000001"));
    assert_eq!((status, &outcome["issue"][0]["code"]), (409, &json!("duplicate")));
    assert_eq!(client.get("/fhir/Patient/thief").unwrap().status, 404);
    // Its holder may send it again, and another may take it once it is free.
    assert_eq!(put(client, &with_number("n1", ours, "MRN000001")).0, 200);
    assert_eq!(put(client, &with_number("n1", ours, "MRN000009")).0, 200);
    assert_eq!(put(client, &with_number("thief", ours, "MRN000001")).0, 201);
    // Two in one transaction: neither is kept.
    let entry = |id: &str| json!({ "resource": with_number(id, ours, "MRN000100"), "request": { "method": "PUT", "url": format!("Patient/{id}") } });
    let bundle = json!({ "resourceType": "Bundle", "type": "transaction", "entry": [entry("t1"), entry("t2")] });
    assert_eq!(client.post_json("/fhir", &bundle).unwrap().status, 409);
    for id in ["t1", "t2"] {
        assert_eq!(client.get(&format!("/fhir/Patient/{id}")).unwrap().status, 404, "{id}");
    }
}

fn numbers_brought_along_are_not_given_again(client: &Client, ours: &str) {
    assert_eq!(put(client, &with_number("moved", ours, "MRN000777")).0, 201);
    for (id, expected) in [("after", "MRN000778"), ("after2", "MRN000779")] {
        assert_eq!(put(client, &patient(id)).0, 201);
        assert_eq!(numbers(client, id), [(ours.to_owned(), expected.to_owned())]);
    }
}

fn numbers_of_others_may_repeat(client: &Client) {
    for id in ["h1", "h2"] {
        assert_eq!(put(client, &with_number(id, "http://hospital.example.org", "1032702")).0, 201);
        assert_eq!(numbers(client, id), [("http://hospital.example.org".to_owned(), "1032702".to_owned())]);
    }
    let found = client.get("/fhir/Patient?identifier=http://hospital.example.org%7C1032702&_total=accurate").unwrap();
    assert_eq!(found.json()["total"], 2);
}

fn appointment(status: &str) -> Value {
    json!({
        "resourceType": "Appointment", "id": "a1", "status": status, "start": "2027-02-01T09:00:00Z",
        "end": "2027-02-01T09:20:00Z", "participant": [{ "actor": { "reference": "Patient/n1" }, "status": "accepted" }]
    })
}

fn appointments_move_by_the_table(client: &Client) {
    assert_eq!(put(client, &appointment("booked")).0, 201);
    assert_eq!(put(client, &appointment("arrived")).0, 200);
    assert_eq!(put(client, &appointment("fulfilled")).0, 200);
    let (status, outcome) = put(client, &appointment("booked"));
    let issue = &outcome["issue"][0];
    assert_eq!((status, &issue["code"]), (422, &json!("business-rule")), "{outcome}");
    assert_eq!(issue["expression"], json!(["Appointment.status"]));
    assert!(!outcome.to_string().contains("fulfilled"), "what stands there is not told: {outcome}");
    let stands = client.get("/fhir/Appointment/a1").unwrap().json();
    assert_eq!((&stands["status"], &stands["meta"]["versionId"]), (&json!("fulfilled"), &json!("3")));
    // Within one transaction the earlier entry counts; nothing is kept when a later one may not follow.
    let created = json!({ "resource": { "resourceType": "Appointment", "status": "cancelled", "participant": [{ "status": "accepted" }] },
                          "request": { "method": "POST", "url": "Appointment" } });
    let illegal = json!({ "resource": appointment("noshow"), "request": { "method": "PUT", "url": "Appointment/a1" } });
    let bundle = json!({ "resourceType": "Bundle", "type": "transaction", "entry": [created, illegal] });
    let reply = client.post_json("/fhir", &bundle).unwrap();
    assert_eq!(reply.status, 422, "{}", reply.text());
    let cancelled = client.get("/fhir/Appointment?status=cancelled&_total=accurate").unwrap().json();
    assert_eq!(cancelled["total"], 0);
    // A new start: after a deletion any status is legal.
    let gone = client.send(&crate::harness::Request {
        method: "DELETE",
        path: "/fhir/Appointment/a1",
        body: None,
        headers: Vec::new(),
    });
    assert!(matches!(gone.unwrap().status, 200 | 204));
    assert_eq!(put(client, &appointment("booked")).0, 201);
}

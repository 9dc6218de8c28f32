//! Conditions of a transaction that its own entries meet: what single requests in the order of the specification (deletions,
//! creates, updates) would leave, or a refusal.

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, on_both};

on_both!(
    what_entries_make_and_delete_counts_for_the_conditions_of_others,
    what_goes_is_not_found_and_what_is_made_is_referred_to,
    many_conditions_are_compared_by_their_codes,
    a_condition_is_about_its_own_address,
    what_was_found_is_given_back_where_it_is_asked_for,
);

fn numbered(number: &str) -> Value {
    json!({"resourceType": "Patient", "identifier": [{"system": "http://a", "value": number}], "gender": "other"})
}

fn create(number: &str, condition: Option<&str>) -> Value {
    let mut entry = json!({"request": {"method": "POST", "url": "Patient"}, "resource": numbered(number)});
    if let Some(condition) = condition {
        entry["request"]["ifNoneExist"] = json!(condition);
    }
    entry
}

fn update(number: &str, condition: &str) -> Value {
    json!({"request": {"method": "PUT", "url": format!("Patient?{condition}")}, "resource": numbered(number)})
}

fn delete(url: &str) -> Value {
    json!({"request": {"method": "DELETE", "url": url}})
}

async fn transaction(backend: &Persona<'_>, entries: &[Value]) -> Reply {
    backend.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).await
}

fn statuses(reply: &Reply) -> String {
    let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
    let status = |entry: &Value| entry["response"]["status"].as_str().unwrap_or_default()[..3].to_owned();
    entries.iter().map(status).collect::<Vec<_>>().join(" ")
}

async fn what_entries_make_and_delete_counts_for_the_conditions_of_others() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let (one, by_code) = ("identifier=http://a|1", "gender=other&birthdate:missing=true");
    let created = "identifier=http://a|1&birthdate:missing=true";
    // Before, the entries, what is answered (statuses, or the places of the refusal), and how many there are then.
    let cases: Vec<(usize, Vec<Value>, &str, usize)> = vec![
        (0, vec![update("1", one), update("1", one)], "Bundle.entry[0].request.url Bundle.entry[1].request.url", 0),
        (0, vec![update("1", one), create("1", None)], "Bundle.entry[0].request.url", 0),
        (0, vec![update("1", one), create("1", Some(one))], "Bundle.entry[0].request.url", 0),
        (1, vec![update("1", one), create("1", None)], "Bundle.entry[0].request.url", 1),
        (0, vec![update("1", one), update("2", "identifier=http://a|2")], "201 201", 1),
        (0, vec![create("1", Some(one)), create("1", None)], "200 201", 1),
        (0, vec![create("1", None), create("1", Some(one))], "201 200", 1),
        (0, vec![create("1", Some(one)), create("1", Some(created)), create("1", Some(one))], "201 200 200", 1),
        (0, vec![create("1", Some(one)), create("1", Some(one)), create("1", None)], "200 200 201", 1),
        (
            0,
            vec![create("1", None), create("1", None), create("1", Some(one))],
            "Bundle.entry[2].request.ifNoneExist",
            0,
        ),
        // By no code alone: everything of the type is compared.
        (0, vec![create("1", None), create("1", Some("birthdate:missing=true"))], "201 200", 1),
        (0, vec![create("1", None), create("1", Some(by_code))], "201 200", 1),
        (1, vec![delete("Patient/p0"), create("1", Some(one))], "204 201", 1),
        (1, vec![create("1", Some(one)), delete(&format!("Patient?{one}"))], "201 204", 1),
        (2, vec![create("1", Some(one)), delete("Patient/p0")], "200 204", 1),
        (2, vec![create("1", Some(one))], "Bundle.entry[0].request.ifNoneExist", 2),
        (3, vec![create("1", Some(one)), delete("Patient/p0")], "Bundle.entry[0].request.ifNoneExist", 3),
        (1, vec![delete("Patient/p0"), update("1", one)], "Bundle.entry[1].request.url", 1),
    ];
    for (n, (before, entries, answer, after)) in cases.iter().enumerate() {
        for n in 0..*before {
            let mut patient = numbered("1");
            patient["id"] = json!(format!("p{n}"));
            assert!(backend.put(&format!("Patient/p{n}"), &patient).await.status < 300);
        }
        let reply = transaction(&backend, entries).await;
        let found = if reply.status == 200 { statuses(&reply) } else { reply.places().join(" ") };
        assert_eq!(&found, answer, "case {n}: {}", reply.text());
        let all = backend.get("Patient?identifier=http://a%7C1").await.ids();
        assert_eq!(all.len(), *after, "case {n}");
        for id in backend.get("Patient").await.ids() {
            assert_eq!(backend.delete(&format!("Patient/{id}")).await.status, 204);
        }
    }
}

async fn what_goes_is_not_found_and_what_is_made_is_referred_to() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let old = backend.post("Patient", &numbered("1")).await.json()["id"].as_str().expect("an id").to_owned();
    let about = |full_url: &str| {
        json!({"request": {"method": "POST", "url": "Condition"},
        "resource": {"resourceType": "Condition", "subject": {"reference": full_url}}})
    };
    let named = |full_url: &str, mut entry: Value| {
        entry["fullUrl"] = json!(full_url);
        entry
    };
    let entries = [
        delete(&format!("Patient/{old}")),
        named("urn:uuid:a", create("1", Some("identifier=http://a|1"))),
        named("urn:uuid:b", create("1", Some("identifier=http://a|1&gender=other"))),
        about("urn:uuid:a"),
        about("urn:uuid:b"),
    ];
    let reply = transaction(&backend, &entries).await;
    assert_eq!(statuses(&reply), "204 201 200 201 201", "{}", reply.text());
    let new = backend.get("Patient").await.ids();
    assert!(new.len() == 1 && new[0] != old, "{new:?}");
    assert_eq!(backend.get(&format!("Condition?subject=Patient/{}", new[0])).await.ids().len(), 2);
}

async fn many_conditions_are_compared_by_their_codes() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let number = |n: usize| n.to_string();
    let condition = |n: usize| format!("identifier=http://a|{n}");
    let entries: Vec<Value> = (0..150).map(|n| create(&number(n), Some(&condition(n)))).collect();
    assert_eq!(statuses(&transaction(&backend, &entries).await), vec!["201"; 150].join(" "));
    assert_eq!(statuses(&transaction(&backend, &entries).await), vec!["200"; 150].join(" "));
    let vague: Vec<Value> =
        (0..150).map(|n| create(&number(n), Some(&format!("family=Nobody,{n}&birthdate:missing=false")))).collect();
    let reply = transaction(&backend, &vague).await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert_eq!(reply.json()["issue"][0]["code"], "too-costly");
    assert_eq!(backend.get("Patient?_summary=count").await.json()["total"], 150);
}

/// `If-None-Exist: Observation?...` of a Patient would silently be about Patients.
async fn a_condition_is_about_its_own_address() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for (condition, status) in [
        ("Observation?identifier=1", 400),
        ("http://elsewhere/fhir/Patient?identifier=1", 400),
        ("Patient?identifier=1", 201),
        ("http://phial.test/fhir/Patient?identifier=http://a|2", 201),
        ("?identifier=http://a|3", 201),
        ("identifier=http://a?b|4", 201),
    ] {
        let headers = [("content-type", "application/fhir+json"), ("if-none-exist", condition)];
        let reply = backend.call("POST", "Patient", &headers, numbered("x").to_string()).await;
        assert_eq!(reply.status, status, "{condition}: {}", reply.text());
        assert_eq!(transaction(&backend, &[create("x", Some(condition))]).await.status == 400, status == 400);
    }
    // With If-Match something must be there to be deleted.
    let patient = backend.post("Patient", &numbered("9")).await;
    for (tag, url, status) in [
        ("W/\"1\"", "Patient?identifier=http://a%7C8", 412),
        ("*", "Patient?identifier=http://a%7C8", 412),
        ("W/\"2\"", "Patient?identifier=http://a%7C9", 412),
        (patient.header("etag"), "Patient?identifier=http://a%7C9", 204),
    ] {
        assert_eq!(backend.call("DELETE", url, &[("if-match", tag)], "").await.status, status, "{tag} {url}");
    }
    let entry = json!({"request": {"method": "DELETE", "url": "Patient?identifier=http://a|8", "ifMatch": "W/\"1\""}});
    assert_eq!(transaction(&backend, &[entry]).await.status, 412);
}

/// As a single request does.
async fn what_was_found_is_given_back_where_it_is_asked_for() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.post("Patient", &numbered("1")).await;
    let entries = [
        create("1", Some("identifier=http://a|1")),
        create("2", Some("identifier=http://a|2")),
        create("2", Some("identifier=http://a|2")),
    ];
    let writer = app.persona("system/Patient.cs").await;
    for (who, prefer, kinds) in [
        (&backend, "return=representation", ["Patient", "Patient", "Patient"]),
        (&backend, "return=OperationOutcome", ["OperationOutcome"; 3]),
        (&backend, "return=minimal", [""; 3]),
        (&writer, "return=representation", [""; 3]),
    ] {
        let sent = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
        let headers = [("content-type", "application/fhir+json"), ("prefer", prefer)];
        let reply = who.call("POST", "", &headers, sent.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let reply = reply.json();
        let of = |n: usize| reply["entry"][n]["resource"]["resourceType"].as_str().unwrap_or_default().to_owned();
        assert_eq!([of(0), of(1), of(2)], kinds, "{prefer}: {reply}");
    }
}

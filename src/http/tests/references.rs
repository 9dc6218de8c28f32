//! References under the setting `reject`: what may be written, what may be deleted, and what others learn of it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::people::put;
use super::{Persona, Reply, TestApp, observation, patient};
use crate::access::Role;

const ALL: &str = "system/*.cruds";

async fn on_both<F: Future<Output = ()>>(case: impl Fn(TestApp) -> F) {
    case(TestApp::with(&[("references", "reject"), ("conditional_delete_max", "10")]).await).await;
    let (data, keys) = (crate::store::postgres::database(), crate::store::postgres::database());
    let settings = [("database_url", data.as_str()), ("key_database_url", &keys), ("references", "reject")];
    case(TestApp::with(&[&settings[..], &[("conditional_delete_max", "10")]].concat()).await).await;
}

/// Status, and the code and place of each issue.
fn told(reply: &Reply) -> (u16, Vec<(String, String)>) {
    let issues = reply.json()["issue"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (reply.status, issues.iter().map(|issue| (text(&issue["code"]), text(&issue["expression"][0]))).collect())
}

fn missing(place: &str) -> (u16, Vec<(String, String)>) {
    (422, vec![("not-found".to_owned(), place.to_owned())])
}

fn of_subject(reference: &str) -> Value {
    let mut observation = observation("o", "x", "1");
    observation.as_object_mut().unwrap().shift_remove("id");
    observation["subject"]["reference"] = json!(reference);
    observation
}

fn entry(method: &str, url: &str, resource: Value) -> Value {
    let mut entry = json!({"request": {"method": method, "url": url}});
    if !resource.is_null() {
        entry["resource"] = resource;
    }
    entry
}

async fn bundle(who: &Persona<'_>, kind: &str, entries: &[Value]) -> Reply {
    who.post("", &json!({"resourceType": "Bundle", "type": kind, "entry": entries})).await
}

#[tokio::test]
async fn what_is_referred_to_must_be_there() {
    on_both(must_be_there).await;
}

async fn must_be_there(app: TestApp) {
    let backend = app.persona(ALL).await;
    put(&backend, &patient("here", "Here")).await;
    put(&backend, &patient("gone", "Gone")).await;
    assert_eq!(backend.delete("Patient/gone").await.status, 204);
    for (reference, found) in [
        ("Patient/here", true),
        ("http://phial.test/fhir/Patient/here", true),
        ("Patient/here/_history/1", true),
        ("https://other.test/fhir/Patient/nowhere", true),
        ("urn:uuid:0d5b8f2a-9a2b-4c57-8a35-6a1f6e1f1a11", true),
        ("Patient/nowhere", false),
        ("http://phial.test/fhir/Patient/nowhere", false),
        ("Patient/nowhere/_history/1", false),
        ("Patient/here/_history/2", false),
        ("Patient/here/_history/x", false),
        ("Patient/gone", false),
        ("Patient/gone/_history/1", false),
        ("Patient?family=here", false),
    ] {
        let reply = backend.post("Observation", &of_subject(reference)).await;
        match found {
            true => assert_eq!(reply.status, 201, "{reference}: {}", reply.text()),
            false => assert_eq!(told(&reply), missing("Observation.subject"), "{reference}: {}", reply.text()),
        }
    }
    // Wherever the reference is, and by whatever road.
    let nested = json!({"resourceType": "Observation", "id": "n", "status": "final", "code": {"text": "x"},
        "contained": [{"resourceType": "Provenance", "id": "p", "recorded": "2020-01-01T00:00:00Z",
            "target": [{"reference": "Patient/nowhere"}], "agent": [{"who": {"display": "x"}}]}],
        "note": [{"text": "x", "authorReference": {"reference": "Practitioner/nobody"}}],
        "extension": [{"url": "http://x", "valueReference": {"reference": "Group/none"}}]});
    let reply = backend.put("Observation/n", &nested).await;
    let mut places = reply.places();
    places.sort();
    assert_eq!(reply.status, 422);
    assert_eq!(
        places,
        ["Observation.contained[0].target[0]", "Observation.extension[0].value", "Observation.note[0].author"]
    );
    let lost = |id: &str| observation(id, "nowhere", "1");
    assert_eq!(told(&backend.put("Observation/new", &lost("new")).await), missing("Observation.subject"));
    put(&backend, &observation("o", "here", "1")).await;
    assert_eq!(told(&backend.put("Observation/o", &lost("o")).await), missing("Observation.subject"));
    let patch = json!([{"op": "replace", "path": "/subject/reference", "value": "Patient/nowhere"}]).to_string();
    let reply = backend.call("PATCH", "Observation/o", &[("content-type", "application/json-patch+json")], patch).await;
    assert_eq!(told(&reply), missing("Observation.subject"), "{}", reply.text());
    let headers = [("content-type", "application/fhir+json"), ("if-none-exist", "code=none")];
    let reply = backend.call("POST", "Observation", &headers, of_subject("Patient/nowhere").to_string()).await;
    assert_eq!(told(&reply), missing("Observation.subject"));
    let reply = backend.put("Observation?code=none", &of_subject("Patient/nowhere")).await;
    assert_eq!(told(&reply), missing("Observation.subject"));
    let current = backend.get("Observation/o").await;
    assert_eq!((current.header("etag"), &current.json()["subject"]["reference"]), ("W/\"1\"", &json!("Patient/here")));
    // One that stood when it was last referred to, and does no more.
    put(&backend, &patient("soon", "Soon")).await;
    let reply = backend.post("Observation", &of_subject("Patient/soon")).await;
    let made = reply.json()["id"].as_str().unwrap().to_owned();
    for address in [format!("Observation/{made}"), "Patient/soon".to_owned()] {
        assert_eq!(backend.delete(&address).await.status, 204, "{address}");
    }
    let reply = backend.post("Observation/$validate?mode=create", &of_subject("Patient/soon")).await;
    assert_eq!(reply.places(), ["Observation.subject"]);
    let reply = backend.post("Observation", &of_subject("Patient/soon")).await;
    assert_eq!(told(&reply), missing("Observation.subject"));
    // To itself, from the first version on.
    let own =
        json!({"resourceType": "Organization", "id": "own", "name": "x", "partOf": {"reference": "Organization/own"}});
    put(&backend, &own).await;
}

#[tokio::test]
async fn bundles_are_judged_as_they_are_in_the_end() {
    on_both(judged_in_the_end).await;
}

async fn judged_in_the_end(app: TestApp) {
    let backend = app.persona(ALL).await;
    let encounter = |id: &str, patient: &str| {
        json!({"resourceType": "Encounter", "id": id, "status": "finished",
        "class": {"code": "AMB"}, "subject": {"reference": format!("Patient/{patient}")}})
    };
    let mut first = observation("first", "p", "1");
    first["encounter"] = json!({"reference": "Encounter/e"});
    // The referrer comes first, and two refer to each other.
    let organization = |id: &str, of: &str| {
        json!({"resourceType": "Organization", "id": id, "name": id,
        "partOf": {"reference": format!("Organization/{of}")}})
    };
    let good = [
        entry("PUT", "Observation/first", first),
        entry("PUT", "Encounter/e", encounter("e", "p")),
        entry("PUT", "Patient/p", patient("p", "P")),
        entry("PUT", "Organization/a", organization("a", "b")),
        entry("PUT", "Organization/b", organization("b", "a")),
    ];
    let reply = bundle(&backend, "transaction", &good).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    // Nothing is kept, and each fault has its place.
    let bad = [
        entry("PUT", "Patient/q", patient("q", "Q")),
        entry("POST", "Observation", of_subject("Patient/q")),
        entry("POST", "Observation", of_subject("Patient/nowhere")),
        entry("PUT", "Encounter/f", encounter("f", "nobody")),
    ];
    let reply = bundle(&backend, "transaction", &bad).await;
    let place = |n: usize| ("not-found".to_owned(), format!("Bundle.entry[{n}].resource.subject"));
    assert_eq!(told(&reply), (422, vec![place(2), place(3)]), "{}", reply.text());
    assert_eq!(backend.get("Patient/q").await.status, 404);
    // In a batch each entry stands for itself.
    let reply = bundle(&backend, "batch", &bad[2..]).await.json();
    let statuses: Vec<&Value> =
        reply["entry"].as_array().unwrap().iter().map(|entry| &entry["response"]["status"]).collect();
    assert!(statuses.iter().all(|status| status.as_str().unwrap().starts_with("422")), "{reply}");
    // What the same transaction deletes is not there.
    let deletes =
        [entry("DELETE", "Organization/a", Value::Null), entry("PUT", "Organization/b", organization("b", "a"))];
    let reply = bundle(&backend, "transaction", &deletes).await;
    assert_eq!(told(&reply).1, [("not-found".to_owned(), "Bundle.entry[1].resource.partOf".to_owned())]);
    // Referrer and target go together, in any order; two that refer to each other too.
    let all = ["Organization/a", "Patient/p", "Encounter/e", "Organization/b", "Observation/first"];
    let reply = bundle(&backend, "transaction", &all.map(|url| entry("DELETE", url, Value::Null))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(backend.get("Patient/p").await.status, 410);
}

#[tokio::test]
async fn what_is_referred_to_stays() {
    on_both(stays).await;
}

async fn stays(app: TestApp) {
    let backend = app.persona(ALL).await;
    for id in ["ann", "bob"] {
        put(&backend, &patient(id, id)).await;
    }
    for id in ["doc", "free"] {
        put(&backend, &json!({"resourceType": "Practitioner", "id": id})).await;
    }
    let group = json!({"resourceType": "Group", "id": "g", "type": "person", "actual": true,
        "member": [{"entity": {"reference": "Patient/ann"}}, {"entity": {"reference": "Patient/bob"}}]});
    let noted = |author: &str| {
        json!({"resourceType": "Observation", "id": "noted", "status": "final", "code": {"text": "x"},
        "note": [{"text": "x", "authorReference": {"reference": author}}]})
    };
    put(&backend, &group).await;
    put(&backend, &noted("Practitioner/doc")).await;
    put(&backend, &observation("o1", "ann", "1")).await;
    put(&backend, &observation("o2", "ann", "1")).await;
    let refused = |reply: Reply, who: &str| {
        assert_eq!((reply.status, told(&reply).1[0].0.as_str()), (409, "business-rule"), "{}", reply.text());
        let text = reply.json()["issue"][0]["diagnostics"].as_str().unwrap().to_owned();
        assert!(text.contains(who), "{text}");
    };
    refused(backend.delete("Patient/ann").await, "3 other resources refer to it (1 Group, 2 Observation)");
    // Of several patients, and by an element that no search parameter knows.
    refused(backend.delete("Patient/bob").await, "1 other resources refer to it (1 Group)");
    refused(backend.delete("Practitioner/doc").await, "(1 Observation)");
    let reply = bundle(&backend, "transaction", &[entry("DELETE", "Practitioner/doc", Value::Null)]).await;
    assert_eq!(
        told(&reply),
        (409, vec![("business-rule".to_owned(), "Bundle.entry[0]".to_owned())]),
        "{}",
        reply.text()
    );
    refused(backend.delete("Practitioner?_id=doc,free").await, "(1 Observation)");
    assert_eq!(backend.get("Practitioner/free").await.status, 200, "all of a conditional delete or nothing");
    assert_eq!(backend.get("Patient/ann").await.header("etag"), "W/\"1\"");
    // Who may not see the referrers learns that there are some.
    let narrow = app.persona("system/Practitioner.cruds system/Patient.cruds").await;
    let reply = narrow.delete("Practitioner/doc").await;
    assert!(reply.status == 409 && !reply.text().contains("Observation"), "{}", reply.text());
    // A reference that moves away frees its target.
    put(&backend, &noted("Practitioner/free")).await;
    assert_eq!(backend.delete("Practitioner/doc").await.status, 204);
    refused(backend.delete("Practitioner/free").await, "(1 Observation)");
    for address in
        ["Observation/noted", "Practitioner/free", "Group/g", "Patient/bob", "Observation/o1", "Observation/o2"]
    {
        assert_eq!(backend.delete(address).await.status, 204, "{address}");
    }
    // What tells of the past holds nothing back.
    let event = json!({"resourceType": "AuditEvent", "type": {"code": "rest"}, "recorded": "2026-01-01T00:00:00Z",
        "agent": [{"requestor": true}], "source": {"observer": {"display": "x"}},
        "entity": [{"what": {"reference": "Patient/ann"}}, {"what": {"reference": "Patient/never"}}]});
    let reply = backend.post("AuditEvent", &event).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(backend.delete("Patient/ann").await.status, 204);
}

#[tokio::test]
async fn deletions_and_references_that_meet_leave_no_orphan() {
    on_both(no_orphan).await;
}

async fn no_orphan(app: TestApp) {
    let backend = app.persona(ALL).await;
    for round in 0..12u64 {
        let id = format!("p{round}");
        put(&backend, &patient(&id, "P")).await;
        let writes = (0..3)
            .map(|_| async { backend.post("Observation", &of_subject(&format!("Patient/p{round}"))).await.status });
        let address = format!("Patient/{id}");
        let delete = async {
            tokio::time::sleep(Duration::from_millis(2 * (round % 6))).await;
            backend.delete(&address).await.status
        };
        let (written, deleted) = tokio::join!(join_all(writes), delete);
        let made = written.iter().filter(|status| **status == 201).count();
        assert!(written.iter().all(|status| [201, 422].contains(status)), "{written:?}");
        match deleted {
            204 => assert_eq!(made, 0, "round {round}: an orphan"),
            409 => assert!(made > 0, "round {round}: nothing refers to it"),
            other => panic!("round {round}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_reference_tells_nobody_of_what_is_not_theirs_to_see() {
    let app = TestApp::with(&[("references", "reject")]).await;
    let backend = app.persona(ALL).await;
    for id in ["ann", "bob"] {
        put(&backend, &patient(id, id)).await;
    }
    let ann = app.person(Role::Patient, "Patient/ann", Some("ann"), "patient/*.cruds");
    let write = |about: &'static str| {
        let ann = &ann;
        async move {
            let body = json!({"resourceType": "Communication", "status": "completed",
                "subject": {"reference": "Patient/ann"}, "about": [{"reference": about}]});
            ann.post("Communication", &body).await
        }
    };
    let own = write("Patient/ann").await;
    assert_eq!(own.status, 201, "{}", own.text());
    let (there, absent) = (write("Patient/bob").await, write("Patient/eve").await);
    assert_eq!(told(&there), told(&absent));
    assert_eq!(told(&there).0, 422);
    assert_eq!(there.text().replace("bob", "eve"), absent.text());
    // An app that may write and not read can refer to the record it writes to.
    let writer = app.person(Role::Patient, "Patient/ann", Some("ann"), "patient/Communication.c");
    let body = json!({"resourceType": "Communication", "status": "completed", "subject": {"reference": "Patient/ann"}});
    assert_eq!(writer.post("Communication", &body).await.status, 201);
}

#[tokio::test]
async fn definitions_hold_whatever_the_setting_and_allow_takes_the_rest() {
    let app = TestApp::new().await;
    let backend = app.persona(ALL).await;
    for (reference, place) in [("Practitioner/x", "Observation.subject"), ("#none", "Observation.subject")] {
        let reply = backend.post("Observation", &of_subject(reference)).await;
        assert_eq!((reply.status, reply.places()), (400, vec![place.to_owned()]), "{reference}: {}", reply.text());
    }
    let reply = bundle(&backend, "transaction", &[entry("POST", "Observation", of_subject("#none"))]).await;
    assert_eq!((reply.status, reply.places()), (400, vec!["Bundle.entry[0].resource.subject".to_owned()]));
    assert_eq!(backend.post("Observation", &of_subject("Patient/nowhere")).await.status, 201);
    put(&backend, &patient("p", "P")).await;
    put(&backend, &observation("o", "p", "1")).await;
    assert_eq!(backend.delete("Patient/p").await.status, 204);

    let policy = |statement: &Value, name: &str| {
        let all = statement["rest"][0]["resource"].as_array().unwrap();
        let one = all.iter().find(|resource| resource["type"] == name).expect("it is there");
        one["referencePolicy"].as_array().unwrap().contains(&json!("enforced"))
    };
    let strict = TestApp::with(&[("references", "reject")]).await;
    let statements = [backend.get("metadata").await.json(), strict.persona(ALL).await.get("metadata").await.json()];
    assert_eq!(statements.each_ref().map(|statement| policy(statement, "Observation")), [false, true]);
    assert!(!policy(&statements[1], "AuditEvent"));
}

/// Code, text and place of each issue that refuses.
fn issues(reply: &Reply) -> Vec<[String; 3]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = reply.json()["issue"].as_array().cloned().unwrap_or_default();
    let refuse = all.iter().filter(|issue| issue["severity"] == "error");
    refuse.map(|issue| [text(&issue["code"]), text(&issue["diagnostics"]), text(&issue["expression"][0])]).collect()
}

#[tokio::test]
async fn validation_tells_what_the_write_would() {
    on_both(validation_tells).await;
}

async fn validation_tells(app: TestApp) {
    let backend = app.persona(ALL).await;
    put(&backend, &patient("here", "Here")).await;
    put(&backend, &observation("o", "here", "1")).await;
    let number = backend.get("Patient/here").await.json()["identifier"][0].clone();
    let numbered = |id: &str| {
        let mut one = patient(id, "Numbered");
        one["identifier"] = json!([number]);
        one
    };
    let several = json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"},
        "subject": {"reference": "Patient/nowhere"}, "performer": [{"reference": "Practitioner/nobody"}],
        "hasMember": [{"reference": "Observation/o/_history/7"}]});
    let with_id = |mut of: Value, id: &str| {
        of["id"] = json!(id);
        of
    };
    let appointment = |status: &str| {
        json!({"resourceType": "Appointment", "id": "a", "status": status,
            "start": "2026-02-01T10:00:00Z", "end": "2026-02-01T10:30:00Z",
            "participant": [{"status": "accepted", "actor": {"reference": "Patient/here"}}]})
    };
    put(&backend, &appointment("fulfilled")).await;
    for (faulty, mode, body) in [
        (1, "create", of_subject("Practitioner/x")),
        (1, "create", of_subject("#none")),
        (1, "create", of_subject("Patient/nowhere")),
        (3, "create", several.clone()),
        (0, "create", of_subject("Patient/here")),
        (1, "create", numbered("x")),
        (1, "update", with_id(of_subject("Group/none"), "o")),
        (1, "update", with_id(of_subject("#none"), "o")),
        (0, "update", with_id(of_subject("Patient/here"), "o")),
        (3, "update", with_id(several, "o")),
        (1, "update", numbered("x")),
        (0, "update", numbered("here")),
        (1, "update", appointment("booked")),
        (1, "delete", patient("here", "Here")),
        (0, "delete", appointment("fulfilled")),
    ] {
        compared(&backend, faulty, mode, body).await;
    }
}

/// What validation says, in JSON and in XML, is what the write then says.
async fn compared(backend: &Persona<'_>, faulty: usize, mode: &str, body: Value) {
    let kind = body["resourceType"].as_str().unwrap();
    let told = backend.post(&format!("{kind}/$validate?mode={mode}"), &body).await;
    assert_eq!((told.status, issues(&told).len()), (200, faulty), "{mode} {body}: {}", told.text());
    // In Parameters, at their place, and in XML as in JSON.
    let wrapped = json!({"resourceType": "Parameters", "parameter": [
        {"name": "mode", "valueCode": mode}, {"name": "resource", "resource": body}]});
    let json_type = [("content-type", "application/fhir+json"), ("accept", "application/fhir+xml")];
    let input = json!({"resourceType": "Parameters", "parameter": [{"name": "input", "resource": wrapped}]});
    let xml = backend.call("POST", "$convert", &json_type, input.to_string()).await.body;
    let xml_type = [("content-type", "application/fhir+xml"), ("accept", "application/fhir+json")];
    let of_xml = backend.call("POST", &format!("{kind}/$validate"), &xml_type, xml).await;
    assert_eq!(of_xml.status, 200, "{}", of_xml.text());
    let within = issues(&told).into_iter().map(|[code, text, place]| {
        let place = match place.split_once('.') {
            Some((_, rest)) => format!("Parameters.parameter[1].resource.{rest}"),
            None => place,
        };
        [code, text, place]
    });
    assert_eq!(issues(&of_xml), within.collect::<Vec<_>>(), "{mode} {body}");
    // Nothing was done: now it is.
    let id = body["id"].as_str().unwrap_or_default();
    let done = match mode {
        "create" => backend.post(kind, &body).await,
        "update" => backend.put(&format!("{kind}/{id}"), &body).await,
        _ => backend.delete(&format!("{kind}/{id}")).await,
    };
    assert_eq!(done.status >= 400, faulty > 0, "{mode} {body}: {}", done.text());
    if faulty > 0 {
        assert_eq!(issues(&told), issues(&done), "{mode} {body}");
    }
}

#[tokio::test]
async fn validation_without_a_mode_and_by_those_who_may_not_write() {
    on_both(validation_besides).await;
}

async fn validation_besides(app: TestApp) {
    let backend = app.persona(ALL).await;
    // Without a mode as well; to itself a resource may refer before it is there.
    let reply = backend.post("Observation/$validate", &of_subject("Patient/nowhere")).await;
    assert_eq!(reply.places(), ["Observation.subject"]);
    let own =
        json!({"resourceType": "Organization", "id": "own", "name": "x", "partOf": {"reference": "Organization/own"}});
    for mode in ["", "?mode=update"] {
        let reply = backend.post(&format!("Organization/$validate{mode}"), &own).await;
        assert!(issues(&reply).is_empty(), "{}", reply.text());
    }
    // Who could not write does not find out by asking.
    let reader = app.persona("system/Observation.rs system/Patient.rs").await;
    let reply = reader.post("Observation/$validate", &of_subject("Patient/nowhere")).await;
    assert!(issues(&reply).is_empty(), "{}", reply.text());
    // What the definitions alone refuse is told to everybody, beside the missing permission.
    for mode in ["create", "update"] {
        let mut body = of_subject("#none");
        body["id"] = json!("o");
        let reply = reader.post(&format!("Observation/$validate?mode={mode}"), &body).await;
        let codes: Vec<String> = issues(&reply).into_iter().map(|[code, ..]| code).collect();
        assert_eq!(codes.len(), 2, "{mode}: {}", reply.text());
        assert!(codes.contains(&"forbidden".to_owned()) && reply.text().contains("Observation.subject"), "{codes:?}");
    }
    // No number was drawn for those that were only looked at.
    let fresh = |id: &str| json!({"resourceType": "Patient", "id": id, "name": [{"family": "Fresh"}]});
    let drawn = |reply: Reply| {
        let value = reply.json()["identifier"][0]["value"].as_str().unwrap().to_owned();
        value.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse::<u32>().unwrap()
    };
    let before = drawn(backend.put("Patient/f1", &fresh("f1")).await);
    for mode in ["create", "update"] {
        let reply = backend.post(&format!("Patient/$validate?mode={mode}"), &fresh("f2")).await;
        assert!(issues(&reply).is_empty(), "{}", reply.text());
    }
    assert_eq!(drawn(backend.put("Patient/f2", &fresh("f2")).await), before + 1);
}

//! Searches of the whole server and of compartments through the real router.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, on_both, patient};

on_both![
    the_server_and_compartments_are_searched_page_by_page,
    searches_across_types_hold_the_scopes_and_are_on_record,
];

/// `Type/id` of every match.
fn found(reply: &Reply, mode: &str) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
    let address = |entry: &Value| {
        let text = |name: &str| entry["resource"][name].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text("resourceType"), text("id"))
    };
    entries.iter().filter(|entry| entry["search"]["mode"] == mode).map(address).collect()
}

async fn all_pages(persona: &Persona<'_>, path: &str) -> Vec<String> {
    let (mut all, mut page) = (Vec::new(), persona.get(path).await);
    loop {
        all.extend(found(&page, "match"));
        let Some(next) = page.link("next") else { return all };
        page = persona.get(&next).await;
    }
}

fn of(kind: &str, id: &str, patient: &str) -> Value {
    let mut resource = json!({"resourceType": kind, "id": id, "subject": {"reference": format!("Patient/{patient}")}});
    match kind {
        "Observation" => {
            resource["status"] = json!("final");
            resource["code"] = json!({"text": "pulse"});
        }
        "Encounter" => {
            resource["status"] = json!("finished");
            resource["class"] = json!({"code": "AMB"});
        }
        _ => {}
    }
    resource
}

async fn filled(app: &TestApp) -> Persona<'_> {
    let backend = app.persona("system/*.cruds").await;
    for name in ["a", "b"] {
        backend.put(&format!("Patient/{name}"), &patient(name, "Across")).await;
        for n in 0..3 {
            app.pass(1);
            for kind in ["Condition", "Observation", "Encounter"] {
                let id = format!("{name}{n}");
                let reply = backend.put(&format!("{kind}/{id}"), &of(kind, &id, name)).await;
                assert_eq!(reply.status, 201, "{}", reply.text());
            }
        }
    }
    backend.put("Organization/o", &json!({"resourceType": "Organization", "id": "o", "name": "North"})).await;
    backend
}

async fn the_server_and_compartments_are_searched_page_by_page() {
    let app = TestApp::new().await;
    let backend = filled(&app).await;
    for (path, count) in [
        ("?_type=Patient,Observation", 8),
        ("?_lastUpdated=gt2020", 21),
        ("_search?_type=Organization", 1),
        ("?_id=a,a0&_type=Patient,Encounter", 2),
        ("?_lastUpdated=gt2030", 0),
        ("Patient/a/Observation", 3),
        ("Patient/a/Observation?_id=a1,b1", 1),
        ("Patient/a/*", 10),
        ("Patient/a/*?_type=Condition,Encounter", 6),
        ("Patient/none/*", 0),
    ] {
        let whole = backend.get(path).await;
        let all: BTreeSet<String> = found(&whole, "match").into_iter().collect();
        assert_eq!((all.len(), &whole.json()["total"]), (count, &json!(count)), "{path}");
        let joined = if path.contains('?') { "&" } else { "?" };
        for extra in ["_count=2", "_count=4&_total=accurate", "_count=3&_sort=-_lastUpdated", "_count=3&_sort=_id"] {
            let paged = all_pages(&backend, &format!("{path}{joined}{extra}")).await;
            assert_eq!(paged.len(), count, "{path} {extra}: nothing twice");
            assert_eq!(paged.into_iter().collect::<BTreeSet<_>>(), all, "{path} {extra}");
        }
        for extra in ["_summary=count", "_count=0", "_count=1&_total=accurate"] {
            let reply = backend.get(&format!("{path}{joined}{extra}")).await.json();
            assert_eq!(reply["total"], json!(count), "{path} {extra}");
        }
    }
    let sorted = all_pages(&backend, "?_type=Observation,Encounter&_sort=_id&_count=5").await;
    let ids: Vec<&str> = sorted.iter().filter_map(|address| address.split('/').nth(1)).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    // With what each page leads to, and nothing of what follows.
    let mut page = backend.get("?_type=Observation,Encounter&_sort=-_id&_count=4&_include=*").await;
    for expected in [&["Patient/b"][..], &["Patient/a", "Patient/b"], &["Patient/a"]] {
        assert_eq!(found(&page, "match").len(), 4);
        let included: BTreeSet<String> = found(&page, "include").into_iter().collect();
        assert_eq!(included, expected.iter().map(|name| (*name).to_owned()).collect(), "{}", page.text());
        if let Some(next) = page.link("next") {
            page = backend.get(&next).await;
        }
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (path, body, count) in [
        ("_search?_type=Patient", "_id=a", 1),
        ("Patient/a/_search", "_type=Observation", 3),
        ("Patient/a/Observation/_search?_id=a0", "_total=accurate", 1),
    ] {
        assert_eq!(found(&backend.call("POST", path, &form, body).await, "match").len(), count, "{path}");
    }
    let included =
        backend.get("?_type=Condition,Encounter&_include=Condition:subject&_include=Encounter:subject").await;
    assert_eq!(included.status, 400, "an include of another type is refused: {}", included.text());
    let included = backend.get("?_type=Observation,Patient&_include=*").await;
    assert_eq!((found(&included, "match").len(), found(&included, "include").len()), (8, 0), "each once");
    let included = backend.get("Patient/a/Observation?_include=*").await;
    assert_eq!(found(&included, "include"), ["Patient/a"]);
}

async fn searches_across_types_hold_the_scopes_and_are_on_record() {
    let app = TestApp::new().await;
    let backend = filled(&app).await;
    let narrow = app.persona("system/Observation.rs?patient=a system/Organization.s").await;
    assert_eq!(all_pages(&narrow, "?_lastUpdated=gt2020&_count=1").await.len(), 4);
    assert_eq!(narrow.get("?_lastUpdated=gt2020&_total=accurate").await.json()["total"], 4);
    assert_eq!(found(&narrow.get("Patient/b/*").await, "match").len(), 0);
    assert_eq!(found(&narrow.get("Patient/a/*").await, "match").len(), 3);
    for path in ["?_type=Patient", "?_type=Observation,Patient", "Patient/a/Condition"] {
        assert_eq!(narrow.get(path).await.status, 403, "{path}");
    }
    assert_eq!(app.persona("system/Observation.cru").await.get("?_lastUpdated=gt2020").await.status, 403);
    let stranger = app.persona("system/*.cruds").await;
    let next = backend.get("Patient/a/*?_count=1").await.link("next").expect("more");
    assert_eq!(stranger.get(&next).await.status, 400, "another caller's");
    assert_eq!(backend.get(&next.replace("/a/", "/b/")).await.status, 400, "another compartment's");
    for (path, subtype) in [("Patient/a/*", "search-system"), ("Patient/a/Condition", "search-type")] {
        let reply = backend.get(path).await;
        let events = backend.audit_of(reply.header("x-request-id")).await;
        assert!(events.iter().all(|event| event["subtype"][0]["code"] == subtype), "{path}: {events:?}");
        assert!(events.iter().any(|event| event["entity"].to_string().contains("Patient/a")), "{path}");
    }
    let empty = backend.get("Patient/nobody/Condition").await;
    let events = backend.audit_of(empty.header("x-request-id")).await;
    assert!(events[0]["entity"].to_string().contains("Patient/nobody"), "asked for in vain, on record: {events:?}");
}

#[tokio::test]
async fn what_cannot_be_searched_across_types_is_said() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for (path, status) in [
        ("?family=x", 400),
        ("?_type=Patient&family=x", 200),
        ("?_type=Patient,Observation&family=x", 400),
        ("?_type=AuditEvent", 400),
        ("?_type=", 400),
        ("?_type=Patient&_type=Group", 400),
        ("Patient/a/AuditEvent", 400),
        ("Patient/a/Medication", 400),
        ("Patient/a/Observation?_type=Observation", 400),
        ("Group/g/Patient", 404),
        ("Patient/a,b/Observation", 404),
        ("Patient/a/Nonsense", 404),
    ] {
        let reply = backend.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": "Patient/a/Observation"}}, {"request": {"method": "GET", "url": "?_type=Patient"}},
        {"request": {"method": "GET", "url": "Patient/a/*"}}
    ]});
    let reply = backend.post("", &batch).await.json();
    for entry in reply["entry"].as_array().expect("entries") {
        assert_eq!((&entry["response"]["status"], &entry["resource"]["type"]), (&json!("200 OK"), &json!("searchset")));
    }
}

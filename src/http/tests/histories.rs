//! Histories of resources, types and the server through the real router.

use serde_json::{Value, json};

use super::{Reply, TestApp, on_both, patient};

on_both![
    a_type_and_the_server_tell_their_versions_newest_first,
    a_history_shows_what_the_scopes_cover_and_is_on_record,
    the_history_of_audit_events_is_their_list,
];

/// `Type/id vN METHOD` of every entry.
fn lines(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!((&json["resourceType"], &json["type"]), (&json!("Bundle"), &json!("history")));
    let entries = json["entry"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        let deleted = entry["request"]["method"] == "DELETE";
        assert_eq!(entry.get("resource").is_none(), deleted, "{entry}");
        assert!(text(&entry["fullUrl"]).ends_with(&text(&entry["request"]["url"])), "{entry}");
        let etag = text(&entry["response"]["etag"]);
        let version = etag.trim_start_matches("W/").trim_matches('"');
        format!("{} v{version} {}", text(&entry["request"]["url"]), text(&entry["request"]["method"]))
    };
    entries.iter().map(line).collect()
}

fn group(id: &str) -> Value {
    json!({"resourceType": "Group", "id": id, "type": "person", "actual": true})
}

async fn a_type_and_the_server_tell_their_versions_newest_first() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for step in 1..=3 {
        app.pass(10);
        backend.put("Patient/p1", &patient("p1", &format!("Name{step}"))).await;
        app.pass(10);
        backend.put(&format!("Group/g{step}"), &group(&format!("g{step}"))).await;
    }
    app.pass(10);
    assert_eq!(backend.delete("Patient/p1").await.status, 204);
    let of_type = backend.get("Patient/_history").await;
    let wanted = ["Patient/p1 v4 DELETE", "Patient/p1 v3 PUT", "Patient/p1 v2 PUT", "Patient/p1 v1 PUT"];
    assert_eq!((lines(&of_type), &of_type.json()["total"]), (wanted.map(str::to_owned).to_vec(), &json!(4)));
    assert_eq!(lines(&backend.get("Patient/p1/_history").await), wanted);

    let whole = backend.get("_history").await;
    let all = lines(&whole);
    assert_eq!((all.len(), &whole.json()["total"]), (7, &json!(7)));
    assert_eq!(&all[..3], ["Patient/p1 v4 DELETE", "Group/g3 v1 PUT", "Patient/p1 v3 PUT"]);

    let mut paged = Vec::new();
    let mut page = backend.get("_history?_count=2&_type=Patient,Group&_sort=-_lastUpdated").await;
    loop {
        paged.extend(lines(&page));
        let Some(next) = page.link("next") else { break };
        assert!(!next.contains("Patient"), "a page link shows nothing of the query: {next}");
        backend.put("Group/late", &group("late")).await;
        assert_eq!(backend.get(&next.replace("/_history", "/Group/_history")).await.status, 400, "another address");
        page = backend.get(&next).await;
    }
    assert_eq!(paged, all, "whatever is written meanwhile");

    // Version 1 is of 08:15:40, version 2 of 08:16:00, version 3 of 08:16:20, the deletion of 08:16:40.
    for (query, wanted) in [
        ("_since=2026-01-31T08:16:20Z", 2),
        ("_since=2026-01-31T09:16:20%2B01:00", 2),
        ("_since=2026-01-31T09:16:20+01:00", 2),
        ("_since=2026-02-01", 0),
        ("_at=2026-01-31T08:15:45Z", 1),
        ("_at=2026-01-31T08:16", 3),
        ("_at=2026-01-31", 4),
        ("_at=2026-01-30", 0),
    ] {
        for path in ["Patient/_history", "Patient/p1/_history"] {
            let reply = backend.get(&format!("{path}?{query}")).await;
            assert_eq!((lines(&reply).len(), &reply.json()["total"]), (wanted, &json!(wanted)), "{path} {query}");
        }
    }
    for (query, total) in [("_summary=count", 10), ("_count=0", 10), ("_count=0&_type=Patient", 4)] {
        let reply = backend.get(&format!("_history?{query}")).await.json();
        assert_eq!((&reply["total"], reply.get("entry")), (&json!(total), None), "{query}");
    }
}

async fn a_history_shows_what_the_scopes_cover_and_is_on_record() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let observation = |subject: &str, status: &str| {
        json!({"resourceType": "Observation", "id": "o1", "status": status, "code": {"text": "pulse"},
               "subject": {"reference": format!("Patient/{subject}")}})
    };
    for (subject, status) in [("a", "preliminary"), ("a", "final"), ("b", "final")] {
        assert!(backend.put("Observation/o1", &observation(subject, status)).await.status < 300);
    }
    backend.put("Patient/a", &patient("a", "Ash")).await;
    let narrow = app.persona("system/Observation.rs?patient=a system/Group.rs").await;
    let wanted = ["Observation/o1 v2 PUT", "Observation/o1 v1 PUT"];
    for path in ["Observation/_history", "_history", "Observation/o1/_history", "_history?_type=Observation"] {
        let reply = narrow.get(path).await;
        assert_eq!((lines(&reply), &reply.json()["total"]), (wanted.map(str::to_owned).to_vec(), &json!(2)), "{path}");
    }
    assert_eq!(narrow.get("Patient/_history").await.status, 403);
    assert_eq!(narrow.get("_history?_type=Patient").await.status, 403);
    assert_eq!(app.persona("system/Observation.r").await.get("_history").await.status, 403, "history is search");

    for (path, subtype) in [("Observation/_history", "history-type"), ("_history", "history-system")] {
        let reply = narrow.get(path).await;
        let events = backend.audit_of(reply.header("x-request-id")).await;
        assert!(!events.is_empty(), "{path}");
        assert_eq!(events[0]["subtype"][0]["code"], subtype);
        assert!(events.iter().any(|event| event["entity"].to_string().contains("Patient/a")), "{path}: {events:?}");
    }
}

#[tokio::test]
async fn what_a_history_cannot_be_asked_is_said() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for (path, status) in [
        ("Patient/_history?_since=yesterday", 400),
        ("Patient/_history?_at=", 200),
        ("Patient/_history?_sort=_lastUpdated", 400),
        ("Patient/_history?_list=x", 400),
        ("Patient/_history?_type=Group", 400),
        ("Patient/_history?family=x", 400),
        ("Patient/_history?_count=2&_count=3", 400),
        ("Patient/_history?_cursor=x", 400),
        ("_history?_type=Nonsense", 400),
        ("_history?_type=AuditEvent", 400),
        ("Nonsense/_history", 404),
        ("Patient/none/_history", 404),
    ] {
        let reply = backend.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert_eq!(reply.json()["resourceType"], if status == 200 { "Bundle" } else { "OperationOutcome" }, "{path}");
    }
    let lenient = backend.call("GET", "Patient/_history?family=x", &[("prefer", "handling=lenient")], "").await;
    assert_eq!(lenient.status, 200, "{}", lenient.text());
    assert_eq!(backend.call("POST", "Patient/_history", &[], "").await.status, 405);
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": "Patient/_history?_count=1"}}, {"request": {"method": "GET", "url": "_history"}}
    ]});
    let reply = backend.post("", &batch).await.json();
    for entry in reply["entry"].as_array().expect("entries") {
        assert_eq!((&entry["response"]["status"], &entry["resource"]["type"]), (&json!("200 OK"), &json!("history")));
    }
}

async fn the_history_of_audit_events_is_their_list() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    for step in 1..=5 {
        app.pass(10);
        backend.put(&format!("Patient/p{step}"), &patient(&format!("p{step}"), "History")).await;
    }
    app.pass(10);
    let listed = backend.get("AuditEvent?_count=500").await.ids();
    let mut page = backend.get("AuditEvent/_history?_count=2").await;
    let mut shown = Vec::new();
    loop {
        assert_eq!(page.status, 200, "{}", page.text());
        for entry in page.json()["entry"].as_array().expect("entries") {
            assert_eq!((&entry["request"]["method"], &entry["response"]["etag"]), (&json!("PUT"), &json!("W/\"1\"")));
            shown.push(entry["resource"]["id"].as_str().expect("an id").to_owned());
        }
        let Some(next) = page.link("next") else { break };
        page = backend.get(&next).await;
    }
    // The reading of pages is on record too, and newer than the first page: no page shows it.
    assert_eq!(shown[shown.len() - listed.len()..], listed);
    let count = |query: &str| {
        let (backend, path) = (&backend, format!("AuditEvent/_history?_summary=count{query}"));
        async move { backend.get(&path).await.json()["total"].as_u64().expect("a total") }
    };
    let before = count("").await;
    assert!(before > 5 && count("").await > before, "asking is on record");
    let moment = "2026-01-31T08:16:00Z";
    let (earlier, later) = (count(&format!("&_at={moment}")).await, count(&format!("&_since={moment}")).await);
    assert!((3..=6).contains(&earlier) && later > 5, "{earlier} {later}");
    assert_eq!(count("&_since=2030-01-01").await, 0);
    assert_eq!(app.persona("system/Patient.rs").await.get("AuditEvent/_history").await.status, 403);
    let whole = lines(&backend.get("_history?_count=500").await);
    assert!(whole.len() == 5 && whole.iter().all(|line| line.starts_with("Patient/")), "{whole:?}");
}

//! Searches and their pages through the real router.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Persona, TestApp, patient};

async fn filled<'a>(app: &'a TestApp, count: usize) -> Persona<'a> {
    let backend = app.persona("system/*.cruds").await;
    for n in 0..count {
        let reply = backend.put(&format!("Patient/p{n}"), &patient(&format!("p{n}"), "Paged")).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    backend
}

#[tokio::test]
async fn pages_show_every_match_once() {
    let app = TestApp::new().await;
    let backend = filled(&app, 7).await;
    let mut seen = Vec::new();
    let mut page = backend.get("Patient?family=paged&_count=3&_sort=-_lastUpdated").await;
    loop {
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.link("self").is_some());
        seen.extend(page.ids());
        let Some(next) = page.link("next") else { break };
        assert!(!next.contains("paged"), "a page link shows nothing of the query: {next}");
        page = backend.get(&next).await;
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 7);
}

#[tokio::test]
async fn a_page_link_is_for_its_caller_its_type_and_its_time() {
    let app = TestApp::with(&[("cursor_lifetime_s", "60")]).await;
    let backend = filled(&app, 3).await;
    let stranger = app.persona("system/*.cruds").await;
    let next = backend.get("Patient?_count=1").await.link("next").expect("more pages");
    assert_eq!(backend.get(&next).await.status, 200);
    assert_eq!(stranger.get(&next).await.status, 400, "another client");
    assert_eq!(backend.get(&next.replace("/Patient?", "/Group?")).await.status, 400, "another type");
    assert_eq!(backend.get(&format!("{next}&family=x")).await.status, 400, "with more parameters");
    let mut altered = next.clone();
    let last = if altered.pop() == Some('A') { 'B' } else { 'A' };
    // The last character may carry unused bits only: alter one in the middle.
    altered.push(last);
    let middle = altered.len() - 20;
    let other = if &altered[middle..=middle] == "A" { "B" } else { "A" };
    altered.replace_range(middle..=middle, other);
    assert_eq!(backend.get(&altered).await.status, 400, "altered");
    app.pass(61);
    let expired = backend.get(&next).await;
    assert_eq!(expired.status, 400);
    assert!(expired.text().contains("expired"), "{}", expired.text());
}

#[tokio::test]
async fn get_and_post_give_the_same() {
    let app = TestApp::new().await;
    let backend = filled(&app, 3).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let post = backend.call("POST", "Patient/_search?family=paged", &form, "_count=2&_total=accurate").await;
    let get = backend.get("Patient?family=paged&_count=2&_total=accurate").await;
    assert_eq!((post.status, post.ids(), &post.json()["total"]), (200, get.ids(), &get.json()["total"]));
    assert_eq!(post.json()["total"], 3);
    let wrong = backend.call("POST", "Patient/_search", &[("content-type", "application/json")], "{}").await;
    assert_eq!(wrong.status, 415);
    let events = backend.audit_of(post.header("x-request-id")).await;
    assert!(!events.is_empty());
}

#[tokio::test]
async fn unknown_parameters_are_refused_or_said_to_be_left_out() {
    let app = TestApp::new().await;
    let backend = filled(&app, 1).await;
    let strict = backend.get("Patient?colour=red").await;
    assert_eq!(strict.status, 400);
    assert!(strict.text().contains("colour"), "{}", strict.text());
    let lenient = backend.call("GET", "Patient?colour=red&family=paged", &[("prefer", "handling=lenient")], "").await;
    assert_eq!(lenient.status, 200, "{}", lenient.text());
    assert_eq!(lenient.link("self").as_deref(), Some("http://phial.test/fhir/Patient?family=paged"));
    let entries = lenient.json()["entry"].as_array().cloned().expect("entries");
    assert_eq!(entries.last().map(|entry| entry["search"]["mode"].clone()), Some(json!("outcome")));
}

#[tokio::test]
async fn content_is_cut_to_what_was_asked_for() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let resource = json!({
        "resourceType": "Patient", "id": "p1", "active": true, "name": [{"family": "Cut"}], "birthDate": "1980-01-01",
        "text": {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\">Cut</div>"},
        "photo": [{"title": "face"}]
    });
    assert_eq!(backend.put("Patient/p1", &resource).await.status, 201);
    for (query, kept, gone) in [
        ("_summary=true", vec!["active", "name", "birthDate"], vec!["text", "photo"]),
        ("_summary=text", vec!["text"], vec!["name", "photo"]),
        ("_summary=data", vec!["name", "photo"], vec!["text"]),
        ("_elements=birthDate", vec!["birthDate", "active"], vec!["name", "photo", "text"]),
    ] {
        for node in [
            backend.get(&format!("Patient/p1?{query}")).await.json(),
            backend.get(&format!("Patient?_id=p1&{query}")).await.json()["entry"][0]["resource"].clone(),
        ] {
            assert!(kept.iter().all(|name| node.get(*name).is_some()), "{query}: {node}");
            assert!(gone.iter().all(|name| node.get(*name).is_none()), "{query}: {node}");
            assert_eq!(node["meta"]["tag"][0]["code"], "SUBSETTED", "{query}");
        }
    }
    for query in ["_summary=maybe", "_summary=count", "_elements=colour", "_summary=true&_elements=name"] {
        assert_eq!(backend.get(&format!("Patient/p1?{query}")).await.status, 400, "{query}");
    }
    let lenient = [("prefer", "handling=lenient")];
    let reply = backend.call("GET", "Patient/p1?_elements=colour,Patient.name", &lenient, "").await.json();
    assert!(reply.get("name").is_some() && reply.get("birthDate").is_none(), "{reply}");
    assert_eq!(backend.get("Patient/p1?colour=red").await.status, 400);
    let count = backend.get("Patient?_summary=count").await.json();
    assert_eq!((&count["total"], count.get("entry")), (&json!(1), None));
}

#[tokio::test]
async fn included_resources_are_marked_and_the_format_stays_in_the_links() {
    let app = TestApp::new().await;
    let backend = filled(&app, 1).await;
    for _ in 0..2 {
        let condition = json!({"resourceType": "Condition", "subject": {"reference": "Patient/p0"}});
        assert_eq!(backend.post("Condition", &condition).await.status, 201);
    }
    let found = backend.get("Condition?_include=Condition:subject&_count=1&_format=json").await;
    let modes: Vec<_> =
        found.json()["entry"].as_array().expect("entries").iter().map(|e| e["search"]["mode"].clone()).collect();
    assert_eq!(modes, ["match", "include"]);
    assert!(found.link("next").expect("a next page").ends_with("&_format=json"));
}

#[tokio::test]
async fn a_summary_goes_down_into_elements_and_stays_valid() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let resource = json!({
        "resourceType": "DocumentReference", "id": "d1", "status": "current", "description": "scan",
        "content": [{"attachment": {"contentType": "text/plain", "data": "aGk=", "title": "t"}}]
    });
    assert_eq!(backend.put("DocumentReference/d1", &resource).await.status, 201);
    let summary = backend.get("DocumentReference/d1/_history/1?_summary=true").await.json();
    assert_eq!(summary["content"], json!([{"attachment": {"contentType": "text/plain", "title": "t"}}]));
    let text = backend.get("DocumentReference/d1?_summary=text").await.json();
    assert!(text.get("status").is_some() && text.get("description").is_none(), "what must be there stays: {text}");
    let history = backend.get("DocumentReference/d1/_history?_elements=description").await.json();
    let cut = &history["entry"][0]["resource"];
    assert_eq!((&cut["description"], &cut["meta"]["tag"][0]["code"]), (&json!("scan"), &json!("SUBSETTED")));
}

//! `Prefer: respond-async` through the real router.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, on_both, patient};

on_both![
    an_answer_is_fetched_later_and_its_leaving_is_on_record,
    a_job_is_its_callers_until_it_expires_or_is_cancelled,
];

const LATER: (&str, &str) = ("prefer", "respond-async");

/// Asks until it is done.
async fn fetched(persona: &Persona<'_>, status: &str) -> Reply {
    for _ in 0..500 {
        let reply = persona.get(status).await;
        if reply.status != 202 {
            return reply;
        }
        assert!(reply.header("x-progress").starts_with("in progress") && reply.header("retry-after") == "2");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never done");
}

async fn asked(persona: &Persona<'_>, method: &str, path: &str, body: String) -> String {
    let headers = [LATER, ("content-type", "application/fhir+json")];
    let reply = persona.call(method, path, &headers, body).await;
    assert_eq!((reply.status, reply.body.len()), (202, 0), "{}", reply.text());
    let status = reply.header("content-location").to_owned();
    assert!(status.starts_with("http://phial.test/fhir/_async/"), "{status}");
    status
}

async fn an_answer_is_fetched_later_and_its_leaving_is_on_record() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let entry = json!({"request": {"method": "PUT", "url": "Patient/p1"}, "resource": patient("p1", "Later")});
    let batch = json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]});
    let done = fetched(&backend, &asked(&backend, "POST", "", batch.to_string()).await).await;
    assert_eq!(done.status, 200, "{}", done.text());
    let outer = done.json();
    assert_eq!(
        (&outer["type"], &outer["entry"][0]["response"]["status"]),
        (&json!("batch-response"), &json!("200 OK"))
    );
    let inner = &outer["entry"][0]["resource"];
    assert_eq!(
        (&inner["type"], &inner["entry"][0]["response"]["status"]),
        (&json!("transaction-response"), &json!("201 Created"))
    );

    let status = asked(&backend, "GET", "Patient?family=later", String::new()).await;
    let now = backend.get("Patient?family=later").await.json();
    for format in ["json", "xml"] {
        let reply = fetched(&backend, &format!("{status}?_format={format}")).await;
        assert_eq!(reply.status, 200, "as often as wanted: {}", reply.text());
        let events = backend.audit_of(reply.header("x-request-id")).await;
        assert!(events.iter().any(|event| event["entity"].to_string().contains("Patient/p1")), "{events:?}");
        match format {
            "json" => assert_eq!(reply.json()["entry"][0]["resource"]["entry"], now["entry"]),
            _ => assert!(reply.text().contains("<family value=\"Later\"/>"), "{}", reply.text()),
        }
    }
    let refused = fetched(&backend, &asked(&backend, "GET", "Patient?colour=red", String::new()).await).await;
    let response = refused.json()["entry"][0]["response"].clone();
    assert_eq!((refused.status, &response["status"]), (200, &json!("400 Bad Request")));
    assert!(response["outcome"].to_string().contains("colour"), "{response}");
    // What lies there is sealed, the answer and the state.
    for space in ["async-job", "async-answer"] {
        let kept = app.app().store.kv_list(space).await.expect("lists");
        assert!(!kept.is_empty());
        assert!(kept.iter().all(|(_, sealed)| !String::from_utf8_lossy(sealed).contains("Later")));
    }
}

async fn a_job_is_its_callers_until_it_expires_or_is_cancelled() {
    let app = TestApp::with(&[("async_lifetime_s", "120")]).await;
    let backend = app.persona("system/Patient.cruds system/Group.rs").await;
    backend.put("Patient/p1", &patient("p1", "Later")).await;
    let status = asked(&backend, "GET", "Patient?family=later", String::new()).await;
    assert_eq!(fetched(&backend, &status).await.status, 200);
    let stranger = app.persona("system/*.cruds").await;
    assert_eq!((stranger.get(&status).await.status, stranger.delete(&status).await.status), (404, 404));
    assert_eq!(backend.get(&format!("{status}x")).await.status, 404);
    assert_eq!(backend.delete(&status).await.status, 202);
    assert_eq!((backend.get(&status).await.status, backend.delete(&status).await.status), (404, 404));
    let status = asked(&backend, "GET", "Patient?family=later", String::new()).await;
    assert_eq!(fetched(&backend, &status).await.status, 200);
    app.pass(121);
    assert_eq!(backend.get(&status).await.status, 404, "expired");
    let at_once = backend.call("GET", "Patient/p1", &[LATER], "").await;
    assert_eq!(at_once.status, 200, "a preference may be left out: a read does not wait");
}

#[tokio::test]
async fn a_job_whose_server_stopped_is_told_to_be_lost() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    // Taken on, and never begun: what a restart leaves behind.
    let caller = app.app().oauth.caller(backend.token()).await.expect("a caller");
    let job = crate::interaction::deferred::start(app.app(), &caller).await.expect("taken on");
    let status = format!("_async/{}", job.id);
    assert_eq!(backend.get(&status).await.status, 202);
    app.pass(31);
    let lost: Reply = backend.get(&status).await;
    let outcome: Value = lost.json();
    assert_eq!((lost.status, &outcome["resourceType"]), (500, &json!("OperationOutcome")));
    assert!(lost.text().contains("stopped"), "{}", lost.text());
    assert_eq!(backend.delete(&status).await.status, 202, "and can be cleared away");
}

//! `Prefer: respond-async` through the real router.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp, on_both, patient};
use crate::interaction::{Facts, Interaction, deferred};

on_both![
    an_answer_is_fetched_later_and_its_leaving_is_on_record,
    a_job_is_its_callers_until_it_expires_or_is_cancelled,
    a_search_whose_server_stopped_is_performed_again,
    of_a_transaction_whose_server_stopped_it_is_known_whether_it_was_kept,
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

/// Takes a job on and never works on it: what a server that was killed leaves behind.
async fn abandoned(app: &TestApp, backend: &Persona<'_>, asked: Interaction) -> (deferred::Job, String) {
    let caller = app.app().oauth.caller(backend.token()).await.expect("a caller");
    let job = deferred::start(app.app(), &caller, &Facts::default(), &asked).await.expect("taken on");
    let status = format!("_async/{}", job.id);
    assert_eq!(backend.get(&status).await.status, 202);
    (job, status)
}

fn bundle(kind: &str) -> Value {
    let entry = json!({"request": {"method": "PUT", "url": "Patient/p1"}, "resource": patient("p1", "Later")});
    json!({"resourceType": "Bundle", "type": kind, "entry": [entry]})
}

fn asks(body: &Value) -> Interaction {
    let body = bytes::Bytes::from(body.to_string());
    Interaction::Bundle { body: crate::fhir::sent::SentBundle::parse(&body).expect("JSON") }
}

async fn a_search_whose_server_stopped_is_performed_again() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p1", &patient("p1", "Later")).await;
    let kind = crate::fhir::definitions().type_id("Patient").expect("a type");
    let query = vec![("family".to_owned(), "later".to_owned())];
    let (_job, status) = abandoned(&app, &backend, Interaction::SearchType { kind, query }).await;
    let kept = app.app().store.kv_list("async-request").await.expect("lists");
    assert!(kept.len() == 1 && !String::from_utf8_lossy(&kept[0].1).contains("later"), "sealed");
    app.pass(31);
    // At another server, by a caller whose token is live; a stranger begins nothing.
    let other = app.again().await;
    let stranger = other.persona("system/Group.rs").await;
    assert_eq!(stranger.get(&status).await.status, 404);
    let backend = other.bearer(backend.token());
    let begun = backend.get(&status).await;
    assert_eq!((begun.status, begun.header("x-progress")), (202, "in progress again"));
    let done = fetched(&backend, &status).await;
    assert_eq!(done.json()["entry"][0]["resource"]["entry"][0]["resource"]["id"], "p1", "{}", done.text());
    assert!(other.app().store.kv_list("async-request").await.expect("lists").is_empty());
}

async fn of_a_transaction_whose_server_stopped_it_is_known_whether_it_was_kept() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let caller = app.app().oauth.caller(backend.token()).await.expect("a caller");
    let transaction = bundle("transaction");
    let perform = async |job: &deferred::Job| {
        let facts = Facts { pledge: job.pledge().cloned(), ..Facts::default() };
        crate::interaction::perform(app.app(), &caller, &facts, asks(&transaction)).await.is_ok()
    };
    // Silent before its commit: once its caller was told, it cannot be kept any more.
    let (job, status) = abandoned(&app, &backend, asks(&transaction)).await;
    app.pass(31);
    for _ in 0..2 {
        let lost = backend.get(&status).await;
        assert_eq!(lost.status, 500);
        assert!(lost.text().contains("Nothing of it was kept"), "{}", lost.text());
    }
    assert!(!perform(&job).await);
    assert_eq!(backend.get("Patient/p1").await.status, 404);
    // Silent after it, before its answer was kept.
    let (job, status) = abandoned(&app, &backend, asks(&transaction)).await;
    assert!(perform(&job).await);
    app.pass(31);
    for _ in 0..2 {
        let lost = backend.get(&status).await;
        assert_eq!(lost.status, 500);
        assert!(lost.text().contains("after it was kept"), "{}", lost.text());
    }
    assert_eq!(backend.get("Patient/p1").await.json()["meta"]["versionId"], "1");
    assert!(!perform(&job).await, "not twice");
    // Cancelled while it is under way.
    let (job, status) = abandoned(&app, &backend, asks(&transaction)).await;
    assert_eq!(backend.delete(&status).await.status, 202);
    assert!(!perform(&job).await);
    // A batch has no single commit.
    let (_, status) = abandoned(&app, &backend, asks(&bundle("batch"))).await;
    app.pass(31);
    let lost: Reply = backend.get(&status).await;
    assert_eq!((lost.status, &lost.json()["resourceType"]), (500, &json!("OperationOutcome")));
    assert!(lost.text().contains("Each of its entries"), "{}", lost.text());
    assert_eq!(backend.delete(&status).await.status, 202, "and can be cleared away");
}

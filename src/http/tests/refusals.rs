//! What is refused, why, and that it is on record.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{TestApp, patient};
use crate::interaction::route::{ROUTES, Verb};

/// A concrete address for every row of the table.
fn example(pattern: &str) -> String {
    let path = pattern
        .replace("{type}", "Patient")
        .replace("{id}", "p1")
        .replace("{vid}", "1")
        .replace("{member}", "Condition")
        .replace("{job}", "j1");
    if path.is_empty() { "/fhir".to_owned() } else { format!("/fhir/{path}") }
}

#[tokio::test]
async fn every_route_but_metadata_wants_a_token_and_records_its_refusal() {
    let app = TestApp::new().await;
    let auditor = app.persona("system/AuditEvent.rs").await;
    for route in ROUTES {
        for token in [None, Some("Bearer nonsense"), Some("Basic eDp5")] {
            let mut request = Request::builder().method(route.method.name()).uri(example(route.pattern));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let reply = app.send(request.body(Body::empty()).expect("a request")).await;
            if route.verb == Verb::Capabilities {
                assert_eq!(reply.status, 200);
                continue;
            }
            assert_eq!(reply.status, 401, "{}", route.pattern);
            assert_eq!(reply.header("www-authenticate"), "Bearer");
            assert_eq!(reply.json()["resourceType"], "OperationOutcome");
            let events = auditor.audit_of(reply.header("x-request-id")).await;
            assert_eq!(events.len(), 1, "{} {token:?}", route.pattern);
            assert_eq!(events[0]["outcome"], "4");
        }
    }
}

#[tokio::test]
async fn scopes_are_held_on_every_route_and_refusals_are_on_record() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p1", &patient("p1", "One")).await;
    let other = app.persona("system/Observation.cruds").await;
    // What is not about one type is answered for the types that the scopes cover; operations have cases of their own.
    let of_none = [
        Verb::Capabilities,
        Verb::Bundle,
        Verb::HistorySystem,
        Verb::SearchSystem,
        Verb::SearchCompartment,
        Verb::Status,
        Verb::Cancel,
        Verb::Operation,
    ];
    for route in ROUTES.iter().filter(|route| !of_none.contains(&route.verb)) {
        let path = example(route.pattern);
        let body = match route.verb {
            Verb::Create | Verb::Update => patient("p1", "Other").to_string(),
            Verb::Patch => "[]".to_owned(),
            _ => String::new(),
        };
        let headers: &[(&str, &str)] = match route.verb {
            Verb::Patch => &[("content-type", "application/json-patch+json")],
            _ if body.is_empty() => &[],
            _ => &[("content-type", "application/fhir+json")],
        };
        let reply = other.call(route.method.name(), path.trim_start_matches("/fhir/"), headers, body).await;
        assert_eq!(reply.status, 403, "{} {}", route.method.name(), route.pattern);
        let events = backend.audit_of(reply.header("x-request-id")).await;
        assert_eq!(events.len(), 1, "{}", route.pattern);
        assert_eq!(events[0]["outcome"], "4");
    }
}

#[tokio::test]
async fn a_success_is_on_record_with_its_patient() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p1", &patient("p1", "One")).await;
    let id = "my-request.1";
    let read = backend.call("GET", "Patient/p1", &[("x-request-id", id)], "").await;
    assert_eq!(read.header("x-request-id"), id);
    let events = backend.audit_of(id).await;
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["outcome"], &events[0]["action"]), (&json!("0"), &json!("R")));
    assert!(events[0]["entity"].to_string().contains("Patient/p1"), "{}", events[0]);
    let hostile = backend.call("GET", "Patient/p1", &[("x-request-id", "a b\"<script>")], "").await;
    assert_ne!(hostile.header("x-request-id"), "a b\"<script>");
}

#[tokio::test]
async fn requests_that_cannot_be_answered_say_why() {
    let app = TestApp::with(&[("body_bytes_max", "2000")]).await;
    let backend = app.persona("system/*.cruds").await;
    let json = ("content-type", "application/fhir+json");
    let large = "x".repeat(2001);
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let table: &[Case<'_>] = &[
        ("GET", "Patient/p1", &[("accept", "text/turtle")], "", 406),
        ("GET", "Patient/p1?_format=turtle", &[], "", 406),
        ("GET", "Patient/p1?_pretty=maybe", &[], "", 400),
        ("POST", "Patient", &[("content-type", "text/plain")], "x", 415),
        ("POST", "Patient", &[("content-type", "application/fhir+json; fhirVersion=5.0")], "{}", 415),
        ("POST", "Patient", &[json, ("content-encoding", "br")], "x", 415),
        ("POST", "Patient", &[json, ("content-encoding", "gzip")], "x", 400),
        ("POST", "Patient", &[json], "{", 400),
        ("POST", "Patient", &[json], "", 400),
        ("POST", "Patient", &[json], &large, 413),
        ("POST", "Patient?x=1", &[json], "{\"resourceType\":\"Patient\"}", 400),
        ("PATCH", "Patient/p1", &[json], "[]", 400),
        ("PATCH", "Patient/p1/_history", &[json], "[]", 405),
        ("PUT", "Patient", &[json], "{\"resourceType\":\"Patient\"}", 400),
        ("GET", "Nothing/1", &[], "", 404),
        ("GET", "Patient/p1/_other", &[], "", 404),
        ("GET", "Patient?name=%zz", &[], "", 400),
        ("TRACE", "Patient/p1", &[], "", 405),
    ];
    for (method, path, headers, body, status) in table {
        let reply = backend.call(method, path, headers, (*body).to_owned()).await;
        assert_eq!(reply.status, *status, "{method} {path} {}", reply.text());
        assert_eq!(reply.json()["resourceType"], "OperationOutcome", "{method} {path}");
        let events = backend.audit_of(reply.header("x-request-id")).await;
        assert_eq!(events.len(), 1, "{method} {path}");
    }
    let allow = backend.call("OPTIONS", "Patient/p1", &[], "").await;
    assert_eq!(allow.header("allow"), "GET, PUT, DELETE, PATCH, HEAD, OPTIONS");
}

#[tokio::test]
async fn the_capability_statement_says_what_the_table_says() {
    let app = TestApp::new().await;
    let get = |path: &'static str| app.send(Request::get(path).body(Body::empty()).expect("a request"));
    let reply = get("/fhir/metadata").await;
    assert_eq!(reply.status, 200);
    let statement = reply.json();
    assert_eq!(statement["fhirVersion"], "4.0.1");
    let resources = statement["rest"][0]["resource"].as_array().expect("resources");
    let patient = resources.iter().find(|resource| resource["type"] == "Patient").expect("Patient");
    let codes: Vec<&str> =
        patient["interaction"].as_array().expect("codes").iter().filter_map(|i| i["code"].as_str()).collect();
    let all =
        ["search-type", "create", "history-type", "update", "patch", "delete", "read", "history-instance", "vread"];
    assert_eq!(codes, all);
    assert!(patient["searchParam"].as_array().expect("params").iter().any(|param| param["name"] == "family"));
    let audit = resources.iter().find(|resource| resource["type"] == "AuditEvent").expect("AuditEvent");
    assert!(!audit["interaction"].to_string().contains("delete"));
    assert!(audit["interaction"].to_string().contains("history-type"));
    let common = statement["rest"][0]["searchParam"].as_array().expect("params of every search");
    let common: Vec<&str> = common.iter().filter_map(|param| param["name"].as_str()).collect();
    for name in ["_id", "_lastUpdated", "_tag", "_filter", "_type", "_list", "_has"] {
        assert!(common.contains(&name), "{name}: {common:?}");
    }
    for name in common.iter().filter(|name| !["_type", "_list", "_has"].contains(name)) {
        let stated = |it: &serde_json::Value| it["searchParam"].to_string().contains(&format!("\"name\":\"{name}\""));
        assert!(resources.iter().filter(|it| it["type"] != "AuditEvent").all(stated), "{name}");
    }
    let includes = |it: &serde_json::Value| format!("{}{}", it["searchInclude"], it["searchRevInclude"]);
    assert!(includes(patient).contains("\"Observation:subject\""));
    assert!(resources.iter().all(|it| !includes(it).contains("AuditEvent:")), "they are searched on their own");
    let system = statement["rest"][0]["interaction"].to_string();
    assert!(system.contains("history-system") && system.contains("transaction"), "{system}");
    let faults = crate::fhir::validate::structure(&statement);
    assert!(!crate::fhir::validate::refuses(&faults), "{faults:?}");
    let xml = app.send(Request::get("/fhir/metadata?_format=xml").body(Body::empty()).expect("a request")).await;
    assert!(xml.text().contains("<CapabilityStatement"), "{}", xml.text());
    let smart = get("/fhir/.well-known/smart-configuration").await;
    assert_eq!((smart.status, smart.header("content-type")), (200, "application/json"));
    assert_eq!(smart.json()["token_endpoint"], "http://phial.test/oauth/token");
    let jwks = get("/oauth/jwks").await.json();
    let keys = jwks["keys"].as_array().expect("keys");
    let algorithms: Vec<_> = keys.iter().map(|key| key["alg"].as_str().expect("alg")).collect();
    assert_eq!(algorithms, ["ES384", "RS256"], "one for access tokens, one for id tokens");
    assert!(keys.iter().all(|key| key.get("d").is_none()), "public parts alone");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(path).await.status, 200, "{path}");
    }
    assert_eq!(get("/elsewhere").await.status, 404);
    assert_eq!(get("/oauth/token").await.status, 405);
}

#[tokio::test]
async fn without_a_record_nothing_is_released() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    backend.put("Patient/p1", &patient("p1", "Hidden")).await;
    app.app().store.close().await;
    for path in ["Patient/p1", "Patient?family=hidden", "Patient/none"] {
        let reply = backend.get(path).await;
        assert_eq!(reply.status, 503, "{path}: {}", reply.text());
        assert!(!reply.text().contains("Hidden"), "{path}");
    }
    assert_eq!(backend.put("Patient/p2", &patient("p2", "Lost")).await.status, 503);
}

#[tokio::test]
async fn more_than_the_server_can_take_is_turned_away_at_once() {
    let app = TestApp::with(&[("requests_max", "1"), ("queue_max", "1")]).await;
    let backend = app.persona("system/*.cruds").await;
    let replies = futures_util::future::join_all((0..4).map(|_| backend.get("Patient"))).await;
    let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503], "one at work, one waiting");
    assert!(replies.iter().all(|reply| reply.status != 503 || reply.header("retry-after") == "1"));
}

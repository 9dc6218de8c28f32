//! Apps in browsers, OPTIONS, metadata and the limits of requests through the real router.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::{Reply, TestApp, patient};

const APP: &str = "https://app.example.org";

async fn ask(app: &TestApp, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn browsers_are_told_which_origins_may_read() {
    let app = TestApp::with(&[("cors_origins", "https://app.example.org http://localhost:3000")]).await;
    let backend = app.persona("system/*.cruds").await;
    for (path, origin, allowed) in [
        ("/fhir/metadata", "https://any.example", "*"),
        ("/fhir/.well-known/smart-configuration", "https://any.example", "*"),
        ("/oauth/jwks", "https://any.example", "*"),
        ("/oauth/token", APP, APP),
        ("/oauth/token", "https://any.example", ""),
        ("/fhir/Patient/p1", APP, APP),
        ("/fhir/Patient/p1", "http://localhost:3000", "http://localhost:3000"),
        ("/fhir/Patient/p1", "https://app.example.org.evil.example", ""),
        ("/fhir/Patient/p1", "null", ""),
        ("/healthz", APP, ""),
    ] {
        let asked = [("origin", origin), ("access-control-request-method", "GET")];
        let preflight = ask(&app, "OPTIONS", path, &asked).await;
        assert_eq!((preflight.status, preflight.body.len()), (204, 0), "{path}");
        for name in ["Authorization", "Prefer", "If-Match", "If-None-Match"] {
            assert!(preflight.header("access-control-allow-headers").contains(name), "{name}");
        }
        // A refusal must be readable too: without it an app cannot tell what was wrong.
        for reply in [preflight, ask(&app, "GET", path, &[("origin", origin)]).await] {
            assert_eq!(reply.header("access-control-allow-origin"), allowed, "{path} {origin}");
            assert_eq!(reply.header("access-control-allow-credentials"), "");
            assert_eq!(reply.header("vary") == "Origin", path != "/healthz" && allowed != "*", "{path} {origin}");
        }
    }
    backend.put("Patient/p1", &patient("p1", "One")).await;
    let read = backend.call("GET", "Patient/p1", &[("origin", APP)], "").await;
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, APP));
    for name in ["Location", "ETag", "Content-Location", "X-Progress", "Retry-After"] {
        assert!(read.header("access-control-expose-headers").contains(name), "{name}");
    }
    let closed = TestApp::new().await;
    let reply = ask(&closed, "GET", "/fhir/Patient/p1", &[("origin", APP)]).await;
    assert_eq!(reply.header("access-control-allow-origin"), "");
    let open = TestApp::with(&[("cors_origins", "*")]).await;
    assert_eq!(
        ask(&open, "GET", "/fhir/Patient/p1", &[("origin", APP)]).await.header("access-control-allow-origin"),
        "*"
    );
}

#[tokio::test]
async fn options_says_what_an_address_takes() {
    let app = TestApp::new().await;
    for (path, allow) in [
        ("/fhir/Patient/p1", "GET, PUT, DELETE, HEAD, OPTIONS"),
        ("/fhir/Patient", "GET, POST, HEAD, OPTIONS"),
        ("/fhir/metadata", "GET, HEAD, OPTIONS"),
        ("/fhir", "GET, POST, HEAD, OPTIONS"),
    ] {
        let reply = ask(&app, "OPTIONS", path, &[]).await;
        let said: Vec<&str> = reply.header("allow").split(", ").collect();
        assert_eq!(reply.status, 204, "{path}");
        assert!(allow.split(", ").all(|method| said.contains(&method)), "{path}: {said:?}");
        assert!(!reply.header("x-request-id").is_empty());
    }
    assert_eq!(ask(&app, "OPTIONS", "/fhir/Nonsense", &[]).await.status, 404);
    let backend = app.persona("system/*.cruds").await;
    for (method, path, allow) in [
        ("POST", "Patient/p1", "GET, PUT, DELETE, PATCH, HEAD"),
        ("PUT", "metadata", "GET, HEAD"),
        ("GET", "Patient/$match", "POST"),
        ("PUT", "Patient/p1/$everything", "GET, POST, HEAD"),
        ("DELETE", "AuditEvent/a", "GET, PUT, HEAD"),
    ] {
        let reply = backend.call(method, path, &[], "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, allow), "{method} {path}: {}", reply.text());
    }
}

#[tokio::test]
async fn metadata_is_shaped_as_it_is_asked_for() {
    let app = TestApp::new().await;
    let full = ask(&app, "GET", "/fhir/metadata?mode=full", &[]).await.json();
    assert!(full["rest"][0]["resource"].as_array().is_some_and(|types| types.len() > 140));
    assert_eq!(full["rest"][0]["security"]["cors"], json!(false));
    assert!(full["rest"][0]["compartment"].to_string().contains("CompartmentDefinition/relatedperson"), "{full}");
    for limit in ["32768 bytes of address", "100 levels", "67108864 bytes", "25000 entries", "60 seconds"] {
        assert!(full["rest"][0]["documentation"].to_string().replace(" \\n", "").contains(limit), "{limit}");
    }
    let cut = ask(&app, "GET", "/fhir/metadata?_elements=rest", &[]).await.json();
    assert!(cut.get("rest").is_some() && cut.get("software").is_none() && cut.get("fhirVersion").is_some());
    let summary = ask(&app, "GET", "/fhir/metadata?_summary=true&_format=xml", &[]).await;
    assert!(summary.text().contains("SUBSETTED") && summary.text().len() < full.to_string().len());
    for path in ["/fhir/metadata?mode=terminology", "/fhir/metadata?mode=normative", "/fhir/metadata?colour=red"] {
        let reply = ask(&app, "GET", path, &[]).await;
        assert_eq!((reply.status, &reply.json()["resourceType"]), (400, &json!("OperationOutcome")), "{path}");
    }
}

#[tokio::test]
async fn every_reply_carries_a_request_id_and_limits_are_held() {
    let app = TestApp::new().await;
    let backend = app.persona("system/*.cruds").await;
    let long = format!("Patient?family={}", "x".repeat(33_000));
    let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
    let json = [("content-type", "application/fhir+json"), ("x-request-id", "mine-1")];
    for (reply, status) in [
        (backend.call("GET", &long, &[("x-request-id", "mine-1")], "").await, 414),
        (backend.call("POST", "Patient", &json, deep).await, 400),
        (backend.call("GET", "Nonsense", &[("x-request-id", "mine-1")], "").await, 404),
        (ask(&app, "GET", "/fhir/Patient/p1", &[("x-request-id", "mine-1")]).await, 401),
        (ask(&app, "GET", "/elsewhere", &[("x-request-id", "mine-1")]).await, 404),
        (ask(&app, "GET", "/healthz", &[("x-request-id", "mine-1")]).await, 200),
    ] {
        assert_eq!((reply.status, reply.header("x-request-id")), (status, "mine-1"), "{}", reply.text());
    }
    let strange = backend.call("GET", "Patient", &[("x-request-id", "not a plain one")], "").await;
    assert!(strange.header("x-request-id").len() > 30, "one that is not plain is replaced");
}

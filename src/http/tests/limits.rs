//! Rate limits through the real router, with tiny allowances and a held clock.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::request::Builder;
use serde_json::Value;

use super::browser::{Browser, PASSWORD};
use super::{Persona, Reply, TestApp, patient};
use crate::access::Role;
use crate::oauth::ClientKind;

const HERE: &str = "198.51.100.7";
const THERE: &str = "203.0.113.9";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn limited(settings: &[(&'static str, &str)]) -> TestApp {
    TestApp::with(settings).await
}

fn with(mut request: Builder, headers: &[(&str, &str)]) -> Builder {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}

impl TestApp {
    /// A request over a socket from this address.
    async fn from(&self, address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let request = with(Request::builder().method(method).uri(path), headers);
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(address.parse().unwrap(), 4711)));
        self.send(request).await
    }

    async fn look(&self, address: &str, path: &str) -> u16 {
        self.from(address, "GET", path, &[], "").await.status
    }
}

/// The details of the refusals on record, and who was refused at which address.
async fn on_record(auditor: &Persona<'_>) -> Vec<Value> {
    let reply = auditor.get("AuditEvent?_count=1000").await.json();
    let entries = reply["entry"].as_array().cloned().unwrap_or_default();
    let limited = |event: &Value| event["outcomeDesc"] == "too many requests";
    entries.into_iter().map(|mut entry| entry["resource"].take()).filter(limited).collect()
}

#[tokio::test]
async fn an_address_has_its_allowance_and_health_is_free() {
    let app = limited(&[("rate_address_max", "3")]).await;
    let auditor = app.persona("system/AuditEvent.rs").await;
    for _ in 0..3 {
        assert_eq!(app.look(HERE, "/fhir/Patient/secret-name").await, 401);
    }
    for _ in 0..20 {
        let reply = app.from(HERE, "GET", "/fhir/Patient?name=secret-name", &[], "").await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "100"), "{}", reply.text());
        let outcome = reply.json();
        assert_eq!(
            (&outcome["resourceType"], &outcome["issue"][0]["code"]),
            (&"OperationOutcome".into(), &"throttled".into())
        );
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let xml = app.from(HERE, "GET", "/fhir/Patient", &[("accept", "application/fhir+xml")], "").await;
    assert!(xml.status == 429 && xml.text().contains("<OperationOutcome"), "{}", xml.text());
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(app.look(HERE, path).await, 200, "{path}");
    }
    assert_eq!(app.look(THERE, "/fhir/metadata").await, 200, "another address has its own");
    // One record, however many refusals; it names the address and not what was asked for.
    let events = on_record(&auditor).await;
    assert_eq!(events.len(), 1, "{events:?}");
    let event = events[0].to_string();
    assert!(event.contains(HERE) && !event.contains("secret-name") && events[0]["outcome"] == "4", "{event}");
    let figures = app.from(THERE, "GET", "/metrics", &[], "").await.text();
    assert!(figures.contains("phial_rate_limited_total{limit=\"address\"}"), "{figures}");
    app.pass(100);
    assert_eq!((app.look(HERE, "/fhir/metadata").await, app.look(HERE, "/fhir/metadata").await), (200, 429));
    app.pass(300);
    assert_eq!(app.look(HERE, "/fhir/metadata").await, 200);
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_share_and_free_ones_are_free() {
    let app = limited(&[("rate_address_max", "1"), ("rate_free_addresses", "10.0.0.0/8")]).await;
    let seen = async |address: &str| app.look(address, "/fhir/metadata").await;
    assert_eq!((seen("2001:db8::1").await, seen("2001:db8::2").await, seen("2001:db8:0:1::1").await), (200, 429, 200));
    assert_eq!((seen("192.0.2.1").await, seen("::ffff:192.0.2.1").await, seen("192.0.2.2").await), (200, 429, 200));
    for _ in 0..5 {
        assert_eq!(seen("10.1.2.3").await, 200);
    }
    let off = limited(&[("rate_address_max", "0"), ("rate_free_addresses", "")]).await;
    for _ in 0..50 {
        assert_eq!(off.look(HERE, "/fhir/metadata").await, 200, "0 is no limit");
    }
}

#[tokio::test]
async fn a_proxy_is_believed_only_when_it_is_trusted() {
    let app = limited(&[("rate_address_max", "1"), ("trusted_proxies", "10.0.0.0/8")]).await;
    let backend = app.persona("system/*.cruds").await;
    let bearer = format!("Bearer {}", backend.token());
    let seen = async |socket: &str, said: &str| {
        let headers = [("x-forwarded-for", said), ("authorization", bearer.as_str())];
        app.from(socket, "GET", "/fhir/Patient?_count=1", &headers, "").await
    };
    for n in 0..4 {
        // Whoever is no proxy cannot choose an address.
        let status = seen(HERE, &format!("203.0.113.{n}")).await.status;
        assert_eq!(status, if n == 0 { 200 } else { 429 });
        assert_eq!(seen("10.0.0.1", &format!("203.0.113.{n}")).await.status, 200, "{n}: clients behind the proxy");
    }
    assert_eq!(seen("10.0.0.1", "203.0.113.1").await.status, 429);
    assert_eq!(seen("10.0.0.1", "1.1.1.1, 203.0.113.2").await.status, 429, "what the client put before counts nothing");
    let read = seen("10.0.0.1", "203.0.113.77").await;
    let events = backend.audit_of(read.header("x-request-id")).await;
    assert!(events[0].to_string().contains("203.0.113.77"), "the record has the client: {events:?}");
}

#[tokio::test]
async fn failed_logins_are_few_and_good_ones_do_not_count() {
    let app = limited(&[("rate_login_max", "3"), ("rate_free_addresses", "")]).await;
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    let login = async |browser: &mut Browser<'_>, password: &str| {
        let page = browser.open("/login").await;
        browser.submit(&page, "/login", &[("step", "login"), ("username", "adams"), ("password", password)]).await
    };
    for _ in 0..6 {
        assert!(login(&mut Browser::new(&app), PASSWORD).await.text().contains("Log out"));
    }
    for _ in 0..3 {
        assert_eq!(login(&mut Browser::new(&app), "Wrong-Lamp-4711").await.status, 401);
    }
    let reply = login(&mut Browser::new(&app), PASSWORD).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, "100"));
    assert!(reply.header("content-type").starts_with("text/html"), "{}", reply.header("content-type"));
    assert!(reply.text().contains("Too many failed logins"), "{}", reply.text());
    let mut other = Browser::new(&app);
    assert_eq!(other.open("/login").await.status, 200, "the page itself can be seen");
    app.pass(100);
    assert!(login(&mut other, PASSWORD).await.text().contains("Log out"));
}

#[tokio::test]
async fn refused_token_requests_are_few_and_good_ones_do_not_count() {
    let app = limited(&[("rate_token_failures_max", "2")]).await;
    let secret = app.client("app", ClientKind::ConfidentialSymmetric, "system/*.rs").await.unwrap();
    let ask = async |address: &str, path: &str, secret: &str| {
        let body = format!(
            "grant_type=client_credentials&client_id=app&client_secret={secret}&scope=system/Patient.rs&token=x"
        );
        app.from(address, "POST", path, &[FORM], &body).await
    };
    for _ in 0..5 {
        assert_eq!(ask(HERE, "/oauth/token", &secret).await.status, 200);
    }
    assert_eq!(ask(HERE, "/oauth/token", "wrong").await.status, 401);
    assert_eq!(ask(HERE, "/oauth/introspect", "wrong").await.status, 401);
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        let reply = ask(HERE, path, &secret).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "150"), "{path}: {}", reply.text());
        assert_eq!(reply.json()["error"], "temporarily_unavailable");
        assert_eq!((reply.header("content-type"), reply.header("cache-control")), ("application/json", "no-store"));
    }
    assert_eq!(ask(THERE, "/oauth/token", &secret).await.status, 200);
    app.pass(150);
    assert_eq!(ask(HERE, "/oauth/token", &secret).await.status, 200);
}

#[tokio::test]
async fn launches_have_a_limit_of_their_own() {
    let app = limited(&[("rate_launch_max", "2")]).await;
    app.client("app", ClientKind::Public, "launch/patient patient/*.rs").await;
    let request = app.authorize("app", "launch/patient patient/*.rs", &[]);
    let seen = [app.look(HERE, &request).await, app.look(HERE, &request).await, app.look(HERE, &request).await];
    assert_eq!(seen, [303, 303, 429]);
    let ehr = app.from(HERE, "POST", "/oauth/launch", &[("content-type", "application/json")], "{}").await;
    assert_eq!(ehr.status, 429, "by page or by an EHR");
    assert_eq!((app.look(HERE, "/login").await, app.look(THERE, &request).await), (200, 303));
}

#[tokio::test]
async fn a_person_and_a_client_have_theirs_wherever_they_are() {
    let app = limited(&[("rate_user_max", "2"), ("rate_client_max", "5")]).await;
    let backend = app.persona("system/*.cruds").await;
    assert_eq!(backend.put("Patient/p1", &patient("p1", "One")).await.status, 201);
    let one = app.person(Role::Patient, "Patient/p1", None, "patient/*.rs user/*.rs");
    let mut seen = Vec::new();
    for address in [HERE, THERE, "192.0.2.1"] {
        let bearer = format!("Bearer {}", one.token());
        seen.push(app.from(address, "GET", "/fhir/Patient/p1", &[("authorization", &bearer)], "").await.status);
    }
    assert_eq!(seen, [200, 200, 429]);
    // The client of `backend` has made one request; four more are free.
    let replies = [backend.get("Patient/p1").await, backend.get("Patient/p1").await];
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(backend.get("Patient/p1").await.status, 200);
    assert_eq!(backend.get("Patient/p1").await.status, 200);
    let reply = backend.get("Patient/p1").await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, "60"), "{}", reply.text());
    assert!(!reply.text().contains("One"));
    let auditor = app.persona("system/AuditEvent.rs").await;
    let events = on_record(&auditor).await;
    let of = |limit: &str| events.iter().filter(|event| event["entity"].to_string().contains(limit)).count();
    assert_eq!((events.len(), of("user"), of("client")), (2, 1, 1), "{events:?}");
}

#[tokio::test]
async fn a_known_client_loads_as_fast_as_it_can_and_nobody_borrows_its_name() {
    let settings = [("rate_address_max", "2"), ("rate_token_failures_max", "3"), ("rate_clients", "loader=0")];
    let app = limited(&settings).await;
    let secret = app.client("loader", ClientKind::ConfidentialSymmetric, "system/*.rs").await.unwrap();
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", "loader"),
        ("client_secret", &secret),
        ("scope", "system/*.rs"),
    ];
    let given = app.form("/oauth/token", &fields, None).await.json();
    let token = given["access_token"].as_str().unwrap();
    let loader = app.bearer(token);
    let bearer = format!("Bearer {}", loader.token());
    let load = async || app.from(HERE, "GET", "/fhir/Patient?_count=1", &[("authorization", &bearer)], "").await.status;
    for _ in 0..20 {
        assert_eq!(load().await, 200);
    }
    assert_eq!(app.look(HERE, "/fhir/metadata").await, 200, "and does not use up what others there have");
    let parts: Vec<&str> = loader.token().split('.').collect();
    let forged = format!("Bearer {}.{}.AAAA", parts[0], parts[1]);
    let lie = async || app.from(THERE, "GET", "/fhir/Patient", &[("authorization", &forged)], "").await.status;
    let seen = [lie().await, lie().await, lie().await, lie().await, lie().await];
    assert_eq!(seen, [401, 401, 401, 429, 429]);
    assert_eq!(load().await, 200);
    // Where no token is asked for, and where no data is, the name helps nobody.
    for (address, path) in [
        ("192.0.2.1", "/fhir/metadata"),
        ("192.0.2.2", "/login"),
        ("192.0.2.3", "/fhir/.well-known/smart-configuration"),
    ] {
        let lie = async || app.from(address, "GET", path, &[("authorization", &forged)], "").await.status;
        assert_eq!([lie().await, lie().await, lie().await], [200, 200, 429], "{path}");
    }
    let options =
        async || app.from("192.0.2.4", "OPTIONS", "/fhir/Patient", &[("authorization", &forged)], "").await.status;
    assert_eq!([options().await, options().await, options().await, options().await], [204, 204, 204, 429]);
}

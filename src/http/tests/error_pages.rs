//! What people see when something does not work: a page by status, with advice and the number of the request, and nothing of
//! the server's inside. Apps get errors in the form of their own protocols.

use axum::body::Body;
use axum::http::Request;

use super::browser::Browser;
use super::{Reply, TestApp};
use crate::access::Role;

async fn asked(app: &TestApp, request: axum::http::request::Builder, body: impl Into<Body>) -> Reply {
    app.send(request.header("accept", "text/html,*/*;q=0.8").body(body.into()).unwrap()).await
}

fn is_page(reply: &Reply, status: u16, title: &str) {
    let text = reply.text();
    assert_eq!(reply.status, status, "{text}");
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8", "{status}: {text}");
    assert!(text.contains(&format!("<h1>{title}</h1>")), "{status}: {text}");
    let number = reply.header("x-request-id");
    assert!(!number.is_empty() && text.contains(&format!("<code>{number}</code>")), "{status}: {text}");
    assert!(reply.header("content-security-policy").starts_with("default-src 'none'"), "{status}");
    assert!(
        text.contains("lang=\"en\"") && text.contains("role=\"alert\"") && text.contains("class=\"button"),
        "{text}"
    );
}

#[tokio::test]
async fn each_status_has_a_page_that_says_what_to_do() {
    let app = TestApp::with(&[("rate_launch_max", "1"), ("rate_free_addresses", "")]).await;
    let form = "application/x-www-form-urlencoded";
    is_page(&asked(&app, Request::get("/oauth/authorize?client_id=x"), "").await, 400, "This did not work");
    let late = asked(&app, Request::get("/oauth/authorize?client_id=x"), "").await;
    is_page(&late, 429, "Too many attempts");
    assert!(!late.header("retry-after").is_empty());
    is_page(
        &asked(&app, Request::post("/login").header("content-type", form), "step=login").await,
        403,
        "This is not open to you",
    );
    is_page(&asked(&app, Request::get("/no/such/page"), "").await, 404, "There is nothing here");
    is_page(&asked(&app, Request::get("/login/with/nobody"), "").await, 429, "Too many attempts");
    let wrong = asked(&app, Request::delete("/account"), "").await;
    is_page(&wrong, 405, "That does not work at this address");
    assert_eq!(wrong.header("allow"), "GET, POST");
    let long = "x".repeat(70_000);
    is_page(&asked(&app, Request::post("/login").header("content-type", form), long).await, 413, "That was too much");
    is_page(&asked(&app, Request::get(format!("/account?{}", "x".repeat(33_000))), "").await, 414, "That was too much");
    is_page(
        &asked(&app, Request::post("/login").header("content-type", "text/plain"), "x").await,
        415,
        "That cannot be read",
    );
    let all: Vec<Reply> = vec![wrong, late];
    assert!(all.iter().all(|page| !page.text().contains("Kind") && !page.text().contains("src/")));
}

#[tokio::test]
async fn a_fault_of_the_server_tells_nothing_of_its_inside() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let mut nurse = Browser::new(&app);
    let page = nurse.open("/account").await;
    nurse.login(&page, "nurse").await;
    // Somebody has altered what is kept of the user.
    let store = &app.app().store;
    for (key, mut sealed) in store.kv_list("oauth-user").await.unwrap() {
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        store.kv_put("oauth-user", &key, &sealed).await.unwrap();
    }
    let broken = nurse.get("/account").await;
    is_page(&broken, 500, "Something went wrong on our side");
    for inside in ["integrity", "tampered", "oauth", "seal", "kv"] {
        assert!(!broken.text().contains(inside), "{inside}: {}", broken.text());
    }
}

#[tokio::test]
async fn a_server_that_has_too_much_to_do_says_so_to_people_in_a_page() {
    let app = TestApp::with(&[("requests_max", "1"), ("queue_max", "1")]).await;
    // One request holds the only place, as its body does not come; one waits; the third is turned away.
    let slow = || {
        let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        Request::post("/login").header("content-type", "application/x-www-form-urlencoded").body(never).unwrap()
    };
    let server = app.server();
    let first = tokio::spawn(server.clone().serve(slow()));
    let second = tokio::spawn(server.clone().serve(slow()));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    is_page(&asked(&app, Request::get("/login"), "").await, 503, "The server cannot do this now");
    let fhir = asked(&app, Request::get("/fhir/metadata"), "").await;
    assert_eq!((fhir.status, fhir.json()["resourceType"].as_str()), (503, Some("OperationOutcome")));
    first.abort();
    second.abort();
}

#[tokio::test]
async fn apps_get_errors_in_their_own_form_whatever_they_accept() {
    let app = TestApp::new().await;
    for (request, status, kind) in [
        (Request::get("/fhir/Patient/1"), 401, "application/fhir+json"),
        (Request::get("/fhir/Nothing/1"), 401, "application/fhir+json"),
        (Request::post("/oauth/token"), 415, "application/json"),
        (Request::get("/oauth/token"), 405, "text/plain"),
        (Request::delete("/oauth/jwks"), 405, "text/plain"),
        (Request::delete("/style.css"), 405, "text/plain; charset=utf-8"),
    ] {
        let reply = asked(&app, request, "").await;
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(reply.header("content-type").starts_with(kind), "{status}: {}", reply.header("content-type"));
    }
    let form = Request::post("/oauth/token").header("content-type", "application/x-www-form-urlencoded");
    let token = asked(&app, form, "grant_type=none").await;
    assert!(token.header("content-type").starts_with("application/json") && token.json()["error"].is_string());
    // What is no address at all is told to apps as before.
    let request = Request::get("/no/such/page").header("accept", "application/json").body(Body::empty()).unwrap();
    let reply = app.send(request).await;
    assert_eq!((reply.status, reply.json()["resourceType"].as_str()), (404, Some("OperationOutcome")));
}

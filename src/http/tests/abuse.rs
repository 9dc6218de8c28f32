//! What goes wrong on purpose: attacks on login, authorization and tokens, each of which must come to nothing.

use super::browser::{Browser, PASSWORD, REDIRECT, VERIFIER, parameter};
use super::patient;
use super::{TestApp, on_both};
use crate::access::Role;
use crate::oauth::ClientKind;

on_both![
    a_code_is_for_one_client_one_address_one_verifier_and_one_use,
    a_refresh_token_counts_once_and_never_widens,
    guessing_is_slowed_down_alike_for_all_names,
    forms_and_cookies_of_others_do_nothing,
    a_disabled_or_changed_user_loses_everything_at_once,
];

const SCOPE: &str = "launch/patient openid fhirUser offline_access patient/*.rs";

async fn clinic() -> TestApp {
    let app = TestApp::new().await;
    let writer = app.persona("system/*.cruds").await;
    assert_eq!(writer.put("Patient/p1", &patient("p1", "Adams")).await.status, 201);
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    app.client("app", ClientKind::Public, SCOPE).await;
    app.client("other", ClientKind::Public, SCOPE).await;
    app
}

#[tokio::test]
async fn requests_that_could_lead_astray_are_stopped() {
    let app = clinic().await;
    let mut browser = Browser::new(&app);
    // Where the client cannot be trusted, the browser is sent nowhere.
    for (name, value) in [
        ("client_id", Some("nobody")),
        ("client_id", None),
        ("redirect_uri", None),
        ("redirect_uri", Some("https://evil.example/cb")),
        ("redirect_uri", Some("https://app.example/cb/")),
        ("redirect_uri", Some("https://app.example/cb?x=1")),
        ("redirect_uri", Some("https://app.example/cb/../evil")),
        ("redirect_uri", Some("https://app.example.evil.example/cb")),
        ("redirect_uri", Some("https://app.example@evil.example/cb")),
        ("redirect_uri", Some("HTTPS://APP.EXAMPLE/cb")),
        ("redirect_uri", Some("javascript:alert(1)")),
    ] {
        let reply = browser.get(&app.authorize("app", SCOPE, &[(name, value)])).await;
        assert_eq!((reply.status, reply.header("location")), (400, ""), "{name} {value:?}");
    }
    let doubled = format!("{}&redirect_uri=https%3A%2F%2Fevil.example", app.authorize("app", SCOPE, &[]));
    assert_eq!(browser.get(&doubled).await.status, 400, "a parameter twice");
    // Everything else is told to the client.
    let error = |name: &'static str, value: Option<&'static str>, error: &'static str| (name, value, error);
    for (name, value, expected) in [
        error("response_type", Some("token"), "unsupported_response_type"),
        error("response_type", Some("code id_token"), "unsupported_response_type"),
        error("response_type", None, "invalid_request"),
        error("response_mode", Some("fragment"), "invalid_request"),
        error("aud", Some("https://evil.example/fhir"), "invalid_request"),
        error("aud", None, "invalid_request"),
        error("state", None, "invalid_request"),
        error("code_challenge", None, "invalid_request"),
        error("code_challenge", Some("short"), "invalid_request"),
        error("code_challenge_method", Some("plain"), "invalid_request"),
        error("code_challenge_method", None, "invalid_request"),
        error("scope", Some("system/*.rs"), "invalid_scope"),
        error("scope", Some(""), "invalid_scope"),
        error("launch", Some("made-up"), "invalid_request"),
        error("request", Some("eyJ"), "request_not_supported"),
        error("request_uri", Some("https://evil.example"), "request_uri_not_supported"),
        error("prompt", Some("none"), "login_required"),
    ] {
        let mut reply = browser.get(&app.authorize("app", SCOPE, &[(name, value)])).await;
        if expected == "login_required" {
            let on = reply.header("location").to_owned();
            reply = browser.get(&on).await;
        }
        let to = reply.header("location");
        assert!(reply.status == 302 && to.starts_with(REDIRECT), "{name} {value:?}: {} {to}", reply.status);
        assert_eq!(parameter(to, "error").as_deref(), Some(expected), "{name} {value:?}");
        assert_eq!(parameter(to, "iss").as_deref(), Some("http://phial.test"), "mix-up: who answers is said");
        assert!(parameter(to, "code").is_none());
    }
}

async fn a_code_is_for_one_client_one_address_one_verifier_and_one_use() {
    let app = clinic().await;
    let redeem = |client: &'static str, code: String, redirect: &'static str, verifier: Option<&'static str>| {
        let app = &app;
        async move {
            let mut fields = vec![
                ("grant_type", "authorization_code"),
                ("client_id", client),
                ("code", code.as_str()),
                ("redirect_uri", redirect),
            ];
            fields.extend(verifier.map(|verifier| ("code_verifier", verifier)));
            let reply = app.form("/oauth/token", &fields, None).await;
            let error = reply.json()["error"].as_str().unwrap_or_default().to_owned();
            (reply.status, error)
        }
    };
    let code = app.code("app", "adams", SCOPE, None).await;
    let challenge = super::browser::CHALLENGE;
    for (client, redirect, verifier, status, error) in [
        ("other", REDIRECT, Some(VERIFIER), 400, "invalid_grant"),
        ("nobody", REDIRECT, Some(VERIFIER), 401, "invalid_client"),
        ("app", "https://app.example/other", Some(VERIFIER), 400, "invalid_grant"),
        ("app", REDIRECT, None, 400, "invalid_request"),
        ("app", REDIRECT, Some(""), 400, "invalid_request"),
        ("app", REDIRECT, Some(challenge), 400, "invalid_grant"),
        ("app", REDIRECT, Some("wrong-wrong-wrong-wrong-wrong-wrong-wrong-wrong"), 400, "invalid_grant"),
    ] {
        let given = redeem(client, code.clone(), redirect, verifier).await;
        assert_eq!(given, (status, error.to_owned()), "{client} {redirect} {verifier:?}");
    }
    assert_eq!(redeem("app", "made-up".into(), REDIRECT, Some(VERIFIER)).await.1, "invalid_grant");
    let first = app.redeem("app", &code).await.json();
    let token = first["access_token"].as_str().unwrap();
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 200);
    assert_eq!(app.redeem("app", &code).await.status, 400, "a second use");
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 401, "ends what the first gave");
    assert_eq!(app.refresh("app", first["refresh_token"].as_str().unwrap()).await.status, 400);
    let old = app.code("app", "adams", SCOPE, None).await;
    app.pass(61);
    assert_eq!(app.redeem("app", &old).await.status, 400, "an old code");
}

async fn a_refresh_token_counts_once_and_never_widens() {
    let app = clinic().await;
    let first = app.launched("app", "adams", SCOPE, None).await;
    let refresh = first["refresh_token"].as_str().unwrap().to_owned();
    let with_scope = |client: &'static str, token: String, scope: &'static str| {
        let app = &app;
        async move {
            let fields =
                [("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", &token), ("scope", scope)];
            app.form("/oauth/token", &fields, None).await
        }
    };
    for wider in ["patient/*.cruds", "user/*.rs", "system/*.rs", "patient/*.rs online_access"] {
        let reply = with_scope("app", refresh.clone(), wider).await;
        assert_eq!(reply.json()["error"], "invalid_scope", "{wider}");
    }
    assert_eq!(app.refresh("other", &refresh).await.json()["error"], "invalid_grant", "another client");
    let narrow = with_scope("app", refresh.clone(), "patient/Observation.rs").await.json();
    assert_eq!(narrow["scope"], "patient/Observation.rs");
    let token = narrow["access_token"].as_str().unwrap();
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 403, "the narrower token is narrower");
    let next = narrow["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(app.refresh("app", &refresh).await.json()["error"], "invalid_grant", "a second use");
    assert_eq!(app.refresh("app", &next).await.json()["error"], "invalid_grant", "ends its successor");
    assert_eq!(app.fhir(token, "Observation?_summary=count").await.status, 401, "and the tokens");
}

async fn guessing_is_slowed_down_alike_for_all_names() {
    let app = clinic().await;
    for name in ["adams", "nobody"] {
        let mut browser = Browser::new(&app);
        let page = browser.open("/login").await;
        let mut said = Vec::new();
        for _ in 0..6 {
            let fields = [("step", "login"), ("username", name), ("password", "Wrong-Lamp-4711")];
            let reply = browser.submit(&page, "/login", &fields).await;
            said.push(reply.status);
        }
        assert_eq!(said, [401, 401, 401, 401, 401, 429], "{name}");
        let right = [("step", "login"), ("username", name), ("password", PASSWORD)];
        let reply = browser.submit(&page, "/login", &right).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "31"), "{name}: locked, whatever the password");
        app.pass(32);
        let reply = browser.submit(&page, "/login", &right).await;
        assert_eq!(reply.text().contains("Log out"), name == "adams", "{name}: the wait is over");
    }
}

#[tokio::test]
async fn good_logins_use_up_nothing_of_their_address() {
    let app = clinic().await;
    let try_as = |name: String, password: &'static str| {
        let app = &app;
        async move {
            let mut browser = Browser::new(app);
            let page = browser.open("/login").await;
            let fields = [("step", "login"), ("username", name.as_str()), ("password", password)];
            browser.submit(&page, "/login", &fields).await.status
        }
    };
    for n in 0..49 {
        assert_eq!(try_as(format!("nobody{n}"), "Wrong-Lamp-4711").await, 401, "{n}");
    }
    for n in 0..3 {
        assert_eq!(try_as("adams".into(), PASSWORD).await, 200, "{n}: a whole hospital may be behind one address");
    }
    assert_eq!(try_as("nobody50".into(), "Wrong-Lamp-4711").await, 401);
    assert_eq!(try_as("adams".into(), PASSWORD).await, 429, "fifty failures");
    app.pass(31);
    assert_eq!(try_as("adams".into(), PASSWORD).await, 200);
}

async fn forms_and_cookies_of_others_do_nothing() {
    let app = clinic().await;
    let mut browser = Browser::new(&app);
    let page = browser.open("/login").await;
    let anonymous = browser.cookie.clone().unwrap();
    let fields = [("step", "login"), ("username", "adams"), ("password", PASSWORD)];
    // Without the token, and with that of another browser.
    assert_eq!(browser.post("/login", &fields).await.status, 403);
    let mut thief = Browser::new(&app);
    let theirs = thief.open("/login").await;
    assert_eq!(browser.submit(&theirs, "/login", &fields).await.status, 403);
    let home = browser.submit(&page, "/login", &fields).await;
    assert!(home.text().contains("Log out"), "{}", home.text());
    // Fixation: the cookie of before the login is not the session.
    assert_ne!(browser.cookie.as_ref(), Some(&anonymous));
    let mut fixed = Browser { app: &app, cookie: Some(anonymous) };
    assert_eq!(fixed.get("/account").await.status, 303);
    // A decision cannot be sent in from elsewhere.
    let page = browser.open(&app.authorize("app", SCOPE, &[])).await;
    let request = page.text().split("name=\"request\" value=\"").nth(1).unwrap()[..43].to_owned();
    let forged = [("decision", "allow"), ("request", request.as_str()), ("s4", "all")];
    assert_eq!(browser.post("/oauth/decide", &forged).await.status, 403);
    let reply = browser.submit(&page, "/oauth/decide", &[("decision", "deny")]).await;
    assert_eq!(parameter(reply.header("location"), "error").as_deref(), Some("access_denied"));
    let reply = browser.submit(&page, "/oauth/decide", &[("decision", "allow"), ("s4", "all")]).await;
    assert_eq!(reply.status, 400, "decided once");
    // Idle and absolute ends.
    app.pass(1801);
    assert_eq!(browser.get("/account").await.status, 303);
}

async fn a_disabled_or_changed_user_loses_everything_at_once() {
    let app = clinic().await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 200);
    app.pass(1);
    assert!(app.app().oauth.users().disable("adams").await.unwrap());
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 401);
    assert_eq!(app.refresh("app", answer["refresh_token"].as_str().unwrap()).await.status, 400);
    let mut browser = Browser::new(&app);
    let page = browser.open("/login").await;
    let fields = [("step", "login"), ("username", "adams"), ("password", PASSWORD)];
    assert_eq!(browser.submit(&page, "/login", &fields).await.status, 401);
}

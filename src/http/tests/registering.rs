//! Apps that register themselves (RFC 7591, RFC 7592), and what an administrator has to say about it.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::browser::{Browser, CHALLENGE};
use super::{Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::error::Kind;

on_both![
    a_registration_waits_for_an_administrator_and_counts_for_nothing_until_then,
    a_rejected_registration_is_gone_and_one_that_nobody_looks_at_ends,
    with_tokens_each_registers_one_app,
    a_change_of_what_was_approved_waits_and_the_rest_counts_at_once,
    what_is_no_change_is_refused_and_an_end_is_one_of_all,
    a_confidential_app_keeps_its_secret_and_a_refresh_gives_no_more_than_is_registered,
];

fn app_of_somebody() -> Value {
    json!({
        "client_name": "Growth chart", "redirect_uris": ["https://app.example/cb"],
        "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
        "scope": "launch/patient patient/*.rs", "contacts": ["dev@app.example"],
    })
}

async fn send(app: &TestApp, method: &str, path: &str, bearer: Option<&str>, body: String) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    app.send(request.body(Body::from(body)).unwrap()).await
}

async fn register(app: &TestApp, metadata: &Value, bearer: Option<&str>) -> Reply {
    send(app, "POST", "/oauth/register", bearer, metadata.to_string()).await
}

fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("{name} in {answer}")).to_owned()
}

async fn discovered(app: &TestApp) -> [Value; 2] {
    let mut browser = Browser::new(app);
    let smart = browser.get("/fhir/.well-known/smart-configuration").await.json();
    [smart, browser.get("/.well-known/openid-configuration").await.json()]
}

/// The page of apps, as an administrator sees it.
async fn office_page(app: &TestApp) -> String {
    app.user("boss", Role::Admin, None).await;
    let mut boss = Browser::new(app);
    let page = boss.open("/admin/users").await;
    boss.login(&page, "boss").await;
    boss.get("/admin/clients").await.text()
}

#[tokio::test]
async fn registration_is_off_unless_it_is_turned_on() {
    let app = TestApp::new().await;
    assert_eq!(register(&app, &app_of_somebody(), None).await.status, 404);
    assert_eq!(send(&app, "GET", "/oauth/register/x", Some("x"), String::new()).await.status, 404);
    for document in discovered(&app).await {
        assert!(document.get("registration_endpoint").is_none());
    }
    let app = TestApp::with(&[("client_registration", "open")]).await;
    for document in discovered(&app).await {
        assert_eq!(document["registration_endpoint"], "http://phial.test/oauth/register");
    }
}

async fn a_registration_waits_for_an_administrator_and_counts_for_nothing_until_then() {
    let app = TestApp::with(&[("client_registration", "open")]).await;
    let office = app.persona("system/*.cruds").await;
    assert_eq!(office.put("Patient/p1", &patient("p1", "Adams")).await.status, 201);
    app.user("adams", Role::Patient, Some("Patient/p1")).await;

    let reply = register(&app, &app_of_somebody(), None).await;
    let answer = reply.json();
    assert_eq!((reply.status, reply.header("cache-control")), (201, "no-store"), "{answer}");
    let (id, own) = (text(&answer, "client_id"), text(&answer, "registration_access_token"));
    assert_eq!(
        (&answer["contacts"][0], &answer["scope"]),
        (&json!("dev@app.example"), &json!("launch/patient patient/*.rs"))
    );
    assert!(answer["client_id_issued_at"].as_i64().unwrap() > 0 && answer.get("client_secret").is_none());
    let audit = office.audit_of(reply.header("x-request-id")).await;
    assert!(json!(audit).to_string().contains(&id) && !json!(audit).to_string().contains(&own), "{audit:?}");

    let scope = "launch/patient patient/*.rs";
    let begin = app.authorize(&id, scope, &[]);
    assert!(begin.contains(CHALLENGE));
    assert_eq!(Browser::new(&app).get(&begin).await.status, 400, "as if there were no such client");
    let refresh = app.refresh(&id, "r1.a.1.b").await;
    assert_eq!(text(&refresh.json(), "error"), "invalid_client");

    // Its own view of it, with its own token alone.
    let uri = text(&answer, "registration_client_uri");
    let uri = uri.strip_prefix("http://phial.test").unwrap();
    let mine = send(&app, "GET", uri, Some(&own), String::new()).await;
    assert_eq!((mine.status, &mine.json()["client_name"]), (200, &json!("Growth chart")));
    assert_eq!(text(&mine.json(), "registration_access_token"), own, "as RFC 7592 asks: it stays the same");
    for wrong in [None, Some("x"), Some(id.as_str())] {
        let reply = send(&app, "GET", uri, wrong, String::new()).await;
        assert_eq!(reply.status, 401);
        assert!(reply.header("www-authenticate").contains("invalid_token"), "{:?}", reply.headers);
    }
    assert_eq!(send(&app, "PATCH", uri, Some(&own), String::new()).await.status, 405);

    let clients = app.app().oauth.clients();
    assert_eq!(clients.pending().await.unwrap().len(), 1);
    assert!(!clients.approve("nobody", None).await.unwrap());
    assert!(clients.approve(&id, None).await.unwrap());
    assert_eq!(clients.pending().await.unwrap().len(), 0);
    let launched = app.launched(&id, "adams", scope, None).await;
    let token = text(&launched, "access_token");
    assert_eq!(app.fhir(&token, "Patient/p1").await.status, 200);

    // Who holds the registration ends it, and all that it was given.
    assert_eq!(send(&app, "DELETE", uri, Some("x"), String::new()).await.status, 401);
    assert_eq!(app.fhir(&token, "Patient/p1").await.status, 200);
    assert_eq!(send(&app, "DELETE", uri, Some(&own), String::new()).await.status, 204);
    assert_eq!(app.fhir(&token, "Patient/p1").await.status, 401);
    assert_eq!(send(&app, "GET", uri, Some(&own), String::new()).await.status, 401);
    assert_eq!(Browser::new(&app).get(&begin).await.status, 400);
}

async fn a_rejected_registration_is_gone_and_one_that_nobody_looks_at_ends() {
    let app = TestApp::with(&[("client_registration", "open")]).await;
    let clients = app.app().oauth.clients();
    let rejected = text(&register(&app, &app_of_somebody(), None).await.json(), "client_id");
    assert!(clients.reject(&rejected).await.unwrap() && !clients.approve(&rejected, None).await.unwrap());
    let forgotten = text(&register(&app, &app_of_somebody(), None).await.json(), "client_id");
    app.pass(31 * 24 * 3600);
    assert!(!clients.approve(&forgotten, None).await.unwrap());
    for id in [rejected, forgotten] {
        assert!(clients.get(&id).await.unwrap().is_none());
    }
}

async fn a_change_of_what_was_approved_waits_and_the_rest_counts_at_once() {
    let app = TestApp::with(&[("client_registration", "open")]).await;
    let office = app.persona("system/*.cruds").await;
    assert_eq!(office.put("Patient/p1", &patient("p1", "Adams")).await.status, 201);
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    let clients = app.app().oauth.clients();
    let answer = register(&app, &app_of_somebody(), None).await.json();
    let (id, own) = (text(&answer, "client_id"), text(&answer, "registration_access_token"));
    let uri = text(&answer, "registration_client_uri");
    let uri = uri.strip_prefix("http://phial.test").unwrap();
    let change = |member: &'static str, value: Value| {
        let mut asked = app_of_somebody();
        asked["client_id"] = json!(id);
        asked[member] = value;
        let (app, own) = (&app, &own);
        async move { send(app, "PUT", uri, Some(own), asked.to_string()).await }
    };
    let read = || async { send(&app, "GET", uri, Some(&own), String::new()).await.json() };
    // Before it is approved: what waits is replaced, and there is still one.
    let reply = change("client_name", json!("Growth chart 2")).await;
    assert_eq!(
        (reply.status, text(&reply.json(), "registration_access_token")),
        (200, own.clone()),
        "{}",
        reply.text()
    );
    let waiting = clients.pending().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].name.as_str()), (1, "Growth chart 2"));
    let looked_at = clients.waiting().await.unwrap();
    assert!(!looked_at[0].is_change && looked_at[0].changes.iter().any(|one| one.what == "redirect_uris"), "a new one");
    // Asked for between look and decision: nobody has approved that.
    change("redirect_uris", json!(["https://evil.example/cb"])).await;
    let refused = clients.approve(&id, Some(&looked_at[0].seen)).await.map_err(|error| error.kind);
    assert_eq!(refused, Err(Kind::Conflict));
    change("client_name", json!("Growth chart 2")).await;
    let looked_at = clients.waiting().await.unwrap();
    assert!(clients.approve(&id, Some(&looked_at[0].seen)).await.unwrap());
    change("client_name", json!("Growth chart")).await;
    assert!(clients.approve(&id, None).await.unwrap());
    let scope = "launch/patient patient/*.rs";
    let begin = |redirect: &'static str| app.authorize(&id, scope, &[("redirect_uri", Some(redirect))]);
    let app_of = &app;
    let status = |at: String| async move { Browser::new(app_of).get(&at).await.status };

    // Whom to ask is nothing that was approved.
    assert_eq!(change("contacts", json!(["new@app.example"])).await.status, 200);
    assert_eq!((clients.pending().await.unwrap().len(), &read().await["contacts"][0]), (0, &json!("new@app.example")));
    // Everything else is: what was approved counts on meanwhile.
    let (old, new) = ("https://app.example/cb", "https://evil.example/cb");
    for (member, value) in [
        ("client_name", json!("Your hospital")),
        ("scope", json!("launch/patient patient/*.cruds")),
        ("scope", json!("launch/patient patient/Patient.rs")),
        ("initiate_login_uri", json!("https://evil.example/launch")),
        ("token_endpoint_auth_method", json!("client_secret_basic")),
        ("redirect_uris", json!([old, new])),
    ] {
        let reply = change(member, value.clone()).await;
        assert_eq!((reply.status, &reply.json()[member]), (200, &value), "{}", reply.text());
        assert_eq!((clients.pending().await.unwrap().len(), &read().await[member]), (1, &value), "{member}");
    }
    assert!(status(begin(old)).await < 400 && status(begin(new)).await == 400);
    let launched = app.launched(&id, "adams", scope, None).await;
    assert_eq!(app.fhir(&text(&launched, "access_token"), "Patient/p1").await.status, 200);
    let what_waits = clients.waiting().await.unwrap();
    let changes = &what_waits[0].changes;
    assert!(what_waits[0].is_change);
    assert_eq!((changes.len(), changes[0].what), (1, "redirect_uris"));
    assert_eq!(
        (&changes[0].old[..], &changes[0].new[..]),
        (&[old.to_owned()][..], &[old.to_owned(), new.to_owned()][..])
    );
    let page = office_page(&app).await;
    assert!(
        page.contains("change of a registered app") && page.contains("<ins><code>https:&#x2f;&#x2f;evil"),
        "{page}"
    );
    assert!(page.contains(&format!("name=\"seen\" value=\"{}\"", what_waits[0].seen)), "{page}");
    // Turned away, all is as it was; approved, it counts.
    assert!(clients.reject(&id).await.unwrap());
    assert_eq!(read().await["redirect_uris"], json!([old]));
    assert_eq!(change("redirect_uris", json!([new])).await.status, 200);
    assert!(clients.approve(&id, None).await.unwrap());
    assert!(status(begin(new)).await < 400 && status(begin(old)).await == 400);

    assert_eq!(clients.pending().await.unwrap().len(), 0);
}

async fn what_is_no_change_is_refused_and_an_end_is_one_of_all() {
    let app = TestApp::with(&[("client_registration", "open")]).await;
    let clients = app.app().oauth.clients();
    let answer = register(&app, &app_of_somebody(), None).await.json();
    let (id, own) = (text(&answer, "client_id"), text(&answer, "registration_access_token"));
    let uri = format!("/oauth/register/{id}");
    assert!(clients.approve(&id, None).await.unwrap());
    let change = |member: &'static str, value: Value| {
        let mut asked = app_of_somebody();
        asked["client_id"] = json!(id);
        asked[member] = value;
        let (app, uri, own) = (&app, &uri, &own);
        async move { send(app, "PUT", uri, Some(own), asked.to_string()).await }
    };
    let keys = json!({"keys": [crate::oauth::SigningKey::generate().unwrap().public_jwk()]});
    for (member, value) in [
        ("client_id", json!("other")),
        ("client_id", json!(null)),
        ("client_secret", json!("mine")),
        ("registration_access_token", json!(own)),
        ("client_id_issued_at", json!(1)),
        ("jwks", keys),
        ("redirect_uris", json!([])),
    ] {
        let reply = change(member, value).await;
        assert_eq!(reply.status, 400, "{member}: {}", reply.text());
    }
    assert_eq!(send(&app, "PUT", &uri, Some("x"), app_of_somebody().to_string()).await.status, 401);
    assert_eq!(clients.pending().await.unwrap().len(), 0);
    // Ended while a change waits: neither is left. Disabled: not the app's any more.
    change("client_name", json!("Another")).await;
    assert!(clients.disable(&id).await.unwrap());
    assert_eq!(change("client_name", json!("Third")).await.status, 401);
    assert!(clients.enable(&id).await.unwrap());
    assert_eq!(send(&app, "DELETE", &uri, Some(&own), String::new()).await.status, 204);
    assert!(clients.pending().await.unwrap().is_empty() && clients.get(&id).await.unwrap().is_none());
}

async fn a_confidential_app_keeps_its_secret_and_a_refresh_gives_no_more_than_is_registered() {
    let app = TestApp::with(&[("client_registration", "open")]).await;
    let office = app.persona("system/*.cruds").await;
    assert_eq!(office.put("Patient/p1", &patient("p1", "Adams")).await.status, 201);
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    let clients = app.app().oauth.clients();
    let mut asked = app_of_somebody();
    asked["scope"] = json!("launch/patient offline_access patient/Patient.rs patient/Observation.rs");
    let answer = register(&app, &asked, None).await.json();
    let (id, own) = (text(&answer, "client_id"), text(&answer, "registration_access_token"));
    assert!(clients.approve(&id, None).await.unwrap());
    let launched = app.launched(&id, "adams", asked["scope"].as_str().unwrap(), None).await;
    let uri = format!("/oauth/register/{id}");
    asked["client_id"] = json!(id);
    asked["scope"] = json!("launch/patient offline_access patient/Patient.rs");
    assert_eq!(send(&app, "PUT", &uri, Some(&own), asked.to_string()).await.status, 200);
    assert!(clients.approve(&id, None).await.unwrap());
    let refreshed = app.refresh(&id, &text(&launched, "refresh_token")).await.json();
    assert_eq!(refreshed["scope"], "launch/patient offline_access patient/Patient.rs");
    // Now with a secret: a new one, which counts when it is approved, and stays.
    asked["token_endpoint_auth_method"] = json!("client_secret_post");
    let answer = send(&app, "PUT", &uri, Some(&own), asked.to_string()).await.json();
    let secret = text(&answer, "client_secret");
    assert!(clients.approve(&id, None).await.unwrap());
    asked["client_secret"] = json!(secret);
    asked["contacts"] = json!(["new@app.example"]);
    let answer = send(&app, "PUT", &uri, Some(&own), asked.to_string()).await.json();
    assert!(answer["contacts"][0] == "new@app.example" && answer.get("client_secret").is_none(), "{answer}");
    let with = |secret: &str| {
        let form = [
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", id.clone()),
            ("client_secret", secret.to_owned()),
            ("refresh_token", text(&refreshed, "refresh_token")),
        ];
        let app = &app;
        async move {
            let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            app.form("/oauth/token", &form, None).await.status
        }
    };
    assert_eq!((with("x").await, with(&secret).await), (401, 200));
}

async fn with_tokens_each_registers_one_app() {
    let app = TestApp::with(&[("client_registration", "token")]).await;
    let clients = app.app().oauth.clients();
    let token = clients.registration_token().await.unwrap();
    for (bearer, status) in [(None, 401), (Some("made-up"), 401)] {
        let reply = register(&app, &app_of_somebody(), bearer).await;
        assert_eq!((reply.status, text(&reply.json(), "error")), (status, "invalid_token".to_owned()));
    }
    let faulty = json!({"redirect_uris": ["https://app.example/cb"]});
    assert_eq!(register(&app, &faulty, Some(&token)).await.status, 400, "a slip does not use it up");
    let secret = json!({
        "redirect_uris": ["https://app.example/cb"], "scope": "system/Patient.rs user/Patient.rs",
        "grant_types": ["authorization_code", "client_credentials"],
    });
    let answer = register(&app, &secret, Some(&token)).await.json();
    assert_eq!(register(&app, &secret, Some(&token)).await.status, 401, "once");
    let (id, secret) = (text(&answer, "client_id"), text(&answer, "client_secret"));
    assert_eq!(answer["client_secret_expires_at"], 0);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", id.as_str()),
        ("client_secret", secret.as_str()),
        ("scope", "system/Patient.rs"),
    ];
    assert_eq!(app.form("/oauth/token", &form, None).await.status, 401, "it waits");
    assert!(clients.approve(&id, None).await.unwrap());
    assert_eq!(app.form("/oauth/token", &form, None).await.status, 200);

    let old = clients.registration_token().await.unwrap();
    app.pass(8 * 24 * 3600);
    assert_eq!(register(&app, &app_of_somebody(), Some(&old)).await.status, 401, "a week");
}

#[tokio::test]
async fn what_is_not_metadata_is_refused_and_too_many_wait() {
    let app = TestApp::with(&[("client_registration", "open")]).await;
    for (change, error) in [
        (json!({"redirect_uris": ["http://app.example/cb"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["https://app.example/#x"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": []}), "invalid_redirect_uri"),
        (json!({"scope": "patient/Patient.rs?nonsense=1"}), "invalid_client_metadata"),
        (json!({"token_endpoint_auth_method": "private_key_jwt"}), "invalid_client_metadata"),
        (json!({"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}}), "invalid_client_metadata"),
        (
            json!({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://a.example/"}),
            "invalid_client_metadata",
        ),
        (json!({"jwks_uri": "https://app.example/jwks"}), "invalid_client_metadata"),
        (json!({"software_statement": "eyJ"}), "unapproved_software_statement"),
    ] {
        let mut asked = app_of_somebody();
        for (name, value) in change.as_object().unwrap() {
            asked[name] = value.clone();
        }
        let reply = register(&app, &asked, None).await;
        assert_eq!((reply.status, text(&reply.json(), "error")), (400, error.to_owned()), "{change}");
    }
    for broken in ["", "[]", "{\"a\":1,\"a\":2}", "{"] {
        let reply = send(&app, "POST", "/oauth/register", None, broken.to_owned()).await;
        assert_eq!(reply.status, 400, "{broken}: {}", reply.text());
    }
    let clients = app.app().oauth.clients();
    assert_eq!(clients.pending().await.unwrap().len(), 0);
    for _ in 0..crate::oauth::registration::PENDING_OF_ADDRESS_MAX {
        assert_eq!(register(&app, &app_of_somebody(), None).await.status, 201);
    }
    assert_eq!(register(&app, &app_of_somebody(), None).await.status, 429, "of one address");
    app.pass(3601);
    assert_eq!(register(&app, &app_of_somebody(), None).await.status, 201, "an hour later");
}

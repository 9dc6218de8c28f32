//! Attacks on the token endpoint, its neighbours and the tokens themselves. `conformance/smart/attacks.md` lists what each
//! proves.

use axum::body::Body;
use axum::http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::browser::{Browser, REDIRECT, VERIFIER, parameter};
use super::{Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::oauth::{ClientKind, Registration, SigningKey};

on_both![an_app_that_is_disabled_has_nothing_any_more, launch_handles_are_for_their_app_and_user_and_moment,];

const SCOPE: &str = "launch/patient openid fhirUser offline_access patient/*.rs";

async fn clinic() -> TestApp {
    let app = TestApp::new().await;
    let writer = app.persona("system/*.cruds").await;
    for id in ["p1", "p2"] {
        assert_eq!(writer.put(&format!("Patient/{id}"), &patient(id, "Adams")).await.status, 201);
    }
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    app.client("app", ClientKind::Public, SCOPE).await;
    app
}

fn text<'v>(answer: &'v Value, name: &str) -> &'v str {
    answer[name].as_str().unwrap_or_else(|| panic!("{name} in {answer}"))
}

fn basic(id: &str, secret: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}

async fn send(app: &TestApp, request: axum::http::request::Builder, body: &str) -> Reply {
    app.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn a_token_counts_in_the_authorization_header_alone() {
    let app = clinic().await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 200);
    for path in [format!("Patient/p1?access_token={token}"), format!("Patient?_id=p1&access_token={token}")] {
        let reply = send(&app, Request::get(format!("/fhir/{path}")), "").await;
        assert_eq!(reply.status, 401, "{path}");
        assert!(!reply.text().contains(token), "{path}");
        // And where there is a good one too, the query is not silently dropped.
        assert_eq!(app.fhir(token, &path).await.status, 400, "{path}");
    }
    let form = Request::post("/fhir/Patient/_search").header("content-type", FORM);
    assert_eq!(send(&app, form, &format!("_id=p1&access_token={token}")).await.status, 401);
    let cookie = Request::get("/fhir/Patient/p1").header("cookie", format!("phial={token}; access_token={token}"));
    assert_eq!(send(&app, cookie, "").await.status, 401);
    for scheme in ["Basic", "DPoP", "Token", ""] {
        let request = Request::get("/fhir/Patient/p1").header("authorization", format!("{scheme} {token}"));
        assert_eq!(send(&app, request, "").await.status, 401, "{scheme}");
    }
}

#[tokio::test]
async fn a_session_of_the_pages_opens_no_data() {
    let app = clinic().await;
    let mut browser = Browser::new(&app);
    let page = browser.open("/account").await;
    browser.login(&page, "adams").await;
    assert_eq!(browser.get("/account").await.status, 200);
    assert_eq!(browser.get("/fhir/Patient/p1").await.status, 401, "no data for a cookie: no forged request can read");
    let bearer = browser.cookie.clone().unwrap();
    assert_eq!(app.fhir(&bearer, "Patient/p1").await.status, 401);
}

#[tokio::test]
async fn no_token_passes_for_one_of_another_kind() {
    let app = clinic().await;
    let code = app.code("app", "adams", SCOPE, None).await;
    assert_eq!(app.fhir(&code, "Patient/p1").await.status, 401, "a code");
    let answer = app.redeem("app", &code).await.json();
    let [access, refresh, identity] =
        ["access_token", "refresh_token", "id_token"].map(|name| text(&answer, name).to_owned());
    for (what, token) in [("a refresh token", &refresh), ("an id_token", &identity)] {
        assert_eq!(app.fhir(token, "Patient/p1").await.status, 401, "{what}");
    }
    for (what, token) in [("an access token", &access), ("an id_token", &identity), ("a code", &code)] {
        assert_eq!(app.refresh("app", token).await.json()["error"], "invalid_grant", "{what} as refresh token");
    }
    for (what, token) in [("an access token", &access), ("a refresh token", &refresh)] {
        assert_eq!(app.redeem("app", token).await.json()["error"], "invalid_grant", "{what} as code");
    }
    let bearer = format!("Bearer {access}");
    let said = app.form("/oauth/introspect", &[("token", &identity)], Some(&bearer)).await;
    assert_eq!(said.json(), json!({"active": false}), "an id_token is no access token");
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "system/*.rs"),
        ("client_assertion_type", crate::oauth::assertion::ASSERTION_TYPE),
        ("client_assertion", access.as_str()),
    ];
    assert_eq!(app.form("/oauth/token", &form, None).await.json()["error"], "invalid_client", "as client assertion");
}

#[tokio::test]
async fn access_tokens_of_the_published_key_cannot_be_made() {
    let app = clinic().await;
    let jwks = send(&app, Request::get("/oauth/jwks"), "").await.json();
    let now = app.app().world.now().seconds();
    let claims = json!({
        "iss": "http://phial.test", "aud": "http://phial.test/fhir", "sub": "x", "client_id": "app",
        "scope": "system/*.cruds", "jti": "j", "iat": now, "exp": now + 300,
    });
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    for key in jwks["keys"].as_array().unwrap() {
        let kid = text(key, "kid");
        for alg in ["none", "None", "NONE", ""] {
            let header = json!({"alg": alg, "typ": "at+jwt", "kid": kid}).to_string();
            for signature in ["", "AAAA"] {
                let token = format!("{}.{}.{signature}", BASE64.encode(&header), BASE64.encode(claims.to_string()));
                assert_eq!(app.fhir(&token, "Patient/p1").await.status, 401, "{alg} {signature}");
            }
        }
        let part = key["x"].as_str().or(key["n"].as_str()).unwrap();
        for secret in [key.to_string().into_bytes(), part.as_bytes().to_vec(), BASE64.decode(part).unwrap()] {
            for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let header = Header { typ: Some("at+jwt".into()), kid: Some(kid.into()), ..Header::new(alg) };
                let token = encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
                assert_eq!(app.fhir(&token, "Patient/p1").await.status, 401, "{alg:?}");
            }
        }
        // A key of the attacker's, in the name of the server's, brought along in the header.
        let own = SigningKey::generate().unwrap();
        let mut header = Header::new(Algorithm::ES384);
        (header.typ, header.kid) = (Some("at+jwt".into()), Some(kid.into()));
        header.jwk = serde_json::from_value(own.public_jwk()).ok();
        header.jku = Some("https://evil.example/jwks".into());
        let token = encode(&header, &claims, &EncodingKey::from_ec_der(own.pkcs8())).unwrap();
        assert_eq!(app.fhir(&token, "Patient/p1").await.status, 401);
    }
}

#[tokio::test]
async fn a_parameter_that_is_sent_twice_is_refused_everywhere() {
    let app = clinic().await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let (access, refresh) = (text(&answer, "access_token"), text(&answer, "refresh_token"));
    let bearer = format!("Bearer {access}");
    let refreshing = [("grant_type", "refresh_token"), ("client_id", "app"), ("refresh_token", refresh)];
    let revoking = [("client_id", "app"), ("token", access)];
    for (path, form, authorization) in [
        ("/oauth/token", &refreshing[..], None),
        ("/oauth/revoke", &revoking[..], None),
        ("/oauth/introspect", &revoking[1..], Some(bearer.as_str())),
    ] {
        for (name, value) in form {
            for second in [*value, "other", ""] {
                let mut twice = form.to_vec();
                twice.push((name, second));
                let reply = app.form(path, &twice, authorization).await;
                assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_request")), "{path} {name}");
            }
        }
    }
    assert_eq!(app.fhir(access, "Patient/p1").await.status, 200, "nothing of it had an effect");
}

#[tokio::test]
async fn a_client_is_whom_it_proves_to_be() {
    let app = clinic().await;
    let secret = app.client("keeper", ClientKind::ConfidentialSymmetric, SCOPE).await.unwrap();
    let other = app.client("other", ClientKind::ConfidentialSymmetric, SCOPE).await.unwrap();
    let code = app.code("keeper", "adams", SCOPE, None).await;
    let grant = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let good = basic("keeper", &secret);
    for (what, more, authorization, error) in [
        ("by name alone", vec![("client_id", "keeper")], None, "invalid_client"),
        ("nameless", vec![], None, "invalid_client"),
        ("an empty secret", vec![("client_id", "keeper"), ("client_secret", "")], None, "invalid_client"),
        ("a wrong secret", vec![], Some(basic("keeper", "wrong")), "invalid_client"),
        ("another's secret", vec![], Some(basic("keeper", &other)), "invalid_client"),
        ("another client", vec![], Some(basic("other", &other)), "invalid_grant"),
        ("in another's name", vec![("client_id", "keeper")], Some(basic("other", &other)), "invalid_client"),
        ("two ways", vec![("client_id", "keeper"), ("client_secret", &secret)], Some(good.clone()), "invalid_request"),
        ("another spelling", vec![], Some(basic("KEEPER", &secret)), "invalid_client"),
        ("a bearer", vec![], Some(format!("Bearer {secret}")), "invalid_client"),
    ] {
        let form: Vec<(&str, &str)> = grant.iter().copied().chain(more).collect();
        let reply = app.form("/oauth/token", &form, authorization.as_deref()).await;
        assert_eq!(reply.json()["error"], error, "{what}");
        assert_eq!(reply.status == 401, error == "invalid_client", "{what}");
        assert_eq!((reply.header("cache-control"), reply.header("pragma")), ("no-store", "no-cache"), "{what}");
        for secret in [secret.as_str(), other.as_str(), code.as_str(), VERIFIER] {
            assert!(!reply.text().contains(secret), "{what}: an error repeats no secret");
        }
    }
    // Credentials in an address would stand in logs.
    let query = format!("/oauth/token?client_id=keeper&client_secret={secret}&grant_type=client_credentials&scope=x");
    assert_eq!(app.form(&query, &grant, None).await.json()["error"], "invalid_client");
    assert_eq!(app.form("/oauth/token", &grant, Some(&good)).await.status, 200, "the code is still its own");
    let service = [("grant_type", "client_credentials"), ("scope", "system/*.rs")];
    let public = [service[0], service[1], ("client_id", "app")];
    assert_eq!(app.form("/oauth/token", &public, None).await.json()["error"], "unauthorized_client");
}

#[tokio::test]
async fn what_another_client_was_given_is_none_of_ones_business() {
    let app = clinic().await;
    let other = app.client("other", ClientKind::ConfidentialSymmetric, SCOPE).await.unwrap();
    app.client("public", ClientKind::Public, SCOPE).await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let (access, refresh) = (text(&answer, "access_token"), text(&answer, "refresh_token"));
    for token in [access, refresh, "nonsense"] {
        let reply = app.form("/oauth/revoke", &[("token", token)], Some(&basic("other", &other))).await;
        assert_eq!((reply.status, reply.body.len()), (200, 0), "told nothing");
        let reply = app.form("/oauth/revoke", &[("token", token), ("client_id", "public")], None).await;
        assert_eq!(reply.status, 200);
        let reply = app.form("/oauth/revoke", &[("token", token)], None).await;
        assert_eq!(reply.status, 401, "nobody");
        let reply = app.form("/oauth/introspect", &[("token", token), ("client_id", "public")], None).await;
        assert_eq!(reply.status, 401, "whoever only says a name learns nothing");
        let reply = app.form("/oauth/introspect", &[("token", token)], Some("Bearer nonsense")).await;
        assert_eq!(reply.status, 401);
    }
    assert_eq!(app.fhir(access, "Patient/p1").await.status, 200, "it has not ended");
    assert_eq!(app.refresh("app", refresh).await.status, 200);
}

async fn an_app_that_is_disabled_has_nothing_any_more() {
    let app = clinic().await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let access = text(&answer, "access_token");
    let code = app.code("app", "adams", SCOPE, None).await;
    let mut browser = Browser::new(&app);
    let page = browser.open(&app.authorize("app", SCOPE, &[])).await;
    let page = browser.login(&page, "adams").await;
    assert_eq!(app.fhir(access, "Patient/p1").await.status, 200);
    assert!(app.app().oauth.clients().disable("app").await.unwrap());
    assert_eq!(app.fhir(access, "Patient/p1").await.status, 401, "its tokens");
    assert_eq!(app.refresh("app", text(&answer, "refresh_token")).await.json()["error"], "invalid_client");
    assert_eq!(app.redeem("app", &code).await.json()["error"], "invalid_client", "its codes");
    let reply = browser.allow_all(&page).await;
    assert_eq!((reply.status, reply.header("location")), (400, ""), "what was about to be allowed");
    assert_eq!(browser.get(&app.authorize("app", SCOPE, &[])).await.status, 400, "new requests");
}

async fn launch_handles_are_for_their_app_and_user_and_moment() {
    let app = clinic().await;
    let writer = app.persona("system/*.cruds").await;
    let mut treated = patient("p1", "Adams");
    treated["generalPractitioner"] = json!([{"reference": "Practitioner/dr"}, {"reference": "Practitioner/other"}]);
    assert_eq!(writer.put("Patient/p1", &treated).await.status, 200);
    app.user("doctor", Role::Provider, Some("Practitioner/dr")).await;
    app.user("colleague", Role::Provider, Some("Practitioner/other")).await;
    app.client("other", ClientKind::Public, "launch user/*.rs").await;
    app.client("viewer", ClientKind::Public, "launch user/*.rs").await;
    let key = ehr(&app).await;
    let made = async |more: Value| {
        let mut body = json!({"patient": "p1"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(&launch(&app, &ehr_token(&app, &key).await, &body).await.json(), "launch").to_owned()
    };
    let mut browser = Browser::new(&app);
    let page = browser.open("/account").await;
    browser.login(&page, "doctor").await;
    let ask = async |browser: &mut Browser<'_>, client: &str, handle: &str| {
        browser.get(&app.authorize(client, "launch user/*.rs", &[("launch", Some(handle))])).await
    };
    let error = |reply: &Reply| parameter(reply.header("location"), "error");
    let handle = made(json!({"client_id": "viewer"})).await;
    assert_eq!(error(&ask(&mut browser, "other", &handle).await).as_deref(), Some("invalid_request"), "another app");
    assert_eq!(ask(&mut browser, "viewer", &handle).await.status, 303, "its own, which was not used up");
    assert_eq!(error(&ask(&mut browser, "viewer", &handle).await).as_deref(), Some("invalid_request"), "once");
    let late = made(json!({})).await;
    app.pass(301);
    assert_eq!(error(&ask(&mut browser, "viewer", &late).await).as_deref(), Some("invalid_request"), "in time");
    // Made for the colleague: the doctor is not asked to consent in their name.
    let theirs = made(json!({"username": "colleague"})).await;
    let on = ask(&mut browser, "viewer", &theirs).await.header("location").to_owned();
    let page = browser.open(&on).await;
    assert!(page.status == 400 && page.text().contains("another user"), "{}", page.text());
    // A patient whom the person may not see stays unseen, whoever launches.
    let hidden = made(json!({"patient": "p2"})).await;
    let on = ask(&mut browser, "viewer", &hidden).await.header("location").to_owned();
    let page = browser.open(&on).await;
    assert_eq!(page.status, 403, "{}", page.text());
}

/// The key of a client that is registered as an EHR.
pub async fn ehr(app: &TestApp) -> SigningKey {
    let key = SigningKey::generate().unwrap();
    let registration = Registration {
        client_id: Some("ehr".into()),
        name: "EHR".into(),
        kind: ClientKind::Backend,
        jwks: Some(json!({"keys": [key.public_jwk()]})),
        jwks_url: None,
        scopes: "system/*.rs".into(),
        redirect_uris: Vec::new(),
        launch_uri: None,
        ehr: true,
        demo: false,
    };
    app.app().oauth.clients().add(registration).await.unwrap();
    key
}

/// A token of that client.
pub async fn ehr_token(app: &TestApp, key: &SigningKey) -> String {
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "system/*.rs"),
        ("client_assertion_type", crate::oauth::assertion::ASSERTION_TYPE),
        ("client_assertion", &assertion(app, key, "ehr")),
    ];
    let answer = app.form("/oauth/token", &form, None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    text(&answer.json(), "access_token").to_owned()
}

/// As the conformance suites make them: no `iat`, no `nbf`.
pub fn assertion(app: &TestApp, key: &SigningKey, client_id: &str) -> String {
    let claims = json!({
        "iss": client_id, "sub": client_id, "aud": app.app().config.token_url(),
        "exp": app.app().world.now().seconds() + 300, "jti": app.app().world.uuid(),
    });
    key.sign("JWT", &claims).unwrap()
}

/// What an EHR posts for a launch.
pub async fn launch(app: &TestApp, token: &str, body: &Value) -> Reply {
    let request = Request::post("/oauth/launch").header("content-type", "application/json");
    send(app, request.header("authorization", format!("Bearer {token}")), &body.to_string()).await
}

#[tokio::test]
async fn only_an_ehr_makes_launch_contexts() {
    let app = clinic().await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let backend = app.persona("system/*.cruds").await;
    let body = json!({"patient": "p1"});
    for (who, token, status) in [
        ("nobody", "nonsense", 401),
        ("a person's app", text(&answer, "access_token"), 403),
        ("a backend service", backend.token(), 403),
    ] {
        assert_eq!(launch(&app, token, &body).await.status, status, "{who}");
    }
    let no_token = Request::post("/oauth/launch").header("content-type", "application/json");
    assert_eq!(send(&app, no_token, &body.to_string()).await.status, 401);
    let ehr = ehr_token(&app, &ehr(&app).await).await;
    for (body, place) in [
        (json!({}), "patient"),
        (json!({"patient": 1}), "patient"),
        (json!({"patient": "../p1"}), "patient"),
        (json!({"patient": "p1", "encounter": "a b"}), "encounter"),
        (json!({"patient": "p1", "need_patient_banner": "no"}), "need_patient_banner"),
        (json!({"patient": "p1", "intent": "x".repeat(201)}), "intent"),
        (json!({"patient": "p1", "client_id": "nobody"}), "client_id"),
        (json!({"patient": "p1", "scope": "system/*.cruds"}), "scope"),
    ] {
        let reply = launch(&app, &ehr, &body).await;
        assert_eq!((reply.status, reply.places()), (400, vec![place.to_owned()]), "{body}");
    }
    assert_eq!(launch(&app, &ehr, &body).await.status, 201);
}

#[tokio::test]
async fn the_token_endpoint_takes_forms_by_post_and_no_more() {
    let app = clinic().await;
    let form = "grant_type=client_credentials&client_id=app&scope=x";
    for (method, path, kind, body, status) in [
        ("GET", format!("/oauth/token?{form}"), FORM, String::new(), 405),
        ("PUT", "/oauth/token".into(), FORM, form.into(), 405),
        ("HEAD", "/oauth/token".into(), FORM, String::new(), 405),
        ("POST", "/oauth/token".into(), "application/json", "{}".into(), 415),
        ("POST", "/oauth/token".into(), "text/plain", form.into(), 415),
        ("POST", "/oauth/token".into(), "multipart/form-data; boundary=x", form.into(), 415),
        ("POST", "/oauth/token".into(), FORM, format!("{form}&x={}", "y".repeat(70_000)), 413),
        ("POST", "/oauth/token".into(), FORM, "grant_type=%zz".into(), 400),
        ("POST", "/oauth/token".into(), FORM, "grant_type=%ff".into(), 400),
        ("GET", "/oauth/introspect?token=x".into(), FORM, String::new(), 405),
        ("GET", "/oauth/revoke?token=x".into(), FORM, String::new(), 405),
        ("POST", "/oauth/token/../token".into(), FORM, form.into(), 404),
    ] {
        let request = Request::builder().method(method).uri(&path).header("content-type", kind);
        let reply = send(&app, request, &body).await;
        assert_eq!(reply.status, status, "{method} {path} {kind}: {}", reply.text());
        if [400, 413, 415].contains(&status) {
            // In the words of OAuth: that is what clients of this endpoint read.
            assert_eq!(
                (reply.header("content-type"), text(&reply.json(), "error")),
                ("application/json", "invalid_request")
            );
        }
    }
    let nobody = app.form("/oauth/token", &[("grant_type", "authorization_code"), ("code", "x")], None).await;
    assert!(
        nobody.status == 401 && text(&nobody.json(), "error_description").contains("client_id"),
        "{}",
        nobody.text()
    );
    let overridden = Request::get("/oauth/token").header("x-http-method-override", "POST").header("content-type", FORM);
    assert_eq!(send(&app, overridden, form).await.status, 405);
}

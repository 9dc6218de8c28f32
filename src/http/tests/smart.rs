//! Flows of SMART App Launch as the checklists of testers have them; `conformance/smart/rules.md` says which rule each
//! test proves.

use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use super::attacks_tokens::{assertion, ehr, ehr_token, launch};
use super::browser::{Browser, REDIRECT, VERIFIER, parameter};
use super::{Persona, Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::interaction::form;
use crate::oauth::assertion::ASSERTION_TYPE;
use crate::oauth::{By, ClientKind, Registration, SigningKey};

on_both![
    apps_with_a_secret_or_a_key_redeem_and_refresh,
    online_access_lasts_as_long_as_the_login_and_offline_access_for_months,
    keys_change_while_tokens_live_on,
];

pub const SCOPE: &str = "launch/patient openid fhirUser offline_access patient/*.rs";
const ALLOWED: &str = "launch launch/patient launch/encounter openid fhirUser profile offline_access online_access \
                       patient/*.rs user/*.rs";

/// Two patients of a doctor, each with an encounter, and a public app.
pub async fn clinic(app: &TestApp) -> Persona<'_> {
    let writer = app.persona("system/*.cruds").await;
    let doctor = json!({"resourceType": "Practitioner", "id": "dr", "name": [{"family": "Docs"}]});
    assert_eq!(writer.put("Practitioner/dr", &doctor).await.status, 201);
    for (id, family) in [("p1", "Adams"), ("p2", "Baker")] {
        let mut node = patient(id, family);
        node["generalPractitioner"] = json!([{"reference": "Practitioner/dr"}]);
        assert_eq!(writer.put(&format!("Patient/{id}"), &node).await.status, 201);
        let encounter = json!({"resourceType": "Encounter", "id": format!("{id}-e"), "status": "finished",
            "class": {"code": "AMB"}, "subject": {"reference": format!("Patient/{id}")}});
        assert_eq!(writer.put(&format!("Encounter/{id}-e"), &encounter).await.status, 201);
    }
    app.user("doctor", Role::Provider, Some("Practitioner/dr")).await;
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    app.client("app", ClientKind::Public, ALLOWED).await;
    writer
}

pub fn text<'v>(answer: &'v Value, name: &str) -> &'v str {
    answer[name].as_str().unwrap_or_else(|| panic!("{name} in {answer}"))
}

/// Claims, not verified.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("a JWT");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The token response as testers check it.
fn check_answer(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!((reply.header("cache-control"), reply.header("pragma")), ("no-store", "no-cache"));
    assert_eq!(reply.header("content-type"), "application/json");
    let answer = reply.json();
    assert!(text(&answer, "token_type").eq_ignore_ascii_case("bearer"));
    assert!((1..=3600).contains(&answer["expires_in"].as_i64().unwrap()), "{answer}");
    for name in ["access_token", "scope"] {
        assert!(!text(&answer, name).is_empty());
    }
    for name in ["refresh_token", "id_token", "patient", "encounter", "intent", "smart_style_url", "tenant"] {
        assert!(answer.get(name).is_none_or(Value::is_string), "{name} in {answer}");
    }
    assert!(answer.get("need_patient_banner").is_none_or(Value::is_boolean));
    // Its forms differ between versions: it is left out unless there is something to say.
    let objects =
        |list: &Value| list.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_object));
    assert!(answer.get("fhirContext").is_none_or(objects), "{answer}");
    answer
}

async fn apps_with_a_secret_or_a_key_redeem_and_refresh() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let secret = app.client("secret", ClientKind::ConfidentialSymmetric, SCOPE).await.unwrap();
    let key = SigningKey::generate().unwrap();
    let registration = Registration {
        client_id: Some("key".into()),
        name: "Key".into(),
        kind: ClientKind::ConfidentialAsymmetric,
        jwks: Some(json!({"keys": [key.public_jwk()]})),
        jwks_url: None,
        scopes: SCOPE.into(),
        redirect_uris: vec![REDIRECT.into()],
        launch_uri: None,
        ehr: false,
        demo: false,
    };
    app.app().oauth.clients().add(registration).await.unwrap();
    let basic = format!("Basic {}", STANDARD.encode(format!("secret:{secret}")));
    for way in ["public", "basic", "post", "key"] {
        // How the client says who it is: what it adds to the form, and the header. An assertion names it by itself.
        let proof = || match way {
            "public" => (vec![("client_id", "app".to_owned())], None),
            "basic" => (vec![], Some(basic.as_str())),
            "post" => (vec![("client_id", "secret".to_owned()), ("client_secret", secret.clone())], None),
            _ => {
                let text = assertion(&app, &key, "key");
                (vec![("client_assertion_type", ASSERTION_TYPE.to_owned()), ("client_assertion", text)], None)
            }
        };
        let client = match way {
            "public" => "app",
            "key" => "key",
            _ => "secret",
        };
        let ask = async |fields: &[(&str, &str)]| {
            let (more, header) = proof();
            let more = more.iter().map(|(name, value)| (*name, value.as_str()));
            let all: Vec<(&str, &str)> = fields.iter().copied().chain(more).collect();
            app.form("/oauth/token", &all, header).await
        };
        let code = app.code(client, "adams", SCOPE, None).await;
        let grant = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        // A wrong code leaves the good one good; testers send it first.
        let wrong = [grant[0], ("code", "wrong"), grant[2], grant[3]];
        assert_eq!(ask(&wrong).await.json()["error"], "invalid_grant", "{way}");
        let answer = check_answer(&ask(&grant).await);
        assert_eq!((text(&answer, "scope"), text(&answer, "patient")), (SCOPE, "p1"), "{way}");
        let identity = claims(text(&answer, "id_token"));
        assert_eq!(
            (&identity["aud"], &identity["fhirUser"]),
            (&json!(client), &json!("http://phial.test/fhir/Patient/p1"))
        );
        assert_eq!(app.fhir(text(&answer, "access_token"), "Patient/p1").await.status, 200, "{way}");
        // As it was granted, then with fewer scopes, each with the token that the one before gave.
        let mut last = answer;
        for scope in [None, Some("patient/*.rs launch/patient")] {
            let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", text(&last, "refresh_token"))];
            fields.extend(scope.map(|scope| ("scope", scope)));
            let fresh = check_answer(&ask(&fields).await);
            assert_eq!((text(&fresh, "scope"), text(&fresh, "patient")), (scope.unwrap_or(SCOPE), "p1"), "{way}");
            assert_ne!(fresh["refresh_token"], last["refresh_token"], "{way}: it turns");
            assert_eq!(app.fhir(text(&fresh, "access_token"), "Patient/p1").await.status, 200, "{way}");
            last = fresh;
        }
        let unknown = [("grant_type", "refresh_token"), ("refresh_token", "invalid")];
        assert_eq!(ask(&unknown).await.json()["error"], "invalid_grant", "{way}");
    }
    let refused =
        app.form("/oauth/token", &[("grant_type", "refresh_token"), ("refresh_token", "x")], Some("Basic eDp5"));
    let refused = refused.await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic realm=\"phial\""));
}

#[tokio::test]
async fn an_ehr_makes_the_context_of_a_launch() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let token = ehr_token(&app, &ehr(&app).await).await;
    let body = json!({"patient": "p1", "encounter": "p1-e", "intent": "reconcile-medications",
        "need_patient_banner": false, "client_id": "app", "username": "doctor"});
    let made = launch(&app, &token, &body).await;
    assert_eq!((made.status, made.json()["iss"].as_str()), (201, Some("http://phial.test/fhir")));
    let handle = text(&made.json(), "launch").to_owned();
    let mut browser = Browser::new(&app);
    let scope = "launch openid fhirUser offline_access user/*.rs";
    let page = browser.open(&app.authorize("app", scope, &[("launch", Some(&handle))])).await;
    let page = browser.login(&page, "doctor").await;
    let reply = browser.allow_all(&page).await;
    let answer = check_answer(&app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await);
    assert_eq!(
        (text(&answer, "patient"), text(&answer, "encounter"), text(&answer, "intent")),
        ("p1", "p1-e", "reconcile-medications")
    );
    assert_eq!((text(&answer, "scope"), &answer["need_patient_banner"]), (scope, &json!(false)));
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Encounter/p1-e").await.status, 200);
    // The style is open to everybody, and has every key that the specification names.
    let style = browser.get(text(&answer, "smart_style_url").strip_prefix("http://phial.test").unwrap()).await;
    assert_eq!((style.status, style.header("content-type")), (200, "application/json"));
    for key in [
        "color_background",
        "color_error",
        "color_highlight",
        "color_modal_backdrop",
        "color_success",
        "color_text",
        "dim_border_radius",
        "dim_font_size",
        "dim_spacing_size",
        "font_family_body",
        "font_family_heading",
    ] {
        assert!(!text(&style.json(), key).is_empty());
    }
    // A refresh tells the context again; introspection too.
    let again = check_answer(&app.refresh("app", text(&answer, "refresh_token")).await);
    for name in ["patient", "encounter", "intent", "need_patient_banner", "smart_style_url"] {
        assert_eq!(again[name], answer[name], "{name}");
    }
    let bearer = format!("Bearer {}", text(&again, "access_token"));
    let said = app.form("/oauth/introspect", &[("token", token)], Some(&bearer)).await.json();
    let identity = claims(text(&answer, "id_token"));
    for (name, value) in [
        ("active", &json!(true)),
        ("client_id", &json!("app")),
        ("scope", &answer["scope"]),
        ("patient", &answer["patient"]),
        ("encounter", &answer["encounter"]),
        ("iss", &identity["iss"]),
        ("sub", &identity["sub"]),
        ("fhirUser", &identity["fhirUser"]),
    ] {
        assert_eq!(said[name], *value, "{name}");
    }
    assert!(said["exp"].as_i64() > Some(app.app().world.now().seconds()));
    let unknown = app.form("/oauth/introspect", &[("token", "invalid_token_value")], Some(&bearer)).await;
    assert_eq!((unknown.status, unknown.json()), (200, json!({"active": false})));
}

#[tokio::test]
async fn an_ehr_says_what_else_a_launch_is_about() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let key = ehr(&app).await;
    let token = ehr_token(&app, &key).await;
    let allowed = "launch launch/imagingstudy launch/task?role=https://ehr.example/basis launch/task openid offline_access \
                   user/*.rs";
    app.client("viewer", ClientKind::Public, allowed).await;
    let about = json!([
        {"reference": "ImagingStudy/i1"},
        {"role": "https://ehr.example/basis", "identifier": {"value": "7", "system": "urn:x"}, "type": "Task"},
        {"canonical": "http://ehr.example/Questionnaire/q|2"},
    ]);
    let body = json!({"patient": "p1", "fhirContext": about, "client_id": "viewer"});
    let made = launch(&app, &token, &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let handle = text(&made.json(), "launch").to_owned();
    let mut browser = Browser::new(&app);
    let page = browser.open(&app.authorize("viewer", allowed, &[("launch", Some(&handle))])).await;
    let page = browser.login(&page, "doctor").await;
    let reply = browser.allow_all(&page).await;
    let reply = app.redeem("viewer", &parameter(reply.header("location"), "code").unwrap()).await;
    let answer = check_answer(&reply);
    let sent = about.to_string();
    assert!(reply.text().contains(&format!("\"fhirContext\":{sent}")), "as it was sent: {}", reply.text());
    let granted =
        "launch launch/imagingstudy launch/task?role=https://ehr.example/basis openid offline_access user/*.rs";
    assert_eq!(text(&answer, "scope"), granted, "a task to begin with was not brought");
    let again = check_answer(&app.refresh("viewer", text(&answer, "refresh_token")).await);
    assert_eq!((&again["fhirContext"], &again["scope"]), (&about, &answer["scope"]));
    let bearer = format!("Bearer {}", text(&again, "access_token"));
    let said = app.form("/oauth/introspect", &[("token", text(&again, "access_token"))], Some(&bearer)).await.json();
    assert_eq!(said["fhirContext"], about);
    // What is none is refused with its place, and without an EHR nobody brings any.
    for (about, place) in [
        (json!(["ImagingStudy/i1"]), "fhirContext[0]"),
        (json!([{"reference": "ImagingStudy/i1"}, {"reference": "Patient/p2"}]), "fhirContext[1].role"),
        (json!([{"reference": "ImagingStudy/i1", "role": "basis"}]), "fhirContext[0].role"),
        (json!({"reference": "ImagingStudy/i1"}), ""),
    ] {
        let reply = launch(&app, &token, &json!({"patient": "p1", "fhirContext": about})).await;
        assert_eq!((reply.status, reply.places().concat()), (400, place.to_owned()), "{}", reply.text());
    }
    let mut alone = Browser::new(&app);
    let page = alone.open(&app.authorize("viewer", "launch/imagingstudy user/*.rs", &[])).await;
    let page = alone.login(&page, "doctor").await;
    let reply = alone.allow_all(&page).await;
    let answer = check_answer(&app.redeem("viewer", &parameter(reply.header("location"), "code").unwrap()).await);
    assert!(text(&answer, "scope") == "user/*.rs" && answer.get("fhirContext").is_none(), "{answer}");
}

#[tokio::test]
async fn an_authorization_request_comes_by_post_too_and_keeps_the_session() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    let page = browser.open("/account").await;
    browser.login(&page, "adams").await;
    let before = browser.cookie.clone();
    // A form on the app's page: the browser sends no cookie with it, and says where it comes from.
    let query = app.authorize("app", SCOPE, &[]).split_once('?').unwrap().1.to_owned();
    let request = Request::post("/oauth/authorize")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", "https://app.example")
        .header("sec-fetch-site", "cross-site");
    let reply = app.send(request.body(Body::from(query)).unwrap()).await;
    assert_eq!((reply.status, reply.header("set-cookie")), (303, ""), "{}", reply.text());
    let to = reply.header("location").to_owned();
    let page = browser.open(&to).await;
    assert_eq!(browser.cookie, before);
    let reply = browser.allow_all(&page).await;
    assert_eq!(parameter(reply.header("location"), "state").as_deref(), Some("st&te"));
    check_answer(&app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await);
}

#[tokio::test]
async fn a_visit_is_chosen_where_the_app_needs_one() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    let scope = "launch/patient launch/encounter patient/*.rs";
    let page = browser.open(&app.authorize("app", scope, &[])).await;
    let page = browser.login(&page, "doctor").await;
    let page = browser.submit(&page, "/oauth/patient", &[("id", "p1")]).await;
    assert!(page.text().contains("Choose a visit") && page.text().contains("p1-e"), "{}", page.text());
    assert!(!page.text().contains("p2-e"), "of another patient");
    for wrong in ["p2-e", "nothing", ""] {
        assert_eq!(browser.submit(&page, "/oauth/encounter", &[("id", wrong)]).await.status, 404, "{wrong}");
    }
    let page = browser.submit(&page, "/oauth/encounter", &[("id", "p1-e")]).await;
    let reply = browser.allow_all(&page).await;
    let answer = check_answer(&app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await);
    assert_eq!((text(&answer, "patient"), text(&answer, "encounter")), ("p1", "p1-e"));
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Encounter/p1-e").await.status, 200);
    assert_eq!(app.fhir(token, "Encounter/p2-e").await.status, 404);
}

#[tokio::test]
async fn prompt_and_max_age_say_when_to_log_in_again() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    let asked = |more: &[(&str, Option<&str>)]| app.authorize("app", SCOPE, more);
    let error = async |browser: &mut Browser<'_>, more: &[(&str, Option<&str>)]| {
        let reply = browser.open(&asked(more)).await;
        parameter(reply.header("location"), "error").unwrap_or_default()
    };
    assert_eq!(error(&mut browser, &[("prompt", Some("none"))]).await, "login_required");
    let page = browser.open("/account").await;
    browser.login(&page, "adams").await;
    let logged_in = app.app().world.now().seconds();
    assert_eq!(error(&mut browser, &[("prompt", Some("none"))]).await, "consent_required");
    assert_eq!(error(&mut browser, &[("prompt", Some("none login"))]).await, "invalid_request");
    assert_eq!(error(&mut browser, &[("max_age", Some("soon"))]).await, "invalid_request");
    app.pass(120);
    let wants_login = async |browser: &mut Browser<'_>, more: &[(&str, Option<&str>)]| {
        let page = browser.open(&asked(more)).await;
        assert_eq!(page.status, 200, "{}", page.text());
        (page.text().contains("name=\"password\""), page)
    };
    assert!(!wants_login(&mut browser, &[]).await.0);
    assert!(!wants_login(&mut browser, &[("max_age", Some("600"))]).await.0);
    assert!(!wants_login(&mut browser, &[("prompt", Some("consent"))]).await.0);
    assert!(wants_login(&mut browser, &[("max_age", Some("60"))]).await.0);
    // Without it the id_token still tells when.
    let (_, page) = wants_login(&mut browser, &[]).await;
    let reply = browser.allow_all(&page).await;
    let answer = app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await.json();
    assert_eq!(claims(text(&answer, "id_token"))["auth_time"], logged_in);
    let (asks, page) = wants_login(&mut browser, &[("prompt", Some("login"))]).await;
    assert!(asks);
    let page = browser.login(&page, "adams").await;
    let reply = browser.allow_all(&page).await;
    let answer = app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await.json();
    assert_eq!(claims(text(&answer, "id_token"))["auth_time"], logged_in + 120);
}

async fn online_access_lasts_as_long_as_the_login_and_offline_access_for_months() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let allowed = async |scope: &str| {
        let mut browser = Browser::new(&app);
        let page = browser.open(&app.authorize("app", scope, &[])).await;
        let page = browser.login(&page, "adams").await;
        let reply = browser.allow_all(&page).await;
        let answer = app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await.json();
        (browser, answer)
    };
    let (mut online, first) = allowed("launch/patient online_access patient/*.rs").await;
    let (mut offline, lasting) = allowed("launch/patient offline_access patient/*.rs").await;
    let first = check_answer(&app.refresh("app", text(&first, "refresh_token")).await);
    assert_eq!(text(&first, "scope"), "launch/patient online_access patient/*.rs");
    for browser in [&mut online, &mut offline] {
        let page = browser.open("/account").await;
        browser.submit(&page, "/logout", &[]).await;
    }
    assert_eq!(app.fhir(text(&first, "access_token"), "Patient/p1").await.status, 401, "ended with the login");
    assert_eq!(app.refresh("app", text(&first, "refresh_token")).await.json()["error"], "invalid_grant");
    assert_eq!(app.fhir(text(&lasting, "access_token"), "Patient/p1").await.status, 200);
    // More than three months, each time it is used.
    let mut refresh = text(&lasting, "refresh_token").to_owned();
    for _ in 0..3 {
        app.pass(95 * 86_400);
        let next = check_answer(&app.refresh("app", &refresh).await);
        assert_eq!(app.fhir(text(&next, "access_token"), "Patient/p1").await.status, 200);
        refresh = text(&next, "refresh_token").to_owned();
    }
    app.pass(101 * 86_400);
    assert_eq!(app.refresh("app", &refresh).await.json()["error"], "invalid_grant");
    let (_, idle) = allowed("launch/patient online_access patient/*.rs").await;
    app.pass(1801);
    assert_eq!(app.refresh("app", text(&idle, "refresh_token")).await.json()["error"], "invalid_grant", "idle");
    let (_, none) = allowed("launch/patient patient/*.rs").await;
    assert!(none.get("refresh_token").is_none());
    app.pass(3600);
    assert_eq!(app.fhir(text(&none, "access_token"), "Patient/p1").await.status, 401, "an hour at most");
}

async fn keys_change_while_tokens_live_on() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let jwks = async || {
        let request = Request::get("/oauth/jwks").body(Body::empty()).unwrap();
        app.send(request).await.json()["keys"].as_array().unwrap().clone()
    };
    let verifies = async |token: &str| {
        let kid = decode_header(token).unwrap().kid.unwrap();
        let keys = jwks().await;
        let Some(key) = keys.iter().find(|key| text(key, "kid") == kid) else { return false };
        let key = DecodingKey::from_rsa_components(text(key, "n"), text(key, "e")).unwrap();
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&["app"]);
        // The server's clock is held; the verifier's is not.
        rules.validate_exp = false;
        decode::<Value>(token, &key, &rules).is_ok()
    };
    let before = app.launched("app", "adams", SCOPE, None).await;
    assert_eq!(jwks().await.len(), 2);
    app.app().oauth.rotate_keys(&By::server()).await.unwrap();
    assert_eq!(jwks().await.len(), 4, "those of before stay while what they signed lives");
    let after = app.launched("app", "adams", SCOPE, None).await;
    for answer in [&before, &after] {
        assert_eq!(app.fhir(text(answer, "access_token"), "Patient/p1").await.status, 200);
        assert!(verifies(text(answer, "id_token")).await);
    }
    let kid = |answer: &Value, name: &str| decode_header(text(answer, name)).unwrap().kid;
    for name in ["access_token", "id_token"] {
        assert_ne!(kid(&before, name), kid(&after, name), "{name}: new ones are signed with the new key");
    }
    app.pass(2 * 3600 + 1);
    app.app().oauth.rotate_keys(&By::server()).await.unwrap();
    assert_eq!(jwks().await.len(), 4, "the first ones are gone");
    assert!(!verifies(text(&before, "id_token")).await && verifies(text(&after, "id_token")).await);
    let refreshed = check_answer(&app.refresh("app", text(&before, "refresh_token")).await);
    assert_eq!(app.fhir(text(&refreshed, "access_token"), "Patient/p1").await.status, 200);
}

#[tokio::test]
async fn a_person_who_says_no_gives_nothing() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    for fields in [&[("decision", "deny")][..], &[("decision", "allow")], &[("decision", "allow"), ("lasting", "yes")]]
    {
        let page = browser.open(&app.authorize("app", "launch/patient offline_access patient/*.rs", &[])).await;
        let page = if page.text().contains("password") { browser.login(&page, "adams").await } else { page };
        let reply = browser.submit(&page, "/oauth/decide", fields).await;
        let answer = form::decode(reply.header("location").split_once('?').unwrap().1).unwrap();
        let value = |name: &str| answer.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        assert_eq!((value("error"), value("state"), value("code")), (Some("access_denied"), Some("st&te"), None));
    }
}

//! Whole launches through pages and endpoints: what a person and an app see when everything is in order.

use serde_json::{Value, json};

use super::browser::{Browser, PASSWORD, REDIRECT, parameter};
use super::{Persona, TestApp, on_both, patient};
use crate::access::Role;
use crate::oauth::{By, ClientKind, totp};

on_both![
    what_was_allowed_is_renewed_ended_and_told,
    an_ehr_launch_brings_its_context_and_is_for_its_user_once,
    staff_without_a_second_factor_enrol_one,
    the_account_page_ends_sessions_and_apps,
];

const SCOPES: &str = "launch/patient openid fhirUser offline_access patient/*.rs patient/Observation.rs user/*.rs \
                      patient/Patient.read patient/Condition.rs launch";

/// Two patients of a practitioner, users and a public app.
async fn clinic(app: &TestApp) -> Persona<'_> {
    let writer = app.persona("system/*.cruds").await;
    let doctor = json!({"resourceType": "Practitioner", "id": "dr", "name": [{"family": "Docs"}]});
    assert_eq!(writer.put("Practitioner/dr", &doctor).await.status, 201);
    for (id, family) in [("p1", "Adams"), ("p2", "Baker")] {
        let mut node = patient(id, family);
        node["generalPractitioner"] = json!([{"reference": "Practitioner/dr"}]);
        node["birthDate"] = json!("1970-01-31");
        assert_eq!(writer.put(&format!("Patient/{id}"), &node).await.status, 201);
        let category = |code: &str| {
            json!([{"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": code}]}])
        };
        for code in ["laboratory", "vital-signs"] {
            let observation = json!({"resourceType": "Observation", "id": format!("{id}-{code}"), "status": "final",
                "category": category(code), "code": {"text": "x"}, "subject": {"reference": format!("Patient/{id}")}});
            let reply = writer.put(&format!("Observation/{id}-{code}"), &observation).await;
            assert_eq!(reply.status, 201, "{}", reply.text());
        }
        let encounter = json!({"resourceType": "Encounter", "id": format!("{id}-e"), "status": "finished",
            "class": {"code": "AMB"}, "subject": {"reference": format!("Patient/{id}")},
            "participant": [{"individual": {"reference": "Practitioner/dr"}}]});
        assert_eq!(writer.put(&format!("Encounter/{id}-e"), &encounter).await.status, 201);
    }
    app.user("doctor", Role::Provider, Some("Practitioner/dr")).await;
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    app.client("app", ClientKind::Public, SCOPES).await;
    writer
}

fn text<'v>(answer: &'v Value, name: &str) -> &'v str {
    answer[name].as_str().unwrap_or_else(|| panic!("{name} in {answer}"))
}

#[tokio::test]
async fn a_clinician_picks_a_patient_and_the_app_sees_that_one() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    let scope = "launch/patient openid fhirUser offline_access patient/*.rs";
    let page = browser.open(&app.authorize("app", scope, &[("nonce", Some("n1"))])).await;
    assert!(page.text().contains("The app app"), "{}", page.text());
    let page = browser.login(&page, "Doctor").await;
    assert!(page.text().contains("Choose a patient") && page.text().contains("Adams"), "{}", page.text());
    let page = browser.submit(&page, "/oauth/patient", &[("id", "p2")]).await;
    assert!(page.text().contains("Baker") && page.text().contains("while you are away"), "{}", page.text());
    assert!(page.header("content-security-policy").contains("form-action 'self' https://app.example;"));
    let reply = browser.allow_all(&page).await;
    assert_eq!(reply.status, 302);
    let to = reply.header("location").to_owned();
    assert!(to.starts_with(&format!("{REDIRECT}?code=")), "{to}");
    assert_eq!(parameter(&to, "state").as_deref(), Some("st&te"));
    assert_eq!(parameter(&to, "iss").as_deref(), Some("http://phial.test"));
    let reply = app.redeem("app", &parameter(&to, "code").unwrap()).await;
    assert_eq!((reply.header("cache-control"), reply.header("pragma")), ("no-store", "no-cache"));
    let answer = reply.json();
    assert_eq!(
        (text(&answer, "token_type"), text(&answer, "patient"), text(&answer, "scope")),
        ("Bearer", "p2", scope)
    );
    assert_eq!((&answer["expires_in"], &answer["need_patient_banner"]), (&json!(3600), &json!(true)));
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Patient/p2").await.status, 200);
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 404, "another patient of the same clinician");
    assert_eq!(app.fhir(token, "Practitioner/dr").await.status, 200, "fhirUser can be read");
    assert_eq!(app.fhir(token, "Observation?_summary=count").await.json()["total"], 2);
    identity(&app, text(&answer, "id_token")).await;
}

/// The id_token verifies against the published keys and says who.
async fn identity(app: &TestApp, token: &str) {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
    let header = decode_header(token).unwrap();
    assert_eq!(header.alg, Algorithm::RS256);
    let mut browser = Browser::new(app);
    let configuration = browser.get("/.well-known/openid-configuration").await.json();
    let jwks = browser.get(text(&configuration, "jwks_uri").strip_prefix("http://phial.test").unwrap()).await.json();
    let keys = jwks["keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["kid"] == json!(header.kid)).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["app"]);
    validation.set_issuer(&[text(&configuration, "issuer")]);
    // The server's clock is held; the verifier's is not.
    validation.validate_exp = false;
    let key = DecodingKey::from_rsa_components(text(key, "n"), text(key, "e")).unwrap();
    let claims = decode::<Value>(token, &key, &validation).unwrap().claims;
    assert_eq!((text(&claims, "nonce"), text(&claims, "fhirUser")), ("n1", "http://phial.test/fhir/Practitioner/dr"));
    assert!(!text(&claims, "sub").is_empty() && claims["exp"].as_i64() > claims["iat"].as_i64());
}

#[tokio::test]
async fn a_patient_launches_for_themselves_and_narrows_what_the_app_sees() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    let scope = "launch/patient patient/Patient.read patient/Observation.rs patient/Condition.rs offline_access";
    let page = browser.open(&app.authorize("app", scope, &[])).await;
    let page = browser.login(&page, "adams").await;
    assert!(page.text().contains("Adams") && page.text().contains("Laboratory results"), "{}", page.text());
    let fields = [("decision", "allow"), ("s1", "all"), ("s2", "some"), ("p2", "0"), ("s3", "none")];
    let reply = browser.submit(&page, "/oauth/decide", &fields).await;
    let code = parameter(reply.header("location"), "code").unwrap();
    let answer = app.redeem("app", &code).await.json();
    let category = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory";
    assert_eq!(
        text(&answer, "scope"),
        format!("launch/patient patient/Patient.read patient/Observation.rs?category={category}")
    );
    assert_eq!(text(&answer, "patient"), "p1");
    assert!(answer.get("refresh_token").is_none() && answer.get("id_token").is_none());
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Observation?_summary=count").await.json()["total"], 1);
    assert_eq!(app.fhir(token, "Observation/p1-vital-signs").await.status, 404);
    assert_eq!(app.fhir(token, "Condition?_summary=count").await.status, 403);
    assert_eq!(app.fhir(token, "Patient/p2").await.status, 404);
}

async fn what_was_allowed_is_renewed_ended_and_told() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let scope = "launch/patient openid fhirUser offline_access patient/*.rs";
    let first = app.launched("app", "doctor", scope, Some("p1")).await;
    let second = app.refresh("app", text(&first, "refresh_token")).await;
    assert_eq!((second.status, second.header("cache-control")), (200, "no-store"));
    let second = second.json();
    assert_eq!((text(&second, "scope"), text(&second, "patient")), (scope, "p1"));
    let token = text(&second, "access_token").to_owned();
    assert_eq!(app.fhir(&token, "Patient/p1").await.status, 200);

    let bearer = format!("Bearer {token}");
    let told = app.form("/oauth/introspect", &[("token", &token)], Some(&bearer)).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let told = told.json();
    assert_eq!(told["active"], true);
    assert_eq!((text(&told, "scope"), text(&told, "patient"), text(&told, "client_id")), (scope, "p1", "app"));
    assert_eq!(text(&told, "fhirUser"), "http://phial.test/fhir/Practitioner/dr");
    let told = app.form("/oauth/introspect", &[("token", "invalid_token_value")], Some(&bearer)).await;
    assert_eq!((told.status, told.json()), (200, json!({"active": false})));

    let fields = [("token", text(&second, "refresh_token")), ("client_id", "app")];
    assert_eq!(app.form("/oauth/revoke", &fields, None).await.status, 200);
    assert_eq!(app.fhir(&token, "Patient/p1").await.status, 401, "ended at once");
    assert_eq!(app.refresh("app", text(&second, "refresh_token")).await.status, 400);
    assert_eq!(app.form("/oauth/revoke", &[("token", "unknown"), ("client_id", "app")], None).await.status, 200);
}

async fn an_ehr_launch_brings_its_context_and_is_for_its_user_once() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let mut browser = Browser::new(&app);
    let page = browser.open("/launch").await;
    let page = browser.login(&page, "doctor").await;
    assert!(page.text().contains("Adams"), "{}", page.text());
    let page = browser.open("/launch?patient=p1").await;
    assert!(page.text().contains("The app app"), "{}", page.text());
    let fields = [("patient", "p1"), ("encounter", "p1-e"), ("app", "app")];
    let reply = browser.submit(&page, "/launch", &fields).await;
    let to = reply.header("location").to_owned();
    assert!(to.starts_with("https://app.example/launch?"), "{to}");
    assert_eq!(parameter(&to, "iss").as_deref(), Some("http://phial.test/fhir"));
    let handle = parameter(&to, "launch").unwrap();
    let request = app.authorize("app", "launch openid fhirUser user/*.rs", &[("launch", Some(&handle))]);
    let page = browser.open(&request).await;
    assert!(page.text().contains("Adams"), "logged in already: {}", page.text());
    let reply = browser.allow_all(&page).await;
    let answer = app.redeem("app", &parameter(reply.header("location"), "code").unwrap()).await.json();
    assert_eq!((text(&answer, "patient"), text(&answer, "encounter")), ("p1", "p1-e"));
    assert_eq!(answer["need_patient_banner"], true);
    let style = text(&answer, "smart_style_url").strip_prefix("http://phial.test").unwrap();
    assert!(browser.get(style).await.json()["color_text"].is_string());
    let token = text(&answer, "access_token");
    assert_eq!(app.fhir(token, "Encounter/p1-e").await.status, 200);
    assert_eq!(app.fhir(token, "Patient/p2").await.status, 200, "user/ scopes reach the clinician's other patients");
    let again = browser.get(&request).await;
    assert_eq!(parameter(again.header("location"), "error").as_deref(), Some("invalid_request"));
}

async fn staff_without_a_second_factor_enrol_one() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let link = app.app().oauth.reset(&By::server(), "nurse").await.unwrap().unwrap().link;
    let path = link.strip_prefix("http://phial.test").unwrap();
    let mut browser = Browser::new(&app);
    let page = browser.open(path).await;
    let page = browser.submit(&page, "/invitation", &[("password", PASSWORD), ("again", PASSWORD)]).await;
    assert!(page.text().contains("<svg") && page.text().contains("totp&#x2f;Phial:nurse"), "{}", page.text());
    let key = page.text().split("secret=").nth(1).unwrap()[..32].to_owned();
    let secret = totp::from_base32(&key).unwrap();
    let wrong = browser.submit(&page, "/login", &[("step", "enrol"), ("code", "000000")]).await;
    assert_eq!(wrong.status, 401);
    let code = totp::code_at(&secret, app.app().world.now());
    let codes = browser.submit(&page, "/login", &[("step", "enrol"), ("code", &code)]).await;
    assert!(codes.text().contains("recovery codes"), "{}", codes.text());
    let page = browser.open("/login").await;
    assert!(page.text().contains("second step on, 10 recovery codes left"), "{}", page.text());
    // A recovery code replaces the phone, once.
    let one = codes.text().split("<li>").nth(1).unwrap()[..19].to_owned();
    for good in [true, false] {
        let mut other = Browser::new(&app);
        let page = other.open("/login").await;
        let fields = [("step", "login"), ("username", "nurse"), ("password", PASSWORD)];
        let page = other.submit(&page, "/login", &fields).await;
        let page = other.submit(&page, "/login", &[("step", "factor"), ("code", &one)]).await;
        assert_eq!(page.text().contains("9 recovery codes left"), good, "{}", page.text());
    }
}

async fn the_account_page_ends_sessions_and_apps() {
    let app = TestApp::new().await;
    clinic(&app).await;
    let answer = app.launched("app", "adams", "launch/patient patient/*.rs offline_access", None).await;
    let token = text(&answer, "access_token").to_owned();
    let mut browser = Browser::new(&app);
    let page = browser.open("/account").await;
    let page = browser.login(&page, "adams").await;
    assert!(page.text().contains("The app app") && page.text().contains("this one"), "{}", page.text());
    let at = page.text().find("name=\"app\" value=\"").unwrap() + 18;
    let id = page.text()[at..at + 36].to_owned();
    let page = browser.submit(&page, "/account", &[("app", &id)]).await;
    assert!(page.text().contains("The app has no access any more."), "{}", page.text());
    assert_eq!(app.fhir(&token, "Patient/p1").await.status, 401);
    let before = browser.cookie.clone();
    let page = browser.submit(&page, "/logout", &[]).await;
    assert!(page.text().contains("Log in"), "{}", page.text());
    browser.cookie = before;
    assert_eq!(browser.get("/account").await.status, 303, "the old cookie opens nothing");
}

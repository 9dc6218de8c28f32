//! Break-glass by token exchange (RFC 8693): one decision with `$emergency-access`, asked for at the token endpoint.

use serde_json::{Value, json};

use super::browser::Browser;
use super::{Persona, Reply, TestApp, observation, on_both, patient};
use crate::access::Role;
use crate::oauth::ClientKind;

on_both![a_provider_exchanges_a_token_for_one_patient_and_all_of_it_is_on_record,];

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const REASON: &str = "Unconscious in the emergency room";

/// Two patients, of whom the doctor has one in care; users and two public apps.
pub async fn clinic(app: &TestApp) -> Persona<'_> {
    let writer = app.persona("system/*.cruds").await;
    let doctor = json!({"resourceType": "Practitioner", "id": "dr"});
    assert_eq!(writer.put("Practitioner/dr", &doctor).await.status, 201);
    let mut own = patient("ann", "Adams");
    own["generalPractitioner"] = json!([{"reference": "Practitioner/dr"}]);
    for node in [own, patient("cid", "Cole")] {
        let id = node["id"].as_str().unwrap().to_owned();
        assert_eq!(writer.put(&format!("Patient/{id}"), &node).await.status, 201);
        let seen = observation(&format!("o-{id}"), &id, "1-1");
        assert_eq!(writer.put(&format!("Observation/o-{id}"), &seen).await.status, 201);
    }
    app.user("doctor", Role::Provider, Some("Practitioner/dr")).await;
    app.user("desk", Role::Receptionist, Some("Practitioner/dr")).await;
    app.user("nurse", Role::Nurse, Some("Practitioner/dr")).await;
    app.user("cole", Role::Patient, Some("Patient/cid")).await;
    for id in ["app", "other"] {
        app.client(id, ClientKind::Public, "user/*.cruds patient/*.rs launch/patient openid").await;
    }
    writer
}

pub async fn exchanged(app: &TestApp, token: &str, other: &[(&str, Option<&str>)]) -> Reply {
    let mut all = vec![
        ("grant_type", Some(EXCHANGE)),
        ("client_id", Some("app")),
        ("subject_token", Some(token)),
        ("subject_token_type", Some(ACCESS_TOKEN)),
        ("patient", Some("cid")),
        ("purpose", Some("ETREAT")),
        ("reason", Some(REASON)),
    ];
    for (name, value) in other {
        all.retain(|(own, _)| own != name);
        all.push((name, *value));
    }
    let given: Vec<(&str, &str)> = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    app.form("/oauth/token", &given, None).await
}

pub async fn token_of(app: &TestApp, username: &str, scope: &str) -> String {
    let answer = app.launched("app", username, scope, None).await;
    answer["access_token"].as_str().expect("a token").to_owned()
}

pub fn text(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("{name} in {answer}")).to_owned()
}

async fn a_provider_exchanges_a_token_for_one_patient_and_all_of_it_is_on_record() {
    let app = TestApp::new().await;
    let office = clinic(&app).await;
    let discovery = Browser::new(&app).get("/fhir/.well-known/smart-configuration").await.json();
    assert!(discovery["grant_types_supported"].as_array().unwrap().contains(&json!(EXCHANGE)));

    let own = token_of(&app, "doctor", "user/*.rs openid").await;
    assert_eq!(app.fhir(&own, "Patient/cid").await.status, 404);
    let reply = exchanged(&app, &own, &[("scope", Some("user/Patient.rs user/Observation.rs"))]).await;
    let given = reply.json();
    assert_eq!((reply.status, reply.header("cache-control")), (200, "no-store"), "{given}");
    assert_eq!(given["expires_in"], 15 * 60);
    assert_eq!(text(&given, "issued_token_type"), ACCESS_TOKEN);
    assert_eq!((text(&given, "token_type"), text(&given, "patient")), ("Bearer".into(), "cid".into()));
    assert_eq!(text(&given, "scope"), "user/Patient.rs user/Observation.rs");
    assert!(given.get("refresh_token").is_none());

    let token = text(&given, "access_token");
    assert_eq!(app.fhir(&token, "Patient/cid").await.status, 200);
    assert_eq!(app.fhir(&token, "Observation?_summary=count").await.json()["total"], 1);
    assert_eq!(app.fhir(&token, "Patient/ann").await.status, 404, "nobody else, not even the own patient");
    assert_eq!(app.fhir(&token, "Condition?_summary=count").await.status, 403, "fewer scopes than before");

    // The alert, the order to review it, and two entries: the access with its reason, and the token.
    let task = office.get(&text(&given, "review")).await.json();
    assert_eq!((&task["for"]["reference"], &task["description"]), (&json!("Patient/cid"), &json!(REASON)));
    assert_eq!(office.get("Flag?patient=cid").await.ids().len(), 1);
    let audit = office.audit_of(reply.header("x-request-id")).await;
    let all = json!(audit).to_string();
    assert!(audit.len() >= 2 && all.contains(REASON) && all.contains("emergency"), "{all}");
    assert!(!all.contains(&token) && !all.contains(&own), "no token is in the record");

    // It cannot be used to get another one, and ends with the authorization it rests on.
    assert_eq!(exchanged(&app, &token, &[("patient", Some("ann"))]).await.status, 400);
    let fields = [("client_id", "app"), ("token", own.as_str())];
    assert_eq!(app.form("/oauth/revoke", &fields, None).await.status, 200);
    assert_eq!(app.fhir(&token, "Patient/cid").await.status, 401);
}

#[tokio::test]
async fn who_may_not_and_what_is_not_said_right_gets_no_token() {
    let app = TestApp::new().await;
    let office = clinic(&app).await;
    let doctor = token_of(&app, "doctor", "user/*.rs").await;
    let cases: &[(&str, Option<&str>, &str)] = &[
        ("subject_token", None, "invalid_request"),
        ("subject_token", Some("made-up"), "invalid_request"),
        ("subject_token_type", None, "invalid_request"),
        ("subject_token_type", Some("urn:ietf:params:oauth:token-type:id_token"), "invalid_request"),
        ("requested_token_type", Some("urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"),
        ("actor_token", Some("made-up"), "invalid_request"),
        ("resource", Some("https://other.example/fhir"), "invalid_target"),
        ("audience", Some("https://other.example/fhir"), "invalid_target"),
        ("scope", Some("user/*.cruds"), "invalid_scope"),
        ("patient", None, "invalid_request"),
        ("patient", Some("nobody"), "invalid_request"),
        ("patient", Some("../cid"), "invalid_request"),
        ("purpose", None, "invalid_request"),
        ("purpose", Some("TREAT"), "invalid_request"),
        ("reason", None, "invalid_request"),
        ("reason", Some("please"), "invalid_request"),
        ("client_id", Some("other"), "invalid_request"),
        ("client_id", Some("nobody"), "invalid_client"),
    ];
    for (name, value, error) in cases {
        let reply = exchanged(&app, &doctor, &[(name, *value)]).await;
        assert_eq!(text(&reply.json(), "error"), *error, "{name} {value:?}: {}", reply.text());
    }
    for username in ["desk", "nurse", "cole"] {
        let token = token_of(&app, username, "user/*.rs").await;
        let reply = exchanged(&app, &token, &[]).await;
        assert_eq!(text(&reply.json(), "error"), "invalid_request", "{username}");
        assert!(reply.text().contains("not open to this caller"), "{username}: {}", reply.text());
        let audit = office.audit_of(reply.header("x-request-id")).await;
        assert!(!audit.is_empty() && audit.iter().all(|event| event["outcome"] == "4"), "{username}: {audit:?}");
    }
    let service = exchanged(&app, office.token(), &[]).await;
    assert_eq!(text(&service.json(), "error"), "invalid_request", "a backend service's token is no person's");
    assert_eq!(office.get("Task").await.ids().len() + office.get("Flag").await.ids().len(), 0, "nothing is left");
}

//! What consents take away, from whom, and when. The clock is held at 2026-01-31.

use serde_json::{Value, json};

use super::people::{put, sees, ward};
use super::{Persona, TestApp, observation, on_both};
use crate::access::Role;

on_both![
    a_denial_takes_the_record_from_whom_it_names,
    a_denial_holds_for_those_who_see_everyone_and_not_for_the_patient,
    a_denial_may_be_about_types_codes_labels_actions_and_single_resources,
];

const RULES: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";

fn consent(provision: &Value) -> Value {
    json!({
        "resourceType": "Consent", "id": "c", "status": "active", "patient": {"reference": "Patient/ann"},
        "scope": {"coding": [{"code": "patient-privacy", "system": "http://terminology.hl7.org/CodeSystem/consentscope"}]},
        "category": [{"coding": [{"code": "59284-0", "system": "http://loinc.org"}]}],
        "provision": provision,
    })
}

fn actor(reference: &str) -> Value {
    json!([{"role": {"coding": [{"code": "PRCP"}]}, "reference": {"reference": reference}}])
}

async fn says(office: &Persona<'_>, provision: Value) {
    put(office, &consent(&provision)).await;
}

fn gp(app: &TestApp) -> Persona<'_> {
    app.person(Role::Provider, "Practitioner/gp", None, "user/*.cruds")
}

async fn a_denial_takes_the_record_from_whom_it_names() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let gp = gp(&app);
    assert_eq!(sees(&gp).await, "ann");
    for (provision, seen) in [
        (json!({"type": "deny"}), ""),
        (json!({"type": "deny", "actor": actor("Practitioner/gp")}), ""),
        (json!({"type": "deny", "actor": actor("http://phial.test/fhir/Practitioner/gp")}), ""),
        (json!({"type": "deny", "actor": actor("Practitioner/doc")}), "ann"),
        (json!({"type": "deny", "period": {"end": "2026-01-30"}}), "ann"),
        (json!({"type": "deny", "period": {"start": "2026-01-31"}}), ""),
        (json!({"type": "deny", "purpose": [{"code": "TREAT"}]}), ""),
        (json!({"type": "deny", "purpose": [{"code": "HRESCH"}]}), "ann"),
        (json!({"type": "deny", "provision": [{"type": "permit", "actor": actor("Practitioner/gp")}]}), "ann"),
        (json!({"type": "deny", "provision": [{"type": "permit", "actor": actor("Practitioner/doc")}]}), ""),
        (
            json!({"type": "deny", "provision": [
                {"type": "permit", "actor": actor("Practitioner/gp"),
                 "provision": [{"type": "deny", "purpose": [{"code": "TREAT"}]}]},
            ]}),
            "",
        ),
        (json!({"provision": [{"type": "deny", "actor": actor("Practitioner/gp")}]}), ""),
        // What cannot be judged makes a denial wider and a permission void.
        (json!({"type": "deny", "dataPeriod": {"start": "2020"}}), ""),
        (json!({"type": "deny", "provision": [{"type": "permit", "dataPeriod": {"start": "2020"}}]}), ""),
        (json!({"type": "permit", "actor": actor("Practitioner/doc")}), "ann"),
    ] {
        says(&office, provision.clone()).await;
        assert_eq!(sees(&gp).await, seen, "{provision}");
    }
    let mut all = consent(&json!({"type": "permit", "actor": actor("Practitioner/doc")}));
    all["policyRule"] = json!({"coding": [{"system": RULES, "code": "OPTOUT"}]});
    put(&office, &all).await;
    assert_eq!(sees(&gp).await, "");
    // One that is not in force says nothing.
    all["status"] = json!("inactive");
    put(&office, &all).await;
    assert_eq!(sees(&gp).await, "ann");
}

async fn a_denial_holds_for_those_who_see_everyone_and_not_for_the_patient() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let related = json!({"resourceType": "RelatedPerson", "id": "mum", "patient": {"reference": "Patient/ann"}});
    put(&office, &related).await;
    says(&office, json!({"type": "deny"})).await;
    let boss = app.person(Role::Admin, "Practitioner/boss", None, "user/*.rs");
    let mum = app.person(Role::Guardian, "RelatedPerson/mum", None, "user/*.rs");
    let ann = app.person(Role::Patient, "Patient/ann", None, "user/*.rs");
    assert_eq!(sees(&boss).await, "bob cid");
    assert_eq!((sees(&mum).await.as_str(), sees(&ann).await.as_str()), ("ann", "ann"));
    says(&office, json!({"type": "deny", "actor": actor("RelatedPerson/mum")})).await;
    assert_eq!((sees(&mum).await.as_str(), sees(&boss).await.as_str()), ("", "ann bob cid"));
    let staff = json!([{"role": {"coding": [{"code": "ADMIN"}]}, "reference": {"display": "administrators"}}]);
    says(&office, json!({"type": "deny", "actor": staff})).await;
    assert_eq!((sees(&mum).await.as_str(), sees(&boss).await.as_str()), ("ann", "bob cid"));
    // Backend services are not people: what they may see is what they are registered for.
    assert_eq!(sees(&office).await, "ann bob cid");
}

async fn a_denial_may_be_about_types_codes_labels_actions_and_single_resources() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let mut secret = observation("o-hiv", "ann", "7-7");
    secret["meta"] =
        json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]});
    put(&office, &secret).await;
    let gp = gp(&app);
    let class = |name: &str| json!([{"system": "http://hl7.org/fhir/resource-types", "code": name}]);
    for (provision, person, fact, hiv) in [
        (json!({"type": "deny", "class": class("Observation")}), 200, 404, 404),
        (json!({"type": "deny", "class": class("Condition")}), 200, 200, 200),
        (json!({"type": "deny", "code": [{"coding": [{"system": "http://loinc.org", "code": "7-7"}]}]}), 200, 200, 404),
        (json!({"type": "deny", "securityLabel": [{"code": "R"}]}), 200, 200, 404),
        (
            json!({"type": "deny", "provision": [
                {"type": "permit", "code": [{"coding": [{"system": "http://loinc.org", "code": "7-7"}]}]},
            ]}),
            404,
            404,
            200,
        ),
        (
            json!({"type": "deny", "data": [{"meaning": "instance", "reference": {"reference": "Observation/o-hiv"}}]}),
            200,
            200,
            404,
        ),
        (json!({"type": "deny", "action": [{"coding": [{"code": "access"}]}]}), 404, 404, 404),
        (json!({"type": "deny", "action": [{"coding": [{"code": "correct"}]}]}), 200, 200, 200),
    ] {
        says(&office, provision.clone()).await;
        for (path, status) in [("Patient/ann", person), ("Observation/o-ann", fact), ("Observation/o-hiv", hiv)] {
            assert_eq!(gp.get(path).await.status, status, "{provision}: {path}");
        }
        let shown = gp.get("Observation?patient=ann").await.ids().len();
        assert_eq!(shown, usize::from(fact == 200) + usize::from(hiv == 200), "{provision}");
    }
    // The last one forbids changes only.
    assert_eq!(gp.put("Observation/o-ann", &observation("o-ann", "ann", "9-9")).await.status, 404);
}

//! What people see and write: by role, by care relation, by launch. The clock is held at 2026-01-31.

use serde_json::{Value, json};

use super::{Persona, TestApp, observation, on_both, patient};
use crate::access::Role;

on_both![
    a_patient_sees_one_record_and_changes_none,
    a_guardian_sees_wards_as_long_as_the_relation_holds,
    a_provider_sees_assigned_patients_and_a_change_counts_at_once,
    a_role_of_a_practitioner_is_the_practitioner_while_it_is_active,
    patient_scopes_are_about_the_patient_of_the_launch,
    nobody_writes_into_or_out_of_a_record_beyond_reach,
    a_receptionist_gives_appointments_and_sees_nothing_clinical,
    the_glass_is_broken_for_one_patient_and_leaves_its_marks,
];

/// Patients `ann` (general practitioner `gp`), `bob` and `cid`, each with an Observation.
pub async fn ward() -> TestApp {
    let app = TestApp::new().await;
    fill(&app).await;
    app
}

pub async fn fill(app: &TestApp) {
    let office = app.persona("system/*.cruds").await;
    let mut ann = patient("ann", "Ann");
    ann["generalPractitioner"] = json!([{"reference": "Practitioner/gp"}]);
    put(&office, &ann).await;
    for id in ["bob", "cid"] {
        put(&office, &patient(id, id)).await;
    }
    for id in ["gp", "doc"] {
        put(&office, &json!({"resourceType": "Practitioner", "id": id, "name": [{"family": id}]})).await;
    }
    for id in ["ann", "bob", "cid"] {
        put(&office, &observation(&format!("o-{id}"), id, "1-1")).await;
    }
}

pub async fn put(who: &Persona<'_>, resource: &Value) {
    let path = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    let reply = who.put(&path, resource).await;
    assert!([200, 201].contains(&reply.status), "{path}: {} {}", reply.status, reply.text());
}

/// The patients whom a persona can read, of the three.
pub async fn sees(who: &Persona<'_>) -> String {
    let mut seen = Vec::new();
    for id in ["ann", "bob", "cid"] {
        let (person, fact) = (who.get(&format!("Patient/{id}")).await, who.get(&format!("Observation/o-{id}")).await);
        assert_eq!(person.status, fact.status, "{id}: {}", fact.text());
        assert!([200, 404].contains(&person.status), "{id}: {}", person.text());
        if person.status == 200 {
            seen.push(id);
        }
    }
    // A search finds just those.
    let mut found = who.get("Patient").await.ids();
    found.sort();
    assert_eq!(found, seen);
    let count = who.get("Observation?_summary=count").await;
    assert_eq!(count.json()["total"], seen.len(), "{}", count.text());
    seen.join(" ")
}

fn period(start: &str, end: &str) -> Value {
    json!({"start": start, "end": end})
}

async fn a_patient_sees_one_record_and_changes_none() {
    let app = ward().await;
    let bob = app.person(Role::Patient, "Patient/bob", None, "user/*.cruds");
    assert_eq!(sees(&bob).await, "bob");
    assert_eq!(bob.put("Patient/bob", &patient("bob", "Robert")).await.status, 403);
    assert_eq!(bob.delete("Observation/o-bob").await.status, 403);
    assert_eq!(bob.post("Observation", &observation("x", "bob", "2-2")).await.status, 403);
    let answer = |of: &str| {
        let subject = json!({"reference": format!("Patient/{of}")});
        json!({"resourceType": "QuestionnaireResponse", "status": "completed", "subject": subject})
    };
    assert_eq!(bob.post("QuestionnaireResponse", &answer("bob")).await.status, 201);
    assert_eq!(bob.post("QuestionnaireResponse", &answer("ann")).await.status, 403);
    // Everybody's: who works here.
    assert_eq!(bob.get("Practitioner/gp").await.status, 200);
    // The office's scopes are not a person's.
    let wide = app.person(Role::Patient, "Patient/bob", None, "system/*.cruds");
    assert_eq!(wide.get("Patient/bob").await.status, 403);
}

async fn a_guardian_sees_wards_as_long_as_the_relation_holds() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let relation = |active: bool, period: Value| {
        json!({
            "resourceType": "RelatedPerson", "id": "mum", "active": active, "period": period,
            "patient": {"reference": "Patient/cid"},
        })
    };
    let mum = app.person(Role::Guardian, "RelatedPerson/mum", None, "user/*.rs");
    assert_eq!(sees(&mum).await, "");
    for (active, period, seen) in [
        (true, period("2020-01-01", "2030-01-01"), "cid"),
        (true, period("2020-01-01", "2026-01-30"), ""),
        (true, json!({"start": "2026-02-01"}), ""),
        (true, json!({"start": "2026-01-31"}), "cid"),
        (false, json!({"start": "2020"}), ""),
    ] {
        put(&office, &relation(active, period)).await;
        assert_eq!(sees(&mum).await, seen);
    }
    put(&office, &relation(true, json!({"start": "2020"}))).await;
    assert_eq!(sees(&mum).await, "cid");
    assert_eq!(office.delete("RelatedPerson/mum").await.status, 204);
    assert_eq!(sees(&mum).await, "");
}

async fn a_provider_sees_assigned_patients_and_a_change_counts_at_once() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let gp = app.person(Role::Provider, "Practitioner/gp", None, "user/*.cruds");
    let doc = app.person(Role::Provider, "Practitioner/doc", None, "user/*.cruds");
    assert_eq!((sees(&gp).await.as_str(), sees(&doc).await.as_str()), ("ann", ""));
    // Ann changes her doctor.
    let mut ann = patient("ann", "Ann");
    ann["generalPractitioner"] = json!([{"reference": "Practitioner/doc"}]);
    put(&office, &ann).await;
    assert_eq!((sees(&gp).await.as_str(), sees(&doc).await.as_str()), ("", "ann"));

    let team = |status: &str, whole: Value, own: Value| {
        json!({
            "resourceType": "CareTeam", "id": "t", "status": status, "period": whole,
            "subject": {"reference": "Patient/bob"},
            "participant": [
                {"member": {"reference": "Practitioner/doc"}},
                {"member": {"reference": "Practitioner/gp"}, "period": own},
            ],
        })
    };
    let open = || json!({"start": "2020"});
    for (resource, seen) in [
        (team("active", open(), open()), "bob"),
        (team("inactive", open(), open()), ""),
        (team("active", period("2020", "2025"), open()), ""),
        (team("active", open(), period("2020", "2025")), ""),
    ] {
        put(&office, &resource).await;
        assert_eq!(sees(&gp).await, seen);
    }

    let visit = |status: &str, start: &str, end: &str| {
        json!({
            "resourceType": "Encounter", "id": "e", "status": status, "class": {"code": "AMB"},
            "subject": {"reference": "Patient/cid"}, "period": period(start, end),
            "participant": [{"individual": {"reference": "Practitioner/gp"}}],
        })
    };
    for (resource, seen) in [
        (visit("in-progress", "2026-01-30", "2026-02-03"), "cid"),
        (visit("finished", "2026-01-02", "2026-01-03"), "cid"),
        (visit("finished", "2025-12-01", "2025-12-02"), ""),
        (visit("cancelled", "2026-01-30", "2026-01-30"), ""),
    ] {
        put(&office, &resource).await;
        assert_eq!(sees(&gp).await, seen);
    }

    let booking = |status: &str, start: &str| {
        json!({
            "resourceType": "Appointment", "id": "a", "status": status, "start": start, "end": start,
            "participant": [
                {"actor": {"reference": "Patient/cid"}, "status": "accepted"},
                {"actor": {"reference": "Practitioner/gp"}, "status": "accepted"},
            ],
        })
    };
    for (id, status, start, seen) in [
        ("a1", "booked", "2026-02-03T09:00:00Z", "cid"),
        ("a1", "cancelled", "2026-02-03T09:00:00Z", ""),
        ("a2", "booked", "2026-03-20T09:00:00Z", ""),
        ("a3", "fulfilled", "2026-01-20T09:00:00Z", "cid"),
    ] {
        let mut resource = booking(status, start);
        resource["id"] = json!(id);
        put(&office, &resource).await;
        assert_eq!(sees(&gp).await, seen, "{status} {start}");
    }
}

async fn a_role_of_a_practitioner_is_the_practitioner_while_it_is_active() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let mut bob = patient("bob", "Bob");
    bob["generalPractitioner"] = json!([{"reference": "PractitionerRole/r"}]);
    put(&office, &bob).await;
    let gp = app.person(Role::Nurse, "Practitioner/gp", None, "user/*.rs");
    for (active, end, seen) in [(true, "2030", "ann bob"), (false, "2030", "ann"), (true, "2025", "ann")] {
        let role = json!({
            "resourceType": "PractitionerRole", "id": "r", "active": active, "period": {"end": end},
            "practitioner": {"reference": "Practitioner/gp"},
        });
        put(&office, &role).await;
        assert_eq!(sees(&gp).await, seen);
    }
}

async fn patient_scopes_are_about_the_patient_of_the_launch() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let mut bob = patient("bob", "Bob");
    bob["generalPractitioner"] = json!([{"reference": "Practitioner/gp"}]);
    put(&office, &bob).await;
    let at = |launch, scopes| app.person(Role::Provider, "Practitioner/gp", launch, scopes);
    assert_eq!(sees(&at(None, "user/*.rs")).await, "ann bob");
    assert_eq!(sees(&at(Some("bob"), "patient/*.rs")).await, "bob");
    // Not in this provider's care: the launch alone opens nothing.
    assert_eq!(sees(&at(Some("cid"), "patient/*.rs")).await, "");
    assert_eq!(sees(&at(None, "patient/*.rs")).await, "");
    assert_eq!(sees(&at(Some("bob"), "patient/*.rs user/Patient.rs user/Observation.rs")).await, "ann bob");
    let admin = app.person(Role::Admin, "Practitioner/boss", Some("cid"), "patient/*.rs");
    assert_eq!(sees(&admin).await, "cid");
    assert_eq!(admin.get("Practitioner/gp").await.status, 200);
    // A filter narrows what lies within reach.
    let narrow = at(Some("bob"), "patient/Observation.rs?code=2-2 patient/Patient.rs");
    assert_eq!((narrow.get("Observation/o-bob").await.status, narrow.get("Patient/bob").await.status), (404, 200));
}

async fn nobody_writes_into_or_out_of_a_record_beyond_reach() {
    let app = ward().await;
    let gp = app.person(Role::Provider, "Practitioner/gp", None, "user/*.cruds");
    put(&gp, &observation("o-ann", "ann", "3-3")).await;
    // Out of reach: not there. Into another record, or into both: refused.
    assert_eq!(gp.put("Observation/o-bob", &observation("o-bob", "bob", "3-3")).await.status, 404);
    assert_eq!(gp.put("Observation/o-ann", &observation("o-ann", "bob", "3-3")).await.status, 403);
    assert_eq!(gp.post("Observation", &observation("x", "bob", "3-3")).await.status, 403);
    let both = json!({
        "resourceType": "Appointment", "status": "proposed",
        "participant": [
            {"actor": {"reference": "Patient/ann"}, "status": "accepted"},
            {"actor": {"reference": "Patient/bob"}, "status": "accepted"},
        ],
    });
    assert_eq!(gp.post("Appointment", &both).await.status, 403);
    assert_eq!(gp.delete("Observation/o-bob").await.status, 204);
    let office = app.persona("system/*.cruds").await;
    assert_eq!(office.get("Observation/o-bob").await.status, 200, "nothing was deleted");
    // A provider cannot make a patient an assigned one by writing to a record out of reach.
    let mut bob = patient("bob", "Bob");
    bob["generalPractitioner"] = json!([{"reference": "Practitioner/gp"}]);
    assert_eq!(gp.put("Patient/bob", &bob).await.status, 404);
    // A new patient is taken in.
    let mut new = json!({"resourceType": "Patient", "name": [{"family": "New"}]});
    new["generalPractitioner"] = json!([{"reference": "Practitioner/gp"}]);
    let new = gp.post("Patient", &new).await;
    assert_eq!(new.status, 201, "{}", new.text());
    let id = new.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(gp.get(&format!("Patient/{id}")).await.status, 200);
}

async fn a_receptionist_gives_appointments_and_sees_nothing_clinical() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let desk = app.person(Role::Receptionist, "Practitioner/desk", None, "user/*.cruds");
    for path in
        ["Observation/o-ann", "Observation?_id=o-ann", "Condition", "Encounter", "DocumentReference", "Binary/x"]
    {
        assert_eq!(desk.get(path).await.status, 403, "{path}");
    }
    assert_eq!(desk.get("Patient?_revinclude=Observation:subject").await.ids().len(), 3);
    let booking = json!({
        "resourceType": "Appointment", "id": "a", "status": "booked", "start": "2026-02-03T09:00:00Z",
        "end": "2026-02-03T09:20:00Z", "reasonCode": [{"text": "Chest pain"}], "comment": "very worried",
        "participant": [{"actor": {"reference": "Patient/bob"}, "status": "accepted"}],
    });
    put(&office, &booking).await;
    let seen = desk.get("Appointment/a").await;
    assert_eq!(seen.status, 200, "{}", seen.text());
    assert!(!seen.text().contains("Chest pain") && !seen.text().contains("worried"), "{}", seen.text());
    assert_eq!(seen.json()["meta"]["tag"][0]["code"], "SUBSETTED");
    assert_eq!(seen.json()["start"], "2026-02-03T09:00:00Z");
    // Its own part can be changed, the reason only be kept.
    let mut moved = seen.json();
    moved["start"] = json!("2026-02-04T09:00:00Z");
    assert_eq!(desk.put("Appointment/a", &moved).await.status, 403);
    // No search tells what is closed, and none finds or sorts by it.
    let found = |query: &'static str| async { desk.get(query).await.ids().len() };
    let all = desk.get("Appointment?_id=a").await;
    assert!(all.ids().len() == 1 && !all.text().contains("Chest pain"), "{}", all.text());
    assert_eq!(found("Appointment?reason-code:text=Chest%20pain").await, 0);
    assert_eq!(found("Appointment?reason-code:missing=true").await, 1);
    let staff = app.person(Role::Staff, "Practitioner/temp", None, "user/*.cruds");
    assert_eq!(staff.put("Patient/bob", &patient("bob", "B")).await.status, 403);
    let mut bob = patient("bob", "Bob");
    bob["identifier"] = json!([{"system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-11-2222"}]);
    put(&desk, &bob).await;
    let seen = staff.get("Patient/bob").await;
    assert!(seen.status == 200 && !seen.text().contains("999-11-2222"), "{}", seen.text());
    for (query, of_desk, of_staff) in [
        ("Patient?identifier=999-11-2222", 1, 0),
        ("Patient?identifier:not=999-11-2222", 2, 3),
        ("Patient?identifier:missing=false&_id=bob", 1, 1),
        ("Appointment?patient.identifier=999-11-2222", 1, 0),
    ] {
        let found = (desk.get(query).await.ids().len(), staff.get(query).await.ids().len());
        assert_eq!(found, (of_desk, of_staff), "{query}");
    }
}

async fn the_glass_is_broken_for_one_patient_and_leaves_its_marks() {
    let app = ward().await;
    let office = app.persona("system/*.cruds").await;
    let denial = json!({
        "resourceType": "Consent", "id": "c", "status": "active", "patient": {"reference": "Patient/cid"},
        "scope": {"coding": [{"code": "patient-privacy"}]}, "category": [{"text": "privacy"}],
        "policyRule": {"coding": [{"code": "OPTOUT"}]},
    });
    put(&office, &denial).await;
    let gp = app.person(Role::Provider, "Practitioner/gp", None, "user/*.rs");
    let stated = |purpose: &str, reason: &str| {
        json!({"resourceType": "Parameters", "parameter": [
            {"name": "purpose", "valueCode": purpose}, {"name": "reason", "valueString": reason},
        ]})
    };
    let reason = "Unconscious in the emergency room";
    for (path, body, status) in [
        ("Patient/cid/$emergency-access", stated("TREAT", reason), 400),
        ("Patient/cid/$emergency-access", stated("ETREAT", "please"), 400),
        ("Patient/nobody/$emergency-access", stated("ETREAT", reason), 404),
    ] {
        assert_eq!(gp.post(path, &body).await.status, status, "{path}");
    }
    let nurse = app.person(Role::Nurse, "Practitioner/doc", None, "user/*.rs");
    for who in [&nurse, &office] {
        assert_eq!(who.post("Patient/cid/$emergency-access", &stated("ETREAT", reason)).await.status, 403);
    }
    assert_eq!(office.get("Task").await.ids().len(), 0, "a refusal leaves no order");

    let given = gp.post("Patient/cid/$emergency-access", &stated("ETREAT", reason)).await;
    assert_eq!((given.status, given.header("cache-control")), (200, "no-store"), "{}", given.text());
    let parameters = given.json()["parameter"].clone();
    let named = |name: &str| parameters.as_array().unwrap().iter().find(|one| one["name"] == name).cloned().unwrap();
    assert_eq!(named("expires_in")["valueInteger"], 15 * 60);
    let emergency = app.bearer(named("access_token")["valueString"].as_str().unwrap());
    // One patient, whatever the relation and the consent; and not even the own ones.
    assert_eq!(sees(&emergency).await, "cid");
    assert_eq!(sees(&gp).await, "ann");
    assert_eq!(emergency.put("Observation/o-cid", &observation("o-cid", "cid", "3-3")).await.status, 403);
    assert_eq!(emergency.post("Patient/bob/$emergency-access", &stated("BTG", reason)).await.status, 403);

    let task = office.get(named("review")["valueReference"]["reference"].as_str().unwrap()).await.json();
    assert_eq!((&task["for"]["reference"], &task["description"]), (&json!("Patient/cid"), &json!(reason)));
    assert_eq!(office.get("Flag?patient=cid").await.ids().len(), 1);
    let audit = office.audit_of(given.header("x-request-id")).await;
    assert!(audit.iter().any(|event| event.to_string().contains(reason)), "{audit:?}");
    let read = emergency.get("Patient/cid").await;
    let audit = office.audit_of(read.header("x-request-id")).await;
    assert!(audit.iter().all(|event| event["outcomeDesc"] == "emergency access (ETREAT)"), "{audit:?}");
    assert!(!audit.is_empty());
    app.pass(15 * 60);
    assert_eq!(emergency.get("Patient/cid").await.status, 401);
}

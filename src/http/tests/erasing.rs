//! A patient is erased: nothing of the record can be read or found afterwards, on either database, not even with an older
//! copy of the record database, while everybody else's stays as it was.

use std::path::Path;

use serde_json::{Value, json};

use super::people::put;
use super::{Persona, TestApp, observation, on_both, patient};
use crate::access::Role;
use crate::audit::verify;
use crate::error::Kind;
use crate::jobs::erase;
use crate::oauth::By;
use crate::store::db::Db;

on_both![nothing_of_an_erased_patient_is_left, an_older_copy_of_the_database_gives_nothing_back];

/// Searches that found something of Eve before.
const FINDS: [&str; 9] = [
    "Patient?family=Erasable",
    "Patient?identifier=urn:mrn|E-1",
    "Patient?birthdate=1970-01-31",
    "Patient?_id=eve",
    "Observation?patient=eve",
    "Observation?subject:Patient.family=Erasable",
    "Appointment?actor=Patient/eve",
    "Consent?patient=eve",
    "RelatedPerson?patient=eve",
];

fn eve() -> Value {
    let mut eve = patient("eve", "Erasable");
    eve["birthDate"] = json!("1970-01-31");
    eve["identifier"] = json!([{"system": "urn:mrn", "value": "E-1"}]);
    eve
}

async fn fill(office: &Persona<'_>) {
    put(office, &eve()).await;
    put(office, &patient("adam", "Stays")).await;
    for id in ["eve", "adam"] {
        put(office, &observation(&format!("o-{id}"), id, "1-1")).await;
        put(office, &observation(&format!("o-{id}"), id, "2-2")).await;
    }
    let relative = json!({"resourceType": "RelatedPerson", "id": "mum", "patient": {"reference": "Patient/eve"}});
    put(office, &relative).await;
    let actor = |id: &str| json!({"actor": {"reference": format!("Patient/{id}")}, "status": "accepted"});
    let mut visit = json!({
        "resourceType": "Appointment", "id": "both", "status": "booked", "start": "2026-02-03T09:00:00Z",
        "end": "2026-02-03T10:00:00Z", "participant": [actor("eve"), actor("adam")],
    });
    put(office, &visit).await;
    visit["id"] = json!("moved");
    put(office, &visit).await;
    visit["participant"] = json!([actor("adam")]);
    put(office, &visit).await;
    let consent = json!({
        "resourceType": "Consent", "id": "c", "status": "active", "patient": {"reference": "Patient/eve"},
        "scope": {"coding": [{"code": "patient-privacy"}]}, "category": [{"text": "privacy"}],
        "provision": {"type": "deny"},
    });
    put(office, &consent).await;
    // One that was deleted, and one that was somebody else's before.
    put(office, &observation("o-gone", "eve", "3-3")).await;
    assert_eq!(office.delete("Observation/o-gone").await.status, 204);
    put(office, &observation("o-moved", "eve", "4-4")).await;
    put(office, &observation("o-moved", "adam", "4-4")).await;
}

async fn nothing_is_left(office: &Persona<'_>) {
    for path in FINDS {
        let reply = office.get(path).await;
        assert_eq!((reply.status, reply.ids().len()), (200, 0), "{path}: {}", reply.text());
        let count = office.get(&format!("{path}&_summary=count")).await;
        assert_eq!(count.json()["total"], 0, "{path}");
    }
    for path in
        ["Patient/eve", "Observation/o-eve", "RelatedPerson/mum", "Consent/c", "Appointment/both", "Observation/o-gone"]
    {
        for path in [path.to_owned(), format!("{path}/_history"), format!("{path}/_history/1")] {
            assert_eq!(office.get(&path).await.status, 404, "{path}");
        }
    }
    assert_eq!(office.get("Appointment/moved/_history/1").await.status, 404, "the version that named her");
    assert_eq!(office.get("Observation/o-moved/_history/1").await.status, 404);
    for kind in ["Patient", "Observation", "Appointment"] {
        let history = office.get(&format!("{kind}/_history?_count=100")).await;
        assert_eq!(history.status, 200, "{}", history.text());
        assert!(!history.text().contains("eve"), "{}", history.text());
    }
    assert_eq!(office.get("Patient/eve/$everything").await.status, 404);
    assert_eq!(office.put("Patient/eve", &eve()).await.status, 410, "the id is not used again");
    assert_eq!(office.put("Observation/new", &observation("new", "eve", "1-1")).await.status, 410);
}

async fn the_others_are_as_before(office: &Persona<'_>) {
    for path in [
        "Patient/adam",
        "Observation/o-adam",
        "Observation/o-adam/_history/1",
        "Appointment/moved",
        "Observation/o-moved",
    ] {
        assert_eq!(office.get(path).await.status, 200, "{path}");
    }
    assert_eq!(office.get("Observation?patient=adam").await.ids().len(), 2);
}

async fn nothing_of_an_erased_patient_is_left() {
    let app = TestApp::new().await;
    let office = app.persona("system/*.cruds").await;
    fill(&office).await;
    app.user("eve", Role::Patient, Some("Patient/eve")).await;
    for path in FINDS {
        assert!(!office.get(path).await.ids().is_empty(), "{path} finds her before");
    }
    // Another server has the keys at hand.
    let beside = app.again().await;
    let elsewhere = beside.bearer(office.token());
    assert_eq!(elsewhere.get("Patient/eve").await.status, 200);
    assert_eq!(erase::plan(app.app(), "nobody").await.err().map(|error| error.kind), Some(Kind::NotFound));
    let plan = erase::plan(app.app(), "eve").await.expect("a plan");
    assert_eq!(plan.shared, ["Appointment/both", "Appointment/moved"]);
    assert_eq!((plan.resources, plan.users.clone()), (5, vec!["eve".to_owned()]));
    let refused = erase::erase(app.app(), &By::server(), &plan, false).await.err().map(|error| error.kind);
    assert_eq!(refused, Some(Kind::BusinessRule), "not without saying so");
    assert_eq!(office.get("Patient/eve").await.status, 200);
    erase::erase(app.app(), &By::server(), &plan, true).await.expect("erased");

    nothing_is_left(&office).await;
    the_others_are_as_before(&office).await;
    assert_eq!(elsewhere.get("Patient/eve").await.status, 404);
    assert_eq!(elsewhere.put("Patient/eve", &eve()).await.status, 410);
    beside.app().close().await;
    let audit = json!(office.get("AuditEvent?patient=eve&_count=1000").await.json()).to_string();
    assert!(audit.contains("patient-erased"), "who erased her is on record");
    let report = verify::verify(&app.app().trail).await.expect("the trail is read");
    assert!(report.is_clean(), "{report}");
    let index = app.app().store.check_index(&app.app().config.mrn_system).await.expect("the index is read");
    assert!(index.is_clean() && index.erased > 0, "{index}");
    let user = app.app().oauth.users().get("eve").await.expect("the users are read").expect("a user");
    assert!(!user.is_active());

    let fresh = app.again().await;
    let office = fresh.persona("system/*.cruds").await;
    nothing_is_left(&office).await;
    // Once more changes nothing.
    let again = erase::plan(fresh.app(), "eve").await.expect("a plan");
    assert!(again.shared.is_empty());
    erase::erase(fresh.app(), &By::server(), &again, false).await.expect("erased again");
    the_others_are_as_before(&office).await;
}

/// A copy of the database as it is now; the app is closed for it.
async fn copied(app: &TestApp, into: &Path) -> String {
    let url = app.app().config.database_url.clone();
    app.app().close().await;
    match url.strip_prefix("sqlite:") {
        Some(_) => {
            let copy = into.join("older.db").display().to_string();
            let mut conn = Db::parse(&url).expect("a url").connect().await.ok().expect("connects");
            conn.run(&format!("vacuum into '{copy}'"), Vec::new()).await.ok().expect("copies");
            format!("sqlite:{copy}")
        }
        None => {
            let other = crate::store::postgres::database();
            let from = url.split_once("localhost/").and_then(|(_, rest)| rest.split_once('?')).expect("a name").0;
            let to = format!("{from}_older");
            let mut conn = Db::parse(&other).expect("a url").connect().await.ok().expect("connects");
            conn.run(&format!("create database {to} template {from}"), Vec::new()).await.ok().expect("copies");
            url.replace(&format!("/{from}?"), &format!("/{to}?"))
        }
    }
}

async fn an_older_copy_of_the_database_gives_nothing_back() {
    let before = TestApp::new().await;
    fill(&before.persona("system/*.cruds").await).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = copied(&before, folder.path()).await;
    let app = before.again().await;
    let plan = erase::plan(app.app(), "eve").await.expect("a plan");
    erase::erase(app.app(), &By::server(), &plan, true).await.expect("erased");

    let restored = before.again_on(copy).await;
    let office = restored.persona("system/*.cruds").await;
    nothing_is_left(&office).await;
    the_others_are_as_before(&office).await;
    let index = restored.app().store.check_index(&restored.app().config.mrn_system).await.expect("the index is read");
    assert!(index.is_clean() && index.erased > 0, "{index}");
}

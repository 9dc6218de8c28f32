//! Reviews of emergency accesses: every one waits for somebody else to look at it, whatever becomes of its Task.

use serde_json::{Value, json};

use super::browser::Browser;
use super::exchange::{clinic, exchanged, text, token_of};
use super::invitations::recorded;
use super::{Persona, TestApp};
use crate::access::Role;
use crate::interaction::reviews;
use crate::oauth::By;
use crate::oauth::reviews::Finding;

/// An emergency access of the doctor's to Cid, with something done under it: the id of the review, and the token.
async fn broken_glass(app: &TestApp) -> (String, String) {
    let own = token_of(app, "doctor", "user/*.cruds openid").await;
    let given = exchanged(app, &own, &[]).await.json();
    let token = text(&given, "access_token");
    assert_eq!(app.fhir(&token, "Observation/o-cid").await.status, 200);
    assert_eq!(app.fhir(&token, "Observation?patient=cid").await.status, 200);
    assert_eq!(app.fhir(&token, "Patient/ann").await.status, 404);
    assert_eq!(app.fhir(&own, "Patient/ann").await.status, 200, "not under it");
    (text(&given, "review").strip_prefix("Task/").unwrap().to_owned(), token)
}

async fn boss(app: &TestApp) -> Browser<'_> {
    app.user("boss", Role::Admin, None).await;
    let mut boss = Browser::new(app);
    let page = boss.open("/admin/users").await;
    boss.login(&page, "boss").await;
    boss
}

async fn task(office: &Persona<'_>, id: &str) -> Value {
    office.get(&format!("Task/{id}")).await.json()
}

#[tokio::test]
async fn a_review_shows_what_was_done_and_is_closed_once_with_a_finding() {
    let app = TestApp::new().await;
    let office = clinic(&app).await;
    let (id, token) = broken_glass(&app).await;
    let mut boss = boss(&app).await;
    let list = boss.get("/admin/reviews").await.text();
    assert!(list.contains("Open (1)") && list.contains(">doctor") && list.contains(&id), "{list}");
    assert!(!list.contains("Cole") && !list.contains("Unconscious"), "a list tells nothing of the patient: {list}");

    let page = boss.get(&format!("/admin/review?id={id}")).await;
    let seen = page.text();
    for words in [
        "Cole",
        "Patient&#x2f;cid",
        "Unconscious in the emergency room",
        "emergency treatment",
        "PROVIDER, Practitioner&#x2f;dr",
        "Observation&#x2f;o-cid",
        "found by a search",
        ">refused<",
    ] {
        assert!(seen.contains(words), "{words}: {seen}");
    }
    assert!(!seen.contains(&token) && !seen.contains("Observation&#x2f;o-ann"), "{seen}");
    let opened = recorded(&app, "emergency-review-opened").await;
    let opened = json!(opened).to_string();
    assert!(opened.contains("\"cid\"") && opened.contains("\"boss\"") && opened.contains(&id), "{opened}");

    let note = "The patient was brought in unconscious, as the ward's notes say.";
    for (finding, note, words) in [
        ("", note, "Say what the review has found"),
        ("perhaps", note, "Say what the review has found"),
        ("justified", "fine", "10 to 2,000 characters"),
    ] {
        let fields = [("id", id.as_str()), ("finding", finding), ("note", note)];
        let refused = boss.submit(&page, "/admin/review", &fields).await;
        assert!(refused.status == 400 && refused.text().contains(words), "{finding}: {}", refused.text());
    }
    assert_eq!(task(&office, &id).await["status"], "requested");
    let fields = [("id", id.as_str()), ("finding", "justified"), ("note", note)];
    let done = boss.submit(&page, "/admin/review", &fields).await;
    assert!(done.text().contains("Finding: justified") && done.text().contains("brought in"), "{}", done.text());
    let closed = task(&office, &id).await;
    assert_eq!((&closed["status"], &closed["businessStatus"]["text"]), (&json!("completed"), &json!("justified")));
    assert_eq!((&closed["output"][0]["valueString"], &closed["owner"]["display"]), (&json!(note), &json!("boss")));
    assert_eq!(office.get("Flag?patient=cid").await.json()["entry"][0]["resource"]["status"], "inactive");
    let fields = [("id", id.as_str()), ("finding", "not-justified"), ("note", note)];
    let again = boss.submit(&page, "/admin/review", &fields).await;
    assert_eq!(task(&office, &id).await, closed, "the finding stands");
    assert!(again.status == 400 && again.text().contains("closed already"), "{}", again.text());
    let list = boss.get("/admin/reviews").await.text();
    assert!(list.contains("Open (0)") && list.contains("None waits") && list.contains("Closed (1)"), "{list}");
    assert!(boss.get("/admin/reviews?of=closed").await.text().contains("closed by boss"));
    let record = json!(recorded(&app, "emergency-review-closed").await).to_string();
    assert!(record.contains("justified") && record.contains("\"boss\""), "{record}");
    assert!(!recorded(&app, "emergency-reviews-listed").await.is_empty());
    assert_eq!(boss.get("/admin/review?id=nobody").await.status, 404);
}

#[tokio::test]
async fn whoever_had_the_access_can_neither_hide_nor_close_its_review() {
    let app = TestApp::new().await;
    let office = clinic(&app).await;
    let (id, token) = broken_glass(&app).await;
    // The token opens the whole record, its order to review included.
    let doctor = app.bearer(&token);
    let mut changed = doctor.get(&format!("Task/{id}")).await.json();
    changed["status"] = json!("completed");
    changed["description"] = json!("Nothing of interest happened here");
    assert_eq!(doctor.put(&format!("Task/{id}"), &changed).await.status, 200);
    assert_eq!(office.delete(&format!("Task/{id}")).await.status, 204);
    let (app_, by) = (app.app(), By::operator("root"));
    let listed = reviews::list(app_, &by, false, &[], 10).await.unwrap();
    assert_eq!((listed.open, listed.reviews[0].task.as_str()), (1, id.as_str()));
    let shown = reviews::show(app_, &by, &id).await.unwrap();
    let about = shown.about.unwrap();
    assert_eq!((about.patient.as_str(), about.reason.as_str()), ("cid", "Unconscious in the emergency room"));
    assert!(shown.accesses.iter().any(|access| access.what == "update"), "what was done to the order is seen too");

    // The doctor becomes an administrator: it is still an access of their own.
    let users = app_.oauth.users();
    users.set_role("doctor", Role::Admin, Some("Practitioner/dr".into())).await.unwrap();
    app.pass(60);
    let mut own = Browser::new(&app);
    let page = own.open("/admin/users").await;
    own.login(&page, "doctor").await;
    let page = own.get(&format!("/admin/review?id={id}")).await;
    assert!(page.text().contains("Somebody else reviews it") && !page.text().contains("Close it"), "{}", page.text());
    let fields = [("id", id.as_str()), ("finding", "justified"), ("note", "It was all as it should be.")];
    let page = own.get("/admin/reviews").await;
    assert_eq!(own.submit(&page, "/admin/review", &fields).await.status, 403);

    let note = "The order to review was tampered with.";
    // While one is at it no other is, unless the first has died over it.
    let review = app_.oauth.review(&id).await.unwrap().unwrap();
    assert!(app_.oauth.begin_closing(&review).await.unwrap());
    let meanwhile = reviews::close(app_, &by, &id, Finding::Justified, note).await;
    assert!(meanwhile.unwrap_err().to_string().contains("in this very moment"));
    app.pass(61);
    let (one, other) = tokio::join!(
        reviews::close(app_, &by, &id, Finding::NotJustified, note),
        reviews::close(app_, &by, &id, Finding::Justified, note)
    );
    assert!(one.is_ok() != other.is_ok(), "of two who close it at once, one does");
    let there = task(&office, &id).await;
    assert_eq!(
        (&there["status"], &there["meta"]["versionId"]),
        (&json!("completed"), &json!("4")),
        "written once: {there}"
    );
    let closed = reviews::show(app_, &by, &id).await.unwrap().review.closed.unwrap();
    let won = if one.is_ok() { Finding::NotJustified } else { Finding::Justified };
    assert_eq!((closed.finding, &there["businessStatus"]["text"]), (won, &json!(won.name())));
}

#[tokio::test]
async fn an_erased_patient_leaves_a_review_that_can_be_closed() {
    let app = TestApp::new().await;
    let office = clinic(&app).await;
    let (id, _) = broken_glass(&app).await;
    let by = By::operator("root");
    let plan = crate::jobs::erase::plan(app.app(), "cid").await.unwrap();
    crate::jobs::erase::erase(app.app(), &by, &plan, true).await.unwrap();
    assert_eq!(office.get(&format!("Task/{id}")).await.status, 404);
    let shown = reviews::show(app.app(), &by, &id).await.unwrap();
    assert!(
        shown.about.is_none() && shown.review.purpose == "ETREAT",
        "nothing of the patient was kept beside the record"
    );
    assert!(shown.accesses.len() >= 3, "the audit trail stays");
    let close = || reviews::close(app.app(), &by, &id, Finding::FollowUp, "Erased before it was looked at.");
    let (one, other) = tokio::join!(close(), close());
    assert!(one.is_ok() != other.is_ok(), "where no Task stands between the two either");
    assert_eq!(reviews::list(app.app(), &by, false, &[], 10).await.unwrap().open, 0);
}

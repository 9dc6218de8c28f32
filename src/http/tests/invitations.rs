//! How people become users, and come back after a reset: one-time links, tied to records, all of it on record.

use serde_json::{Value, json};

use super::browser::{Browser, PASSWORD};
use super::people::put;
use super::{Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::interaction::people;
use crate::oauth::invitation::{Invite, Issued};
use crate::oauth::{By, totp};

on_both![
    an_invited_patient_makes_an_account_once_and_sees_the_own_record,
    of_many_who_use_a_link_at_once_one_succeeds,
    a_link_ends_by_time_and_by_being_taken_back,
    a_taken_name_leaves_the_invitation_good_and_staff_enrol_a_second_factor,
    a_reset_ends_everything_and_its_newest_link_alone_opens_the_account,
];

const OTHER: &str = "Another-Lamp-1147";

fn as_role(role: Role, record: Option<&str>) -> Invite {
    Invite { role, fhir_user: record.map(str::to_owned), note: "for Ann".into() }
}

fn path(issued: &Issued) -> String {
    issued.link.strip_prefix("http://phial.test").expect("a link to here").to_owned()
}

async fn invited(app: &TestApp, role: Role, record: Option<&str>) -> Issued {
    people::invite(app.app(), &By::operator("tester"), as_role(role, record)).await.expect("an invitation")
}

async fn take(browser: &mut Browser<'_>, page: &Reply, name: &str, password: &str) -> Reply {
    let fields = [("username", name), ("password", password), ("again", password)];
    browser.submit(page, "/invitation", &fields).await
}

/// Detail of the events of this kind, in the order of the trail: name and value.
pub async fn recorded(app: &TestApp, code: &str) -> Vec<Value> {
    let rows = app.app().store.audit_scan(&[], 0..=i32::MAX, None, false, 1000).await.unwrap();
    let mut out = Vec::new();
    for row in &rows {
        for entry in app.app().store.audit_open(row).await.unwrap() {
            let entry: Value = serde_json::from_slice(&entry.bytes).unwrap();
            if entry["what"] == code {
                out.push(entry);
            }
        }
    }
    out
}

fn says(entry: &Value, name: &str) -> String {
    let detail = entry["detail"].as_array().unwrap();
    let found = detail.iter().find(|pair| pair[0] == name);
    found.map(|pair| pair[1].as_str().unwrap().to_owned()).unwrap_or_default()
}

async fn an_invited_patient_makes_an_account_once_and_sees_the_own_record() {
    let app = TestApp::new().await;
    let office = app.persona("system/*.cruds").await;
    put(&office, &patient("ann", "Ann")).await;
    let issued = invited(&app, Role::Patient, Some("Patient/ann")).await;
    let mut browser = Browser::new(&app);
    let page = browser.open(&path(&issued)).await;
    assert!(page.status == 200 && page.text().contains("to see your own record"), "{}", page.text());
    for (name, password, why) in [
        ("ann", "too short", "12 characters"),
        ("a b", PASSWORD, "A user name has"),
        ("lamp-4711", PASSWORD, "may not contain the user name"),
    ] {
        let refused = take(&mut browser, &page, name, password).await;
        assert!(refused.status == 400 && refused.text().contains(why), "{name}: {}", refused.text());
    }
    let fields = [("username", "ann"), ("password", PASSWORD), ("again", OTHER)];
    assert_eq!(browser.submit(&page, "/invitation", &fields).await.status, 400, "the passwords differ");
    let mut other = Browser::new(&app);
    let same = other.open(&path(&issued)).await;
    let account = take(&mut browser, &page, "Ann", PASSWORD).await;
    assert!(account.text().contains("Role PATIENT"), "logged in: {}", account.text());

    // Once: neither the page nor the form works again.
    assert_eq!(browser.open(&path(&issued)).await.status, 404);
    let again = take(&mut other, &same, "ann2", PASSWORD).await;
    assert!(again.status == 404 && again.text().contains("This link is over"), "{}", again.text());
    assert!(app.app().oauth.users().get("ann2").await.unwrap().is_none());
    let user = app.app().oauth.users().get("ann").await.unwrap().unwrap();
    assert_eq!((user.role, user.fhir_user.as_deref()), (Role::Patient, Some("Patient/ann")));

    let made = recorded(&app, "invitation-made").await;
    assert_eq!(says(&made[0], "operator"), "tester");
    let added = recorded(&app, "user-added").await;
    assert_eq!(
        (says(&added[0], "invitation"), says(&added[0], "username")),
        (issued.invitation.id.clone(), "ann".into())
    );
    assert_eq!(recorded(&app, "login-success").await.len(), 1);
    let secret = issued.link.split("code=").nth(1).unwrap().to_owned();
    for entry in [&made[0], &added[0]] {
        assert!(!entry.to_string().contains(&secret), "no record holds the secret");
    }
}

async fn of_many_who_use_a_link_at_once_one_succeeds() {
    let app = TestApp::new().await;
    let issued = invited(&app, Role::Staff, None).await;
    let code = issued.link.split("code=").nth(1).unwrap().to_owned();
    let tries = (0..6).map(|n| {
        let (app, code) = (app.app(), code.clone());
        let name = format!("user{n}");
        async move { people::take_up(app, &code, &name, PASSWORD.to_owned().into(), "", Default::default()).await }
    });
    let done = futures_util::future::join_all(tries).await;
    let good = done.iter().filter(|one| matches!(one, Ok(crate::oauth::login::Step::On(_)))).count();
    assert_eq!((good, app.app().oauth.users().list().await.unwrap().len()), (1, 1));
}

async fn a_link_ends_by_time_and_by_being_taken_back() {
    let app = TestApp::new().await;
    let oauth = &app.app().oauth;
    let by = By::operator("tester");
    let issued = invited(&app, Role::Nurse, None).await;
    let mut browser = Browser::new(&app);
    app.pass(7 * 86_400 - 1);
    let page = browser.open(&path(&issued)).await;
    assert_eq!(page.status, 200);
    app.pass(1);
    assert_eq!(browser.open(&path(&issued)).await.status, 404);
    assert_eq!(take(&mut browser, &page, "nurse", PASSWORD).await.status, 404);

    let issued = invited(&app, Role::Nurse, None).await;
    let page = browser.open(&path(&issued)).await;
    let open = oauth.invitations().await.unwrap();
    assert_eq!((open.len(), open[0].note.as_str(), open[0].by.as_str()), (1, "for Ann", "operator tester"));
    assert!(oauth.revoke_invitation(&by, &issued.invitation.id).await.unwrap());
    assert!(!oauth.revoke_invitation(&by, &issued.invitation.id).await.unwrap());
    assert_eq!(take(&mut browser, &page, "nurse", PASSWORD).await.status, 404);
    assert_eq!(recorded(&app, "invitation-revoked").await.len(), 1);
    for wrong in ["", "x", &"A".repeat(43)] {
        assert_eq!(browser.open(&format!("/invitation?code={wrong}")).await.status, 404);
    }
}

#[tokio::test]
async fn an_invitation_needs_a_record_that_stands_when_made_and_when_taken_up() {
    let app = TestApp::new().await;
    let office = app.persona("system/*.cruds").await;
    put(&office, &patient("cid", "Cid")).await;
    put(&office, &json!({"resourceType": "Patient", "id": "gone", "active": false})).await;
    let relation = |end: &str| {
        json!({
            "resourceType": "RelatedPerson", "id": "mum", "period": {"start": "2020", "end": end},
            "patient": {"reference": "Patient/cid"},
        })
    };
    put(&office, &relation("2025-12-31")).await;
    let by = By::operator("tester");
    for (role, record) in [
        (Role::Patient, None),
        (Role::Patient, Some("Patient/nobody")),
        (Role::Patient, Some("Patient/gone")),
        (Role::Patient, Some("RelatedPerson/mum")),
        (Role::Guardian, Some("RelatedPerson/mum")),
        (Role::Guardian, Some("Patient/cid")),
        (Role::Nurse, Some("Practitioner/nobody")),
    ] {
        let error = people::invite(app.app(), &by, as_role(role, record)).await.err().expect("refused");
        assert_eq!(error.issues[0].expression.as_deref(), Some("fhir_user"), "{} {record:?}", role.name());
    }
    put(&office, &relation("2026-02-01")).await;
    let issued = invited(&app, Role::Guardian, Some("RelatedPerson/mum")).await;
    let mut browser = Browser::new(&app);
    let page = browser.open(&path(&issued)).await;
    put(&office, &relation("2026-01-30")).await;
    let refused = take(&mut browser, &page, "mum", PASSWORD).await;
    assert!(refused.status == 409 && app.app().oauth.users().list().await.unwrap().is_empty(), "{}", refused.text());
    put(&office, &relation("2026-02-01")).await;
    assert!(take(&mut browser, &page, "mum", PASSWORD).await.text().contains("Role GUARDIAN"));
}

async fn a_taken_name_leaves_the_invitation_good_and_staff_enrol_a_second_factor() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let issued = invited(&app, Role::Nurse, None).await;
    let mut browser = Browser::new(&app);
    let page = browser.open(&path(&issued)).await;
    let taken = take(&mut browser, &page, "NURSE", PASSWORD).await;
    assert!(taken.status == 400 && taken.text().contains("Choose another"), "{}", taken.text());
    let page = take(&mut browser, &taken, "nurse2", PASSWORD).await;
    assert!(page.text().contains("Set up your second step"), "{}", page.text());
    assert_eq!(browser.get("/account").await.status, 303, "not in before the second factor");
    let key = page.text().split("secret=").nth(1).unwrap()[..32].to_owned();
    let code = totp::code_at(&totp::from_base32(&key).unwrap(), app.app().world.now());
    browser.submit(&page, "/login", &[("step", "enrol"), ("code", &code)]).await;
    assert!(browser.open("/account").await.text().contains("second step on"));
}

async fn a_reset_ends_everything_and_its_newest_link_alone_opens_the_account() {
    let app = TestApp::new().await;
    let oauth = &app.app().oauth;
    app.user("bob", Role::Staff, None).await;
    let mut browser = Browser::new(&app);
    let page = browser.open("/account").await;
    assert!(browser.login(&page, "bob").await.text().contains("Role STAFF"));
    let by = By::operator("tester");
    let first = oauth.reset(&by, "bob").await.unwrap().unwrap();
    assert_eq!(browser.get("/account").await.status, 303, "the session has ended");
    let mut other = Browser::new(&app);
    let page = other.open("/login").await;
    let fields = [("step", "login"), ("username", "bob"), ("password", PASSWORD)];
    assert_eq!(other.submit(&page, "/login", &fields).await.status, 401, "the old password");
    let second = oauth.reset(&by, "bob").await.unwrap().unwrap();
    assert_eq!(browser.open(&path(&first)).await.status, 404, "the older link");
    let page = browser.open(&path(&second)).await;
    assert!(page.text().contains("Choose a new password"), "{}", page.text());
    // A name that is sent along changes nothing.
    let page = take(&mut browser, &page, "eve", OTHER).await;
    assert!(page.text().contains("Set up your second step"), "{}", page.text());
    assert_eq!(oauth.users().list().await.unwrap().len(), 1);
    assert!(oauth.reset(&by, "nobody").await.unwrap().is_none());
    let reset = recorded(&app, "password-reset").await;
    assert_eq!((reset.len(), says(&reset[0], "operator")), (2, "tester".to_owned()));

    // A link does not open a user who was disabled since.
    let third = oauth.reset(&by, "bob").await.unwrap().unwrap();
    let page = browser.open(&path(&third)).await;
    oauth.users().disable("bob").await.unwrap();
    assert_eq!(take(&mut browser, &page, "bob", PASSWORD).await.status, 404);
    let page = other.open("/login").await;
    let fields = [("step", "login"), ("username", "bob"), ("password", PASSWORD)];
    assert_eq!(other.submit(&page, "/login", &fields).await.status, 401);
}

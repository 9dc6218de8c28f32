//! The pages of administration: for administrators alone, with a login that is fresh, all of it on record.

use super::browser::{Browser, PASSWORD, SECRET};
use super::{Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::oauth::{ClientKind, Find, NewUser, UserPage};

on_both![users_are_found_changed_and_reset_on_their_page, invitations_apps_sessions_and_consents_are_made_and_ended,];

const PAGES: &[&str] = &["users", "invitations", "clients", "sessions", "consents", "keys", "providers", "reviews"];

async fn office(app: &TestApp) -> Browser<'_> {
    app.user("boss", Role::Admin, None).await;
    let mut browser = Browser::new(app);
    let page = browser.open("/admin/users").await;
    let page = browser.login(&page, "boss").await;
    assert!(page.status == 200 && page.text().contains("<h1>Users</h1>"), "{}", page.text());
    browser
}

/// The value of the last hidden field of this name.
fn field(page: &Reply, name: &str) -> String {
    let text = page.text();
    let mark = format!("name=\"{name}\" value=\"");
    text.rsplit(mark.as_str()).next().unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn administration_is_for_administrators_with_a_fresh_login() {
    let app = TestApp::with(&[("session_idle_s", "7200")]).await;
    app.user("nurse", Role::Nurse, None).await;
    let mut nobody = Browser::new(&app);
    let mut nurse = Browser::new(&app);
    let page = nurse.open("/account").await;
    let page = nurse.login(&page, "nurse").await;
    assert!(!page.text().contains("/admin"), "{}", page.text());
    let mut boss = office(&app).await;
    for name in PAGES {
        let path = format!("/admin/{name}");
        assert_eq!(nobody.get(&path).await.status, 303, "{path}");
        assert_eq!(nurse.get(&path).await.status, 403, "{path}");
        let seen = boss.get(&path).await;
        assert!(seen.status == 200 && seen.text().contains("aria-current=\"page\""), "{path}: {}", seen.text());
        assert!(seen.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
    }
    let token = field(&page, "token");
    assert_eq!(nurse.post("/admin/keys", &[("token", &token)]).await.status, 403);
    assert_eq!(boss.post("/admin/keys", &[("act", "rotate")]).await.status, 403, "a form without its token");

    let keys = boss.get("/admin/keys").await;
    assert_eq!(keys.text().matches(">signs<").count(), 2);
    let keys = boss.submit(&keys, "/admin/keys", &[("act", "rotate")]).await;
    assert_eq!((keys.text().matches(">signs<").count(), keys.text().matches(">replaced<").count()), (2, 2));
    // A quarter of an hour later pages are shown still, and nothing is changed.
    app.pass(15 * 60);
    let keys = boss.get("/admin/keys").await;
    assert!(keys.status == 200 && keys.text().contains("log in once more"), "{}", keys.text());
    let refused = boss.submit(&keys, "/admin/keys", &[("act", "rotate")]).await;
    assert!(refused.status == 403 && refused.text().contains("Is it still you?"), "{}", refused.text());
    assert_eq!(boss.get("/admin/keys").await.text().matches(">replaced<").count(), 2);
    let page = boss.open("/login?to=admin&again=1").await;
    boss.login(&page, "boss").await;
    let keys = boss.get("/admin/keys").await;
    let keys = boss.submit(&keys, "/admin/keys", &[("act", "rotate")]).await;
    assert_eq!(keys.text().matches(">replaced<").count(), 4);
}

#[tokio::test]
async fn an_administrator_needs_a_second_factor_whatever_the_settings() {
    let app = TestApp::with(&[("staff_second_factor", "optional")]).await;
    for (name, role, asked) in [("boss", Role::Admin, true), ("nurse", Role::Nurse, false)] {
        let new = NewUser {
            username: name.into(),
            role,
            fhir_user: None,
            password: Some(PASSWORD.to_owned().into()),
            totp_secret: None,
            demo: false,
        };
        app.app().oauth.users().add(new).await.unwrap();
        let mut browser = Browser::new(&app);
        let page = browser.open("/login").await;
        let page = browser.login(&page, name).await;
        assert_eq!(page.text().contains("Set up your second step"), asked, "{name}: {}", page.text());
    }
}

async fn users_are_found_changed_and_reset_on_their_page() {
    let app = TestApp::new().await;
    let mut boss = office(&app).await;
    for n in 0..60 {
        let new = NewUser {
            username: format!("staff{n:02}"),
            role: Role::Staff,
            fhir_user: None,
            password: None,
            totp_secret: Some(SECRET.to_vec()),
            demo: false,
        };
        app.app().oauth.users().add(new).await.unwrap();
    }
    let list = boss.get("/admin/users").await;
    assert!(list.text().contains("61 in all") && !list.text().contains("staff55"), "{}", list.text());
    let next = list.text().split("?after=").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let second = boss.get(&format!("/admin/users?after={next}")).await.text();
    assert!(second.contains("staff55") && !second.contains("staff41") && second.contains("First page"), "{second}");
    let found = boss.get("/admin/users?q=STAFF5+staff").await;
    assert!(found.text().contains("10 in all") && !found.text().contains("staff41"), "{}", found.text());
    assert!(boss.get("/admin/users?q=nobody").await.text().contains("No user was found"));
    let found = boss.get("/admin/users?role=ADMIN").await.text();
    assert!(found.contains("1 in all") && found.contains(">boss</a>"), "{found}");

    app.user("ann", Role::Staff, None).await;
    let mut ann = Browser::new(&app);
    let page = ann.open("/account").await;
    ann.login(&page, "ann").await;
    let list = boss.get("/admin/users?q=ann").await;
    let id = list.text().split("/admin/user?id=").nth(1).unwrap()[..36].to_owned();
    let page = boss.get(&format!("/admin/user?id={id}")).await;
    assert!(page.text().contains("Unknown browser"), "her session: {}", page.text());
    for (act, words) in
        [("disable", "nothing of theirs works"), ("enable", "may log in again"), ("unlock", "need not wait")]
    {
        let page = boss.submit(&page, "/admin/user", &[("id", &id), ("act", act)]).await;
        assert!(page.text().contains(words), "{act}: {}", page.text());
        assert_eq!(ann.get("/account").await.status, 303, "her session has ended");
    }
    let role = [("id", id.as_str()), ("act", "role"), ("role", "PATIENT"), ("record", "Patient/nobody")];
    let refused = boss.submit(&page, "/admin/user", &role).await;
    assert!(refused.status == 400 && refused.text().contains("no such record"), "{}", refused.text());
    let writer = app.persona("system/*.cruds").await;
    assert_eq!(writer.put("Patient/p1", &patient("p1", "Ann")).await.status, 201);
    let role = [("id", id.as_str()), ("act", "role"), ("role", "PATIENT"), ("record", "Patient/p1")];
    assert!(boss.submit(&page, "/admin/user", &role).await.text().contains("the new role"));
    assert_eq!(app.app().oauth.users().get("ann").await.unwrap().unwrap().role, Role::Patient);

    let reset = boss.submit(&page, "/admin/user", &[("id", &id), ("act", "reset")]).await;
    let link = reset.text().split("<span class=\"key\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let link = link.replace("&#x2f;", "/");
    let page = ann.open(link.strip_prefix("http://phial.test").unwrap()).await;
    assert!(page.text().contains("Choose a new password"), "{link}: {}", page.text());
    // Nobody locks themselves out.
    let own = app.app().oauth.users().get("boss").await.unwrap().unwrap().id.clone();
    let page = boss.get(&format!("/admin/user?id={own}")).await;
    for act in ["disable", "reset", "role"] {
        let fields = [("id", own.as_str()), ("act", act), ("role", "STAFF")];
        assert_eq!(boss.submit(&page, "/admin/user", &fields).await.status, 400, "{act}");
    }
    let office = app.persona("system/*.rs").await;
    let trail = office.get("AuditEvent?_count=1000").await.text();
    assert_eq!(trail.matches(r#""type":"administrator","valueString":"boss""#).count(), 5, "each act, by whom");
    assert!(!trail.contains(link.split("code=").nth(1).unwrap()));
}

async fn invitations_apps_sessions_and_consents_are_made_and_ended() {
    let app = TestApp::new().await;
    let mut boss = office(&app).await;
    let page = boss.get("/admin/invitations").await;
    let bad = boss.submit(&page, "/admin/invitations", &[("role", "PATIENT"), ("note", "for \"Ann\"")]).await;
    assert!(bad.status == 400 && bad.text().contains("tied to their record") && bad.text().contains("for &quot;Ann"));
    let made = boss.submit(&page, "/admin/invitations", &[("role", "NURSE"), ("note", "for Ann")]).await;
    assert!(made.text().contains("invitation?code=") && made.text().contains("for Ann"), "{}", made.text());
    let fields = [("act", "revoke"), ("id", &field(&made, "id"))];
    let page = boss.submit(&made, "/admin/invitations", &fields).await;
    assert!(page.text().contains("0 in all") && !page.text().contains("code="), "{}", page.text());

    let fields =
        [("name", "Desk"), ("kind", "confidential-symmetric"), ("scopes", "system/Patient.rs"), ("client_id", "desk")];
    let page = boss.get("/admin/clients").await;
    let made = boss.submit(&page, "/admin/clients", &fields).await;
    let secret = made.text().split("<span class=\"key\">").nth(1).unwrap()[..43].to_owned();
    let asked = async |secret: &str| {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "desk"),
            ("scope", "system/Patient.rs"),
            ("client_secret", secret),
        ];
        app.form("/oauth/token", &form, None).await.status
    };
    assert_eq!(asked(&secret).await, 200);
    let page = boss.get("/admin/client?id=desk").await;
    assert!(!page.text().contains(&secret), "shown once");
    let rotated = boss.submit(&page, "/admin/client", &[("id", "desk"), ("act", "rotate")]).await;
    let second = rotated.text().split("<span class=\"key\">").nth(1).unwrap()[..43].to_owned();
    assert_eq!((asked(&secret).await, asked(&second).await), (401, 200));
    boss.submit(&page, "/admin/client", &[("id", "desk"), ("act", "disable")]).await;
    assert_eq!(asked(&second).await, 401);
    let unsure = boss.submit(&page, "/admin/client", &[("id", "desk"), ("act", "remove")]).await;
    assert_eq!(unsure.status, 400);
    boss.submit(&page, "/admin/client", &[("id", "desk"), ("act", "remove"), ("sure", "yes")]).await;
    assert_eq!(boss.get("/admin/client?id=desk").await.status, 404);

    let writer = app.persona("system/*.cruds").await;
    assert_eq!(writer.put("Patient/p1", &patient("p1", "Ann")).await.status, 201);
    app.user("ann", Role::Patient, Some("Patient/p1")).await;
    app.client("app", ClientKind::Public, "launch/patient patient/*.rs offline_access").await;
    let answer = app.launched("app", "ann", "launch/patient patient/*.rs offline_access", None).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 200);
    let page = boss.get("/admin/consents?q=ann").await;
    assert!(page.text().contains("ann · The app app"), "{}", page.text());
    let page = boss.submit(&page, "/admin/consents", &[("id", &field(&page, "id"))]).await;
    assert!(page.text().contains("no access any more"), "{}", page.text());
    assert_eq!(app.fhir(token, "Patient/p1").await.status, 401);

    let mut ann = Browser::new(&app);
    let page = ann.open("/account").await;
    assert_eq!(ann.login(&page, "ann").await.status, 200);
    let page = boss.get("/admin/sessions?q=ann").await;
    let page = boss.submit(&page, "/admin/sessions", &[("id", &field(&page, "id"))]).await;
    assert!(page.text().contains("The session has ended"), "{}", page.text());
    // Her launch was another session, and is there still.
    let left = app.app().oauth.all_sessions(None).await.unwrap();
    assert_eq!(left.iter().filter(|one| one.username == "ann").count(), 1);
}

#[tokio::test]
async fn a_list_of_many_users_is_read_in_pages_and_searched_without_opening_all() {
    let app = TestApp::new().await;
    let add = async |username: String, role: Role, fhir_user: Option<String>| {
        let new = NewUser { username, role, fhir_user, password: None, totp_secret: None, demo: false };
        app.app().oauth.users().add(new).await.unwrap();
    };
    for n in 0..60 {
        add(format!("staff{n:02}.smith"), Role::Staff, None).await;
    }
    add("ann.jones".into(), Role::Provider, Some("Practitioner/a".into())).await;
    add("jo".into(), Role::Provider, Some("Practitioner/b".into())).await;
    // As for a list that is too long to be put in order.
    let users = app.app().oauth.users().clone().sorting(0);
    let named = |page: &UserPage| page.users.iter().map(|user| user.username.clone()).collect::<Vec<_>>();
    let (mut all, mut after, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let before = users.opened();
        let page = users.page(&Find::default(), &after, 20).await.unwrap();
        assert!(users.opened() - before <= 21 && page.total == Some(62), "a page opens a page");
        all.extend(named(&page));
        pages += 1;
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    all.sort();
    assert_eq!((all.len(), pages), (62, 4));
    all.dedup();
    assert_eq!(all.len(), 62, "each once");

    let before = users.opened();
    for (words, found) in [
        ("JONES", vec!["ann.jones"]),
        ("jon", vec!["ann.jones"]),
        ("ann.jo", vec!["ann.jones"]),
        ("jon ann", vec!["ann.jones"]),
        ("jon staff", vec![]),
        ("ones", vec![]),
        ("Practitioner/b", vec!["jo"]),
        ("practitioner/b", vec![]),
    ] {
        let page = users.page(&Find::words(words), &[], 20).await.unwrap();
        assert_eq!((named(&page), page.next), (found.into_iter().map(str::to_owned).collect(), None), "{words}");
    }
    let role = Find { role: Some(Role::Provider), ..Find::default() };
    let mut providers = named(&users.page(&role, &[], 20).await.unwrap());
    providers.sort();
    assert_eq!(providers, ["ann.jones", "jo"]);
    let ann = users.get("ann.jones").await.unwrap().unwrap();
    assert_eq!(users.by_id(&ann.id).await.unwrap().unwrap().username, "ann.jones");
    assert!(users.by_id("nobody").await.unwrap().is_none());
    assert!(users.opened() - before <= 12, "only those who are meant: {}", users.opened() - before);
    // Too short for a term: everybody is looked at, and found all the same.
    let short = named(&users.page(&Find::words("jo"), &[], 20).await.unwrap());
    assert_eq!(short.len(), 2);

    // What a user is found by follows the user, and terms of before find nobody.
    users.set_role("jo", Role::Nurse, Some("Practitioner/c".into())).await.unwrap();
    assert_eq!(named(&users.page(&role, &[], 20).await.unwrap()), ["ann.jones"]);
    assert!(users.of_record("Practitioner/b").await.unwrap().is_empty());
    assert_eq!(users.of_record("Practitioner/c").await.unwrap(), ["jo"]);
    // Of a database from before there were terms.
    app.app().store.kv_delete_space("oauth-user-term").await;
    assert!(users.by_id(&ann.id).await.unwrap().is_none());
    let later = app.again().await;
    let users = later.app().oauth.users().clone().sorting(0);
    assert_eq!(users.by_id(&ann.id).await.unwrap().unwrap().username, "ann.jones");
    assert_eq!(named(&users.page(&Find::words("jones"), &[], 20).await.unwrap()), ["ann.jones"]);
}

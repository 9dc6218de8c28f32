//! People's own second step: set up, replaced and removed with a login that is fresh, and new recovery codes.

use super::browser::{Browser, PASSWORD, SECRET};
use super::invitations::recorded;
use super::{Reply, TestApp};
use crate::access::Role;
use crate::oauth::totp;

async fn logged_in<'a>(app: &'a TestApp, name: &str) -> Browser<'a> {
    let mut browser = Browser::new(app);
    let page = browser.open("/account/factor").await;
    let page = browser.login(&page, name).await;
    assert!(page.status == 200 && page.text().contains("<h1>Your second step</h1>"), "{}", page.text());
    browser
}

/// The secret that a page offers.
fn offered(page: &Reply) -> Vec<u8> {
    let text = page.text();
    let key = text.split("class=\"key\">").nth(1).unwrap_or_else(|| panic!("a key: {text}"));
    totp::from_base32(key.split('<').next().unwrap()).unwrap()
}

fn shown_codes(page: &Reply) -> Vec<String> {
    let text = page.text();
    let list = text.split("<ol class=\"codes\">").nth(1).unwrap_or_default().split("</ol>").next().unwrap();
    list.split("<li>").skip(1).map(|item| item.split('<').next().unwrap().to_owned()).collect()
}

/// Password, then this as the code.
async fn opens(app: &TestApp, name: &str, code: &str) -> bool {
    app.app().oauth.unlock(&crate::oauth::By::server(), name).await.unwrap();
    let mut browser = Browser::new(app);
    let page = browser.open("/account").await;
    let fields = [("step", "login"), ("username", name), ("password", PASSWORD)];
    let page = browser.submit(&page, "/login", &fields).await;
    let page = browser.submit(&page, "/login", &[("step", "factor"), ("code", code)]).await;
    page.status == 200 && page.text().contains("Log out")
}

#[tokio::test]
async fn an_authenticator_app_is_replaced_by_who_shows_a_code_of_the_new_one() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let mut nurse = logged_in(&app, "nurse").await;
    let page = nurse.get("/account/factor?set=1").await;
    let secret = offered(&page);
    assert!(secret != SECRET && page.text().contains("Replace your authenticator app"), "{}", page.text());
    assert_eq!(offered(&nurse.get("/account/factor?set=1").await), secret, "the same when the page is loaded again");
    let wrong = nurse.submit(&page, "/account/factor", &[("act", "set"), ("set", "1"), ("code", "000000")]).await;
    assert!(wrong.status == 400 && wrong.text().contains("not the code") && offered(&wrong) == secret);
    let code = |secret: &[u8]| totp::code_at(secret, app.app().world.now());
    app.pass(60);
    assert!(opens(&app, "nurse", &code(SECRET)).await, "the one of before counts until then");
    // Somebody else's page offers something else, and cannot take this one up.
    app.user("other", Role::Nurse, None).await;
    let mut other = logged_in(&app, "other").await;
    let theirs = other.get("/account/factor?set=1").await;
    let fields = [("act", "set"), ("set", "1"), ("code", &code(&secret))];
    assert_eq!(other.submit(&theirs, "/account/factor", &fields).await.status, 400);

    let fields = [("act", "set"), ("set", "1"), ("code", &code(&secret))];
    let done = nurse.submit(&page, "/account/factor", &fields).await;
    assert_eq!(shown_codes(&done).len(), 10, "the user had no recovery codes: {}", done.text());
    let again = nurse.submit(&page, "/account/factor", &fields).await;
    assert_eq!(again.status, 400, "an offer is taken up once");
    app.pass(60);
    assert!(!opens(&app, "nurse", &code(SECRET)).await, "the old phone opens nothing");
    app.pass(60);
    assert!(opens(&app, "nurse", &code(&secret)).await);
    let events = recorded(&app, "factor-enrolled").await;
    assert!(serde_json::json!(events).to_string().contains("\"replaced\""), "{events:?}");
}

#[tokio::test]
async fn new_recovery_codes_end_those_of_before() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let mut nurse = logged_in(&app, "nurse").await;
    let page = nurse.get("/account/factor").await;
    let first = shown_codes(&nurse.submit(&page, "/account/factor", &[("act", "codes")]).await);
    let second = shown_codes(&nurse.submit(&page, "/account/factor", &[("act", "codes")]).await);
    assert!(first.len() == 10 && second.len() == 10 && first != second);
    assert!(!opens(&app, "nurse", &first[0]).await, "a code of before");
    assert!(opens(&app, "nurse", &second[0]).await);
    assert!(!opens(&app, "nurse", &second[0]).await, "each counts once");
    assert_eq!(recorded(&app, "recovery-codes-made").await.len(), 2);
}

#[tokio::test]
async fn who_needs_a_second_step_keeps_one_and_who_does_not_may_go_without() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let writer = app.persona("system/*.cruds").await;
    assert_eq!(writer.put("Patient/p1", &super::patient("p1", "Ann")).await.status, 201);
    app.user("pat", Role::Patient, Some("Patient/p1")).await;
    let mut nurse = logged_in(&app, "nurse").await;
    let page = nurse.get("/account/factor").await;
    let refused = nurse.submit(&page, "/account/factor", &[("act", "remove")]).await;
    assert!(refused.status == 400 && refused.text().contains("your role needs one"), "{}", refused.text());
    assert!(app.app().oauth.users().get("nurse").await.unwrap().unwrap().device.is_some());
    assert_eq!(recorded(&app, "factor-removed").await.len(), 0);

    let mut pat = logged_in(&app, "pat").await;
    let page = pat.get("/account").await;
    let none = pat.submit(&page, "/account/factor", &[("act", "codes")]).await;
    assert!(none.status == 400 && none.text().contains("you have none"), "{}", none.text());
    let page = pat.get("/account/factor?set=1").await;
    let code = totp::code_at(&offered(&page), app.app().world.now());
    let done = pat.submit(&page, "/account/factor", &[("act", "set"), ("set", "1"), ("code", &code)]).await;
    assert_eq!(shown_codes(&done).len(), 10, "{}", done.text());
    let page = pat.get("/account/factor").await;
    let gone = pat.submit(&page, "/account/factor", &[("act", "remove")]).await;
    assert!(gone.text().contains("counts no longer"), "{}", gone.text());
    let user = app.app().oauth.users().get("pat").await.unwrap().unwrap();
    assert!(!user.has_factor() && user.recovery.is_empty(), "recovery codes go with the last one");
    assert_eq!(recorded(&app, "factor-removed").await.len(), 1);
}

#[tokio::test]
async fn an_unlocked_screen_is_not_enough() {
    let app = TestApp::new().await;
    app.user("nurse", Role::Nurse, None).await;
    let mut nurse = logged_in(&app, "nurse").await;
    let page = nurse.get("/account/factor?set=1").await;
    let secret = offered(&page);
    app.pass(10 * 60);
    assert_eq!(nurse.get("/account").await.status, 200, "the session stands");
    assert_eq!(nurse.get("/account/factor").await.header("location"), "/login?to=factor&again=1");
    let code = totp::code_at(&secret, app.app().world.now());
    for fields in
        [vec![("act", "set"), ("set", "1"), ("code", code.as_str())], vec![("act", "codes")], vec![("act", "remove")]]
    {
        let page = nurse.submit(&page, "/account/factor", &fields).await;
        assert!(page.text().contains("Log in once more"), "{fields:?}: {}", page.text());
    }
    let user = app.app().oauth.users().get("nurse").await.unwrap().unwrap();
    assert!(user.device.as_ref().unwrap().secret == SECRET && user.recovery.is_empty());
    let live = app.app().oauth.session(nurse.cookie.as_ref().unwrap()).await.unwrap().unwrap();
    let request = crate::audit::Request::default();
    assert!(app.app().oauth.renew_recovery(&live, request.clone()).await.is_err(), "nor without the page");
    assert!(app.app().oauth.remove_device(&live, request).await.is_err());
    let page = nurse.open("/login?to=factor&again=1").await;
    let page = nurse.login(&page, "nurse").await;
    assert!(page.text().contains("<h1>Your second step</h1>"), "{}", page.text());
}

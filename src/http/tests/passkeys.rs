//! Passkeys through the pages, with an authenticator in software: what is taken, what is refused, and what is on record.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::browser::{Browser, PASSWORD};
use super::invitations::recorded;
use super::{Reply, TestApp, on_both};
use crate::access::Role;
use crate::oauth::By;
use crate::oauth::webauthn::tests::{Authenticator, client_data};
use crate::oauth::webauthn::{Assertion, Site};

on_both![
    a_passkey_is_added_with_a_challenge_of_the_session_that_counts_once,
    a_passkey_takes_the_place_of_the_code_once_each_time,
    passkeys_are_removed_by_their_user_and_by_a_reset,
];

async fn clinic() -> TestApp {
    let app = TestApp::with(&[("base_url", "http://localhost/fhir")]).await;
    app.user("nurse", Role::Nurse, None).await;
    app
}

fn site() -> Site {
    Site::of("http://localhost").unwrap()
}

/// The challenge that a page hands to its script.
fn challenge(page: &Reply) -> Vec<u8> {
    let text = page.text();
    let text = text.split("data-challenge=\"").nth(1).unwrap_or_else(|| panic!("a ceremony: {text}"));
    URL_SAFE_NO_PAD.decode(text.split('"').next().unwrap()).unwrap()
}

async fn logged_in<'a>(app: &'a TestApp, name: &str) -> Browser<'a> {
    let mut browser = Browser::new(app);
    let page = browser.open("/account").await;
    let page = browser.login(&page, name).await;
    assert_eq!(page.status, 200, "{}", page.text());
    browser
}

/// Sends a registration with this challenge.
async fn register(browser: &mut Browser<'_>, page: &Reply, key: &Authenticator, challenge: &[u8]) -> Reply {
    let client = client_data("webauthn.create", challenge, &site().origin);
    let (client, attestation) = (URL_SAFE_NO_PAD.encode(client), URL_SAFE_NO_PAD.encode(key.attestation(&site())));
    let fields = [("name", "My phone"), ("client_data", client.as_str()), ("attestation", attestation.as_str())];
    browser.submit(page, "/account/passkey", &fields).await
}

async fn added(app: &TestApp, name: &str, key: &Authenticator) {
    let mut browser = logged_in(app, name).await;
    let page = browser.open("/account/passkey").await;
    let page = register(&mut browser, &page, key, &challenge(&page)).await;
    assert!(page.status == 200 && page.text().contains("recovery codes"), "{}", page.text());
}

/// The page of the second step, after the password.
async fn at_factor<'a>(app: &'a TestApp, name: &str) -> (Browser<'a>, Reply) {
    app.app().oauth.unlock(&By::server(), name).await.unwrap();
    let mut browser = Browser::new(app);
    let page = browser.open("/login").await;
    let fields = [("step", "login"), ("username", name), ("password", PASSWORD)];
    let page = browser.submit(&page, "/login", &fields).await;
    (browser, page)
}

async fn answer(browser: &mut Browser<'_>, page: &Reply, given: &Assertion) -> Reply {
    let texts = [&given.id, &given.client_data, &given.auth_data, &given.signature, &given.user_handle]
        .map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let names = ["id", "client_data", "auth_data", "signature", "user_handle"];
    let mut fields = vec![("step", "passkey")];
    fields.extend(names.into_iter().zip(texts.iter().map(String::as_str)));
    browser.submit(page, "/login", &fields).await
}

async fn a_passkey_is_added_with_a_challenge_of_the_session_that_counts_once() {
    let app = clinic().await;
    let key = Authenticator::new();
    let mut browser = logged_in(&app, "nurse").await;
    let policy = |page: &Reply| page.header("content-security-policy").to_owned();
    assert!(!policy(&browser.open("/account").await).contains("script-src"));
    let page = browser.open("/account/passkey").await;
    assert!(policy(&page).contains("default-src 'none'; script-src 'self';"), "{}", policy(&page));
    assert_eq!(browser.get("/passkey.js").await.header("content-type"), "text/javascript; charset=utf-8");
    let first = challenge(&page);
    let page = browser.open("/account/passkey").await;
    let second = challenge(&page);
    assert_ne!(first, second);
    assert_eq!(register(&mut browser, &page, &key, &first).await.status, 400, "the challenge of an older page");
    assert_eq!(register(&mut browser, &page, &key, &second).await.status, 400, "a try used it up");
    let mut other = logged_in(&app, "nurse").await;
    let others = challenge(&other.open("/account/passkey").await);
    let page = browser.open("/account/passkey").await;
    assert_eq!(register(&mut browser, &page, &key, &others).await.status, 400, "another session's");
    let page = browser.open("/account/passkey").await;
    let own = challenge(&page);
    app.pass(301);
    assert_eq!(register(&mut browser, &page, &key, &own).await.status, 400, "too old");
    let page = browser.open("/account/passkey").await;
    let done = register(&mut browser, &page, &key, &challenge(&page)).await;
    assert!(done.text().contains("<li>"), "recovery codes: {}", done.text());
    assert!(browser.open("/account").await.text().contains("My phone"));
    // The same credential is nobody else's, nor twice one's own.
    app.user("doctor", Role::Provider, None).await;
    for name in ["nurse", "doctor"] {
        let mut again = logged_in(&app, name).await;
        let page = again.open("/account/passkey").await;
        assert_eq!(register(&mut again, &page, &key, &challenge(&page)).await.status, 400, "{name}");
    }
    let events = recorded(&app, "factor-enrolled").await;
    let good = events.iter().filter(|event| event["outcome"] == "0").count();
    assert_eq!((good, events.len() - good), (1, 5), "every refusal of a ceremony is on record");
    // Adding one more wants a login that is fresh.
    app.pass(15 * 60);
    let mut late = browser;
    assert!(late.get("/account/passkey").await.header("location").contains("again=1"));
}

async fn a_passkey_takes_the_place_of_the_code_once_each_time() {
    let app = clinic().await;
    let mut key = Authenticator::new();
    added(&app, "nurse", &key).await;
    let (mut browser, page) = at_factor(&app, "nurse").await;
    assert!(page.text().contains("Use a passkey") && page.text().contains("Enter your code"), "{}", page.text());
    assert_eq!(browser.get("/account").await.status, 303);
    let given = key.assertion(&site(), &challenge(&page));
    let page = answer(&mut browser, &page, &given).await;
    assert!(page.text().contains("Role NURSE"), "{}", page.text());
    // The same answer again, a copy with an older counter, somebody else's credential.
    let (mut browser, page) = at_factor(&app, "nurse").await;
    assert_eq!(answer(&mut browser, &page, &given).await.status, 401);
    let (mut browser, page) = at_factor(&app, "nurse").await;
    key.count = 0;
    let copied = key.assertion(&site(), &challenge(&page));
    assert_eq!(answer(&mut browser, &page, &copied).await.status, 401);
    key.count = 5;
    let stranger = Authenticator::new();
    let mut stranger = Authenticator { id: b"another".to_vec(), ..stranger };
    let (mut browser, page) = at_factor(&app, "nurse").await;
    let strange = stranger.assertion(&site(), &challenge(&page));
    assert_eq!(answer(&mut browser, &page, &strange).await.status, 401);
    let failed = recorded(&app, "login-failed").await;
    let why: Vec<String> = failed.iter().map(|event| event["detail"].to_string()).collect();
    for (text, words) in why.iter().zip(["challenge", "copied", "not one of this user"]) {
        assert!(text.contains(words), "{text}");
    }
    // The code works still.
    app.pass(60);
    logged_in(&app, "nurse").await;
    let (mut browser, page) = at_factor(&app, "nurse").await;
    let mut given = key.assertion(&site(), &challenge(&page));
    given.user_handle = b"somebody else".to_vec();
    assert_eq!(answer(&mut browser, &page, &given).await.status, 401);
}

async fn passkeys_are_removed_by_their_user_and_by_a_reset() {
    let app = clinic().await;
    let key = Authenticator::new();
    added(&app, "nurse", &key).await;
    let mut browser = logged_in(&app, "nurse").await;
    let page = browser.open("/account").await;
    let id = URL_SAFE_NO_PAD.encode(&key.id);
    assert!(page.text().contains(&format!("name=\"remove\" value=\"{id}\"")), "{}", page.text());
    let page = browser.submit(&page, "/account/passkey", &[("remove", &id)]).await;
    assert!(page.text().contains("opens nothing here any more") && !page.text().contains("My phone"));
    let (_, page) = at_factor(&app, "nurse").await;
    assert!(!page.text().contains("Use a passkey"), "{}", page.text());
    assert_eq!(recorded(&app, "factor-removed").await.len(), 1);
    // A passkey that is the only second step of somebody who needs one stays.
    let page = browser.open("/account/passkey").await;
    register(&mut browser, &page, &key, &challenge(&page)).await;
    app.app().oauth.users().forget_device("nurse").await;
    let page = browser.open("/account").await;
    let page = browser.submit(&page, "/account/passkey", &[("remove", &id)]).await;
    assert!(page.text().contains("your only second step"), "{}", page.text());
    // Nor with a login that is no longer fresh, page or not.
    app.pass(10 * 60);
    let live = app.app().oauth.session(browser.cookie.as_ref().unwrap()).await.unwrap().unwrap();
    let refused = app.app().oauth.remove_passkey(&live, &id, crate::audit::Request::default()).await;
    assert!(refused.unwrap_err().to_string().contains("Log in once more"));

    app.app().oauth.reset(&By::server(), "nurse").await.unwrap().unwrap();
    app.user("doctor", Role::Provider, None).await;
    added(&app, "doctor", &key).await;
}

#[tokio::test]
async fn a_server_without_a_name_offers_no_passkeys() {
    let app = TestApp::with(&[("base_url", "http://127.0.0.1:8080/fhir")]).await;
    app.user("nurse", Role::Nurse, None).await;
    let mut browser = logged_in(&app, "nurse").await;
    assert!(!browser.open("/account").await.text().contains("/account/passkey"));
    assert!(browser.open("/account/passkey").await.text().contains("offer no passkeys"));
}

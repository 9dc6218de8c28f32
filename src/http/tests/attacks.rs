//! Attacks on the pages for people and on authorization requests. `conformance/smart/attacks.md` lists what each proves.

use axum::body::Body;
use axum::http::Request;

use super::browser::{Browser, PASSWORD, REDIRECT, SECRET, parameter};
use super::{Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::http::site;
use crate::oauth::{ClientKind, Registration, totp};

on_both![
    half_a_login_opens_nothing_and_a_code_counts_once,
    what_one_session_chose_does_not_count_in_another,
    a_new_password_ends_what_the_old_one_opened,
];

const SCOPE: &str = "launch/patient openid fhirUser offline_access patient/*.rs";

/// Patients of whom the doctor treats `p1`, a patient with an account, two apps.
async fn clinic(settings: &[(&'static str, &str)]) -> TestApp {
    let app = TestApp::with(settings).await;
    let writer = app.persona("system/*.cruds").await;
    let mut treated = patient("p1", "Adams");
    treated["generalPractitioner"] = serde_json::json!([{"reference": "Practitioner/dr"}]);
    assert_eq!(writer.put("Patient/p1", &treated).await.status, 201);
    assert_eq!(writer.put("Patient/p2", &patient("p2", "Baker")).await.status, 201);
    app.user("adams", Role::Patient, Some("Patient/p1")).await;
    app.user("doctor", Role::Provider, Some("Practitioner/dr")).await;
    app.client("app", ClientKind::Public, SCOPE).await;
    app
}

fn login(username: &str, password: &str) -> [(&'static str, String); 3] {
    [("step", "login".into()), ("username", username.into()), ("password", password.into())]
}

async fn try_login(browser: &mut Browser<'_>, username: &str, password: &str) -> Reply {
    let page = browser.open("/login").await;
    let fields = login(username, password);
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.submit(&page, "/login", &fields).await
}

async fn logged_in<'a>(app: &'a TestApp, username: &str) -> (Browser<'a>, Reply) {
    let mut browser = Browser::new(app);
    let page = browser.open("/account").await;
    let page = browser.login(&page, username).await;
    assert!(page.text().contains("Log out"), "{}", page.text());
    (browser, page)
}

async fn post(app: &TestApp, path: &str, cookie: Option<&str>, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    if let Some(cookie) = cookie {
        request = request.header("cookie", format!("phial={cookie}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

fn token_of(page: &Reply) -> String {
    page.text().split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn redirect_uris_are_compared_as_they_are_written() {
    let app = clinic(&[]).await;
    let mut browser = Browser::new(&app);
    for uri in [
        "http://app.example/cb",
        "https://app.example:443/cb",
        "https://app.example:8443/cb",
        "https://app.example/cb#",
        "https://app.example/cb#x",
        "https://app.example/cb%2f..%2fevil",
        "https://app.example/cb/../cb",
        "https://app.example/./cb",
        "https://app.example//cb",
        "https://app.example/CB",
        "https://app.example/c%62",
        "https://app.example\\@evil.example/cb",
        "https://app.example/cb\\..\\evil",
        "https://evil.example/https://app.example/cb",
        "https://sub.app.example/cb",
        "https://app.example./cb",
        "https://user:pass@app.example/cb",
        "//app.example/cb",
        "/cb",
        " https://app.example/cb",
        "https://app.example/cb ",
        "https://app.example/cb\r\nSet-Cookie: phial=x",
        "https://app.example/cb\u{0}",
        "https://app.ex\u{e4}mple/cb",
        "data:text/html,x",
        "com.evil.app:/cb",
    ] {
        let reply = browser.get(&app.authorize("app", SCOPE, &[("redirect_uri", Some(uri))])).await;
        assert_eq!((reply.status, reply.header("location")), (400, ""), "{uri:?}");
        assert!(!reply.text().contains("evil.example"), "an error page leads nowhere: {uri:?}");
    }
}

#[tokio::test]
async fn every_form_is_refused_from_elsewhere() {
    let app = clinic(&[]).await;
    let (browser, page) = logged_in(&app, "adams").await;
    let cookie = browser.cookie.clone().unwrap();
    let (_, theirs) = logged_in(&app, "adams").await;
    let (own, theirs) = (format!("token={}", token_of(&page)), format!("token={}", token_of(&theirs)));
    let mut forms = 0;
    for (route, _) in site::ROUTES.iter().filter(|(_, methods)| methods.contains("POST")) {
        // Apps post authorization requests from where they are; what follows is a page that asks. Identity providers post
        // signed words that a login has ended: no browser is in between.
        if ["/oauth/authorize", "/login/ended/"].contains(route) {
            continue;
        }
        forms += 1;
        for (what, cookie, headers, body) in [
            ("no token", Some(cookie.as_str()), &[][..], "x=1"),
            ("an empty token", Some(cookie.as_str()), &[], "token="),
            ("another session's token", Some(cookie.as_str()), &[], theirs.as_str()),
            ("no cookie", None, &[], own.as_str()),
            ("another origin", Some(cookie.as_str()), &[("origin", "https://evil.example")], own.as_str()),
            (
                "a lookalike origin",
                Some(cookie.as_str()),
                &[("origin", "http://phial.test.evil.example")],
                own.as_str(),
            ),
            ("another site", Some(cookie.as_str()), &[("sec-fetch-site", "cross-site")], own.as_str()),
            ("a neighbouring site", Some(cookie.as_str()), &[("sec-fetch-site", "same-site")], own.as_str()),
        ] {
            let reply = post(&app, route, cookie, headers, body).await;
            assert_eq!(reply.status, 403, "{route}, {what}: {}", reply.text());
            // The cookie that the browser has, and did not send with a form from elsewhere, stays.
            assert_eq!(reply.header("set-cookie"), "", "{route}, {what}");
        }
        let json = Request::post(*route).header("content-type", "application/json").body(Body::from("{}")).unwrap();
        assert!(matches!(app.send(json).await.status, 403 | 415), "{route}: a form that needs no preflight");
    }
    assert!(forms >= 8, "{forms}");
    let mut browser = browser;
    assert_eq!(browser.get("/account").await.status, 200, "the session is still there");
}

#[tokio::test]
async fn pages_cannot_be_framed_kept_or_scripted() {
    let app = clinic(&[]).await;
    let (mut browser, _) = logged_in(&app, "adams").await;
    let consent = browser.open(&app.authorize("app", SCOPE, &[])).await;
    let mut stranger = Browser::new(&app);
    let pages = [
        ("consent", consent),
        ("account", browser.get("/account").await),
        ("password", browser.get("/account/password").await),
        ("login", stranger.get("/login").await),
        ("error", stranger.get(&app.authorize("nobody", SCOPE, &[])).await),
    ];
    for (name, page) in pages {
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{name}: {policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{name}: {policy}");
        for (header, value) in [
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(page.header(header), value, "{name}");
        }
        assert!(!page.text().contains("<script"), "{name}");
    }
    let plain = Browser::new(&app).get("/login").await;
    assert!(plain.header("set-cookie").ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{}", plain.header("set-cookie"));
    let https = TestApp::with(&[("base_url", "https://phial.test/fhir")]).await;
    let given = https.send(Request::get("/login").body(Body::empty()).unwrap()).await;
    let given = given.header("set-cookie");
    assert!(
        given.starts_with("__Host-phial=") && given.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{given}"
    );
}

#[tokio::test]
async fn what_a_request_says_is_text_on_pages_and_in_addresses() {
    let app = clinic(&[]).await;
    let registration = Registration {
        client_id: Some("evil".into()),
        name: "<script>alert(1)</script>".into(),
        kind: ClientKind::Public,
        jwks: None,
        jwks_url: None,
        scopes: SCOPE.into(),
        redirect_uris: vec![REDIRECT.into()],
        launch_uri: None,
        ehr: false,
        demo: false,
    };
    app.app().oauth.clients().add(registration).await.unwrap();
    let mut browser = Browser::new(&app);
    let state = "x\r\nSet-Cookie: phial=y&code=stolen#\"><script>";
    let scope = format!("{SCOPE} <script>alert(2)</script>");
    let page = browser.open(&app.authorize("evil", &scope, &[("state", Some(state))])).await;
    assert!(!page.text().contains("<script>"), "{}", page.text());
    let page = browser.login(&page, "adams").await;
    assert!(page.text().contains("&lt;script&gt;") && !page.text().contains("<script>"), "{}", page.text());
    let reply = browser.allow_all(&page).await;
    let to = reply.header("location");
    assert_eq!(parameter(to, "state").as_deref(), Some(state), "unchanged, and in its place");
    assert!(to.starts_with(&format!("{REDIRECT}?code=")) && !to.contains("stolen&") && !to.contains('#'), "{to}");
    // The login page leads to places of ours alone.
    for to in ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"] {
        let mut browser = Browser::new(&app);
        let page = browser.open("/login").await;
        let fields = [("step", "login"), ("username", "adams"), ("password", PASSWORD), ("to", to), ("request", to)];
        let mut all = vec![("token", token_of(&page))];
        all.extend(fields.map(|(name, value)| (name, value.to_owned())));
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = browser.post("/login", &all).await;
        assert_eq!((reply.status, reply.header("location")), (303, "/account"), "{to}");
    }
}

#[tokio::test]
async fn an_unknown_name_costs_the_same_work_as_a_wrong_password() {
    let app = clinic(&[]).await;
    app.user("gone", Role::Patient, Some("Patient/p2")).await;
    assert!(app.app().oauth.users().disable("gone").await.unwrap());
    let names = ["adams", "nobody", "gone", "not a name \u{7}"];
    let mut said = Vec::new();
    for name in names {
        let mut browser = Browser::new(&app);
        let page = browser.open("/login").await;
        let fields = [("step", "login"), ("username", name), ("password", "Wrong-Lamp-4711")];
        let hashed = || app.app().oauth.hashed.load(std::sync::atomic::Ordering::SeqCst);
        let before = hashed();
        let reply = browser.submit(&page, "/login", &fields).await;
        // What a hash costs is one for all (`oauth::password`), and no clock is as steady as this count.
        assert_eq!(hashed() - before, 1, "a password is hashed for {name:?}");
        let words = reply.text().split("role=\"alert\"").nth(1).unwrap_or_default()[..60].to_owned();
        said.push((reply.status, words));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "one answer for all: {said:?}");
}

async fn half_a_login_opens_nothing_and_a_code_counts_once() {
    let app = clinic(&[]).await;
    let mut browser = Browser::new(&app);
    let page = try_login(&mut browser, "doctor", PASSWORD).await;
    assert!(page.text().contains("Enter your code"), "{}", page.text());
    for path in ["/account", "/launch", "/account/password"] {
        let to = browser.get(path).await;
        assert!(to.status == 303 && to.header("location").starts_with("/login"), "{path}: {}", to.status);
    }
    let asked = browser.get(&app.authorize("app", SCOPE, &[])).await.header("location").to_owned();
    assert!(browser.get(&asked).await.header("location").starts_with("/login?request="));
    let request = asked.split("request=").nth(1).unwrap().to_owned();
    let token = token_of(&page);
    for path in ["/oauth/patient", "/oauth/encounter", "/oauth/decide"] {
        let body = format!("token={token}&request={request}&id=p1&decision=allow&s4=all");
        let reply = post(&app, path, browser.cookie.as_deref(), &[], &body).await;
        assert_eq!((reply.status, reply.header("location")), (400, ""), "{path}");
    }
    // The code of a moment is good for one login, in whatever browser.
    app.pass(30);
    let code = totp::code_at(SECRET, app.app().world.now());
    let page = browser.submit(&page, "/login", &[("step", "factor"), ("code", &code)]).await;
    assert!(page.text().contains("Log out"), "{}", page.text());
    let mut thief = Browser::new(&app);
    let page = try_login(&mut thief, "doctor", PASSWORD).await;
    assert_eq!(thief.submit(&page, "/login", &[("step", "factor"), ("code", &code)]).await.status, 401);
    // Guessing codes is slowed down as guessing passwords is.
    let mut seen = Vec::new();
    for n in 0..6 {
        let guess = format!("{:06}", n * 7);
        seen.push(thief.submit(&page, "/login", &[("step", "factor"), ("code", &guess)]).await.status);
    }
    assert!(seen.contains(&429), "{seen:?}");
}

#[tokio::test]
async fn nobody_is_given_a_patient_they_may_not_see() {
    let app = clinic(&[]).await;
    let mut doctor = Browser::new(&app);
    let page = doctor.open(&app.authorize("app", SCOPE, &[])).await;
    let page = doctor.login(&page, "doctor").await;
    for id in ["p2", "nobody", "../Patient/p2", "p1/_history/1", ""] {
        let reply = doctor.submit(&page, "/oauth/patient", &[("id", id)]).await;
        assert_eq!((reply.status, reply.header("location")), (404, ""), "{id:?}");
    }
    // A patient gets themselves, whatever they send.
    let mut adams = Browser::new(&app);
    let page = adams.open(&app.authorize("app", SCOPE, &[])).await;
    let page = adams.login(&page, "adams").await;
    assert_eq!(adams.submit(&page, "/oauth/patient", &[("id", "p2")]).await.status, 404);
    let reply = adams.submit(&page, "/oauth/decide", &[("decision", "allow"), ("s4", "all"), ("patient", "p2")]).await;
    let code = parameter(reply.header("location"), "code").unwrap();
    assert_eq!(app.redeem("app", &code).await.json()["patient"], "p1");
}

async fn what_one_session_chose_does_not_count_in_another() {
    let app = clinic(&[]).await;
    let mut one = Browser::new(&app);
    let asked = one.get(&app.authorize("app", SCOPE, &[])).await.header("location").to_owned();
    let page = one.open(&asked).await;
    let page = one.login(&page, "doctor").await;
    let consent = one.submit(&page, "/oauth/patient", &[("id", "p1")]).await;
    assert!(consent.text().contains("name=\"decision\""), "{}", consent.text());
    let mut other = Browser::new(&app);
    let page = other.open(&asked).await;
    let page = other.login(&page, "doctor").await;
    assert!(page.text().contains("Choose a patient"), "asked anew: {}", page.text());
    let early = other.submit(&page, "/oauth/decide", &[("decision", "allow"), ("s4", "all")]).await;
    assert_eq!((early.status, early.header("location")), (400, ""), "no consent without a patient");
    // The form of one browser is not taken from another.
    let stolen = other.submit(&consent, "/oauth/decide", &[("decision", "allow"), ("s4", "all")]).await;
    assert_eq!(stolen.status, 403);
}

#[tokio::test]
async fn consent_gives_no_more_than_was_offered() {
    let app = clinic(&[]).await;
    let mut browser = Browser::new(&app);
    let page = browser.open(&app.authorize("app", "launch/patient patient/Patient.rs", &[])).await;
    let page = browser.login(&page, "adams").await;
    let widened = [
        ("decision", "allow"),
        ("s0", "all"),
        ("s1", "all"),
        ("s2", "all"),
        ("s99", "all"),
        ("p1", "0"),
        ("lasting", "yes"),
        ("scope", "patient/*.cruds system/*.cruds"),
        ("client_id", "other"),
        ("redirect_uri", "https://evil.example/cb"),
    ];
    let reply = browser.submit(&page, "/oauth/decide", &widened).await;
    assert!(reply.header("location").starts_with(REDIRECT), "{}", reply.header("location"));
    let code = parameter(reply.header("location"), "code").unwrap();
    let answer = app.redeem("app", &code).await.json();
    assert_eq!(answer["scope"], "launch/patient patient/Patient.rs");
    assert!(answer.get("refresh_token").is_none(), "{answer}");
}

async fn a_new_password_ends_what_the_old_one_opened() {
    let app = clinic(&[]).await;
    let answer = app.launched("app", "adams", SCOPE, None).await;
    let (mut thief, _) = logged_in(&app, "adams").await;
    let (mut owner, _) = logged_in(&app, "adams").await;
    app.pass(1);
    let page = owner.open("/account/password").await;
    let page = owner.submit(&page, "/account/password", &[("old", PASSWORD), ("new", "Loud-Cello-1147")]).await;
    assert!(page.text().contains("Log out"), "{}", page.text());
    assert_eq!((thief.get("/account").await.status, owner.get("/account").await.status), (303, 200));
    assert_eq!(app.fhir(answer["access_token"].as_str().unwrap(), "Patient/p1").await.status, 401);
    let refreshed = app.refresh("app", answer["refresh_token"].as_str().unwrap()).await;
    assert_eq!(refreshed.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn cookies_that_are_made_up_are_nobodys() {
    let app = clinic(&[]).await;
    for cookie in ["", "x", "../../etc", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "' OR 1=1 --", "\u{e4}"] {
        let request = Request::get("/account").header("cookie", format!("phial={cookie}").as_bytes());
        let reply = app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((reply.status, reply.header("location")), (303, "/login"), "{cookie}");
    }
}

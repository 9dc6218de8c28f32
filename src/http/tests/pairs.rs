//! Two servers on one database: what counts once counts once for both, and what ends at one has ended at the other.

use futures_util::future::join_all;

use super::browser::{Browser, PASSWORD, REDIRECT, SECRET, VERIFIER, parameter};
use super::{Reply, TestApp, on_both, patient};
use crate::access::Role;
use crate::interaction::people;
use crate::oauth::invitation::Invite;
use crate::oauth::{By, ClientKind, Registration, SigningKey, totp};

on_both![
    a_code_is_redeemed_at_one_of_them_and_what_it_gave_ends_at_both,
    a_refresh_token_counts_at_one_of_them,
    an_assertion_counts_at_one_of_them,
    what_ends_at_one_has_ended_at_the_other,
    guesses_at_both_are_counted_together,
    a_second_factor_counts_at_one_of_them,
    an_invitation_is_taken_up_at_one_of_them,
    new_signing_keys_are_known_at_the_other,
];

const SCOPE: &str = "launch/patient openid fhirUser offline_access patient/*.rs";
/// Races of one kind: who is first differs.
const ROUNDS: usize = 4;

/// Two servers with a patient who has a user, and an app.
async fn clinic() -> [TestApp; 2] {
    let one = TestApp::new().await;
    let writer = one.persona("system/*.cruds").await;
    assert_eq!(writer.put("Patient/p1", &patient("p1", "Adams")).await.status, 201);
    one.user("adams", Role::Patient, Some("Patient/p1")).await;
    one.client("app", ClientKind::Public, SCOPE).await;
    let two = one.again().await;
    [one, two]
}

/// Statuses in order of size: who of the two was first does not matter.
fn statuses(replies: &[Reply]) -> Vec<u16> {
    let mut all: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    all.sort_unstable();
    all
}

/// Where a browser goes on at the other server: behind one name, it does not know which of them answers.
fn moved<'a>(browser: &Browser<'_>, to: &'a TestApp) -> Browser<'a> {
    Browser { app: to, cookie: browser.cookie.clone() }
}

async fn a_code_is_redeemed_at_one_of_them_and_what_it_gave_ends_at_both() {
    let [one, two] = clinic().await;
    // One after the other.
    let code = one.code("app", "adams", SCOPE, None).await;
    let first = two.redeem("app", &code).await;
    assert_eq!(first.status, 200, "asked for at one, redeemed at the other: {}", first.text());
    let token = first.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(one.fhir(&token, "Patient/p1").await.status, 200);
    assert_eq!(one.redeem("app", &code).await.status, 400);
    assert_eq!(two.fhir(&token, "Patient/p1").await.status, 401, "a second use ends what the first gave");
    // Both at once.
    for round in 0..ROUNDS {
        let code = one.code("app", "adams", SCOPE, None).await;
        let replies: [Reply; 2] = tokio::join!(one.redeem("app", &code), two.redeem("app", &code)).into();
        let said = statuses(&replies);
        assert!(said == [200, 400] || said == [400, 400], "round {round}: {said:?}");
        for reply in &replies {
            let answer = reply.json();
            let Some(token) = answer["access_token"].as_str() else {
                assert_eq!(answer["error"], "invalid_grant");
                continue;
            };
            for server in [&one, &two] {
                assert_eq!(server.fhir(token, "Patient/p1").await.status, 401, "round {round}: it was used twice");
                let refreshed = server.refresh("app", answer["refresh_token"].as_str().unwrap()).await;
                assert_eq!(refreshed.json()["error"], "invalid_grant", "round {round}");
            }
        }
    }
}

async fn a_refresh_token_counts_at_one_of_them() {
    let [one, two] = clinic().await;
    let first = one.launched("app", "adams", SCOPE, None).await;
    let next = two.refresh("app", first["refresh_token"].as_str().unwrap()).await.json();
    let last = one.refresh("app", next["refresh_token"].as_str().unwrap()).await;
    assert_eq!(last.status, 200, "a chain goes over both: {}", last.text());
    for round in 0..ROUNDS {
        let token = one.launched("app", "adams", SCOPE, None).await["refresh_token"].as_str().unwrap().to_owned();
        let replies: [Reply; 2] = tokio::join!(one.refresh("app", &token), two.refresh("app", &token)).into();
        let said = statuses(&replies);
        assert!(said == [200, 400] || said == [400, 400], "round {round}: {said:?}");
        for answer in replies.iter().map(Reply::json).filter(|answer| answer["access_token"].is_string()) {
            let status = two.fhir(answer["access_token"].as_str().unwrap(), "Patient/p1").await.status;
            assert_eq!(status, 401, "round {round}: one of the two has stolen it");
            let again = one.refresh("app", answer["refresh_token"].as_str().unwrap()).await;
            assert_eq!(again.json()["error"], "invalid_grant", "round {round}");
        }
    }
}

async fn an_assertion_counts_at_one_of_them() {
    let [one, two] = clinic().await;
    let key = SigningKey::generate().unwrap();
    let registration = Registration {
        client_id: Some("service".into()),
        name: "service".into(),
        kind: ClientKind::Backend,
        jwks: Some(serde_json::json!({"keys": [key.public_jwk()]})),
        jwks_url: None,
        scopes: "system/*.rs".into(),
        redirect_uris: Vec::new(),
        launch_uri: None,
        ehr: false,
        demo: false,
    };
    one.app().oauth.clients().add(registration).await.unwrap();
    for round in 0..ROUNDS {
        let assertion = super::attacks_tokens::assertion(&one, &key, "service");
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", "system/*.rs"),
            ("client_assertion_type", crate::oauth::assertion::ASSERTION_TYPE),
            ("client_assertion", &assertion),
        ];
        let ask = |server: &'static str| {
            let server = if server == "one" { &one } else { &two };
            server.form("/oauth/token", &form, None)
        };
        let replies: [Reply; 4] = tokio::join!(ask("one"), ask("two"), ask("one"), ask("two")).into();
        assert_eq!(statuses(&replies), [200, 401, 401, 401], "round {round}");
    }
}

async fn what_ends_at_one_has_ended_at_the_other() {
    let [one, two] = clinic().await;
    // A token that is revoked.
    let answer = one.launched("app", "adams", SCOPE, None).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(two.fhir(token, "Patient/p1").await.status, 200);
    let form = [("token", answer["refresh_token"].as_str().unwrap()), ("client_id", "app")];
    assert_eq!(one.form("/oauth/revoke", &form, None).await.status, 200);
    assert_eq!(two.fhir(token, "Patient/p1").await.status, 401);
    // A session that is logged out: begun at one, gone on with at the other.
    let mut here = Browser::new(&one);
    let page = here.open("/login").await;
    let mut there = moved(&here, &two);
    let fields = [("step", "login"), ("username", "adams"), ("password", PASSWORD)];
    let page = there.submit(&page, "/login", &fields).await;
    assert!(page.text().contains("Log out"), "{}", page.text());
    let mut here = moved(&there, &one);
    let page = here.get("/account").await;
    assert_eq!(page.status, 200);
    here.submit(&page, "/logout", &[]).await;
    assert_eq!(there.get("/account").await.status, 303, "logged out everywhere");
    // A user and an app that are disabled.
    for what in ["user", "app"] {
        let answer = one.launched("app", "adams", SCOPE, None).await;
        let token = answer["access_token"].as_str().unwrap();
        assert_eq!(two.fhir(token, "Patient/p1").await.status, 200);
        let oauth = &one.app().oauth;
        match what {
            "user" => assert!(oauth.users().disable("adams").await.unwrap()),
            _ => assert!(oauth.clients().disable("app").await.unwrap()),
        }
        assert_eq!(two.fhir(token, "Patient/p1").await.status, 401, "{what}");
        assert!(two.refresh("app", answer["refresh_token"].as_str().unwrap()).await.status >= 400, "{what}");
        one.app().oauth.users().enable("adams").await.unwrap();
        one.pass(1);
    }
}

async fn guesses_at_both_are_counted_together() {
    let [one, two] = clinic().await;
    let right = [("step", "login"), ("username", "adams"), ("password", PASSWORD)];
    let wrong = [("step", "login"), ("username", "adams"), ("password", "Wrong-Lamp-4711")];
    // In turns.
    let mut said = Vec::new();
    for n in 0..6 {
        let mut browser = Browser::new([&one, &two][n % 2]);
        let page = browser.open("/login").await;
        said.push(browser.submit(&page, "/login", &wrong).await.status);
    }
    assert_eq!(said, [401, 401, 401, 401, 401, 429]);
    for server in [&one, &two] {
        let mut browser = Browser::new(server);
        let page = browser.open("/login").await;
        assert_eq!(browser.submit(&page, "/login", &right).await.status, 429, "locked at both");
    }
    // All at once: no more are looked at than in turns.
    one.app().oauth.unlock(&By::server(), "adams").await.unwrap();
    one.app().oauth.users().enable("adams").await.unwrap();
    let guesses = (0..24).map(|n| {
        let server = [&one, &two][n % 2];
        async move {
            let mut browser = Browser::new(server);
            let page = browser.open("/login").await;
            browser.submit(&page, "/login", &wrong).await.status
        }
    });
    let said = join_all(guesses).await;
    assert_eq!(said.iter().filter(|status| **status == 401).count(), 5, "{said:?}");
    assert!(said.iter().all(|status| [401, 429].contains(status)), "{said:?}");
}

async fn a_second_factor_counts_at_one_of_them() {
    let [one, two] = clinic().await;
    one.user("nurse", Role::Nurse, None).await;
    for round in 0..ROUNDS {
        one.pass(60);
        let mut pages = Vec::new();
        for server in [&one, &two] {
            let mut browser = Browser::new(server);
            let page = browser.open("/login").await;
            let fields = [("step", "login"), ("username", "nurse"), ("password", PASSWORD)];
            let page = browser.submit(&page, "/login", &fields).await;
            pages.push((browser, page));
        }
        let code = totp::code_at(SECRET, one.app().world.now());
        let fields = [("step", "factor"), ("code", code.as_str())];
        let logins = pages.iter_mut().map(|(browser, page)| browser.submit(page, "/login", &fields));
        let inside = join_all(logins).await.iter().filter(|reply| reply.text().contains("Log out")).count();
        assert_eq!(inside, 1, "round {round}");
    }
}

async fn an_invitation_is_taken_up_at_one_of_them() {
    let [one, two] = clinic().await;
    let invite = Invite { role: Role::Patient, fhir_user: Some("Patient/p1".into()), note: "for Ann".into() };
    let issued = people::invite(one.app(), &By::server(), invite).await.unwrap();
    let path = issued.link.strip_prefix("http://phial.test").unwrap();
    let mut pages = Vec::new();
    for server in [&one, &two, &one, &two] {
        let mut browser = Browser::new(server);
        let page = browser.open(path).await;
        pages.push((browser, page));
    }
    let fields = [("username", "ann"), ("password", "Another-Lamp-1147"), ("again", "Another-Lamp-1147")];
    let taken = pages.iter_mut().enumerate().map(|(n, (browser, page))| {
        let name = format!("ann{n}");
        async move {
            let mut fields = fields;
            fields[0].1 = &name;
            browser.submit(page, "/invitation", &fields).await.text().contains("Log out")
        }
    });
    let taken = join_all(taken).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
    assert_eq!(one.app().oauth.users().list().await.unwrap().len(), 2, "adams and one more");
}

async fn new_signing_keys_are_known_at_the_other() {
    let [one, two] = clinic().await;
    let old = two.launched("app", "adams", SCOPE, None).await;
    one.pass(10);
    one.app().oauth.rotate_keys(&By::server()).await.unwrap();
    let new = one.launched("app", "adams", SCOPE, None).await;
    for answer in [&old, &new] {
        for server in [&one, &two] {
            let token = answer["access_token"].as_str().unwrap();
            assert_eq!(server.fhir(token, "Patient/p1").await.status, 200);
        }
    }
    // What a request was begun with at one is decided at the other.
    let mut here = Browser::new(&one);
    let page = here.open(&one.authorize("app", SCOPE, &[])).await;
    let page = here.login(&page, "adams").await;
    let mut there = moved(&here, &two);
    let reply = there.allow_all(&page).await;
    let code = parameter(reply.header("location"), "code").expect("a code");
    assert!(reply.header("location").starts_with(REDIRECT) && !VERIFIER.is_empty());
    assert_eq!(one.redeem("app", &code).await.status, 200);
}

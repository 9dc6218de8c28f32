//! Answers that are not to be believed, keys that change, and logouts.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

on_both![answers_belong_to_the_browser_and_the_provider_they_were_asked_of, a_logout_reaches_both_sides,];

#[tokio::test]
async fn nobody_comes_in_with_a_token_that_is_not_right() {
    let Some(house) = house().await else { return };
    house.physician();
    let mut browser = Browser::new(&house.app);
    for (tamper, word) in [
        ("none", "provider-token-signature"),
        ("secret", "provider-token-signature"),
        ("foreign", "provider-token-signature"),
        ("signature", "provider-token-signature"),
        ("unsigned", "provider-token-signature"),
        ("nonce", "provider-token-nonce"),
        ("no-nonce", "provider-token-nonce"),
        ("iss", "provider-token-issuer"),
        ("aud", "provider-token-audience"),
        ("more-aud", "provider-token-audience"),
        ("azp", "provider-token-audience"),
        ("at_hash", "provider-token-access-token"),
        ("expired", "provider-token-expired"),
        ("old", "provider-token-time"),
        ("future", "provider-token-time"),
        ("nbf", "provider-token-time"),
    ] {
        house.set(&json!({ "set": { "tamper": tamper } }));
        let reply = house.log_in(&mut browser, "clinic", "ann", "").await;
        assert!(reply.status == 401 && reply.text().contains("cannot be trusted"), "{tamper}: {}", reply.text());
        let record = house.recorded(&reply).await;
        assert!(record.contains(word), "{tamper}: {record}");
        assert_eq!(browser.get("/account").await.status, 303, "{tamper}");
    }
    house.set(&json!({ "set": { "tamper": null } }));
    // A claim that the configuration asks for.
    let mut users = house.set(&json!({}))["users"].clone();
    users["ann"]["token_use"] = json!("access");
    house.set(&json!({ "set": { "users": users } }));
    let reply = house.log_in(&mut browser, "clinic", "ann", "").await;
    assert!(house.recorded(&reply).await.contains("provider-token-claims"), "{}", reply.text());
    assert!(house.app.app().oauth.users().list().await.unwrap().is_empty());
    house.physician();
    assert_eq!(house.log_in(&mut browser, "clinic", "ann", "").await.status, 200, "nothing else was wrong");
}

async fn answers_belong_to_the_browser_and_the_provider_they_were_asked_of() {
    let Some(house) = house().await else { return };
    house.physician();
    let (mut browser, mut other) = (Browser::new(&house.app), Browser::new(&house.app));
    assert_eq!(browser.get("/login/with/nobody").await.status, 404);
    assert_eq!(browser.get("/login/back/nobody?state=x").await.status, 404);
    for path in ["/login/back/clinic", "/login/back/clinic?state=x&code=y"] {
        let reply = browser.get(path).await;
        assert!(reply.status == 400 && house.recorded(&reply).await.contains("provider-state"), "{path}");
    }
    other.get("/login").await;
    let back = house.away(&mut browser, "clinic", "", "ann", "").await;
    assert_eq!(other.get(&back).await.status, 400, "another browser");
    let elsewhere = back.replace("/login/back/clinic", "/login/back/region");
    assert_eq!(browser.get(&elsewhere).await.status, 400, "another provider");
    // The answer says whose it is; that it is another's, or nobody's, is not taken.
    assert_eq!(parameter(&back, "iss").as_ref(), Some(&house.clinic));
    let without = |back: &str| back.split_once("&iss=").expect("the issuer comes last").0.to_owned();
    let mixed = form::encode(&[("iss".to_owned(), house.region.clone())]);
    let reply = browser.get(&format!("{}&{mixed}", without(&back))).await;
    assert!(reply.status == 400 && house.recorded(&reply).await.contains("provider-issuer"), "{}", reply.text());
    let back = house.away(&mut browser, "clinic", "", "ann", "").await;
    let silent = browser.get(&without(&back)).await;
    assert!(house.recorded(&silent).await.contains("provider-issuer"));
    // A code that the provider does not know.
    let back = house.away(&mut browser, "clinic", "", "ann", "").await;
    let code = parameter(&back, "code").unwrap();
    let reply = browser.get(&back.replace(&code, "another-code")).await;
    assert!(reply.status == 400 && house.recorded(&reply).await.contains("provider-code"), "{}", reply.text());
    // The person does not want to.
    let begun = browser.get("/login/with/clinic").await;
    let back = Away::new().through(begun.header("location"), &[("cancel", "yes")]);
    let reply = browser.get(&back).await;
    assert!(reply.text().contains("cancelled") && house.recorded(&reply).await.contains("provider-denied"));
    // Too late.
    let back = house.away(&mut browser, "clinic", "", "ann", "").await;
    house.app.pass(601);
    assert_eq!(browser.get(&back).await.status, 400);
}

#[tokio::test]
async fn keys_may_change_and_providers_be_away() {
    let Some(mut house) = house().await else { return };
    house.physician();
    let mut browser = Browser::new(&house.app);
    assert_eq!(house.log_in(&mut browser, "clinic", "ann", "").await.status, 200);
    house.set(&json!({ "rotate": true }));
    // At most one look at the keys in five seconds.
    let early = house.log_in(&mut browser, "clinic", "ann", "").await;
    assert_eq!(early.status, 401, "{}", early.text());
    house.app.pass(6);
    let late = house.log_in(&mut browser, "clinic", "ann", "").await;
    assert_eq!(late.status, 200, "{}", late.text());
    house.child.kill().unwrap();
    house.child.wait().unwrap();
    house.app.pass(3600);
    assert_eq!(browser.get("/login/with/clinic").await.status, 303, "what is known does for a day");
    house.app.pass(86_400);
    let away = browser.get("/login/with/clinic").await;
    assert!(away.status == 503 && away.text().contains("does not answer"), "{}", away.text());
    assert_eq!(browser.get("/login").await.status, 200);
}

async fn a_logout_reaches_both_sides() {
    let Some(house) = house().await else { return };
    house.physician();
    let (mut browser, mut other) = (Browser::new(&house.app), Browser::new(&house.app));
    let begun = browser.get("/login/with/region").await;
    let mut away = Away::new();
    let fields = [("login", "ann"), ("amr", "pwd"), ("acr", "gold")];
    let back = away.through(begun.header("location"), &fields);
    let account = browser.open(&back).await;
    house.log_in(&mut other, "region", "ann", "gold").await;
    let page = browser.submit(&account, "/logout", &[]).await;
    assert!(page.status == 200 && page.text().contains("Log out at Region"), "{}", page.text());
    assert_eq!(browser.get("/account").await.status, 303);
    let url = page.text().split_once("content=\"0; url=").unwrap().1.split('"').next().unwrap().replace("&amp;", "&");
    let url = url.replace("&#x2f;", "/");
    assert!(url.starts_with(&house.region), "{url}");
    let left = away.through(&url, &[("logout", "yes")]);
    assert_eq!(left, "/login");

    // The provider has told its clients: its word ends the sessions of that login, once.
    let logouts = house.set(&json!({}))["logouts"].clone();
    let token = logouts[0].as_str().expect("a logout token").to_owned();
    let end = |token: String| {
        let app = &house.app;
        async move { app.form("/login/ended/region", &[("logout_token", &token)], None).await }
    };
    assert_eq!(other.get("/account").await.status, 200);
    assert_eq!(end(token.clone()).await.status, 200);
    assert_eq!(other.get("/account").await.status, 200, "it was the other one's session there");
    assert_eq!(end(token.clone()).await.status, 400, "once");
    let mut third = Browser::new(&house.app);
    let begun = third.get("/login/with/region").await;
    let mut away = Away::new();
    third.open(&away.through(begun.header("location"), &fields)).await;
    assert_eq!(third.get("/account").await.status, 200);
    let region = ureq::get(format!("{}/.well-known/openid-configuration", house.region)).call().unwrap();
    let region: Value = serde_json::from_str(&region.into_body().read_to_string().unwrap()).unwrap();
    let end_address = format!(
        "{}?client_id=phial&post_logout_redirect_uri={HERE}/login",
        region["end_session_endpoint"].as_str().unwrap()
    );
    away.through(&end_address, &[("logout", "yes")]);
    let logouts = house.set(&json!({}))["logouts"].clone();
    let second = logouts[1].as_str().expect("a second logout token").to_owned();
    // Not genuine, or not a logout.
    let parts: Vec<&str> = second.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    for bad in [String::new(), "x".into(), format!("{none}.{}.", parts[1]), format!("{}.{}.AAAA", parts[0], parts[1])] {
        assert_eq!(end(bad).await.status, 400);
    }
    let hint = parameter(&url, "id_token_hint").unwrap();
    assert_eq!(end(hint).await.status, 400, "an id_token is no logout");
    let at_clinic = house.app.form("/login/ended/clinic", &[("logout_token", &second)], None).await;
    assert_eq!(at_clinic.status, 400);
    assert_eq!(third.get("/account").await.status, 200);
    let ended = end(second).await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    assert_eq!(third.get("/account").await.status, 303);
    assert!(house.recorded(&ended).await.contains("\"110123\""));
}

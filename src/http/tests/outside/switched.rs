//! What administrators see of identity providers, and do with them and the people who come through them.

use serde_json::json;

use super::super::browser::Browser;
use super::{House, house};
use crate::access::Role;
use crate::oauth::{By, ClientKind, Find, totp};

async fn boss(house: &House) -> Browser<'_> {
    house.app.user("boss", Role::Admin, None).await;
    let mut boss = Browser::new(&house.app);
    let page = boss.open("/admin/providers").await;
    let code_after = boss.login(&page, "boss").await;
    assert_eq!(code_after.status, 200, "{}", code_after.text());
    boss
}

#[tokio::test]
async fn a_provider_is_shut_for_everybody_who_came_through_it_and_opened_again() {
    let Some(house) = house().await else { return };
    house.physician();
    house.app.client("app", ClientKind::Public, "openid fhirUser offline_access user/Patient.rs").await;
    let mut ann = Browser::new(&house.app);
    house.log_in(&mut ann, "clinic", "ann", "").await;
    let page = ann.open(&house.app.authorize("app", "openid offline_access user/Patient.rs", &[])).await;
    let reply = ann.allow_all(&page).await;
    let code = super::parameter(reply.header("location"), "code").expect("a code");
    let tokens = house.app.redeem("app", &code).await.json();
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(house.app.fhir(&token, "Patient").await.status, 200);

    let mut boss = boss(&house).await;
    let page = boss.get("/admin/providers").await;
    let text = page.text();
    for words in [
        "groups is physicians or residents: PROVIDER, Practitioner/{npi}",
        "1 came through it",
        "nobody came through it yet",
        "keys, asked",
        "not asked since this server started",
        "amr mfa or otp; otherwise the login is refused",
        "acr gold; otherwise this server asks for its own",
    ] {
        let words = words.replace('/', "&#x2f;");
        assert!(text.contains(&words), "{words}: {text}");
    }
    assert!(!text.contains("a quiet secret"), "no secret");
    let users = boss.get("/admin/users?provider=clinic").await.text();
    assert!(
        users.contains("ann.smith+clinic") && users.contains("1 in all") && !users.contains(">boss</a>"),
        "{users}"
    );

    let shut = boss.submit(&page, "/admin/providers", &[("id", "clinic"), ("act", "disable")]).await;
    assert!(shut.text().contains("Nobody logs in") && shut.text().contains(">shut<"), "{}", shut.text());
    assert_eq!(house.app.fhir(&token, "Patient").await.status, 401, "a token of theirs");
    assert_eq!(house.app.refresh("app", &refresh).await.status, 400, "what an app was allowed");
    assert_eq!(ann.get("/account").await.status, 303, "a session");
    assert!(!ann.get("/login").await.text().contains("Clinic"), "it is offered to nobody");
    assert_eq!(ann.get("/login/with/clinic").await.status, 403);
    assert!(ann.get("/login/with/region").await.status == 303, "the other one is open");
    // Whoever was on the way back when it was shut.
    boss.submit(&page, "/admin/providers", &[("id", "clinic"), ("act", "enable")]).await;
    let back = house.away(&mut ann, "clinic", "", "ann", "").await;
    boss.submit(&page, "/admin/providers", &[("id", "clinic"), ("act", "disable")]).await;
    let late = ann.get(&back).await;
    assert!(late.status == 403 && house.recorded(&late).await.contains("provider-disabled"), "{}", late.text());

    house.app.pass(1);
    let open = boss.submit(&page, "/admin/providers", &[("id", "clinic"), ("act", "enable")]).await;
    assert!(open.text().contains("Opened again"), "{}", open.text());
    assert_eq!(house.app.fhir(&token, "Patient").await.status, 401, "what had ended does not come back");
    house.app.pass(1);
    assert_eq!(house.log_in(&mut ann, "clinic", "ann", "").await.status, 200);
    let gone = boss.submit(&page, "/admin/providers", &[("id", "nobody"), ("act", "disable")]).await;
    assert_eq!(gone.status, 404);
    let office = house.app.persona("system/AuditEvent.rs").await;
    let all = office.get("AuditEvent?_count=1000").await.text();
    assert!(
        all.contains("110129") && all.matches("\"issuer\",\"valueString\"").count() == 4,
        "each switch is on record"
    );
}

#[tokio::test]
async fn a_lost_second_factor_of_somebody_from_a_provider_is_forgotten_by_an_administrator() {
    let Some(house) = house().await else { return };
    house.physician();
    let mut ann = Browser::new(&house.app);
    let page = house.log_in(&mut ann, "region", "ann", "").await;
    let text = page.text();
    let key: String = text.split("class=\"key\">").nth(1).unwrap().split('<').next().unwrap().into();
    let secret = totp::from_base32(&key).unwrap();
    let code = totp::code_at(&secret, house.app.app().world.now());
    let codes = ann.submit(&page, "/login", &[("step", "enrol"), ("code", &code)]).await;
    assert!(codes.text().contains("recovery codes"), "{}", codes.text());

    let mut boss = boss(&house).await;
    let (oauth, by) = (&house.app.app().oauth, By::operator("root"));
    let refused = oauth.clear_factor(&by, "boss").await.err().unwrap();
    assert!(refused.to_string().contains("reset both"), "{refused}");
    assert!(!oauth.clear_factor(&by, "nobody").await.unwrap());
    let user = oauth.users().get("ann.smith+region").await.unwrap().unwrap();
    let page = boss.get(&format!("/admin/user?id={}", user.id)).await;
    assert!(page.text().contains("Forget the lost second factor") && !page.text().contains("Reset password"));
    let done = boss.submit(&page, "/admin/user", &[("id", &user.id), ("act", "factor")]).await;
    assert!(done.text().contains("sets up a new one"), "{}", done.text());
    assert_eq!(ann.get("/account").await.status, 303, "what was open has ended");
    assert!(house.recorded(&done).await.contains("\"all\""));
    let user = oauth.users().get("ann.smith+region").await.unwrap().unwrap();
    assert!(!user.has_factor() && user.recovery.is_empty());
    house.app.pass(1);
    let page = house.log_in(&mut ann, "region", "ann", "").await;
    assert!(page.text().contains("name=\"step\" value=\"enrol\""), "a new one: {}", page.text());
    // A role that changes at the provider changes what the user is found by.
    house.app.pass(1);
    house.user("ann", &json!({ "groups": ["nurses"] }));
    house.log_in(&mut ann, "region", "ann", "gold").await;
    let users = oauth.users().clone().sorting(0);
    for (role, count) in [(Role::Nurse, 1), (Role::Provider, 0)] {
        let find = Find { role: Some(role), ..Find::default() };
        assert_eq!(users.page(&find, &[], 10).await.unwrap().users.len(), count, "{}", role.name());
    }
}

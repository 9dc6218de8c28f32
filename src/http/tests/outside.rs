//! Logging in at identity providers: two real ones, over the wire, with every way in which their answers can be wrong.
//! The clock is the real one at the start, since theirs is.

mod switched;
mod tokens;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::browser::{Browser, parameter};
use super::{Reply, TestApp, on_both};
use crate::interaction::form;
use crate::oauth::{ClientKind, SigningKey};
use crate::world::Instant;

on_both![people_log_in_where_they_are_known, what_the_provider_says_counts_at_the_next_login,];

/// What stands at the start of every address here.
const HERE: &str = "http://phial.test";
const GROUPS: &str = r#"
[[provider.role]]
claim = "groups"
is = ["physicians", "residents"]
role = "PROVIDER"
fhir-user = "Practitioner/{npi}"

[[provider.role]]
claim = "groups"
is = "nurses"
role = "NURSE"

[[provider.role]]
claim = "groups"
is = "portal"
role = "PATIENT"
fhir-user = "{fhirUser}"
"#;

/// The folder with the package of the providers; None when it cannot be had here.
fn package() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ran = Command::new(root.join(".ci/npm")).arg("provider").current_dir(root).output().ok()?;
    if !ran.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&ran.stderr));
        return None;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    Some(target.join("npm/provider"))
}

/// The two providers, and this server as their client.
struct House {
    app: TestApp,
    child: Child,
    clinic: String,
    region: String,
    _folder: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn house() -> Option<House> {
    let package = package()?;
    let key = SigningKey::generate().unwrap();
    let arguments = json!({ "origin": HERE, "key": key.public_jwk() }).to_string();
    let mut child = Command::new("node")
        .arg(package.join("provider.mjs"))
        .arg(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node runs");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    while !line.starts_with('{') {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the providers did not start");
    }
    let issuers: Value = serde_json::from_str(&line).unwrap();
    let of = |name: &str| issuers[name].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("secret", "a quiet secret of thirty-two bytes\n");
    let pem = STANDARD.encode(key.pkcs8());
    write("key.pem", &format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n"));
    let file = format!(
        r#"
[[provider]]
id = "clinic"
name = "Clinic & Sons"
issuer = "{}"
client-id = "phial"
client-secret-file = "secret"
claims = {{ token_use = "id" }}
second-factor = {{ amr = ["mfa", "otp"], otherwise = "refused" }}
{GROUPS}
[[provider]]
id = "region"
name = "Region"
issuer = "{}"
client-id = "phial"
client-key-file = "key.pem"
userinfo = true
second-factor = {{ acr = ["gold"], otherwise = "here" }}
{GROUPS}"#,
        of("clinic"),
        of("region")
    );
    write("providers.toml", &file);
    let path = folder.path().join("providers.toml").display().to_string();
    let app = TestApp::with(&[("identity_providers", &path)]).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    app.app().world.set_now(Instant(i64::try_from(now.as_millis()).unwrap()));
    Some(House { app, child, clinic: of("clinic"), region: of("region"), _folder: folder })
}

/// A reply of a provider.
struct Answer {
    location: Option<String>,
    text: String,
}

/// What a browser does at a provider.
struct Away {
    agent: ureq::Agent,
    cookies: HashMap<String, String>,
}

impl Away {
    fn new() -> Away {
        let config = ureq::Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)));
        Away { agent: config.build().into(), cookies: HashMap::new() }
    }

    fn send(&mut self, url: &str, form: Option<&[(&str, &str)]>) -> Answer {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = ureq::http::Request::builder().uri(url).header("cookie", cookies.join("; "));
        let mut reply = match form {
            None => self.agent.run(request.method("GET").body(()).unwrap()),
            Some(form) => {
                let pairs: Vec<(String, String)> =
                    form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                let kind = "application/x-www-form-urlencoded";
                self.agent.run(request.method("POST").header("content-type", kind).body(form::encode(&pairs)).unwrap())
            }
        }
        .expect("the provider answers");
        for cookie in reply.headers().get_all("set-cookie") {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = reply.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        assert!(reply.status().as_u16() < 500, "{url}: {}", reply.body_mut().read_to_string().unwrap());
        Answer { location, text: reply.body_mut().read_to_string().unwrap() }
    }

    /// From an address of a provider to the one that it sends the browser back to here.
    fn through(&mut self, url: &str, fields: &[(&str, &str)]) -> String {
        let issuer = &url[..url[7..].find('/').unwrap() + 7];
        let absolute = |to: &str| if to.starts_with('/') { format!("{issuer}{to}") } else { to.to_owned() };
        let mut answer = self.send(url, None);
        for _ in 0..12 {
            if let Some(to) = &answer.location {
                if let Some(path) = to.strip_prefix(HERE) {
                    return path.to_owned();
                }
                answer = self.send(&absolute(to), None);
                continue;
            }
            let text = &answer.text;
            let between = |from: &str| Some(text.split_once(from)?.1.split('"').next()?.to_owned());
            let action = between("action=\"").unwrap_or_else(|| panic!("a form: {text}"));
            let hidden = between("name=\"xsrf\" value=\"").unwrap_or_default();
            let mut all = fields.to_vec();
            all.push(("xsrf", &hidden));
            answer = self.send(&absolute(&action), Some(&all));
        }
        panic!("no way back from {url}: {}", answer.text);
    }
}

impl House {
    /// Changes what the providers do; gives what they have.
    fn set(&self, asked: &Value) -> Value {
        let mut reply = ureq::post(format!("{}/test", self.clinic)).send(asked.to_string()).expect("taken");
        serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap()
    }

    fn user(&self, name: &str, claims: &Value) {
        let mut users = self.set(&json!({}))["users"].clone();
        users[name] = claims.clone();
        users[name]["token_use"] = json!("id");
        self.set(&json!({ "set": { "users": users } }));
    }

    fn physician(&self) {
        self.user("ann", &json!({ "groups": ["staff", "physicians"], "npi": "77", "preferred_username": "Ann.Smith" }));
    }

    /// The address that a browser comes back with, after a login that has these marks of how it was done.
    async fn away(&self, browser: &mut Browser<'_>, provider: &str, query: &str, who: &str, acr: &str) -> String {
        let reply = browser.get(&format!("/login/with/{provider}{query}")).await;
        assert_eq!(reply.status, 303, "{}", reply.text());
        let fields = [("login", who), ("amr", "pwd otp"), ("acr", acr)];
        Away::new().through(reply.header("location"), &fields)
    }

    async fn log_in(&self, browser: &mut Browser<'_>, provider: &str, who: &str, acr: &str) -> Reply {
        let back = self.away(browser, provider, "", who, acr).await;
        browser.open(&back).await
    }

    /// What is on record of a request.
    async fn recorded(&self, reply: &Reply) -> String {
        let office = self.app.persona("system/AuditEvent.rs").await;
        let events = office.audit_of(reply.header("x-request-id")).await;
        events.iter().map(Value::to_string).collect()
    }
}

async fn people_log_in_where_they_are_known() {
    let Some(house) = house().await else { return };
    house.physician();
    let mut browser = Browser::new(&house.app);
    let page = browser.get("/login?to=launch").await.text();
    assert!(page.contains("Sign in with Clinic &amp; Sons") && page.contains("/login/with/region?to=launch"), "{page}");
    let begun = browser.get("/login/with/clinic").await;
    let asked = begun.header("location").to_owned();
    for (name, value) in [("response_type", "code"), ("code_challenge_method", "S256"), ("client_id", "phial")] {
        assert_eq!(parameter(&asked, name).as_deref(), Some(value));
    }
    assert!(parameter(&asked, "nonce").is_some() && parameter(&asked, "scope").unwrap().contains("openid"));

    let back = house.away(&mut browser, "clinic", "", "ann", "").await;
    let cookie = browser.cookie.clone();
    let reply = browser.get(&back).await;
    assert_eq!((reply.status, reply.header("location")), (303, "/account"), "{}", reply.text());
    assert_ne!(browser.cookie, cookie, "a login has a cookie of its own");
    let page = browser.get("/account").await.text();
    assert!(page.contains("ann.smith+clinic") && page.contains("PROVIDER"), "{page}");
    let record = house.recorded(&reply).await;
    // A login, and a security attribute that has changed.
    for word in ["\"110122\"", "\"110137\"", "\"clinic\"", "Practitioner/77"] {
        assert!(record.contains(word), "{word} in {record}");
    }
    // An answer counts once.
    assert_eq!(browser.get(&back).await.status, 400);
    // There is no password for this user.
    let users = house.app.app().oauth.users();
    let ann = users.get("ann.smith+clinic").await.unwrap().unwrap();
    assert!(ann.password.is_none() && ann.fhir_user.as_deref() == Some("Practitioner/77"));
    assert!(!page.contains("Change password"), "{page}");
    let reset = house.app.app().oauth.reset(&crate::oauth::By::server(), "ann.smith+clinic").await;
    assert!(reset.err().unwrap().to_string().contains("reset there"));

    let oauth = &house.app.app().oauth;
    let keys: Vec<bool> = oauth.outside().described().map(|provider| provider.public_key.is_some()).collect();
    assert_eq!(keys, [false, true]);
    let state = oauth.provider_state("region", true).await.unwrap().unwrap();
    assert!(state.failed.is_none() && state.known.is_some() && state.users == 0);
    assert!(oauth.provider_state("nobody", true).await.unwrap().is_none());
    // Somebody of the same name at another provider is somebody else.
    let mut other = Browser::new(&house.app);
    let page = house.log_in(&mut other, "region", "ann", "gold").await.text();
    assert!(page.contains("ann.smith+region"), "{page}");
    assert_eq!(users.list().await.unwrap().len(), 2);
}

async fn what_the_provider_says_counts_at_the_next_login() {
    let Some(house) = house().await else { return };
    house.physician();
    let users = house.app.app().oauth.users();
    let (mut first, mut second) = (Browser::new(&house.app), Browser::new(&house.app));
    house.log_in(&mut first, "clinic", "ann", "").await;
    house.app.pass(1);
    // The same again changes nothing.
    house.log_in(&mut second, "clinic", "ann", "").await;
    assert!(first.get("/account").await.status == 200 && users.list().await.unwrap().len() == 1);
    house.app.pass(1);
    house.user("ann", &json!({ "groups": ["nurses"], "preferred_username": "Ann.Other" }));
    let page = house.log_in(&mut second, "clinic", "ann", "").await.text();
    assert!(page.contains("ann.smith+clinic") && page.contains("NURSE"), "{page}");
    assert_eq!(first.get("/account").await.status, 303, "what was opened as a physician has ended");
    house.app.pass(1);
    // No group that means anything here: nobody comes in, and what is open ends.
    house.user("ann", &json!({ "groups": ["gardeners"] }));
    let reply = house.log_in(&mut first, "clinic", "ann", "").await;
    assert!(reply.status == 403 && reply.text().contains("gives you a role"), "{}", reply.text());
    assert!(house.recorded(&reply).await.contains("provider-role"));
    assert_eq!(second.get("/account").await.status, 303);
    // A stranger without a role leaves no trace but the entry.
    house.user("eve", &json!({ "groups": "physician" }));
    assert_eq!(house.log_in(&mut first, "clinic", "eve", "").await.status, 403);
    house.user("pat", &json!({ "groups": ["portal"], "fhirUser": "Practitioner/1" }));
    let reply = house.log_in(&mut first, "clinic", "pat", "").await;
    assert!(reply.status == 403 && reply.text().contains("which record"), "{}", reply.text());
    assert_eq!(users.list().await.unwrap().len(), 1);
    house.user("pat", &json!({ "groups": ["portal"], "fhirUser": format!("{HERE}/fhir/Patient/p1") }));
    let page = house.log_in(&mut first, "clinic", "pat", "").await.text();
    assert!(page.contains("somebody+clinic") && page.contains("PATIENT"), "{page}");
    // Whoever is disabled here stays out.
    house.physician();
    assert!(users.disable("ann.smith+clinic").await.unwrap());
    let reply = house.log_in(&mut second, "clinic", "ann", "").await;
    assert!(reply.status == 403 && reply.text().contains("closed"), "{}", reply.text());
    assert!(house.recorded(&reply).await.contains("disabled"));
}

#[tokio::test]
async fn a_second_factor_is_shown_there_or_asked_for_here() {
    let Some(house) = house().await else { return };
    house.physician();
    let mut browser = Browser::new(&house.app);
    let reply = browser.get("/login/with/clinic").await;
    let fields = [("login", "ann"), ("amr", "pwd"), ("acr", "")];
    let back = Away::new().through(reply.header("location"), &fields);
    let reply = browser.get(&back).await;
    assert!(reply.status == 403 && reply.text().contains("second factor"), "{}", reply.text());
    assert!(house.recorded(&reply).await.contains("provider-second-factor"));
    assert!(house.app.app().oauth.users().list().await.unwrap().is_empty());
    // The region's `otp` counts for nothing here; what it must show is acr.
    let asked = browser.get("/login/with/region").await;
    assert_eq!(parameter(asked.header("location"), "acr_values").as_deref(), Some("gold"));
    let page = house.log_in(&mut browser, "region", "ann", "").await;
    assert!(page.text().contains("name=\"step\" value=\"enrol\""), "{}", page.text());
    assert_eq!(browser.get("/account").await.status, 303);
    let page = house.log_in(&mut browser, "region", "ann", "gold").await.text();
    assert!(page.contains("ann.smith+region"), "{page}");
}

#[tokio::test]
async fn an_app_gets_its_token_through_a_provider() {
    let Some(house) = house().await else { return };
    house.physician();
    house.app.client("app", ClientKind::Public, "openid fhirUser offline_access user/Patient.rs").await;
    let mut browser = Browser::new(&house.app);
    let asked = house.app.authorize("app", "openid fhirUser offline_access user/Patient.rs", &[]);
    let page = browser.open(&asked).await.text();
    let link = page.split_once("href=\"/login/with/clinic").unwrap().1.split('"').next().unwrap();
    let back = house.away(&mut browser, "clinic", &link.replace("&amp;", "&"), "ann", "").await;
    let page = browser.open(&back).await;
    let reply = browser.allow_all(&page).await;
    let code = parameter(reply.header("location"), "code").expect("a code");
    let tokens = house.app.redeem("app", &code).await.json();
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    assert_eq!(house.app.fhir(&token, "Patient").await.status, 200);
    // The app stays for as long as the person is known to come from there.
    let refreshed = house.app.refresh("app", tokens["refresh_token"].as_str().unwrap()).await.json();
    let refresh = refreshed["refresh_token"].as_str().unwrap().to_owned();
    house.app.pass(31 * 86_400);
    let late = house.app.refresh("app", &refresh).await;
    assert!(late.status == 400 && late.text().contains("identity provider"), "{}", late.text());
}

//! Logging in at Keycloak, unchanged and over the wire: groups and attributes of its realms become roles and records, its
//! levels (`acr`) and methods (`amr`) count as second factors, and a logout reaches both sides. `make keycloak` runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::harness::browser::{Browser, agent, between};
use crate::harness::{Data, Engine, Server, free_port};

const VERSION: &str = "26.0.8";
const PASSWORD: &str = "Quiet-Lamp-4711";
const SECRET: &str = "12345678901234567890";
/// It makes itself ready at the first start.
const START_WITHIN: Duration = Duration::from_secs(300);

struct Keycloak {
    child: Child,
    root: String,
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How people come in: with a password and a code, by levels that are asked for or by what a user has.
fn flows(levels: bool) -> Vec<Value> {
    let step = |authenticator: &str, config: Option<&str>, priority: u8| {
        json!({"authenticator": authenticator, "requirement": "REQUIRED", "authenticatorFlow": false,
            "priority": priority, "authenticatorConfig": config})
    };
    let inner = |flow: &str, requirement: &str, priority: u8| json!({"flowAlias": flow, "requirement": requirement, "authenticatorFlow": true, "priority": priority});
    let flow = |alias: &str, top: bool, steps: Vec<Value>| {
        json!({"alias": alias, "providerId": "basic-flow", "topLevel": top, "builtIn": false,
            "authenticationExecutions": steps})
    };
    let mut cookie = step("auth-cookie", None, 1);
    cookie["requirement"] = json!("ALTERNATIVE");
    let password = step("auth-username-password-form", Some("by password"), 20);
    let code = step("auth-otp-form", Some("by code"), 20);
    let level = "conditional-level-of-authentication";
    let mut all = vec![flow("own", true, vec![cookie, inner("own forms", "ALTERNATIVE", 2)])];
    if levels {
        all.push(flow(
            "own forms",
            false,
            vec![inner("level 1", "CONDITIONAL", 1), inner("level 2", "CONDITIONAL", 2)],
        ));
        all.push(flow("level 1", false, vec![step(level, Some("is 1"), 1), password]));
        all.push(flow("level 2", false, vec![step(level, Some("is 2"), 1), code]));
    } else {
        all.push(flow("own forms", false, vec![password, inner("if there is one", "CONDITIONAL", 30)]));
        all.push(flow("if there is one", false, vec![step("conditional-user-configured", None, 1), code]));
    }
    all
}

fn user(name: &str, group: &str, with_code: bool) -> Value {
    let mut credentials = vec![json!({"type": "password", "value": PASSWORD})];
    let data = json!({"subType": "totp", "digits": 6, "period": 30, "counter": 0, "algorithm": "HmacSHA1"});
    if with_code {
        credentials.push(json!({"type": "otp", "secretData": json!({"value": SECRET}).to_string(),
            "credentialData": data.to_string()}));
    }
    json!({"username": name, "enabled": true, "emailVerified": true, "email": format!("{name}@a.example"),
        "firstName": name, "lastName": "Smith", "groups": [group], "attributes": {"npi": ["77"]},
        "credentials": credentials})
}

/// This server as the client of a realm.
fn client(realm: &str, here: &str) -> Value {
    let mapper = |name: &str, kind: &str, mut values: Value| {
        values["id.token.claim"] = json!("true");
        json!({"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": values})
    };
    let group = json!({"claim.name": "groups", "full.path": "false"});
    let npi = json!({"claim.name": "npi", "user.attribute": "npi", "jsonType.label": "String"});
    json!({
        "clientId": "phial", "secret": "a quiet secret of thirty-two bytes", "publicClient": false,
        "protocol": "openid-connect", "standardFlowEnabled": true, "directAccessGrantsEnabled": false,
        "redirectUris": [format!("{here}/login/back/{realm}")],
        "attributes": {
            "pkce.code.challenge.method": "S256", "post.logout.redirect.uris": format!("{here}/login"),
            "backchannel.logout.url": format!("{here}/login/ended/{realm}"),
            "backchannel.logout.session.required": "true",
            "acr.loa.map": json!({"silver": 1, "gold": 2}).to_string(),
        },
        "protocolMappers": [
            mapper("groups", "oidc-group-membership-mapper", group),
            mapper("npi", "oidc-usermodel-attribute-mapper", npi),
            mapper("amr", "oidc-amr-mapper", json!({})),
        ],
    })
}

fn realm(name: &str, here: &str, levels: bool) -> Value {
    let config = |alias: &str, values: Value| json!({"alias": alias, "config": values});
    let method = |name: &str| json!({"default.reference.value": name, "default.reference.maxAge": "3600"});
    json!({
        "realm": name, "enabled": true, "sslRequired": "none",
        "groups": [{"name": "physicians"}, {"name": "nurses"}, {"name": "gardeners"}],
        "users": [user("ann", "physicians", true), user("bob", "nurses", levels), user("eve", "gardeners", true)],
        "authenticationFlows": flows(levels), "browserFlow": "own",
        "authenticatorConfig": [
            config("by password", method("pwd")), config("by code", method("otp")),
            config("is 1", json!({"loa-condition-level": "1", "loa-max-age": "36000"})),
            config("is 2", json!({"loa-condition-level": "2", "loa-max-age": "0"})),
        ],
        "clients": [client(name, here)],
    })
}

impl Keycloak {
    fn start(port: u16, realms: &[Value]) -> Keycloak {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        let home = target.join(format!("keycloak/keycloak-{VERSION}"));
        let _ = fs::remove_dir_all(home.join("data"));
        fs::create_dir_all(home.join("data/import")).unwrap();
        for realm in realms {
            let file = format!("data/import/{}.json", realm["realm"].as_str().unwrap());
            fs::write(home.join(file), realm.to_string()).unwrap();
        }
        let log = fs::File::create(home.join("data/log")).unwrap();
        let child = Command::new(home.join("bin/kc.sh"))
            .args(["start-dev", "--import-realm", "--http-host=127.0.0.1", &format!("--http-port={port}")])
            .env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx600m")
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin")
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("`make keycloak` fetches it");
        let mut keycloak = Keycloak { child, root: format!("http://127.0.0.1:{port}") };
        let (since, probe) = (Instant::now(), agent());
        let ready = format!("{}/realms/clinic/.well-known/openid-configuration", keycloak.root);
        while !probe.get(&ready).call().is_ok_and(|reply| reply.status() == 200) {
            let said = || fs::read_to_string(home.join("data/log")).unwrap_or_default();
            assert!(keycloak.child.try_wait().unwrap().is_none(), "Keycloak ended: {}", said());
            assert!(since.elapsed() < START_WITHIN, "Keycloak does not start: {}", said());
            sleep(Duration::from_millis(500));
        }
        keycloak
    }

    /// Ends what a user has open in the realm, as an administrator of Keycloak does.
    fn ends_sessions_of(&self, realm: &str, name: &str) {
        let agent = agent();
        let form =
            [("client_id", "admin-cli"), ("grant_type", "password"), ("username", "admin"), ("password", PASSWORD)];
        let token = format!("{}/realms/master/protocol/openid-connect/token", self.root);
        let mut reply = agent.post(&token).send_form(form).unwrap();
        let token: Value = serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap();
        let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
        let users = format!("{}/admin/realms/{realm}/users", self.root);
        let mut reply =
            agent.get(format!("{users}?username={name}&exact=true")).header("authorization", &bearer).call().unwrap();
        let found: Value = serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap();
        let id = found[0]["id"].as_str().unwrap();
        let reply = agent.post(format!("{users}/{id}/logout")).header("authorization", &bearer).send_empty().unwrap();
        assert_eq!(reply.status().as_u16(), 204);
    }
}

/// The code that an authenticator app shows now (RFC 6238).
fn code(secret: &[u8]) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &(now / 30).to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let four: [u8; 4] = tag.as_ref()[at..at + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

impl Browser {
    /// Sends the form of Keycloak's page.
    fn send(&mut self, fields: &[(&str, &str)]) {
        let action = between(&self.text, "action=\"", "\"").unwrap_or_else(|| panic!("a form: {}", self.text));
        let action = action.replace("&amp;", "&");
        self.go(&action, Some(fields.to_vec()));
    }

    /// From the login page here to where it ends; a code is typed where Keycloak asks for it.
    fn log_in(&mut self, server: &Server, provider: &str, name: &str) {
        self.go(&format!("{}/login/with/{provider}", here(server)), None);
        assert!(self.text.contains("name=\"password\""), "Keycloak asks: {} {}", self.url, self.text);
        self.send(&[("username", name), ("password", PASSWORD)]);
        if self.text.contains("name=\"otp\"") {
            self.send(&[("otp", &code(SECRET.as_bytes()))]);
        }
    }

    fn is_in(&mut self, server: &Server) -> bool {
        self.go(&format!("{}/account", here(server)), None);
        self.url.ends_with("/account") && self.text.contains("Log out")
    }
}

fn here(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port())
}

/// The page that sets up an authenticator app has this.
const ENROLS: &str = "name=\"step\" value=\"enrol\"";

fn from_base32(text: &str) -> Vec<u8> {
    let value = |c: char| "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(c);
    let (mut bits, mut out) = (String::new(), Vec::new());
    text.chars().filter_map(value).for_each(|five| bits += &format!("{five:05b}"));
    while bits.len() >= 8 {
        out.push(u8::from_str_radix(&bits.drain(..8).collect::<String>(), 2).unwrap());
    }
    out
}

/// `phial admin users remove-factor`: the next login sets up a new one, and what was open has ended.
fn a_second_factor_set_up_here_is_lost_and_forgotten(data: &Data, server: &Server) {
    let has_one = || {
        let listed = data.run(&["admin", "users", "list", "--provider", "region", "--json", "bob"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        (listed[0]["username"].clone(), listed[0]["second_factor"].clone())
    };
    let mut bob = Browser::new();
    bob.log_in(server, "region", "bob");
    let key = between(&bob.text, "class=\"key\">", "<").expect("a key for an app").to_owned();
    bob.submit(&format!("{}/login", here(server)), &[("step", "enrol"), ("code", &code(&from_base32(&key)))]);
    assert!(bob.is_in(server), "{} {}", bob.url, bob.text);
    assert_eq!(has_one(), (json!("bob+region"), json!(true)));
    let ran = data.run(&["admin", "users", "remove-factor", "bob+region", "--json"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let said: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((said, has_one().1), (json!({ "done": "The second factor is forgotten." }), json!(false)));
    assert!(!bob.is_in(server), "what was open has ended");
    let mut bob = Browser::new();
    bob.log_in(server, "region", "bob");
    assert!(bob.text.contains(ENROLS), "{} {}", bob.url, bob.text);
}

#[test]
#[ignore = "make keycloak"]
fn people_of_keycloak_come_in_with_their_roles_and_factors_and_leave_on_both_sides() {
    let data = Data::new(Engine::Sqlite);
    let port = free_port();
    let mut file = String::new();
    for (id, factor) in [
        ("clinic", "{ acr = [\"gold\"], otherwise = \"refused\" }"),
        ("region", "{ amr = [\"otp\"], otherwise = \"here\" }"),
    ] {
        file += &format!(
            "[[provider]]\nid = \"{id}\"\nname = \"{id}\"\nissuer = \"http://127.0.0.1:{port}/realms/{id}\"\n\
             client-id = \"phial\"\nclient-secret-file = \"secret\"\nsecond-factor = {factor}\n\
             [[provider.role]]\nclaim = \"groups\"\nis = \"physicians\"\nrole = \"PROVIDER\"\nfhir-user = \"Practitioner/{{npi}}\"\n\
             [[provider.role]]\nclaim = \"groups\"\nis = \"nurses\"\nrole = \"NURSE\"\n"
        );
    }
    fs::write(data.path("secret"), "a quiet secret of thirty-two bytes\n").unwrap();
    fs::write(data.path("providers.toml"), file).unwrap();
    let server = data.serve_through("PHIAL_IDENTITY_PROVIDERS=providers.toml exec \"$0\" \"$@\"");
    let at = here(&server);
    let keycloak = Keycloak::start(port, &[realm("clinic", &at, true), realm("region", &at, false)]);

    // The level that is asked for (acr_values) makes Keycloak ask for a code.
    let mut ann = Browser::new();
    ann.log_in(&server, "clinic", "ann");
    assert!(ann.is_in(&server), "{} {}", ann.url, ann.text);
    assert!(ann.text.contains("ann+clinic") && ann.text.contains("PROVIDER"), "{}", ann.text);
    // A group that means nothing here.
    let mut eve = Browser::new();
    eve.log_in(&server, "clinic", "eve");
    assert!(eve.status == 403 && eve.text.contains("gives you a role"), "{} {}", eve.status, eve.text);
    assert!(!eve.is_in(&server));
    // Methods: who used a code there is in; who has none there is asked for one here.
    let mut other = Browser::new();
    other.log_in(&server, "region", "ann");
    assert!(other.is_in(&server) && other.text.contains("ann+region"), "{} {}", other.url, other.text);
    let mut bob = Browser::new();
    bob.log_in(&server, "region", "bob");
    assert!(bob.text.contains(ENROLS), "{} {}", bob.url, bob.text);
    assert!(!bob.is_in(&server));
    a_second_factor_set_up_here_is_lost_and_forgotten(&data, &server);

    // Logging out here leads through Keycloak and back; it asks for the password again.
    assert!(ann.is_in(&server));
    let token = between(&ann.text, "name=\"token\" value=\"", "\"").unwrap().to_owned();
    ann.go(&format!("{at}/logout"), Some(vec![("token", &token)]));
    let there = format!("http://127.0.0.1:{port}/realms/clinic/");
    let page = ann.text.replace("&#x2f;", "/").replace("&amp;", "&");
    let rest = between(&page, &format!("href=\"{there}"), "\"").expect("a way to Keycloak's logout");
    let there = format!("{there}{rest}");
    ann.go(&there, None);
    assert!(ann.url.starts_with(&format!("{at}/login")), "back here: {} {}", ann.url, ann.text);
    assert!(!ann.is_in(&server));
    // A code counts once there too: the next one is of the next half minute.
    sleep(Duration::from_secs(31));
    ann.log_in(&server, "clinic", "ann");
    assert!(ann.is_in(&server), "{} {}", ann.url, ann.text);
    assert!(other.is_in(&server));
    // Ended there, it ends here, and at no other realm.
    keycloak.ends_sessions_of("clinic", "ann");
    let since = Instant::now();
    while ann.is_in(&server) {
        assert!(since.elapsed() < Duration::from_secs(10), "the back-channel logout did not arrive");
        sleep(Duration::from_millis(200));
    }
    assert!(other.is_in(&server));
}

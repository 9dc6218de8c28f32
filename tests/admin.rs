//! `phial admin`: what an operator does at the console, as tables and as JSON, and what the audit trail says of it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::demo::{on_data, start_with, wait_ready};
use crate::harness::browser::{Browser, agent, between};
use crate::harness::{Client, Data, Engine, Request, Server, free_port};

/// What a command prints.
fn said(data: &Data, arguments: &[&str]) -> String {
    let all: Vec<&str> = ["admin"].into_iter().chain(arguments.iter().copied()).collect();
    let ran = data.run(&all);
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("text")
}

fn json(data: &Data, arguments: &[&str]) -> Value {
    let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&said(data, &all)).expect("JSON")
}

/// What a command that must fail says.
fn refused(data: &Data, arguments: &[&str]) -> String {
    let all: Vec<&str> = ["admin"].into_iter().chain(arguments.iter().copied()).collect();
    let ran = data.run(&all);
    assert!(!ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stdout));
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

fn text<'j>(of: &'j Value, name: &str) -> &'j str {
    of[name].as_str().unwrap_or_default()
}

#[test]
fn users_are_invited_and_links_taken_back_on_both_databases() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let data = Data::untouched(engine);
        let made = json(&data, &["users", "invite", "--role", "nurse", "--note", "for Ann"]);
        assert!(text(&made, "link").contains("/invitation?code="), "{made}");
        let open = json(&data, &["invitations", "list"]);
        assert_eq!((open[0]["id"].clone(), text(&open[0], "note")), (made["id"].clone(), "for Ann"));
        assert!(!open.to_string().contains("code="), "a link is shown once");
        said(&data, &["invitations", "revoke", text(&made, "id")]);
        assert_eq!(said(&data, &["invitations", "list"]), "None.\n");
        assert!(refused(&data, &["users", "invite", "--role", "patient"]).contains("tied to their record"));
        assert!(refused(&data, &["users", "disable", "nobody"]).contains("no such user"));
    }
}

#[test]
fn clients_keys_and_their_changes_are_seen_by_the_server_and_are_on_record() {
    let data = Data::untouched(Engine::Sqlite);
    data.register();
    let server = data.serve();
    let scopes = ["--scopes", "system/Patient.rs"];
    let add = ["clients", "add", "--kind", "confidential-symmetric", "--id", "desk", "--name", "Desk"];
    let added = json(&data, &[&add[..], &scopes[..]].concat());
    let mut asker = server.client.clone();
    asker.token = None;
    let token = |secret: &str| {
        let form =
            format!("grant_type=client_credentials&client_id=desk&client_secret={secret}&scope=system%2FPatient.rs");
        let headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        let request = Request { method: "POST", path: "/oauth/token", body: Some(form.as_bytes()), headers };
        asker.send(&request).expect("an answer").status
    };
    let first = text(&added, "client_secret");
    assert_eq!(token(first), 200);
    let rotated = json(&data, &["clients", "rotate-secret", "desk"]);
    let second = text(&rotated, "client_secret");
    assert_eq!((token(first), token(second)), (401, 200));
    said(&data, &["clients", "disable", "desk"]);
    assert_eq!(token(second), 401);
    assert!(
        said(&data, &["clients", "list"]).lines().any(|line| line.starts_with("desk") && line.contains("disabled"))
    );
    said(&data, &["clients", "enable", "desk"]);
    assert_eq!(token(second), 200);
    said(&data, &["clients", "remove", "desk"]);
    assert_eq!(token(second), 401);
    assert!(refused(&data, &["clients", "rotate-secret", "desk"]).contains("no such client"));

    let before = json(&data, &["keys", "list"]);
    said(&data, &["keys", "rotate"]);
    let after = json(&data, &["keys", "list"]);
    let signs = |keys: &Value| keys.as_array().unwrap().iter().filter(|key| key["signs"] == true).count();
    assert_eq!((signs(&before), signs(&after), after.as_array().unwrap().len()), (2, 2, 4));
    assert_ne!(before[0]["kid"], after[2]["kid"]);
    assert_eq!(json(&data, &["keys", "vault"])["all_open"], true);

    let events = server.client.get("/fhir/AuditEvent?_count=1000").expect("an answer").text();
    let operator = "\"type\":\"operator\",\"valueString\":";
    assert_eq!(events.matches(operator).count(), 7, "each act names the operator");
    assert!(!events.contains(first) && !events.contains(second), "no secret is on record");
    assert!(server.terminate().success());
}

#[test]
fn keys_are_wrapped_anew_and_a_patient_is_erased_beside_a_running_server() {
    let data = Data::untouched(Engine::Sqlite);
    data.register();
    let server = data.serve();
    for id in ["eve", "adam"] {
        let body = format!(r#"{{"resourceType":"Patient","id":"{id}","name":[{{"family":"{id}"}}]}}"#);
        let headers = vec![("Content-Type", "application/fhir+json")];
        let path = format!("/fhir/Patient/{id}");
        let request = Request { method: "PUT", path: &path, body: Some(body.as_bytes()), headers };
        assert_eq!(server.client.send(&request).expect("an answer").status, 201);
    }
    let status = |id: &str| server.client.get(&format!("/fhir/Patient/{id}")).expect("an answer").status;
    assert!(said(&data, &["keys", "rotate-vault"]).contains("Epoch 2"));
    assert_eq!((status("eve"), status("adam")), (200, 200));

    let plan = json(&data, &["patients", "erase", "eve"]);
    assert_eq!((&plan["resources"], &plan["erased"]), (&1.into(), &false.into()));
    assert!(refused(&data, &["patients", "erase", "eve", "--confirm", "adam"]).contains("nothing was erased"));
    assert!(refused(&data, &["patients", "erase", "nobody"]).contains("nothing here"));
    assert_eq!(status("eve"), 200);
    said(&data, &["patients", "erase", "eve", "--confirm", "eve"]);
    assert_eq!((status("eve"), status("adam")), (404, 200), "the running server sees it at once");
    let found = server.client.get("/fhir/Patient?family=eve&_total=accurate").expect("an answer").json();
    assert_eq!(found["total"], 0);
    let events = server.client.get("/fhir/AuditEvent?patient=eve&_count=100").expect("an answer").text();
    assert!(events.contains("patient-erased") && events.contains("\"operator\""), "{events}");
    assert!(data.run(&["audit", "verify"]).status.success());
    assert!(server.terminate().success());
}

/// An app of somebody's that registers itself, with these members in place of the usual ones.
fn registers(server: &Server, own: Option<(&str, &str)>, with: &Value) -> Value {
    let mut metadata = json!({
        "client_name": "Growth chart", "redirect_uris": ["https://app.example/cb"],
        "token_endpoint_auth_method": "none", "scope": "launch/patient patient/*.rs",
    });
    for (name, value) in with.as_object().unwrap() {
        metadata[name] = value.clone();
    }
    let mut client = server.client.clone();
    client.token = own.map(|(_, token)| token.to_owned());
    let path = own.map_or_else(|| "/oauth/register".to_owned(), |(id, _)| format!("/oauth/register/{id}"));
    let body = metadata.to_string();
    let method = if own.is_some() { "PUT" } else { "POST" };
    let headers = vec![("Content-Type", "application/json")];
    let reply = client.send(&Request { method, path: &path, body: Some(body.as_bytes()), headers }).unwrap();
    assert!(reply.status < 300, "{}", reply.text());
    reply.json()
}

#[test]
fn what_an_app_would_change_of_its_registration_is_listed_with_what_counts() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve_through("PHIAL_CLIENT_REGISTRATION=open exec \"$0\" \"$@\"");
    let answer = registers(&server, None, &json!({}));
    let (id, token) = (text(&answer, "client_id"), text(&answer, "registration_access_token"));
    let waiting = json(&data, &["clients", "pending"]);
    assert_eq!((text(&waiting[0], "client_id"), text(&waiting[0], "status")), (id, "new"));
    let asked = waiting[0]["changes"].as_array().unwrap();
    assert!(asked.iter().any(|one| one["what"] == "redirect_uris" && !one["new"][0].is_null()), "{waiting}");
    // Approved is what was looked at, not what the app asks for meanwhile.
    let first = text(&waiting[0], "seen").to_owned();
    let other =
        json!({ "client_id": id, "client_name": "Growth chart", "redirect_uris": ["https://elsewhere.example/cb"] });
    registers(&server, Some((id, token)), &other);
    assert!(refused(&data, &["clients", "approve", id, "--seen", &first]).contains("something else by now"));
    registers(&server, Some((id, token)), &json!({ "client_id": id }));
    said(&data, &["clients", "approve", id]);
    let asked = json!({
        "client_id": id, "client_name": "Your hospital", "scope": "launch/patient patient/*.cruds",
        "token_endpoint_auth_method": "client_secret_basic",
    });
    registers(&server, Some((id, token)), &asked);
    let waiting = json(&data, &["clients", "pending"]);
    let changes = json!([
        { "what": "name", "old": ["Growth chart"], "new": ["Your hospital"] },
        { "what": "kind", "old": ["public"], "new": ["confidential-symmetric"] },
        { "what": "scopes", "old": ["launch/patient", "patient/*.rs"], "new": ["launch/patient", "patient/*.cruds"] },
        { "what": "secret", "old": [], "new": ["a new one"] },
    ]);
    assert_eq!((waiting.as_array().unwrap().len(), &waiting[0]["changes"]), (1, &changes));
    let table = said(&data, &["clients", "pending"]);
    assert!(table.contains("what: name, old: Growth chart, new: Your hospital; what: kind"), "{table}");
    said(&data, &["clients", "approve", id]);
    assert_eq!(said(&data, &["clients", "pending"]), "None.\n");
}

const REASON: &str = "Brought in unconscious, allergies unknown";

/// Emergency access of a demonstration's provider to its patient, with a read under it: the id of the review, the patient.
fn broken_glass(demo: &Value, data: &Path) -> (String, String) {
    let is_other = |one: &&Value| one["kind"] == "public" && one["name"] != "Patient summary";
    let client = demo["clients"].as_array().unwrap().iter().find(is_other).unwrap();
    let (issuer, client, back) =
        (text(demo, "issuer"), text(client, "client_id"), client["redirect_uris"][0].as_str().unwrap());
    let mut browser = Browser::new();
    browser.go(
        &format!(
            "{issuer}/oauth/authorize?response_type=code&client_id={client}&redirect_uri={back}&scope=user/*.rs&state=s\
             &aud={}&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
            text(demo, "base_url")
        ),
        None,
    );
    let users = demo["users"].as_array().unwrap();
    let one = |name: &str| users.iter().find(|user| user["username"] == name).unwrap();
    let login = format!("{issuer}/login");
    let password = text(one("provider"), "password");
    browser.submit(&login, &[("step", "login"), ("username", "provider"), ("password", password)]);
    let typed = on_data(data, &["demo-login", "--data", data.to_str().unwrap(), "provider"]);
    let typed = String::from_utf8(typed.stdout).unwrap();
    let code = between(&typed, "code       ", " ").unwrap();
    browser.submit(&login, &[("step", "factor"), ("code", code)]);
    browser.submit(&format!("{issuer}/oauth/decide"), &[("decision", "allow"), ("s0", "all")]);
    let code = between(&browser.url, "code=", "&").unwrap_or_else(|| panic!("{} {}", browser.url, browser.text));
    let post = |form: &[(&str, &str)]| -> Value {
        let mut reply = agent().post(format!("{issuer}/oauth/token")).send_form(form.iter().copied()).unwrap();
        serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap()
    };
    let own = post(&[
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("redirect_uri", back),
        ("code", code),
        ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
    ]);
    let patient = text(one("patient"), "fhirUser").to_owned();
    let given = post(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("client_id", client),
        ("subject_token", text(&own, "access_token")),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("patient", patient.strip_prefix("Patient/").unwrap()),
        ("purpose", "ETREAT"),
        ("reason", REASON),
    ]);
    let review = text(&given, "review").strip_prefix("Task/").unwrap_or_else(|| panic!("{own} {given}")).to_owned();
    let mut client = Client::new(issuer);
    client.token = Some(text(&given, "access_token").to_owned());
    assert_eq!(client.get(&format!("/fhir/{patient}")).unwrap().status, 200);
    (review, patient)
}

#[test]
fn emergency_accesses_are_reviewed_and_second_factors_forgotten_at_the_console() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("demo");
    let port = free_port();
    let _server = start_with(&data, port, &[]);
    wait_ready(&Client::new(&format!("http://127.0.0.1:{port}")));
    let demo: Value = serde_json::from_slice(&fs::read(data.join("demo.json")).unwrap()).unwrap();
    let admin = |arguments: &[&str]| {
        let ran = on_data(&data, &[&["admin", "--json"], arguments].concat());
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        serde_json::from_slice::<Value>(&ran.stdout).map_err(|_| said)
    };
    assert_eq!(admin(&["reviews", "list"]), Ok(json!([])));
    let (id, patient) = broken_glass(&demo, &data);

    let open = admin(&["reviews", "list"]).unwrap();
    assert_eq!(open.as_array().unwrap().len(), 1);
    let (row, told) = (&open[0], ["id", "username", "role", "purpose"].map(|name| text(&open[0], name)));
    assert_eq!((told, &row["finding"]), ([id.as_str(), "provider", "PROVIDER", "ETREAT"], &Value::Null));
    assert!(!open.to_string().contains(REASON) && !open.to_string().contains(&patient), "a list tells nothing of whom");
    let shown = admin(&["reviews", "show", &id]).unwrap();
    assert_eq!((text(&shown, "patient"), text(&shown, "reason")), (patient.as_str(), REASON), "{shown:#}");
    let read = json!({ "what": "read", "refused": false, "of": [patient] });
    let accesses = shown["accesses"].as_array().unwrap();
    assert!(
        accesses.iter().any(|one| read.as_object().unwrap().iter().all(|(name, value)| one[name] == *value)),
        "{shown:#}"
    );
    assert!(admin(&["reviews", "show", "nobody"]).unwrap_err().contains("no such review"));

    let close = |id: &str, note: &str| admin(&["reviews", "close", id, "--finding", "not-justified", "--note", note]);
    assert!(close(&id, "fine").unwrap_err().contains("10 to 2,000 characters"));
    assert!(close("nobody", "The ward knows nothing of it.").unwrap_err().contains("no such review"));
    assert_eq!(admin(&["reviews", "list"]), Ok(open.clone()), "it is still open");
    close(&id, "The ward knows nothing of it.").unwrap();
    assert!(close(&id, "The ward knows nothing of it.").unwrap_err().contains("closed already"));
    assert_eq!(admin(&["reviews", "list"]), Ok(json!([])));
    let closed = admin(&["reviews", "list", "--closed"]).unwrap();
    assert_eq!((text(&closed[0], "id"), text(&closed[0], "finding")), (id.as_str(), "not-justified"));
    assert!(!text(&closed[0], "closed_by").is_empty());
    assert_eq!(text(&admin(&["reviews", "show", &id]).unwrap(), "note"), "The ward knows nothing of it.");

    // Of who has a password here the factor alone cannot be taken (of others: `make keycloak`).
    let has_one = || admin(&["users", "list", "nurse"]).unwrap()[0]["second_factor"].clone();
    assert!(admin(&["users", "remove-factor", "nurse"]).unwrap_err().contains("has a password here"));
    assert!(admin(&["users", "remove-factor", "nobody"]).unwrap_err().contains("no such user"));
    assert_eq!(has_one(), true);
}

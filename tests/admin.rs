//! `phial admin`: what an operator does at the console, as tables and as JSON, and what the audit trail says of it.

use serde_json::Value;

use crate::harness::{Data, Engine, Request};

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

//! A part of an installation that is missing, or belongs to another one: nothing starts, nothing is made in its place,
//! and the message says what has to be restored. With the parts in their places again everything is as it was.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{Data, Engine};

fn rename(data: &Data, from: &str, to: &str) {
    fs::rename(data.path(from), data.path(to)).unwrap();
}

/// Every command that would read or write is refused, with this word in what it says.
fn refused(data: &Data, word: &str) {
    let file = data.path("one.json");
    fs::write(&file, json!({"resourceType": "Patient", "id": "later"}).to_string()).unwrap();
    let import = ["import", file.to_str().unwrap()];
    let commands: [&[&str]; 6] = [
        &["serve"],
        &import,
        &["doctor"],
        &["audit", "verify"],
        &["admin", "clients", "add", "--scopes", "system/*.rs"],
        &["admin", "keys", "rotate-vault"],
    ];
    for command in commands {
        let done = data.run(command);
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(!done.status.success() && said.contains(word), "{command:?}: {said}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_missing_or_of_another_installation_stops_everything() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let patient = json!({"resourceType": "Patient", "id": "kept", "birthDate": "1970-01-31"});
    assert_eq!(server.client.put_json("/fhir/Patient/kept", &patient).unwrap().status, 201);
    assert!(server.terminate().success());
    assert!(!data.path("keys.db-wal").exists(), "who copies keys.db of a stopped server has all keys");

    rename(&data, "keys.db", "keys.away");
    let before = names(data.dir.path());
    refused(&data, "key_database_url");
    rename(&data, "keyring", "keyring.away");
    refused(&data, "key_database_url");
    rename(&data, "keys.away", "keys.db");
    refused(&data, "setting keyring");
    rename(&data, "keyring.away", "keyring");
    rename(&data, "keys.db", "keys.away");
    let mut after = names(data.dir.path());
    after.retain(|name| name != "one.json");
    assert_eq!(after, before, "nothing was made");

    let other = Data::new(Engine::Sqlite);
    for name in ["keys.db", "keyring"] {
        fs::copy(data.path(if name == "keyring" { name } else { "keys.away" }), data.path("mine")).unwrap();
        rename(&data, "mine", &format!("{name}.mine"));
        fs::copy(other.path(name), data.path(name)).unwrap();
    }
    refused(&data, "key_database_url");

    for name in ["keys.db", "keyring"] {
        rename(&data, &format!("{name}.mine"), name);
    }
    let server = data.serve();
    assert_eq!(server.client.get("/fhir/Patient/kept").unwrap().json()["birthDate"], "1970-01-31");
    assert_eq!(server.client.get("/fhir/Patient/later").unwrap().status, 404);
    assert!(server.terminate().success());
    assert!(data.run(&["audit", "verify"]).status.success());
}

#[test]
fn a_database_that_cannot_be_used_is_named_by_its_setting() {
    for (name, setting) in [("phial.db", "setting database_url"), ("keys.db", "setting key_database_url")] {
        let data = Data::untouched(Engine::Sqlite);
        fs::write(data.path(name), "this is no database, however long it may be").unwrap();
        let done = data.run(&["serve"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(setting) && said.contains("not a database"), "{said}");
    }
}

/// Each row that somebody altered behind the server's back is named, the ones beside the records too.
fn doctor_names_what_was_altered(engine: Engine) {
    let data = Data::new(engine);
    let server = data.serve();
    let patient = json!({"resourceType": "Patient", "id": "p1", "birthDate": "1970-01-31"});
    assert_eq!(server.client.put_json("/fhir/Patient/p1", &patient).unwrap().status, 201);
    assert!(server.terminate().success());
    let doctor = || {
        let done = data.run(&["doctor", "--index"]);
        (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    let (healthy, said) = doctor();
    assert!(healthy && said.contains("ok    index") && said.contains("ok    clients, users and sessions"), "{said}");
    for (sql, word) in [
        (
            "update kv set sealed = (select k.sealed from kv k where k.space = 'oauth-signing-key') \
             where space = 'oauth-client'",
            "oauth-client ",
        ),
        ("delete from version_log", "missing in the log"),
        ("delete from claim", "could be given again"),
        ("update patient set ver = 9", "the domain row"),
        ("delete from compartment", "the compartment is gone"),
    ] {
        data.sql(sql);
        let (healthy, said) = doctor();
        assert!(!healthy && said.contains(word), "{sql}: {said}");
    }
}

#[test]
fn doctor_names_what_was_altered_on_sqlite() {
    doctor_names_what_was_altered(Engine::Sqlite);
}

#[test]
fn doctor_names_what_was_altered_on_postgres() {
    doctor_names_what_was_altered(Engine::Postgres);
}

//! No content leaves without a durable audit entry, and no write is kept without one: with an audit table that takes
//! nothing any more every request is answered with 503, whether the database refuses the row, or the disk is full.
//! Service resumes by itself when the fault is lifted. What is refused is on record as well.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Reply, Request, Server};

/// In every resource here, and in no message of the server's own.
const MARK: &str = "Quicksilver";

fn patient(id: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "name": [{"family": MARK}], "birthDate": "1970-01-31"})
}

fn send(client: &Client, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Reply {
    let body = body.map(Value::to_string);
    let mut all = vec![("Accept", "application/fhir+json")];
    if body.is_some() {
        all.push(("Content-Type", "application/fhir+json"));
    }
    all.extend(headers);
    client.send(&Request { method, path, body: body.as_deref().map(str::as_bytes), headers: all }).expect("an answer")
}

/// Requests that would give content, or change it.
fn everything_is_withheld(client: &Client, what: &str) {
    let search = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": "Patient/kept"}},
        {"request": {"method": "GET", "url": format!("Patient?family={MARK}")}},
    ]});
    let write = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"request": {"method": "PUT", "url": "Patient/lost"}, "resource": patient("lost")},
        {"request": {"method": "DELETE", "url": "Patient/kept"}},
    ]});
    let mut changed = patient("kept");
    changed["birthDate"] = json!("1999-09-09");
    let family = format!("/fhir/Patient?family={MARK}");
    let cases: [(&str, &str, Option<Value>); 12] = [
        ("GET", "/fhir/Patient/kept", None),
        ("HEAD", "/fhir/Patient/kept", None),
        ("GET", "/fhir/Patient/kept/_history/1", None),
        ("GET", "/fhir/Patient/kept/_history", None),
        ("GET", &family, None),
        ("GET", "/fhir/Patient?family=nobody", None),
        ("GET", "/fhir/Patient/unknown", None),
        ("GET", "/fhir/AuditEvent", None),
        ("PUT", "/fhir/Patient/kept", Some(changed)),
        ("POST", "/fhir/Patient", Some(patient("lost"))),
        ("DELETE", "/fhir/Patient/kept", None),
        ("POST", "/fhir", Some(write)),
    ];
    for (method, path, body) in &cases {
        let reply = send(client, method, path, &[], body.as_ref());
        assert_eq!(reply.status, 503, "{what}: {method} {path}: {}", reply.text());
        assert!(!reply.text().contains(MARK), "{what}: {method} {path}: {}", reply.text());
        assert_eq!((reply.header("etag"), reply.header("location")), (None, None), "{what}: {method} {path}");
    }
    // The answer to a batch is one for each entry.
    let reply = send(client, "POST", "/fhir", &[], Some(&search));
    assert!(!reply.text().contains("birthDate"), "{what}: {}", reply.text());
    if reply.status != 503 {
        for entry in reply.json()["entry"].as_array().expect("entries") {
            assert!(entry["response"]["status"].as_str().is_some_and(|s| s.starts_with("503")), "{what}: {entry}");
        }
    }
}

/// On SQLite accesses are durable in the journal; once they cannot be moved from there, no more of them are answered.
fn until_withheld(client: &Client) {
    let started = std::time::Instant::now();
    while send(client, "GET", "/fhir/Patient/kept", &[], None).status == 200 {
        assert!(started.elapsed().as_secs() < 5, "it answers on entries that the database does not take");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The state is that of before, everything works, and the audit is whole.
fn service_resumes(client: &Client, what: &str) {
    let kept = send(client, "GET", "/fhir/Patient/kept", &[], None);
    assert_eq!((kept.status, &kept.json()["birthDate"]), (200, &json!("1970-01-31")), "{what}");
    assert_eq!(kept.header("etag"), Some("W/\"1\""), "{what}");
    assert_eq!(send(client, "GET", "/fhir/Patient/lost", &[], None).status, 404, "{what}");
    let all = send(client, "GET", &format!("/fhir/Patient?family={MARK}&_total=accurate"), &[], None);
    assert_eq!(all.json()["total"], 1, "{what}: {}", all.text());
    assert_eq!(send(client, "PUT", "/fhir/Patient/later", &[], Some(&patient("later"))).status, 201, "{what}");
    assert_eq!(send(client, "DELETE", "/fhir/Patient/later", &[], None).status, 204, "{what}");
}

fn verified(data: &Data, server: Server) {
    assert!(server.terminate().success());
    let done = data.run(&["audit", "verify"]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

fn started(engine: Engine) -> (Data, Server) {
    let data = Data::new(engine);
    let server = data.serve();
    assert_eq!(send(&server.client, "PUT", "/fhir/Patient/kept", &[], Some(&patient("kept"))).status, 201);
    (data, server)
}

#[test]
fn without_an_audit_entry_nothing_is_let_out_on_sqlite() {
    let (data, server) = started(Engine::Sqlite);
    // Once before anything else was audited on this connection's statements, and once more after it worked again.
    for round in 0..2 {
        data.sql("create trigger refuse before insert on audit begin select raise(abort, 'refused'); end");
        until_withheld(&server.client);
        everything_is_withheld(&server.client, &format!("refused rows, round {round}"));
        data.sql("drop trigger refuse");
        service_resumes_after_round(&server.client, round);
    }
    verified(&data, server);
}

#[test]
fn without_an_audit_entry_nothing_is_let_out_on_postgres() {
    let (data, server) = started(Engine::Postgres);
    data.sql("create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$");
    data.sql("create trigger refuse before insert on audit for each row execute function refuse()");
    everything_is_withheld(&server.client, "refused rows");
    data.sql("drop trigger refuse on audit");
    service_resumes(&server.client, "refused rows");
    data.sql("alter table audit rename to gone");
    everything_is_withheld(&server.client, "no table");
    data.sql("alter table gone rename to audit");
    let kept = send(&server.client, "GET", "/fhir/Patient/kept", &[], None);
    assert_eq!((kept.status, kept.header("etag")), (200, Some("W/\"1\"")));
    verified(&data, server);
}

fn service_resumes_after_round(client: &Client, round: usize) {
    match round {
        0 => service_resumes(client, "first round"),
        _ => {
            let kept = send(client, "GET", "/fhir/Patient/kept", &[], None);
            assert_eq!((kept.status, kept.header("etag")), (200, Some("W/\"1\"")));
            assert_eq!(send(client, "GET", "/fhir/Patient/lost", &[], None).status, 404);
        }
    }
}

/// A full disk: the process may not make any file longer (the limit of the kernel, put on from outside and lifted
/// again).
#[test]
fn a_full_disk_lets_nothing_out() {
    let data = Data::new(Engine::Sqlite);
    // The signal that comes with the limit would end the process; a full disk sends none.
    // Its log goes nowhere: it is not what is tested.
    let server = data.serve_through("trap '' XFSZ; exec \"$0\" \"$@\" >/dev/null 2>&1");
    assert_eq!(send(&server.client, "PUT", "/fhir/Patient/kept", &[], Some(&patient("kept"))).status, 201);
    let limit = |bytes: &str| {
        let set =
            Command::new("prlimit").args([format!("--pid={}", server.pid()), format!("--fsize={bytes}:")]).status();
        assert!(set.expect("prlimit is there").success());
    };
    limit("1");
    everything_is_withheld(&server.client, "full disk");
    limit("unlimited");
    service_resumes(&server.client, "full disk");
    verified(&data, server);
}

#[test]
fn refusals_are_found_by_search() {
    let (_data, server) = started(Engine::Sqlite);
    let client = &server.client;
    let mut stranger = client.clone();
    stranger.token = Some("nonsense".into());
    let mut narrow = client.clone();
    narrow.token = Some(_data.token_for("system/Observation.rs", server.port()));
    let mut malformed = patient("kept");
    malformed["birthDate"] = json!("yesterday");
    type Case<'a> = (&'a str, &'a Client, &'a str, &'a str, &'a [(&'a str, &'a str)], Option<Value>, u16);
    let cases: [Case<'_>; 8] = [
        ("r-401", &stranger, "GET", "/fhir/Patient/kept", &[], None, 401),
        ("r-403", &narrow, "GET", "/fhir/Patient/kept", &[], None, 403),
        ("r-403s", &narrow, "GET", "/fhir/Patient?family=x", &[], None, 403),
        ("r-403w", &narrow, "PUT", "/fhir/Patient/kept", &[], Some(patient("kept")), 403),
        ("r-404", client, "GET", "/fhir/Patient/unknown", &[], None, 404),
        ("r-400", client, "GET", "/fhir/Patient?colour=red", &[], None, 400),
        ("r-400w", client, "PUT", "/fhir/Patient/kept", &[], Some(malformed), 400),
        ("r-412", client, "PUT", "/fhir/Patient/kept", &[("If-Match", "W/\"7\"")], Some(patient("kept")), 412),
    ];
    for (request, by, method, path, headers, body, status) in &cases {
        let headers: Vec<_> = headers.iter().copied().chain([("X-Request-Id", *request)]).collect();
        let reply = send(by, method, path, &headers, body.as_ref());
        // What the content of a resource violates may be said by 422 as well.
        assert!(reply.status == *status || (*status == 400 && reply.status == 422), "{request}: {}", reply.text());
    }
    let mut found = Vec::new();
    for outcome in ["4", "8"] {
        let reply = send(client, "GET", &format!("/fhir/AuditEvent?outcome={outcome}&_count=1000"), &[], None);
        assert_eq!(reply.status, 200, "{}", reply.text());
        for entry in reply.json()["entry"].as_array().into_iter().flatten() {
            assert_eq!(entry["resource"]["outcome"], outcome);
            let entities = entry["resource"]["entity"].as_array().into_iter().flatten();
            found.extend(entities.filter_map(|e| e["what"]["identifier"]["value"].as_str()).map(str::to_owned));
        }
    }
    for (request, ..) in &cases {
        assert_eq!(found.iter().filter(|one| one == request).count(), 1, "{request} in {found:?}");
    }
    assert_eq!(send(client, "GET", "/fhir/Patient/kept", &[], None).header("etag"), Some("W/\"1\""));
}

/// That somebody has no such findings, or how many, is told of a patient too.
#[test]
fn a_search_is_on_the_record_of_the_patient_it_names_whatever_it_finds() {
    let (_data, server) = started(Engine::Sqlite);
    let client = &server.client;
    let searches = [
        ("s-none", "Observation?patient=kept"),
        ("s-typed", "Condition?subject=Patient/kept"),
        ("s-count", "Encounter?patient=kept&_summary=count"),
        ("s-id", "Patient?_id=kept&_summary=count"),
    ];
    for (request, search) in searches {
        let reply = send(client, "GET", &format!("/fhir/{search}"), &[("X-Request-Id", request)], None);
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let of = |patient: &str| {
        send(client, "GET", &format!("/fhir/AuditEvent?patient={patient}&_count=100"), &[], None).text()
    };
    let found = of("kept");
    for (request, search) in searches {
        assert!(found.contains(&format!("\"{request}\"")), "{search}");
    }
    assert!(!of("other").contains("s-none"));
}

//! Several processes on one database are one server: tokens, used assertions, uniqueness, versions and drawn numbers
//! hold across them, and they may all meet a database that is not there yet.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Reply, Request, Server};

fn pair(data: &Data) -> (Server, Server) {
    let (one, mut two) = (data.serve(), data.serve_beside());
    two.client.token = one.client.token.clone();
    (one, two)
}

/// The same at both, at once.
fn both<T: Send>(one: &Client, two: &Client, act: impl Fn(&Client) -> T + Sync) -> [T; 2] {
    thread::scope(|scope| {
        let other = scope.spawn(|| act(two));
        [act(one), other.join().expect("no panic")]
    })
}

fn statuses(replies: &[Reply; 2]) -> [u16; 2] {
    let mut statuses = [replies[0].status, replies[1].status];
    statuses.sort_unstable();
    statuses
}

fn put(client: &Client, resource: &Value, headers: &[(&str, &str)]) -> Reply {
    let path = format!("/fhir/Patient/{}", resource["id"].as_str().expect("an id"));
    let body = resource.to_string();
    let mut all = vec![("Content-Type", "application/fhir+json"), ("Accept", "application/fhir+json")];
    all.extend(headers);
    let request = Request { method: "PUT", path: &path, body: Some(body.as_bytes()), headers: all };
    client.send(&request).expect("an answer")
}

#[test]
fn writes_race_as_at_one_server() {
    let data = Data::new(Engine::Postgres);
    let (one, two) = pair(&data);
    let (one, two) = (&one.client, &two.client);
    for n in 0..8 {
        let resource = json!({"resourceType": "Patient", "id": format!("race{n}"), "name": [{"family": "Raced"}]});
        let made = both(one, two, |client| put(client, &resource, &[]));
        let made = statuses(&made);
        assert!(made == [200, 201] || made[0] == 201 && matches!(made[1], 409 | 412), "{made:?}");
        let found = two.get("/fhir/Patient?family=raced&_total=accurate").expect("an answer").json();
        assert_eq!(found["total"], n + 1);
        // Each version has one successor.
        for _ in 0..4 {
            let now = one.get(&format!("/fhir/Patient/race{n}")).expect("an answer");
            let tag = now.header("etag").expect("a version").to_owned();
            let replies = both(one, two, |client| put(client, &resource, &[("If-Match", &tag)]));
            let [won, lost] = statuses(&replies);
            assert!(won == 200 && matches!(lost, 409 | 412), "{won} {lost}");
        }
    }
}

#[test]
fn numbers_of_patients_never_meet() {
    let data = Data::new(Engine::Postgres);
    let (one, two) = pair(&data);
    let (one, two) = (&one.client, &two.client);
    let nameless = json!({"resourceType": "Patient", "name": [{"family": "Numbered"}]});
    let create = |client: &Client, resource: &Value| client.post_json("/fhir/Patient", resource).expect("an answer");
    let drawn = both(one, two, |client| {
        let numbers = (0..20).map(|_| {
            let reply = create(client, &nameless);
            assert_eq!(reply.status, 201, "{}", reply.text());
            let at = reply.header("location").expect("an address").split("/fhir/").nth(1).expect("a path").to_owned();
            let back = client.get(&format!("/fhir/{at}")).expect("an answer").json();
            back["identifier"][0].clone()
        });
        numbers.collect::<Vec<_>>()
    });
    let distinct: BTreeSet<String> = drawn.iter().flatten().map(|number| number["value"].to_string()).collect();
    assert_eq!(distinct.len(), 40, "{drawn:?}");
    // A number that is asked for is given once, and not drawn later.
    for n in 0..5 {
        let mut number = drawn[0][0].clone();
        number["value"] = json!(format!("MRN9{n:05}"));
        let resource = json!({"resourceType": "Patient", "identifier": [number], "name": [{"family": "Asked"}]});
        let made = both(one, two, |client| create(client, &resource));
        let made = statuses(&made);
        assert!(made[0] == 201 && (400..500).contains(&made[1]), "{made:?}");
    }
    let found = one.get("/fhir/Patient?family=asked&_total=accurate").expect("an answer").json();
    assert_eq!(found["total"], 5);
}

/// What `phial token` sends: the form with its assertion.
fn captured(data: &Data) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/oauth/token", listener.local_addr().expect("an address"));
    let file = data.client_file().to_str().expect("a path in UTF-8").to_owned();
    let mut command = data.command(&["token", &file, "--token-url", &url]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let (mut stream, _) = listener.accept().expect("it asks");
    let mut text = String::new();
    let mut chunk = [0u8; 8192];
    while !text.contains("client_assertion=") || !complete(&text) {
        let read = stream.read(&mut chunk).expect("it sends");
        assert!(read > 0, "the request ends early: {} bytes", text.len());
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    let refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(refused).expect("it listens");
    drop(stream);
    child.wait().expect("it ends");
    text.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

fn complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    length.and_then(|length| length.trim().parse::<usize>().ok()).is_some_and(|length| body.len() >= length)
}

#[test]
fn tokens_hold_at_both_and_an_assertion_is_taken_once() {
    let data = Data::new(Engine::Postgres);
    let (one, two) = pair(&data);
    let ask = |server: &Server, form: &str| {
        let headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        let mut client = server.client.clone();
        client.token = None;
        let request = Request { method: "POST", path: "/oauth/token", body: Some(form.as_bytes()), headers };
        client.send(&request).expect("an answer")
    };
    for (first, second) in [(&one, &two), (&two, &one)] {
        let form = captured(&data);
        let given = ask(first, &form);
        assert_eq!(given.status, 200, "{}", given.text());
        let mut other = second.client.clone();
        other.token = given.json()["access_token"].as_str().map(str::to_owned);
        assert_eq!(other.get("/fhir/Patient").expect("an answer").status, 200);
        for server in [second, first] {
            let again = ask(server, &form);
            assert!(matches!(again.status, 400 | 401), "{} {}", again.status, again.text());
            assert_eq!(again.json()["error"], "invalid_client", "{}", again.text());
        }
    }
}

fn all_come_up(engine: Engine) {
    let data = Data::untouched(engine);
    let starters: Vec<_> = (0..4)
        .map(|_| {
            let mut command = data.command(&["admin", "clients", "add", "--json", "--scopes", "system/Patient.rs"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
        })
        .collect();
    for starter in starters {
        let done = starter.wait_with_output().expect("it ends");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    data.register();
    let server = data.serve();
    let patient = json!({"resourceType": "Patient", "id": "p1", "name": [{"family": "First"}]});
    assert_eq!(put(&server.client, &patient, &[]).status, 201);
    assert!(server.terminate().success());
}

#[test]
fn processes_that_meet_a_new_database_all_come_up_on_sqlite() {
    all_come_up(Engine::Sqlite);
}

#[test]
fn processes_that_meet_a_new_database_all_come_up_on_postgres() {
    all_come_up(Engine::Postgres);
}

#[test]
fn what_is_erased_is_gone_at_the_other_server_within_seconds() {
    let data = Data::new(Engine::Postgres);
    let (one, two) = pair(&data);
    for id in ["eve", "adam"] {
        let patient = json!({"resourceType": "Patient", "id": id, "name": [{"family": id}]});
        assert_eq!(put(&one.client, &patient, &[]).status, 201);
        let observation = json!({"resourceType": "Observation", "id": format!("o-{id}"), "status": "final",
            "code": {"text": "x"}, "subject": {"reference": format!("Patient/{id}")}});
        let path = format!("/fhir/Observation/o-{id}");
        assert_eq!(one.client.put_json(&path, &observation).expect("an answer").status, 201);
    }
    let shown = |client: &Client, id: &str| {
        let lists = ["_history?_count=100", "Patient/_history", "Observation/_history", "Observation?code:text=x"];
        lists
            .into_iter()
            .filter(|list| {
                let reply = client.get(&format!("/fhir/{list}")).expect("an answer");
                // A list that was gathered when the keys went says so once; asked again, it is without what was erased.
                let caught = reply.status == 410;
                assert!(caught || reply.status == 200, "{list}: {}", reply.text());
                caught || reply.text().contains(&format!("Patient/{id}")) || reply.text().contains(&format!("\"{id}\""))
            })
            .count()
    };
    // The keys of both are in the memory of both.
    for client in [&one.client, &two.client] {
        assert_eq!((shown(client, "eve"), shown(client, "adam")), (4, 4));
    }
    let erased = data.run(&["admin", "patients", "erase", "eve", "--confirm", "eve"]);
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));
    let since = Instant::now();
    for client in [&two.client, &one.client] {
        while shown(client, "eve") > 0 {
            assert!(since.elapsed() < Duration::from_secs(8), "it is still there");
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!((shown(client, "eve"), shown(client, "adam")), (0, 4));
    }
    println!("gone everywhere after {} ms", since.elapsed().as_millis());
}

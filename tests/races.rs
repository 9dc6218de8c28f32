//! Conditional writes of many clients at once leave exactly one resource, at one server and at two on one database.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use serde_json::json;

use crate::harness::{Client, Data, Engine, Reply, Request};

const CLIENTS: usize = 64;

/// Requests of one race; `PHIAL_RACES` sets another number.
fn requests() -> usize {
    std::env::var("PHIAL_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(CLIENTS * 8)
}

fn resource(number: usize) -> String {
    json!({"resourceType": "Organization", "identifier": [{"system": "http://race", "value": format!("{number}")}]})
        .to_string()
}

fn create(client: &Client, number: usize) -> Reply {
    let (body, condition) = (resource(number), format!("identifier=http://race|{number}"));
    let headers = vec![("Content-Type", "application/fhir+json"), ("If-None-Exist", condition.as_str())];
    let request = Request { method: "POST", path: "/fhir/Organization", body: Some(body.as_bytes()), headers };
    client.send(&request).expect("an answer")
}

fn update(client: &Client, number: usize) -> Reply {
    let (body, path) = (resource(number), format!("/fhir/Organization?identifier=http://race%7C{number}"));
    let headers = vec![("Content-Type", "application/fhir+json"), ("Prefer", "return=minimal")];
    let request = Request { method: "PUT", path: &path, body: Some(body.as_bytes()), headers };
    client.send(&request).expect("an answer")
}

/// All clients send their requests at once; the statuses of each number.
fn race(
    clients: &[Client],
    number: impl Fn(usize) -> usize + Sync,
    send: impl Fn(&Client, usize) -> Reply + Sync,
) -> BTreeMap<usize, BTreeMap<u16, usize>> {
    let seen = Mutex::new(BTreeMap::<usize, BTreeMap<u16, usize>>::new());
    thread::scope(|scope| {
        for at in 0..CLIENTS {
            let (client, seen, number, send) = (clients[at % clients.len()].clone(), &seen, &number, &send);
            scope.spawn(move || {
                for n in 0..requests().div_ceil(CLIENTS) {
                    let number = number(n);
                    let reply = send(&client, number);
                    let mut seen = seen.lock().expect("no panic while it is held");
                    *seen.entry(number).or_default().entry(reply.status).or_default() += 1;
                }
            });
        }
    });
    seen.into_inner().expect("no panic while it was held")
}

fn total(client: &Client, number: usize) -> u64 {
    let path = format!("/fhir/Organization?identifier=http://race%7C{number}&_total=accurate");
    client.get(&path).expect("an answer").json()["total"].as_u64().expect("a total")
}

fn run(clients: &[Client]) {
    // All of them want the same one.
    let seen = race(clients, |_| 0, create);
    assert_eq!(seen[&0].get(&201), Some(&1), "{seen:?}");
    assert!(seen[&0].keys().all(|status| matches!(status, 200 | 201)), "{seen:?}");
    // All of them want the next one, and the next.
    let seen = race(clients, |n| n + 1, create);
    for (number, statuses) in &seen {
        assert_eq!(statuses.get(&201), Some(&1), "{number}: {statuses:?}");
        assert!(statuses.keys().all(|status| matches!(status, 200 | 201)), "{number}: {statuses:?}");
    }
    // Updates that create: who loses updates what is there, or is told that others kept coming in between.
    let seen = race(clients, |n| n + 100_000, update);
    for (number, statuses) in &seen {
        assert_eq!(statuses.get(&201), Some(&1), "{number}: {statuses:?}");
        assert!(statuses.keys().all(|status| matches!(status, 200 | 201 | 409)), "{number}: {statuses:?}");
    }
    for number in seen.keys().chain(&[0, 1, 2]) {
        for client in clients {
            assert_eq!(total(client, *number), 1, "{number}");
        }
    }
}

#[test]
fn one_server_makes_one_resource() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    run(std::slice::from_ref(&server.client));
}

#[test]
fn two_servers_on_one_database_make_one_resource() {
    let data = Data::new(Engine::Postgres);
    let (one, mut two) = (data.serve(), data.serve_beside());
    two.client.token = one.client.token.clone();
    run(&[one.client.clone(), two.client.clone()]);
}

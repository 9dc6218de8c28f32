//! Writes of many clients at once, at one server and at two on one database: a condition leaves exactly one resource, a
//! medical record number is given once, and no update that was confirmed is lost.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Reply, Request, Server};

const CLIENTS: usize = 64;
/// A token is used for so long; it works for 300 seconds.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(150);

/// Requests of one race; `PHIAL_RACES` sets another number.
fn requests() -> usize {
    std::env::var("PHIAL_RACES").ok().and_then(|text| text.parse().ok()).unwrap_or(CLIENTS * 4)
}

/// The servers of a race, with a token that is renewed while it runs.
struct Field<'a> {
    data: &'a Data,
    servers: &'a [Server],
    token: Mutex<(String, Instant)>,
}

impl<'a> Field<'a> {
    fn new(data: &'a Data, servers: &'a [Server]) -> Field<'a> {
        let token = servers[0].client.token.clone().expect("it was given");
        Field { data, servers, token: Mutex::new((token, Instant::now())) }
    }

    /// A client of one of the servers.
    fn client(&self, at: usize) -> Client {
        let mut token = self.token.lock().expect("no panic while it is held");
        if token.1.elapsed() > TOKEN_AGE_MAX {
            *token = (self.data.token(self.servers[0].port()), Instant::now());
        }
        let mut client = self.servers[at % self.servers.len()].client.clone();
        client.token = Some(token.0.clone());
        client
    }

    /// All clients send `each` requests at once; the statuses of each number.
    fn race(
        &self,
        requests: usize,
        number: impl Fn(usize) -> usize + Sync,
        send: impl Fn(&Client, usize) -> Reply + Sync,
    ) -> BTreeMap<usize, BTreeMap<u16, usize>> {
        let seen = Mutex::new(BTreeMap::<usize, BTreeMap<u16, usize>>::new());
        thread::scope(|scope| {
            for at in 0..CLIENTS {
                let (seen, number, send) = (&seen, &number, &send);
                scope.spawn(move || {
                    for n in 0..requests.div_ceil(CLIENTS) {
                        let number = number(n);
                        let reply = send(&self.client(at), number);
                        let mut seen = seen.lock().expect("no panic while it is held");
                        *seen.entry(number).or_default().entry(reply.status).or_default() += 1;
                    }
                });
            }
        });
        seen.into_inner().expect("no panic while it was held")
    }

    /// How many there are of a type for a condition; every server says the same.
    fn total(&self, query: &str) -> u64 {
        let path = format!("/fhir/{query}&_total=accurate");
        let total = |at| self.client(at).get(&path).expect("an answer").json()["total"].as_u64().expect("a total");
        let totals: Vec<u64> = (0..self.servers.len()).map(total).collect();
        assert!(totals.iter().all(|total| *total == totals[0]), "{query}: {totals:?}");
        totals[0]
    }
}

fn organization(number: usize) -> String {
    json!({"resourceType": "Organization", "identifier": [{"system": "http://race", "value": format!("{number}")}]})
        .to_string()
}

fn send(client: &Client, method: &str, path: &str, body: &str, extra: &[(&str, &str)]) -> Reply {
    let mut headers = vec![("Content-Type", "application/fhir+json")];
    headers.extend(extra);
    client.send(&Request { method, path, body: Some(body.as_bytes()), headers }).expect("an answer")
}

fn create(client: &Client, number: usize) -> Reply {
    let condition = format!("identifier=http://race|{number}");
    send(client, "POST", "/fhir/Organization", &organization(number), &[("If-None-Exist", &condition)])
}

fn update(client: &Client, number: usize) -> Reply {
    let path = format!("/fhir/Organization?identifier=http://race%7C{number}");
    send(client, "PUT", &path, &organization(number), &[("Prefer", "return=minimal")])
}

/// One of the requests for each number made something, the others were answered as said.
fn one_made(seen: &BTreeMap<usize, BTreeMap<u16, usize>>, others: &[u16]) {
    for (number, statuses) in seen {
        assert_eq!(statuses.get(&201), Some(&1), "{number}: {statuses:?}");
        let known = |status: &u16| *status == 201 || others.contains(status);
        assert!(statuses.keys().all(known), "{number}: {statuses:?}");
    }
}

fn conditions_leave_one(field: &Field<'_>) {
    // All of them want the same one.
    let same = field.race(requests(), |_| 0, create);
    one_made(&same, &[200]);
    // All of them want the next one, and the next.
    let next = field.race(requests(), |n| n + 1, create);
    one_made(&next, &[200]);
    // Updates that create: who loses updates what is there, or is told that others kept coming in between.
    let updated = field.race(requests(), |n| n + 100_000, update);
    one_made(&updated, &[200, 409]);
    for number in same.keys().chain(next.keys()).chain(updated.keys()) {
        assert_eq!(field.total(&format!("Organization?identifier=http://race%7C{number}")), 1, "{number}");
    }
}

/// The system of the medical record numbers that the server gives.
fn mrn_system(field: &Field<'_>) -> Value {
    let patient = json!({"resourceType": "Patient", "name": [{"family": "First"}]});
    let reply = field.client(0).post_json("/fhir/Patient", &patient).expect("an answer");
    reply.json()["identifier"][0].clone()
}

fn numbers_are_given_once(field: &Field<'_>) {
    let identifier = mrn_system(field);
    let seen = field.race(
        requests() / 8,
        |n| n,
        |client, number| {
            let mut identifier = identifier.clone();
            identifier["value"] = json!(format!("MRN7{number:05}"));
            let patient =
                json!({"resourceType": "Patient", "identifier": [identifier], "name": [{"family": "Numbered"}]});
            client.post_json("/fhir/Patient", &patient).expect("an answer")
        },
    );
    one_made(&seen, &[409]);
    assert_eq!(field.total("Patient?family=numbered"), seen.len() as u64);
}

/// Everybody counts in one resource: what was confirmed is in it at the end.
fn no_update_is_lost(field: &Field<'_>) {
    let counted = |count: u64| {
        let quantity = json!({"url": "http://race/count", "valueInteger": count});
        json!({"resourceType": "Organization", "id": "counter", "name": "Counter", "extension": [quantity]}).to_string()
    };
    let path = "/fhir/Organization/counter";
    assert_eq!(send(&field.client(0), "PUT", path, &counted(0), &[]).status, 201);
    let seen = field.race(
        requests(),
        |_| 0,
        |client, _| {
            let now = client.get(path).expect("an answer");
            let tag = now.header("etag").expect("a version").to_owned();
            let count = now.json()["extension"][0]["valueInteger"].as_u64().expect("a number");
            send(client, "PUT", path, &counted(count + 1), &[("If-Match", &tag)])
        },
    );
    assert!(seen[&0].keys().all(|status| matches!(status, 200 | 409 | 412)), "{seen:?}");
    let confirmed = seen[&0][&200];
    let now = field.client(0).get(path).expect("an answer").json();
    assert_eq!(now["extension"][0]["valueInteger"], confirmed, "an update was lost");
    assert_eq!(now["meta"]["versionId"], (confirmed + 1).to_string());
}

fn run(data: &Data, servers: &[Server]) {
    let field = Field::new(data, servers);
    for (name, race) in [
        ("conditions", conditions_leave_one as fn(&Field<'_>)),
        ("numbers", numbers_are_given_once),
        ("updates", no_update_is_lost),
    ] {
        let began = Instant::now();
        race(&field);
        println!("{name}: {} requests a race, {} servers, {:?}", requests(), servers.len(), began.elapsed());
    }
}

#[test]
fn one_server_makes_one_resource() {
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    run(&data, &[server]);
}

#[test]
fn two_servers_on_one_database_make_one_resource() {
    let data = Data::new(Engine::Postgres);
    let servers = [data.serve(), data.serve_beside()];
    run(&data, &servers);
}

//! The program starts, serves, stops and is honest about its state.

use serde_json::json;

use crate::harness::{Data, Engine};

fn starts_serves_and_stops(engine: Engine) {
    let data = Data::new(engine);
    let server = data.serve();
    let client = &server.client;
    assert_eq!(client.get("/healthz").unwrap().status, 200);
    assert_eq!(client.get("/metrics").unwrap().status, 200);
    let patient =
        json!({"resourceType": "Patient", "id": "p1", "name": [{"family": "Quick"}], "birthDate": "1970-01-31"});
    let put = client.put_json("/fhir/Patient/p1", &patient).unwrap();
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(put.header("etag"), Some("W/\"1\""));
    let found = client.get("/fhir/Patient?family=quick").unwrap();
    assert_eq!(found.json()["entry"][0]["resource"]["id"], "p1", "{}", found.text());
    assert!(server.terminate().success());

    // Acknowledged before the stop, there after it.
    let server = data.serve();
    let back = server.client.get("/fhir/Patient/p1").unwrap();
    assert_eq!(back.json()["birthDate"], "1970-01-31");
    let mut stranger = server.client.clone();
    stranger.token = None;
    assert_eq!(stranger.get("/fhir/Patient/p1").unwrap().status, 401);
}

#[test]
fn on_sqlite() {
    starts_serves_and_stops(Engine::Sqlite);
}

#[test]
fn on_postgres() {
    starts_serves_and_stops(Engine::Postgres);
}

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

/// Two servers on one PostgreSQL: what one acknowledges the other shows, under the same token and base URL.
#[test]
fn two_servers_show_the_same() {
    let data = Data::new(Engine::Postgres);
    let (one, mut two) = (data.serve(), data.serve_beside());
    two.client.token = one.client.token.clone();
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let path = format!("/fhir/Patient/both{}", n / 4);
        let patient =
            json!({"resourceType": "Patient", "id": format!("both{}", n / 4), "name": [{"family": format!("N{n}")}]});
        let put = writer.client.put_json(&path, &patient).unwrap();
        assert!(matches!(put.status, 200 | 201), "{}", put.text());
        let back = reader.client.get(&path).unwrap();
        assert_eq!(back.json()["name"][0]["family"], format!("N{n}"), "{}", back.text());
        assert_eq!(back.header("etag"), put.header("etag"));
    }
    let found = two.client.get("/fhir/Patient?name=N&_total=accurate").unwrap().json();
    assert_eq!(found["total"], 5);
    assert!(found["link"][0]["url"].as_str().unwrap().starts_with(&format!("http://127.0.0.1:{}/", one.port())));
}

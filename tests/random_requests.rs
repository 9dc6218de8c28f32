//! Random requests, sound and broken, to every kind of address: whatever comes, the server answers, says what is wrong
//! in an OperationOutcome, and never fails. `PHIAL_REQUESTS` is their number, `PHIAL_REQUESTS_SEED` makes them others.

use serde_json::{Value, json};

use crate::harness::{Data, Engine, Request};
use crate::oracle::random::Random;

const REQUESTS: usize = 1_500;

const METHODS: [&str; 9] = ["GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD"];
const TYPES: [&str; 12] = [
    "Patient",
    "Observation",
    "Condition",
    "Encounter",
    "Bundle",
    "Composition",
    "Binary",
    "AuditEvent",
    "ValueSet",
    "Parameters",
    "Nothing",
    "patient",
];
const IDS: [&str; 8] = ["p1", "o1", "unknown", "a.b-c", "%00", "%F0%9F%92%89", "..", "x_y"];
const OPERATIONS: [&str; 17] = [
    "$everything",
    "$meta",
    "$meta-add",
    "$meta-delete",
    "$lastn",
    "$docref",
    "$document",
    "$convert",
    "$validate",
    "$match",
    "$member-match",
    "$explain",
    "$graphql",
    "$nothing",
    "$",
    "_history",
    "_search",
];
const NAMES: [&str; 30] = [
    "_id",
    "_count",
    "_sort",
    "_include",
    "_revinclude",
    "_total",
    "_summary",
    "_elements",
    "_lastUpdated",
    "_has:Observation:patient:code",
    "_cursor",
    "_since",
    "_type",
    "_format",
    "_filter",
    "_at",
    "name",
    "family:exact",
    "birthdate",
    "code",
    "value-quantity",
    "patient.name",
    "subject:Patient",
    "patient",
    "max",
    "identifier",
    "near",
    "query",
    "mode",
    "code-value-quantity",
];
const VALUES: [&str; 24] = [
    "",
    "p1",
    "1",
    "-1",
    "99999999999999999999",
    "0",
    "true",
    "2020",
    "ge2020-13-45",
    "lt2020-02-30T25:61:61Z",
    "ap1900",
    "http://loinc.org|8480-6",
    "|",
    "||",
    "a,b,c",
    "%5C%2C",
    "$",
    "%25",
    "%C3%28",
    "Patient:*",
    "Observation:subject:Patient:x",
    "-date,status",
    "5.4||mg",
    "xml",
];
const BODIES: [&str; 14] = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    "\"x\"",
    "<Patient xmlns=\"http://hl7.org/fhir\"/>",
    "<!DOCTYPE x><Patient/>",
    "{\"resourceType\":\"Patient\"}",
    "{\"resourceType\":\"Patient\",\"resourceType\":\"Patient\"}",
    "{\"resourceType\":\"Parameters\",\"parameter\":[{\"name\":\"resource\",\"resource\":{}},{\"name\":7}]}",
    "{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":[{\"request\":{\"method\":\"GET\",\"url\":\"Patient/p1/$everything?_count=1\"}},{}]}",
    "[{\"op\":\"replace\",\"path\":\"/active\",\"value\":true}]",
    "query={Patient(id:p1){name{family}}}",
];
const MEDIA: [&str; 10] = [
    "application/fhir+json",
    "application/json",
    "application/fhir+xml",
    "text/plain",
    "application/json-patch+json",
    "application/x-www-form-urlencoded",
    "application/graphql",
    "*/*",
    ";;;",
    "application/fhir+json; fhirVersion=3.0",
];

/// A resource with something wrong in it, or nothing.
fn resource(random: &mut Random) -> String {
    let mut node = json!({
        "resourceType": random.pick(&TYPES), "id": random.pick(&IDS), "status": "final", "code": {"text": "x"},
        "subject": {"reference": "Patient/p1"}, "name": [{"family": "Random", "given": ["x"]}], "birthDate": "1980-01-01"
    });
    let wrong =
        [json!(null), json!([]), json!({}), json!(1e308), json!("\u{0}"), json!([[[[]]]]), json!("x".repeat(3_000))];
    for name in ["status", "name", "birthDate", "subject", "meta", "extension", "contained", "id"] {
        if random.chance(12) {
            node[name] = random.pick(&wrong).clone();
        }
    }
    node.to_string()
}

fn path(random: &mut Random) -> String {
    let mut path = match random.below(9) {
        0 => "/fhir".to_owned(),
        1 => format!("/fhir/{}", random.pick(&OPERATIONS)),
        2 | 3 => format!("/fhir/{}", random.pick(&TYPES)),
        4 => format!("/fhir/{}/{}", random.pick(&TYPES), random.pick(&OPERATIONS)),
        5 => format!("/fhir/{}/{}", random.pick(&TYPES), random.pick(&IDS)),
        6 | 7 => format!("/fhir/{}/{}/{}", random.pick(&TYPES), random.pick(&IDS), random.pick(&OPERATIONS)),
        _ => format!("/fhir/{}/{}/_history/{}", random.pick(&TYPES), random.pick(&IDS), random.pick(&VALUES)),
    };
    for n in 0..random.below(4) {
        path.push(if n == 0 { '?' } else { '&' });
        path.push_str(&format!("{}={}", random.pick(&NAMES), random.pick(&VALUES)));
    }
    path
}

#[test]
fn no_request_makes_the_server_fail() {
    let number =
        |name: &str, otherwise: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let seed = number("PHIAL_REQUESTS_SEED", 20_260_131);
    let mut random = Random::new(seed as u64);
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let seeded = json!({"resourceType": "Patient", "id": "p1", "name": [{"family": "Random"}]});
    assert_eq!(server.client.put_json("/fhir/Patient/p1", &seeded).expect("an answer").status, 201);
    let mut statuses = std::collections::BTreeMap::new();
    for n in 0..number("PHIAL_REQUESTS", REQUESTS) {
        let (method, path) = (*random.pick(&METHODS), path(&mut random));
        let body = match random.below(3) {
            0 => (*random.pick(&BODIES)).to_owned(),
            _ => resource(&mut random),
        };
        let body = (!matches!(method, "GET" | "HEAD")).then_some(body);
        let mut headers = vec![("Accept", *random.pick(&MEDIA))];
        if body.is_some() {
            headers.push(("Content-Type", if random.chance(70) { MEDIA[0] } else { *random.pick(&MEDIA) }));
        }
        for (name, value) in [
            ("If-Match", "W/\"x\""),
            ("If-None-Exist", "identifier=|"),
            ("Prefer", "return=OperationOutcome"),
            ("If-None-Match", "*"),
        ] {
            if random.chance(8) {
                headers.push((name, value));
            }
        }
        let context = format!("PHIAL_REQUESTS_SEED={seed}, request {n}: {method} {path} {headers:?} {body:?}");
        let request = Request { method, path: &path, body: body.as_ref().map(String::as_bytes), headers };
        let reply = server.client.send(&request).unwrap_or_else(|error| panic!("{context}: {error}"));
        *statuses.entry(reply.status).or_insert(0) += 1;
        assert!(reply.status < 500, "{context}\n{}: {}", reply.status, reply.text());
        let json = reply.header("content-type").is_some_and(|kind| kind.starts_with("application/fhir+json"));
        if reply.status >= 400 && json && method != "HEAD" {
            let outcome: Value = reply.json();
            assert_eq!(outcome["resourceType"], "OperationOutcome", "{context}: {outcome}");
            assert!(outcome["issue"][0]["diagnostics"].is_string(), "{context}: {outcome}");
        }
    }
    println!("answers by status: {statuses:?}");
    assert!(statuses.len() > 6, "{statuses:?}");
    assert_eq!(server.client.get("/healthz").expect("an answer").status, 200);
}

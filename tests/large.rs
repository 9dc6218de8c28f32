//! A transaction of many entries: taken within the default limits, in time, and in memory that is a stated multiple of
//! what was sent, on both databases.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Data, Engine, Request};

/// Entries when `PHIAL_ENTRIES` sets no other number (`make soak`: 25,000, which are 63 MB).
const ENTRIES: usize = 700;
/// Measurements of one Observation: with so many an entry has 2.4 kB.
const COMPONENTS: usize = 8;
/// Most memory the server may ever have had: this much for itself (caches of the database included), and so many times
/// the bytes of the body.
const OWN_BYTES: usize = 150_000_000;
const TIMES_BODY: usize = 6;
/// Default of `request_timeout_s`.
const TIME_MAX: Duration = Duration::from_secs(60);

fn entries() -> usize {
    std::env::var("PHIAL_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES)
}

fn coded(system: &str, code: &str, text: &str) -> Value {
    json!({"coding": [{"system": system, "code": code, "display": text}], "text": text})
}

fn posted(full_url: &str, resource: Value) -> Value {
    let kind = resource["resourceType"].clone();
    json!({"fullUrl": full_url, "resource": resource, "request": {"method": "POST", "url": kind}})
}

fn observation(n: usize, of: usize) -> Value {
    let measured = |at: usize| {
        let unit = json!({"value": 60 + (n * 7 + at) % 90, "unit": "mmHg", "system": "http://unitsofmeasure.org",
            "code": "mm[Hg]"});
        json!({"code": coded("http://loinc.org", &format!("{}-{}", 8000 + at, at % 10), "One of several pressures"),
            "valueQuantity": unit})
    };
    let category = coded("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs", "Vital signs");
    json!({
        "resourceType": "Observation",
        "status": "final",
        "category": [category],
        "code": coded("http://loinc.org", "85354-9", "Blood pressure panel with all children optional"),
        "subject": {"reference": format!("urn:uuid:patient-{of}")},
        "effectiveDateTime": format!("20{:02}-{:02}-{:02}T10:30:00+01:00", n % 25, 1 + n % 12, 1 + n % 28),
        "note": [{"text": format!("Measured for the {n}th time, sitting, left arm, after ten minutes of rest.")}],
        "component": (0..COMPONENTS).map(measured).collect::<Vec<_>>(),
    })
}

/// One patient, then 49 observations of them, and so on; every patient goes to one organization that may be there.
fn bundle(entries: usize) -> Value {
    let organization = json!({"resourceType": "Organization", "name": "One Clinic",
        "identifier": [{"system": "http://large", "value": "1"}]});
    let mut list = vec![posted("urn:uuid:organization", organization)];
    list[0]["request"]["ifNoneExist"] = json!("identifier=http://large|1");
    for n in 1..entries {
        let of = n / 50;
        list.push(match n % 50 {
            1 => posted(
                &format!("urn:uuid:patient-{of}"),
                json!({
                    "resourceType": "Patient",
                    "name": [{"family": format!("Large{of}"), "given": ["Ada", "Grace"]}],
                    "gender": "female",
                    "birthDate": format!("19{:02}-02-03", of % 100),
                    "managingOrganization": {"reference": "urn:uuid:organization"},
                }),
            ),
            _ => posted(&format!("urn:uuid:observation-{n}"), observation(n, (n - 1) / 50)),
        });
    }
    json!({"resourceType": "Bundle", "type": "transaction", "entry": list})
}

/// The most memory a process has had, in bytes.
fn peak(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

fn a_large_transaction_is_taken(engine: Engine) {
    let data = Data::new(engine);
    let server = data.serve();
    let before = peak(server.pid());
    let entries = entries();
    let body = serde_json::to_vec(&bundle(entries)).expect("JSON");
    let headers = vec![("Content-Type", "application/fhir+json")];
    let request = Request { method: "POST", path: "/fhir", body: Some(&body), headers };
    let began = Instant::now();
    let reply = server.client.send(&request).expect("an answer");
    let took = began.elapsed();
    assert_eq!(reply.status, 200, "{:.500}", reply.text());
    let most = peak(server.pid());
    println!(
        "{engine:?}: {entries} entries, {} MB in {took:?}, peak {} MB (before {} MB)",
        body.len() / 1_000_000,
        most / 1_000_000,
        before / 1_000_000
    );
    let answered = reply.json();
    let answered = answered["entry"].as_array().expect("entries");
    assert_eq!(answered.len(), entries);
    assert!(answered.iter().all(|entry| entry["response"]["status"] == "201 Created"));
    assert!(took < TIME_MAX, "{took:?}");
    assert!(most < OWN_BYTES + TIMES_BODY * body.len(), "{most} bytes for {}", body.len());
    // All of it is there, and belongs together.
    let total = |query: &str| server.client.get(&format!("/fhir/{query}")).expect("an answer").json()["total"].clone();
    let patients = (1..entries).filter(|n| n % 50 == 1).count();
    assert_eq!(total("Patient?_summary=count"), patients);
    assert_eq!(total("Observation?_summary=count"), entries - 1 - patients);
    assert_eq!(total("Observation?patient.family=large0&_summary=count"), 49.min(entries - 2));
    assert_eq!(total("Patient?organization.identifier=http://large%7C1&_summary=count"), patients);
}

#[test]
fn a_large_transaction_is_taken_on_sqlite() {
    a_large_transaction_is_taken(Engine::Sqlite);
}

#[test]
fn a_large_transaction_is_taken_on_postgres() {
    a_large_transaction_is_taken(Engine::Postgres);
}

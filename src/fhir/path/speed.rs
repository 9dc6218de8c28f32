//! How long an evaluation takes. Not part of the tests: `cargo test --release --lib path::speed -- --ignored --nocapture`.

use std::hint::black_box;

use serde_json::json;

use super::Expr;
use crate::fhir::json::Node;
use crate::world::Stopwatch;

fn resources() -> (Node, Node) {
    let patient = json!({
        "resourceType": "Patient", "id": "p1", "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00Z"},
        "identifier": [{"system": "urn:mrn", "value": "1"}, {"system": "urn:ssn", "value": "2"}],
        "active": true,
        "name": [{"use": "official", "family": "Chalmers", "given": ["Peter", "James"]}, {"use": "usual", "given": ["Jim"]}],
        "telecom": [{"system": "phone", "value": "1"}, {"system": "phone", "value": "2"}, {"system": "email", "value": "a@b"}],
        "gender": "male", "birthDate": "1974-12-25", "deceasedBoolean": false,
        "generalPractitioner": [{"reference": "Practitioner/7"}, {"reference": "Organization/9"}]
    });
    let observation = json!({
        "resourceType": "Observation", "id": "o1", "status": "final",
        "category": [{"coding": [{"system": "http://x", "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
        "subject": {"reference": "Patient/1"}, "effectiveDateTime": "2026-01-31T08:15:30Z",
        "valueQuantity": {"value": 120, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
    });
    (patient, observation)
}

#[test]
#[ignore = "measures, does not test"]
fn nanoseconds_of_search_expressions() {
    let (patient, observation) = resources();
    for (text, root) in [
        ("Patient.name.family", &patient),
        ("Patient.name.given", &patient),
        ("Patient.birthDate", &patient),
        ("Patient.telecom.where(system='email')", &patient),
        ("Patient.generalPractitioner.where(resolve() is Practitioner)", &patient),
        ("Patient.deceased.exists() and Patient.deceased != false", &patient),
        ("Patient.extension('http://x/y')", &patient),
        ("Observation.subject.where(resolve() is Patient)", &observation),
        ("Observation.value as Quantity", &observation),
        ("(Observation.effective as dateTime) | Observation.effective.as(Period)", &observation),
        ("Observation.code | Observation.component.code", &observation),
    ] {
        let expr = Expr::parse(text).expect("parses");
        let rounds = 200_000;
        let watch = Stopwatch::start();
        for _ in 0..rounds {
            black_box(expr.eval(black_box(root)).expect("evaluates"));
        }
        println!("{:6} ns  {text}", watch.elapsed().as_nanos() / rounds);
    }
}

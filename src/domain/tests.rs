//! The rules over whole resources, with the embedded mappings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::*;
use crate::error::Kind;
use crate::fhir::definitions;
use crate::search::values::{Header, Value};
use crate::world::Instant;

const OURS: &str = "https://phial.test/NamingSystem/mrn";
const V2: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";

fn rules(next: Option<u64>) -> Rules<'static> {
    Rules { mrn_system: OURS, mrn_next: next }
}

fn checked(node: Json) -> Resource {
    Resource::check(node).unwrap_or_else(|error| panic!("{error}"))
}

fn current(kind: &str, param: &str, value: Value) -> Values {
    let kind = definitions().type_id(kind).unwrap();
    let param = definitions().param(kind, param).unwrap().id;
    let header = Header {
        kind,
        id: "1".to_owned(),
        version: 1,
        last_updated: Instant(0),
        patients: Vec::new(),
        clinical: None,
        digest: [0; 32],
    };
    Values { header, params: BTreeMap::from([(param, vec![value])]), links: Vec::new() }
}

fn appointment(status: &str) -> Json {
    json!({
        "resourceType": "Appointment", "status": status, "start": "2026-02-01T09:00:00Z", "end": "2026-02-01T09:20:00Z",
        "minutesDuration": 20, "participant": [
            { "actor": { "reference": "Patient/p1" }, "status": "accepted" },
            { "actor": { "reference": "Practitioner/d1" }, "status": "accepted" },
            { "actor": { "display": "nobody in particular" }, "status": "accepted" },
        ]
    })
}

fn row<'a>(rows: &'a [DomainRow], table: &str) -> Option<&'a DomainRow> {
    rows.iter().find(|row| row.table == table)
}

#[test]
fn a_patient_without_a_number_gets_the_next_one() {
    let mut patient = checked(json!({ "resourceType": "Patient", "name": [{ "family": "Ann" }] }));
    assert_eq!(needs_number(&patient, None, OURS), Some("mrn"));
    let rows = apply(&mut patient, None, &rules(Some(42))).unwrap();
    let expected =
        json!([{ "type": { "coding": [{ "system": V2, "code": "MR" }] }, "system": OURS, "value": "MRN000042" }]);
    assert_eq!(patient.node()["identifier"], expected);
    let patient_row = row(&rows, "patient").unwrap();
    assert_eq!(patient_row.field("mrn"), Some(&json!("MRN000042")));
    assert_eq!(patient_row.unique, [("mrn", format!("{OURS}|MRN000042"))]);
    assert_eq!(patient_row.raise, Some(("mrn", 42)));
    assert_eq!(needs_number(&patient, None, OURS), None);
    // What it became is a resource still.
    checked(patient.into_node());
}

#[test]
fn a_number_of_anybody_is_kept_and_none_is_drawn() {
    let cases = [
        (json!({ "type": { "coding": [{ "system": V2, "code": "MR" }] }, "system": "urn:other", "value": "7" }), None),
        (json!({ "type": { "coding": [{ "code": "MR" }] }, "value": "7" }), None),
        (json!({ "system": OURS, "value": "MRN000777" }), Some(("mrn", 777))),
        (json!({ "system": OURS, "value": "imported" }), None),
        (json!({ "system": OURS, "value": "MRN99999999999999" }), None),
    ];
    for (identifier, raise) in cases {
        let of_us = identifier["system"] == OURS;
        let node = json!({ "resourceType": "Patient", "identifier": [identifier] });
        let mut patient = checked(node.clone());
        assert_eq!(needs_number(&patient, None, OURS), None, "{node}");
        let rows = apply(&mut patient, None, &rules(None)).unwrap();
        assert_eq!(*patient.node(), node);
        let row = row(&rows, "patient").unwrap();
        assert_eq!((row.unique.len(), row.raise), (usize::from(of_us), raise), "{node}");
    }
    // A type without a value, or the same code of another system, is no number.
    for identifier in [
        json!({ "type": { "coding": [{ "system": V2, "code": "MR" }] }, "system": "urn:other" }),
        json!({ "type": { "coding": [{ "system": "urn:local", "code": "MR" }] }, "value": "7" }),
    ] {
        let patient = checked(json!({ "resourceType": "Patient", "identifier": [identifier] }));
        assert_eq!(needs_number(&patient, None, OURS), Some("mrn"));
    }
}

#[test]
fn an_update_without_the_number_keeps_it() {
    let before = current(
        "Patient",
        "identifier",
        Value::Identifier {
            system: Some(OURS.to_owned()),
            value: Some("MRN000042".to_owned()),
            text: None,
            types: Vec::new(),
        },
    );
    let mut patient = checked(json!({ "resourceType": "Patient", "active": true }));
    assert_eq!(needs_number(&patient, Some(&before), OURS), None);
    let rows = apply(&mut patient, Some(&before), &rules(None)).unwrap();
    assert_eq!(patient.node()["identifier"][0]["value"], "MRN000042");
    assert_eq!(row(&rows, "patient").unwrap().unique.len(), 1);
}

#[test]
fn other_types_need_no_number() {
    assert_eq!(needs_number(&checked(appointment("booked")), None, OURS), None);
}

#[test]
fn an_appointment_moves_by_the_table() {
    let codes = definitions().child("Appointment", "status").unwrap().codes.unwrap();
    let mut legal = 0;
    for from in codes {
        let before =
            current("Appointment", "status", Value::Token { system: None, code: Some((*from).to_owned()), text: None });
        for to in codes {
            let result = apply(&mut checked(appointment(to)), Some(&before), &rules(None));
            let terminal = ["fulfilled", "cancelled", "entered-in-error"].contains(from);
            match result {
                Ok(_) => {
                    legal += 1;
                    assert!(!terminal || from == to || *to == "entered-in-error", "{from} to {to}");
                }
                Err(error) => {
                    assert_eq!(error.kind, Kind::BusinessRule);
                    assert_eq!(error.issues[0].expression.as_deref(), Some("Appointment.status"));
                    let said = error.to_string();
                    assert!(said.contains(&format!("'{to}'")) && !said.contains(&format!("'{from}'")), "{said}");
                    assert_ne!(from, to);
                }
            }
        }
    }
    assert_eq!(legal, 10 + 39, "ten may stay as they are; 39 moves are legal");
}

#[test]
fn an_appointment_may_be_created_in_any_status() {
    for status in definitions().child("Appointment", "status").unwrap().codes.unwrap() {
        assert!(apply(&mut checked(appointment(status)), None, &rules(None)).is_ok(), "{status}");
    }
}

#[test]
fn appointment_statuses_map_both_ways() {
    let pairs = [
        ("proposed", "SCHEDULED"),
        ("pending", "SCHEDULED"),
        ("waitlist", "SCHEDULED"),
        ("booked", "CONFIRMED"),
        ("arrived", "IN_PROGRESS"),
        ("checked-in", "IN_PROGRESS"),
        ("fulfilled", "COMPLETED"),
        ("cancelled", "CANCELLED"),
        ("entered-in-error", "CANCELLED"),
        ("noshow", "NO_SHOW"),
    ];
    let codes = definitions().child("Appointment", "status").unwrap().codes.unwrap();
    assert_eq!(pairs.len(), codes.len());
    let field = mapping(definitions().type_id("Appointment").unwrap()).tables[0]
        .fields
        .iter()
        .find(|field| field.name == "status")
        .unwrap();
    for (fhir, domain) in pairs {
        let rows = apply(&mut checked(appointment(fhir)), None, &rules(None)).unwrap();
        assert_eq!(row(&rows, "appointment").unwrap().field("status"), Some(&json!(domain)), "{fhir}");
        let back = field.fhir_code(domain).unwrap();
        assert_eq!(field.domain_code(back), Some(domain));
    }
    let back: Vec<_> = ["SCHEDULED", "CONFIRMED", "IN_PROGRESS", "COMPLETED", "CANCELLED", "NO_SHOW"]
        .iter()
        .map(|domain| field.fhir_code(domain).unwrap())
        .collect();
    assert_eq!(back, ["pending", "booked", "arrived", "fulfilled", "cancelled", "noshow"]);
    assert_eq!(field.fhir_code("LATE"), None);
}

#[test]
fn an_appointment_fills_its_row() {
    let rows = apply(&mut checked(appointment("booked")), None, &rules(None)).unwrap();
    let row = row(&rows, "appointment").unwrap();
    assert_eq!(row.field("patients"), Some(&json!(["Patient/p1"])));
    assert_eq!(row.field("practitioners"), Some(&json!(["Practitioner/d1"])));
    assert_eq!(row.field("start"), Some(&json!("2026-02-01T09:00:00Z")));
    assert_eq!(row.field("minutes"), Some(&json!(20)));
    assert!(row.field("slots").is_none());
}

fn table_of(node: Json) -> Vec<(&'static str, Option<String>)> {
    let rows = apply(&mut checked(node), None, &rules(Some(1))).unwrap();
    let kind = |row: &DomainRow| row.field("kind").and_then(Json::as_str).map(str::to_owned);
    rows.iter().map(|row| (row.table, kind(row))).collect()
}

#[test]
fn medical_records_are_known_by_kind() {
    let subject = json!({ "reference": "Patient/p1" });
    let observation = |category: Option<&str>| {
        let mut node =
            json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": subject });
        if let Some(code) = category {
            node["category"] = json!([{ "coding": [{ "code": code }] }]);
        }
        node
    };
    let document = |content_type: &str| {
        json!({
            "resourceType": "DocumentReference", "status": "current", "subject": subject,
            "content": [{ "attachment": { "contentType": content_type, "title": "T" } }]
        })
    };
    let record = |kind: &str| ("medical_record", Some(kind.to_owned()));
    assert_eq!(table_of(observation(Some("laboratory"))), [record("LAB_RESULT")]);
    assert_eq!(table_of(observation(Some("imaging"))), [record("IMAGING")]);
    assert_eq!(table_of(observation(Some("vital-signs"))), []);
    assert_eq!(table_of(observation(None)), []);
    assert_eq!(table_of(document("application/pdf")), [record("NOTE"), ("document", None)]);
    assert_eq!(table_of(document("image/png")), [record("IMAGING"), ("document", None)]);
    assert_eq!(table_of(document("application/dicom")), [record("IMAGING"), ("document", None)]);
    let condition = json!({ "resourceType": "Condition", "subject": subject });
    assert_eq!(table_of(condition), [record("DIAGNOSIS")]);
    assert_eq!(
        table_of(json!({ "resourceType": "Flag", "status": "active", "code": { "text": "x" }, "subject": subject })),
        []
    );
}

#[test]
fn care_relations_come_from_the_patient() {
    let mut patient = checked(json!({
        "resourceType": "Patient",
        "generalPractitioner": [{ "reference": "Practitioner/d1" }, { "reference": "Organization/o1" }],
        "managingOrganization": { "reference": "Organization/o2" }
    }));
    let rows = apply(&mut patient, None, &rules(Some(1))).unwrap();
    let row = row(&rows, "care_relation").unwrap();
    assert_eq!(row.field("providers"), Some(&json!(["Practitioner/d1", "Organization/o1"])));
    assert_eq!(row.field("organization"), Some(&json!("Organization/o2")));
    assert_eq!(table_of(json!({ "resourceType": "Patient" })), [("patient", None)]);
}

#[test]
fn laboratory_values_keep_their_digits_and_units() {
    let mut lab = checked(
        crate::fhir::json::parse(
            br#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"2339-0","display":"Glucose"}]},
                 "category":[{"coding":[{"code":"laboratory"}]}],"effectiveDateTime":"2026-01-02","valueQuantity":{"value":6.30,"unit":"mmol/l"}}"#,
        )
        .unwrap(),
    );
    let rows = apply(&mut lab, None, &rules(None)).unwrap();
    let row = row(&rows, "medical_record").unwrap();
    assert_eq!(crate::fhir::json::write(row.field("value").unwrap()), b"6.30");
    for (name, expected) in [("unit", "mmol/l"), ("code", "2339-0"), ("text", "Glucose")] {
        assert_eq!(row.field(name), Some(&json!(expected)), "{name}");
    }
    assert_eq!(row.field("date"), Some(&json!("2026-01-02")));
}

/// Every JSON file below a folder.
fn json_files(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => json_files(&path, into),
            path if path.extension().is_some_and(|extension| extension == "json") => into.push(path),
            _ => {}
        }
    }
}

fn resources(node: Json, into: &mut Vec<Json>) {
    match node {
        Json::Object(mut members) if members.get("resourceType").is_some_and(|kind| kind == "Bundle") => {
            let entries = members.remove("entry");
            for mut entry in entries.into_iter().flat_map(|all| all.as_array().cloned().unwrap_or_default()) {
                resources(entry["resource"].take(), into);
            }
        }
        Json::Object(_) => into.push(node),
        _ => {}
    }
}

/// Resources that nobody here wrote: each can be taken apart and put together, and no rule stands in its way.
#[test]
fn samples_pass_the_rules_and_come_back_from_their_sections() {
    use crate::fhir::json;
    use crate::mapping::sections;

    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/samples");
    let mut files = Vec::new();
    for set in ["hl7-r4-examples/json", "inferno", "medplum", "microsoft"] {
        json_files(&samples.join(set), &mut files);
    }
    if files.is_empty() {
        println!("skipped: no samples beside the project");
        return;
    }
    let (mut passed, mut rows, mut parts) = (0, BTreeMap::new(), 0);
    for file in files {
        let Ok(node) = json::parse(&std::fs::read(&file).unwrap()) else { continue };
        let mut all = Vec::new();
        resources(node, &mut all);
        for node in all {
            let Ok(mut resource) = Resource::check(node) else { continue };
            let split = sections::split(resource.kind(), resource.node());
            parts += split.len() - 1;
            assert_eq!(**sections::join(split, false).unwrap(), *json::write(resource.node()), "{}", file.display());
            let made = apply(&mut resource, None, &rules(Some(1)));
            for row in made.unwrap_or_else(|error| panic!("{}: {error}", file.display())) {
                *rows.entry(row.table).or_insert(0) += usize::from(!row.fields.is_empty());
            }
            passed += 1;
        }
    }
    println!("{passed} resources, {parts} parts beside the base, rows: {rows:?}");
    assert!(passed > 1500 && parts > 100 && rows.len() == 5, "{passed} {parts} {rows:?}");
}

#[test]
fn a_row_is_in_the_sections_of_its_elements() {
    let mut patient = checked(json!({
        "resourceType": "Patient",
        "identifier": [
            { "type": { "coding": [{ "code": "SS" }] }, "system": "http://hl7.org/fhir/sid/us-ssn", "value": "999-11-2222" },
            { "type": { "coding": [{ "code": "MB" }] }, "value": "W1" }
        ],
        "name": [{ "family": "Ann" }], "telecom": [{ "system": "phone", "value": "555-0100" }]
    }));
    let rows = apply(&mut patient, None, &rules(Some(1))).unwrap();
    let fields = &row(&rows, "patient").unwrap().fields;
    let names = |section: Section| fields.get(&section).map(|all| all.keys().cloned().collect::<Vec<_>>());
    assert_eq!(names(Section::Identity).unwrap(), ["family_name", "mrn"]);
    assert_eq!(names(Section::Contact).unwrap(), ["phones"]);
    assert_eq!(names(Section::GovernmentId).unwrap(), ["ssn"]);
    assert_eq!(names(Section::Insurance).unwrap(), ["insurance_numbers"]);
    assert_eq!(fields[&Section::GovernmentId]["ssn"], "999-11-2222");
}

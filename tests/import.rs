//! `phial import` from outside: everything goes in once, bad entries are named with their place and left out, and a
//! second run changes nothing.

use std::fs::{self, File};
use std::io::Write;

use serde_json::{Value, json};

use crate::harness::{Data, Engine};

/// Columns of the last line of the summary.
#[derive(Debug, PartialEq, Eq)]
struct All {
    created: u64,
    updated: u64,
    unchanged: u64,
    refused: u64,
}

struct Ran {
    all: All,
    errors: String,
    success: bool,
}

fn import(data: &Data, path: &str) -> Ran {
    import_with(data, path, "allow")
}

fn import_with(data: &Data, path: &str, references: &str) -> Ran {
    let out = data.command(&["import", path]).env("PHIAL_REFERENCES", references).output().expect("the program starts");
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr).into_owned());
    let line = text.lines().find(|line| line.starts_with("all ")).unwrap_or_else(|| panic!("{text}{errors}"));
    let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
    let all = All { created: numbers[0], updated: numbers[1], unchanged: numbers[2], refused: numbers[4] };
    Ran { all, errors, success: out.status.success() }
}

fn all(created: u64, updated: u64, unchanged: u64, refused: u64) -> All {
    All { created, updated, unchanged, refused }
}

/// A folder with one of everything: 9 good resources, 4 bad places.
fn fill(data: &Data) -> String {
    let folder = data.path("input");
    fs::create_dir_all(folder.join("inner")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    // Without an MRN: the server gives one, and a second run must see that nothing changed.
    let patient =
        json!({"resourceType": "Patient", "id": "p1", "name": [{"family": "Nuñez"}], "birthDate": "1980-02-29"});
    let observation = |id: Value, of: &str| json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": of}});
    let lines = [
        patient.to_string(),
        "{\"resourceType\": \"Patient\", \"id\": \"bad\", \"birthDate\": \"1980-02-30\"}".into(),
        "{broken".into(),
        observation(json!("o1"), "Patient/p1").to_string(),
    ];
    let mut gzip =
        flate2::write::GzEncoder::new(File::create(folder.join("a.ndjson.gz")).unwrap(), flate2::Compression::fast());
    gzip.write_all(lines.join("\n").as_bytes()).unwrap();
    gzip.finish().unwrap();
    let mut anonymous = observation(Value::Null, "urn:uuid:0b7c2a4e-93d1-4c58-8c0f-0c6d3e8f7a10");
    anonymous.as_object_mut().unwrap().shift_remove("id");
    let post = |url: Option<&str>, resource: Value| {
        let mut entry = json!({"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}});
        if let Some(url) = url {
            entry["fullUrl"] = json!(url);
        }
        entry
    };
    let entries = [
        post(
            Some("urn:uuid:0b7c2a4e-93d1-4c58-8c0f-0c6d3e8f7a10"),
            json!({"resourceType": "Patient", "gender": "other"}),
        ),
        post(None, anonymous),
    ];
    let bundle = |kind: &str, entries: &[Value]| json!({"resourceType": "Bundle", "type": kind, "entry": entries});
    write("b.json", &bundle("transaction", &entries).to_string());
    let good = json!({"resource": patient_named("t1"), "request": {"method": "PUT", "url": "Patient/t1"}});
    let bad = json!({"resource": {"resourceType": "Observation", "id": "t2", "status": "final"},
                     "request": {"method": "PUT", "url": "Observation/t2"}});
    // Its entries on the third and fourth line.
    let lines = format!("{{\"resourceType\": \"Bundle\", \"type\": \"transaction\",\n\"entry\": [\n{good},\n{bad}]}}");
    write("c.json", &lines);
    let collected = [
        json!({"fullUrl": "urn:uuid:5e4ab8a7-6f7e-4f5c-b6f2-61f8a2d1c001", "resource": patient_named("c1")}),
        json!({"resource": observation(json!("c2"), "urn:uuid:5e4ab8a7-6f7e-4f5c-b6f2-61f8a2d1c001")}),
        json!({"resource": {"resourceType": "Patient", "id": "c3", "gender": "martian"}}),
    ];
    write("inner/d.json", &bundle("collection", &collected).to_string());
    write("inner/e.xml", "<Patient xmlns=\"http://hl7.org/fhir\"><id value=\"x1\"/><active value=\"true\"/></Patient>");
    write("f.json", &json!({"resourceType": "Basic", "code": {"text": "without an id"}}).to_string());
    write("notes.txt", "not FHIR");
    folder.to_str().unwrap().to_owned()
}

fn patient_named(id: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "active": true})
}

fn imports_once(engine: Engine) {
    let data = Data::new(engine);
    let folder = fill(&data);
    let first = import(&data, &folder);
    // Of the transaction with a bad entry both count as refused.
    assert_eq!(first.all, all(8, 0, 0, 5), "{}", first.errors);
    assert!(!first.success, "refused entries end it with an error");
    for place in [
        "a.ndjson.gz:2: Patient.birthDate: ",
        "a.ndjson.gz:3: ",
        "c.json:4: Bundle.entry[1].resource.code: ",
        "c.json: nothing of this transaction of 2 entries is kept",
        "inner/d.json:1, Bundle.entry[2]: Patient.gender: ",
        "notes.txt",
    ] {
        assert!(first.errors.contains(place), "{place} in:\n{}", first.errors);
    }
    assert!(!first.errors.contains("martian"), "values are not quoted");
    let second = import(&data, &folder);
    assert_eq!(second.all, all(0, 0, 8, 5), "{}", second.errors);

    let server = data.serve();
    let get = |path: &str| server.client.get(&format!("/fhir/{path}")).unwrap();
    assert_eq!(get("Patient/t1").status, 404, "nothing of a refused transaction is kept");
    let patient = get("Patient/p1").json();
    assert_eq!(patient["meta"]["versionId"], "1");
    assert_eq!(patient["identifier"][0]["type"]["coding"][0]["code"], "MR", "{patient}");
    assert_eq!(get("Patient/0b7c2a4e-93d1-4c58-8c0f-0c6d3e8f7a10").json()["gender"], "other");
    assert_eq!(get("Observation/c2").json()["subject"]["reference"], "Patient/c1");
    let found = get("Observation?patient=Patient/0b7c2a4e-93d1-4c58-8c0f-0c6d3e8f7a10&_total=accurate").json();
    assert_eq!(found["total"], 1, "{found}");
    assert_eq!(get("Patient/x1").json()["active"], true);
    let events = get("AuditEvent?_count=100").json();
    let imported = |event: &Value| event.to_string().contains("import");
    let count = events["entry"].as_array().unwrap().iter().filter(|entry| imported(&entry["resource"])).count();
    assert!(count >= 4, "the import is on record: {count}");
}

#[test]
fn a_folder_goes_in_once_on_sqlite() {
    imports_once(Engine::Sqlite);
}

#[test]
fn a_folder_goes_in_once_on_postgres() {
    imports_once(Engine::Postgres);
}

/// Where references must lead somewhere, files come in any order, and what never comes is named.
fn imports_in_any_order(engine: Engine) {
    let data = Data::new(engine);
    let folder = data.path("input");
    fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let observation = |id: &str, of: &str| json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": of}});
    let put = |resource: Value| {
        let url = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        json!({"resource": resource, "request": {"method": "PUT", "url": url}})
    };
    let bundle =
        |entries: &[Value]| json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string();
    write(
        "a.ndjson",
        &[observation("o1", "Patient/p1"), observation("o2", "Patient/never")].map(|it| it.to_string()).join("\n"),
    );
    write("b.json", &bundle(&[put(observation("o3", "Patient/p1"))]));
    write("c.json", &bundle(&[put(patient_named("p2")), put(observation("o4", "Patient/nobody"))]));
    let circle = |id: &str, of: &str| {
        json!({"resourceType": "Organization", "id": id, "name": id, "partOf": {"reference": of}}).to_string()
    };
    write("d.json", &circle("x", "Organization/y"));
    write("e.json", &circle("y", "Organization/x"));
    write("z.json", &patient_named("p1").to_string());
    let path = folder.to_str().unwrap();
    let ran = import_with(&data, path, "reject");
    assert_eq!(ran.all, all(5, 0, 0, 3), "{}", ran.errors);
    for line in [
        "a.ndjson:2: Observation.subject: There is no Patient/never that this reference could be to.",
        "c.json:1: Bundle.entry[1].resource.subject: There is no Patient/nobody that",
        "c.json: nothing of this transaction of 2 entries is kept",
    ] {
        assert!(ran.errors.contains(line), "{line} in:\n{}", ran.errors);
    }
    assert_eq!(ran.errors.matches("refused ").count(), 3, "each is told once:\n{}", ran.errors);
    let ran = import_with(&data, path, "allow");
    assert_eq!(ran.all, all(3, 0, 5, 0), "{}", ran.errors);
}

#[test]
fn files_come_in_any_order_where_references_are_checked_on_sqlite() {
    imports_in_any_order(Engine::Sqlite);
}

#[test]
fn files_come_in_any_order_where_references_are_checked_on_postgres() {
    imports_in_any_order(Engine::Postgres);
}

#[test]
fn a_path_that_is_not_there_stops_everything() {
    let data = Data::new(Engine::Sqlite);
    let out = data.run(&["import", "nowhere.json"]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("nowhere.json"));
}

//! The official GraphQL suite for R4, over HTTP against the real program. What is not answered as the suite says is
//! listed in `conformance/graphql-exceptions.txt`, which may only shrink.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::xml::{Token, tokens};
use crate::harness::{Client, Data, Engine, Reply, difference, samples};

/// What the queries of the suite look at. Its searches expect no more than this; [`LATE`] comes after them.
const RESOURCES: [&str; 8] = [
    "Patient-example",
    "Patient-xds",
    "Patient-newborn",
    "Condition-example",
    "Observation-example",
    "Observation-20minute-apgar-score",
    "MedicationDispense-meddisp008",
    "List-long",
];
/// An active patient that the searches of the suite do not know.
const LATE: &str = "Patient-glossy";
const CASES: usize = 29;

fn folder() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/suites/graphql-r4");
    if !path.is_dir() {
        println!("skipped: the suites are not beside the checkout (../shared/data/suites)");
        return None;
    }
    Some(path)
}

fn exceptions() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/graphql-exceptions.txt");
    let text = fs::read_to_string(path).expect("the list is readable");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.split_once('\t')).map(|(name, why)| (name.to_owned(), why.to_owned())).collect()
}

fn load(client: &Client, samples: &Path, names: &[&str]) {
    for name in names {
        let file = samples.join("hl7-r4-examples/json").join(format!("{name}.json"));
        let mut resource: Value = serde_json::from_slice(&fs::read(&file).expect("a sample")).expect("JSON");
        if *name == "List-long" {
            resource["id"] = json!("example-long");
        }
        let path = format!("/fhir/{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        let reply = client.put_json(&path, &resource).expect("an answer");
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
    }
}

/// What differs from server to server: cursors, and scores that a search without ranking has none of.
fn comparable(mut data: Value) -> Value {
    let connection = &mut data["PatientConnection"];
    if let Some(members) = connection.as_object_mut() {
        for member in ["first", "next", "previous", "last", "count", "mode"] {
            members.remove(member);
        }
        for edge in members["edges"].as_array_mut().expect("a list") {
            let edge = edge.as_object_mut().expect("an object");
            edge.retain(|name, _| name == "resource");
        }
        sort(&mut members["edges"], "/resource/id");
    }
    if data.get("PatientConnection").is_some_and(Value::is_null) {
        data.as_object_mut().expect("an object").remove("PatientConnection");
    }
    if data.get("PatientList").is_some() {
        sort(&mut data["PatientList"], "/id");
    }
    data
}

fn sort(list: &mut Value, by: &str) {
    let items = list.as_array_mut().expect("a list");
    items.sort_by_key(|item| item.pointer(by).and_then(Value::as_str).unwrap_or_default().to_owned());
}

fn unordered(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().map(|(name, value)| (name.clone(), unordered(value))).collect();
            json!(sorted)
        }
        Value::Array(items) => items.iter().map(unordered).collect(),
        other => other.clone(),
    }
}

fn outcome(folder: &Path, output: &str, reply: &Reply) -> Result<(), String> {
    let body = reply.json();
    if output == "$error" {
        return match body["errors"].as_array().is_some_and(|errors| !errors.is_empty()) {
            true => Ok(()),
            false => Err(format!("no error: {body}")),
        };
    }
    if reply.status != 200 || body.get("errors").is_some() {
        return Err(format!("{} {body}", reply.status));
    }
    let wanted: Value = serde_json::from_slice(&fs::read(folder.join(output)).expect("a case")).expect("JSON");
    let (wanted, data) = (unordered(&comparable(wanted)), unordered(&comparable(body["data"].clone())));
    difference(&wanted, &data, "data").map_or(Ok(()), Err)
}

#[test]
fn the_official_suite_is_answered_as_it_says() {
    let (Some(folder), Some(samples)) = (folder(), samples::folder()) else { return };
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    load(&server.client, &samples, &RESOURCES);
    let manifest = fs::read_to_string(folder.join("manifest.xml")).expect("the list of cases");
    let mut exceptions = exceptions();
    let (mut cases, mut failures) = (0, Vec::new());
    let mut tests: Vec<Vec<(String, String)>> = tokens(&manifest)
        .into_iter()
        .filter_map(|token| match token {
            Token::Open(name, attributes) if name == "test" => Some(attributes),
            _ => None,
        })
        .collect();
    let late = |attributes: &Vec<(String, String)>| attributes.iter().any(|(_, value)| value.contains("glossy"));
    tests.sort_by_key(late);
    let mut loaded = false;
    for attributes in tests {
        if late(&attributes) && !loaded {
            load(&server.client, &samples, &[LATE]);
            loaded = true;
        }
        cases += 1;
        let attribute = |name: &str| attributes.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value);
        let query = fs::read_to_string(folder.join(attribute("source"))).expect("a case");
        let path = match attribute("context") {
            "" => "/fhir/$graphql".to_owned(),
            context => format!("/fhir/{context}"),
        };
        let mut asked = json!({"query": query});
        if !attribute("operation").is_empty() {
            asked["operationName"] = json!(attribute("operation"));
            asked["variables"] = json!({"var": true});
        }
        let reply = server.client.post_json(&path, &asked).expect("an answer");
        let result = outcome(&folder, attribute("output"), &reply);
        match (exceptions.remove(attribute("name")), result) {
            (None, Ok(())) | (Some(_), Err(_)) => {}
            (None, Err(why)) => failures.push(format!("{}: {why}", attribute("name"))),
            (Some(_), Ok(())) => failures.push(format!("{}: passes, and is listed", attribute("name"))),
        }
    }
    assert_eq!(cases, CASES);
    assert!(exceptions.is_empty(), "listed, and no cases: {exceptions:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

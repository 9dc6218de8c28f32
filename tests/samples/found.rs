//! The official examples of R4 are found by every search parameter for which they hold a value, by that parameter alone.
//! What is not is listed in `conformance/search-exceptions.txt`, which may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use phial::fhir::definitions;
use serde_json::{Value, json};

use super::asked;
use crate::harness::samples::{self, Content};
use crate::harness::{Client, Data, Engine, Reply};

/// Entries of one batch.
const BATCH: usize = 50;
const WORKERS: usize = 4;
/// Examples that break R4 (`FAULTS`).
const REFUSED_MAX: usize = 5;
/// Parameters, type by type, that nothing is found by. Only ever lower it.
const EXCEPTIONS_MAX: usize = 2;
/// Parameters, type by type, for which some example holds a value.
const PARAMETERS_MIN: usize = 1_885;
const SET: &str = "hl7-r4-examples/json";

/// `Type`, parameter, modifier and value, to the ids that must be found.
type Searches = BTreeMap<(String, &'static str, &'static str, String), BTreeSet<String>>;

/// Examples for each parameter: some are refused, and find nothing.
const HOLDERS: usize = 2;

/// Every example that `all` takes; otherwise of each type as few as hold a value for every parameter that any holds.
fn chosen(all: bool) -> Vec<Value> {
    let mut chosen = Vec::new();
    let mut known = BTreeMap::new();
    samples::each(SET, true, &mut |sample| {
        let Content::Resource(resource) = sample.content else { return };
        let Some(kind) = resource["resourceType"].as_str().and_then(|name| definitions().type_id(name)) else { return };
        let params = definitions().params(kind).iter();
        let held: Vec<_> = params.filter(|param| asked::of(param, kind, &resource).is_some()).collect();
        let mut holders = |code| {
            let count: &mut usize = known.entry((kind, code)).or_default();
            *count += 1;
            *count
        };
        if held.iter().filter(|param| holders(param.code) <= HOLDERS).count() > 0 || all {
            chosen.push(resource);
        }
    });
    chosen
}

struct Run<'a> {
    data: &'a Data,
    port: u16,
    client: Mutex<(Client, Instant)>,
}

impl Run<'_> {
    fn client(&self) -> Client {
        let mut client = self.client.lock().expect("no worker panicked");
        if client.1.elapsed() > super::TOKEN_EVERY {
            *client = (client.0.clone(), Instant::now());
            client.0.token = Some(self.data.token(self.port));
        }
        client.0.clone()
    }

    /// Puts the examples; gives those that were taken.
    fn load(&self, resources: Vec<Value>) -> Vec<Value> {
        let mut taken = Vec::new();
        let mut refused = Vec::new();
        for chunk in resources.chunks(BATCH) {
            let entry = |resource: &Value| json!({"resource": resource, "request": {"method": "PUT", "url": address(resource)}});
            let entries: Vec<Value> = chunk.iter().map(entry).collect();
            let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": entries});
            let reply = self.client().post_json("/fhir", &bundle).expect("an answer");
            assert_eq!(reply.status, 200, "{:.500}", reply.text());
            let answer = reply.json();
            for (n, resource) in chunk.iter().enumerate() {
                match answer["entry"][n]["response"]["status"].as_str() {
                    Some("201 Created" | "200 OK") => taken.push(resource.clone()),
                    status => refused.push(format!("{} {status:?}", address(resource))),
                }
            }
        }
        assert!(refused.len() <= REFUSED_MAX, "{refused:?}");
        taken
    }

    /// What of `expected` one search, from page to page, does not find; or why it cannot be asked.
    fn missing(&self, path: &str, expected: &BTreeSet<String>) -> Result<BTreeSet<String>, Reply> {
        let mut left = expected.clone();
        let mut next = Some(path.to_owned());
        while let Some(path) = next.filter(|_| !left.is_empty()) {
            let reply = self.client().get(&path).expect("an answer");
            if reply.status != 200 {
                return Err(reply);
            }
            let page = reply.json();
            for id in super::ids(&page) {
                left.remove(&id);
            }
            let links = page["link"].as_array().into_iter().flatten();
            let link = links.filter(|link| link["relation"] == "next").find_map(|link| link["url"].as_str());
            next = link.map(|url| url[url.find("/fhir").expect("our own address")..].to_owned());
        }
        Ok(left)
    }
}

fn address(resource: &Value) -> String {
    let part = |name: &str| resource[name].as_str().unwrap_or_default();
    format!("{}/{}", part("resourceType"), part("id"))
}

/// One for each value, or for each parameter of a type (`each` false).
fn searches(resources: &[Value], each: bool) -> Searches {
    let mut searches = Searches::new();
    let mut known = BTreeSet::new();
    for resource in resources {
        let name = resource["resourceType"].as_str().expect("a type");
        let kind = definitions().type_id(name).expect("a type");
        for param in definitions().params(kind) {
            let Some((modifier, value)) = asked::of(param, kind, resource) else { continue };
            if !known.insert((kind, param.code)) && !each {
                continue;
            }
            let ids = searches.entry((name.to_owned(), param.code, modifier, value)).or_default();
            ids.insert(resource["id"].as_str().expect("an id").to_owned());
        }
    }
    searches
}

fn path(name: &str, code: &str, modifier: &str, value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    // The server's own record of these requests is made of AuditEvents too: those of the set are older than this run.
    let older = match name {
        "AuditEvent" => format!("&date=lt{}", jiff::Timestamp::now().strftime("%Y")),
        _ => String::new(),
    };
    format!("/fhir/{name}?{code}{modifier}={encoded}{older}&_elements=id&_count=500")
}

/// (type, parameter) of the list, with the reason.
fn exceptions() -> BTreeMap<(String, String), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/search-exceptions.txt");
    let text = fs::read_to_string(file).expect("the list is there");
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [kind, code, reason] = cells[..] else { panic!("{line}: type, parameter and reason are expected") };
        ((kind.to_owned(), code.to_owned()), reason.to_owned())
    })
    .collect()
}

fn every_example_is_found(engine: Engine) {
    if samples::folder().is_none() {
        return;
    }
    let all = std::env::var("PHIAL_SAMPLES").is_ok_and(|value| value == "all");
    let began = Instant::now();
    let data = Data::new(engine);
    let server = data.serve();
    let run = Run { data: &data, port: server.port(), client: Mutex::new((server.client.clone(), Instant::now())) };
    let resources = run.load(chosen(all));
    let loaded = began.elapsed();
    let searches: Vec<_> = searches(&resources, all).into_iter().collect();
    let (at, failed) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<(String, String), Vec<String>>::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(((name, code, modifier, value), ids)) = searches.get(at.fetch_add(1, Ordering::Relaxed))
                {
                    let path = path(name, code, modifier, value);
                    let fault = match run.missing(&path, ids) {
                        Ok(left) if left.is_empty() => continue,
                        Ok(left) => format!("{path} does not find {left:?}"),
                        Err(reply) => format!("{path}: {} {:.300}", reply.status, reply.text()),
                    };
                    let mut failed = failed.lock().expect("no worker panicked");
                    failed.entry((name.clone(), (*code).to_owned())).or_default().push(fault);
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no worker panicked");
    let params: BTreeSet<_> = searches.iter().map(|((name, code, ..), _)| (name, code)).collect();
    let values: usize = searches.iter().map(|(_, ids)| ids.len()).sum();
    println!(
        "{engine:?}: {} examples of {} types, {values} values of {} parameters in {} searches; loaded in {:.1} s, {:.1} s in all",
        resources.len(),
        params.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(),
        params.len(),
        searches.len(),
        loaded.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let known = exceptions();
    assert!(
        known.len() <= EXCEPTIONS_MAX && known.values().all(|reason| reason.len() > 10),
        "the list may only shrink"
    );
    let unknown: Vec<_> = failed.iter().filter(|(param, _)| !known.contains_key(*param)).collect();
    assert!(unknown.is_empty(), "{} parameters: {unknown:#?}", unknown.len());
    let needless: Vec<_> = known.keys().filter(|param| !failed.contains_key(*param)).collect();
    assert!(needless.is_empty(), "found, and to be taken from the list: {needless:?}");
    assert!(params.len() >= PARAMETERS_MIN, "{} parameters", params.len());
}

#[test]
fn every_example_is_found_on_sqlite() {
    every_example_is_found(Engine::Sqlite);
}

#[test]
fn every_example_is_found_on_postgres() {
    every_example_is_found(Engine::Postgres);
}

//! Sample sets that nobody on this project wrote, through HTTP: every resource goes in, is read back equal in JSON and
//! in XML, and is found by search. Exactly those are refused that break R4, each at the place that breaks it.
//!
//! `make test` takes a selection, `make samples` (PHIAL_SAMPLES=all) everything, with a table of counts and times.

mod asked;
mod bundle;
mod equal;
mod found;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::samples::{self, Content};
use crate::harness::{Client, Data, Engine, Reply, Request, Server, xml};

const WORKERS: usize = 8;
/// Resources handled at a time.
const CHUNK: usize = 512;
/// A token is replaced before its five minutes are over.
const TOKEN_EVERY: Duration = Duration::from_secs(200);
const JSON: &str = "application/fhir+json";
const XML: &str = "application/fhir+xml";

/// What is refused, by the place of the first fault, indices left out. The notes on the sets name most of them; those
/// they do not name break a cardinality that the JSON schema used there does not see, and are marked.
const FAULTS: &[(&str, &[(&str, usize)])] = &[
    ("inferno", &[("Media.content.link", 1), ("Observation.effective.stop", 1)]),
    (
        "hl7-r4-examples/json",
        // not named: items without the required linkId, and references to types that their element does not allow
        &[
            ("DeviceMetric.parent", 1),
            ("DeviceUseStatement.reasonReference[]", 1),
            ("MedicationRequest.dispenseRequest.performer", 1),
            ("Observation.performer[]", 1),
            ("Questionnaire.item[].item[].linkId", 1),
        ],
    ),
    // not named: a DeviceDefinition where a Device is to be
    ("hl7-r4-examples", &[("DeviceMetric.parent", 1)]),
    (
        "fhir-test-data-r4",
        // not named: an ImplementationGuide without fhirVersion
        &[("Condition.context", 619), ("DiagnosticReport.context", 216), ("ImplementationGuide.fhirVersion", 1)],
    ),
    (
        "microsoft",
        // not named: arrays where one value is allowed (12), a participant without status, an entry that asks for a PUT to
        // another id than its resource's, and participants who are patients
        &[
            ("Appointment.participant[].status", 1),
            ("DiagnosticReport.encounter", 6),
            ("DiagnosticReport.id", 1),
            ("DocumentReference.context.encounter", 3),
            ("Encounter.participant[].individual", 3),
            ("ImagingStudy.series[].instance[].sopClass", 1),
            ("Organization.identifier[].type", 6),
        ],
    ),
    (
        "generated-clinosim",
        &[
            ("DiagnosticReport.code.coding[].code", 32),
            // not named: an ImagingStudy where a Media is to be
            ("DiagnosticReport.media[].link", 137),
            ("MedicationAdministration.dosage.doseAndRate", 268),
            ("MedicationAdministration.dosage.timing", 414),
        ],
    ),
];

/// What came of one set.
#[derive(Default)]
struct Outcome {
    sent: usize,
    /// Current resources by type.
    stored: BTreeMap<String, BTreeSet<String>>,
    refused: BTreeMap<String, usize>,
    searched: usize,
    xml: usize,
    /// What went wrong.
    failures: Vec<String>,
}

/// A resource that went in, as it is to come back.
struct Stored {
    name: String,
    kind: String,
    id: String,
    resource: Value,
}

/// Checks one set on one server.
struct Run<'a> {
    data: &'a Data,
    server: &'a Server,
    /// The client and when its token was given: tokens live five minutes.
    client: Mutex<(Client, Instant)>,
    outcome: Mutex<Outcome>,
    /// Of so many resources one is searched for by its values too.
    search_every: usize,
}

fn set(name: &str, engine: Engine) {
    if samples::folder().is_none() {
        return;
    }
    let all = std::env::var("PHIAL_SAMPLES").is_ok_and(|value| value == "all");
    let data = Data::new(engine);
    let server = data.serve();
    let run = Run {
        data: &data,
        server: &server,
        client: Mutex::new((server.client.clone(), Instant::now())),
        outcome: Mutex::default(),
        search_every: if all { 20 } else { 5 },
    };
    let started = Instant::now();
    let mut chunk = Vec::new();
    samples::each(name, all, &mut |sample| match sample.content {
        Content::Bundle(bundle) => {
            run.resources(std::mem::take(&mut chunk));
            run.bundle(&sample.name, bundle);
        }
        content => {
            chunk.push((sample.name, content));
            if chunk.len() >= CHUNK {
                run.resources(std::mem::take(&mut chunk));
            }
        }
    });
    run.resources(chunk);
    run.all_are_found();
    let outcome = run.outcome.into_inner().expect("no worker panicked");
    report(name, engine, &outcome, started.elapsed());
    assert!(outcome.failures.is_empty(), "{name}: {} failures, first: {:#?}", outcome.failures.len(), {
        &outcome.failures[..outcome.failures.len().min(10)]
    });
    assert!(outcome.stored.values().map(BTreeSet::len).sum::<usize>() > 0, "{name}: nothing was stored");
    let known = FAULTS.iter().find(|(set, _)| *set == name).map_or(&[][..], |(_, faults)| faults);
    for (place, count) in &outcome.refused {
        let most = known.iter().find(|(known, _)| known == place).map_or(0, |(_, most)| *most);
        assert!(*count <= most, "{name}: {count} refused at {place}, expected at most {most}");
    }
    if all {
        let expected = known.iter().map(|(place, count)| ((*place).to_owned(), *count)).collect();
        assert_eq!(outcome.refused, expected, "{name}");
    }
}

fn report(name: &str, engine: Engine, outcome: &Outcome, took: Duration) {
    let stored: usize = outcome.stored.values().map(BTreeSet::len).sum();
    let refused: usize = outcome.refused.values().sum();
    println!(
        "{name:22} {engine:?}: {:6} sent, {stored:6} stored of {:3} types, {refused:4} refused, {:6} through XML, {:6} \
         searched for, {:4} failures, {:7.1} s",
        outcome.sent,
        outcome.stored.len(),
        outcome.xml,
        outcome.searched,
        outcome.failures.len(),
        took.as_secs_f64()
    );
}

impl Run<'_> {
    fn client(&self) -> Client {
        let mut client = self.client.lock().expect("no worker panicked");
        if client.1.elapsed() > TOKEN_EVERY {
            client.0.token = Some(self.data.token(self.server.port()));
            client.1 = Instant::now();
        }
        client.0.clone()
    }

    fn fail(&self, what: String) {
        self.outcome.lock().expect("no worker panicked").failures.push(what);
    }

    /// Puts resources and checks each; those of one id one after another, the rest side by side.
    fn resources(&self, chunk: Vec<(String, Content)>) {
        let mut lanes: Vec<Vec<(String, Content)>> = (0..WORKERS).map(|_| Vec::new()).collect();
        for (name, content) in chunk {
            let key = match &content {
                Content::Resource(resource) | Content::Bundle(resource) => {
                    format!("{}/{}", resource["resourceType"], resource["id"])
                }
                Content::Xml(_) => name.clone(),
            };
            let lane = key.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
            lanes[lane % WORKERS].push((name, content));
        }
        std::thread::scope(|scope| {
            for lane in lanes {
                scope.spawn(|| {
                    for (name, content) in lane {
                        self.outcome.lock().expect("no worker panicked").sent += 1;
                        match content {
                            Content::Xml(document) => self.xml_document(&name, &document),
                            Content::Resource(resource) | Content::Bundle(resource) => self.resource(name, resource),
                        }
                    }
                });
            }
        });
    }

    /// PUT under its own id (POST when it has none), then everything that is asked of a stored resource.
    fn resource(&self, name: String, mut resource: Value) {
        let kind = resource["resourceType"].as_str().unwrap_or_default().to_owned();
        let reply = match resource["id"].as_str() {
            Some(id) => self.client().put_json(&format!("/fhir/{kind}/{id}"), &resource),
            None => self.client().post_json(&format!("/fhir/{kind}"), &resource),
        };
        let reply = reply.expect("an answer");
        if !matches!(reply.status, 200 | 201) {
            return self.refused(&name, &reply);
        }
        let location = reply.header("location").or(reply.header("content-location")).unwrap_or_default();
        let id = match (resource["id"].as_str(), location.split('/').rev().nth(2)) {
            (Some(id), _) => id.to_owned(),
            (None, Some(id)) => {
                resource["id"] = Value::from(id);
                id.to_owned()
            }
            (None, None) => return self.fail(format!("{name}: a create without Location")),
        };
        self.stored(&Stored { name, kind, id, resource });
    }

    /// Notes a refusal by its place.
    fn refused(&self, name: &str, reply: &Reply) {
        if reply.status != 400 && reply.status != 422 {
            return self.fail(format!("{name}: {} {}", reply.status, reply.text()));
        }
        match first_fault(&reply.json()) {
            Some(place) => *self.outcome.lock().expect("no worker panicked").refused.entry(place).or_default() += 1,
            None => self.fail(format!("{name}: refused without a place: {}", reply.text())),
        }
    }

    /// What is stored comes back equal, as JSON and through XML, and is found.
    fn stored(&self, stored: &Stored) {
        let path = format!("/fhir/{}/{}", stored.kind, stored.id);
        self.comes_back(stored, &path, false);
        self.through_xml(stored, &path);
        let count = {
            let mut outcome = self.outcome.lock().expect("no worker panicked");
            outcome.xml += 1;
            outcome.stored.entry(stored.kind.clone()).or_default().insert(stored.id.clone());
            outcome.xml
        };
        if count.is_multiple_of(self.search_every) {
            self.is_found_by_values(stored);
        }
    }

    /// What the server writes as XML goes in again, and is the same resource still.
    fn through_xml(&self, stored: &Stored, path: &str) {
        let document = self.get(path, XML);
        if document.status != 200 {
            return self.fail(format!("{}: no XML: {} {}", stored.name, document.status, document.text()));
        }
        let headers = vec![("Content-Type", XML), ("Accept", JSON)];
        // An AuditEvent cannot be changed: its XML makes another one.
        let again = stored.kind == "AuditEvent";
        let collection = format!("/fhir/{}", stored.kind);
        let (method, to) = if again { ("POST", collection.as_str()) } else { ("PUT", path) };
        let reply = self.client().send(&Request { method, path: to, body: Some(&document.body), headers });
        let reply = reply.expect("an answer");
        if !matches!(reply.status, 200 | 201) {
            return self.fail(format!("{}: its own XML is refused: {} {}", stored.name, reply.status, reply.text()));
        }
        if again {
            let mut resource = stored.resource.clone();
            let id = reply.json()["id"].as_str().unwrap_or_default().to_owned();
            resource["id"] = Value::from(id.as_str());
            let made = Stored { name: stored.name.clone(), kind: stored.kind.clone(), id, resource };
            return self.comes_back(&made, &format!("{collection}/{}", made.id), true);
        }
        self.comes_back(stored, path, true);
    }

    fn get(&self, path: &str, accept: &str) -> Reply {
        let request = Request { method: "GET", path, body: None, headers: vec![("Accept", accept)] };
        self.client().send(&request).expect("an answer")
    }

    fn comes_back(&self, stored: &Stored, path: &str, through_xml: bool) {
        let reply = self.get(path, JSON);
        let road = if through_xml { "through XML" } else { "as JSON" };
        if reply.status != 200 {
            return self.fail(format!("{} {road}: {} {}", stored.name, reply.status, reply.text()));
        }
        if let Some(what) = equal::difference(&stored.resource, &reply.json(), through_xml) {
            self.fail(format!("{} {road}: {what}", stored.name));
        }
    }

    /// A document of somebody else's in XML: goes in and comes back with the same content.
    fn xml_document(&self, name: &str, document: &[u8]) {
        let text = String::from_utf8_lossy(document);
        let sent = xml::tokens(&text);
        let Some((kind, own_id)) = equal::xml_identity(&sent) else {
            return self.fail(format!("{name}: no resource in the document"));
        };
        let collection = format!("/fhir/{kind}");
        let own_path = own_id.as_ref().map(|id| format!("{collection}/{id}"));
        let (method, path) = own_path.as_deref().map_or(("POST", collection.as_str()), |path| ("PUT", path));
        let headers = vec![("Content-Type", XML), ("Accept", JSON)];
        let put = Request { method, path, body: Some(document), headers };
        let reply = self.client().send(&put).expect("an answer");
        if !matches!(reply.status, 200 | 201) {
            return self.refused(name, &reply);
        }
        let (sent, id) = match own_id {
            Some(id) => (sent, id),
            None => {
                let id = reply.json()["id"].as_str().unwrap_or_default().to_owned();
                (equal::with_id(sent, &id), id)
            }
        };
        let path = format!("{collection}/{id}");
        let back = self.get(&path, XML);
        if let Some(what) = equal::xml_difference(sent, xml::tokens(&back.text())) {
            self.fail(format!("{name} as XML: {what}"));
        }
        let resource = self.get(&path, JSON).json();
        self.stored(&Stored { name: name.to_owned(), kind, id, resource });
    }

    /// By its id, and by an identifier, subject, code and family name when it has them.
    fn is_found_by_values(&self, stored: &Stored) {
        let kind = &stored.kind;
        let mut queries = vec![format!("_id={}", stored.id)];
        if let Some((system, value)) = equal::identifier(&stored.resource) {
            queries.push(format!("_id={}&identifier={}", stored.id, encode(&format!("{system}|{value}"))));
        }
        if let Some(subject) = stored.resource["subject"]["reference"].as_str().filter(|text| is_local(text))
            && self.has_param(kind, "subject")
        {
            queries.push(format!("_id={}&subject={}", stored.id, encode(subject)));
        }
        if let Some((system, code)) = equal::coding(&stored.resource["code"])
            && self.has_param(kind, "code")
        {
            queries.push(format!("_id={}&code={}", stored.id, encode(&format!("{system}|{code}"))));
        }
        if let Some(family) = stored.resource["name"][0]["family"].as_str()
            && self.has_param(kind, "family")
        {
            queries.push(format!("_id={}&family={}", stored.id, encode(family)));
        }
        for query in queries {
            let reply = self.get(&format!("/fhir/{kind}?{query}"), JSON);
            self.outcome.lock().expect("no worker panicked").searched += 1;
            let found = reply.status == 200 && ids(&reply.json()).contains(&stored.id);
            if !found {
                self.fail(format!("{}: not found by {kind}?{query}: {} {}", stored.name, reply.status, reply.text()));
            }
        }
    }

    fn has_param(&self, kind: &str, name: &str) -> bool {
        static KNOWN: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().expect("no worker panicked");
        if known.is_empty() {
            let statement = self.get("/fhir/metadata", JSON).json();
            for resource in statement["rest"][0]["resource"].as_array().into_iter().flatten() {
                let names = resource["searchParam"].as_array().into_iter().flatten();
                let names = names.filter_map(|param| Some(param["name"].as_str()?.to_owned())).collect();
                known.insert(resource["type"].as_str().unwrap_or_default().to_owned(), names);
            }
        }
        known.get(kind).is_some_and(|names| names.contains(name))
    }

    /// Paging through each type gives exactly what was stored, and the accurate total says how many.
    fn all_are_found(&self) {
        let stored = self.outcome.lock().expect("no worker panicked").stored.clone();
        for (kind, expected) in stored {
            let mut found = BTreeSet::new();
            // The server's own record of these requests is made of AuditEvents too, more than one search counts: those of
            // the sets are older than this run.
            let older = if kind == "AuditEvent" {
                format!("&date=lt{}", jiff::Timestamp::now().strftime("%Y"))
            } else {
                String::new()
            };
            let mut next = Some(format!("/fhir/{kind}?_count=500&_total=accurate{older}"));
            let mut total = None;
            while let Some(path) = next {
                let reply = self.get(&path, JSON);
                if reply.status != 200 {
                    return self.fail(format!("{path}: {} {}", reply.status, reply.text()));
                }
                let page = reply.json();
                total = total.or(page["total"].as_u64());
                found.extend(ids(&page));
                let links = page["link"].as_array().into_iter().flatten();
                let link = links.filter(|link| link["relation"] == "next").find_map(|link| link["url"].as_str());
                next = link.map(|url| url[url.find("/fhir").expect("our own address")..].to_owned());
            }
            // None of them can be put twice: sent as XML too, each stands there again under an id of its own.
            let exact = kind != "AuditEvent";
            if !found.is_superset(&expected) || (exact && found.len() != expected.len()) {
                let missing: Vec<_> = expected.difference(&found).take(5).collect();
                self.fail(format!("{kind}: {} found of {}, missing {missing:?}", found.len(), expected.len()));
            }
            if exact && total != Some(expected.len() as u64) {
                self.fail(format!("{kind}: total {total:?} of {}", expected.len()));
            }
        }
    }
}

/// The place of the first error of an OperationOutcome, without indices.
fn first_fault(outcome: &Value) -> Option<String> {
    let issues = outcome["issue"].as_array()?;
    let mut places = issues.iter().filter(|issue| issue["severity"] == "error");
    let mut place = places.find_map(|issue| issue["expression"][0].as_str())?.to_owned();
    place.retain(|c| !c.is_ascii_digit());
    Some(place)
}

fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().into_iter().flatten().filter(|entry| entry["search"]["mode"] == "match");
    entries.filter_map(|entry| Some(entry["resource"]["id"].as_str()?.to_owned())).collect()
}

fn is_local(reference: &str) -> bool {
    reference.split_once('/').is_some_and(|(kind, id)| kind.starts_with(char::is_uppercase) && !id.contains('/'))
}

/// A value in a query: escaped for FHIR (commas, dollars, bars but the one between system and code), then for a URL.
fn encode(value: &str) -> String {
    let (system, code) = value.split_once('|').map_or((None, value), |(system, code)| (Some(system), code));
    let escape = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,").replace('$', "\\$").replace('|', "\\|");
    let text = system.map_or_else(|| escape(code), |system| format!("{}|{}", escape(system), escape(code)));
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

macro_rules! sets {
    ($($test:ident: $name:literal on $engine:ident;)*) => {
        $(#[test]
        fn $test() {
            set($name, Engine::$engine);
        })*

        /// No set is left out.
        #[test]
        fn every_set_has_its_test() {
            let tested = BTreeSet::from([$($name),*]);
            assert_eq!(tested, samples::names().into_iter().collect());
        }
    };
}

sets! {
    inferno: "inferno" on Sqlite;
    inferno_on_postgres: "inferno" on Postgres;
    hl7_examples: "hl7-r4-examples/json" on Sqlite;
    hl7_examples_on_postgres: "hl7-r4-examples/json" on Postgres;
    hl7_examples_in_xml: "hl7-r4-examples" on Sqlite;
    us_core: "us-core-packages" on Sqlite;
    synthea: "synthea-2018-smart" on Sqlite;
    test_data: "fhir-test-data-r4" on Sqlite;
    microsoft: "microsoft" on Sqlite;
    medplum: "medplum" on Sqlite;
    clinosim: "generated-clinosim" on Sqlite;
}

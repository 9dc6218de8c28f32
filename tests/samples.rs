//! Data that nobody on this project wrote goes in through HTTP, comes back equal in JSON and XML, and is found by
//! search. A selection by default, everything with `PHIAL_SAMPLES=all`.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::samples::{self, Content, Sample};
use crate::harness::{Client, Data, Engine, Reply, Request, Server, difference, xml};

/// Resources sent in one transaction when a set is a list of single resources.
const TOGETHER: usize = 100;
/// A token lives five minutes.
const TOKEN_EVERY_S: u64 = 200;
/// Faults that are printed of one set.
const FAULTS_SHOWN: usize = 25;

#[derive(Default)]
struct Count {
    sent: usize,
    stored: usize,
    refused: usize,
    equal: usize,
    xml_equal: usize,
    found: usize,
    seconds: f64,
    faults: Vec<String>,
}

/// One stored resource: what was sent and where it is.
struct Stored {
    name: String,
    sent: Value,
    /// `Type/id`.
    address: String,
}

struct Run<'a> {
    data: &'a Data,
    server: &'a Server,
    client: Client,
    token_since: Instant,
    count: Count,
}

#[test]
fn every_loadable_set_goes_in_comes_back_and_is_found() {
    let all = std::env::var("PHIAL_SAMPLES").is_ok_and(|value| value == "all");
    if samples::folder().is_none() {
        return;
    }
    println!(
        "{:<24}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "set", "sent", "stored", "refused", "equal", "as XML", "found", "s"
    );
    let mut faults = Vec::new();
    for name in samples::names() {
        // Sets share logical ids: each has an installation of its own.
        let data = Data::new(Engine::Sqlite);
        let server = data.serve();
        let count = Run::of(&data, &server).set(name, all);
        let Count { sent, stored, refused, equal, xml_equal, found, seconds, .. } = count;
        println!("{name:<24}{sent:>9}{stored:>9}{refused:>9}{equal:>9}{xml_equal:>9}{found:>9}{seconds:>9.1}");
        assert!(stored > 0, "{name}: nothing was stored");
        assert!(server.terminate().success());
        faults.extend(count.faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    let shown: Vec<&String> = faults.iter().take(FAULTS_SHOWN * 4).collect();
    assert!(faults.is_empty(), "{} faults:\n{shown:#?}", faults.len());
}

impl<'a> Run<'a> {
    fn of(data: &'a Data, server: &'a Server) -> Run<'a> {
        let client = server.client.clone();
        Run { data, server, client, token_since: Instant::now(), count: Count::default() }
    }

    fn set(mut self, name: &str, all: bool) -> Count {
        let since = Instant::now();
        let mut waiting: Vec<(String, Value)> = Vec::new();
        samples::each(name, all, &mut |sample| {
            self.fresh_token();
            match sample.content {
                Content::Bundle(bundle) => self.bundle(&sample.name, bundle),
                Content::Xml(document) => self.xml(&sample.name, &document),
                Content::Resource(resource) if samples::known_invalid(&resource) => {
                    let address = format!("{}/{}", text(&resource["resourceType"]), text(&resource["id"]));
                    self.expect_refusal(&sample.name, &address, &resource);
                }
                Content::Resource(resource) => {
                    waiting.push((sample.name, resource));
                    if waiting.len() == TOGETHER {
                        self.singles(std::mem::take(&mut waiting));
                    }
                }
            }
        });
        self.singles(waiting);
        self.count.seconds = since.elapsed().as_secs_f64();
        self.count
    }

    fn fresh_token(&mut self) {
        if self.token_since.elapsed().as_secs() > TOKEN_EVERY_S {
            self.client.token = Some(self.data.token(self.server.port()));
            self.token_since = Instant::now();
        }
    }

    fn fault(&mut self, text: String) {
        if self.count.faults.len() < FAULTS_SHOWN {
            self.count.faults.push(text);
        }
    }

    /// Single resources with ids of their own: PUTs, sent together in one transaction.
    fn singles(&mut self, resources: Vec<(String, Value)>) {
        if resources.is_empty() {
            return;
        }
        let mut distinct: HashMap<String, (String, Value)> = HashMap::new();
        for (name, resource) in resources {
            let address = format!("{}/{}", text(&resource["resourceType"]), text(&resource["id"]));
            distinct.insert(address, (name, resource));
        }
        let entries: Vec<Value> = distinct
            .iter()
            .map(|(address, (_, resource))| json!({"resource": resource, "request": {"method": "PUT", "url": address}}))
            .collect();
        self.count.sent += entries.len();
        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
        let reply = self.client.post_json("/fhir", &bundle).expect("an answer");
        if reply.status == 200 {
            for (address, (name, sent)) in distinct {
                self.check(&Stored { name, sent, address });
            }
            return;
        }
        // Which one is it?
        for (address, (name, resource)) in distinct {
            let reply = self.client.put_json(&format!("/fhir/{address}"), &resource).expect("an answer");
            match reply.status {
                200 | 201 => self.check(&Stored { name, sent: resource, address }),
                _ => self.fault(format!("{name} {address}: {}", said(&reply))),
            }
        }
    }

    fn bundle(&mut self, name: &str, mut bundle: Value) {
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        self.count.sent += entries.len();
        let (bad, good): (Vec<Value>, Vec<Value>) = entries
            .into_iter()
            .partition(|entry| samples::known_invalid(&entry["resource"]) || samples::known_wrong(entry));
        let batch = bundle["type"] == "batch";
        if !bad.is_empty() && !batch {
            let reply = self.client.post_json("/fhir", &bundle).expect("an answer");
            if !(400..500).contains(&reply.status) || !reply.text().contains("Bundle.entry[") {
                self.fault(format!("{name}: a transaction with invalid entries: {}", said(&reply)));
            }
        }
        for entry in &bad {
            let address = match entry["request"]["method"] == "PUT" {
                true => text(&entry["request"]["url"]).to_owned(),
                false => format!("{}/{}", text(&entry["resource"]["resourceType"]), text(&entry["resource"]["id"])),
            };
            self.expect_refusal(name, &address, &entry["resource"]);
            // Counted with the rest of the Bundle above.
            self.count.sent -= 1;
        }
        bundle["entry"] = Value::Array(good.clone());
        let reply = self.client.post_json("/fhir", &bundle).expect("an answer");
        if reply.status != 200 {
            return self.fault(format!("{name}: {}", said(&reply)));
        }
        let answers = reply.json()["entry"].as_array().cloned().unwrap_or_default();
        if answers.len() != good.len() {
            return self.fault(format!("{name}: {} entries, {} answers", good.len(), answers.len()));
        }
        let address = |answer: &Value| {
            let location = text(&answer["response"]["location"]);
            let tail = location.split("/fhir/").last().unwrap_or(location);
            tail.split("/_history").next().unwrap_or_default().to_owned()
        };
        let renamed: HashMap<String, String> = good
            .iter()
            .zip(&answers)
            .filter_map(|(entry, answer)| Some((entry["fullUrl"].as_str()?.to_owned(), address(answer))))
            .collect();
        for (entry, answer) in good.into_iter().zip(&answers) {
            if !text(&answer["response"]["status"]).starts_with('2') {
                self.fault(format!("{name}: {}", answer["response"]));
                continue;
            }
            let mut sent = entry["resource"].clone();
            if !batch {
                rename(&mut sent, &renamed);
            }
            self.check(&Stored { name: name.to_owned(), sent, address: address(answer) });
        }
    }

    fn expect_refusal(&mut self, name: &str, address: &str, resource: &Value) {
        self.count.sent += 1;
        let reply = self.client.put_json(&format!("/fhir/{address}"), resource).expect("an answer");
        let place = format!("{}.", text(&resource["resourceType"]));
        if (400..500).contains(&reply.status) && reply.text().contains(&place) {
            self.count.refused += 1;
        } else {
            self.fault(format!("{name} {address}: should be refused with its place: {}", said(&reply)));
        }
    }

    /// Reads back what was stored, in JSON and XML, and searches for it.
    fn check(&mut self, stored: &Stored) {
        self.count.stored += 1;
        let path = format!("/fhir/{}", stored.address);
        let reply = self.client.get(&path).expect("an answer");
        if reply.status != 200 {
            return self.fault(format!("{} {}: {}", stored.name, stored.address, said(&reply)));
        }
        match difference(&comparable(&stored.sent), &comparable(&reply.json()), text(&stored.sent["resourceType"])) {
            None => self.count.equal += 1,
            Some(what) => self.fault(format!("{} {}: {what}", stored.name, stored.address)),
        }
        self.check_xml(stored, &reply.json());
        self.check_found(stored, &reply.json());
    }

    /// JSON to XML to JSON: what the server gives as XML goes in again and comes back as the same JSON.
    fn check_xml(&mut self, stored: &Stored, before: &Value) {
        let path = format!("/fhir/{}", stored.address);
        let get = Request { method: "GET", path: &path, body: None, headers: vec![("Accept", "application/fhir+xml")] };
        let document = self.client.send(&get).expect("an answer");
        let headers = vec![("Content-Type", "application/fhir+xml"), ("Accept", "application/fhir+json")];
        let put = Request { method: "PUT", path: &path, body: Some(&document.body), headers };
        let reply = self.client.send(&put).expect("an answer");
        let kind = text(&stored.sent["resourceType"]);
        if reply.status != 200 {
            // AuditEvents cannot be changed, whatever the form.
            match kind == "AuditEvent" && reply.status == 405 {
                true => self.count.xml_equal += 1,
                false => self.fault(format!("{} {}: its own XML: {}", stored.name, stored.address, said(&reply))),
            }
            return;
        }
        match difference(&sequenced(&comparable(before)), &sequenced(&comparable(&reply.json())), kind) {
            None => self.count.xml_equal += 1,
            Some(what) => self.fault(format!("{} {}: over XML: {what}", stored.name, stored.address)),
        }
    }

    fn check_found(&mut self, stored: &Stored, current: &Value) {
        let (kind, id) = stored.address.split_once('/').unwrap_or_default();
        for query in queries(current, id) {
            let reply = self.client.get(&format!("/fhir/{kind}?{query}")).expect("an answer");
            let body = if reply.status == 200 { reply.json() } else { Value::Null };
            let mut entries = body["entry"].as_array().into_iter().flatten();
            if !entries.any(|entry| entry["resource"]["id"] == id) {
                return self.fault(format!("{} {kind}?{query} does not find {id}: {}", stored.name, said(&reply)));
            }
        }
        self.count.found += 1;
    }

    fn xml(&mut self, name: &str, document: &[u8]) {
        self.count.sent += 1;
        let sent = xml::tokens(&String::from_utf8_lossy(document));
        let Some((kind, id)) = named(&sent) else {
            return self.fault(format!("{name}: no resource with an id"));
        };
        let path = format!("/fhir/{kind}/{id}");
        let headers = vec![("Content-Type", "application/fhir+xml"), ("Accept", "application/fhir+xml")];
        let put = Request { method: "PUT", path: &path, body: Some(document), headers };
        let reply = self.client.send(&put).expect("an answer");
        if !matches!(reply.status, 200 | 201) {
            return self.fault(format!("{name}: {}", said(&reply)));
        }
        self.count.stored += 1;
        let back = xml::without_version(xml::tokens(&reply.text()));
        let sent = xml::without_version(sent);
        let back = if kind == "Patient" { xml_without_mrn(back) } else { back };
        match sent.iter().zip(&back).find(|(a, b)| a != b) {
            Some((a, b)) => self.fault(format!("{name}: sent {a:?}, came back {b:?}")),
            None if sent.len() != back.len() => {
                self.fault(format!("{name}: {} tokens, {} back", sent.len(), back.len()))
            }
            None => {
                self.count.equal += 1;
                self.count.xml_equal += 1;
            }
        }
        let current = self.client.get(&path).expect("an answer").json();
        self.check_found(
            &Stored { name: name.to_owned(), sent: Value::Null, address: format!("{kind}/{id}") },
            &current,
        );
    }
}

fn text(node: &Value) -> &str {
    node.as_str().unwrap_or_default()
}

fn said(reply: &Reply) -> String {
    format!("{} {}", reply.status, reply.text().chars().take(400).collect::<String>())
}

/// Without what the server gives: id, version, time, and a medical record number of its own.
fn comparable(resource: &Value) -> Value {
    let mut out = resource.clone();
    let Some(members) = out.as_object_mut() else { return out };
    members.shift_remove("id");
    if let Some(meta) = members.get_mut("meta").and_then(Value::as_object_mut) {
        meta.shift_remove("versionId");
        meta.shift_remove("lastUpdated");
    }
    if members.get("meta").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        members.shift_remove("meta");
    }
    if let Some(identifiers) = members.get_mut("identifier").and_then(Value::as_array_mut) {
        identifiers.retain(|identifier| !text(&identifier["system"]).ends_with("/fhir/NamingSystem/mrn"));
        if identifiers.is_empty() {
            members.shift_remove("identifier");
        }
    }
    // Where the members stand that the server gives says nothing; the order of the others counts.
    if let Some(meta) = members.shift_remove("meta") {
        members.insert("meta".into(), meta);
    }
    if let Some(identifier) = members.shift_remove("identifier") {
        members.insert("identifier".into(), identifier);
    }
    out
}

/// What XML keeps of a JSON tree: elements stand in the order of their definition there, and an empty list is none.
fn sequenced(node: &Value) -> Value {
    match node {
        Value::Object(members) => {
            let mut list: Vec<(String, Value)> = members
                .iter()
                .filter(|(_, value)| !value.as_array().is_some_and(Vec::is_empty))
                .map(|(name, value)| (name.clone(), sequenced(value)))
                .collect();
            list.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(list.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sequenced).collect(),
        other => other.clone(),
    }
}

/// References of a transaction to its own entries become their addresses.
fn rename(node: &mut Value, names: &HashMap<String, String>) {
    match node {
        Value::Object(members) => members.values_mut().for_each(|value| rename(value, names)),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::String(text) => {
            if let Some(address) = names.get(text.as_str()) {
                text.clone_from(address);
            }
        }
        _ => {}
    }
}

/// `_id`, and what else of the resource makes a good question.
fn queries(resource: &Value, id: &str) -> Vec<String> {
    let mut out = vec![format!("_id={id}")];
    let token = |node: &Value, value: &str| {
        let (system, code) = (text(&node["system"]), text(&node[value]));
        (!code.is_empty()).then(|| percent(&format!("{}|{}", escape(system), escape(code))))
    };
    let first = |node: &Value| if node.is_array() { node[0].clone() } else { node.clone() };
    let kind = text(&resource["resourceType"]);
    // Identifiers of documents are often shared; with the id it is one question still.
    let by_identifier =
        ["Patient", "Practitioner", "Organization", "Encounter", "Observation", "Condition", "Coverage"];
    if by_identifier.contains(&kind) {
        let identifier = first(&resource["identifier"]);
        out.extend(token(&identifier, "value").map(|value| format!("identifier={value}&_id={id}")));
    }
    if ["Observation", "Condition", "Procedure", "DiagnosticReport", "AllergyIntolerance"].contains(&kind) {
        let coding = &resource["code"]["coding"][0];
        out.extend(token(coding, "code").map(|value| format!("code={value}&_id={id}")));
    }
    if kind == "Patient" {
        if let Some(family) = resource["name"][0]["family"].as_str() {
            out.push(format!("family={}&_id={id}", percent(&escape(family))));
        }
    }
    out
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('|', "\\|").replace('$', "\\$")
}

fn percent(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Type and id of an XML resource.
fn named(tokens: &[xml::Token]) -> Option<(String, String)> {
    let xml::Token::Open(kind, _) = tokens.first()? else { return None };
    let mut depth = 0;
    for token in tokens {
        match token {
            xml::Token::Open(name, attributes) => {
                depth += 1;
                if depth == 2 && name == "id" {
                    return Some((kind.clone(), attributes.first()?.1.clone()));
                }
            }
            xml::Token::Close(_) => depth -= 1,
            xml::Token::Text(_) => {}
        }
    }
    None
}

/// Takes out the identifier whose system is that of the server's own numbers.
fn xml_without_mrn(tokens: Vec<xml::Token>) -> Vec<xml::Token> {
    let mut out: Vec<xml::Token> = Vec::new();
    let mut start = None;
    let mut depth = 0;
    let mut own = false;
    for token in tokens {
        match &token {
            xml::Token::Open(name, attributes) => {
                depth += 1;
                if depth == 2 && name == "identifier" {
                    (start, own) = (Some(out.len()), false);
                }
                own |=
                    name == "system" && attributes.iter().any(|(_, value)| value.ends_with("/fhir/NamingSystem/mrn"));
            }
            xml::Token::Close(name) => {
                depth -= 1;
                if depth == 1 && name == "identifier" && own {
                    out.truncate(start.unwrap_or(out.len()));
                    own = false;
                    continue;
                }
            }
            xml::Token::Text(_) => {}
        }
        out.push(token);
    }
    out
}

/// Keeps the names of the sets and the reader honest where the data is there.
#[test]
fn the_quick_selection_has_something_of_every_set() {
    if samples::folder().is_none() {
        return;
    }
    for name in samples::names() {
        let mut count = 0;
        samples::each(name, false, &mut |_: Sample| count += 1);
        assert!(count > 0, "{name}");
    }
}

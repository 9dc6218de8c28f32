//! Transactions and batches of the sets. The rules by which references are rewritten are written down here a second
//! time, over the JSON text alone, so that the server's are checked and not repeated.

use std::collections::HashMap;

use serde_json::Value;

use super::{JSON, Run, Stored, WORKERS};
use crate::harness::{Reply, Request};

/// Entry and the place of its first fault, of a refused transaction.
type Fault = (usize, String);

impl Run<'_> {
    /// Performs the Bundle. Entries that are refused are noted and left out of the next try, until the rest goes in.
    pub(super) fn bundle(&self, name: &str, mut bundle: Value) {
        loop {
            let body = serde_json::to_vec(&bundle).expect("a tree can be written");
            let headers = vec![("Content-Type", JSON), ("Accept", JSON)];
            let request = Request { method: "POST", path: "/fhir", body: Some(&body), headers };
            let reply = self.client().send(&request).expect("an answer");
            let entries = bundle["entry"].as_array_mut().expect("entries");
            if reply.status == 200 {
                return self.performed(name, &bundle, &reply.json());
            }
            let faults = faults(&reply, entries);
            if faults.is_empty() {
                return self.fail(format!("{name}: {} {}", reply.status, reply.text()));
            }
            for (n, place) in faults.into_iter().rev() {
                entries.remove(n);
                let mut outcome = self.outcome.lock().expect("no worker panicked");
                outcome.sent += 1;
                *outcome.refused.entry(place).or_default() += 1;
            }
        }
    }

    fn performed(&self, name: &str, bundle: &Value, response: &Value) {
        let sent = bundle["entry"].as_array().expect("entries");
        let answers = response["entry"].as_array().map_or(&[][..], Vec::as_slice);
        if sent.len() != answers.len() {
            return self.fail(format!("{name}: {} entries were sent, {} came back", sent.len(), answers.len()));
        }
        let mut stored = Vec::new();
        let mut addresses: HashMap<&str, Vec<&str>> = HashMap::new();
        for (n, (entry, answer)) in sent.iter().zip(answers).enumerate() {
            self.outcome.lock().expect("no worker panicked").sent += 1;
            let status = answer["response"]["status"].as_str().unwrap_or_default();
            let Some((kind, id)) = address(&answer["response"]["location"]).filter(|_| status.starts_with("20")) else {
                self.refused_in_batch(&format!("{name} entry {n}"), &answer["response"], sent);
                continue;
            };
            if let Some(full_url) = entry["fullUrl"].as_str().filter(|_| bundle["type"] == "transaction") {
                let of_entry = answer["response"]["location"].as_str().unwrap_or_default();
                addresses.entry(full_url).or_default().push(of_entry);
            }
            stored.push((n, kind, id));
        }
        let stored: Vec<Stored> = stored
            .into_iter()
            .map(|(n, kind, id)| {
                let mut resource = sent[n]["resource"].clone();
                resource["id"] = Value::from(id);
                rewrite(&mut resource, &addresses, sent[n]["fullUrl"].as_str());
                Stored { name: format!("{name} entry {n}"), kind: kind.to_owned(), id: id.to_owned(), resource }
            })
            .collect();
        std::thread::scope(|scope| {
            for lane in stored.chunks(stored.len().div_ceil(WORKERS).max(1)) {
                scope.spawn(|| lane.iter().for_each(|one| self.stored(one)));
            }
        });
    }

    fn refused_in_batch(&self, name: &str, response: &Value, sent: &[Value]) {
        let status = response["status"].as_str().unwrap_or_default();
        match faults_of(&response["outcome"], sent).into_iter().next() {
            Some((_, place)) if status.starts_with('4') => {
                *self.outcome.lock().expect("no worker panicked").refused.entry(place).or_default() += 1;
            }
            _ => self.fail(format!("{name}: {response}")),
        }
    }
}

fn faults(reply: &Reply, entries: &[Value]) -> Vec<Fault> {
    if reply.status != 400 && reply.status != 422 { Vec::new() } else { faults_of(&reply.json(), entries) }
}

/// The first fault of each entry: `Bundle.entry[3].resource.name[0]` gives entry 3 and `Patient.name[]`.
fn faults_of(outcome: &Value, entries: &[Value]) -> Vec<Fault> {
    let issues = outcome["issue"].as_array().into_iter().flatten();
    let mut found: Vec<Fault> = Vec::new();
    for issue in issues.filter(|issue| issue["severity"] == "error") {
        let Some(rest) = issue["expression"][0].as_str().and_then(|text| text.strip_prefix("Bundle.entry[")) else {
            continue;
        };
        let Some((n, place)) = rest.split_once("].").and_then(|(n, place)| Some((n.parse().ok()?, place))) else {
            continue;
        };
        if found.iter().all(|(known, _)| *known != n) {
            let kind = entries.get(n).and_then(|entry: &Value| entry["resource"]["resourceType"].as_str());
            let place = match (place.strip_prefix("resource"), kind) {
                (Some(inner), Some(kind)) => format!("{kind}{inner}"),
                _ => place.to_owned(),
            };
            found.push((n, place.chars().filter(|c| !c.is_ascii_digit()).collect()));
        }
    }
    found.sort();
    found
}

/// Type and id of `Type/id/_history/1`, absolute or not.
fn address(location: &Value) -> Option<(&str, &str)> {
    let (resource, _) = location.as_str()?.split_once("/_history/")?;
    let mut parts = resource.rsplit('/');
    let id = parts.next()?;
    Some((parts.next()?, id))
}

/// Replaces references to entries by the addresses their resources were given.
fn rewrite(node: &mut Value, addresses: &HashMap<&str, Vec<&str>>, full_url: Option<&str>) {
    match node {
        Value::Object(members) => {
            for (name, value) in members {
                if let (Value::String(text), true) = (&mut *value, name == "reference" || name.ends_with("Uri")) {
                    if let Some(address) = target(text, addresses, full_url) {
                        *text = address;
                    }
                    continue;
                }
                rewrite(value, addresses, full_url);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, addresses, full_url)),
        _ => {}
    }
}

fn target(text: &str, addresses: &HashMap<&str, Vec<&str>>, full_url: Option<&str>) -> Option<String> {
    let base = full_url.and_then(|url| url.rsplitn(3, '/').nth(2)).filter(|base| base.contains("://"));
    let beside = base.map(|base| format!("{base}/{text}"));
    let found = addresses.get(text).or_else(|| addresses.get(beside.as_deref()?))?;
    let (kind, id) = address(&Value::from(*found.first()?)).map(|(k, i)| (k.to_owned(), i.to_owned()))?;
    Some(format!("{kind}/{id}"))
}

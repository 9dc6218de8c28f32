//! The search oracle: what the server answers over HTTP, out of its sealed database, is what the matcher says of every
//! resource, one by one, without any database. Random resources, random queries; pages, order, totals, includes and the
//! self link are compared, contained resources and search parameters of the site included. `PHIAL_ORACLE_SEED` and `PHIAL_ORACLE_QUERIES` make it another or a longer run.

mod contained;
mod population;
mod queries;
pub mod random;
mod site;
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Reply, Request};
use random::Random;
use truth::{Answer, Truth};

/// Resources of one transaction.
const BATCH: usize = 100;
/// Pages of one query at most: more is a server that turns in circles.
const PAGES_MAX: usize = 2_000;
/// How often there is a new token: they live for five minutes.
const TOKEN_EVERY: Duration = Duration::from_secs(60);
/// Time that the job may take to go through everything for one parameter.
const INDEXED_WITHIN: Duration = Duration::from_secs(120);

type Pairs = Vec<(String, String)>;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn agrees(engine: Engine, queries: u64) {
    let seed = setting("PHIAL_ORACLE_SEED", 20_260_131);
    let queries = setting("PHIAL_ORACLE_QUERIES", queries);
    let data = Data::new(engine);
    let server = data.serve();
    let root = format!("http://127.0.0.1:{}", server.port());
    let truth = Truth::new(&format!("{root}/fhir"));
    let since = Instant::now();
    let mut scene = Scene { data: &data, port: server.port(), client: server.client.clone(), since, truth, root };
    let mut random = Random::new(seed);
    let resources = population::make(&mut random);
    for batch in resources.chunks(BATCH) {
        scene.load(batch);
    }
    scene.define(&site::make(&mut random));
    scene.ask(&mut random, queries / 2, seed);
    scene.change(&mut random, &resources);
    scene.ask(&mut random, queries - queries / 2, seed);
}

struct Scene<'a> {
    data: &'a Data,
    port: u16,
    client: Client,
    /// When its token was given.
    since: Instant,
    truth: Truth,
    root: String,
}

/// What was seen over all queries: a run in which little is found would show little.
#[derive(Default, Debug)]
struct Seen {
    matches: usize,
    empty: usize,
    pages: usize,
    included: usize,
    contained: usize,
    by_site: usize,
}

impl Scene<'_> {
    /// Long runs outlive a token.
    fn renew(&mut self) {
        if self.since.elapsed() > TOKEN_EVERY {
            self.client.token = Some(self.data.token(self.port));
            self.since = Instant::now();
        }
    }

    /// Puts resources in one transaction and reads back what is stored.
    fn load(&mut self, resources: &[Value]) {
        let entry = |resource: &Value| {
            let url = address(resource);
            json!({"fullUrl": format!("{}/fhir/{url}", self.root), "resource": resource,
                   "request": {"method": "PUT", "url": url}})
        };
        let entries: Vec<Value> = resources.iter().map(entry).collect();
        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
        let reply = self.client.post_json("/fhir", &bundle).expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
        for resource in resources {
            self.learn(&address(resource));
        }
    }

    fn learn(&mut self, address: &str) {
        let stored = self.client.get(&format!("/fhir/{address}")).expect("an answer");
        assert_eq!(stored.status, 200, "{address}: {}", stored.text());
        self.truth.learn(&stored.body);
    }

    /// Defines search parameters, waits until they can be searched by, and learns everything again with them.
    fn define(&mut self, parameters: &[Value]) {
        for parameter in parameters {
            let reply = self.client.put_json(&format!("/fhir/{}", address(parameter)), parameter).expect("an answer");
            assert_eq!(reply.status, 201, "{parameter}: {}", reply.text());
        }
        self.truth.define(site::customs(parameters));
        for parameter in parameters {
            let path = format!("/fhir/{}/$status", address(parameter));
            let since = Instant::now();
            while !self.client.get(&path).expect("an answer").text().contains("\"ready\"") {
                assert!(since.elapsed() < INDEXED_WITHIN, "{parameter} is not indexed");
                sleep(Duration::from_millis(50));
            }
            self.learn(&address(parameter));
        }
    }

    /// Updates with the content of another resource of the type, and deletions: terms and rows of before must be gone.
    fn change(&mut self, random: &mut Random, resources: &[Value]) {
        for resource in resources {
            let address = address(resource);
            // What searches by sets of codes go by stays.
            if address.starts_with("ValueSet/") || address.starts_with("CodeSystem/") {
                continue;
            }
            self.renew();
            match random.below(10) {
                0 => {
                    let request = Request {
                        method: "DELETE",
                        path: &format!("/fhir/{address}"),
                        body: None,
                        headers: Vec::new(),
                    };
                    let reply = self.client.send(&request).expect("an answer");
                    assert!([200, 204].contains(&reply.status), "{address}: {}", reply.text());
                    self.truth.forget(&address);
                }
                1 | 2 => {
                    let of = &resource["resourceType"];
                    let same: Vec<&Value> = resources.iter().filter(|other| other["resourceType"] == *of).collect();
                    let mut other = (*random.pick(&same)).clone();
                    other["id"] = resource["id"].clone();
                    let reply = self.client.put_json(&format!("/fhir/{address}"), &other).expect("an answer");
                    // A rule of the domain (the moves of an appointment's status) may forbid it: then nothing changed.
                    if reply.status == 200 {
                        self.learn(&address);
                    } else {
                        assert_eq!(reply.status, 422, "{address}: {}", reply.text());
                    }
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, random: &mut Random, queries: u64, seed: u64) {
        let mut seen = Seen::default();
        for n in 0..queries {
            self.renew();
            let (kind, pairs) = queries::make(random, &self.truth);
            let name = queries::show(kind, &pairs);
            let outcome = if pairs.iter().any(|(name, _)| name == "_contained") {
                let inside = self.truth.inside(kind, &pairs).unwrap_or_else(|error| panic!("{name}: {error}"));
                self.compare_contained(random, (kind, &pairs), &inside, &mut seen)
            } else {
                let answer = self.truth.answer(kind, &pairs).unwrap_or_else(|error| panic!("{name}: {error}"));
                seen.by_site += usize::from(name.contains("site") && !answer.matches.is_empty());
                self.compare(random, &name, kind, &pairs, &answer, &mut seen)
            };
            outcome.unwrap_or_else(|fault| panic!("seed {seed}, query {n}: {name}\n{fault}"));
        }
        let enough = queries < 50 || (seen.matches as u64 > queries && seen.empty as u64 * 3 < queries * 2);
        let all = queries < 50 || (seen.included > 0 && seen.contained > 0 && seen.by_site > 0);
        assert!(enough && all, "too little is found to show anything: {seen:?}");
        eprintln!("{queries} queries: {seen:?}");
    }

    fn compare(
        &self,
        random: &mut Random,
        name: &str,
        kind: &str,
        pairs: &Pairs,
        answer: &Answer,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let mut reply = self.first_page(random, kind, pairs);
        let mut found: Vec<String> = Vec::new();
        let mut pages = 0;
        loop {
            if reply.status != 200 {
                return Err(format!("{}: {}", reply.status, reply.text()));
            }
            let page = reply.json();
            if pages == 0 {
                self.check_first(&page, answer)?;
            }
            let matches = self.check_entries(&page, kind, answer, seen)?;
            found.extend(matches);
            pages += 1;
            let Some(next) = link(&page, "next") else { break };
            if pages > PAGES_MAX {
                return Err(format!("{name} does not end"));
            }
            let path = next.strip_prefix(&self.root).ok_or_else(|| format!("next is elsewhere: {next}"))?;
            reply = self.client.get(path).expect("an answer");
        }
        seen.pages += pages;
        seen.matches += found.len();
        seen.empty += usize::from(found.is_empty());
        compare_ids(&found, answer)
    }

    /// By GET or by POST: the two must say the same.
    fn first_page(&self, random: &mut Random, kind: &str, pairs: &Pairs) -> Reply {
        let query = queries::encode(pairs);
        if random.below(4) > 0 {
            return self.client.get(&format!("/fhir/{kind}?{query}")).expect("an answer");
        }
        let headers = vec![("Content-Type", "application/x-www-form-urlencoded")];
        let path = format!("/fhir/{kind}/_search");
        let request = Request { method: "POST", path: &path, body: Some(query.as_bytes()), headers };
        self.client.send(&request).expect("an answer")
    }

    /// Total and self link.
    fn check_first(&self, page: &Value, answer: &Answer) -> Result<(), String> {
        if answer.accurate && page["total"] != json!(answer.matches.len()) {
            return Err(format!("total is {}, should be {}", page["total"], answer.matches.len()));
        }
        if let Some(total) = page["total"].as_u64()
            && answer.exact_or_none
            && total != answer.matches.len() as u64
        {
            return Err(format!("a total of {total} was given for {}", answer.matches.len()));
        }
        let own = link(page, "self").ok_or("no self link")?;
        let (_, query) = own.split_once('?').unwrap_or((own, ""));
        let said: BTreeSet<(String, String)> = queries::decode(query).into_iter().collect();
        let applied: BTreeSet<(String, String)> = answer.applied.iter().cloned().collect();
        if said != applied {
            return Err(format!("the self link says {said:?}, applied was {applied:?}"));
        }
        Ok(())
    }

    /// Every entry is what is stored, and what is included belongs to this page. Gives the ids of the matches.
    fn check_entries(&self, page: &Value, kind: &str, answer: &Answer, seen: &mut Seen) -> Result<Vec<String>, String> {
        let (mut matches, mut included) = (Vec::new(), BTreeSet::new());
        for entry in page["entry"].as_array().into_iter().flatten() {
            let resource = &entry["resource"];
            let address = address(resource);
            match entry["search"]["mode"].as_str() {
                Some("match") if resource["resourceType"] == kind => {
                    matches.push(resource["id"].as_str().unwrap_or_default().to_owned());
                }
                Some("include") => {
                    if !included.insert(address.clone()) {
                        return Err(format!("{address} is included twice"));
                    }
                }
                Some("outcome") => continue,
                mode => return Err(format!("{address} has the mode {mode:?}")),
            }
            if !self.truth.is_stored(&address, resource) {
                return Err(format!("{address} is not what is stored"));
            }
            if entry["fullUrl"] != format!("{}/fhir/{address}", self.root) {
                return Err(format!("fullUrl of {address} is {}", entry["fullUrl"]));
            }
        }
        if matches.len() > answer.count {
            return Err(format!("a page of {} holds {}", answer.count, matches.len()));
        }
        seen.included += included.len();
        let expected = self.truth.included(answer, &matches);
        if included != expected {
            return Err(format!("includes of {matches:?}: {included:?}, should be {expected:?}"));
        }
        Ok(matches)
    }
}

/// The same resources, each once, in the order of the sort keys.
fn compare_ids(found: &[String], answer: &Answer) -> Result<(), String> {
    let distinct: BTreeSet<&String> = found.iter().collect();
    if distinct.len() != found.len() {
        return Err(format!("something was given twice: {found:?}"));
    }
    let expected: BTreeMap<&String, &Vec<u8>> = answer.matches.iter().map(|(id, key)| (id, key)).collect();
    if answer.counts_only {
        return if found.is_empty() { Ok(()) } else { Err("matches in a count".into()) };
    }
    let missing: Vec<_> = expected.keys().filter(|id| !distinct.contains(*id)).collect();
    let extra: Vec<_> = distinct.iter().filter(|id| !expected.contains_key(*id)).collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(format!("not found: {missing:?}; found besides: {extra:?}"));
    }
    match found.windows(2).find(|pair| expected[&pair[0]] > expected[&pair[1]]) {
        Some(pair) => Err(format!("{} stands before {}", pair[0], pair[1])),
        None => Ok(()),
    }
}

fn link<'a>(page: &'a Value, relation: &str) -> Option<&'a str> {
    let links = page["link"].as_array()?;
    links.iter().find(|link| link["relation"] == relation)?["url"].as_str()
}

/// `Type/id`
fn address(resource: &Value) -> String {
    let part = |name: &str| resource[name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", part("resourceType"), part("id"))
}

#[test]
fn on_sqlite() {
    agrees(Engine::Sqlite, 1_000);
}

#[test]
fn on_postgres() {
    agrees(Engine::Postgres, 1_000);
}

//! No scope tells of what it does not cover. Server A holds a population and is asked with random system scopes; server
//! B was only ever given what those scopes may see, and is asked with the same types unfiltered. Both must answer the
//! same. What may be seen is decided by plain predicates over the JSON (`population`), not by the program. Reads,
//! versions and histories are measured against those predicates directly: outside them an id is as unknown.
//! `PHIAL_LEAK` is the number of populations, `PHIAL_LEAK_SEED` makes them others.

mod across;
mod graphql;
mod population;
mod requests;
mod scopes;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Client, Data, Engine, Reply, Request};
use crate::oracle::random::Random;
use population::Life;
use requests::Asked;
use scopes::Scopes;

const POPULATIONS: u64 = 2;
const SCOPES: usize = 4;
/// Scopes that GraphQL is asked with.
const QUERIED: usize = 2;
const SEARCHES: usize = 45;
/// Pages of one search at most: more is a server that turns in circles.
const PAGES_MAX: usize = 200;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// How much there was to see: a run in which nothing is withheld, or nothing is found, would show nothing.
#[derive(Default, Debug)]
struct Seen {
    refused: usize,
    empty: usize,
    found: usize,
    included: usize,
    pages: usize,
    reads: usize,
    across: usize,
    withheld: usize,
}

/// One server and a token for it.
struct Side {
    client: Client,
    root: String,
}

#[test]
fn no_scope_tells_of_what_it_does_not_cover() {
    let seed = setting("PHIAL_LEAK_SEED", 20_260_131);
    let mut seen = Seen::default();
    let mut queried = graphql::Seen::default();
    for n in 0..setting("PHIAL_LEAK", POPULATIONS) {
        let mut random = Random::new(seed + n);
        let lives = population::make(&mut random);
        let data = Data::new(Engine::Sqlite);
        let server = data.serve();
        let whole = Side::new(&server.client, server.port());
        whole.load(&lives.iter().collect::<Vec<_>>());
        for _ in 0..QUERIED {
            graphql::compare(&data, &whole, server.port(), &lives, &mut random, &mut queried, seed + n);
        }
        for _ in 0..SCOPES {
            let scopes = Scopes::draw(&mut random);
            let narrow = whole.with(data.token_for(&scopes.text, server.port()));
            let context = format!("PHIAL_LEAK_SEED={} scopes: {}", seed + n, scopes.text);
            reads(&whole, &narrow, &lives, &scopes, &mut seen, &context);
            across::histories(&narrow, &lives, &scopes, &context);
            searches(&narrow, &lives, &scopes, &mut random, &mut seen, &context);
            batches(&narrow, &lives, &mut random, &context);
            let other = whole.with(data.token_for(&scopes.text, server.port()));
            cursors(&narrow, &other, &context);
        }
    }
    println!("{seen:?} {queried:?}");
    assert!(queried.is_telling(), "{queried:?}");
    assert!(seen.found > 0 && seen.empty > 0 && seen.refused > 0 && seen.included > 0, "{seen:?}");
    assert!(seen.pages > 0 && seen.reads > 0 && seen.across > 0 && seen.withheld > 0, "{seen:?}");
}

impl Side {
    fn new(client: &Client, port: u16) -> Side {
        Side { client: client.clone(), root: format!("http://127.0.0.1:{port}") }
    }

    fn with(&self, token: String) -> Side {
        let mut client = self.client.clone();
        client.token = Some(token);
        Side { client, root: self.root.clone() }
    }

    /// Writes whole lives: all first versions, then all second ones, then the deletions.
    fn load(&self, lives: &[&Life]) {
        let entry = |method: &str, life: &Life, resource: Option<&Value>| {
            let mut entry = json!({"request": {"method": method, "url": life.address()}});
            if let Some(resource) = resource {
                entry["resource"] = resource.clone();
            }
            entry
        };
        for at in 0..3 {
            let now = lives.iter().filter_map(|life| Some(entry("PUT", life, Some(life.versions.get(at)?))));
            self.transaction(now.collect());
        }
        self.transaction(lives.iter().filter(|life| life.deleted).map(|life| entry("DELETE", life, None)).collect());
    }

    fn transaction(&self, entries: Vec<Value>) {
        if !entries.is_empty() {
            let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
            let reply = self.client.post_json("/fhir", &bundle).expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }

    fn get(&self, path: &str) -> Reply {
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        self.client.get(path).expect("an answer")
    }

    fn ask(&self, asked: &Asked) -> Reply {
        if !asked.post {
            return self.get(&format!("/fhir/{}?{}", asked.kind, asked.query));
        }
        let path = format!("/fhir/{}/_search", asked.kind);
        let headers = vec![("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/fhir+json")];
        let request = Request { method: "POST", path: &path, body: Some(asked.query.as_bytes()), headers };
        self.client.send(&request).expect("an answer")
    }

    /// A reply's JSON without what differs between two servers and two moments.
    fn plain(&self, reply: &Reply) -> Value {
        let mut json: Value = serde_json::from_str(&reply.text().replace(&self.root, "")).expect("JSON");
        without_moments(&mut json);
        json
    }
}

/// Takes out times of writing and answering, the ids of Bundles and page links.
fn without_moments(json: &mut Value) {
    match json {
        Value::Object(members) => {
            if members.get("resourceType").is_some_and(|kind| kind == "Bundle") {
                members.remove("id");
                members.remove("link");
            }
            members.remove("lastUpdated");
            members.remove("lastModified");
            members.values_mut().for_each(without_moments);
        }
        Value::Array(items) => items.iter_mut().for_each(without_moments),
        _ => {}
    }
}

/// Everything a search gave over all its pages.
#[derive(Debug, PartialEq)]
struct Found {
    status: u16,
    refusal: Option<Value>,
    /// Addresses in order.
    matches: Vec<String>,
    /// Matches and included resources by address.
    all: BTreeMap<String, Value>,
    total: Option<u64>,
    self_link: String,
    notes: BTreeSet<String>,
    pages: usize,
}

fn search(side: &Side, asked: &Asked, context: &str) -> Found {
    let mut reply = side.ask(asked);
    let mut found = Found {
        status: reply.status,
        refusal: None,
        matches: Vec::new(),
        all: BTreeMap::new(),
        total: None,
        self_link: String::new(),
        notes: BTreeSet::new(),
        pages: 0,
    };
    if reply.status != 200 {
        found.refusal = Some(side.plain(&reply));
        return found;
    }
    loop {
        assert_eq!(reply.status, 200, "{context}: {}", reply.text());
        found.pages += 1;
        assert!(found.pages < PAGES_MAX, "{context}: pages without end");
        let bundle = reply.json();
        if found.pages == 1 {
            found.total = bundle["total"].as_u64();
            found.self_link = link(&bundle, "self").unwrap_or_default().replace(&side.root, "");
        }
        for entry in side.plain(&reply)["entry"].as_array().into_iter().flatten() {
            let resource = &entry["resource"];
            if entry["search"]["mode"] == "outcome" {
                let issues = resource["issue"].as_array().into_iter().flatten();
                found.notes.extend(issues.filter_map(|issue| issue["diagnostics"].as_str()).map(str::to_owned));
                continue;
            }
            let address = format!("{}/{}", text(&resource["resourceType"]), text(&resource["id"]));
            if entry["search"]["mode"] == "match" {
                found.matches.push(address.clone());
            }
            found.all.insert(address, resource.clone());
        }
        let Some(next) = link(&bundle, "next") else { break };
        reply = side.get(&next);
    }
    // These two tell how a page was made: pages are cut in the order of random numbers, other on every server.
    found.notes.retain(|note| !note.contains("is an estimate") && !note.contains("rounds and no further"));
    found
}

fn link(bundle: &Value, relation: &str) -> Option<String> {
    let links = bundle["link"].as_array().into_iter().flatten();
    links.filter(|link| link["relation"] == relation).find_map(|link| link["url"].as_str()).map(str::to_owned)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn searches(narrow: &Side, lives: &[Life], scopes: &Scopes, random: &mut Random, seen: &mut Seen, context: &str) {
    let visible = |life: &&Life| life.current().is_some_and(|now| scopes.let_see(now, 's'));
    let permitted: Vec<&Life> = lives.iter().filter(visible).collect();
    let data = Data::new(Engine::Sqlite);
    let server = data.serve();
    let own = Side::new(&server.client, server.port());
    own.load(&permitted);
    let own = own.with(data.token_for(&scopes.widened(), server.port()));
    let permitted: BTreeSet<String> = permitted.into_iter().map(Life::address).collect();
    for _ in 0..SEARCHES {
        let asked = requests::draw(random);
        let context = format!("{context}\n{}?{} post: {}", asked.kind, asked.query, asked.post);
        let (mut here, mut there) = (search(narrow, &asked, &context), search(&own, &asked, &context));
        match (scopes.grant(asked.kind, 's'), asked.own) {
            (false, _) => assert_eq!(here.status, 403, "{context}"),
            (true, true) => assert_eq!(here.status, 200, "{context}: {:?}", here.refusal),
            (true, false) => assert!(matches!(here.status, 200 | 403), "{context}: {:?}", here.refusal),
        }
        for address in here.all.keys() {
            assert!(permitted.contains(address), "{context}: shows {address}");
        }
        if asked.query.contains("_total=estimate") {
            // An estimate is made of what lies there: only who may see every row is given one.
            let exact = there.matches.len() as u64;
            let open = scopes.every_row(asked.kind, 's');
            assert!(open || here.total.is_none_or(|total| total == exact), "{context}: {:?}", here.total);
            (here.total, there.total) = (None, None);
        }
        if !asked.ordered {
            here.matches.sort();
            there.matches.sort();
        }
        seen.pages += here.pages.saturating_sub(1);
        seen.included += here.all.len() - here.matches.len();
        match (here.status, here.matches.is_empty()) {
            (403, _) => seen.refused += 1,
            (_, true) => seen.empty += 1,
            (_, false) => seen.found += 1,
        }
        assert_eq!(here, there, "{context}");
    }
    seen.across += across::searches(narrow, &own, &permitted, random, context);
}

/// Reads, versions and histories of every resource.
fn reads(whole: &Side, narrow: &Side, lives: &[Life], scopes: &Scopes, seen: &mut Seen, context: &str) {
    for life in lives {
        let granted = scopes.grant(life.kind, 'r');
        let visible: Vec<bool> = life.versions.iter().map(|version| scopes.let_see(version, 'r')).collect();
        // A deletion is measured by what was deleted.
        let last = *visible.last().expect("a version");
        let mut versions = visible;
        if life.deleted {
            versions.push(last);
        }
        let tails = (1..=versions.len()).map(|n| (format!("/_history/{n}"), versions[n - 1]));
        let tails = [(String::new(), last), ("/_history/99".to_owned(), false)].into_iter().chain(tails);
        for (tail, see) in tails {
            let path = format!("/fhir/{}{tail}", life.address());
            let context = format!("{context}\n{path}");
            let got = narrow.get(&path);
            if !granted {
                assert_eq!(got.status, 403, "{context}");
            } else if see {
                let all = whole.get(&path);
                assert_eq!((got.status, got.text()), (all.status, all.text()), "{context}");
                seen.reads += 1;
                continue;
            } else {
                assert_eq!(got.status, 404, "{context}: {}", got.text());
                seen.withheld += 1;
            }
            as_unknown(narrow, &got, &format!("/fhir/{}/unknown{tail}", life.kind), &context);
        }
        if granted && !last {
            known_tag(narrow, life, context);
        }
        history(narrow, life, &versions, granted, context);
    }
}

/// The reply to an id outside the rows is that to an id that was never given.
fn as_unknown(narrow: &Side, got: &Reply, path: &str, context: &str) {
    let unknown = narrow.get(path);
    assert_eq!((got.status, got.text()), (unknown.status, unknown.text()), "{context}");
    let shown = |reply: &Reply| {
        let moment = |name: &str| ["date", "x-request-id"].contains(&name);
        let headers = reply.headers.iter().filter(|(name, _)| !moment(name)).cloned();
        headers.collect::<BTreeSet<_>>()
    };
    assert_eq!(shown(got), shown(&unknown), "{context}");
}

/// Who guesses the version learns nothing either.
fn known_tag(narrow: &Side, life: &Life, context: &str) {
    let tag = format!("W/\"{}\"", life.versions.len());
    let path = format!("/fhir/{}", life.address());
    let headers = vec![("If-None-Match", tag.as_str()), ("Accept", "application/fhir+json")];
    let reply = narrow.client.send(&Request { method: "GET", path: &path, body: None, headers }).expect("an answer");
    assert_eq!(reply.status, 404, "{context}\n{path}");
}

fn history(narrow: &Side, life: &Life, versions: &[bool], granted: bool, context: &str) {
    for count in ["", "?_count=1"] {
        let path = format!("/fhir/{}/_history{count}", life.address());
        let context = format!("{context}\n{path}");
        let mut reply = narrow.get(&path);
        if !versions.contains(&true) || !granted {
            assert_eq!(reply.status, if granted { 404 } else { 403 }, "{context}");
            as_unknown(narrow, &reply, &format!("/fhir/{}/unknown/_history{count}", life.kind), &context);
            continue;
        }
        let expected: Vec<usize> = (1..=versions.len()).rev().filter(|n| versions[n - 1]).collect();
        let mut shown = Vec::new();
        loop {
            assert_eq!(reply.status, 200, "{context}: {}", reply.text());
            let bundle = reply.json();
            assert_eq!(bundle["total"], expected.len(), "{context}");
            for entry in bundle["entry"].as_array().into_iter().flatten() {
                let tag = text(&entry["response"]["etag"]);
                shown.push(tag.trim_matches(['W', '/', '"']).parse::<usize>().expect("a version"));
            }
            assert!(shown.len() <= expected.len(), "{context}: {shown:?}");
            let Some(next) = link(&bundle, "next") else { break };
            reply = narrow.get(&next);
        }
        assert_eq!(shown, expected, "{context}");
    }
}

/// An entry of a batch answers as the same request alone.
fn batches(narrow: &Side, lives: &[Life], random: &mut Random, context: &str) {
    for _ in 0..3 {
        let urls: Vec<String> = (0..6)
            .map(|n| match n % 2 {
                0 => {
                    let asked = requests::draw(random);
                    format!("{}?{}", asked.kind, asked.query)
                }
                _ => random.pick(lives).address(),
            })
            .collect();
        let entry = |url: &String| json!({"request": {"method": "GET", "url": url}});
        let entries: Vec<Value> = urls.iter().map(entry).collect();
        let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": entries});
        let reply = narrow.client.post_json("/fhir", &bundle).expect("an answer");
        assert_eq!(reply.status, 200, "{context}: {}", reply.text());
        for (url, entry) in urls.iter().zip(narrow.plain(&reply)["entry"].as_array().expect("entries")) {
            let alone = narrow.get(&format!("/fhir/{url}"));
            let status = text(&entry["response"]["status"]);
            assert!(status.starts_with(&alone.status.to_string()), "{context}\n{url}: {status}");
            match alone.status {
                200 => assert_eq!(entry["resource"], narrow.plain(&alone), "{context}\n{url}"),
                _ => assert!(entry.get("resource").is_none(), "{context}\n{url}: {entry}"),
            }
        }
    }
}

/// A page link is for the caller it was made for, as it was made.
fn cursors(narrow: &Side, other: &Side, context: &str) {
    for kind in population::KINDS {
        let first = narrow.get(&format!("/fhir/{kind}?_count=1"));
        let Some(next) = (first.status == 200).then(|| link(&first.json(), "next")).flatten() else { continue };
        assert_eq!(narrow.get(&next).status, 200, "{context}\n{next}");
        let foreign = other.get(&next);
        assert_eq!(foreign.status, 400, "{context}\n{}", foreign.text());
        assert!(foreign.json().get("entry").is_none());
        for altered in [format!("{next}&_count=2"), format!("{next}&_include=*"), format!("{next}&active=true")] {
            assert_eq!(narrow.get(&altered).status, 400, "{context}\n{altered}");
        }
    }
}

//! Nobody is told of what they may not see. Server A holds a population and is asked by people of every role, relation
//! and scope, under consents; server B was only ever given what they may see, and is asked without any limit. Both must
//! answer the same. What may be seen is decided by `truth`, from the JSON alone. Reads, versions and histories are
//! measured against it directly; operations and writes are asked of B by the same caller. (`tests/leak` does the same
//! for backend services, over HTTP.) `PHIAL_LEAK` is the number of requests, `PHIAL_LEAK_SEED` makes them others.

#[path = "../../../../tests/oracle/random.rs"]
mod random;
mod operations;
mod requests;
mod truth;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Persona, Reply, TestApp};
use crate::access::Role;
use random::Random;
use requests::Asked;
use truth::Somebody;
use world::{KINDS, Life};

const REQUESTS: u64 = 5_000;
/// Tests that share the requests, so that they run beside each other.
const SHARES: u64 = 4;
const BASE: &str = "http://phial.test/fhir";
const SEARCHES: usize = 40;
const PAGES_MAX: usize = 100;

/// How much there was to see: a run in which nothing is withheld, or nothing is found, would show nothing.
#[derive(Default, Debug)]
struct Seen {
    requests: u64,
    refused: u64,
    empty: u64,
    found: u64,
    included: u64,
    reads: u64,
    withheld: u64,
    narrowed: u64,
    operations: operations::Seen,
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test]
async fn nobody_is_told_of_what_they_may_not_see_1() {
    share(0).await;
}

#[tokio::test]
async fn nobody_is_told_of_what_they_may_not_see_2() {
    share(1).await;
}

#[tokio::test]
async fn nobody_is_told_of_what_they_may_not_see_3() {
    share(2).await;
}

#[tokio::test]
async fn nobody_is_told_of_what_they_may_not_see_4() {
    share(3).await;
}

async fn share(n: u64) {
    let wanted = setting("PHIAL_LEAK", REQUESTS) / SHARES;
    let mut seed = setting("PHIAL_LEAK_SEED", 20_260_131) + n * 1_000_003;
    let mut seen = Seen::default();
    while seen.requests < wanted {
        seed += 1;
        population(seed, wanted, &mut seen).await;
    }
    println!("{seen:?}");
    assert!(seen.found > 0 && seen.empty > 0 && seen.refused > 0 && seen.included > 0, "{seen:?}");
    assert!(seen.reads > 0 && seen.withheld > 0 && seen.narrowed > 0, "{seen:?}");
    assert!(seen.operations.has_read(), "{seen:?}");
}

/// One population, asked by several people.
async fn population(seed: u64, wanted: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let lives = world::make(&mut random);
    let whole = TestApp::new().await;
    let office = whole.persona("system/*.cruds").await;
    load(&office, &lives, |resource| resource.clone()).await;
    for _ in 0..4 {
        if seen.requests >= wanted {
            return;
        }
        let who = Somebody::draw(&mut random, &lives);
        if who.scopes.is_empty() {
            continue;
        }
        let user = who.person.fhir_user.clone().unwrap_or_default();
        let context = format!(
            "PHIAL_LEAK_SEED={} {} {user} launch {:?} emergency {:?} scopes {}",
            seed - 1,
            who.person.role.name(),
            who.person.patient,
            who.person.emergency,
            who.scopes
        );
        let narrow = whole.admit(who.caller(&who.scopes, BASE));
        reads(&office, &narrow, &lives, &who, &mut random, seen, &context).await;
        type_histories(&narrow, &lives, &who, seen, &context).await;
        let own = permitted(&lives, &who).await;
        searches(&narrow, &own, &lives, &who, &mut random, seen, &context).await;
        batch(&narrow, &lives, &mut random, seen, &context).await;
        let other = whole.person(Role::Admin, "Practitioner/other", None, "user/*.rs");
        cursors(&narrow, &other, seen, &context).await;
        let pair = operations::Pair::of(&whole, &own, &who).await;
        pair.read(&office, &lives, &mut random, seen, &context).await;
    }
}

#[tokio::test]
async fn nobody_writes_what_they_may_not_see_1() {
    writes(0).await;
}

#[tokio::test]
async fn nobody_writes_what_they_may_not_see_2() {
    writes(1).await;
}

/// Populations of which one who may write writes: what is there is another thing afterwards.
async fn writes(n: u64) {
    let mut seen = Seen::default();
    for at in 0..setting("PHIAL_LEAK", REQUESTS) / 1_000 {
        let seed = setting("PHIAL_LEAK_SEED", 20_260_131) + 77 + at * 2 + n;
        let mut random = Random::new(seed);
        let lives = world::make(&mut random);
        let whole = TestApp::new().await;
        let office = whole.persona("system/*.cruds").await;
        load(&office, &lives, |resource| resource.clone()).await;
        let who = loop {
            let who = Somebody::draw(&mut random, &lives);
            let writes = who.backend || matches!(who.person.role, Role::Provider | Role::Nurse | Role::Receptionist);
            if writes && who.person.emergency.is_none() && !who.scopes.is_empty() {
                break who;
            }
        };
        let user = who.person.fhir_user.clone().unwrap_or_default();
        let context = format!("PHIAL_LEAK_SEED={seed} {} {user} scopes {}", who.person.role.name(), who.scopes);
        let own = permitted(&lives, &who).await;
        let pair = operations::Pair::of(&whole, &own, &who).await;
        pair.write(&office, &lives, &who, &mut random, &mut seen, &context).await;
    }
    println!("{seen:?}");
    assert!(seen.operations.has_written(), "{seen:?}");
}

/// A server that holds what somebody may see and nothing else.
async fn permitted(lives: &[Life], who: &Somebody) -> TestApp {
    let own = TestApp::new().await;
    let loader = own.persona("system/*.cruds").await;
    let seen = |life: &&Life| who.sees(life.versions.last().expect("a version"));
    load(&loader, &lives.iter().filter(seen).map(copy).collect::<Vec<_>>(), |resource| who.cut(resource)).await;
    drop(loader);
    own
}

/// Writes whole lives: all first versions, then all second ones, then the deletions.
async fn load(office: &Persona<'_>, lives: &[Life], as_seen: impl Fn(&Value) -> Value) {
    for at in 0..3 {
        let mut entries = Vec::new();
        for life in lives {
            let mut entry = json!({"request": {"method": "PUT", "url": life.address()}});
            match life.versions.get(at) {
                Some(resource) => entry["resource"] = as_seen(resource),
                None if at == 2 && life.deleted => entry["request"]["method"] = json!("DELETE"),
                None => continue,
            }
            entries.push(entry);
        }
        if !entries.is_empty() {
            let reply =
                office.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }
}

/// A resource without what differs between two servers, two moments, or a whole resource and its open part.
fn plain(resource: &Value) -> Value {
    let mut resource = resource.clone();
    if let Some(meta) = resource["meta"].as_object_mut() {
        meta.remove("lastUpdated");
        meta.retain(|name, value| name != "tag" || value[0]["code"] != "SUBSETTED");
    }
    resource
}

#[derive(Debug, PartialEq)]
struct Found {
    status: u16,
    matches: Vec<String>,
    all: BTreeMap<String, Value>,
    total: Option<u64>,
    self_link: Option<String>,
    notes: BTreeSet<String>,
}

async fn search(who: &Persona<'_>, asked: &Asked, context: &str) -> Found {
    let mut reply = who.get(&format!("{}?{}", asked.kind, asked.query)).await;
    let mut found = Found {
        status: reply.status,
        matches: Vec::new(),
        all: BTreeMap::new(),
        total: None,
        self_link: None,
        notes: BTreeSet::new(),
    };
    if reply.status != 200 {
        return found;
    }
    found.self_link = reply.link("self");
    found.total = reply.json()["total"].as_u64();
    for page in 0.. {
        assert!(reply.status == 200 && page < PAGES_MAX, "{context}: {}", reply.text());
        for entry in reply.json()["entry"].as_array().into_iter().flatten() {
            let resource = &entry["resource"];
            if entry["search"]["mode"] == "outcome" {
                let issues = resource["issue"].as_array().into_iter().flatten();
                found.notes.extend(issues.filter_map(|issue| issue["diagnostics"].as_str()).map(str::to_owned));
                continue;
            }
            let address = address(resource);
            if entry["search"]["mode"] == "match" {
                found.matches.push(address.clone());
            }
            found.all.insert(address, plain(resource));
        }
        let Some(next) = reply.link("next") else { break };
        reply = who.get(&next).await;
    }
    found.notes.retain(|note| !note.contains("rounds and no further"));
    found
}

fn address(resource: &Value) -> String {
    let text = |name: &str| resource[name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("resourceType"), text("id"))
}

async fn searches(
    narrow: &Persona<'_>,
    own: &TestApp,
    lives: &[Life],
    who: &Somebody,
    random: &mut Random,
    seen: &mut Seen,
    context: &str,
) {
    let visible = lives.iter().filter(|life| life.current().is_some_and(|now| who.sees(now)));
    let visible: BTreeSet<String> = visible.map(Life::address).collect();
    let granted: Vec<String> =
        KINDS.iter().filter(|kind| who.grant(kind)).map(|kind| format!("system/{kind}.s")).collect();
    let unlimited =
        own.persona(&if granted.is_empty() { "system/Basic.s".to_owned() } else { granted.join(" ") }).await;
    for _ in 0..SEARCHES {
        let asked = requests::draw(random);
        let context = format!("{context}\n{}?{}", asked.kind, asked.query);
        let (mut here, mut there) =
            (search(narrow, &asked, &context).await, search(&unlimited, &asked, &context).await);
        seen.requests += 1;
        match (who.grant(asked.kind), asked.own) {
            (false, _) => assert_eq!(here.status, 403, "{context}"),
            (true, true) => assert_eq!(here.status, 200, "{context}"),
            (true, false) => assert!([200, 403].contains(&here.status), "{context}"),
        }
        for address in here.all.keys() {
            assert!(visible.contains(address), "{context}: shows {address}");
        }
        if !asked.ordered {
            here.matches.sort();
            there.matches.sort();
        }
        seen.included += (here.all.len() - here.matches.len()) as u64;
        match (here.status, here.matches.is_empty()) {
            (403, _) => seen.refused += 1,
            (_, true) => seen.empty += 1,
            (_, false) => seen.found += 1,
        }
        assert_eq!(here, there, "{context}");
    }
    seen.narrowed += u64::from(visible.len() < lives.iter().filter(|life| life.current().is_some()).count());
}

fn copy(life: &Life) -> Life {
    Life { kind: life.kind, id: life.id.clone(), versions: life.versions.clone(), deleted: life.deleted }
}

/// What may be seen of each version of a life; a deletion is measured by what was deleted.
fn versions(life: &Life, who: &Somebody) -> Vec<bool> {
    let mut versions: Vec<bool> = life.versions.iter().map(|version| who.sees(version)).collect();
    if life.deleted {
        versions.push(*versions.last().expect("a version"));
    }
    versions
}

/// Reads, versions and histories of every third resource.
async fn reads(
    office: &Persona<'_>,
    narrow: &Persona<'_>,
    lives: &[Life],
    who: &Somebody,
    random: &mut Random,
    seen: &mut Seen,
    context: &str,
) {
    for life in lives.iter().skip(random.below(3)).step_by(3) {
        let versions = versions(life, who);
        let numbered = (1..=versions.len()).map(|n| (format!("/_history/{n}"), versions[n - 1]));
        let last = *versions.last().expect("a version");
        for (tail, see) in std::iter::once((String::new(), last)).chain(numbered) {
            let path = format!("{}{tail}", life.address());
            let got = narrow.get(&path).await;
            seen.requests += 1;
            let context = format!("{context}\n{path}");
            if !who.grant(life.kind) {
                assert_eq!(got.status, 403, "{context}: {}", got.text());
            } else if see {
                let all = office.get(&path).await;
                assert_eq!(got.status, all.status, "{context}: {}", got.text());
                if got.status == 200 {
                    assert_eq!(plain(&got.json()), plain(&who.cut(&all.json())), "{context}");
                }
                seen.reads += 1;
            } else {
                assert_eq!(got.status, 404, "{context}: {}", got.text());
                let unknown = narrow.get(&format!("{}/unknown{tail}", life.kind)).await;
                assert_eq!(got.text(), unknown.text(), "{context}");
                seen.withheld += 1;
            }
        }
        let history = narrow.get(&format!("{}/_history", life.address())).await;
        seen.requests += 1;
        let shown = versions.iter().filter(|see| **see).count();
        match (who.grant(life.kind), shown) {
            (false, _) => assert_eq!(history.status, 403, "{context}"),
            (true, 0) => assert_eq!(history.status, 404, "{context} {}", life.address()),
            (true, _) => assert_eq!(history.json()["total"], shown, "{context} {}", life.address()),
        }
    }
}

/// The history of a type shows the versions that may be seen, and counts no other.
async fn type_histories(narrow: &Persona<'_>, lives: &[Life], who: &Somebody, seen: &mut Seen, context: &str) {
    let mut all = BTreeSet::new();
    for kind in KINDS {
        let reply = narrow.get(&format!("{kind}/_history?_count=500")).await;
        seen.requests += 1;
        if !who.grant(kind) {
            assert_eq!(reply.status, 403, "{context}");
            continue;
        }
        let of_kind = lives.iter().filter(|life| life.kind == kind);
        let expected: BTreeSet<String> = of_kind
            .flat_map(|life| {
                let numbered = versions(life, who).into_iter().enumerate();
                numbered.filter(|(_, see)| *see).map(|(n, _)| format!("{}/{}", life.address(), n + 1))
            })
            .collect();
        assert_eq!(history(&reply), expected, "{context}\n{kind}/_history");
        all.extend(expected);
    }
    let mut reply = narrow.get("_history?_count=40").await;
    seen.requests += 1;
    if !KINDS.iter().any(|kind| who.grant(kind)) {
        return assert!(reply.status == 403 || history(&reply).is_empty(), "{context}");
    }
    let mut shown = history(&reply);
    while let Some(next) = reply.link("next") {
        reply = narrow.get(&next).await;
        let before = shown.len();
        shown.extend(history(&reply));
        assert!(shown.len() > before, "{context}: a page of the history without anything new");
    }
    assert_eq!(shown, all, "{context}\n_history");
}

fn history(reply: &Reply) -> BTreeSet<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
    let named = entries.iter().map(|entry| {
        let tag = entry["response"]["etag"].as_str().unwrap_or_default().trim_matches(['W', '/', '"']).to_owned();
        let url = entry["request"]["url"].as_str().unwrap_or_default();
        format!("{url}/{tag}")
    });
    named.collect()
}

/// An entry of a batch answers as the same request alone.
async fn batch(narrow: &Persona<'_>, lives: &[Life], random: &mut Random, seen: &mut Seen, context: &str) {
    let asked = |random: &mut Random, n: usize| match n % 2 {
        0 => {
            let asked = requests::draw(random);
            format!("{}?{}", asked.kind, asked.query)
        }
        _ => random.pick(lives).address(),
    };
    let urls: Vec<String> = (0..6).map(|n| asked(random, n)).collect();
    let entries: Vec<Value> = urls.iter().map(|url| json!({"request": {"method": "GET", "url": url}})).collect();
    let reply = narrow.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": entries})).await;
    assert_eq!(reply.status, 200, "{context}: {}", reply.text());
    for (url, entry) in urls.iter().zip(reply.json()["entry"].as_array().expect("entries")) {
        let alone = narrow.get(url).await;
        seen.requests += 1;
        let status = entry["response"]["status"].as_str().unwrap_or_default();
        assert!(status.starts_with(&alone.status.to_string()), "{context}\n{url}: {status}");
        match alone.status {
            200 if entry["resource"]["resourceType"] == "Bundle" => {
                let ids = |bundle: &Value| {
                    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
                    entries.iter().map(|entry| address(&entry["resource"])).filter(|of| !of.ends_with('/')).collect()
                };
                let (inner, outer): (Vec<String>, Vec<String>) = (ids(&entry["resource"]), ids(&alone.json()));
                assert_eq!(inner, outer, "{context}\n{url}");
            }
            200 => assert_eq!(entry["resource"], alone.json(), "{context}\n{url}"),
            _ => assert!(entry.get("resource").is_none(), "{context}\n{url}: {entry}"),
        }
    }
}

/// A page link is for the caller it was made for.
async fn cursors(narrow: &Persona<'_>, other: &Persona<'_>, seen: &mut Seen, context: &str) {
    for kind in ["Patient", "Observation", "Practitioner"] {
        let first = narrow.get(&format!("{kind}?_count=1")).await;
        let Some(next) = (first.status == 200).then(|| first.link("next")).flatten() else { continue };
        assert_eq!(narrow.get(&next).await.status, 200, "{context}\n{next}");
        let foreign = other.get(&next).await;
        seen.requests += 1;
        assert_eq!(foreign.status, 400, "{context}\n{}", foreign.text());
        assert!(foreign.json().get("entry").is_none());
    }
}

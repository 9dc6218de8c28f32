//! Readers of what strangers send, under mutated input: none may panic, overflow or turn in circles, and what they take
//! must say the same when it is written and read again. Seeds lie in `seeds/`, a line `---` between two; put the input
//! of a fault that was found there. `PHIAL_FUZZ_S` is the time of each target in seconds (`make soak`: 600); without it
//! each takes a fixed number of inputs. `PHIAL_FUZZ_SEED` makes them others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use phial::access::Scopes;
use phial::fhir::patch::Patch;
use phial::fhir::{definitions, json, xml};
use phial::interaction::form;
use phial::search::{Query, QueryOptions};

use crate::oracle::random::Random;

const INPUTS: usize = 4_000;
/// Longest input that is made of a seed.
const BYTES_MAX: usize = 16 * 1024;
/// An input that takes longer than this has found something.
const SLOW: Duration = Duration::from_secs(5);

/// What grammars are made of: mutations that bytes alone would seldom find.
const TOKENS: [&str; 44] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-",
    "<",
    "/>",
    "</",
    "<!--",
    "]]>",
    "&#x0;",
    "&amp;",
    "xmlns=\"\"",
    "<?xml?>",
    "<![CDATA[",
    "(",
    ")",
    ".where(",
    "|",
    "&",
    "=",
    "$this",
    "%resource",
    "@2020-02-30T24:00",
    "''",
    "'mg'",
    "~",
    "ofType(",
    ":missing",
    "_has:",
    "\\",
    "*",
    "system/",
    "?",
    "..",
    "\u{0}",
    "\u{fffd}é",
];

fn mutated(random: &mut Random, seeds: &[&str]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).as_bytes().to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, random.below(256) as u8),
            3 | 4 => drop(bytes.splice(at..at, random.pick(&TOKENS).bytes())),
            5 => {
                // A part again, many times: depth and length.
                let end = (at + 1 + random.below(24)).min(bytes.len());
                let part = bytes[at..end].repeat(1 + random.below(200));
                bytes.splice(at..at, part);
            }
            6 => {
                let other = random.pick(seeds).as_bytes();
                let from = random.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(at),
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

/// Runs one target; gives the number of inputs and how many of them it took.
fn fuzz(name: &str, seeds: &str, target: impl Fn(&[u8]) -> bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("PHIAL_FUZZ_SEED").unwrap_or(20_260_131);
    let time = number("PHIAL_FUZZ_S").map(Duration::from_secs);
    let mut random = Random::new(seed);
    let seeds: Vec<&str> = seeds.split("\n---\n").map(str::trim_end).collect();
    for seed in &seeds {
        assert!(target(seed.as_bytes()), "{name}: a seed is not taken: {seed}");
    }
    let start = Instant::now();
    let (mut inputs, mut taken) = (0, 0);
    while time.map_or(inputs < INPUTS, |time| start.elapsed() < time) {
        let input = mutated(&mut random, &seeds);
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let shown = || String::from_utf8_lossy(&input).into_owned();
        taken += usize::from(outcome.unwrap_or_else(|_| panic!("{name} panics on (seed {seed}): {:?}", shown())));
        assert!(began.elapsed() < SLOW, "{name} takes {:?} on {:?}", began.elapsed(), shown());
        inputs += 1;
    }
    println!("{name}: {inputs} inputs, {taken} taken, in {:?}", start.elapsed());
    assert!(taken > 0 && taken < inputs, "{name}: mutations must reach both sides: {taken} of {inputs}");
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

const PATIENT: &[u8] = br#"{"resourceType":"Patient","id":"p","active":false,"birthDate":"1970-01-01",
    "name":[{"family":"X","given":["A","B"]},{"family":"Z"}],"telecom":[{"system":"phone","value":"1","rank":1}]}"#;

#[test]
fn json_is_read() {
    fuzz("json", include_str!("seeds/json.txt"), |bytes| {
        let Ok(node) = json::parse(bytes) else { return false };
        let written = json::write(&node);
        let again = json::parse(&written).expect("what was written is JSON");
        assert!(again == node && json::write(&again) == written, "written and read again it says something else");
        let _ = phial::fhir::Resource::check(node);
        true
    });
}

#[test]
fn xml_is_read() {
    fuzz("xml", include_str!("seeds/xml.txt"), |bytes| {
        let Ok(node) = xml::read(bytes) else { return false };
        // What is read may yet be no resource; what is one comes back the same.
        if let Ok(written) = xml::write(&node) {
            let again = xml::read(&written).expect("what was written is FHIR XML");
            assert!(again == node, "written and read again it says something else");
        }
        true
    });
}

#[test]
fn queries_are_read() {
    let options = QueryOptions {
        lenient: false,
        base: "http://localhost/fhir".into(),
        count_default: 10,
        count_max: 100,
        now: phial::world::Instant(1_769_847_330_000),
        customs: Default::default(),
    };
    let kind = definitions().type_id("Patient").expect("a type");
    fuzz("query", include_str!("seeds/query.txt"), |bytes| {
        let Some(Ok(pairs)) = text(bytes).map(form::decode) else { return false };
        let lenient = QueryOptions { lenient: true, ..options.clone() };
        let _ = Query::parse(kind, &pairs, &lenient);
        let Ok(query) = Query::parse(kind, &pairs, &options) else { return false };
        let Ok(again) = Query::parse(kind, &query.applied, &options) else { panic!("what was applied can be read") };
        assert_eq!(again.applied, query.applied);
        true
    });
}

#[test]
fn scopes_are_read() {
    fuzz("scopes", include_str!("seeds/scopes.txt"), |bytes| {
        text(bytes).is_some_and(|text| Scopes::parse(text).is_ok())
    });
}

#[test]
fn patches_are_read_and_applied() {
    let patient = json::parse(PATIENT).expect("JSON");
    fuzz("patch", include_str!("seeds/patch.txt"), |bytes| {
        let Ok(node) = json::parse(bytes) else { return false };
        let patch = if node.is_array() { Patch::json(node) } else { Patch::fhirpath(node) };
        let Ok(patch) = patch else { return false };
        let _ = patch.apply(patient.clone());
        true
    });
}

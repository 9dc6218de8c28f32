//! Readers of what strangers send, under mutated input: none may panic, overflow or turn in circles, and what they take
//! must say the same when it is written and read again. Seeds lie in `seeds/`, a line `---` between two; put the input
//! of a fault that was found there. `PHIAL_FUZZ_S` is the time of each target in seconds (`make soak`: 600); without it
//! each takes a fixed number of inputs. `PHIAL_FUZZ_SEED` makes them others. libFuzzer runs the same targets (`fuzz/`).

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

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

#[test]
fn json_is_read() {
    fuzz("json", include_str!("seeds/json.txt"), targets::json);
}

#[test]
fn xml_is_read() {
    fuzz("xml", include_str!("seeds/xml.txt"), targets::xml);
}

#[test]
fn queries_are_read() {
    fuzz("query", include_str!("seeds/query.txt"), targets::query);
}

#[test]
fn scopes_are_read() {
    fuzz("scopes", include_str!("seeds/scopes.txt"), targets::scopes);
}

#[test]
fn patches_are_read_and_applied() {
    fuzz("patch", include_str!("seeds/patch.txt"), targets::patch);
}

#[test]
fn expressions_are_read_and_evaluated() {
    fuzz("fhirpath", include_str!("seeds/fhirpath.txt"), targets::fhirpath);
}

//! What is not about one type alone: searches of the server and of compartments, histories of types and of the server.

use std::collections::BTreeSet;

use super::population::{KINDS, Life};
use super::requests::Asked;
use super::scopes::Scopes;
use super::{Side, link, search, text};
use crate::oracle::random::Random;

const PLACES: [&str; 9] = [
    "",
    "",
    "Patient/p0/*",
    "Patient/p1/*",
    "Patient/p0/Observation",
    "Patient/p2/Condition",
    "Patient/p1/Encounter",
    "Encounter/e0/*",
    "Practitioner/d0/*",
];
const SEARCHES: usize = 14;

/// The same search of a server that holds only what may be seen gives the same.
pub fn searches(narrow: &Side, own: &Side, permitted: &BTreeSet<String>, random: &mut Random, context: &str) -> usize {
    let mut found = 0;
    for _ in 0..SEARCHES {
        let kind = *random.pick(&PLACES);
        let mut parts: Vec<String> = Vec::new();
        if kind.is_empty() && random.chance(50) {
            parts.push(format!("_type={},{}", random.pick(&KINDS), random.pick(&KINDS)));
        }
        let shaping = ["_total=accurate", "_summary=count", "_sort=_id", "_lastUpdated=gt2020", "_id=p0,o0,e0,c0", ""];
        parts.push((*random.pick(&shaping)).to_owned());
        if random.chance(60) {
            parts.push(format!("_count={}", 1 + random.below(5)));
        }
        parts.retain(|part| !part.is_empty());
        let query = parts.join("&");
        let context = format!("{context}\n{kind}?{query}");
        let asked = Asked { kind, query, post: false, ordered: false, own: true };
        let (mut here, mut there) = (search(narrow, &asked, &context), search(own, &asked, &context));
        here.matches.sort();
        there.matches.sort();
        assert!(here.all.keys().all(|address| permitted.contains(address)), "{context}: {:?}", here.matches);
        found += here.matches.len();
        assert_eq!(here, there, "{context}");
    }
    found
}

/// The history of every type, and of all of them, holds the versions that may be seen and no other.
pub fn histories(narrow: &Side, lives: &[Life], scopes: &Scopes, context: &str) {
    for kind in KINDS.into_iter().map(Some).chain([None]) {
        let path = kind.map_or("/fhir/_history".to_owned(), |kind| format!("/fhir/{kind}/_history"));
        let context = format!("{context}\n{path}");
        if kind.is_some_and(|kind| !scopes.grant(kind, 's')) {
            assert_eq!(narrow.get(&path).status, 403, "{context}");
            continue;
        }
        let mut expected = BTreeSet::new();
        for life in lives.iter().filter(|life| kind.is_none_or(|kind| life.kind == kind)) {
            let mut versions: Vec<bool> = life.versions.iter().map(|version| scopes.let_see(version, 's')).collect();
            if life.deleted {
                versions.extend(versions.last().copied());
            }
            let seen = versions.iter().enumerate().filter(|(_, see)| **see);
            expected.extend(seen.map(|(n, _)| (life.address(), n + 1)));
        }
        let (mut shown, mut given) = (BTreeSet::new(), 0);
        let mut reply = narrow.get(&format!("{path}?_count=7"));
        if kind.is_none() && reply.status == 403 {
            assert!(expected.is_empty(), "{context}");
            continue;
        }
        loop {
            assert_eq!(reply.status, 200, "{context}: {}", reply.text());
            let bundle = reply.json();
            for entry in bundle["entry"].as_array().into_iter().flatten() {
                let version =
                    text(&entry["response"]["etag"]).trim_matches(['W', '/', '"']).parse().expect("a version");
                shown.insert((text(&entry["request"]["url"]).to_owned(), version));
                given += 1;
            }
            assert!(given <= expected.len(), "{context}: more than there is to see");
            let Some(next) = link(&bundle, "next") else { break };
            reply = narrow.get(&next);
        }
        assert_eq!((&shown, given), (&expected, expected.len()), "{context}");
        assert_eq!(narrow.get(&format!("{path}?_summary=count")).json()["total"], expected.len(), "{context}");
    }
}

//! Expansions over small stored systems.

use serde_json::json;

use super::*;

const ANIMALS: &str = "http://example.org/animals";

fn animals() -> Node {
    json!({
        "resourceType": "CodeSystem", "url": ANIMALS, "content": "complete", "hierarchyMeaning": "is-a",
        "concept": [
            {"code": "animal", "concept": [
                {"code": "Cat", "concept": [{"code": "lion", "property": [{"code": "wild", "valueBoolean": true}]}]},
                {"code": "dog", "property": [{"code": "legs", "valueInteger": 4}]},
            ]},
            {"code": "bat", "property": [{"code": "parent", "valueCode": "animal"}, {"code": "wild", "valueBoolean": true}]},
            {"code": "stone"},
        ],
    })
}

/// Expands a value set of one include (and perhaps more members), asking as the server does.
fn codes(compose: Node) -> Result<Vec<String>> {
    let set = json!({"resourceType": "ValueSet", "url": "http://example.org/set", "compose": compose});
    let wild = json!({"compose": {"include": [{"system": ANIMALS, "filter": [{"property": "wild", "op": "=", "value": "true"}]}]}});
    of(
        &Concepts::ValueSet("http://example.org/set".into()),
        &[("http://example.org/set", set), ("http://example.org/wild", wild)],
    )
}

fn of(concepts: &Concepts, sets: &[(&str, Node)]) -> Result<Vec<String>> {
    let mut library = Library::default();
    loop {
        let need = match expand(concepts, &library)? {
            Step::Done(codes) => {
                let mut all: Vec<String> = codes.iter().map(|(_, code)| code.to_owned()).collect();
                all.sort();
                assert_eq!(all.len(), codes.len());
                return Ok(all);
            }
            Step::Needs(need) => need,
        };
        let found = match &need {
            Need::CodeSystem(url) => (url == ANIMALS).then(animals),
            Need::ValueSet(url) => sets.iter().find(|(known, _)| known == url).map(|(_, set)| set.clone()),
        };
        assert!(!library.found.contains_key(&need), "asked twice");
        library.put(need, found);
    }
}

#[test]
fn value_sets_are_what_they_include_less_what_they_exclude() {
    let filter = |property: &str, op: &str, value: &str| json!({"include": [{"system": ANIMALS, "filter": [{"property": property, "op": op, "value": value}]}]});
    for (compose, expected) in [
        (json!({"include": [{"system": ANIMALS, "concept": [{"code": "X"}, {"code": "y"}]}]}), "x y"),
        (json!({"include": [{"system": ANIMALS}]}), "animal bat cat dog lion stone"),
        (filter("concept", "is-a", "cat"), "cat lion"),
        (filter("concept", "is-a", "animal"), "animal bat cat dog lion"),
        (filter("concept", "descendent-of", "animal"), "bat cat dog lion"),
        (filter("concept", "is-not-a", "animal"), "stone"),
        (filter("concept", "generalizes", "lion"), "animal cat lion"),
        (filter("concept", "in", "dog, stone"), "dog stone"),
        (filter("concept", "not-in", "dog,stone"), "animal bat cat lion"),
        (filter("parent", "=", "animal"), "bat cat dog"),
        (filter("child", "=", "lion"), "cat"),
        (filter("legs", "=", "4"), "dog"),
        (filter("legs", "exists", "false"), "animal bat cat lion stone"),
        (
            json!({"include": [{"system": ANIMALS}], "exclude": [{"system": ANIMALS, "concept": [{"code": "CAT"}]}]}),
            "animal bat dog lion stone",
        ),
        (json!({"include": [{"valueSet": ["http://example.org/wild"]}]}), "bat lion"),
        (
            json!({"include": [{"system": ANIMALS, "concept": [{"code": "lion"}, {"code": "dog"}],
                    "valueSet": ["http://example.org/wild"]}]}),
            "lion",
        ),
        (
            json!({"include": [{"valueSet": ["http://hl7.org/fhir/ValueSet/administrative-gender"]}]}),
            "female male other unknown",
        ),
    ] {
        let found = codes(compose.clone()).unwrap_or_else(|error| panic!("{compose}: {error}"));
        assert_eq!(found.join(" "), expected, "{compose}");
    }
}

#[test]
fn what_cannot_be_expanded_whole_is_refused() {
    let filter = |property: &str, op: &str, value: &str| json!({"include": [{"system": ANIMALS, "filter": [{"property": property, "op": op, "value": value}]}]});
    let many: Vec<Node> = (0..=CODES_MAX).map(|n| json!({"code": n.to_string()})).collect();
    for (compose, kind) in [
        (json!({"include": [{"system": "http://loinc.org"}]}), Kind::Invalid),
        (json!({"include": [{"valueSet": ["http://example.org/other"]}]}), Kind::Invalid),
        (json!({"include": [{"valueSet": ["http://example.org/set"]}]}), Kind::TooCostly),
        (json!({"include": [{}]}), Kind::Unsupported),
        (filter("concept", "regex", "a.*"), Kind::Unsupported),
        (filter("legs", "is-a", "4"), Kind::Unsupported),
        (filter("concept", "is-a", "fish"), Kind::Invalid),
        (json!({"include": [{"system": ANIMALS, "concept": many}]}), Kind::TooCostly),
    ] {
        assert_eq!(codes(compose).err().map(|error| error.kind), Some(kind));
    }
    let fragment = json!({"url": ANIMALS, "content": "fragment", "concept": [{"code": "a"}]});
    assert!(System::read(ANIMALS, &fragment).is_err());
    let parts =
        json!({"url": ANIMALS, "content": "complete", "hierarchyMeaning": "part-of", "concept": [{"code": "a"}]});
    assert!(System::read(ANIMALS, &parts).expect("reads").filter("concept", "is-a", "a").is_err());
}

#[test]
fn a_stored_expansion_stands_in_when_it_is_whole() {
    let contains = json!([{"system": "http://loinc.org", "code": "1-1"}, {"abstract": true, "contains": [{"system": "http://loinc.org", "code": "2-2"}]}]);
    let set = |total: u64| json!({"compose": {"include": [{"system": "http://loinc.org"}]}, "expansion": {"total": total, "contains": contains}});
    let all = |total: u64| of(&Concepts::ValueSet("ValueSet/1".into()), &[("ValueSet/1", set(total))]);
    assert_eq!(all(2).expect("expands"), ["1-1", "2-2"]);
    assert!(all(4).is_err(), "a part of it");
}

#[test]
fn above_and_below_follow_is_a() {
    let concepts = |down: bool, code: &str| match down {
        true => Concepts::Below { system: ANIMALS.into(), code: code.into() },
        false => Concepts::Above { system: ANIMALS.into(), code: code.into() },
    };
    assert_eq!(of(&concepts(true, "CAT"), &[]).expect("expands"), ["cat", "lion"]);
    assert_eq!(of(&concepts(false, "bat"), &[]).expect("expands"), ["animal", "bat"]);
    assert_eq!(of(&concepts(true, "fish"), &[]).err().map(|error| error.kind), Some(Kind::Invalid));
}

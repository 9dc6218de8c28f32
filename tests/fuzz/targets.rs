//! What is done with one input of each reader, for the mutated inputs of `tests/fuzz` and for libFuzzer (`fuzz/`). A
//! target panics when it finds a fault and tells whether the input was taken.

use std::sync::LazyLock;

use phial::access::Scopes;
use phial::fhir::json::Node;
use phial::fhir::patch::Patch;
use phial::fhir::path::{Env, Expr, Item};
use phial::fhir::{Resource, definitions, json, validate, xml};
use phial::interaction::form;
use phial::search::{Query, QueryOptions};
use phial::world::Instant;

/// What expressions and patches are tried on.
const RESOURCES: [&str; 2] = [
    r##"{"resourceType":"Patient","id":"p","active":false,"birthDate":"1970-01-01","_birthDate":{"extension":[{"url":
        "http://t","valueDateTime":"1970-01-01T01:02:03Z"}]},"name":[{"family":"X","given":["A","B"]},{"family":"Z"}],
        "telecom":[{"system":"phone","value":"1","rank":1}],"contained":[{"resourceType":"Organization","id":"o"}],
        "managingOrganization":{"reference":"#o"},"generalPractitioner":[{"reference":"Practitioner/1"}]}"##,
    r#"{"resourceType":"Observation","id":"o","status":"final","code":{"coding":[{"system":"http://loinc.org",
        "code":"8480-6"}],"text":"Pressure"},"subject":{"reference":"Patient/p"},"effectivePeriod":{"start":"2020-02",
        "end":"2021"},"valueQuantity":{"value":1.50,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"},
        "component":[{"code":{"text":"a"},"valueInteger":3},{"code":{"text":"b"},"valueTime":"10:11:12.5"}]}"#,
];

const NOW: Instant = Instant(1_769_847_330_000);

fn resources() -> &'static [Node] {
    static NODES: LazyLock<Vec<Node>> =
        LazyLock::new(|| RESOURCES.iter().map(|text| json::parse(text.as_bytes()).expect("JSON")).collect());
    &NODES
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// JSON: what is read says the same when it is written; a resource without any fault says the same in XML.
pub fn json(bytes: &[u8]) -> bool {
    let Ok(node) = json::parse(bytes) else { return false };
    let written = json::write(&node);
    let again = json::parse(&written).expect("what was written is JSON");
    assert!(again == node && json::write(&again) == written, "written and read again it says something else");
    let faultless = validate::structure(&node).is_empty();
    if Resource::check(node.clone()).is_ok() && faultless {
        // Characters that XML cannot hold are refused there, with their place.
        if let Ok(written) = xml::write(&node) {
            let again = xml::read(&written).unwrap_or_else(|error| panic!("what was written is FHIR XML: {error}"));
            // In whatever order, which XML has from the definitions.
            assert!(again == node, "in XML it says something else: {again}");
        }
    }
    true
}

/// XML: what is read and is a resource comes back the same.
pub fn xml(bytes: &[u8]) -> bool {
    let Ok(node) = xml::read(bytes) else { return false };
    let written = json::write(&node);
    assert!(json::parse(&written).is_ok_and(|again| again == node), "in JSON it says something else");
    // What is read may yet be no resource; what is one comes back the same.
    if let Ok(written) = xml::write(&node) {
        let again = xml::read(&written).expect("what was written is FHIR XML");
        assert!(again == node, "written and read again it says something else");
        let pretty = xml::read(&xml::indented(&written)).expect("indented it is FHIR XML");
        assert!(pretty == node, "indented it says something else");
    }
    true
}

/// The query of a search, for Patient or for the type before a question mark.
pub fn query(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let named = text.split_once('?').and_then(|(name, query)| Some((definitions().type_id(name)?, query)));
    let (kind, query) = named.unwrap_or_else(|| (definitions().type_id("Patient").expect("a type"), text));
    let Ok(pairs) = form::decode(query) else { return false };
    let options = QueryOptions {
        lenient: false,
        base: "http://localhost/fhir".into(),
        count_default: 10,
        count_max: 100,
        now: NOW,
        customs: Default::default(),
    };
    let lenient = QueryOptions { lenient: true, ..options.clone() };
    let _ = Query::parse(kind, &pairs, &lenient);
    let Ok(query) = Query::parse(kind, &pairs, &options) else { return false };
    let Ok(again) = Query::parse(kind, &query.applied, &options) else { panic!("what was applied can be read") };
    assert_eq!(again.applied, query.applied);
    let link = form::encode(&query.applied);
    assert!(form::decode(&link).is_ok_and(|pairs| pairs == query.applied), "a link says something else: {link}");
    true
}

/// Scope strings: what is shown of what was read is read as the same, and covers and narrows itself.
pub fn scopes(bytes: &[u8]) -> bool {
    let Some(Ok(scopes)) = text(bytes).map(Scopes::parse) else { return false };
    let shown = scopes.to_string();
    assert!(Scopes::parse(&shown).is_ok_and(|again| again == scopes), "shown it says something else: {shown}");
    for scope in &scopes.0 {
        assert!(scopes.cover(scope), "scopes do not cover themselves: {shown}");
    }
    let _ = scopes.narrowed_by(&scopes);
    true
}

/// Patches: read, and applied to resources; what comes out can be written and read.
pub fn patch(bytes: &[u8]) -> bool {
    let Ok(node) = json::parse(bytes) else { return false };
    let patch = if node.is_array() { Patch::json(node) } else { Patch::fhirpath(node) };
    let Ok(patch) = patch else { return false };
    let _ = patch.asks();
    for resource in resources() {
        if let Ok(patched) = patch.apply(resource.clone()) {
            let written = json::write(&patched);
            // What is nested too deep is refused when it is checked.
            if let Ok(again) = json::parse(&written) {
                assert!(again == patched, "written and read again it says something else");
            }
            let _ = Resource::check(patched);
        }
    }
    true
}

/// FHIRPath: parsed, checked, and evaluated as search does and as the language says.
pub fn fhirpath(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let Ok(expr) = Expr::parse(text) else { return false };
    for resource in resources() {
        let _ = expr.check(resource["resourceType"].as_str().expect("a type"));
        let found = expr.eval(resource);
        let again = expr.eval(resource);
        assert_eq!(found.is_ok(), again.is_ok(), "it is not the same twice");
        if let (Ok(found), Ok(again)) = (found, again) {
            assert!(found.len() == again.len(), "it is not the same twice");
            for (one, other) in found.iter().zip(&again) {
                assert!(one.node == other.node && one.kind == other.kind, "it is not the same twice");
                let _ = expr.eval_at(resource, one);
            }
        }
        let root = Item::root(resource);
        let env = Env::of(resource).strict().at(NOW).with("patient", vec![root.clone()]);
        let _ = expr.eval_in(&env, &root);
        let _ = expr.holds(&env, &root);
    }
    true
}

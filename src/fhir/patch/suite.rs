//! The outside suites of patches. What fails is listed in `conformance/patch-exceptions.txt`, which may only shrink.

use std::collections::BTreeMap;
use std::path::Path;

use super::Patch;
use crate::fhir::json::{self, Node};
use crate::fhir::path::tests::shared;
use crate::fhir::xml;

const EXCEPTIONS: &str = include_str!("../../../conformance/patch-exceptions.txt");

/// Compares with the list: every failure is on it, and nothing on it passes.
fn verdict(suite: &str, count: usize, failed: &BTreeMap<String, String>) {
    println!("{suite}: {} of {count} cases pass", count - failed.len());
    let lines = EXCEPTIONS.lines().filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    let listed: Vec<String> =
        fields.filter(|fields| fields.len() == 3 && fields[0] == suite).map(|fields| fields[1].to_owned()).collect();
    let unlisted = failed.iter().filter(|(name, _)| !listed.contains(name));
    let mut wrong: Vec<String> = unlisted.map(|(name, why)| format!("fails: {name}: {why}")).collect();
    wrong.extend(listed.iter().filter(|name| !failed.contains_key(*name)).map(|name| format!("passes: {name}")));
    assert!(wrong.is_empty(), "not as conformance/patch-exceptions.txt says:\n{}", wrong.join("\n"));
}

/// Why a case fails; None: it passes. `expected`: None where the patch must fail.
fn run(patch: crate::error::Result<Patch>, document: Node, expected: Option<&Node>, whole: bool) -> Option<String> {
    let patched = patch.and_then(|patch| match (&patch, whole) {
        // The cases are no resources: what FHIR takes away (empty lists) is to stay.
        (Patch::Json(patch), false) => patch.apply(document),
        (patch, _) => patch.apply(document),
    });
    match (patched, expected) {
        (Ok(patched), Some(expected)) if plain(patched.clone()) == plain(expected.clone()) => None,
        (Ok(patched), Some(expected)) => Some(format!("gives {patched}, not {expected}")),
        (Err(_), None) => None,
        (Ok(patched), None) => Some(format!("should fail, gives {patched}")),
        (Err(error), Some(_)) => Some(error.to_string()),
    }
}

fn json_suite(file: &Path, suite: &str, least: usize) {
    let bytes = std::fs::read(file).expect("the cases");
    // A case that is disabled has a duplicate member, which our own reader refuses.
    let list: Vec<Node> = serde_json::from_slice(&bytes).expect("a list of cases");
    let cases: Vec<(usize, Node)> = list
        .into_iter()
        .enumerate()
        .filter(|(_, case)| case.get("patch").is_some() && case["disabled"] != Node::Bool(true))
        .collect();
    let mut failed = BTreeMap::new();
    let count = cases.len();
    for (n, mut case) in cases {
        let expected = case.get("error").is_none().then(|| case.get("expected").unwrap_or(&case["doc"]).clone());
        let why = run(Patch::json(case["patch"].take()), case["doc"].take(), expected.as_ref(), false);
        if let Some(why) = why {
            failed.insert(format!("{n} {}", case["comment"].as_str().unwrap_or_default()).trim().to_owned(), why);
        }
    }
    assert!(count >= least, "{count} cases in {}", file.display());
    verdict(suite, count, &failed);
}

#[test]
fn json_patch_passes_its_suites() {
    let Some(folder) = shared("suites/json-patch-tests") else { return };
    json_suite(&folder.join("tests.json"), "json-patch tests", 90);
    json_suite(&folder.join("spec_tests.json"), "json-patch spec", 15);
    let Some(folder) = shared("suites/fhir-patch-r4") else { return };
    json_suite(&folder.join("json-patch-tests.json"), "fhir json-patch", 15);
}

/// The suite writes the same narrative with different white space and escapes.
fn plain(mut node: Node) -> Node {
    if let Some(Node::String(div)) = node.pointer_mut("/text/div") {
        *div = div.replace("&quot;", "\"").split_whitespace().collect::<Vec<_>>().join(" ").replace("> <", "><");
    }
    node
}

/// What stands between the tags.
fn between<'t>(text: &'t str, tag: &str) -> Option<&'t str> {
    let start = text.find(&format!("<{tag}>"))? + tag.len() + 2;
    let end = text.rfind(&format!("</{tag}>"))?;
    Some(&text[start..end])
}

#[test]
fn fhirpath_patch_passes_the_official_suite() {
    let Some(folder) = shared("suites/fhir-patch-r4") else { return };
    let text = std::fs::read_to_string(folder.join("fhir-patch-tests.xml")).expect("the cases");
    let mut failed = BTreeMap::new();
    let cases: Vec<&str> = text.split("<case ").skip(1).collect();
    for case in &cases {
        let name = case.split("name=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a name");
        let tree = |tag: &str| {
            let inner = between(case, tag)?;
            Some(xml::read(inner.trim().as_bytes()).unwrap_or_else(|error| panic!("{name} {tag}: {error}")))
        };
        let (input, diff) = (tree("input").expect("an input"), tree("diff").expect("a patch"));
        let expected = tree("output");
        if let Some(why) = run(Patch::fhirpath(diff.clone()), input.clone(), expected.as_ref(), true) {
            failed.insert(name.to_owned(), why);
        }
        // The same through JSON.
        let again = |node: &Node| json::parse(&json::write(node)).expect("JSON");
        let why = run(Patch::fhirpath(again(&diff)), again(&input), expected.as_ref(), true);
        assert_eq!(why.is_some(), failed.contains_key(name), "{name}: XML and JSON differ: {why:?}");
    }
    assert!(cases.len() >= 33, "{} cases", cases.len());
    verdict("fhirpath-patch", cases.len(), &failed);
}

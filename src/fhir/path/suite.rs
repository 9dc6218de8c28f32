//! The official suite of FHIRPath for R4. What fails is listed in `conformance/fhirpath-exceptions.txt`, which may only
//! shrink.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::tests::shared;
use super::{Env, Expr, Item};
use crate::fhir::json::Node;
use crate::fhir::xml;
use crate::world::Instant;

const EXCEPTIONS: &str = include_str!("../../../conformance/fhirpath-exceptions.txt");

#[derive(Default)]
struct Case {
    name: String,
    input: Option<String>,
    predicate: bool,
    /// `syntax`, `semantic`, `execution`: it must fail.
    invalid: Option<String>,
    expression: String,
    /// Type, if told, and text.
    outputs: Vec<(Option<String>, String)>,
}

/// Reads the file of cases.
fn cases(text: &str) -> Vec<Case> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let (mut out, mut case, mut inside) = (Vec::new(), Case::default(), String::new());
    loop {
        match reader.read_event().expect("well-formed") {
            Event::Start(start) => {
                inside = String::from_utf8_lossy(start.name().as_ref()).into_owned();
                let attribute = |name: &str| {
                    let found = start.try_get_attribute(name).expect("well-formed")?;
                    Some(found.normalized_value(quick_xml::XmlVersion::Implicit1_0).expect("a value").into_owned())
                };
                match inside.as_str() {
                    "test" => {
                        case = Case {
                            name: attribute("name").unwrap_or_default(),
                            input: attribute("inputfile"),
                            predicate: attribute("predicate").as_deref() == Some("true"),
                            ..Case::default()
                        };
                    }
                    "expression" => case.invalid = attribute("invalid"),
                    "output" => case.outputs.push((attribute("type"), String::new())),
                    _ => {}
                }
            }
            Event::End(end) => {
                inside.clear();
                if end.name().as_ref() == b"test" {
                    out.push(std::mem::take(&mut case));
                }
            }
            Event::Eof => return out,
            event => {
                let text = match event {
                    Event::Text(text) => text.decode().expect("UTF-8").into_owned(),
                    Event::CData(text) => text.decode().expect("UTF-8").into_owned(),
                    Event::GeneralRef(name) => match name.resolve_char_ref().expect("a character") {
                        Some(c) => c.to_string(),
                        None => quick_xml::escape::unescape(&format!("&{};", name.decode().expect("UTF-8")))
                            .expect("an entity")
                            .into_owned(),
                    },
                    _ => continue,
                };
                match (inside.as_str(), case.outputs.last_mut()) {
                    ("expression", _) => case.expression += &text,
                    ("output", Some(output)) => output.1 += &text,
                    _ => {}
                }
            }
        }
    }
}

fn load(path: &Path) -> Node {
    let bytes = std::fs::read(path).expect("an input file");
    if path.extension().is_some_and(|e| e == "xml") {
        xml::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    } else {
        serde_json::from_slice(&bytes).expect("JSON")
    }
}

/// The text of an item as the suite writes it.
fn shown(item: &Item) -> String {
    match &*item.node {
        Node::String(text) => text.clone(),
        Node::Object(quantity) if item.kind == Some("Quantity") => {
            format!("{} '{}'", quantity["value"], quantity["unit"].as_str().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

fn agrees(item: &Item, kind: Option<&str>, text: &str) -> bool {
    let text = text.strip_prefix('@').unwrap_or(text);
    let text = if kind == Some("time") || text.starts_with('T') { text.trim_start_matches('T') } else { text };
    if kind.is_some_and(|kind| item.kind != Some(kind)) {
        return false;
    }
    shown(item) == text
}

/// Why a case fails; None: it passes.
fn run(case: &Case, input: &Node) -> Option<String> {
    let root = Item::root(input);
    let env = Env::of(input).strict().at(Instant(1_790_000_000_000));
    let kind = input["resourceType"].as_str().unwrap_or_default();
    let expr = match Expr::parse(&case.expression) {
        Ok(expr) => expr,
        Err(error) => return case.invalid.is_none().then(|| error.to_string()),
    };
    if let Err(error) = expr.check(kind) {
        return case.invalid.is_none().then(|| format!("refused by the check: {error}"));
    }
    if case.predicate {
        let held = expr.holds(&env, &root).map(|b| b.to_string()).unwrap_or_else(|error| error.to_string());
        return (held != case.outputs[0].1).then_some(held);
    }
    let items = match expr.eval_in(&env, &root) {
        Ok(items) => items,
        Err(error) => return case.invalid.is_none().then(|| error.to_string()),
    };
    let got = || items.iter().map(|i| format!("{} {}", i.kind.unwrap_or("?"), shown(i))).collect::<Vec<_>>().join(", ");
    if let Some(invalid) = &case.invalid {
        return Some(format!("should fail ({invalid}), gives [{}]", got()));
    }
    let same = items.len() == case.outputs.len()
        && items.iter().zip(&case.outputs).all(|(item, (kind, text))| agrees(item, kind.as_deref(), text));
    (!same).then(got)
}

#[test]
fn the_official_suite_passes() {
    let Some(folder) = shared("suites/fhirpath-r4") else { return };
    let text = std::fs::read_to_string(folder.join("tests-fhir-r4.xml")).expect("the cases");
    let mut inputs: HashMap<String, Node> = HashMap::new();
    let nothing = serde_json::json!({"resourceType": "Basic"});
    let cases = cases(&text);
    let mut failed = BTreeMap::new();
    for case in &cases {
        let input = match &case.input {
            Some(name) => inputs.entry(name.clone()).or_insert_with(|| load(&folder.join("input").join(name))),
            None => &nothing,
        };
        if let Some(why) = run(case, input) {
            failed.insert(case.name.clone(), format!("{} => {why}", case.expression));
        }
    }
    println!("{} of {} cases pass", cases.len() - failed.len(), cases.len());
    let listed: Vec<&str> = EXCEPTIONS.lines().filter_map(|line| Some(line.split_once('\t')?.0)).collect();
    let mut wrong = Vec::new();
    for (name, why) in &failed {
        if !listed.contains(&&**name) {
            wrong.push(format!("fails: {name}: {why}"));
        }
    }
    wrong.extend(listed.iter().filter(|name| !failed.contains_key(**name)).map(|name| format!("passes: {name}")));
    assert!(cases.len() > 900, "{} cases", cases.len());
    assert!(wrong.is_empty(), "not as conformance/fhirpath-exceptions.txt says:\n{}", wrong.join("\n"));
}

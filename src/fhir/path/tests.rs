//! Search expressions, faults, limits, and every published search parameter over every official example.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::fhir::definitions::definitions;

fn eval(text: &str, root: &Node) -> Vec<Node> {
    let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let items = expr.eval(root).unwrap_or_else(|error| panic!("{text}: {error}"));
    items.into_iter().map(|item| item.node.into_owned()).collect()
}

fn refused(text: &str) -> String {
    Expr::parse(text).err().unwrap_or_else(|| panic!("{text} is refused")).to_string()
}

fn patient() -> Node {
    json!({
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"family": "Chalmers", "given": ["Peter", null], "_given": [null, {"id": "g2"}]}],
        "birthDate": "1974-12-25",
        "_birthDate": {"extension": [{"url": "http://x/time", "valueDateTime": "1974-12-25T14:35:45-05:00"}]},
        "_gender": {"id": "g"},
        "deceasedBoolean": false,
        "telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "a@b"}],
        "generalPractitioner": [
            {"reference": "Practitioner/7"},
            {"reference": "http://other/fhir/Organization/9/_history/2"},
            {"reference": "#c1"},
            {"type": "Organization", "identifier": {"value": "x"}}
        ],
        "contained": [{"resourceType": "Practitioner", "id": "c1", "active": true}]
    })
}

#[test]
fn search_expressions_find_their_elements() {
    let patient = patient();
    for (text, expected) in [
        ("Patient.name.family", json!(["Chalmers"])),
        ("Patient.name.given", json!(["Peter", null])),
        ("Patient.birthDate", json!(["1974-12-25"])),
        ("Patient.birthDate | Observation.value", json!(["1974-12-25"])),
        ("Observation.value", json!([])),
        ("Patient.telecom.where(system='email')", json!([{"system": "email", "value": "a@b"}])),
        ("Patient.telecom.where(system='email').value", json!(["a@b"])),
        ("(Patient.deceased as dateTime)", json!([])),
        ("(Patient.deceased as boolean)", json!([false])),
        ("Patient.deceased.exists() and Patient.deceased != false", json!([false])),
        ("Patient.generalPractitioner.where(resolve() is Practitioner).reference", json!(["Practitioner/7", "#c1"])),
        ("Patient.generalPractitioner.where(resolve() is Organization).count()", json!([2])),
        ("Patient.generalPractitioner.resolve().ofType(Practitioner).active", json!([true])),
        ("Patient.birthDate.extension('http://x/time').value", json!(["1974-12-25T14:35:45-05:00"])),
        ("Patient.birthDate.extension.value.as(DateTime).exists()", json!([true])),
        ("Patient.gender.hasValue()", json!([false])),
        ("Patient.gender.id", json!(["g"])),
        ("Patient.name.given.id", json!(["g2"])),
        ("Resource.id | DomainResource.contained.id", json!(["p1", "c1"])),
        ("Patient.name[0].given[0]", json!(["Peter"])),
    ] {
        assert_eq!(Node::from(eval(text, &patient)), expected, "{text}");
    }
}

#[test]
fn items_know_their_type() {
    let patient = patient();
    for (text, kind) in [
        ("Patient.name", "HumanName"),
        ("Patient.birthDate", "date"),
        ("Patient.deceased", "boolean"),
        ("Patient.generalPractitioner", "Reference"),
        ("Patient.contained", "Practitioner"),
        ("Patient.birthDate.extension.value", "dateTime"),
        ("Patient.name.exists()", "boolean"),
        ("Patient", "Patient"),
    ] {
        let items = Expr::parse(text).and_then(|e| e.eval(&patient)).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(items[0].kind, Some(kind), "{text}");
    }
    let birth = Expr::parse("birthDate").and_then(|e| e.eval(&patient)).expect("evaluates");
    assert!(birth[0].sibling.is_some_and(|s| s.get("extension").is_some()));
}

#[test]
fn composites_are_evaluated_at_an_item() {
    let observation = json!({
        "resourceType": "Observation",
        "component": [
            {"code": {"text": "a"}, "valueQuantity": {"value": 1}},
            {"code": {"text": "b"}, "valueString": "x"}
        ]
    });
    let groups = Expr::parse("Observation.component").and_then(|e| e.eval(&observation)).expect("evaluates");
    let value = Expr::parse("value.as(Quantity)").expect("parses");
    let counts: Vec<usize> =
        groups.iter().map(|at| value.eval_at(&observation, at).expect("evaluates").len()).collect();
    assert_eq!(counts, [1, 0]);
    let whole = Expr::parse("%resource.component.code.text").expect("parses");
    assert_eq!(whole.eval_at(&observation, &groups[0]).expect("evaluates").len(), 2);
}

#[test]
fn faults_name_their_column() {
    assert!(refused("Patient.").contains("column 9"), "{}", refused("Patient."));
    assert!(refused("name.foo(1)").contains("column 6"), "{}", refused("name.foo(1)"));
    assert!(refused("'é' + (").contains("column 8"), "{}", refused("'é' + ("));
    assert!(refused("name.where()").contains("arguments"));
    assert!(refused("1 +").contains("term"));
    assert!(refused("'abc").contains("not closed"));
}

#[test]
fn what_costs_too_much_is_refused() {
    assert!(refused(&"(".repeat(5000)).contains("deep"));
    assert!(refused(&format!("1{}", " + 1".repeat(3000))).contains("deep"));
    assert!(refused(&"-".repeat(3000)).contains("deep"));
    assert!(refused(&" ".repeat(20_000)).contains("longer"));
    let root = json!({"resourceType": "Patient"});
    let twice = "'0123456789abcdef'.replaceMatches('.', '0123456789abcdef')";
    let text = format!("{twice}{}", ".replaceMatches('.', '0123456789abcdef')".repeat(8));
    let error = Expr::parse(&text).and_then(|e| e.eval(&root).map(|_| ())).expect_err("too long");
    assert_eq!(error.kind, crate::error::Kind::TooCostly);
    let endless = Expr::parse("(1 | 2).repeatAll($this)").and_then(|e| e.eval(&root).map(|_| ()));
    assert_eq!(endless.expect_err("never ends").kind, crate::error::Kind::TooCostly);
}

#[test]
fn variables_and_clock_are_given() {
    let patient = patient();
    let at = Item::root(&patient);
    let env = Env::of(&patient).at(Instant(1_700_000_000_000)).with("me", vec![at.clone()]);
    let one = |text: &str| {
        let items = Expr::parse(text).and_then(|e| e.eval_in(&env, &at)).unwrap_or_else(|e| panic!("{text}: {e}"));
        items.into_iter().map(|item| item.node.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(one("%me.birthDate"), [json!("1974-12-25")]);
    assert_eq!(one("now()"), [json!("2023-11-14T22:13:20.000Z")]);
    assert_eq!(one("today() > %me.birthDate"), [json!(true)]);
    assert_eq!(one("defineVariable('n', name).select(%n.family)"), [json!("Chalmers")]);
    assert!(Expr::parse("now()").and_then(|e| e.eval(&patient)).is_err());
    assert!(Expr::parse("%nobody").and_then(|e| e.eval(&patient)).is_err());
    assert!(Expr::parse("birthDate < @1980").and_then(|e| e.holds(&env, &at)).expect("evaluates"));
}

/// Words of the language, two blanks apart.
const WORDS: &str = "Patient  name  given  birthDate  telecom  $this  $index  %resource  %context  where  select  iif  \
    exists  repeat  children  descendants  resolve  sort  aggregate  lowBoundary  highBoundary  precision  toQuantity  \
    toDate  toString  substring  replace  matches  split  join  round  power  abs  is  as  ofType  Quantity  date  \
    System.String  (  )  (  )  .  .  [  ]  ,  |  +  -  *  /  div  mod  &  =  ~  !=  <  >=  and  or  implies  in  contains  \
    {}  'a'  'é\\u0041'  ''  0  1  -1  9223372036854775807  0.0000000000000000000000000001  1.5  1 'mg'  4 days  \
    100000000 years  @2015  @2015-02-28T23:59:59.999+14:00  @T10:30  @9999-12-31  true  `id`  //x\n  /*  é  \\  %`vs-x`";

/// Words in any order: most is refused, nothing panics, and what parses is evaluated or refused.
fn texts() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let word = proptest::sample::select(WORDS.split("  ").collect::<Vec<_>>());
    proptest::collection::vec(word, 1..24).prop_map(|words| words.join(" "))
}

proptest::proptest! {
    #[test]
    fn no_expression_panics(text in texts()) {
        let patient = patient();
        if let Ok(expr) = Expr::parse(&text) {
            let _ = expr.check("Patient");
            let env = Env::of(&patient).at(Instant(0));
            let _ = expr.eval_in(&env, &Item::root(&patient));
            let _ = expr.eval_in(&env.strict(), &Item::root(&patient));
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,60}") {
        let _ = Expr::parse(&text);
        let _ = Expr::parse(&format!("@{text}"));
        let _ = Expr::parse(&format!("'{text}'.toQuantity() = '{text}'.toDateTime()")).map(|e| e.eval(&patient()).is_ok());
    }
}

#[test]
fn arithmetic_at_the_limits_gives_nothing() {
    let patient = patient();
    for text in [
        "0.0000000000000000000000000001.lowBoundary(28)",
        "9223372036854775807 + 1",
        "@2015 - 9223372036854775807 years",
        "@9999-12-31 + 1 day",
        "79228162514264337593543950335.0 * 10",
        "1 / 0",
        "(-1).sqrt()",
    ] {
        assert_eq!(eval(text, &patient), Vec::<Node>::new(), "{text}");
    }
}

/// The folder with sample data beside the project, if it is there.
pub(in crate::fhir) fn shared(part: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(part);
    if !path.exists() {
        println!("skipped: ../shared/data/{part} is not there");
        return None;
    }
    Some(path)
}

/// Every expression of every search parameter parses, and finds something where the examples have it.
#[test]
fn all_search_parameters_evaluate_over_all_examples() {
    let d = definitions();
    let mut count = 0;
    for kind in d.types() {
        for param in d.params(*kind) {
            let Some(text) = param.text(*kind) else { continue };
            Expr::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", param.url));
            count += 1;
        }
    }
    assert!(count > 1300);
    let mut wrong = Vec::new();
    for kind in d.types() {
        for param in d.params(*kind) {
            let Some(text) = param.text(*kind) else { continue };
            if let Err(error) = Expr::parse(&text).and_then(|e| e.check(d.type_name(*kind))) {
                wrong.push(format!("{}: {text}: {error}", param.url));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let Some(folder) = shared("samples/hl7-r4-examples/json") else { return };
    let (mut found, mut used) = (0, std::collections::HashSet::new());
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        // Large collections of definitions are the same again and slow in a debug build.
        if path.extension().is_none_or(|e| e != "json") || bytes.len() > 300_000 {
            continue;
        }
        let node: Node = serde_json::from_slice(&bytes).expect("JSON");
        let Some(kind) = node["resourceType"].as_str().and_then(|name| d.type_id(name)) else { continue };
        for param in d.params(kind) {
            let Some(expr) = param.expr(kind) else { continue };
            let items = expr.eval(&node).unwrap_or_else(|e| panic!("{} of {}: {e}", param.url, path.display()));
            found += items.len();
            if !items.is_empty() {
                used.insert(param.url);
            }
            for component in &param.components {
                for item in &items {
                    component.expr().eval_at(&node, item).unwrap_or_else(|e| panic!("{}: {e}", param.url));
                }
            }
            assert!(items.iter().all(|item| item.kind.is_some()), "{} of {}", param.url, path.display());
        }
    }
    println!("{found} values of {} parameters", used.len());
    assert!(used.len() > 800, "{}", used.len());
}

//! Values of whole resources, and of every official example where those are at hand.

use std::collections::BTreeSet;

use super::*;
use crate::fhir::ParamKind;
use crate::fhir::definitions::Param;
use crate::search::capsule::{View, encode};
use crate::search::testing::{BASE, NOW, indexed, kind, samples};

fn param(of: &str, code: &str) -> ParamId {
    definitions().param(kind(of), code).expect(code).id
}

fn texts(values: &Values, of: &str, code: &str) -> Vec<String> {
    let found = values.params.get(&param(of, code)).into_iter().flatten();
    found.filter_map(|value| if let Value::Text(text) = value { Some(text.clone()) } else { None }).collect()
}

#[test]
fn every_part_of_names_and_addresses_counts() {
    let values = indexed(
        r#"{"resourceType":"Patient","name":[{"text":"T","family":"F","given":["G","H"],"prefix":["P"],"suffix":["S"]}],
            "address":[{"text":"AT","line":["L1","L2"],"city":"C","district":"D","state":"ST","postalCode":"PC","country":"CO"}]}"#,
    );
    assert_eq!(texts(&values, "Patient", "name"), ["T", "F", "G", "H", "P", "S"]);
    assert_eq!(texts(&values, "Patient", "address"), ["AT", "L1", "L2", "C", "D", "ST", "PC", "CO"]);
}

#[test]
fn sounds_are_of_one_name_each() {
    let values = indexed(
        r#"{"resourceType":"Patient","name":[{"family":"Smith","given":["Jo","Ann"],"prefix":["Dr."],"suffix":["Jr."]},
            {"text":"van Dyke"},{"prefix":["Dr."]}]}"#,
    );
    assert_eq!(texts(&values, "Patient", "phonetic"), ["A AN J SM0 XMT", "FN FNTK TK"]);
    let values = indexed(r#"{"resourceType":"Organization","name":"Mayo Clinic"}"#);
    assert_eq!(texts(&values, "Organization", "phonetic"), ["KLNK M MKLNK"]);
}

#[test]
fn who_has_a_number_among_siblings_is_of_a_multiple_birth() {
    for (member, wanted) in [
        (r#""multipleBirthInteger":2"#, Some("true")),
        (r#""multipleBirthBoolean":true"#, Some("true")),
        (r#""multipleBirthBoolean":false"#, Some("false")),
        (r#""active":true"#, None),
    ] {
        let values = indexed(&format!(r#"{{"resourceType":"Patient",{member}}}"#));
        let codes: Vec<&str> = values
            .params
            .get(&param("Patient", "birthOrderBoolean"))
            .into_iter()
            .flatten()
            .filter_map(|value| if let Value::Token { code, .. } = value { code.as_deref() } else { None })
            .collect();
        assert_eq!(codes.first().copied(), wanted, "{member}");
        assert!(codes.len() < 2);
    }
}

#[test]
fn timings_count_by_their_outer_limits() {
    let values = indexed(
        r#"{"resourceType":"ServiceRequest","status":"active","intent":"order","subject":{"reference":"Patient/1"},
            "occurrenceTiming":{"event":["2013-03-20","2013-01-05"],"repeat":{"boundsPeriod":{"start":"2013-02-01","end":"2013-02-28"}}}}"#,
    );
    let whole = Range {
        lo: crate::fhir::date::parse("2013-01-05").expect("a date").lo,
        hi: crate::fhir::date::parse("2013-03-20").expect("a date").hi,
    };
    assert!(values.params[&param("ServiceRequest", "occurrence")] == [Value::Date(whole)]);
}

#[test]
fn a_resource_is_of_the_patients_its_compartment_names() {
    let of = |text: &str| indexed(text).header.patients;
    assert_eq!(
        of(r#"{"resourceType":"Patient","id":"p","link":[{"other":{"reference":"Patient/q"},"type":"seealso"}]}"#),
        ["p"]
    );
    assert_eq!(
        of(r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/b"},
               "performer":[{"reference":"Patient/a"},{"reference":"http://localhost/fhir/Patient/b"},{"reference":"Practitioner/c"}]}"#),
        ["a", "b"]
    );
    assert_eq!(
        of(
            r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"https://other/Patient/b"}}"#
        ),
        [""; 0]
    );
    assert_eq!(of(r#"{"resourceType":"Organization","name":"x"}"#), [""; 0]);
    assert_eq!(of(r#"{"resourceType":"RelatedPerson","patient":{"reference":"Patient/x"}}"#), ["x"]);
}

#[test]
fn identifiers_of_the_header_are_not_stored_twice() {
    let values = indexed(r#"{"resourceType":"Patient","id":"p"}"#);
    assert!(!values.params.contains_key(&param("Patient", "_id")));
    assert!(!values.params.contains_key(&param("Patient", "_lastUpdated")));
    let bytes = encode(&values);
    let view = View::new(&bytes).expect("a capsule");
    let id = view.param(param("Patient", "_id")).expect("decodes");
    assert!(matches!(&id[..], [Value::Identifier { value: Some(value), .. }] if value == "p"));
    let at = view.param(param("Patient", "_lastUpdated")).expect("decodes");
    assert!(at == [Value::Date(Range { lo: NOW.0, hi: NOW.0 })]);
}

/// Whether an item holds what a search could look for: a reference that only has a display does not, nor does a
/// schedule without outer limits, a date in words, a Bundle entry without an id, an attachment in place of a reference.
fn says_something(param: &Param, item: &crate::fhir::path::Item<'_>) -> bool {
    let has = |name: &str| item.node.get(name).is_some();
    match item.kind.unwrap_or("") {
        "Reference" => has("reference") || item.node.pointer("/identifier/value").is_some(),
        "Identifier" | "ContactPoint" => has("value"),
        "Timing" => has("event") || item.node.pointer("/repeat/boundsPeriod").is_some(),
        "string" | "Attachment" => false,
        of if definitions().type_id(of).is_some() => {
            has("id") && definitions().type_id(of).is_some_and(|of| param.targets.contains(&of))
        }
        _ => true,
    }
}

/// What an expression finds in the official examples must become a value: a type that is not converted would be
/// silently unsearchable.
#[test]
fn every_item_that_an_expression_finds_becomes_a_value() {
    let mut lost = BTreeSet::new();
    let mut seen = 0usize;
    for resource in samples() {
        let of = resource.kind();
        for param in definitions().params(of) {
            if matches!(param.kind, ParamKind::Composite | ParamKind::Special) {
                continue;
            }
            let Some(expr) = param.expr(of) else { continue };
            let items = expr.eval(resource.node()).unwrap_or_else(|error| panic!("{}: {error}", param.url));
            for item in &items {
                seen += 1;
                let mut found = Vec::new();
                extract::put(param, of, item, BASE, &mut found)
                    .unwrap_or_else(|error| panic!("{}: {error}", param.url));
                if found.is_empty() && says_something(param, item) {
                    lost.insert(format!("{} {} {}", param.code, param.kind.code(), item.kind.unwrap_or("?")));
                }
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?} of {seen}");
}

#[test]
fn capsules_of_the_examples_give_back_what_went_in() {
    for resource in samples() {
        let values =
            values(&resource, 7, NOW, BASE).unwrap_or_else(|error| panic!("{}: {error}", resource.type_name()));
        let bytes = encode(&values);
        assert!(View::new(&bytes).and_then(|view| view.to_values()).is_ok_and(|back| back == values));
    }
}

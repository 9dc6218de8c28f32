//! The comparisons, and that the table can be read.

use super::compare::{Compare, winkler};
use super::*;
use crate::fhir::date;
use crate::search::testing::{indexed, kind};

fn text(of: &str) -> Vec<Value> {
    vec![Value::Text(of.into())]
}

fn day(of: &str) -> Vec<Value> {
    vec![Value::Date(date::parse(of).expect("a date"))]
}

fn number(system: Option<&str>, value: &str) -> Vec<Value> {
    vec![Value::Identifier { system: system.map(str::to_owned), value: Some(value.into()), text: None, types: vec![] }]
}

#[test]
fn names_are_alike_by_their_letters() {
    for (a, b, least, most) in [
        ("Smith", "SMITH", 1.0, 1.0),
        ("Müller", "Muller", 1.0, 1.0),
        ("Martha", "Marhta", 0.8, 0.99),
        ("Garcia", "Garcia Lopez", 0.79, 0.99),
        ("Smith", "Jones", 0.0, 0.0),
        ("Anna", "Hannah", 0.0, 0.7),
    ] {
        let alike = Compare::Name.alike(&text(a), &text(b)).expect("both are said");
        assert!((least..=most).contains(&alike), "{a} {b}: {alike}");
        assert_eq!(Compare::Name.alike(&text(b), &text(a)), Some(alike));
    }
    assert!((winkler("martha", "marhta") - 0.9611).abs() < 1e-3);
    assert!((winkler("dwayne", "duane") - 0.84).abs() < 1e-3);
}

#[test]
fn other_values_are_compared_by_what_goes_wrong_with_them() {
    let date = |a, b| Compare::Date.alike(&day(a), &day(b)).expect("both are said");
    assert_eq!((date("1980-02-03", "1980-02-03"), date("1980-02-03", "1981-04-05")), (1.0, 0.0));
    assert_eq!((date("1980-02-03", "1980-03-02"), date("1980-02-03", "1980-02-08")), (0.8, 0.8));
    assert_eq!(date("1980", "1980-02-03"), 0.85);
    let id = |a, b| Compare::Identifier.alike(&number(Some("s"), a), &number(b, "1"));
    assert_eq!((id("1", Some("s")), id("2", Some("s")), id("1", Some("t"))), (Some(1.0), Some(0.0), None));
    assert_eq!((id("1", None), id("2", None)), (Some(0.7), None));
    let phone = |a, b| Compare::Digits.alike(&text(a), &text(b));
    assert_eq!(phone("+1 (555) 010-2030", "555 0102030"), Some(1.0));
    assert_eq!((phone("555-0102030", "555-0102031"), phone("112", "112")), (Some(0.0), None));
    let code = |a: &str, b: &str| Compare::Code.alike(&text(a), &text(b));
    assert_eq!((code("male", "male"), code("male", "female"), code("male", "unknown")), (Some(1.0), Some(0.0), None));
}

#[test]
fn the_table_is_read_and_grades_follow_the_evidence() {
    let patient = kind("Patient");
    let of = |text: &str| indexed(text);
    let whole = r#"{"resourceType":"Patient","gender":"male","birthDate":"1980-02-03","name":[{"family":"Blum","given":["Karl"]}],
        "identifier":[{"system":"s","value":"1"}],"telecom":[{"system":"phone","value":"555-0102030"}]}"#;
    let known = of(whole);
    let likeness = Likeness::of(patient, |param| known.params.get(&param).cloned().unwrap_or_default()).expect("known");
    let score = |text: &str| {
        let other = of(text);
        likeness.score(|param| Ok(other.params.get(&param).cloned().unwrap_or_default())).expect("a score")
    };
    assert_eq!(grade(score(whole)), Some(Grade::Certain));
    let name = r#"{"resourceType":"Patient","gender":"male","birthDate":"1980-02-03","name":[{"family":"Blum","given":["Karl"]}]}"#;
    assert_eq!(grade(score(name)), Some(Grade::Probable), "name and birth alone are not certain");
    let twin = name.replace("Karl", "Otto");
    assert_eq!(grade(score(&twin)), None, "a twin is somebody else");
    assert_eq!(grade(score(r#"{"resourceType":"Patient","name":[{"family":"Blum"}]}"#)), None);
    assert!(TABLE.grades.certain > TABLE.grades.probable && TABLE.grades.probable > TABLE.grades.possible);
}

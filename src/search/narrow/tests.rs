//! Narrowing never leaves out a hit: for every resource and query that the matcher accepts, the row would come through.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::search::capsule::{View, encode};
use crate::search::matcher::Matcher;
use crate::search::query::{Query, supply};
use crate::search::terms::{terms, year};
use crate::search::testing::{NOW, indexed, kind, options, query, samples};
use crate::search::values::{Value, Values, values};
use crate::vault::{Pk, memory};

/// A row as the database holds it: what narrowing looks at.
struct Row {
    id: String,
    patients: Vec<String>,
    terms: Vec<i64>,
    year: Option<i16>,
}

impl Row {
    fn new(values: &Values, pk: Pk, vault: &Vault) -> Row {
        let header = &values.header;
        Row {
            id: header.id.clone(),
            patients: header.patients.clone(),
            terms: terms(values, pk, vault),
            year: year(values),
        }
    }

    /// What the select of the store asks.
    fn passes(&self, narrow: &Narrow) -> bool {
        let has = |term: &i64| self.terms.binary_search(term).is_ok();
        !narrow.never
            && narrow.ids.as_ref().is_none_or(|ids| ids.contains(&self.id))
            && narrow.patients.as_ref().is_none_or(|of| {
                let own = matches!(&self.patients[..], [only] if of.ids.contains(only));
                own || of.terms.iter().any(has)
            })
            && narrow.terms.iter().all(|clause| clause.iter().any(has))
            && narrow.years.is_none_or(|(from, to)| self.year.is_none_or(|year| (from..=to).contains(&year)))
    }
}

fn check(query: &Query, values: &Values, pk: Pk, vault: &Vault) -> bool {
    let bytes = encode(values);
    let hit = Matcher::new(query.criteria.clone()).expect("resolved").matches(&View::new(&bytes).expect("a capsule"));
    let narrow = narrow(query.kind, &query.criteria, vault).expect("resolved");
    !hit.expect("decodes") || Row::new(values, pk, vault).passes(&narrow)
}

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p1",
    "identifier":[{"system":"http://acme.org/mrn","value":"MRN1"},{"value":"Loose"}],
    "name":[{"family":"van den Müller","given":["Éva","Mary Jane"]}],"birthDate":"1974-12-25",
    "address":[{"city":"Pleasantville"}],"generalPractitioner":[{"reference":"Practitioner/g1"}],"gender":"female"}"#;

const OBSERVATION: &str = r#"{"resourceType":"Observation","id":"o1","status":"final",
    "code":{"coding":[{"system":"http://loinc.org","code":"8480-6"}]},"subject":{"reference":"Patient/p1"},
    "encounter":{"reference":"Encounter/e1"},"effectiveDateTime":"2013-03-14T10:20:30Z",
    "valueQuantity":{"value":5,"unit":"mg"}}"#;

const SHARED: &str = r#"{"resourceType":"Observation","id":"o2","status":"final","code":{"text":"x"},
    "subject":{"reference":"Patient/p1"},"performer":[{"reference":"Patient/p2"},{"reference":"Practitioner/g1"}],
    "effectivePeriod":{"start":"2012-12-31","end":"2013-01-01"}}"#;

const GROUP: &str = r#"{"resourceType":"Observation","id":"o3","status":"final","code":{"text":"x"},
    "subject":{"reference":"Group/g1"}}"#;

/// Each query finds its resource, the row comes through, and something was narrowed where something can be.
#[test]
fn what_narrows_keeps_the_hits() {
    let vault = memory::vault();
    for (of, text, resource, narrows) in [
        ("Patient", "identifier=MRN1", PATIENT, true),
        ("Patient", "identifier=http://acme.org/mrn|MRN1", PATIENT, true),
        ("Patient", "identifier=|Loose", PATIENT, true),
        ("Patient", "identifier=http://acme.org/mrn|", PATIENT, false),
        ("Patient", "family=VAN D", PATIENT, true),
        ("Patient", "family=v", PATIENT, false),
        ("Patient", "given=mary j,xx", PATIENT, true),
        ("Patient", "given:exact=Mary Jane", PATIENT, true),
        ("Patient", "given:contains=jane", PATIENT, false),
        ("Patient", "family:missing=false", PATIENT, false),
        ("Patient", "identifier:not=x", PATIENT, false),
        ("Patient", "_id=p1,p2", PATIENT, true),
        ("Patient", "gender=female", PATIENT, false),
        ("Patient", "birthdate=1974-12-25", PATIENT, false),
        ("Patient", "general-practitioner=Practitioner/g1", PATIENT, true),
        ("Patient", "general-practitioner=g1", PATIENT, true),
        ("Observation", "subject=p1", OBSERVATION, true),
        ("Observation", "patient=Patient/p1", OBSERVATION, true),
        ("Observation", "subject:Patient=p1", SHARED, true),
        ("Observation", "performer=Patient/p2", SHARED, true),
        ("Observation", "performer=g1", SHARED, true),
        ("Observation", "subject=g1", GROUP, true),
        ("Observation", "code=8480-6", OBSERVATION, true),
        ("Observation", "code-value-quantity=8480-6$5", OBSERVATION, true),
        ("Observation", "code-value-quantity=http://loinc.org|8480-6$lt9,x$1", OBSERVATION, true),
        ("Observation", "combo-code-value-quantity=8480-6$5", OBSERVATION, true),
        ("Observation", "encounter=e1", OBSERVATION, true),
        ("Observation", "date=2013-03", OBSERVATION, true),
        ("Observation", "date=gt2013-03-13", OBSERVATION, true),
        ("Observation", "date=lt2013-01-01", SHARED, true),
        ("Observation", "date=ge2012-12-31", SHARED, true),
        ("Observation", "date=ne2012", OBSERVATION, false),
    ] {
        let values = indexed(resource);
        let query = query(of, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let bytes = encode(&values);
        let matcher = Matcher::new(query.criteria.clone()).expect("resolved");
        assert!(matcher.matches(&View::new(&bytes).expect("a capsule")).expect("decodes"), "{text} is a hit");
        let found = narrow(query.kind, &query.criteria, &vault).expect("resolved");
        for pk in 1..40 {
            assert!(Row::new(&values, Pk(pk), &vault).passes(&found), "{text} for surrogate {pk}: {found:?}");
        }
        assert_eq!(found != Narrow::default(), narrows, "{text}: {found:?}");
    }
}

/// A row that does not match is kept out by each of these: narrowing does something.
#[test]
fn what_narrows_keeps_others_out() {
    let vault = memory::vault();
    for (of, text, resource) in [
        ("Patient", "identifier=MRN2", PATIENT),
        ("Patient", "identifier=http://other|MRN1", PATIENT),
        ("Patient", "family=vax", PATIENT),
        ("Patient", "_id=p2", PATIENT),
        ("Patient", "general-practitioner=g2", PATIENT),
        ("Observation", "subject=p2", OBSERVATION),
        ("Observation", "code=1234-5", OBSERVATION),
        ("Observation", "encounter=e2", OBSERVATION),
        ("Observation", "date=2014", OBSERVATION),
        ("Observation", "date=lt2012", OBSERVATION),
        ("Observation", "subject=g2", GROUP),
    ] {
        let query = query(of, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found = narrow(query.kind, &query.criteria, &vault).expect("resolved");
        assert!(!Row::new(&indexed(resource), Pk(7), &vault).passes(&found), "{text}: {found:?}");
    }
}

#[test]
fn alternatives_narrow_together() {
    let vault = memory::vault();
    // The roads of a chain over several types: to patients by surrogate, to others by term.
    for answers in [["p1", "x"], ["", "g1"], ["p9", "g1"], ["", ""]] {
        let mut query = query("Observation", "subject:Patient.name=a").expect("valid");
        let one = |of: &str, id: &str| Criterion::ReferenceIn {
            param: definitions().param(kind("Observation"), "subject").expect("known").id,
            target: kind(of),
            ids: [id].into_iter().filter(|id| !id.is_empty()).map(String::from).collect(),
        };
        query.criteria = vec![Criterion::AnyOf(vec![vec![one("Patient", answers[0])], vec![one("Group", answers[1])]])];
        for resource in [OBSERVATION, SHARED, GROUP] {
            assert!(check(&query, &indexed(resource), Pk(3), &vault), "{answers:?}");
        }
        let found = narrow(query.kind, &query.criteria, &vault).expect("resolved");
        assert_eq!(found.never, answers == ["", ""]);
        assert!(found != Narrow::default());
    }
    let mut has = query("Patient", "_has:Observation:patient:code=x").expect("valid");
    assert!(narrow(has.kind, &has.criteria, &vault).is_err(), "unresolved");
    supply(&mut has.criteria, HashSet::new());
    assert!(narrow(has.kind, &has.criteria, &vault).expect("resolved").never);
}

/// Queries made from a resource's own values: by every parameter, in every form that can hit.
fn own_queries(values: &Values) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (id, of) in &values.params {
        let Some(param) = definitions().param_by_id(*id) else { continue };
        if param.kind == crate::fhir::ParamKind::Phonetic {
            // What is kept are codes: names are asked for.
            let names = definitions().param(values.header.kind, "name").and_then(|name| values.params.get(&name.id));
            let texts = names.into_iter().flatten().flat_map(forms);
            queries.extend(texts.map(|text| (param.code.to_owned(), text)));
            continue;
        }
        for value in of.iter().filter(|value| can_be_asked(param, value)).take(2) {
            let near = param.kind == crate::fhir::ParamKind::Special;
            for text in forms(value) {
                let text = if near { text.replace('$', "|").replace("ge", "") } else { text };
                queries.push((param.code.to_owned(), text));
            }
            queries.extend(modified(value).map(|(modifier, text)| (format!("{}:{modifier}", param.code), text)));
        }
    }
    queries
}

/// For values that only a modifier asks for.
fn modified(value: &Value) -> Option<(&'static str, String)> {
    match value {
        Value::Token { code: None, text: Some(text), .. } | Value::Identifier { value: None, text: Some(text), .. } => {
            Some(("text", escape(text)))
        }
        Value::Text(text) => Some(("exact", escape(text))),
        Value::Reference { to: None, identifier: Some((_, Some(value))) } => Some(("identifier", escape(value))),
        _ => None,
    }
}

/// A reference into the resource itself, a condition, or something that is no address, cannot be asked for.
fn can_be_asked(param: &crate::fhir::definitions::Param, value: &Value) -> bool {
    use crate::fhir::reference::Reference;
    match value {
        Value::Reference { to: Some(to), .. } => match to {
            Reference::Local { kind, .. } => param.targets.is_empty() || param.targets.contains(kind),
            Reference::Absolute { .. } | Reference::Urn(_) => true,
            _ => false,
        },
        Value::Reference { to: None, identifier } => identifier.as_ref().is_some_and(|(_, value)| value.is_some()),
        Value::Token { system: None, code: None, text: None } => false,
        Value::Text(text) => !text.is_empty(),
        Value::Composite(parts) => {
            parts.iter().all(|values| values.first().is_some_and(|value| !forms(value).is_empty()))
        }
        _ => true,
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,").replace('|', "\\|").replace('$', "\\$")
}

fn forms(value: &Value) -> Vec<String> {
    match value {
        Value::Token { system, code: Some(code), .. } | Value::Identifier { system, value: Some(code), .. } => {
            let code = escape(code);
            match system {
                Some(system) => vec![code.to_uppercase(), code.clone(), format!("{}|{code}", escape(system))],
                None => vec![code.clone(), format!("|{code}")],
            }
        }
        Value::Text(text) => {
            let cut = |length: usize| escape(&text.chars().take(length).collect::<String>());
            [1, 2, 5, 9, 200].map(cut).into()
        }
        Value::Date(range) => {
            let day = crate::world::Instant(range.lo).to_fhir();
            let forms = ["", "ge", "le", "ap", "ne", "gt", "lt"].map(|prefix| format!("{prefix}{day}"));
            let year = ["", "ge", "gt", "lt"].map(|prefix| format!("{prefix}{}", &day[..4]));
            match range.lo {
                i64::MIN => vec![format!("le{}", crate::world::Instant(range.hi).to_fhir())],
                _ => [forms.to_vec(), year.to_vec(), vec![format!("ge{day}")]].concat(),
            }
        }
        Value::Number { lo, .. } | Value::Quantity { lo, .. } if lo.is_finite() => {
            vec![format!("{lo}"), format!("ge{lo}")]
        }
        Value::Number { hi, .. } | Value::Quantity { hi, .. } => vec![format!("le{hi}")],
        Value::Reference { to: Some(to), .. } => match to {
            crate::fhir::reference::Reference::Local { kind, id, .. } => {
                vec![id.clone(), format!("{}/{id}", definitions().type_name(*kind))]
            }
            crate::fhir::reference::Reference::Absolute { url } => vec![escape(url)],
            crate::fhir::reference::Reference::Urn(urn) => vec![escape(urn)],
            _ => Vec::new(),
        },
        Value::Uri(uri) => vec![escape(uri)],
        Value::Token { system: Some(system), code: None, .. } => vec![format!("{}|", escape(system))],
        Value::Identifier { system: Some(system), value: None, .. } => vec![format!("{}|", escape(system))],
        Value::Composite(parts) => {
            let parts = parts.iter().map(|values| forms(values.first()?).pop());
            parts.collect::<Option<Vec<_>>>().map(|parts| parts.join("$")).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Over the official examples: every query made of a resource's own values that hits it keeps it, and other examples
/// that it happens to hit too.
#[test]
fn queries_of_the_examples_keep_their_hits() {
    let vault = memory::vault();
    let all: Vec<Values> = samples()
        .iter()
        .map(|resource| values(resource, 1, NOW, crate::search::testing::BASE).expect("indexed"))
        .collect();
    let (mut tried, mut hits, mut narrowed) = (0usize, 0usize, 0usize);
    let mut lost = BTreeSet::new();
    for (at, values) in all.iter().enumerate() {
        let pk = Pk(at as i64 * 7 + 1);
        let row = Row::new(values, pk, &vault);
        let bytes = encode(values);
        let view = View::new(&bytes).expect("a capsule");
        let mut found_by = HashSet::new();
        for (name, value) in own_queries(values) {
            let Ok(query) = Query::parse(values.header.kind, &[(name.clone(), value.clone())], &options()) else {
                continue;
            };
            tried += 1;
            let hit = Matcher::new(query.criteria.clone()).expect("resolved").matches(&view).expect("decodes");
            if hit {
                found_by.insert(name.clone());
                hits += 1;
                let found = narrow(query.kind, &query.criteria, &vault).expect("resolved");
                narrowed += usize::from(found != Narrow::default());
                assert!(
                    row.passes(&found),
                    "{}?{name}={value}: {found:?}",
                    definitions().type_name(values.header.kind)
                );
            }
        }
        for (param, of) in &values.params {
            let param = definitions().param_by_id(*param).expect("known");
            let code = param.code;
            let found = found_by.iter().any(|name| name.split(':').next() == Some(code));
            if !found && of.iter().any(|value| can_be_asked(param, value)) {
                lost.insert(format!("{}/{}.{code}", definitions().type_name(values.header.kind), values.header.id));
            }
        }
    }
    assert!(lost.is_empty(), "values that no query finds: {lost:#?}");
    if !all.is_empty() {
        assert!(hits * 2 > tried && narrowed * 10 > hits, "{tried} tried, {hits} hits, {narrowed} narrowed");
    }
}

proptest! {
    /// Random names and queries over a small alphabet, so that they often meet.
    #[test]
    fn random_names_keep_their_hits(
        family in "[aábø ,'-]{1,10}",
        given in "[aábß ]{1,12}",
        wanted in "[aáb ø'ß-]{1,6}",
        exact: bool,
        pk in 1i64..1_000,
    ) {
        let text = format!(r#"{{"resourceType":"Patient","name":[{{"family":"{family}","given":["{given}"]}}]}}"#);
        let Ok(resource) = crate::fhir::json::parse(text.as_bytes()).and_then(crate::fhir::Resource::check) else { return Ok(()) };
        let mut resource = resource;
        resource.stamp("1", 1, NOW);
        let values = values(&resource, 1, NOW, crate::search::testing::BASE).expect("indexed");
        let vault = memory::vault();
        for name in ["name", "family", "given"] {
            let name = if exact { format!("{name}:exact") } else { name.to_owned() };
            let Ok(query) = Query::parse(kind("Patient"), &[(name, wanted.clone())], &options()) else { continue };
            prop_assert!(check(&query, &values, Pk(pk), &vault));
        }
    }

    #[test]
    fn random_sounds_keep_their_hits(
        family in "[aeksmtj ,'-]{1,10}",
        given in "[aeßkc7 ж]{1,8}",
        wanted in "[aesktmcj ß7ж'-]{1,5}",
        pk in 1i64..1_000,
    ) {
        let values = indexed(&format!(r#"{{"resourceType":"Patient","name":[{{"family":"{family}x","given":["{given}y"]}}]}}"#));
        let vault = memory::vault();
        for value in [&wanted, &family, &given, &format!("{given}y {family}x")] {
            let Ok(query) = Query::parse(kind("Patient"), &[("phonetic".into(), escape(value))], &options()) else { continue };
            prop_assert!(check(&query, &values, Pk(pk), &vault), "{value}");
        }
    }

    /// Dates around year borders, all prefixes and precisions.
    #[test]
    fn random_dates_keep_their_hits(
        start in 0i64..4 * 366, length in 0i64..800, open in 0u8..4,
        asked in 0i64..4 * 366, precision in 0u8..3,
        prefix in prop::sample::select(vec!["", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]),
    ) {
        let day = |n: i64| crate::world::Instant((14_610 + n) * 86_400_000).to_fhir()[..10].to_owned();
        let (from, to) = (format!(r#""start":"{}""#, day(start)), format!(r#""end":"{}""#, day(start + length)));
        let period = match open { 0 => from, 1 => to, _ => format!("{from},{to}") };
        let values = indexed(&format!(
            r#"{{"resourceType":"Observation","status":"final","code":{{"text":"x"}},"effectivePeriod":{{{period}}}}}"#));
        let asked = day(asked);
        let asked = match precision { 0 => &asked[..4], 1 => &asked[..7], _ => &asked[..] };
        let query = query("Observation", &format!("date={prefix}{asked}")).expect("valid");
        let vault = memory::vault();
        prop_assert!(check(&query, &values, Pk(1), &vault), "{prefix}{asked} {period}");
    }
}

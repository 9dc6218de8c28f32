//! Tables from the search page of R4: what each form of each kind finds, and what is refused.

use super::*;
use crate::error::{Kind, Severity};
use crate::fhir::definitions;
use crate::search::testing::{finds, indexed, kind, options, pairs, query};
use crate::search::values::Values;

fn patient() -> Values {
    indexed(
        r#"{"resourceType":"Patient","id":"p1","active":true,
            "meta":{"profile":["http://example.org/StructureDefinition/a"],"tag":[{"system":"http://t","code":"x"}]},
            "identifier":[
                {"system":"http://acme.org/mrn","value":"MRN1",
                 "type":{"text":"Record number","coding":[{"system":"http://terminology.hl7.org/CodeSystem/v2-0203","code":"MR"}]}},
                {"value":"no|system,here"}],
            "name":[{"use":"official","family":"van den Müller","given":["Éva","Mary Jane"],"prefix":["Dr."]},{"text":"Nick O'Hara"}],
            "telecom":[{"system":"email","value":"Eva@Example.org"},{"system":"phone","value":"555-1234"}],
            "gender":"female","birthDate":"1974-12",
            "address":[{"line":["534 Erewhon St"],"city":"PleasantVille","postalCode":"3999","country":"AU"}],
            "generalPractitioner":[{"reference":"Practitioner/g1"}],
            "managingOrganization":{"identifier":{"system":"http://orgs","value":"o1"}},
            "deceasedBoolean":false}"#,
    )
}

fn observation() -> Values {
    indexed(
        r#"{"resourceType":"Observation","id":"o1","status":"final",
            "code":{"coding":[{"system":"http://loinc.org","code":"8480-6","display":"Systolic blood pressure"},{"code":"local"}],"text":"Blood pressure"},
            "subject":{"reference":"Patient/p1"},
            "encounter":{"reference":"http://localhost/fhir/Encounter/e1/_history/3"},
            "performer":[{"reference":"https://other.example/fhir/Practitioner/9"},{"reference":"urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"}],
            "effectiveDateTime":"2013-03-14T10:20:30Z",
            "valueQuantity":{"value":5.40,"unit":"mg","system":"http://unitsofmeasure.org","code":"mg"},
            "component":[
                {"code":{"coding":[{"system":"http://loinc.org","code":"a"}]},"valueQuantity":{"value":1,"unit":"x"}},
                {"code":{"coding":[{"system":"http://loinc.org","code":"b"}]},"valueQuantity":{"value":2,"unit":"x"}}]}"#,
    )
}

/// Queries that find the values, and queries that do not.
fn table(of: &str, values: &Values, found: &[&str], not_found: &[&str]) {
    for text in found {
        assert!(finds(of, text, values), "{of}?{text} should find it");
    }
    for text in not_found {
        assert!(!finds(of, text, values), "{of}?{text} should not find it");
    }
}

#[test]
fn strings_start_with_the_value_in_any_part() {
    table(
        "Patient",
        &patient(),
        &[
            "family=van",
            "family=VAN DEN MULLER",
            "family=van-den",
            "given=eva",
            "given=Mary J",
            "name=nick",
            "name=dr",
            "name=Eva",
            "family:exact=van den Müller",
            "family:contains=den m",
            "address=534",
            "address-city=pleasantville",
            "address=3999",
            "address-country=au",
            "name=x,eve,ev",
            "given:missing=false",
            "name=nick o hara",
        ],
        &[
            "family=muller",
            "given=jane",
            "family:exact=van den Muller",
            "family:exact=van",
            "family:contains=jane",
            "name=x,y",
            "given=eva&given=x",
            "address-state=x",
            "address-state:missing=false",
            "family=van  der",
        ],
    );
}

#[test]
fn tokens_by_system_and_code() {
    table(
        "Patient",
        &patient(),
        &[
            "identifier=MRN1",
            "identifier=http://acme.org/mrn|MRN1",
            "identifier=http://acme.org/mrn|",
            r"identifier=|no\|system\,here",
            "gender=FEMALE",
            "gender=http://hl7.org/fhir/administrative-gender|female",
            "gender=male,female",
            "gender:not=male",
            "active=true",
            "telecom=eva@example.org",
            "phone=555-1234",
            "email=EVA@EXAMPLE.ORG",
            "identifier:text=record",
            "identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|mr|MRN1",
            "_tag=http://t|x",
            "_id=p1",
            "_id=x,p1",
            "_profile=http://example.org/StructureDefinition/a",
            "language:not=en",
            "language:missing=true",
            "deceased=false",
        ],
        &[
            "identifier=mrn1",
            "identifier=http://other|MRN1",
            "identifier=|MRN1",
            "identifier=http://other|",
            "gender=|female",
            "gender:not=female",
            "gender:not=male,female",
            "active=false",
            "phone=eva@example.org",
            "identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|SS|MRN1",
            "identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|MRN2",
            "_id=P1",
            "_id=p",
            "_tag=x&_tag=y",
            "language=en",
            "identifier:missing=true",
            "_profile=http://example.org/StructureDefinition",
            "identifier:text=number",
        ],
    );
    table(
        "Observation",
        &observation(),
        &[
            "code=8480-6",
            "code=http://loinc.org|8480-6",
            "code=|local",
            "code:text=blood",
            "code:text=systolic",
            "code=x,LOCAL",
        ],
        &["code=http://snomed.info/sct|8480-6", "code=|8480-6", "code:text=pressure", "code=8480", "code:not=local"],
    );
}

#[test]
fn references_in_every_form() {
    table(
        "Observation",
        &observation(),
        &[
            "subject=p1",
            "subject=Patient/p1",
            "subject=http://localhost/fhir/Patient/p1",
            "subject:Patient=p1",
            "patient=p1",
            "patient=Patient/p1",
            "encounter=e1",
            "encounter=Encounter/e1",
            "encounter=Encounter/e1/_history/3",
            "performer=https://other.example/fhir/Practitioner/9",
            "performer=urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0",
            "subject:missing=false",
            "subject=x,p1",
        ],
        &[
            "subject=p2",
            "subject:Group=p1",
            "subject=Group/p1",
            "encounter=Encounter/e1/_history/2",
            "performer=9",
            "performer=Practitioner/9",
            "device=p1",
            "subject=P1",
            "subject:missing=true",
            "subject=http://localhost/other/Patient/p1",
        ],
    );
    table(
        "Patient",
        &patient(),
        &[
            "organization:identifier=http://orgs|o1",
            "organization:identifier=o1",
            "general-practitioner=g1",
            "organization:missing=false",
        ],
        &["organization:identifier=http://x|o1", "organization=o1", "general-practitioner:Organization=g1"],
    );
}

#[test]
fn dates_by_precision_and_prefix() {
    table(
        "Observation",
        &observation(),
        &[
            "date=2013",
            "date=2013-03",
            "date=2013-03-14",
            "date=2013-03-14T10:20",
            "date=2013-03-14T10:20:30Z",
            "date=eq2013-03-14T12:20:30+02:00",
            "date=ne2013-03-13",
            "date=gt2013-03-13",
            "date=lt2013-03-15",
            "date=ge2013-03-14",
            "date=le2013-03-14",
            "date=sa2013-03-13",
            "date=eb2013-03-15",
            "date=ap2013-05",
            "date=ge2013-01-01&date=lt2014-01-01",
            "date=2012,2013",
            "_lastUpdated=2026-01-01",
            "_lastUpdated=le2026-01-01T00:00:00Z",
        ],
        &[
            "date=2014",
            "date=2013-03-14T10:21",
            "date=ne2013-03",
            "date=gt2013-03-14",
            "date=lt2013-03-14",
            "date=sa2013-03-14",
            "date=eb2013-03-14",
            "date=ap2001",
            "date=ge2013-03-15",
            "date=le2013-03-13",
            "_lastUpdated=gt2026-01-01",
        ],
    );
    table(
        "Patient",
        &patient(),
        &[
            "birthdate=1974-12",
            "birthdate=1974",
            "birthdate=ne1974-12-25",
            "birthdate=gt1974-12-14",
            "birthdate=lt1974-12-14",
            "birthdate=ge1974-12-14",
        ],
        &["birthdate=1974-12-25", "birthdate=sa1974-12-14", "birthdate=eb1974-12-14", "birthdate=ge1975"],
    );
    let open = indexed(
        r#"{"resourceType":"Encounter","status":"in-progress","class":{"code":"AMB"},"period":{"start":"2013-03-14"}}"#,
    );
    table(
        "Encounter",
        &open,
        &["date=gt2020", "date=ge2013-03-14", "date=ap2019", "date=lt2013-03-15"],
        &["date=2013-03-14", "date=2013", "date=eb2030", "date=sa2013-03-14", "date=lt2013-03-14"],
    );
}

#[test]
fn numbers_and_quantities() {
    const UCUM: &str = "http://unitsofmeasure.org";
    let of = |text: &str| text.replace("UCUM", UCUM);
    let risk = indexed(
        r#"{"resourceType":"RiskAssessment","status":"final","subject":{"reference":"Patient/1"},"prediction":[{"probabilityDecimal":0.81}]}"#,
    );
    table(
        "RiskAssessment",
        &risk,
        &[
            "probability=0.8",
            "probability=0.81",
            "probability=gt0.8",
            "probability=ap0.75",
            "probability=8.1e-1",
            "probability=ne0.80",
        ],
        &["probability=0.80", "probability=lt0.8", "probability=sa0.81", "probability=1e2"],
    );
    let found = [
        "value-quantity=5.4",
        "value-quantity=5.4|UCUM|mg",
        "value-quantity=5.40||mg",
        "value-quantity=0.0054|UCUM|g",
        "value-quantity=5.4e-3|UCUM|g",
        "value-quantity=5400|UCUM|ug",
        "value-quantity=ap5|UCUM|mg",
        "value-quantity=gt5.3|UCUM|mg",
        "value-quantity=le0.0054|UCUM|g",
        "value-quantity=ge5400|UCUM|ug",
        "value-quantity=5.4||",
        "value-quantity=ne5.5",
    ];
    let not = [
        "value-quantity=5.5",
        "value-quantity=5.4|UCUM|mL",
        "value-quantity=5.4|UCUM|g",
        "value-quantity=5.4||g",
        "value-quantity=5.4|http://other|mg",
        "value-quantity=gt0.0054|UCUM|g",
        "value-quantity=lt5400|UCUM|ug",
        "value-quantity=ne5.4",
    ];
    let (found, not): (Vec<_>, Vec<_>) = (found.map(of).into(), not.map(of).into());
    table(
        "Observation",
        &observation(),
        &found.iter().map(String::as_str).collect::<Vec<_>>(),
        &not.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let below = indexed(
        r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":5,"comparator":"<"}}"#,
    );
    table(
        "Observation",
        &below,
        &["value-quantity=lt5", "value-quantity=lt1", "value-quantity=eb5"],
        &["value-quantity=5", "value-quantity=ge5"],
    );
}

#[test]
fn uris_above_and_below() {
    let set = indexed(r#"{"resourceType":"ValueSet","status":"draft","url":"http://acme.org/fhir/ValueSet/123"}"#);
    table(
        "ValueSet",
        &set,
        &[
            "url=http://acme.org/fhir/ValueSet/123",
            "url:below=http://acme.org/fhir/",
            "url:below=http://acme.org/fhir",
            "url:above=http://acme.org/fhir/ValueSet/123/_history/5",
            "url:below=http://acme.org/fhir/ValueSet/123",
        ],
        &[
            "url=http://acme.org/fhir/ValueSet",
            "url:below=http://acme.org/fh",
            "url:above=http://acme.org/fhir/ValueSet/1234",
            "url=HTTP://acme.org/fhir/ValueSet/123",
        ],
    );
}

#[test]
fn composites_hold_within_one_element() {
    table(
        "Observation",
        &observation(),
        &[
            "code-value-quantity=http://loinc.org|8480-6$5.4|http://unitsofmeasure.org|mg",
            "code-value-quantity=8480-6$gt5",
            "component-code-value-quantity=http://loinc.org|a$1",
            "component-code-value-quantity=a$9,b$2",
        ],
        &["code-value-quantity=8480-6$gt6", "component-code-value-quantity=a$2", "code-value-quantity=x$5.4"],
    );
}

/// Name, value, kind of error, and words of its text.
#[test]
fn what_is_wrong_is_named() {
    for (of, text, error, says) in [
        ("Patient", "nmae=x", Kind::Invalid, "'name'"),
        ("Patient", "birthDate=2000", Kind::Invalid, "'birthdate'"),
        ("Patient", "name:fuzzy=x", Kind::Invalid, ":contains"),
        ("Patient", "birthdate:exact=2000", Kind::Invalid, ":missing"),
        ("Patient", "birthdate=2000-13", Kind::Invalid, "2000-13"),
        ("Patient", "birthdate=xx2000", Kind::Invalid, "xx2000"),
        ("Patient", "gender:in=x", Kind::Invalid, "ValueSet"),
        ("Patient", "gender:below=male", Kind::Invalid, "system|code"),
        ("Patient", "active:missing=yes", Kind::Invalid, "true or false"),
        ("Patient", "identifier=a|b|c", Kind::Invalid, "system|code"),
        ("Patient", "identifier:of-type=a|b", Kind::Invalid, "all three"),
        ("Patient", "name=--", Kind::Invalid, ":exact"),
        ("Patient", "name=,", Kind::Invalid, "empty"),
        ("Patient", "organization=Patient/1", Kind::Invalid, "Organization"),
        ("Patient", "organization:Patient=1", Kind::Invalid, "Organization"),
        ("Patient", "organization=a b", Kind::Invalid, "a b"),
        ("Observation", "value-quantity=5|mg", Kind::Invalid, "decimal"),
        ("Observation", "value-quantity=five", Kind::Invalid, "decimal"),
        ("Observation", "code-value-quantity=a", Kind::Invalid, "2 values"),
        ("Observation", "code-value-quantity:missing=true", Kind::Invalid, "none"),
        ("ValueSet", "url:below=urn:oid:1.2", Kind::Invalid, "hierarchical"),
        ("Patient", "_count=-1", Kind::Invalid, "whole number"),
        ("Patient", "_count=1&_count=2", Kind::Invalid, "once"),
        ("Patient", "_total=maybe", Kind::Invalid, "accurate"),
        ("Patient", "_summary=yes", Kind::Invalid, "count"),
        ("Patient", "_summary=true&_elements=name", Kind::Invalid, "combined"),
        ("Patient", "_summary=text&_revinclude=Observation:subject", Kind::Invalid, "combined"),
        ("Patient", "_elements=nmae", Kind::Invalid, "'name'"),
        ("Patient", "_sort=brithdate", Kind::Invalid, "'birthdate'"),
        ("Patient", "_sort=name,-name", Kind::Invalid, "once"),
        ("Observation", "_sort=code-value-quantity", Kind::Invalid, "composite"),
        ("Patient", "_include=Observation:subject", Kind::Invalid, ":iterate"),
        ("Patient", "_include=Patient:name", Kind::Invalid, "no reference"),
        ("Patient", "_include=Patient", Kind::Invalid, "Type:parameter"),
        ("Patient", "_include:recurse=Patient:link", Kind::Invalid, ":iterate"),
        ("Patient", "_revinclude=Observation:encounter", Kind::Invalid, "Patient"),
        ("Patient", "_has:Observation:patient=1", Kind::Invalid, "_has:Type"),
        ("Patient", "_has:Observation:encounter:code=1", Kind::Invalid, "does not refer"),
        ("Patient", "_has:Thing:patient:code=1", Kind::Invalid, "Thing"),
        ("Patient", "_has:AuditEvent:entity:action=R", Kind::Unsupported, "on their own"),
        ("Patient", "_has:Observation:patient:_has:AuditEvent:entity:action=R", Kind::Unsupported, "on their own"),
        ("Patient", "_revinclude=AuditEvent:entity", Kind::Unsupported, "on their own"),
        ("Patient", "_revinclude:iterate=AuditEvent:*", Kind::Unsupported, "on their own"),
        ("AuditEvent", "_include=AuditEvent:patient", Kind::Unsupported, "on their own"),
        ("List", "_include=List:item:AuditEvent", Kind::Unsupported, "on their own"),
        ("List", "item:AuditEvent.action=R", Kind::Unsupported, "on their own"),
        ("Observation", "code.name=x", Kind::Invalid, "no reference"),
        ("Observation", "subject:Practitioner.name=x", Kind::Invalid, "does not refer"),
        ("Observation", "subject.nonsense=x", Kind::Invalid, "nonsense"),
        ("Observation", "subject.birthdate=2000-13", Kind::Invalid, "2000-13"),
        ("Provenance", "target.name=x", Kind::TooCostly, "name the types"),
        ("Observation", "patient.organization.partof.partof.partof.name=x", Kind::TooCostly, "nested"),
        ("Patient", "_text=--", Kind::Invalid, "_text"),
        ("Observation", "subject:Patient._text=x", Kind::Unsupported, "_text"),
        ("Binary", "_text=x", Kind::Invalid, "_text"),
        ("Patient", "_text:exact=x", Kind::Unsupported, "_text"),
        ("Location", "near=1", Kind::Invalid, "latitude"),
        ("Patient", "gender:not-in=x&nmae=x", Kind::Invalid, "nmae"),
    ] {
        let fault = query(of, text).err().unwrap_or_else(|| panic!("{of}?{text} should be refused"));
        assert_eq!(fault.kind, error, "{of}?{text}: {fault}");
        assert!(fault.to_string().contains(says), "{of}?{text}: {fault}");
    }
}

#[test]
fn limits_are_stated() {
    let many = vec!["a"; limits::VALUES + 1].join(",");
    let long = "a".repeat(limits::VALUE + 1);
    for (text, says) in [
        (format!("name={many}"), "1000"),
        (format!("name={long}"), "2048"),
        ("name=a&".repeat(limits::PAIRS + 1), "100"),
        ("_include=Patient:link&".repeat(limits::INCLUDES + 1), "20"),
        ("_sort=name,gender,active,birthdate,family,given,phone".into(), "6"),
    ] {
        let fault = query("Patient", &text).err().expect("too much");
        assert!(fault.to_string().contains(says), "{fault}");
    }
}

/// Lenient handling leaves out what is unknown, with a note, and only that.
#[test]
fn lenient_handling_leaves_out_the_unknown_alone() {
    let lenient = QueryOptions { lenient: true, ..options() };
    let parse = |text: &str| Query::parse(kind("Patient"), &pairs(text), &lenient);
    let query = parse("nmae=x&name=eve&_query=y&name=&_sort=nope&subject.x=1").expect("lenient");
    assert_eq!(query.applied, [("name".to_owned(), "eve".to_owned())]);
    assert_eq!(query.criteria.len(), 1);
    assert_eq!(query.notes.len(), 5);
    assert!(query.notes.iter().all(|note| note.severity == Severity::Warning));
    for wrong in ["name:fuzzy=x", "birthdate=x", "gender:in=y", "_count=x"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn result_parameters_are_read() {
    let read = query(
        "Patient",
        "name=a&_sort=-birthdate,family&_count=5000&_total=accurate&_elements=name,id&_format=xml&_pretty=true&_cursor=abc\
         &_include=Patient:general-practitioner:Practitioner&_include:iterate=Practitioner:*&_include=*&_revinclude=Provenance:target",
    )
    .expect("valid");
    let param = |of: &str, code: &str| definitions().param(kind(of), code).expect(code).id;
    assert_eq!(
        read.sort,
        [
            SortBy { param: param("Patient", "birthdate"), descending: true },
            SortBy { param: param("Patient", "family"), descending: false }
        ]
    );
    assert_eq!((read.count, read.total, read.notes.len()), (1_000, Total::Accurate, 1));
    assert_eq!(read.elements, ["name", "id"]);
    assert_eq!(read.cursor.as_deref(), Some("abc"));
    assert_eq!(
        read.includes,
        [
            Include {
                source: kind("Patient"),
                param: Some(param("Patient", "general-practitioner")),
                target: Some(kind("Practitioner")),
                iterate: false,
                every: false
            },
            Include { source: kind("Practitioner"), param: None, target: None, iterate: true, every: false },
            Include { source: kind("Patient"), param: None, target: None, iterate: false, every: false },
        ]
    );
    assert_eq!(read.revincludes.len(), 1);
    let names: Vec<&str> = read.applied.iter().map(|(name, _)| name.as_str()).collect();
    let expected = "name _sort _count _total _elements _include _include:iterate _include _revinclude";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    assert!(read.applied.contains(&("_count".into(), "1000".into())));
    for counting in ["_count=0", "_summary=count", "_summary=count&_count=7"] {
        let read = query("Patient", counting).expect(counting);
        assert_eq!((read.summary, read.count), (Summary::Count, 0), "{counting}");
    }
}

#[test]
fn the_types_that_grants_must_cover() {
    let names =
        |list: Vec<TypeId>| list.into_iter().map(|of| definitions().type_name(of)).collect::<Vec<_>>().join(" ");
    for (of, text, needed, optional) in [
        ("Patient", "name=a", "Patient", ""),
        ("Observation", "patient.name=a", "Observation Patient", ""),
        ("Observation", "subject.identifier=a", "Observation", "Device Group Location Patient"),
        ("Patient", "_has:Observation:patient:encounter:Encounter.status=x", "Encounter Observation Patient", ""),
        ("Patient", "_has:Observation:patient:_has:Provenance:target:agent=x", "Observation Patient Provenance", ""),
        ("Condition", "patient._has:Appointment:patient:status=x", "Appointment Condition Patient", ""),
        ("Patient", "_include=Patient:organization", "Patient", "Organization"),
        ("Patient", "_include=Patient:organization:Organization", "Organization Patient", ""),
        ("Patient", "_revinclude=Provenance:target", "Patient Provenance", ""),
    ] {
        let query = query(of, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(names(query.kinds()), needed, "{text}");
        assert_eq!(names(query.optional_kinds()), optional, "{text}");
    }
}

/// Chains and `_has` name their inner searches innermost first, and are decided by the answers.
#[test]
fn inner_searches_are_named_and_supplied() {
    let mut outer =
        query("Observation", "subject:Patient.general-practitioner:Practitioner.name=x&status=final").expect("valid");
    assert!(crate::search::Matcher::new(outer.criteria.clone()).is_err(), "unresolved");
    let steps = [("Practitioner", "g1"), ("Patient", "p1")];
    for (of, id) in steps {
        let next = pending(&outer.criteria).expect("pending");
        assert_eq!((next.kind, next.take), (kind(of), Take::Id));
        assert!(pending(std::slice::from_ref(next.criterion)).is_none(), "the inner one is resolved");
        assert!(supply(&mut outer.criteria, HashSet::from([id.to_owned()])));
    }
    assert!(pending(&outer.criteria).is_none());
    assert!(!supply(&mut outer.criteria, HashSet::new()));
    let bytes = crate::search::capsule::encode(&observation());
    let view = crate::search::View::new(&bytes).expect("a capsule");
    let matcher = crate::search::Matcher::new(outer.criteria).expect("resolved");
    assert!(matcher.matches(&view).expect("decodes"));

    let mut has = query("Patient", "_has:Observation:patient:code=8480-6").expect("valid");
    let next = pending(&has.criteria).expect("pending");
    let patient_param = definitions().param(kind("Observation"), "patient").expect("known").id;
    assert_eq!(
        (next.kind, next.take),
        (kind("Observation"), Take::References { param: patient_param, of: kind("Patient") })
    );
    assert_eq!(view.references(Some(patient_param)).expect("decodes"), [(kind("Patient"), "p1".to_owned())]);
    supply(&mut has.criteria, HashSet::from(["p1".to_owned()]));
    assert!(matches!(&has.criteria[..], [Criterion::IdIn(ids)] if ids.contains("p1")));
}

#[test]
fn single_criteria_are_parsed_for_scopes() {
    let parse = |name, value| Criterion::parse(kind("Observation"), name, value, &options());
    assert!(matches!(parse("category", "http://x|laboratory"), Ok(Criterion::Param { .. })));
    for (name, value) in [("_sort", "date"), ("nope", "x"), ("status", "")] {
        assert!(parse(name, value).is_err(), "{name}");
    }
}

//! The embedded files: sound, complete, and treating parameters as the design says.

use super::*;
use crate::fhir::definitions;

fn of(kind: &str, code: &str) -> &'static Treatment {
    let kind = definitions().type_id(kind).expect("a type");
    treatment(kind, definitions().param(kind, code).unwrap_or_else(|| panic!("{code}")).id)
}

fn blind(form: BlindForm, partitions: u8) -> Treatment {
    Treatment::Blind { form, partitions }
}

#[test]
fn the_embedded_files_are_sound() {
    let all = build::load().unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(all.len(), definitions().types().len());
    assert_eq!(all.iter().filter(|mapping| mapping.own_file).count(), file::TYPES.len());
}

#[test]
fn every_file_of_the_folder_is_embedded() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .map(|name| format!("mappings/{name}"))
        .collect();
    names.sort();
    let mut embedded: Vec<&str> = file::TYPES.iter().chain([&file::DEFAULT]).map(|(name, _)| *name).collect();
    embedded.sort_unstable();
    assert_eq!(names, embedded);
}

#[test]
fn every_path_is_fhirpath() {
    for kind in definitions().types() {
        for table in &mapping(*kind).tables {
            for path in table.when.iter().chain(table.fields.iter().map(|field| &field.path)) {
                let fault = Expr::parse(&path.text).err().map(|error| error.to_string());
                assert_eq!(fault, None, "{} {}", table.table, path.text);
                assert!(path.expr().is_some());
            }
        }
    }
}

#[test]
fn parameters_are_treated_as_the_design_says() {
    use BlindForm::{Prefix, Sound, Token, Whole};
    let cases = [
        ("Patient", "identifier", blind(Token, 1)),
        ("Patient", "family", blind(Prefix, 16)),
        ("Patient", "address-city", blind(Prefix, 16)),
        ("Patient", "phonetic", blind(Sound, 16)),
        ("RelatedPerson", "phonetic", blind(Sound, 16)),
        ("Practitioner", "phonetic", Treatment::Capsule),
        ("Organization", "phonetic", Treatment::Capsule),
        ("InsurancePlan", "phonetic", Treatment::Capsule),
        ("Patient", "phone", blind(Token, 1)),
        ("Patient", "birthdate", Treatment::Capsule),
        ("Patient", "gender", Treatment::Capsule),
        ("Patient", "birthOrderBoolean", Treatment::Capsule),
        // A link makes a patient no part of another's compartment.
        ("Patient", "link", blind(Whole, 1)),
        ("Observation", "code", blind(Token, 16)),
        ("Observation", "patient", Treatment::Compartment),
        ("Observation", "subject", Treatment::Compartment),
        ("Observation", "performer", Treatment::Compartment),
        ("Observation", "encounter", blind(Whole, 1)),
        ("Observation", "date", Treatment::Capsule),
        ("Observation", "value-quantity", Treatment::Capsule),
        ("Observation", "status", Treatment::Capsule),
        ("Observation", "code-value-quantity", Treatment::Capsule),
        ("Appointment", "actor", Treatment::Compartment),
        ("Appointment", "practitioner", blind(Whole, 1)),
        // By rule.
        ("Immunization", "vaccine-code", blind(Token, 16)),
        ("Immunization", "patient", Treatment::Compartment),
        ("Immunization", "status", Treatment::Capsule),
        ("Immunization", "lot-number", Treatment::Capsule),
        ("Immunization", "identifier", blind(Token, 1)),
        ("MedicationRequest", "medication", blind(Whole, 1)),
        ("MedicationRequest", "code", blind(Token, 16)),
        ("Device", "patient", Treatment::Compartment),
        ("Task", "subject", Treatment::Compartment),
        ("RelatedPerson", "patient", Treatment::Compartment),
        ("RelatedPerson", "name", blind(Prefix, 16)),
        ("RelatedPerson", "birthdate", Treatment::Capsule),
        ("ValueSet", "url", blind(Whole, 1)),
        ("ValueSet", "code", Treatment::Capsule),
        ("CodeSystem", "date", Treatment::Capsule),
        ("Patient", "_profile", Treatment::Capsule),
        ("Patient", "_lastUpdated", Treatment::Capsule),
        ("Patient", "_id", blind(Whole, 1)),
        ("Location", "near", Treatment::Capsule),
        ("Patient", "_content", Treatment::Capsule),
        ("Patient", "_text", Treatment::Capsule),
    ];
    for (kind, code, expected) in cases {
        assert_eq!(*of(kind, code), expected, "{kind} {code}");
    }
    for (kind, code) in [("Patient", "age"), ("Patient", "_query")] {
        assert!(matches!(of(kind, code), Treatment::Refused { .. }), "{kind} {code}");
    }
    assert!(matches!(treatment(TypeId(1), ParamId(60_000)), Treatment::Refused { .. }));
}

#[test]
fn nothing_skewed_or_ordered_gets_terms() {
    use crate::fhir::ParamKind::{Composite, Date, Number, Quantity, Special};
    for kind in definitions().types() {
        for param in definitions().params(*kind) {
            let treatment = treatment(*kind, param.id);
            if [Date, Number, Quantity, Composite, Special].contains(&param.kind) {
                assert!(matches!(treatment, Treatment::Capsule | Treatment::Refused { .. }), "{}", param.code);
            }
            let closed = rules::facts(*kind, param).closed && !param.expression.is_empty();
            if param.kind == crate::fhir::ParamKind::Token && closed {
                assert_eq!(*treatment, Treatment::Capsule, "{} {}", definitions().type_name(*kind), param.code);
            }
        }
    }
}

#[test]
fn years_are_of_events_and_never_of_persons() {
    let year = |kind: &str| {
        let kind = definitions().type_id(kind).expect("a type");
        mapping(kind).year.and_then(|id| definitions().param_by_id(id)).map(|param| param.code)
    };
    let cases = [
        ("Patient", None),
        ("Person", None),
        ("RelatedPerson", None),
        ("Practitioner", None),
        ("Binary", None),
        ("Observation", Some("date")),
        ("Appointment", Some("date")),
        ("Condition", Some("recorded-date")),
        ("Encounter", Some("date")),
        ("DocumentReference", Some("date")),
        ("MedicationRequest", Some("authoredon")),
        ("Immunization", Some("date")),
        ("Coverage", None),
    ];
    for (kind, code) in cases {
        assert_eq!(year(kind), code, "{kind}");
    }
    for kind in definitions().types() {
        let code = year(definitions().type_name(*kind)).unwrap_or_default();
        assert!(!code.contains("birth") && !code.contains("death"), "{code}");
    }
}

#[test]
fn persons_are_demographic_and_their_base_is_identity() {
    let demographic: Vec<&str> = definitions()
        .types()
        .iter()
        .filter(|kind| mapping(**kind).demographic)
        .map(|kind| definitions().type_name(*kind))
        .collect();
    assert_eq!(demographic, ["Patient", "Person", "RelatedPerson"]);
    for name in demographic {
        assert_eq!(mapping(definitions().type_id(name).unwrap()).section, Section::Identity, "{name}");
    }
}

#[test]
fn numbers_of_sections_and_classes_stay() {
    let numbers: Vec<(u8, &str)> = Section::ALL.iter().map(|section| (*section as u8, section.name())).collect();
    let expected =
        [(1, "identity"), (2, "contact"), (3, "government-id"), (4, "insurance"), (5, "clinical"), (6, "narrative")];
    assert_eq!(numbers, expected);
    assert!(Section::ALL.into_iter().all(|section| Section::from_number(section as u8) == Some(section)));
    assert_eq!(Section::from_number(0), None);
}

#[test]
fn domain_codes_cover_the_value_set() {
    for kind in definitions().types() {
        let name = definitions().type_name(*kind);
        for field in mapping(*kind).tables.iter().flat_map(|table| &table.fields).filter(|f| !f.codes.is_empty()) {
            let codes = definitions().child(name, &field.path.text).and_then(|child| child.codes);
            let codes = codes.unwrap_or_else(|| panic!("{name} {}: a translated field is bound by force", field.name));
            for code in codes {
                assert!(field.domain_code(code).is_some(), "{name} {} {code}", field.name);
            }
            let known: Vec<&String> = field.codes.iter().flat_map(|(_, all)| all).collect();
            assert_eq!(known.len(), codes.len(), "each code once");
            assert!(known.iter().all(|code| codes.contains(&code.as_str())));
        }
    }
}

/// (file to change, what, into what, words the message must hold).
const FAULTS: &[(&str, &str, &str, &[&str])] = &[
    ("patient", "name = \"telecom\"", "name = \"telekom\"", &["mappings/patient.toml", "elements", "telekom"]),
    ("patient", "\"phonetic\"", "\"fonetic\"", &["mappings/patient.toml", "params", "fonetic"]),
    ("patient", "\"active\", \"gender\"", "\"gender\"", &["mappings/patient.toml", "params", "active"]),
    ("patient", "section = \"contact\"", "section = \"contacts\"", &["mappings/patient.toml", "contacts", "line"]),
    ("patient", "demographic = true", "demografic = true", &["mappings/patient.toml", "demografic"]),
    ("patient", "demographic = true", "demographic = true\nyear = \"birthdate\"", &["patient.toml", "year"]),
    ("patient", "class = [\"photo\"", "class = [\"foto\"", &["mappings/patient.toml", "foto"]),
    (
        "patient",
        "class = [\"name\"], stored = \"blind\"",
        "class = [\"name\"], stored = \"sealed\"",
        &["elements", "name", "Blind"],
    ),
    ("observation", "\"code\", \"combo-code\", \"component-code\"", "\"date\", \"combo-code\"", &["params", "date"]),
    ("observation", "{ names = [\"status\"", "{ names = [\"code\", \"status\"", &["params", "code", "twice"]),
    ("observation", "year = \"date\"", "year = \"code\"", &["observation.toml", "year", "code"]),
    ("observation", "path = \"subject.reference\"", "path = \"patient.reference\"", &["domain", "patient"]),
    (
        "observation",
        "\"subject\", \"performer\"], treatment = \"compartment\"",
        "\"subject\", \"performer\"], treatment = \"capsule\"",
        &["elements", "subject"],
    ),
    ("encounter", "\"location\", \"part-of\"", "\"patient\", \"part-of\"", &["params", "patient", "compartment"]),
    ("encounter", "partitions = 16", "partitions = 0", &["params", "reason-code", "partitions"]),
    ("appointment", "noshow = [\"arrived\"", "noshow = [\"late\"", &["moves", "late"]),
    ("appointment", "entered-in-error = []", "", &["moves", "entered-in-error"]),
    ("binary", "type = \"Binary\"", "type = \"Bynary\"", &["mappings/binary.toml", "type", "Bynary"]),
];

#[test]
fn faults_are_named_with_file_and_key() {
    for (name, what, into, words) in FAULTS {
        let path = format!("mappings/{name}.toml");
        let mut files: Vec<(&str, String)> =
            file::TYPES.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        let (_, text) = files.iter_mut().find(|(name, _)| *name == path).unwrap();
        assert!(text.contains(what), "{path} holds {what}");
        *text = text.replacen(what, into, 1);
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let fault = build::load_from(&files, file::DEFAULT).err().unwrap_or_else(|| panic!("{path}: {into} passed"));
        for word in *words {
            assert!(fault.contains(word), "{path}: {into}: {fault}");
        }
    }
    let unknown = file::DEFAULT.1.replacen("\"phonetic\"", "\"fonetic\"", 1);
    let fault = build::load_from(file::TYPES, (file::DEFAULT.0, &unknown)).err().unwrap();
    assert!(fault.contains("default.toml") && fault.contains("fonetic"), "{fault}");
}

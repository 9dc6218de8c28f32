//! `docs/leakage.md`: what the database reveals, from the mappings and definitions. A test compares the file with what
//! is made here; `make leakage` writes it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::{BlindForm, Class, Element, Mapping, Stored, Treatment, mapping, treatment};
use crate::fhir::definitions::Param;
use crate::fhir::{TypeId, definitions};

const GENERAL: &str = include_str!("leakage.md");
/// Set to write the file instead of comparing it.
const WRITE: &str = "PHIAL_WRITE_LEAKAGE";

fn form(form: BlindForm) -> &'static str {
    match form {
        BlindForm::Token => "token",
        BlindForm::Prefix => "prefix",
        BlindForm::Sound => "sound",
        BlindForm::Whole => "whole",
    }
}

fn reveals(treatment: &Treatment) -> String {
    match treatment {
        Treatment::Blind { form: of, partitions } => format!("blind {}, P = {partitions}", form(*of)),
        Treatment::Capsule => "capsule".to_owned(),
        Treatment::Compartment => "compartment".to_owned(),
        Treatment::Refused { reason } => format!("refused: {reason}"),
    }
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Name => "name (A)",
        Class::Geographic => "geographic (B)",
        Class::Date => "date (C)",
        Class::Phone => "phone (D)",
        Class::Fax => "fax (E)",
        Class::Email => "email (F)",
        Class::Ssn => "SSN (G)",
        Class::Mrn => "MRN (H)",
        Class::HealthPlan => "health plan (I)",
        Class::Account => "account (J)",
        Class::License => "licence (K)",
        Class::Vehicle => "vehicle (L)",
        Class::Device => "device (M)",
        Class::Url => "URL (N)",
        Class::IpAddress => "IP address (O)",
        Class::Biometric => "biometric (P)",
        Class::Photo => "photo (Q)",
        Class::OtherIdentifier => "other identifier (R)",
        Class::Demographic => "demographic",
        Class::Clinical => "clinical",
        Class::Narrative => "narrative",
        Class::Administrative => "administrative",
    }
}

fn element_name(element: &Element) -> String {
    match &element.items {
        None => element.name.clone(),
        Some(items) => {
            let all: Vec<&str> = items.codes.iter().chain(&items.systems).map(String::as_str).collect();
            format!("{} of {}", element.name, all.join(", "))
        }
    }
}

fn stored(element: &Element) -> &'static str {
    match element.stored {
        Stored::Sealed => "nothing",
        Stored::Capsule => "sealed in the capsule",
        Stored::Blind => "keyed terms",
        Stored::Clear => "**its year, readable**",
    }
}

fn year(mapping: &Mapping) -> String {
    match mapping.year.and_then(|id| definitions().param_by_id(id)) {
        Some(param) => format!("the year of `{}`", param.code),
        None => "no year".to_owned(),
    }
}

fn head(mapping: &Mapping) -> String {
    let surrogate = if mapping.demographic {
        "the demographic surrogate of the patient"
    } else if mapping.compartment.is_empty() {
        "one surrogate for the type"
    } else {
        "the clinical surrogate of the patient (one for the type where it names no patient)"
    };
    format!("Readable: {}, {}.", year(mapping), surrogate)
}

/// Parameters of the type itself, without those that all resources have.
fn own_params(kind: TypeId) -> impl Iterator<Item = &'static Param> {
    definitions().params(kind).iter().copied().filter(|param| !param.code.starts_with('_'))
}

fn one_type(out: &mut String, mapping: &Mapping) {
    let name = definitions().type_name(mapping.kind);
    let _ = writeln!(out, "\n### {name}\n\n{}\n", head(mapping));
    for table in mapping.tables.iter().filter(|table| table.when.is_some()) {
        let what = table.set.iter().map(|(field, value)| format!(" ({field} {value})")).collect::<String>();
        let when = table.when.as_ref().map_or("", |when| when.text.as_str());
        let _ = writeln!(out, "A row in `{}`{what} shows that `{when}`.\n", table.table);
    }
    out.push_str("| element | classes | section | beside the sealed body |\n|---|---|---|---|\n");
    for element in &mapping.elements {
        let classes: Vec<&str> = element.classes.iter().map(|of| class(*of)).collect();
        let (section, kept) = (element.section.name(), stored(element));
        let _ = writeln!(out, "| {} | {} | {section} | {kept} |", element_name(element), classes.join(", "));
    }
    if own_params(mapping.kind).next().is_some() {
        out.push_str("\n| search parameter | kind | in the database |\n|---|---|---|\n");
    }
    for param in own_params(mapping.kind) {
        let what = reveals(treatment(mapping.kind, param.id));
        let _ = writeln!(out, "| `{}` | {} | {what} |", param.code, param.kind.code());
    }
}

/// Types without a file: a line for each, its parameters grouped by what they reveal.
fn default_type(out: &mut String, mapping: &Mapping) {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for param in own_params(mapping.kind) {
        let of = treatment(mapping.kind, param.id);
        if matches!(of, Treatment::Blind { .. } | Treatment::Compartment) {
            groups.entry(reveals(of)).or_default().push(param.code);
        }
    }
    let groups: Vec<String> = groups.iter().map(|(what, codes)| format!("{what}: {}", codes.join(" "))).collect();
    let terms = if groups.is_empty() { "no terms".to_owned() } else { groups.join("; ") };
    let (name, section) = (definitions().type_name(mapping.kind), mapping.section.name());
    let _ = writeln!(out, "| {name} | {section} | {} | {terms} |", year(mapping));
}

fn page() -> String {
    let mut out = GENERAL.to_owned();
    out.push_str("\n## Parameters that all types share\n\n| search parameter | in the database |\n|---|---|\n");
    let any = definitions().types()[0];
    for param in definitions().params(any).iter().filter(|param| param.code.starts_with('_')) {
        let _ = writeln!(out, "| `{}` | {} |", param.code, reveals(treatment(any, param.id)));
    }
    out.push_str("\n`_id` is the column `record.id_token`.\n\n## Types with a mapping of their own\n");
    let all: Vec<&Mapping> = definitions().types().iter().map(|kind| mapping(*kind)).collect();
    all.iter().filter(|mapping| mapping.own_file).for_each(|mapping| one_type(&mut out, mapping));
    out.push_str(
        "\n## All other types\n\nSealed in one section. Parameters that are not listed stand in the capsule, or are \
         refused.\n\n| type | section | year column | terms |\n|---|---|---|---|\n",
    );
    all.iter().filter(|mapping| !mapping.own_file).for_each(|mapping| default_type(&mut out, mapping));
    out
}

fn below_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_leakage_page_is_up_to_date() {
    let file = below_root("docs/leakage.md");
    let made = page();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&file, made).unwrap();
        return;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let first = made.lines().zip(kept.lines()).position(|(made, kept)| made != kept);
    assert!(made == kept, "docs/leakage.md differs (line {:?}): run `make leakage`", first.map(|at| at + 1));
}

/// `table.column` of a migration's `create table` statements.
fn columns(sql: &str) -> Vec<String> {
    let without_comments: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let sql = without_comments.join(" ");
    let mut found = Vec::new();
    for statement in sql.split(';').filter_map(|statement| statement.split_once("create table ")) {
        let (table, rest) = statement.1.split_once('(').expect("a table has columns");
        let (mut depth, mut starts) = (0, true);
        for (at, c) in rest.char_indices() {
            if starts && c.is_ascii_lowercase() {
                let name: String = rest[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if !["unique", "primary", "check", "foreign"].contains(&name.as_str()) {
                    found.push(format!("{}.{name}", table.trim()));
                }
                starts = false;
            }
            match c {
                '(' => depth += 1,
                ')' if depth == 0 => break,
                ')' => depth -= 1,
                ',' if depth == 0 => starts = true,
                _ => {}
            }
        }
    }
    found
}

/// No column of the data database goes unmentioned.
#[test]
fn every_column_of_the_database_is_on_the_page() {
    let mut seen = 0;
    for engine in ["sqlite", "postgres"] {
        for entry in fs::read_dir(below_root("migrations").join(engine)).unwrap() {
            let path = entry.unwrap().path();
            // The key database is a database of its own.
            if path.extension().is_none_or(|extension| extension != "sql") || path.to_string_lossy().contains("key") {
                continue;
            }
            for column in columns(&fs::read_to_string(&path).unwrap()) {
                seen += 1;
                assert!(GENERAL.contains(&format!("`{column}`")), "{column} ({})", path.display());
            }
        }
    }
    assert!(seen > 80, "{seen} columns found");
}

//! The mapping files as they are written. Every unknown key is an error that names file, line and key.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{BlindForm, Class, Section, Stored};

/// A file of one type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TypeFile {
    #[serde(rename = "type")]
    pub kind: String,
    pub section: Section,
    #[serde(default)]
    pub demographic: bool,
    /// Code of the date parameter for the year column.
    pub year: Option<String>,
    /// A member of type Reference that no search parameter covers and that may name the patient.
    pub patient: Option<String>,
    pub elements: Vec<ElementRule>,
    pub params: Vec<ParamRule>,
    #[serde(default)]
    pub domain: Vec<TableRule>,
    pub number: Option<NumberRule>,
    pub moves: Option<MovesRule>,
}

/// `default.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DefaultFile {
    pub section: Section,
    /// Codes of date parameters for the year column, best first.
    pub year: Vec<String>,
    /// Codes of reference parameters that put a resource into a patient's compartment although R4's definition of the
    /// compartment does not name them.
    pub compartment_too: Vec<String>,
    /// The elements every resource has.
    pub elements: Vec<ElementRule>,
    pub types: Vec<TypesRule>,
    /// The first that fits decides.
    pub rules: Vec<Rule>,
    /// What parameters that a site defines may not look at.
    pub unindexable: Vec<Unindexable>,
}

/// Elements of these names, or of these classes, are in no index of a site's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unindexable {
    #[serde(default)]
    pub elements: Vec<String>,
    #[serde(default)]
    pub classes: Vec<Class>,
    pub reason: String,
}

/// Types without a file that differ from the default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TypesRule {
    pub names: Vec<String>,
    pub section: Section,
    #[serde(default)]
    pub demographic: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ElementRule {
    pub name: String,
    pub class: Vec<Class>,
    /// None: the section of the file.
    pub section: Option<Section>,
    pub stored: Stored,
    pub items: Option<ItemsRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemsRule {
    pub codes: Vec<String>,
    pub systems: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TreatmentName {
    Blind,
    Capsule,
    Compartment,
    Refused,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamRule {
    pub names: Vec<String>,
    pub treatment: TreatmentName,
    pub form: Option<BlindForm>,
    pub partitions: Option<u8>,
    pub reason: Option<String>,
}

/// A rule of `default.toml`: all conditions that are given must hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Rule {
    pub names: Option<Vec<String>>,
    /// Resource types; absent: all.
    pub types: Option<Vec<String>>,
    /// Kinds of parameters: `token`, `string` ...
    pub kinds: Option<Vec<String>>,
    /// FHIR types of the elements the parameter looks at: all are among these.
    pub of: Option<Vec<String>>,
    /// Whether every element it looks at is a `code`, a `boolean`, or bound to a value set by force.
    pub closed: Option<bool>,
    /// Whether it is one of the parameters by which a resource belongs to a patient.
    pub compartment: Option<bool>,
    /// Whether R4 publishes an expression for it (composites count as having one).
    pub expression: Option<bool>,
    pub treatment: TreatmentName,
    pub form: Option<BlindForm>,
    pub partitions: Option<u8>,
    pub reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableRule {
    pub table: String,
    pub when: Option<String>,
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    pub fields: BTreeMap<String, FieldRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldRule {
    pub path: String,
    /// None: that of the element it comes from, where that lies in one.
    pub section: Option<Section>,
    #[serde(default)]
    pub many: bool,
    #[serde(default)]
    pub codes: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NumberRule {
    pub element: String,
    pub type_system: String,
    pub type_code: String,
    pub prefix: String,
    pub width: usize,
    pub param: String,
    pub counter: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MovesRule {
    pub element: String,
    pub param: String,
    pub legal: BTreeMap<String, Vec<String>>,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("mappings/", $name, ".toml"), include_str!(concat!("../../mappings/", $name, ".toml")))),*]
    };
}

/// The files of one type each: name and text.
pub(super) const TYPES: &[(&str, &str)] = files!(
    "appointment",
    "binary",
    "condition",
    "document-reference",
    "encounter",
    "observation",
    "organization",
    "patient",
    "practitioner",
);

pub(super) const DEFAULT: (&str, &str) = ("mappings/default.toml", include_str!("../../mappings/default.toml"));

/// Reads one file. The error names it, with the line and the key.
pub(super) fn read<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| format!("{name}: {error}"))
}

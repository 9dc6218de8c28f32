//! The mappings: for each resource type which PHI class, section and treatment an element has, which domain field it
//! fills, and how each search parameter is indexed. Data under `mappings/*.toml`, embedded; code knows kinds, not
//! names. Types without a file of their own get `mappings/default.toml`. Must not know storage or HTTP.

mod build;
mod custom;
mod file;
#[cfg(test)]
mod leakage;
mod rules;
pub mod sections;

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use crate::fhir::path::Expr;
use crate::fhir::{ParamId, TypeId};

/// The parts a resource is sealed in. The number is stored; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Section {
    Identity = 1,
    Contact = 2,
    GovernmentId = 3,
    Insurance = 4,
    Clinical = 5,
    Narrative = 6,
}

impl Section {
    /// All of them, by number.
    pub const ALL: [Section; 6] = [
        Section::Identity,
        Section::Contact,
        Section::GovernmentId,
        Section::Insurance,
        Section::Clinical,
        Section::Narrative,
    ];

    pub fn from_number(number: u8) -> Option<Section> {
        Section::ALL.into_iter().find(|section| *section as u8 == number)
    }

    /// As the mapping files write it.
    pub fn name(self) -> &'static str {
        match self {
            Section::Identity => "identity",
            Section::Contact => "contact",
            Section::GovernmentId => "government-id",
            Section::Insurance => "insurance",
            Section::Clinical => "clinical",
            Section::Narrative => "narrative",
        }
    }
}

/// What an element is in the eyes of HIPAA: the identifiers of 45 CFR 164.514(b)(2)(i), by their letters, and what
/// else a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// (A)
    Name,
    /// (B) subdivisions smaller than a state
    Geographic,
    /// (C) every element of a date but the year
    Date,
    /// (D)
    Phone,
    /// (E)
    Fax,
    /// (F)
    Email,
    /// (G)
    Ssn,
    /// (H)
    Mrn,
    /// (I)
    HealthPlan,
    /// (J)
    Account,
    /// (K) certificate and licence numbers
    License,
    /// (L)
    Vehicle,
    /// (M)
    Device,
    /// (N)
    Url,
    /// (O)
    IpAddress,
    /// (P)
    Biometric,
    /// (Q) full-face photographs
    Photo,
    /// (R) any other unique identifying number, characteristic or code
    OtherIdentifier,
    /// Sex, language, marital status and the like: identifying in combination.
    Demographic,
    /// Health, care and payment of a person.
    Clinical,
    /// Text that may repeat any of the others.
    Narrative,
    /// Says nothing of a person by itself.
    Administrative,
}

/// What becomes of an element beside lying sealed in the body, which all of them do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// Nothing: it lies in the sealed body alone.
    Sealed,
    /// Its search values lie in the sealed capsule too.
    Capsule,
    /// Keyed terms of it stand in the index, beside its search values in the capsule.
    Blind,
    /// A part of it stands readable in a column.
    Clear,
}

/// How a search parameter of a type is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// A keyed term narrows in the database; the capsule decides.
    Blind { form: BlindForm, partitions: u8 },
    /// Answered from the sealed capsule only: nothing of it in the database.
    Capsule,
    /// A reference by which a resource belongs to a patient: the compartment surrogate narrows. References of the same
    /// parameter to other types are blind, whole, in one partition.
    Compartment,
    /// Not indexed at all: a search by it is refused with this reason.
    Refused { reason: String },
}

/// Which blind terms a value gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlindForm {
    /// `system|code`, `code` (identifiers and codes).
    Token,
    /// Per word: its first characters, by many lengths, and the whole word.
    Prefix,
    /// Per word: the first letters of its phonetic codes.
    Sound,
    /// The whole value: uris, references.
    Whole,
}

/// One mapped element, or those items of it that a rule picks.
pub struct Element {
    /// Member of the resource, without `[x]`: `telecom`.
    pub name: String,
    /// Some: only these items of the element, which repeats.
    pub items: Option<Items>,
    pub classes: Vec<Class>,
    pub section: Section,
    pub stored: Stored,
    /// Domain fields it fills: `patient.mrn`.
    pub fields: Vec<String>,
}

/// Picks items of an array by what they are: any code of `type.coding`, or `system`. A system ending in `*` is a prefix.
pub struct Items {
    pub codes: Vec<String>,
    pub systems: Vec<String>,
}

/// A row of a domain table that a resource fills.
pub struct Table {
    pub table: String,
    /// The row exists where this holds; None: always.
    pub when: Option<Path>,
    /// Fields with a fixed value.
    pub set: Vec<(String, String)>,
    pub fields: Vec<Field>,
}

/// A domain field and where its value comes from.
pub struct Field {
    pub name: String,
    /// The section of the element it comes from.
    pub section: Section,
    pub path: Path,
    /// All values as an array, rather than the first.
    pub many: bool,
    /// Code translation: domain code and the FHIR codes that mean it, of which the first is the way back.
    pub codes: Vec<(String, Vec<String>)>,
}

impl Field {
    /// The domain code for a FHIR code.
    pub fn domain_code(&self, fhir: &str) -> Option<&str> {
        self.codes.iter().find(|(_, all)| all.iter().any(|code| code == fhir)).map(|(domain, _)| domain.as_str())
    }

    /// The FHIR code for a domain code.
    pub fn fhir_code(&self, domain: &str) -> Option<&str> {
        self.codes.iter().find(|(of, _)| of == domain).and_then(|(_, all)| all.first()).map(String::as_str)
    }
}

/// A FHIRPath over the resource, compiled when first used.
pub struct Path {
    pub text: String,
    expr: OnceLock<Option<Expr>>,
}

impl Path {
    /// None when the text is not FHIRPath; a test compiles every path of the embedded files.
    pub fn expr(&self) -> Option<&Expr> {
        self.expr.get_or_init(|| Expr::parse(&self.text).ok()).as_ref()
    }
}

/// An identifier that the server gives where a resource has none of its type.
pub struct Numbering {
    /// Member that holds the identifiers.
    pub element: String,
    /// `type.coding` by which an identifier of this type is known and made.
    pub type_system: String,
    pub type_code: String,
    pub prefix: String,
    /// Digits at least.
    pub width: usize,
    /// Search parameter over the identifiers, by which the current one is known.
    pub param: ParamId,
    /// Counter, and domain of the uniqueness claim.
    pub counter: String,
}

/// Which values may follow which in an element that holds one code.
pub struct Moves {
    pub element: String,
    /// Search parameter that holds the current value.
    pub param: ParamId,
    /// From each value, those it may move to. Staying is always allowed.
    pub legal: HashMap<String, Vec<String>>,
}

/// What is known of one type.
pub struct Mapping {
    pub kind: TypeId,
    /// Whether the type has a file of its own.
    pub own_file: bool,
    /// Section of everything that no element names; the base of a resource that is sealed in parts.
    pub section: Section,
    /// In the order of the rules: the first that fits an element or item decides.
    pub elements: Vec<Element>,
    pub tables: Vec<Table>,
    /// The date parameter whose year the clear `yr` column holds; None: no year (always so for demographic types).
    pub year: Option<ParamId>,
    /// Whether rows carry the demographic surrogate (Patient, RelatedPerson, Person) rather than the clinical one.
    pub demographic: bool,
    /// Reference parameters whose targets of type Patient say whose compartment a resource is in. Empty for Patient:
    /// it is its own.
    pub compartment: Vec<ParamId>,
    /// A member of type Reference that no search parameter covers and that, when it names a Patient, says the same.
    pub patient: Option<String>,
    pub number: Option<Numbering>,
    pub moves: Option<Moves>,
    treatments: HashMap<ParamId, Treatment>,
}

struct Mappings {
    /// By type number; None for numbers that no type has.
    by_type: Vec<Option<Mapping>>,
    unknown: Treatment,
}

static MAPPINGS: LazyLock<Mappings> = LazyLock::new(|| {
    // The files are embedded and a test loads them: a fault here cannot reach a released server.
    let all = build::load().unwrap_or_else(|fault| panic!("the embedded mappings are faulty: {fault}"));
    let size = all.iter().map(|mapping| usize::from(mapping.kind.0) + 1).max().unwrap_or(0);
    let mut by_type: Vec<Option<Mapping>> = (0..size).map(|_| None).collect();
    for mapping in all {
        let place = usize::from(mapping.kind.0);
        by_type[place] = Some(mapping);
    }
    Mappings { by_type, unknown: Treatment::Refused { reason: "This type has no such search parameter.".to_owned() } }
});

/// The mapping of a type (the default one, applied, where it has no file).
///
/// # Panics
/// For a number that no type of the definitions has.
pub fn mapping(of: TypeId) -> &'static Mapping {
    let found = MAPPINGS.by_type.get(usize::from(of.0)).and_then(Option::as_ref);
    found.expect("every type of the definitions has a mapping")
}

/// How a parameter of a type is treated.
pub fn treatment(of: TypeId, param: ParamId) -> &'static Treatment {
    if param.is_custom() {
        return custom::treatment(of, param).unwrap_or(&MAPPINGS.unknown);
    }
    mapping(of).treatments.get(&param).unwrap_or(&MAPPINGS.unknown)
}

/// The reference parameters by which a resource of a type belongs to patients (see [`Mapping::compartment`]).
pub fn compartment(of: TypeId) -> &'static [ParamId] {
    &mapping(of).compartment
}

#[cfg(test)]
mod tests;

//! The mappings: for each resource type which PHI class, section and treatment an element has, which domain field it
//! fills, and how each search parameter is indexed. Data under `mappings/*.toml`, embedded; code knows kinds, not
//! names. Types without a file of their own get `mappings/default.toml`.

use crate::fhir::{ParamId, TypeId};

/// The parts a resource is sealed in. The number is stored; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Section {
    Identity = 1,
    Contact = 2,
    GovernmentId = 3,
    Insurance = 4,
    Clinical = 5,
    Narrative = 6,
}

/// How a search parameter of a type is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// A keyed term narrows in the database; the capsule decides.
    Blind { form: BlindForm, partitions: u8 },
    /// Answered from the sealed capsule only: nothing of it in the database.
    Capsule,
    /// A reference to the patient: the compartment surrogate narrows.
    Compartment,
    /// Not indexed at all: a search by it is refused with this reason.
    Refused { reason: String },
}

/// Which blind terms a value gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlindForm {
    /// `system|code`, `code`, `system|` (identifiers and codes).
    Token,
    /// Per word: prefixes of 2, 3, 4, 5, 6, 8 characters and the whole word.
    Prefix,
    /// The whole value: uris, references.
    Whole,
}

/// One mapped element.
pub struct Element {
    /// `Patient.telecom`, `Patient.identifier.where(...)` in the form the file explains.
    pub path: String,
    /// Domain table field it fills, if any.
    pub field: Option<String>,
    /// HIPAA class: `name`, `geographic`, `date`, `phone`, `ssn`, `mrn`, `health-plan`, `clinical` ...
    pub class: String,
    pub section: Section,
}

/// What is known of one type.
pub struct Mapping {
    pub kind: TypeId,
    /// Domain table: `patient`, `appointment` ...; None for default-mapped types.
    pub domain: Option<String>,
    /// Section of everything that no element names.
    pub section: Section,
    pub elements: Vec<Element>,
    /// The date parameter whose year the clear `yr` column holds; None: no year (always so for Patient, Person, RelatedPerson).
    pub year: Option<ParamId>,
    /// Whether rows carry the demographic surrogate (Patient, RelatedPerson) rather than the clinical one.
    pub demographic: bool,
}

/// The mapping of a type (the default one, applied, where it has no file).
pub fn mapping(_of: TypeId) -> &'static Mapping {
    todo!()
}

/// How a parameter of a type is treated.
pub fn treatment(_of: TypeId, _param: ParamId) -> &'static Treatment {
    todo!()
}

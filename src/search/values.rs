//! The search values of one resource, by parameter, computed with the official expressions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::error::Result;
use crate::fhir::date::Range;
use crate::fhir::reference::Reference;
use crate::fhir::{ParamId, Resource, TypeId, definitions};
use crate::vault::Pk;
use crate::world::Instant;

/// What every capsule carries beside search values. `_id` and `_lastUpdated` are answered from here.
#[derive(Clone, PartialEq)]
pub struct Header {
    pub kind: TypeId,
    /// FHIR logical id.
    pub id: String,
    pub version: u32,
    pub last_updated: Instant,
    /// Logical ids of the patients whose compartment this belongs to (for a Patient: itself alone), sorted, distinct.
    pub patients: Vec<String>,
    /// On a Patient: the surrogate of the patient's clinical rows.
    pub clinical: Option<Pk>,
}

/// A system and a code, either of which may be absent.
pub type Coding = (Option<String>, Option<String>);

/// One indexed value.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// A code: compared without regard to case. `text` is what `:text` looks at (display, CodeableConcept.text).
    Token {
        system: Option<String>,
        code: Option<String>,
        text: Option<String>,
    },
    /// An Identifier: compared as written. `text` is Identifier.type.text, `types` its type codings for `:of-type`.
    Identifier {
        system: Option<String>,
        value: Option<String>,
        text: Option<String>,
        types: Vec<Coding>,
    },
    /// One string as written; every part of a name or address is one.
    Text(String),
    Date(Range),
    /// A number (both ends the same) or a Range (infinite where open); both ends included.
    Number {
        lo: f64,
        hi: f64,
    },
    /// As `Number`, in the unit given; a comparator (`<5`) leaves one end infinite.
    Quantity {
        lo: f64,
        hi: f64,
        system: Option<String>,
        code: Option<String>,
        unit: Option<String>,
    },
    /// A Reference or canonical. `identifier` is Reference.identifier (system, value).
    Reference {
        to: Option<Reference>,
        identifier: Option<Coding>,
    },
    Uri(String),
    /// One element the composite is based on: the values of each component, in the order of the definition.
    Composite(Vec<Vec<Value>>),
}

/// Everything a search can ask of one resource.
#[derive(Clone, PartialEq)]
pub struct Values {
    pub header: Header,
    /// Without `_id` and `_lastUpdated` (see [`Header`]); parameters without a value are absent.
    pub params: BTreeMap<ParamId, Vec<Value>>,
}

/// Computes every search value of a stamped resource. `base` is the server's own base URL. `header.clinical` is
/// left None. Values of parameters whose treatment is `Refused` are left out.
///
/// # Errors
/// `Kind::Invalid` with a FHIRPath when a value cannot be read (a date that is none).
pub fn values(_resource: &Resource, _version: u32, _at: Instant, _base: &str) -> Result<Values> {
    todo!()
}

/// Parameters that are answered from the header.
#[derive(Clone, Copy)]
pub(super) struct Common {
    pub id: ParamId,
    pub last_updated: ParamId,
}

impl Common {
    pub(super) fn get() -> Common {
        static COMMON: LazyLock<Common> = LazyLock::new(|| {
            let param = |code: &str| {
                let any = definitions().types().first().copied()?;
                definitions().param(any, code).map(|param| param.id)
            };
            Common {
                id: param("_id").expect("the fact tables have _id"),
                last_updated: param("_lastUpdated").expect("the fact tables have _lastUpdated"),
            }
        });
        *COMMON
    }
}

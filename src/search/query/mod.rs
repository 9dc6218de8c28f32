//! Query text to a checked [`Query`]. What cannot be honoured is an error here, never ignored later.

mod chain;
mod concepts;
mod control;
mod escape;
mod filter;
mod include;
mod kinds;
mod number;
mod parse;
mod pending;
mod wanted;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use super::custom::Lookup;
use super::mask::Mask;
use crate::error::Issue;
use crate::fhir::date::Range;
use crate::fhir::{ParamId, TypeId};
use crate::search::sound::Sounds;
use crate::search::terminology::{Codes, Concepts};
use crate::search::words::Words;
use crate::world::Instant;

pub use concepts::{has_words, next_concepts, supply_concepts};
pub use parse::limits;
pub use pending::{Pending, Take, pending, supply};

/// Limits and leniency for parsing.
#[derive(Clone)]
pub struct QueryOptions {
    /// `Prefer: handling=lenient`: unknown parameters are left out (and out of the self link) instead of refused.
    pub lenient: bool,
    /// The server's own base URL, without trailing slash.
    pub base: String,
    pub count_default: usize,
    pub count_max: usize,
    /// The time of the request, for the prefix `ap` on dates.
    pub now: Instant,
    /// Parameters of the site; by default there are none.
    pub customs: Lookup,
}

/// A checked search on one type.
#[derive(Clone)]
pub struct Query {
    pub kind: TypeId,
    /// All of them must hold.
    pub criteria: Vec<Criterion>,
    pub sort: Vec<SortBy>,
    /// Page size; 0 only together with `Summary::Count`.
    pub count: usize,
    pub total: Total,
    pub includes: Vec<Include>,
    pub revincludes: Vec<Include>,
    pub summary: Summary,
    pub elements: Vec<String>,
    /// The parameters in force as (name, value), decoded, for the self link and the cursor binding.
    pub applied: Vec<(String, String)>,
    /// What was sent and not applied (lenient handling, empty values, a count above the maximum), for the caller.
    pub notes: Vec<Issue>,
    /// `_cursor`, still sealed.
    pub cursor: Option<String>,
    /// The epoch of the site's parameters, where it uses one: its answer is right in that epoch alone.
    pub epoch: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    None,
    Estimate,
    Accurate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    False,
    True,
    Text,
    Data,
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortBy {
    pub param: ParamId,
    pub descending: bool,
}

/// One `_include` or `_revinclude`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// Type that holds the reference.
    pub source: TypeId,
    /// None: `*`.
    pub param: Option<ParamId>,
    /// Type it must point to; None: any.
    pub target: Option<TypeId>,
    pub iterate: bool,
    /// One of the many that `_revinclude=*` stands for.
    pub every: bool,
}

/// What patients forbid: asked patient by patient, because few have anything to say.
pub trait Forbids: Send + Sync {
    /// Rows of this patient that satisfy one of these lists as a whole are forbidden. They need no inner search.
    fn forbids(&self, patient: &str) -> Arc<[Vec<Criterion>]>;
}

/// One condition.
#[derive(Clone)]
pub enum Criterion {
    /// `name:modifier=a,b`: one of the values (with `:not`: none of them).
    Param { param: ParamId, modifier: Option<Modifier>, any_of: Vec<Wanted> },
    /// `reference:Type.rest=...`: a target of this type must satisfy `inner`. A chain over several types is an
    /// `AnyOf` of these.
    Chain { param: ParamId, target: TypeId, inner: Box<Criterion> },
    /// `_has:Type:ref:rest=...`: some resource of `source` that refers by `param` to this one (of type `of`) must
    /// satisfy `inner`.
    Has { source: TypeId, param: ParamId, of: TypeId, inner: Box<Criterion> },
    /// `reference:below=Type/id`, `:above`: the reference is to that resource or to one that is part of it, step by step
    /// (or that it is part of). `inner` finds the next step by `via`, `seen` is what was found so far.
    Hierarchy { param: ParamId, target: TypeId, up: bool, via: ParamId, inner: Box<Criterion>, seen: HashSet<String> },
    /// What a chain became once its inner search ran: the reference is to one of these (logical ids; canonical urls,
    /// with and without a version, of what has one).
    ReferenceIn { param: ParamId, target: TypeId, ids: HashSet<String> },
    /// What a `_has` became: the logical id, or the canonical url, is one of these.
    IdIn(HashSet<String>),
    /// At least one of these lists holds as a whole (chains over several types, row filters of scopes).
    AnyOf(Vec<Vec<Criterion>>),
    /// None of these lists holds as a whole.
    NoneOf(Vec<Vec<Criterion>>),
    /// It belongs to at least one of these patients (logical ids).
    PatientIn(Arc<HashSet<String>>),
    /// It belongs to patients, and to none but these.
    PatientsWithin(Arc<HashSet<String>>),
    /// It belongs to no patient.
    NoPatient,
    /// None of its patients forbids it.
    NotForbidden(Arc<dyn Forbids>),
    /// All of these hold of what lies in open sections.
    Masked { mask: Arc<Mask>, criteria: Vec<Criterion> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    Exact,
    Contains,
    Text,
    Not,
    Missing,
    OfType,
    Identifier,
    Above,
    Below,
    In,
    NotIn,
    /// `eq` of `_filter` on text: the whole text, but for case and accents.
    Whole,
    /// `ew` of `_filter`.
    Ends,
    /// `ne` of `_filter`: some value is another one.
    Other,
    /// `subject:Patient=1`.
    Type(TypeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    Sa,
    Eb,
    Ap,
}

/// The system a token must have.
#[derive(Clone, PartialEq, Eq)]
pub enum WantedSystem {
    /// `code`: any or none.
    Any,
    /// `|code`: none.
    Absent,
    /// `system|code`, `system|`.
    Is(String),
}

/// A code as sent and folded for comparison without regard to case.
#[derive(Clone, PartialEq, Eq)]
pub struct WantedCode {
    pub exact: String,
    pub folded: String,
}

/// A number with the implicit range of its digits: 5.40 is [5.395, 5.405).
#[derive(Clone, Copy, PartialEq)]
pub struct WantedNumber {
    pub prefix: Prefix,
    pub value: f64,
    pub lo: f64,
    pub hi: f64,
}

/// The unit a quantity must have.
#[derive(Clone, PartialEq)]
pub enum WantedUnit {
    /// `5.4`: any.
    Any,
    /// `5.4||mg`: code or unit text, in any system.
    Named(String),
    /// `5.4|http://unitsofmeasure.org|mg`, with its canonical form where UCUM knows it.
    Coded { system: String, code: String, canonical: Option<super::ucum::Canonical> },
}

/// One wanted value, parsed for its parameter's kind (escapes undone).
#[derive(Clone)]
pub enum Wanted {
    Token {
        system: WantedSystem,
        code: Option<WantedCode>,
    },
    /// A string: as sent (NFC) and folded by `search::text`.
    Text {
        exact: String,
        folded: String,
    },
    /// Names that sound like this.
    Sounds(Sounds),
    /// For `Ap` the range is already widened.
    Date {
        prefix: Prefix,
        range: Range,
    },
    Number(WantedNumber),
    Quantity {
        number: WantedNumber,
        unit: WantedUnit,
    },
    Reference(WantedReference),
    Uri(String),
    Missing(bool),
    /// A set of codes that is yet to be looked up, and what it became.
    Concepts(Concepts),
    Codes(Arc<Codes>),
    /// What the text of the resource must hold (`_text`, `_content`): the store looks into the body.
    Words(Words),
    /// Degrees and kilometres.
    Near {
        latitude: f64,
        longitude: f64,
        distance: f64,
    },
    Composite(Vec<Wanted>),
    /// `:of-type`: type system, type code, value.
    OfType {
        system: String,
        code: WantedCode,
        value: String,
    },
}

#[derive(Clone, PartialEq, Eq)]
pub enum WantedReference {
    /// `Patient/1`, or `1` with every type the parameter allows.
    Local { kinds: Vec<TypeId>, id: String, version: Option<String> },
    /// Any other url, urn or canonical.
    Url(String),
}

//! Query text to a checked [`Query`]. What cannot be honoured is an error here, never ignored later.

use std::collections::HashSet;

use crate::error::Result;
use crate::fhir::{ParamId, TypeId};

/// Limits and leniency for parsing.
#[derive(Clone)]
pub struct QueryOptions {
    /// `Prefer: handling=lenient`: unknown parameters are left out (and out of the self link) instead of refused.
    pub lenient: bool,
    /// The server's own base URL, without trailing slash.
    pub base: String,
    pub count_default: usize,
    pub count_max: usize,
}

/// A checked search on one type.
#[derive(Clone)]
pub struct Query {
    pub kind: TypeId,
    /// All of them must hold.
    pub criteria: Vec<Criterion>,
    pub sort: Vec<SortBy>,
    pub count: usize,
    pub total: Total,
    pub includes: Vec<Include>,
    pub revincludes: Vec<Include>,
    pub summary: Summary,
    pub elements: Vec<String>,
    /// The parameters in force as (name, value), for the self link and the cursor binding.
    pub applied: Vec<(String, String)>,
    /// `_cursor`, still sealed.
    pub cursor: Option<String>,
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

#[derive(Clone)]
pub struct SortBy {
    pub param: ParamId,
    pub descending: bool,
}

#[derive(Clone)]
pub struct Include {
    /// Type that holds the reference.
    pub source: TypeId,
    /// None: `*`.
    pub param: Option<ParamId>,
    pub target: Option<TypeId>,
    pub iterate: bool,
}

/// One condition.
#[derive(Clone)]
pub enum Criterion {
    /// `name:modifier=a,b`: one of the values.
    Param { param: ParamId, modifier: Option<Modifier>, any_of: Vec<Wanted> },
    /// `reference:Type.rest=...`: the target (one of `targets`) must satisfy `inner`.
    Chain { param: ParamId, targets: Vec<TypeId>, inner: Box<Criterion> },
    /// `_has:Type:ref:rest=...`: some resource of `source` that refers here by `param` must satisfy `inner`.
    Has { source: TypeId, param: ParamId, inner: Box<Criterion> },
    /// What a chain became once its inner search ran: the reference is to one of these.
    ReferenceIn { param: ParamId, to: HashSet<(TypeId, String)> },
    /// What a `_has` became: the logical id is one of these.
    IdIn(HashSet<String>),
    /// Another granted filter: at least one of these lists holds as a whole (row filters of scopes).
    AnyOf(Vec<Vec<Criterion>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
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

/// One wanted value, parsed for its parameter's kind (escapes undone). `search::query` may refine this.
#[derive(Clone)]
pub enum Wanted {
    /// `code`, `system|code`, `|code` (Some("") system), `system|`.
    Token {
        system: Option<String>,
        code: Option<String>,
    },
    Text(String),
    Date {
        prefix: Prefix,
        range: crate::fhir::date::Range,
    },
    Number {
        prefix: Prefix,
        value: f64,
        lo: f64,
        hi: f64,
    },
    Quantity {
        prefix: Prefix,
        value: f64,
        lo: f64,
        hi: f64,
        system: Option<String>,
        code: Option<String>,
    },
    Reference(WantedReference),
    Uri(String),
    Missing(bool),
    Composite(Vec<Wanted>),
    /// `:of-type` : type system, type code, value.
    OfType {
        system: String,
        code: String,
        value: String,
    },
}

#[derive(Clone)]
pub enum WantedReference {
    /// `Patient/1`, or `1` with every type the parameter allows.
    Local {
        kinds: Vec<TypeId>,
        id: String,
    },
    Url(String),
    Identifier {
        system: Option<String>,
        value: Option<String>,
    },
}

impl Query {
    /// Parses decoded (name, value) pairs, in order.
    ///
    /// # Errors
    /// `Kind::Invalid` / `Kind::Unsupported`, one issue per parameter that is wrong, naming it.
    pub fn parse(_kind: TypeId, _pairs: &[(String, String)], _options: &QueryOptions) -> Result<Query> {
        todo!()
    }

    /// Every type the query touches (chains, `_has` and includes too): the caller needs a grant for each.
    pub fn kinds(&self) -> Vec<TypeId> {
        todo!()
    }
}

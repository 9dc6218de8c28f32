//! What is known of R4: types, elements, search parameters, compartments. Loaded once from the compact fact tables
//! under `fhir-profiles/r4/`, which are embedded in the binary.

use std::collections::HashMap;

use super::path::Expr;

/// A resource type. The number is fixed by the fact tables (only ever appended to): it is stored in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u16);

/// A search parameter. The number is fixed by the fact tables: it is part of blind terms and capsules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamKind {
    Number,
    Date,
    String,
    Token,
    Reference,
    Composite,
    Quantity,
    Uri,
    /// `near` and others that no rule covers.
    Special,
}

/// One search parameter as it applies to one or more types. Parameters of `Resource` (`_id`, `_lastUpdated`, `_tag`,
/// `_profile`, `_security`, `_source`) and `DomainResource` (`_text`) apply to all.
pub struct Param {
    pub id: ParamId,
    /// The name in a query: `birthdate`, `_lastUpdated`.
    pub code: &'static str,
    /// Canonical url.
    pub url: &'static str,
    pub kind: ParamKind,
    /// Types it applies to; empty: all.
    pub bases: Vec<TypeId>,
    /// For references: the types it may point to; empty: any.
    pub targets: Vec<TypeId>,
    /// For composites: the component parameters with their own expressions.
    pub components: Vec<(ParamId, Expr)>,
    /// As published, for the CapabilityStatement and for messages.
    pub expression: &'static str,
    /// The compiled part of the expression for one type, by type.
    pub exprs: HashMap<TypeId, Expr>,
}

/// One element of a type: `Patient.contact.name`.
pub struct Element {
    /// Last part of the path, without `[x]`.
    pub name: &'static str,
    pub choice: bool,
    pub min: u32,
    /// None: `*`.
    pub max: Option<u32>,
    /// Type codes: `HumanName`, `string`, `BackboneElement`, `Reference` ...
    pub types: Vec<&'static str>,
    /// Where the children are described: a type name (`HumanName`), a path (`Patient.contact`), or through
    /// `contentReference` another path. None for primitives.
    pub children: Option<&'static str>,
    /// Value set of a required binding, if any.
    pub required_binding: Option<&'static str>,
    /// For references: allowed target types; empty: any.
    pub targets: Vec<&'static str>,
}

/// All of it.
pub struct Definitions {}

/// The one copy, loaded at first use.
pub fn definitions() -> &'static Definitions {
    todo!()
}

impl Definitions {
    /// All concrete resource types, by number.
    pub fn types(&self) -> &[TypeId] {
        todo!()
    }

    pub fn type_id(&self, _name: &str) -> Option<TypeId> {
        todo!()
    }

    pub fn type_name(&self, _id: TypeId) -> &'static str {
        todo!()
    }

    /// Every search parameter of a type, those of all types included, sorted by code.
    pub fn params(&self, _of: TypeId) -> &[&'static Param] {
        todo!()
    }

    pub fn param(&self, _of: TypeId, _code: &str) -> Option<&'static Param> {
        todo!()
    }

    pub fn param_by_id(&self, _id: ParamId) -> Option<&'static Param> {
        todo!()
    }

    /// The children of a type or of a backbone path (`Patient`, `Patient.contact`, `HumanName`), in order.
    pub fn children(&self, _of: &str) -> Option<&[Element]> {
        todo!()
    }

    /// Codes of the parameters by which a type belongs to a compartment (`Patient`, `Practitioner`, `Encounter`,
    /// `RelatedPerson`, `Device`); None: it is not in it. `{def}` (the resource itself) is given as `_id`.
    pub fn compartment(&self, _compartment: &str, _of: TypeId) -> Option<&[&'static str]> {
        todo!()
    }
}

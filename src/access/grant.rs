//! The decision: [`authorize`] is the only maker of a [`Grant`].

use std::marker::PhantomData;

use super::caller::Caller;
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::mapping::Section;
use crate::search::query::{Criterion, Query};

/// An operation a grant can be for.
pub trait Op {
    /// The SMART v2 letter: `c r u d s`.
    const LETTER: char;
}

pub struct Create;
/// Read, vread and instance history.
pub struct Read;
/// Update and patch, update-as-create included.
pub struct Update;
pub struct Delete;
/// Search, and history of a type.
pub struct Search;

impl Op for Create {
    const LETTER: char = 'c';
}
impl Op for Read {
    const LETTER: char = 'r';
}
impl Op for Update {
    const LETTER: char = 'u';
}
impl Op for Delete {
    const LETTER: char = 'd';
}
impl Op for Search {
    const LETTER: char = 's';
}

/// Which rows: applied wherever rows are made, before any limit. There is no default.
#[derive(Clone)]
pub enum Rows {
    All,
    /// Rows that satisfy at least one of these lists of criteria as a whole.
    AnyOf(Vec<Vec<Criterion>>),
}

/// Which sections of a resource may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections(u16);

impl Sections {
    pub fn all() -> Self {
        Sections(u16::MAX)
    }

    pub fn allows(self, section: Section) -> bool {
        self.0 & (1 << section as u16) != 0
    }
}

/// Proof that the caller may do `O` on the type, with the rows and sections it covers.
///
/// Only [`authorize`] makes one:
///
/// ```
/// use phial::access::{Caller, Grant, Read, authorize};
/// fn honest(caller: &Caller, kind: phial::fhir::TypeId) -> phial::error::Result<Grant<Read>> {
///     authorize::<Read>(caller, kind)
/// }
/// ```
/// ```compile_fail,E0451
/// use phial::access::{Grant, Read, Rows, Sections};
/// fn forge(kind: phial::fhir::TypeId) -> Grant<Read> {
///     Grant { kind, rows: Rows::All, sections: Sections::all(), _op: std::marker::PhantomData }
/// }
/// ```
/// A grant for one operation is none for another:
///
/// ```compile_fail,E0308
/// use phial::access::{Grant, Read, Update};
/// fn widen(grant: Grant<Read>) -> Grant<Update> {
///     grant
/// }
/// ```
pub struct Grant<O: Op> {
    kind: TypeId,
    rows: Rows,
    sections: Sections,
    _op: PhantomData<O>,
}

impl<O: Op> Grant<O> {
    pub fn kind(&self) -> TypeId {
        self.kind
    }

    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn sections(&self) -> Sections {
        self.sections
    }
}

/// Decides. Scopes are a union: one without a filter gives every row, filters stand side by side.
///
/// # Errors
/// `Kind::Forbidden` when no scope covers the operation on the type.
pub fn authorize<O: Op>(caller: &Caller, kind: TypeId) -> Result<Grant<O>> {
    let mut filters = Vec::new();
    for rule in caller.rules() {
        if !rule.letters.has(O::LETTER) || rule.kind.is_some_and(|only| only != kind) {
            continue;
        }
        match &rule.criteria {
            None => return Ok(Grant { kind, rows: Rows::All, sections: Sections::all(), _op: PhantomData }),
            Some(criteria) => filters.push(criteria.clone()),
        }
    }
    if filters.is_empty() {
        return Err(forbidden(O::LETTER, &[kind]));
    }
    Ok(Grant { kind, rows: Rows::AnyOf(filters), sections: Sections::all(), _op: PhantomData })
}

fn forbidden(letter: char, kinds: &[TypeId]) -> Error {
    let names: Vec<&str> = kinds.iter().map(|kind| definitions().type_name(*kind)).collect();
    let names = names.join(" or ");
    Error::new(Kind::Forbidden, format!("The access token has no scope with permission '{letter}' on {names}."))
}

/// The search grants of one query: its type, and every type its chains and includes touch.
pub struct Grants {
    grants: Vec<Grant<Search>>,
}

impl Grants {
    /// The grants of a query. Its type, the types it looks at by `_has` and the target of a chain must be granted. Of a
    /// chain that may lead to several types one must be: the others stay without a grant, and so without rows. Types
    /// that are only included need no grant: [`Grants::get`] gives None, and nothing of them is included.
    ///
    /// # Errors
    /// `Kind::Forbidden` naming the first type (or choice of types) that is not covered.
    pub fn of(caller: &Caller, query: &Query) -> Result<Grants> {
        let mut needed = vec![vec![query.kind]];
        query.criteria.iter().for_each(|criterion| needs(criterion, &mut needed));
        let mut grants = Grants { grants: Vec::new() };
        for kinds in &needed {
            kinds.iter().for_each(|kind| grants.add(caller, *kind));
            if kinds.iter().all(|kind| grants.get(*kind).is_none()) {
                return Err(forbidden(Search::LETTER, kinds));
            }
        }
        query.kinds().into_iter().for_each(|kind| grants.add(caller, kind));
        Ok(grants)
    }

    fn add(&mut self, caller: &Caller, kind: TypeId) {
        if self.get(kind).is_none() {
            self.grants.extend(authorize::<Search>(caller, kind).ok());
        }
    }

    /// None: the caller has no grant for this type, and nothing of it may be shown or used.
    pub fn get(&self, kind: TypeId) -> Option<&Grant<Search>> {
        self.grants.iter().find(|grant| grant.kind == kind)
    }
}

/// Adds the types a criterion looks at beyond its own row: one choice of types per step.
fn needs(criterion: &Criterion, needed: &mut Vec<Vec<TypeId>>) {
    match criterion {
        Criterion::Chain { targets, inner, .. } => {
            needed.push(targets.clone());
            needs(inner, needed);
        }
        Criterion::Has { source, inner, .. } => {
            needed.push(vec![*source]);
            needs(inner, needed);
        }
        Criterion::AnyOf(lists) => lists.iter().flatten().for_each(|inner| needs(inner, needed)),
        Criterion::Param { .. } | Criterion::ReferenceIn { .. } | Criterion::IdIn(_) => {}
    }
}

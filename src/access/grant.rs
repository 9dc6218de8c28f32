//! The decision: [`authorize`] is the only maker of a [`Grant`].

use std::marker::PhantomData;

use super::caller::Caller;
use crate::error::Result;
use crate::fhir::TypeId;
use crate::mapping::Section;
use crate::search::query::Criterion;

/// An operation a grant can be for.
pub trait Op {
    /// The SMART v2 letter: `c r u d s`.
    const LETTER: char;
}

pub struct Create;
pub struct Read;
pub struct Update;
pub struct Delete;
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

/// Decides.
///
/// # Errors
/// `Kind::Forbidden` when no scope covers the operation on the type.
pub fn authorize<O: Op>(_caller: &Caller, _kind: TypeId) -> Result<Grant<O>> {
    todo!()
}

/// The search grants of one query: its type, and every type its chains and includes touch.
pub struct Grants {
    grants: Vec<Grant<Search>>,
}

impl Grants {
    /// # Errors
    /// `Kind::Forbidden` naming the first type that is not covered.
    pub fn for_kinds(_caller: &Caller, _kinds: &[TypeId]) -> Result<Grants> {
        todo!()
    }

    /// None: the caller has no grant for this type, and nothing of it may be shown or used.
    pub fn get(&self, kind: TypeId) -> Option<&Grant<Search>> {
        self.grants.iter().find(|grant| grant.kind == kind)
    }
}

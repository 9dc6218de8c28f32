//! A write under way: a buffer of drafts with what they were based on. Applied in one database transaction together
//! with its audit entry; if what it was based on has changed, nothing of it is kept and it says Conflict.

use super::{AuditRow, Receipt};
use crate::access::{Grant, Op};
use crate::domain::DomainRow;
use crate::error::Result;
use crate::fhir::{Resource, TypeId};
use crate::search::Values;
use crate::world::Instant;

/// What is there now, as a write sees it (the transaction's own earlier drafts included).
pub struct Current {
    pub version: u32,
    pub deleted: bool,
    /// Search values of the current version (None when deleted).
    pub values: Option<Values>,
}

/// One resource to be written.
pub struct Draft {
    pub resource: Resource,
    /// New version number: current + 1, or 1.
    pub version: u32,
    pub at: Instant,
    pub domain: Option<DomainRow>,
    /// Further things that must be unique in the whole server: (domain, value). Like those of the domain row they are
    /// held until the next version of this resource (conditional creates claim their condition).
    pub claims: Vec<(&'static str, String)>,
}

pub struct Tx {}

impl Tx {
    /// The current state of a resource; remembered as what this transaction is based on. None: never existed.
    /// A resource outside the grant's rows is `Kind::NotFound`.
    pub async fn current<O: Op>(&mut self, _grant: &Grant<O>, _id: &str) -> Result<Option<Current>> {
        todo!()
    }

    /// Indexes, seals and buffers. The draft's resource is stamped (id, version, time) already.
    ///
    /// # Errors
    /// `Kind::NotFound`/`Forbidden` when the grant's rows do not cover the new content.
    pub async fn put<O: Op>(&mut self, _grant: &Grant<O>, _draft: Draft) -> Result<()> {
        todo!()
    }

    /// Buffers a deletion (a version without content).
    pub async fn delete<O: Op>(
        &mut self,
        _grant: &Grant<O>,
        _kind: TypeId,
        _id: &str,
        _version: u32,
        _at: Instant,
    ) -> Result<()> {
        todo!()
    }

    /// Applies everything with the audit entry in one durable transaction. Called by `audit` alone.
    ///
    /// # Errors
    /// `Kind::Conflict` when a version it was based on has changed or something unique is taken: nothing is kept.
    pub(crate) async fn commit(self, _row: AuditRow) -> Result<Receipt> {
        todo!()
    }
}

//! The only user of sqlx: one SQL text for SQLite and PostgreSQL and a small `dialect`. Holds ciphertext; a body can
//! be opened only with the [`Receipt`] of a durable audit entry that names it.

pub mod db;
pub mod dialect;
pub mod keydb;
pub mod lane;
pub mod migrate;
pub mod read;
pub mod select;
pub mod tx;

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::access::{Grant, Grants, Read, Sections};
use crate::error::Result;
use crate::fhir::TypeId;
use crate::search::Query;
use crate::search::values::Header;
use crate::vault::{Pk, Rid, Vault};
use crate::world::World;

pub use tx::{Draft, Tx};

/// One version of a resource as it lies in the database: its content cannot be reached without a [`Receipt`].
/// No Debug: the header holds the logical id and the patients.
pub struct Sealed {
    pub(crate) rid: Rid,
    pub(crate) pk: Pk,
    /// Opened from the capsule (or from the version's own sealed head).
    pub(crate) header: Header,
    pub(crate) deleted: bool,
    pub(crate) sections: Sections,
    /// The envelopes, one per section.
    pub(crate) bytes: Vec<u8>,
}

/// Proof that an audit entry naming these versions is durable. Only the store makes one, after the commit.
pub struct Receipt {
    covers: Vec<(Rid, u32)>,
    at: crate::world::Instant,
}

/// One audit entry ready to be written (made by `audit`). `covers` are the versions whose content it lets out.
pub struct AuditRow {
    pub id: String,
    pub at: crate::world::Instant,
    /// Envelope under the audit key of the month.
    pub sealed: Vec<u8>,
    /// SHA-256(salt || canonical entry); goes into the instance chain.
    pub commitment: [u8; 32],
    /// Blind terms: patients, agent, entity, action, outcome class as `audit` decides.
    pub terms: Vec<i64>,
    pub covers: Vec<(Rid, u32)>,
}

/// Result of looking for one resource.
pub enum Found {
    Current(Sealed),
    Deleted { version: u32 },
    Absent,
}

/// One page of a search.
pub struct Selection {
    pub matches: Vec<Sealed>,
    pub included: Vec<Sealed>,
    pub total: Option<Count>,
    /// Position after the last match; None on the last page.
    pub next: Option<Position>,
    /// Said to the caller in an OperationOutcome entry (left-out includes and the like).
    pub notes: Vec<crate::error::Issue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Exact(u64),
    Estimate(u64),
}

/// Where a page starts: after this sort key and row.
#[derive(Clone)]
pub struct Position {
    pub key: Vec<u8>,
    pub rid: Rid,
}

/// One page of a history.
pub struct HistoryPage {
    /// Newest first.
    pub versions: Vec<Sealed>,
    pub total: u64,
    pub next: Option<u32>,
}

/// Where things are and how large they may grow.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `postgres://...`.
    pub url: String,
    /// The server's own base URL (`http://host/fhir`).
    pub base: String,
    pub readers: u32,
    pub lanes: u32,
    pub candidates_max: usize,
}

/// The store. Clones are cheap.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {}

impl Store {
    /// Opens, migrates, registers this process as an audit instance.
    pub async fn open(_config: StoreConfig, _vault: Vault, _world: Arc<World>) -> Result<Store> {
        todo!()
    }

    pub async fn find(&self, _grant: &Grant<Read>, _id: &str) -> Result<Found> {
        todo!()
    }

    /// One version. `Found::Deleted` when that version is the deletion.
    pub async fn find_version(&self, _grant: &Grant<Read>, _id: &str, _version: u32) -> Result<Found> {
        todo!()
    }

    pub async fn history(
        &self,
        _grant: &Grant<Read>,
        _id: &str,
        _count: usize,
        _before: Option<u32>,
    ) -> Result<HistoryPage> {
        todo!()
    }

    /// Runs a search under the grants: row filters apply to the main type, chains, `_has`, includes and counts.
    ///
    /// # Errors
    /// `Kind::TooCostly` past `candidates_max`, with advice.
    pub async fn select(&self, _grants: &Grants, _query: &Query, _after: Option<Position>) -> Result<Selection> {
        todo!()
    }

    /// An open write. It has no commit of its own: `audit::commit` is the only way.
    pub fn begin(&self) -> Tx {
        todo!()
    }

    /// Appends one audit entry, group-committed; returns once it is durable.
    ///
    /// # Errors
    /// `Kind::Audit`: nothing may be released.
    pub async fn append(&self, _row: AuditRow) -> Result<Receipt> {
        todo!()
    }

    /// The next number of a counter (MRN).
    pub async fn next_number(&self, _counter: &'static str) -> Result<u64> {
        todo!()
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        todo!()
    }

    /// Finishes what is under way; nothing is accepted afterwards.
    pub async fn close(&self) {
        todo!()
    }
}

impl Sealed {
    pub fn kind(&self) -> TypeId {
        self.header.kind
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens the content as JSON bytes (sections put together; without those the grant does not allow, and then tagged SUBSETTED).
    ///
    /// # Errors
    /// `Kind::Audit` when the receipt does not cover this version; `Kind::Tampered` when it does not verify.
    pub(crate) async fn open(&self, _receipt: &Receipt, _vault: &Vault) -> Result<Zeroizing<Vec<u8>>> {
        todo!()
    }
}

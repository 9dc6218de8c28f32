//! The only user of sqlx: one SQL text for SQLite and PostgreSQL and a small `dialect`. Holds ciphertext; a body can
//! be opened only with the [`Receipt`] of a durable audit entry that names it.

mod apply;
mod backlog;
mod batch;
mod beside;
mod chain;
mod compartment;
mod cores;
mod custom;
mod desk;
mod dialect;
mod erase;
mod gather;
mod growth;
mod held;
mod journal;
mod kv;
#[cfg(test)]
mod contract;
mod index;
mod lane;
mod lookup;
mod migrate;
mod packed;
mod pool;
mod premise;
mod refer;
mod reindex;
mod seal;
mod sealed;
mod segment;
mod select;
mod small;
mod turns;

pub mod bond;
pub mod db;
pub mod entries;
pub mod keydb;
pub mod past;
pub mod read;
pub mod tx;

#[cfg(test)]
#[path = "../../tests/harness/postgres.rs"]
pub(crate) mod postgres;

use std::sync::{Arc, RwLock};

use moka::sync::Cache;
use zeroize::Zeroizing;

use crate::access::Sections;
use crate::error::Result;
use crate::search::Customs;
use crate::search::values::Header;
use crate::vault::{Pk, Rid, Vault};
use crate::world::World;

use compartment::Surrogates;
use db::{Db, Param, Use};
use lane::{Answer, Lanes, Work};
use pool::Readers;

pub use apply::Pledge;
pub use chain::chain_hash;
pub use entries::{AuditStored, ChainPlace};
pub use erase::Erasing;
pub use index::{IndexFlaw, IndexReport};
pub use past::{Mark, Past, PastPage, Period};
pub use premise::Premise;
pub use refer::{Fate, REFERRERS_MAX, Referrers};
pub use reindex::{Pass, Reindexed};
pub use segment::{AuditEntry, SegmentPlace};
pub use select::{Container, Judge, Narrows, Plan, Within};
pub use small::Life;
pub use tx::{Current, Draft, SealedTx, Tx, WrittenHash};

/// One version of a resource as it lies in the database: its content cannot be reached without a [`Receipt`].
/// No Debug: the header holds the logical id and the patients.
///
/// Outside the server it can be passed on, not looked into:
///
/// ```
/// fn kind(sealed: &phial::store::Sealed) -> phial::fhir::TypeId {
///     sealed.kind()
/// }
/// ```
/// ```compile_fail,E0616
/// fn steal(sealed: &phial::store::Sealed) -> &[u8] {
///     &sealed.bytes
/// }
/// ```
/// ```compile_fail,E0624
/// async fn open(sealed: &phial::store::Sealed, receipt: &phial::store::Receipt, vault: &phial::vault::Vault) {
///     let _ = sealed.open(receipt, vault).await;
/// }
/// ```
/// ```compile_fail,E0277
/// fn print(sealed: &phial::store::Sealed) -> String {
///     format!("{sealed:?}")
/// }
/// ```
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
///
/// ```
/// fn when(receipt: &phial::store::Receipt) -> phial::world::Instant {
///     receipt.at()
/// }
/// ```
/// ```compile_fail,E0451
/// fn forge(at: phial::world::Instant) -> phial::store::Receipt {
///     phial::store::Receipt { covers: Vec::new(), at }
/// }
/// ```
pub struct Receipt {
    covers: Vec<(Rid, u32)>,
    at: crate::world::Instant,
}

/// One audit entry ready to be written (made by `audit`). `covers` are the versions whose content it lets out.
pub struct AuditRow {
    pub at: crate::world::Instant,
    /// Months since year 0 of `at` (UTC): which audit key seals it.
    pub month: i32,
    /// Canonical bytes. PHI, sealed with the entries of the same commit before they reach the database.
    pub entry: Zeroizing<Vec<u8>>,
    /// Blind terms, sorted: patients, agent, entity, outcome class as `audit` decides.
    pub terms: Vec<i64>,
    pub covers: Vec<(Rid, u32)>,
}

#[cfg(feature = "bench-switches")]
impl AuditRow {
    /// Stands where an entry would when a benchmark leaves them out; it is never written.
    pub(crate) fn none(at: crate::world::Instant, covers: Vec<(Rid, u32)>) -> AuditRow {
        AuditRow { at, month: 0, entry: Zeroizing::default(), terms: Vec::new(), covers }
    }
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
    /// The position after each match.
    pub positions: Vec<Position>,
    pub included: Vec<Sealed>,
    pub total: Option<Count>,
    /// Position after the last match; None on the last page.
    pub next: Option<Position>,
    /// Rows looked through, inner searches not counted. It tells of rows outside the grant: never shown to a caller.
    pub examined: usize,
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

struct Inner {
    db: Db,
    readers: Readers,
    /// For reads by key; on SQLite the same connections.
    lookups: Readers,
    together: lookup::Lookups,
    lanes: Lanes,
    vault: Vault,
    world: Arc<World>,
    base: String,
    candidates_max: usize,
    /// This process, as an audit writer.
    instance: i64,
    compartments: Cache<[u8; 16], Surrogates>,
    customs: RwLock<Arc<Customs>>,
    turns: turns::Turns,
    /// What narrowed a search to many candidates lately, as a hash: the next one lists them at once.
    broad: Cache<u64, ()>,
}

/// Compartments whose surrogates are remembered; they never change.
const COMPARTMENTS_CACHED: u64 = 100_000;
const BROAD_CACHED: u64 = 10_000;

impl Store {
    /// Opens, migrates, registers this process as an audit instance.
    ///
    /// # Errors
    /// `Kind::Invalid` for a URL that cannot be read, `Kind::Unavailable` when the database cannot be used or was sealed
    /// with other keys.
    pub async fn open(config: StoreConfig, vault: Vault, world: Arc<World>) -> Result<Store> {
        let db = Db::parse(&config.url)?;
        migrate::migrate(&db, migrate::Which::Data).await?;
        let instance = world.surrogate();
        let mut conn = db.connect().await?;
        bond::check(&mut conn, &vault).await?;
        let register = "insert into audit_instance (instance, lanes) values ($1, $2)";
        let count = lane::count(&db, config.lanes);
        conn.run(register, vec![Param::Int(instance), Param::Int(count.into())]).await?;
        journal::adopt(&db, &mut conn).await?;
        conn.close().await;
        let readers = Readers::new(db.clone(), Use::Search, config.readers as usize);
        let lookups = match db.is_postgres() {
            true => Readers::new(db.clone(), Use::Lookup, config.readers as usize),
            false => readers.clone(),
        };
        let together = lookup::Lookups::start(&lookups);
        let lanes = Lanes::start(&db, &vault, instance, count);
        let compartments = Cache::builder().max_capacity(COMPARTMENTS_CACHED).build();
        let (base, candidates_max) = (config.base, config.candidates_max);
        let customs = RwLock::default();
        let inner = Inner {
            db,
            readers,
            lookups,
            together,
            lanes,
            vault,
            world,
            base,
            candidates_max,
            instance,
            compartments,
            customs,
            turns: turns::Turns::default(),
            broad: Cache::new(BROAD_CACHED),
        };
        let store = Store { inner: Arc::new(inner) };
        store.customs_at_start().await?;
        Ok(store)
    }

    /// An open write. It has no commit of its own: `audit::commit` is the only way.
    pub fn begin(&self) -> Tx {
        Tx::new(self.clone())
    }

    /// For a write that lost a race for `of`: waits until it is its turn among those of this process.
    pub async fn turn(&self, of: impl std::hash::Hash) -> turns::Turn {
        self.inner.turns.take(of).await
    }

    /// Appends one audit entry, group-committed; returns once it is durable.
    ///
    /// # Errors
    /// `Kind::Audit`: nothing may be released.
    pub async fn append(&self, row: AuditRow) -> Result<Receipt> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().audit {
            return Ok(Receipt { covers: row.covers, at: row.at });
        }
        self.receipt(Work::Append(row)).await
    }

    /// The number of this process in the audit chains.
    pub fn instance(&self) -> i64 {
        self.inner.instance
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.inner.lookups.rows("select 1", Vec::new()).await.map(drop)
    }

    /// Queries for reading so far.
    #[cfg(test)]
    pub(crate) fn reads(&self) -> u64 {
        let lookups = if self.inner.db.is_postgres() { self.inner.lookups.asked() } else { 0 };
        self.inner.readers.asked() + lookups
    }

    /// Finishes what is under way; nothing is accepted afterwards.
    pub async fn close(&self) {
        self.inner.lanes.close().await;
        self.inner.readers.close().await;
        self.inner.lookups.close().await;
    }

    async fn receipt(&self, work: Work) -> Result<Receipt> {
        match self.inner.lanes.submit(work).await? {
            Answer::Receipt(receipt) => Ok(receipt),
            Answer::Small(_) | Answer::Settled => Err(kv::wrong_answer()),
        }
    }
}

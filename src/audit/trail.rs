//! The trail: appends entries and lets content out, in that order. Reading entries back is `audit::reading`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::entry::{Event, Request, Touched, What};
use super::reading::SCANNED_MAX;
use super::release::Released;
use super::stored::{Entry, month};
use super::terms::terms;
use crate::access::Caller;
use crate::error::{Error, Kind, Result};
use crate::fhir::{Resource, TypeId, json};
use crate::store::{AuditRow, Receipt, Reindexed, Sealed, Store, Tx, WrittenHash};
use crate::vault::{Pk, Rid, Vault};
use crate::world::{Instant, World};

/// Appends entries and lets content out. Clones are cheap.
#[derive(Clone)]
pub struct Trail {
    pub(super) store: Store,
    pub(super) vault: Vault,
    pub(super) world: Arc<World>,
    /// Entries and AuditEvents that one search looks at.
    pub(super) scanned_max: usize,
}

impl Trail {
    pub fn new(store: Store, vault: Vault, world: Arc<World>) -> Trail {
        Trail { store, vault, world, scanned_max: SCANNED_MAX }
    }

    /// Records the event with everything in `sealed` as touched, waits until that is durable, then opens.
    /// The order of the result is that of `sealed`. What the event names as touched already is not named again.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry could not be written: nothing is opened.
    pub async fn disclose(&self, mut event: Event, sealed: Vec<Sealed>) -> Result<Vec<Released>> {
        name_read(&mut event, &sealed);
        let row = self.row(event, &[], covers(&sealed))?;
        let receipt = self.store.append(row).await.map_err(not_recorded)?;
        self.open(&receipt, sealed).await
    }

    /// Commits a write together with its entry; gives back `written` (the resources as stored) and what is let out
    /// with them (`also`, for bundles that read).
    ///
    /// # Errors
    /// `Kind::Conflict` when what the write was based on has changed; `Kind::Audit` when the entry could not be made.
    /// In both cases nothing is kept.
    pub async fn commit(
        &self,
        mut event: Event,
        tx: Tx,
        written: Vec<Resource>,
        also: Vec<Sealed>,
    ) -> Result<(Vec<Released>, Vec<Released>)> {
        let tx = tx.seal().await?;
        name_written(&mut event, tx.written());
        name_read(&mut event, &also);
        let row = self.row(event, tx.written(), covers(&also))?;
        let hashes = tx.written().to_vec();
        let receipt = tx.commit(row).await?;
        let also = self.open(&receipt, also).await?;
        Ok((release(written, &hashes)?, also))
    }

    /// Records an event that lets no content out: refusals, counts, searches without hits, server events.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry could not be written.
    pub async fn record(&self, event: Event) -> Result<Receipt> {
        let row = self.row(event, &[], Vec::new())?;
        self.store.append(row).await.map_err(not_recorded)
    }

    /// Records what the server itself does, under the name of a task: start and stop, administration.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry could not be written.
    pub async fn record_task(&self, what: What, task: &'static str, detail: Vec<(String, String)>) -> Result<Receipt> {
        let who = Caller::task(task).who().clone();
        let event = Event::new(self.world.now(), what, Request::default());
        self.record(Event { who: Some(who), detail, ..event }).await
    }

    /// Commits resources that were gone through for a search parameter, together with an entry that says how many of
    /// which parameter. Nothing of them is let out.
    ///
    /// # Errors
    /// `Kind::Conflict` when they were written meanwhile: nothing is kept.
    pub async fn reindex(&self, event: Event, done: Reindexed) -> Result<()> {
        let row = self.row(event, &[], Vec::new())?;
        done.commit(row).await
    }

    /// The entry, ready to be sealed and written. The event ends here: that of a large transaction is large, and is not to
    /// wait for the commit.
    fn row(&self, event: Event, written: &[WrittenHash], covers: Vec<(Rid, u32)>) -> Result<AuditRow> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().audit {
            return Ok(AuditRow::none(event.at, covers));
        }
        let written: Vec<_> = written.iter().map(|row| (row.rid, row.version, row.sha256)).collect();
        let (at, month) = (event.at, month(event.at));
        let entry = Entry::new(&event, &written);
        let terms = terms(&entry, &self.vault, month);
        Ok(AuditRow { at, month, entry: entry.canonical()?, terms, covers })
    }

    /// Opens against the receipt; all keys are fetched at once.
    async fn open(&self, receipt: &Receipt, sealed: Vec<Sealed>) -> Result<Vec<Released>> {
        let pks: Vec<Pk> = sealed.iter().map(|one| one.pk).collect();
        self.vault.keys(&pks).await?;
        let mut released = Vec::with_capacity(sealed.len());
        for one in sealed {
            let bytes = if one.deleted { Zeroizing::default() } else { one.open(receipt, &self.vault).await? };
            released.push(Released {
                bytes,
                kind: one.header.kind,
                version: one.header.version,
                last_updated: one.header.last_updated,
                deleted: one.deleted,
                id: one.header.id,
                patients: one.header.patients,
            });
        }
        Ok(released)
    }
}

/// Whatever kept the entry from being written: the client is told that, and gets nothing.
fn not_recorded(error: Error) -> Error {
    if error.kind == Kind::Audit {
        return error;
    }
    Error::new(Kind::Audit, "The access could not be put on record; nothing is released.").caused_by(error)
}

fn covers(sealed: &[Sealed]) -> Vec<(Rid, u32)> {
    sealed.iter().map(|one| (one.rid, one.header.version)).collect()
}

/// Adds what is let out. Within a bundle it was read.
fn name_read(event: &mut Event, sealed: &[Sealed]) {
    let what = match event.what {
        What::Batch | What::Transaction | What::Create | What::Update | What::Patch | What::Delete => What::Read,
        other => other,
    };
    let touches = sealed.iter().map(|one| Touched {
        kind: one.header.kind,
        id: one.header.id.clone(),
        version: Some(one.header.version),
        patients: one.header.patients.clone(),
        what,
    });
    name(event, touches);
}

/// Adds what is written.
fn name_written(event: &mut Event, written: &[WrittenHash]) {
    let whole = event.what;
    let touches = written.iter().map(|one| Touched {
        kind: one.kind,
        id: one.id.clone(),
        version: Some(one.version),
        patients: one.patients.clone(),
        what: match whole {
            _ if one.deleted => What::Delete,
            _ if one.version == 1 => What::Create,
            What::Patch => What::Patch,
            _ => What::Update,
        },
    });
    name(event, touches);
}

/// Adds what the event itself does not name already, as the caller of this room may.
fn name(event: &mut Event, mut touches: impl ExactSizeIterator<Item = Touched>) {
    if event.touched.is_empty() && touches.len() == 1 {
        // By far the most frequent.
        event.touched.extend(touches.next());
        return;
    }
    let key = |touch: &Touched| (touch.kind, touch.id.clone(), touch.version);
    let mut named: HashSet<_> = event.touched.iter().map(key).collect();
    event.touched.extend(touches.filter(|touch| named.insert(key(touch))));
}

/// What was just written, given back as it was handed to the store.
///
/// # Errors
/// `Kind::Internal` for a resource that the transaction did not write: nothing else is let out here.
fn release(written: Vec<Resource>, hashes: &[WrittenHash]) -> Result<Vec<Released>> {
    // Of several versions of one resource the last stands.
    let rows: HashMap<(TypeId, &str), &WrittenHash> =
        hashes.iter().map(|row| ((row.kind, row.id.as_str()), row)).collect();
    let released = written.into_iter().map(|resource| {
        let id = resource.id().unwrap_or_default().to_owned();
        let row = *rows
            .get(&(resource.kind(), id.as_str()))
            .ok_or_else(|| Error::internal("a resource was to be given back that the transaction did not write"))?;
        let stamp = resource.node().pointer("/meta/lastUpdated").and_then(json::Node::as_str);
        let stamp = stamp.and_then(|stamp| stamp.parse::<jiff::Timestamp>().ok());
        let last_updated = stamp.ok_or_else(|| Error::internal("a resource was written without its stamp"))?;
        Ok(Released {
            bytes: Zeroizing::new(json::write(resource.node())),
            kind: resource.kind(),
            id,
            version: row.version,
            patients: row.patients.clone(),
            last_updated: Instant(last_updated.as_millisecond()),
            deleted: false,
        })
    });
    released.collect()
}

//! The trail: appends entries, lets content out, reads entries back.

use std::sync::Arc;

use super::entry::Event;
use super::release::Released;
use crate::error::Result;
use crate::fhir::Resource;
use crate::store::{Receipt, Sealed, Store, Tx};
use crate::vault::Vault;
use crate::world::World;

/// Appends entries and lets content out. Clones are cheap.
#[derive(Clone)]
pub struct Trail {
    _store: Store,
    _vault: Vault,
    _world: Arc<World>,
}

impl Trail {
    pub fn new(store: Store, vault: Vault, world: Arc<World>) -> Trail {
        Trail { _store: store, _vault: vault, _world: world }
    }

    /// Records the event with everything in `sealed` as touched, waits until that is durable, then opens.
    /// The order of the result is that of `sealed`.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry could not be written: nothing is opened.
    pub async fn disclose(&self, _event: Event, _sealed: Vec<Sealed>) -> Result<Vec<Released>> {
        todo!()
    }

    /// Commits a write together with its entry; gives back `written` (the resources as stored) and what is let out
    /// with them (`also`, for bundles that read).
    pub async fn commit(
        &self,
        _event: Event,
        _tx: Tx,
        _written: Vec<Resource>,
        _also: Vec<Sealed>,
    ) -> Result<(Vec<Released>, Vec<Released>)> {
        todo!()
    }

    /// Records an event that lets no content out: refusals, counts, searches without hits, server events.
    pub async fn record(&self, _event: Event) -> Result<Receipt> {
        todo!()
    }
}

//! Answers that wait for their caller. What such an answer holds was released when it was made; until it is fetched it
//! lies sealed, and it leaves only after another entry says so.

use super::entry::Event;
use super::{Released, Trail};
use crate::error::Result;
use crate::fhir::TypeId;
use crate::vault::SystemKey;
use crate::world::Instant;

impl Trail {
    /// Seals an answer for its later caller. `name` binds it to its place.
    pub async fn keep(&self, name: &[u8], answer: &[u8]) -> Result<Vec<u8>> {
        self.vault.seal_system(SystemKey::Secret, &place(name), answer).await
    }

    /// Records that a kept answer leaves (the event names what it holds), waits until that is durable, then opens it.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry could not be written: nothing is opened. `Kind::Tampered` when it does not verify.
    pub async fn hand_out(&self, event: Event, name: &[u8], sealed: &[u8], kind: TypeId) -> Result<Released> {
        let at: Instant = event.at;
        self.record(event).await?;
        let bytes = self.vault.open_system(SystemKey::Secret, &place(name), sealed).await?;
        let (id, patients) = (String::new(), Vec::new());
        Ok(Released { bytes, kind, id, version: 1, last_updated: at, deleted: false, patients })
    }
}

fn place(name: &[u8]) -> Vec<u8> {
    [b"kept-answer:".as_slice(), name].concat()
}

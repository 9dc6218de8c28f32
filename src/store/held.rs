//! Segments of one lane that are durable in its journal and not in the database yet. Moving many at once spares each a
//! transaction, and readers of SQLite lose the pages that they keep in memory with each transaction of others.
//! On PostgreSQL, and for a database without a file, nothing is ever held.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::chain::{self, Appended, Chain, Link};
use super::db::{Conn, Db, Fault};
use super::journal::Journal;
use crate::world::Stopwatch;

/// Bytes that are held at most before they are moved although the lane is busy: some milliseconds of work.
const BYTES_MAX: usize = 1 << 20;
/// How long a segment is held at most, and how long nothing is tried again after a failure.
const AGE_MAX: Duration = Duration::from_millis(250);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What one lane holds.
pub struct Held {
    /// None: nothing may be held.
    database: Option<PathBuf>,
    instance: i64,
    journal: Option<Journal>,
    links: Vec<Link>,
    /// Older than those, on their way into the database.
    lent: Option<Arc<Vec<Link>>>,
    bytes: usize,
    /// Since when the oldest link is held, or the last move has failed.
    since: Stopwatch,
    /// They could not be moved: nothing is added until they are.
    stuck: bool,
}

impl Held {
    pub fn new(db: &Db, instance: i64) -> Held {
        let (database, since) = (db.file(), Stopwatch::start());
        Held { database, instance, journal: None, links: Vec::new(), lent: None, bytes: 0, since, stuck: false }
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether accesses may be added.
    pub fn is_open(&self) -> bool {
        self.database.is_some() && !self.stuck
    }

    /// Adds links of accesses; they are durable then. False when they have to go another way: some of them may be in
    /// the journal all the same, for the next start to find if the other way fails too.
    pub async fn add(&mut self, links: Vec<Link>) -> bool {
        match self.write(&links).await {
            Ok(true) => {
                if self.links.is_empty() {
                    self.since = Stopwatch::start();
                }
                self.bytes += links.iter().map(Link::bytes).sum::<usize>();
                self.links.extend(links);
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, "the journal of audit entries cannot be written; they go into the database");
                false
            }
        }
    }

    async fn write(&mut self, links: &[Link]) -> std::io::Result<bool> {
        let Some(database) = &self.database else { return Ok(false) };
        if self.journal.is_none() {
            self.journal = Some(Journal::create(database.clone(), self.instance).await?);
        }
        let Some(journal) = &mut self.journal else { return Ok(false) };
        journal.write(links).await
    }

    /// How long the lane waits, when idle, before it moves them.
    pub fn pause(&self) -> Duration {
        let whole = if self.stuck { AFTER_FAILURE } else { AGE_MAX };
        whole.saturating_sub(self.since.elapsed())
    }

    /// Whether they are moved between the commits of a busy lane.
    pub fn presses(&self) -> bool {
        !self.links.is_empty() && (self.bytes >= BYTES_MAX && !self.stuck || self.pause().is_zero())
    }

    /// Inserts them inside the open transaction; gives what is to be indexed.
    pub async fn insert(&self, conn: &mut Conn) -> Result<Vec<Appended>, Fault> {
        chain::insert(conn, &self.links).await
    }

    /// Gives them all to be moved, while others come in; until [`Held::settled`] or [`Held::failed`].
    pub fn lend(&mut self) -> Arc<Vec<Link>> {
        let links = Arc::new(std::mem::take(&mut self.links));
        self.bytes = 0;
        self.lent = Some(links.clone());
        if let Some(journal) = &mut self.journal {
            journal.turn();
        }
        links
    }

    /// What was lent is in the database, or, when nothing was, everything.
    pub fn settled(&mut self) {
        self.stuck = false;
        if self.lent.take().is_none() {
            self.links.clear();
            self.bytes = 0;
            if let Some(journal) = &mut self.journal {
                journal.rewind();
            }
        }
    }

    /// The transaction failed: until one succeeds nothing more is held, so that requests are refused rather than
    /// answered on entries that the database does not take.
    pub fn failed(&mut self) {
        if let Some(lent) = self.lent.take() {
            let newer = std::mem::replace(&mut self.links, Arc::unwrap_or_clone(lent));
            self.links.extend(newer);
        }
        self.stuck = !self.links.is_empty();
        self.since = Stopwatch::start();
    }

    /// Where the chain goes on, after it was read from a database that has perhaps taken what is held here.
    pub fn resume(&mut self, chain: Chain) -> Chain {
        self.links.retain(|link| !chain.has(link));
        let Some(last) = self.links.last() else {
            self.settled();
            return chain;
        };
        Chain::after(last)
    }

    /// The lane ends.
    pub fn close(&mut self) {
        if let (true, Some(journal)) = (self.links.is_empty(), self.journal.take()) {
            journal.remove();
        }
    }
}

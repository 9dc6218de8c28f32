//! The way of audit terms into their index. A term falls anywhere in the index, so each that goes there alone costs a
//! page; many in their order share pages. So a lane keeps the terms of what it committed until there are many, sorts
//! them aside, and moves them in slices between commits, none of which keeps a request waiting for long. Until the last
//! slice is in, the segments stand in `audit_pending`, where searches look too and from where the next start takes
//! what a server left behind: nothing depends on what is in memory here.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::chain::{Appended, pending};
use super::db::{Conn, Fault, Param};
use super::dialect;
use crate::error::Error;

/// Terms that wait at most before they are moved although the lane is busy: searches read through all of them.
const WAITING_MAX: usize = 256 * 1024;
/// Terms of one slice: one to three milliseconds.
const SLICE: usize = 1024;
/// Segments that are taken over at once.
const TAKEN_OVER: i64 = 256;
/// How long a lane has to be idle before it turns to this work, between two pieces of it, and after one that failed.
const IDLE: Duration = Duration::from_millis(200);
const BETWEEN: Duration = Duration::from_millis(2);
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What one lane has yet to index.
pub struct Backlog {
    /// (term, segment) of what was committed, in no order.
    waiting: Vec<(i64, i64)>,
    segments: Vec<i64>,
    moving: Moving,
    /// Segments up to this number are in `audit_pending` and not here: of servers that ended, or after a failure.
    left: Option<i64>,
    failed: bool,
}

enum Moving {
    Nothing,
    Sorting(JoinHandle<Sorted>),
    Slices(Sorted, usize),
}

/// Terms in order, and the segments that they are of.
struct Sorted {
    terms: Vec<(i64, i64)>,
    segments: Vec<i64>,
}

impl Backlog {
    /// `adopts`: this lane also moves what servers before left.
    pub fn new(adopts: bool) -> Backlog {
        let left = adopts.then_some(i64::MAX);
        Backlog { waiting: Vec::new(), segments: Vec::new(), moving: Moving::Nothing, left, failed: false }
    }

    /// Adds what was just committed.
    pub fn add(&mut self, committed: Vec<Appended>) {
        for (n, terms) in committed {
            self.waiting.extend(terms.iter().map(|term| (*term, n)));
            self.segments.push(n);
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.has_own() && self.left.is_none()
    }

    /// Whether something of this lane's own commits is to be done.
    pub fn has_own(&self) -> bool {
        !self.segments.is_empty() || self.is_moving()
    }

    fn is_moving(&self) -> bool {
        !matches!(self.moving, Moving::Nothing)
    }

    /// How long the lane has to be idle before the next step.
    pub fn pause(&self) -> Duration {
        match (self.failed, self.is_moving()) {
            (true, _) => AFTER_FAILURE,
            (_, true) => BETWEEN,
            _ => IDLE,
        }
    }

    /// Whether there is so much that it is moved between the commits of a busy lane.
    pub fn presses(&self) -> bool {
        match &self.moving {
            Moving::Nothing => self.waiting.len() >= WAITING_MAX,
            Moving::Sorting(task) => task.is_finished(),
            Moving::Slices(..) => true,
        }
    }

    /// Small enough to be moved before the server ends.
    pub fn is_small(&self) -> bool {
        !self.is_moving() && self.waiting.len() <= SLICE
    }

    /// Does the next piece of work, in a transaction of its own.
    pub async fn step(&mut self, conn: &mut Conn) -> Result<(), Fault> {
        match std::mem::replace(&mut self.moving, Moving::Nothing) {
            Moving::Nothing if !self.segments.is_empty() => {
                let terms = std::mem::take(&mut self.waiting);
                let segments = std::mem::take(&mut self.segments);
                let task = tokio::task::spawn_blocking(move || Sorted::of(terms, segments));
                self.moving = Moving::Sorting(task);
            }
            Moving::Nothing => self.take_over(conn).await?,
            Moving::Sorting(task) => {
                let sorted = task.await.map_err(|e| Fault::Sealing(Error::internal(e)))?;
                self.moving = Moving::Slices(sorted, 0);
            }
            Moving::Slices(sorted, done) => {
                let until = sorted.terms.len().min(done + SLICE);
                let slice = &sorted.terms[done..until];
                if until < sorted.terms.len() {
                    dialect::index_audit(conn, slice, &[]).await?;
                    self.moving = Moving::Slices(sorted, until);
                } else {
                    dialect::index_audit(conn, slice, &sorted.segments).await?;
                }
            }
        }
        self.failed = false;
        Ok(())
    }

    /// After a failure: everything is in the database still, and is taken over from there when there is time.
    pub fn forget(&mut self) {
        self.waiting = Vec::new();
        self.segments = Vec::new();
        self.moving = Moving::Nothing;
        self.left = Some(i64::MAX);
        self.failed = true;
    }

    /// Reads some of what was left in the database.
    async fn take_over(&mut self, conn: &mut Conn) -> Result<(), Fault> {
        let Some(until) = self.left else { return Ok(()) };
        let until = match until {
            // What other servers add from now on is theirs.
            i64::MAX => {
                let rows = conn.rows("select coalesce(max(n), -1) from audit_pending", Vec::new()).await?;
                rows.first().map_or(Ok(-1), |row| row.int(0))?
            }
            until => until,
        };
        let sql = "select n, terms from audit_pending where n <= $1 order by n limit $2";
        let rows = conn.rows(sql, vec![Param::Int(until), Param::Int(TAKEN_OVER)]).await?;
        let taken = rows.iter().map(pending).collect::<Result<Vec<_>, _>>()?;
        self.left = (!taken.is_empty()).then_some(until);
        let segments = taken.iter().map(|(n, _)| *n).collect();
        let terms = taken.into_iter().flat_map(|(n, terms)| terms.into_iter().map(move |term| (term, n)));
        if self.left.is_some() {
            self.moving = Moving::Slices(Sorted::of(terms.collect(), segments), 0);
        }
        Ok(())
    }
}

impl Sorted {
    fn of(mut terms: Vec<(i64, i64)>, segments: Vec<i64>) -> Sorted {
        terms.sort_unstable();
        terms.dedup();
        Sorted { terms, segments }
    }
}

//! The jobs of one commit: what a lane is asked to do, applied in one transaction, and what each is told afterwards.

use tokio::sync::oneshot;

use super::apply::{Refusal, WriteSet};
use super::chain::{Appended, Chain};
use super::custom;
use super::db::{Conn, Fault};
use super::held::Held;
use super::premise::Premise;
use super::refer;
use super::small::{Small, SmallAnswer};
use super::{AuditRow, Receipt};
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;

/// What a lane is asked to do.
pub enum Work {
    /// A write and its audit entry: both or neither.
    Write(Box<WriteSet>, AuditRow),
    Append(AuditRow),
    Small(Small),
    /// That the database holds every entry that was appended before.
    Settle,
}

/// What came of it.
pub enum Answer {
    Receipt(Receipt),
    Small(SmallAnswer),
    Settled,
}

/// Work, and whom to tell.
pub struct Job {
    pub work: Work,
    pub done: oneshot::Sender<Result<Answer>>,
}

/// The jobs of one commit, with what is known of each.
pub struct Batch {
    pub jobs: Vec<Job>,
    outcomes: Vec<Option<Result<Answer>>>,
}

impl Batch {
    pub fn new(jobs: Vec<Job>) -> Batch {
        let outcomes = jobs.iter().map(|_| None).collect();
        Batch { jobs, outcomes }
    }

    fn writes(&self) -> impl Iterator<Item = &WriteSet> {
        self.jobs.iter().filter_map(|job| match &job.work {
            Work::Write(set, _) => Some(&**set),
            Work::Append(_) | Work::Small(_) | Work::Settle => None,
        })
    }

    /// Rows of `record` that the writes of this batch put.
    pub fn records(&self) -> usize {
        self.writes().map(|set| set.records.len()).sum()
    }

    /// Nothing but audit entries.
    pub fn is_of_entries(&self) -> bool {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().audit {
            return false;
        }
        !self.jobs.is_empty() && self.jobs.iter().all(|job| matches!(job.work, Work::Append(_)))
    }

    /// The entries of the jobs that stand.
    pub fn rows(&self) -> Vec<&AuditRow> {
        let kept = self.jobs.iter().zip(&self.outcomes).filter(|(_, outcome)| outcome.is_none());
        kept.filter_map(|(job, _)| job.work.audit_row()).collect()
    }

    /// The epoch of search parameters that writes must have been sealed under. Other transactions cannot change it any
    /// more; batches without writes need none.
    async fn epoch(&self, conn: &mut Conn) -> Result<i64, Fault> {
        match self.writes().map(WriteSet::begins_epoch).reduce(|a, b| a || b) {
            Some(alone) => custom::lock_epoch(conn, alone).await,
            None => Ok(0),
        }
    }

    pub fn forget(&mut self) {
        self.outcomes.fill_with(|| None);
    }

    /// Inserts what is held, then applies every job; those whose preconditions do not hold are undone and noted, the
    /// others get their audit entries in one go. Gives the segments and their terms, to be indexed.
    pub async fn apply(
        &mut self,
        conn: &mut Conn,
        chain: &mut Chain,
        vault: &Vault,
        held: &Held,
    ) -> Result<Vec<Appended>, Fault> {
        let mut appended = held.insert(conn).await?;
        // A job alone needs no savepoint: the transaction is its own.
        let shared = self.jobs.len() > 1 || !held.is_empty();
        let premises = self.writes().flat_map(|set| &set.premises);
        Premise::lock(conn, premises.filter_map(Premise::locks).collect()).await?;
        refer::lock(conn, self.writes()).await?;
        let mut standing = refer::Standing::read(conn, self.writes()).await?;
        let mut epoch = self.epoch(conn).await?;
        for (job, outcome) in self.jobs.iter().zip(&mut self.outcomes) {
            match &job.work {
                Work::Append(_) => {}
                Work::Settle => *outcome = Some(Ok(Answer::Settled)),
                Work::Small(small) => {
                    protect(conn, shared).await?;
                    match small.run(conn).await {
                        Ok(answer) => {
                            keep(conn, shared).await?;
                            *outcome = Some(Ok(Answer::Small(answer)));
                        }
                        Err(fault @ (Fault::Other(_) | Fault::Shape(_))) => {
                            undo(conn, shared).await?;
                            *outcome = Some(Err(fault.into()));
                        }
                        Err(fault) => return Err(fault),
                    }
                }
                Work::Write(set, _) if set.epoch != epoch => *outcome = Some(Err(custom::stale())),
                Work::Write(set, _) => {
                    protect(conn, shared).await?;
                    match set.apply(conn, &mut standing).await {
                        Ok(()) => {
                            keep(conn, shared).await?;
                            epoch += set.parameters.iter().filter(|change| change.begins_epoch()).count() as i64;
                        }
                        Err(Refusal::Conflict(error)) => {
                            undo(conn, shared).await?;
                            *outcome = Some(Err(error));
                        }
                        Err(Refusal::Fault(fault @ Fault::Other(_))) => {
                            undo(conn, shared).await?;
                            *outcome = Some(Err(fault.into()));
                        }
                        Err(Refusal::Fault(fault)) => return Err(fault),
                    }
                }
            }
        }
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().audit {
            return Ok(appended);
        }
        appended.extend(chain.append(conn, vault, &self.rows()).await?);
        Ok(appended)
    }

    /// After the commit.
    pub fn answer(self) {
        for (job, outcome) in self.jobs.into_iter().zip(self.outcomes) {
            let answer = outcome.unwrap_or_else(|| match job.work {
                Work::Write(set, row) => Ok(Answer::Receipt(Receipt::of(row, &set))),
                Work::Append(row) => Ok(Answer::Receipt(Receipt::of(row, &WriteSet::default()))),
                Work::Small(_) | Work::Settle => Err(Error::internal("a small change without an answer")),
            });
            // Nobody listens any more when the request was given up; the work stands all the same.
            let _ = job.done.send(answer);
        }
    }

    /// Nothing of it may be taken as done.
    pub fn fail(self, fault: Fault) {
        let error = Error::from(fault);
        tracing::error!(kind = ?error.kind, cause = error.cause().map(tracing::field::display), "a commit failed");
        for job in self.jobs {
            let error = match job.work {
                Work::Append(_) => {
                    Error::new(Kind::Audit, "The audit entry could not be made durable; nothing is released.")
                }
                Work::Write(..) | Work::Small(_) | Work::Settle => {
                    Error::new(Kind::Unavailable, "The database did not confirm the change; read before you try again.")
                }
            };
            let _ = job.done.send(Err(error));
        }
    }
}

async fn protect(conn: &mut Conn, shared: bool) -> Result<(), Fault> {
    if shared { conn.run("savepoint one", Vec::new()).await.map(drop) } else { Ok(()) }
}

async fn keep(conn: &mut Conn, shared: bool) -> Result<(), Fault> {
    if shared { conn.run("release savepoint one", Vec::new()).await.map(drop) } else { Ok(()) }
}

async fn undo(conn: &mut Conn, shared: bool) -> Result<(), Fault> {
    if shared {
        conn.run("rollback to savepoint one", Vec::new()).await?;
        return conn.run("release savepoint one", Vec::new()).await.map(drop);
    }
    conn.rollback().await?;
    conn.begin().await
}

impl Work {
    pub fn bytes(&self) -> usize {
        match self {
            Work::Write(set, row) => set.bytes() + row.entry.len(),
            Work::Append(row) => row.entry.len(),
            Work::Small(_) | Work::Settle => 64,
        }
    }

    fn audit_row(&self) -> Option<&AuditRow> {
        match self {
            Work::Write(_, row) | Work::Append(row) => Some(row),
            Work::Small(_) | Work::Settle => None,
        }
    }
}

impl Receipt {
    /// Only a lane makes one, after its commit.
    fn of(row: AuditRow, set: &WriteSet) -> Receipt {
        let mut covers = row.covers;
        covers.extend(set.versions.iter().map(|version| (version.rid, version.ver)));
        Receipt { covers, at: row.at }
    }
}

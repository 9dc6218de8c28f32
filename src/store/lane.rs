//! The writers. A lane is one task with one connection and one audit chain: it takes what is queued, applies it in one
//! database transaction (a savepoint per write), commits, and only then answers. So one disk flush serves many
//! requests, and nobody is told of anything that is not durable.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::apply::{Refusal, WriteSet};
use super::backlog::Backlog;
use super::chain::{Appended, Chain};
use super::custom;
use super::db::{Conn, Db, Fault, Use};
use super::gather::gather;
use super::growth::Growth;
use super::premise::Premise;
use super::refer;
use super::small::{Small, SmallAnswer};
use super::{AuditRow, Receipt};
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::world::Stopwatch;

/// What a lane is asked to do.
pub enum Work {
    /// A write and its audit entry: both or neither.
    Write(Box<WriteSet>, AuditRow),
    Append(AuditRow),
    Small(Small),
}

/// What came of it.
pub enum Answer {
    Receipt(Receipt),
    Small(SmallAnswer),
}

struct Job {
    work: Work,
    done: oneshot::Sender<Result<Answer>>,
}

/// The lanes of one server.
pub struct Lanes {
    senders: Vec<mpsc::Sender<Job>>,
    closing: tokio::sync::watch::Sender<bool>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    turn: std::sync::atomic::AtomicUsize,
}

const QUEUE_MAX: usize = 4096;
/// Jobs and bytes of one commit.
const BATCH_JOBS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// After so long without work the lane gives memory back.
const QUIET: std::time::Duration = std::time::Duration::from_secs(10);
/// How often work that met a deadlock is done again, alone.
const RETRIES_MAX: usize = 5;

/// How many lanes a database is given of those asked for: SQLite has one writer.
pub fn count(db: &Db, asked: u32) -> u32 {
    if db.is_postgres() { asked.max(1) } else { 1 }
}

impl Lanes {
    /// Starts so many lanes of this instance (see [`count`]).
    pub fn start(db: &Db, vault: &Vault, instance: i64, count: u32) -> Lanes {
        let (closing, watch) = tokio::sync::watch::channel(false);
        let growth = Arc::new(Growth::new());
        let mut senders = Vec::new();
        let mut tasks = Vec::new();
        for lane in 0..count {
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            let (db, vault, growth) = (db.clone(), vault.clone(), growth.clone());
            let lane = Lane {
                db,
                vault,
                instance,
                lane,
                queue,
                open: None,
                growth,
                backlog: Backlog::new(lane == 0),
                busy: false,
            };
            senders.push(sender);
            tasks.push(tokio::spawn(lane.run(watch.clone())));
        }
        Lanes { senders, closing, tasks: std::sync::Mutex::new(tasks), turn: std::sync::atomic::AtomicUsize::new(0) }
    }

    /// Queues work and waits until it is durable or refused.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the queue is full or the store is closing; `Kind::Conflict` when a precondition does
    /// not hold; for audit entries that could not be written `Kind::Audit`.
    pub async fn submit(&self, work: Work) -> Result<Answer> {
        let audited = matches!(work, Work::Append(_));
        let refuse = || {
            let kind = if audited { Kind::Audit } else { Kind::Unavailable };
            Error::new(kind, "The server is too busy or shutting down; nothing was done. Try again.")
        };
        if *self.closing.borrow() {
            return Err(refuse());
        }
        let (done, answer) = oneshot::channel();
        let sender = &self.senders[self.lane_of(&work)];
        sender.try_send(Job { work, done }).map_err(|_| refuse())?;
        answer.await.map_err(|_| refuse())?
    }

    /// Finishes what is queued, then ends the lanes.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a writer lane ended in a panic");
            }
        }
    }

    /// Writes to one resource meet in one lane, where they queue instead of blocking each other in the database; so do
    /// small changes. Pure audit entries take turns.
    fn lane_of(&self, work: &Work) -> usize {
        let number = match work {
            // Writes that rest on conditions of one type queue here instead of waiting for its lock.
            Work::Write(set, _) => match set.premises.iter().find_map(Premise::locks) {
                Some(kind) => usize::from(kind),
                None => set.records.first().map_or(0, |row| usize::from(row.id_token[0])),
            },
            Work::Small(_) => 0,
            Work::Append(_) => self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        };
        number % self.senders.len()
    }
}

struct Lane {
    db: Db,
    vault: Vault,
    instance: i64,
    lane: u32,
    queue: mpsc::Receiver<Job>,
    /// None: to be connected, and the chain to be read, before the next batch.
    open: Option<(Conn, Chain)>,
    growth: Arc<Growth>,
    /// Terms of segments that are not in the index yet.
    backlog: Backlog,
    /// Something was done since it last rested.
    busy: bool,
}

/// The jobs of one commit, with what is known of each.
struct Batch {
    jobs: Vec<Job>,
    outcomes: Vec<Option<Result<Answer>>>,
}

/// Why a whole batch failed.
struct Failed {
    fault: Fault,
    /// Nothing can have been kept.
    undone: bool,
}

impl Lane {
    async fn run(mut self, mut closing: tokio::sync::watch::Receiver<bool>) {
        loop {
            let first = tokio::select! {
                biased;
                job = self.queue.recv() => job,
                _ = closing.changed() => {
                    self.queue.close();
                    self.queue.recv().await
                }
                () = tokio::time::sleep(self.backlog.pause()), if !self.backlog.is_empty() => {
                    self.index().await;
                    continue;
                }
                () = tokio::time::sleep(QUIET), if self.busy => {
                    self.rest().await;
                    continue;
                }
            };
            let Some(first) = first else { break };
            self.busy = true;
            // Those who were answered just now get turns to queue again: a commit costs the same for one and for many.
            gather(&self.queue).await;
            let jobs = self.drain(first);
            self.serve(jobs).await;
            if self.backlog.presses() {
                self.index().await;
            }
        }
        // More is left to the next start.
        if self.backlog.is_small() {
            while self.backlog.has_own() && self.index().await {}
        }
        if let Some((conn, _)) = self.open.take() {
            conn.close().await;
        }
    }

    /// Nobody has written for a while: the pages in memory are given back.
    async fn rest(&mut self) {
        self.busy = false;
        if let Some((conn, _)) = &mut self.open
            && conn.forget_pages().await.is_err()
        {
            self.reset().await;
        }
    }

    /// A piece of the work on the index of the trail; false when it failed. What cannot be moved now is tried again
    /// later; searches look at it where it waits.
    async fn index(&mut self) -> bool {
        let done = match (self.connect().await, &mut self.open) {
            (Err(fault), _) => Err(fault),
            (Ok(()), Some((conn, _))) => self.backlog.step(conn).await,
            (Ok(()), None) => Ok(()),
        };
        let Err(fault) = done else { return true };
        tracing::warn!(cause = %Error::from(fault), "terms of audit entries could not be moved into their index");
        self.backlog.forget();
        self.reset().await;
        false
    }

    /// Everything that is queued already, up to the limits: no timer, so an idle server answers at once.
    fn drain(&mut self, first: Job) -> Vec<Job> {
        let mut bytes = first.work.bytes();
        let mut jobs = vec![first];
        while jobs.len() < BATCH_JOBS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(job) = self.queue.try_recv() else { break };
            bytes += job.work.bytes();
            jobs.push(job);
        }
        jobs
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        metrics::histogram!("phial_lane_batch_jobs").record(jobs.len() as f64);
        let started = Stopwatch::start();
        let mut batch = Batch::new(jobs);
        match self.commit(&mut batch).await {
            Ok(()) => batch.answer(),
            Err(failed) if failed.fault.may_retry() => self.serve_alone(batch).await,
            // The connection died before anything was committed: once more on a new one.
            Err(failed) if failed.undone && failed.fault.is_lost() => match self.commit(&mut batch).await {
                Ok(()) => batch.answer(),
                Err(failed) => batch.fail(failed.fault),
            },
            Err(failed) => batch.fail(failed.fault),
        }
        metrics::histogram!("phial_lane_commit_seconds").record(started.elapsed().as_secs_f64());
    }

    /// After a deadlock: each job in a transaction of its own, which holds few rows.
    async fn serve_alone(&mut self, batch: Batch) {
        for job in batch.jobs {
            let mut alone = Batch::new(vec![job]);
            let mut attempt = 1;
            let done = loop {
                match self.commit(&mut alone).await {
                    Err(failed) if failed.fault.may_retry() && attempt < RETRIES_MAX => attempt += 1,
                    done => break done,
                }
            };
            match done {
                Ok(()) => alone.answer(),
                Err(failed) => alone.fail(failed.fault),
            }
        }
    }

    /// One transaction. On any failure the chain goes back to where it was.
    async fn commit(&mut self, batch: &mut Batch) -> Result<(), Failed> {
        batch.forget();
        if batch.is_of_entries() && self.append_at_once(batch).await? {
            return Ok(());
        }
        self.begin().await.map_err(|fault| Failed { fault, undone: true })?;
        let Some((conn, chain)) = self.open.as_mut() else {
            return Err(Failed { fault: Fault::Lost(sqlx::Error::WorkerCrashed), undone: true });
        };
        let before = chain.clone();
        match batch.apply(conn, chain, &self.vault).await {
            Ok(appended) => {
                let Err(fault) = conn.commit().await else {
                    self.backlog.add(appended);
                    self.growth.add(&self.db, batch.records());
                    return Ok(());
                };
                // Whether it was kept is not known: the chain is read again from what is there.
                self.reset().await;
                Err(Failed { fault, undone: false })
            }
            Err(fault) => {
                *chain = before;
                if conn.rollback().await.is_err() {
                    self.reset().await;
                }
                Err(Failed { fault, undone: true })
            }
        }
    }

    /// Accesses alone, the most frequent batch by far: one exchange with the database. False when they do not fit one
    /// segment, or the connection was dead: entries that it kept all the same then stand twice, which is better than an
    /// access without any.
    async fn append_at_once(&mut self, batch: &Batch) -> Result<bool, Failed> {
        let failed = |fault| Failed { fault, undone: true };
        self.connect().await.map_err(failed)?;
        let Some((conn, chain)) = self.open.as_mut() else { return Ok(false) };
        match chain.append_at_once(conn, &self.vault, &batch.rows()).await {
            Ok(Some(appended)) => {
                self.backlog.add(vec![appended]);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(fault) => {
                // Whether it was kept is not known: the chain is read again from what is there.
                self.reset().await;
                if fault.is_lost() { Ok(false) } else { Err(Failed { fault, undone: false }) }
            }
        }
    }

    /// An open transaction on a live connection; a connection that died while idle is replaced once.
    async fn begin(&mut self) -> Result<(), Fault> {
        if let Some((conn, _)) = self.open.as_mut() {
            match conn.begin().await {
                Err(Fault::Lost(_)) => self.reset().await,
                done => return done,
            }
        }
        self.connect().await?;
        let Some((conn, _)) = self.open.as_mut() else { return Err(Fault::Lost(sqlx::Error::WorkerCrashed)) };
        conn.begin().await
    }

    /// Sees to it that this lane has its connection and knows where its chain stands.
    async fn connect(&mut self) -> Result<(), Fault> {
        if self.open.is_none() {
            let mut conn = self.db.connect_for(Use::Keyed).await?;
            let chain = Chain::load(&mut conn, self.instance, self.lane).await?;
            self.open = Some((conn, chain));
        }
        Ok(())
    }

    async fn reset(&mut self) {
        if let Some((conn, _)) = self.open.take() {
            conn.close().await;
        }
    }
}

impl Batch {
    fn new(jobs: Vec<Job>) -> Batch {
        let outcomes = jobs.iter().map(|_| None).collect();
        Batch { jobs, outcomes }
    }

    /// Rows of `record` that the writes of this batch put.
    fn records(&self) -> usize {
        let of = |job: &Job| match &job.work {
            Work::Write(set, _) => set.records.len(),
            Work::Append(_) | Work::Small(_) => 0,
        };
        self.jobs.iter().map(of).sum()
    }

    /// Nothing but audit entries.
    fn is_of_entries(&self) -> bool {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().audit {
            return false;
        }
        self.jobs.iter().all(|job| matches!(job.work, Work::Append(_)))
    }

    /// The entries of the jobs that stand.
    fn rows(&self) -> Vec<&AuditRow> {
        let kept = self.jobs.iter().zip(&self.outcomes).filter(|(_, outcome)| outcome.is_none());
        kept.filter_map(|(job, _)| job.work.audit_row()).collect()
    }

    /// The epoch of search parameters that writes must have been sealed under. Other transactions cannot change it any
    /// more; batches without writes need none.
    async fn epoch(&self, conn: &mut Conn) -> Result<i64, Fault> {
        let sets = self.jobs.iter().filter_map(|job| match &job.work {
            Work::Write(set, _) => Some(set),
            Work::Append(_) | Work::Small(_) => None,
        });
        match sets.map(|set| set.begins_epoch()).reduce(|a, b| a || b) {
            Some(alone) => custom::lock_epoch(conn, alone).await,
            None => Ok(0),
        }
    }

    fn forget(&mut self) {
        self.outcomes.fill_with(|| None);
    }

    /// Applies every job; those whose preconditions do not hold are undone and noted, the others get their audit
    /// entries in one go. Gives their segments and terms, to be indexed.
    async fn apply(&mut self, conn: &mut Conn, chain: &mut Chain, vault: &Vault) -> Result<Vec<Appended>, Fault> {
        // A job alone needs no savepoint: the transaction is its own.
        let shared = self.jobs.len() > 1;
        let of = |job: &Job| match &job.work {
            Work::Write(set, _) => set.premises.iter().filter_map(Premise::locks).collect(),
            Work::Append(_) | Work::Small(_) => Vec::new(),
        };
        Premise::lock(conn, self.jobs.iter().flat_map(of).collect()).await?;
        let sets = self.jobs.iter().filter_map(|job| match &job.work {
            Work::Write(set, _) => Some(&**set),
            Work::Append(_) | Work::Small(_) => None,
        });
        refer::lock(conn, sets).await?;
        let mut epoch = self.epoch(conn).await?;
        for (job, outcome) in self.jobs.iter().zip(&mut self.outcomes) {
            match &job.work {
                Work::Append(_) => {}
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
                    match set.apply(conn).await {
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
            return Ok(Vec::new());
        }
        chain.append(conn, vault, &self.rows()).await
    }

    /// After the commit.
    fn answer(self) {
        for (job, outcome) in self.jobs.into_iter().zip(self.outcomes) {
            let answer = outcome.unwrap_or_else(|| match job.work {
                Work::Write(set, row) => Ok(Answer::Receipt(Receipt::of(row, &set))),
                Work::Append(row) => Ok(Answer::Receipt(Receipt::of(row, &WriteSet::default()))),
                Work::Small(_) => Err(Error::internal("a small change without an answer")),
            });
            // Nobody listens any more when the request was given up; the work stands all the same.
            let _ = job.done.send(answer);
        }
    }

    /// Nothing of it may be taken as done.
    fn fail(self, fault: Fault) {
        let error = Error::from(fault);
        tracing::error!(kind = ?error.kind, cause = error.cause().map(tracing::field::display), "a commit failed");
        for job in self.jobs {
            let error = match job.work {
                Work::Append(_) => {
                    Error::new(Kind::Audit, "The audit entry could not be made durable; nothing is released.")
                }
                Work::Write(..) | Work::Small(_) => {
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
    fn bytes(&self) -> usize {
        match self {
            Work::Write(set, row) => set.bytes() + row.entry.len(),
            Work::Append(row) => row.entry.len(),
            Work::Small(_) => 64,
        }
    }

    fn audit_row(&self) -> Option<&AuditRow> {
        match self {
            Work::Write(_, row) | Work::Append(row) => Some(row),
            Work::Small(_) => None,
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

#[cfg(test)]
mod tests {
    use super::super::apply::{RecordRow, VersionRow};
    use super::super::chain::chain_hash;
    use super::super::db::Param;
    use super::super::migrate::{Which, migrate};
    use super::super::segment;
    use super::super::small::Life;
    use super::*;
    use crate::vault::{Pk, Rid, memory};
    use crate::world::Instant;

    struct Bench {
        db: Db,
        vault: Vault,
        lanes: Lanes,
        _folder: Option<tempfile::TempDir>,
    }

    async fn bench_on(url: &str, folder: Option<tempfile::TempDir>) -> Bench {
        let db = Db::parse(url).expect("a url");
        migrate(&db, Which::Data).await.expect("migrates");
        let vault = memory::vault();
        let lanes = Lanes::start(&db, &vault, 7, count(&db, 4));
        Bench { db, vault, lanes, _folder: folder }
    }

    async fn on_both<F: Future<Output = ()>>(case: impl Fn(Bench) -> F) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}/x.db", folder.path().display());
        case(bench_on(&url, Some(folder)).await).await;
        case(bench_on(&crate::store::postgres::database(), None).await).await;
    }

    fn entry(id: &str) -> AuditRow {
        AuditRow {
            at: Instant(0),
            month: 24_310,
            entry: id.as_bytes().to_vec().into(),
            terms: vec![1, 2],
            covers: vec![(Rid(5), 1)],
        }
    }

    /// Every entry of the trail, by chain: (lane, text).
    async fn entries(bench: &Bench) -> Vec<(u32, String)> {
        let mut conn = bench.db.connect().await.ok().expect("connects");
        let rows = crate::store::entries::all(&mut conn).await.expect("reads");
        let mut entries = Vec::new();
        for row in rows {
            let opened = segment::open(&bench.vault, &row).await.expect("opens");
            let text = |entry: &segment::AuditEntry| String::from_utf8(entry.bytes.to_vec()).expect("text");
            entries.extend(opened.iter().map(|entry| (row.place.lane, text(entry))));
        }
        entries
    }

    fn write(rid: i64, token: u8, base: Option<u32>, terms: (&[i64], &[i64])) -> WriteSet {
        let ver = base.unwrap_or(0) + 1;
        let record = RecordRow {
            rid: Rid(rid),
            rtype: 1,
            id_token: [token; 16],
            base,
            pk: Pk(1),
            yr: None,
            ver,
            deleted: false,
            capsule: vec![1],
            terms: terms.1.to_vec(),
            terms_before: terms.0.to_vec(),
        };
        let version =
            VersionRow { rid: Rid(rid), ver, pk: Pk(1), head: vec![2], sealed: vec![3], rtype: 1, line: vec![4] };
        WriteSet { records: vec![record], versions: vec![version], ..WriteSet::default() }
    }

    async fn numbers(db: &Db, sql: &str) -> Vec<i64> {
        let mut conn = db.connect().await.ok().expect("connects");
        let rows = conn.rows(sql, Vec::new()).await.ok().expect("answers");
        rows.iter().map(|row| row.int(0).ok().expect("a number")).collect()
    }

    #[tokio::test]
    async fn two_hundred_creates_of_one_id_make_one() {
        on_both(two_hundred_creates).await;
    }

    async fn two_hundred_creates(bench: Bench) {
        let submit =
            |n: i64| bench.lanes.submit(Work::Write(Box::new(write(n, 1, None, (&[], &[4]))), entry(&format!("e{n}"))));
        let done = futures_util::future::join_all((1..=200).map(submit)).await;
        let refused = done.iter().filter_map(|done| done.as_ref().err()).collect::<Vec<_>>();
        assert_eq!(refused.len(), 199);
        assert!(refused.iter().all(|error| error.kind == Kind::Conflict));
        let indexed = match bench.db.is_postgres() {
            true => "record where terms @> array[4::bigint]",
            false => "posting where term = 4",
        };
        for table in ["record", indexed, "record_version where rid > 0"] {
            assert_eq!(numbers(&bench.db, &format!("select count(*) from {table}")).await, [1], "{table}");
        }
        assert_eq!(entries(&bench).await.len(), 1);
        bench.lanes.close().await;
    }

    #[tokio::test]
    async fn the_chains_are_gapless_over_conflicts_and_restarts() {
        on_both(gapless).await;
    }

    async fn gapless(bench: Bench) {
        for round in 0..3 {
            let jobs = (0..40).map(|n| {
                let id = format!("{round}-{n}");
                match n % 3 {
                    0 => Work::Append(entry(&id)),
                    // Every second of these meets a row that is there already.
                    _ => Work::Write(
                        Box::new(write(1 + n / 2 + 100 * round, (n / 2 + 30 * round) as u8, None, (&[], &[]))),
                        entry(&id),
                    ),
                }
            });
            let done = futures_util::future::join_all(jobs.map(|job| bench.lanes.submit(job))).await;
            assert!(done.iter().any(Result::is_err) && done.iter().any(Result::is_ok));
        }
        bench.lanes.close().await;
        assert!(bench.lanes.submit(Work::Append(entry("late"))).await.is_err_and(|e| e.kind == Kind::Audit));
        let again = Lanes::start(&bench.db, &bench.vault, 7, 1);
        again.submit(Work::Append(entry("again"))).await.map_err(|e| e.kind).map(drop).expect("appends");
        again.close().await;

        let mut conn = bench.db.connect().await.ok().expect("connects");
        let sql = "select lane, seq, prev, commitment from audit where instance = $1 order by lane, seq";
        let rows = conn.rows(sql, vec![Param::Int(7)]).await.ok().expect("answers");
        let mut chains: std::collections::HashMap<u32, (u64, [u8; 32])> = Default::default();
        for row in &rows {
            let lane = row.small(0).ok().expect("a lane");
            let (seq, prev) = chains.entry(lane).or_default();
            assert_eq!(row.int(1).ok(), Some(*seq as i64));
            assert_eq!(row.array(2).ok(), Some(*prev));
            *prev = chain_hash(7, lane, *seq, prev, &row.array(3).ok().expect("a commitment"));
            *seq += 1;
        }
        assert!(rows.len() > 3 && entries(&bench).await.len() > 60);
        assert_eq!(chains.len(), if bench.db.is_postgres() { 4 } else { 1 });
    }

    #[tokio::test]
    async fn the_entries_of_one_commit_share_segments_and_their_terms_reach_the_index() {
        on_both(segments_and_index).await;
    }

    async fn segments_and_index(bench: Bench) {
        let submit = |n: i64| bench.lanes.submit(Work::Append(AuditRow { terms: vec![7, 100 + n], ..entry("e") }));
        let done = futures_util::future::join_all((0..300).map(submit)).await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(entries(&bench).await.len(), 300);
        let segments = numbers(&bench.db, "select count(*) from audit").await[0];
        assert!((5..150).contains(&segments), "{segments} segments");
        bench.lanes.close().await;
        assert_eq!(numbers(&bench.db, "select count(*) from audit_pending").await, [0]);
        let indexed = numbers(&bench.db, "select term from audit_term where term <> 7 order by term").await;
        assert_eq!(indexed, (100..400).collect::<Vec<i64>>());
        assert_eq!(numbers(&bench.db, "select count(*) from audit_term where term = 7").await, [segments]);
    }

    #[tokio::test]
    async fn terms_that_a_server_left_waiting_are_moved_by_the_next_one() {
        on_both(left_waiting).await;
    }

    async fn left_waiting(bench: Bench) {
        let submit = |n: i64| {
            bench.lanes.submit(Work::Append(AuditRow { terms: (60 * n..60 * (n + 1)).collect(), ..entry("e") }))
        };
        let done = futures_util::future::join_all((0..100).map(submit)).await;
        assert!(done.iter().all(Result::is_ok));
        bench.lanes.close().await;
        let waiting = "select count(*) from audit_pending";
        assert!(numbers(&bench.db, waiting).await[0] > 0, "too many to be moved while the server ends");
        let next = Lanes::start(&bench.db, &bench.vault, 8, count(&bench.db, 2));
        for _ in 0..200 {
            if numbers(&bench.db, waiting).await == [0] {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(numbers(&bench.db, waiting).await, [0]);
        let indexed = numbers(&bench.db, "select term from audit_term order by term").await;
        assert_eq!(indexed, (0..6000).collect::<Vec<i64>>());
        next.close().await;
    }

    #[tokio::test]
    async fn an_update_needs_its_version_and_moves_the_terms() {
        on_both(updates).await;
    }

    async fn updates(bench: Bench) {
        let submit = |set: WriteSet, id: &str| bench.lanes.submit(Work::Write(Box::new(set), entry(id)));
        assert!(submit(write(1, 1, None, (&[], &[4, 5])), "a").await.is_ok());
        assert!(submit(write(1, 1, Some(1), (&[4, 5], &[5, 6])), "b").await.is_ok());
        assert!(submit(write(1, 1, Some(1), (&[4, 5], &[7])), "c").await.is_err_and(|e| e.kind == Kind::Conflict));
        let terms = match bench.db.is_postgres() {
            true => "select unnest(terms) as term from record order by term",
            false => "select term from posting order by term",
        };
        assert_eq!(numbers(&bench.db, terms).await, [5, 6]);
        assert_eq!(numbers(&bench.db, "select ver from record_version where rid = 1 order by ver").await, [1, 2]);
        let mut claims = write(2, 2, None, (&[], &[]));
        claims.claims = vec![([1; 16], Rid(2))];
        assert!(submit(claims.clone(), "d").await.is_ok());
        let mut other = write(3, 3, None, (&[], &[]));
        other.claims = vec![([1; 16], Rid(3))];
        let refused = submit(other, "e").await.err().expect("the claim is taken");
        assert_eq!((refused.kind, refused.issues[0].code), (Kind::Conflict, "duplicate"));
        let mut freed = write(2, 2, Some(1), (&[], &[]));
        freed.claims_of = vec![Rid(2)];
        assert!(submit(freed, "f").await.is_ok());
        assert_eq!(numbers(&bench.db, "select count(*) from claim").await, [0]);
        bench.lanes.close().await;
    }

    #[tokio::test]
    async fn small_changes_ride_along() {
        on_both(small_changes).await;
    }

    async fn small_changes(bench: Bench) {
        let count = || bench.lanes.submit(Work::Small(Small::Count("mrn")));
        let done = futures_util::future::join_all((0..100).map(|_| count())).await;
        let mut given: Vec<u64> = done
            .into_iter()
            .map(|done| match done {
                Ok(Answer::Small(SmallAnswer::Number(n))) => n,
                _ => 0,
            })
            .collect();
        given.sort_unstable();
        assert_eq!(given, (1..=100).collect::<Vec<u64>>());
        let once = |now: i64| {
            let (token, sealed, expires) = (vec![1], vec![2], Some(Instant(now + 50)));
            bench.lanes.submit(Work::Small(Small::KvInsertNew {
                space: "jti",
                token,
                sealed,
                life: Life { expires, owner: None },
                now: Instant(now),
            }))
        };
        let touched = |done| matches!(done, Ok(Answer::Small(SmallAnswer::Touched(1))));
        assert!(touched(once(0).await) && !touched(once(10).await) && touched(once(60).await));
        bench.lanes.close().await;
    }

    #[tokio::test]
    async fn writers_in_opposite_order_deadlock_and_still_succeed_or_conflict() {
        let bench = bench_on(&crate::store::postgres::database(), None).await;
        let both = |first: i64, second: i64, base: Option<u32>| {
            let mut set = write(first, first as u8, base, (&[], &[]));
            let other = write(second, second as u8, base, (&[], &[]));
            set.records.extend(other.records);
            set.versions.extend(other.versions);
            set
        };
        let submit = |set: WriteSet, id: String| bench.lanes.submit(Work::Write(Box::new(set), entry(&id)));
        assert!(submit(both(1, 2, None), "new".into()).await.is_ok());
        for round in 1..20 {
            // The token of the first row chooses the lane: two lanes lock the same two rows the other way round.
            let (one, other) = tokio::join!(
                submit(both(1, 2, Some(round)), format!("{round}a")),
                submit(both(2, 1, Some(round)), format!("{round}b"))
            );
            let refused = [one.err(), other.err()].into_iter().flatten().map(|e| e.kind).collect::<Vec<_>>();
            assert_eq!(refused, [Kind::Conflict], "round {round}: one wins, the other is told");
        }
        bench.lanes.close().await;
    }

    #[tokio::test]
    async fn a_database_that_went_away_refuses_and_is_used_again_when_it_is_back() {
        let server = crate::store::postgres::Postgres::start(true);
        let bench = bench_on(&server.database(), None).await;
        let append = |id: String| bench.lanes.submit(Work::Append(entry(&id)));
        let mut durable = Vec::new();
        for n in 0..8 {
            if append(format!("before {n}")).await.is_ok() {
                durable.push(format!("before {n}"));
            }
        }
        assert_eq!(durable.len(), 8);
        server.crash_and_restart();
        for n in 0..16 {
            match append(format!("after {n}")).await {
                Ok(_) => durable.push(format!("after {n}")),
                Err(error) => assert_eq!(error.kind, Kind::Audit),
            }
        }
        assert!(durable.len() > 16, "the lanes connect again");
        let kept: Vec<String> = entries(&bench).await.into_iter().map(|(_, text)| text).collect();
        assert!(durable.iter().all(|id| kept.contains(id)), "whatever was acknowledged is there");
        bench.lanes.close().await;
    }
}

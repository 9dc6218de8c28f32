//! The writers. A lane is one task with one connection and one audit chain: it takes what is queued, applies it in one
//! database transaction (a savepoint per write), commits, and only then answers. So one disk flush serves many
//! requests, and nobody is told of anything that is not durable.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

pub use super::batch::{Answer, Work};
use super::batch::{Batch, Job};
use super::chain::Chain;
use super::db::{Db, Fault};
use super::desk::{Desk, Returned};
use super::gather::gather;
use super::growth::Growth;
use super::held::Held;
use super::premise::Premise;
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::world::Stopwatch;

/// The lanes of one server.
pub struct Lanes {
    senders: Vec<mpsc::Sender<Job>>,
    closing: tokio::sync::watch::Sender<bool>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    /// Whether entries may be durable that the database does not hold yet.
    holds: bool,
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
            let (desk, held) = (Desk::new(db.clone(), lane == 0), Held::new(&db, instance));
            let lane = Lane {
                db,
                vault,
                instance,
                lane,
                queue,
                growth,
                chain: None,
                desk: Some(desk),
                away: None,
                held,
                busy: false,
            };
            senders.push(sender);
            tasks.push(tokio::spawn(lane.run(watch.clone())));
        }
        Lanes { senders, closing, tasks: std::sync::Mutex::new(tasks), holds: db.file().is_some() }
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

    /// Waits until the database holds every entry that was appended before.
    ///
    /// # Errors
    /// `Kind::Unavailable` when it does not take them.
    pub async fn settle(&self) -> Result<()> {
        match self.holds {
            true => self.submit(Work::Settle).await.map(drop),
            false => Ok(()),
        }
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
    /// small changes. Of several lanes the last has accesses alone: together they are many to a commit, and they wait
    /// for no write.
    fn lane_of(&self, work: &Work) -> usize {
        let last = self.senders.len() - 1;
        let number = match work {
            Work::Append(_) => return last,
            Work::Small(_) | Work::Settle => 0,
            // Writes that rest on conditions of one type queue here instead of waiting for its lock.
            Work::Write(set, _) => match set.premises.iter().find_map(Premise::locks) {
                Some(kind) => usize::from(kind),
                None => set.records.first().map_or(0, |row| usize::from(row.id_token[0])),
            },
        };
        number % last.max(1)
    }
}

struct Lane {
    db: Db,
    vault: Vault,
    instance: i64,
    lane: u32,
    queue: mpsc::Receiver<Job>,
    growth: Arc<Growth>,
    /// None: to be read before the next batch.
    chain: Option<Chain>,
    /// None: it is away.
    desk: Option<Desk>,
    /// Chores, which accesses need not wait for while they go into the journal.
    away: Option<JoinHandle<Returned>>,
    /// Segments that are not in the database yet.
    held: Held,
    /// Something was done since it last rested.
    busy: bool,
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
            let idle = self.desk.as_ref().and_then(Desk::pause);
            let first = tokio::select! {
                biased;
                job = self.queue.recv() => job,
                _ = closing.changed() => {
                    self.queue.close();
                    self.queue.recv().await
                }
                returned = returning(&mut self.away) => {
                    self.take_back(returned);
                    self.chores();
                    continue;
                }
                () = tokio::time::sleep(self.held.pause()), if self.desk.is_some() && !self.held.is_empty() => {
                    self.chores();
                    continue;
                }
                () = tokio::time::sleep(idle.unwrap_or_default()), if idle.is_some() => {
                    self.send_away(Desk::index);
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
            if self.away.as_ref().is_some_and(JoinHandle::is_finished) {
                self.home().await;
            }
            self.chores();
        }
        self.end().await;
    }

    /// Nobody has written for a while: the pages in memory are given back.
    async fn rest(&mut self) {
        self.busy = false;
        if self.home().await.rest().await.is_err() {
            self.reset().await;
        }
    }

    /// What is held is moved, the index is left to the next start if it is much.
    async fn end(mut self) {
        self.home().await;
        if !self.held.is_empty()
            && let Err(failed) = self.commit(&mut Batch::new(Vec::new())).await
        {
            tracing::error!(cause = %Error::from(failed.fault), "audit entries stay in the journal");
        }
        self.held.close();
        self.home().await.close().await;
    }

    /// Starts what is due of the work that no request asked for.
    fn chores(&mut self) {
        let Some(desk) = &self.desk else { return };
        if self.held.presses() {
            let links = self.held.lend();
            self.send_away(|desk| desk.take_over(links));
        } else if desk.presses() {
            self.send_away(Desk::index);
        }
    }

    fn send_away<F: Future<Output = Returned> + Send + 'static>(&mut self, chore: impl FnOnce(Desk) -> F) {
        self.away = self.desk.take().map(|desk| tokio::spawn(chore(desk)));
    }

    /// The desk, once it is back.
    async fn home(&mut self) -> &mut Desk {
        if let Some(task) = &mut self.away {
            let returned = task.await;
            self.take_back(returned);
        }
        let db = &self.db;
        self.desk.get_or_insert_with(|| Desk::new(db.clone(), true))
    }

    fn take_back(&mut self, returned: Result<Returned, JoinError>) {
        self.away = None;
        let moved = match returned {
            Ok(returned) => {
                self.desk = Some(returned.desk);
                returned.moved
            }
            Err(error) => {
                tracing::error!(%error, "a chore of a lane ended in a panic");
                Some(false)
            }
        };
        match moved {
            None => {}
            Some(true) => self.held.settled(),
            Some(false) => {
                // What was kept of it is not known: the chain is read again from what is there.
                self.chain = None;
                self.held.failed();
            }
        }
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

    /// One transaction, or one record of the journal. On any failure the chain goes back to where it was.
    async fn commit(&mut self, batch: &mut Batch) -> Result<(), Failed> {
        batch.forget();
        if batch.is_of_entries() && self.hold(batch).await? {
            return Ok(());
        }
        self.home().await;
        if batch.is_of_entries() && self.append_at_once(batch).await? {
            return Ok(());
        }
        let done = self.transaction(batch).await;
        match done {
            Ok(()) => self.held.settled(),
            Err(_) => self.held.failed(),
        }
        done
    }

    async fn transaction(&mut self, batch: &mut Batch) -> Result<(), Failed> {
        let undone = |fault| Failed { fault, undone: true };
        self.begin().await.map_err(undone)?;
        let mut ahead = match self.chain().await {
            Ok(chain) => chain.clone(),
            Err(fault) => {
                // The transaction is open.
                self.reset().await;
                return Err(undone(fault));
            }
        };
        let vault = self.vault.clone();
        let Some(desk) = &mut self.desk else { return Err(undone(Fault::Lost(sqlx::Error::WorkerCrashed))) };
        let conn = desk.conn().await.map_err(undone)?;
        match batch.apply(conn, &mut ahead, &vault, &self.held).await {
            Ok(appended) => {
                let Err(fault) = conn.commit().await else {
                    desk.backlog.add(appended);
                    self.chain = Some(ahead);
                    self.growth.add(&self.db, batch.records());
                    return Ok(());
                };
                // Whether it was kept is not known: the chain is read again from what is there.
                self.reset().await;
                Err(Failed { fault, undone: false })
            }
            Err(fault) => {
                if conn.rollback().await.is_err() {
                    self.reset().await;
                }
                Err(undone(fault))
            }
        }
    }

    /// Accesses alone, on SQLite: into the journal. False when they have to go into the database at once.
    async fn hold(&mut self, batch: &Batch) -> Result<bool, Failed> {
        if !self.held.is_open() {
            return Ok(false);
        }
        let failed = |fault| Failed { fault, undone: true };
        let mut ahead = self.chain().await.map_err(failed)?.clone();
        let links = ahead.links(&self.vault, &batch.rows()).await.map_err(failed)?;
        let done = self.held.add(links).await;
        if done {
            self.chain = Some(ahead);
        }
        Ok(done)
    }

    /// Accesses alone, the most frequent batch by far: one exchange with the database. False when they do not fit one
    /// segment, others are to go before them, or the connection was dead: entries that it kept all the same then stand
    /// twice, which is better than an access without any.
    async fn append_at_once(&mut self, batch: &Batch) -> Result<bool, Failed> {
        if !self.held.is_empty() {
            return Ok(false);
        }
        let failed = |fault| Failed { fault, undone: true };
        let mut ahead = self.chain().await.map_err(failed)?.clone();
        let vault = self.vault.clone();
        let desk = self.home().await;
        let conn = desk.conn().await.map_err(failed)?;
        match ahead.append_at_once(conn, &vault, &batch.rows()).await {
            Ok(Some(appended)) => {
                desk.backlog.add(vec![appended]);
                self.chain = Some(ahead);
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
        let desk = self.home().await;
        match desk.conn().await?.begin().await {
            Err(Fault::Lost(_)) => {}
            done => return done,
        }
        self.reset().await;
        self.home().await.conn().await?.begin().await
    }

    /// Where the chain stands.
    async fn chain(&mut self) -> Result<&mut Chain, Fault> {
        let chain = match self.chain.take() {
            Some(chain) => chain,
            None => {
                let (instance, lane) = (self.instance, self.lane);
                let chain = Chain::load(self.home().await.conn().await?, instance, lane).await?;
                self.held.resume(chain)
            }
        };
        Ok(self.chain.insert(chain))
    }

    /// A new connection next time; the chain is read again on it.
    async fn reset(&mut self) {
        self.chain = None;
        self.home().await.reset().await;
    }
}

/// Waits for chores to end; for ever when there are none.
async fn returning(away: &mut Option<JoinHandle<Returned>>) -> Result<Returned, JoinError> {
    match away {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::AuditRow;
    use super::super::apply::{RecordRow, VersionRow, WriteSet};
    use super::super::chain::chain_hash;
    use super::super::db::Param;
    use super::super::migrate::{Which, migrate};
    use super::super::segment;
    use super::super::small::{Life, Small, SmallAnswer};
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
        // After the lanes were closed there is nothing to settle.
        let _ = bench.lanes.settle().await;
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

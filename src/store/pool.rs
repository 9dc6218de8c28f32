//! Connections for reading: at most so many at once, made when first needed, kept open while they are used. A connection
//! whose query failed or was abandoned half way is closed, never handed on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::db::{Conn, Db, Fault, Param, Row, Use, shape};
use super::packed;
use crate::error::{Error, Kind, Result};
use crate::world::Stopwatch;

/// How long a request waits for a free connection before it is told Unavailable.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How long a connection stays open that nobody uses.
const QUIET: Duration = Duration::from_secs(10);

/// Clones share the connections.
#[derive(Clone)]
pub struct Readers {
    shared: Arc<Shared>,
}

struct Idle {
    conn: Conn,
    since: Stopwatch,
}

struct Shared {
    db: Db,
    work: Use,
    /// Those used last at the end: what is not needed stays unused.
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
    most: usize,
    quiet: Duration,
    /// Whether somebody looks after idle connections.
    swept: AtomicBool,
    #[cfg(test)]
    asked: std::sync::atomic::AtomicU64,
}

impl Readers {
    pub fn new(db: Db, work: Use, most: usize) -> Readers {
        Readers::resting(db, work, most, QUIET)
    }

    fn resting(db: Db, work: Use, most: usize, quiet: Duration) -> Readers {
        let most = most.max(1);
        let permits = Semaphore::new(most);
        let idle = Mutex::new(Vec::new());
        #[cfg(test)]
        let asked = Default::default();
        Readers {
            shared: Arc::new(Shared {
                db,
                work,
                idle,
                permits,
                most,
                quiet,
                swept: AtomicBool::new(false),
                #[cfg(test)]
                asked,
            }),
        }
    }

    /// Queries so far.
    #[cfg(test)]
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// All rows of one query. A stale idle connection (the database was restarted) is replaced once.
    pub async fn rows(&self, sql: &str, params: Vec<Param>) -> Result<Vec<Row>> {
        Ok(self.ask(sql, params).await??)
    }

    /// The same for what may be many rows; `columns` are those of the query, numbers and blobs all of them.
    pub async fn many(&self, sql: &str, columns: usize, params: Vec<Param>) -> Result<Vec<Row>> {
        if self.shared.db.is_postgres() {
            return self.rows(sql, params).await;
        }
        match self.ask(&packed::joined(sql, columns), params.clone()).await? {
            Err(fault) if fault.is_too_big() => self.rows(sql, params).await,
            rows => {
                let rows = rows?;
                let all = rows.first().map(|row| row.opt_bytes(0)).transpose()?.flatten().unwrap_or_default();
                let parted = packed::parted(all, columns).ok_or_else(|| shape("joined rows are cut off"))?;
                Ok(parted.into_iter().map(Row::Packed).collect())
            }
        }
    }

    /// The rows of a query for so many numbers, none of them null.
    pub async fn numbers<const N: usize>(&self, sql: &str, params: Vec<Param>) -> Result<Vec<[i64; N]>> {
        let sql = packed::numbered(self.shared.db.is_postgres(), sql, N);
        let row = self.rows(&sql, params).await?.pop();
        let rows = row.map(|row| packed::rows_of(&row)).transpose()?.flatten();
        rows.ok_or_else(|| shape("numbers are cut off").into())
    }

    /// The outer error: no connection came free.
    async fn ask(&self, sql: &str, params: Vec<Param>) -> Result<Result<Vec<Row>, Fault>> {
        #[cfg(test)]
        self.shared.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let busy = || Error::new(Kind::Unavailable, "The database is too busy to answer.");
        let waiting = tokio::time::timeout(WAIT_MAX, self.shared.permits.acquire());
        let _permit = waiting.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let idle = self.idle().pop();
        if let Some(Idle { mut conn, .. }) = idle {
            match conn.rows(sql, params.clone()).await {
                Err(Fault::Lost(_)) => {}
                done => return Ok(self.finish(conn, done)),
            }
        }
        let mut conn = self.shared.db.connect_for(self.shared.work).await?;
        if !self.shared.swept.swap(true, Ordering::SeqCst) {
            tokio::spawn(sweep(Arc::downgrade(&self.shared)));
        }
        let done = conn.rows(sql, params).await;
        Ok(self.finish(conn, done))
    }

    /// Closes what is idle; a later query would open a new connection.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for Idle { conn, .. } in idle {
            conn.close().await;
        }
    }

    fn finish(&self, conn: Conn, done: Result<Vec<Row>, Fault>) -> Result<Vec<Row>, Fault> {
        if done.as_ref().err().is_none_or(Fault::spares_connection) {
            self.idle().push(Idle { conn, since: Stopwatch::start() });
        }
        done
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.shared.idle()
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes those out that nobody has used for a while; None when there are none left, used or not.
    fn unused(&self) -> Option<Vec<Idle>> {
        let mut idle = self.idle();
        let used = idle.partition_point(|one| one.since.elapsed() >= self.quiet);
        let unused: Vec<Idle> = idle.drain(..used).collect();
        // Who is about to connect has a permit by now, or will see that nobody sweeps.
        if unused.is_empty() && idle.is_empty() && self.permits.available_permits() == self.most {
            self.swept.store(false, Ordering::SeqCst);
            return None;
        }
        Some(unused)
    }
}

/// Closes connections that are not needed any more: each keeps pages and statements, on SQLite a thread too. Ends with
/// the last of them.
async fn sweep(shared: Weak<Shared>) {
    loop {
        let Some(quiet) = shared.upgrade().map(|shared| shared.quiet) else { return };
        tokio::time::sleep(quiet / 2).await;
        let Some(unused) = shared.upgrade().and_then(|shared| shared.unused()) else { return };
        for Idle { conn, .. } in unused {
            conn.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_that_nobody_uses_are_closed_and_opened_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sqlite = format!("sqlite:{}/x.db", folder.path().display());
        for url in [sqlite, crate::store::postgres::database()] {
            let db = Db::parse(&url).expect("a url");
            db.connect().await.ok().expect("makes it").close().await;
            let quiet = Duration::from_millis(300);
            let readers = Readers::resting(db, Use::Lookup, 4, quiet);
            let one = || readers.rows("select 1", Vec::new());
            for _ in 0..2 {
                let rows = futures_util::future::join_all((0..4).map(|_| one())).await;
                assert!(rows.iter().all(Result::is_ok) && !readers.idle().is_empty());
                // One that is used stays.
                for _ in 0..30 {
                    one().await.expect("answers");
                    tokio::time::sleep(quiet / 10).await;
                }
                assert_eq!(readers.idle().len(), 1);
                assert!(readers.shared.swept.load(Ordering::SeqCst));
                for _ in 0..100 {
                    tokio::time::sleep(quiet / 10).await;
                    if !readers.shared.swept.load(Ordering::SeqCst) {
                        break;
                    }
                }
                assert!(readers.idle().is_empty() && !readers.shared.swept.load(Ordering::SeqCst));
            }
        }
    }
}

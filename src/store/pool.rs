//! Connections for reading: at most so many at once, made when first needed, kept open. A connection whose query
//! failed or was abandoned half way is closed, never handed on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::db::{Conn, Db, Fault, Param, Row, Use, shape};
use super::packed;
use crate::error::{Error, Kind, Result};

/// How long a request waits for a free connection before it is told Unavailable.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Clones share the connections.
#[derive(Clone)]
pub struct Readers {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    work: Use,
    idle: Mutex<Vec<Conn>>,
    permits: Semaphore,
    #[cfg(test)]
    asked: std::sync::atomic::AtomicU64,
}

impl Readers {
    pub fn new(db: Db, work: Use, most: usize) -> Readers {
        let permits = Semaphore::new(most.max(1));
        let idle = Mutex::new(Vec::new());
        #[cfg(test)]
        let asked = Default::default();
        Readers {
            shared: Arc::new(Shared {
                db,
                work,
                idle,
                permits,
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

    /// The outer error: no connection came free.
    async fn ask(&self, sql: &str, params: Vec<Param>) -> Result<Result<Vec<Row>, Fault>> {
        #[cfg(test)]
        self.shared.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let busy = || Error::new(Kind::Unavailable, "The database is too busy to answer.");
        let waiting = tokio::time::timeout(WAIT_MAX, self.shared.permits.acquire());
        let _permit = waiting.await.map_err(|_| busy())?.map_err(|_| busy())?;
        let idle = self.idle().pop();
        if let Some(mut conn) = idle {
            match conn.rows(sql, params.clone()).await {
                Err(Fault::Lost(_)) => {}
                done => return Ok(self.finish(conn, done)),
            }
        }
        let mut conn = self.shared.db.connect_for(self.shared.work).await?;
        let done = conn.rows(sql, params).await;
        Ok(self.finish(conn, done))
    }

    /// Closes what is idle; a later query would open a new connection.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for conn in idle {
            conn.close().await;
        }
    }

    fn finish(&self, conn: Conn, done: Result<Vec<Row>, Fault>) -> Result<Vec<Row>, Fault> {
        if done.as_ref().err().is_none_or(Fault::spares_connection) {
            self.idle().push(conn);
        }
        done
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Conn>> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

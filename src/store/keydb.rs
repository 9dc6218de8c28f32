//! The key database: wrapped keys, apart from the data, in an own SQLite file or an own PostgreSQL database. What is
//! stored here is useless without the root key. Must not see an unwrapped key.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, oneshot};

use super::apply::Chunks;
use super::db::{Conn, Db, Fault, Param, Row, Use, placeholder_list, placeholders};
use super::migrate::{Which, migrate};
use super::pool::Readers;
use crate::error::Result;
use crate::vault::{DekRow, KeyStore, Pk, SystemRow};

/// An open key database.
pub struct KeyDb {
    db: Db,
    readers: Readers,
    /// The one writer; None after a failure, until it is needed again.
    writer: Mutex<Option<Conn>>,
    /// Keys that wait for the writer: whoever has it next writes all of them in one commit.
    waiting: std::sync::Mutex<Vec<Waiting>>,
    #[cfg(test)]
    commits: std::sync::atomic::AtomicU64,
}

struct Waiting {
    rows: Vec<DekRow>,
    durable: oneshot::Sender<()>,
}

const READERS_MAX: usize = 4;
const ROWS_MAX: usize = 64;
const LOOKUP_MAX: usize = 1024;
const RETRIES_MAX: usize = 5;

impl KeyDb {
    /// Opens and migrates. `url` as for the data: `sqlite:PATH` or `postgres://...`, but another database.
    ///
    /// # Errors
    /// `Kind::Unavailable` when it cannot be reached or is not a key database.
    pub async fn open(url: &str) -> Result<Arc<KeyDb>> {
        let db = Db::parse(url)?;
        migrate(&db, Which::Keys).await?;
        Ok(Arc::new(KeyDb {
            readers: Readers::new(db.clone(), Use::Lookup, READERS_MAX),
            db,
            writer: Mutex::new(None),
            waiting: std::sync::Mutex::default(),
            #[cfg(test)]
            commits: Default::default(),
        }))
    }

    /// Runs statements in one transaction, which is durable when this returns.
    async fn write(&self, statements: &[(String, Vec<Param>)]) -> Result<()> {
        self.write_by(&mut *self.writer.lock().await, statements).await
    }

    async fn write_by(&self, writer: &mut Option<Conn>, statements: &[(String, Vec<Param>)]) -> Result<()> {
        #[cfg(test)]
        self.commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        for attempt in 1.. {
            // Taken out while in use: abandoned half way, the connection is dropped and with it the transaction.
            let mut conn = match writer.take() {
                Some(conn) => conn,
                None => self.db.connect_for(Use::Keyed).await?,
            };
            match run_all(&mut conn, statements).await {
                Ok(()) => {
                    *writer = Some(conn);
                    break;
                }
                Err(Fault::Retry(_) | Fault::Lost(_)) if attempt < RETRIES_MAX => conn.close().await,
                Err(fault) => {
                    conn.close().await;
                    return Err(fault.into());
                }
            }
        }
        Ok(())
    }

    /// Makes rows durable, together with those of others who wait for the writer too: many patients that are made at
    /// once share their commits.
    async fn put(&self, rows: &[DekRow]) -> Result<()> {
        let mut durable = self.wait(rows);
        let mut writer = self.writer.lock().await;
        match durable.try_recv() {
            Ok(()) => return Ok(()),
            // Who wrote for us failed or was given up: what became of it is not known.
            Err(TryRecvError::Closed) => durable = self.wait(rows),
            Err(TryRecvError::Empty) => {}
        }
        let mut all = std::mem::take(&mut *self.waiting());
        all.retain(|waiting| !waiting.durable.is_closed());
        self.write_by(&mut writer, &insertion(&all)).await?;
        drop(durable);
        for waiting in all {
            // Nobody listens any more: the keys are there all the same.
            let _ = waiting.durable.send(());
        }
        Ok(())
    }

    fn wait(&self, rows: &[DekRow]) -> oneshot::Receiver<()> {
        let (durable, told) = oneshot::channel();
        self.waiting().push(Waiting { rows: rows.to_vec(), durable });
        told
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn lookup(&self, pks: &[Pk]) -> Result<Vec<DekRow>> {
        let mut found = Vec::with_capacity(pks.len());
        for chunk in Chunks::of(pks, LOOKUP_MAX) {
            let sql = format!(
                "select pk, version, epoch, wrapped, commitment from data_key where pk in ({}) order by pk, version",
                placeholder_list(chunk.len(), 0)
            );
            let params = chunk.iter().map(|pk| Param::Int(pk.0)).collect();
            for row in self.readers.rows(&sql, params).await? {
                found.push(data_key(&row)?);
            }
        }
        Ok(found)
    }
}

fn insertion(waiting: &[Waiting]) -> Vec<(String, Vec<Param>)> {
    let mut rows: Vec<&DekRow> = waiting.iter().flat_map(|waiting| &waiting.rows).collect();
    // One order for everybody, so that two servers never wait for each other in a circle.
    rows.sort_unstable_by_key(|row| (row.pk, row.version));
    let mut statements = Vec::new();
    for chunk in Chunks::of(&rows, ROWS_MAX) {
        let sql = format!(
            "insert into data_key (pk, version, epoch, wrapped, commitment) values {} on conflict do nothing",
            placeholders(chunk.len(), 5, 0)
        );
        let params = chunk.iter().flat_map(|row| {
            [
                Param::Int(row.pk.0),
                Param::Int(row.version.into()),
                Param::Int(row.epoch.into()),
                Param::Bytes(row.wrapped.clone()),
                Param::Bytes(row.commitment.to_vec()),
            ]
        });
        statements.push((sql, params.collect()));
    }
    statements
}

async fn run_all(conn: &mut Conn, statements: &[(String, Vec<Param>)]) -> Result<(), Fault> {
    conn.begin().await?;
    for (sql, params) in statements {
        conn.run(sql, params.clone()).await?;
    }
    conn.commit().await
}

fn data_key(row: &Row) -> Result<DekRow, Fault> {
    let narrow = |n: u32| {
        u16::try_from(n).map_err(|_| Fault::Shape(sqlx::Error::Protocol("a key number is out of its range".into())))
    };
    Ok(DekRow {
        pk: Pk(row.int(0)?),
        version: narrow(row.small(1)?)?,
        epoch: narrow(row.small(2)?)?,
        wrapped: row.bytes(3)?.to_vec(),
        commitment: row.array(4)?,
    })
}

impl KeyStore for KeyDb {
    fn system_keys(&self) -> BoxFuture<'_, Result<Vec<SystemRow>>> {
        Box::pin(async {
            let rows = self.readers.rows("select name, wrapped from system_key order by name", Vec::new()).await?;
            let system = |row: &Row| -> Result<SystemRow> {
                Ok(SystemRow { name: row.text(0)?.to_owned(), wrapped: row.bytes(1)?.to_vec() })
            };
            rows.iter().map(system).collect()
        })
    }

    fn put_system_key(&self, row: SystemRow) -> BoxFuture<'_, Result<SystemRow>> {
        Box::pin(async move {
            let insert = "insert into system_key (name, wrapped) values ($1, $2) on conflict do nothing";
            let params = vec![Param::Text(row.name.clone()), Param::Bytes(row.wrapped.clone())];
            self.write(&[(insert.to_owned(), params)]).await?;
            let select = "select wrapped from system_key where name = $1";
            let rows = self.readers.rows(select, vec![Param::Text(row.name.clone())]).await?;
            let standing = rows.first().map(|row| row.bytes(0).map(<[u8]>::to_vec)).transpose()?;
            Ok(SystemRow { wrapped: standing.unwrap_or(row.wrapped), name: row.name })
        })
    }

    fn data_keys<'a>(&'a self, pks: &'a [Pk]) -> BoxFuture<'a, Result<Vec<DekRow>>> {
        Box::pin(self.lookup(pks))
    }

    fn put_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<Vec<DekRow>>> {
        Box::pin(async move {
            self.put(&rows).await?;
            let mut pks: Vec<Pk> = rows.iter().map(|row| row.pk).collect();
            pks.sort_unstable();
            pks.dedup();
            self.lookup(&pks).await
        })
    }

    fn data_keys_before(&self, epoch: u16, after: (Pk, u16), most: usize) -> BoxFuture<'_, Result<Vec<DekRow>>> {
        Box::pin(async move {
            let sql = "select pk, version, epoch, wrapped, commitment from data_key where version > 0 and epoch < $1 \
                       and (pk > $2 or (pk = $2 and version > $3)) order by pk, version limit $4";
            let (pk, version) = after;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let params = vec![Param::Int(epoch.into()), Param::Int(pk.0), Param::Int(version.into()), Param::Int(most)];
            let rows = self.readers.rows(sql, params).await?;
            Ok(rows.iter().map(data_key).collect::<Result<_, Fault>>()?)
        })
    }

    fn rewrap_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let sql = "update data_key set epoch = $4, wrapped = $5 \
                       where pk = $1 and version = $2 and commitment = $3 and epoch < $4";
            let statement = |row: DekRow| {
                let params = vec![
                    Param::Int(row.pk.0),
                    Param::Int(row.version.into()),
                    Param::Bytes(row.commitment.to_vec()),
                    Param::Int(row.epoch.into()),
                    Param::Bytes(row.wrapped),
                ];
                (sql.to_owned(), params)
            };
            self.write(&rows.into_iter().map(statement).collect::<Vec<_>>()).await
        })
    }

    fn destroyed(&self) -> BoxFuture<'_, Result<Vec<Pk>>> {
        Box::pin(async {
            let rows = self.readers.rows("select pk from data_key where version = 0 order by pk", Vec::new()).await?;
            Ok(rows.iter().map(|row| row.int(0).map(Pk)).collect::<Result<_, Fault>>()?)
        })
    }

    fn count_destroyed(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async {
            let rows = self.readers.rows("select count(*) from data_key where version = 0", Vec::new()).await?;
            let count = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0);
            Ok(count.unsigned_abs())
        })
    }

    fn destroy_data_keys(&self, pk: Pk) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mark = DekRow::destroyed(pk);
            let delete = "delete from data_key where pk = $1";
            let insert = "insert into data_key (pk, version, epoch, wrapped, commitment) values ($1, $2, $3, $4, $5)";
            let row = vec![
                Param::Int(pk.0),
                Param::Int(mark.version.into()),
                Param::Int(mark.epoch.into()),
                Param::Bytes(mark.wrapped),
                Param::Bytes(mark.commitment.to_vec()),
            ];
            self.write(&[(delete.to_owned(), vec![Param::Int(pk.0)]), (insert.to_owned(), row)]).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.readers.close().await;
            if let Some(conn) = self.writer.lock().await.take() {
                conn.close().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pk: i64, version: u16, fill: u8) -> DekRow {
        DekRow { pk: Pk(pk), version, epoch: 1, wrapped: vec![fill; 60], commitment: [fill; 16] }
    }

    #[tokio::test]
    async fn the_first_key_stands_and_destroyed_ones_are_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}/keys.db", folder.path().display());
        let keys = KeyDb::open(&url).await.expect("opens");
        let rows = (1..=100).map(|pk| key(pk, 1, 1)).collect();
        assert_eq!(keys.put_data_keys(rows).await.expect("puts").len(), 100);
        let standing = keys.put_data_keys(vec![key(7, 1, 2), key(7, 2, 3), key(101, 1, 4)]).await.expect("puts");
        let fills: Vec<(i64, u16, u8)> = standing.iter().map(|row| (row.pk.0, row.version, row.wrapped[0])).collect();
        assert_eq!(fills, [(7, 1, 1), (7, 2, 3), (101, 1, 4)]);
        keys.destroy_data_keys(Pk(7)).await.expect("destroys");
        let left = keys.data_keys(&[Pk(7), Pk(8), Pk(999)]).await.expect("finds");
        let left: Vec<(i64, bool)> = left.iter().map(|row| (row.pk.0, row.is_destroyed())).collect();
        assert_eq!(left, [(7, true), (8, false)], "the mark stays, an unknown one has nothing");

        let name = || "kek/1".to_owned();
        let first = keys.put_system_key(SystemRow { name: name(), wrapped: vec![1] }).await.expect("puts");
        let second = keys.put_system_key(SystemRow { name: name(), wrapped: vec![2] }).await.expect("puts");
        assert_eq!((first.wrapped, second.wrapped), (vec![1], vec![1]));
        assert_eq!(keys.system_keys().await.expect("lists").len(), 1);
    }
    #[tokio::test]
    async fn keys_that_wait_for_the_writer_share_a_commit_and_outlive_who_fails() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}/keys.db", folder.path().display());
        let keys = KeyDb::open(&url).await.expect("opens");
        let commits = || keys.commits.load(std::sync::atomic::Ordering::Relaxed);
        for (first, lost) in [(1, false), (100, true)] {
            let before = commits();
            let held = keys.writer.lock().await;
            let put = |pk: i64| {
                let keys = keys.clone();
                // Two of them want the same key: one stands, and both are told.
                tokio::spawn(async move { keys.put_data_keys(vec![key(first + pk / 2, 1, pk as u8)]).await })
            };
            let puts: Vec<_> = (0..20).map(put).collect();
            while keys.waiting().len() < puts.len() {
                tokio::task::yield_now().await;
            }
            if lost {
                // As if somebody had taken them along and was given up.
                keys.waiting().clear();
            }
            drop(held);
            for (n, put) in puts.into_iter().enumerate() {
                let standing = put.await.expect("ends").expect("is told");
                let place: Vec<(i64, u16)> = standing.iter().map(|row| (row.pk.0, row.version)).collect();
                assert_eq!(place, [(first + n as i64 / 2, 1)]);
                assert!(usize::from(standing[0].wrapped[0]) / 2 == n / 2, "one of the two");
            }
            assert!(commits() > before && (lost || commits() == before + 1), "{} commits", commits() - before);
        }
    }
}

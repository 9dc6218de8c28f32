//! Keeps PostgreSQL's statistics of `record` in step with a table that grows fast. Autovacuum looks once a minute; until
//! then a fresh import is planned for as an empty table, and a search within one patient walks all rows of its type
//! (measured: fifteen times slower).

use std::sync::atomic::{AtomicUsize, Ordering};

use super::db::Db;

/// Rows after which statistics are taken first; then at every doubling.
const FIRST: usize = 500;
/// Past this autovacuum is often enough: the shape of the table no longer changes in a minute.
const LAST: usize = 1_000_000;

/// Rows written by this process, and when statistics are due.
pub struct Growth {
    rows: AtomicUsize,
    due: AtomicUsize,
}

impl Growth {
    pub fn new() -> Growth {
        Growth { rows: AtomicUsize::new(0), due: AtomicUsize::new(FIRST) }
    }

    /// Counts rows just committed; starts taking statistics when they are due, beside the lanes. What fails is logged:
    /// autovacuum makes up for it.
    pub fn add(&self, db: &Db, rows: usize) {
        if !db.is_postgres() || !self.is_due(rows) {
            return;
        }
        let db = db.clone();
        tokio::spawn(async move {
            let analyze = async {
                let mut conn = db.connect().await?;
                let done = conn.run("analyze record", Vec::new()).await;
                conn.close().await;
                done
            };
            if analyze.await.is_err() {
                tracing::warn!("the statistics of a grown table could not be taken");
            }
        });
    }

    /// True once for every doubling.
    fn is_due(&self, rows: usize) -> bool {
        let rows = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        let due = self.due.load(Ordering::Relaxed);
        rows >= due
            && due <= LAST
            && self.due.compare_exchange(due, rows * 2, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_due_once_for_every_doubling() {
        let growth = Growth::new();
        let due: Vec<usize> = (1..=5_000).filter(|_| growth.is_due(1)).collect();
        assert_eq!(due, [500, 1_000, 2_000, 4_000]);
        assert!(growth.is_due(10_000) && !growth.is_due(1));
    }
}

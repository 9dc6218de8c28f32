//! Reads by id, many requests in one statement. Each exchange with a database costs thread or process switches that a
//! row found by its key does not: so whatever is asked for while a statement runs goes together into the next one. On
//! an idle server every request still has a statement of its own at once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::apply::padded;
use super::db::{Param, Row, placeholders};
use super::gather::gather;
use super::pool::Readers;
use super::read::{STORED, STORED_FROM};
use crate::error::Result;
use crate::fhir::TypeId;

/// Statements under way at once: while one runs, the next gathers.
const STATEMENTS: usize = 2;
const TOGETHER_MAX: usize = 64;
const QUEUE_MAX: usize = 4096;

/// Asks for rows with their current bodies. Ends with its last clone.
pub struct Lookups {
    queue: mpsc::Sender<Lookup>,
}

struct Lookup {
    kind: TypeId,
    token: [u8; 16],
    found: oneshot::Sender<Option<Arc<Row>>>,
}

impl Lookups {
    pub fn start(readers: &Readers) -> Lookups {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        for _ in 0..STATEMENTS {
            tokio::spawn(serve(readers.clone(), waiting.clone()));
        }
        Lookups { queue }
    }

    /// The row of a token, with the columns of [`STORED`] and the body. The outer None: it has to be asked for by
    /// itself, to learn what is wrong.
    pub async fn row(&self, kind: TypeId, token: [u8; 16]) -> Option<Option<Arc<Row>>> {
        let (found, row) = oneshot::channel();
        self.queue.try_send(Lookup { kind, token, found }).ok()?;
        row.await.ok()
    }
}

async fn serve(readers: Readers, waiting: Arc<tokio::sync::Mutex<mpsc::Receiver<Lookup>>>) {
    loop {
        let Some(together) = take(&mut *waiting.lock().await).await else { return };
        // Those who asked for what a failed statement asked for learn why by asking again, each alone.
        if let Ok(rows) = rows(&readers, &together).await {
            for lookup in together {
                let row = rows.get(&lookup.token).cloned();
                // Nobody listens any more when the request was given up.
                let _ = lookup.found.send(row);
            }
        }
    }
}

/// Waits for the first, and takes who else is there; None when nobody will come any more.
async fn take(waiting: &mut mpsc::Receiver<Lookup>) -> Option<Vec<Lookup>> {
    let mut together = vec![waiting.recv().await?];
    gather(waiting).await;
    while together.len() < TOGETHER_MAX {
        let Ok(next) = waiting.try_recv() else { break };
        together.push(next);
    }
    Some(together)
}

async fn rows(readers: &Readers, together: &[Lookup]) -> Result<HashMap<[u8; 16], Arc<Row>>> {
    // A token is of one type and one id: it tells the rows apart.
    let keys = padded(together.iter().map(|lookup| (lookup.kind, lookup.token)).collect(), TOGETHER_MAX);
    let listed = placeholders(keys.len(), 2, 0);
    let sql = format!("{STORED}, v.sealed{STORED_FROM} where (r.rtype, r.id_token) in (values {listed})");
    let params = keys.iter().flat_map(|(kind, token)| [Param::Int(kind.0.into()), Param::Bytes(token.to_vec())]);
    let rows = readers.rows(&sql, params.collect()).await?;
    rows.into_iter().map(|row| Ok((row.array(1)?, Arc::new(row)))).collect()
}

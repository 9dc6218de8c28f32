//! The audit chain of one lane: entries get a gapless number and the hash of the entry before. Deleting, altering or
//! reordering an entry shows when the chain is walked. Must not know what an entry says.

use aws_lc_rs::digest::{Context, SHA256};

use super::AuditRow;
use super::apply::{Chunks, padded};
use super::db::{Conn, Fault, Param, placeholders};

/// Where a lane's chain stands.
#[derive(Clone)]
pub struct Chain {
    instance: i64,
    lane: u32,
    next_seq: u64,
    prev: [u8; 32],
}

const ROWS_MAX: usize = 64;
const TERMS_MAX: usize = 256;

/// SHA-256(0x00 || "phial-leaf-1" || instance u64 || lane u32 || seq u64 || prev || commitment), numbers big-endian:
/// the leaf of the Merkle tree to come, and `prev` of the next entry.
pub fn chain_hash(instance: i64, lane: u32, seq: u64, prev: &[u8; 32], commitment: &[u8; 32]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(&[0]);
    hash.update(b"phial-leaf-1");
    hash.update(&instance.to_be_bytes());
    hash.update(&lane.to_be_bytes());
    hash.update(&seq.to_be_bytes());
    hash.update(prev);
    hash.update(commitment);
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

impl Chain {
    /// Where the chain of this lane stands in the database.
    pub async fn load(conn: &mut Conn, instance: i64, lane: u32) -> Result<Chain, Fault> {
        let rows = conn
            .rows(
                "select seq, prev, commitment from audit where instance = $1 and lane = $2 order by seq desc limit 1",
                vec![Param::Int(instance), Param::Int(lane.into())],
            )
            .await?;
        let Some(last) = rows.first() else {
            return Ok(Chain { instance, lane, next_seq: 0, prev: [0; 32] });
        };
        let seq = last.int(0)?.cast_unsigned();
        let prev = chain_hash(instance, lane, seq, &last.array(1)?, &last.array(2)?);
        Ok(Chain { instance, lane, next_seq: seq + 1, prev })
    }

    /// Inserts the entries in order, inside the open transaction. The state moves on at once: whoever rolls the
    /// transaction back must put the old state back too.
    pub async fn append(&mut self, conn: &mut Conn, rows: &[&AuditRow]) -> Result<(), Fault> {
        for chunk in Chunks::of(rows, ROWS_MAX) {
            let sql = format!(
                "insert into audit (id, month, instance, lane, seq, prev, commitment, sealed) values {} \
                 returning n, seq",
                placeholders(chunk.len(), 8, 0)
            );
            let first_seq = self.next_seq;
            let mut params = Vec::with_capacity(chunk.len() * 8);
            for row in chunk {
                params.extend([
                    Param::Text(row.id.clone()),
                    Param::Int(row.month.into()),
                    Param::Int(self.instance),
                    Param::Int(self.lane.into()),
                    Param::Int(self.next_seq.cast_signed()),
                    Param::Bytes(self.prev.to_vec()),
                    Param::Bytes(row.commitment.to_vec()),
                    Param::Bytes(row.sealed.clone()),
                ]);
                self.prev = chain_hash(self.instance, self.lane, self.next_seq, &self.prev, &row.commitment);
                self.next_seq += 1;
            }
            let mut terms = Vec::new();
            for given in conn.rows(&sql, params).await? {
                let at = given.int(1)?.cast_unsigned() - first_seq;
                let n = given.int(0)?;
                let row = usize::try_from(at).ok().and_then(|at| chunk.get(at));
                terms.extend(row.into_iter().flat_map(|row| row.terms.iter().map(|term| (*term, n))));
            }
            insert_terms(conn, terms).await?;
        }
        Ok(())
    }
}

async fn insert_terms(conn: &mut Conn, mut terms: Vec<(i64, i64)>) -> Result<(), Fault> {
    terms.sort_unstable();
    terms.dedup();
    for chunk in Chunks::of(&padded(terms, TERMS_MAX), TERMS_MAX) {
        let values = placeholders(chunk.len(), 2, 0);
        let sql = format!("insert into audit_term (term, n) values {values} on conflict do nothing");
        let params = chunk.iter().flat_map(|(term, n)| [Param::Int(*term), Param::Int(*n)]).collect();
        conn.run(&sql, params).await?;
    }
    Ok(())
}

//! The audit chain of one lane: segments of entries get a gapless number and the hash of the segment before. Deleting,
//! altering or reordering one shows when the chain is walked. Must not know what an entry says.

use aws_lc_rs::digest::{Context, SHA256};

use super::AuditRow;
use super::apply::{Chunks, padded};
use super::db::{Conn, Fault, Param, Row, placeholders};
use super::segment::{self, SegmentPlace};
use crate::vault::Vault;

/// Where a lane's chain stands.
#[derive(Clone)]
pub struct Chain {
    instance: i64,
    lane: u32,
    next_seq: u64,
    prev: [u8; 32],
}

const TERMS_MAX: usize = 256;
/// Segments whose terms are put into the index at once: the lane serves nobody meanwhile.
const INDEXED_AT_ONCE: i64 = 4096;

/// SHA-256(0x00 || "phial-leaf-1" || instance u64 || lane u32 || seq u64 || prev || commitment), numbers big-endian:
/// the leaf of the Merkle tree to come, and `prev` of the next segment.
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

    /// Inserts the entries in order, inside the open transaction; gives the number of terms that wait to be indexed.
    /// The state moves on at once: whoever rolls the transaction back must put the old state back too.
    pub async fn append(&mut self, conn: &mut Conn, vault: &Vault, rows: &[&AuditRow]) -> Result<usize, Fault> {
        let mut waiting = 0;
        for rows in segments(rows) {
            waiting += self.append_segment(conn, vault, rows).await?;
        }
        Ok(waiting)
    }

    async fn append_segment(&mut self, conn: &mut Conn, vault: &Vault, rows: &[&AuditRow]) -> Result<usize, Fault> {
        let month = rows.first().map_or(0, |row| row.month);
        let place = SegmentPlace { month, instance: self.instance, lane: self.lane, seq: self.next_seq };
        let (sealed, commitment) = segment::seal(vault, place, rows).await.map_err(Fault::Sealing)?;
        let sql = "insert into audit (month, instance, lane, seq, prev, commitment, sealed) \
                   values ($1, $2, $3, $4, $5, $6, $7) returning n";
        let params = vec![
            Param::Int(month.into()),
            Param::Int(self.instance),
            Param::Int(self.lane.into()),
            Param::Int(self.next_seq.cast_signed()),
            Param::Bytes(self.prev.to_vec()),
            Param::Bytes(commitment.to_vec()),
            Param::Bytes(sealed),
        ];
        let given = conn.rows(sql, params).await?;
        self.prev = chain_hash(self.instance, self.lane, self.next_seq, &self.prev, &commitment);
        self.next_seq += 1;
        let mut terms: Vec<i64> = rows.iter().flat_map(|row| row.terms.iter().copied()).collect();
        terms.sort_unstable();
        terms.dedup();
        if let (Some(row), false) = (given.first(), terms.is_empty()) {
            let sql = "insert into audit_pending (n, instance, lane, terms) values ($1, $2, $3, $4)";
            let (instance, lane) = (Param::Int(self.instance), Param::Int(self.lane.into()));
            conn.run(sql, vec![Param::Int(row.int(0)?), instance, lane, Param::Ints(terms.clone())]).await?;
        }
        Ok(terms.len())
    }

    /// Moves terms of this lane's oldest segments that wait into the index, inside the open transaction. False when
    /// none wait any more.
    pub async fn index(&self, conn: &mut Conn) -> Result<bool, Fault> {
        let sql = "delete from audit_pending where n in (select n from audit_pending where instance = $1 and lane = $2 \
                   order by n limit $3) returning n, terms";
        let lane = vec![Param::Int(self.instance), Param::Int(self.lane.into()), Param::Int(INDEXED_AT_ONCE)];
        index(conn, sql, lane).await
    }
}

/// Moves what servers that have ended left waiting into the index.
pub async fn index_left(conn: &mut Conn) -> Result<(), Fault> {
    let sql =
        "delete from audit_pending where n in (select n from audit_pending order by n limit $1) returning n, terms";
    loop {
        conn.begin().await?;
        let more = index(conn, sql, vec![Param::Int(INDEXED_AT_ONCE)]).await?;
        conn.commit().await?;
        if !more {
            return Ok(());
        }
    }
}

async fn index(conn: &mut Conn, sql: &str, params: Vec<Param>) -> Result<bool, Fault> {
    let taken = conn.rows(sql, params).await?;
    let mut terms = Vec::new();
    for row in &taken {
        let (n, waiting) = pending(row)?;
        terms.extend(waiting.into_iter().map(|term| (term, n)));
    }
    insert_terms(conn, terms).await?;
    Ok(taken.len() as i64 == INDEXED_AT_ONCE)
}

/// Reads the columns n and terms of a row of `audit_pending`.
pub fn pending(row: &Row) -> Result<(i64, Vec<i64>), Fault> {
    Ok((row.int(0)?, row.ints(1)?))
}

/// Cuts entries into segments: of one month each, and within the limits of a segment.
fn segments<'a, 'b>(rows: &'b [&'a AuditRow]) -> Vec<&'b [&'a AuditRow]> {
    let mut cut = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, row) in rows.iter().enumerate() {
        let full = at - start == segment::ENTRIES_MAX || bytes + row.entry.len() > segment::BYTES_MAX;
        if at > start && (full || row.month != rows[start].month) {
            cut.push(&rows[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += row.entry.len();
    }
    if start < rows.len() {
        cut.push(&rows[start..]);
    }
    cut
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

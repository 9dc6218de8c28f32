//! The audit chain of one lane: segments of entries get a gapless number and the hash of the segment before. Deleting,
//! altering or reordering one shows when the chain is walked. Must not know what an entry says.

use aws_lc_rs::digest::{Context, SHA256};

use super::AuditRow;
use super::db::{Conn, Fault, Param, Row};
use super::dialect;
use super::segment::{self, SegmentPlace};
use crate::error::Error;
use crate::vault::Vault;

/// The number of a segment in the table, and its terms.
pub type Appended = (i64, Vec<i64>);

/// Where a lane's chain stands.
#[derive(Clone)]
pub struct Chain {
    instance: i64,
    lane: u32,
    next_seq: u64,
    prev: [u8; 32],
}

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

    /// Where the chain stands once this link is its last.
    pub fn after(link: &Link) -> Chain {
        let SegmentPlace { instance, lane, seq, .. } = link.place;
        let prev = chain_hash(instance, lane, seq, &link.prev, &link.commitment);
        Chain { instance, lane, next_seq: seq + 1, prev }
    }

    /// Whether the number of the link is given already.
    pub fn has(&self, link: &Link) -> bool {
        link.place.seq < self.next_seq
    }

    /// Inserts the entries in order, inside the open transaction; gives what is to be indexed. The state moves on at
    /// once: whoever rolls the transaction back must put the old state back too.
    pub async fn append(&mut self, conn: &mut Conn, vault: &Vault, rows: &[&AuditRow]) -> Result<Vec<Appended>, Fault> {
        insert(conn, &self.links(vault, rows).await?).await
    }

    /// The entries as the next links, which are nowhere yet. The state moves on at once, as in [`Chain::append`].
    pub async fn links(&mut self, vault: &Vault, rows: &[&AuditRow]) -> Result<Vec<Link>, Fault> {
        let mut links = Vec::new();
        for rows in segments(rows) {
            links.push(self.link(vault, rows).await?);
        }
        Ok(links)
    }

    /// The same for entries that fit one segment, as a transaction of their own that costs one exchange with the
    /// database instead of four. None: they do not fit.
    pub async fn append_at_once(
        &mut self,
        conn: &mut Conn,
        vault: &Vault,
        rows: &[&AuditRow],
    ) -> Result<Option<Appended>, Fault> {
        let [rows] = segments(rows)[..] else { return Ok(None) };
        let link = self.link(vault, rows).await?;
        link.insert(conn, dialect::audit_commit(conn)).await.map(Some)
    }

    /// Seals entries as the next link.
    async fn link(&mut self, vault: &Vault, rows: &[&AuditRow]) -> Result<Link, Fault> {
        let month = rows.first().map_or(0, |row| row.month);
        let place = SegmentPlace { month, instance: self.instance, lane: self.lane, seq: self.next_seq };
        let (sealed, commitment) = segment::seal(vault, place, rows).await.map_err(Fault::Sealing)?;
        let mut terms: Vec<i64> = rows.iter().flat_map(|row| row.terms.iter().copied()).collect();
        terms.sort_unstable();
        terms.dedup();
        let link = Link { place, prev: self.prev, commitment, sealed, terms };
        self.prev = chain_hash(self.instance, self.lane, self.next_seq, &self.prev, &commitment);
        self.next_seq += 1;
        Ok(link)
    }
}

/// One segment with its place in the chain, ready to be inserted.
#[derive(Clone)]
pub struct Link {
    pub place: SegmentPlace,
    pub prev: [u8; 32],
    pub commitment: [u8; 32],
    pub sealed: Vec<u8>,
    /// Distinct, in order.
    pub terms: Vec<i64>,
}

impl Link {
    pub fn bytes(&self) -> usize {
        self.sealed.len() + self.terms.len() * 8
    }

    /// Whether the database has a segment at this place.
    pub async fn stands(&self, conn: &mut Conn) -> Result<bool, Fault> {
        let SegmentPlace { instance, lane, seq, .. } = self.place;
        let sql = "select 1 from audit where instance = $1 and lane = $2 and seq = $3";
        let place = vec![Param::Int(instance), Param::Int(lane.into()), Param::Int(seq.cast_signed())];
        Ok(!conn.rows(sql, place).await?.is_empty())
    }

    /// Gives its number and the terms to be indexed.
    async fn insert(&self, conn: &mut Conn, sql: &str) -> Result<Appended, Fault> {
        let params = vec![
            Param::Int(self.place.month.into()),
            Param::Int(self.place.instance),
            Param::Int(self.place.lane.into()),
            Param::Int(self.place.seq.cast_signed()),
            Param::Bytes(self.prev.to_vec()),
            Param::Bytes(self.commitment.to_vec()),
            Param::Bytes(self.sealed.clone()),
            Param::Ints(self.terms.clone()),
        ];
        let given = conn.rows(sql, params).await?;
        let row = given.first().ok_or_else(|| Fault::Sealing(Error::internal("a segment without a number")))?;
        Ok((row.int(0)?, self.terms.clone()))
    }
}

/// Inserts links in order, inside the open transaction; gives what is to be indexed.
pub async fn insert(conn: &mut Conn, links: &[Link]) -> Result<Vec<Appended>, Fault> {
    let mut appended = Vec::with_capacity(links.len());
    for link in links {
        appended.push(link.insert(conn, dialect::audit_insert(conn)).await?);
    }
    Ok(appended)
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

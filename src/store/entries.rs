//! Reading audit segments back, for `audit`: by blind terms, by place, and in chain order for verification. What an
//! entry says is not known here.

use std::ops::RangeInclusive;

use super::Store;
use super::chain::pending;
use super::db::{Param, Row, placeholder_list};
use super::journal;
use super::segment::{self, AuditEntry, SegmentPlace};
use crate::error::Result;
use crate::vault::Rid;

/// One segment of audit entries as stored.
#[derive(Clone)]
pub struct AuditStored {
    /// Order of insertion.
    pub n: i64,
    pub place: SegmentPlace,
    pub prev: [u8; 32],
    pub commitment: [u8; 32],
    pub sealed: Vec<u8>,
}

/// A chain and the number in it.
pub type ChainPlace = (i64, u32, u64);

const COLUMNS: &str = "select a.n, a.month, a.instance, a.lane, a.seq, a.prev, a.commitment, a.sealed from audit a";

impl AuditStored {
    fn read(row: &Row) -> Result<AuditStored> {
        let place = SegmentPlace {
            month: row.small(1)?.cast_signed(),
            instance: row.int(2)?,
            lane: row.small(3)?,
            seq: row.int(4)?.cast_unsigned(),
        };
        Ok(AuditStored {
            n: row.int(0)?,
            place,
            // One of another length is no hash of anything: whoever compares it finds that it does not fit its place.
            prev: row.array(5).unwrap_or_default(),
            commitment: row.array(6).unwrap_or_default(),
            sealed: row.bytes(7)?.to_vec(),
        })
    }
}

impl Store {
    /// Waits until the database holds every entry that was appended before: by this process, and by `all` on this
    /// database. A walk need not wait for others again at each of its pages.
    async fn trail_settled(&self, all: bool) -> Result<()> {
        self.inner.lanes.settle().await?;
        if all { journal::settle_others(&self.inner.db, self.inner.instance).await } else { Ok(()) }
    }

    /// Segments that have at least one term of every list, within the months, newest or oldest first, from beyond the
    /// segment `from` (exclusive) on.
    pub async fn audit_scan(
        &self,
        terms: &[Vec<i64>],
        months: RangeInclusive<i32>,
        from: Option<i64>,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<AuditStored>> {
        self.trail_settled(from.is_none()).await?;
        if terms.iter().any(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let span = Span { months, from, newest_first, limit };
        if terms.is_empty() {
            return self.audit_rows(&span, "", Vec::new()).await;
        }
        // What waits for the index is looked at first: meanwhile it may move into it, never out of it.
        let waiting = self.audit_waiting(terms).await?;
        let mut params = Vec::new();
        let mut sql = String::new();
        for list in terms {
            let names = placeholder_list(list.len(), params.len());
            // `exists` lets the database walk segments in order when the term is common and the index when it is rare.
            let test = format!(" and exists (select 1 from audit_term t where t.n = a.n and t.term in ({names}))");
            let seek = format!(" and a.n in (select t.n from audit_term t where t.term in ({names}))");
            sql.push_str(if params.is_empty() { &seek } else { &test });
            params.extend(list.iter().map(|term| Param::Int(*term)));
        }
        let mut rows = self.audit_rows(&span, &sql, params).await?;
        if !waiting.is_empty() {
            let listed = format!(" and {}", self.inner.db.list("a.n", 1));
            rows.extend(self.audit_rows(&span, &listed, vec![Param::List(waiting)]).await?);
            rows.sort_unstable_by_key(|row| if newest_first { row.n.saturating_neg() } else { row.n });
            rows.dedup_by_key(|row| row.n);
            rows.truncate(limit);
        }
        Ok(rows)
    }

    /// Segments of a span that meet a condition, whose parameters come first.
    async fn audit_rows(&self, span: &Span, condition: &str, mut params: Vec<Param>) -> Result<Vec<AuditStored>> {
        let at = params.len();
        params.extend([Param::Int((*span.months.start()).into()), Param::Int((*span.months.end()).into())]);
        let mut sql = format!("{COLUMNS} where a.month between ${} and ${}{condition}", at + 1, at + 2);
        if let Some(from) = span.from {
            let sign = if span.newest_first { "<" } else { ">" };
            params.push(Param::Int(from));
            sql.push_str(&format!(" and a.n {sign} ${}", params.len()));
        }
        params.push(Param::Int(span.limit as i64));
        let order = if span.newest_first { "desc" } else { "asc" };
        sql.push_str(&format!(" order by a.n {order} limit ${}", params.len()));
        let rows = self.inner.readers.rows(&sql, params).await?;
        rows.iter().map(AuditStored::read).collect()
    }

    /// The segments that wait for the index and have at least one term of every list.
    async fn audit_waiting(&self, lists: &[Vec<i64>]) -> Result<Vec<i64>> {
        let rows = self.inner.readers.rows("select n, terms from audit_pending", Vec::new()).await?;
        let mut found = Vec::new();
        for row in &rows {
            let (n, terms) = pending(row)?;
            if lists.iter().all(|list| list.iter().any(|term| terms.binary_search(term).is_ok())) {
                found.push(n);
            }
        }
        Ok(found)
    }

    /// Opens a segment and holds it against its place and its commitment.
    ///
    /// # Errors
    /// `Kind::Tampered` when it is not what was recorded there.
    pub async fn audit_open(&self, row: &AuditStored) -> Result<Vec<AuditEntry>> {
        segment::open(&self.inner.vault, row).await
    }

    /// How many of these terms lead to the segment, in the index or waiting for it.
    pub async fn audit_indexed(&self, n: i64, terms: &[i64]) -> Result<usize> {
        let waiting = self.inner.readers.rows("select n, terms from audit_pending where n = $1", vec![Param::Int(n)]);
        let waiting = waiting.await?;
        let known = match waiting.first() {
            Some(row) => pending(row)?.1,
            None => Vec::new(),
        };
        let sql = format!("select term from audit_term where n = $1 and {}", self.inner.db.list("term", 2));
        let rows = self.inner.readers.rows(&sql, vec![Param::Int(n), Param::List(terms.to_vec())]).await?;
        let indexed: Vec<i64> = rows.iter().map(|row| row.int(0)).collect::<Result<_, _>>()?;
        Ok(terms.iter().filter(|term| indexed.contains(term) || known.binary_search(term).is_ok()).count())
    }

    /// The segment at a place of a chain.
    pub async fn audit_at(&self, (instance, lane, seq): ChainPlace) -> Result<Option<AuditStored>> {
        self.trail_settled(true).await?;
        let sql = format!("{COLUMNS} where a.instance = $1 and a.lane = $2 and a.seq = $3");
        let place = vec![Param::Int(instance), Param::Int(lane.into()), Param::Int(seq.cast_signed())];
        let rows = self.inner.readers.rows(&sql, place).await?;
        rows.first().map(AuditStored::read).transpose()
    }

    /// Numbers of segments that are gone while terms still lead to them, `limit` at most.
    pub async fn audit_dangling(&self, limit: usize) -> Result<Vec<i64>> {
        let sql = "select distinct t.n from (select n from audit_pending union all select n from audit_term) t \
                   where not exists (select 1 from audit a where a.n = t.n) order by t.n limit $1";
        let rows = self.inner.readers.rows(sql, vec![Param::Int(limit as i64)]).await?;
        Ok(rows.iter().map(|row| row.int(0)).collect::<Result<_, _>>()?)
    }

    /// First and last month of which there are segments.
    pub async fn audit_months(&self) -> Result<Option<(i32, i32)>> {
        self.trail_settled(true).await?;
        let sql =
            "select (select month from audit order by n limit 1), (select month from audit order by n desc limit 1)";
        let rows = self.inner.readers.rows(sql, Vec::new()).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        match (row.opt_int(0)?, row.opt_int(1)?) {
            (Some(_), Some(_)) => Ok(Some((row.small(0)?.cast_signed(), row.small(1)?.cast_signed()))),
            _ => Ok(None),
        }
    }

    /// Segments in the order of their chains: by instance, lane and number, after the place given.
    pub async fn audit_walk(&self, after: Option<ChainPlace>, limit: usize) -> Result<Vec<AuditStored>> {
        self.trail_settled(after.is_none()).await?;
        let (instance, lane, seq) = after.map_or((i64::MIN, 0, -1), |(i, l, s)| (i, i64::from(l), s.cast_signed()));
        let sql = format!(
            "{COLUMNS} where (a.instance, a.lane, a.seq) > ($1, $2, $3) order by a.instance, a.lane, a.seq limit $4"
        );
        let params = vec![Param::Int(instance), Param::Int(lane), Param::Int(seq), Param::Int(limit as i64)];
        let rows = self.inner.readers.rows(&sql, params).await?;
        rows.iter().map(AuditStored::read).collect()
    }

    /// The last number of every chain: (instance, lane, seq).
    pub async fn audit_heads(&self) -> Result<Vec<ChainPlace>> {
        self.trail_settled(true).await?;
        let sql = "select instance, lane, max(seq) from audit group by instance, lane order by instance, lane";
        let rows = self.inner.readers.rows(sql, Vec::new()).await?;
        rows.iter().map(|row| Ok((row.int(0)?, row.small(1)?, row.int(2)?.cast_unsigned()))).collect()
    }

    /// The instances that ever wrote here, with their number of lanes.
    pub async fn audit_instances(&self) -> Result<Vec<(i64, u32)>> {
        let sql = "select instance, lanes from audit_instance order by instance";
        let rows = self.inner.readers.rows(sql, Vec::new()).await?;
        rows.iter().map(|row| Ok((row.int(0)?, row.small(1)?))).collect()
    }

    /// SHA-256 over head and sealed sections of stored versions, in order of (rid, version), after the place given.
    pub async fn version_hashes(&self, after: Option<(Rid, u32)>, limit: usize) -> Result<Vec<(Rid, u32, [u8; 32])>> {
        // Rid 0 is no resource.
        let (rid, ver) = after.map_or((0, 0), |(rid, ver)| (rid.0, i64::from(ver)));
        let sql =
            "select rid, ver, head, sealed from record_version where (rid, ver) > ($1, $2) order by rid, ver limit $3";
        let params = vec![Param::Int(rid), Param::Int(ver), Param::Int(limit as i64)];
        let rows = self.inner.readers.rows(sql, params).await?;
        let hash = |row: &Row| -> Result<(Rid, u32, [u8; 32])> {
            Ok((Rid(row.int(0)?), row.small(1)?, super::seal::version_hash(row.bytes(2)?, row.bytes(3)?)))
        };
        rows.iter().map(hash).collect()
    }

    /// The current version number of resources, in order of rid, after the one given.
    pub async fn current_versions(&self, after: Option<Rid>, limit: usize) -> Result<Vec<(Rid, u32)>> {
        let sql = "select rid, ver from record where rid > $1 order by rid limit $2";
        let params = vec![Param::Int(after.map_or(0, |rid| rid.0)), Param::Int(limit as i64)];
        let rows = self.inner.readers.rows(sql, params).await?;
        rows.iter().map(|row| Ok((Rid(row.int(0)?), row.small(1)?))).collect()
    }
}

/// Every segment, in the order of the chains.
#[cfg(test)]
pub async fn all(conn: &mut super::db::Conn) -> Result<Vec<AuditStored>> {
    let rows = conn.rows(&format!("{COLUMNS} order by a.instance, a.lane, a.seq"), Vec::new()).await?;
    rows.iter().map(AuditStored::read).collect()
}

/// A stretch of the trail.
struct Span {
    months: RangeInclusive<i32>,
    from: Option<i64>,
    newest_first: bool,
    limit: usize,
}

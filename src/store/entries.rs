//! Reading audit entries back as they lie there, for `audit`: by blind terms, by id, and in chain order for
//! verification. What an entry says is sealed; nothing here can open it.

use std::ops::RangeInclusive;

use super::Store;
use super::db::{Param, Row, placeholder_list};
use crate::error::Result;
use crate::vault::Rid;

/// One audit entry as stored.
#[derive(Clone)]
pub struct AuditStored {
    /// Order of insertion.
    pub n: i64,
    pub id: String,
    pub month: i32,
    pub instance: i64,
    pub lane: u32,
    pub seq: u64,
    pub prev: [u8; 32],
    pub commitment: [u8; 32],
    pub sealed: Vec<u8>,
}

const COLUMNS: &str =
    "select a.n, a.id, a.month, a.instance, a.lane, a.seq, a.prev, a.commitment, a.sealed from audit a";

impl AuditStored {
    fn read(row: &Row) -> Result<AuditStored> {
        Ok(AuditStored {
            n: row.int(0)?,
            id: row.text(1)?.to_owned(),
            month: row.small(2)?.cast_signed(),
            instance: row.int(3)?,
            lane: row.small(4)?,
            seq: row.int(5)?.cast_unsigned(),
            prev: row.array(6)?,
            commitment: row.array(7)?,
            sealed: row.bytes(8)?.to_vec(),
        })
    }
}

impl Store {
    /// Entries that have at least one term of every list, within the months, newest or oldest first, from beyond the
    /// entry `from` (exclusive) on.
    pub async fn audit_scan(
        &self,
        terms: &[Vec<i64>],
        months: RangeInclusive<i32>,
        from: Option<i64>,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<AuditStored>> {
        if terms.iter().any(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut params = vec![Param::Int((*months.start()).into()), Param::Int((*months.end()).into())];
        let mut sql = format!("{COLUMNS} where a.month between $1 and $2");
        for list in terms {
            let names = placeholder_list(list.len(), params.len());
            // `exists` lets the database walk entries in order when the term is common and the index when it is rare.
            let test = format!(" and exists (select 1 from audit_term t where t.n = a.n and t.term in ({names}))");
            let seek = format!(" and a.n in (select t.n from audit_term t where t.term in ({names}))");
            sql.push_str(if params.len() == 2 { &seek } else { &test });
            params.extend(list.iter().map(|term| Param::Int(*term)));
        }
        if let Some(from) = from {
            let sign = if newest_first { "<" } else { ">" };
            params.push(Param::Int(from));
            sql.push_str(&format!(" and a.n {sign} ${}", params.len()));
        }
        params.push(Param::Int(limit as i64));
        let order = if newest_first { "desc" } else { "asc" };
        sql.push_str(&format!(" order by a.n {order} limit ${}", params.len()));
        let rows = self.inner.readers.rows(&sql, params).await?;
        rows.iter().map(AuditStored::read).collect()
    }

    pub async fn audit_get(&self, id: &str) -> Result<Option<AuditStored>> {
        let sql = format!("{COLUMNS} where a.id = $1");
        let rows = self.inner.readers.rows(&sql, vec![Param::Text(id.to_owned())]).await?;
        rows.first().map(AuditStored::read).transpose()
    }

    /// First and last month of which there are entries.
    pub async fn audit_months(&self) -> Result<Option<(i32, i32)>> {
        let sql =
            "select (select month from audit order by n limit 1), (select month from audit order by n desc limit 1)";
        let rows = self.inner.readers.rows(sql, Vec::new()).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        match (row.opt_int(0)?, row.opt_int(1)?) {
            (Some(_), Some(_)) => Ok(Some((row.small(0)?.cast_signed(), row.small(1)?.cast_signed()))),
            _ => Ok(None),
        }
    }

    /// Entries in the order of their chains: by instance, lane and number, after the place given.
    pub async fn audit_walk(&self, after: Option<(i64, u32, u64)>, limit: usize) -> Result<Vec<AuditStored>> {
        let (instance, lane, seq) = after.map_or((i64::MIN, 0, -1), |(i, l, s)| (i, i64::from(l), s.cast_signed()));
        let sql = format!(
            "{COLUMNS} where (a.instance, a.lane, a.seq) > ($1, $2, $3) order by a.instance, a.lane, a.seq limit $4"
        );
        let params = vec![Param::Int(instance), Param::Int(lane), Param::Int(seq), Param::Int(limit as i64)];
        let rows = self.inner.readers.rows(&sql, params).await?;
        rows.iter().map(AuditStored::read).collect()
    }

    /// The last number of every chain: (instance, lane, seq).
    pub async fn audit_heads(&self) -> Result<Vec<(i64, u32, u64)>> {
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

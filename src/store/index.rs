//! Whether what searches go by is still what was written: every record opens under its year and terms, its terms are
//! those of its values, and (SQLite) each of them has its posting. Runs beside a live server.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::db::{Param, Row, placeholders};
use super::read::{STORED, STORED_FROM, State, Stored};
use super::{Store, apply};
use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::search::{View, terms};
use crate::vault::{Keys, Pk, Rid};

/// Rows fetched at once.
const CHUNK: usize = 500;
/// Faults that are named; the others are counted.
const NAMED_MAX: usize = 20;
/// Postings asked for in one statement.
const POSTINGS_MAX: usize = 64;

/// What can be wrong with the row of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexFlaw {
    /// The row does not open as it stands: something of it was altered, its year or terms among them.
    Altered,
    /// Terms without their posting: searches that go by them do not find the resource.
    Unposted,
    /// The row opens, but its terms are not those of its values: written by another version or other mappings.
    Outdated,
    /// Versions without a record: it was taken away.
    Missing,
}

/// The outcome; nothing in it is PHI.
#[derive(Clone, Debug, Default)]
pub struct IndexReport {
    pub resources: u64,
    /// Rows whose key was destroyed: nothing can be said of them.
    pub erased: u64,
    /// The first faults, by row id.
    pub faults: Vec<(IndexFlaw, i64)>,
    pub counts: BTreeMap<IndexFlaw, u64>,
}

impl IndexFlaw {
    fn text(self) -> &'static str {
        match self {
            IndexFlaw::Altered => "the row was altered",
            IndexFlaw::Unposted => "terms without their posting: searches miss it",
            IndexFlaw::Outdated => "terms are not those of its values",
            IndexFlaw::Missing => "versions without their record",
        }
    }
}

impl IndexReport {
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    fn add(&mut self, flaw: IndexFlaw, rid: i64) {
        *self.counts.entry(flaw).or_default() += 1;
        if self.faults.len() < NAMED_MAX {
            self.faults.push((flaw, rid));
        }
    }
}

impl fmt::Display for IndexReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} resources, {} erased", self.resources, self.erased)?;
        for (flaw, rid) in &self.faults {
            write!(f, "\n{}: row {rid}", flaw.text())?;
        }
        for (flaw, count) in &self.counts {
            write!(f, "\n{count} rows: {}", flaw.text())?;
        }
        Ok(())
    }
}

impl Store {
    /// Goes through every record.
    ///
    /// # Errors
    /// Only when the database or the keys cannot be read; faults are in the report.
    pub async fn check_index(&self) -> Result<IndexReport> {
        let mut report = IndexReport::default();
        let mut after = 0;
        loop {
            let rows = self.index_rows("r.rid > $1 order by r.rid limit $2", after, CHUNK as i64).await?;
            let Some(last) = rows.last() else { break };
            after = last.int(0)?;
            let suspects = self.flaws(&rows, Some(&mut report)).await?;
            // Something may have been written between two looks: what is suspect is looked at once more, alone.
            for (rid, _) in suspects {
                let again = self.index_rows("r.rid = $1 limit $2", rid, 1).await?;
                if let Some((_, flaw)) = self.flaws(&again, None).await?.pop() {
                    report.add(flaw, rid);
                }
            }
        }
        self.recordless(&mut report).await?;
        Ok(report)
    }

    async fn index_rows(&self, wanted: &str, rid: i64, most: i64) -> Result<Vec<Row>> {
        let sql = format!("{STORED}, r.rtype{STORED_FROM} where {wanted}");
        self.inner.lookups.rows(&sql, vec![Param::Int(rid), Param::Int(most)]).await
    }

    /// The rows that are not as they should be.
    async fn flaws(&self, rows: &[Row], mut report: Option<&mut IndexReport>) -> Result<Vec<(i64, IndexFlaw)>> {
        let mut flaws = Vec::new();
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            let kind = u16::try_from(row.int(11)?).map(TypeId);
            match (Stored::read(row, false), kind) {
                (Ok(stored), Ok(kind)) => read.push((stored, kind)),
                (Err(error), _) if error.kind != Kind::Tampered => return Err(error),
                _ => flaws.push((row.int(0)?, IndexFlaw::Altered)),
            }
        }
        let pks: Vec<Pk> = read.iter().map(|(stored, _)| stored.pk).collect();
        let keys = self.inner.vault.keys(&pks).await?;
        let postings = self.postings(&read).await?;
        for ((stored, kind), keys) in read.iter().zip(keys) {
            let flaw = self.flaw(stored, *kind, keys.as_deref(), postings.as_ref(), report.as_deref_mut())?;
            flaws.extend(flaw.map(|flaw| (stored.rid.0, flaw)));
        }
        Ok(flaws)
    }

    fn flaw(
        &self,
        stored: &Stored,
        kind: TypeId,
        keys: Option<&Keys>,
        postings: Option<&HashMap<Rid, usize>>,
        report: Option<&mut IndexReport>,
    ) -> Result<Option<IndexFlaw>> {
        let state = match stored.open(kind, None, keys) {
            Err(error) if error.kind == Kind::Tampered => return Ok(Some(IndexFlaw::Altered)),
            state => state?,
        };
        if let Some(report) = report {
            match state {
                State::Erased => report.erased += 1,
                State::Live(_) => report.resources += 1,
                State::Deleted(_) => {}
            }
        }
        let State::Live(plain) = state else { return Ok(None) };
        let view = View::new(&plain)?;
        if self.id_token(kind, view.id()) != stored.id_token {
            return Ok(Some(IndexFlaw::Altered));
        }
        let values = view.to_values()?;
        if terms::terms(&values, stored.pk, &self.inner.vault) != stored.terms
            || terms::year(&values).map(i64::from) != stored.yr
        {
            return Ok(Some(IndexFlaw::Outdated));
        }
        let posted = postings.map(|postings| postings.get(&stored.rid).copied().unwrap_or(0));
        Ok(posted.filter(|posted| *posted != stored.terms.len()).map(|_| IndexFlaw::Unposted))
    }

    /// How many of the terms of each row have a posting; None where there is no such table.
    async fn postings(&self, rows: &[(Stored, TypeId)]) -> Result<Option<HashMap<Rid, usize>>> {
        if self.inner.db.is_postgres() {
            return Ok(None);
        }
        let wanted: Vec<(i64, i64)> =
            rows.iter().flat_map(|(row, _)| row.terms.iter().map(|term| (*term, row.rid.0))).collect();
        let mut found: HashMap<Rid, usize> = HashMap::new();
        for chunk in apply::Chunks::of(&wanted, POSTINGS_MAX) {
            let pairs = placeholders(chunk.len(), 2, 0);
            let sql = format!("select rid from posting where (term, rid) in (values {pairs})");
            let params = chunk.iter().flat_map(|(term, rid)| [Param::Int(*term), Param::Int(*rid)]).collect();
            for row in self.inner.lookups.rows(&sql, params).await? {
                *found.entry(Rid(row.int(0)?)).or_default() += 1;
            }
        }
        Ok(Some(found))
    }

    async fn recordless(&self, report: &mut IndexReport) -> Result<()> {
        let sql = "select distinct v.rid from record_version v where v.rid <> 0 and v.ver > 0 \
                   and not exists (select 1 from record r where r.rid = v.rid)";
        for row in self.inner.lookups.rows(sql, Vec::new()).await? {
            report.add(IndexFlaw::Missing, row.int(0).map_err(Error::from)?);
        }
        Ok(())
    }
}

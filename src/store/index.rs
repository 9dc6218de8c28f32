//! Whether what searches go by is still what was written: every record opens under its year and terms, its terms are
//! those of its values, (SQLite) each of them has its posting, and what stands beside the records fits them (`beside`).
//! Runs beside a live server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::db::{Param, Row, placeholders};
use super::read::{STORED, STORED_FROM, State, Stored};
use super::{Store, apply};
use crate::error::{Error, Kind, Result, unless_tampered};
use crate::fhir::TypeId;
use crate::search::{View, terms};
use crate::vault::{Keys, Rid};

/// Rows fetched at once.
const CHUNK: usize = 500;
/// Faults of one kind that are named; the others are counted.
const NAMED_MAX: u64 = 20;
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
    /// Key records that do not verify.
    Keyless,
    /// The compartment of its patient or type is gone, does not open, or leads to other rows.
    Astray,
    /// A value that must be unique in the whole server could be given again.
    Unclaimed,
    /// A unique value is held for a resource that is not there.
    Claim,
    /// A domain row is not the one that was written, is left over, or is gone.
    Domain,
    /// A version that no line of the version log is about.
    Unlogged,
    /// A line of the version log that does not open.
    Line,
}

/// The outcome; nothing in it is PHI.
#[derive(Clone, Debug, Default)]
pub struct IndexReport {
    pub resources: u64,
    /// Rows whose key was destroyed: nothing can be said of them.
    pub erased: u64,
    /// The first faults, with their places: row ids, numbers of lines.
    pub faults: Vec<(IndexFlaw, String)>,
    pub counts: BTreeMap<IndexFlaw, u64>,
}

impl IndexFlaw {
    fn text(self) -> &'static str {
        match self {
            IndexFlaw::Altered => "the row was altered",
            IndexFlaw::Unposted => "terms without their posting: searches miss it",
            IndexFlaw::Outdated => "terms are not those of its values",
            IndexFlaw::Missing => "versions without their record",
            IndexFlaw::Keyless => "the key record does not verify",
            IndexFlaw::Astray => "the compartment is gone or altered: searches for the patient miss it",
            IndexFlaw::Unclaimed => "its number is not held: it could be given again",
            IndexFlaw::Claim => "a unique value is held for a row that is not there",
            IndexFlaw::Domain => "the domain row is gone, left over or altered",
            IndexFlaw::Unlogged => "a version is missing in the log: histories of types miss it",
            IndexFlaw::Line => "the line of the version log was altered",
        }
    }
}

impl IndexReport {
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    pub(super) fn add(&mut self, flaw: IndexFlaw, place: impl Into<String>) {
        let count = self.counts.entry(flaw).or_default();
        *count += 1;
        if *count <= NAMED_MAX {
            self.faults.push((flaw, place.into()));
        }
    }
}

impl fmt::Display for IndexReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} resources, {} erased", self.resources, self.erased)?;
        for (flaw, place) in &self.faults {
            write!(f, "\n{}: {place}", flaw.text())?;
        }
        for (flaw, count) in &self.counts {
            write!(f, "\n{count} in all: {}", flaw.text())?;
        }
        Ok(())
    }
}

/// A record with what it is and what it opened to.
pub(super) struct Opened {
    pub stored: Stored,
    pub kind: TypeId,
    pub plain: Zeroizing<Vec<u8>>,
}

impl Store {
    /// Goes through every record, and through what stands beside them. `number_system` is the identifier system of the
    /// numbers that the server gives.
    ///
    /// # Errors
    /// Only when the database or the keys cannot be read; faults are in the report.
    pub async fn check_index(&self, number_system: &str) -> Result<IndexReport> {
        let mut report = IndexReport::default();
        let mut after = 0;
        loop {
            let rows = self.index_rows("r.rid > $1 order by r.rid limit $2", after, CHUNK as i64).await?;
            let Some(last) = rows.last() else { break };
            after = last.int(0)?;
            let suspects = self.flaws(&rows, number_system, Some(&mut report)).await?;
            // Something may have been written between two looks: what is suspect is looked at once more, alone.
            for rid in BTreeSet::from_iter(suspects.into_iter().map(|(rid, _)| rid)) {
                let again = self.index_rows("r.rid = $1 limit $2", rid, 1).await?;
                for (_, flaw) in self.flaws(&again, number_system, None).await? {
                    report.add(flaw, format!("row {rid}"));
                }
            }
        }
        self.recordless(&mut report).await?;
        self.check_beside(&mut report).await?;
        Ok(report)
    }

    async fn index_rows(&self, wanted: &str, rid: i64, most: i64) -> Result<Vec<Row>> {
        let sql = format!("{STORED}, r.rtype{STORED_FROM} where {wanted}");
        self.inner.lookups.rows(&sql, vec![Param::Int(rid), Param::Int(most)]).await
    }

    /// The rows that are not as they should be.
    async fn flaws(
        &self,
        rows: &[Row],
        number_system: &str,
        mut report: Option<&mut IndexReport>,
    ) -> Result<Vec<(i64, IndexFlaw)>> {
        let mut flaws = Vec::new();
        let mut live = Vec::with_capacity(rows.len());
        for row in rows {
            let kind = u16::try_from(row.int(11)?).map(TypeId);
            let (stored, kind) = match (Stored::read(row, false), kind) {
                (Ok(stored), Ok(kind)) => (stored, kind),
                (Err(error), _) if error.kind != Kind::Tampered => return Err(error),
                _ => {
                    flaws.push((row.int(0)?, IndexFlaw::Altered));
                    continue;
                }
            };
            let keys = match unless_tampered(self.keys(stored.pk).await)? {
                Some(keys) => keys,
                None => {
                    flaws.push((stored.rid.0, IndexFlaw::Keyless));
                    continue;
                }
            };
            match self.opened(stored, kind, keys, report.as_deref_mut()) {
                Ok(Some(opened)) => live.push(opened),
                Ok(None) => {}
                Err(rid) => flaws.push((rid?.0, IndexFlaw::Altered)),
            }
        }
        let postings = self.postings(&live).await?;
        for opened in &live {
            let flaw = self.flaw(opened, postings.as_ref())?;
            flaws.extend(flaw.map(|flaw| (opened.stored.rid.0, flaw)));
        }
        flaws.extend(self.flaws_beside(&live, number_system).await?);
        Ok(flaws)
    }

    /// None: it is deleted or erased. The error: the row does not open, or (inner) it cannot be told.
    fn opened(
        &self,
        stored: Stored,
        kind: TypeId,
        keys: Option<Arc<Keys>>,
        report: Option<&mut IndexReport>,
    ) -> Result<Option<Opened>, Result<Rid>> {
        let state = match unless_tampered(stored.open(kind, None, keys.as_deref())) {
            Ok(Some(state)) => state,
            Ok(None) => return Err(Ok(stored.rid)),
            Err(error) => return Err(Err(error)),
        };
        if let Some(report) = report {
            match state {
                State::Erased => report.erased += 1,
                State::Live(_) => report.resources += 1,
                State::Deleted(_) => {}
            }
        }
        match state {
            State::Live(plain) => Ok(Some(Opened { stored, kind, plain })),
            State::Deleted(_) | State::Erased => Ok(None),
        }
    }

    fn flaw(&self, opened: &Opened, postings: Option<&HashMap<Rid, usize>>) -> Result<Option<IndexFlaw>> {
        let Opened { stored, kind, plain } = opened;
        let view = View::new(plain)?;
        if self.id_token(*kind, view.id()) != stored.id_token {
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
    async fn postings(&self, rows: &[Opened]) -> Result<Option<HashMap<Rid, usize>>> {
        if self.inner.db.is_postgres() {
            return Ok(None);
        }
        let wanted: Vec<(i64, i64)> =
            rows.iter().flat_map(|row| row.stored.terms.iter().map(|term| (*term, row.stored.rid.0))).collect();
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
            report.add(IndexFlaw::Missing, format!("row {}", row.int(0).map_err(Error::from)?));
        }
        Ok(())
    }
}

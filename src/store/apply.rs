//! What one write puts into the database, as sealed rows, and the statements that put it there inside an open
//! transaction. A precondition that does not hold shows as a row that was not touched. Must not know plaintext.

use std::collections::{BTreeMap, HashMap};

use super::custom;
use super::db::{Conn, Fault, Param, chunk_sizes, placeholder_list, placeholders};
use super::dialect;
use super::premise::Premise;
use super::refer::{self, Orphaning, Standing, Target};
use crate::error::{Error, Issue, Kind};
use crate::fhir::definitions;
use crate::vault::{Pk, Rid};

/// The new state of one resource's row.
#[derive(Clone)]
pub struct RecordRow {
    pub rid: Rid,
    pub rtype: u16,
    pub id_token: [u8; 16],
    /// The version that must stand there now; None: the resource must not exist.
    pub base: Option<u32>,
    pub pk: Pk,
    pub yr: Option<i16>,
    pub ver: u32,
    pub deleted: bool,
    /// Sealed; empty when deleted.
    pub capsule: Vec<u8>,
    pub terms: Vec<i64>,
    /// The terms of the version in `base`.
    pub terms_before: Vec<i64>,
}

/// One version for the history.
#[derive(Clone)]
pub struct VersionRow {
    pub rid: Rid,
    pub ver: u32,
    pub pk: Pk,
    pub head: Vec<u8>,
    pub sealed: Vec<u8>,
    pub rtype: u16,
    /// Its line in the log of all versions, sealed.
    pub line: Vec<u8>,
}

/// A row of a domain table, sealed.
#[derive(Clone)]
pub struct DomainSealed {
    /// One of [`DOMAIN_TABLES`].
    pub table: &'static str,
    pub rid: Rid,
    pub pk: Pk,
    pub ver: u32,
    pub sealed: Vec<u8>,
}

/// Everything one write changes; all of it or nothing.
#[derive(Clone, Default)]
pub struct WriteSet {
    pub records: Vec<RecordRow>,
    pub versions: Vec<VersionRow>,
    pub domain: Vec<DomainSealed>,
    /// Rows that no longer have a domain row: (table, rid).
    pub domain_gone: Vec<(&'static str, Rid)>,
    /// Blind tokens of what must be unique, and who has them.
    pub claims: Vec<([u8; 16], Rid)>,
    /// Rows whose earlier claims end with this write.
    pub claims_of: Vec<Rid>,
    /// Counters that must have reached a number once this is applied.
    pub raises: Vec<(&'static str, u32)>,
    /// What the conditions of the request rest on.
    pub premises: Vec<Premise>,
    /// The epoch of the site's search parameters that it was sealed under.
    pub epoch: i64,
    /// Rows are being gone through for a search parameter: their terms may be others than those that were read.
    pub terms_may_move: bool,
    /// Search parameters that it changes.
    pub parameters: Vec<custom::Change>,
    /// What it refers to, and what it deletes, where references are to hold.
    pub targets: Vec<Target>,
    pub orphaning: Vec<Orphaning>,
    /// A small value that must stand, and is changed with it.
    pub pledge: Option<Pledge>,
}

/// A small value that says whether a write was kept, changed in its transaction: whoever changes it first decides.
#[derive(Clone)]
pub struct Pledge {
    pub space: &'static str,
    pub token: Vec<u8>,
    /// As [`super::Store::kv_get`] gives it.
    pub old: Vec<u8>,
    pub new: Vec<u8>,
}

/// The domain tables there are.
pub const DOMAIN_TABLES: [&str; 5] = ["patient", "appointment", "medical_record", "document", "care_relation"];

/// The counter of changes of Consent resources.
pub const CONSENT_EPOCH: &str = "consent-epoch";
pub const NEXT_CONSENT_EPOCH: &str =
    "insert into counter (name, n) values ($1, 1) on conflict (name) do update set n = counter.n + 1";

/// Rows per multi-row statement; with [`chunk_sizes`] only 1, 4, 16 and 64 occur.
const ROWS_MAX: usize = 64;
const POSTINGS_MAX: usize = 256;

/// Why a write set was not applied.
pub enum Refusal {
    /// A precondition does not hold; only this set is concerned.
    Conflict(Error),
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
}

impl WriteSet {
    /// Whether it changes which search parameters there are, or which can be searched by.
    pub fn begins_epoch(&self) -> bool {
        self.parameters.iter().any(custom::Change::begins_epoch)
    }

    /// Roughly how many bytes it sends to the database.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|row| row.capsule.len() + 8 * row.terms.len() + 64).sum::<usize>()
            + self.versions.iter().map(|row| row.head.len() + row.sealed.len() + row.line.len() + 48).sum::<usize>()
            + self.domain.iter().map(|row| row.sealed.len() + 32).sum::<usize>()
    }

    /// Applies it inside the open transaction of `conn`. The caller undoes what was done when it is refused.
    pub async fn apply(&self, conn: &mut Conn, standing: &mut Standing) -> Result<(), Refusal> {
        // Before anything is touched: a write whose references do not hold costs the others nothing.
        standing.holds(self)?;
        for premise in &self.premises {
            premise.check(conn).await?;
        }
        for change in &self.parameters {
            change.apply(conn).await?;
        }
        if let Some(pledge) = &self.pledge {
            pledge.apply(conn).await?;
        }
        let moves = matches!(conn, Conn::Sqlite(_));
        let moved = if moves && self.terms_may_move { self.standing_terms(conn).await? } else { HashMap::new() };
        self.insert_records(conn).await?;
        self.update_records(conn).await?;
        self.insert_versions(conn).await?;
        self.log_versions(conn).await?;
        if moves {
            self.move_postings(conn, &moved).await?;
        }
        self.put_domain(conn).await?;
        self.put_claims(conn).await?;
        self.raise_counters(conn).await?;
        self.count_consents(conn).await?;
        refer::check(conn, self).await?;
        standing.follow(self);
        Ok(())
    }

    async fn insert_records(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let new: Vec<&RecordRow> = self.records.iter().filter(|row| row.base.is_none()).collect();
        for rows in Chunks::of(&new, ROWS_MAX) {
            let sql = format!(
                "insert into record (rid, rtype, id_token, pk, yr, ver, deleted, capsule, terms) values {} \
                 on conflict do nothing",
                placeholders(rows.len(), 9, 0)
            );
            let mut params = Vec::with_capacity(rows.len() * 9);
            for row in rows {
                params.extend([
                    Param::Int(row.rid.0),
                    Param::Int(row.rtype.into()),
                    Param::Bytes(row.id_token.to_vec()),
                    Param::Int(row.pk.0),
                    Param::OptInt(row.yr.map(i64::from)),
                    Param::Int(row.ver.into()),
                    Param::Int(row.deleted.into()),
                    Param::Bytes(row.capsule.clone()),
                    Param::Ints(row.terms.clone()),
                ]);
            }
            if conn.run(&sql, params).await? != rows.len() as u64 {
                return Err(changed());
            }
        }
        Ok(())
    }

    async fn update_records(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let changes: Vec<(&RecordRow, u32)> =
            self.records.iter().filter_map(|row| row.base.map(|base| (row, base))).collect();
        for rows in Chunks::of(&changes, ROWS_MAX) {
            // Both databases name the columns of VALUES column1, column2 ...
            let sql = format!(
                "update record set pk = n.column3, yr = n.column4, ver = n.column5, deleted = n.column6, \
                 capsule = n.column7, terms = n.column8 from (values {}) as n \
                 where record.rid = n.column1 and record.ver = n.column2",
                placeholders(rows.len(), 8, 0)
            );
            let mut params = Vec::with_capacity(rows.len() * 8);
            for (row, base) in rows {
                params.extend([
                    Param::Int(row.rid.0),
                    Param::Int((*base).into()),
                    Param::Int(row.pk.0),
                    Param::OptInt(row.yr.map(i64::from)),
                    Param::Int(row.ver.into()),
                    Param::Int(row.deleted.into()),
                    Param::Bytes(row.capsule.clone()),
                    Param::Ints(row.terms.clone()),
                ]);
            }
            if conn.run(&sql, params).await? != rows.len() as u64 {
                return Err(changed());
            }
        }
        Ok(())
    }

    async fn insert_versions(&self, conn: &mut Conn) -> Result<(), Refusal> {
        for rows in Chunks::of(&self.versions, ROWS_MAX) {
            let sql = format!(
                "insert into record_version (rid, ver, pk, head, sealed) values {} on conflict do nothing",
                placeholders(rows.len(), 5, 0)
            );
            let mut params = Vec::with_capacity(rows.len() * 5);
            for row in rows {
                params.extend([
                    Param::Int(row.rid.0),
                    Param::Int(row.ver.into()),
                    Param::Int(row.pk.0),
                    Param::Bytes(row.head.clone()),
                    Param::Bytes(row.sealed.clone()),
                ]);
            }
            if conn.run(&sql, params).await? != rows.len() as u64 {
                return Err(changed());
            }
        }
        Ok(())
    }

    /// After the versions: two that follow each other on one resource wait for each other there, so that their numbers
    /// stand in the same order.
    async fn log_versions(&self, conn: &mut Conn) -> Result<(), Refusal> {
        for rows in Chunks::of(&self.versions, ROWS_MAX) {
            let sql = format!("insert into version_log (rtype, sealed) values {}", placeholders(rows.len(), 2, 0));
            let params = rows.iter().flat_map(|row| [Param::Int(row.rtype.into()), Param::Bytes(row.line.clone())]);
            conn.run(&sql, params.collect()).await?;
        }
        Ok(())
    }

    /// The terms that the rows have now.
    async fn standing_terms(&self, conn: &mut Conn) -> Result<HashMap<Rid, Vec<i64>>, Refusal> {
        let mut standing = HashMap::new();
        let rids: Vec<Rid> = self.records.iter().filter(|row| row.base.is_some()).map(|row| row.rid).collect();
        for rids in Chunks::of(&rids, ROWS_MAX) {
            let sql = format!("select rid, terms from record where rid in ({})", placeholder_list(rids.len(), 0));
            for row in conn.rows(&sql, rids.iter().map(|rid| Param::Int(rid.0)).collect()).await? {
                standing.insert(Rid(row.int(0)?), row.ints(1)?);
            }
        }
        Ok(standing)
    }

    async fn move_postings(&self, conn: &mut Conn, standing: &HashMap<Rid, Vec<i64>>) -> Result<(), Refusal> {
        let mut gone = Vec::new();
        let mut come = Vec::new();
        for row in &self.records {
            let absent_in = |list: &[i64], term: &i64| !list.contains(term);
            let before = standing.get(&row.rid).unwrap_or(&row.terms_before);
            gone.extend(before.iter().filter(|t| absent_in(&row.terms, t)).map(|t| (*t, row.rid.0)));
            come.extend(row.terms.iter().filter(|t| absent_in(before, t)).map(|t| (*t, row.rid.0)));
        }
        // In the order of the table, so that neighbours touch the same pages.
        come.sort_unstable();
        for (rows, sql) in [(gone, dialect::POSTINGS_DELETE), (come, dialect::POSTINGS_INSERT)] {
            for rows in Chunks::of(&padded(rows, POSTINGS_MAX), POSTINGS_MAX) {
                let params = rows.iter().flat_map(|(term, rid)| [Param::Int(*term), Param::Int(*rid)]).collect();
                conn.run(&sql.replace("{}", &placeholders(rows.len(), 2, 0)), params).await?;
            }
        }
        Ok(())
    }

    async fn put_domain(&self, conn: &mut Conn) -> Result<(), Refusal> {
        for table in DOMAIN_TABLES {
            let rows: Vec<&DomainSealed> = self.domain.iter().filter(|row| row.table == table).collect();
            for rows in Chunks::of(&rows, ROWS_MAX) {
                let sql = format!(
                    "insert into {table} (rid, pk, ver, sealed) values {} on conflict (rid) do update set \
                     pk = excluded.pk, ver = excluded.ver, sealed = excluded.sealed",
                    placeholders(rows.len(), 4, 0)
                );
                let mut params = Vec::with_capacity(rows.len() * 4);
                for row in rows {
                    params.extend([
                        Param::Int(row.rid.0),
                        Param::Int(row.pk.0),
                        Param::Int(row.ver.into()),
                        Param::Bytes(row.sealed.clone()),
                    ]);
                }
                conn.run(&sql, params).await?;
            }
            let gone: Vec<Rid> = self.domain_gone.iter().filter(|(of, _)| *of == table).map(|(_, rid)| *rid).collect();
            for rids in Chunks::of(&gone, ROWS_MAX) {
                let sql = format!("delete from {table} where rid in ({})", placeholder_list(rids.len(), 0));
                conn.run(&sql, rids.iter().map(|rid| Param::Int(rid.0)).collect()).await?;
            }
        }
        Ok(())
    }

    async fn put_claims(&self, conn: &mut Conn) -> Result<(), Refusal> {
        for rids in Chunks::of(&self.claims_of, ROWS_MAX) {
            let sql = format!("delete from claim where rid in ({})", placeholder_list(rids.len(), 0));
            conn.run(&sql, rids.iter().map(|rid| Param::Int(rid.0)).collect()).await?;
        }
        for rows in Chunks::of(&self.claims, ROWS_MAX) {
            let sql = format!(
                "insert into claim (token, rid) values {} on conflict do nothing",
                placeholders(rows.len(), 2, 0)
            );
            let params = rows.iter().flat_map(|(token, rid)| [Param::Bytes(token.to_vec()), Param::Int(rid.0)]);
            if conn.run(&sql, params.collect()).await? != rows.len() as u64 {
                return Err(Refusal::Conflict(taken()));
            }
        }
        Ok(())
    }
}

/// What is told of a value that must be unique and is not.
pub(super) fn taken() -> Error {
    let text = "A value that must be unique on this server (such as a medical record number) is in use.";
    Error::with_issues(Kind::Conflict, vec![Issue::error("duplicate", text)])
}

impl Pledge {
    async fn apply(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let sql = "update kv set sealed = $4 where space = $1 and token = $2 and sealed = $3";
        let (token, old, new) = (self.token.clone(), self.old.clone(), self.new.clone());
        let params =
            vec![Param::Text(self.space.to_owned()), Param::Bytes(token), Param::Bytes(old), Param::Bytes(new)];
        match conn.run(sql, params).await? {
            1 => Ok(()),
            // Not a conflict: doing it again cannot help.
            _ => Err(Refusal::Conflict(Error::new(
                Kind::Unavailable,
                "The request was given up; nothing of it was kept.",
            ))),
        }
    }
}

impl WriteSet {
    /// A number that a client brought along must not be given again.
    async fn raise_counters(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let mut highest: BTreeMap<&'static str, u32> = BTreeMap::new();
        for (name, least) in &self.raises {
            let number = highest.entry(name).or_insert(0);
            *number = (*number).max(*least);
        }
        for (name, least) in highest {
            let sql = "insert into counter (name, n) values ($1, $2) on conflict (name) do update set n = excluded.n \
                       where counter.n < excluded.n";
            conn.run(sql, vec![Param::Text(name.to_owned()), Param::Int(least.into())]).await?;
        }
        Ok(())
    }
}

impl WriteSet {
    /// Whoever keeps consents in memory sees by this number that they are not what they were.
    async fn count_consents(&self, conn: &mut Conn) -> Result<(), Refusal> {
        let consent = definitions().type_id("Consent").map(|kind| kind.0);
        if self.versions.iter().any(|row| Some(row.rtype) == consent) {
            conn.run(NEXT_CONSENT_EPOCH, vec![Param::Text(CONSENT_EPOCH.to_owned())]).await?;
        }
        Ok(())
    }
}

fn changed() -> Refusal {
    Refusal::Conflict(Error::new(
        Kind::Conflict,
        "The resource was created, changed or deleted by another request at the same time; read it and try again.",
    ))
}

/// Repeats the last row until the rest that no full chunk takes is a chunk itself: one statement instead of several,
/// for statements that a repeated row does not harm.
pub fn padded<T: Clone>(mut rows: Vec<T>, max: usize) -> Vec<T> {
    let rest = rows.len() % max;
    if let Some(last) = rows.last().cloned()
        && rest > 0
    {
        let mut size = 1;
        while size < rest {
            size = (size * 4).min(max);
        }
        rows.resize(rows.len() + size - rest, last);
    }
    rows
}

/// A slice in chunks of the sizes of [`chunk_sizes`].
pub struct Chunks<'a, T> {
    rest: &'a [T],
    sizes: std::vec::IntoIter<usize>,
}

impl<'a, T> Chunks<'a, T> {
    pub fn of(items: &'a [T], max: usize) -> Chunks<'a, T> {
        Chunks { rest: items, sizes: chunk_sizes(items.len(), max).into_iter() }
    }
}

impl<'a, T> Iterator for Chunks<'a, T> {
    type Item = &'a [T];

    fn next(&mut self) -> Option<&'a [T]> {
        let (chunk, rest) = self.rest.split_at(self.sizes.next()?);
        self.rest = rest;
        Some(chunk)
    }
}

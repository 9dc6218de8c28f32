//! References between resources hold under concurrency: what a write refers to is looked for once more in the writer's
//! transaction, and so is what refers to a resource that is deleted. Both come after the rows of the write, so that what
//! it makes and removes itself counts. On PostgreSQL the two kinds of writes exclude each other by advisory locks, shared
//! for those that refer and exclusive for those that delete. See `docs/adr/0015-references.md`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::apply::{Chunks, Refusal, WriteSet};
use super::compartment::Home;
use super::db::{Conn, Fault, Param, Row, placeholder_list};
use super::read::{State, Stored, within};
use super::tx::Tx;
use super::{Store, dialect};
use crate::access::{Caller, Read, Rows, authorize};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::search::{View, terms};
use crate::vault::Rid;

/// Resources are told apart by the locks this far: so many locks a transaction has at most, whatever it refers to.
const BUCKETS: u8 = 64;
/// Namespace of the locks, in the upper half of the key.
const LOCKS: i64 = 0x5048_4952 << 32;
/// Targets looked for in one statement.
const LOOKUP_MAX: usize = 64;
/// The same, of several types.
const TOGETHER_MAX: usize = 8;
/// Resources that are looked at of those that refer to one that is deleted.
pub const REFERRERS_MAX: usize = 100;

/// A resource that a write refers to and does not make itself: it must be there when the write is kept.
#[derive(Clone, Copy)]
pub struct Target {
    rtype: u16,
    token: [u8; 16],
    /// At least; 0 where no version is named.
    version: u32,
}

/// A resource that a write deletes: nothing may refer to it when the write is kept.
#[derive(Clone)]
pub struct Orphaning {
    token: [u8; 16],
    terms: Vec<i64>,
    /// Surrogates of a patient: all rows under them refer to the patient.
    pks: Vec<i64>,
}

/// What a transaction makes of a resource.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stands afterwards, in this version.
    Stands(u32),
    Deleted,
}

/// Who refers to a resource that is to be deleted.
#[derive(Default)]
pub struct Referrers {
    /// Of those that the caller may see, how many of which type.
    pub seen: BTreeMap<&'static str, usize>,
    /// How many there are in all, counted up to [`REFERRERS_MAX`].
    pub count: usize,
}

fn bucket(token: &[u8; 16]) -> u8 {
    token[15] % BUCKETS
}

/// The lock of a resource.
#[cfg(test)]
pub fn key(token: &[u8; 16]) -> i64 {
    LOCKS | i64::from(bucket(token))
}

/// Takes the locks of all targets and deletions of a commit, held to its end. SQLite has one writer.
pub async fn lock<'a>(conn: &mut Conn, sets: impl Iterator<Item = &'a WriteSet>) -> Result<(), Fault> {
    if matches!(conn, Conn::Sqlite(_)) {
        return Ok(());
    }
    // Shared unless something of the bucket is deleted. In one order and before any row is touched: no circle closes.
    let mut buckets: BTreeMap<u8, bool> = BTreeMap::new();
    for set in sets {
        for target in &set.targets {
            buckets.entry(bucket(&target.token)).or_default();
        }
        buckets.extend(set.orphaning.iter().map(|gone| (bucket(&gone.token), true)));
    }
    let buckets: Vec<(u8, bool)> = buckets.into_iter().collect();
    for run in buckets.chunk_by(|one, next| one.1 == next.1) {
        let lock = if run[0].1 { "pg_advisory_xact_lock" } else { "pg_advisory_xact_lock_shared" };
        let keys = run.iter().map(|(bucket, _)| LOCKS | i64::from(*bucket)).collect();
        conn.rows(&format!("select {lock}(key) from unnest($1) as key"), vec![Param::List(keys)]).await?;
    }
    Ok(())
}

/// Whether all references of a write hold, inside the open transaction and after its rows are put.
pub async fn check(conn: &mut Conn, set: &WriteSet) -> Result<(), Refusal> {
    let mut targets: Vec<&Target> = set.targets.iter().collect();
    targets.sort_unstable_by_key(|target| target.rtype);
    for chunk in Chunks::of(&targets, LOOKUP_MAX) {
        // Few and of several types, as a single resource has them: in one statement. With many, that would be another
        // statement each time.
        let kinds = chunk.chunk_by(|one, next| one.rtype == next.rtype);
        let statements = match chunk.len() <= TOGETHER_MAX {
            true => vec![standing(kinds)],
            false => kinds.map(|kind| standing(std::iter::once(kind))).collect(),
        };
        let mut found = HashMap::with_capacity(chunk.len());
        for (sql, params) in statements {
            found.extend(versions(&conn.rows(&sql, params).await?)?);
        }
        if chunk.iter().any(|target| found.get(&target.token).is_none_or(|version| *version < target.version)) {
            return Err(raced("What the resource refers to was deleted by another request at the same time."));
        }
    }
    for gone in &set.orphaning {
        let (sql, params) = gone.statement(matches!(conn, Conn::Postgres(_)), 1);
        if !conn.rows(&sql, params).await?.is_empty() {
            return Err(raced("Another request wrote a reference to the resource at the same time."));
        }
    }
    Ok(())
}

fn raced(text: &'static str) -> Refusal {
    Refusal::Conflict(Error::new(Kind::Conflict, text))
}

/// Tokens and versions of those that are there and not deleted, those of one type together.
fn standing<'a>(kinds: impl Iterator<Item = &'a [&'a Target]>) -> (String, Vec<Param>) {
    let (mut alternatives, mut params) = (Vec::new(), Vec::new());
    for kind in kinds {
        let Some(first) = kind.first() else { continue };
        let list = placeholder_list(kind.len(), params.len() + 1);
        alternatives.push(format!("(rtype = ${} and id_token in ({list}))", params.len() + 1));
        params.push(Param::Int(first.rtype.into()));
        params.extend(kind.iter().map(|target| Param::Bytes(target.token.to_vec())));
    }
    let sql = format!("select id_token, ver from record where deleted = 0 and ({})", alternatives.join(" or "));
    (sql, params)
}

fn versions(rows: &[Row]) -> Result<HashMap<[u8; 16], u32>, Fault> {
    rows.iter().map(|row| Ok((row.array(0)?, row.small(1)?))).collect()
}

impl Orphaning {
    /// Type and row of what refers to it. AuditEvents tell of the past: they hold nothing back.
    fn statement(&self, postgres: bool, most: usize) -> (String, Vec<Param>) {
        let audit = definitions().type_id("AuditEvent").map_or(-1, |kind| i64::from(kind.0));
        let params = vec![Param::Int(audit), Param::List(self.terms.clone()), Param::List(self.pks.clone())];
        (dialect::referrers(postgres, most), params)
    }
}

impl Store {
    /// Which of these resources of a type (id, least version) are not there within the rows. `held`: a write will be held
    /// to the answer, so what stood lately may be taken to stand.
    ///
    /// # Errors
    /// `Kind::Tampered` when what is stored does not verify.
    pub async fn absent(&self, rows: &Rows, kind: TypeId, wanted: &[(&str, u32)], held: bool) -> Result<Vec<bool>> {
        let tokens: Vec<[u8; 16]> = wanted.iter().map(|(id, _)| self.id_token(kind, id)).collect();
        let mut found: HashMap<[u8; 16], u32> = HashMap::with_capacity(tokens.len());
        let all = matches!(rows, Rows::All);
        if all && held {
            let known = tokens.iter().zip(wanted).filter_map(|(token, (_, version))| {
                let standing = self.inner.standing.get(&(kind.0, *token)).filter(|standing| standing >= version)?;
                Some((*token, standing))
            });
            found.extend(known);
        }
        let mut distinct: Vec<[u8; 16]> = tokens.iter().filter(|token| !found.contains_key(*token)).copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        if all {
            let targets: Vec<Target> =
                distinct.into_iter().map(|token| Target { rtype: kind.0, token, version: 0 }).collect();
            for chunk in Chunks::of(&targets.iter().collect::<Vec<_>>(), LOOKUP_MAX) {
                let (sql, params) = standing(std::iter::once(chunk));
                for (token, version) in versions(&self.inner.lookups.rows(&sql, params).await?)? {
                    self.inner.standing.insert((kind.0, token), version);
                    found.insert(token, version);
                }
            }
        } else {
            for row in self.stored(kind, &distinct, false).await? {
                let keys = self.keys(row.pk).await?;
                let State::Live(plain) = row.open(kind, None, keys.as_deref())? else { continue };
                if within(rows, &View::new(&plain)?)? {
                    found.insert(row.id_token, row.ver);
                }
            }
        }
        let absent = |(token, (_, version)): (&[u8; 16], &(&str, u32))| found.get(token).is_none_or(|is| is < version);
        Ok(tokens.iter().zip(wanted).map(absent).collect())
    }

    /// What a write that failed referred to: the next look is at what there is.
    pub(super) fn forget_standing(&self, targets: &[Target]) {
        targets.iter().for_each(|target| self.inner.standing.invalidate(&(target.rtype, target.token)));
    }

    async fn orphaning(&self, kind: TypeId, id: &str) -> Result<Orphaning> {
        let vault = &self.inner.vault;
        let patient = definitions().type_id("Patient") == Some(kind);
        let home = patient.then(|| Home::Patient(id.to_owned()));
        let found = self.compartments_of(&Vec::from_iter(home)).await?;
        let pks = found.values().flat_map(|both| [both.demographic.0, both.clinical.0]).collect();
        Ok(Orphaning { token: self.id_token(kind, id), terms: terms::referring(kind, id, vault), pks })
    }
}

impl Tx {
    /// What it deletes.
    pub fn deleted(&self) -> Vec<(TypeId, String)> {
        let newest = self.newest.iter().filter(|(_, at)| self.drafts.get(**at).is_some_and(|it| it.content.is_none()));
        newest.map(|(key, _)| key.clone()).collect()
    }

    /// None: it does nothing to it.
    pub fn fate(&self, kind: TypeId, id: &str) -> Option<Fate> {
        let draft = self.drafts.get(*self.newest.get(&(kind, id.to_owned()))?)?;
        Some(match draft.content {
            Some(_) => Fate::Stands(draft.header.version),
            None => Fate::Deleted,
        })
    }

    /// The write refers to this resource, which was found: if it is gone at commit, that shows as Conflict.
    pub fn refers_to(&mut self, kind: TypeId, id: &str, version: u32) {
        let token = self.store.id_token(kind, id);
        self.targets.push(Target { rtype: kind.0, token, version });
    }

    /// Who refers to a resource that it deletes, beside what it writes itself. When there is nobody it is held to that:
    /// a reference that is written until the commit shows as Conflict.
    ///
    /// # Errors
    /// `Kind::Tampered` when what is stored does not verify.
    pub async fn orphans(&mut self, caller: &Caller, kind: TypeId, id: &str) -> Result<Referrers> {
        let orphaning = self.store.orphaning(kind, id).await?;
        let inner = &self.store.inner;
        let most = REFERRERS_MAX.saturating_add(self.newest.len());
        let (sql, params) = orphaning.statement(inner.db.is_postgres(), most);
        let mut rids: BTreeMap<TypeId, HashSet<Rid>> = BTreeMap::new();
        for row in inner.readers.rows(&sql, params).await? {
            let kind = u16::try_from(row.int(0)?).map(TypeId).map_err(|_| Error::tampered("type"))?;
            rids.entry(kind).or_default().insert(Rid(row.int(1)?));
        }
        let mut referrers = Referrers::default();
        for (kind, rids) in rids {
            let grant = authorize::<Read>(caller, kind).ok().filter(|grant| grant.mask().is_none());
            for row in self.store.stored_rids(kind, &Vec::from_iter(rids)).await? {
                let Some(seen) = self.refers(kind, &row, grant.as_ref().map(|grant| grant.rows())).await? else {
                    continue;
                };
                referrers.count += 1;
                if seen {
                    *referrers.seen.entry(definitions().type_name(kind)).or_default() += 1;
                }
            }
        }
        if referrers.count == 0 {
            self.orphaning.push(orphaning);
        }
        Ok(referrers)
    }

    /// Whether a row that refers to something lies within the rows; None where it is written or deleted here.
    async fn refers(&self, kind: TypeId, row: &Stored, rows: Option<&Rows>) -> Result<Option<bool>> {
        let keys = self.store.keys(row.pk).await?;
        let State::Live(plain) = row.open(kind, None, keys.as_deref())? else { return Ok(Some(false)) };
        let view = View::new(&plain)?;
        if self.newest.contains_key(&(kind, view.id().to_owned())) {
            return Ok(None);
        }
        Ok(Some(match rows {
            Some(rows) => within(rows, &view)?,
            None => false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_has_a_lock_of_its_own() {
        let keys: HashSet<i64> = (0..=255).map(|last| LOCKS | i64::from(bucket(&[last; 16]))).collect();
        assert_eq!(keys.len(), usize::from(BUCKETS));
    }
}

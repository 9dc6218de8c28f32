//! References between resources hold under concurrency: what the writes of a commit refer to is looked for in its
//! transaction, and so is what refers to a resource that is deleted. What the commit makes and removes itself counts. On
//! PostgreSQL the two kinds of writes exclude each other by advisory locks, shared for those that refer and exclusive for
//! those that delete. See `docs/adr/0015-references.md`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::apply::{Chunks, RecordRow, Refusal, WriteSet, padded};
use super::compartment::Home;
use super::db::{Conn, Fault, Param, Row, placeholders};
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

/// What stands of all that the writes of a commit refer to, in its transaction: looked for once for all of them, under the
/// locks, and kept in step with what the commit itself makes and removes.
pub struct Standing(HashMap<[u8; 16], u32>);

impl Standing {
    /// Inside the open transaction, with the locks taken.
    pub async fn read<'a>(conn: &mut Conn, sets: impl Iterator<Item = &'a WriteSet>) -> Result<Standing, Fault> {
        let mut standing = HashMap::new();
        for (sql, params) in statements(sets.flat_map(|set| &set.targets).collect()) {
            standing.extend(versions(&conn.rows(&sql, params).await?)?);
        }
        Ok(Standing(standing))
    }

    /// Whether everything is there that a write refers to, what it makes and removes itself included.
    pub fn holds(&self, set: &WriteSet) -> Result<(), Refusal> {
        if set.targets.is_empty() {
            return Ok(());
        }
        let own: HashMap<[u8; 16], Option<u32>> = set.records.iter().map(after).collect();
        let stands = |target: &Target| match own.get(&target.token) {
            Some(version) => *version,
            None => self.0.get(&target.token).copied(),
        };
        match set.targets.iter().all(|target| stands(target).is_some_and(|version| version >= target.version)) {
            true => Ok(()),
            false => Err(raced("What the resource refers to was deleted by another request at the same time.")),
        }
    }

    /// A write was applied: those after it in the same commit see what it made and removed.
    pub fn follow(&mut self, set: &WriteSet) {
        for (token, version) in set.records.iter().map(after) {
            match version {
                Some(version) => drop(self.0.insert(token, version)),
                None => drop(self.0.remove(&token)),
            }
        }
    }
}

/// The version in which a resource stands after a write; None: deleted.
fn after(row: &RecordRow) -> ([u8; 16], Option<u32>) {
    (row.id_token, (!row.deleted).then_some(row.ver))
}

/// Whether nothing refers to what a write deletes, inside the open transaction and after its rows are put.
pub async fn check(conn: &mut Conn, set: &WriteSet) -> Result<(), Refusal> {
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

/// Queries for the tokens and versions of those that are there and not deleted, of whatever types, each asked for once.
fn statements(mut targets: Vec<&Target>) -> Vec<(String, Vec<Param>)> {
    targets.sort_unstable_by_key(|target| (target.rtype, target.token));
    targets.dedup_by_key(|target| target.token);
    Chunks::of(&padded(targets, LOOKUP_MAX), LOOKUP_MAX).map(statement).collect()
}

fn statement(targets: &[&Target]) -> (String, Vec<Param>) {
    let listed = placeholders(targets.len(), 2, 0);
    let sql = format!("select id_token, ver from record where deleted = 0 and (rtype, id_token) in (values {listed})");
    let each = |target: &&Target| [Param::Int(target.rtype.into()), Param::Bytes(target.token.to_vec())];
    (sql, targets.iter().flat_map(each).collect())
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
    /// Which of these resources (type, id, least version) are not there, whoever asks. `among`: the rows of some of the
    /// types that may be seen; of the others all.
    ///
    /// # Errors
    /// `Kind::Tampered` when what is stored does not verify.
    pub async fn absent(&self, among: &HashMap<TypeId, Rows>, wanted: &[(TypeId, &str, u32)]) -> Result<Vec<bool>> {
        let targets: Vec<Target> = wanted.iter().map(|(kind, id, version)| self.target(*kind, id, *version)).collect();
        let (some, all): (Vec<&Target>, Vec<&Target>) = targets
            .iter()
            .partition(|target| among.get(&TypeId(target.rtype)).is_some_and(|rows| !matches!(rows, Rows::All)));
        let mut found: HashMap<[u8; 16], u32> = HashMap::with_capacity(targets.len());
        for (sql, params) in statements(all) {
            found.extend(versions(&self.inner.lookups.rows(&sql, params).await?)?);
        }
        let mut kinds: BTreeMap<u16, Vec<[u8; 16]>> = BTreeMap::new();
        some.iter().for_each(|target| kinds.entry(target.rtype).or_default().push(target.token));
        for (kind, mut tokens) in kinds {
            tokens.sort_unstable();
            tokens.dedup();
            let kind = TypeId(kind);
            let Some(rows) = among.get(&kind) else { continue };
            for row in self.stored(kind, &tokens, false).await? {
                let keys = self.keys(row.pk).await?;
                let State::Live(plain) = row.open(kind, None, keys.as_deref())? else { continue };
                if within(rows, &View::new(&plain)?)? {
                    found.insert(row.id_token, row.ver);
                }
            }
        }
        let absent = |target: &Target| found.get(&target.token).is_none_or(|version| *version < target.version);
        Ok(targets.iter().map(absent).collect())
    }

    /// Whether a resource can be taken to be there until the writer looks. A patient that nobody here has heard of cannot:
    /// what refers to it would be given keys first.
    pub fn may_be(&self, kind: TypeId, id: &str) -> bool {
        let patient = definitions().type_id("Patient") == Some(kind);
        !patient || Home::Patient(id.to_owned()).token(&self.inner.vault).is_some_and(|home| self.knows(&home))
    }

    fn target(&self, kind: TypeId, id: &str, version: u32) -> Target {
        Target { rtype: kind.0, token: self.id_token(kind, id), version }
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

    /// The write refers to this resource: if it is not there at commit, that shows as Conflict.
    pub fn refers_to(&mut self, kind: TypeId, id: &str, version: u32) {
        let target = self.store.target(kind, id, version);
        self.targets.push(target);
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

    fn row(resource: u8, ver: u32, deleted: bool) -> RecordRow {
        RecordRow {
            rid: Rid(resource.into()),
            rtype: 1,
            id_token: [resource; 16],
            base: None,
            pk: crate::vault::Pk(1),
            yr: None,
            ver,
            deleted,
            capsule: Vec::new(),
            terms: Vec::new(),
            terms_before: Vec::new(),
        }
    }

    fn write(rows: &[RecordRow], to: &[(u8, u32)]) -> WriteSet {
        let target = |(resource, version): &(u8, u32)| Target { rtype: 1, token: [*resource; 16], version: *version };
        WriteSet { records: rows.to_vec(), targets: to.iter().map(target).collect(), ..WriteSet::default() }
    }

    #[test]
    fn a_commit_keeps_step_with_what_its_writes_make_and_delete() {
        let mut standing = Standing(HashMap::from([([1; 16], 2), ([2; 16], 1)]));
        let holds = |standing: &Standing, rows: &[RecordRow], to| standing.holds(&write(rows, to)).is_ok();
        assert!(holds(&standing, &[], &[(1, 0), (1, 2), (2, 1)]));
        assert!(!holds(&standing, &[], &[(1, 3)]) && !holds(&standing, &[], &[(1, 0), (3, 0)]));
        // What it does itself counts.
        assert!(holds(&standing, &[row(3, 1, false)], &[(3, 1)]) && holds(&standing, &[row(1, 3, false)], &[(1, 3)]));
        assert!(!holds(&standing, &[row(1, 3, true)], &[(1, 0)]));
        // And what those before it did.
        standing.follow(&write(&[row(1, 3, true), row(3, 1, false), row(2, 2, false)], &[]));
        assert!(!holds(&standing, &[], &[(1, 0)]));
        assert!(holds(&standing, &[], &[(3, 1), (2, 2)]));
    }
}

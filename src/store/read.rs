//! Reading one resource: its current state, one version, its history. Every row is checked against what it was sealed
//! as before anything of it counts.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::db::{Db, Param, Row, placeholder_list};
use super::sealed::{Mark, Spot};
use super::{Found, HistoryPage, Period, Sealed, Store};
use crate::access::{Grant, Op, Read, Rows, Sections, Update};
use crate::error::{Error, Kind, Result};
use crate::fhir::{Resource, TypeId, json};
use crate::mapping::sections;
use crate::search::values::{self, Header, Values};
use crate::search::{Criterion, Matcher, View, capsule};
use crate::vault::{Keys, Pk, Rid};
use crate::world::Instant;

/// A record with its current version, as it lies there: nothing of it is verified yet.
pub(super) struct Stored {
    pub rid: Rid,
    pub id_token: [u8; 16],
    pub pk: Pk,
    pub ver: u32,
    pub deleted: bool,
    pub capsule: Vec<u8>,
    pub yr: Option<i64>,
    pub terms: Vec<i64>,
    pub version: StoredVersion,
}

/// One version as it lies there.
pub(super) struct StoredVersion {
    pub ver: u32,
    pub pk: Pk,
    pub head: Vec<u8>,
    /// Empty when not asked for, or a deletion.
    pub sealed: Vec<u8>,
}

/// A verified current state.
pub(super) enum State {
    /// The opened capsule.
    Live(Zeroizing<Vec<u8>>),
    Deleted(Header),
    /// The key was destroyed.
    Erased,
}

const LOOKUP_MAX: usize = 64;
/// Rows with their bodies that one statement gives.
const RIDS_MAX: usize = 256;
/// Versions looked at in one go where each has to be decided on its own.
const HISTORY_CHUNK: usize = 100;
const NEVER: u32 = u32::MAX;

pub(super) const STORED: &str = "select r.rid, r.id_token, r.pk, r.ver, r.deleted, r.capsule, r.terms, \
    (select max(n.ver) from record_version n where n.rid = r.rid), v.pk, v.head, r.yr";
pub(super) const STORED_COLUMNS: usize = 11;
pub(super) const STORED_FROM: &str = " from record r left join record_version v on v.rid = r.rid and v.ver = r.ver";

/// The rows of type `$1` of the list `$2`, with bodies. The plus keeps SQLite, which knows of neither how long the list
/// nor how large the table is, from going through every row of the type instead.
pub(super) fn by_rids(db: &Db) -> String {
    format!("{STORED}, v.sealed{STORED_FROM} where +r.rtype = $1 and {}", db.list("r.rid", 2))
}

impl Stored {
    pub fn read(row: &Row, body: bool) -> Result<Stored> {
        let ver = row.small(3)?;
        if row.opt_int(7)? != Some(ver.into()) {
            return Err(Error::tampered("record rolled back or version missing"));
        }
        let missing = || Error::tampered("version missing");
        let head = row.opt_bytes(9)?.ok_or_else(missing)?.to_vec();
        let sealed = if body { row.opt_bytes(11)?.ok_or_else(missing)?.to_vec() } else { Vec::new() };
        let version = StoredVersion { ver, pk: Pk(row.opt_int(8)?.ok_or_else(missing)?), head, sealed };
        let pk = Pk(row.int(2)?);
        if pk != version.pk {
            return Err(Error::tampered("surrogate"));
        }
        Ok(Stored {
            rid: Rid(row.int(0)?),
            id_token: row.array(1)?,
            pk,
            ver,
            deleted: row.int(4)? != 0,
            capsule: row.bytes(5)?.to_vec(),
            yr: row.opt_int(10)?,
            terms: row.ints(6)?,
            version,
        })
    }

    /// Opens and verifies: the row must be of this type and, where given, of this logical id.
    pub fn open(&self, kind: TypeId, id: Option<&str>, keys: Option<&Keys>) -> Result<State> {
        let Some(keys) = keys else { return Ok(State::Erased) };
        let spot = Spot { rid: self.rid, kind, version: self.ver };
        let header;
        let state = if self.deleted {
            let (head, deletion) = spot.open_head(keys, &self.version.head)?;
            if !deletion {
                return Err(Error::tampered("deletion"));
            }
            header = head.clone();
            State::Deleted(head)
        } else {
            let plain = spot.open_capsule(keys, &self.capsule, Mark::of(self.yr, &self.terms))?;
            header = View::new(&plain)?.header()?;
            spot.check(&header)?;
            State::Live(plain)
        };
        if id.is_some_and(|id| id != header.id) {
            return Err(Error::tampered("logical id"));
        }
        Ok(state)
    }

    /// The current version as it goes out, under the sections of a grant.
    pub fn into_sealed(self, header: Header, sections: Sections) -> Sealed {
        let (rid, pk, bytes) = (self.rid, self.pk, self.version.sealed);
        Sealed { rid, pk, header, deleted: self.deleted, sections, bytes }
    }
}

/// Whether an opened capsule lies within the rows of a grant.
pub(super) fn within(rows: &Rows, view: &View<'_>) -> Result<bool> {
    match rows {
        Rows::All => Ok(true),
        Rows::AnyOf(lists) => Matcher::new(vec![Criterion::AnyOf(lists.clone())])?.matches(view),
    }
}

/// The same for values that are in no capsule.
pub(super) fn values_within(rows: &Rows, values: &Values) -> Result<bool> {
    match rows {
        Rows::All => Ok(true),
        Rows::AnyOf(_) => within(rows, &View::new(&Zeroizing::new(capsule::encode(values)))?),
    }
}

impl Store {
    /// The blind token by which a resource is found.
    pub(super) fn id_token(&self, kind: TypeId, id: &str) -> [u8; 16] {
        self.inner.vault.token("id", &[&kind.0.to_be_bytes(), id.as_bytes()].concat())
    }

    /// The rows of these tokens, in any order, with or without bodies.
    pub(super) async fn stored(&self, kind: TypeId, tokens: &[[u8; 16]], body: bool) -> Result<Vec<Stored>> {
        let bodies = if body { ", v.sealed" } else { "" };
        let mut found = Vec::with_capacity(tokens.len());
        for chunk in super::apply::Chunks::of(tokens, LOOKUP_MAX) {
            let list = placeholder_list(chunk.len(), 1);
            let sql = format!("{STORED}{bodies}{STORED_FROM} where r.rtype = $1 and r.id_token in ({list})");
            let mut params = vec![Param::Int(kind.0.into())];
            params.extend(chunk.iter().map(|token| Param::Bytes(token.to_vec())));
            for row in self.inner.lookups.rows(&sql, params).await? {
                found.push(Stored::read(&row, body)?);
            }
        }
        Ok(found)
    }

    async fn stored_one(&self, kind: TypeId, token: [u8; 16], body: bool) -> Result<Option<Stored>> {
        if body && let Some(found) = self.inner.together.row(kind, token).await {
            return found.map(|row| Stored::read(&row, body)).transpose();
        }
        Ok(Box::pin(self.stored(kind, &[token], body)).await?.pop())
    }

    /// The rows of these ids, in any order, with bodies.
    pub(super) async fn stored_rids(&self, kind: TypeId, rids: &[Rid]) -> Result<Vec<Stored>> {
        let sql = by_rids(&self.inner.db);
        let mut found = Vec::with_capacity(rids.len());
        for chunk in rids.chunks(RIDS_MAX) {
            let params = vec![Param::Int(kind.0.into()), Param::List(chunk.iter().map(|rid| rid.0).collect())];
            for row in self.inner.lookups.many(&sql, STORED_COLUMNS + 1, params).await? {
                found.push(Stored::read(&row, true)?);
            }
        }
        Ok(found)
    }

    /// The keys of one surrogate, from the cache where possible.
    pub(super) async fn keys(&self, pk: Pk) -> Result<Option<Arc<Keys>>> {
        match self.inner.vault.cached_keys(pk) {
            Some(keys) => Ok(Some(keys)),
            None => Ok(self.inner.vault.keys(&[pk]).await?.pop().flatten()),
        }
    }

    async fn one(&self, kind: TypeId, id: &str, body: bool) -> Result<Option<(Stored, State)>> {
        let Some(stored) = self.stored_one(kind, self.id_token(kind, id), body).await? else { return Ok(None) };
        let state = self.state_of(&stored, kind, id).await?;
        Ok(Some((stored, state)))
    }

    /// What a row is. One that was erased by another process does not open any more, although its key is still at hand.
    pub(super) async fn state_of(&self, stored: &Stored, kind: TypeId, id: &str) -> Result<State> {
        let keys = self.keys(stored.pk).await?;
        match stored.open(kind, Some(id), keys.as_deref()) {
            Err(error)
                if error.kind == Kind::Tampered && Box::pin(self.inner.vault.is_destroyed(stored.pk)).await? =>
            {
                Ok(State::Erased)
            }
            state => state,
        }
    }

    /// The current state of one resource. Outside the grant's rows it is absent.
    ///
    /// # Errors
    /// `Kind::Tampered` when what is stored does not verify.
    pub async fn find(&self, grant: &Grant<Read>, id: &str) -> Result<Found> {
        self.found(grant, id).await
    }

    /// The same for what is to be patched: the permission to change covers working on the content.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub async fn find_for_patch(&self, grant: &Grant<Update>, id: &str) -> Result<Found> {
        self.found(grant, id).await
    }

    async fn found<O: Op>(&self, grant: &Grant<O>, id: &str) -> Result<Found> {
        let kind = grant.kind();
        let Some((stored, state)) = self.one(kind, id, true).await? else { return Ok(Found::Absent) };
        match state {
            State::Erased => Ok(Found::Absent),
            State::Deleted(_) => match Box::pin(self.past_within(grant.rows(), kind, stored.rid, stored.ver)).await? {
                true => Ok(Found::Deleted { version: stored.ver }),
                false => Ok(Found::Absent),
            },
            State::Live(plain) => {
                let view = View::new(&plain)?;
                if !within(grant.rows(), &view)? {
                    return Ok(Found::Absent);
                }
                let header = view.header()?;
                Ok(Found::Current(stored.into_sealed(header, grant.sections())))
            }
        }
    }

    /// One version. `Found::Deleted` when that version is the deletion. Each version is measured against the grant's
    /// rows by its own content.
    pub async fn find_version(&self, grant: &Grant<Read>, id: &str, version: u32) -> Result<Found> {
        let kind = grant.kind();
        let Some((stored, state)) = self.one(kind, id, false).await? else { return Ok(Found::Absent) };
        if matches!(state, State::Erased) || version == 0 || version > stored.ver {
            return Ok(Found::Absent);
        }
        let row = self.versions(stored.rid, version.saturating_add(1), 1).await?.pop();
        let row = row.filter(|row| row.ver == version).ok_or_else(|| Error::tampered("version missing"))?;
        let (Some(sealed), _) = self.open_version(grant, id, stored.rid, row).await? else { return Ok(Found::Absent) };
        if sealed.deleted { Ok(Found::Deleted { version }) } else { Ok(Found::Current(sealed)) }
    }

    /// The versions of one resource, newest first, before version `before`. A `count` of 0 asks for the total alone.
    ///
    /// # Errors
    /// `Kind::NotFound` when there is none within the grant's rows; `Kind::Tampered` when one is missing or altered.
    pub async fn history(
        &self,
        grant: &Grant<Read>,
        id: &str,
        count: usize,
        before: Option<u32>,
        period: Period,
    ) -> Result<HistoryPage> {
        let kind = grant.kind();
        let stored = self.one(kind, id, false).await?;
        let Some((stored, State::Live(_) | State::Deleted(_))) = stored else { return Err(Error::not_found()) };
        if count == 0 && period.is_open() && matches!(grant.rows(), Rows::All) {
            return Ok(HistoryPage { versions: Vec::new(), total: stored.ver.into(), next: None });
        }
        let filtered = matches!(grant.rows(), Rows::AnyOf(_));
        let narrowed = filtered || !period.is_open();
        let mut replaced: Option<Instant> = None;
        let mut known = false;
        let (mut page, mut total, mut next) = (Vec::new(), 0u64, None);
        // Rows::All starts at the page; a row filter has to decide every version to count them.
        let mut expected =
            if narrowed { stored.ver } else { stored.ver.min(before.unwrap_or(NEVER).saturating_sub(1)) };
        'all: while expected > 0 {
            let chunk = if narrowed { HISTORY_CHUNK } else { (count + 1 - page.len()).min(HISTORY_CHUNK) };
            let rows = self.versions(stored.rid, expected.saturating_add(1), chunk).await?;
            // A version number is never skipped: one that is missing was taken away.
            if rows.is_empty() {
                return Err(Error::tampered("version missing"));
            }
            for row in rows {
                if row.ver != expected {
                    return Err(Error::tampered("version missing"));
                }
                expected -= 1;
                let ver = row.ver;
                let (sealed, at) = self.open_version(grant, id, stored.rid, row).await?;
                let until = std::mem::replace(&mut replaced, at);
                let Some(sealed) = sealed else { continue };
                known = true;
                if !period.holds(sealed.header.last_updated, until) {
                    continue;
                }
                total += 1;
                if before.is_some_and(|before| ver >= before) {
                    continue;
                }
                if page.len() < count {
                    page.push(sealed);
                } else if count > 0 {
                    next = next.or(page.last().map(|last| last.header.version));
                    if !narrowed {
                        break 'all;
                    }
                }
            }
        }
        if filtered && !known {
            return Err(Error::not_found());
        }
        let total = if narrowed { total } else { stored.ver.into() };
        Ok(HistoryPage { versions: page, total, next })
    }

    /// Versions below `before`, newest first.
    async fn versions(&self, rid: Rid, before: u32, most: usize) -> Result<Vec<StoredVersion>> {
        let sql = "select ver, pk, head, sealed from record_version where rid = $1 and ver < $2 \
                   order by ver desc limit +$3";
        let params = vec![Param::Int(rid.0), Param::Int(before.into()), Param::Int(most as i64)];
        let rows = self.inner.lookups.rows(sql, params).await?;
        let version = |row: &Row| -> Result<StoredVersion> {
            let (head, sealed) = (row.bytes(2)?.to_vec(), row.bytes(3)?.to_vec());
            Ok(StoredVersion { ver: row.small(0)?, pk: Pk(row.int(1)?), head, sealed })
        };
        rows.iter().map(version).collect()
    }

    /// Verifies a version; None when it is outside the grant's rows or erased. With the time it was made at, which is
    /// also when the version before it was replaced.
    async fn open_version(
        &self,
        grant: &Grant<Read>,
        id: &str,
        rid: Rid,
        row: StoredVersion,
    ) -> Result<(Option<Sealed>, Option<Instant>)> {
        let kind = grant.kind();
        let Some(keys) = self.keys(row.pk).await? else { return Ok((None, None)) };
        let spot = Spot { rid, kind, version: row.ver };
        let (header, deleted) = spot.open_head(&keys, &row.head)?;
        if header.id != id || deleted != row.sealed.is_empty() {
            return Err(Error::tampered("version"));
        }
        let visible = match (grant.rows(), deleted) {
            (Rows::All, _) => true,
            (rows, true) => self.past_within(rows, kind, rid, row.ver).await?,
            (rows, false) => self.version_within(rows, spot, &keys, &row.sealed, &header)?,
        };
        let (sections, at) = (grant.sections(), header.last_updated);
        let sealed = Sealed { rid, pk: row.pk, header, deleted, sections, bytes: row.sealed };
        Ok((visible.then_some(sealed), Some(at)))
    }

    /// Whether the last content before version `ver` lies within the rows: what a deletion is measured by.
    pub(super) async fn past_within(&self, rows: &Rows, kind: TypeId, rid: Rid, ver: u32) -> Result<bool> {
        if matches!(rows, Rows::All) {
            return Ok(true);
        }
        let mut before = ver;
        while let Some(row) = self.versions(rid, before, 1).await?.pop() {
            before = row.ver;
            let Some(keys) = self.keys(row.pk).await? else { return Ok(false) };
            let spot = Spot { rid, kind, version: row.ver };
            let (header, deleted) = spot.open_head(&keys, &row.head)?;
            if !deleted {
                return self.version_within(rows, spot, &keys, &row.sealed, &header);
            }
        }
        Ok(false)
    }

    /// The content of a current version, for what a write has to keep of it; None for a deletion, or once erased.
    pub(super) async fn standing(&self, kind: TypeId, rid: Rid, version: u32) -> Result<Option<json::Node>> {
        let row = self.versions(rid, version.saturating_add(1), 1).await?.pop();
        let row = row.filter(|row| row.ver == version && !row.sealed.is_empty());
        let Some(row) = row else { return Ok(None) };
        let Some(keys) = self.keys(row.pk).await? else { return Ok(None) };
        let opened = Spot { rid, kind, version }.open_sections(&keys, &row.sealed, |_| true)?;
        json::parse(&sections::join(opened.sections, opened.left_out)?).map(Some)
    }

    /// An older version has no capsule: its values are computed again, inside the store, to decide about it alone.
    pub(super) fn version_within(
        &self,
        rows: &Rows,
        spot: Spot,
        keys: &Keys,
        frame: &[u8],
        header: &Header,
    ) -> Result<bool> {
        let opened = spot.open_sections(keys, frame, |_| true)?;
        let content = sections::join(opened.sections, opened.left_out)?;
        let resource = Resource::check(json::parse(&content)?)?;
        let values = values::values(&resource, header.version, header.last_updated, &self.inner.base)?;
        values_within(rows, &values)
    }
}

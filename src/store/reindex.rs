//! Goes through resources that were there before a search parameter was defined: opens each inside the store, computes
//! the values, seals capsule and terms again. No version comes of it and nothing of the content leaves. Where it is
//! stands in the database and moves in the transaction that changes the rows.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::apply::{RecordRow, WriteSet};
use super::custom::{Change, Cursor, ENDING, INDEXING, stored};
use super::db::Param;
use super::lane::Work;
use super::read::{STORED, STORED_FROM, State, Stored};
use super::sealed::{Mark, Spot};
use super::{AuditRow, Store, cores};
use crate::error::{Error, Result};
use crate::fhir::definitions::Param as Known;
use crate::fhir::{Resource, TypeId, json};
use crate::mapping::sections;
use crate::search::custom::{Defined, Standing};
use crate::search::{Customs, View, terms};
use crate::vault::{Keys, Pk, Vault};

/// Resources that one commit goes through.
const ROWS: i64 = 32;

/// What is to be done next.
pub struct Pass {
    customs: Arc<Customs>,
    param: &'static Known,
    /// Others of the same types that wait: one way through the rows is enough for all that stand at the same place.
    others: Vec<i64>,
    /// Logical id of the SearchParameter.
    pub resource: String,
    pub code: &'static str,
    /// What is left in the index of a parameter that is no more is taken away.
    pub ending: bool,
}

/// Some resources, ready to be committed together with the entry that says so.
pub struct Reindexed {
    store: Store,
    set: WriteSet,
    pub rows: u64,
    pub finished: bool,
}

impl Store {
    /// The first parameter that has resources to be gone through, but those of these SearchParameters.
    pub async fn next_pass(&self, stuck: &[String]) -> Result<Option<Pass>> {
        let customs = self.customs_now().await?;
        let open = customs.all.iter().filter(|one| one.standing != Standing::Ready);
        let open: Vec<&Defined> = open.filter(|one| !stuck.contains(&one.definition.resource)).collect();
        let Some(one) = open.first() else { return Ok(None) };
        let alike = open[1..].iter().filter(|other| other.param.bases == one.param.bases);
        Ok(Some(Pass {
            param: one.param,
            others: alike.map(|other| stored(other.param.id)).collect(),
            resource: one.definition.resource.clone(),
            code: one.param.code,
            ending: matches!(one.standing, Standing::Ending { .. }),
            customs: customs.clone(),
        }))
    }

    /// Goes through the next resources of a pass. That it does so must be on record before.
    ///
    /// # Errors
    /// `Kind::Conflict` when another server is further; `Kind::Tampered` for a row that does not verify: it stays where
    /// it is, and the parameter cannot be searched by.
    pub async fn reindex(&self, pass: &Pass) -> Result<Reindexed> {
        let n = stored(pass.param.id);
        let sql = "select n, state, rtype, rid, total from search_parameter where state <> 1";
        let mut places: HashMap<i64, (i64, Cursor)> = HashMap::new();
        let mut total = -1;
        for row in self.inner.lookups.rows(sql, Vec::new()).await? {
            places.insert(row.int(0)?, (row.int(1)?, (row.int(2)?, row.int(3)?)));
            if row.int(0)? == n {
                total = row.int(4)?;
            }
        }
        let (state, from) = *places.get(&n).ok_or_else(super::custom::stale)?;
        if state != if pass.ending { ENDING } else { INDEXING } {
            return Err(super::custom::stale());
        }
        let together = pass.others.iter().filter_map(|other| Some((*other, *places.get(other)?)));
        let together = together.filter(|(_, (_, at))| *at == from).map(|(other, (state, _))| (other, state));
        let total = if total < 0 { self.count_of(&pass.param.bases).await? } else { total };
        let bases = &pass.param.bases;
        let kind = bases.iter().copied().find(|of| i64::from(of.0) >= from.0);
        let Some(kind) = kind else { return Err(Error::internal("a reindex job without a type")) };
        let after = if i64::from(kind.0) == from.0 { from.1 } else { 0 };
        let read = self.rows_after(kind, after).await?;
        let to: Option<Cursor> = match read.last() {
            Some(last) if read.len() as i64 == ROWS => Some((kind.0.into(), last.rid.0)),
            // A type behind the last row of which nothing can come.
            _ => bases.iter().find(|of| **of > kind).map(|of| (of.0.into(), 0)),
        };
        let (rows, customs, base) = (read.len() as u64, pass.customs.clone(), self.inner.base.clone());
        let keys = self.inner.vault.keys(&read.iter().map(|row| row.pk).collect::<Vec<Pk>>()).await?;
        let vault = self.inner.vault.clone();
        let sealed = cores::run(move || {
            let again = |(row, keys): (Stored, Option<Arc<Keys>>)| {
                again(row, kind, keys?.as_ref(), &customs, &base, &vault).transpose()
            };
            read.into_iter().zip(keys).filter_map(again).collect::<Result<Vec<RecordRow>>>()
        });
        let change = |(n, state)| Change::Advance { n, state, from, to, rows: rows as i64, total };
        let parameters = std::iter::once((n, state)).chain(together).map(change).collect();
        let set = WriteSet {
            records: sealed.await?,
            epoch: pass.customs.epoch,
            terms_may_move: true,
            parameters,
            ..WriteSet::default()
        };
        Ok(Reindexed { store: self.clone(), set, rows, finished: to.is_none() })
    }

    async fn rows_after(&self, kind: TypeId, rid: i64) -> Result<Vec<Stored>> {
        let sql = format!(
            "{STORED}, v.sealed{STORED_FROM} where r.rtype = $1 and r.rid > $2 and r.deleted = 0 order by r.rid limit $3"
        );
        let params = vec![Param::Int(kind.0.into()), Param::Int(rid), Param::Int(ROWS)];
        let rows = self.inner.lookups.rows(&sql, params).await?;
        rows.iter().map(|row| Stored::read(row, true)).collect()
    }

    async fn count_of(&self, kinds: &[TypeId]) -> Result<i64> {
        let db = &self.inner.db;
        let sql = format!("select count(*) from record where deleted = 0 and {}", db.list("rtype", 1));
        let kinds = kinds.iter().map(|kind| i64::from(kind.0)).collect();
        let rows = self.inner.lookups.rows(&sql, vec![Param::List(kinds)]).await?;
        Ok(rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0))
    }
}

/// The row as it is to be under the parameters there are now; None: it is so already.
fn again(
    row: Stored,
    kind: TypeId,
    keys: &Keys,
    customs: &Customs,
    base: &str,
    vault: &Vault,
) -> Result<Option<RecordRow>> {
    let State::Live(plain) = row.open(kind, None, Some(keys))? else { return Ok(None) };
    let mut values = View::new(&plain)?.to_values()?;
    let before = values.clone();
    let spot = Spot { rid: row.rid, kind, version: row.ver };
    let opened = spot.open_sections(keys, &row.version.sealed, |_| true)?;
    let content: Zeroizing<Vec<u8>> = sections::join(opened.sections, opened.left_out)?;
    values.set_custom(&Resource::stored(json::parse(&content)?)?, customs, base);
    let terms = terms::terms(&values, row.pk, vault);
    if values == before && terms == row.terms {
        return Ok(None);
    }
    let capsule = spot.seal_capsule(keys, &values, Mark::of(row.yr, &terms))?;
    Ok(Some(RecordRow {
        rid: row.rid,
        rtype: kind.0,
        id_token: row.id_token,
        base: Some(row.ver),
        pk: row.pk,
        yr: row.yr.map(i16::try_from).transpose().map_err(|_| Error::tampered("year"))?,
        ver: row.ver,
        deleted: false,
        capsule,
        terms,
        terms_before: row.terms,
    }))
}

impl Reindexed {
    /// Called by `audit` alone.
    ///
    /// # Errors
    /// `Kind::Conflict` when one of the rows was written meanwhile, or another server is further: nothing is kept.
    pub(crate) async fn commit(self, row: AuditRow) -> Result<()> {
        let done = self.store.receipt(Work::Write(Box::new(self.set), row)).await;
        self.store.customs_again().await;
        done.map(drop)
    }
}

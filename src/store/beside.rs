//! Whether what stands beside the records fits them: compartments, unique values, domain rows, the version log. Nothing of
//! it is read as content, but who takes a row of it away hides something, or lets something be given twice.

use std::collections::{HashMap, HashSet};

use super::Store;
use super::apply::{Chunks, DOMAIN_TABLES};
use super::compartment::{Home, Surrogates};
use super::db::{Param, Row, placeholder_list};
use super::index::{IndexFlaw, IndexReport, Opened};
use super::past::Line;
use super::sealed::Spot;
use super::small::select_compartments;
use crate::error::{Error, Result, unless_tampered};
use crate::fhir::TypeId;
use crate::mapping::mapping;
use crate::search::View;
use crate::search::values::Value;
use crate::vault::{Pk, Rid};
use crate::world::hex;

/// Rows fetched at once.
const CHUNK: i64 = 1_000;
const LOOKUP_MAX: usize = 64;

type Flaws = Vec<(i64, IndexFlaw)>;

impl Store {
    /// What these records must have beside them and have not.
    pub(super) async fn flaws_beside(&self, live: &[Opened], number_system: &str) -> Result<Flaws> {
        let mut flaws = self.astray(live).await?;
        flaws.extend(self.unclaimed(live, number_system).await?);
        flaws.extend(self.without_domain(live).await?);
        Ok(flaws)
    }

    /// Records that no search for their patient (or of their type's compartment) would meet.
    async fn astray(&self, live: &[Opened]) -> Result<Flaws> {
        let mut homes = Vec::with_capacity(live.len());
        for opened in live {
            homes.push(Home::of(&View::new(&opened.plain)?.header()?).token(&self.inner.vault));
        }
        let mut tokens: Vec<[u8; 16]> = homes.iter().flatten().copied().collect();
        tokens.sort_unstable();
        tokens.dedup();
        let standing = self.standing_compartments(&tokens).await?;
        let astray = live.iter().zip(homes).filter(|(opened, home)| {
            let leads =
                |token| standing.get(token).is_some_and(|to: &Surrogates| to.of(opened.kind) == opened.stored.pk);
            !home.as_ref().is_none_or(leads)
        });
        Ok(astray.map(|(opened, _)| (opened.stored.rid.0, IndexFlaw::Astray)).collect())
    }

    /// From the database, whatever is in memory; those that do not open are left out.
    async fn standing_compartments(&self, tokens: &[[u8; 16]]) -> Result<HashMap<[u8; 16], Surrogates>> {
        let mut standing = HashMap::with_capacity(tokens.len());
        for chunk in Chunks::of(tokens, LOOKUP_MAX) {
            let params = chunk.iter().map(|token| Param::Bytes(token.to_vec())).collect();
            for row in self.inner.lookups.rows(&select_compartments(chunk.len()), params).await? {
                let token = row.array(0)?;
                if let Some(surrogates) =
                    unless_tampered(Surrogates::open(&token, row.bytes(1)?, &self.inner.vault).await)?
                {
                    standing.insert(token, surrogates);
                }
            }
        }
        Ok(standing)
    }

    /// Numbers that the server gave (or took) and that are not held for their resource.
    async fn unclaimed(&self, live: &[Opened], number_system: &str) -> Result<Flaws> {
        let mut wanted: Vec<([u8; 16], i64)> = Vec::new();
        for opened in live {
            let Some(rule) = &mapping(opened.kind).number else { continue };
            for value in View::new(&opened.plain)?.param(rule.param)? {
                let Value::Identifier { system: Some(system), value: Some(value), .. } = value else { continue };
                if system == number_system {
                    let number = format!("{system}|{value}");
                    wanted.push((self.inner.vault.token(&rule.counter, number.as_bytes()), opened.stored.rid.0));
                }
            }
        }
        let mut held: HashSet<([u8; 16], i64)> = HashSet::new();
        for chunk in Chunks::of(&wanted, LOOKUP_MAX) {
            let sql = format!("select token, rid from claim where token in ({})", placeholder_list(chunk.len(), 0));
            let params = chunk.iter().map(|(token, _)| Param::Bytes(token.to_vec())).collect();
            for row in self.inner.lookups.rows(&sql, params).await? {
                held.insert((row.array(0)?, row.int(1)?));
            }
        }
        let missing = wanted.into_iter().filter(|claim| !held.contains(claim));
        Ok(missing.map(|(_, rid)| (rid, IndexFlaw::Unclaimed)).collect())
    }

    /// Records of a type that always fills a row of a domain table, and that have none.
    async fn without_domain(&self, live: &[Opened]) -> Result<Flaws> {
        let mut flaws = Vec::new();
        for table in DOMAIN_TABLES {
            let always = |kind: TypeId| mapping(kind).tables.iter().any(|one| one.table == table && one.when.is_none());
            let rids: Vec<i64> =
                live.iter().filter(|opened| always(opened.kind)).map(|opened| opened.stored.rid.0).collect();
            if rids.is_empty() {
                continue;
            }
            let sql = format!("select rid from {table} where {}", self.inner.db.list("rid", 1));
            let rows = self.inner.lookups.rows(&sql, vec![Param::List(rids.clone())]).await?;
            let there = rows.iter().map(|row| Ok(row.int(0)?)).collect::<Result<HashSet<i64>>>()?;
            flaws.extend(rids.into_iter().filter(|rid| !there.contains(rid)).map(|rid| (rid, IndexFlaw::Domain)));
        }
        Ok(flaws)
    }

    /// What stands beside the records and belongs to none of them, or not as it is.
    pub(super) async fn check_beside(&self, report: &mut IndexReport) -> Result<()> {
        self.check_claims(report).await?;
        for (at, table) in DOMAIN_TABLES.iter().enumerate() {
            self.check_domain(at, table, report).await?;
        }
        self.check_log(report).await
    }

    async fn check_claims(&self, report: &mut IndexReport) -> Result<()> {
        let sql = "select c.token from claim c left join record r on r.rid = c.rid and r.deleted = 0 where r.rid is null \
                   order by c.token";
        for row in self.inner.lookups.rows(sql, Vec::new()).await? {
            report.add(IndexFlaw::Claim, format!("token {}", hex(row.bytes(0).map_err(Error::from)?)));
        }
        Ok(())
    }

    async fn check_domain(&self, at: usize, table: &str, report: &mut IndexReport) -> Result<()> {
        let mut after = i64::MIN;
        loop {
            let sql = format!(
                "select d.rid, d.pk, d.ver, d.sealed, r.rtype, r.pk, r.ver from {table} d \
                 left join record r on r.rid = d.rid and r.deleted = 0 where d.rid > $1 order by d.rid limit $2"
            );
            let rows = self.inner.lookups.rows(&sql, vec![Param::Int(after), Param::Int(CHUNK)]).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.int(0)?;
            for row in &rows {
                if !self.domain_fits(at, row).await? {
                    report.add(IndexFlaw::Domain, format!("{table}, row {}", row.int(0)?));
                }
            }
        }
    }

    async fn domain_fits(&self, at: usize, row: &Row) -> Result<bool> {
        let (pk, version) = (row.int(1)?, row.int(2)?);
        if (row.opt_int(5)?, row.opt_int(6)?) != (Some(pk), Some(version)) {
            return Ok(false);
        }
        let (Some(Ok(kind)), Ok(version)) = (row.opt_int(4)?.map(u16::try_from), u32::try_from(version)) else {
            return Ok(false);
        };
        let Some(keys) = unless_tampered(self.keys(Pk(pk)).await)? else { return Ok(false) };
        // Erased: what is left of it says nothing.
        let Some(keys) = keys else { return Ok(true) };
        let spot = Spot { rid: Rid(row.int(0)?), kind: TypeId(kind), version };
        Ok(unless_tampered(spot.open_domain(&keys, at, row.bytes(3)?))?.is_some())
    }

    /// Every version has its line. Versions first: what is stored now has its line by the time the log is walked.
    async fn check_log(&self, report: &mut IndexReport) -> Result<()> {
        let mut versions = self.all_versions().await?;
        let mut after = i64::MIN;
        loop {
            let sql = "select n, rtype, sealed from version_log where n > $1 order by n limit $2";
            let rows = self.inner.lookups.rows(sql, vec![Param::Int(after), Param::Int(CHUNK)]).await?;
            let Some(last) = rows.last() else { break };
            after = last.int(0)?;
            for row in &rows {
                let line = match u16::try_from(row.int(1)?) {
                    Ok(kind) => unless_tampered(Line::open(row.bytes(2)?, TypeId(kind), &self.inner.vault).await)?,
                    Err(_) => None,
                };
                match line {
                    Some(line) => drop(versions.remove(&(line.rid.0, line.ver))),
                    None => report.add(IndexFlaw::Line, format!("line {}", row.int(0)?)),
                }
            }
        }
        let mut unlogged: Vec<(i64, u32)> = versions.into_iter().collect();
        unlogged.sort_unstable();
        for (rid, version) in unlogged {
            report.add(IndexFlaw::Unlogged, format!("row {rid}, version {version}"));
        }
        Ok(())
    }

    async fn all_versions(&self) -> Result<HashSet<(i64, u32)>> {
        let (mut versions, mut after) = (HashSet::new(), (0, 0));
        loop {
            let sql = "select rid, ver from record_version where rid > $1 or (rid = $1 and ver > $2) \
                       order by rid, ver limit $3";
            let params = vec![Param::Int(after.0), Param::Int(after.1), Param::Int(CHUNK)];
            let rows = self.inner.lookups.rows(sql, params).await?;
            let Some(last) = rows.last() else { return Ok(versions) };
            after = (last.int(0)?, last.int(1)?);
            for row in &rows {
                versions.insert((row.int(0)?, row.small(1)?));
            }
        }
    }
}

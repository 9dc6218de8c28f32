//! The history of a type and of the whole server. The database orders nothing by time, so every version leaves a line
//! in a log: its number is the order of commits, its content (row, version, time) is sealed under a key that belongs to
//! no patient, and nothing readable joins it to the version it is about. A page walks the lines down from where the
//! page before ended; what was committed meanwhile has higher numbers, so that nothing is given twice or left out.

use std::collections::HashMap;

use super::apply::Chunks;
use super::db::{Param, Row, placeholders};
use super::sealed::Spot;
use super::{Sealed, Store};
use crate::access::{Grant, Rows, Search};
use crate::error::{Error, Kind, Result};
use crate::fhir::TypeId;
use crate::fhir::date::Range;
use crate::vault::{Pk, Rid, SystemKey, Vault};
use crate::world::Instant;

/// Which versions of a history are asked for, by when they were current.
#[derive(Clone, Copy, Default)]
pub struct Period {
    /// `_since`: made at or after this.
    pub since: Option<Instant>,
    /// `_at`: current at some time of this.
    pub at: Option<Range>,
}

/// What of the history of these types is asked for.
pub struct Past<'a> {
    /// One for every type.
    pub grants: &'a [Grant<Search>],
    pub period: Period,
    /// Versions on the page; 0 asks for their number alone.
    pub count: usize,
    /// Where the page before ended; None: the first page.
    pub after: Option<Mark>,
}

/// Where a page ended, and where the first one began: later commits lie above and are no part of these pages.
#[derive(Clone, Copy)]
pub struct Mark {
    pub top: i64,
    pub n: i64,
}

/// One page, newest first.
pub struct PastPage {
    pub versions: Vec<Sealed>,
    /// Where it is known: everything was looked at, or the database could count.
    pub total: Option<u64>,
    pub next: Option<Mark>,
}

/// A line of the log, opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub rid: Rid,
    pub ver: u32,
    pub at: Instant,
}

/// A line with its number and type.
type Numbered = (i64, TypeId, Line);

/// What a walk down the lines came to.
#[derive(Default)]
struct Walked {
    page: Vec<(i64, Sealed)>,
    seen: u64,
    /// Nothing is left for another page.
    complete: bool,
}

/// Lines looked at in one go.
const CHUNK: usize = 256;
const ROWS_MAX: usize = 64;
/// Versions whose content is opened, to decide on a row filter, for one page.
const DECIDED_MAX: usize = 20_000;
/// Totals up to here are counted unasked.
const COUNTED_MAX: u64 = 10_000;
/// Commits follow each other in the order of their times but for this much: requests overlap, clocks differ.
const OVERLAP_MS: i64 = 15 * 60 * 1000;

impl Period {
    pub fn is_open(&self) -> bool {
        self.since.is_none() && self.at.is_none()
    }

    /// Whether a version made at `from` and replaced at `to` is asked for.
    pub fn holds(&self, from: Instant, to: Option<Instant>) -> bool {
        let within = |at: Range| from.0 <= at.hi && to.is_none_or(|to| to.0 > at.lo);
        self.since.is_none_or(|since| from >= since) && self.at.is_none_or(within)
    }

    /// What can be told before it is known when the version was replaced.
    fn may_hold(&self, from: Instant) -> bool {
        self.holds(from, None)
    }

    /// Nothing committed before a version of this time can be asked for.
    fn is_past(&self, at: Instant) -> bool {
        self.since.is_some_and(|since| at.plus_ms(OVERLAP_MS) < since)
    }
}

impl Line {
    fn place(kind: TypeId) -> Vec<u8> {
        [b"version-log".as_slice(), &kind.0.to_be_bytes()].concat()
    }

    pub async fn seal(&self, kind: TypeId, vault: &Vault) -> Result<Vec<u8>> {
        let plain = [self.rid.0.to_be_bytes().as_slice(), &self.ver.to_be_bytes(), &self.at.0.to_be_bytes()].concat();
        vault.seal_system(SystemKey::Link, &Line::place(kind), &plain).await
    }

    pub async fn open(sealed: &[u8], kind: TypeId, vault: &Vault) -> Result<Line> {
        let plain = vault.open_system(SystemKey::Link, &Line::place(kind), sealed).await?;
        let tampered = || Error::tampered("version log");
        let (rid, rest) = plain.split_first_chunk::<8>().ok_or_else(tampered)?;
        let (ver, rest) = rest.split_first_chunk::<4>().ok_or_else(tampered)?;
        let at = <[u8; 8]>::try_from(rest).map_err(|_| tampered())?;
        Ok(Line {
            rid: Rid(i64::from_be_bytes(*rid)),
            ver: u32::from_be_bytes(*ver),
            at: Instant(i64::from_be_bytes(at)),
        })
    }
}

/// A version as the log leads to it, before its body is fetched.
struct Candidate {
    n: i64,
    kind: TypeId,
    line: Line,
    pk: Pk,
    head: Vec<u8>,
    /// Key and head of the version after it, where that matters.
    successor: Option<(Pk, Vec<u8>)>,
}

impl Store {
    /// One page of the history of the granted types, newest commit first. Each version is measured against the rows of
    /// its type's grant by its own content.
    ///
    /// # Errors
    /// `Kind::TooCostly` when too many versions would have to be looked at; `Kind::Tampered` when what is stored does
    /// not verify.
    pub async fn past(&self, asked: &Past<'_>) -> Result<PastPage> {
        let top = match asked.after {
            Some(mark) => mark.top,
            None => self.newest_line().await?,
        };
        let open = asked.grants.iter().all(|grant| matches!(grant.rows(), Rows::All)) && asked.period.is_open();
        let counting = asked.count == 0;
        let walked = match counting && open {
            true => Walked::default(),
            false => self.walk(asked, top, open).await?,
        };
        let Walked { page, seen, complete } = walked;
        let next = page.last().filter(|_| !complete).map(|(n, _)| Mark { top, n: *n });
        let total = match (open, complete && asked.after.is_none()) {
            (true, _) => self.count_lines(asked.grants, top, counting).await?,
            (false, true) => Some(seen),
            (false, false) => None,
        };
        Ok(PastPage { versions: page.into_iter().map(|(_, sealed)| sealed).collect(), total, next })
    }

    /// Goes down the lines until the page is full and one more is known, or there is no more.
    async fn walk(&self, asked: &Past<'_>, top: i64, open: bool) -> Result<Walked> {
        let counting = asked.count == 0;
        let size = if open { (asked.count + 1).min(CHUNK) } else { CHUNK };
        let mut walked = Walked { complete: true, ..Walked::default() };
        let mut before = asked.after.map_or(top.saturating_add(1), |mark| mark.n);
        let mut cost = Cost::new(self.inner.candidates_max);
        loop {
            let lines = self.lines(asked.grants, before, size).await?;
            let Some((last, _, oldest)) = lines.last().copied() else { return Ok(walked) };
            before = last;
            cost.examine(lines.len())?;
            let whole = lines.len() < size || asked.period.is_past(oldest.at);
            let found = self.decided(asked, lines, &mut cost).await?;
            walked.seen += found.len() as u64;
            let room = asked.count.saturating_sub(walked.page.len());
            walked.complete = counting || found.len() <= room;
            walked.page.extend(found.into_iter().take(room));
            if whole || !walked.complete {
                return Ok(walked);
            }
        }
    }

    async fn newest_line(&self) -> Result<i64> {
        let rows = self.inner.lookups.rows("select max(n) from version_log", Vec::new()).await?;
        Ok(rows.first().map(|row| row.opt_int(0)).transpose()?.flatten().unwrap_or(0))
    }

    /// Lines of these types below a number, newest first. A plus keeps the list of types from choosing the plan: the
    /// lines are wanted in their order.
    async fn lines(&self, grants: &[Grant<Search>], before: i64, most: usize) -> Result<Vec<Numbered>> {
        let (filter, types) = self.of_types(grants);
        let sql =
            format!("select n, rtype, sealed from version_log where {filter} and n < $2 order by n desc limit +$3");
        let params = vec![types, Param::Int(before), Param::Int(most as i64)];
        let mut lines = Vec::with_capacity(most);
        for row in self.inner.lookups.rows(&sql, params).await? {
            let kind = TypeId(u16::try_from(row.int(1)?).map_err(|_| Error::tampered("version log"))?);
            lines.push((row.int(0)?, kind, Line::open(row.bytes(2)?, kind, &self.inner.vault).await?));
        }
        Ok(lines)
    }

    fn of_types(&self, grants: &[Grant<Search>]) -> (String, Param) {
        match grants {
            [grant] => ("rtype = $1".to_owned(), Param::Int(grant.kind().0.into())),
            _ => {
                let types = grants.iter().map(|grant| grant.kind().0.into()).collect();
                (self.inner.db.list("+rtype", 1), Param::List(types))
            }
        }
    }

    /// How many lines there are up to `top`; None when there are many and nobody asked for their number.
    async fn count_lines(&self, grants: &[Grant<Search>], top: i64, asked: bool) -> Result<Option<u64>> {
        let (filter, types) = self.of_types(grants);
        let most = if asked { i64::MAX } else { COUNTED_MAX as i64 + 1 };
        let sql = format!("select count(*) from (select 1 from version_log where {filter} and n <= $2 limit +$3) as l");
        let rows = self.inner.lookups.rows(&sql, vec![types, Param::Int(top), Param::Int(most)]).await?;
        let count = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0).cast_unsigned();
        Ok((asked || count <= COUNTED_MAX).then_some(count))
    }

    /// What of these lines may be shown, in their order.
    async fn decided(&self, asked: &Past<'_>, lines: Vec<Numbered>, cost: &mut Cost) -> Result<Vec<(i64, Sealed)>> {
        let lines: Vec<Numbered> = lines.into_iter().filter(|(_, _, line)| asked.period.may_hold(line.at)).collect();
        let candidates = self.candidates(lines, asked.period.at.is_some()).await?;
        let pks: Vec<Pk> = candidates
            .iter()
            .flat_map(|one| std::iter::once(one.pk).chain(one.successor.as_ref().map(|(pk, _)| *pk)))
            .collect();
        // One query for all keys; each is found in the cache below.
        self.inner.vault.keys(&pks).await?;
        let mut shown = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let rows = asked.grants.iter().find(|grant| grant.kind() == candidate.kind);
            let Some(grant) = rows else { return Err(Error::tampered("version log")) };
            if let Some(sealed) = self.admitted(asked.period, grant, &candidate, cost).await? {
                shown.push((candidate.n, sealed));
            }
        }
        self.with_bodies(shown).await
    }

    /// A version that the period and the rows of its grant let through; without its body where that was not needed.
    async fn admitted(
        &self,
        period: Period,
        grant: &Grant<Search>,
        candidate: &Candidate,
        cost: &mut Cost,
    ) -> Result<Option<Sealed>> {
        let Candidate { kind, line, pk, head, .. } = candidate;
        // A destroyed key: erased, so not there.
        let Some(keys) = self.keys(*pk).await? else { return Ok(None) };
        let spot = Spot { rid: line.rid, kind: *kind, version: line.ver };
        let (header, deleted) = spot.open_head(&keys, head)?;
        if header.last_updated != line.at {
            return Err(Error::tampered("version log"));
        }
        let mut replaced = None;
        if let Some((pk, head)) = &candidate.successor
            && let Some(keys) = self.keys(*pk).await?
        {
            let after = Spot { version: line.ver.saturating_add(1), ..spot };
            replaced = Some(after.open_head(&keys, head)?.0.last_updated);
        }
        if !period.holds(line.at, replaced) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let visible = match (grant.rows(), deleted) {
            (Rows::All, _) => true,
            (rows, true) => {
                cost.decide()?;
                self.past_within(rows, *kind, line.rid, line.ver).await?
            }
            (rows, false) => {
                cost.decide()?;
                bytes = self.body(line.rid, line.ver).await?;
                self.version_within(rows, spot, &keys, &bytes, &header)?
            }
        };
        let (rid, pk, sections) = (line.rid, *pk, grant.sections());
        Ok(visible.then_some(Sealed { rid, pk, header, deleted, sections, bytes }))
    }

    /// The rows that lines are about, in their order.
    async fn candidates(&self, lines: Vec<Numbered>, successors: bool) -> Result<Vec<Candidate>> {
        let (more, join) = match successors {
            true => (", s.pk, s.head", " left join record_version s on s.rid = v.rid and s.ver = v.ver + 1"),
            false => ("", ""),
        };
        let mut found = HashMap::with_capacity(lines.len());
        for chunk in Chunks::of(&lines, ROWS_MAX) {
            let sql = format!(
                "select v.rid, v.ver, v.pk, v.head{more} from record_version v{join} where (v.rid, v.ver) in (values {})",
                placeholders(chunk.len(), 2, 0)
            );
            let params = chunk.iter().flat_map(|(_, _, line)| [Param::Int(line.rid.0), Param::Int(line.ver.into())]);
            for row in self.inner.lookups.rows(&sql, params.collect()).await? {
                let successor = match successors {
                    true => row.opt_int(4)?.zip(row.opt_bytes(5)?).map(|(pk, head)| (Pk(pk), head.to_vec())),
                    false => None,
                };
                found.insert((row.int(0)?, row.small(1)?), (Pk(row.int(2)?), row.bytes(3)?.to_vec(), successor));
            }
        }
        lines
            .into_iter()
            .map(|(n, kind, line)| {
                let row = found.remove(&(line.rid.0, line.ver));
                let (pk, head, successor) = row.ok_or_else(|| Error::tampered("version missing"))?;
                Ok(Candidate { n, kind, line, pk, head, successor })
            })
            .collect()
    }

    /// Fetches the bodies that are not there yet.
    async fn with_bodies(&self, mut shown: Vec<(i64, Sealed)>) -> Result<Vec<(i64, Sealed)>> {
        let wanted: Vec<(i64, u32)> = shown
            .iter()
            .filter(|(_, sealed)| !sealed.deleted && sealed.bytes.is_empty())
            .map(|(_, sealed)| (sealed.rid.0, sealed.header.version))
            .collect();
        let mut bodies = HashMap::with_capacity(wanted.len());
        for chunk in Chunks::of(&wanted, ROWS_MAX) {
            let sql = format!(
                "select rid, ver, sealed from record_version where (rid, ver) in (values {})",
                placeholders(chunk.len(), 2, 0)
            );
            let params = chunk.iter().flat_map(|(rid, ver)| [Param::Int(*rid), Param::Int((*ver).into())]).collect();
            for row in self.inner.lookups.rows(&sql, params).await? {
                bodies.insert((row.int(0)?, row.small(1)?), row.bytes(2)?.to_vec());
            }
        }
        for (_, sealed) in &mut shown {
            if let Some(bytes) = bodies.remove(&(sealed.rid.0, sealed.header.version)) {
                sealed.bytes = bytes;
            }
            if sealed.deleted != sealed.bytes.is_empty() {
                return Err(Error::tampered("version"));
            }
        }
        Ok(shown)
    }

    async fn body(&self, rid: Rid, ver: u32) -> Result<Vec<u8>> {
        let sql = "select sealed from record_version where rid = $1 and ver = $2";
        let rows = self.inner.lookups.rows(sql, vec![Param::Int(rid.0), Param::Int(ver.into())]).await?;
        let row: &Row = rows.first().ok_or_else(|| Error::tampered("version missing"))?;
        Ok(row.bytes(0)?.to_vec())
    }
}

/// What one page has cost so far.
struct Cost {
    examined: usize,
    decided: usize,
    most: usize,
}

impl Cost {
    fn new(most: usize) -> Cost {
        Cost { examined: 0, decided: 0, most }
    }

    fn examine(&mut self, lines: usize) -> Result<()> {
        self.examined += lines;
        Cost::check(self.examined, self.most)
    }

    fn decide(&mut self) -> Result<()> {
        self.decided += 1;
        Cost::check(self.decided, self.most.min(DECIDED_MAX))
    }

    fn check(cost: usize, most: usize) -> Result<()> {
        if cost <= most {
            return Ok(());
        }
        let text = format!(
            "The history would have to look at more than {most} versions for this page. Narrow it by _since, ask for \
             fewer types, or for the history of one resource."
        );
        Err(Error::new(Kind::TooCostly, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::memory;

    #[tokio::test]
    async fn a_line_opens_for_its_type_alone() {
        let vault = memory::vault();
        let line = Line { rid: Rid(-7), ver: 3, at: Instant(1_800_000_000_123) };
        let sealed = line.seal(TypeId(5), &vault).await.expect("seals");
        assert_eq!(Line::open(&sealed, TypeId(5), &vault).await.ok(), Some(line));
        assert!(Line::open(&sealed, TypeId(6), &vault).await.is_err());
    }

    #[test]
    fn a_period_holds_what_was_current_in_it() {
        let at = |lo, hi| Period { at: Some(Range { lo, hi }), since: None };
        for (period, from, to, holds) in [
            (at(10, 20), 5, Some(9), false),
            (at(10, 20), 5, Some(10), false),
            (at(10, 20), 5, Some(11), true),
            (at(10, 20), 5, None, true),
            (at(10, 20), 20, None, true),
            (at(10, 20), 21, None, false),
            (Period { since: Some(Instant(10)), at: None }, 9, None, false),
            (Period { since: Some(Instant(10)), at: None }, 10, Some(11), true),
        ] {
            assert_eq!(period.holds(Instant(from), to.map(Instant)), holds, "{from} {to:?}");
        }
    }
}

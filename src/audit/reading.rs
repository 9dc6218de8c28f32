//! Reading the trail back over FHIR: its own entries, and the AuditEvents that clients have stored like any resource,
//! as one. Every reading is put on record before anything is given back.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use zeroize::Zeroizing;

use super::entry::{Event, Touched};
use super::prefilter::Prefilter;
use super::release::Released;
use super::stored::{Entry, entry_place};
use super::trail::Trail;
use super::{balp, narrow};
use crate::access::{Grant, Grants, Op, Read, Rows};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::{Resource, TypeId, definitions, json};
use crate::search::query::{Modifier, SortBy, Summary, Take, Total, pending, supply};
use crate::search::{Criterion, Matcher, Query, View, capsule, matcher, values};
use crate::store::{AuditEntry, AuditStored, Count, Found, Position, Sealed, Selection};
use crate::vault::Rid;
use crate::world::Instant;

/// Entries, and AuditEvents made of them, that one search looks at. A page ends there, and goes on with the next.
pub const SCANNED_MAX: usize = 10_000;
/// Segments fetched at once.
const CHUNK: usize = 32;
/// Hits of the search that a chain stands for.
const CHAINED_MAX: usize = 1_000;

/// One page of a search for AuditEvents.
pub struct AuditPage {
    pub matches: Vec<Released>,
    pub total: Option<Count>,
    /// None on the last page.
    pub next: Option<Position>,
    pub notes: Vec<Issue>,
}

/// An AuditEvent of an entry that met the criteria.
struct Hit {
    place: HitPlace,
    key: Vec<u8>,
    at: Instant,
    id: String,
    patient: Option<String>,
    bytes: Zeroizing<Vec<u8>>,
}

/// Segment, entry in it, slice of that.
type HitPlace = (i64, u32, u32);

/// How far a search has come in its two sources.
struct Progress {
    own: Source<HitPlace>,
    stored: Source<Position>,
}

enum Source<T> {
    Start,
    After(T),
    Done,
}

/// A search made ready: everything in it can be decided on one AuditEvent.
struct Plan {
    criteria: Vec<Criterion>,
    matcher: Matcher,
    prefilter: Prefilter,
    times: RangeInclusive<i64>,
    sort: Vec<SortBy>,
    newest_first: bool,
}

/// What a scan came to.
struct Scan {
    hits: Vec<Hit>,
    /// All that were seen, whether kept or not.
    counted: u64,
    /// There is nothing beyond.
    ended: bool,
}

/// Reads `agent.identifier`, `entity.identifier` and `source.identifier` as what they mean in an audit trail: the
/// identifier in the AuditEvent itself. To be called before grants are sought: nothing else is looked at then.
pub fn own_identifiers(query: &mut Query) {
    let known = definitions();
    let ours: Vec<_> = ["agent", "entity", "source"]
        .into_iter()
        .filter_map(|code| known.param(query.kind, code).map(|param| param.id))
        .collect();
    let is_identifier = |kind: TypeId, criterion: &Criterion| match criterion {
        Criterion::Param { param, modifier: None, .. } => {
            known.param(kind, "identifier").is_some_and(|known| known.id == *param)
        }
        _ => false,
    };
    for criterion in &mut query.criteria {
        let first = match &*criterion {
            Criterion::AnyOf(roads) => roads.first().and_then(|road| road.first()),
            other => Some(other),
        };
        let own = match first {
            Some(Criterion::Chain { param, target, inner })
                if ours.contains(param) && is_identifier(*target, inner) =>
            {
                match inner.as_ref() {
                    Criterion::Param { any_of, .. } => Some((*param, any_of.clone())),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some((param, any_of)) = own {
            *criterion = Criterion::Param { param, modifier: Some(Modifier::Identifier), any_of };
        }
    }
}

impl Trail {
    /// One AuditEvent, by its logical id. None: there is none, or none the caller may see.
    ///
    /// # Errors
    /// `Kind::Audit` when the reading could not be put on record.
    pub async fn read(&self, event: Event, grant: &Grant<Read>, id: &str) -> Result<Option<Released>> {
        if let Some(hit) = self.own(grant, id).await? {
            return Ok(self.release(event, vec![hit], Vec::new(), &[true]).await?.pop());
        }
        match self.store.find(grant, id).await? {
            Found::Current(sealed) => Ok(self.disclose(event, vec![sealed]).await?.pop()),
            Found::Deleted { .. } | Found::Absent => Ok(None),
        }
    }

    /// A search for AuditEvents, newest first unless `_sort=date` turns it. A page never leaves out or repeats an
    /// event; events of the same moment stand in the order in which they were recorded.
    ///
    /// # Errors
    /// `Kind::TooCostly` when [`SCANNED_MAX`] gave nothing, with advice; `Kind::Unsupported` for another sort order and
    /// for includes; `Kind::Audit` when the reading could not be put on record.
    pub async fn search(
        &self,
        event: Event,
        grants: &Grants,
        query: &Query,
        after: Option<Position>,
    ) -> Result<AuditPage> {
        let grant = grants.get(query.kind).ok_or_else(|| Error::new(Kind::Forbidden, "No scope covers AuditEvent."))?;
        let plan = self.plan(grant, grants, query).await?;
        let progress = Progress::read(after)?;
        let counting = query.summary == Summary::Count;
        let keep = if counting { 0 } else { query.count.saturating_add(1) };
        let scan = self.scan(&plan, &progress.own, keep, counting || query.total != Total::None).await?;
        let stored = self.stored(&plan, &progress.stored, grants, query).await?;
        let total = match (counting || query.total != Total::None, stored.total) {
            (false, _) => None,
            (true, Some(Count::Exact(n))) => Some(Count::Exact(n + scan.counted)),
            (true, Some(Count::Estimate(n))) => Some(Count::Estimate(n + scan.counted)),
            (true, None) => Some(Count::Exact(scan.counted)),
        };
        let notes = stored.notes;
        if counting {
            self.record(event).await?;
            return Ok(AuditPage { matches: Vec::new(), total, next: None, notes });
        }
        let order = merge(&scan.hits, scan.ended, &stored.positions, query.count);
        let own_taken = order.iter().filter(|own| **own).count();
        let stored_taken = order.len() - own_taken;
        let own_more = own_taken < scan.hits.len() || !scan.ended;
        let stored_more = stored_taken < stored.matches.len() || stored.next.is_some();
        let next = (own_more || stored_more).then(|| {
            let own = match scan.hits[..own_taken].last() {
                _ if !own_more => Source::Done,
                Some(hit) => Source::After(hit.place),
                None => progress.own,
            };
            let stored_at = match stored.positions[..stored_taken].last() {
                _ if !stored_more => Source::Done,
                Some(position) => Source::After(position.clone()),
                None => progress.stored,
            };
            Progress { own, stored: stored_at }.write()
        });
        let mut hits = scan.hits;
        hits.truncate(own_taken);
        let mut sealed = stored.matches;
        sealed.truncate(stored_taken);
        let matches = self.release(event, hits, sealed, &order).await?;
        Ok(AuditPage { matches, total, next, notes })
    }

    /// The entries of a segment that have at least one term of every list.
    ///
    /// # Errors
    /// `Kind::Tampered` when they are not what was recorded.
    pub(super) async fn opened(&self, row: &AuditStored, terms: &[Vec<i64>]) -> Result<Vec<(u32, Entry<'static>)>> {
        let has = |entry: &AuditEntry| {
            terms.iter().all(|list| list.iter().any(|term| entry.terms.binary_search(term).is_ok()))
        };
        let opened = self.store.audit_open(row).await?;
        let wanted = opened.iter().filter(|entry| has(entry));
        wanted.map(|entry| Ok((entry.index, Entry::read(row.place, entry.index, &entry.bytes)?))).collect()
    }

    /// The AuditEvent of this id in the trail's own entries, if the grant shows it.
    async fn own<O: Op>(&self, grant: &Grant<O>, id: &str) -> Result<Option<Hit>> {
        let Some((entry_id, number)) = id.rsplit_once('-') else { return Ok(None) };
        let Ok(number) = number.parse::<u32>() else { return Ok(None) };
        let Some((place, index)) = entry_place(entry_id) else { return Ok(None) };
        let Some(row) = self.store.audit_at(place).await? else { return Ok(None) };
        let entries = self.opened(&row, &[]).await?;
        let Some((_, entry)) = entries.into_iter().find(|(at, _)| *at == index) else { return Ok(None) };
        let slices = balp::slices(&entry);
        let slice = slices.iter().find(|slice| slice.number == number as usize && balp::id(&entry, slice) == id);
        let Some(slice) = slice else { return Ok(None) };
        let matcher = Matcher::new(rows(grant))?;
        hit((row.n, index, number), &entry, slice, grant.kind(), &matcher, &[])
    }

    async fn plan(&self, grant: &Grant<crate::access::Search>, grants: &Grants, query: &Query) -> Result<Plan> {
        if !query.includes.is_empty() || !query.revincludes.is_empty() {
            return Err(Error::unsupported("_include and _revinclude are not supported on AuditEvent."));
        }
        let known = definitions();
        let id_of = |code: &str| known.param(query.kind, code).map(|param| param.id);
        let by_time = |by: &SortBy| Some(by.param) == id_of("date") || Some(by.param) == id_of("_lastUpdated");
        let (sort, newest_first) = match query.sort.as_slice() {
            [] => {
                let param = id_of("date").ok_or_else(|| Error::internal("AuditEvent has no date"))?;
                (vec![SortBy { param, descending: true }], true)
            }
            [by] if by_time(by) => (vec![*by], by.descending),
            _ => return Err(Error::unsupported("AuditEvents are sorted by date or _lastUpdated only.")),
        };
        let mut criteria = query.criteria.clone();
        self.resolve(&mut criteria, grants).await?;
        let times = narrow::times(query.kind, &criteria);
        let mut all = criteria.clone();
        all.extend(rows(grant));
        let prefilter = Prefilter::new(query.kind, &criteria);
        Ok(Plan { criteria, matcher: Matcher::new(all)?, prefilter, times, sort, newest_first })
    }

    /// Puts the hits of inner searches in the place of chains, under the caller's own grants.
    async fn resolve(&self, criteria: &mut [Criterion], grants: &Grants) -> Result<()> {
        while let Some(inner) = pending(criteria) {
            if inner.take != Take::Id {
                return Err(Error::unsupported("_has is not supported on AuditEvent."));
            }
            let mut ids = HashSet::new();
            if grants.get(inner.kind).is_some() {
                let query = plain_query(inner.kind, vec![inner.criterion.clone()], Vec::new(), CHAINED_MAX);
                let selection = self.store.select(grants, &query, None).await?;
                if selection.next.is_some() {
                    let text = format!("A chain led to more than {CHAINED_MAX} resources: make it more specific.");
                    return Err(Error::new(Kind::TooCostly, text));
                }
                ids.extend(selection.matches.into_iter().map(|sealed| sealed.header.id));
            }
            supply(criteria, ids);
        }
        Ok(())
    }

    /// Opens entries in order and keeps the first `keep` AuditEvents that meet the plan; counts all when `count_all`.
    async fn scan(&self, plan: &Plan, from: &Source<HitPlace>, keep: usize, count_all: bool) -> Result<Scan> {
        let mut scan = Scan { hits: Vec::new(), counted: 0, ended: true };
        let kind = definitions().type_id("AuditEvent").ok_or_else(|| Error::internal("no AuditEvent"))?;
        let there = match from {
            Source::Done if !count_all => return Ok(scan),
            _ => self.store.audit_months().await?,
        };
        let Some(there) = there else { return Ok(scan) };
        let months = narrow::months(&plan.times, there);
        if months.is_empty() {
            return Ok(scan);
        }
        let terms = narrow::terms(kind, &plan.criteria, &months, &self.vault);
        // A count is of the whole search, whatever page this is.
        let (resume, keep) = match from {
            Source::After(place) if !count_all => (Some(*place), keep),
            _ => (None, keep),
        };
        let skip_to = match from {
            Source::After(place) => Some(*place),
            Source::Start | Source::Done => None,
        };
        let keeps_none = matches!(from, Source::Done);
        let mut at = resume.map(|(n, ..)| if plan.newest_first { n.saturating_add(1) } else { n.saturating_sub(1) });
        let mut looked_at = 0;
        loop {
            let rows = self.store.audit_scan(&terms, months.clone(), at, plan.newest_first, CHUNK).await?;
            for row in &rows {
                at = Some(row.n);
                let mut entries = self.opened(row, &terms).await?;
                if plan.newest_first {
                    entries.reverse();
                }
                for (index, entry) in entries {
                    looked_at += 1;
                    if !plan.times.contains(&entry.at) || !plan.prefilter.may_hold(&entry) {
                        continue;
                    }
                    for slice in balp::slices(&entry).iter().filter(|slice| plan.prefilter.may_be(slice)) {
                        let place = (row.n, index, u32::try_from(slice.number).map_err(Error::internal)?);
                        let beyond = beyond(place, skip_to, plan.newest_first);
                        if !beyond && !count_all {
                            continue;
                        }
                        looked_at += 1;
                        // Making an AuditEvent is work for the processor: let others have their turn.
                        tokio::task::yield_now().await;
                        let Some(hit) = hit(place, &entry, slice, kind, &plan.matcher, &plan.sort)? else { continue };
                        scan.counted += 1;
                        if beyond && !keeps_none && scan.hits.len() < keep {
                            scan.hits.push(hit);
                        }
                        if !count_all && scan.hits.len() >= keep {
                            scan.ended = false;
                            return Ok(scan);
                        }
                    }
                    if looked_at >= self.scanned_max {
                        scan.ended = false;
                        return match count_all || scan.hits.is_empty() {
                            true => Err(too_costly(self.scanned_max)),
                            false => Ok(scan),
                        };
                    }
                }
            }
            if rows.len() < CHUNK {
                return Ok(scan);
            }
        }
    }

    /// The page of AuditEvents that clients have stored.
    async fn stored(&self, plan: &Plan, from: &Source<Position>, grants: &Grants, query: &Query) -> Result<Selection> {
        let mut stored = plain_query(query.kind, plan.criteria.clone(), plan.sort.clone(), query.count);
        stored.total = query.total;
        stored.summary = query.summary;
        let after = match from {
            Source::Start => None,
            Source::After(position) => Some(position.clone()),
            Source::Done => {
                let none = Selection {
                    matches: Vec::new(),
                    positions: Vec::new(),
                    included: Vec::new(),
                    total: None,
                    next: None,
                    examined: 0,
                    notes: Vec::new(),
                };
                if query.total == Total::None {
                    return Ok(none);
                }
                // Only for its count.
                let counted = self.store.select(grants, &stored, None).await?;
                return Ok(Selection { total: counted.total, ..none });
            }
        };
        self.store.select(grants, &stored, after).await
    }

    /// Records the reading, then lets out `order.len()` events: own where true, stored where false.
    async fn release(
        &self,
        mut event: Event,
        hits: Vec<Hit>,
        sealed: Vec<Sealed>,
        order: &[bool],
    ) -> Result<Vec<Released>> {
        let kind = definitions().type_id("AuditEvent").ok_or_else(|| Error::internal("no AuditEvent"))?;
        let what = event.what;
        event.touched.extend(hits.iter().map(|hit| Touched {
            kind,
            id: hit.id.clone(),
            version: Some(1),
            patients: hit.patient.iter().cloned().collect(),
            what,
        }));
        let mut stored = self.disclose(event, sealed).await?.into_iter();
        let mut own = hits.into_iter().map(|hit| Released {
            bytes: hit.bytes,
            kind,
            id: hit.id,
            version: 1,
            last_updated: hit.at,
            deleted: false,
            patients: hit.patient.into_iter().collect(),
        });
        Ok(order.iter().filter_map(|from_own| if *from_own { own.next() } else { stored.next() }).collect())
    }
}

/// The row filter of a grant as criteria.
fn rows<O: Op>(grant: &Grant<O>) -> Vec<Criterion> {
    match grant.rows() {
        Rows::All => Vec::new(),
        Rows::AnyOf(lists) => vec![Criterion::AnyOf(lists.clone())],
    }
}

fn plain_query(kind: TypeId, criteria: Vec<Criterion>, sort: Vec<SortBy>, count: usize) -> Query {
    Query { criteria, sort, ..Query::all(kind, count) }
}

/// The AuditEvent of a slice, if it meets the criteria.
fn hit(
    place: HitPlace,
    entry: &Entry<'_>,
    slice: &balp::Slice<'_>,
    kind: TypeId,
    matcher: &Matcher,
    sort: &[SortBy],
) -> Result<Option<Hit>> {
    let at = Instant(entry.at);
    let id = balp::id(entry, slice);
    let mut resource = Resource::stored(balp::render(entry, slice))?;
    resource.stamp(&id, 1, at);
    // References in the trail are relative, so no base is needed to tell what is local.
    let values = values::values(&resource, 1, at, "")?;
    if values.header.kind != kind {
        return Err(Error::internal("an audit entry reads as another type"));
    }
    let bytes = Zeroizing::new(capsule::encode(&values));
    let view = View::new(&bytes)?;
    if !matcher.matches(&view)? {
        return Ok(None);
    }
    let key = matcher::sort_key(&view, sort)?.0;
    Ok(Some(Hit {
        place,
        key,
        at,
        id,
        patient: slice.patient.map(str::to_owned),
        bytes: Zeroizing::new(json::write(resource.node())),
    }))
}

/// Whether a place lies after the one where the last page ended.
fn beyond((n, index, slice): HitPlace, after: Option<HitPlace>, newest_first: bool) -> bool {
    after.is_none_or(|after| match (n, index) == (after.0, after.1) {
        true => slice > after.2,
        false => ((n, index) < (after.0, after.1)) == newest_first,
    })
}

fn too_costly(most: usize) -> Error {
    let text = format!(
        "The search would look at more than {most} audit events: narrow it by patient, entity, \
         agent:identifier or date, and leave _total out."
    );
    Error::new(Kind::TooCostly, text)
}

/// Which source gives the next event, up to `count` times: true for the trail's own. Unless `own_ended`, nothing may
/// follow the last own event that is known: one that was not looked at could come before it.
fn merge(own: &[Hit], own_ended: bool, stored: &[Position], count: usize) -> Vec<bool> {
    let (mut own, mut stored) = (own.iter().peekable(), stored.iter().peekable());
    let mut order = Vec::new();
    while order.len() < count {
        let from_own = match (own.peek(), stored.peek()) {
            (None, None) => break,
            (None, Some(_)) if !own_ended => break,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(hit), Some(position)) => hit.key <= position.key,
        };
        if from_own {
            own.next();
        } else {
            stored.next();
        }
        order.push(from_own);
    }
    order
}

impl Progress {
    /// Reads a position that [`Progress::write`] made; None is the start.
    fn read(position: Option<Position>) -> Result<Progress> {
        let Some(position) = position else {
            return Ok(Progress { own: Source::Start, stored: Source::Start });
        };
        Progress::decode(&position).ok_or_else(|| Error::invalid("The page link is not one of this search."))
    }

    fn decode(position: &Position) -> Option<Progress> {
        let (head, rest) = position.key.split_first_chunk::<18>()?;
        let n = i64::from_be_bytes(head[1..9].try_into().ok()?);
        let index = u32::from_be_bytes(head[9..13].try_into().ok()?);
        let slice = u32::from_be_bytes(head[13..17].try_into().ok()?);
        let own = match head[0] {
            0 => Source::Start,
            1 => Source::After((n, index, slice)),
            2 => Source::Done,
            _ => return None,
        };
        let stored = match head[17] {
            0 => Source::Start,
            1 => Source::After(Position { key: rest.to_vec(), rid: position.rid }),
            2 => Source::Done,
            _ => return None,
        };
        Some(Progress { own, stored })
    }

    fn write(self) -> Position {
        let (own, (n, index, slice)) = match self.own {
            Source::Start => (0u8, (0, 0, 0)),
            Source::After(place) => (1, place),
            Source::Done => (2, (0, 0, 0)),
        };
        let (stored, key, rid) = match self.stored {
            Source::Start => (0u8, Vec::new(), Rid(0)),
            Source::After(position) => (1, position.key, position.rid),
            Source::Done => (2, Vec::new(), Rid(0)),
        };
        let key = [&[own][..], &n.to_be_bytes(), &index.to_be_bytes(), &slice.to_be_bytes(), &[stored], &key].concat();
        Position { key, rid }
    }
}

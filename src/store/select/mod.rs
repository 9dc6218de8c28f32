//! Search under grants: inner searches of chains and `_has` first, then the candidates of the main type, then the page,
//! then what is included with it. Row filters hold for every one of these. Bodies are fetched for the page alone and
//! stay sealed.

mod consult;
mod contained;
mod include;
mod scan;
mod survey;
mod words;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::read::{State, Stored};
use super::{Count, Position, Sealed, Selection, Store};
use crate::access::{Grant, Grants, Rows, Search};
use crate::error::{Error, Kind, Result};
use crate::fhir::{ParamId, Resource, definitions};
use crate::search::capsule::canonical_params;
use crate::search::mask::Mask;
use crate::search::matcher::sort_key;
use crate::search::query::{Criterion, Pending, SortBy, Summary, Take, Total, pending, supply};
use crate::search::values::Value;
use crate::search::{Matcher, Query, View, capsule, text, values};
use crate::vault::{Keys, Rid};

pub use contained::{Container, Within};
pub use scan::Judge;
use scan::Scan;
pub use survey::{Narrows, Plan};

/// Most resources an inner search (a chain, `_has`) may find, and what part of the candidates of a search when that is
/// less: what searches it becomes a list of the next.
const INNER_MAX: usize = 10_000;
const INNER_PART: usize = 20;

/// Most that all inner searches of one may find.
const INNER_TOTAL_MAX: usize = 100_000;

/// Inner searches that one search may come to (a hierarchy takes one a level).
const INNER_SEARCHES_MAX: usize = 100;

/// A match before its body is fetched: by sort key, then row id. Without `_sort` the key is empty.
type Hit = (Vec<u8>, Rid);

/// A verified resource of the page: sealed content, and the opened capsule for includes.
struct Shown {
    sealed: Sealed,
    capsule: Zeroizing<Vec<u8>>,
}

/// The hits of a page and what is known of the whole.
struct Hits {
    /// Up to one more than the page holds.
    page: Vec<Hit>,
    total: Option<Count>,
    examined: usize,
}

impl Store {
    /// Runs a search under the grants: row filters apply to the main type, chains, `_has`, includes and counts.
    /// Without `_sort` the order is that of random row ids: stable from page to page, telling nothing. A total is
    /// exact when asked for accurately or when everything was seen anyway.
    ///
    /// # Errors
    /// `Kind::Forbidden` without a grant for the type; `Kind::TooCostly` past `candidates_max` candidates or 10,000
    /// results of an inner search, with advice.
    pub async fn select(&self, grants: &Grants, query: &Query, after: Option<Position>) -> Result<Selection> {
        self.page(grants, query, Reach::After(after)).await
    }

    /// The same, for the last matches before a position (None: of all), in the same order. All candidates are looked
    /// at, so the total is exact. There is no `next`: what follows the last match of the page does.
    ///
    /// # Errors
    /// As [`Store::select`].
    pub async fn select_back(&self, grants: &Grants, query: &Query, before: Option<Position>) -> Result<Selection> {
        self.page(grants, query, Reach::Before(before)).await
    }

    async fn page(&self, grants: &Grants, query: &Query, reach: Reach) -> Result<Selection> {
        let kind = query.kind;
        let grant = grants.get(kind).ok_or_else(missing_grant)?;
        let mut notes = Vec::new();
        let mut criteria = query.criteria.clone();
        self.words(grants, grant, &mut criteria).await?;
        add_rows(&mut criteria, grant);
        self.resolve(grants, &mut criteria).await?;
        let matcher = Matcher::new(criteria.clone())?;
        let hits = self.hits(query, criteria, &reach, grant).await?;
        let mut page = hits.page;
        let more = page.len() > query.count && matches!(reach, Reach::After(_));
        page.truncate(query.count);
        let next = page.last().filter(|_| more).map(|(key, rid)| Position { key: key.clone(), rid: *rid });
        let (shown, positions) = self.show(grant, &matcher, page).await?;
        let included = self.included(grants, query, &shown, &mut notes).await?;
        let matches = shown.into_iter().map(|shown| shown.sealed).collect();
        let (total, examined) = (hits.total, hits.examined);
        self.in_epoch(query.epoch).await?;
        Ok(Selection { matches, positions, included, total, next, examined, notes })
    }

    /// Whether a resource that is not stored yet would be found by a query under the grants. Chains and `_has` look at
    /// what is stored: such a query finds nothing here.
    ///
    /// # Errors
    /// `Kind::Invalid` for a value that cannot be read.
    pub fn satisfies(&self, grants: &Grants, query: &Query, resource: &Resource) -> Result<bool> {
        let Some(grant) = grants.get(query.kind).filter(|grant| grant.kind() == resource.kind()) else {
            return Ok(false);
        };
        let mut criteria = query.criteria.clone();
        add_rows(&mut criteria, grant);
        if pending(&criteria).is_some() {
            return Ok(false);
        }
        let mut values = values::values(resource, 1, self.inner.world.now(), &self.inner.base)?;
        values.set_custom(resource, &self.customs(), &self.inner.base);
        let capsule = Zeroizing::new(capsule::encode(&values));
        Matcher::new(criteria)?.matches(&View::new(&capsule)?)
    }

    /// The codes (identifiers too, folded) that a resource which is not stored yet has for some parameters.
    ///
    /// # Errors
    /// `Kind::Invalid` for a value that cannot be read.
    pub fn codes(&self, resource: &Resource, of: &HashSet<ParamId>) -> Result<Vec<(ParamId, String)>> {
        let mut values = values::values(resource, 1, self.inner.world.now(), &self.inner.base)?;
        values.set_custom(resource, &self.customs(), &self.inner.base);
        let code = |value: &Value| match value {
            Value::Token { code, .. } | Value::Identifier { value: code, .. } => {
                code.as_deref().map(|code| text::fold_code(code).into_owned())
            }
            _ => None,
        };
        let wanted = values.params.iter().filter(|(param, _)| of.contains(param));
        Ok(wanted.flat_map(|(param, values)| values.iter().filter_map(code).map(|code| (*param, code))).collect())
    }

    /// Runs the inner searches, innermost first, each under the grant of its type.
    async fn resolve(&self, grants: &Grants, criteria: &mut [Criterion]) -> Result<()> {
        let (mut searches, mut found) = (0, 0);
        while let Some(inner) = pending(criteria) {
            searches += 1;
            if searches > INNER_SEARCHES_MAX || found > INNER_TOTAL_MAX {
                let text = "The chains and hierarchies of this search need too many inner searches. Make it narrower.";
                return Err(Error::new(Kind::TooCostly, text));
            }
            let ids = self.inner_search(grants, &inner).await?;
            found += ids.len();
            if !supply(criteria, ids) {
                return Err(Error::internal("an inner search had no place for its answer"));
            }
        }
        Ok(())
    }

    /// What one inner search finds under the grant of its type; without a grant nothing.
    pub(super) async fn inner_search(&self, grants: &Grants, inner: &Pending<'_>) -> Result<HashSet<String>> {
        let Some(grant) = grants.get(inner.kind) else { return Ok(HashSet::new()) };
        let mut wanted = vec![inner.criterion.clone()];
        add_rows(&mut wanted, grant);
        // A row filter with a chain of its own would need another round: it lets nothing through here.
        match pending(&wanted) {
            Some(_) => Ok(HashSet::new()),
            None => self.inner_ids(grant, wanted, inner.take).await,
        }
    }

    async fn inner_ids(&self, grant: &Grant<Search>, criteria: Vec<Criterion>, take: Take) -> Result<HashSet<String>> {
        let (kind, mask) = (grant.kind(), grant.mask());
        let judge: Judge<Vec<String>> = Arc::new(move |_, _, view: &View<'_>| match take {
            Take::Id => view.names(),
            Take::References { param, .. } if mask.as_ref().is_some_and(|mask| mask.closes(param)) => Ok(Vec::new()),
            Take::References { param, of } => view.named(param, of),
        });
        // What has a canonical url has up to three names.
        let resources = INNER_MAX.min(self.inner.candidates_max / INNER_PART);
        let most = resources * if canonical_params(kind).is_some() { 3 } else { 1 };
        let mut ids = HashSet::new();
        let mut scan = Scan::open(self, grant, criteria, Rid(0), true).await?;
        while let Some(found) = scan.next(&judge).await? {
            ids.extend(found.into_iter().flatten());
            if ids.len() > most {
                let name = definitions().type_name(kind);
                return Err(Error::new(
                    Kind::TooCostly,
                    format!(
                        "An inner search on {name} (a chain or _has) finds more than {resources} resources. Make it \
                         narrower, or search {name} first."
                    ),
                ));
            }
        }
        Ok(ids)
    }

    /// Scans as far as the page and the total need it. Where the grant does not cover every
    /// row there is no estimate: one is made of the number of candidates, and would tell of rows outside the grant.
    async fn hits(
        &self,
        query: &Query,
        criteria: Vec<Criterion>,
        reach: &Reach,
        grant: &Grant<Search>,
    ) -> Result<Hits> {
        let mask = grant.mask();
        let all_rows = matches!(grant.rows(), Rows::All) && mask.is_none();
        let sorted = !query.sort.is_empty();
        let counting = query.summary == Summary::Count || query.count == 0;
        let accurate = query.total == Total::Accurate || counting;
        let whole = sorted || accurate || matches!(reach, Reach::Before(_));
        let start = match reach {
            Reach::After(Some(position)) if !whole => position.rid,
            _ => Rid(0),
        };
        let judge = keyed(&query.sort, mask);
        let wanted = match reach {
            _ if counting => 0,
            Reach::After(_) => query.count + 1,
            Reach::Before(_) => query.count,
        };
        let mut page = Page::new(wanted, reach);
        let mut matched = 0u64;
        let mut scan = Scan::open(self, grant, criteria, start, whole).await?;
        let mut complete = true;
        while let Some(found) = scan.next(&judge).await? {
            matched += found.len() as u64;
            // Every hit is offered: under a `_sort` a later one may come before those that filled the page.
            let mut full = ControlFlow::Continue(());
            for hit in found {
                full = page.offer(hit);
            }
            if !whole && full.is_break() {
                complete = false;
                break;
            }
        }
        let seen_all = complete && start == Rid(0);
        let total = match query.total {
            _ if seen_all => Some(Count::Exact(matched)),
            Total::Estimate if all_rows => {
                Some(Count::Estimate(estimate(scan.count().await?, matched, scan.examined as u64)))
            }
            _ => None,
        };
        Ok(Hits { page: page.in_order(), total, examined: scan.examined })
    }

    /// Fetches and verifies the resources of a page, in its order. One that was changed since is decided again; one
    /// that no longer matches or was deleted is left out.
    async fn show(
        &self,
        grant: &Grant<Search>,
        matcher: &Matcher,
        page: Vec<Hit>,
    ) -> Result<(Vec<Shown>, Vec<Position>)> {
        let rids: Vec<Rid> = page.iter().map(|(_, rid)| *rid).collect();
        let stored = self.stored_rids(grant.kind(), &rids).await?;
        let mut found: HashMap<Rid, Shown> = self.verified(grant, matcher, stored).await?;
        let kept = page.into_iter().filter_map(|(key, rid)| Some((found.remove(&rid)?, Position { key, rid })));
        Ok(kept.unzip())
    }

    /// The rows of these ids that match, each with the keys to its body: for what no capsule tells.
    async fn with_keys(
        &self,
        grant: &Grant<Search>,
        matcher: &Matcher,
        rids: &[Rid],
    ) -> Result<Vec<(Shown, Arc<Keys>)>> {
        let stored = self.stored_rids(grant.kind(), rids).await?;
        let mut found = Vec::new();
        for one in self.verified(grant, matcher, stored).await?.into_values() {
            // Erased meanwhile: not there.
            let Some(keys) = self.keys(one.sealed.pk).await? else { continue };
            found.push((one, keys));
        }
        Ok(found)
    }

    /// Opens the capsules of fetched rows; keeps those that match.
    async fn verified(
        &self,
        grant: &Grant<Search>,
        matcher: &Matcher,
        stored: Vec<Stored>,
    ) -> Result<HashMap<Rid, Shown>> {
        let pks: Vec<_> = stored.iter().map(|row| row.pk).collect();
        let keys = self.inner.vault.keys(&pks).await?;
        let mut found = HashMap::with_capacity(stored.len());
        for (row, keys) in stored.into_iter().zip(keys) {
            let State::Live(capsule) = row.open(grant.kind(), None, keys.as_deref())? else { continue };
            let view = View::new(&capsule)?;
            if self.id_token(grant.kind(), view.id()) != row.id_token {
                return Err(Error::tampered("logical id"));
            }
            if matcher.matches(&view)? {
                let header = view.header()?;
                found.insert(row.rid, Shown { sealed: row.into_sealed(header, grant.sections()), capsule });
            }
        }
        Ok(found)
    }
}

fn missing_grant() -> Error {
    Error::new(Kind::Forbidden, "The access token has no search permission for this type.")
}

/// Adds the row filter of a grant to what a resource must satisfy. What stands there already looks only at what lies in
/// sections that the grant opens; the row filter itself, which the server asks, at all.
fn add_rows(criteria: &mut Vec<Criterion>, grant: &Grant<Search>) {
    if let Some(mask) = grant.mask() {
        let asked = std::mem::take(criteria);
        criteria.push(Criterion::Masked { mask, criteria: asked });
    }
    match grant.rows() {
        Rows::All => {}
        Rows::AnyOf(lists) => criteria.push(Criterion::AnyOf(lists.clone())),
    }
}

fn keyed(sort: &[SortBy], mask: Option<Arc<Mask>>) -> Judge<Hit> {
    let sort = sort.to_vec();
    Arc::new(move |rid, _, view: &View<'_>| match (sort.is_empty(), &mask) {
        (true, _) => Ok((Vec::new(), rid)),
        (false, None) => Ok((sort_key(view, &sort)?.0, rid)),
        (false, Some(mask)) => Ok((sort_key(&view.masked(mask), &sort)?.0, rid)),
    })
}

/// Where a page lies.
enum Reach {
    /// The first matches after a position, or of all.
    After(Option<Position>),
    /// The last matches before one, or of all.
    Before(Option<Position>),
}

/// The hits nearest to a position, at most `wanted`.
enum Page<'a> {
    After { wanted: usize, after: Option<&'a Position>, heap: BinaryHeap<Hit> },
    Before { wanted: usize, before: Option<&'a Position>, heap: BinaryHeap<Reverse<Hit>> },
}

impl<'a> Page<'a> {
    fn new(wanted: usize, reach: &'a Reach) -> Page<'a> {
        match reach {
            Reach::After(after) => Page::After { wanted, after: after.as_ref(), heap: BinaryHeap::new() },
            Reach::Before(before) => Page::Before { wanted, before: before.as_ref(), heap: BinaryHeap::new() },
        }
    }

    /// Break: the page is full (which ends a scan in the order of the page, and no other).
    fn offer(&mut self, hit: Hit) -> ControlFlow<()> {
        let compared = |at: &Position| (hit.0.as_slice(), hit.1).cmp(&(at.key.as_slice(), at.rid));
        match self {
            Page::After { wanted, after, heap } => {
                if after.is_none_or(|after| compared(after).is_gt()) {
                    offer(heap, *wanted, hit);
                }
                if heap.len() >= *wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            Page::Before { wanted, before, heap } => {
                if before.is_none_or(|before| compared(before).is_lt()) {
                    offer(heap, *wanted, Reverse(hit));
                }
                ControlFlow::Continue(())
            }
        }
    }

    fn in_order(self) -> Vec<Hit> {
        match self {
            Page::After { heap, .. } => heap.into_sorted_vec(),
            Page::Before { heap, .. } => heap.into_sorted_vec().into_iter().rev().map(|Reverse(hit)| hit).collect(),
        }
    }
}

/// Keeps the smallest.
fn offer<T: Ord>(heap: &mut BinaryHeap<T>, wanted: usize, hit: T) {
    if heap.len() < wanted {
        heap.push(hit);
    } else if let Some(mut largest) = heap.peek_mut()
        && hit < *largest
    {
        *largest = hit;
    }
}

/// As many of all candidates as matched among those looked at.
fn estimate(candidates: u64, matched: u64, examined: u64) -> u64 {
    match examined {
        0 => candidates,
        _ => (u128::from(candidates) * u128::from(matched) / u128::from(examined)) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_follow_each_other_without_gap_or_repeat(
            keys in proptest::collection::vec((proptest::collection::vec(0u8..3, 0..2), 0i64..500), 0..60),
            size in 1usize..7,
        ) {
            let mut all: Vec<Hit> = keys.into_iter().map(|(key, rid)| (key, Rid(rid))).collect();
            let offered = all.clone();
            all.sort();
            all.dedup();
            let distinct: HashSet<Hit> = offered.into_iter().collect();
            let page = |reach: Reach| {
                let mut page = Page::new(size, &reach);
                for hit in distinct.clone() {
                    let _ = page.offer(hit);
                }
                page.in_order()
            };
            let (mut seen, mut after): (Vec<Hit>, _) = (Vec::new(), None);
            loop {
                let page = page(Reach::After(after));
                let Some((key, rid)) = page.last().cloned() else { break };
                seen.extend(page);
                after = Some(Position { key, rid });
            }
            prop_assert_eq!(&seen, &all);
            let (mut seen, mut before): (Vec<Hit>, _) = (Vec::new(), None);
            loop {
                let page = page(Reach::Before(before));
                let Some((key, rid)) = page.first().cloned() else { break };
                seen.splice(0..0, page);
                before = Some(Position { key, rid });
            }
            prop_assert_eq!(&seen, &all);
        }
    }

    #[test]
    fn an_estimate_scales_what_was_seen() {
        assert_eq!(estimate(1000, 5, 50), 100);
        assert_eq!(estimate(1000, 0, 0), 1000);
    }
}

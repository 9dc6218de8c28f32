//! `_include` and `_revinclude`: resources that a page refers to, or that refer to it, each type under its own grant.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::scan::{Judge, Scan};
use super::{Shown, add_rows};
use crate::access::{Grant, Grants, Search};
use crate::error::{Issue, Result, Severity};
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};
use crate::search::capsule::canonical_params;
use crate::search::mask::Mask;
use crate::search::query::{Criterion, Include, pending};
use crate::search::{Matcher, Query, View};
use crate::store::{Sealed, Store};
use crate::vault::Rid;

/// Most resources included with one page.
const INCLUDED_MAX: usize = 1_000;
/// Rounds of `:iterate`.
const ITERATE_MAX: usize = 5;

/// What is being gathered.
struct Gathered<'a> {
    grants: &'a Grants,
    /// Rows in the answer already, matches too.
    seen: HashSet<Rid>,
    included: Vec<Shown>,
    /// Types left out for want of a grant.
    withheld: BTreeSet<TypeId>,
    full: bool,
}

type Id = (TypeId, String);

impl Store {
    /// Everything included with a page; notes what was left out.
    pub(super) async fn included(
        &self,
        grants: &Grants,
        query: &Query,
        page: &[Shown],
        notes: &mut Vec<Issue>,
    ) -> Result<Vec<Sealed>> {
        if query.includes.is_empty() && query.revincludes.is_empty() {
            return Ok(Vec::new());
        }
        let mut query = query.clone();
        self.only_stored(&mut query, grants, notes).await?;
        let query = &query;
        let seen = page.iter().map(|shown| shown.sealed.rid).collect();
        let mut gathered = Gathered { grants, seen, included: Vec::new(), withheld: BTreeSet::new(), full: false };
        let mut round = self.round(query, page, true, &mut gathered).await?;
        let mut rounds = 1;
        while !round.is_empty() && rounds <= ITERATE_MAX {
            let from = std::mem::take(&mut round);
            round = self.round(query, &from, false, &mut gathered).await?;
            gathered.included.extend(from);
            rounds += 1;
        }
        if !round.is_empty() && iterates(query) {
            notes.push(note(format!("Includes with :iterate were followed for {ITERATE_MAX} rounds and no further.")));
        }
        gathered.included.extend(round);
        if gathered.full {
            notes.push(note(format!("Only the first {INCLUDED_MAX} included resources are given.")));
        }
        for kind in &gathered.withheld {
            let name = definitions().type_name(*kind);
            notes.push(note(format!("Includes of {name} are left out: the access token has no search permission.")));
        }
        Ok(gathered.included.into_iter().map(|shown| shown.sealed).collect())
    }

    /// Of `_revinclude=*`, the types of which there is anything, and which the caller may search.
    async fn only_stored(&self, query: &mut Query, grants: &Grants, notes: &mut Vec<Issue>) -> Result<()> {
        if !query.revincludes.iter().any(|include| include.every) {
            return Ok(());
        }
        let stored = self.stored_types().await?;
        let before = query.revincludes.len();
        query.revincludes.retain(|include| !include.every || grants.get(include.source).is_some());
        if query.revincludes.len() < before {
            let text = "_revinclude=* leaves out the types for which the access token has no search permission.";
            notes.push(note(text.into()));
        }
        query.revincludes.retain(|include| !include.every || stored.contains(&include.source));
        Ok(())
    }

    /// The types of which there are resources.
    async fn stored_types(&self) -> Result<HashSet<TypeId>> {
        // One look into the index per type: counting them would walk through all rows.
        let sql = "with recursive t(n) as (select min(rtype) from record where deleted = 0 union all \
                   select (select min(rtype) from record where deleted = 0 and rtype > t.n) from t where t.n is not null) \
                   select n from t where n is not null";
        let rows = self.inner.lookups.rows(sql, Vec::new()).await?;
        rows.iter().map(|row| Ok(TypeId(row.small(0)? as u16))).collect()
    }

    /// What the includes add to `from`: all of them in the first round, those with `:iterate` later.
    async fn round(
        &self,
        query: &Query,
        from: &[Shown],
        first: bool,
        gathered: &mut Gathered<'_>,
    ) -> Result<Vec<Shown>> {
        let mut targets: BTreeMap<TypeId, BTreeSet<String>> = BTreeMap::new();
        for include in query.includes.iter().filter(|include| first || include.iterate) {
            let mask = gathered.grants.get(include.source).and_then(Grant::mask);
            for (kind, id) in references(include, from, mask.as_deref())? {
                targets.entry(kind).or_default().insert(id);
            }
        }
        let mut added = Vec::new();
        for include in query.includes.iter().filter(|include| first || include.iterate) {
            let mask = gathered.grants.get(include.source).and_then(Grant::mask);
            for (kind, urls) in canonicals(include, from, mask.as_deref())? {
                if let Some(grant) = gathered.grant(kind) {
                    let found = self.meeting(grant, vec![Criterion::IdIn(urls)]).await?;
                    gathered.add(found, &mut added);
                }
            }
        }
        for (kind, ids) in targets {
            if let Some(grant) = gathered.grant(kind) {
                let found = self.by_id(grant, ids).await?;
                gathered.add(found, &mut added);
            }
        }
        for include in query.revincludes.iter().filter(|include| first || include.iterate) {
            if let Some(grant) = gathered.grant(include.source) {
                let found = self.referring(grant, include, from).await?;
                gathered.add(found, &mut added);
            }
        }
        Ok(added)
    }

    /// The resources of these ids that lie within the grant.
    async fn by_id(&self, grant: &Grant<Search>, ids: BTreeSet<String>) -> Result<Vec<Shown>> {
        let mut criteria = Vec::new();
        add_rows(&mut criteria, grant);
        if pending(&criteria).is_some() {
            return Ok(Vec::new());
        }
        let matcher = Matcher::new(criteria)?;
        let tokens: Vec<[u8; 16]> =
            ids.iter().take(INCLUDED_MAX + 1).map(|id| self.id_token(grant.kind(), id)).collect();
        let stored = self.stored(grant.kind(), &tokens, true).await?;
        Ok(self.verified(grant, &matcher, stored).await?.into_values().collect())
    }

    /// The resources of the include's source type that refer to one of `from`.
    async fn referring(&self, grant: &Grant<Search>, include: &Include, from: &[Shown]) -> Result<Vec<Shown>> {
        let mut to: HashMap<TypeId, HashSet<String>> = HashMap::new();
        for shown in from {
            let kind = shown.sealed.header.kind;
            if include.target.is_none_or(|target| target == kind) {
                to.entry(kind).or_default().extend(View::new(&shown.capsule)?.names()?);
            }
        }
        let refers = |(target, ids): (TypeId, HashSet<String>)| {
            let one = move |param| vec![Criterion::ReferenceIn { param, target, ids: ids.clone() }];
            reference_params(include, target).into_iter().map(one).collect::<Vec<_>>()
        };
        let roads: Vec<Vec<Criterion>> = to.into_iter().flat_map(refers).collect();
        match roads.is_empty() {
            true => Ok(Vec::new()),
            false => self.meeting(grant, vec![Criterion::AnyOf(roads)]).await,
        }
    }

    /// The resources of a granted type that meet the criteria, as far as they may be included.
    async fn meeting(&self, grant: &Grant<Search>, mut criteria: Vec<Criterion>) -> Result<Vec<Shown>> {
        add_rows(&mut criteria, grant);
        if pending(&criteria).is_some() {
            return Ok(Vec::new());
        }
        let mut rids = BTreeSet::new();
        let judge: Judge<Rid> = Arc::new(|rid, _, _: &View<'_>| Ok(rid));
        let mut scan = Scan::open(self, grant, criteria, Rid(0), false).await?;
        while let Some(found) = scan.next(&judge).await? {
            rids.extend(found);
            if rids.len() > INCLUDED_MAX {
                break;
            }
        }
        let rids: Vec<Rid> = rids.into_iter().take(INCLUDED_MAX + 1).collect();
        let mut criteria = Vec::new();
        add_rows(&mut criteria, grant);
        let stored = self.stored_rids(grant.kind(), &rids).await?;
        Ok(self.verified(grant, &Matcher::new(criteria)?, stored).await?.into_values().collect())
    }
}

impl<'a> Gathered<'a> {
    fn grant(&mut self, kind: TypeId) -> Option<&'a Grant<Search>> {
        let grant = self.grants.get(kind);
        if grant.is_none() {
            self.withheld.insert(kind);
        }
        grant
    }

    /// Adds what is new, in a fixed order, up to the limit.
    fn add(&mut self, mut found: Vec<Shown>, added: &mut Vec<Shown>) {
        found.sort_unstable_by_key(|shown| shown.sealed.rid);
        for shown in found {
            if self.seen.contains(&shown.sealed.rid) {
                continue;
            }
            if self.included.len() + added.len() >= INCLUDED_MAX {
                self.full = true;
                return;
            }
            self.seen.insert(shown.sealed.rid);
            added.push(shown);
        }
    }
}

/// What resources refer to by one include.
fn references(include: &Include, from: &[Shown], mask: Option<&Mask>) -> Result<Vec<Id>> {
    let mut found = Vec::new();
    for shown in from.iter().filter(|shown| shown.sealed.header.kind == include.source) {
        let view = View::new(&shown.capsule)?;
        let to = mask.map_or(view, |mask| view.masked(mask)).references(include.param)?;
        found.extend(to.into_iter().filter(|(kind, _)| include.target.is_none_or(|target| target == *kind)));
    }
    Ok(found)
}

/// The canonical urls that resources name by one include, by the types that may have them.
fn canonicals(include: &Include, from: &[Shown], mask: Option<&Mask>) -> Result<Vec<(TypeId, HashSet<String>)>> {
    let mut found: BTreeMap<TypeId, HashSet<String>> = BTreeMap::new();
    let open = |param: ParamId| mask.is_none_or(|mask| !mask.closes(param));
    let wanted = |param: ParamId| include.param.is_none_or(|only| only == param) && open(param);
    let params = definitions().params(include.source).iter();
    let params = params.filter(|param| param.kind == ParamKind::Reference && wanted(param.id));
    for param in params {
        let targets = param.targets.iter().filter(|target| include.target.is_none_or(|only| only == **target));
        for target in targets.filter(|target| canonical_params(**target).is_some()) {
            for shown in from.iter().filter(|shown| shown.sealed.header.kind == include.source) {
                let names = View::new(&shown.capsule)?.named(param.id, *target)?;
                let urls: Vec<String> = names.into_iter().filter(|name| name.contains(':')).collect();
                if !urls.is_empty() {
                    found.entry(*target).or_default().extend(urls);
                }
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The reference parameters of a reverse include that may point to a type.
fn reference_params(include: &Include, target: TypeId) -> Vec<ParamId> {
    if let Some(param) = include.param {
        return vec![param];
    }
    let params = definitions().params(include.source).iter();
    let reaches = |targets: &[TypeId]| targets.is_empty() || targets.contains(&target);
    params.filter(|param| param.kind == ParamKind::Reference && reaches(&param.targets)).map(|param| param.id).collect()
}

fn iterates(query: &Query) -> bool {
    query.includes.iter().chain(&query.revincludes).any(|include| include.iterate)
}

fn note(text: String) -> Issue {
    Issue { severity: Severity::Information, code: "incomplete", diagnostics: text.into(), expression: None }
}

//! Searches that are not of one type alone: of the whole server (`GET [base]?_type=A,B`) and of a compartment
//! (`GET [base]/Patient/1/Observation`, `GET [base]/Patient/1/*`). Each type is searched under a grant of its own; the
//! page is put together by type, or by the sort key where there is one.

use std::collections::HashSet;

use super::search::{asked_patients, entry, note, options, parse};
use super::{
    Answer, Bundle, BundleKind, Mode, Pairs, Scene, Shape, contained, cursor, form, history, is_audit, terminology,
};
use crate::access::{Grants, Search, authorize};
use crate::audit::{Event, What};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::{TypeId, definitions, reference};
use crate::search::query::{Summary, Total};
use crate::search::{Criterion, Query};
use crate::store::{Count, Position, Sealed, Selection};
use crate::vault::Rid;

/// The types that have compartments in R4.
pub const COMPARTMENTS: [&str; 5] = ["Patient", "Encounter", "RelatedPerson", "Practitioner", "Device"];

/// Where a search looks.
pub struct Across {
    /// The resource whose compartment it is; None: the whole server.
    pub within: Option<(TypeId, String)>,
    /// One type of the compartment.
    pub only: Option<TypeId>,
}

/// What is on a page.
#[derive(Default)]
struct Page {
    matches: Vec<Sealed>,
    included: Vec<Sealed>,
    next: Option<(TypeId, Position)>,
    /// When everything was looked at.
    total: Option<u64>,
    notes: Vec<Issue>,
}

impl Across {
    pub fn what(&self) -> What {
        if self.only.is_some() { What::SearchType } else { What::SearchSystem }
    }

    /// Below the base; a page link is bound to it.
    pub(super) fn address(&self) -> String {
        let Some((kind, id)) = &self.within else { return String::new() };
        let last = self.only.map_or("*", |kind| definitions().type_name(kind));
        format!("/{}/{id}/{last}", definitions().type_name(*kind))
    }

    /// What makes a resource of this type part of the compartment; None where the type is not in it.
    ///
    /// # Errors
    /// Those of a criterion.
    pub(super) fn within(&self, scene: Scene<'_>, kind: TypeId) -> Result<Option<Criterion>> {
        let name = self.within.as_ref().map(|(of, _)| definitions().type_name(*of));
        match name.is_none_or(|name| definitions().compartment(name, kind).is_some()) {
            true => self.membership(scene, kind),
            false => Ok(None),
        }
    }

    /// The patient whose compartment it is.
    pub(super) fn patient(&self) -> Option<String> {
        let of = self.within.iter().find(|(kind, _)| definitions().type_name(*kind) == "Patient");
        of.map(|(_, id)| id.clone())
    }

    /// The types that are searched: those named, each of which must be granted, else all that are granted.
    ///
    /// # Errors
    /// `Kind::Forbidden` for a named type without a grant, and where there is none at all; `Kind::Invalid` for a type
    /// that is not in the compartment.
    fn kinds(&self, scene: Scene<'_>, named: Option<Vec<TypeId>>) -> Result<Vec<TypeId>> {
        let compartment = self.within.as_ref().map(|(kind, _)| definitions().type_name(*kind));
        let belongs = |kind: TypeId| compartment.is_none_or(|name| definitions().compartment(name, kind).is_some());
        let named = self.only.map(|kind| vec![kind]).or(named);
        let Some(mut kinds) = named else {
            let all = definitions().types().iter().copied().filter(|kind| !is_audit(*kind) && belongs(*kind));
            let granted: Vec<TypeId> = all.filter(|kind| authorize::<Search>(scene.caller, *kind).is_ok()).collect();
            return match granted.is_empty() {
                false => Ok(granted),
                true => Err(Error::new(Kind::Forbidden, "The access token has no search permission for any type.")),
            };
        };
        for kind in &kinds {
            let name = definitions().type_name(*kind);
            if is_audit(*kind) {
                return Err(Error::unsupported("AuditEvents are searched on their own: AuditEvent?patient=."));
            }
            if !belongs(*kind) {
                let compartment = compartment.unwrap_or_default();
                return Err(Error::invalid(format!("{name} is not in the compartment of a {compartment}.")));
            }
            authorize::<Search>(scene.caller, *kind)?;
        }
        kinds.sort_unstable();
        Ok(kinds)
    }

    /// What makes a resource of this type part of the compartment.
    fn membership(&self, scene: Scene<'_>, kind: TypeId) -> Result<Option<Criterion>> {
        let Some((of, id)) = &self.within else { return Ok(None) };
        let name = definitions().type_name(*of);
        let codes = definitions().compartment(name, kind).unwrap_or(&[]);
        let options = options(scene);
        let one = |code: &&str| {
            let wanted = if *code == "_id" { id.clone() } else { format!("{name}/{id}") };
            Ok(vec![Criterion::parse(kind, code, &wanted, &options)?])
        };
        Ok(Some(Criterion::AnyOf(codes.iter().map(one).collect::<Result<_>>()?)))
    }
}

pub(super) async fn search(scene: Scene<'_>, across: &Across, mut pairs: Pairs) -> Result<Answer> {
    if let Some((kind, id)) = &across.within
        && !(COMPARTMENTS.contains(&definitions().type_name(*kind)) && reference::is_id(id))
    {
        return Err(Error::new(
            Kind::NotFound,
            "Only a Patient, Encounter, RelatedPerson, Practitioner or Device has a compartment.",
        ));
    }
    if let Some(kind) = across.only
        && let Some(answer) = Box::pin(contained::search(scene, kind, Some(across), &pairs)).await?
    {
        return Ok(answer);
    }
    let address = across.address();
    let mut after = None;
    if let Some((_, sealed)) = pairs.iter().find(|(name, _)| name == "_cursor") {
        if pairs.len() > 1 {
            return Err(Error::invalid("A page link is complete: no parameter may be added to it."));
        }
        let (kind, position, continued): (u16, (i64, String), String) =
            cursor::open_json(scene, &address, sealed).await?;
        after = Some((TypeId(kind), cursor::position_of(position)?));
        pairs = form::decode(&continued)?;
    }
    let queries = queries(scene, across, &pairs).await?;
    let Some(first) = queries.first() else { return Err(Error::internal("a search of no type")) };
    let mut page = match (first.summary, first.sort.is_empty() || queries.len() == 1) {
        (Summary::Count, _) => Page::default(),
        (_, true) => in_turn(scene, &queries, after.as_ref()).await?,
        (_, false) => merged(scene, &queries, after.as_ref()).await?,
    };
    if first.summary == Summary::Count || first.total == Total::Accurate {
        page.total = Some(counted(scene, &queries).await?);
    }
    answer(scene, across, &pairs, &queries, page).await
}

/// The query of every type, with what makes it part of the compartment.
async fn queries(scene: Scene<'_>, across: &Across, pairs: &Pairs) -> Result<Vec<Query>> {
    let mut named = None;
    let mut rest = Pairs::new();
    for (name, value) in pairs {
        match name.as_str() {
            "_type" if across.only.is_some() => return Err(Error::invalid("The address names the type already.")),
            "_type" if named.is_some() => return Err(Error::invalid("The parameter _type may stand only once.")),
            "_type" => named = Some(history::types(value)?),
            _ => rest.push((name.clone(), value.clone())),
        }
    }
    let options = options(scene);
    let mut queries = Vec::new();
    for kind in across.kinds(scene, named)? {
        let mut query = parse(scene, kind, &rest, &options).await?;
        query.criteria.extend(across.membership(scene, kind)?);
        queries.push(query);
    }
    // Each set of codes is looked up once for all types.
    terminology::resolve_all(scene, &mut queries).await?;
    Ok(queries)
}

async fn select(scene: Scene<'_>, query: &Query, after: Option<Position>) -> Result<Selection> {
    let grants = Grants::of(scene.caller, query)?;
    scene.app.store.select(&grants, query, after).await
}

/// Type after type, in the order of their numbers.
async fn in_turn(scene: Scene<'_>, queries: &[Query], after: Option<&(TypeId, Position)>) -> Result<Page> {
    let mut page = Page::default();
    for query in queries {
        let start = match after {
            Some((kind, _)) if query.kind < *kind => continue,
            Some((kind, position)) if query.kind == *kind => Some(position.clone()),
            _ => None,
        };
        let room = query.count - page.matches.len();
        if room == 0 {
            let probe = Query { count: 1, includes: Vec::new(), revincludes: Vec::new(), ..plain(query) };
            if select(scene, &probe, start).await?.matches.is_empty() {
                continue;
            }
            page.next = Some((query.kind, Position { key: Vec::new(), rid: Rid(0) }));
            break;
        }
        let found = select(scene, &Query { count: room, ..plain(query) }, start).await?;
        page.matches.extend(found.matches);
        page.included.extend(found.included);
        page.notes.extend(found.notes);
        page.next = found.next.map(|position| (query.kind, position));
        if page.next.is_some() {
            break;
        }
    }
    page.total = (after.is_none() && page.next.is_none()).then_some(page.matches.len() as u64);
    Ok(page)
}

/// By sort key, then type, then row: the page is the smallest of what every type has after the position.
async fn merged(scene: Scene<'_>, queries: &[Query], after: Option<&(TypeId, Position)>) -> Result<Page> {
    let count = queries.first().map_or(0, |query| query.count);
    let mut hits = Vec::new();
    let mut more = false;
    for query in queries {
        let start = after.map(|(kind, position)| {
            let rid = match query.kind.cmp(kind) {
                std::cmp::Ordering::Less => Rid(i64::MAX),
                std::cmp::Ordering::Equal => position.rid,
                std::cmp::Ordering::Greater => Rid(0),
            };
            Position { key: position.key.clone(), rid }
        });
        // What goes with a match is looked for when it is known which are on the page.
        let alone = Query { includes: Vec::new(), revincludes: Vec::new(), ..plain(query) };
        let found = select(scene, &alone, start).await?;
        more |= found.next.is_some();
        let of_type = found.matches.into_iter().zip(found.positions);
        hits.extend(of_type.map(|(sealed, position)| (position.key, query.kind, position.rid, sealed)));
    }
    hits.sort_by(|a, b| (&a.0, a.1, a.2).cmp(&(&b.0, b.1, b.2)));
    more |= hits.len() > count;
    hits.truncate(count);
    let last = hits.last().filter(|_| more);
    let next = last.map(|(key, kind, rid, _)| (*kind, Position { key: key.clone(), rid: *rid }));
    let total = (after.is_none() && next.is_none()).then_some(hits.len() as u64);
    let mut page = Page { next, total, ..Page::default() };
    for query in queries {
        let of_type = hits.iter().filter(|(_, kind, ..)| *kind == query.kind);
        let ids: HashSet<String> = of_type.map(|(.., sealed)| sealed.header().id.clone()).collect();
        if ids.is_empty() || (query.includes.is_empty() && query.revincludes.is_empty()) {
            continue;
        }
        let count = ids.len();
        let own = Query { criteria: vec![Criterion::IdIn(ids)], count, sort: Vec::new(), ..plain(query) };
        let found = select(scene, &own, None).await?;
        page.included.extend(found.included);
        page.notes.extend(found.notes);
    }
    page.matches = hits.into_iter().map(|(.., sealed)| sealed).collect();
    Ok(page)
}

/// The query without a total of its own: that of the page is made over all types.
fn plain(query: &Query) -> Query {
    Query { total: Total::None, ..query.clone() }
}

async fn counted(scene: Scene<'_>, queries: &[Query]) -> Result<u64> {
    let mut sum = 0;
    for query in queries {
        let counting = Query { summary: Summary::Count, count: 0, total: Total::Accurate, ..query.clone() };
        sum += match select(scene, &counting, None).await?.total {
            Some(Count::Exact(n) | Count::Estimate(n)) => n,
            None => return Err(Error::internal("a count without a number")),
        };
    }
    Ok(sum)
}

async fn answer(scene: Scene<'_>, across: &Across, pairs: &Pairs, queries: &[Query], page: Page) -> Result<Answer> {
    let first = &queries[0];
    let matched = page.matches.len();
    let mut seen = HashSet::new();
    // A resource that several types lead to, or that is a match itself, is given once.
    let mut all = page.matches;
    all.extend(page.included);
    all.retain(|sealed| seen.insert((sealed.kind(), sealed.header().id.clone())));
    let mut patients: Vec<String> = asked_patients(first);
    patients.extend(across.patient());
    let event = Event { patients, ..scene.event(across.what(), across.only) };
    let released = match all.is_empty() {
        true => scene.app.trail.record(event).await.map(|_| Vec::new())?,
        false => scene.app.trail.disclose(event, all).await?,
    };
    let shape = Shape::of(first.summary, &first.elements);
    let mut entries = Vec::with_capacity(released.len() + 1);
    for (n, released) in released.into_iter().enumerate() {
        let mode = if n < matched { Mode::Match } else { Mode::Include };
        entries.push(entry(scene, released, mode, &shape));
    }
    let mut notes: Vec<Issue> = Vec::new();
    for issue in queries.iter().flat_map(|query| query.notes.iter().cloned()).chain(page.notes) {
        if !notes.iter().any(|have| have.diagnostics == issue.diagnostics) {
            notes.push(issue);
        }
    }
    entries.extend(note(notes));
    let mut applied: Pairs = pairs.iter().filter(|(name, _)| name == "_type").cloned().collect();
    applied.extend(first.applied.iter().cloned());
    Ok(Answer::bundle(Bundle {
        id: scene.app.world.uuid(),
        kind: BundleKind::Searchset,
        at: scene.app.world.now(),
        total: page.total,
        links: links(scene, across, &applied, page.next).await?,
        entries,
    }))
}

async fn links(
    scene: Scene<'_>,
    across: &Across,
    applied: &Pairs,
    next: Option<(TypeId, Position)>,
) -> Result<Vec<(&'static str, String)>> {
    let base = format!("{}{}", scene.app.config.base_url, across.address());
    let format: Pairs = scene.facts.format.iter().map(|format| ("_format".to_owned(), format.clone())).collect();
    let address = |pairs: &[(String, String)]| {
        let all = [pairs, &format].concat();
        if all.is_empty() { base.clone() } else { format!("{base}?{}", form::encode(&all)) }
    };
    let mut links = vec![("self", address(applied))];
    if let Some((kind, position)) = next {
        let state = serde_json::json!([kind.0, cursor::position_state(&position), form::encode(applied)]);
        let sealed = cursor::seal_json(scene, &across.address(), &state).await?;
        links.push(("next", address(&[("_cursor".to_owned(), sealed)])));
    }
    Ok(links)
}

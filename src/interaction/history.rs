//! history of one resource, of a type and of the whole server (http.html#history): versions newest first, deletions
//! included. A type or server page goes on from where the one before ended, whatever is written meanwhile.

use super::search::{full_url, options};
use super::shape::undefined;
use super::{
    Answer, Bundle, BundleKind, Content, Done, Entry, Pairs, Response, Scene, Shape, VersionOf, cursor, form, is_audit,
};
use crate::access::{Grant, Grants, Read, Search, authorize};
use crate::audit::{Released, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, date, definitions};
use crate::search::query::{Summary, Total};
use crate::search::{Criterion, Query};
use crate::store::{Count, HistoryPage, Mark, Past, Period, Sealed};
use crate::world::Instant;

/// Types that `_type` may name.
const TYPES_MAX: usize = 150;

/// What the query of a history asks for.
struct Asked {
    /// 0: the number of versions alone.
    count: usize,
    /// Of one resource: versions below this one.
    before: Option<u32>,
    period: Period,
    /// `_type`, on the whole server.
    types: Option<Vec<TypeId>>,
    shape: Shape,
    applied: Pairs,
}

/// Whose history.
#[derive(Clone, Copy)]
enum Of<'a> {
    Instance(TypeId, &'a str),
    Type(TypeId),
    System,
}

impl Of<'_> {
    fn kind(self) -> Option<TypeId> {
        match self {
            Of::Instance(kind, _) | Of::Type(kind) => Some(kind),
            Of::System => None,
        }
    }

    fn what(self) -> What {
        match self {
            Of::Instance(..) => What::HistoryInstance,
            Of::Type(_) => What::HistoryType,
            Of::System => What::HistorySystem,
        }
    }

    fn address(self, scene: Scene<'_>) -> String {
        let base = &scene.app.config.base_url;
        match self {
            Of::Instance(kind, id) => format!("{}/_history", full_url(scene, kind, id)),
            Of::Type(kind) => format!("{base}/{}/_history", definitions().type_name(kind)),
            Of::System => format!("{base}/_history"),
        }
    }

    /// What a page link is bound to.
    fn cursor_name(self) -> String {
        format!("{}/_history", self.kind().map_or("", |kind| definitions().type_name(kind)))
    }
}

pub(super) async fn instance(scene: Scene<'_>, kind: TypeId, id: &str, query: &Pairs) -> Result<Answer> {
    let of = Of::Instance(kind, id);
    let grant = authorize::<Read>(scene.caller, kind)?;
    let asked = Asked::parse(scene, of, query)?;
    let (entries, total, next) = match is_audit(kind) {
        true => {
            let entries = audit_event(scene, &grant, id, &asked).await?;
            let total = entries.len() as u64;
            (entries, total, None)
        }
        false => {
            let store = &scene.app.store;
            let found = store.history(&grant, id, asked.count, asked.before, asked.period).await?;
            let HistoryPage { versions, total, next } = found;
            (disclose(scene, of, versions, &asked.shape).await?, total, next)
        }
    };
    let next = next.map(|before| vec![("_before".to_owned(), before.to_string())]);
    let mut own = asked.applied.clone();
    own.extend(asked.before.map(|before| ("_before".to_owned(), before.to_string())));
    let mut links = vec![("self", address(scene, of, &own))];
    if let Some(next) = next {
        links.push(("next", address(scene, of, &[asked.applied, next].concat())));
    }
    Ok(bundle(scene, Some(total), links, entries))
}

pub(super) async fn of_type(scene: Scene<'_>, kind: TypeId, query: Pairs) -> Result<Answer> {
    if is_audit(kind) {
        return events(scene, kind, query).await;
    }
    let grants = [authorize::<Search>(scene.caller, kind)?];
    past(scene, Of::Type(kind), &grants, query).await
}

/// Of AuditEvents: they are added and never change, so that their history is their list, newest first.
async fn events(scene: Scene<'_>, kind: TypeId, mut query: Pairs) -> Result<Answer> {
    let of = Of::Type(kind);
    let mut after = None;
    if let Some((_, sealed)) = query.iter().find(|(name, _)| name == "_cursor") {
        if query.len() > 1 {
            return Err(Error::invalid("A page link is complete: no parameter may be added to it."));
        }
        let (position, continued): ((i64, String), String) =
            cursor::open_json(scene, &of.cursor_name(), sealed).await?;
        (query, after) = (form::decode(&continued)?, Some(cursor::position_of(position)?));
    }
    let asked = Asked::parse(scene, of, &query)?;
    let mut search = Query::all(kind, asked.count);
    // What was there at a time is what was added up to then.
    let bounds = [("ge", asked.period.since), ("le", asked.period.at.map(|at| Instant(at.hi)))];
    for (prefix, at) in bounds.into_iter().filter_map(|(prefix, at)| Some((prefix, at?))) {
        let options = options(scene);
        search.criteria.push(Criterion::parse(kind, "_lastUpdated", &format!("{prefix}{}", at.to_fhir()), &options)?);
    }
    if asked.count == 0 {
        (search.summary, search.total) = (Summary::Count, Total::Accurate);
    }
    let grants = Grants::of(scene.caller, &search)?;
    let page = scene.app.trail.search(scene.event(of.what(), Some(kind)), &grants, &search, after).await?;
    let mut links = vec![("self", address(scene, of, &asked.applied))];
    if let Some(next) = page.next {
        let state = serde_json::json!([cursor::position_state(&next), form::encode(&asked.applied)]);
        let sealed = cursor::seal_json(scene, &of.cursor_name(), &state).await?;
        links.push(("next", address(scene, of, &[("_cursor".to_owned(), sealed)])));
    }
    let total = page.total.map(|total| match total {
        Count::Exact(n) | Count::Estimate(n) => n,
    });
    let entries = page.matches.into_iter().map(|released| entry(scene, released, &asked.shape)).collect();
    Ok(bundle(scene, total, links, entries))
}

/// Of the types that `_type` names, and of all that the caller may search where it names none. Those of AuditEvents
/// are asked for by themselves.
pub(super) async fn of_system(scene: Scene<'_>, query: Pairs) -> Result<Answer> {
    let kinds = definitions().types().iter().copied().filter(|kind| !is_audit(*kind));
    let grants: Vec<Grant<Search>> = kinds.filter_map(|kind| authorize::<Search>(scene.caller, kind).ok()).collect();
    if grants.is_empty() {
        return Err(Error::new(Kind::Forbidden, "The access token has no search permission for any type."));
    }
    past(scene, Of::System, &grants, query).await
}

async fn past(scene: Scene<'_>, of: Of<'_>, grants: &[Grant<Search>], mut query: Pairs) -> Result<Answer> {
    let mut after = None;
    if let Some((_, sealed)) = query.iter().find(|(name, _)| name == "_cursor") {
        if query.len() > 1 {
            return Err(Error::invalid("A page link is complete: no parameter may be added to it."));
        }
        let (top, n, continued): (i64, i64, String) = cursor::open_json(scene, &of.cursor_name(), sealed).await?;
        (query, after) = (form::decode(&continued)?, Some(Mark { top, n }));
    }
    let asked = Asked::parse(scene, of, &query)?;
    let chosen: Vec<Grant<Search>>;
    let grants = match &asked.types {
        None => grants,
        Some(types) => {
            chosen = types.iter().map(|kind| authorize::<Search>(scene.caller, *kind)).collect::<Result<_>>()?;
            &chosen
        }
    };
    let page = scene.app.store.past(&Past { grants, period: asked.period, count: asked.count, after }).await?;
    let mut links = vec![("self", address(scene, of, &asked.applied))];
    if let Some(Mark { top, n }) = page.next {
        let state = serde_json::json!([top, n, form::encode(&asked.applied)]);
        let sealed = cursor::seal_json(scene, &of.cursor_name(), &state).await?;
        links.push(("next", address(scene, of, &[("_cursor".to_owned(), sealed)])));
    }
    let entries = disclose(scene, of, page.versions, &asked.shape).await?;
    Ok(bundle(scene, page.total, links, entries))
}

impl Asked {
    fn parse(scene: Scene<'_>, of: Of<'_>, query: &Pairs) -> Result<Asked> {
        let config = &scene.app.config;
        let lenient = scene.facts.prefer.lenient;
        let count = config.page_size.size();
        let (period, shape) = (Period::default(), Shape::Full);
        let mut asked = Asked { count, before: None, period, types: None, shape, applied: Vec::new() };
        let mut shaping = Pairs::new();
        for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
            if asked.applied.iter().any(|(have, _)| have == name) {
                return Err(Error::invalid(format!("The parameter {name} may stand only once.")));
            }
            let mut applied = value.clone();
            match (name.as_str(), of) {
                ("_count", _) => {
                    let number: usize = value.parse().map_err(|_| wrong(name, "a whole number from 0"))?;
                    asked.count = number.min(config.page_size_max.size());
                    applied = asked.count.to_string();
                }
                ("_summary", _) if value == "count" => asked.count = 0,
                ("_since", _) => asked.period.since = Some(Instant(moment(name, value)?.lo)),
                ("_at", _) => asked.period.at = Some(moment(name, value)?),
                ("_sort", _) if value == "-_lastUpdated" => {}
                ("_sort", _) => return Err(Error::unsupported("A history is sorted by -_lastUpdated alone.")),
                ("_type", Of::System) => asked.types = Some(types(value)?),
                ("_before", Of::Instance(..)) => {
                    asked.before = Some(value.parse().map_err(|_| wrong(name, "a version"))?);
                    continue;
                }
                ("_summary" | "_elements", _) => shaping.push((name.clone(), value.clone())),
                ("_list", _) => return Err(Error::unsupported("_list is not supported on a history.")),
                _ if lenient => continue,
                _ => return Err(undefined(name)),
            }
            asked.applied.push((name.clone(), applied));
        }
        asked.shape = Shape::from_pairs(of.kind(), &shaping, lenient)?;
        Ok(asked)
    }
}

/// A date of any precision. In a query string `+` is a space: the offset of a time was meant.
fn moment(name: &str, value: &str) -> Result<date::Range> {
    date::parse(&value.replace(' ', "+")).map_err(|_| wrong(name, "a date or an instant"))
}

fn wrong(name: &str, expected: &str) -> Error {
    Error::invalid(format!("The parameter {name} must be {expected}."))
}

/// The types of `_type`, each once.
///
/// # Errors
/// `Kind::Invalid` for one that is none; `Kind::Unsupported` for AuditEvent, which has no history.
pub(super) fn types(value: &str) -> Result<Vec<TypeId>> {
    let mut kinds = Vec::new();
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let kind = definitions().type_id(name);
        let kind = kind.ok_or_else(|| Error::invalid(format!("'{name}' in _type is no resource type of R4.")))?;
        if is_audit(kind) {
            return Err(Error::unsupported("_type=AuditEvent is not supported here: search AuditEvent on its own."));
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() || kinds.len() > TYPES_MAX {
        return Err(Error::invalid("_type must name resource types, separated by commas."));
    }
    Ok(kinds)
}

fn bundle(scene: Scene<'_>, total: Option<u64>, links: Vec<(&'static str, String)>, entries: Vec<Entry>) -> Answer {
    let (id, at) = (scene.app.world.uuid(), scene.app.world.now());
    Answer::bundle(Bundle { id, kind: BundleKind::History, at, total, links, entries })
}

fn address(scene: Scene<'_>, of: Of<'_>, pairs: &[(String, String)]) -> String {
    let format = scene.facts.format.iter().map(|format| ("_format".to_owned(), format.clone()));
    let all: Pairs = pairs.iter().cloned().chain(format).collect();
    let base = of.address(scene);
    if all.is_empty() { base } else { format!("{base}?{}", form::encode(&all)) }
}

/// An AuditEvent never changes: its history is its one version.
async fn audit_event(scene: Scene<'_>, grant: &Grant<Read>, id: &str, asked: &Asked) -> Result<Vec<Entry>> {
    let event = scene.event(What::HistoryInstance, Some(grant.kind()));
    let released = scene.app.trail.read(event, grant, id).await?.ok_or_else(Error::not_found)?;
    let shown = asked.before.is_none_or(|before| before > 1) && asked.period.holds(released.last_updated(), None);
    Ok(shown.then(|| entry(scene, released, &asked.shape)).into_iter().collect())
}

/// A page without versions is on record all the same.
async fn disclose(scene: Scene<'_>, of: Of<'_>, versions: Vec<Sealed>, shape: &Shape) -> Result<Vec<Entry>> {
    let released = scene.app.trail.disclose(scene.event(of.what(), of.kind()), versions).await?;
    Ok(released.into_iter().map(|released| entry(scene, released, shape)).collect())
}

fn entry(scene: Scene<'_>, released: Released, shape: &Shape) -> Entry {
    let deleted = released.is_deleted();
    let address = format!("{}/{}", definitions().type_name(released.kind()), released.id());
    let (method, done) = match (deleted, released.version()) {
        (true, _) => ("DELETE", Done::NoContent),
        (false, 1) => ("PUT", Done::Created),
        (false, _) => ("PUT", Done::Ok),
    };
    Entry {
        full_url: Some(full_url(scene, released.kind(), released.id())),
        request: Some((method, address)),
        response: Some(Response::Done { done, version: Some(VersionOf::read(&released)) }),
        content: (!deleted).then(|| Content::Released(released, shape.clone())),
        ..Entry::default()
    }
}

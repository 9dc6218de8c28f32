//! search-type (search.html), by GET and POST alike.

use super::{
    Answer, Bundle, BundleKind, Content, Entry, Mode, Pairs, Scene, Shape, contained, cursor, form, is_audit,
    terminology,
};
use crate::access::{Grants, Search, authorize};
use crate::audit::reading::own_identifiers;
use crate::audit::{AuditPage, Event, Released, What};
use crate::error::{Error, Issue, Result, Severity};
use crate::fhir::{TypeId, definitions};
use crate::search::query::{Summary, Wanted, WantedReference};
use crate::search::{Criterion, Lookup, Query, QueryOptions};
use crate::store::{Count, Position, Selection};

/// One page of hits whose disclosure is on record.
struct Page {
    released: Vec<Released>,
    /// How many of them are matches; the others are included.
    matched: usize,
    total: Option<Count>,
    next: Option<Position>,
    notes: Vec<Issue>,
}

pub(super) async fn search(scene: Scene<'_>, kind: TypeId, pairs: Pairs) -> Result<Answer> {
    if let Some(answer) = Box::pin(contained::search(scene, kind, None, &pairs)).await? {
        return Ok(answer);
    }
    let (mut query, after) = checked(scene, kind, pairs).await?;
    // Whoever may not search the type learns nothing of what a set of codes holds.
    authorize::<Search>(scene.caller, kind)?;
    terminology::resolve(scene, &mut query).await?;
    let Page { released, matched, total, next, notes } = match is_audit(kind) {
        true => trail_page(scene, &mut query, after).await?,
        false => page(scene, &query, after).await?,
    };
    let notes = query.notes.iter().cloned().chain(notes).chain(total.and_then(estimated)).collect();
    let mut bundle = Bundle {
        id: scene.app.world.uuid(),
        kind: BundleKind::Searchset,
        at: scene.app.world.now(),
        total: total.map(|total| match total {
            Count::Exact(n) | Count::Estimate(n) => n,
        }),
        links: links(scene, &query, next.as_ref()).await?,
        entries: Vec::with_capacity(released.len() + 1),
    };
    let shape = Shape::of(query.summary, &query.elements);
    for (n, released) in released.into_iter().enumerate() {
        let mode = if n < matched { Mode::Match } else { Mode::Include };
        bundle.entries.push(entry(scene, released, mode, &shape));
    }
    bundle.entries.extend(note(notes));
    Ok(Answer::bundle(bundle))
}

async fn page(scene: Scene<'_>, query: &Query, after: Option<Position>) -> Result<Page> {
    let grants = Grants::of(scene.caller, query)?;
    let selection = scene.app.store.select(&grants, query, after).await?;
    let Selection { mut matches, mut included, total, next, notes, .. } = selection;
    if query.summary == Summary::Count {
        matches.clear();
        included.clear();
    }
    let matched = matches.len();
    matches.append(&mut included);
    let event = event(scene, query);
    let released = match matches.is_empty() {
        true => scene.app.trail.record(event).await.map(|_| Vec::new())?,
        false => scene.app.trail.disclose(event, matches).await?,
    };
    Ok(Page { released, matched, total, next, notes })
}

/// AuditEvents: the trail's own entries together with those that clients stored.
async fn trail_page(scene: Scene<'_>, query: &mut Query, after: Option<Position>) -> Result<Page> {
    own_identifiers(query);
    let grants = Grants::of(scene.caller, query)?;
    let page = scene.app.trail.search(event(scene, query), &grants, query, after).await?;
    let AuditPage { matches, total, next, notes } = page;
    Ok(Page { matched: matches.len(), released: matches, total, next, notes })
}

/// The event of a search. The patients it asks for are on record even when nothing is found.
fn event(scene: Scene<'_>, query: &Query) -> Event {
    Event { patients: asked_patients(query), ..scene.event(What::SearchType, Some(query.kind)) }
}

/// The patients that a search names. A bare id counts where it may be a patient's: what `patient` refers to may be a
/// group too.
pub(super) fn asked_patients(query: &Query) -> Vec<String> {
    let Some(patient) = definitions().type_id("Patient") else { return Vec::new() };
    let own = definitions().param(patient, "_id").filter(|_| query.kind == patient).map(|param| param.id);
    let mut ids = Vec::new();
    for criterion in &query.criteria {
        let Criterion::Param { param, any_of, .. } = criterion else { continue };
        ids.extend(any_of.iter().filter_map(|wanted| match wanted {
            Wanted::Reference(WantedReference::Local { kinds, id, .. }) if kinds.contains(&patient) => Some(id.clone()),
            Wanted::Token { code: Some(code), .. } if own == Some(*param) => Some(code.exact.clone()),
            _ => None,
        }));
    }
    ids
}

/// Parses the query, or takes query and position from a page link.
async fn checked(scene: Scene<'_>, kind: TypeId, mut pairs: Pairs) -> Result<(Query, Option<Position>)> {
    let mut after = None;
    if let Some((_, sealed)) = pairs.iter().find(|(name, _)| name == "_cursor") {
        if pairs.len() > 1 {
            return Err(Error::invalid("A page link is complete: no parameter may be added to it."));
        }
        let (continued, position) = cursor::open(scene, kind, sealed).await?;
        (pairs, after) = (continued, Some(position));
    }
    Ok((parse(scene, kind, &pairs, &options(scene)).await?, after))
}

/// Reads a query. Names that the standard does not have are looked for among the search parameters of the site as they
/// are now, not as this server knew them a while ago.
pub(super) async fn parse(
    scene: Scene<'_>,
    kind: TypeId,
    pairs: &[(String, String)],
    options: &QueryOptions,
) -> Result<Query> {
    let read = Query::parse(kind, pairs, options);
    if !options.customs.asked() {
        return read;
    }
    let customs = Lookup::new(scene.app.store.customs_now().await?);
    Query::parse(kind, pairs, &QueryOptions { customs, ..options.clone() })
}

/// How this server and this request want queries to be read.
pub(super) fn options(scene: Scene<'_>) -> QueryOptions {
    let config = &scene.app.config;
    QueryOptions {
        lenient: scene.facts.prefer.lenient,
        base: config.base_url.clone(),
        count_default: config.page_size.size(),
        count_max: config.page_size_max.size(),
        now: scene.app.world.now(),
        customs: Lookup::new(scene.app.store.customs()),
    }
}

async fn links(scene: Scene<'_>, query: &Query, next: Option<&Position>) -> Result<Vec<(&'static str, String)>> {
    let base = format!("{}/{}", scene.app.config.base_url, definitions().type_name(query.kind));
    let format: Pairs = scene.facts.format.iter().map(|format| ("_format".to_owned(), format.clone())).collect();
    let address = |pairs: &Pairs| {
        let all: Pairs = pairs.iter().chain(&format).cloned().collect();
        if all.is_empty() { base.clone() } else { format!("{base}?{}", form::encode(&all)) }
    };
    let mut links = vec![("self", address(&query.applied))];
    if let Some(next) = next.filter(|_| query.summary != Summary::Count) {
        let sealed = cursor::seal(scene, query.kind, &query.applied, next).await?;
        links.push(("next", address(&vec![("_cursor".to_owned(), sealed)])));
    }
    Ok(links)
}

/// A match or an included resource.
pub(super) fn entry(scene: Scene<'_>, released: Released, mode: Mode, shape: &Shape) -> Entry {
    Entry {
        full_url: Some(full_url(scene, released.kind(), released.id())),
        content: Some(Content::Released(released, shape.clone())),
        mode: Some(mode),
        ..Entry::default()
    }
}

/// Absolute address of a resource here.
pub(super) fn full_url(scene: Scene<'_>, kind: TypeId, id: &str) -> String {
    format!("{}/{}/{id}", scene.app.config.base_url, definitions().type_name(kind))
}

/// What is to be said to the caller beside the matches.
pub(super) fn note(notes: Vec<Issue>) -> Option<Entry> {
    if notes.is_empty() {
        return None;
    }
    Some(Entry { content: Some(Content::Outcome(notes)), mode: Some(Mode::Outcome), ..Entry::default() })
}

fn estimated(total: Count) -> Option<Issue> {
    match total {
        Count::Exact(_) => None,
        Count::Estimate(_) => Some(Issue {
            severity: Severity::Information,
            code: "informational",
            diagnostics: "Bundle.total is an estimate.".into(),
            expression: Some("Bundle.total".into()),
        }),
    }
}

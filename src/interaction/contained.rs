//! `_contained` and `_containedType` (search.html#contained): matches that lie within other resources. A contained
//! resource is seen by whoever sees its container, and by nobody else: containers are searched, each type under its own
//! grant, and the container is what the record of the disclosure names.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::json;

use super::across::Across;
use super::search::{asked_patients, entry, full_url, note, options};
use super::{
    Answer, Bundle, BundleKind, Content, Entry, Mode, Pairs, Scene, Shape, cursor, form, is_audit, terminology,
};
use crate::access::{Grants, Search, authorize};
use crate::audit::{Event, Released, What};
use crate::error::{Error, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{TypeId, definitions};
use crate::search::Query;
use crate::search::query::{Summary, Total};
use crate::store::{Container, Count, Sealed, Within};
use crate::vault::Rid;

/// What the two parameters ask for.
#[derive(Clone, Copy)]
struct Asked {
    /// Besides what is contained nowhere.
    both: bool,
    /// The contained resource alone, not the one around it.
    alone: bool,
}

/// Where the next page starts.
#[derive(Deserialize)]
struct State {
    applied: String,
    /// Among what is contained nowhere.
    own: Option<(i64, String)>,
    /// After this one: type and row of the container, place among what matches in it.
    inside: Option<(u16, i64, usize)>,
}

/// One match within a container.
struct Hit<'a> {
    of: &'a Container,
    n: usize,
}

impl Hit<'_> {
    fn place(&self) -> (u16, i64, usize) {
        (self.of.kind.0, self.of.rid.0, self.n)
    }
}

impl Asked {
    /// # Errors
    /// `Kind::Invalid` for another value than the standard's.
    fn of(pairs: &Pairs) -> Result<Option<Asked>> {
        let mut asked = None;
        let mut alone = false;
        for (name, value) in pairs {
            match (name.as_str(), value.as_str()) {
                ("_contained", "true") => asked = Some(false),
                ("_contained", "both") => asked = Some(true),
                ("_containedType", "contained") => alone = true,
                ("_contained", "false" | "") | ("_containedType", "container" | "") => {}
                ("_contained", _) => return Err(Error::invalid("'_contained' is true, false or both.")),
                ("_containedType", _) => return Err(Error::invalid("'_containedType' is container or contained.")),
                _ => {}
            }
        }
        Ok(asked.map(|both| Asked { both, alone }))
    }
}

/// The answer of a search for contained resources of one type, of the whole server or of a compartment; None where that is
/// not what is asked for.
pub(super) async fn search(
    scene: Scene<'_>,
    kind: TypeId,
    across: Option<&Across>,
    pairs: &Pairs,
) -> Result<Option<Answer>> {
    let address = across.map_or_else(|| format!("/{}", definitions().type_name(kind)), Across::address);
    let bound = format!("{address}?_contained");
    let (pairs, from) = match pairs.as_slice() {
        [(name, sealed)] if name == "_cursor" => {
            let Ok(state) = cursor::open_json::<State>(scene, &bound, sealed).await else { return Ok(None) };
            (form::decode(&state.applied)?, Some(state))
        }
        _ => (pairs.clone(), None),
    };
    let Some(asked) = Asked::of(&pairs)? else { return Ok(None) };
    let grant = authorize::<Search>(scene.caller, kind)?;
    let (named, rest): (Pairs, Pairs) = pairs.into_iter().partition(|(name, _)| name.starts_with("_contained"));
    let mut query = Query::parse(grant.kind(), &rest, &options(scene))?;
    refused(&query)?;
    terminology::resolve(scene, &mut query).await?;
    let applied: Pairs = named.into_iter().chain(query.applied.iter().cloned()).collect();
    let page = Looking { scene, asked, across, query: &query }.page(from).await?;
    let mut links = vec![("self", link(scene, &address, &applied))];
    if let Some((own, inside)) = page.next {
        let state = json!({"applied": form::encode(&applied), "own": own, "inside": inside});
        let sealed = cursor::seal_json(scene, &bound, &state).await?;
        links.push(("next", link(scene, &address, &vec![("_cursor".to_owned(), sealed)])));
    }
    let mut entries = page.entries;
    entries.extend(note(query.notes.clone()));
    let (id, at) = (scene.app.world.uuid(), scene.app.world.now());
    let bundle = Bundle { id, kind: BundleKind::Searchset, at, total: page.total, links, entries };
    Ok(Some(Answer::bundle(bundle)))
}

/// What cannot be done for resources that are in no index and of many types.
fn refused(query: &Query) -> Result<()> {
    let text = match () {
        () if is_audit(query.kind) => "AuditEvents are not searched for in other resources.",
        () if !query.sort.is_empty() => "'_sort' is not supported together with '_contained'.",
        () if !query.includes.is_empty() || !query.revincludes.is_empty() => {
            "'_include' and '_revinclude' are not supported together with '_contained'."
        }
        () if !matches!(query.summary, Summary::False | Summary::Count) || !query.elements.is_empty() => {
            "'_summary' (but for count) and '_elements' are not supported together with '_contained'."
        }
        () => return Ok(()),
    };
    Err(Error::unsupported(text))
}

fn link(scene: Scene<'_>, address: &str, pairs: &Pairs) -> String {
    let format = scene.facts.format.iter().map(|format| ("_format".to_owned(), format.clone()));
    let all: Pairs = pairs.iter().cloned().chain(format).collect();
    format!("{}{address}?{}", scene.app.config.base_url, form::encode(&all))
}

/// One search under way.
struct Looking<'a> {
    scene: Scene<'a>,
    asked: Asked,
    across: Option<&'a Across>,
    query: &'a Query,
}

type Next = (Option<(i64, String)>, Option<(u16, i64, usize)>);

#[derive(Default)]
struct Page {
    entries: Vec<Entry>,
    total: Option<u64>,
    next: Option<Next>,
}

impl Looking<'_> {
    async fn page(&self, from: Option<State>) -> Result<Page> {
        let (first, store) = (from.is_none(), &self.scene.app.store);
        let (own_from, after) = from.map_or((None, None), |state| (state.own, state.inside));
        let grants = Grants::of(self.scene.caller, self.query)?;
        let own = self.own()?;
        let counting = self.query.summary == Summary::Count;
        let (mut matches, mut own_next) = (Vec::new(), None);
        if after.is_none()
            && !counting
            && let Some(own) = &own
        {
            let position = own_from.map(cursor::position_of).transpose()?;
            let selection = store.select(&grants, own, position).await?;
            (matches, own_next) = (selection.matches, selection.next);
        }
        let whole = counting || self.query.total == Total::Accurate;
        let containers = match own_next.is_none() || whole {
            true => store.contained(&grants, self.query, &self.within()?, self.asked.both && !self.asked.alone).await?,
            false => Vec::new(),
        };
        let hits = self.hits(&containers);
        let mut page = Page::default();
        if whole {
            page.total = Some(hits.len() as u64 + self.counted(&grants, own.as_ref()).await?);
        }
        if let Some(position) = &own_next {
            let plain = serde_json::from_value(cursor::position_state(position)).map_err(Error::internal)?;
            page.next = Some((Some(plain), None));
            page.entries = self.released(matches, &[]).await?;
            return Ok(page);
        }
        let room = if counting { 0 } else { self.query.count - matches.len() };
        let rest: Vec<&Hit<'_>> = hits.iter().filter(|hit| after.is_none_or(|after| hit.place() > after)).collect();
        let taken = &rest[..room.min(rest.len())];
        if !counting && rest.len() > taken.len() {
            page.next = Some((None, Some(taken.last().map(|hit| hit.place()).or(after).unwrap_or_default())));
        } else if first && !counting {
            page.total = Some((matches.len() + hits.len()) as u64);
        }
        page.entries = self.released(matches, taken).await?;
        Ok(page)
    }

    /// The search for what is contained nowhere, where that is asked for too.
    fn own(&self) -> Result<Option<Query>> {
        if !self.asked.both {
            return Ok(None);
        }
        let mut own = Query { total: Total::None, ..self.query.clone() };
        match self.across.map(|across| across.within(self.scene, self.query.kind)).transpose()? {
            None => {}
            Some(Some(member)) => own.criteria.push(member),
            Some(None) => return Ok(None),
        }
        Ok(Some(own))
    }

    async fn counted(&self, grants: &Grants, own: Option<&Query>) -> Result<u64> {
        let Some(own) = own else { return Ok(0) };
        let counting = Query { summary: Summary::Count, count: 0, total: Total::Accurate, ..own.clone() };
        match self.scene.app.store.select(grants, &counting, None).await?.total {
            Some(Count::Exact(n) | Count::Estimate(n)) => Ok(n),
            None => Err(Error::internal("a count without a number")),
        }
    }

    /// The types that can contain others, which the caller may search, with what makes one part of the compartment.
    fn within(&self) -> Result<Vec<Within>> {
        let contains = |kind: &TypeId| {
            let members = definitions().children(definitions().type_name(*kind)).unwrap_or(&[]);
            !is_audit(*kind) && members.iter().any(|element| element.name == "contained")
        };
        let mut within = Vec::new();
        for kind in definitions().types().iter().copied().filter(contains) {
            let Ok(grant) = authorize::<Search>(self.scene.caller, kind) else { continue };
            match self.across.map(|across| across.within(self.scene, kind)).transpose()? {
                None => within.push((grant, Vec::new())),
                Some(Some(member)) => within.push((grant, vec![member])),
                Some(None) => {}
            }
        }
        Ok(within)
    }

    /// One for each container, or for each resource that matches in it.
    fn hits<'c>(&self, containers: &'c [Container]) -> Vec<Hit<'c>> {
        let each = |of: &'c Container| {
            let count = if self.asked.alone { of.ids.len() } else { 1 };
            (0..count).map(move |n| Hit { of, n })
        };
        let mut hits: Vec<Hit<'c>> = containers.iter().flat_map(each).collect();
        hits.sort_unstable_by_key(Hit::place);
        hits
    }

    /// Puts everything on record and opens it.
    async fn released(&self, matches: Vec<Sealed>, hits: &[&Hit<'_>]) -> Result<Vec<Entry>> {
        let scene = self.scene;
        let mut seen: HashSet<(TypeId, String)> =
            matches.iter().map(|sealed| (sealed.kind(), sealed.header().id.clone())).collect();
        let own = matches.len();
        let mut all = matches;
        let mut inside: Vec<&Container> = Vec::new();
        let groups: Vec<&[&Hit<'_>]> = hits.chunk_by(|a, b| a.of.kind == b.of.kind).collect();
        for group in groups {
            let query = Query::all(group[0].of.kind, group.len());
            let grants = Grants::of(scene.caller, &query)?;
            let mut rids: Vec<Rid> = group.iter().map(|hit| hit.of.rid).collect();
            rids.dedup();
            for sealed in scene.app.store.pick(&grants, &query, &rids).await? {
                // One that was changed since is another: what matched in it may be gone.
                let of =
                    group.iter().find(|hit| hit.of.rid == sealed.rid() && hit.of.version == sealed.header().version);
                let key = (sealed.kind(), sealed.header().id.clone());
                if let Some(hit) = of.filter(|_| self.asked.alone || seen.insert(key)) {
                    inside.push(hit.of);
                    all.push(sealed);
                }
            }
        }
        let mut patients = asked_patients(self.query);
        patients.extend(self.across.and_then(Across::patient));
        let event = Event { patients, ..scene.event(What::SearchType, Some(self.query.kind)) };
        if all.is_empty() {
            scene.app.trail.record(event).await?;
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        for (n, released) in scene.app.trail.disclose(event, all).await?.into_iter().enumerate() {
            match n.checked_sub(own).and_then(|n| inside.get(n)).filter(|_| self.asked.alone) {
                None => entries.push(entry(scene, released, Mode::Match, &Shape::Full)),
                Some(of) => {
                    let chosen = hits.iter().filter(|hit| hit.of.rid == of.rid && hit.of.kind == of.kind);
                    let ids: Vec<&str> = chosen.map(|hit| hit.of.ids[hit.n].as_str()).collect();
                    entries.extend(alone(scene, &released, &ids)?);
                }
            }
        }
        Ok(entries)
    }
}

/// The contained resources of these ids, each under the address of its container (search.html#contained).
fn alone(scene: Scene<'_>, released: &Released, ids: &[&str]) -> Result<Vec<Entry>> {
    let node = json::parse(released.bytes())?;
    let container = full_url(scene, released.kind(), released.id());
    let all = node.get("contained").and_then(Node::as_array).into_iter().flatten();
    let id = |node: &Node| node.get("id").and_then(Node::as_str).unwrap_or_default().to_owned();
    let chosen = all.map(|node| (id(node), node)).filter(|(id, _)| ids.contains(&id.as_str()));
    let made = chosen.map(|(id, node)| Entry {
        full_url: Some(format!("{container}#{id}")),
        content: Some(Content::Made(node.clone())),
        mode: Some(Mode::Match),
        ..Entry::default()
    });
    Ok(made.collect())
}

//! `$everything` of a patient, of all patients and of an encounter: the resources of the compartment, type by type, and
//! with them what they refer to outside of it (practitioners, organizations, medications ...), each type under its own
//! grant. A type that the caller may not search is left out, and said to be.
//!
//! Pages are filled in a fixed order: the resource itself, then the types of its compartment by number, rows by row id.
//! The link to the next page holds the whole state, sealed.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::json;

use super::{Call, Input, every, link, options, stored};
use crate::access::{Grants, Search, authorize};
use crate::audit::{Event, What};
use crate::error::{Error, Issue, Result, Severity};
use crate::fhir::{ParamId, ParamKind, TypeId, definitions};
use crate::interaction::search::full_url;
use crate::interaction::{Answer, Bundle, BundleKind, Content, Entry, Mode, Scene, Shape, cursor, form, is_audit};
use crate::mapping;
use crate::search::query::Include;
use crate::search::{Criterion, Query};
use crate::store::{Position, Sealed};

/// Searches that one page may take; it then ends before it is full.
const SEARCHES_MAX: usize = 600;

/// What is asked for.
struct Asked<'a> {
    scene: Scene<'a>,
    /// The type whose compartment it is.
    focal: TypeId,
    /// None: all.
    kinds: Option<HashSet<TypeId>>,
    stages: Vec<Stage>,
    since: Option<String>,
    start: Option<String>,
    end: Option<String>,
    count: usize,
}

/// One type of the compartment.
struct Stage {
    kind: TypeId,
    /// What it refers to outside of the compartment.
    includes: Vec<Include>,
}

/// Where the next page starts.
#[derive(Deserialize)]
struct State {
    /// The call, as sent.
    applied: String,
    /// At type level: the resource under way (none: the next one), and its position among them.
    id: Option<String>,
    focal: Option<(i64, String)>,
    /// The place in [`Asked::stages`].
    stage: usize,
    after: Option<(i64, String)>,
}

/// A page while it is filled.
#[derive(Default)]
struct Page {
    matches: Vec<Sealed>,
    included: Vec<Sealed>,
    /// What `included` holds already.
    seen: HashSet<(TypeId, String)>,
    notes: Vec<Issue>,
    searches: usize,
}

/// How far a compartment was walked.
enum Walked {
    Through,
    /// The page is full: go on here.
    To(usize, Option<Position>),
}

pub(super) async fn everything(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let focal = call.kind()?;
    let address = call.address()?;
    let (input, state) = match &call.input.cursor {
        None => (None, None),
        Some(sealed) => {
            let state: State = cursor::open_json(scene, &address, sealed).await?;
            (Some(Input::of_pairs(call.operation, form::decode(&state.applied)?)?), Some(state))
        }
    };
    let input = input.as_ref().unwrap_or(&call.input);
    let asked = Asked::read(scene, focal, input)?;
    let first = state.is_none();
    let mut page = Page::default();
    let next = match &call.id {
        Some(id) => asked.one(id, state, &mut page).await?,
        None => asked.all(state, &mut page).await?,
    };
    page.notes.extend(asked.withheld(call.id.is_some()));
    let mut event = scene.event(What::Operation, Some(focal));
    event.patients = call.id.iter().filter(|_| definitions().type_name(focal) == "Patient").cloned().collect();
    let pairs = input.pairs();
    let total = (first && next.is_none()).then_some(page.matches.len() as u64);
    let mut links = vec![("self", link(scene, &address, &pairs))];
    if let Some(next) = next {
        let state = json!({
            "applied": form::encode(&pairs), "id": next.id, "focal": next.focal, "stage": next.stage, "after": next.after,
        });
        let sealed = cursor::seal_json(scene, &address, &state).await?;
        links.push(("next", link(scene, &address, &vec![("_cursor".to_owned(), sealed)])));
    }
    let entries = page.release(scene, event).await?;
    let (id, at) = (scene.app.world.uuid(), scene.app.world.now());
    Ok(Answer::bundle(Bundle { id, kind: BundleKind::Searchset, at, total, links, entries }))
}

impl<'a> Asked<'a> {
    fn read(scene: Scene<'a>, focal: TypeId, input: &Input) -> Result<Asked<'a>> {
        let mut kinds = HashSet::new();
        for name in input.texts("_type").flat_map(|list| list.split(',')).map(str::trim) {
            let kind = definitions().type_id(name).ok_or_else(|| {
                let text = format!("{name} in _type is no resource type of FHIR R4.");
                Error::invalid(text).at(input.place("_type"))
            })?;
            kinds.insert(kind);
        }
        let config = &scene.app.config;
        let max = config.page_size_max.size();
        let (start, end) = input.care()?;
        let mut asked = Asked {
            scene,
            focal,
            stages: Vec::new(),
            kinds: (!kinds.is_empty()).then_some(kinds),
            since: input.text("_since").map(str::to_owned),
            start: start.map(str::to_owned),
            end: end.map(str::to_owned),
            count: input.number("_count").map_or(max, |count| count.min(max)),
        };
        asked.stages = asked.compartment();
        Ok(asked)
    }

    fn wants(&self, kind: TypeId) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// The types of the compartment that are asked for or lead to what is, the focal one first, whether the caller may
    /// see them or not.
    fn compartment(&self) -> Vec<Stage> {
        let others = definitions().types().iter().copied().filter(|kind| *kind != self.focal && self.belongs(*kind));
        let stages = [self.focal].into_iter().chain(others).map(|kind| Stage { kind, includes: self.includes(kind) });
        stages.filter(|stage| self.wants(stage.kind) || !stage.includes.is_empty()).collect()
    }

    /// Whether a type lies in the compartment. AuditEvents are no part of a record.
    fn belongs(&self, kind: TypeId) -> bool {
        kind == self.focal || (!is_audit(kind) && !self.params(kind).is_empty())
    }

    /// The parameters by which a type belongs to the compartment.
    fn params(&self, kind: TypeId) -> Vec<ParamId> {
        let focal = definitions().type_name(self.focal);
        if focal == "Patient" {
            return mapping::compartment(kind).to_vec();
        }
        let codes = definitions().compartment(focal, kind).unwrap_or_default();
        codes.iter().filter_map(|code| definitions().param(kind, code)).map(|param| param.id).collect()
    }

    /// A note on the types that the caller may not search. One resource that may be read is given all the same.
    fn withheld(&self, one: bool) -> Option<Issue> {
        let refused = |kind: &TypeId| authorize::<Search>(self.scene.caller, *kind).is_err();
        let named = self.kinds.iter().flatten().copied();
        let mut refused: Vec<TypeId> =
            self.stages.iter().map(|stage| stage.kind).chain(named).filter(refused).collect();
        refused.retain(|kind| !one || *kind != self.focal);
        refused.sort_unstable();
        refused.dedup();
        let names: Vec<&str> = refused.into_iter().map(|kind| definitions().type_name(kind)).collect();
        (!names.is_empty()).then(|| Issue {
            severity: Severity::Information,
            code: "incomplete",
            diagnostics: format!("The access token has no search permission for: {}. Left out.", names.join(", "))
                .into(),
            expression: None,
        })
    }

    /// The compartment of one resource, which must be there and within the caller's rows.
    async fn one(&self, id: &str, state: Option<State>, page: &mut Page) -> Result<Option<State>> {
        let sealed = stored(self.scene, self.focal, id).await?;
        let (stage, after) = match state {
            Some(state) => (state.stage, state.after.map(cursor::position_of).transpose()?),
            None => {
                let unsearched = authorize::<Search>(self.scene.caller, self.focal).is_err();
                if unsearched && self.wants(self.focal) && self.is_since(&sealed) {
                    page.matches.push(sealed);
                }
                (0, None)
            }
        };
        Ok(match self.walk(id, stage, after, page).await? {
            Walked::Through => None,
            Walked::To(stage, after) => Some(State::at(None, stage, after)?),
        })
    }

    /// The compartments of all resources of the focal type within the caller's rows, one after the other.
    async fn all(&self, state: Option<State>, page: &mut Page) -> Result<Option<State>> {
        let mut query = every(self.scene, self.focal)?;
        query.count = self.count.clamp(1, 50);
        let grants = Grants::of(self.scene.caller, &query)?;
        let mut before = None;
        if let Some(State { id, focal, stage, after, .. }) = state {
            before = focal.map(cursor::position_of).transpose()?;
            if let (Some(id), Some(position)) = (id, &before) {
                let after = after.map(cursor::position_of).transpose()?;
                let grant = authorize::<Search>(self.scene.caller, self.focal)?;
                // Gone or out of sight by now: nothing more of it.
                let there = self.visible(grant.kind(), &id).await?;
                if there && let Walked::To(stage, after) = self.walk(&id, stage, after, page).await? {
                    return State::at(Some((&id, position)), stage, after).map(Some);
                }
            }
        }
        loop {
            let selection = self.scene.app.store.select(&grants, &query, before.take()).await?;
            for (sealed, position) in selection.matches.iter().zip(&selection.positions) {
                let id = &sealed.header().id;
                if let Walked::To(stage, after) = self.walk(id, 0, None, page).await? {
                    return State::at(Some((id, position)), stage, after).map(Some);
                }
            }
            before = selection.next;
            if before.is_none() {
                return Ok(None);
            }
        }
    }

    async fn visible(&self, kind: TypeId, id: &str) -> Result<bool> {
        let mut query = every(self.scene, kind)?;
        query.criteria.push(Criterion::IdIn(HashSet::from([id.to_owned()])));
        let grants = Grants::of(self.scene.caller, &query)?;
        Ok(!self.scene.app.store.select(&grants, &query, None).await?.matches.is_empty())
    }

    /// Fills the page with one compartment from a stage on.
    async fn walk(&self, id: &str, from: usize, mut after: Option<Position>, page: &mut Page) -> Result<Walked> {
        for (stage, Stage { kind, includes }) in self.stages.iter().enumerate().skip(from) {
            let room = self.count - page.matches.len();
            let wanted = self.wants(*kind);
            let mut query = self.query(*kind, id)?;
            // A full page only has to know whether anything follows. What only leads further takes no room.
            query.count = match (room, wanted) {
                (0, _) => 1,
                (_, true) => room,
                (_, false) => self.scene.app.config.page_size_max.size(),
            };
            if room > 0 {
                query.includes.clone_from(includes);
            }
            let Ok(grants) = Grants::of(self.scene.caller, &query) else { continue };
            // What is only referred to takes no room, but memory.
            if page.searches >= SEARCHES_MAX || page.included.len() > self.scene.app.config.page_size_max.size() {
                return Ok(Walked::To(stage, after));
            }
            page.searches += 1;
            let selection = self.scene.app.store.select(&grants, &query, after.clone()).await?;
            if room == 0 {
                if !selection.matches.is_empty() {
                    return Ok(Walked::To(stage, after));
                }
                after = None;
                continue;
            }
            if wanted {
                page.matches.extend(selection.matches);
            }
            page.include(selection.included, |sealed| self.wants(sealed.kind()) && self.is_since(sealed));
            page.note(selection.notes);
            if selection.next.is_some() {
                return Ok(Walked::To(stage, selection.next));
            }
            after = None;
        }
        Ok(Walked::Through)
    }

    /// The resources of one type in the compartment of `id`.
    fn query(&self, kind: TypeId, id: &str) -> Result<Query> {
        let options = options(self.scene);
        let mut query = every(self.scene, kind)?;
        let ids = HashSet::from([id.to_owned()]);
        query.criteria.push(match kind == self.focal {
            true => Criterion::IdIn(ids),
            false => {
                let road =
                    |param: ParamId| vec![Criterion::ReferenceIn { param, target: self.focal, ids: ids.clone() }];
                Criterion::AnyOf(self.params(kind).into_iter().map(road).collect())
            }
        });
        if let Some(since) = &self.since {
            query.criteria.push(Criterion::parse(kind, "_lastUpdated", &format!("ge{since}"), &options)?);
        }
        if (self.start.is_some() || self.end.is_some())
            && kind != self.focal
            && let Some(date) = care_date(kind)
        {
            let bounds = [("ge", &self.start), ("le", &self.end)];
            let bounds = bounds.into_iter().filter_map(|(prefix, date)| Some(format!("{prefix}{}", date.as_ref()?)));
            let within: Vec<Criterion> =
                bounds.map(|bound| Criterion::parse(kind, date, &bound, &options)).collect::<Result<_>>()?;
            let absent = Criterion::parse(kind, &format!("{date}:missing"), "true", &options)?;
            query.criteria.push(Criterion::AnyOf(vec![within, vec![absent]]));
        }
        Ok(query)
    }

    /// What a type refers to outside of the compartment, and what that refers to there in turn; nothing where none of
    /// it is asked for.
    fn includes(&self, kind: TypeId) -> Vec<Include> {
        let mut reached = Vec::new();
        let mut includes = self.outside(kind, false, &mut reached);
        let mut at = 0;
        while let Some(further) = reached.get(at).copied() {
            includes.extend(self.outside(further, true, &mut reached));
            at += 1;
        }
        let asked = includes.iter().any(|include| include.target.is_some_and(|kind| self.wants(kind)));
        if asked { includes } else { Vec::new() }
    }

    fn outside(&self, source: TypeId, iterate: bool, reached: &mut Vec<TypeId>) -> Vec<Include> {
        let references = definitions().params(source).iter().filter(|param| param.kind == ParamKind::Reference);
        let targets = references.flat_map(|param| &param.targets).copied();
        let outside = |kind: &TypeId| !self.belongs(*kind) && !is_audit(*kind) && (!iterate || is_of_no_record(*kind));
        let mut distinct: Vec<TypeId> = targets.filter(outside).collect();
        distinct.sort_unstable();
        distinct.dedup();
        for kind in &distinct {
            if !reached.contains(kind) && is_of_no_record(*kind) {
                reached.push(*kind);
            }
        }
        let include = |target: TypeId| Include { source, param: None, target: Some(target), iterate, every: false };
        distinct.into_iter().map(include).collect()
    }

    fn is_since(&self, sealed: &Sealed) -> bool {
        let from = self.since.as_deref().and_then(|since| crate::fhir::date::parse(since).ok());
        from.is_none_or(|from| sealed.header().last_updated.0 >= from.lo)
    }
}

/// Whether a type stands beside records (practitioners, organizations ...): what it refers to is followed further.
fn is_of_no_record(kind: TypeId) -> bool {
    mapping::compartment(kind).is_empty() && definitions().type_name(kind) != "Patient"
}

/// The date parameter that says when care of this type took place.
fn care_date(kind: TypeId) -> Option<&'static str> {
    const CODES: [&str; 12] = [
        "date",
        "authoredon",
        "onset-date",
        "occurrence",
        "period",
        "whenhandedover",
        "effective",
        "authored-on",
        "recorded-date",
        "issued",
        "created",
        "sent",
    ];
    let known = |code: &&str| definitions().param(kind, code).is_some_and(|param| param.kind == ParamKind::Date);
    CODES.into_iter().find(known)
}

impl State {
    fn at(focal: Option<(&str, &Position)>, stage: usize, after: Option<Position>) -> Result<State> {
        let plain = |position: &Position| -> Result<(i64, String)> {
            serde_json::from_value(cursor::position_state(position)).map_err(Error::internal)
        };
        Ok(State {
            applied: String::new(),
            id: focal.map(|(id, _)| id.to_owned()),
            focal: focal.map(|(_, position)| plain(position)).transpose()?,
            stage,
            after: after.as_ref().map(plain).transpose()?,
        })
    }
}

impl Page {
    fn include(&mut self, included: Vec<Sealed>, keep: impl Fn(&Sealed) -> bool) {
        for sealed in included.into_iter().filter(|sealed| keep(sealed)) {
            if self.seen.insert((sealed.kind(), sealed.header().id.clone())) {
                self.included.push(sealed);
            }
        }
    }

    fn note(&mut self, notes: Vec<Issue>) {
        for note in notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Puts everything on record and opens it.
    async fn release(mut self, scene: Scene<'_>, event: Event) -> Result<Vec<Entry>> {
        let matched = self.matches.len();
        self.matches.append(&mut self.included);
        let released = match self.matches.is_empty() {
            true => scene.app.trail.record(event).await.map(|_| Vec::new())?,
            false => scene.app.trail.disclose(event, self.matches).await?,
        };
        let mut entries: Vec<Entry> = Vec::with_capacity(released.len() + 1);
        for (n, released) in released.into_iter().enumerate() {
            entries.push(Entry {
                full_url: Some(full_url(scene, released.kind(), released.id())),
                content: Some(Content::Released(released, Shape::Full)),
                mode: Some(if n < matched { Mode::Match } else { Mode::Include }),
                ..Entry::default()
            });
        }
        if !self.notes.is_empty() {
            let content = Some(Content::Outcome(self.notes));
            entries.push(Entry { content, mode: Some(Mode::Outcome), ..Entry::default() });
        }
        Ok(entries)
    }
}

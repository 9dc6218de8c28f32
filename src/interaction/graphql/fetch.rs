//! Looks up what a pass wants, each piece under its own grant, and keeps it sealed until the next entry of the trail
//! names it.

use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::Fault;
use super::memo::{Address, Asked, Held, Hits, Memo, Road, Want};
use crate::access::{Grants, Read, Search, authorize};
use crate::audit::{Event, Released, Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json as tree;
use crate::fhir::{TypeId, definitions};

use crate::interaction::search::{asked_patients, parse};
use crate::interaction::{Pairs, Scene, cursor, form, is_audit, read, terminology};
use crate::search::query::Total;
use crate::search::{Lookup, QueryOptions};
use crate::store::{Count, Found, Position, Sealed};
use crate::vault::Rid;

/// Limits of one request. Beyond them the answer is `too-costly` and states the limit.
pub mod limits {
    /// Searches, each counted once for every resource it stands on.
    pub const SEARCHES: usize = 100;
    /// Resources read or found.
    pub const RESOURCES: usize = 1_000;
    /// Rows looked through by all searches together, in multiples of what one search may look through.
    pub const CANDIDATES: usize = 2;
    /// References followed one after the other.
    pub const ROUNDS: usize = 8;
    /// Furthest match that `_offset` and `_count` reach; further ones are reached by cursors.
    pub const OFFSET: usize = 1_000;
}

/// Lookups under way at the same time.
const AT_ONCE: usize = 8;

/// What one request has looked up.
pub struct Fetched<'a> {
    scene: Scene<'a>,
    pub memo: Memo,
    /// Found, and not on record yet.
    sealed: Vec<(Address, Sealed)>,
    /// Patients that the searches named.
    patients: Vec<String>,
    searches: usize,
    resources: usize,
    rows: usize,
    rounds: usize,
}

/// The answer to a want.
enum Got {
    Read(Address, Option<Box<Sealed>>),
    Search(Box<Searched>),
}

struct Searched {
    key: String,
    hits: Hits,
    matches: Vec<Sealed>,
    patients: Vec<String>,
    examined: usize,
}

pub fn options(scene: Scene<'_>) -> QueryOptions {
    QueryOptions {
        lenient: false,
        base: scene.app.config.base_url.clone(),
        count_default: scene.app.config.page_size.size(),
        count_max: scene.app.config.page_size_max.size(),
        now: scene.app.world.now(),
        customs: Lookup::new(scene.app.store.customs()),
    }
}

impl<'a> Fetched<'a> {
    pub fn new(scene: Scene<'a>) -> Fetched<'a> {
        Fetched {
            scene,
            memo: Memo::default(),
            sealed: Vec::new(),
            patients: Vec::new(),
            searches: 0,
            resources: 0,
            rows: 0,
            rounds: 0,
        }
    }

    /// Looks up everything that a pass wants.
    ///
    /// # Errors
    /// `Kind::Forbidden` for a search without its grant; `Kind::TooCostly` past the limits; those of searches.
    pub async fn look_up(&mut self, wants: Vec<Want>) -> Result<(), Fault> {
        self.searches += wants.iter().filter(|want| matches!(want, Want::Search(_))).count();
        within(self.searches, limits::SEARCHES, "searches")?;
        let scene = self.scene;
        let mut answers = stream::iter(wants).map(|want| one(scene, want)).buffered(AT_ONCE);
        while let Some(got) = answers.next().await {
            match got? {
                Got::Read(address, None) => {
                    self.memo.resources.insert(address, Held::Absent);
                }
                Got::Read(address, Some(sealed)) => self.hold(address, *sealed)?,
                Got::Search(found) => {
                    let Searched { key, hits, matches, patients, examined } = *found;
                    self.rows += examined;
                    let most = scene.app.config.candidates_max.size().saturating_mul(limits::CANDIDATES);
                    within(self.rows, most, "rows looked through by its searches")?;
                    self.patients.extend(patients);
                    for (address, sealed) in hits.rows.iter().zip(matches) {
                        self.hold(address.clone(), sealed)?;
                    }
                    self.memo.searches.insert(key, hits);
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, address: Address, sealed: Sealed) -> Result<(), Fault> {
        if !self.memo.resources.contains_key(&address) {
            self.resources += 1;
            within(self.resources, limits::RESOURCES, "resources")?;
            self.memo.resources.insert(address.clone(), Held::Sealed);
            self.sealed.push((address, sealed));
        }
        Ok(())
    }

    /// Puts what was found on record and opens it. Says whether there was anything.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry cannot be made; `Kind::TooCostly` when references lead on for too long.
    pub async fn disclose(&mut self) -> Result<bool, Fault> {
        if self.sealed.is_empty() {
            return Ok(false);
        }
        self.rounds += 1;
        within(self.rounds, limits::ROUNDS, "references followed one after the other")?;
        let (addresses, sealed): (Vec<Address>, Vec<Sealed>) = self.sealed.drain(..).unzip();
        let touched = addresses.iter().zip(&sealed).map(|(address, sealed)| touched(address, sealed)).collect();
        let event = Event { touched, patients: std::mem::take(&mut self.patients), ..event(self.scene) };
        let released = self.scene.app.trail.disclose(event, sealed).await?;
        for (address, released) in addresses.into_iter().zip(released) {
            self.memo.resources.insert(address, open(&released)?);
        }
        Ok(true)
    }

    /// Puts a request on record that found nothing at all.
    ///
    /// # Errors
    /// `Kind::Audit` when the entry cannot be made.
    pub async fn close(mut self) -> Result<(), Fault> {
        if self.rounds == 0 || !self.patients.is_empty() {
            let event = Event { patients: std::mem::take(&mut self.patients), ..event(self.scene) };
            self.scene.app.trail.record(event).await?;
        }
        Ok(())
    }
}

fn event(scene: Scene<'_>) -> Event {
    scene.event(What::Operation, None)
}

fn touched(address: &Address, sealed: &Sealed) -> Touched {
    read::touched(
        sealed,
        match (address.road, address.version) {
            (Road::Search, _) => What::SearchType,
            (Road::Read, None) => What::Read,
            (Road::Read, Some(_)) => What::Vread,
        },
    )
}

fn open(released: &Released) -> Result<Held> {
    tree::parse(released.bytes()).map(Held::Open)
}

fn within(n: usize, most: usize, what: &str) -> Result<(), Fault> {
    match n > most {
        true => Err(Error::new(Kind::TooCostly, format!("A query may take {most} {what}. Ask for less of it.")).into()),
        false => Ok(()),
    }
}

async fn one(scene: Scene<'_>, want: Want) -> Result<Got, Fault> {
    match want {
        Want::Read { address, asked } => {
            if asked {
                authorize::<Read>(scene.caller, address.kind)?;
            }
            let sealed = find(scene, &address).await?;
            Ok(Got::Read(address, sealed.map(Box::new)))
        }
        Want::Search(asked) => {
            let at = asked.at;
            search(scene, *asked)
                .await
                .map(|found| Got::Search(Box::new(found)))
                .map_err(|error| Fault::from(error).at(at))
        }
    }
}

/// A resource by its address. What the caller may not read is as absent as what is not there: a reference tells
/// nothing of where it leads.
async fn find(scene: Scene<'_>, address: &Address) -> Result<Option<Sealed>> {
    if is_audit(address.kind) {
        return Ok(None);
    }
    let Ok(grant) = authorize::<Read>(scene.caller, address.kind) else { return Ok(None) };
    let found = match address.version {
        None => scene.app.store.find(&grant, &address.id).await?,
        Some(version) => scene.app.store.find_version(&grant, &address.id, version).await?,
    };
    Ok(match found {
        Found::Current(sealed) => Some(sealed),
        Found::Deleted { .. } | Found::Absent => None,
    })
}

/// What a cursor holds: the place of its page, the matches before it, the size of pages, the search.
type State = ((i64, String), usize, usize, String);

async fn search(scene: Scene<'_>, asked: Asked) -> Result<Searched> {
    let options = options(scene);
    let Asked { key, kind, mut pairs, tie, count, mut offset, cursor, connection, counted, .. } = asked;
    let mut after = None;
    let mut size = count.unwrap_or(options.count_default).min(options.count_max);
    match cursor {
        Some(text) => {
            let (position, before, of_page, continued): State = cursor::open_json(scene, &place(kind), &text).await?;
            (pairs, after) = (form::decode(&continued)?, Some(cursor::position_of(position)?));
            (offset, size) = (before, of_page);
            if tie.as_ref().is_some_and(|tie| !pairs.contains(tie)) {
                return Err(Error::invalid("This cursor was made for another place."));
            }
        }
        None => pairs.extend(tie),
    }
    let skip = if after.is_some() { 0 } else { offset };
    if skip + size > limits::OFFSET.max(options.count_max) {
        let text = format!("'_offset' and '_count' reach {} matches; cursors go further.", limits::OFFSET);
        return Err(Error::new(Kind::TooCostly, text));
    }
    let mut query = parse(scene, kind, &pairs, &options).await?;
    query.count = skip + size;
    if counted {
        query.total = Total::Accurate;
    }
    authorize::<Search>(scene.caller, kind)?;
    terminology::resolve(scene, &mut query).await?;
    let grants = Grants::of(scene.caller, &query)?;
    let selection = scene.app.store.select(&grants, &query, after).await?;
    let matches: Vec<Sealed> = selection.matches.into_iter().skip(skip).collect();
    let rows = matches.iter().map(|sealed| {
        let id = sealed.header().id.clone();
        Address { road: Road::Search, kind, id, version: None }
    });
    let mut hits = Hits {
        kind,
        rows: rows.collect(),
        total: selection.total.and_then(|total| match total {
            Count::Exact(n) => Some(n),
            Count::Estimate(_) => None,
        }),
        count: size,
        offset,
        first: None,
        next: None,
    };
    if connection {
        let start = Position { key: Vec::new(), rid: Rid(0) };
        hits.first = Some(link(scene, &hits, &pairs, 0, &start).await?);
        if let Some(next) = &selection.next {
            hits.next = Some(link(scene, &hits, &pairs, offset + hits.rows.len(), next).await?);
        }
    }
    Ok(Searched { key, patients: asked_patients(&query), hits, matches, examined: selection.examined })
}

/// A cursor: the whole search and where its page starts, sealed for this caller.
async fn link(scene: Scene<'_>, hits: &Hits, pairs: &Pairs, offset: usize, at: &Position) -> Result<String> {
    let state = json!([cursor::position_state(at), offset, hits.count, form::encode(pairs)]);
    cursor::seal_json(scene, &place(hits.kind), &state).await
}

/// What a cursor is made for: no page link of an address opens here, nor the other way.
fn place(kind: TypeId) -> String {
    format!("$graphql {}", definitions().type_name(kind))
}

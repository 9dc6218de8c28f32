//! Looks up what a pass wants, each piece under its own grant, and keeps it sealed until the next entry of the trail
//! names it.

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Fault;
use super::memo::{Address, Asked, Held, Hits, Links, Memo, Road, Want};
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

/// What a cursor holds: the way from a place, the matches before it, the size of pages, the search.
type State = (Way, usize, usize, String);

/// Which page a cursor means.
#[derive(Clone, Serialize, Deserialize)]
enum Way {
    /// The matches after a position.
    After((i64, String)),
    /// Those before it.
    Before((i64, String)),
    Last,
}

/// The page that is asked for, of a search as it was first asked.
struct Turn {
    pairs: Pairs,
    way: Option<Way>,
    size: usize,
    /// Matches before it, as far as known.
    offset: usize,
}

async fn turn(scene: Scene<'_>, options: &QueryOptions, asked: &Asked) -> Result<Turn> {
    let Some(text) = &asked.cursor else {
        let pairs = asked.pairs.iter().cloned().chain(asked.tie.clone()).collect();
        let size = asked.count.unwrap_or(options.count_default).min(options.count_max);
        return Ok(Turn { pairs, way: None, size, offset: asked.offset });
    };
    let (way, offset, size, continued): State = cursor::open_json(scene, &place(asked.kind), text).await?;
    let pairs = form::decode(&continued)?;
    if asked.tie.as_ref().is_some_and(|tie| !pairs.contains(tie)) {
        return Err(Error::invalid("This cursor was made for another place."));
    }
    Ok(Turn { pairs, way: Some(way), size, offset })
}

async fn search(scene: Scene<'_>, asked: Asked) -> Result<Searched> {
    let options = options(scene);
    let turn = turn(scene, &options, &asked).await?;
    let Asked { key, kind, connection, counted, .. } = asked;
    let (skip, size) = (if turn.way.is_some() { 0 } else { turn.offset }, turn.size);
    if skip + size > limits::OFFSET.max(options.count_max) {
        let text = format!("'_offset' and '_count' reach {} matches; cursors go further.", limits::OFFSET);
        return Err(Error::new(Kind::TooCostly, text));
    }
    let mut query = parse(scene, kind, &turn.pairs, &options).await?;
    query.count = skip + size;
    if counted {
        query.total = Total::Accurate;
    }
    authorize::<Search>(scene.caller, kind)?;
    terminology::resolve(scene, &mut query).await?;
    let grants = Grants::of(scene.caller, &query)?;
    let position = |at: &(i64, String)| cursor::position_of(at.clone());
    let store = &scene.app.store;
    let mut found = match &turn.way {
        None => store.select(&grants, &query, None).await?,
        Some(Way::After(at)) => store.select(&grants, &query, Some(position(at)?)).await?,
        Some(Way::Before(at)) => store.select_back(&grants, &query, Some(position(at)?)).await?,
        Some(Way::Last) => store.select_back(&grants, &query, None).await?,
    };
    let total = match found.total {
        Some(Count::Exact(n)) => Some(n),
        Some(Count::Estimate(_)) | None => None,
    };
    let offset = match &turn.way {
        None | Some(Way::After(_)) => turn.offset,
        // Fewer than a page: there are no more before them.
        Some(Way::Before(_)) if found.matches.len() < size => 0,
        Some(Way::Before(_)) => turn.offset.saturating_sub(found.matches.len()),
        Some(Way::Last) => {
            // As many as are left when the pages before it are full.
            let all = total.and_then(|n| usize::try_from(n).ok()).unwrap_or(found.matches.len());
            let own = all.checked_sub(1).map_or(0, |before| before % size + 1).min(found.matches.len());
            let others = found.matches.len() - own;
            found.matches.drain(..others);
            found.positions.drain(..others.min(found.positions.len()));
            all - own
        }
    };
    let positions: Vec<Position> = found.positions.into_iter().skip(skip).collect();
    let matches: Vec<Sealed> = found.matches.into_iter().skip(skip).collect();
    let rows = matches.iter().map(|sealed| {
        let id = sealed.header().id.clone();
        Address { road: Road::Search, kind, id, version: None }
    });
    let mut hits = Hits { kind, rows: rows.collect(), total, count: size, offset, links: Links::default() };
    if connection {
        // Of a page that was reached backwards, what lies behind it was there when it was asked for.
        let next = if matches!(turn.way, Some(Way::Before(_))) { positions.last() } else { found.next.as_ref() };
        hits.links = links(scene, &hits, &turn.pairs, positions.first(), next).await?;
    }
    Ok(Searched { key, patients: asked_patients(&query), hits, matches, examined: found.examined })
}

/// Cursors of the pages around one that starts and goes on here.
async fn links(
    scene: Scene<'_>,
    hits: &Hits,
    pairs: &Pairs,
    start: Option<&Position>,
    next: Option<&Position>,
) -> Result<Links> {
    let at = |position: &Position| (position.rid.0, cursor::key_text(position));
    let first = Way::After(at(&Position { key: Vec::new(), rid: Rid(0) }));
    let previous = (hits.offset > 0).then(|| start.map_or(Way::Last, |start| Way::Before(at(start))));
    let mut links = Links { first: Some(link(scene, hits, pairs, 0, first).await?), ..Links::default() };
    if let Some(way) = previous {
        links.previous = Some(link(scene, hits, pairs, hits.offset, way).await?);
    }
    if let Some(next) = next {
        links.next = Some(link(scene, hits, pairs, hits.offset + hits.rows.len(), Way::After(at(next))).await?);
    }
    links.last = Some(link(scene, hits, pairs, 0, Way::Last).await?);
    Ok(links)
}

/// A cursor: the whole search and where its page lies, sealed for this caller.
async fn link(scene: Scene<'_>, hits: &Hits, pairs: &Pairs, offset: usize, way: Way) -> Result<String> {
    let state = json!([way, offset, hits.count, form::encode(pairs)]);
    cursor::seal_json(scene, &place(hits.kind), &state).await
}

/// What a cursor is made for: no page link of an address opens here, nor the other way.
fn place(kind: TypeId) -> String {
    format!("$graphql {}", definitions().type_name(kind))
}

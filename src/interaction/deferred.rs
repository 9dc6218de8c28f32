//! `Prefer: respond-async`: a search or Bundle that is performed while its caller does something else. The job and its
//! answer lie sealed among the small values; whoever asks for them must be the same caller with the same scopes. A job
//! says every few seconds that it is alive. When its server stopped it goes silent: a search is then performed again
//! when its caller next asks, with what the caller may do then; a transaction is told to be kept or not, for certain.
//! Must not know HTTP.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bundles::entry_of;
use super::{
    Across, Answer, Body, Bundle, BundleKind, Content, Done, Facts, Interaction, Pairs, Prefer, Scene, Shape, perform,
};
use crate::access::Caller;
use crate::app::App;
use crate::audit::{Event, Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, BundleType};
use crate::fhir::{TypeId, definitions};
use crate::store::{Life, Pledge};
use crate::vault::SystemKey;
use crate::world::Instant;

const JOBS: &str = "async-job";
const ANSWERS: &str = "async-answer";
/// Searches as they were asked.
const REQUESTS: &str = "async-request";
/// Whether a transaction was kept.
const PLEDGES: &str = "async-pledge";
/// How often a search is begun: one that stops servers must not go on doing so.
const ATTEMPTS_MAX: u32 = 3;
/// How often a job says that it is alive.
const BEAT: Duration = Duration::from_secs(5);
/// A job that was silent for so long is lost.
const SILENT_MS: i64 = 30_000;
/// Largest answer that is kept.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A job that was taken on.
pub struct Job {
    pub id: String,
    token: [u8; 16],
    state: State,
    /// The state as it stands sealed: what a change must find.
    sealed: Vec<u8>,
    expires: Instant,
    pledge: Option<Pledge>,
}

/// A search as it was asked, to be asked again.
#[derive(Serialize, Deserialize)]
struct Asked {
    kind: Option<u16>,
    within: Option<(u16, String)>,
    only: Option<u16>,
    query: Pairs,
    lenient: bool,
    format: Option<String>,
}

impl Asked {
    fn of(asked: &Interaction, facts: &Facts) -> Option<Asked> {
        let (lenient, format) = (facts.prefer.lenient, facts.format.clone());
        match asked {
            Interaction::SearchType { kind, query } => {
                let query = query.clone();
                Some(Asked { kind: Some(kind.0), within: None, only: None, query, lenient, format })
            }
            Interaction::SearchAcross { across, query } => Some(Asked {
                kind: None,
                within: across.within.as_ref().map(|(kind, id)| (kind.0, id.clone())),
                only: across.only.map(|kind| kind.0),
                query: query.clone(),
                lenient,
                format,
            }),
            _ => None,
        }
    }

    /// As a part of the request that asks for its answer.
    fn again(self, facts: &Facts) -> (Facts, Interaction) {
        let prefer = Prefer { lenient: self.lenient, ..facts.prefer };
        let facts = Facts { prefer, format: self.format, operation: None, ..facts.clone() };
        let query = self.query;
        let asked = match self.kind {
            Some(kind) => Interaction::SearchType { kind: TypeId(kind), query },
            None => {
                let within = self.within.map(|(kind, id)| (TypeId(kind), id));
                Interaction::SearchAcross { across: Across { within, only: self.only.map(TypeId) }, query }
            }
        };
        (facts, asked)
    }
}

/// How a job stands. No Debug: it names what the answer holds.
#[derive(Clone, Serialize, Deserialize)]
struct State {
    client: String,
    user: Option<String>,
    issuer: Option<String>,
    /// Those of the token it was asked with, sorted.
    scopes: Vec<String>,
    started_ms: i64,
    beat_ms: i64,
    /// How often it was begun.
    #[serde(default)]
    attempts: u32,
    done: bool,
    /// Type, id, version and patients of what the answer holds.
    holds: Vec<(u16, String, u32, Vec<String>)>,
}

/// What a caller is told of a job.
pub enum Status {
    /// For `X-Progress`.
    Running(String),
    /// Its server stopped: to be performed again, as [`run`] does it.
    Again(Box<(Job, Facts, Interaction)>),
    Done(Answer),
}

/// What can be performed later: searches and Bundles.
pub fn can_wait(asked: &Interaction) -> bool {
    matches!(asked, Interaction::SearchType { .. } | Interaction::SearchAcross { .. } | Interaction::Bundle { .. })
}

fn scopes_of(caller: &Caller) -> Vec<String> {
    let mut scopes: Vec<String> = caller.scopes().to_string().split(' ').map(str::to_owned).collect();
    scopes.sort_unstable();
    scopes
}

/// Takes a job on; durable when this returns.
pub async fn start(app: &App, caller: &Caller, facts: &Facts, asked: &Interaction) -> Result<Job> {
    let now = app.world.now();
    let who = caller.who();
    let state = State {
        client: who.client_id.clone(),
        user: who.user.clone(),
        issuer: who.issuer.clone(),
        scopes: scopes_of(caller),
        started_ms: now.0,
        beat_ms: now.0,
        attempts: 1,
        done: false,
        holds: Vec::new(),
    };
    let id = app.world.uuid();
    let token = app.vault.token(JOBS, id.as_bytes());
    let expires = expiry(app);
    let sealed = sealed(app, &token, &state).await?;
    let life = || Life { expires: Some(expires), owner: None };
    if let Some(asked) = Asked::of(asked, facts) {
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&asked).map_err(Error::internal)?);
        let kept = app.vault.seal_system(SystemKey::Secret, &place(REQUESTS, &token), &plain).await?;
        app.store.kv_put_for(REQUESTS, &token, &kept, life()).await?;
    }
    let pledge = match asked {
        Interaction::Bundle { body } if matches!(bundle::type_of(body), Ok(BundleType::Transaction)) => {
            let [old, new] = [OPEN, KEPT].map(|what| pledge_of(app, &token, what));
            app.store.kv_put_for(PLEDGES, &token, &old, life()).await?;
            Some(Pledge { space: PLEDGES, token: token.to_vec(), old, new })
        }
        _ => None,
    };
    if !app.store.kv_insert_new_for(JOBS, &token, &sealed, life()).await? {
        return Err(Error::internal("two jobs of one id"));
    }
    Ok(Job { id, token, state, sealed, expires, pledge })
}

const OPEN: &str = "open";
const KEPT: &str = "kept";
const GIVEN_UP: &str = "given up";

/// What a pledge says, as a keyed token of the job.
fn pledge_of(app: &App, token: &[u8; 16], what: &'static str) -> Vec<u8> {
    app.vault.token(PLEDGES, &[token.as_slice(), what.as_bytes()].concat()).to_vec()
}

/// Where a value of a job belongs.
fn place(space: &str, token: &[u8; 16]) -> Vec<u8> {
    [space.as_bytes(), b":", token].concat()
}

fn expiry(app: &App) -> Instant {
    app.world.now().plus_ms(i64::try_from(app.config.async_lifetime_s.get() * 1000).unwrap_or(i64::MAX))
}

/// Performs a job and keeps its answer, written by `write`. A job that was cancelled meanwhile is given up.
pub async fn run(
    app: &App,
    mut job: Job,
    caller: Caller,
    facts: Facts,
    asked: Interaction,
    write: fn(&Bundle, &str) -> Result<Vec<u8>>,
) {
    let time = Duration::from_secs(app.config.async_lifetime_s.get());
    let answer = {
        let facts = Facts { pledge: job.pledge.clone(), ..facts };
        let mut work = std::pin::pin!(tokio::time::timeout(time, perform(app, &caller, &facts, asked)));
        let mut beats = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                answer = &mut work => break answer,
                _ = beats.tick() => if !job.beat(app).await { return },
            }
        }
    };
    let answer = answer.unwrap_or_else(|_| {
        Err(Error::new(Kind::TooCostly, "The request took longer than this server gives an asynchronous one."))
    });
    if let Err(error) = job.finish(app, answer, write).await {
        // The job goes silent, and its caller is told that it is lost.
        tracing::error!(kind = ?error.kind, "the answer of an asynchronous request could not be kept");
    }
}

impl Job {
    /// What the commit of a transaction must find.
    #[cfg(test)]
    pub fn pledge(&self) -> Option<&Pledge> {
        self.pledge.as_ref()
    }

    /// False: it was cancelled. What fails otherwise is tried again at the next beat.
    async fn beat(&mut self, app: &App) -> bool {
        let state = State { beat_ms: app.world.now().0, ..self.state.clone() };
        !matches!(self.change(app, state).await, Ok(false))
    }

    async fn change(&mut self, app: &App, state: State) -> Result<bool> {
        let new = sealed(app, &self.token, &state).await?;
        let changed = app.store.kv_swap(JOBS, &self.token, &self.sealed, &new, Some(self.expires)).await?;
        if changed {
            (self.state, self.sealed) = (state, new);
        }
        Ok(changed)
    }

    /// What becomes of it now that its server is silent.
    async fn after_its_server(mut self, app: &App, facts: &Facts) -> Result<Status> {
        let lost = |text: &'static str| Err(Error::new(Kind::Internal, text));
        match give_up(app, &self.token).await? {
            Some(true) => {
                return lost(
                    "The server that worked on this transaction stopped. Nothing of it was kept, and nothing will be: \
                     send it again.",
                );
            }
            Some(false) => {
                return lost(
                    "The server that worked on this transaction stopped after it was kept, whole; its answer was lost. \
                     Do not send it again; look for what it wrote.",
                );
            }
            None => {}
        }
        let Some(kept) = app.store.kv_get(REQUESTS, &self.token).await? else {
            return lost(
                "The server that worked on this batch stopped. Each of its entries was performed whole or not at all: \
                 look which, then send the others again.",
            );
        };
        if self.state.attempts >= ATTEMPTS_MAX {
            return lost("Servers stopped again and again while they worked on this search. Ask for less.");
        }
        let plain = app.vault.open_system(SystemKey::Secret, &place(REQUESTS, &self.token), &kept).await?;
        let asked: Asked = serde_json::from_slice(&plain).map_err(Error::internal)?;
        let attempts = self.state.attempts + 1;
        let state = State { beat_ms: app.world.now().0, attempts, ..self.state.clone() };
        if !self.change(app, state).await? {
            return Ok(Status::Running("begun again".to_owned()));
        }
        let (facts, asked) = asked.again(facts);
        Ok(Status::Again(Box::new((self, facts, asked))))
    }

    async fn finish(
        mut self,
        app: &App,
        answer: Result<Answer>,
        write: fn(&Bundle, &str) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let mut holds = Vec::new();
        let mut bundle = response(app, answer);
        named(&bundle, &mut holds);
        let mut bytes = write(&bundle, &app.config.base_url)?;
        if bytes.len() > ANSWER_BYTES_MAX {
            let text =
                format!("The answer is larger than the {ANSWER_BYTES_MAX} bytes that are kept: ask for smaller pages.");
            bundle = response(app, Err(Error::new(Kind::TooCostly, text)));
            holds.clear();
            bytes = write(&bundle, &app.config.base_url)?;
        }
        self.expires = expiry(app);
        let kept = app.trail.keep(&self.token, &zeroize::Zeroizing::new(bytes)).await?;
        let life = Life { expires: Some(self.expires), owner: None };
        app.store.kv_put_for(ANSWERS, &self.token, &kept, life).await?;
        let state = State { done: true, beat_ms: app.world.now().0, holds, ..self.state.clone() };
        let token = self.token;
        if !self.change(app, state).await? {
            app.store.kv_delete(ANSWERS, &token).await?;
        }
        app.store.kv_delete(REQUESTS, &token).await?;
        app.store.kv_delete(PLEDGES, &token).await?;
        Ok(())
    }
}

/// Decides that a transaction is not to be kept. False: it was kept before. None: it is no transaction.
async fn give_up(app: &App, token: &[u8; 16]) -> Result<Option<bool>> {
    let Some(stands) = app.store.kv_get(PLEDGES, token).await? else { return Ok(None) };
    let [open, given_up] = [OPEN, GIVEN_UP].map(|what| pledge_of(app, token, what));
    if stands == given_up {
        return Ok(Some(true));
    }
    // Either this comes first and the commit fails, or the other way round.
    app.store.kv_swap(PLEDGES, token, &open, &given_up, Some(expiry(app))).await.map(Some)
}

/// The batch-response that an asynchronous request is answered with: one entry, with the status that a reply at once
/// would have had.
fn response(app: &App, answer: Result<Answer>) -> Bundle {
    Bundle {
        id: app.world.uuid(),
        kind: BundleKind::BatchResponse,
        at: app.world.now(),
        total: None,
        links: Vec::new(),
        entries: vec![entry_of(answer)],
    }
}

/// Every resource of a Bundle, those of Bundles in it too.
fn named(bundle: &Bundle, holds: &mut Vec<(u16, String, u32, Vec<String>)>) {
    for entry in &bundle.entries {
        if let Some(Content::Released(released, _)) = &entry.content {
            let patients = released.patients().to_vec();
            holds.push((released.kind().0, released.id().to_owned(), released.version(), patients));
        }
        if let Some(nested) = &entry.nested {
            named(nested, holds);
        }
    }
}

async fn sealed(app: &App, token: &[u8; 16], state: &State) -> Result<Vec<u8>> {
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(state).map_err(Error::internal)?);
    app.vault.seal_system(SystemKey::Secret, &place(JOBS, token), &plain).await
}

/// The job of an id, if it is this caller's.
///
/// # Errors
/// `Kind::NotFound` for any other: whose it is, is not told.
async fn own(app: &App, caller: &Caller, id: &str) -> Result<([u8; 16], State, Vec<u8>)> {
    let token = app.vault.token(JOBS, id.as_bytes());
    let stands = app.store.kv_get(JOBS, &token).await?.ok_or_else(Error::not_found)?;
    let plain = app.vault.open_system(SystemKey::Secret, &place(JOBS, &token), &stands).await?;
    let state: State = serde_json::from_slice(&plain).map_err(Error::internal)?;
    let who = caller.who();
    let same = (&state.client, &state.user, &state.issuer) == (&who.client_id, &who.user, &who.issuer);
    let scopes = scopes_of(caller);
    match same && state.scopes.iter().all(|scope| scopes.contains(scope)) {
        true => Ok((token, state, stands)),
        false => Err(Error::not_found()),
    }
}

/// How a job stands; its answer, when it is done. That the answer leaves is on record before it is opened.
///
/// # Errors
/// `Kind::NotFound` for a job that expired, was cancelled or is somebody else's; `Kind::Internal` for a Bundle that was
/// lost with its server.
pub async fn status(app: &App, caller: &Caller, facts: &Facts, id: &str) -> Result<Status> {
    let (token, state, sealed) = own(app, caller, id).await?;
    let scene = Scene { app, caller, facts };
    let now = app.world.now();
    let event = scene.event(What::Operation, None);
    if !state.done {
        app.trail.record(event).await?;
        if now.0 - state.beat_ms > SILENT_MS {
            let job = Job { id: id.to_owned(), token, state, sealed, expires: expiry(app), pledge: None };
            return job.after_its_server(app, facts).await;
        }
        let seconds = (now.0 - state.started_ms) / 1000;
        return Ok(Status::Running(format!("in progress for {seconds} s")));
    }
    let kept = app.store.kv_get(ANSWERS, &token).await?.ok_or_else(Error::not_found)?;
    let touched = state.holds.into_iter().map(|(kind, id, version, patients)| Touched {
        kind: TypeId(kind),
        id,
        version: Some(version),
        patients,
        what: What::Read,
    });
    let event = Event { touched: touched.collect(), ..event };
    let kind = definitions().type_id("Bundle").ok_or_else(|| Error::internal("no Bundle"))?;
    let released = app.trail.hand_out(event, &token, &kept, kind).await?;
    Ok(Status::Done(Answer {
        done: Done::Ok,
        version: None,
        body: Body::Content(Content::Released(released, Shape::Full)),
    }))
}

/// Gives a job up and forgets its answer.
///
/// # Errors
/// As [`status`].
pub async fn cancel(app: &App, caller: &Caller, facts: &Facts, id: &str) -> Result<()> {
    let (token, ..) = own(app, caller, id).await?;
    let scene = Scene { app, caller, facts };
    app.trail.record(scene.event(What::Operation, None)).await?;
    // From here on a transaction that is under way cannot be kept any more.
    give_up(app, &token).await?;
    app.store.kv_delete(PLEDGES, &token).await?;
    app.store.kv_delete(REQUESTS, &token).await?;
    app.store.kv_delete(JOBS, &token).await?;
    app.store.kv_delete(ANSWERS, &token).await?;
    Ok(())
}

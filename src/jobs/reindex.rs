//! The job behind search parameters of the site: goes through the resources that were there before, some at a time, and
//! sleeps as long as it worked. Where it is stands in the database, so whoever starts next goes on from there; a lease
//! keeps it to one server.

use std::time::Duration;

use crate::access::Caller;
use crate::app::App;
use crate::audit::{Event, Request, Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::definitions;
use crate::search::custom::Standing;
use crate::store::{Life, Pass};
use crate::world::{Instant, Stopwatch};

const TASK: &str = "reindex";
const LEASES: &str = "reindex";
/// How long a server that went silent keeps the lease, and what is left of it when it is renewed.
const LEASE_MS: i64 = 10_000;
const RENEW_MS: i64 = 5_000;
/// How often it is looked whether there is something to do, and how often a failure is tried again.
const LOOK: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(5);
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Resources of one commit that were written meanwhile: it is begun again at once.
const TRIES_MAX: usize = 8;

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is nothing to do.
    Idle,
    /// Another server does it.
    Elsewhere,
    /// What is left cannot be gone on with.
    Stuck,
    Worked {
        rows: u64,
        finished: bool,
    },
}

/// The job as one server does it.
pub struct Reindex<'a> {
    app: &'a App,
    /// When the lease of this server ends.
    lease: Option<Instant>,
    /// The resource whose beginning is on record.
    begun: Option<(String, bool)>,
    /// Those that could not be gone on with: others come first.
    stuck: Vec<String>,
}

/// Works until it is dropped.
pub async fn run(app: &App) {
    let mut job = Reindex::new(app);
    loop {
        let watch = Stopwatch::start();
        let pause = match job.step().await {
            Ok(Step::Worked { .. }) => watch.elapsed().max(PAUSE_MIN),
            Ok(Step::Idle | Step::Elsewhere) => LOOK,
            Ok(Step::Stuck) => AFTER_FAILURE,
            Err(error) => {
                let cause = error.cause().map(tracing::field::display);
                tracing::error!(kind = ?error.kind, cause, "resources could not be gone through for a search parameter");
                LOOK
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Gives the lease back, if this process has it: the next server need not wait for its end.
pub async fn give_back(app: &App) {
    Reindex { lease: Some(app.world.now()), ..Reindex::new(app) }.release().await;
}

impl<'a> Reindex<'a> {
    pub fn new(app: &'a App) -> Reindex<'a> {
        Reindex { app, lease: None, begun: None, stuck: Vec::new() }
    }

    /// Goes through the next resources, if there are any and no other server does.
    ///
    /// # Errors
    /// Whatever keeps a resource from being gone through: the parameter stays as it is.
    pub async fn step(&mut self) -> Result<Step> {
        let pass = self.app.store.next_pass(&self.stuck).await?;
        let waiting = self.app.store.customs().all.iter().filter(|one| one.standing != Standing::Ready).count();
        metrics::gauge!("phial_search_parameters_indexing").set(waiting as f64);
        let Some(pass) = pass else {
            self.release().await;
            let stuck = !std::mem::take(&mut self.stuck).is_empty();
            return Ok(if stuck { Step::Stuck } else { Step::Idle });
        };
        if !self.hold().await? {
            return Ok(Step::Elsewhere);
        }
        let this = (pass.resource.clone(), pass.ending);
        if self.begun.as_ref() != Some(&this) {
            self.app.trail.record(self.event(&pass, "begins", 0)).await?;
            tracing::info!(
                parameter = pass.code,
                ending = pass.ending,
                "going through resources for a search parameter"
            );
            self.begun = Some(this);
        }
        let done = self.rows(&pass).await;
        if done.is_err() {
            self.stuck.push(pass.resource.clone());
        }
        let (rows, finished) = done?;
        metrics::counter!("phial_reindexed_resources_total").increment(rows);
        if finished {
            self.begun = None;
            tracing::info!(parameter = pass.code, ending = pass.ending, "all resources were gone through");
        }
        Ok(Step::Worked { rows, finished })
    }

    async fn rows(&self, pass: &Pass) -> Result<(u64, bool)> {
        for _ in 0..TRIES_MAX {
            let done = self.app.store.reindex(pass).await;
            let done = match done {
                // Another parameter came or went: the next step looks again.
                Err(error) if error.kind == Kind::Conflict => return Ok((0, false)),
                done => done?,
            };
            let (rows, finished) = (done.rows, done.finished);
            let what = if finished { "ends" } else { "goes on" };
            match self.app.trail.reindex(self.event(pass, what, rows), done).await {
                Err(error) if error.kind == Kind::Conflict => {}
                done => return done.map(|()| (rows, finished)),
            }
        }
        Ok((0, false))
    }

    /// Who, for which parameter, how many; nothing of the resources.
    fn event(&self, pass: &Pass, what: &str, rows: u64) -> Event {
        let kind = definitions().type_id("SearchParameter");
        let touched = kind.map(|kind| Touched {
            kind,
            id: pass.resource.clone(),
            version: None,
            patients: Vec::new(),
            what: What::Operation,
        });
        Event {
            who: Some(Caller::task(TASK).who().clone()),
            kind,
            touched: touched.into_iter().collect(),
            detail: vec![
                ("operation".to_owned(), TASK.to_owned()),
                ("progress".to_owned(), what.to_owned()),
                ("resources".to_owned(), rows.to_string()),
            ],
            ..Event::new(self.app.world.now(), What::Operation, Request::default())
        }
    }

    /// Whether the lease is this server's now.
    async fn hold(&mut self) -> Result<bool> {
        let now = self.app.world.now();
        if self.lease.is_some_and(|until| until.0 - now.0 > RENEW_MS) {
            return Ok(true);
        }
        let (key, own) = self.names();
        let until = now.plus_ms(LEASE_MS);
        let store = &self.app.store;
        let life = Life { expires: Some(until), owner: None };
        let held = match self.lease {
            Some(_) => store.kv_swap(LEASES, &key, &own, &own, Some(until)).await?,
            None => false,
        };
        let held = held || store.kv_insert_new_for(LEASES, &key, &own, life).await?;
        self.lease = held.then_some(until);
        Ok(held)
    }

    /// Gives the lease back. What fails here ends by itself.
    async fn release(&mut self) {
        if self.lease.take().is_none() {
            return;
        }
        let (key, own) = self.names();
        let done: Result<bool, Error> = async {
            let held = self.app.store.kv_get(LEASES, &key).await?.is_some_and(|held| held == own);
            if held { self.app.store.kv_delete(LEASES, &key).await } else { Ok(false) }
        }
        .await;
        if done.is_err() {
            tracing::debug!("a lease could not be given back");
        }
    }

    /// The key of the lease, and what says that it is this process's.
    fn names(&self) -> (Vec<u8>, Vec<u8>) {
        let vault = &self.app.vault;
        let own = vault.token("reindex-owner", &self.app.store.instance().to_be_bytes());
        (vault.token("reindex", b"lease").to_vec(), own.to_vec())
    }
}

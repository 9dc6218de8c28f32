//! Rate limits: by address for every request, lower ones for logins, refused tokens and launches, and by person and
//! client once they are known. Each server counts for itself. The first refusal of each goes on record, all are counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::dispatch::{Server, below, facts_of};
use super::negotiate;
use super::rate::{Empty, WINDOW_MS};
use super::{cors, oauth, peer, reply, site};
use crate::access::{Caller, Who};
use crate::app::Config;
use crate::app::networks::neighbourhood;
use crate::audit::{Event, Outcome, Request, What};
use crate::error::{Error, Kind};
use crate::fhir::json::Node;
use crate::oauth::Refusal;

/// Characters of a bearer token that are looked at before it is verified.
const CLAIMS_LENGTH_MAX: usize = 8 * 1024;

/// Set when a token is found to be genuine and of a client with a limit of its own.
#[derive(Clone, Default)]
struct Admitted(Arc<AtomicBool>);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Limit {
    Address,
    User,
    Client,
    /// Failed steps of a login.
    Login,
    /// Refusals of the token endpoint and its neighbours.
    Token,
    Launch,
}

/// An allowance is used up.
pub(super) struct Over {
    limit: Limit,
    wait_ms: i64,
    first: bool,
}

/// What was taken in advance and may have to be given back when it is known how the request went.
pub(super) struct Entered {
    attempt: Option<(Limit, u128)>,
    /// The bearer token says it is of a client with a limit of its own: the address pays only if that is not found true.
    claimed: Option<Admitted>,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Limit::Address => "address",
            Limit::User => "user",
            Limit::Client => "client",
            Limit::Login => "login",
            Limit::Token => "token",
            Limit::Launch => "launch",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Limit::Login => "Too many failed logins from this address. Wait a moment, then try again.",
            Limit::Token => "Too many refused requests from this address. Wait, then send what is right.",
            Limit::Launch => "Too many launches from this address. Wait a moment, then try again.",
            Limit::Address => "Too many requests from this address. Wait as long as Retry-After says.",
            Limit::User => "Too many requests in the name of this person. Wait as long as Retry-After says.",
            Limit::Client => "Too many requests of this client. Wait as long as Retry-After says.",
        }
    }
}

impl Over {
    pub(super) fn error(&self) -> Error {
        Error::new(Kind::Throttled, self.limit.text())
    }

    fn seconds(&self) -> i64 {
        (self.wait_ms + 999) / 1000
    }
}

/// What else than the address a request is limited by, from where it goes.
fn attempt_of(server: &Server, parts: &Parts) -> Option<Limit> {
    let path = below(parts.uri.path(), server.app.config.issuer_path())?;
    let post = parts.method == "POST";
    match path {
        "oauth/authorize" | "oauth/launch" => Some(Limit::Launch),
        "launch" if post => Some(Limit::Launch),
        "account/password" if post => Some(Limit::Login),
        // Both reach out to an identity provider, or keep something until somebody comes back from it.
        _ if path.starts_with("login/with/") => Some(Limit::Launch),
        _ if path.starts_with("login/back/") => Some(Limit::Login),
        _ if post && (path == "login" || path.starts_with("login/")) => Some(Limit::Login),
        "oauth/token" | "oauth/introspect" | "oauth/revoke" | "oauth/register" if post => Some(Limit::Token),
        _ => None,
    }
}

/// The client that a bearer token says it is of. Nothing is believed yet.
fn claimed_client(parts: &Parts) -> Option<String> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    let claims = token.trim().split('.').nth(1).filter(|claims| claims.len() <= CLAIMS_LENGTH_MAX)?;
    let claims: Node = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    scheme.eq_ignore_ascii_case("bearer").then(|| claims["client_id"].as_str().map(str::to_owned))?
}

/// Gives a request what is needed to follow its claim.
pub(super) fn prepare(config: &Config, parts: &mut Parts) {
    if !config.rate_clients.is_empty() {
        parts.extensions.insert(Admitted::default());
    }
}

impl Server {
    fn rate(&self, limit: Limit) -> u64 {
        let config = &self.app.config;
        let rate = match limit {
            Limit::Address => config.rate_address_max,
            Limit::User => config.rate_user_max,
            Limit::Client => config.rate_client_max,
            Limit::Login => config.rate_login_max,
            Limit::Token => config.rate_token_failures_max,
            Limit::Launch => config.rate_launch_max,
        };
        rate.get()
    }

    fn take(&self, limit: Limit, whose: u128) -> Result<(), Over> {
        let taken = self.rates.take(&(limit, whose), self.rate(limit), self.app.world.now());
        taken.map_err(|Empty { wait_ms, first }| Over { limit, wait_ms, first })
    }

    fn take_of(&self, limit: Limit, whose: &str, max: u64) -> Result<(), Over> {
        let taken = self.rates.take(&(limit, whose), max, self.app.world.now());
        taken.map_err(|Empty { wait_ms, first }| Over { limit, wait_ms, first })
    }

    fn give_back(&self, limit: Limit, whose: u128) {
        self.rates.give_back(&(limit, whose), self.rate(limit), self.app.world.now());
    }

    /// None: limits by address do not hold for it.
    fn limited_address(&self, parts: &Parts) -> Option<u128> {
        let address = peer::of(parts).unwrap_or(IpAddr::from([0, 0, 0, 0]));
        (!self.app.config.rate_free_addresses.has(address)).then(|| neighbourhood(address))
    }

    /// Where a token is asked for and says it is of a client with a limit of its own: what will tell whether it is.
    fn claimed(&self, parts: &Parts) -> Option<Admitted> {
        let config = &self.app.config;
        let admitted = parts.extensions.get::<Admitted>()?;
        let path = parts.uri.path();
        let asks = below(path, config.base_path()).is_some() && !cors::is_public(config, path);
        let client = claimed_client(parts).filter(|_| asks)?;
        config.rate_clients.of(&client).map(|_| admitted.clone())
    }

    /// Lets a request in by its address, before anything is done for it.
    pub(super) fn enter(&self, parts: &Parts) -> Result<Entered, Over> {
        let mut entered = Entered { attempt: None, claimed: None };
        let Some(address) = self.limited_address(parts) else { return Ok(entered) };
        entered.claimed = self.claimed(parts);
        if entered.claimed.is_some() {
            // Open? Forged tokens cost a signature check each, and count as refusals.
            self.take(Limit::Token, address)?;
            self.give_back(Limit::Token, address);
        } else {
            self.take(Limit::Address, address)?;
        }
        if let Some(limit) = attempt_of(self, parts) {
            self.take(limit, address)?;
            entered.attempt = Some((limit, address));
        }
        Ok(entered)
    }

    /// The request has been answered: what went well does not count as a failure.
    pub(super) fn leave(&self, entered: &Entered, parts: &Parts, status: StatusCode) {
        match entered.attempt {
            Some((limit @ (Limit::Login | Limit::Token), address)) if status.as_u16() < 400 => {
                self.give_back(limit, address);
            }
            _ => {}
        }
        let Some(Admitted(admitted)) = &entered.claimed else { return };
        let Some(address) = self.limited_address(parts) else { return };
        // A server that has too much to do has not looked at the token.
        if !admitted.load(Ordering::SeqCst) && !status.is_server_error() {
            // Whether there was any left does not matter any more: the answer is given.
            let _ = self.take(Limit::Token, address);
            let _ = self.take(Limit::Address, address);
        }
    }

    /// Lets a caller in whose token is genuine.
    pub(super) fn admit(&self, who: &Who, parts: &Parts) -> Result<(), Over> {
        let own = self.app.config.rate_clients.of(&who.client_id);
        if let (Some(_), Some(Admitted(admitted))) = (own, parts.extensions.get()) {
            admitted.store(true, Ordering::SeqCst);
        }
        self.take_of(Limit::Client, &who.client_id, own.unwrap_or_else(|| self.rate(Limit::Client)))?;
        match &who.user {
            Some(user) => self.take_of(Limit::User, user, self.rate(Limit::User)),
            None => Ok(()),
        }
    }

    /// The same for what a page looks at in somebody's name.
    pub(super) async fn admit_page(&self, caller: &Caller, parts: &Parts, request_id: &str) -> Result<(), Error> {
        let user = caller.who().user.as_deref().unwrap_or_default();
        let Err(over) = self.take_of(Limit::User, user, self.rate(Limit::User)) else { return Ok(()) };
        self.note(&over, parts, Some(caller.who().clone()), request_id).await;
        Err(over.error())
    }

    /// Seconds after which a person may look again who was told that they look too often.
    pub(super) fn page_wait_s(&self) -> i64 {
        (WINDOW_MS / i64::try_from(self.rate(Limit::User)).unwrap_or(1).max(1) + 999) / 1000
    }

    /// Counts a refusal, and puts the first one on record: more would let anybody fill the trail.
    async fn note(&self, over: &Over, parts: &Parts, who: Option<Arc<Who>>, request_id: &str) {
        metrics::counter!("phial_rate_limited_total", "limit" => over.limit.name()).increment(1);
        if !over.first {
            return;
        }
        // The query may hold codes and handles.
        let request = Request { raw: String::new(), ..facts_of(parts, request_id) };
        let mut event = Event::new(self.app.world.now(), What::RateLimited, request);
        event.outcome = Outcome::Minor;
        event.reason = Some("too many requests".to_owned());
        event.detail.push(("limit".to_owned(), over.limit.name().to_owned()));
        event.who = who;
        if let Err(error) = self.app.trail.record(event).await {
            // Nothing is given out: the refusal stands without its record.
            tracing::error!(?error, request_id, "a refusal by rate could not be put on record");
        }
    }

    /// The refusal, in the form that its address answers in.
    pub(super) async fn too_many(
        &self,
        over: &Over,
        parts: &Parts,
        who: Option<Arc<Who>>,
        request_id: &str,
    ) -> Response<Body> {
        self.note(over, parts, who, request_id).await;
        let error = over.error();
        let mut reply = if oauth::is_for_clients(self, parts) {
            oauth::refusal_of(&Refusal { status: 429, ..Refusal::new("temporarily_unavailable", over.limit.text()) })
        } else if let Some(page) = site::refused(self, parts, &error, request_id) {
            page
        } else {
            let wanted = negotiate::wanted(&parts.headers, None, None, false).unwrap_or_default();
            reply::refusal(&error, wanted, &[])
        };
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(over.seconds().max(1)));
        reply
    }
}

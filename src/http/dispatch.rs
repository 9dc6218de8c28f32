//! One request: server addresses first, then FHIR by the address table. Every FHIR request ends on record, refused or
//! performed; only the CapabilityStatement and the SMART configuration need no token and no record.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use tokio::sync::Semaphore;

use super::negotiate::Wanted;
use super::rate::Rates;
use super::sample::Sample;
use super::{cors, fhir, meter, oauth, outcome, pages, peer, reply, sample, site, throttle};
use crate::app::App;
use crate::error::{Error, Kind, Result};
use crate::interaction::route::URL_BYTES_MAX;
use crate::world::Stopwatch;

/// Asynchronous requests that one server works on; more are answered 429.
const JOBS_MAX: usize = 16;

/// What every request is served with.
pub struct Server {
    pub app: App,
    /// Of a demonstration.
    pub(super) sample: Option<Sample>,
    places: Semaphore,
    pub(super) rates: Rates,
    /// Asynchronous requests under way.
    pub(super) jobs: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What became of a request, for log and figures: never its path or query.
pub(super) struct Served {
    pub reply: Response,
    pub route: &'static str,
}

impl Server {
    pub fn new(app: App, sample: Option<Sample>) -> Arc<Server> {
        let places = Semaphore::new(app.config.requests_max.size());
        meter::handle();
        let jobs = Arc::new(Semaphore::new(JOBS_MAX));
        Arc::new(Server { app, sample, places, rates: Rates::new(), jobs, waiting: AtomicUsize::new(0) })
    }

    /// Answers one request.
    pub async fn serve(self: Arc<Self>, request: Request<Body>) -> Response {
        let watch = Stopwatch::start();
        let (mut parts, body) = request.into_parts();
        peer::found(&self.app.config, &mut parts);
        throttle::prepare(&self.app.config, &mut parts);
        let request_id = request_id(&parts.headers, &self.app);
        let _flight = meter::InFlight::new();
        let mut served = match cors::is_preflight(&parts) {
            true => Served { reply: cors::preflight(), route: "(preflight)" },
            false => self.limited(&parts, body, &request_id).await,
        };
        reply::finish(&mut served.reply, &request_id);
        cors::finish(&self.app.config, &parts, &mut served.reply);
        if parts.method == axum::http::Method::HEAD {
            reply::headers_only(&mut served.reply);
        }
        let method = method_label(&parts);
        let status = served.reply.status().as_u16();
        let took = watch.elapsed();
        meter::answered(served.route, method, status, took);
        tracing::info!(method, route = served.route, status, ms = took.as_secs_f64() * 1e3, request_id, "request");
        served.reply
    }

    /// Lets the request in, then gives it a place and its time.
    async fn limited(self: &Arc<Self>, parts: &Parts, body: Body, request_id: &str) -> Served {
        if let Some(served) = pages::server_page(self, parts).await {
            return served;
        }
        let entered = match self.enter(parts) {
            Ok(entered) => entered,
            Err(over) => {
                return Served {
                    reply: Box::pin(self.too_many(&over, parts, None, request_id)).await,
                    route: "(limited)",
                };
            }
        };
        let served = self.placed(parts, body, request_id).await;
        self.leave(&entered, parts, served.reply.status());
        served
    }

    async fn placed(self: &Arc<Self>, parts: &Parts, body: Body, request_id: &str) -> Served {
        let limits = &self.app.config;
        let _place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                let before = self.waiting.fetch_add(1, Ordering::SeqCst);
                let place = match before < limits.queue_max.size() {
                    true => self.places.acquire().await.ok(),
                    false => None,
                };
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                match place {
                    Some(place) => place,
                    None => {
                        let text = "The server has as much to do as it can take. Try again.";
                        return self.refused_early(Kind::Unavailable, text, parts, request_id);
                    }
                }
            }
        };
        let time = Duration::from_secs(limits.request_timeout_s.get());
        match tokio::time::timeout(time, self.routed(parts, body, request_id)).await {
            Ok(served) => served,
            Err(_) => {
                let text = "The request took longer than this server gives it.";
                self.refused_early(Kind::Unavailable, text, parts, request_id)
            }
        }
    }

    /// A refusal that no room of the server has made: a page for people, else an OperationOutcome.
    fn refused_early(
        &self,
        kind: Kind,
        text: impl Into<std::borrow::Cow<'static, str>>,
        parts: &Parts,
        request_id: &str,
    ) -> Served {
        let error = Error::new(kind, text);
        let page = site::refused(self, parts, &error, request_id);
        let reply = page.unwrap_or_else(|| reply::refusal(&error, Wanted::default(), &[]));
        Served { reply, route: "(none)" }
    }

    async fn routed(self: &Arc<Self>, parts: &Parts, body: Body, request_id: &str) -> Served {
        if let Some(served) = sample::page(self, parts) {
            return served;
        }
        if parts.uri.path_and_query().is_some_and(|whole| whole.as_str().len() > URL_BYTES_MAX) {
            let text =
                format!("The address is longer than the {URL_BYTES_MAX} bytes this server takes: POST to _search.");
            return self.refused_early(Kind::UriTooLong, text, parts, request_id);
        }
        if let Some(found) = oauth::route(self, parts) {
            return Box::pin(oauth::serve(self, found, parts, body, request_id)).await;
        }
        if let Some(found) = site::route(self, parts) {
            return Box::pin(site::serve(self, found, parts, body, request_id)).await;
        }
        if let Some(path) = below(parts.uri.path(), self.app.config.base_path()) {
            return Box::pin(fhir::serve(self, parts, path, body, request_id)).await;
        }
        self.refused_early(Kind::NotFound, "There is no such address.", parts, request_id)
    }
}

/// The part of a path below a base, without the slash between them.
pub(super) fn below<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(base)?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(rest.strip_suffix('/').unwrap_or(rest)),
        None => rest.is_empty().then_some(""),
    }
}

/// The client's own request id when it is a plain one, else a new one.
fn request_id(headers: &HeaderMap, app: &App) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plain = (1..=64).contains(&given.len())
        && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if plain { given.to_owned() } else { app.world.uuid() }
}

fn method_label(parts: &Parts) -> &'static str {
    match parts.method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Facts of the request for the audit. `raw` is PHI and is kept sealed only.
pub(super) fn facts_of(parts: &Parts, request_id: &str) -> crate::audit::Request {
    let raw = parts.uri.path_and_query().map(|whole| whole.as_str().to_owned()).unwrap_or_default();
    let host = parts.headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    crate::audit::Request {
        id: request_id.to_owned(),
        address: peer::of(parts).map(|address| address.to_string()).unwrap_or_default(),
        raw,
        host: host.to_owned(),
    }
}

/// A reply for an error, with its cause in the log.
pub(super) fn refused(error: &Error, wanted: Wanted, request_id: &str) -> Response {
    outcome::log(error, request_id);
    reply::refusal(error, wanted, &[])
}

/// 200 with a JSON document of the server.
pub(super) fn json_document(bytes: Vec<u8>) -> Result<Response> {
    Ok(reply::document(StatusCode::OK, "application/json", bytes))
}

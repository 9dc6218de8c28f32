//! A FHIR request: address, token, negotiation, body, interaction, reply, in this order. Nothing of a body is read
//! before the token is known to be good.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::dispatch::{Served, Server, facts_of, json_document, refused};
use super::negotiate::{self, Format, Sent, Wanted};
use super::{body, graphql, outcome, reply, write};
use crate::access::Caller;
use crate::audit::What;
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::patch::Patch;
use crate::fhir::sent::SentBundle;
use crate::fhir::{definitions, xml};
use crate::interaction::deferred::{self, Status};
use crate::interaction::route::{self, Found, Method, Verb};
use crate::interaction::{
    self, About, Conditions, Facts, Interaction, Operation, Pairs, Prefer, Target, capability, form,
};

/// Bodies up to this size are parsed where they are read.
const PARSE_INLINE_MAX: usize = 256 * 1024;

/// Serves an address below the FHIR base.
pub(super) async fn serve(server: &Arc<Server>, parts: &Parts, path: &str, sent: Body, request_id: &str) -> Served {
    let method = Method::parse(parts.method.as_str());
    if path == ".well-known/smart-configuration" && method == Some(Method::Get) {
        let config = &server.app.config;
        let bytes = config.endpoints().smart_configuration();
        let reply = json_document(bytes).unwrap_or_else(|error| refused(&error, Wanted::default(), request_id));
        return Served { reply, route: "/.well-known/smart-configuration" };
    }
    if parts.method == axum::http::Method::OPTIONS {
        return options(path);
    }
    let found = route::find(method, path);
    let label = found.as_ref().map_or("(none)", |found| label(found.route.pattern));
    let mut request = FhirRequest { server, parts, request_id, wanted: Wanted::default(), facts: Facts::default() };
    let reply = match request.take(path, found, sent).await {
        Ok(reply) => reply,
        Err(error) => {
            outcome::log(&error, request_id);
            reply::refusal(&error, request.wanted, &route::allowed(path))
        }
    };
    Served { reply, route: label }
}

/// What may be done with an address; like the CapabilityStatement it is about nobody's data.
fn options(path: &str) -> Served {
    let allowed = route::allowed(path);
    if allowed.is_empty() {
        let error = Error::new(Kind::NotFound, "There is no such address.");
        return Served { reply: reply::refusal(&error, Wanted::default(), &[]), route: "(none)" };
    }
    Served { reply: reply::allowed(&allowed), route: "(options)" }
}

/// The base itself has the empty pattern.
fn label(pattern: &'static str) -> &'static str {
    if pattern.is_empty() { "(base)" } else { pattern }
}

struct FhirRequest<'a> {
    server: &'a Arc<Server>,
    parts: &'a Parts,
    request_id: &'a str,
    wanted: Wanted,
    facts: Facts,
}

impl FhirRequest<'_> {
    /// Everything up to the interaction itself. What is refused here is put on record here; the interaction sees to
    /// its own.
    async fn take(&mut self, path: &str, found: Result<Found<'_>>, sent: Body) -> Result<Response> {
        self.facts.request = facts_of(self.parts, self.request_id).into();
        self.facts.operation = found.as_ref().ok().and_then(|found| found.operation).map(|operation| operation.name);
        let about = about(&found, path);
        // A refusal, too, is in the form that was asked for, where that can be told; what cannot is told below.
        if let Ok(mut pairs) = form::decode(self.parts.uri.query().unwrap_or_default()) {
            let _ = self.negotiate(&mut pairs, true);
        }
        if let Ok(Found { route: route::Route { verb: Verb::Capabilities, .. }, .. }) = &found {
            let mut query = form::decode(self.parts.uri.query().unwrap_or_default())?;
            self.negotiate(&mut query, false)?;
            return Box::pin(self.statement(query)).await;
        }
        let caller = match self.caller().await {
            Ok(caller) => caller,
            Err(error) => return Err(self.refuse(None, about, error).await),
        };
        if let Err(over) = self.server.admit(caller.who(), self.parts) {
            let who = Some(caller.who().clone());
            return Ok(Box::pin(self.server.too_many(&over, self.parts, who, self.request_id)).await);
        }
        if let Ok(Found {
            route: route::Route { verb: verb @ (Verb::Status | Verb::Cancel), .. }, id: Some(id), ..
        }) = &found
        {
            let reply = Box::pin(self.of_job(&caller, *verb, id)).await;
            return match reply {
                Ok(reply) => Ok(reply),
                Err(error) => Err(self.refuse(Some(&caller), about, error).await),
            };
        }
        let asked = match found {
            Ok(found) => self.interaction(&found, sent).await,
            Err(error) => Err(error),
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => return Err(self.refuse(Some(&caller), about, error).await),
        };
        let app = &self.server.app;
        if self.facts.prefer.later && deferred::can_wait(&asked) {
            return match Box::pin(self.deferred(&caller, asked)).await {
                Ok(reply) => Ok(reply),
                Err(error) => Err(self.refuse(Some(&caller), about, error).await),
            };
        }
        let answer = interaction::perform(app, &caller, &self.facts, asked).await?;
        reply::answer(&answer, &app.config.base_url, self.wanted)
    }

    /// Takes the request on and says where its answer will be.
    async fn deferred(&self, caller: &Caller, asked: Interaction) -> Result<Response> {
        let busy = || Error::new(Kind::Throttled, "Too many asynchronous requests are under way. Try again.");
        let place = self.server.jobs.clone().try_acquire_owned().map_err(|_| busy())?;
        let job = deferred::start(&self.server.app, caller, &self.facts, &asked).await?;
        let status = format!("{}/_async/{}", self.server.app.config.base_url, job.id);
        self.work(place, job, caller, self.facts.clone(), asked);
        Ok(reply::accepted(&status))
    }

    fn work(&self, place: OwnedSemaphorePermit, job: deferred::Job, caller: &Caller, facts: Facts, asked: Interaction) {
        let (server, caller) = (self.server.clone(), caller.clone());
        tokio::spawn(async move {
            let _place = place;
            deferred::run(&server.app, job, caller, facts, asked, write::kept).await;
        });
    }

    /// How an asynchronous request of this caller stands, or its end.
    async fn of_job(&mut self, caller: &Caller, verb: Verb, id: &str) -> Result<Response> {
        let app = &self.server.app;
        if verb == Verb::Cancel {
            self.facts.operation = Some("async-cancel");
            deferred::cancel(app, caller, &self.facts, id).await?;
            return Ok(reply::cancelled());
        }
        self.facts.operation = Some("async-status");
        self.wanted.fhir = true;
        match deferred::status(app, caller, &self.facts, id).await? {
            Status::Running(progress) => Ok(reply::in_progress(&progress)),
            Status::Again(again) => {
                let (job, facts, asked) = *again;
                // Without a place it goes silent again, and is begun when it is next asked for.
                if let Ok(place) = self.server.jobs.clone().try_acquire_owned() {
                    self.work(place, job, caller, facts, asked);
                }
                Ok(reply::in_progress("in progress again"))
            }
            Status::Done(answer) => reply::answer(&answer, &app.config.base_url, self.wanted),
        }
    }

    async fn refuse(&self, caller: Option<&Caller>, about: About, error: Error) -> Error {
        let who = caller.map(|caller| caller.who().clone());
        interaction::refuse(&self.server.app, who, &self.facts, about, error).await
    }

    /// The CapabilityStatement, which is about nobody's data.
    async fn statement(&self, query: Pairs) -> Result<Response> {
        let lenient = Prefer::parse(texts(&self.parts.headers, "prefer")).lenient;
        let statement = capability::asked(&self.server.app, query, lenient).await?;
        let bytes = write::node(&statement, self.wanted)?;
        Ok(reply::document(axum::http::StatusCode::OK, self.wanted.format.content_type(), bytes))
    }

    async fn caller(&self) -> Result<Caller> {
        let missing = || Error::new(Kind::Unauthenticated, "An access token is needed: Authorization: Bearer.");
        let header = self.parts.headers.get(AUTHORIZATION).ok_or_else(missing)?;
        let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing());
        }
        self.server.app.oauth.caller(token.trim()).await
    }

    /// Takes `_format` and `_pretty` out of the parameters and decides on the reply's form.
    fn negotiate(&mut self, pairs: &mut Pairs, binary: bool) -> Result<()> {
        let mut take = |name: &str| {
            let mut found: Pairs = pairs.extract_if(.., |(own, _)| own == name).collect();
            match found.len() {
                0 | 1 => Ok(found.pop().map(|(_, value)| value)),
                _ => Err(Error::invalid(format!("{name} may be given once."))),
            }
        };
        let (format, pretty) = (take("_format")?, take("_pretty")?);
        self.wanted = negotiate::wanted(&self.parts.headers, format.as_deref(), pretty.as_deref(), binary)?;
        self.facts.format = format;
        Ok(())
    }

    /// Reads the request to the end and gives what it asks for.
    async fn interaction(&mut self, found: &Found<'_>, sent: Body) -> Result<Interaction> {
        let headers = &self.parts.headers;
        self.facts.conditions = conditions(headers);
        self.facts.prefer = Prefer::parse(texts(headers, "prefer"));
        let mut query = form::decode(self.parts.uri.query().unwrap_or_default())?;
        let binary = found.kind.is_some_and(|kind| definitions().type_name(kind) == "Binary");
        let search = matches!(found.route.verb, Verb::SearchType | Verb::SearchSystem | Verb::SearchCompartment);
        if search && found.route.method == Method::Post {
            query.append(&mut self.form(sent).await?);
            self.negotiate(&mut query, false)?;
            return self.built(found, query, None);
        }
        if found.operation.is_some_and(Operation::is_graphql) {
            // The answer is JSON, whatever else is accepted.
            query.retain(|(name, _)| name != "_format" && name != "_pretty");
        }
        let raw = binary && found.route.method == Method::Get && found.operation.is_none();
        self.negotiate(&mut query, raw)?;
        self.wanted.fhir |= !raw;
        if let Some(operation) = found.operation {
            let method = found.route.method;
            let body = match method {
                Method::Get => None,
                _ if operation.is_graphql() => self.graphql_body(sent, &mut query).await?,
                _ => self.operation_body(sent).await?,
            };
            let (kind, id) = (found.kind, found.id.map(str::to_owned));
            return Ok(Interaction::Operation { operation, method, kind, id, query, body });
        }
        if found.route.verb == Verb::Patch {
            let patch = self.patch(sent).await?;
            let kind = found.kind.ok_or_else(|| Error::internal("a patch of no type"))?;
            return Ok(Interaction::Patch { kind, target: self.target(found, query)?, patch });
        }
        if found.route.verb == Verb::Bundle {
            let body = self.bundle(sent).await?;
            self.takes_none(&query)?;
            return Ok(Interaction::Bundle { body });
        }
        let has_body = matches!(found.route.verb, Verb::Create | Verb::Update);
        let node = if has_body { Some(self.resource(sent, binary).await?) } else { None };
        if found.route.verb == Verb::Create {
            self.takes_none(&query)?;
        }
        self.built(found, query, node)
    }

    /// Refuses parameters at an address that has none.
    fn takes_none(&self, query: &Pairs) -> Result<()> {
        match query.first().filter(|_| !self.facts.prefer.lenient) {
            Some((name, _)) => Err(Error::invalid(format!("The parameter {name} is not defined for this address."))),
            None => Ok(()),
        }
    }

    fn built(&self, found: &Found<'_>, query: Pairs, body: Option<Node>) -> Result<Interaction> {
        let absent = || Error::internal("the address table and its reader differ");
        let kind = || found.kind.ok_or_else(absent);
        let id = || found.id.map(str::to_owned).ok_or_else(absent);
        Ok(match found.route.verb {
            Verb::SearchType => Interaction::SearchType { kind: kind()?, query },
            Verb::Create => Interaction::Create { kind: kind()?, body: body.ok_or_else(absent)? },
            Verb::Read => Interaction::Read { kind: kind()?, id: id()?, query },
            Verb::Update => {
                let (kind, target) = (kind()?, self.target(found, query)?);
                Interaction::Update { kind, target, body: body.ok_or_else(absent)? }
            }
            Verb::Delete => Interaction::Delete { kind: kind()?, target: self.target(found, query)? },
            Verb::HistoryInstance => Interaction::HistoryInstance { kind: kind()?, id: id()?, query },
            Verb::SearchSystem | Verb::SearchCompartment => Interaction::SearchAcross { across: found.across(), query },
            Verb::HistoryType => Interaction::HistoryType { kind: kind()?, query },
            Verb::HistorySystem => Interaction::HistorySystem { query },
            Verb::Vread => {
                let vid = found.vid.map(str::to_owned).ok_or_else(absent)?;
                Interaction::Vread { kind: kind()?, id: id()?, vid, query }
            }
            Verb::Status | Verb::Cancel | Verb::Capabilities | Verb::Operation | Verb::Patch | Verb::Bundle => {
                return Err(absent());
            }
        })
    }

    /// What an update, patch or delete is about.
    fn target(&self, found: &Found<'_>, query: Pairs) -> Result<Target> {
        match (found.id, query.first()) {
            (None, _) => Ok(Target::Matching(query)),
            (Some(_), Some((name, _))) if !self.facts.prefer.lenient => {
                Err(Error::invalid(format!("The parameter {name} is not defined for this address.")))
            }
            (Some(id), _) => Ok(Target::Id(id.to_owned())),
        }
    }

    /// JSON Patch by its media type; a FHIR one is a FHIRPath Patch.
    async fn patch(&self, sent: Body) -> Result<Patch> {
        let headers = &self.parts.headers;
        let kind = negotiate::sent(headers)?;
        let max = self.server.app.config.body_bytes_max.size();
        match kind {
            Sent::Fhir(format) => Patch::fhirpath(parsed(body::read(headers, sent, max).await?, format).await?),
            Sent::Other(name) if negotiate::is_json_patch(&name) => {
                Patch::json(parsed(body::read(headers, sent, max).await?, Format::Json).await?)
            }
            Sent::Form | Sent::Other(_) => {
                let text = "A patch is application/json-patch+json (JSON Patch), or application/fhir+json or \
                            application/fhir+xml (Parameters of a FHIRPath Patch).";
                Err(Error::new(Kind::MediaType, text))
            }
        }
    }

    /// The form of a POST search; it goes on record with the address.
    async fn form(&mut self, sent: Body) -> Result<Pairs> {
        let headers = &self.parts.headers;
        let bytes = body::read(headers, sent, self.server.app.config.body_bytes_max.size()).await?;
        if bytes.is_empty() {
            return Ok(Pairs::new());
        }
        if negotiate::sent(headers)? != Sent::Form {
            return Err(Error::new(Kind::MediaType, "The body of a search is application/x-www-form-urlencoded."));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("The form is no UTF-8."))?;
        self.asked_also(text);
        form::decode(text)
    }

    /// Parameters of the body, for the record as if they had stood in the address.
    fn asked_also(&mut self, form: &str) {
        let raw = &mut Arc::make_mut(&mut self.facts.request).raw;
        raw.push(if raw.contains('?') { '&' } else { '?' });
        raw.push_str(form);
    }

    /// Parameters, or a resource that stands for one of them; a call that needs none may have no body.
    async fn operation_body(&self, sent: Body) -> Result<Option<Node>> {
        let headers = &self.parts.headers;
        let bytes = body::read(headers, sent, self.server.app.config.body_bytes_max.size()).await?;
        match negotiate::sent(headers)? {
            _ if bytes.is_empty() => Ok(None),
            Sent::Fhir(format) => parsed(bytes, format).await.map(Some),
            Sent::Form | Sent::Other(_) => Err(neither_form()),
        }
    }

    /// A query in any of its forms; it goes on record with the address.
    async fn graphql_body(&mut self, sent: Body, query: &mut Pairs) -> Result<Option<Node>> {
        let headers = &self.parts.headers;
        let bytes = body::read(headers, sent, self.server.app.config.body_bytes_max.size()).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let before = query.len();
        let body = graphql::body(&negotiate::sent(headers)?, &bytes, query)?;
        self.asked_also(&form::encode(&query[before..]));
        Ok(body)
    }

    /// The resource in the body. For a Binary any other media type is its content (binary.html).
    async fn resource(&self, sent: Body, binary: bool) -> Result<Node> {
        let headers = &self.parts.headers;
        let kind = negotiate::sent(headers)?;
        let max = self.server.app.config.body_bytes_max.size();
        match kind {
            Sent::Fhir(format) => parsed(body::read(headers, sent, max).await?, format).await,
            Sent::Other(content_type) if binary => {
                let bytes = body::read(headers, sent, max).await?;
                Ok(self.binary(&content_type, &bytes))
            }
            Sent::Form | Sent::Other(_) => Err(neither_form()),
        }
    }

    /// The Bundle in the body.
    async fn bundle(&self, sent: Body) -> Result<SentBundle> {
        let headers = &self.parts.headers;
        let Sent::Fhir(format) = negotiate::sent(headers)? else { return Err(neither_form()) };
        let bytes = body::read(headers, sent, self.server.app.config.body_bytes_max.size()).await?;
        read_aside(bytes, move |bytes| match format {
            Format::Json => SentBundle::parse(bytes),
            Format::Xml => xml::read(bytes).map(SentBundle::of),
        })
        .await
    }

    fn binary(&self, content_type: &str, bytes: &[u8]) -> Node {
        let mut node = json!({"resourceType": "Binary"});
        let id = self.parts.uri.path().rsplit('/').next().filter(|_| self.parts.method == "PUT");
        if let Some(id) = id {
            node["id"] = json!(id);
        }
        node["contentType"] = json!(content_type);
        if let Some(context) = texts(&self.parts.headers, "x-security-context").next() {
            node["securityContext"] = json!({"reference": context});
        }
        if !bytes.is_empty() {
            node["data"] = json!(STANDARD.encode(bytes));
        }
        node
    }
}

async fn parsed(bytes: Bytes, format: Format) -> Result<Node> {
    read_aside(bytes, move |bytes| match format {
        Format::Json => json::parse(bytes),
        Format::Xml => xml::read(bytes),
    })
    .await
}

/// Parses a body; a large one on a thread of its own, so that others are served meanwhile.
async fn read_aside<T: Send + 'static>(
    bytes: Bytes,
    parse: impl FnOnce(&Bytes) -> Result<T> + Send + 'static,
) -> Result<T> {
    match bytes.len() > PARSE_INLINE_MAX {
        true => tokio::task::spawn_blocking(move || parse(&bytes)).await.map_err(Error::internal)?,
        false => parse(&bytes),
    }
}

fn neither_form() -> Error {
    Error::new(Kind::MediaType, "The body must be application/fhir+json or application/fhir+xml.")
}

fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

fn conditions(headers: &HeaderMap) -> Conditions {
    let text = |name: &str| texts(headers, name).next().map(str::to_owned);
    Conditions {
        if_match: text(IF_MATCH.as_str()),
        if_none_match: text(IF_NONE_MATCH.as_str()),
        if_modified_since: text(IF_MODIFIED_SINCE.as_str()),
        if_none_exist: text("if-none-exist"),
    }
}

/// What a request is about before it is understood, for the record of its refusal.
fn about(found: &Result<Found<'_>>, path: &str) -> About {
    let Ok(found) = found else {
        let kind = path.split('/').next().and_then(|name| definitions().type_id(name));
        return About { what: What::Operation, kind, id: None };
    };
    let what = match found.route.verb {
        Verb::Status | Verb::Cancel => What::Operation,
        Verb::Capabilities => What::Capabilities,
        Verb::Bundle => What::Batch,
        Verb::SearchType => What::SearchType,
        Verb::Create => What::Create,
        Verb::Read => What::Read,
        Verb::Update => What::Update,
        Verb::Patch => What::Patch,
        Verb::Delete => What::Delete,
        Verb::HistoryInstance => What::HistoryInstance,
        Verb::SearchSystem | Verb::SearchCompartment => found.across().what(),
        Verb::HistoryType => What::HistoryType,
        Verb::HistorySystem => What::HistorySystem,
        Verb::Vread => What::Vread,
        Verb::Operation => What::Operation,
    };
    About { what, kind: found.kind, id: found.id.map(str::to_owned) }
}

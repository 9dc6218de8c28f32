//! batch and transaction (http.html#transaction). The entries become interactions: nothing goes through the HTTP
//! router again.

mod batch;
mod transaction;

use super::route::{self, Method, Verb};
use super::{Answer, Body, Conditions, Entry, Facts, Interaction, Response, Return, Scene, form};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, BundleType};
use crate::fhir::json::Node;

pub(super) async fn perform(scene: Scene<'_>, body: Node) -> Result<Answer> {
    let kind = bundle::type_of(&body)?;
    let entries = bundle::entries(body, scene.app.config.bundle_entries_max.size())?;
    match kind {
        BundleType::Batch => batch::batch(scene, entries).await,
        BundleType::Transaction => transaction::transaction(scene, entries).await,
    }
}

/// Facts of an entry: those of the request, with the entry's own conditions. Writes give no content back unless it
/// was asked for.
fn facts_of(scene: Scene<'_>, entry: &bundle::Entry) -> Facts {
    let mut facts = scene.facts.clone();
    facts.conditions = Conditions {
        if_match: entry.if_match.clone(),
        if_none_match: entry.if_none_match.clone(),
        if_modified_since: entry.if_modified_since.clone(),
        if_none_exist: entry.if_none_exist.clone(),
    };
    facts.prefer.returns = Some(facts.prefer.returns.unwrap_or(Return::Minimal));
    facts
}

/// What an entry asks for.
///
/// # Errors
/// As the same request on its own would give, with the place of the entry.
fn asked(scene: Scene<'_>, entry: &mut bundle::Entry, n: usize) -> Result<Interaction> {
    let method = Method::parse(&entry.method).filter(|_| entry.method != "HEAD");
    let Some(method) = method else {
        return Err(Error::invalid("The method must be GET, POST, PUT or DELETE.").at(at(n, "request.method")));
    };
    let at_url = |error: Error| error.at(at(n, "request.url"));
    let url = entry.url.strip_prefix(&scene.app.config.base_url).unwrap_or(&entry.url);
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let path = path.trim_matches('/');
    let mut query = form::decode(query).map_err(at_url)?;
    let conditional = !query.is_empty() && matches!(method, Method::Put | Method::Delete | Method::Patch);
    if conditional {
        return Err(at_url(Error::unsupported("Conditional update, patch and delete are not supported.")));
    }
    let found = route::find(Some(method), path).map_err(at_url)?;
    query.retain(|(name, _)| name != "_format" && name != "_pretty");
    let absent = || at_url(Error::invalid("This address cannot be used in a bundle."));
    if let Some(operation) = found.operation {
        if operation.is_graphql() {
            return Err(absent());
        }
        let (kind, id) = (found.kind, found.id.map(str::to_owned));
        return Ok(Interaction::Operation { operation, method, kind, id, query, body: entry.resource.take() });
    }
    match found.route.verb {
        Verb::HistorySystem => return Ok(Interaction::HistorySystem { query }),
        Verb::SearchSystem | Verb::SearchCompartment if method == Method::Get => {
            return Ok(Interaction::SearchAcross { across: found.across(), query });
        }
        _ => {}
    }
    let kind = found.kind.ok_or_else(absent)?;
    let id = || found.id.map(str::to_owned).ok_or_else(absent);
    Ok(match found.route.verb {
        Verb::SearchType if method == Method::Get => Interaction::SearchType { kind, query },
        Verb::Read => Interaction::Read { kind, id: id()?, query },
        Verb::HistoryInstance => Interaction::HistoryInstance { kind, id: id()?, query },
        Verb::HistoryType => Interaction::HistoryType { kind, query },
        Verb::Vread => {
            let vid = found.vid.map(str::to_owned).ok_or_else(absent)?;
            Interaction::Vread { kind, id: id()?, vid, query }
        }
        Verb::Delete => Interaction::Delete { kind, id: id()? },
        Verb::Create => Interaction::Create { kind, body: resource(entry.resource.take(), n)? },
        Verb::Update => Interaction::Update { kind, id: id()?, body: resource(entry.resource.take(), n)? },
        Verb::SearchType
        | Verb::Bundle
        | Verb::Capabilities
        | Verb::Operation
        | Verb::HistorySystem
        | Verb::SearchSystem
        | Verb::SearchCompartment => {
            return Err(absent());
        }
    })
}

fn resource(node: Option<Node>, n: usize) -> Result<Node> {
    node.ok_or_else(|| Error::invalid("The entry must hold the resource that is to be written.").at(at(n, "resource")))
}

fn at(n: usize, rest: &str) -> String {
    format!("Bundle.entry[{n}].{rest}")
}

/// The entry of the reply for an answer.
fn answered(answer: Answer) -> Entry {
    let mut entry = Entry::default();
    match answer.body {
        Body::Empty => {}
        Body::Content(content) => entry.content = Some(content),
        Body::Bundle(bundle) => entry.nested = Some(bundle),
        // `asked` takes no query.
        Body::GraphQl(_) => {}
    }
    entry.response = Some(Response::Done { done: answer.done, version: answer.version });
    entry
}

fn failed(error: Error) -> Entry {
    Entry { response: Some(Response::Failed(error)), ..Entry::default() }
}

/// Puts the place of the entry before the places of an error's issues: `Bundle.entry[2].resource.name`.
fn in_entry(mut error: Error, n: usize) -> Error {
    for issue in &mut error.issues {
        let place = issue.expression.take();
        issue.expression = Some(match place.as_deref() {
            None => format!("Bundle.entry[{n}]"),
            Some(place) if place.starts_with("Bundle.entry[") => place.to_owned(),
            Some(place) => match place.split_once('.') {
                Some((_, rest)) => at(n, &format!("resource.{rest}")),
                None => at(n, "resource"),
            },
        });
    }
    error
}

/// Whether an error is about one entry (its place is said) rather than about the server.
fn is_of_entry(error: &Error) -> bool {
    !matches!(error.kind, Kind::Audit | Kind::Unavailable | Kind::Internal)
}

//! batch and transaction (http.html#transaction). The entries become interactions: nothing goes through the HTTP
//! router again.

mod batch;
mod overlap;
mod resolve;
mod step;
mod transaction;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::route::{self, Method, Verb};
use super::write::lost_race;
use super::{Answer, Body, Conditions, Entry, Facts, Interaction, Pairs, Response, Return, Scene, Target, form};
use crate::error::{Error, Issue, Kind, Result, Severity};
use crate::fhir::bundle::{self, BundleType};
use crate::fhir::json::{self, Node};
use crate::fhir::patch::Patch;
use crate::fhir::sent::{Held, SentBundle};

pub(super) async fn perform(scene: Scene<'_>, body: SentBundle) -> Result<Answer> {
    let kind = bundle::type_of(&body)?;
    let mut entries = bundle::entries(body, scene.app.config.bundle_entries_max.size())?;
    states_once(scene, &mut entries);
    match kind {
        BundleType::Batch => batch::batch(scene, entries).await,
        BundleType::Transaction => transaction::transaction(scene, entries).await,
    }
}

/// Refuses `metadata` from its second entry on: each would hold the whole CapabilityStatement, and all of them at once
/// would fill the memory.
fn states_once(scene: Scene<'_>, entries: &mut [Result<bundle::Entry>]) {
    let states = |entry: &bundle::Entry| path_of(scene, &entry.url).0 == "metadata";
    let again = entries.iter_mut().enumerate().filter(|(_, entry)| entry.as_ref().is_ok_and(states)).skip(1);
    for (n, entry) in again {
        let error = Error::new(Kind::TooCostly, "A Bundle may ask for metadata once.");
        *entry = Err(error.at(at(n, "request.url")));
    }
}

/// Path relative to the base, and query, of the address in an entry.
fn path_of<'a>(scene: Scene<'_>, url: &'a str) -> (&'a str, &'a str) {
    let url = url.strip_prefix(&scene.app.config.base_url).unwrap_or(url);
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    (path.trim_matches('/'), query)
}

/// Facts of an entry: those of the request, with the entry's own conditions. Writes give no content back unless it
/// was asked for.
fn facts_of(scene: Scene<'_>, entry: &bundle::Entry) -> Facts {
    let mut facts = scene.facts.clone();
    facts.pledge = None;
    facts.conditions = Conditions {
        if_match: entry.if_match.clone(),
        if_none_match: entry.if_none_match.clone(),
        if_modified_since: entry.if_modified_since.clone(),
        if_none_exist: entry.if_none_exist.clone(),
    };
    facts.prefer.returns = Some(facts.prefer.returns.unwrap_or(Return::Minimal));
    facts
}

/// What an entry asks for. `body` opens what it creates or updates, or puts it elsewhere.
///
/// # Errors
/// As the same request on its own would give, with the place of the entry.
fn asked(
    scene: Scene<'_>,
    entry: &mut bundle::Entry,
    n: usize,
    body: impl FnOnce(Held) -> Result<Node>,
) -> Result<Interaction> {
    let Some(method) = Method::parse(&entry.method) else {
        let text = "The method must be GET, HEAD, POST, PUT, PATCH or DELETE.";
        return Err(Error::invalid(text).at(at(n, "request.method")));
    };
    let at_url = |error: Error| error.at(at(n, "request.url"));
    let (path, query) = path_of(scene, &entry.url);
    let mut query = form::decode(query).map_err(at_url)?;
    let found = route::find(Some(method), path).map_err(at_url)?;
    query.retain(|(name, _)| name != "_format" && name != "_pretty");
    let absent = || at_url(Error::invalid("This address cannot be used in a bundle."));
    if let Some(operation) = found.operation {
        if operation.is_graphql() {
            return Err(absent());
        }
        let (kind, id) = (found.kind, found.id.map(str::to_owned));
        let body = entry.resource.take().map(Held::into_tree).transpose()?;
        return Ok(Interaction::Operation { operation, method, kind, id, query, body });
    }
    match found.route.verb {
        Verb::Capabilities => return Ok(Interaction::Capabilities { query }),
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
        Verb::Delete => Interaction::Delete { kind, target: target(found.id, query).map_err(at_url)? },
        Verb::Create => Interaction::Create { kind, body: body(resource(entry.resource.take(), n)?)? },
        Verb::Update => {
            let target = target(found.id, query).map_err(at_url)?;
            Interaction::Update { kind, target, body: body(resource(entry.resource.take(), n)?)? }
        }
        Verb::Patch => {
            let target = target(found.id, query).map_err(at_url)?;
            Interaction::Patch { kind, target, patch: patch(resource(entry.resource.take(), n)?.into_tree()?, n)? }
        }
        Verb::SearchType
        | Verb::Bundle
        | Verb::Capabilities
        | Verb::Operation
        | Verb::HistorySystem
        | Verb::SearchSystem
        | Verb::SearchCompartment
        | Verb::Status
        | Verb::Cancel => {
            return Err(absent());
        }
    })
}

fn target(id: Option<&str>, query: Pairs) -> Result<Target> {
    match (id, query.first()) {
        (None, _) => Ok(Target::Matching(query)),
        (Some(_), Some((name, _))) => {
            Err(Error::invalid(format!("The parameter {name} is not defined for this address.")))
        }
        (Some(id), None) => Ok(Target::Id(id.to_owned())),
    }
}

/// A patch as an entry holds it: a JSON Patch in a Binary, a FHIRPath Patch as Parameters.
fn patch(node: Node, n: usize) -> Result<Patch> {
    match node.get("resourceType").and_then(Node::as_str) {
        Some("Parameters") => Patch::fhirpath(node).map_err(|error| in_entry(error, n)),
        Some("Binary") => {
            let text = |name: &str| node.get(name).and_then(Node::as_str).unwrap_or_default();
            let kind = text("contentType").split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("application/json-patch+json") {
                let text = "A patch in a Binary is application/json-patch+json.";
                return Err(Error::invalid(text).at(at(n, "resource.contentType")));
            }
            let at_data = |error: Error| error.at(at(n, "resource.data"));
            let data: String = text("data").split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(data).map_err(|_| at_data(Error::invalid("This is no base64.")))?;
            json::parse(&bytes).and_then(Patch::json).map_err(at_data)
        }
        _ => {
            let text = "A patch is a Binary (JSON Patch) or a Parameters resource (FHIRPath Patch).";
            Err(Error::invalid(text).at(at(n, "resource")))
        }
    }
}

fn resource(held: Option<Held>, n: usize) -> Result<Held> {
    held.ok_or_else(|| Error::invalid("The entry must hold the resource that is to be written.").at(at(n, "resource")))
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

/// The same without content, as HEAD has it.
fn without_content(entry: Entry) -> Entry {
    Entry { content: None, nested: None, ..entry }
}

/// The entry that tells what came of a request.
pub(super) fn entry_of(answer: Result<Answer>) -> Entry {
    answer.map_or_else(failed, answered)
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

/// The faults of the entries of a transaction, to be told together.
#[derive(Default)]
struct Faults(Vec<Error>);

/// Issues of one answer.
const ISSUES_MAX: usize = 500;

impl Faults {
    /// Keeps the outcome of an entry, or notes its fault.
    ///
    /// # Errors
    /// What is not about the entry, and what another try may cure, at once.
    fn take<T>(&mut self, outcome: Result<T>, n: usize) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if !is_of_entry(&error) || lost_race(&error) => Err(error),
            Err(error) => {
                self.0.push(in_entry(error, n));
                Ok(None)
            }
        }
    }

    /// # Errors
    /// All of them as one: of the first one's kind, but Forbidden when one of them is.
    fn told(self) -> Result<()> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let forbidden = self.0.iter().any(|error| error.kind == Kind::Forbidden);
        let kind = if forbidden { Kind::Forbidden } else { first.kind };
        let mut issues: Vec<Issue> = self.0.into_iter().flat_map(|error| error.issues).collect();
        if issues.len() > ISSUES_MAX {
            let more = issues.len() - ISSUES_MAX;
            issues.truncate(ISSUES_MAX);
            let mut last = Issue::error("informational", format!("{more} more issues are not listed."));
            last.severity = Severity::Information;
            issues.push(last);
        }
        Err(Error::with_issues(kind, issues))
    }
}

/// Whether an error is about one entry (its place is said) rather than about the server.
fn is_of_entry(error: &Error) -> bool {
    !matches!(error.kind, Kind::Audit | Kind::Unavailable | Kind::Internal)
}

//! The FHIR verbs, each short enough to read like its paragraph in the specification. There is no other road to
//! data: HTTP, entries of bundles and the import all come here. Must not know HTTP.
//!
//! Every path ends on record: a success through `Trail::disclose` or `Trail::commit`, everything else through
//! `Trail::record`, and where that cannot be written the answer is `Kind::Audit` with no content.

pub mod answer;
pub mod facts;
pub mod form;
pub mod operations;
pub mod people;
pub mod reviews;
pub mod route;
pub mod shape;
mod terminology;

pub mod across;
mod bundles;
pub mod capability;
mod conditional;
mod contained;
mod cursor;
pub mod deferred;
mod graphql;
mod history;
mod reach;
mod read;
mod search;
mod write;

use std::sync::Arc;

use crate::access::{Caller, Who};
use crate::app::App;
use crate::audit::{Event, Outcome, Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::bundle::{self, BundleType};
use crate::fhir::json::Node;
use crate::fhir::patch::Patch;
use crate::fhir::sent::SentBundle;
use crate::fhir::{TypeId, definitions};

pub use across::Across;
pub use answer::{Answer, Body, Bundle, BundleKind, Content, Done, Entry, Mode, Response, VersionOf};
pub use facts::{Conditions, Facts, Prefer, Return};
pub use graphql::Reply as GraphQl;
pub use operations::Operation;
pub use shape::Shape;
pub(crate) use write::lost_race;

/// Decoded query parameters, in order. `_format` and `_pretty` are not among them.
pub type Pairs = Vec<(String, String)>;

/// One request, parsed.
pub enum Interaction {
    /// `metadata`, as an entry of a Bundle.
    Capabilities {
        query: Pairs,
    },
    Read {
        kind: TypeId,
        id: String,
        query: Pairs,
    },
    Vread {
        kind: TypeId,
        id: String,
        vid: String,
        query: Pairs,
    },
    HistoryInstance {
        kind: TypeId,
        id: String,
        query: Pairs,
    },
    HistoryType {
        kind: TypeId,
        query: Pairs,
    },
    HistorySystem {
        query: Pairs,
    },
    SearchType {
        kind: TypeId,
        query: Pairs,
    },
    /// A search of the whole server or of a compartment.
    SearchAcross {
        across: Across,
        query: Pairs,
    },
    Create {
        kind: TypeId,
        body: Node,
    },
    Update {
        kind: TypeId,
        target: Target,
        body: Node,
    },
    Patch {
        kind: TypeId,
        target: Target,
        patch: Patch,
    },
    Delete {
        kind: TypeId,
        target: Target,
    },
    /// A batch or a transaction, as `Bundle.type` says.
    Bundle {
        body: SentBundle,
    },
    /// `$name` at the base, on a type or on one resource.
    Operation {
        operation: &'static Operation,
        method: route::Method,
        kind: Option<TypeId>,
        id: Option<String>,
        query: Pairs,
        body: Option<Node>,
    },
}

/// Which resource of its type an update, patch or delete is about.
pub enum Target {
    Id(String),
    /// The one that satisfies these search parameters (http.html#cond-update).
    Matching(Pairs),
}

impl Target {
    fn id(&self) -> Option<&String> {
        match self {
            Target::Id(id) => Some(id),
            Target::Matching(_) => None,
        }
    }
}

/// What an interaction is about, for the record of a refusal.
#[derive(Clone)]
pub struct About {
    pub what: What,
    pub kind: Option<TypeId>,
    pub id: Option<String>,
}

impl Interaction {
    pub fn about(&self) -> About {
        let (what, kind, id) = match self {
            Interaction::Capabilities { .. } => (What::Capabilities, None, None),
            Interaction::Read { kind, id, .. } => (What::Read, Some(*kind), Some(id)),
            Interaction::Vread { kind, id, .. } => (What::Vread, Some(*kind), Some(id)),
            Interaction::HistoryInstance { kind, id, .. } => (What::HistoryInstance, Some(*kind), Some(id)),
            Interaction::HistoryType { kind, .. } => (What::HistoryType, Some(*kind), None),
            Interaction::HistorySystem { .. } => (What::HistorySystem, None, None),
            Interaction::SearchType { kind, .. } => (What::SearchType, Some(*kind), None),
            Interaction::SearchAcross { across, .. } => {
                let within = across.within.as_ref();
                (across.what(), within.map(|(kind, _)| *kind), within.map(|(_, id)| id))
            }
            Interaction::Create { kind, .. } => (What::Create, Some(*kind), None),
            Interaction::Update { kind, target, .. } => (What::Update, Some(*kind), target.id()),
            Interaction::Patch { kind, target, .. } => (What::Patch, Some(*kind), target.id()),
            Interaction::Delete { kind, target } => (What::Delete, Some(*kind), target.id()),
            Interaction::Operation { kind, id, .. } => (What::Operation, *kind, id.as_ref()),
            Interaction::Bundle { body } => match bundle::type_of(body) {
                Ok(BundleType::Transaction) => (What::Transaction, None, None),
                _ => (What::Batch, None, None),
            },
        };
        About { what, kind, id: id.cloned() }
    }
}

/// What every interaction works with.
#[derive(Clone, Copy)]
struct Scene<'a> {
    app: &'a App,
    caller: &'a Caller,
    facts: &'a Facts,
}

impl Scene<'_> {
    /// A successful event of this request, as yet without what it touched.
    fn event(&self, what: What, kind: Option<TypeId>) -> Event {
        let event = Event::new(self.app.world.now(), what, self.facts.request.clone());
        let emergency = self.caller.person().and_then(|person| person.emergency.as_deref());
        let reason = emergency.map(|purpose| format!("emergency access ({purpose})"));
        Event { who: Some(self.caller.who().clone()), kind, reason, detail: self.facts.detail(), ..event }
    }
}

/// Performs one interaction and sees to its record, whatever comes of it.
///
/// # Errors
/// What the interaction gives; `Kind::Audit` when its record could not be made durable.
pub async fn perform(app: &App, caller: &Caller, facts: &Facts, interaction: Interaction) -> Result<Answer> {
    let about = interaction.about();
    let named;
    let facts = match &interaction {
        Interaction::Operation { operation, .. } => {
            named = Facts { operation: Some(operation.name), ..facts.clone() };
            &named
        }
        _ => facts,
    };
    let resolved = match facts.conditions.fit(&interaction) {
        Ok(()) => reach::resolved(app, caller).await,
        Err(error) => Err(error),
    };
    let caller = match resolved {
        Ok(caller) => caller,
        Err(error) => return Err(refuse(app, Some(caller.who().clone()), facts, about, error).await),
    };
    let caller = &caller;
    let scene = Scene { app, caller, facts };
    // Boxed, but for the most frequent: this future is as large as its largest arm, and is moved as it is nested.
    let answer = match interaction {
        Interaction::Capabilities { query } => Box::pin(capability::answer(scene, query)).await,
        Interaction::Read { kind, id, query } => read::read(scene, kind, &id, &query).await,
        Interaction::Vread { kind, id, vid, query } => Box::pin(read::vread(scene, kind, &id, &vid, &query)).await,
        Interaction::HistoryInstance { kind, id, query } => Box::pin(history::instance(scene, kind, &id, &query)).await,
        Interaction::HistoryType { kind, query } => Box::pin(history::of_type(scene, kind, query)).await,
        Interaction::HistorySystem { query } => Box::pin(history::of_system(scene, query)).await,
        Interaction::SearchType { kind, query } => Box::pin(search::search(scene, kind, query)).await,
        Interaction::SearchAcross { across, query } => Box::pin(across::search(scene, &across, query)).await,
        Interaction::Create { kind, body } => Box::pin(write::create(scene, kind, body)).await,
        Interaction::Update { kind, target, body } => Box::pin(write::update(scene, kind, target, body)).await,
        Interaction::Patch { kind, target, patch } => Box::pin(write::patch(scene, kind, target, patch)).await,
        Interaction::Delete { kind, target } => Box::pin(write::delete(scene, kind, target)).await,
        Interaction::Bundle { body } => Box::pin(bundles::perform(scene, body)).await,
        Interaction::Operation { operation, method, kind, id, query, body } => {
            let sent = operations::Sent { operation, method, kind, id };
            Box::pin(operations::perform(scene, sent, query, body)).await
        }
    };
    match answer {
        Ok(answer) => Ok(answer),
        Err(error) => Err(refuse(app, Some(caller.who().clone()), facts, about, error).await),
    }
}

/// For tests of other rooms: the caller with what it reaches on this server now, to be taken to another one.
#[cfg(test)]
pub(crate) async fn resolved(app: &App, caller: &Caller) -> Result<Caller> {
    reach::resolved(app, caller).await
}

/// AuditEvents are answered by the audit trail, and are added to but never changed.
fn is_audit(kind: TypeId) -> bool {
    definitions().type_name(kind) == "AuditEvent"
}

/// Puts a refused or failed request on record and gives back its error; when the record fails, that is the error.
pub async fn refuse(app: &App, who: Option<Arc<Who>>, facts: &Facts, about: About, error: Error) -> Error {
    if error.kind == Kind::Audit {
        return error;
    }
    let touched = about.kind.zip(about.id).map(|(kind, id)| Touched {
        kind,
        id,
        version: None,
        patients: Vec::new(),
        what: about.what,
    });
    let event = Event {
        outcome: outcome_of(error.kind),
        reason: Some(reason_of(error.kind).to_owned()),
        who,
        kind: about.kind,
        touched: touched.into_iter().collect(),
        detail: facts.detail(),
        ..Event::new(app.world.now(), about.what, facts.request.clone())
    };
    match app.trail.record(event).await {
        Ok(_) => error,
        Err(failure) => failure,
    }
}

fn outcome_of(kind: Kind) -> Outcome {
    match kind {
        Kind::Unavailable | Kind::Internal | Kind::Audit | Kind::Tampered => Outcome::Serious,
        _ => Outcome::Minor,
    }
}

/// Fixed words for the record: the issues themselves may quote what the client sent.
fn reason_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "the request was not valid",
        Kind::Unsupported => "the request asked for what is not supported",
        Kind::BusinessRule => "a business rule stood against it",
        Kind::Unauthenticated => "there was no genuine, live token",
        Kind::Forbidden => "the scopes did not cover it",
        Kind::NotFound => "there was no such resource for this caller",
        Kind::Gone => "the resource was deleted",
        Kind::Conflict => "a concurrent change or a uniqueness rule stood against it",
        Kind::Precondition => "a condition of the request did not hold",
        Kind::TooCostly => "it would have cost more than the limits allow",
        Kind::TooLarge => "the body was too large",
        Kind::UriTooLong => "the address was too long",
        Kind::Method => "the method is not defined for the address",
        Kind::MediaType => "the media type of the request is not supported",
        Kind::NotAcceptable => "no acceptable media type could be made",
        Kind::Throttled => "the caller made too many requests",
        Kind::Unavailable => "a part of the server was not available",
        Kind::Internal => "the server failed",
        Kind::Audit => "the audit entry could not be written",
        Kind::Tampered => "stored data failed its integrity check",
    }
}

//! What an interaction gives back. Content in it is [`Released`] only, so that the HTTP layer cannot answer with
//! anything whose disclosure is not on record.

use crate::audit::Released;
use crate::error::{Error, Issue};
use crate::fhir::TypeId;
use crate::fhir::json::Node;
use crate::world::Instant;

use super::graphql::Reply as GraphQl;
use super::shape::Shape;

/// How it went, when it went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Ok,
    Created,
    NoContent,
    NotModified,
}

/// Which version an answer is about: ETag, Last-Modified and, after a write, Location.
#[derive(Clone)]
pub struct VersionOf {
    pub kind: TypeId,
    pub id: String,
    pub version: u32,
    pub at: Instant,
    /// After create and update: the Location header is due.
    pub written: bool,
}

/// A successful answer.
pub struct Answer {
    pub done: Done,
    pub version: Option<VersionOf>,
    pub body: Body,
}

pub enum Body {
    Empty,
    Content(Content),
    Bundle(Box<Bundle>),
    /// What a GraphQL query is answered: made of released content alone.
    GraphQl(Box<GraphQl>),
}

/// One resource of an answer.
pub enum Content {
    /// Stored content, with what of it was asked for.
    Released(Released, Shape),
    /// An OperationOutcome made here.
    Outcome(Vec<Issue>),
    /// A document made here: of released content alone, of what the client itself sent, or of tables.
    Made(Node),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleKind {
    Searchset,
    History,
    BatchResponse,
    TransactionResponse,
}

impl BundleKind {
    pub fn code(self) -> &'static str {
        match self {
            BundleKind::Searchset => "searchset",
            BundleKind::History => "history",
            BundleKind::BatchResponse => "batch-response",
            BundleKind::TransactionResponse => "transaction-response",
        }
    }
}

/// A Bundle to be written.
pub struct Bundle {
    pub id: String,
    pub kind: BundleKind,
    pub at: Instant,
    pub total: Option<u64>,
    /// Relation and absolute address.
    pub links: Vec<(&'static str, String)>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Match,
    Include,
    Outcome,
}

impl Mode {
    pub fn code(self) -> &'static str {
        match self {
            Mode::Match => "match",
            Mode::Include => "include",
            Mode::Outcome => "outcome",
        }
    }
}

/// One entry. Absent parts are left out.
#[derive(Default)]
pub struct Entry {
    pub full_url: Option<String>,
    pub content: Option<Content>,
    pub mode: Option<Mode>,
    /// How well it matches, with the code of its `match-grade`.
    pub grade: Option<(f64, &'static str)>,
    /// Method and address, in histories.
    pub request: Option<(&'static str, String)>,
    pub response: Option<Response>,
    /// The answer of a search or history inside a batch.
    pub nested: Option<Box<Bundle>>,
}

/// `Bundle.entry.response`.
pub enum Response {
    Done { done: Done, version: Option<VersionOf> },
    Failed(Error),
}

impl Answer {
    /// An answer without a body.
    pub fn empty(done: Done, version: Option<VersionOf>) -> Answer {
        Answer { done, version, body: Body::Empty }
    }

    /// 200 with a document made here.
    pub fn made(node: Node) -> Answer {
        Answer { done: Done::Ok, version: None, body: Body::Content(Content::Made(node)) }
    }

    pub fn bundle(bundle: Bundle) -> Answer {
        Answer { done: Done::Ok, version: None, body: Body::Bundle(Box::new(bundle)) }
    }
}

impl VersionOf {
    pub fn read(released: &Released) -> VersionOf {
        VersionOf {
            kind: released.kind(),
            id: released.id().to_owned(),
            version: released.version(),
            at: released.last_updated(),
            written: false,
        }
    }
}

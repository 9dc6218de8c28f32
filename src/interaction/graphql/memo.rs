//! What is known so far of the resources and searches of a query, and what is still wanted.

use std::collections::HashMap;

use super::document::Pos;
use crate::fhir::TypeId;
use crate::fhir::json::Node;
use crate::interaction::Pairs;

/// How something was come by: reads and searches are granted apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Road {
    Read,
    Search,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub road: Road,
    pub kind: TypeId,
    pub id: String,
    pub version: Option<u32>,
}

/// What is known of a resource.
pub enum Held {
    /// Not there, or not for this caller.
    Absent,
    /// Found, and not on record yet: its content cannot be reached.
    Sealed,
    Open(Node),
}

/// One page of a search.
pub struct Hits {
    pub kind: TypeId,
    pub rows: Vec<Address>,
    pub total: Option<u64>,
    pub count: usize,
    pub offset: usize,
    pub links: Links,
}

/// Cursors of the pages around one.
#[derive(Default)]
pub struct Links {
    pub first: Option<String>,
    pub previous: Option<String>,
    pub next: Option<String>,
    pub last: Option<String>,
}

/// What is known so far.
#[derive(Default)]
pub struct Memo {
    pub resources: HashMap<Address, Held>,
    pub searches: HashMap<String, Hits>,
}

/// What must be looked up.
pub enum Want {
    /// `asked`: named by the query itself, so that a missing grant is told.
    Read {
        address: Address,
        asked: bool,
    },
    Search(Box<Asked>),
}

/// A search, and how it is remembered.
pub struct Asked {
    pub key: String,
    pub kind: TypeId,
    pub pairs: Pairs,
    /// The pair that ties it to where it stands.
    pub tie: Option<(String, String)>,
    pub count: Option<usize>,
    pub offset: usize,
    pub cursor: Option<String>,
    /// Page links are asked for.
    pub connection: bool,
    /// How many there are is asked for.
    pub counted: bool,
    pub at: Pos,
}

/// A fault of one field: the others are answered.
pub struct FieldError {
    pub text: &'static str,
    pub code: &'static str,
    pub at: Pos,
    pub path: Vec<Node>,
}

/// Where the query starts.
#[derive(Clone)]
pub enum Start {
    System,
    Resource(Address),
}

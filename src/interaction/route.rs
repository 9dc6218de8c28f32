//! The FHIR addresses, as data: the HTTP router, the entries of bundles, the CapabilityStatement and the coverage
//! tests all read this one table.

use super::across::Across;
use super::operations::{self, Operation};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};

/// Longest address, path and query together.
pub const URL_BYTES_MAX: usize = 32 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
    Patch,
}

impl Method {
    /// HEAD is answered as GET; the HTTP layer leaves the body out.
    pub fn parse(name: &str) -> Option<Method> {
        Some(match name {
            "GET" | "HEAD" => Method::Get,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "PATCH" => Method::Patch,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
        }
    }
}

/// What an address and method ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Capabilities,
    Bundle,
    SearchType,
    SearchSystem,
    SearchCompartment,
    Create,
    Read,
    Update,
    Patch,
    Delete,
    HistoryInstance,
    HistoryType,
    HistorySystem,
    Vread,
    /// How an asynchronous request stands, and its answer.
    Status,
    Cancel,
    Operation,
}

impl Verb {
    /// Codes of the R4 value sets `type-restful-interaction` and `system-restful-interaction`.
    pub fn codes(self) -> &'static [&'static str] {
        match self {
            Verb::Capabilities => &["capabilities"],
            Verb::Bundle => &["transaction", "batch"],
            Verb::SearchType => &["search-type"],
            Verb::SearchSystem => &["search-system"],
            // CapabilityStatements list compartments by their definitions.
            Verb::SearchCompartment => &[],
            Verb::Create => &["create"],
            Verb::Read => &["read"],
            Verb::Update => &["update"],
            Verb::Patch => &["patch"],
            Verb::Delete => &["delete"],
            Verb::HistoryInstance => &["history-instance"],
            Verb::HistoryType => &["history-type"],
            Verb::HistorySystem => &["history-system"],
            Verb::Vread => &["vread"],
            Verb::Status | Verb::Cancel => &[],
            // CapabilityStatements list operations by name.
            Verb::Operation => &[],
        }
    }
}

/// One row of the table. The pattern is relative to the FHIR base; `{op}` is an operation defined there (`$meta`).
pub struct Route {
    pub method: Method,
    pub pattern: &'static str,
    pub verb: Verb,
}

const fn route(method: Method, pattern: &'static str, verb: Verb) -> Route {
    Route { method, pattern, verb }
}

/// Every FHIR address there is.
pub const ROUTES: &[Route] = &[
    route(Method::Get, "metadata", Verb::Capabilities),
    route(Method::Post, "", Verb::Bundle),
    route(Method::Get, "", Verb::SearchSystem),
    route(Method::Get, "_search", Verb::SearchSystem),
    route(Method::Post, "_search", Verb::SearchSystem),
    route(Method::Get, "{op}", Verb::Operation),
    route(Method::Post, "{op}", Verb::Operation),
    route(Method::Get, "{type}/{op}", Verb::Operation),
    route(Method::Post, "{type}/{op}", Verb::Operation),
    route(Method::Get, "{type}/{id}/{op}", Verb::Operation),
    route(Method::Post, "{type}/{id}/{op}", Verb::Operation),
    route(Method::Get, "_history", Verb::HistorySystem),
    route(Method::Get, "_async/{job}", Verb::Status),
    route(Method::Delete, "_async/{job}", Verb::Cancel),
    route(Method::Get, "{type}", Verb::SearchType),
    route(Method::Post, "{type}", Verb::Create),
    route(Method::Get, "{type}/_search", Verb::SearchType),
    route(Method::Post, "{type}/_search", Verb::SearchType),
    route(Method::Get, "{type}/_history", Verb::HistoryType),
    // Without an id: what the search parameters match.
    route(Method::Put, "{type}", Verb::Update),
    route(Method::Patch, "{type}", Verb::Patch),
    route(Method::Delete, "{type}", Verb::Delete),
    route(Method::Get, "{type}/{id}", Verb::Read),
    route(Method::Put, "{type}/{id}", Verb::Update),
    route(Method::Patch, "{type}/{id}", Verb::Patch),
    route(Method::Delete, "{type}/{id}", Verb::Delete),
    route(Method::Get, "{type}/{id}/*", Verb::SearchCompartment),
    route(Method::Post, "{type}/{id}/_search", Verb::SearchCompartment),
    route(Method::Get, "{type}/{id}/{member}", Verb::SearchCompartment),
    route(Method::Post, "{type}/{id}/{member}/_search", Verb::SearchCompartment),
    route(Method::Get, "{type}/{id}/_history", Verb::HistoryInstance),
    route(Method::Get, "{type}/{id}/_history/{vid}", Verb::Vread),
];

/// An address that is in the table.
pub struct Found<'a> {
    pub route: &'static Route,
    pub kind: Option<TypeId>,
    pub id: Option<&'a str>,
    pub vid: Option<&'a str>,
    /// The type of a compartment that is searched.
    pub member: Option<TypeId>,
    pub operation: Option<&'static Operation>,
}

impl Found<'_> {
    /// Where a search of several types looks.
    pub fn across(&self) -> Across {
        let within = self.kind.zip(self.id).map(|(kind, id)| (kind, id.to_owned()));
        Across { within, only: self.member }
    }
}

/// Looks up a path relative to the base (`Patient/1`, without query).
///
/// # Errors
/// `Kind::NotFound` for an address that does not exist, an unknown type among them; `Kind::Method` where only other
/// methods are defined.
pub fn find(method: Option<Method>, path: &str) -> Result<Found<'_>> {
    let mut allowed = false;
    let mut unknown_type = false;
    for route in ROUTES {
        let Some(found) = fit(route, path, &mut unknown_type) else { continue };
        if Some(route.method) == method {
            return Ok(found);
        }
        allowed = true;
    }
    Err(if allowed {
        Error::new(Kind::Method, "This method is not defined for this address.")
    } else if path.rsplit('/').next().is_some_and(|last| last.starts_with('$')) {
        Error::new(Kind::NotFound, "There is no such operation at this address.")
    } else if unknown_type {
        Error::new(Kind::NotFound, "The address does not begin with a resource type of FHIR R4.")
    } else {
        Error::new(Kind::NotFound, "There is no such address.")
    })
}

/// Whether a verb of the table is defined for a type: AuditEvents are added, never changed.
pub fn defined(verb: Verb, type_name: &str) -> bool {
    type_name != "AuditEvent" || !matches!(verb, Verb::Patch | Verb::Delete)
}

/// Methods defined for a path, for the `Allow` header.
pub fn allowed(path: &str) -> Vec<Method> {
    let fits = |route: &&'static Route| {
        let kind =
            fit(route, path, &mut false).map(|found| found.kind.map_or("", |kind| definitions().type_name(kind)));
        kind.is_some_and(|kind| defined(route.verb, kind))
    };
    let mut methods: Vec<Method> = ROUTES.iter().filter(fits).map(|route| route.method).collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}

fn fit<'a>(route: &'static Route, path: &'a str, unknown_type: &mut bool) -> Option<Found<'a>> {
    let mut found = Found { route, kind: None, id: None, vid: None, member: None, operation: None };
    let mut parts = path.split('/');
    for want in route.pattern.split('/') {
        let part = parts.next()?;
        match want {
            "{type}" => match definitions().type_id(part) {
                Some(kind) => found.kind = Some(kind),
                None => {
                    *unknown_type = true;
                    return None;
                }
            },
            "{op}" => {
                let kind = found.kind.map(|kind| definitions().type_name(kind));
                let operation = operations::find(part.strip_prefix('$')?, kind, found.id.is_some())?;
                if route.method == Method::Get && !operation.get() {
                    return None;
                }
                found.operation = Some(operation);
            }
            "{id}" if part.starts_with(['_', '$']) => return None,
            "{id}" | "{job}" => found.id = Some(part),
            "{member}" => found.member = Some(definitions().type_id(part)?),
            "{vid}" => found.vid = Some(part),
            fixed if fixed == part => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(found)
}

//! What the tests of search share: resources to capsules, query strings to matchers.

use std::path::PathBuf;

use super::capsule::{View, encode};
use super::matcher::{Matcher, sort_key};
use super::query::{Query, QueryOptions};
use super::values::{Values, values};
use crate::error::Result;
use crate::fhir::{Resource, TypeId, definitions, json};
use crate::world::Instant;

pub const BASE: &str = "http://localhost/fhir";
/// 2026-01-01T00:00:00Z
pub const NOW: Instant = Instant(1_767_225_600_000);

pub fn kind(name: &str) -> TypeId {
    definitions().type_id(name).expect(name)
}

pub fn options() -> QueryOptions {
    QueryOptions {
        lenient: false,
        base: BASE.into(),
        count_default: 50,
        count_max: 1_000,
        now: NOW,
        customs: Default::default(),
    }
}

/// Pairs of `a=b&c=d`, without percent encoding (a `%26` stands for `&`).
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let split = pieces.map(|piece| piece.split_once('=').unwrap_or((piece, "")));
    split.map(|(name, value)| (name.to_owned(), value.replace("%26", "&"))).collect()
}

pub fn query(of: &str, query: &str) -> Result<Query> {
    Query::parse(kind(of), &pairs(query), &options())
}

/// A resource of JSON text, stamped; its id is `1` unless it has one.
pub fn resource(text: &str) -> Resource {
    let mut resource = Resource::check(json::parse(text.as_bytes()).expect("JSON")).expect(text);
    let id = resource.id().unwrap_or("1").to_owned();
    resource.stamp(&id, 1, NOW);
    resource
}

pub fn indexed(text: &str) -> Values {
    values(&resource(text), 1, NOW, BASE).expect(text)
}

/// Whether a query finds the values, by way of the capsule.
pub fn finds(of: &str, text: &str, found: &Values) -> bool {
    let query = query(of, text).unwrap_or_else(|error| panic!("{of}?{text}: {error}"));
    let bytes = encode(found);
    let view = View::new(&bytes).expect("a capsule");
    Matcher::new(query.criteria).expect("resolved").matches(&view).expect("decodes")
}

pub fn key(of: &str, sort: &str, found: &Values) -> Vec<u8> {
    let query = query(of, &format!("_sort={sort}")).expect(sort);
    let bytes = encode(found);
    sort_key(&View::new(&bytes).expect("a capsule"), &query.sort).expect("decodes").0
}

/// Resources of the shared samples, if they are there: the official examples, one a file.
pub fn samples() -> Vec<Resource> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/samples/hl7-r4-examples/json");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: PathBuf| {
        let mut resource = Resource::check(json::parse(&std::fs::read(path).ok()?).ok()?).ok()?;
        let id = resource.id()?.to_owned();
        resource.stamp(&id, 1, NOW);
        Some(resource)
    };
    paths.into_iter().filter_map(read).collect()
}

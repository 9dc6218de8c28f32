//! `conformance/coverage.md`: resource type by interaction, search parameter and modifier. Every cell is the outcome of
//! requests that ran here, on both databases, over the official examples. `PHIAL_COVERAGE=write` (`make coverage`) writes
//! the table, `all` runs all of it; otherwise every twelfth type is run on SQLite. A cell that the committed table has
//! and the run has not is a failure.

mod searches;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use axum::body::Body;
use serde_json::{Value, json};

use super::{Persona, Reply, TestApp};
use crate::fhir::{Resource, TypeId, definitions};
use crate::search::testing::{NOW, samples};
use crate::search::values::{Values, values};

const BASE: &str = "http://phial.test/fhir";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/coverage.md");
/// Of this many types the quick run takes one.
const QUICK: usize = 12;
const INTERACTIONS: &str = "(interactions)";

/// What ran, by type and row.
type Table = BTreeMap<(String, String), BTreeSet<String>>;

/// An example and what it is found by.
struct Example {
    resource: Resource,
    values: Values,
}

/// As few examples of each type as have a value for every parameter that any of them has.
fn examples() -> BTreeMap<TypeId, Vec<Example>> {
    let mut chosen: BTreeMap<TypeId, Vec<Example>> = BTreeMap::new();
    for resource in samples() {
        let Ok(values) = values(&resource, 1, NOW, BASE) else { continue };
        let of_type = chosen.entry(resource.kind()).or_default();
        let known = |param| of_type.iter().any(|example| example.values.params.contains_key(param));
        if of_type.is_empty() || !values.params.keys().all(known) {
            of_type.push(Example { resource, values });
        }
    }
    chosen
}

fn address(example: &Example) -> String {
    format!("{}/{}", example.resource.type_name(), example.resource.id().unwrap_or_default())
}

/// A Binary would come as its content otherwise.
async fn get(caller: &Persona<'_>, path: &str) -> Reply {
    caller.call("GET", path, &[("accept", "application/fhir+json")], Body::empty()).await
}

fn tree(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

/// Interactions of one type that do what they should. The examples are there afterwards, but for the last.
async fn interactions(caller: &Persona<'_>, examples: &[Example]) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    let mut note = |name: &str, well: bool| {
        if well {
            done.insert(name.to_owned());
        }
    };
    let Some(example) = examples.first() else { return done };
    let (kind, path, node) = (example.resource.type_name(), address(example), example.resource.node());
    let id = example.resource.id().unwrap_or_default();
    let made = caller.put(&path, node).await;
    note("create (PUT)", made.status == 201);
    let same = |reply: &Reply| reply.status == 200 && tree(reply)["id"] == id;
    note("read", same(&get(caller, &path).await));
    let mut changed = node.clone();
    changed["meta"] = json!({"tag": [{"system": "urn:coverage", "code": "changed"}]});
    let updated = caller.put(&path, &changed).await;
    note("update", updated.status == 200 && tree(&updated)["meta"]["versionId"] == "2");
    note("vread", same(&get(caller, &format!("{path}/_history/1")).await));
    let history = get(caller, &format!("{path}/_history")).await;
    note("history-instance", history.status == 200 && tree(&history)["total"] == 2);
    let history = get(caller, &format!("{kind}/_history")).await;
    note("history-type", history.status == 200 && history.ids().iter().any(|own| own == id));
    let mut other = node.clone();
    other.as_object_mut().map(|members| members.remove("id"));
    let posted = caller.post(kind, &other).await;
    note("create", posted.status == 201);
    let found = get(caller, &format!("{kind}?_id={id}")).await;
    note("search-type", found.status == 200 && found.ids() == [id]);
    if let Some(own) = tree(&posted)["id"].as_str().filter(|_| posted.status == 201) {
        let path = format!("{kind}/{own}");
        let deleted = caller.delete(&path).await.status;
        note("delete", matches!(deleted, 200 | 204) && get(caller, &path).await.status == 410);
    }
    for example in &examples[1..] {
        caller.put(&address(example), example.resource.node()).await;
    }
    done
}

/// Everything that can be told of these types on one database.
async fn run(app: &TestApp, examples: &BTreeMap<TypeId, Vec<Example>>, step: usize) -> Table {
    let caller = app.persona("system/*.cruds").await;
    let mut table = Table::new();
    let since = crate::world::Stopwatch::start();
    for (kind, examples) in examples.iter().filter(|(kind, _)| usize::from(kind.0) % step == 0) {
        let name = definitions().type_name(*kind);
        let done = interactions(&caller, examples).await;
        table.insert((name.to_owned(), INTERACTIONS.to_owned()), done);
        // AuditEvents are answered by the trail, which grows with every request made here: `audit` tests its searches.
        let params = if name == "AuditEvent" { &[] } else { definitions().params(*kind) };
        for param in params {
            let cells = searches::cells(&caller, *kind, param, examples).await;
            if !cells.is_empty() {
                table.insert((name.to_owned(), param.code.to_owned()), cells);
            }
        }
        println!("{name}: {:.1} s", since.elapsed().as_secs_f64());
    }
    table
}

/// What both tables have.
fn common(mut one: Table, other: &Table) -> Table {
    for (row, cells) in &mut one {
        cells.retain(|cell| other.get(row).is_some_and(|cells| cells.contains(cell)));
    }
    one.retain(|_, cells| !cells.is_empty());
    one
}

fn written(table: &Table) -> String {
    let cells: usize = table.values().map(BTreeSet::len).sum();
    let types: BTreeSet<&str> = table.keys().map(|(kind, _)| kind.as_str()).collect();
    let mut out = format!(
        "# Coverage\n\nMade by `make coverage`: {cells} cells of {} types. Every cell is the outcome of requests that ran, on SQLite \
         and on PostgreSQL alike, over the official examples of R4 (of each type as few as have a value for every parameter): \
         a search finds the example by its value and does not find it by another, `:not` and `:missing` leave out what they \
         should, an interaction answers what the specification says. What no example has a value for is not there.\n\n\
         | type | parameter | shown for |\n|---|---|---|\n",
        types.len()
    );
    for ((kind, row), cells) in table {
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        let _ = writeln!(out, "| {kind} | {row} | {} |", cells.join(", "));
    }
    out
}

fn read(text: &str) -> Table {
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let (kind, row, shown) = (cells.next()?, cells.next()?, cells.next()?);
        definitions().type_id(kind)?;
        Some(((kind.to_owned(), row.to_owned()), shown.split(", ").map(str::to_owned).collect()))
    });
    rows.collect()
}

#[tokio::test]
async fn the_table_claims_no_more_than_runs() {
    let mode = std::env::var("PHIAL_COVERAGE").unwrap_or_default();
    let examples = examples();
    if examples.is_empty() {
        return;
    }
    let step = if mode.is_empty() { QUICK } else { 1 };
    let mut ran = run(&TestApp::new().await, &examples, step).await;
    if !mode.is_empty() {
        let (data, keys) = (crate::store::postgres::database(), crate::store::postgres::database());
        let app = TestApp::with(&[("database_url", &data), ("key_database_url", &keys)]).await;
        ran = common(ran, &run(&app, &examples, step).await);
    }
    if mode == "write" {
        std::fs::write(FILE, written(&ran)).expect("the table is written");
    }
    let mut claimed = read(&std::fs::read_to_string(FILE).expect("the table is there"));
    claimed.retain(|(kind, _), _| {
        definitions().type_id(kind).is_some_and(|kind| examples.contains_key(&kind) && usize::from(kind.0) % step == 0)
    });
    assert!(claimed.values().map(BTreeSet::len).sum::<usize>() > 100, "the table is there");
    let idle = claimed.iter().flat_map(|(row, cells)| cells.iter().map(move |cell| (row, cell)));
    let idle: Vec<_> = idle.filter(|(row, cell)| !ran.get(*row).is_some_and(|cells| cells.contains(*cell))).collect();
    assert!(idle.is_empty(), "claimed, and not so: {idle:?}");
}

#[test]
fn a_table_is_read_as_it_was_written() {
    let cells = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let mut table = Table::new();
    table.insert(("Patient".into(), INTERACTIONS.into()), cells(&["read", "create (PUT)"]));
    table.insert(("Patient".into(), "name".into()), cells(&[":exact", "value"]));
    assert_eq!(read(&written(&table)), table);
}

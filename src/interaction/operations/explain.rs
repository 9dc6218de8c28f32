//! `$explain`: how a search would be performed for this caller. Tells the caller's own query and grants, and kinds of
//! work; no value of a record, and no count that rows outside the caller's own go into.

use serde_json::json;

use super::{Call, options};
use crate::access::{Grant, Grants, Rows, Search, authorize};
use crate::audit::What;
use crate::error::{Error, Result};
use crate::fhir::json::Node;
use crate::fhir::{TypeId, definitions};
use crate::interaction::search::parse;
use crate::interaction::{Answer, Pairs, Scene, form, terminology};
use crate::mapping::Section;
use crate::search::Query;
use crate::search::query::{Criterion, Total};
use crate::store::{Narrows, Plan};

pub(super) async fn explain(scene: Scene<'_>, call: &Call) -> Result<Answer> {
    let kind = call.kind()?;
    let mut pairs: Pairs = call.input.search.clone();
    if let Some(text) = call.input.text("query") {
        if !pairs.is_empty() {
            return Err(Error::invalid("The search stands in query or in the address, not in both.").at("http.query"));
        }
        pairs = form::decode(text.strip_prefix('?').unwrap_or(text)).map_err(|error| error.at("http.query"))?;
    }
    let mut query = parse(scene, kind, &pairs, &options(scene)).await?;
    // Whoever may not search the type learns nothing of what a set of codes holds.
    authorize::<Search>(scene.caller, kind)?;
    terminology::resolve(scene, &mut query).await?;
    let grants = Grants::of(scene.caller, &query)?;
    let plan = scene.app.store.explain(&grants, &query).await?;
    let mut told = vec![json!({"name": "type", "valueCode": definitions().type_name(kind)})];
    told.extend(types(&query).into_iter().map(|kind| granted(kind, grants.get(kind))));
    for (name, value) in &pairs {
        told.push(parameter(scene, &grants, kind, (name, value)).await?);
    }
    told.push(plan_of(&query, &plan));
    scene.app.trail.record(scene.event(What::Operation, Some(kind))).await?;
    Ok(Answer::made(json!({"resourceType": "Parameters", "parameter": told})))
}

/// The types that the search touches, its own first.
fn types(query: &Query) -> Vec<TypeId> {
    let mut all = vec![query.kind];
    for kind in query.kinds().into_iter().chain(query.optional_kinds()) {
        if !all.contains(&kind) {
            all.push(kind);
        }
    }
    all
}

fn part(name: &str, member: &str, value: impl Into<Node>) -> Node {
    let mut part = json!({"name": name});
    part[member] = value.into();
    part
}

/// What the caller's scopes and the policy give on one type.
fn granted(kind: TypeId, grant: Option<&Grant<Search>>) -> Node {
    let mut parts = vec![part("type", "valueCode", definitions().type_name(kind))];
    match grant {
        None => parts.push(part("rows", "valueCode", "none")),
        Some(grant) => {
            match grant.rows() {
                Rows::All => parts.push(part("rows", "valueCode", "all")),
                Rows::AnyOf(rules) => {
                    parts.push(part("rows", "valueCode", if rules.is_empty() { "none" } else { "some" }));
                    parts.push(part("rules", "valueUnsignedInt", rules.len()));
                }
            }
            let closed = Section::ALL.into_iter().filter(|section| !grant.sections().allows(*section));
            let closed: Vec<&str> = closed.map(Section::name).collect();
            if !closed.is_empty() {
                parts.push(part("closedSections", "valueString", closed.join(", ")));
            }
        }
    }
    json!({"name": "grant", "part": parts})
}

/// One parameter of the search: where it is decided.
async fn parameter(scene: Scene<'_>, grants: &Grants, kind: TypeId, (name, value): (&str, &str)) -> Result<Node> {
    let alone = [(name.to_owned(), value.to_owned())];
    let mut query = parse(scene, kind, &alone, &options(scene)).await?;
    terminology::resolve(scene, &mut query).await?;
    let mut parts = vec![part("parameter", "valueString", name)];
    match query.criteria.first() {
        None => parts.push(part("use", "valueCode", "shape")),
        Some(criterion) => {
            parts.push(part("use", "valueCode", "filter"));
            let inner = inner_types(criterion);
            parts.extend(inner.iter().map(|kind| part("innerSearch", "valueCode", definitions().type_name(*kind))));
            let narrows = scene.app.store.narrows(grants, &query, criterion).await?;
            // That an inner search finds nothing is for the search itself to tell.
            let narrows = Narrows { never: narrows.never && inner.is_empty(), ..narrows };
            parts.extend(narrowed(narrows));
            parts.push(part("decidedIn", "valueCode", "capsule"));
        }
    }
    Ok(json!({"name": "criterion", "part": parts}))
}

fn inner_types(criterion: &Criterion) -> Vec<TypeId> {
    match criterion {
        Criterion::Chain { target, inner, .. } => [vec![*target], inner_types(inner)].concat(),
        Criterion::Has { source, inner, .. } => [vec![*source], inner_types(inner)].concat(),
        Criterion::AnyOf(lists) | Criterion::NoneOf(lists) => lists.iter().flatten().flat_map(inner_types).collect(),
        _ => Vec::new(),
    }
}

/// What narrows in the database, one part each.
fn narrowed(narrows: Narrows) -> Vec<Node> {
    let all = [
        (narrows.ids, "id"),
        (narrows.patients, "compartment"),
        (narrows.terms, "terms"),
        (narrows.years, "year"),
        (narrows.never, "nothing-matches"),
    ];
    let by: Vec<Node> =
        all.into_iter().filter(|(is, _)| *is).map(|(_, by)| part("narrowedBy", "valueCode", by)).collect();
    if by.is_empty() { vec![part("narrowedBy", "valueCode", "nothing")] } else { by }
}

fn plan_of(query: &Query, plan: &Plan) -> Node {
    let mut parts = narrowed(plan.narrows);
    // A sort or an exact total looks at every candidate, a page without them stops when it is full.
    let whole = !query.sort.is_empty() || query.total == Total::Accurate || query.count == 0;
    parts.push(part("looksAt", "valueCode", if whole { "all-candidates" } else { "until-page-is-full" }));
    parts.push(part("limit", "valueUnsignedInt", plan.limit));
    match plan.candidates {
        None => {
            let text = "Not told: the grant covers only some rows or sections, and others would be counted.";
            parts.push(part("candidates", "valueString", text));
        }
        Some(candidates) => {
            let shown = candidates.min(i32::MAX as u64);
            parts.push(part("candidates", "valueUnsignedInt", shown));
            let limit = plan.limit as u64;
            let cost = match candidates {
                n if n > limit && whole => "refused",
                n if n > limit => "may-be-refused",
                n if n > limit / 10 => "high",
                n if n > 1_000 => "moderate",
                _ => "low",
            };
            parts.push(part("estimatedCost", "valueCode", cost));
        }
    }
    json!({"name": "plan", "part": parts})
}

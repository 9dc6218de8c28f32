//! Sets of codes of a query (`:in`, `:not-in`, `:above`, `:below`), looked up in the ValueSets and CodeSystems stored here
//! before the search runs: with the caller's own permission to search them, and on record like any other reading.

use std::sync::Arc;

use super::Scene;
use crate::access::Grants;
use crate::audit::{Event, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::fhir::{TypeId, definitions};
use crate::search::capsule::canonical_params;
use crate::search::query::{SortBy, Wanted, WantedCode, WantedSystem, next_concepts, supply_concepts};
use crate::search::terminology::{Library, Need, Step, expand};
use crate::search::text::fold_code;
use crate::search::{Criterion, Query, QueryOptions};
use crate::store::Premise;

/// ValueSets and CodeSystems that one query may need.
const LOOKUPS_MAX: usize = 50;

/// Puts the codes in place of every set that the query names.
///
/// # Errors
/// `Kind::Forbidden` without permission to search ValueSet or CodeSystem where one is needed; the errors of
/// [`expand`]. The search must not run then.
pub(super) async fn resolve(scene: Scene<'_>, query: &mut Query) -> Result<()> {
    resolve_all(scene, std::slice::from_mut(query)).await
}

/// [`resolve`] for the queries of several types that were asked as one: each resource is looked up once.
pub(super) async fn resolve_all(scene: Scene<'_>, queries: &mut [Query]) -> Result<()> {
    looked_up(scene, queries, None).await
}

/// [`resolve`] for the condition of a write, which so rests on the ValueSets and CodeSystems too.
pub(super) async fn resolve_noting(scene: Scene<'_>, query: &mut Query, premises: &mut Vec<Premise>) -> Result<()> {
    looked_up(scene, std::slice::from_mut(query), Some(premises)).await
}

async fn looked_up(scene: Scene<'_>, queries: &mut [Query], mut premises: Option<&mut Vec<Premise>>) -> Result<()> {
    let mut library = Library::default();
    while let Some(concepts) = queries.iter().find_map(|query| next_concepts(&query.criteria)).cloned() {
        let codes = loop {
            match expand(&concepts, &library)? {
                Step::Done(codes) => break Arc::new(codes),
                Step::Needs(need) => look_up(scene, &mut library, need, premises.as_deref_mut()).await?,
            }
        };
        queries.iter_mut().for_each(|query| supply_concepts(&mut query.criteria, &concepts, &codes));
    }
    Ok(())
}

async fn look_up(
    scene: Scene<'_>,
    library: &mut Library,
    need: Need,
    premises: Option<&mut Vec<Premise>>,
) -> Result<()> {
    if library.len() >= LOOKUPS_MAX {
        let text = format!("The value sets of this search need more than {LOOKUPS_MAX} ValueSets and CodeSystems.");
        return Err(Error::new(Kind::TooCostly, text));
    }
    let (name, url) = match &need {
        Need::ValueSet(url) => ("ValueSet", url),
        Need::CodeSystem(url) => ("CodeSystem", url),
    };
    let kind = definitions().type_id(name).ok_or_else(|| Error::internal("no terminology types"))?;
    let found = stored(scene, kind, name, url, premises).await?;
    library.put(need, found);
    Ok(())
}

/// The stored resource of a canonical url (of several versions the one changed last) or of `Type/id`.
async fn stored(
    scene: Scene<'_>,
    kind: TypeId,
    name: &str,
    url: &str,
    premises: Option<&mut Vec<Premise>>,
) -> Result<Option<Node>> {
    let options = QueryOptions {
        lenient: false,
        base: scene.app.config.base_url.clone(),
        count_default: 1,
        count_max: 1,
        now: scene.app.world.now(),
        customs: Default::default(),
    };
    let mut query = Query::parse(kind, &[], &options)?;
    query.criteria = match url.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) {
        Some(id) => vec![Criterion::IdIn([id.to_owned()].into())],
        None => canonical(kind, url)?,
    };
    let updated = definitions().param(kind, "_lastUpdated").map(|param| param.id);
    query.sort = updated.into_iter().map(|param| SortBy { param, descending: true }).collect();
    let grants = Grants::of(scene.caller, &query)?;
    if let Some(premises) = premises {
        premises.push(scene.app.store.premise(kind, &query.criteria).await?);
    }
    let selection = scene.app.store.select(&grants, &query, None).await?;
    if selection.matches.is_empty() {
        return Ok(None);
    }
    let event: Event = scene.event(What::Read, Some(kind));
    let released = scene.app.trail.disclose(event, selection.matches).await?;
    released.first().map(|released| json::parse(released.bytes())).transpose()
}

fn canonical(kind: TypeId, url: &str) -> Result<Vec<Criterion>> {
    let (url, version) = url.split_once('|').map_or((url, None), |(url, version)| (url, Some(version)));
    let (param, of_version) = canonical_params(kind).ok_or_else(|| Error::internal("a type without a url"))?;
    let mut criteria = vec![Criterion::Param { param, modifier: None, any_of: vec![Wanted::Uri(url.to_owned())] }];
    if let (Some(version), Some(param)) = (version, of_version) {
        let code = WantedCode { exact: version.to_owned(), folded: fold_code(version).into_owned() };
        let any_of = vec![Wanted::Token { system: WantedSystem::Any, code: Some(code) }];
        criteria.push(Criterion::Param { param, modifier: None, any_of });
    }
    Ok(criteria)
}

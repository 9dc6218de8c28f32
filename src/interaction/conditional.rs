//! Conditions that are searches: If-None-Exist, conditional update, patch and delete, conditional references. They are
//! answered under the caller's own search grant, so that they tell nothing a search would not.

use std::collections::HashSet;

use super::{Pairs, Scene, VersionOf, form, read, terminology};
use crate::access::Grants;
use crate::audit::{Touched, What};
use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::{ParamId, Resource, TypeId, definitions};
use crate::search::query::{Criterion, Wanted, next_concepts, pending};
use crate::search::{Lookup, Query, QueryOptions};
use crate::store::Premise;

/// A search that says which resource is meant.
pub(super) struct Condition {
    query: Query,
}

/// A resource that was found.
pub(super) struct Match {
    pub version: VersionOf,
    pub touched: Touched,
}

/// What a condition says that must not match more than one.
pub(super) fn several() -> Error {
    let text = "The condition matches more than one resource.";
    Error::with_issues(Kind::Precondition, vec![Issue::error("multiple-matches", text)])
}

impl Condition {
    /// From a query string, with or without the type before it.
    ///
    /// # Errors
    /// Those of a search; `Kind::Invalid` too when it has no criterion at all.
    pub fn parse(scene: Scene<'_>, kind: TypeId, query: &str) -> Result<Condition> {
        // Only what stands before the first parameter can be an address.
        let (address, rest) = match query.split_once('?') {
            Some((address, rest)) if !address.contains('=') => (address, rest),
            _ => ("", query),
        };
        let name = definitions().type_name(kind);
        let relative = address.strip_prefix(&scene.app.config.base_url).unwrap_or(address);
        if !address.is_empty() && relative.trim_start_matches('/') != name {
            return Err(Error::invalid(format!("The condition is for another address; here it is about {name}.")));
        }
        Condition::of(scene, kind, form::decode(rest)?)
    }

    /// From decoded parameters.
    ///
    /// # Errors
    /// As [`Condition::parse`].
    pub fn of(scene: Scene<'_>, kind: TypeId, pairs: Pairs) -> Result<Condition> {
        let controls = ["_count", "_sort", "_total", "_summary", "_elements", "_include", "_revinclude", "_cursor"];
        if let Some((name, _)) =
            pairs.iter().find(|(name, _)| controls.contains(&name.split(':').next().unwrap_or(name)))
        {
            return Err(Error::invalid(format!("{name} says how results are shown; a condition has none to show.")));
        }
        let options = QueryOptions {
            // A parameter that is left out would match what was not meant.
            lenient: false,
            base: scene.app.config.base_url.clone(),
            count_default: 2,
            count_max: scene.app.config.conditional_delete_max.size() + 1,
            now: scene.app.world.now(),
            customs: Lookup::new(scene.app.store.customs()),
        };
        let query = Query::parse(kind, &pairs, &options)?;
        if query.criteria.is_empty() {
            return Err(Error::invalid("The condition names no search parameter."));
        }
        Ok(Condition { query })
    }

    /// Type and parameters in a fixed order: two conditions with the same text are the same.
    pub fn text(&self) -> String {
        let mut applied = self.query.applied.clone();
        applied.sort();
        format!("{}?{}", definitions().type_name(self.query.kind), form::encode(&applied))
    }

    /// The condition ready to be looked at: its sets of codes are in place, and what it rests on is noted before
    /// anything else is looked up.
    ///
    /// # Errors
    /// `Kind::TooCostly` when too many resources could satisfy it; `Kind::Forbidden` without a grant for all it looks at.
    pub async fn settled(&self, scene: Scene<'_>, premises: &mut Vec<Premise>) -> Result<Condition> {
        let mut query = self.query.clone();
        terminology::resolve_noting(scene, &mut query, premises).await?;
        let grants = Grants::of(scene.caller, &query)?;
        premises.extend(scene.app.store.premises(&grants, &query).await?);
        Ok(Condition { query })
    }

    /// The types it looks at beside the values of a resource of its own: by chains, `_has` and sets of codes.
    pub fn looks_at(&self) -> Vec<TypeId> {
        let others = self.query.kinds().into_iter().chain(self.query.optional_kinds());
        let mut kinds: Vec<TypeId> = others.filter(|kind| *kind != self.query.kind).collect();
        if pending(&self.query.criteria).is_some() {
            kinds.push(self.query.kind);
        }
        if next_concepts(&self.query.criteria).is_some() {
            kinds.extend(["ValueSet", "CodeSystem"].into_iter().filter_map(|name| definitions().type_id(name)));
        }
        kinds
    }

    /// Whether a resource that is being written would satisfy it, once settled. Chains and `_has` are about what is stored:
    /// they hold for no such resource.
    ///
    /// # Errors
    /// As [`Condition::one`].
    pub fn holds(&self, scene: Scene<'_>, resource: &Resource) -> Result<bool> {
        let grants = Grants::of(scene.caller, &self.query)?;
        scene.app.store.satisfies(&grants, &self.query, resource)
    }

    /// The one resource it matches for this caller.
    ///
    /// # Errors
    /// `Kind::Precondition` for more than one match; `Kind::Forbidden` without a search grant.
    pub async fn one(&self, scene: Scene<'_>) -> Result<Option<Match>> {
        Ok(self.all(scene, 1).await?.pop())
    }

    /// As [`Condition::one`], for a write that rests on there being none: what that rests on is noted in `premises`. A
    /// condition that is met already, which is what most of many clients with the same one find, is looked at once.
    ///
    /// # Errors
    /// As [`Condition::settled`] and [`Condition::one`].
    pub async fn one_or_none(&self, scene: Scene<'_>, premises: &mut Vec<Premise>) -> Result<Option<Match>> {
        let mut query = self.query.clone();
        terminology::resolve(scene, &mut query).await?;
        if let Some(found) = (Condition { query }).one(scene).await? {
            return Ok(Some(found));
        }
        let settled = self.settled(scene, premises).await?;
        // None now is not none when the premises were noted, unless no row at all could satisfy it then.
        match premises.last().is_some_and(Premise::is_empty) {
            true => Ok(None),
            false => settled.one(scene).await,
        }
    }

    /// As [`Condition::one_or_none`], as if `going` were deleted already.
    ///
    /// # Errors
    /// The same.
    pub async fn one_without(
        &self,
        scene: Scene<'_>,
        premises: &mut Vec<Premise>,
        going: &HashSet<String>,
    ) -> Result<Option<Match>> {
        let settled = self.settled(scene, premises).await?;
        let mut all = settled.all(scene, going.len() + 1).await?;
        all.retain(|found| !going.contains(&found.version.id));
        match all.len() {
            0 | 1 => Ok(all.pop()),
            _ => Err(several()),
        }
    }

    /// The first parameter by which it goes with codes (identifiers too), and these: what satisfies it has one of them.
    pub fn codes(&self) -> Option<(ParamId, Vec<String>)> {
        self.query.criteria.iter().find_map(|criterion| {
            let Criterion::Param { param, modifier: None, any_of } = criterion else { return None };
            let code = |wanted: &Wanted| match wanted {
                Wanted::Token { code: Some(code), .. } => Some(code.folded.clone()),
                _ => None,
            };
            Some((*param, any_of.iter().map(code).collect::<Option<Vec<String>>>()?))
        })
    }

    /// Everything it matches for this caller.
    ///
    /// # Errors
    /// `Kind::Precondition` for more than `most` matches; `Kind::Forbidden` without a search grant.
    pub async fn all(&self, scene: Scene<'_>, most: usize) -> Result<Vec<Match>> {
        let grants = Grants::of(scene.caller, &self.query)?;
        let query = Query { count: most + 1, ..self.query.clone() };
        let selection = scene.app.store.select(&grants, &query, None).await?;
        if selection.matches.len() > most {
            return Err(match most {
                1 => several(),
                most => {
                    let text =
                        format!("The condition matches more than the {most} resources that this server takes at once.");
                    Error::with_issues(Kind::Precondition, vec![Issue::error("multiple-matches", text)])
                }
            });
        }
        let found = selection.matches.iter().map(|sealed| {
            let header = sealed.header();
            let version = VersionOf {
                kind: header.kind,
                id: header.id.clone(),
                version: header.version,
                at: header.last_updated,
                written: true,
            };
            Match { version, touched: read::touched(sealed, What::SearchType) }
        });
        Ok(found.collect())
    }
}

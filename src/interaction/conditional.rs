//! Conditions that are searches: If-None-Exist, conditional update, patch and delete, conditional references. They are
//! answered under the caller's own search grant, so that they tell nothing a search would not.

use super::{Pairs, Scene, VersionOf, form, read};
use crate::access::Grants;
use crate::audit::{Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::{Resource, TypeId, definitions};
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

impl Condition {
    /// From a query string, with or without the type before it.
    ///
    /// # Errors
    /// Those of a search; `Kind::Invalid` too when it has no criterion at all.
    pub fn parse(scene: Scene<'_>, kind: TypeId, query: &str) -> Result<Condition> {
        let query = query.split_once('?').map_or(query, |(_, rest)| rest);
        Condition::of(scene, kind, form::decode(query)?)
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

    /// What a write rests on that is decided by this condition. To be noted before the condition is looked at.
    ///
    /// # Errors
    /// `Kind::TooCostly` when too many resources could satisfy it.
    pub async fn premise(&self, scene: Scene<'_>) -> Result<Premise> {
        Grants::of(scene.caller, &self.query)?;
        scene.app.store.premise(&self.query).await
    }

    /// Whether a resource that is being written would satisfy it. Chains and `_has` are about what is stored: they hold
    /// for no such resource.
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
    /// As [`Condition::premise`] and [`Condition::one`].
    pub async fn one_or_none(&self, scene: Scene<'_>, premises: &mut Vec<Premise>) -> Result<Option<Match>> {
        if let Some(found) = self.one(scene).await? {
            return Ok(Some(found));
        }
        let premise = self.premise(scene).await?;
        // None now is not none when the premise was noted, unless no row at all could satisfy it then.
        let found = if premise.is_empty() { None } else { self.one(scene).await? };
        premises.push(premise);
        Ok(found)
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
            let text = match most {
                1 => "The condition matches more than one resource.".to_owned(),
                most => format!("The condition matches more than the {most} resources that this server takes at once."),
            };
            return Err(Error::new(Kind::Precondition, text));
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

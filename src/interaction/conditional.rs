//! Conditions that are searches: If-None-Exist and conditional references. They are answered under the caller's own
//! search grant, so that they tell nothing a search would not.

use super::write::stage::Claim;
use super::{Scene, VersionOf, form, read};
use crate::access::Grants;
use crate::audit::{Touched, What};
use crate::error::{Error, Kind, Result};
use crate::fhir::{TypeId, definitions};
use crate::search::{Query, QueryOptions};

/// A search that must match one resource or none.
pub(super) struct Condition {
    query: Query,
}

/// The one resource that was found.
pub(super) struct Match {
    pub version: VersionOf,
    pub touched: Touched,
}

impl Condition {
    /// # Errors
    /// Those of a search; `Kind::Invalid` too when it has no criterion at all.
    pub fn parse(scene: Scene<'_>, kind: TypeId, query: &str) -> Result<Condition> {
        let query = query.split_once('?').map_or(query, |(_, rest)| rest);
        let mut pairs = form::decode(query)?;
        pairs.push(("_count".into(), "2".into()));
        let options = QueryOptions {
            // A parameter that is left out would match what was not meant.
            lenient: false,
            base: scene.app.config.base_url.clone(),
            count_default: 2,
            count_max: 2,
            now: scene.app.world.now(),
        };
        let query = Query::parse(kind, &pairs, &options)?;
        if query.criteria.is_empty() {
            return Err(Error::invalid("The condition names no search parameter."));
        }
        Ok(Condition { query })
    }

    /// The claim by which two conditional creates with the same condition shut each other out.
    pub fn claim(&self) -> Claim {
        let mut applied = self.query.applied.clone();
        applied.sort();
        ("if-none-exist", format!("{}?{}", definitions().type_name(self.query.kind), form::encode(&applied)))
    }

    /// What it matches for this caller.
    ///
    /// # Errors
    /// `Kind::Precondition` for more than one match; `Kind::Forbidden` without a search grant.
    pub async fn one(&self, scene: Scene<'_>) -> Result<Option<Match>> {
        let grants = Grants::of(scene.caller, &self.query)?;
        let mut selection = scene.app.store.select(&grants, &self.query, None).await?;
        if selection.matches.len() > 1 || selection.next.is_some() {
            return Err(Error::new(Kind::Precondition, "The condition matches more than one resource."));
        }
        Ok(selection.matches.pop().map(|sealed| {
            let header = sealed.header();
            let version = VersionOf {
                kind: header.kind,
                id: header.id.clone(),
                version: header.version,
                at: header.last_updated,
                written: true,
            };
            Match { version, touched: read::touched(&sealed, What::SearchType) }
        }))
    }
}

//! Looking at every match of a query by its capsule alone, for operations that choose by other rules than a page
//! (the last of each code, the best match), and fetching what was chosen.

use std::sync::Arc;

use super::scan::{Judge, Scan};
use super::{add_rows, missing_grant};
use crate::access::{Grants, Rows};
use crate::error::Result;
use crate::search::{Criterion, Matcher, Query, View, terms};
use crate::store::{Sealed, Store};
use crate::vault::Rid;

/// By what the database narrows candidates: kinds alone, never values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Narrows {
    /// Nothing can match.
    pub never: bool,
    pub ids: bool,
    pub patients: bool,
    pub terms: bool,
    pub years: bool,
}

/// How a search would be performed.
pub struct Plan {
    /// What the criteria of the query narrow together, with the row filter of the grant.
    pub narrows: Narrows,
    /// Rows whose capsules are looked at. None: not told, because rows outside the grant would be among them.
    pub candidates: Option<u64>,
    /// Most that one search looks at.
    pub limit: usize,
}

impl Store {
    /// What one resolved or unresolved criterion narrows under the grants; its inner searches are performed.
    ///
    /// # Errors
    /// As [`Store::select`].
    pub async fn narrows(&self, grants: &Grants, query: &Query, criterion: &Criterion) -> Result<Narrows> {
        let mut criteria = vec![criterion.clone()];
        self.resolve(grants, &mut criteria).await?;
        self.told(query, &criteria)
    }

    /// How the query would be performed under the grants. No capsule is decided and nothing is fetched for the answer.
    ///
    /// # Errors
    /// As [`Store::select`].
    pub async fn explain(&self, grants: &Grants, query: &Query) -> Result<Plan> {
        let grant = grants.get(query.kind).ok_or_else(missing_grant)?;
        let mut criteria = query.criteria.clone();
        add_rows(&mut criteria, grant);
        self.resolve(grants, &mut criteria).await?;
        let narrows = self.told(query, &criteria)?;
        let open = matches!(grant.rows(), Rows::All) && grant.mask().is_none();
        self.in_epoch(query.epoch).await?;
        let candidates = match open {
            true => Some(Scan::open(self, grant, criteria, Rid(0), false).await?.count().await?),
            false => None,
        };
        Ok(Plan { narrows, candidates, limit: self.inner.candidates_max })
    }

    fn told(&self, query: &Query, criteria: &[Criterion]) -> Result<Narrows> {
        let narrow = terms::narrow(query.kind, criteria, &self.inner.vault)?;
        Ok(Narrows {
            never: narrow.never,
            ids: narrow.ids.is_some(),
            patients: narrow.patients.is_some(),
            terms: !narrow.terms.is_empty(),
            years: narrow.years.is_some(),
        })
    }

    /// What `judge` makes of the capsule of every row that the query matches within the grants, in no order that means
    /// anything. No body is fetched; page size, sort and includes of the query are left aside.
    ///
    /// # Errors
    /// As [`Store::select`]; `Kind::TooCostly` also when there are more candidates than may be looked at.
    pub async fn survey<T: Send + 'static>(&self, grants: &Grants, query: &Query, judge: Judge<T>) -> Result<Vec<T>> {
        let grant = grants.get(query.kind).ok_or_else(missing_grant)?;
        let mut criteria = query.criteria.clone();
        add_rows(&mut criteria, grant);
        self.resolve(grants, &mut criteria).await?;
        let judge = match grant.mask() {
            // What lies in sections that the grant does not open is as if it were not there.
            Some(mask) => Arc::new(move |rid, version, view: &View<'_>| judge(rid, version, &view.masked(&mask))),
            None => judge,
        };
        let mut scan = Scan::afresh(self, grant, criteria).await?;
        let mut all = Vec::new();
        while let Some(found) = scan.next(&judge).await? {
            all.extend(found);
        }
        self.in_epoch(query.epoch).await?;
        Ok(all)
    }

    /// The resources of these rows, in their order, with their row ids: those that are still within the grant.
    pub async fn pick(&self, grants: &Grants, query: &Query, rids: &[Rid]) -> Result<Vec<Sealed>> {
        let grant = grants.get(query.kind).ok_or_else(missing_grant)?;
        let mut criteria = query.criteria.clone();
        add_rows(&mut criteria, grant);
        self.resolve(grants, &mut criteria).await?;
        let stored = self.stored_rids(grant.kind(), rids).await?;
        let mut found = self.verified(grant, &Matcher::new(criteria)?, stored).await?;
        Ok(rids.iter().filter_map(|rid| found.remove(rid)).map(|shown| shown.sealed).collect())
    }
}

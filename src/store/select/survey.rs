//! Looking at every match of a query by its capsule alone, for operations that choose by other rules than a page
//! (the last of each code, the best match), and fetching what was chosen.

use std::sync::Arc;

use super::scan::{Judge, Scan};
use super::{add_rows, missing_grant};
use crate::access::Grants;
use crate::error::Result;
use crate::search::{Matcher, Query, View};
use crate::store::{Sealed, Store};
use crate::vault::Rid;

impl Store {
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
        let mut scan = Scan::open(self, query.kind, criteria, Rid(0), true).await?;
        let mut all = Vec::new();
        while let Some(found) = scan.next(&judge).await? {
            all.extend(found);
        }
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

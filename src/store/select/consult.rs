//! What the access decision itself asks of the store before there is a grant to hold: which patients a care relation
//! names. Of what is looked at only the decision's own facts leave this file; nothing of it is let out to anybody.

use std::collections::HashSet;
use std::sync::Arc;

use super::scan::{Judge, Scan};
use super::{Shown, add_rows};
use crate::access::{Grant, Search};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::mapping::sections;
use crate::search::query::{Criterion, pending};
use crate::search::values::Header;
use crate::search::{Matcher, View};
use crate::store::Store;
use crate::store::apply::CONSENT_EPOCH;
use crate::store::db::Param;
use crate::store::sealed::Spot;
use crate::vault::Rid;

/// Patients that one kind of relation may name.
const PATIENTS_MAX: usize = 20_000;
/// Resources of which one lookup may open the content.
const OPENED_MAX: usize = 100_000;
const OPENED_AT_ONCE: usize = 1_000;

impl Store {
    /// The patients (logical ids) of all resources that meet the criteria, from capsules alone.
    ///
    /// # Errors
    /// `Kind::TooCostly` past [`PATIENTS_MAX`] patients or the limit of candidates.
    pub(crate) async fn patients_of(&self, grant: &Grant<Search>, criteria: Vec<Criterion>) -> Result<HashSet<String>> {
        let judge: Judge<Vec<String>> =
            Arc::new(|_, _, view: &View<'_>| Ok(view.patients()?.into_iter().map(str::to_owned).collect()));
        let mut patients = HashSet::new();
        let mut scan = Scan::afresh(self, grant, resolved(grant, criteria)?).await?;
        while let Some(found) = scan.next(&judge).await? {
            patients.extend(found.into_iter().flatten());
            if patients.len() > PATIENTS_MAX {
                let text = format!("More than {PATIENTS_MAX} patients are assigned to this user.");
                return Err(Error::new(Kind::TooCostly, text));
            }
        }
        Ok(patients)
    }

    /// A number that is another one after any change of any Consent, on any server, from the moment of its commit on.
    pub(crate) async fn consent_epoch(&self) -> Result<u64> {
        let sql = "select n from counter where name = $1";
        let rows = self.inner.lookups.rows(sql, vec![Param::Text(CONSENT_EPOCH.to_owned())]).await?;
        let n = rows.first().map(|row| row.int(0)).transpose()?.unwrap_or(0);
        u64::try_from(n).map_err(Error::internal)
    }

    /// What `judge` takes of the current content of all resources that meet the criteria. The content is opened here,
    /// to decide by it, and goes no further.
    ///
    /// # Errors
    /// `Kind::TooCostly` past [`OPENED_MAX`] resources or the limit of candidates.
    pub(crate) async fn consult<T>(
        &self,
        grant: &Grant<Search>,
        criteria: Vec<Criterion>,
        judge: impl Fn(&Header, &Node) -> Option<T>,
    ) -> Result<Vec<T>> {
        let criteria = resolved(grant, criteria)?;
        let matcher = Matcher::new(criteria.clone())?;
        let all: Judge<Rid> = Arc::new(|rid, _, _: &View<'_>| Ok(rid));
        let mut rids = Vec::new();
        let mut scan = Scan::afresh(self, grant, criteria).await?;
        while let Some(found) = scan.next(&all).await? {
            rids.extend(found);
            if rids.len() > OPENED_MAX {
                let text = format!("More than {OPENED_MAX} resources would decide about this access.");
                return Err(Error::new(Kind::TooCostly, text));
            }
        }
        let mut taken = Vec::new();
        for rids in rids.chunks(OPENED_AT_ONCE) {
            let stored = self.stored_rids(grant.kind(), rids).await?;
            for Shown { sealed, .. } in self.verified(grant, &matcher, stored).await?.into_values() {
                let Some(keys) = self.keys(sealed.pk).await? else { continue };
                let spot = Spot { rid: sealed.rid, kind: sealed.header.kind, version: sealed.header.version };
                let opened = spot.open_sections(&keys, &sealed.bytes, |_| true)?;
                let content = sections::join(opened.sections, opened.left_out)?;
                taken.extend(judge(&sealed.header, &json::parse(&content)?));
            }
        }
        Ok(taken)
    }
}

/// The criteria with the grant's rows; the decision asks nothing that would need an inner search.
fn resolved(grant: &Grant<Search>, mut criteria: Vec<Criterion>) -> Result<Vec<Criterion>> {
    add_rows(&mut criteria, grant);
    match pending(&criteria) {
        None => Ok(criteria),
        Some(_) => Err(Error::internal("the access decision asked by a chain")),
    }
}

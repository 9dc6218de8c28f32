//! Search under grants.

use super::{Position, Selection, Store};
use crate::access::Grants;
use crate::error::Result;
use crate::search::Query;

impl Store {
    /// Runs a search under the grants: row filters apply to the main type, chains, `_has`, includes and counts.
    ///
    /// # Errors
    /// `Kind::TooCostly` past `candidates_max`, with advice.
    pub async fn select(&self, _grants: &Grants, _query: &Query, _after: Option<Position>) -> Result<Selection> {
        todo!()
    }
}

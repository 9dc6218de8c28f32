//! The search arguments of a granular scope as criteria that rows must meet.

use crate::error::{Error, Issue, Kind, Result};
use crate::fhir::TypeId;
use crate::search::query::{Criterion, Query, QueryOptions, next_concepts};
use crate::world::Instant;

/// Criteria of a scope's search arguments on one type; `now` is what the prefix `ap` looks from.
///
/// # Errors
/// `Kind::Invalid` when an argument is unknown, cannot be read, or is none that filters rows by their own values
/// (`_sort`, `_include`, chains, `_has`): a filter is never partly applied.
pub fn criteria(kind: TypeId, pairs: &[(String, String)], base: &str, now: Instant) -> Result<Vec<Criterion>> {
    let options = QueryOptions {
        lenient: false,
        base: base.to_owned(),
        count_default: 1,
        count_max: 1,
        now,
        customs: Default::default(),
    };
    let query = Query::parse(kind, pairs, &options).map_err(|error| {
        let issues = error.issues.iter().map(|issue| Issue::error("invalid", issue.diagnostics.clone())).collect();
        Error::with_issues(Kind::Invalid, issues)
    })?;
    let own_values = |criterion: &Criterion| matches!(criterion, Criterion::Param { .. });
    if next_concepts(&query.criteria).is_some() {
        return Err(Error::invalid("A scope may not filter by sets of codes (:in, :not-in, :above, :below)."));
    }
    if query.criteria.len() != pairs.len() || !query.criteria.iter().all(own_values) {
        let text =
            "A scope may filter only by search parameters of its own type, without chains, _has or result parameters.";
        return Err(Error::invalid(text));
    }
    Ok(query.criteria)
}

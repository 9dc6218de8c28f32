//! The in-memory matcher: decides every hit, gives sort keys. Works on an opened capsule or on fresh values alike.

use std::sync::Arc;

use super::capsule::View;
use super::query::{Criterion, SortBy};
use crate::error::Result;

/// Sort key of one hit under a `_sort`: comparable, and small enough for a cursor.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey(pub Vec<u8>);

/// Decides whether a resource satisfies all criteria. Chains and `_has` must have been resolved before.
#[derive(Clone)]
pub struct Matcher {
    _criteria: Arc<Vec<Criterion>>,
}

impl Matcher {
    /// # Errors
    /// `Kind::Internal` when a chain or `_has` is still unresolved.
    pub fn new(_criteria: Vec<Criterion>) -> Result<Matcher> {
        todo!()
    }

    pub fn matches(&self, _view: &View<'_>) -> Result<bool> {
        todo!()
    }
}

/// The key by which a hit sorts (missing values last, ascending or descending alike).
pub fn sort_key(_view: &View<'_>, _sort: &[SortBy]) -> Result<SortKey> {
    todo!()
}

//! Loads Bundles (JSON, XML), NDJSON and folders of them, gzip too.

use std::path::PathBuf;

use crate::app::App;
use crate::error::Result;

/// What came of an import.
#[derive(Default)]
pub struct Summary {
    /// Entries that were refused; each has been reported with its file, line and FHIRPath.
    pub refused: u64,
}

/// Loads the paths in order, with a progress bar on a terminal, and prints a summary.
///
/// # Errors
/// What stops the whole import (a database that is gone); refused entries are counted, not errors.
pub async fn run(_app: &App, _paths: &[PathBuf]) -> Result<Summary> {
    todo!()
}

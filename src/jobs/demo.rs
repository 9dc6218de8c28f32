//! A synthetic population, made by a seeded generator, and credentials for trying the server out.

use std::path::PathBuf;

use crate::app::App;
use crate::error::Result;

/// What `phial demo` was asked for.
pub struct Demo {
    /// Holds the databases, the keyring and `demo.json`.
    pub data: PathBuf,
    pub patients: usize,
    pub seed: u64,
}

/// Makes the population and the credentials unless the data folder has them already, and gives the text to print
/// (addresses, and how to get a token).
///
/// # Errors
/// Whatever stopped the load.
pub async fn prepare(_app: &App, _demo: &Demo) -> Result<String> {
    todo!()
}

/// Whether a database was filled by `phial demo`: `phial serve` refuses to start on its public credentials.
///
/// # Errors
/// When the database does not answer.
pub async fn is_demo(_app: &App) -> Result<bool> {
    todo!()
}

//! Everything built once from the configuration. Knows no FHIR verb and no HTTP.

pub mod build;
pub mod config;
pub mod networks;

pub use build::App;
pub use config::Config;

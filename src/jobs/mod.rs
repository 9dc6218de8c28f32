//! Work the server does under its own name: loading data, demo data.

pub mod demo;
pub mod import;

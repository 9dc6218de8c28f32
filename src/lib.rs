//! Phial: a FHIR R4 server in which a stolen database yields no PHI, no PHI leaves without a durable audit entry,
//! and every path to data goes through one authorization decision. `docs/ARCHITECTURE.md` shows the house.
//!
//! Modules stand in one order, low to high; a module imports only from those above it in this list (`tests/tidy.rs`).

pub mod error;
pub mod world;
pub mod fetch;
pub mod fhir;
pub mod vault;
pub mod mapping;
pub mod search;
pub mod access;
pub mod domain;
pub mod store;
pub mod audit;
pub mod oauth;
pub mod app;
pub mod interaction;
pub mod jobs;
pub mod http;
pub mod selftest;

//! Work of the server itself, as named system callers: demonstration data and import. Must not know axum.

mod cast;
pub mod credentials;
pub mod demo;
pub mod import;
pub mod population;
mod progress;

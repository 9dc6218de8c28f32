//! Work of the server itself, as named system callers: demonstration data, import, search parameters of the site. Must not know axum.

mod cast;
pub mod credentials;
pub mod demo;
pub mod erase;
pub mod import;
pub mod population;
mod progress;
pub mod reindex;

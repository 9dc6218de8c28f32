//! Import and other work that runs as named system callers. Must not know axum.

//! Everything built once from the configuration.

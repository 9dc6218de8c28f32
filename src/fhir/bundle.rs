//! Bundles: entries in, entries out, `urn:uuid` references.

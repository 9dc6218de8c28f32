//! The official suite of FHIRPath for R4.

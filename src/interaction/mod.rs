//! The FHIR verbs, each short enough to read like its paragraph in the specification. Must not know axum.

//! SMART Backend Services: clients, assertions, token endpoint. Must not know FHIR storage.

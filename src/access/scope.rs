//! SMART scopes, v1 (`system/Patient.read`) and v2 (`system/Observation.rs?category=laboratory`).

/// One resource scope. `access::scope` owns grammar and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {}

/// The scopes of a token, in order, as granted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Scopes(pub Vec<Scope>);

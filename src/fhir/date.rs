//! FHIR dates of any precision as ranges of instants.

use crate::error::Result;

/// The instants a date may mean: both ends included, in milliseconds since 1970 UTC. Open ends are i64::MIN and MAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub lo: i64,
    pub hi: i64,
}

/// `2026`, `2026-01`, `2026-01-31`, `2026-01-31T08:15`, with seconds, fractions and offset. A value without an offset
/// is read in the zone of the server (`set_zone`).
///
/// # Errors
/// `Kind::Invalid` for anything else, the 30th of February included.
pub fn parse(_text: &str) -> Result<Range> {
    todo!()
}

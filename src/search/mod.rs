//! Search: query text to a checked [`Query`], resource to [`Values`], values to a sealed capsule's bytes and to blind
//! terms, and the one in-memory matcher that decides every hit (also the oracle of the tests). Must not know SQL.
//!
//! Every search value of a resource is in its capsule, so a search is decided without opening a body.

pub mod borrowed;
pub mod capsule;
pub mod custom;
pub mod mask;
pub mod matcher;
pub mod narrow;
pub mod query;
pub mod sound;
pub mod terminology;
pub mod terms;
#[cfg(test)]
pub mod testing;
pub mod text;
pub mod ucum;
pub mod values;
pub mod words;
mod wire;

pub use capsule::View;
pub use custom::{Customs, Lookup};
pub use matcher::{Matcher, SortKey};
pub use narrow::{Narrow, Patients};
pub use query::{Criterion, Query, QueryOptions};
pub use values::{Header, Value, Values};

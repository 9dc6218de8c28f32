//! The record of every access, and the only place where content is let out: record first, disclose second.
//! Must not know HTTP.

pub mod balp;
pub mod entry;
mod kept;
mod narrow;
mod prefilter;
pub mod reading;
pub mod release;
pub mod stored;
pub mod terms;
pub mod trail;
pub mod verify;

pub use entry::{Event, Outcome, Request, Touched, What};
pub use reading::AuditPage;
pub use release::Released;
pub use trail::Trail;
pub use verify::{Flaw, Report, verify};

#[cfg(test)]
mod tests;

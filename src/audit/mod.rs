//! The record of every access, and the only place where content is let out: record first, disclose second.
//! Must not know HTTP.

pub mod balp;
pub mod entry;
pub mod release;
pub mod stored;
pub mod terms;
pub mod trail;

pub use entry::{Event, Outcome, Request, Touched, What};
pub use release::Released;
pub use trail::Trail;

//! The one authorization decision: a genuine token gives a [`Caller`], a caller asking for an operation on a type
//! gets a [`Grant`] or an error. No IO here.

pub mod caller;
pub mod consent;
pub mod filter;
pub mod grant;
pub mod person;
pub mod policy;
pub mod reach;
pub mod scope;
pub mod token;

pub use caller::{Caller, Who};
pub use grant::{Create, Delete, Grant, Grants, Op, Read, Rows, Search, Sections, Update, authorize, referable};
pub use person::{Person, Role};
pub use policy::offered;
pub use scope::{Scope, Scopes};
pub use token::{Claims, TokenKeys, VerifyingKey, verify};

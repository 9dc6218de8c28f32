//! Who is calling: made only by `verify` (or named system tasks).

use super::scope::Scopes;
use crate::world::Instant;

/// A caller whose token is genuine and live, or a named system task.
#[derive(Clone)]
pub struct Caller {
    pub(super) who: Who,
    pub(super) scopes: Scopes,
}

/// Facts about the caller for the audit.
#[derive(Clone)]
pub struct Who {
    pub client_id: String,
    /// Token id (`jti`).
    pub token_id: Option<String>,
    pub issuer: Option<String>,
    /// Subject of a user token; None for backend services.
    pub user: Option<String>,
    pub expires: Option<Instant>,
    /// A task of the server itself (import, demo data): its name.
    pub task: Option<&'static str>,
}

impl Caller {
    pub fn who(&self) -> &Who {
        &self.who
    }

    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// A named task of the server itself, allowed everything, recorded under its name.
    pub fn task(_name: &'static str) -> Caller {
        todo!()
    }
}

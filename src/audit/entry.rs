//! One audit entry: what happened, who did it, what was touched. One entry may hold many patients; over FHIR it reads
//! as one BALP AuditEvent per patient.

use crate::access::Who;
use crate::fhir::TypeId;
use crate::world::Instant;

/// The interaction, as `http://hl7.org/fhir/restful-interaction` names it, and others for OAuth and server events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    Vread,
    HistoryInstance,
    SearchType,
    SearchSystem,
    Create,
    Update,
    Delete,
    Batch,
    Transaction,
    Capabilities,
    Operation,
    TokenIssued,
    ServerStart,
    ServerStop,
    Import,
}

/// `audit-event-outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// 4: refused or the client's fault.
    Minor,
    /// 8: the server's fault.
    Serious,
}

/// The request as it came in. The raw query is PHI: it is kept sealed only.
#[derive(Clone, Default)]
pub struct Request {
    /// `X-Request-Id`, given or made.
    pub id: String,
    /// Client network address.
    pub address: String,
    /// Path and query as sent, for POST searches with the form appended.
    pub raw: String,
    /// Server's own host as addressed.
    pub host: String,
}

/// One resource version touched.
#[derive(Clone)]
pub struct Touched {
    pub kind: TypeId,
    pub id: String,
    pub version: Option<u32>,
    /// Its patients' logical ids.
    pub patients: Vec<String>,
    pub what: What,
}

/// One entry.
#[derive(Clone)]
pub struct Event {
    pub at: Instant,
    pub what: What,
    pub outcome: Outcome,
    /// Why it was refused (fixed text, no PHI).
    pub reason: Option<String>,
    /// None: no genuine token.
    pub who: Option<Who>,
    pub request: Request,
    /// Type asked for, if any.
    pub kind: Option<TypeId>,
    pub touched: Vec<Touched>,
}

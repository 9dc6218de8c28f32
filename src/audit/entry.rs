//! One audit event as the rest of the server states it: what happened, who did it, what was touched. One entry may
//! hold many patients; over FHIR it reads as one BALP AuditEvent per patient (`balp`).

use std::sync::Arc;

use crate::access::Who;
use crate::fhir::TypeId;
use crate::world::Instant;

/// The interaction, as `http://hl7.org/fhir/restful-interaction` names it, and others for OAuth and server events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Read,
    Vread,
    HistoryInstance,
    HistoryType,
    HistorySystem,
    SearchType,
    SearchSystem,
    Create,
    Update,
    Patch,
    Delete,
    Batch,
    Transaction,
    Capabilities,
    Operation,
    TokenIssued,
    TokenRefused,
    ServerStart,
    ServerStop,
    Import,
    ClientRegistered,
    ClientDisabled,
    LoginSuccess,
    LoginFailed,
    Logout,
    FactorEnrolled,
    PasswordChanged,
    PasswordReset,
    UserAdded,
    UserDisabled,
    InvitationMade,
    InvitationRevoked,
    UserEnabled,
    UserChanged,
    UserUnlocked,
    FactorRemoved,
    SessionEnded,
    ClientEnabled,
    ClientChanged,
    AuthorizationGranted,
    AuthorizationRefused,
    AuthorizationEnded,
    LaunchMade,
    TokenIntrospected,
    TokenRevoked,
    KeysRotated,
    /// The first of the requests that were refused by rate.
    RateLimited,
    ClientApproved,
    ClientRejected,
    ClientDeleted,
    RegistrationAsked,
    RegistrationRead,
    RegistrationTokenMade,
    PatientErased,
    ProviderDisabled,
    ProviderEnabled,
    RecoveryCodesMade,
    ReviewsListed,
    ReviewOpened,
    ReviewClosed,
}

/// `audit-event-outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0.
    Success,
    /// 4: refused or the client's fault.
    Minor,
    /// 8: the server's fault.
    Serious,
    /// 12: the server cannot go on.
    Major,
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
#[derive(Clone, PartialEq, Eq)]
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
    pub who: Option<Arc<Who>>,
    pub request: Arc<Request>,
    /// Type asked for, if any.
    pub kind: Option<TypeId>,
    pub touched: Vec<Touched>,
    /// Logical ids of patients that the request itself names: they are on record even when nothing was found.
    pub patients: Vec<String>,
    /// Named facts of server and OAuth events (never a secret): `scope`, `grant_type`, `error`.
    pub detail: Vec<(String, String)>,
}

impl What {
    /// The word it is stored as. Never change one that has been stored.
    pub fn code(self) -> &'static str {
        match self {
            What::Read => "read",
            What::Vread => "vread",
            What::HistoryInstance => "history-instance",
            What::HistoryType => "history-type",
            What::HistorySystem => "history-system",
            What::SearchType => "search-type",
            What::SearchSystem => "search-system",
            What::Create => "create",
            What::Update => "update",
            What::Patch => "patch",
            What::Delete => "delete",
            What::Batch => "batch",
            What::Transaction => "transaction",
            What::Capabilities => "capabilities",
            What::Operation => "operation",
            What::TokenIssued => "token-issued",
            What::TokenRefused => "token-refused",
            What::ServerStart => "server-start",
            What::ServerStop => "server-stop",
            What::Import => "import",
            What::ClientRegistered => "client-registered",
            What::ClientDisabled => "client-disabled",
            What::LoginSuccess => "login-success",
            What::LoginFailed => "login-failed",
            What::Logout => "logout",
            What::FactorEnrolled => "factor-enrolled",
            What::PasswordChanged => "password-changed",
            What::PasswordReset => "password-reset",
            What::UserAdded => "user-added",
            What::UserDisabled => "user-disabled",
            What::InvitationMade => "invitation-made",
            What::InvitationRevoked => "invitation-revoked",
            What::UserEnabled => "user-enabled",
            What::UserChanged => "user-changed",
            What::UserUnlocked => "user-unlocked",
            What::FactorRemoved => "factor-removed",
            What::SessionEnded => "session-ended",
            What::ClientEnabled => "client-enabled",
            What::ClientChanged => "client-changed",
            What::AuthorizationGranted => "authorization-granted",
            What::AuthorizationRefused => "authorization-refused",
            What::AuthorizationEnded => "authorization-ended",
            What::LaunchMade => "launch-made",
            What::TokenIntrospected => "token-introspected",
            What::TokenRevoked => "token-revoked",
            What::KeysRotated => "keys-rotated",
            What::RateLimited => "rate-limited",
            What::ClientApproved => "client-approved",
            What::ClientRejected => "client-rejected",
            What::ClientDeleted => "client-deleted",
            What::RegistrationAsked => "registration-asked",
            What::RegistrationRead => "registration-read",
            What::RegistrationTokenMade => "registration-token-made",
            What::PatientErased => "patient-erased",
            What::ProviderDisabled => "provider-disabled",
            What::ProviderEnabled => "provider-enabled",
            What::RecoveryCodesMade => "recovery-codes-made",
            What::ReviewsListed => "emergency-reviews-listed",
            What::ReviewOpened => "emergency-review-opened",
            What::ReviewClosed => "emergency-review-closed",
        }
    }

    pub(super) const ALL: &[What] = &[
        What::Read,
        What::Vread,
        What::HistoryInstance,
        What::HistoryType,
        What::HistorySystem,
        What::SearchType,
        What::SearchSystem,
        What::Create,
        What::Update,
        What::Patch,
        What::Delete,
        What::Batch,
        What::Transaction,
        What::Capabilities,
        What::Operation,
        What::TokenIssued,
        What::TokenRefused,
        What::ServerStart,
        What::ServerStop,
        What::Import,
        What::ClientRegistered,
        What::ClientDisabled,
        What::LoginSuccess,
        What::LoginFailed,
        What::Logout,
        What::FactorEnrolled,
        What::PasswordChanged,
        What::PasswordReset,
        What::UserAdded,
        What::UserDisabled,
        What::InvitationMade,
        What::InvitationRevoked,
        What::UserEnabled,
        What::UserChanged,
        What::UserUnlocked,
        What::FactorRemoved,
        What::SessionEnded,
        What::ClientEnabled,
        What::ClientChanged,
        What::AuthorizationGranted,
        What::AuthorizationRefused,
        What::AuthorizationEnded,
        What::LaunchMade,
        What::TokenIntrospected,
        What::TokenRevoked,
        What::KeysRotated,
        What::RateLimited,
        What::ClientApproved,
        What::ClientRejected,
        What::ClientDeleted,
        What::RegistrationAsked,
        What::RegistrationRead,
        What::RegistrationTokenMade,
        What::PatientErased,
        What::ProviderDisabled,
        What::ProviderEnabled,
        What::RecoveryCodesMade,
        What::ReviewsListed,
        What::ReviewOpened,
        What::ReviewClosed,
    ];

    pub(super) fn from_code(code: &str) -> Option<What> {
        What::ALL.iter().copied().find(|what| what.code() == code)
    }

    /// `AuditEvent.action`: C, R, U, D or E.
    pub fn action(self) -> &'static str {
        match self {
            What::Create
            | What::Import
            | What::ClientRegistered
            | What::UserAdded
            | What::InvitationMade
            | What::AuthorizationGranted
            | What::LaunchMade
            | What::RegistrationAsked
            | What::RegistrationTokenMade => "C",
            What::Update
            | What::Patch
            | What::ClientDisabled
            | What::ClientApproved
            | What::FactorEnrolled
            | What::PasswordChanged
            | What::PasswordReset
            | What::UserDisabled
            | What::UserEnabled
            | What::UserChanged
            | What::UserUnlocked
            | What::ClientEnabled
            | What::ClientChanged
            | What::KeysRotated
            | What::ProviderDisabled
            | What::ProviderEnabled
            | What::RecoveryCodesMade
            | What::ReviewClosed => "U",
            What::Delete
            | What::AuthorizationEnded
            | What::TokenRevoked
            | What::ClientRejected
            | What::ClientDeleted
            | What::PatientErased
            | What::InvitationRevoked
            | What::FactorRemoved
            | What::SessionEnded => "D",
            What::Read
            | What::Vread
            | What::HistoryInstance
            | What::Capabilities
            | What::TokenIntrospected
            | What::RegistrationRead
            | What::ReviewsListed
            | What::ReviewOpened => "R",
            _ => "E",
        }
    }
}

impl Outcome {
    /// Code of `http://terminology.hl7.org/CodeSystem/audit-event-outcome`.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Success => "0",
            Outcome::Minor => "4",
            Outcome::Serious => "8",
            Outcome::Major => "12",
        }
    }
}

impl Event {
    /// A successful event without caller or content; the rest is set field by field.
    pub fn new(at: Instant, what: What, request: impl Into<Arc<Request>>) -> Event {
        Event {
            at,
            what,
            outcome: Outcome::Success,
            reason: None,
            who: None,
            request: request.into(),
            kind: None,
            touched: Vec::new(),
            patients: Vec::new(),
            detail: Vec::new(),
        }
    }
}

//! The one error type of the server. Knows nothing of HTTP or SQL: `http::outcome` maps [`Kind`] to a status.
//!
//! The text of an issue is fixed wording plus what the client itself sent; the cause goes to the log only. Neither
//! may carry PHI of somebody else's record.

use std::borrow::Cow;
use std::fmt;

/// What went wrong, as a closed list. `http::outcome` holds the one exhaustive table to status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The input is not valid FHIR or not a valid request.
    Invalid,
    /// Valid, but not supported here.
    Unsupported,
    /// A rule of the domain forbids it.
    BusinessRule,
    /// No token, or none that is genuine and live.
    Unauthenticated,
    /// The caller's scopes do not cover the type or interaction.
    Forbidden,
    /// Unknown, or outside the caller's rows: the two are never told apart.
    NotFound,
    /// Deleted.
    Gone,
    /// A concurrent change or a uniqueness rule stands against it.
    Conflict,
    /// If-Match or a condition of the request does not hold.
    Precondition,
    /// More than the stated limits allow.
    TooCostly,
    /// The body is larger than the stated limit.
    TooLarge,
    /// The address is longer than the stated limit.
    UriTooLong,
    /// The method is not defined for this address.
    Method,
    /// The media type of the request is not supported.
    MediaType,
    /// No media type that the caller accepts can be made.
    NotAcceptable,
    /// Rate limit.
    Throttled,
    /// A part the server needs is not there.
    Unavailable,
    /// A fault of the server.
    Internal,
    /// The audit entry could not be made durable: nothing is released.
    Audit,
    /// Stored data does not verify: altered, moved, truncated or rolled back.
    Tampered,
}

/// `issue-severity` of R4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Fatal,
    Error,
    Warning,
    Information,
}

/// One line of an OperationOutcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub severity: Severity,
    /// A code of `http://hl7.org/fhir/issue-type`.
    pub code: &'static str,
    pub diagnostics: Cow<'static, str>,
    /// FHIRPath of the place, such as `Patient.name[0].given[1]`.
    pub expression: Option<String>,
}

/// An error on its way to the caller (`issues`) and to the log (`source`).
pub struct Error {
    pub kind: Kind,
    pub issues: Vec<Issue>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// None: what was read is not what was stored. For those who go through everything and name all such places.
pub fn unless_tampered<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind == Kind::Tampered => Ok(None),
        other => other.map(Some),
    }
}

impl Kind {
    /// The `issue-type` code that goes with this kind unless a better one is known.
    pub fn issue_code(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::Unsupported | Kind::Method | Kind::MediaType | Kind::NotAcceptable => "not-supported",
            Kind::BusinessRule => "business-rule",
            Kind::Unauthenticated => "login",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not-found",
            Kind::Gone => "deleted",
            Kind::Conflict | Kind::Precondition => "conflict",
            Kind::TooCostly => "too-costly",
            Kind::TooLarge | Kind::UriTooLong => "too-long",
            Kind::Throttled => "throttled",
            Kind::Unavailable => "transient",
            Kind::Internal | Kind::Audit | Kind::Tampered => "exception",
        }
    }
}

impl Kind {
    /// Whether it is no fault of the request: another answer may come later, or nowhere.
    pub fn is_ours(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Internal | Kind::Audit | Kind::Tampered)
    }
}

impl Issue {
    pub fn error(code: &'static str, diagnostics: impl Into<Cow<'static, str>>) -> Self {
        Issue { severity: Severity::Error, code, diagnostics: diagnostics.into(), expression: None }
    }

    /// The same issue, with the FHIRPath of its place.
    pub fn at(mut self, expression: impl Into<String>) -> Self {
        self.expression = Some(expression.into());
        self
    }
}

impl Error {
    /// One issue with the kind's usual code.
    pub fn new(kind: Kind, diagnostics: impl Into<Cow<'static, str>>) -> Self {
        Error { kind, issues: vec![Issue::error(kind.issue_code(), diagnostics)], source: None }
    }

    pub fn with_issues(kind: Kind, issues: Vec<Issue>) -> Self {
        Error { kind, issues, source: None }
    }

    /// Adds the FHIRPath of the fault to the first issue.
    pub fn at(mut self, expression: impl Into<String>) -> Self {
        if let Some(first) = self.issues.first_mut() {
            first.expression = Some(expression.into());
        }
        self
    }

    /// Keeps the cause for the log; it is never shown to the caller.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says of what did not open as it was stored what it is; another error stays as it is.
    pub fn of_tampered(self, what: &'static str) -> Self {
        if self.kind == Kind::Tampered { Error::tampered(what) } else { self }
    }

    /// Of something that a start needs: names the setting that says where it is.
    pub fn of_setting(mut self, setting: &str) -> Self {
        if self.kind == Kind::Internal {
            let text = format!("setting {setting}: it cannot be used");
            return Error { kind: Kind::Unavailable, issues: vec![Issue::error("exception", text)], ..self };
        }
        for issue in &mut self.issues {
            issue.diagnostics = format!("setting {setting}: {}", issue.diagnostics).into();
        }
        self
    }

    pub fn invalid(diagnostics: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Kind::Invalid, diagnostics)
    }

    pub fn unsupported(diagnostics: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Kind::Unsupported, diagnostics)
    }

    pub fn not_found() -> Self {
        Error::new(Kind::NotFound, "No such resource, or not one you may see.")
    }

    /// A fault of the server: fixed text for the caller, the cause for the log.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::new(Kind::Internal, "The server could not complete the request.").caused_by(source)
    }

    /// Stored data failed verification. `what` names the kind of row, never its content.
    pub fn tampered(what: &'static str) -> Self {
        Error::new(
            Kind::Tampered,
            format!(
                "Stored data failed its integrity check ({what}): it was altered, moved, truncated or rolled back."
            ),
        )
    }

    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync)> {
        self.source.as_deref()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.kind, self.issues)?;
        match &self.source {
            Some(source) => write!(f, " (caused by {source})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, issue) in self.issues.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            f.write_str(&issue.diagnostics)?;
            if let Some(place) = &issue.expression {
                write!(f, " ({place})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

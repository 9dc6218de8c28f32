//! The one table from [`Kind`] to status, for single replies and bundle entries alike, and the OperationOutcome.
//!
//! What cannot be parsed or is not valid by the structure of FHIR is 400; what breaks a rule of the domain or a stated limit of work is 422.

use axum::http::StatusCode;
use serde_json::json;

use crate::error::{Error, Issue, Kind, Severity};
use crate::fhir::json::Node;

pub(super) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid | Kind::Unsupported => StatusCode::BAD_REQUEST,
        Kind::BusinessRule | Kind::TooCostly => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Gone => StatusCode::GONE,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Precondition => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::UriTooLong => StatusCode::URI_TOO_LONG,
        Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
        Kind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable | Kind::Audit => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal | Kind::Tampered => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Fatal => "fatal",
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Information => "information",
    }
}

/// An OperationOutcome with these issues; one that says so where there is none (R4 wants at least one).
pub(super) fn outcome(issues: &[Issue]) -> Node {
    let lines: Vec<Node> = issues
        .iter()
        .map(|issue| {
            let mut line = json!({
                "severity": severity(issue.severity),
                "code": issue.code,
                "diagnostics": issue.diagnostics,
            });
            if let Some(place) = &issue.expression {
                line["expression"] = json!([place]);
            }
            line
        })
        .collect();
    let lines = match lines.is_empty() {
        true => vec![json!({"severity": "information", "code": "informational", "diagnostics": "No issues."})],
        false => lines,
    };
    json!({"resourceType": "OperationOutcome", "issue": lines})
}

/// Writes the cause of a server's own fault to the log, under the request id. The client's faults are not logged: they
/// are on record.
pub(super) fn log(error: &Error, request_id: &str) {
    if status(error.kind).is_server_error() {
        let cause = error.cause().map(ToString::to_string).unwrap_or_default();
        tracing::error!(request_id, kind = ?error.kind, cause, "request failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_issue_is_a_line_with_its_place() {
        let issues = [
            Issue::error("required", "birthDate is absent").at("Patient.birthDate"),
            Issue { severity: Severity::Warning, ..Issue::error("invalid", "odd") },
        ];
        assert_eq!(
            outcome(&issues),
            json!({"resourceType": "OperationOutcome", "issue": [
                {"severity": "error", "code": "required", "diagnostics": "birthDate is absent", "expression": ["Patient.birthDate"]},
                {"severity": "warning", "code": "invalid", "diagnostics": "odd"}
            ]})
        );
    }

    #[test]
    fn an_outcome_is_never_without_an_issue() {
        assert_eq!(outcome(&[])["issue"].as_array().map(Vec::len), Some(1));
    }
}

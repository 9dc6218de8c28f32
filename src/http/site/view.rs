//! Templates and the headers of pages.

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use minijinja::{Environment, UndefinedBehavior, Value, context};

use crate::error::Error;
use crate::http::dispatch::Server;
use crate::http::outcome;

pub(super) const STYLE: &str = include_str!("../../../templates/style.css");
pub(super) const SCRIPT: &str = include_str!("../../../templates/passkey.js");
pub(super) const ICON: &str = include_str!("../../../templates/icon.svg");

const TEMPLATES: &[(&str, &str)] = &[
    ("base.html", include_str!("../../../templates/base.html")),
    ("account.html", include_str!("../../../templates/account.html")),
    ("admin.html", include_str!("../../../templates/admin.html")),
    ("admin-again.html", include_str!("../../../templates/admin-again.html")),
    ("admin-client.html", include_str!("../../../templates/admin-client.html")),
    ("admin-clients.html", include_str!("../../../templates/admin-clients.html")),
    ("admin-consents.html", include_str!("../../../templates/admin-consents.html")),
    ("admin-invitations.html", include_str!("../../../templates/admin-invitations.html")),
    ("admin-keys.html", include_str!("../../../templates/admin-keys.html")),
    ("admin-parts.html", include_str!("../../../templates/admin-parts.html")),
    ("admin-providers.html", include_str!("../../../templates/admin-providers.html")),
    ("admin-review.html", include_str!("../../../templates/admin-review.html")),
    ("admin-reviews.html", include_str!("../../../templates/admin-reviews.html")),
    ("admin-sessions.html", include_str!("../../../templates/admin-sessions.html")),
    ("admin-user.html", include_str!("../../../templates/admin-user.html")),
    ("admin-users.html", include_str!("../../../templates/admin-users.html")),
    ("change.html", include_str!("../../../templates/change.html")),
    ("codes.html", include_str!("../../../templates/codes.html")),
    ("consent.html", include_str!("../../../templates/consent.html")),
    ("device.html", include_str!("../../../templates/device.html")),
    ("device-parts.html", include_str!("../../../templates/device-parts.html")),
    ("encounter.html", include_str!("../../../templates/encounter.html")),
    ("enrol.html", include_str!("../../../templates/enrol.html")),
    ("error.html", include_str!("../../../templates/error.html")),
    ("factor.html", include_str!("../../../templates/factor.html")),
    ("invitation.html", include_str!("../../../templates/invitation.html")),
    ("launch.html", include_str!("../../../templates/launch.html")),
    ("left.html", include_str!("../../../templates/left.html")),
    ("login.html", include_str!("../../../templates/login.html")),
    ("passkey.html", include_str!("../../../templates/passkey.html")),
    ("patient.html", include_str!("../../../templates/patient.html")),
    ("second.html", include_str!("../../../templates/second.html")),
];

/// A page to be shown.
pub(super) struct Page {
    template: &'static str,
    values: Value,
    status: StatusCode,
    /// Where its forms may lead besides here: origins of apps.
    leads_to: Vec<String>,
    /// It asks the browser for a passkey.
    script: bool,
}

impl Page {
    pub fn new(template: &'static str, values: Value) -> Page {
        Page { template, values, status: StatusCode::OK, leads_to: Vec::new(), script: false }
    }

    /// Lets the page run the server's one script.
    pub fn with_script(self) -> Page {
        Page { script: true, ..self }
    }

    pub fn status(self, status: StatusCode) -> Page {
        Page { status, ..self }
    }

    /// Browsers hold the redirect after a form to the page's policy: it must name the origins of the apps.
    pub fn leads_to(self, origins: Vec<String>) -> Page {
        Page { leads_to: origins, ..self }
    }

    pub(super) fn render(self, token: &str, root: &str) -> Response<Body> {
        let values = context! { token, root, ..self.values };
        let text = environment().get_template(self.template).and_then(|template| template.render(values));
        let (status, text) = match text {
            Ok(text) => (self.status, text),
            Err(error) => {
                tracing::error!(%error, template = self.template, "a page could not be made");
                (StatusCode::INTERNAL_SERVER_ERROR, "The server could not make this page.".to_owned())
            }
        };
        let mut reply = Response::new(Body::from(text));
        *reply.status_mut() = status;
        let extra: Vec<String> =
            self.leads_to.into_iter().filter(|origin| !origin.contains([' ', ';', ',', '\''])).collect();
        let extra = extra.join(" ");
        let script = if self.script { "script-src 'self'; " } else { "" };
        let policy = format!(
            "default-src 'none'; {script}style-src 'self'; img-src 'self'; form-action 'self' {extra}; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        let strict = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_str(&policy).unwrap_or(strict));
        let alone = HeaderValue::from_static("same-origin");
        headers.insert(HeaderName::from_static("cross-origin-opener-policy"), alone);
        reply
    }
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        // A name that a template has and its page does not give is a fault, not an empty place.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, text) in TEMPLATES {
            environment.add_template(name, text).expect("templates are checked by a test");
        }
        environment
    })
}

/// What happened, and what to do about it, by status.
fn words(status: StatusCode) -> (&'static str, &'static str) {
    const AGAIN: &str = "Go back, look at what you entered, and try once more.";
    match status.as_u16() {
        401 => ("Please log in", "This is for people who are logged in. Log in, then try once more."),
        403 => ("This is not open to you", "If you think that it should be, ask your administration."),
        404 => ("There is nothing here", "Check the address, or begin at your account."),
        405 => ("That does not work at this address", "Go back and use the links and buttons of the page."),
        409 => ("Somebody was faster", "Go back, load the page again, and look at how it is now."),
        410 => ("This is over", "Begin again where you came from."),
        413 | 414 => ("That was too much", "Send less: shorten what you entered, or leave parts of it out."),
        415 => ("That cannot be read", "Go back and use the form of the page."),
        429 => ("Too many attempts", "Wait a moment, then try once more. Trying sooner makes the wait longer."),
        503 => ("The server cannot do this now", "Nothing is lost. Try again in a moment."),
        status if status >= 500 => (
            "Something went wrong on our side",
            "It is not your doing. Try again in a moment; if it happens once more, tell your administration.",
        ),
        _ => ("This did not work", AGAIN),
    }
}

/// What the page may say of an error: of the server's own, nothing.
pub(super) fn text_of(error: &Error) -> String {
    if outcome::status(error.kind).is_server_error() {
        return String::new();
    }
    error.issues.first().map(|issue| issue.diagnostics.to_string()).unwrap_or_default()
}

/// The page of an error.
pub(super) fn error(status: StatusCode, text: &str, request_id: &str) -> Page {
    let (title, advice) = words(status);
    let login = status == StatusCode::UNAUTHORIZED;
    let number = status.as_u16();
    Page::new("error.html", context! { title, advice, text, login, number, request_id }).status(status)
}

/// An error before there is a browser to speak of.
pub(super) fn plain(server: &Server, error: &Error, request_id: &str) -> Response<Body> {
    outcome::log(error, request_id);
    let page = self::error(outcome::status(error.kind), &text_of(error), request_id);
    page.render("", server.app.config.issuer_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_can_be_read_and_escapes() {
        for (name, _) in TEMPLATES {
            environment().get_template(name).unwrap();
        }
        let error = environment().get_template("error.html").unwrap();
        let said = context! { title => "t", advice => "a", login => false, number => 400, request_id => "r" };
        let text = error.render(context! { token => "", root => "", text => "<script>", ..said }).unwrap();
        assert!(text.contains("&lt;script&gt;") && !text.contains("<script>"), "{text}");
    }
}

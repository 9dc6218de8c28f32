//! Addresses of the server itself: health, readiness, figures, and the OAuth endpoints.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::response::Response;

use super::dispatch::{Served, Server, below, facts_of, refused};
use super::negotiate::{self, Sent, Wanted};
use super::{body, meter, reply};
use crate::error::{Error, Kind, Result};
use crate::interaction::form;
use crate::oauth;

/// Token requests are small.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// Pages that must answer even when the server is busy; None for any other address.
pub(super) async fn server_page(server: &Server, parts: &Parts) -> Option<Served> {
    let route = match parts.uri.path() {
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        _ => return None,
    };
    if parts.method != "GET" && parts.method != "HEAD" {
        let error = Error::new(Kind::Method, "This method is not defined for this address.");
        let allowed = [crate::interaction::route::Method::Get];
        return Some(Served { reply: reply::refusal(&error, Wanted::default(), &allowed), route });
    }
    let reply = match route {
        "/readyz" => match ready(server).await {
            Ok(()) => reply::document(StatusCode::OK, "text/plain; charset=utf-8", "ready\n"),
            Err(error) => {
                tracing::warn!(kind = ?error.kind, cause = error.cause().map(ToString::to_string), "not ready");
                reply::document(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", "not ready\n")
            }
        },
        "/metrics" => {
            reply::document(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", meter::handle().render())
        }
        _ => reply::document(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
    };
    Some(Served { reply, route })
}

/// Database and key database answer.
async fn ready(server: &Server) -> Result<()> {
    server.app.store.ping().await?;
    server.app.vault.ping().await
}

/// The OAuth endpoints; None for any other address.
pub(super) async fn oauth_page(server: &Server, parts: &Parts, sent: Body, request_id: &str) -> Option<Served> {
    let path = below(parts.uri.path(), server.app.config.issuer_path())?;
    let (route, allowed) = match path {
        "oauth/token" => ("/oauth/token", "POST"),
        "oauth/jwks" => ("/oauth/jwks", "GET"),
        _ => return None,
    };
    let reply = if parts.method != allowed {
        let mut reply = reply::document(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "method not allowed\n");
        reply.headers_mut().insert(axum::http::header::ALLOW, HeaderValue::from_static(allowed));
        reply
    } else if route == "/oauth/jwks" {
        reply::document(StatusCode::OK, "application/json", server.app.oauth.jwks())
    } else {
        match token(server, parts, sent, request_id).await {
            Ok(reply) => reply,
            Err(error) => refused(&error, Wanted::default(), request_id),
        }
    };
    Some(Served { reply, route })
}

async fn token(server: &Server, parts: &Parts, sent: Body, request_id: &str) -> Result<Response> {
    if negotiate::sent(&parts.headers)? != Sent::Form {
        return Err(Error::new(Kind::MediaType, "A token request is application/x-www-form-urlencoded."));
    }
    let bytes = body::read(&parts.headers, sent, FORM_BYTES_MAX).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("The form is no UTF-8."))?;
    let form = form::decode(text)?;
    let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let request = facts_of(parts, request_id);
    let answer = server.app.oauth.token(oauth::TokenRequest { form: &form, authorization, request }).await;
    Ok(match answer {
        Ok(granted) => reply::document(StatusCode::OK, "application/json", granted.body()),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
            let mut reply = reply::document(status, "application/json", refusal.body());
            if status == StatusCode::UNAUTHORIZED {
                reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"phial\""));
            }
            reply
        }
    })
}

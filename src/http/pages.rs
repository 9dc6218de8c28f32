//! Addresses of the server itself: health, readiness, figures.

use axum::http::StatusCode;
use axum::http::request::Parts;

use super::dispatch::{Served, Server};
use super::negotiate::Wanted;
use super::{meter, reply};
use crate::error::{Error, Kind, Result};

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
        "/readyz" => match Box::pin(ready(server)).await {
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

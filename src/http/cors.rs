//! Cross-origin requests of apps in browsers: any origin may look at what is public (discovery, metadata, keys); the
//! FHIR and token addresses answer the origins of the settings. Nothing here rests on cookies: a token is always sent
//! by name, so credentials are never allowed.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::dispatch::below;
use crate::app::Config;
use crate::oauth::discovery::is_authorization_server;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const REQUEST_HEADERS: &str = "Authorization, Content-Type, Content-Encoding, Accept, If-Match, If-None-Match, \
    If-Modified-Since, If-None-Exist, Prefer, X-Request-Id, X-Security-Context, DPoP";
const REPLY_HEADERS: &str = "Location, ETag, Last-Modified, Content-Location, X-Progress, Retry-After, X-Request-Id, \
    WWW-Authenticate, Expires, DPoP-Nonce";
/// Seconds that a browser may keep the answer to a preflight request.
const MAX_AGE_S: &str = "600";

/// Whether a request is a browser's question before the real one; it carries no token and asks for no data.
pub(super) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to it; whether the origin is allowed is told by [`finish`].
pub(super) fn preflight() -> Response {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    reply
}

/// Says to a browser whether the origin that asks may see the reply.
pub(super) fn finish(config: &Config, parts: &Parts, reply: &mut Response) {
    let Some(origin) = parts.headers.get(ORIGIN) else { return };
    let public = is_public(config, parts.uri.path());
    if !public && !is_api(config, parts.uri.path()) {
        return;
    }
    let any = public || config.cors_origins.allows_any();
    let allowed = match any {
        true => HeaderValue::from_static("*"),
        false if config.cors_origins.allows(origin.as_bytes()) => origin.clone(),
        false => return reply_varies(reply),
    };
    reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    reply.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(REPLY_HEADERS));
    if !any {
        reply_varies(reply);
    }
}

fn reply_varies(reply: &mut Response) {
    reply.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
}

/// What anybody may read without a token.
pub(super) fn is_public(config: &Config, path: &str) -> bool {
    let open = |path: &str| path == "metadata" || path.starts_with(".well-known/");
    below(path, config.base_path()).is_some_and(open)
        || below(path, config.issuer_path())
            .is_some_and(|path| path == "oauth/jwks" || path.starts_with(".well-known/"))
        || is_authorization_server(path, config.issuer_path())
}

fn is_api(config: &Config, path: &str) -> bool {
    let oauth = |path: &str| path.starts_with("oauth/");
    below(path, config.base_path()).is_some() || below(path, config.issuer_path()).is_some_and(oauth)
}

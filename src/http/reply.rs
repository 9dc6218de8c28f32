//! Replies. A successful body of FHIR content is made from an [`Answer`] only, and an answer holds released content
//! only.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, LOCATION,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::negotiate::Wanted;
use super::{outcome, write};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::interaction::route::Method;
use crate::interaction::{self, Answer, Content, Done, GraphQl, VersionOf};
use crate::world::Instant;

/// The reply to a FHIR interaction that went well.
pub(super) fn answer(answer: &Answer, base: &str, wanted: Wanted) -> Result<Response> {
    let status = match answer.done {
        Done::Ok => StatusCode::OK,
        Done::Created => StatusCode::CREATED,
        Done::NoContent => StatusCode::NO_CONTENT,
        Done::NotModified => StatusCode::NOT_MODIFIED,
    };
    let mut reply = match &answer.body {
        interaction::Body::Empty => Response::new(Body::empty()),
        interaction::Body::GraphQl(reply) => return Ok(graphql(reply)),
        interaction::Body::Bundle(bundle) => fhir(write::bundle(bundle, base, wanted)?, wanted),
        interaction::Body::Content(content) => match raw(content, wanted)? {
            Some(reply) => reply,
            None => fhir(write::content(content, wanted)?, wanted),
        },
    };
    *reply.status_mut() = status;
    if let Some(version) = &answer.version {
        about_version(reply.headers_mut(), version, base);
    }
    Ok(reply)
}

/// `data` and `errors` as GraphQL has them; no FHIR media type (graphql.html).
fn graphql(reply: &GraphQl) -> Response {
    let status = reply.refused.map_or(StatusCode::OK, outcome::status);
    document(status, "application/json", reply.body.clone())
}

fn about_version(headers: &mut HeaderMap, version: &VersionOf, base: &str) {
    insert(headers, ETAG, &write::etag(version));
    insert(headers, LAST_MODIFIED, &http_date(version.at));
    // A read says which version it gave; a write, where what it wrote now is.
    let name = if version.written { LOCATION } else { CONTENT_LOCATION };
    insert(headers, name, &write::location(version, base));
}

/// The reply to HEAD: that to GET without its body, the length said all the same.
pub(super) fn headers_only(reply: &mut Response) {
    if let Some(length) = axum::body::HttpBody::size_hint(reply.body()).exact() {
        insert(reply.headers_mut(), CONTENT_LENGTH, &length.to_string());
    }
    *reply.body_mut() = Body::empty();
}

fn fhir(bytes: Vec<u8>, wanted: Wanted) -> Response {
    let mut reply = Response::new(Body::from(bytes));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wanted.format.content_type()));
    reply
}

/// A Binary as its own content (binary.html), when no FHIR media type was asked for. None: it is given as FHIR.
fn raw(content: &Content, wanted: Wanted) -> Result<Option<Response>> {
    let Content::Released(released, _) = content else { return Ok(None) };
    if wanted.fhir || crate::fhir::definitions().type_name(released.kind()) != "Binary" {
        return Ok(None);
    }
    let node = json::parse(released.bytes())?;
    let text = |name: &str| node.get(name).and_then(Node::as_str).unwrap_or_default();
    // What is no base64 was taken as it came (a warning of $validate), and is given as it came.
    let Ok(data) = STANDARD.decode(text("data").split_ascii_whitespace().collect::<String>()) else { return Ok(None) };
    let mut reply = Response::new(Body::from(data));
    let named = HeaderValue::from_str(text("contentType"));
    let content_type = named.unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(Some(reply))
}

/// An asynchronous request was taken on.
pub(super) fn accepted(status: &str) -> Response {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::ACCEPTED;
    insert(reply.headers_mut(), CONTENT_LOCATION, status);
    insert(reply.headers_mut(), HeaderName::from_static("preference-applied"), "respond-async");
    reply
}

/// It is not done yet.
pub(super) fn in_progress(progress: &str) -> Response {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::ACCEPTED;
    insert(reply.headers_mut(), HeaderName::from_static("x-progress"), progress);
    insert(reply.headers_mut(), HeaderName::from_static("retry-after"), "2");
    reply
}

/// It will not be done.
pub(super) fn cancelled() -> Response {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::ACCEPTED;
    reply
}

/// For `Allow`: HEAD is answered wherever GET is.
fn named(methods: &[Method]) -> impl Iterator<Item = &'static str> {
    let head = methods.contains(&Method::Get).then_some("HEAD");
    methods.iter().map(|method| method.name()).chain(head)
}

/// The reply to OPTIONS.
pub(super) fn allowed(methods: &[Method]) -> Response {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let names: Vec<&str> = named(methods).chain(["OPTIONS"]).collect();
    insert(reply.headers_mut(), ALLOW, &names.join(", "));
    reply
}

/// The reply to a request that was refused or failed.
pub(super) fn refusal(error: &Error, wanted: Wanted, allowed: &[Method]) -> Response {
    let outcome = outcome::outcome(&error.issues);
    // An OperationOutcome made here can always be written; if not, the status alone is the answer.
    let mut reply = match write::node(&outcome, wanted) {
        Ok(bytes) => fhir(bytes, wanted),
        Err(_) => Response::new(Body::empty()),
    };
    *reply.status_mut() = outcome::status(error.kind);
    let headers = reply.headers_mut();
    match error.kind {
        Kind::Unauthenticated => insert(headers, WWW_AUTHENTICATE, "Bearer"),
        Kind::Method => {
            let names: Vec<&str> = named(allowed).collect();
            insert(headers, ALLOW, &names.join(", "));
        }
        Kind::Unavailable | Kind::Audit | Kind::Throttled => {
            insert(headers, HeaderName::from_static("retry-after"), "1")
        }
        _ => {}
    }
    reply
}

/// A document of the server itself, such as the SMART configuration.
pub(super) fn document(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Headers that every reply carries.
pub(super) fn finish(reply: &mut Response, request_id: &str) {
    let headers = reply.headers_mut();
    insert(headers, HeaderName::from_static("x-request-id"), request_id);
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("pragma"), "no-cache"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (HeaderName::from_static("content-security-policy"), "default-src 'none'; frame-ancestors 'none'; sandbox"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(at: Instant) -> String {
    let stamp = jiff::Timestamp::from_second(at.seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(Instant(784_111_777_123)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn refusals_carry_what_their_status_asks_for() {
        let reply = refusal(&Error::new(Kind::Unauthenticated, "no"), Wanted::default(), &[]);
        assert_eq!((reply.status().as_u16(), &reply.headers()[WWW_AUTHENTICATE]), (401, &"Bearer".parse().unwrap()));
        let reply = refusal(&Error::new(Kind::Method, "no"), Wanted::default(), &[Method::Get, Method::Put]);
        assert_eq!((reply.status().as_u16(), &reply.headers()[ALLOW]), (405, &"GET, PUT, HEAD".parse().unwrap()));
    }
}

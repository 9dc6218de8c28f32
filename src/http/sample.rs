//! The sample SMART app of `phial demo`: static files below `/apps/sample/`, as any web server would give them out. It is
//! a client like any other and has no way to data but tokens. Must not know anything of OAuth but its own registration.

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde_json::json;

use super::dispatch::{Served, Server, below};
use super::reply;

/// Where the app is, below the issuer.
pub const PLACE: &str = "/apps/sample/";
/// Scripts and styles of its own, requests to its own server, nothing else; and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

const FILES: &[(&str, &str, &str)] = &[
    ("", "text/html; charset=utf-8", include_str!("../../templates/sample-app/index.html")),
    ("launch.html", "text/html; charset=utf-8", include_str!("../../templates/sample-app/launch.html")),
    ("app.css", "text/css; charset=utf-8", include_str!("../../templates/sample-app/app.css")),
    ("mark.svg", "image/svg+xml", include_str!("../../templates/sample-app/mark.svg")),
    ("app.js", SCRIPT, include_str!("../../templates/sample-app/app.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The app as it is registered here.
pub struct Sample {
    pub client_id: String,
    /// `fhir-client.pure.min.js` of the npm package fhirclient, unchanged; None: it could not be fetched, and the app
    /// says so.
    pub library: Option<Bytes>,
}

/// A file of the app; None for any other address, and when the server has no sample app.
pub(super) fn page(server: &Server, parts: &Parts) -> Option<Served> {
    let sample = server.sample.as_ref()?;
    // The folder itself ends with a slash, which the other addresses of this server do not care for.
    let path = parts.uri.path().strip_prefix(server.app.config.issuer_path())?;
    let Some(file) = path.strip_prefix(PLACE) else {
        below(path, PLACE.trim_end_matches('/'))?;
        return Some(served(to_folder(server)));
    };
    if parts.method != "GET" && parts.method != "HEAD" {
        let mut reply = reply::document(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "method not allowed\n");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(served(reply));
    }
    let found = match file {
        "settings.json" => Some(("application/json", Body::from(settings(server, sample)))),
        "fhir-client.js" => sample.library.clone().map(|library| (SCRIPT, Body::from(library))),
        _ => FILES.iter().find(|(name, ..)| *name == file).map(|(_, kind, text)| (*kind, Body::from(*text))),
    };
    Some(served(match found {
        Some((kind, body)) => reply::document(StatusCode::OK, kind, body),
        None => reply::document(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n"),
    }))
}

fn served(mut reply: Response<Body>) -> Served {
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    Served { reply, route: "/apps/sample" }
}

fn to_folder(server: &Server) -> Response<Body> {
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(to) = HeaderValue::from_str(&format!("{}{PLACE}", server.app.config.issuer_path())) {
        reply.headers_mut().insert(LOCATION, to);
    }
    reply
}

/// What the app has to know: its server and its registration.
fn settings(server: &Server, sample: &Sample) -> Vec<u8> {
    let config = &server.app.config;
    json!({
        "iss": config.base_url,
        "client_id": sample.client_id,
        "redirect_uri": format!("{}{PLACE}", config.issuer()),
    })
    .to_string()
    .into_bytes()
}

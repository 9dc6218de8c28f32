//! The OAuth endpoints that clients speak to: tokens, introspection, revocation, keys, and launch contexts of an EHR.

use axum::body::Body;
use axum::http::header::{ALLOW, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::dispatch::{Served, Server, below, facts_of, refused};
use super::negotiate::{self, Format, Sent, Wanted};
use super::{body, reply};
use crate::error::{Error, Kind, Result};
use crate::fhir::json::{self, Node};
use crate::interaction::form;
use crate::interaction::operations::exchange;
use crate::oauth::authorization::Context;
use crate::oauth::context;
use crate::oauth::launch::Launch;
use crate::oauth::{Refusal, Registering, TokenRequest};

/// Requests to these endpoints are small.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// Address and method of every endpoint.
const ROUTES: &[(&str, &str)] = &[
    ("/oauth/register", "POST"),
    (REGISTRATION, "GET, PUT, DELETE"),
    ("/oauth/token", "POST"),
    ("/oauth/introspect", "POST"),
    ("/oauth/revoke", "POST"),
    ("/oauth/launch", "POST"),
    ("/oauth/jwks", "GET"),
];

/// Of one client that registered itself.
const REGISTRATION: &str = "/oauth/register/{id}";

pub(super) type Route = &'static (&'static str, &'static str);

/// The endpoint at an address.
pub(super) fn route(server: &Server, parts: &Parts) -> Option<Route> {
    let path = below(parts.uri.path(), server.app.config.issuer_path())?;
    let pattern = match path.strip_prefix("oauth/register/") {
        Some(id) if !id.is_empty() && !id.contains('/') => &REGISTRATION[1..],
        _ => path,
    };
    let off = server.app.config.client_registration == Registering::Off;
    let open = |route: &&(&str, &str)| !(off && route.0.starts_with("/oauth/register"));
    ROUTES.iter().filter(open).find(|(route, _)| route[1..] == *pattern)
}

/// Whether an address answers clients, with the errors of OAuth.
pub(super) fn is_for_clients(server: &Server, parts: &Parts) -> bool {
    route(server, parts).is_some_and(|(route, _)| !matches!(*route, "/oauth/jwks" | "/oauth/launch"))
}

pub(super) async fn serve(server: &Server, found: Route, parts: &Parts, sent: Body, request_id: &str) -> Served {
    let (route, allowed) = *found;
    if !allowed.split(", ").any(|method| parts.method == method) {
        let mut reply = reply::document(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "method not allowed\n");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return Served { reply, route };
    }
    let answer = match route {
        "/oauth/jwks" => server.app.oauth.jwks().await.map(|bytes| document(StatusCode::OK, bytes)),
        "/oauth/launch" => launch(server, parts, sent, request_id).await,
        "/oauth/register" | REGISTRATION => register(server, parts, sent, request_id).await,
        _ => client(server, route, parts, sent, request_id).await,
    };
    let reply = answer.unwrap_or_else(|error| {
        let plain = refused(&error, Wanted::default(), request_id);
        match plain.status().is_client_error() && !matches!(route, "/oauth/jwks" | "/oauth/launch") {
            // Clients of these endpoints read errors of OAuth, whatever it was that could not be read.
            true => document(plain.status(), Refusal::new("invalid_request", error.to_string()).body()),
            false => plain,
        }
    });
    Served { reply, route }
}

fn document(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    reply::document(status, "application/json", bytes)
}

/// What a client asks in a form.
async fn client(server: &Server, route: &str, parts: &Parts, sent: Body, request_id: &str) -> Result<Response<Body>> {
    if negotiate::sent(&parts.headers)? != Sent::Form {
        return Err(Error::new(Kind::MediaType, "This request is application/x-www-form-urlencoded."));
    }
    let bytes = body::read(&parts.headers, sent, FORM_BYTES_MAX).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("The form is no UTF-8."))?;
    let form = form::decode(text)?;
    let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let request = TokenRequest { form: &form, authorization, request: facts_of(parts, request_id) };
    let oauth = &server.app.oauth;
    let answer = match route {
        "/oauth/introspect" => oauth.introspect(request).await,
        "/oauth/revoke" => oauth.revoke(request).await.map(|()| Vec::new()),
        _ => {
            let facts = facts_of(parts, request_id);
            let emergency = |asked| exchange(&server.app, facts, asked);
            oauth.token(request, emergency).await.map(|granted| granted.body())
        }
    };
    Ok(match answer {
        Ok(bytes) => document(StatusCode::OK, bytes),
        Err(refusal) => refusal_of(&refusal),
    })
}

pub(super) fn refusal_of(refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut reply = document(status, refusal.body());
    if status == StatusCode::UNAUTHORIZED {
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"phial\""));
    }
    reply
}

/// The token of an `Authorization: Bearer` header.
fn bearer(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Registration of apps by themselves (RFC 7591) and its management (RFC 7592).
async fn register(server: &Server, parts: &Parts, sent: Body, request_id: &str) -> Result<Response<Body>> {
    let (oauth, bearer, facts) = (&server.app.oauth, bearer(parts), facts_of(parts, request_id));
    let id = parts.uri.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let method = parts.method.as_str();
    let answer = match method {
        "GET" => oauth.registration(id, bearer, facts).await.map(|bytes| document(StatusCode::OK, bytes)),
        "DELETE" => {
            let mut gone = Response::new(Body::empty());
            *gone.status_mut() = StatusCode::NO_CONTENT;
            oauth.deregister(id, bearer, facts).await.map(|()| gone)
        }
        _ => {
            if negotiate::sent(&parts.headers)? != Sent::Fhir(Format::Json) {
                return Err(Error::new(Kind::MediaType, "Client metadata is application/json."));
            }
            let bytes = body::read(&parts.headers, sent, FORM_BYTES_MAX).await?;
            let (status, answer) = match json::parse(&bytes) {
                Ok(node) if method == "PUT" => (StatusCode::OK, oauth.reregister(id, &node, bearer, facts).await),
                Ok(node) => (StatusCode::CREATED, oauth.register(&node, bearer, facts).await),
                Err(error) => (StatusCode::OK, Err(Refusal::new("invalid_client_metadata", error.to_string()))),
            };
            answer.map(|bytes| document(status, bytes))
        }
    };
    Ok(answer.unwrap_or_else(|refusal| {
        let mut reply = refusal_of(&refusal);
        if refusal.status == 401 {
            let challenge = HeaderValue::from_static("Bearer realm=\"phial\", error=\"invalid_token\"");
            reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        reply
    }))
}

/// An EHR makes a launch context: `{"patient", "encounter", "intent", "need_patient_banner", "fhirContext", "client_id",
/// "username"}`, all but the patient optional. The answer has the handle, and where the app is to be told it came from.
async fn launch(server: &Server, parts: &Parts, sent: Body, request_id: &str) -> Result<Response<Body>> {
    let oauth = &server.app.oauth;
    let missing = || Error::new(Kind::Unauthenticated, "An access token is needed: Authorization: Bearer.");
    let caller = oauth.caller(bearer(parts).ok_or_else(missing)?).await?;
    if let Err(over) = server.admit(caller.who(), parts) {
        return Ok(server.too_many(&over, parts, Some(caller.who().clone()), request_id).await);
    }
    let client = oauth.clients().get(&caller.who().client_id).await?;
    if caller.person().is_some() || !client.is_some_and(|client| client.ehr && !client.disabled) {
        return Err(Error::new(Kind::Forbidden, "Launch contexts are made by clients that are registered as an EHR."));
    }
    if negotiate::sent(&parts.headers)? != Sent::Fhir(Format::Json) {
        return Err(Error::new(Kind::MediaType, "A launch context is application/json."));
    }
    let node = json::parse(&body::read(&parts.headers, sent, FORM_BYTES_MAX).await?)?;
    let known = ["patient", "encounter", "intent", "need_patient_banner", "fhirContext", "client_id", "username"];
    let members = node.as_object().ok_or_else(|| Error::invalid("A launch context is a JSON object."))?;
    if let Some((name, _)) = members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Error::invalid("A launch context has no such member.").at(name.clone()));
    }
    let text = |name: &str| match node.get(name) {
        None | Some(Node::Null) => Ok(None),
        Some(Node::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid("A text is expected.").at(name.to_owned())),
    };
    let patient = text("patient")?.ok_or_else(|| Error::invalid("A launch needs a patient.").at("patient"))?;
    let banner = match node.get("need_patient_banner") {
        None | Some(Node::Null) => true,
        Some(Node::Bool(banner)) => *banner,
        Some(_) => return Err(Error::invalid("true or false is expected.").at("need_patient_banner")),
    };
    let launch = Launch {
        context: Context {
            patient: Some(patient),
            encounter: text("encounter")?,
            intent: text("intent")?,
            need_patient_banner: Some(banner),
            ehr: true,
            fhir_context: node.get("fhirContext").map(context::entries).transpose()?.unwrap_or_default(),
        },
        client_id: text("client_id")?,
        username: text("username")?,
    };
    let handle = oauth.launch(launch, caller.who().clone(), facts_of(parts, request_id)).await?;
    let body = json!({ "launch": handle, "iss": server.app.config.base_url, "expires_in": 300 });
    Ok(document(StatusCode::CREATED, body.to_string().into_bytes()))
}

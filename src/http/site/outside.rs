//! Logging in at an identity provider: sending the browser there, taking what it comes back with, and the provider's
//! own word that a login there has ended.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use minijinja::{Value, context};
use serde_json::json;

use super::Visit;
use super::login::{goal, kept};
use crate::error::{Error, Kind, Result};
use crate::http::reply;
use crate::oauth::login::Live;
use crate::oauth::outside::{Goal, Refused};

/// The provider that an address names in its last part.
fn id_of<'a>(visit: &'a Visit<'_>) -> &'a str {
    visit.parts.uri.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn unknown() -> Error {
    Error::new(Kind::NotFound, "This server has no such identity provider.")
}

/// The providers, for the page of the login.
pub(super) async fn buttons(visit: &Visit<'_>) -> Result<Vec<Value>> {
    let again = if visit.value("again").is_empty() { "" } else { "again=yes" };
    let query = [kept(visit).as_str(), again].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
    let open = visit.oauth().open_providers().await?;
    Ok(open.into_iter().map(|(id, name)| context! { id, name, query => query.clone() }).collect())
}

/// Sends the browser to a provider.
pub(super) async fn leave(visit: &Visit<'_>) -> Result<Response<Body>> {
    let goal = Goal { request: visit.value("request").to_owned(), to: visit.value("to").to_owned() };
    let again = !visit.value("again").is_empty();
    match visit.oauth().leave(id_of(visit), &visit.cookie, goal, again).await?.ok_or_else(unknown)? {
        Ok(url) => Ok(visit.redirect(StatusCode::SEE_OTHER, &url, None)),
        Err(why) => Ok(refused(visit, why)),
    }
}

/// Takes the answer of a provider.
pub(super) async fn back(visit: &Visit<'_>) -> Result<Response<Body>> {
    let oauth = visit.oauth();
    let answer = oauth.come_back(id_of(visit), &visit.form, &visit.cookie, visit.agent(), visit.facts()).await?;
    let answer = answer.ok_or_else(unknown)?;
    let Goal { request, to } = &answer.goal;
    match answer.outcome {
        Ok(cookie) => {
            let done = oauth.session(&cookie).await?.as_ref().is_some_and(Live::is_in);
            let path = if done {
                goal(request, to)
            } else {
                let pairs = [("request".to_owned(), request.clone()), ("to".to_owned(), to.clone())];
                format!("/login?{}", crate::interaction::form::encode(&pairs))
            };
            Ok(visit.see_other(&path, Some(&cookie)))
        }
        Err(why) => Ok(refused(visit, why)),
    }
}

fn refused(visit: &Visit<'_>, why: Refused) -> Response<Body> {
    let status = match why {
        Refused::State | Refused::Denied | Refused::Issuer | Refused::Code => StatusCode::BAD_REQUEST,
        Refused::Provider => StatusCode::SERVICE_UNAVAILABLE,
        Refused::Token(_) => StatusCode::UNAUTHORIZED,
        Refused::SecondFactor | Refused::Role | Refused::Record | Refused::Disabled | Refused::Closed => {
            StatusCode::FORBIDDEN
        }
    };
    visit.error(status, why.text())
}

/// A provider says that a login there has ended. It is a server that asks, not a browser: the answer is no page.
pub(super) async fn ended(visit: &Visit<'_>) -> Result<Response<Body>> {
    let token = visit.value("logout_token");
    let answer = visit.oauth().ended_outside(id_of(visit), token, visit.facts()).await?.ok_or_else(unknown)?;
    let (status, body) = match answer {
        Ok(()) => (StatusCode::OK, Vec::new()),
        Err(why) => {
            let body = json!({ "error": "invalid_request", "error_description": why.word() });
            (StatusCode::BAD_REQUEST, body.to_string().into_bytes())
        }
    };
    Ok(reply::document(status, "application/json", body))
}

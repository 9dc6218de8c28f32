//! Logging in and out: one address, whose page is the step that the session has come to.

use axum::body::Body;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Response, StatusCode};
use minijinja::context;
use zeroize::Zeroizing;

use super::view::Page;
use super::{Visit, factor, outside, passkey};
use crate::error::Result;
use crate::oauth::login::{Live, Stage, Step};
use crate::oauth::passkeys::Ceremony;

/// Where a login leads: to the app that asked, or to a page of ours.
pub(super) fn goal(request: &str, to: &str) -> String {
    let plain = request.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match to {
        _ if !request.is_empty() && plain => format!("/oauth/continue?request={request}"),
        "launch" => "/launch".to_owned(),
        "admin" => "/admin/users".to_owned(),
        "passkey" => "/account/passkey".to_owned(),
        "factor" => "/account/factor".to_owned(),
        _ => "/account".to_owned(),
    }
}

/// The page of the step that is due.
pub(super) async fn show(visit: &Visit<'_>) -> Result<Response<Body>> {
    let live = visit.live().await?;
    if live.as_ref().is_some_and(Live::is_in) && visit.value("again").is_empty() {
        return Ok(visit.see_other(&goal(visit.value("request"), visit.value("to")), None));
    }
    let live = live.filter(|live| !live.is_in());
    form(visit, live.as_ref(), "", StatusCode::OK).await
}

async fn form(visit: &Visit<'_>, live: Option<&Live>, fault: &str, status: StatusCode) -> Result<Response<Body>> {
    let (request, to) = (visit.value("request"), visit.value("to"));
    let app = match visit.oauth().asked(request).await? {
        Some(asked) => visit.oauth().clients().get(&asked.client_id).await?.map(|client| client.name),
        None => None,
    };
    let stage = live.map(|live| live.session.stage.clone());
    let page = match stage {
        None | Some(Stage::In) => {
            let username = visit.value("username");
            let providers = outside::buttons(visit).await?;
            let again = !visit.value("again").is_empty();
            Page::new("login.html", context! { request, to, app, fault, username, providers, again })
        }
        Some(Stage::Factor) => {
            let offered = match live {
                Some(live) => visit.oauth().offer(live, &visit.cookie, Ceremony::Login).await?,
                None => None,
            };
            let with_script = offered.is_some();
            let codes = live.is_some_and(|live| live.user.device.is_some());
            let page = context! { request, to, fault, codes, offer => passkey::offer(offered) };
            let page = Page::new("factor.html", page);
            if with_script { page.with_script() } else { page }
        }
        Some(Stage::Enrol { secret }) => {
            let username = live.map(|live| live.user.username.clone()).unwrap_or_default();
            let shown = factor::device(&secret, &username)?;
            Page::new("enrol.html", context! { request, to, fault, ..shown })
        }
    };
    Ok(visit.show(page.status(status)))
}

/// One step: what was sent is judged by the stage that the session is at.
pub(super) async fn step(visit: &Visit<'_>) -> Result<Response<Body>> {
    let live = visit.live().await?.filter(|live| !live.is_in());
    let (facts, agent) = (visit.facts(), visit.agent());
    let oauth = visit.oauth();
    let stage = live.as_ref().map(|live| live.session.stage.clone());
    let given = match visit.value("step") {
        "factor" if stage == Some(Stage::Factor) => {
            oauth.factor(&visit.cookie, visit.value("code"), agent, facts).await?
        }
        "passkey" if stage == Some(Stage::Factor) => {
            oauth.passkey(&visit.cookie, &passkey::assertion(visit), agent, facts).await?
        }
        "enrol" if matches!(stage, Some(Stage::Enrol { .. })) => {
            let (step, codes) = oauth.enrol(&visit.cookie, visit.value("code"), agent, facts).await?;
            match step {
                Step::On(cookie) => {
                    let page = factor::codes(visit, &codes, &format!("/login?{}", kept(visit)));
                    return Ok(visit.show_under(page, Some(&cookie)));
                }
                no => no,
            }
        }
        "login" => {
            let password = Zeroizing::new(visit.value("password").to_owned());
            oauth.login(visit.value("username"), password, agent, facts).await?
        }
        _ => Step::No("The login took too long. Begin again.", None),
    };
    match given {
        Step::On(cookie) => {
            let done = oauth.session(&cookie).await?.is_some_and(|live| live.is_in());
            let path =
                if done { goal(visit.value("request"), visit.value("to")) } else { format!("/login?{}", kept(visit)) };
            Ok(visit.see_other(&path, Some(&cookie)))
        }
        Step::No(text, wait) => {
            let status = if wait.is_some() { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED };
            let live = if visit.value("step") == "login" { None } else { live };
            let mut reply = form(visit, live.as_ref(), text, status).await?;
            if let Some(wait) = wait {
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.max(1)));
            }
            Ok(reply)
        }
    }
}

pub(super) fn kept(visit: &Visit<'_>) -> String {
    let pairs: Vec<(String, String)> = ["request", "to"]
        .iter()
        .map(|name| ((*name).to_owned(), visit.value(name).to_owned()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    crate::interaction::form::encode(&pairs)
}

/// Ends the session.
pub(super) async fn logout(visit: &Visit<'_>) -> Result<Response<Body>> {
    let way_out = visit.oauth().way_out(&visit.cookie).await?;
    visit.oauth().logout(&visit.cookie, visit.facts()).await?;
    let fresh = crate::oauth::login::random_name();
    if let Some(way) = way_out {
        let page = Page::new("left.html", context! { url => way.url, name => way.name });
        return Ok(visit.show_under(page, Some(&fresh)));
    }
    Ok(visit.see_other("/login", Some(&fresh)))
}

//! What a person has open here: sessions, apps, password.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use minijinja::{Value, context};
use zeroize::Zeroizing;

use super::view::Page;
use super::{Visit, words};
use crate::access::Role;
use crate::audit::{Event, What};
use crate::error::{Error, Result};
use crate::oauth::login::{Live, Step};

async fn logged_in(visit: &Visit<'_>) -> Result<Option<Live>> {
    Ok(visit.live().await?.filter(Live::is_in))
}

/// Sessions and apps, each with a button that ends it.
pub(super) async fn show(visit: &Visit<'_>, said: Option<&str>) -> Result<Response<Body>> {
    let Some(live) = logged_in(visit).await? else { return Ok(visit.see_other("/login", None)) };
    let sessions: Vec<Value> = visit
        .oauth()
        .sessions_of(&live.user)
        .await?
        .iter()
        .map(|session| {
            context! {
                id => session.id.clone(),
                own => session.id == live.session.id,
                since => words::time(session.made),
                seen => words::time(session.seen),
                address => session.address.clone(),
                agent => words::browser(&session.agent),
            }
        })
        .collect();
    let mut apps = Vec::new();
    for authorization in visit.oauth().authorizations_of(&live.user).await? {
        let client = visit.oauth().clients().get(&authorization.client_id).await?;
        apps.push(context! {
            id => authorization.id.clone(),
            name => client.map_or_else(|| authorization.client_id.clone(), |client| client.name),
            since => words::time(authorization.made),
            lasting => authorization.is_offline(),
            scopes => authorization.scopes.split(' ').map(str::to_owned).collect::<Vec<_>>(),
        });
    }
    let user = &live.user;
    let passkeys: Vec<Value> = user
        .passkeys
        .iter()
        .map(|one| {
            let used = one.used.map(words::time);
            context! { id => one.text_id(), name => one.name.clone(), since => words::time(one.made), used }
        })
        .collect();
    let page = context! {
        username => user.username.clone(),
        role => user.role.name(),
        staff => user.role.is_staff(),
        admin => user.role == Role::Admin,
        factor => user.has_factor(),
        local => user.account.is_none(),
        codes => user.device.is_some(),
        passkeys,
        may_add => visit.oauth().site().is_some(),
        recovery => user.recovery.len(),
        sessions,
        apps,
        said,
    };
    Ok(visit.show(Page::new("account.html", page)))
}

/// Ends a session or what an app was allowed.
pub(super) async fn end(visit: &Visit<'_>) -> Result<Response<Body>> {
    let Some(live) = logged_in(visit).await? else { return Ok(visit.see_other("/login", None)) };
    let oauth = visit.oauth();
    let (session, app) = (visit.value("session"), visit.value("app"));
    if !session.is_empty() {
        if session == live.session.id {
            return super::login::logout(visit).await;
        }
        oauth.end_session_of(&live.user, session, visit.facts()).await?;
        return show(visit, Some("The session has ended.")).await;
    }
    let event = Event::new(oauth.now(), What::AuthorizationEnded, visit.facts());
    let ended = oauth.end_authorization(&live.user, &live.session.id, app, event).await?;
    let said = if ended { "The app has no access any more." } else { "The app had no access." };
    show(visit, Some(said)).await
}

pub(super) async fn password_page(visit: &Visit<'_>, status: StatusCode, fault: &str) -> Result<Response<Body>> {
    if logged_in(visit).await?.is_none() {
        return Ok(visit.see_other("/login", None));
    }
    let page = context! { fault };
    Ok(visit.show(Page::new("change.html", page).status(status)))
}

pub(super) async fn password(visit: &Visit<'_>) -> Result<Response<Body>> {
    logged_in(visit).await?.ok_or_else(|| Error::invalid("The login took too long. Begin again."))?;
    let secret = |name: &str| Zeroizing::new(visit.value(name).to_owned());
    let (old, new) = (secret("old"), secret("new"));
    match visit.oauth().change_password(&visit.cookie, old, new, visit.agent(), visit.facts()).await? {
        Step::On(cookie) => Ok(visit.see_other("/account", Some(&cookie))),
        Step::No(text, _) => password_page(visit, StatusCode::UNAUTHORIZED, text).await,
    }
}

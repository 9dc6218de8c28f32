//! What people have open: sessions, and what they have allowed apps.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::super::words;
use super::{Desk, Said};
use crate::error::Result;
use crate::oauth::Held;
use crate::oauth::authorization::Authorization;
use crate::oauth::login::Session;

pub(super) fn session_row(session: &Session) -> Value {
    context! {
        id => session.id.clone(),
        username => session.username.clone(),
        agent => words::browser(&session.agent),
        address => session.address.clone(),
        since => words::time(session.made),
        seen => words::time(session.seen),
    }
}

pub(super) async fn sessions(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let all = desk.visit.oauth().all_sessions(None).await?;
    let all = desk.searched(all, |one| format!("{} {} {}", one.username, one.address, words::browser(&one.agent)));
    let own = desk.live.session.id.clone();
    let values = desk.paged(all, |one| context! { own => one.id == own, ..session_row(one) });
    desk.show("admin-sessions.html", said, values)
}

/// With the names of the apps.
pub(super) async fn consent_rows(desk: &Desk<'_, '_>, all: Vec<Held<Authorization>>) -> Result<Vec<Value>> {
    let clients = desk.visit.oauth().clients().list().await?;
    let names: HashMap<String, String> = clients.into_iter().map(|one| (one.client_id, one.name)).collect();
    Ok(all.iter().map(|one| consent_row(one, &names)).collect())
}

fn consent_row(one: &Authorization, names: &HashMap<String, String>) -> Value {
    context! {
        id => one.id.clone(),
        username => one.username.clone(),
        app => names.get(&one.client_id).cloned().unwrap_or_else(|| one.client_id.clone()),
        since => words::time(one.made),
        lasting => one.is_offline(),
        scopes => one.scopes.split(' ').map(str::to_owned).collect::<Vec<_>>(),
    }
}

pub(super) async fn consents(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let clients = desk.visit.oauth().clients().list().await?;
    let names: HashMap<String, String> = clients.into_iter().map(|one| (one.client_id, one.name)).collect();
    let all = desk.visit.oauth().all_authorizations(None).await?;
    let name = |one: &Authorization| names.get(&one.client_id).cloned().unwrap_or_default();
    let all = desk.searched(all, |one| format!("{} {} {}", one.username, one.client_id, name(one)));
    let values = desk.paged(all, |one| consent_row(one, &names));
    desk.show("admin-consents.html", said, values)
}

/// Ends a session, or what somebody has allowed an app.
pub(super) async fn end(desk: &Desk<'_, '_>) -> Result<Said> {
    let (oauth, id) = (desk.visit.oauth(), desk.visit.value("id"));
    match desk.route {
        "/admin/sessions" => Said::found(oauth.end_any_session(&desk.by, id).await?, "The session has ended."),
        _ => Said::found(oauth.end_any_authorization(&desk.by, id).await?, "The app has no access any more."),
    }
}

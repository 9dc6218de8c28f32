//! One-time links: the invited person chooses a name and a password, or somebody after a reset a new password.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use minijinja::context;
use zeroize::Zeroizing;

use super::view::Page;
use super::{Visit, words};
use crate::access::Role;
use crate::error::{Kind, Result};
use crate::interaction::people;
use crate::oauth::invitation::{OVER, Purpose};
use crate::oauth::login::Step;

/// What somebody is invited as.
fn as_what(role: Role) -> &'static str {
    match role {
        Role::Admin => "as an administrator",
        Role::Provider => "as a clinician",
        Role::Nurse => "as a nurse",
        Role::Receptionist => "as a receptionist",
        Role::Staff => "as a member of the staff",
        Role::Patient => "to see your own record",
        Role::Guardian => "to see the record of somebody you answer for",
    }
}

pub(super) async fn show(visit: &Visit<'_>, status: StatusCode, fault: &str) -> Result<Response<Body>> {
    let code = visit.value("code");
    let Some(open) = visit.oauth().invitation(code).await? else {
        return Ok(visit.error(StatusCode::NOT_FOUND, OVER));
    };
    let until = words::time(open.until);
    let page = match &open.purpose {
        Purpose::Join { role, .. } => {
            let (username, factor) = (visit.value("username"), visit.oauth().needs_factor(*role));
            context! { reset => false, role => as_what(*role), username, factor, code, until, fault }
        }
        Purpose::Reset { username } => {
            let user = visit.oauth().users().get(username).await?;
            let factor = user.is_some_and(|user| visit.oauth().needs_factor(user.role));
            context! { reset => true, role => "", username, factor, code, until, fault }
        }
    };
    Ok(visit.show(Page::new("invitation.html", page).status(status)))
}

pub(super) async fn take_up(visit: &Visit<'_>) -> Result<Response<Body>> {
    let secret = |name: &str| Zeroizing::new(visit.value(name).to_owned());
    let (code, username, password) = (visit.value("code"), visit.value("username"), secret("password"));
    if *password != *secret("again") {
        return show(visit, StatusCode::BAD_REQUEST, "The two passwords are not the same.").await;
    }
    let app = &visit.server.app;
    match people::take_up(app, code, username, password, visit.agent(), visit.facts()).await {
        Ok(Step::On(cookie)) => Ok(visit.see_other("/login", Some(&cookie))),
        Ok(Step::No(why, _)) => show(visit, StatusCode::BAD_REQUEST, why).await,
        Err(error) if error.kind == Kind::Invalid => {
            let text = "The record that this invitation is for cannot be used now. Ask your provider's administration.";
            Ok(visit.error(StatusCode::CONFLICT, text))
        }
        Err(error) => Err(error),
    }
}

//! The list of users, and one user with all that can be done.

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::super::words;
use super::{Desk, ROWS, Said, gone, open};
use crate::access::Role;
use crate::error::{Error, Result};
use crate::interaction::people;
use crate::oauth::{Find, Held, User};

pub(super) fn roles(chosen: Option<Role>) -> Vec<Value> {
    Role::ALL.iter().map(|role| context! { name => role.name(), chosen => Some(*role) == chosen }).collect()
}

fn row(user: &User) -> Value {
    context! {
        id => user.id.clone(),
        username => user.username.clone(),
        role => user.role.name(),
        record => user.fhir_user.clone(),
        active => user.is_active(),
        password => user.password.is_some(),
        factor => user.has_factor(),
        provider => user.account.as_ref().map(|account| account.provider.clone()),
    }
}

pub(super) async fn list(desk: &Desk<'_, '_>) -> Result<Response<Body>> {
    let visit = desk.visit;
    let role = Role::parse(visit.value("role"));
    let provider = Some(visit.value("provider").to_owned()).filter(|id| !id.is_empty());
    let find = Find { role, provider: provider.clone(), ..Find::words(desk.words()) };
    let page = visit.oauth().users().page(&find, &desk.after(), ROWS).await?;
    let rows: Vec<Value> = page.users.iter().map(|user| row(user)).collect();
    let values = context! { rows, roles => roles(role), provider => provider.clone() };
    let kept = [("role", role.map_or("", Role::name)), ("provider", provider.as_deref().unwrap_or_default())];
    let pager = desk.keyset(page.total, page.next, &kept);
    desk.show("admin-users.html", Said::default(), context! { ..values, ..pager })
}

async fn asked(desk: &Desk<'_, '_>) -> Result<Held<User>> {
    desk.visit.oauth().users().by_id(desk.visit.value("id")).await?.ok_or_else(gone)
}

pub(super) async fn one(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let user = asked(desk).await?;
    let oauth = desk.visit.oauth();
    let sessions = oauth.all_sessions(Some(&user)).await?;
    let consents = open::consent_rows(desk, oauth.all_authorizations(Some(&user)).await?).await?;
    let values = context! {
        user => row(&user),
        own => user.id == desk.live.user.id,
        roles => roles(Some(user.role)),
        sessions => sessions.iter().map(|one| open::session_row(one)).collect::<Vec<_>>(),
        consents,
    };
    desk.show("admin-user.html", said, values)
}

/// One change of one user.
pub(super) async fn change(desk: &Desk<'_, '_>) -> Result<Said> {
    let user = asked(desk).await?;
    let (oauth, by) = (desk.visit.oauth(), &desk.by);
    let users = oauth.users().by(by);
    let act = desk.visit.value("act");
    if user.id == desk.live.user.id && matches!(act, "disable" | "role" | "reset" | "factor") {
        return Err(Error::invalid("Another administrator does this to you, or an operator at the console."));
    }
    match act {
        "disable" => {
            Said::found(users.disable(&user.username).await?, "The user is disabled: nothing of theirs works.")
        }
        "enable" => Said::found(users.enable(&user.username).await?, "The user may log in again."),
        "unlock" => Said::found(oauth.unlock(by, &user.username).await?, "The user need not wait any more."),
        "end" => {
            let count = oauth.end_sessions_of(by, &user).await?;
            Ok(Said::done(&format!("Ended: {count} sessions, and all that the user has allowed apps.")))
        }
        "reset" => {
            let issued = oauth.reset(by, &user.username).await?.ok_or_else(gone)?;
            let text = format!(
                "Password and second factor are forgotten. The link works until {}.",
                words::time(issued.invitation.until)
            );
            Ok(Said {
                text,
                secret: Some(("Give this link to the user, and to nobody else:", issued.link.to_string())),
                fault: String::new(),
            })
        }
        "factor" => {
            let known = oauth.clear_factor(by, &user.username).await?;
            Said::found(known, "The second factor is forgotten. The user sets up a new one with the next login.")
        }
        "role" => {
            let role = Role::parse(desk.visit.value("role")).ok_or_else(|| Error::invalid("There is no such role."))?;
            let record = Some(desk.visit.value("record").trim().to_owned()).filter(|record| !record.is_empty());
            let app = &desk.visit.server.app;
            let known = people::set_role(app, by, &user.username, role, record).await?;
            Said::found(known, "The user has the new role, and has to log in again.")
        }
        _ => Err(Error::invalid("There is no such change.")),
    }
}

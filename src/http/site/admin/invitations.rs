//! Links that are open, and the form that makes one.

use axum::body::Body;
use axum::http::Response;
use minijinja::{Value, context};

use super::super::words;
use super::users::roles;
use super::{Desk, Said};
use crate::access::Role;
use crate::error::{Error, Result};
use crate::interaction::people;
use crate::oauth::invitation::{Invitation, Invite, Purpose};

fn row(of: &Invitation) -> Value {
    let (what, record) = match &of.purpose {
        Purpose::Join { role, fhir_user } => (role.name().to_owned(), fhir_user.clone()),
        Purpose::Reset { username } => (format!("Reset of {username}"), None),
    };
    context! {
        id => of.id.clone(), what, record, note => of.note.clone(), by => of.by.clone(),
        made => words::time(of.made), until => words::time(of.until),
    }
}

pub(super) async fn list(desk: &Desk<'_, '_>, said: Said) -> Result<Response<Body>> {
    let text = |of: &Invitation| match &of.purpose {
        Purpose::Join { role, fhir_user } => {
            format!("{} {} {} {}", role.name(), fhir_user.as_deref().unwrap_or_default(), of.note, of.by)
        }
        Purpose::Reset { username } => format!("reset {username} {}", of.by),
    };
    let all = desk.searched(desk.visit.oauth().invitations().await?, |one| text(one));
    let kept = if said.fault.is_empty() { "" } else { desk.visit.value("record") };
    let note = if said.fault.is_empty() { "" } else { desk.visit.value("note") };
    let form = context! { roles => roles(Role::parse(desk.visit.value("role"))), record => kept, note };
    let values = context! { ..form, ..desk.paged(all, |one| row(one)) };
    desk.show("admin-invitations.html", said, values)
}

/// Invites, or takes a link back.
pub(super) async fn change(desk: &Desk<'_, '_>) -> Result<Said> {
    let visit = desk.visit;
    if visit.value("act") == "revoke" {
        let known = visit.oauth().revoke_invitation(&desk.by, visit.value("id")).await?;
        return Said::found(known, "The link opens nothing any more.");
    }
    let role = Role::parse(visit.value("role")).ok_or_else(|| Error::invalid("There is no such role."))?;
    let fhir_user = Some(visit.value("record").trim().to_owned()).filter(|record| !record.is_empty());
    let asked = Invite { role, fhir_user, note: visit.value("note").trim().to_owned() };
    let issued = people::invite(&visit.server.app, &desk.by, asked).await?;
    let text = format!("The invitation works once, until {}.", words::time(issued.invitation.until));
    let secret = Some(("Give this link to the person, and to nobody else:", issued.link.to_string()));
    Ok(Said { text, secret, fault: String::new() })
}

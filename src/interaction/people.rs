//! Where administration and records meet: whoever is tied to a record is tied to one that is there and stands, when they
//! are invited, when they take the invitation up, and when their role changes.

use zeroize::Zeroizing;

use super::reach;
use crate::access::Role;
use crate::app::App;
use crate::audit::Request;
use crate::error::{Error, Result};
use crate::oauth::By;
use crate::oauth::invitation::{Invite, Issued};
use crate::oauth::login::Step;

async fn check_record(app: &App, record: Option<&str>) -> Result<()> {
    match record {
        Some(record) if !reach::stands(app, record).await? => {
            let text = "There is no such record here, or it is not active, or not within its period.";
            Err(Error::invalid(text).at("fhir_user"))
        }
        _ => Ok(()),
    }
}

/// Invites somebody, giving the one-time link.
///
/// # Errors
/// `Kind::Invalid` with the place of the fault.
pub async fn invite(app: &App, by: &By, asked: Invite) -> Result<Issued> {
    // First whether it is a reference that fits the role: what is none cannot be looked up.
    app.oauth.check_invite(&asked)?;
    check_record(app, asked.fhir_user.as_deref()).await?;
    app.oauth.invite(by, asked).await
}

/// Gives a user another role and the record that goes with it. False: there is no such user.
///
/// # Errors
/// `Kind::Invalid` with the place of the fault.
pub async fn set_role(app: &App, by: &By, username: &str, role: Role, fhir_user: Option<String>) -> Result<bool> {
    app.oauth.check_invite(&Invite { role, fhir_user: fhir_user.clone(), note: String::new() })?;
    check_record(app, fhir_user.as_deref()).await?;
    app.oauth.users().by(by).set_role(username, role, fhir_user).await
}

/// Takes a one-time link up.
///
/// # Errors
/// `Kind::Invalid` when the record it is tied to no longer stands.
pub async fn take_up(
    app: &App,
    code: &str,
    username: &str,
    password: Zeroizing<String>,
    agent: &str,
    request: Request,
) -> Result<Step> {
    if let Some(invitation) = app.oauth.invitation(code).await? {
        check_record(app, invitation.fhir_user()).await?;
    }
    app.oauth.take_up(code, username, password, agent, request).await
}

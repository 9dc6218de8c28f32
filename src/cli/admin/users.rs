//! `phial admin users` and `phial admin invitations`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use phial::access::Role;
use phial::error::{Error, Result};
use phial::interaction::people;
use phial::oauth::invitation::{Invitation, Invite, Issued, Purpose};
use phial::oauth::{Find, User, Users};
use serde_json::{Value, json};

use super::print::{Said, time};
use super::{Office, unknown};

#[derive(Subcommand)]
pub enum UsersCommand {
    /// List the users.
    List(ListArgs),
    /// Invite somebody: prints a one-time link, by which they choose name and password.
    Invite(InviteArgs),
    /// No login and no token of this user works from now on.
    Disable(NameArgs),
    /// Let a disabled user in again.
    Enable(NameArgs),
    /// End whatever the user has open, forget password and second factor, and print a one-time link to choose new ones.
    Reset(NameArgs),
    /// Forget the lost second factor of somebody who logs in at an identity provider: the next login sets up a new one.
    RemoveFactor(NameArgs),
    /// Forget failed logins, so that the user need not wait.
    Unlock(NameArgs),
    /// Give the user another role, and the record that goes with it.
    Role(RoleArgs),
}

#[derive(Args)]
pub struct ListArgs {
    /// Only users whose name, or a part of it, begins with each of these words; or whose record this is.
    words: Vec<String>,
    /// Only users of this role.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Only users who came through this identity provider.
    #[arg(long, value_name = "ID")]
    provider: Option<String>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Go on where a list before ended, as it says.
    #[arg(long, value_name = "PLACE", default_value = "")]
    after: String,
}

#[derive(Args)]
pub struct InviteArgs {
    /// ADMIN, PROVIDER, NURSE, RECEPTIONIST, STAFF, PATIENT or GUARDIAN.
    #[arg(long, value_name = "ROLE")]
    role: String,
    /// Their own record: `Practitioner/1`, `Patient/2`, `RelatedPerson/3`. Patients and guardians need one.
    #[arg(long, value_name = "REFERENCE")]
    fhir_user: Option<String>,
    /// For whom it is, in words for administrators.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

#[derive(Args)]
pub struct NameArgs {
    #[arg(value_name = "NAME")]
    username: String,
}

#[derive(Args)]
pub struct RoleArgs {
    #[arg(value_name = "NAME")]
    username: String,
    #[arg(value_name = "ROLE")]
    role: String,
    /// Their own record.
    #[arg(long, value_name = "REFERENCE")]
    fhir_user: Option<String>,
}

#[derive(Subcommand)]
pub enum InvitationsCommand {
    /// List the links that are open.
    List,
    /// Take one back.
    Revoke {
        #[arg(value_name = "ID")]
        id: String,
    },
}

fn role(name: &str) -> Result<Role> {
    Role::parse(name).ok_or_else(|| Error::invalid("there is no such role"))
}

fn user(user: &User) -> Value {
    json!({
        "username": user.username,
        "role": user.role.name(),
        "fhir_user": user.fhir_user,
        "status": if user.is_active() { "active" } else { "disabled" },
        "password": user.password.is_some(),
        "second_factor": user.has_factor(),
        "provider": user.account.as_ref().map(|account| account.provider.clone()),
    })
}

fn issued(issued: &Issued) -> Said {
    Said::One(json!({ "link": *issued.link, "good_until": time(issued.invitation.until), "id": issued.invitation.id }))
}

async fn list(users: &Users, args: ListArgs) -> Result<Said> {
    let asked = args.role.as_deref().map(role).transpose()?;
    let find = Find { role: asked, provider: args.provider, ..Find::words(&args.words.join(" ")) };
    let after = URL_SAFE_NO_PAD.decode(&args.after).map_err(|_| Error::invalid("--after is no place of a list"))?;
    let page = users.page(&find, &after, usize::from(args.count)).await?;
    if let Some(next) = page.next {
        // Beside the list, which stays one table or one JSON array.
        eprintln!("There may be more: --after {}", URL_SAFE_NO_PAD.encode(next));
    }
    Ok(Said::Many(page.users.iter().map(|one| user(one)).collect()))
}

pub async fn run(office: &Office, command: UsersCommand) -> Result<Said> {
    let (oauth, by) = (&office.app.oauth, &office.by);
    let users = oauth.users().by(by);
    let done = |known: bool, text: &str| if known { Ok(Said::Done(text.to_owned())) } else { Err(unknown("user")) };
    match command {
        UsersCommand::List(args) => list(&users, args).await,
        UsersCommand::Invite(args) => {
            let asked = Invite { role: role(&args.role)?, fhir_user: args.fhir_user, note: args.note };
            Ok(issued(&people::invite(&office.app, by, asked).await?))
        }
        UsersCommand::Disable(args) => done(users.disable(&args.username).await?, "The user is disabled."),
        UsersCommand::Enable(args) => done(users.enable(&args.username).await?, "The user may log in again."),
        UsersCommand::Reset(args) => {
            let link = oauth.reset(by, &args.username).await?.ok_or_else(|| unknown("user"))?;
            Ok(issued(&link))
        }
        UsersCommand::RemoveFactor(args) => {
            done(oauth.clear_factor(by, &args.username).await?, "The second factor is forgotten.")
        }
        UsersCommand::Unlock(args) => done(oauth.unlock(by, &args.username).await?, "The user need not wait."),
        UsersCommand::Role(args) => {
            let role = role(&args.role)?;
            let known = people::set_role(&office.app, by, &args.username, role, args.fhir_user).await?;
            done(known, "The user has the new role and has to log in again.")
        }
    }
}

fn invitation(of: &Invitation) -> Value {
    let (what, role, record, username) = match &of.purpose {
        Purpose::Join { role, fhir_user } => ("invitation", Some(role.name()), fhir_user.clone(), None),
        Purpose::Reset { username } => ("reset", None, None, Some(username.clone())),
    };
    json!({
        "id": of.id, "what": what, "role": role, "fhir_user": record, "username": username, "note": of.note,
        "by": of.by, "good_until": time(of.until),
    })
}

pub async fn invitations(office: &Office, command: InvitationsCommand) -> Result<Said> {
    match command {
        InvitationsCommand::List => {
            Ok(Said::Many(office.app.oauth.invitations().await?.iter().map(|one| invitation(one)).collect()))
        }
        InvitationsCommand::Revoke { id } => match office.app.oauth.revoke_invitation(&office.by, &id).await? {
            true => Ok(Said::Done("The link opens nothing any more.".to_owned())),
            false => Err(unknown("link")),
        },
    }
}

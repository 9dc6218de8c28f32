//! `phial admin sessions` and `phial admin consents`: what people have open.

use clap::Subcommand;
use phial::error::Result;
use phial::oauth::{Held, User};
use serde_json::json;

use super::print::{Said, time};
use super::{Office, unknown};

#[derive(Subcommand)]
pub enum SessionsCommand {
    /// List everybody's sessions, or one user's.
    List {
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// End one.
    End {
        #[arg(value_name = "ID", required_unless_present = "user")]
        id: Option<String>,
        /// All of this user, with all that the user has allowed apps.
        #[arg(long, value_name = "NAME", conflicts_with = "id")]
        user: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum ConsentsCommand {
    /// List what everybody has allowed apps, or one user.
    List {
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// End one, with all its tokens.
    Revoke {
        #[arg(value_name = "ID")]
        id: String,
    },
}

async fn named(office: &Office, name: Option<String>) -> Result<Option<Held<User>>> {
    match name {
        None => Ok(None),
        Some(name) => office.app.oauth.users().get(&name).await?.ok_or_else(|| unknown("user")).map(Some),
    }
}

pub async fn sessions(office: &Office, command: SessionsCommand) -> Result<Said> {
    let oauth = &office.app.oauth;
    match command {
        SessionsCommand::List { user } => {
            let user = named(office, user).await?;
            let rows = oauth.all_sessions(user.as_deref()).await?;
            let row = rows.iter().map(|one| {
                json!({
                    "id": one.id, "username": one.username, "since": time(one.made), "last_seen": time(one.seen),
                    "address": one.address, "browser": one.agent,
                })
            });
            Ok(Said::Many(row.collect()))
        }
        SessionsCommand::End { id, user } => match named(office, user).await? {
            Some(user) => {
                let count = oauth.end_sessions_of(&office.by, &user).await?;
                Ok(Said::Done(format!("{count} sessions have ended.")))
            }
            None => match oauth.end_any_session(&office.by, id.as_deref().unwrap_or_default()).await? {
                true => Ok(Said::Done("The session has ended.".to_owned())),
                false => Err(unknown("session")),
            },
        },
    }
}

pub async fn consents(office: &Office, command: ConsentsCommand) -> Result<Said> {
    let oauth = &office.app.oauth;
    match command {
        ConsentsCommand::List { user } => {
            let user = named(office, user).await?;
            let rows = oauth.all_authorizations(user.as_deref()).await?;
            let row = rows.iter().map(|one| {
                json!({
                    "id": one.id, "username": one.username, "client_id": one.client_id, "since": time(one.made),
                    "offline": one.is_offline(), "scopes": one.scopes,
                })
            });
            Ok(Said::Many(row.collect()))
        }
        ConsentsCommand::Revoke { id } => match oauth.end_any_authorization(&office.by, &id).await? {
            true => Ok(Said::Done("The app has no access any more.".to_owned())),
            false => Err(unknown("consent")),
        },
    }
}

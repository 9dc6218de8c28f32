//! `phial admin providers`.

use clap::Subcommand;
use phial::error::Result;
use serde_json::{Value, json};

use super::print::Said;
use super::{Office, unknown};

#[derive(Subcommand)]
pub enum ProvidersCommand {
    /// The identity providers of the settings, with their rules and the addresses to register there.
    List,
    /// Ask each what it publishes of itself.
    Check,
    /// Shut one: nobody logs in through it, and what people who came through it have open ends.
    Disable {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Open one that was shut.
    Enable {
        #[arg(value_name = "ID")]
        id: String,
    },
}

pub async fn run(office: &Office, command: &ProvidersCommand) -> Result<Said> {
    let (oauth, by) = (&office.app.oauth, &office.by);
    let done = |known: bool, text: &str| if known { Ok(Said::Done(text.to_owned())) } else { Err(unknown("provider")) };
    match command {
        ProvidersCommand::List => rows(office, false).await,
        ProvidersCommand::Check => rows(office, true).await,
        ProvidersCommand::Disable { id } => {
            done(oauth.switch_provider(by, id, true).await?, "Nobody logs in through the provider any more.")
        }
        ProvidersCommand::Enable { id } => {
            done(oauth.switch_provider(by, id, false).await?, "People may log in through the provider again.")
        }
    }
}

async fn rows(office: &Office, ask: bool) -> Result<Said> {
    let oauth = &office.app.oauth;
    let mut rows = Vec::new();
    for provider in oauth.outside().described() {
        let state = oauth.provider_state(provider.id, ask).await?.ok_or_else(|| unknown("provider"))?;
        let mut row = json!({ "id": provider.id, "name": provider.name, "issuer": provider.issuer });
        if ask {
            row["answers"] = json!(state.failed.is_none());
            row["keys"] = json!(state.known.map_or(0, |(_, keys)| keys));
        } else {
            row["status"] = json!(if state.is_closed() { "disabled" } else { "enabled" });
            row["users"] = json!(state.users);
            row["client_id"] = json!(provider.client_id);
            row["redirect_uri"] = json!(oauth.back_address(provider.id));
            row["post_logout_redirect_uri"] = json!(format!("{}/login", oauth.issuer()));
            row["backchannel_logout_uri"] = json!(format!("{}/login/ended/{}", oauth.issuer(), provider.id));
            row["public_key"] = provider.public_key.unwrap_or(Value::Null);
            row["second_factor"] = json!(provider.second_factor);
            row["rules"] = json!(provider.rules);
        }
        rows.push(row);
    }
    Ok(Said::Many(rows))
}

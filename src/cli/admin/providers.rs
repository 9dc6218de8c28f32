//! `phial admin providers`.

use clap::Subcommand;
use phial::error::Result;
use serde_json::{Value, json};

use super::Office;
use super::print::Said;

#[derive(Subcommand)]
pub enum ProvidersCommand {
    /// The identity providers of the settings, with the addresses to register there.
    List,
    /// Ask each what it publishes of itself.
    Check,
}

pub async fn run(office: &Office, command: &ProvidersCommand) -> Result<Said> {
    let oauth = &office.app.oauth;
    let mut rows = Vec::new();
    for provider in oauth.outside().described() {
        let mut row = json!({ "id": provider.id, "name": provider.name, "issuer": provider.issuer });
        match command {
            ProvidersCommand::List => {
                row["client_id"] = json!(provider.client_id);
                row["redirect_uri"] = json!(oauth.back_address(provider.id));
                row["post_logout_redirect_uri"] = json!(format!("{}/login", oauth.issuer()));
                row["backchannel_logout_uri"] = json!(format!("{}/login/ended/{}", oauth.issuer(), provider.id));
                row["public_key"] = provider.public_key.unwrap_or(Value::Null);
            }
            ProvidersCommand::Check => row["answers"] = json!(oauth.provider_answers(provider.id).await),
        }
        rows.push(row);
    }
    Ok(Said::Many(rows))
}

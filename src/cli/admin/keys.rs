//! `phial admin keys`.

use std::sync::Arc;

use clap::Subcommand;
use phial::app::Config;
use phial::error::{Error, Kind, Result};
use phial::store::bond;
use phial::store::keydb::KeyDb;
use phial::vault::keyring::LocalKeyring;
use phial::vault::{KeyStore, Vault};
use serde_json::{Value, json};

use super::Office;
use super::print::{Said, time};
use crate::cli::{WithConfig, settings};

#[derive(Subcommand)]
pub enum KeysCommand {
    /// The keys that tokens are signed with.
    List,
    /// Begin to sign tokens with new keys. Tokens of the old ones work until they expire.
    Rotate,
    /// The keys of the vault: which there are, and that each opens. Shows none.
    Vault,
    /// Begin a new epoch of the key that wraps patients' keys, and wrap them all anew.
    RotateVault,
}

/// The keys of the vault open nothing of the store: what asks for them alone leaves the store alone. None: it is another
/// command.
pub async fn without_server(command: &KeysCommand, with: &WithConfig) -> Result<Option<Said>> {
    match command {
        KeysCommand::Vault => vault(&settings(with)?).await.map(Some),
        _ => Ok(None),
    }
}

async fn vault(config: &Config) -> Result<Said> {
    // Makes none: a keyring that is not there is an error, and so is a key database without keys.
    if !config.keyring.exists() {
        let text = format!("there is no keyring at {}", config.keyring.display());
        return Err(Error::new(Kind::Unavailable, text));
    }
    if !bond::has_keys(&config.key_database_url).await? {
        return Err(Error::new(Kind::Unavailable, "the key database (setting key_database_url) holds no keys"));
    }
    let root = Arc::new(LocalKeyring::open_or_create(&config.keyring)?);
    let keys = KeyDb::open(&config.key_database_url).await?;
    let names: Vec<String> = keys.system_keys().await?.into_iter().map(|row| row.name).collect();
    let (id, created) = (root.id().to_owned(), root.created().to_owned());
    // Opening the vault unwraps them all: what is listed can be used.
    Vault::open(root, keys).await?;
    Ok(Said::One(json!({
        "root_key": id,
        "keyring": config.keyring.display().to_string(),
        "made": created,
        "system_keys": names,
        "all_open": true,
    })))
}

pub async fn run(office: &Office, command: &KeysCommand) -> Result<Said> {
    let oauth = &office.app.oauth;
    match command {
        KeysCommand::Rotate => {
            oauth.rotate_keys(&office.by).await?;
            Ok(Said::Done("Tokens are signed with new keys; the old ones stay published for two hours.".to_owned()))
        }
        KeysCommand::RotateVault => {
            let (epoch, rewrapped) = oauth.rotate_vault(&office.by).await?;
            let text =
                format!("Epoch {epoch} wraps patients' keys from now on; {rewrapped} keys were wrapped anew under it.");
            Ok(Said::Done(text))
        }
        KeysCommand::List | KeysCommand::Vault => {
            let rows = oauth.signing_keys().await?.into_iter().map(|key| {
                let until = key.published_until.map_or(Value::Null, time);
                json!({ "kid": key.kid, "algorithm": key.algorithm, "signs": key.published_until.is_none(), "published_until": until })
            });
            Ok(Said::Many(rows.collect()))
        }
    }
}

//! The server's parts, put together once.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, RwLock};

use super::config::Config;
use crate::access::consent;
use crate::audit::Trail;
use crate::error::{Error, Kind, Result};
use crate::fhir::date;
use crate::fhir::json::Node;
use crate::oauth;
use crate::store::keydb::KeyDb;
use crate::store::{Store, StoreConfig, bond};
use crate::vault::Vault;
use crate::vault::keyring::LocalKeyring;
use crate::world::{Instant, World};

/// What every request works with.
pub struct App {
    pub config: Config,
    pub world: Arc<World>,
    pub vault: Vault,
    pub store: Store,
    pub trail: Trail,
    pub oauth: Arc<oauth::State>,
    pub consents: consent::Shelf,
    pub started: Instant,
    /// The CapabilityStatement as last made, with the epoch of the site's search parameters in it.
    pub stated: RwLock<Option<(i64, Arc<Node>)>>,
}

impl App {
    /// Opens keyring, key database and database (all made when absent), migrates, and puts the parts together.
    ///
    /// # Errors
    /// Whatever part could not be opened, by name.
    pub async fn open(config: Config, world: Arc<World>) -> Result<App> {
        date::set_zone(&config.time_zone)?;
        let vault = Self::vault(&config).await?;
        let store_config = StoreConfig {
            url: config.database_url.clone(),
            base: config.base_url.clone(),
            readers: u32::try_from(config.readers.get()).unwrap_or(u32::MAX),
            lanes: u32::try_from(config.lanes.get()).unwrap_or(u32::MAX),
            candidates_max: config.candidates_max.size(),
        };
        let store = Store::open(store_config, vault.clone(), world.clone()).await;
        let store = store.map_err(|error| error.of_setting("database_url"))?;
        // A database that was restored from before an erasure still has what searches go by.
        store.forget(&vault.destroyed().await?).await?;
        let trail = Trail::new(store.clone(), vault.clone(), world.clone());
        let oauth = oauth::State::open(store.clone(), vault.clone(), trail.clone(), world.clone(), config.oauth()?);
        let oauth = oauth.await?;
        let (consents, started) = (consent::Shelf::default(), world.now());
        Ok(App { config, world, vault, store, trail, oauth, consents, started, stated: RwLock::default() })
    }

    /// The vault over the local keyring file and the key database.
    ///
    /// # Errors
    /// When either cannot be opened, the keyring is not the one the key database was made with, or one of them is missing
    /// from an installation that had it.
    pub async fn vault(config: &Config) -> Result<Vault> {
        Self::may_make_keys(config).await?;
        make_folder(&config.keyring)?;
        for url in [&config.database_url, &config.key_database_url] {
            if let Some(path) = url.strip_prefix("sqlite:") {
                make_folder(Path::new(path.trim_start_matches("//")))?;
            }
        }
        let root = LocalKeyring::open_or_create(&config.keyring)?;
        let keys = KeyDb::open(&config.key_database_url).await.map_err(of_keys)?;
        Vault::open(Arc::new(root), keys).await
    }

    /// New keys are made for a new installation only: what is missing of an old one has to be restored.
    async fn may_make_keys(config: &Config) -> Result<()> {
        let missing = |text: String| Err(Error::new(Kind::Unavailable, text));
        if !bond::has_keys(&config.key_database_url).await.map_err(of_keys)? {
            let used = bond::is_used(&config.database_url).await.map_err(|error| error.of_setting("database_url"))?;
            if used {
                let text = "The key database (setting key_database_url) holds no keys, but the database (setting \
                            database_url) was sealed with some: restore it; nothing is made anew.";
                return missing(text.to_owned());
            }
        } else if !config.keyring.exists() {
            let path = config.keyring.display();
            return missing(format!(
                "There is no keyring {path} (setting keyring), but the key database holds keys that were wrapped with \
                 one: restore it; nothing is made anew."
            ));
        }
        Ok(())
    }

    /// Finishes what is under way; nothing is accepted afterwards.
    pub async fn close(&self) {
        self.store.close().await;
        self.vault.close().await;
    }
}

fn of_keys(error: Error) -> Error {
    error.of_setting("key_database_url")
}

/// Makes the folder that a file is to lie in, for this user alone.
fn make_folder(file: &Path) -> Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) else {
        return Ok(());
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Error::new(Kind::Unavailable, format!("The folder {} cannot be made.", folder.display())).caused_by(error)
    })
}

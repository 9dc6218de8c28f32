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
use crate::store::{Store, StoreConfig};
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
        let store = Store::open(store_config, vault.clone(), world.clone()).await?;
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
    /// When either cannot be opened, or the keyring is not the one the key database was made with.
    pub async fn vault(config: &Config) -> Result<Vault> {
        make_folder(&config.keyring)?;
        for url in [&config.database_url, &config.key_database_url] {
            if let Some(path) = url.strip_prefix("sqlite:") {
                make_folder(Path::new(path.trim_start_matches("//")))?;
            }
        }
        let root = LocalKeyring::open_or_create(&config.keyring)?;
        let keys = KeyDb::open(&config.key_database_url).await?;
        Vault::open(Arc::new(root), keys).await
    }

    /// Finishes what is under way; nothing is accepted afterwards.
    pub async fn close(&self) {
        self.store.close().await;
    }
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

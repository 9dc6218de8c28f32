//! The server's parts, put together once.

use std::sync::Arc;

use super::config::Config;
use crate::audit::Trail;
use crate::error::Result;
use crate::store::{Store, StoreConfig};
use crate::vault::Vault;
use crate::world::World;

/// What every request works with.
pub struct App {
    pub config: Config,
    pub world: Arc<World>,
    pub vault: Vault,
    pub store: Store,
    pub trail: Trail,
}

impl App {
    /// Opens keyring, key database and database (all made when absent), migrates, and puts the parts together.
    ///
    /// # Errors
    /// Whatever part could not be opened, by name.
    pub async fn open(config: Config, world: Arc<World>) -> Result<App> {
        let vault = Self::vault(&config, &world).await?;
        let store_config = StoreConfig {
            url: config.database_url.clone(),
            base: config.base_url.clone(),
            readers: u32::try_from(config.readers.get()).unwrap_or(u32::MAX),
            lanes: u32::try_from(config.lanes.get()).unwrap_or(u32::MAX),
            candidates_max: config.candidates_max.size(),
        };
        let store = Store::open(store_config, vault.clone(), world.clone()).await?;
        let trail = Trail::new(store.clone(), vault.clone(), world.clone());
        Ok(App { config, world, vault, store, trail })
    }

    async fn vault(_config: &Config, _world: &Arc<World>) -> Result<Vault> {
        todo!("the keyring file and the key database")
    }

    /// Finishes what is under way; nothing is accepted afterwards.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

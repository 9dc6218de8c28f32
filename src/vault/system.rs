//! System keys: those that belong to no patient. Made once for all servers of one key database, held in memory.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::crypto::{Key256, Xaes, derive_key, random_key};
use super::keys::WrapKey;
use super::{KeyStore, RootKey, SystemKey, SystemRow};
use crate::error::{Error, Kind, Result};

/// The first KEK. It is made last of all, so that where any KEK stands every other key must stand too.
const FIRST_KEK: &str = "kek/1";
pub(super) const INDEX: &str = "idx/1";
/// Keys made at the first start, in this order.
const AT_FIRST_START: [&str; 5] = [INDEX, "cur/1", "lnk/1", "sec/1", FIRST_KEK];

/// Name and number (for the envelope's key id) of a system key.
pub(super) fn name_and_id(key: SystemKey) -> (String, u64) {
    match key {
        SystemKey::Cursor => ("cur/1".to_owned(), 1 << 32),
        SystemKey::Link => ("lnk/1".to_owned(), 2 << 32),
        SystemKey::Secret => ("sec/1".to_owned(), 3 << 32),
        SystemKey::Audit { month } => {
            let (year, month_of_year) = (month.div_euclid(12), month.rem_euclid(12) + 1);
            (format!("aud/{year:04}-{month_of_year:02}"), (4 << 32) | u64::from(month as u32))
        }
    }
}

/// Epoch of the key that [`name_and_id`] names. The keys have one epoch until a later scheme gives them more.
pub(super) const EPOCH: u16 = 1;

/// Root key, key database, and the system keys as far as they are unwrapped.
pub(super) struct SystemKeys {
    root: Arc<dyn RootKey>,
    store: Arc<dyn KeyStore>,
    ready: RwLock<Ready>,
}

#[derive(Default)]
struct Ready {
    keks: HashMap<u16, Arc<WrapKey>>,
    newest: u16,
    seals: HashMap<String, Arc<Xaes>>,
}

impl SystemKeys {
    /// Loads what stands; on an empty key database makes what is missing. Gives the index key beside it.
    ///
    /// # Errors
    /// `Kind::Tampered` when the root key does not open what stands; `Kind::Unavailable` when a part is missing from
    /// a key database that was complete once: a new key in its place would make data unreadable or unfindable.
    pub(super) async fn open(root: Arc<dyn RootKey>, store: Arc<dyn KeyStore>) -> Result<(SystemKeys, Key256)> {
        let keys = SystemKeys { root, store, ready: RwLock::default() };
        let mut rows = keys.store.system_keys().await?;
        let started = rows.iter().any(|row| row.name.starts_with("kek/"));
        for name in AT_FIRST_START {
            if rows.iter().any(|row| row.name == name) {
                continue;
            }
            if started {
                let said = format!("The key database lacks its system key {name}: restore it; nothing is made anew.");
                return Err(Error::new(Kind::Unavailable, said));
            }
            rows.push(keys.make(name).await?);
        }
        let mut index = None;
        for row in &rows {
            if row.name == INDEX {
                index = Some(keys.unwrap(row).await?);
            } else if !row.name.starts_with("aud/") {
                keys.admit(row).await?;
            }
        }
        let index = index.ok_or_else(|| Error::internal("no index key"))?;
        Ok((keys, index))
    }

    async fn make(&self, name: &str) -> Result<SystemRow> {
        let secret = random_key();
        let wrapped = self.root.wrap(&context(name), &secret).await?;
        // Another server may have been first: the row that stands is the key.
        self.store.put_system_key(SystemRow { name: name.to_owned(), wrapped }).await
    }

    async fn unwrap(&self, row: &SystemRow) -> Result<Key256> {
        self.root.unwrap(&context(&row.name), &row.wrapped).await
    }

    /// Unwraps a row and keeps it ready. Rows of kinds this version does not know are left alone.
    async fn admit(&self, row: &SystemRow) -> Result<()> {
        if let Some(epoch) = row.name.strip_prefix("kek/") {
            let epoch = epoch.parse::<u16>().map_err(Error::internal)?;
            let kek = Arc::new(WrapKey::new(&self.unwrap(row).await?));
            let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
            ready.newest = ready.newest.max(epoch);
            ready.keks.insert(epoch, kek);
        } else if ["aud/", "cur/", "lnk/", "sec/"].iter().any(|kind| row.name.starts_with(kind)) {
            let secret = self.unwrap(row).await?;
            let seal = Arc::new(Xaes::new(&derive_key(&secret, &[b"system-seal"])));
            self.ready.write().unwrap_or_else(PoisonError::into_inner).seals.insert(row.name.clone(), seal);
        }
        Ok(())
    }

    /// Loads the row of a name from the key database, if it stands there.
    async fn load(&self, name: &str) -> Result<bool> {
        match self.store.system_keys().await?.iter().find(|row| row.name == name) {
            Some(row) => self.admit(row).await.map(|()| true),
            None => Ok(false),
        }
    }

    fn ready_seal(&self, name: &str) -> Option<Arc<Xaes>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).seals.get(name).cloned()
    }

    fn ready_kek(&self, epoch: u16) -> Option<Arc<WrapKey>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).keks.get(&epoch).cloned()
    }

    /// The key for sealing: made when it is absent (the audit key of a new month).
    pub(super) async fn seal_key(&self, name: &str) -> Result<Arc<Xaes>> {
        if let Some(key) = self.ready_seal(name) {
            return Ok(key);
        }
        let row = self.make(name).await?;
        self.admit(&row).await?;
        self.ready_seal(name).ok_or_else(|| Error::internal("no such system key"))
    }

    /// The key for opening: never made. None when it does not exist (any more).
    pub(super) async fn open_key(&self, name: &str) -> Result<Option<Arc<Xaes>>> {
        if let Some(key) = self.ready_seal(name) {
            return Ok(Some(key));
        }
        self.load(name).await?;
        Ok(self.ready_seal(name))
    }

    /// The wrapping key of an epoch, and None when there is none. One that another server began is loaded.
    pub(super) async fn kek(&self, epoch: u16) -> Result<Option<Arc<WrapKey>>> {
        if let Some(kek) = self.ready_kek(epoch) {
            return Ok(Some(kek));
        }
        self.load(&format!("kek/{epoch}")).await?;
        Ok(self.ready_kek(epoch))
    }

    /// The wrapping key for new data keys, with its epoch.
    pub(super) fn newest_kek(&self) -> Result<(u16, Arc<WrapKey>)> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let kek = ready.keks.get(&ready.newest).cloned().ok_or_else(|| Error::internal("no KEK"))?;
        Ok((ready.newest, kek))
    }

    /// Begins a new KEK epoch: new data keys are wrapped under it, those of earlier epochs stay readable.
    pub(super) async fn begin_epoch(&self) -> Result<u16> {
        let newest = self.newest_kek()?.0;
        let epoch = newest.checked_add(1).ok_or_else(|| Error::internal("KEK epochs are used up"))?;
        let row = self.make(&format!("kek/{epoch}")).await?;
        self.admit(&row).await?;
        Ok(epoch)
    }

    pub(super) fn store(&self) -> &dyn KeyStore {
        &*self.store
    }
}

/// What the root key authenticates with a key (KMS: the encryption context).
fn context(name: &str) -> String {
    format!("phial/v1 tenant=default key={name}")
}

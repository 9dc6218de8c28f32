//! A space of the store's keyed values, sealed and typed: users, sessions, authorizations. Names are blinded, values
//! sealed to their place.

use std::marker::PhantomData;
use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result, unless_tampered};
use crate::store::{Life, Store};
use crate::vault::{SystemKey, Vault};
use crate::world::{Instant, hex};

/// Rows that are looked through in one go.
const ALTERED_AT_ONCE: usize = 500;
/// Times that a change is tried anew when somebody else was first.
const TRIES_MAX: usize = 16;

/// Things of one type. Clones are cheap.
pub struct Shelf<T> {
    store: Store,
    vault: Vault,
    space: &'static str,
    of: PhantomData<fn() -> T>,
    /// How many were opened, for tests of what a list costs.
    #[cfg(test)]
    pub(super) opened: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

/// A thing as it was read, and what is needed to change just that.
pub struct Held<T> {
    value: T,
    key: Vec<u8>,
    sealed: Vec<u8>,
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Held<T> {
    /// The blinded name.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Shelf {
            store: self.store.clone(),
            vault: self.vault.clone(),
            space: self.space,
            of: PhantomData,
            #[cfg(test)]
            opened: self.opened.clone(),
        }
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Shelf<T> {
    pub fn new(store: &Store, vault: &Vault, space: &'static str) -> Shelf<T> {
        Shelf {
            store: store.clone(),
            vault: vault.clone(),
            space,
            of: PhantomData,
            #[cfg(test)]
            opened: Default::default(),
        }
    }

    fn key(&self, name: &str) -> [u8; 16] {
        self.vault.token(self.space, name.as_bytes())
    }

    /// The blind token under which the things of an owner are found.
    fn owner(&self, name: &str) -> Vec<u8> {
        self.vault.token("kv-owner", name.as_bytes()).to_vec()
    }

    fn life(&self, expires: Option<Instant>, owner: Option<&str>) -> Life {
        Life { expires, owner: owner.map(|owner| self.owner(owner)) }
    }

    async fn sealed(&self, key: &[u8], value: &T) -> Result<Vec<u8>> {
        let plain = Zeroizing::new(serde_json::to_vec(value).map_err(Error::internal)?);
        self.vault.seal_system(SystemKey::Secret, &self.aad(key), &plain).await
    }

    async fn open(&self, key: Vec<u8>, sealed: Vec<u8>) -> Result<Held<T>> {
        #[cfg(test)]
        self.opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let plain = self.vault.open_system(SystemKey::Secret, &self.aad(&key), &sealed).await;
        let plain = plain.map_err(|error| error.of_tampered(self.space))?;
        let value = serde_json::from_slice(&plain).map_err(Error::internal)?;
        Ok(Held { value, key, sealed })
    }

    fn aad(&self, key: &[u8]) -> Vec<u8> {
        [self.space.as_bytes(), key].concat()
    }

    pub async fn get(&self, name: &str) -> Result<Option<Held<T>>> {
        self.get_by_key(&self.key(name)).await
    }

    /// By the name as [`Held::key`] gives it.
    pub async fn get_by_key(&self, key: &[u8]) -> Result<Option<Held<T>>> {
        match self.store.kv_get(self.space, key).await? {
            Some(sealed) => self.open(key.to_vec(), sealed).await.map(Some),
            None => Ok(None),
        }
    }

    /// Keeps a new thing. False: there is one of this name.
    pub async fn insert(&self, name: &str, value: &T, expires: Option<Instant>, owner: Option<&str>) -> Result<bool> {
        let key = self.key(name);
        let sealed = self.sealed(&key, value).await?;
        self.store.kv_insert_new_for(self.space, &key, &sealed, self.life(expires, owner)).await
    }

    /// Changes a thing if nobody else has since it was read. False: somebody has.
    pub async fn swap(&self, held: &Held<T>, value: &T, expires: Option<Instant>) -> Result<bool> {
        let sealed = self.sealed(&held.key, value).await?;
        self.store.kv_swap(self.space, &held.key, &held.sealed, &sealed, expires).await
    }

    /// Changes the thing of this name, whoever else does; it keeps its owner and gets this end. None: there is none.
    ///
    /// # Errors
    /// What `change` has against it.
    pub async fn change<R>(
        &self,
        name: &str,
        expires: Option<Instant>,
        change: impl Fn(&mut T) -> Result<R>,
    ) -> Result<Option<(T, R)>> {
        for _ in 0..TRIES_MAX {
            let Some(held) = self.get(name).await? else { return Ok(None) };
            let mut value = held.value.clone();
            let result = change(&mut value)?;
            if self.swap(&held, &value, expires).await? {
                return Ok(Some((value, result)));
            }
        }
        Err(Error::new(Kind::Conflict, "Others change the same thing all the time. Try again."))
    }

    /// Keeps a thing of an owner, whatever was there.
    pub async fn put(&self, name: &str, value: &T, owner: Option<&str>) -> Result<()> {
        let key = self.key(name);
        let sealed = self.sealed(&key, value).await?;
        self.store.kv_put_for(self.space, &key, &sealed, self.life(None, owner)).await
    }

    /// True: it was there.
    pub async fn delete(&self, name: &str) -> Result<bool> {
        self.store.kv_delete(self.space, &self.key(name)).await
    }

    pub async fn delete_by_key(&self, key: &[u8]) -> Result<bool> {
        self.store.kv_delete(self.space, key).await
    }

    pub async fn all(&self) -> Result<Vec<Held<T>>> {
        self.opened(self.store.kv_list(self.space).await?).await
    }

    /// At most `limit` of all, or of an owner's, whose keys come after this one; ordered by key, which is no order of
    /// names.
    pub async fn page(&self, owner: Option<&str>, after: &[u8], limit: usize) -> Result<Vec<Held<T>>> {
        let owner = owner.map(|owner| self.owner(owner));
        self.opened(self.store.kv_page(self.space, owner.as_deref(), after, limit).await?).await
    }

    /// How many there are, or are of an owner; nothing is opened.
    pub async fn count(&self, owner: Option<&str>) -> Result<usize> {
        let owner = owner.map(|owner| self.owner(owner));
        self.store.kv_count(self.space, owner.as_deref()).await
    }

    pub async fn owned(&self, owner: &str) -> Result<Vec<Held<T>>> {
        self.opened(self.store.kv_list_owned(self.space, &self.owner(owner)).await?).await
    }

    /// Gives how many there were.
    pub async fn delete_owned(&self, owner: &str) -> Result<u64> {
        self.store.kv_delete_owned(self.space, &self.owner(owner)).await
    }

    /// Those that do not open as they stand, by their blinded names.
    pub async fn altered(&self) -> Result<Vec<String>> {
        let (mut altered, mut after) = (Vec::new(), Vec::new());
        loop {
            let rows = self.store.kv_page(self.space, None, &after, ALTERED_AT_ONCE).await?;
            let Some((last, _)) = rows.last() else { return Ok(altered) };
            after = last.clone();
            for (key, sealed) in rows {
                if unless_tampered(self.open(key.clone(), sealed).await)?.is_none() {
                    altered.push(format!("{} {}", self.space, hex(&key)));
                }
            }
        }
    }

    async fn opened(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<Held<T>>> {
        let mut out = Vec::with_capacity(rows.len());
        for (key, sealed) in rows {
            out.push(self.open(key, sealed).await?);
        }
        Ok(out)
    }
}

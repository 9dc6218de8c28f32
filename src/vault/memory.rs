//! A key database and a root key that live in memory: for tests of every room, never for a server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending, ready};
use zeroize::Zeroizing;

use super::keyring::LocalKeyring;
use super::{DekRow, KeyStore, Pk, RootKey, SystemRow, Vault};
use crate::error::Result;
use crate::world::World;

/// A key database in memory.
#[derive(Default)]
pub struct MemoryKeys {
    system: Mutex<BTreeMap<String, SystemRow>>,
    data: Mutex<BTreeMap<(i64, u16), DekRow>>,
    /// Whether it never says which keys are destroyed.
    silent: AtomicBool,
}

impl MemoryKeys {
    /// Lets a test alter the rows of the data keys.
    pub fn alter(&self, change: impl FnMut(&mut DekRow)) {
        self.data.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(change);
    }

    /// Lets a test alter the rows of the system keys.
    pub fn alter_system(&self, change: impl FnMut(&mut SystemRow)) {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).values_mut().for_each(change);
    }

    /// Lets a test break off the question which keys are destroyed.
    pub fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// Removes a system key, as a damaged or partly restored database would.
    pub fn lose_system(&self, name: &str) {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl KeyStore for MemoryKeys {
    fn system_keys(&self) -> BoxFuture<'_, Result<Vec<SystemRow>>> {
        let rows = self.system.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        ready(Ok(rows)).boxed()
    }

    fn put_system_key(&self, row: SystemRow) -> BoxFuture<'_, Result<SystemRow>> {
        let mut system = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = system.entry(row.name.clone()).or_insert(row).clone();
        ready(Ok(standing)).boxed()
    }

    fn data_keys<'a>(&'a self, pks: &'a [Pk]) -> BoxFuture<'a, Result<Vec<DekRow>>> {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let rows =
            pks.iter().flat_map(|pk| data.range((pk.0, 0)..=(pk.0, u16::MAX))).map(|(_, row)| row.clone()).collect();
        ready(Ok(rows)).boxed()
    }

    fn put_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<Vec<DekRow>>> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = rows.into_iter().map(|row| data.entry((row.pk.0, row.version)).or_insert(row).clone()).collect();
        ready(Ok(standing)).boxed()
    }

    fn data_keys_before(&self, epoch: u16, after: (Pk, u16), most: usize) -> BoxFuture<'_, Result<Vec<DekRow>>> {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let later = data.values().filter(|row| (row.pk, row.version) > after);
        let rows = later.filter(|row| !row.is_destroyed() && row.epoch < epoch).take(most).cloned().collect();
        ready(Ok(rows)).boxed()
    }

    fn rewrap_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<()>> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let same = |old: &&mut DekRow| old.commitment == row.commitment && old.epoch < row.epoch;
            if let Some(old) = data.get_mut(&(row.pk.0, row.version)).filter(same) {
                *old = row;
            }
        }
        ready(Ok(())).boxed()
    }

    fn destroyed(&self) -> BoxFuture<'_, Result<Vec<Pk>>> {
        if self.silent.load(Ordering::SeqCst) {
            return pending().boxed();
        }
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        ready(Ok(data.values().filter(|row| row.is_destroyed()).map(|row| row.pk).collect())).boxed()
    }

    fn count_destroyed(&self) -> BoxFuture<'_, Result<u64>> {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        ready(Ok(data.values().filter(|row| row.is_destroyed()).count() as u64)).boxed()
    }

    fn destroy_data_keys(&self, pk: Pk) -> BoxFuture<'_, Result<()>> {
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        data.retain(|(of, _), _| *of != pk.0);
        data.insert((pk.0, 0), DekRow::destroyed(pk));
        ready(Ok(())).boxed()
    }
}

/// A random root key in memory.
pub struct MemoryRoot(LocalKeyring);

impl MemoryRoot {
    pub fn new() -> Self {
        MemoryRoot(LocalKeyring::random(&World::real()))
    }
}

impl Default for MemoryRoot {
    fn default() -> Self {
        MemoryRoot::new()
    }
}

impl RootKey for MemoryRoot {
    fn wrap<'a>(&'a self, context: &'a str, key: &'a [u8; 32]) -> BoxFuture<'a, Result<Vec<u8>>> {
        self.0.wrap(context, key)
    }

    fn unwrap<'a>(&'a self, context: &'a str, wrapped: &'a [u8]) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>>> {
        self.0.unwrap(context, wrapped)
    }
}

/// A vault with fresh keys over [`MemoryKeys`], opened without a runtime.
///
/// # Panics
/// Never: nothing here waits or fails.
pub fn vault() -> Vault {
    Vault::open(Arc::new(MemoryRoot::new()), Arc::new(MemoryKeys::default()))
        .now_or_never()
        .expect("nothing in memory waits")
        .expect("a vault opens over an empty key database")
}

//! Keys, envelopes, blind terms. Seals and opens bytes; must not know FHIR.
//!
//! Hierarchy (ENCRYPTION design, 2.1): root key (local keyring file or KMS) wraps the system keys (KEK per epoch,
//! IDX for terms, AUD per month for audit, CUR for cursors, LNK for compartment links); the KEK wraps one data key per surrogate.

pub mod keyring;
pub mod memory;

#[cfg(feature = "bench-switches")]
mod bench;
mod blind;
mod crypto;
mod envelope;
mod erasures;
mod keys;
mod opened;
mod phi;
mod system;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use moka::sync::Cache;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

pub use envelope::PLAIN_MAX;
pub use keys::Keys;
pub use opened::{Plain, Which};
pub use phi::Phi;

use blind::Blind;
use erasures::Erasures;
use opened::Opened;
use system::SystemKeys;

/// Row id: random, never sequential, never the FHIR id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rid(pub i64);

/// Compartment surrogate: whose key seals the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pk(pub i64);

/// Wraps the system keys. A KMS or a local keyring file.
pub trait RootKey: Send + Sync {
    /// `context` is authenticated with the key (KMS: the encryption context).
    fn wrap<'a>(&'a self, context: &'a str, key: &'a [u8; 32]) -> BoxFuture<'a, Result<Vec<u8>>>;
    fn unwrap<'a>(&'a self, context: &'a str, wrapped: &'a [u8]) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>>>;
}

/// A wrapped system key as the key database holds it.
#[derive(Clone)]
pub struct SystemRow {
    /// `kek/1`, `idx/1`, `aud/2026-11`, `cur/1`, `lnk/1`.
    pub name: String,
    pub wrapped: Vec<u8>,
}

/// A wrapped data key as the key database holds it.
#[derive(Clone)]
pub struct DekRow {
    pub pk: Pk,
    pub version: u16,
    /// Epoch of the KEK that wraps it.
    pub epoch: u16,
    pub wrapped: Vec<u8>,
    /// HKDF "commit" of the key: GCM alone does not commit to it.
    pub commitment: [u8; 16],
}

impl DekRow {
    /// What stands in the place of a destroyed key: so a surrogate that was never given one is told apart from it.
    pub fn destroyed(pk: Pk) -> DekRow {
        DekRow { pk, version: 0, epoch: 0, wrapped: Vec::new(), commitment: [0; 16] }
    }

    pub fn is_destroyed(&self) -> bool {
        self.version == 0
    }
}

/// The key database, apart from the data: own location, credentials and backup rules. Implemented by `store::keydb`.
pub trait KeyStore: Send + Sync {
    fn system_keys(&self) -> BoxFuture<'_, Result<Vec<SystemRow>>>;
    /// Inserts unless a row of that name exists; gives the row that stands.
    fn put_system_key(&self, row: SystemRow) -> BoxFuture<'_, Result<SystemRow>>;
    /// All versions of the keys of these surrogates; of a destroyed one its mark, of an unknown one nothing.
    fn data_keys<'a>(&'a self, pks: &'a [Pk]) -> BoxFuture<'a, Result<Vec<DekRow>>>;
    /// Inserts those that are absent, durably, in one commit; gives the rows that stand, for all of them.
    fn put_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<Vec<DekRow>>>;
    /// Rows of epochs before this one, after a surrogate and version, in their order, so many at most.
    fn data_keys_before(&self, epoch: u16, after: (Pk, u16), most: usize) -> BoxFuture<'_, Result<Vec<DekRow>>>;
    /// Puts rows in the place of those of the same surrogate, version and commitment that are of an earlier epoch, in one
    /// commit. One that was destroyed meanwhile stays destroyed.
    fn rewrap_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<()>>;
    /// All surrogates whose keys were destroyed.
    fn destroyed(&self) -> BoxFuture<'_, Result<Vec<Pk>>>;
    /// How many they are: it only grows. Asked every few seconds.
    fn count_destroyed(&self) -> BoxFuture<'_, Result<u64>>;
    /// Destroys every version of a patient's key and leaves [`DekRow::destroyed`] in its place.
    fn destroy_data_keys(&self, pk: Pk) -> BoxFuture<'_, Result<()>>;
    /// Ends its connections; one that is needed later is made anew.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// What a sealed text is, where it belongs: all of it is authenticated, so that it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub purpose: Purpose,
    /// `fhir::TypeId` number.
    pub rtype: u16,
    pub rid: Rid,
    pub version: u32,
    /// Number of a section, each of which has a subkey of its own; 0 where there are none.
    pub section: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    Body = 1,
    Capsule = 2,
    Blob = 3,
    Domain = 4,
}

/// System keys that seal small things which belong to no patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemKey {
    /// Audit entries of a month (months since year 0).
    Audit {
        month: i32,
    },
    Cursor,
    Link,
    /// OAuth secrets, signing keys, settings.
    Secret,
}

/// Parts of a blind term (design 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermPlace {
    pub rtype: u16,
    pub param: u16,
    /// Normalisation and form number, so that forms never collide.
    pub form: u8,
    pub partition: u8,
}

/// Most surrogates whose keys are kept unwrapped, and how long. A destroyed key stops working everywhere long before
/// (see `erasures`).
/// A surrogate takes some 1.2 KB with the subkeys of its sections, so this many take at most 25 MB.
const CACHED_MAX: u64 = 20_000;
const CACHED_FOR: Duration = Duration::from_secs(600);
/// Data keys that are wrapped anew in one commit.
const REWRAP_AT_ONCE: usize = 500;

/// Seals and opens. One for the whole server; clones are cheap.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    system: SystemKeys,
    blind: Blind,
    cache: Cache<Pk, Arc<Keys>>,
    opened: Opened,
    erasures: Erasures,
}

/// What the key database knows of a surrogate.
#[derive(Clone)]
enum Known {
    Keys(Arc<Keys>),
    Destroyed,
    Unknown,
}

fn erased() -> Error {
    Error::new(crate::error::Kind::Gone, "The record was erased; nothing can be added to it.")
}

impl Vault {
    /// Loads the system keys, making them on an empty key database (first start). Two servers that start at once on
    /// one key database end with the same keys.
    ///
    /// # Errors
    /// `Kind::Tampered` when the root key does not open them, `Kind::Unavailable` when some of them are missing.
    pub async fn open(root: Arc<dyn RootKey>, keys: Arc<dyn KeyStore>) -> Result<Vault> {
        let (system, index) = SystemKeys::open(root, keys).await?;
        let cache = Cache::builder().max_capacity(CACHED_MAX).time_to_live(CACHED_FOR).build();
        let (blind, erasures, opened) = (Blind::new(&index), Erasures::new(), Opened::new());
        Ok(Vault { inner: Arc::new(Inner { system, blind, cache, opened, erasures }) })
    }

    /// The keys of these surrogates, from the cache or in one query, in the same order. None where destroyed.
    ///
    /// # Errors
    /// `Kind::Tampered` when a key record does not verify, or for a surrogate that never had a key: keys are durable
    /// before anything is sealed under them, so such a surrogate was not written by this server.
    pub async fn keys(&self, pks: &[Pk]) -> Result<Vec<Option<Arc<Keys>>>> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return Ok(self.stand_in_keys(pks).into_iter().map(Some).collect());
        }
        if let Some(cached) = pks.iter().map(|pk| self.cached_keys(*pk).map(Some)).collect() {
            return Ok(cached);
        }
        let found = Box::pin(self.known(pks)).await?.into_iter().map(|known| match known {
            Known::Keys(keys) => Ok(Some(keys)),
            Known::Destroyed => Ok(None),
            Known::Unknown => Err(Error::tampered("surrogate")),
        });
        found.collect()
    }

    /// Whether the key database answers.
    pub async fn ping(&self) -> Result<()> {
        // A surrogate that no row has: it must look, and finds nothing.
        self.inner.system.store().data_keys(&[Pk(0)]).await.map(|_| ())
    }

    /// Lets the key database go, so that all of it lies in its file.
    pub async fn close(&self) {
        self.inner.opened.forget_all();
        self.inner.system.store().close().await;
    }

    /// What is known of these surrogates, in the same order.
    async fn known(&self, pks: &[Pk]) -> Result<Vec<Known>> {
        let Inner { system, cache, erasures, .. } = &*self.inner;
        self.look().await?;
        let before = erasures.count();
        let cached: Vec<Option<Arc<Keys>>> = pks.iter().map(|pk| cache.get(pk)).collect();
        let missing = missing(pks, &cached);
        let mut loaded = HashMap::new();
        if !missing.is_empty() {
            let rows = system.store().data_keys(&missing).await?;
            loaded = self.unwrap(rows, before).await?;
        }
        let known = pks.iter().zip(cached).map(|(pk, cached)| match cached {
            Some(keys) => Known::Keys(keys),
            None => loaded.get(pk).cloned().unwrap_or(Known::Unknown),
        });
        Ok(known.collect())
    }

    /// Learns of keys that other processes destroyed, unless it did so just now.
    async fn look(&self) -> Result<()> {
        let Inner { system, cache, opened, erasures, .. } = &*self.inner;
        let forget = |destroyed: &[Pk]| {
            destroyed.iter().for_each(|pk| cache.invalidate(pk));
            opened.forget_all();
        };
        let done = erasures.look(system.store(), forget).await;
        // Whose keys are destroyed is not known: content may be anybody's.
        if done.is_err() || !erasures.are_counted() {
            opened.forget_all();
        }
        done
    }

    /// The same, from the cache alone; None when the key database has to be asked (hot path without await).
    pub fn cached_keys(&self, pk: Pk) -> Option<Arc<Keys>> {
        self.inner.cache.get(&pk).filter(|_| self.inner.erasures.are_known())
    }

    /// The keys of these surrogates; those that are absent are made, durable before this returns.
    ///
    /// # Errors
    /// `Kind::Gone` for a destroyed one: nothing is ever sealed under it again.
    pub async fn keys_or_new(&self, pks: &[Pk]) -> Result<Vec<Arc<Keys>>> {
        #[cfg(feature = "bench-switches")]
        if crate::world::bench::off().encryption {
            return Ok(self.stand_in_keys(pks));
        }
        let found = self.known(pks).await?;
        let before = self.inner.erasures.count();
        let mut missing: Vec<Pk> =
            pks.iter().zip(&found).filter(|(_, known)| matches!(known, Known::Unknown)).map(|(pk, _)| *pk).collect();
        missing.sort_unstable();
        missing.dedup();
        let mut made = HashMap::new();
        if !missing.is_empty() {
            let (epoch, kek) = self.inner.system.newest_kek()?;
            let rows = missing.iter().map(|pk| kek.new_row(*pk, 1, epoch)).collect::<Result<Vec<_>>>()?;
            // Another server may have been first: the rows that stand are the keys.
            made = self.unwrap(self.inner.system.store().put_data_keys(rows).await?, before).await?;
        }
        let keys = pks.iter().zip(found).map(|(pk, found)| match made.get(pk).cloned().unwrap_or(found) {
            Known::Keys(keys) => Ok(keys),
            Known::Destroyed => Err(erased()),
            Known::Unknown => Err(Error::internal("the key database did not keep a new data key")),
        });
        keys.collect()
    }

    /// Unwraps rows, all versions of a surrogate together, and caches the keys. `before` is how many keys had been
    /// destroyed when the rows were read.
    async fn unwrap(&self, rows: Vec<DekRow>, before: u64) -> Result<HashMap<Pk, Known>> {
        let destroyed: Vec<Pk> = rows.iter().filter(|row| row.is_destroyed()).map(|row| row.pk).collect();
        let mut versions: HashMap<Pk, Vec<keys::DataKey>> = HashMap::new();
        // The mark wins over a key that another server was about to make.
        for row in rows.into_iter().filter(|row| !destroyed.contains(&row.pk)) {
            let kek = self.inner.system.kek(row.epoch).await?.ok_or_else(|| Error::tampered("data key"))?;
            versions.entry(row.pk).or_default().push(kek.unwrap(&row)?);
        }
        let mut ready: HashMap<Pk, Known> = destroyed.into_iter().map(|pk| (pk, Known::Destroyed)).collect();
        for (pk, versions) in versions {
            if let Some(keys) = Keys::new(pk, versions).map(Arc::new) {
                self.inner.cache.insert(pk, keys.clone());
                // Destroyed while it was on its way: whoever found that out may have been too early for it.
                if self.inner.erasures.count() != before {
                    self.inner.cache.invalidate(&pk);
                }
                ready.insert(pk, Known::Keys(keys));
            }
        }
        Ok(ready)
    }

    /// Destroys every version of a surrogate's key: what it sealed can never be opened again, here at once and on
    /// other servers when they next ask how many are destroyed (2 seconds; see `erasures`).
    pub async fn destroy(&self, pk: Pk) -> Result<()> {
        self.inner.system.store().destroy_data_keys(pk).await?;
        self.inner.cache.invalidate(&pk);
        self.inner.opened.forget_all();
        Ok(())
    }

    /// All surrogates whose keys were destroyed.
    pub async fn destroyed(&self) -> Result<Vec<Pk>> {
        self.inner.system.store().destroyed().await
    }

    /// Whether a surrogate's keys were destroyed, as the key database has it now; then they are forgotten here too.
    pub async fn is_destroyed(&self, pk: Pk) -> Result<bool> {
        let destroyed = self.inner.system.store().data_keys(&[pk]).await?.iter().any(DekRow::is_destroyed);
        if destroyed {
            self.inner.cache.invalidate(&pk);
            self.inner.opened.forget_all();
        }
        Ok(destroyed)
    }

    /// Wraps all data keys of earlier epochs under the newest KEK; gives how many. What they seal stays as it is. May be
    /// broken off and begun again.
    ///
    /// # Errors
    /// `Kind::Tampered` when a key record does not verify: it stays as it is.
    pub async fn rewrap(&self) -> Result<u64> {
        let (epoch, newest) = self.inner.system.newest_kek()?;
        let (mut after, mut done) = ((Pk(i64::MIN), 0), 0);
        loop {
            let rows = self.inner.system.store().data_keys_before(epoch, after, REWRAP_AT_ONCE).await?;
            let Some(last) = rows.last() else { return Ok(done) };
            after = (last.pk, last.version);
            let mut wrapped = Vec::with_capacity(rows.len());
            for row in &rows {
                let kek = self.inner.system.kek(row.epoch).await?.ok_or_else(|| Error::tampered("data key"))?;
                wrapped.push(newest.rewrapped(row, &kek, epoch)?);
            }
            done += wrapped.len() as u64;
            self.inner.system.store().rewrap_data_keys(wrapped).await?;
        }
    }

    /// Begins a new KEK epoch and gives its number: data keys made from now on are wrapped under it, those of earlier
    /// epochs stay readable. Other servers take it up when they meet a key of it.
    pub async fn begin_epoch(&self) -> Result<u16> {
        self.inner.system.begin_epoch().await
    }

    /// Blind term of a value, given in parts: first 8 bytes of HMAC-SHA-256 under the index key, as i64.
    pub fn term(&self, place: &TermPlace, value: &[&[u8]]) -> i64 {
        self.inner.blind.term(place, value)
    }

    /// The partition (0..partitions) in which rows of a surrogate derive a parameter's terms.
    pub fn partition(&self, pk: Pk, partitions: u8) -> u8 {
        self.inner.blind.partition(pk, partitions)
    }

    /// Blind 128-bit token for unique columns (`id`, `mrn`, `jti`, `compartment`): `domain` separates the uses.
    pub fn token(&self, domain: &str, value: &[u8]) -> [u8; 16] {
        self.inner.blind.token(domain, value)
    }

    /// Seals a small thing under a system key (XAES-256-GCM: these keys see very many messages). `aad` binds it to
    /// its place. The audit key of a month is made when it is first needed.
    pub async fn seal_system(&self, key: SystemKey, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let (name, id) = system::name_and_id(key);
        let key = self.inner.system.seal_key(&name).await?;
        envelope::seal_system(&key, system::EPOCH, id, &name, aad, plain)
    }

    /// # Errors
    /// `Kind::Tampered` when it does not verify, or when the key of its month no longer exists.
    pub async fn open_system(&self, key: SystemKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let (name, id) = system::name_and_id(key);
        let tampered = || Error::tampered("system-sealed value");
        let key = self.inner.system.open_key(&name).await?.ok_or_else(tampered)?;
        envelope::open_system(&key, system::EPOCH, id, &name, aad, sealed).ok_or_else(tampered)
    }
}

/// The surrogates without keys, each once.
fn missing<T>(pks: &[Pk], found: &[Option<T>]) -> Vec<Pk> {
    let mut missing: Vec<Pk> = pks.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(pk, _)| *pk).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

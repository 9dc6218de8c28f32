//! Keys, envelopes, blind terms. Seals and opens bytes; must not know FHIR.
//!
//! Hierarchy (ENCRYPTION design, 2.1): root key (local keyring file or KMS) wraps the system keys (KEK per epoch,
//! IDX for terms, AUD per month for audit, CUR for cursors, LNK for compartment links); the KEK wraps one data key per surrogate.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use crate::error::Result;
use crate::world::World;

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

/// The key database, apart from the data: own location, credentials and backup rules. Implemented by `store::keydb`.
pub trait KeyStore: Send + Sync {
    fn system_keys(&self) -> BoxFuture<'_, Result<Vec<SystemRow>>>;
    /// Inserts unless a row of that name exists; gives the row that stands.
    fn put_system_key(&self, row: SystemRow) -> BoxFuture<'_, Result<SystemRow>>;
    /// All versions of the keys of these surrogates; unknown or destroyed ones are left out.
    fn data_keys<'a>(&'a self, pks: &'a [Pk]) -> BoxFuture<'a, Result<Vec<DekRow>>>;
    /// Inserts those that are absent, durably, in one commit; gives the rows that stand, for all of them.
    fn put_data_keys(&self, rows: Vec<DekRow>) -> BoxFuture<'_, Result<Vec<DekRow>>>;
    /// Destroys every version of a patient's key.
    fn destroy_data_keys(&self, pk: Pk) -> BoxFuture<'_, Result<()>>;
}

/// What a sealed text is, where it belongs: all of it is authenticated, so that it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub purpose: Purpose,
    /// `fhir::TypeId` number.
    pub rtype: u16,
    pub rid: Rid,
    pub version: u32,
    /// `mapping::Section` number; 0 where there are no sections.
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

/// The keys of one surrogate, ready to use.
pub struct Keys {}

impl Keys {
    /// Seals: compresses, pads, encrypts under the newest version of the key.
    pub fn seal(&self, _place: &Place, _plain: &[u8]) -> Result<Vec<u8>> {
        todo!()
    }

    /// # Errors
    /// `Kind::Tampered` when it does not verify at this place.
    pub fn open(&self, _place: &Place, _sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        todo!()
    }
}

/// Seals and opens. One for the whole server; clones are cheap.
#[derive(Clone)]
pub struct Vault {}

impl Vault {
    /// Loads the system keys, making those that are absent (first start).
    pub async fn open(_root: Arc<dyn RootKey>, _keys: Arc<dyn KeyStore>, _world: Arc<World>) -> Result<Vault> {
        todo!()
    }

    /// The keys of these surrogates, from the cache or in one query, in the same order. None where destroyed or unknown.
    pub async fn keys(&self, _pks: &[Pk]) -> Result<Vec<Option<Arc<Keys>>>> {
        todo!()
    }

    /// The same, from the cache alone; None when it has to be loaded (hot path without await).
    pub fn cached_keys(&self, _pk: Pk) -> Option<Arc<Keys>> {
        todo!()
    }

    /// The keys of these surrogates; those that are absent are made, durable before this returns.
    pub async fn keys_or_new(&self, _pks: &[Pk]) -> Result<Vec<Arc<Keys>>> {
        todo!()
    }

    /// Blind term: first 8 bytes of HMAC-SHA-256 under the index key, as i64.
    pub fn term(&self, _place: &TermPlace, _value: &[u8]) -> i64 {
        todo!()
    }

    /// The partition (0..partitions) in which rows of a surrogate derive a parameter's terms.
    pub fn partition(&self, _pk: Pk, _partitions: u8) -> u8 {
        todo!()
    }

    /// Blind 128-bit token for unique columns (`id`, `mrn`, `jti`, `compartment`): `domain` separates the uses.
    pub fn token(&self, _domain: &str, _value: &[u8]) -> [u8; 16] {
        todo!()
    }

    /// Seals a small thing under a system key. `aad` binds it to its place.
    pub async fn seal_system(&self, _key: SystemKey, _aad: &[u8], _plain: &[u8]) -> Result<Vec<u8>> {
        todo!()
    }

    /// # Errors
    /// `Kind::Tampered` when it does not verify.
    pub async fn open_system(&self, _key: SystemKey, _aad: &[u8], _sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        todo!()
    }
}

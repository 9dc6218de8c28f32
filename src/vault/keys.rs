//! Data keys: one random key per surrogate and version, wrapped under the KEK of an epoch; from it one subkey per
//! purpose and section, derived when first needed.

use std::sync::OnceLock;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::crypto::{GCM_NONCE, Gcm, Key256, TAG, derive, derive_key, random_key};
use super::envelope::{self, Header, TENANT};
use super::{DekRow, Pk, Place, Purpose};
use crate::error::{Error, Result};
use crate::world;

/// Sections whose subkeys are kept ready, by purpose: 0 (none) to 7. Those of higher numbers are derived every time.
const SECTIONS: usize = 8;
const PURPOSES: usize = 4;
const WRAPPED: usize = 1 + GCM_NONCE + 32 + TAG;
const WRAP_VERSION: u8 = 1;

/// Wraps data keys: HKDF(KEK of an epoch, "wrap-dek").
pub(super) struct WrapKey(Gcm);

impl WrapKey {
    pub(super) fn new(kek: &Key256) -> WrapKey {
        WrapKey(Gcm::new(&derive_key(kek, &[b"wrap-dek"])))
    }

    fn aad(pk: Pk, version: u16, epoch: u16) -> Vec<u8> {
        let mut aad = Vec::with_capacity(40);
        aad.extend_from_slice(b"phial-dek/v1");
        aad.push(TENANT.len() as u8);
        aad.extend_from_slice(TENANT);
        aad.extend_from_slice(&pk.0.to_be_bytes());
        aad.extend_from_slice(&version.to_be_bytes());
        aad.extend_from_slice(&epoch.to_be_bytes());
        aad
    }

    /// A new random data key for a surrogate, as the key database is to hold it.
    pub(super) fn new_row(&self, pk: Pk, version: u16, epoch: u16) -> Result<DekRow> {
        self.row(&random_key(), pk, version, epoch)
    }

    /// The same key as in a row that `before` wrapped, now under this one.
    ///
    /// # Errors
    /// `Kind::Tampered` when the row does not verify.
    pub(super) fn rewrapped(&self, row: &DekRow, before: &WrapKey, epoch: u16) -> Result<DekRow> {
        self.row(&before.unwrap(row)?.secret, row.pk, row.version, epoch)
    }

    fn row(&self, dek: &Key256, pk: Pk, version: u16, epoch: u16) -> Result<DekRow> {
        let mut nonce = [0u8; GCM_NONCE];
        world::secret(&mut nonce);
        let mut wrapped = Vec::with_capacity(WRAPPED);
        wrapped.push(WRAP_VERSION);
        wrapped.extend_from_slice(&nonce);
        self.0.seal(&nonce, &Self::aad(pk, version, epoch), &**dek, &mut wrapped)?;
        Ok(DekRow { pk, version, epoch, wrapped, commitment: commitment(dek) })
    }

    /// # Errors
    /// `Kind::Tampered` when the row does not verify, or holds another key than it committed to.
    pub(super) fn unwrap(&self, row: &DekRow) -> Result<DataKey> {
        let tampered = || Error::tampered("data key");
        let (version, rest) = row.wrapped.split_first().ok_or_else(tampered)?;
        let (nonce, text) = rest.split_first_chunk::<GCM_NONCE>().ok_or_else(tampered)?;
        if *version != WRAP_VERSION {
            return Err(tampered());
        }
        let plain = self.0.open(nonce, &Self::aad(row.pk, row.version, row.epoch), text).ok_or_else(tampered)?;
        let mut secret = Zeroizing::new([0u8; 32]);
        if plain.len() != secret.len() {
            return Err(tampered());
        }
        secret.copy_from_slice(&plain);
        if !bool::from(commitment(&secret).ct_eq(&row.commitment)) {
            return Err(tampered());
        }
        Ok(DataKey { version: row.version, secret, subkeys: Default::default() })
    }
}

/// 16 bytes that only this key gives: GCM alone does not commit to its key.
fn commitment(dek: &Key256) -> [u8; 16] {
    let mut out = [0u8; 16];
    derive(dek, &[b"commit"], &mut out);
    out
}

/// One version of a surrogate's key.
pub(super) struct DataKey {
    version: u16,
    secret: Key256,
    /// The bare keys: with its schedule one takes 600 bytes, which makes a full cache several times as large, and making
    /// the schedule anew takes a fifth of a microsecond. Boxed, because most places stay empty.
    subkeys: [[OnceLock<Box<Key256>>; SECTIONS]; PURPOSES],
}

impl DataKey {
    /// Runs `with` the subkey of a purpose and section.
    fn subkey<T>(&self, purpose: Purpose, section: u8, with: impl FnOnce(&Gcm) -> T) -> T {
        let make = || Box::new(derive_key(&self.secret, &[envelope::purpose_name(purpose).as_bytes(), &[section]]));
        match self.subkeys[purpose as usize - 1].get(usize::from(section)) {
            Some(slot) => with(&Gcm::new(slot.get_or_init(make))),
            None => with(&Gcm::new(&make())),
        }
    }
}

/// The keys of one surrogate, ready to use; wiped when the last holder lets go.
pub struct Keys {
    pk: Pk,
    /// By version, ascending; never empty.
    versions: Vec<DataKey>,
}

impl Keys {
    /// None when there is no version.
    pub(super) fn new(pk: Pk, mut versions: Vec<DataKey>) -> Option<Keys> {
        versions.sort_by_key(|key| key.version);
        (!versions.is_empty()).then_some(Keys { pk, versions })
    }

    /// A key that protects nothing, for benchmarks that leave encryption out.
    #[cfg(feature = "bench-switches")]
    pub(super) fn stand_in(pk: Pk) -> Keys {
        let key = DataKey { version: 1, secret: Zeroizing::new([0; 32]), subkeys: Default::default() };
        Keys { pk, versions: vec![key] }
    }

    /// The surrogate whose keys these are.
    pub fn pk(&self) -> Pk {
        self.pk
    }

    /// Seals: compresses, pads, encrypts under the newest version of the key. Safe for far more messages than one
    /// patient has (random 96-bit nonces: 2^32 by SP 800-38D).
    ///
    /// # Errors
    /// `Kind::TooLarge` over [`super::PLAIN_MAX`] bytes.
    pub fn seal(&self, place: &Place, plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.versions.last().expect("Keys hold at least one version");
        key.subkey(place.purpose, place.section, |subkey| {
            envelope::seal_at(subkey, key.version, self.pk.0 as u64, place, plain)
        })
    }

    /// Opens what was sealed for exactly this place.
    ///
    /// # Errors
    /// `Kind::Tampered` when it does not verify at this place.
    pub fn open(&self, place: &Place, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.try_open(place, sealed).ok_or_else(|| Error::tampered(envelope::purpose_name(place.purpose)))
    }

    fn try_open(&self, place: &Place, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let header = Header::read(sealed)?;
        if header.key_id != self.pk.0 as u64 {
            return None;
        }
        let key = self.versions.iter().rev().find(|key| key.version == header.key_version)?;
        key.subkey(place.purpose, place.section, |subkey| envelope::open_at(subkey, header, place, sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_key_without_subkeys_is_small() {
        // With room for every subkey in place it was 19 KB, and a cache full of such keys 1.9 GB.
        assert!(size_of::<DataKey>() <= 640, "{}", size_of::<DataKey>());
    }
}

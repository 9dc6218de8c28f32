//! What stands in for encryption when a benchmark leaves it out (see `world::bench`). Exists only with the feature
//! `bench-switches`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::crypto::TAG;
use super::{Keys, Pk, TermPlace, Vault};
use crate::error::Result;

/// The content as it is, with room for the tag, so that rows keep their size.
pub(super) fn seal(plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(plain);
    out.extend_from_slice(&[0; TAG]);
    Ok(())
}

pub(super) fn open(sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let plain = &sealed[..sealed.len().checked_sub(TAG)?];
    Some(Zeroizing::new(plain.to_vec()))
}

fn hashed(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn term(place: &TermPlace, value: &[u8]) -> i64 {
    hashed((place.rtype, place.param, place.form, place.partition, value)) as i64
}

pub(super) fn token(domain: &str, value: &[u8]) -> [u8; 16] {
    let halves = [hashed((1, domain, value)), hashed((2, domain, value))];
    let mut out = [0; 16];
    out[..8].copy_from_slice(&halves[0].to_be_bytes());
    out[8..].copy_from_slice(&halves[1].to_be_bytes());
    out
}

pub(super) fn partition(pk: Pk, partitions: u8) -> u8 {
    (hashed(pk.0) % u64::from(partitions.max(1))) as u8
}

impl Vault {
    /// Keys that no database holds, for these surrogates.
    pub(super) fn stand_in_keys(&self, pks: &[Pk]) -> Vec<Arc<Keys>> {
        let make = |pk: &Pk| {
            let keys = Arc::new(Keys::stand_in(*pk));
            self.inner.cache.insert(*pk, keys.clone());
            keys
        };
        pks.iter().map(|pk| self.inner.cache.get(pk).unwrap_or_else(|| make(pk))).collect()
    }
}

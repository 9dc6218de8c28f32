//! Key sets that clients publish at an address (`jwks_uri`): fetched when they are needed, kept no longer than their
//! server says, asked for anew when a key is unknown, and kept for a stated time when the address does not answer.

use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::{Algorithm, DecodingKey};
use moka::sync::Cache;

use super::jwks::Jwks;
use crate::fetch;
use crate::world::{Instant, World};

/// Addresses whose sets are kept at once.
const SETS_MAX: u64 = 1_000;
/// How long a set is kept whose server says nothing about it, and at most, whatever it says.
const FRESH_MS: i64 = 5 * MINUTE_MS;
const FRESH_MAX_MS: i64 = 60 * MINUTE_MS;
/// An address is asked at most so often; and after an unknown key or a failure, so often.
const AGAIN_MS: i64 = 1_000;
const RETRY_MS: i64 = 10_000;
/// The last set that was got is good for so long while its address does not answer.
pub const KEPT_MS: i64 = 4 * 60 * MINUTE_MS;
const MINUTE_MS: i64 = 60_000;

/// The sets of this process.
pub(super) struct KeySets {
    fetch: fetch::Client,
    world: Arc<World>,
    sets: Cache<String, Arc<Set>>,
}

/// The set of one address. Who finds a key in a fresh one waits for nobody.
struct Set {
    known: RwLock<Known>,
    fetching: tokio::sync::Mutex<()>,
}

/// What is known of it; times in milliseconds since 1970.
#[derive(Clone)]
struct Known {
    keys: Option<Arc<Jwks>>,
    fetched: i64,
    fresh_until: i64,
    tried: i64,
    failed: bool,
}

impl Known {
    const NOTHING: Known = Known { keys: None, fetched: 0, fresh_until: 0, tried: i64::MIN, failed: false };

    fn find(&self, kid: &str, algorithm: Algorithm) -> Option<DecodingKey> {
        self.keys.as_ref()?.find(kid, algorithm)
    }

    fn is_fresh(&self, now: i64) -> bool {
        self.keys.is_some() && now < self.fresh_until
    }

    /// Whether the address may be asked now. `unknown`: the set is fresh, only the key is not in it.
    fn may_ask(&self, now: i64, unknown: bool) -> bool {
        let pause = if unknown || self.failed { RETRY_MS } else { AGAIN_MS };
        now.saturating_sub(self.tried) >= pause
    }
}

impl Set {
    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

impl KeySets {
    pub fn new(fetch: fetch::Client, world: Arc<World>) -> KeySets {
        KeySets { fetch, world, sets: Cache::new(SETS_MAX) }
    }

    /// The key of this id and algorithm in the set at `url`; None: it has no such key, or cannot be had.
    pub async fn find(&self, url: &str, kid: &str, algorithm: Algorithm) -> Option<DecodingKey> {
        let set = self.sets.get_with_by_ref(url, || {
            Arc::new(Set { known: RwLock::new(Known::NOTHING), fetching: tokio::sync::Mutex::new(()) })
        });
        let found = |known: &Known, now: i64| known.is_fresh(now).then(|| known.find(kid, algorithm)).flatten();
        if let Some(key) = found(&set.known(), self.world.now().0) {
            return Some(key);
        }
        let _turn = set.fetching.lock().await;
        let (known, now) = (set.known(), self.world.now());
        if let Some(key) = found(&known, now.0) {
            return Some(key);
        }
        if known.may_ask(now.0, known.is_fresh(now.0)) {
            set.learn(self.asked(url, known, now).await);
        }
        let known = set.known();
        let good = known.is_fresh(now.0) || now.0.saturating_sub(known.fetched) < KEPT_MS;
        if good { known.find(kid, algorithm) } else { None }
    }

    /// What is known after asking.
    async fn asked(&self, url: &str, before: Known, now: Instant) -> Known {
        let got = self.fetch.json(url, fetch::Reach::Public).await;
        let got = got.map_err(|failure| failure.to_string()).and_then(|document| {
            let keys = Jwks::usable(&document.value).ok_or_else(|| "it is no JWK Set".to_owned())?;
            Ok((keys, document.max_age_s))
        });
        match got {
            Ok((keys, max_age_s)) => {
                let said = max_age_s.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000));
                let fresh = said.unwrap_or(FRESH_MS).min(FRESH_MAX_MS);
                let keys = Some(Arc::new(keys));
                Known { keys, fetched: now.0, fresh_until: now.0 + fresh, tried: now.0, failed: false }
            }
            Err(why) => {
                tracing::warn!(why, "the key set of a client could not be fetched");
                Known { tried: now.0, failed: true, ..before }
            }
        }
    }
}

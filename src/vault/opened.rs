//! What was opened lately: the plaintext of search capsules, so that candidates which every search for a common name or
//! code meets again are not fetched and opened each time. Bounded in bytes and time, wiped when dropped, and emptied as
//! soon as any key is known to have been destroyed. Who asks has learned from the row which version stands there now.
//!
//! Two generations: what is opened goes to the young one, and the old one is dropped when the young one is full or has
//! lasted long enough. Being asked for keeps nothing longer: whatever was altered is opened again in time. (A cache of the
//! usual kind drops what it forgets at a time of its own.)

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::{Inner, Rid, Vault};
use crate::error::Result;
use crate::world::Stopwatch;

/// Plaintext of one generation, with what keeping it takes.
const BYTES_MAX: usize = 16 << 20;
/// A generation is young, and then old, for so long at most.
const YOUNG_FOR: Duration = Duration::from_secs(150);
/// What an entry takes beside its bytes, about.
const OVERHEAD: usize = 100;
/// Longer ones are opened each time.
const LENGTH_MAX: usize = 64 << 10;
/// While nobody searches: what is past or erased lies here so much longer at most than it may be asked for.
const WATCHED_EVERY: Duration = Duration::from_millis(250);

/// The plaintext of a capsule.
pub type Plain = Arc<Zeroizing<Vec<u8>>>;

/// A version of a row: the number of the `fhir::TypeId`, as everything that a capsule is sealed to.
pub type Which = (u16, Rid, u32);

pub(super) struct Opened {
    now: RwLock<Generations>,
    lasting: Duration,
    watch: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
    /// How often it was emptied.
    emptied: u64,
}

struct Generation {
    of: HashMap<Which, Plain>,
    bytes: usize,
    since: Stopwatch,
}

impl Default for Generation {
    fn default() -> Generation {
        Generation { of: HashMap::new(), bytes: 0, since: Stopwatch::start() }
    }
}

impl Generations {
    fn put(&mut self, which: Which, plain: Plain) {
        if self.young.bytes >= BYTES_MAX {
            self.turn();
        }
        self.young.bytes += plain.capacity() + OVERHEAD;
        self.young.of.insert(which, plain);
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

impl Opened {
    pub fn new() -> Opened {
        Opened::lasting(YOUNG_FOR)
    }

    fn lasting(lasting: Duration) -> Opened {
        Opened { now: RwLock::default(), lasting, watch: Mutex::default() }
    }

    /// Those that are here, in their order; with a mark for [`Opened::keep`].
    fn get(&self, which: impl Iterator<Item = Which>) -> (Vec<Option<Plain>>, u64) {
        self.age();
        let now = self.read();
        // Also where nobody came by for so long that what has just been made the old one is past by now.
        let lasts = |of: &&Generation| of.since.elapsed() < 2 * self.lasting;
        let in_time: Vec<&Generation> = [&now.young, &now.old].into_iter().filter(lasts).collect();
        let found = which.map(|which| in_time.iter().find_map(|generation| generation.of.get(&which)).cloned());
        (found.collect(), now.emptied)
    }

    /// Keeps what was opened by keys that were asked for after `mark` was given; nothing when it was emptied since: it may
    /// be of whom that was done for.
    fn keep(&self, opened: impl Iterator<Item = (Which, Plain)>, mark: u64) {
        self.age();
        let mut now = self.write();
        if now.emptied == mark {
            opened.filter(|(_, plain)| plain.capacity() <= LENGTH_MAX).for_each(|(which, plain)| now.put(which, plain));
        }
    }

    pub fn forget_all(&self) {
        let mut now = self.write();
        *now = Generations { emptied: now.emptied + 1, ..Generations::default() };
    }

    /// Drops what has been here for too long.
    fn age(&self) {
        let is_past = |now: &Generations| now.young.since.elapsed() >= self.lasting;
        if is_past(&self.read()) {
            let mut now = self.write();
            // A search that another one overtook here need not do it again.
            if is_past(&now) {
                now.turn();
            }
        }
    }

    fn is_empty(&self) -> bool {
        let now = self.read();
        now.young.of.is_empty() && now.old.of.is_empty()
    }

    fn read(&self) -> RwLockReadGuard<'_, Generations> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Generations> {
        self.now.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// Of these capsules those that were opened lately, and are not of a patient who is known to be erased; with a mark
    /// for [`Vault::keep_opened`].
    ///
    /// # Errors
    /// `Kind::Unavailable` when the key database has not answered for too long.
    pub async fn opened(&self, which: impl Iterator<Item = Which>) -> Result<(Vec<Option<Plain>>, u64)> {
        self.look().await?;
        let Opened { watch, .. } = &self.inner.opened;
        let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.as_ref().is_none_or(JoinHandle::is_finished) {
            *watch = Some(tokio::spawn(watching(Arc::downgrade(&self.inner))));
        }
        drop(watch);
        Ok(self.inner.opened.get(which))
    }

    /// Keeps what was opened and verified by keys that were asked for after `mark` was given.
    pub fn keep_opened(&self, opened: impl Iterator<Item = (Which, Plain)>, mark: u64) {
        self.inner.opened.keep(opened, mark);
    }
}

/// Empties the memory in time where no search does.
async fn watching(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(WATCHED_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.opened.age();
        if !inner.opened.is_empty() {
            // An error has emptied it.
            Vault { inner }.look().await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(length: usize) -> Plain {
        Arc::new(Zeroizing::new(vec![7; length]))
    }

    fn one(opened: &Opened, which: Which) -> Option<Plain> {
        opened.get(std::iter::once(which)).0.remove(0)
    }

    fn mark(opened: &Opened) -> u64 {
        opened.get(std::iter::empty()).1
    }

    #[test]
    fn it_holds_no_more_than_it_may_of_what_was_asked_for_by_its_version() {
        let opened = Opened::new();
        let row = |rid| (1, Rid(rid), 1);
        let keep = |rid, length| opened.keep(std::iter::once((row(rid), plain(length))), mark(&opened));
        keep(-1, LENGTH_MAX + 1);
        assert!(one(&opened, row(-1)).is_none(), "too long");
        let most = BYTES_MAX / LENGTH_MAX;
        for rid in 0..5 * most {
            keep(rid as i64, LENGTH_MAX);
            let now = opened.read();
            assert!(now.young.of.len().max(now.old.of.len()) <= most + 2);
        }
        assert!(one(&opened, row(0)).is_none(), "the first ones have gone");
        let last = (5 * most - 1) as i64;
        assert!(one(&opened, row(last)).is_some());
        assert!(one(&opened, (1, Rid(last), 2)).is_none(), "another version is something else");
        assert!(one(&opened, (2, Rid(last), 1)).is_none(), "and so is another type");
    }

    #[test]
    fn nothing_is_left_once_emptied_and_nothing_on_its_way_comes_in() {
        let opened = Opened::new();
        let before = mark(&opened);
        opened.keep(std::iter::once(((1, Rid(1), 1), plain(1))), before);
        let held = one(&opened, (1, Rid(1), 1)).expect("is there");
        opened.forget_all();
        assert!(opened.is_empty());
        assert_eq!(Arc::strong_count(&held), 1, "the last copy is with its user");
        opened.keep(std::iter::once(((1, Rid(1), 1), held)), before);
        assert!(opened.is_empty(), "opened by a key from before");
    }

    #[test]
    fn being_asked_for_keeps_nothing_longer() {
        let opened = Opened::lasting(Duration::from_millis(200));
        opened.keep(std::iter::once(((1, Rid(1), 1), plain(1))), mark(&opened));
        let kept = Stopwatch::start();
        assert!(one(&opened, (1, Rid(1), 1)).is_some());
        while one(&opened, (1, Rid(1), 1)).is_some() {
            assert!(kept.elapsed() < Duration::from_secs(2), "for ever");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(opened.is_empty());
    }

    #[test]
    fn what_is_past_is_given_to_nobody_though_nobody_came_by_to_drop_it() {
        let opened = Opened::lasting(Duration::from_millis(50));
        opened.keep(std::iter::once(((1, Rid(1), 1), plain(1))), mark(&opened));
        std::thread::sleep(Duration::from_millis(110));
        assert!(one(&opened, (1, Rid(1), 1)).is_none());
    }
}

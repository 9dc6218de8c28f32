//! Whether the keys in memory may still be used: other processes destroy keys too. Before keys are used the key database
//! is asked how many are destroyed, at most every [`ASKED_EVERY`]; when they are others than before, those that are
//! destroyed are forgotten. While it cannot be asked, what is in memory is used for [`UNASKED_FOR`] and then no more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Mutex;

use super::{KeyStore, Pk};
use crate::error::{Kind, Result};

const ASKED_EVERY: Duration = Duration::from_secs(2);
const UNASKED_FOR: Duration = Duration::from_secs(30);
/// No number that can be counted: the next look is like the first.
const UNKNOWN: u64 = u64::MAX;

pub(super) struct Erasures {
    /// How many were destroyed when it was last asked.
    count: AtomicU64,
    /// Holds something for as long as the answer is taken as new.
    asked: Cache<(), ()>,
    /// Holds something for as long as it may be done without an answer.
    answered: Cache<(), ()>,
    asking: Mutex<()>,
}

impl Erasures {
    pub fn new() -> Erasures {
        let lasting = |time| Cache::builder().max_capacity(1).time_to_live(time).build();
        Erasures {
            count: AtomicU64::new(UNKNOWN),
            asked: lasting(ASKED_EVERY),
            answered: lasting(UNASKED_FOR),
            asking: Mutex::new(()),
        }
    }

    /// Whether the key database need not be asked now.
    pub fn are_known(&self) -> bool {
        self.asked.contains_key(&())
    }

    /// Changes when keys are known to have been destroyed: what was read before a change is not to be kept after it.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether all that are destroyed were forgotten when it was last asked.
    pub fn are_counted(&self) -> bool {
        self.count() != UNKNOWN
    }

    /// Asks unless that was done just now, and has the destroyed ones forgotten.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the key database has not answered for too long.
    pub async fn look(&self, store: &dyn KeyStore, forget: impl Fn(&[Pk])) -> Result<()> {
        if self.are_known() {
            return Ok(());
        }
        let _one = self.asking.lock().await;
        if self.are_known() {
            return Ok(());
        }
        match self.ask(store, forget).await {
            Ok(()) => self.answered.insert((), ()),
            Err(error) if error.kind == Kind::Unavailable && self.answered.contains_key(&()) => {
                tracing::warn!("the key database does not answer; keys in memory are used for a while");
            }
            Err(error) => return Err(error),
        }
        self.asked.insert((), ());
        Ok(())
    }

    async fn ask(&self, store: &dyn KeyStore, forget: impl Fn(&[Pk])) -> Result<()> {
        let count = store.count_destroyed().await?;
        if self.count() == count {
            return Ok(());
        }
        // Whoever asks may fail or be given up while waiting: then nobody has asked, and the next one forgets all of them.
        self.count.store(UNKNOWN, Ordering::SeqCst);
        let destroyed = store.destroyed().await?;
        // First the number, then the keys: who puts one into memory meanwhile looks at the number afterwards.
        self.count.store(count, Ordering::SeqCst);
        forget(&destroyed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;

    use super::*;
    use crate::vault::memory::MemoryKeys;

    #[test]
    fn destroyed_ones_are_forgotten_once_it_is_asked_again() {
        let (erasures, store) = (Erasures::new(), MemoryKeys::default());
        let look = || {
            let forgotten = std::cell::RefCell::new(Vec::<Pk>::new());
            let looked = erasures.look(&store, |destroyed| forgotten.borrow_mut().extend(destroyed)).now_or_never();
            looked.expect("at once").expect("it answers");
            forgotten.into_inner()
        };
        let destroy = |pk| store.destroy_data_keys(Pk(pk)).now_or_never().expect("at once").expect("destroys");
        destroy(1);
        assert_eq!(look(), [Pk(1)]);
        destroy(2);
        assert!(look().is_empty(), "it was asked just now");
        let before = erasures.count();
        erasures.asked.invalidate_all();
        assert_eq!(look(), [Pk(1), Pk(2)]);
        assert_ne!(erasures.count(), before);
        erasures.asked.invalidate_all();
        assert!(look().is_empty(), "nothing is new");
    }

    #[test]
    fn a_question_that_was_broken_off_was_not_asked() {
        let (erasures, store) = (Erasures::new(), MemoryKeys::default());
        let forgotten = std::cell::RefCell::new(Vec::<Pk>::new());
        let look = || erasures.look(&store, |destroyed| forgotten.borrow_mut().extend(destroyed)).now_or_never();
        look().expect("at once").expect("it answers");
        store.destroy_data_keys(Pk(1)).now_or_never().expect("at once").expect("destroys");
        erasures.asked.invalidate_all();
        store.be_silent(true);
        assert!(look().is_none(), "it waits");
        assert!(forgotten.borrow().is_empty() && !erasures.are_counted());
        store.be_silent(false);
        look().expect("at once").expect("it answers");
        assert_eq!(*forgotten.borrow(), [Pk(1)]);
    }
}

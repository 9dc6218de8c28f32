//! Turns: writes of this process that lost a race for the same thing queue for it instead of losing again and again.
//! It saves work and decides nothing: what a write rests on is checked where it commits, as between processes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Queue, OwnedMutexGuard};

/// Things with a queue before those that nobody waits for are forgotten.
const KEPT_MAX: usize = 1024;

/// Who is next, for each thing.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<u64, Weak<Queue<()>>>>);

/// Held while it is one's turn.
pub type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits for one's turn. Things whose hash is the same share a queue, which costs time alone.
    pub async fn take(&self, of: impl Hash) -> Turn {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        self.queue(hasher.finish()).lock_owned().await
    }

    fn queue(&self, of: u64) -> Arc<Queue<()>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() >= KEPT_MAX {
            queues.retain(|_, queue| queue.strong_count() > 0);
        }
        if let Some(queue) = queues.get(&of).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(Queue::new(()));
        queues.insert(of, Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_each_thing_and_nothing_is_kept() {
        let (turns, inside) = (Turns::default(), AtomicUsize::new(0));
        let visit = |of: usize| {
            let (turns, inside) = (&turns, &inside);
            async move {
                let turn = turns.take(of).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(turn);
            }
        };
        futures_util::future::join_all((0..20).map(|_| visit(1))).await;
        let (one, _other) = (turns.take(1).await, turns.take(2).await);
        assert!(futures_util::FutureExt::now_or_never(turns.take(1)).is_none());
        drop(one);
        assert!(futures_util::FutureExt::now_or_never(turns.take(1)).is_some());
        for of in 0..3 * KEPT_MAX {
            drop(turns.take(of).await);
        }
        assert!(turns.0.lock().expect("no panic while it was held").len() <= KEPT_MAX);
    }
}

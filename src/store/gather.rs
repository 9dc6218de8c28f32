//! Gathering: those who share a statement or a commit should be many when the server is busy, and nobody should wait
//! when it is not.

use tokio::sync::mpsc;

/// Turns at most: everybody who was about to queue has done so long before.
const TURNS_MAX: usize = 8;

/// Lets the other tasks of the runtime have turns for as long as each makes the queue longer. No timer: on an idle
/// server this ends at once.
pub async fn gather<T>(queue: &mpsc::Receiver<T>) {
    let mut before = 0;
    for _ in 0..TURNS_MAX {
        tokio::task::yield_now().await;
        let now = queue.len();
        if now == before {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_are_about_to_queue_are_waited_for_and_nobody_else() {
        let (sender, queue) = mpsc::channel(64);
        for turns in 0..4 {
            let sender = sender.clone();
            tokio::spawn(async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                sender.send(turns).await.expect("the queue is open");
            });
        }
        gather(&queue).await;
        assert_eq!(queue.len(), 4);
        let idle = std::pin::pin!(gather(&queue));
        tokio::time::timeout(std::time::Duration::from_secs(5), idle).await.expect("nobody is waited for");
    }
}

//! Where capsules are opened and bodies sealed: away from the threads of requests, on as many others as there are cores
//! to run them. More would take no work off anyone, but each keeps memory of its own (heaps, the workspace of the
//! compressor) for as long as it lives.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

static CORES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(count()));

/// Cores of this machine.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs work that waits for nothing, as soon as a core is free for it.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let permit = CORES.acquire().await.map_err(Error::internal)?;
    let task = tokio::task::spawn_blocking(move || {
        // Held until the work is done, also when nobody waits for it any more.
        let _permit = permit;
        work()
    });
    task.await.map_err(Error::internal)?
}

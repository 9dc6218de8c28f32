//! Loads Bundles (JSON, XML), NDJSON and folders of them, gzip too, through the same interactions as any client, as
//! the named task `import`. One thread reads and parses, others check, index and seal; the lanes of the store commit
//! in groups.

mod lines;
pub mod load;
pub mod source;
pub mod unit;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use load::{Loader, Tallies};
use unit::{Unit, Units};

use super::progress::Progress;
use crate::access::Caller;
use crate::app::App;
use crate::app::config::References;
use crate::error::{Error, Result};

/// Units that are read ahead.
const AHEAD: usize = 8;
/// Units performed at the same time: more than cores, since each waits for its commit.
const WORKERS: usize = 6;

/// What came of an import.
#[derive(Default)]
pub struct Summary {
    /// Entries that were refused; each has been reported with its file, line and FHIRPath.
    pub refused: u64,
}

/// Takes a unit; false: nothing more is wanted.
pub(super) type Give<'a> = &'a mut dyn FnMut(Unit) -> bool;

/// Loads the paths in order, with a progress bar on a terminal, and prints a summary.
///
/// # Errors
/// What stops the whole import (a database that is gone); refused entries are counted, not errors.
pub async fn run(app: &App, paths: &[PathBuf]) -> Result<Summary> {
    let found = source::find(paths)?;
    for path in &found.others {
        eprintln!("not read, by its name no FHIR: {}", path.display());
    }
    let read = AtomicU64::new(0);
    let progress = Progress::new(&app.world, "import", found.documents.iter().map(|document| document.size).sum());
    let produce = |give: Give<'_>| {
        let mut before = None;
        for document in &found.documents {
            let mut units = Units::default();
            let mut open = true;
            let next = before.replace(document.turn).is_some_and(|before| before != document.turn);
            if next && app.config.references == References::Reject {
                open = give(Unit::Turn);
            }
            document.read(&read, &mut |origin, node| {
                units.add(origin, node, &mut |unit| open = open && give(unit));
                open
            });
            units.finish(&mut |unit| open = open && give(unit));
            if !open {
                return;
            }
        }
    };
    let tallies = pipeline(app, "import", &progress, &produce, &|| read.load(Ordering::Relaxed))?;
    progress.finish();
    print!("{}", table(&tallies, progress.seconds()));
    Ok(Summary { refused: tallies.refused() })
}

/// Performs everything that `produce` gives. It runs on a thread of its own and stops when its `give` says no.
///
/// # Errors
/// The first that stops all.
pub(super) fn pipeline(
    app: &App,
    task: &'static str,
    progress: &Progress<'_>,
    produce: &(dyn Fn(Give<'_>) + Sync),
    position: &(dyn Fn() -> u64 + Sync),
) -> Result<Tallies> {
    let report = |line: &str| progress.say(line);
    let loader = Loader {
        app,
        caller: Caller::task(task),
        tallies: Mutex::new(Tallies::default()),
        report: &report,
        deferred: Mutex::default(),
    };
    let (sender, receiver) = sync_channel(AHEAD);
    let queue = Queue { units: Mutex::new(receiver), under_way: RwLock::default() };
    let stopped = AtomicBool::new(false);
    let runtime = tokio::runtime::Handle::current();
    let after = || {
        let done = loader.tallies.lock().unwrap_or_else(PoisonError::into_inner).done;
        progress.at(position(), done);
    };
    let failure = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| feed(sender, &stopped, produce));
            let work = || work(&runtime, &loader, &queue, &stopped, &after);
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            let ends = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(panicked())));
            ends.fold(Ok(()), Result::and)
        })
    });
    failure?;
    tokio::task::block_in_place(|| runtime.block_on(loader.perform_deferred()))?;
    Ok(loader.tallies.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn panicked() -> Error {
    Error::internal("a worker of the import panicked")
}

fn feed(sender: SyncSender<Unit>, stopped: &AtomicBool, produce: &dyn Fn(Give<'_>)) {
    produce(&mut |unit| !stopped.load(Ordering::Relaxed) && sender.send(unit).is_ok());
}

/// What was read, in its order.
struct Queue {
    units: Mutex<Receiver<Unit>>,
    /// Read while a unit is performed, written where a turn ends.
    under_way: RwLock<()>,
}

impl Queue {
    /// The next unit, with what a turn waits for until it is dropped. None: the reader is at its end.
    fn next(&self) -> Option<(Unit, RwLockReadGuard<'_, ()>)> {
        let units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match units.recv().ok()? {
                // Nobody takes another unit until those that others are at are done.
                Unit::Turn => drop(self.under_way.write().unwrap_or_else(PoisonError::into_inner)),
                unit => return Some((unit, self.under_way.read().unwrap_or_else(PoisonError::into_inner))),
            }
        }
    }
}

fn work(
    runtime: &tokio::runtime::Handle,
    loader: &Loader<'_>,
    queue: &Queue,
    stopped: &AtomicBool,
    after: &dyn Fn(),
) -> Result<()> {
    while let Some((unit, _under_way)) = queue.next() {
        // After a failure the queue is only emptied, so that the reader ends.
        if stopped.load(Ordering::Relaxed) {
            continue;
        }
        if let Err(error) = runtime.block_on(loader.perform(unit)) {
            stopped.store(true, Ordering::Relaxed);
            return Err(error);
        }
        after();
    }
    Ok(())
}

/// The summary: one line a type.
fn table(tallies: &Tallies, seconds: f64) -> String {
    let mut out =
        format!("{:<34}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "", "created", "updated", "unchanged", "other", "refused");
    let mut sum = load::Tally::default();
    let mut line = |name: &str, tally: &load::Tally| {
        let load::Tally { created, updated, unchanged, other, refused } = tally;
        out += &format!("{name:<34}{created:>10}{updated:>10}{unchanged:>10}{other:>10}{refused:>10}\n");
    };
    for (name, tally) in &tallies.by_type {
        line(if name.is_empty() { "(no type)" } else { name }, tally);
        sum.created += tally.created;
        sum.updated += tally.updated;
        sum.unchanged += tally.unchanged;
        sum.other += tally.other;
        sum.refused += tally.refused;
    }
    line("all", &sum);
    let rate = tallies.done as f64 / seconds;
    out + &format!("{} resources in {seconds:.1} s, {rate:.0} a second\n", tallies.done)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_of_a_turn_is_taken_while_something_of_the_one_before_is_under_way() {
        let group = || Unit::Group(Vec::new());
        let (sender, receiver) = sync_channel(AHEAD);
        for unit in [group(), group(), Unit::Turn, group()] {
            sender.send(unit).unwrap();
        }
        drop(sender);
        let queue = Queue { units: Mutex::new(receiver), under_way: RwLock::default() };
        let first = queue.next().unwrap();
        let second = queue.next().expect("units of one turn are performed at the same time");
        let (taken, other) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(|| taken.send(queue.next().is_some()));
            assert!(other.recv_timeout(Duration::from_millis(100)).is_err(), "two are under way");
            drop(first);
            assert!(other.recv_timeout(Duration::from_millis(100)).is_err(), "one is under way");
            drop(second);
            assert!(other.recv_timeout(Duration::from_secs(10)).unwrap());
        });
        assert!(queue.next().is_none());
    }
}

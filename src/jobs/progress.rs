//! How far a long job is: a bar on a terminal, now and then a plain line otherwise. All of it on standard error.

use std::io::IsTerminal;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::world::{Instant, World};

/// Milliseconds between two plain lines.
const LINE_EVERY_MS: i64 = 5000;

pub struct Progress<'a> {
    world: &'a World,
    name: &'static str,
    since: Instant,
    /// None where there is no terminal.
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    /// `total` is in whatever unit `at` counts (bytes of files, bundles).
    pub fn new(world: &'a World, name: &'static str, total: u64) -> Progress<'a> {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            // The template is fixed text; were it wrong, the plain default bar stands in.
            let style = ProgressStyle::with_template("{prefix} [{bar:36}] {percent:>3}% {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(name);
            bar
        });
        let now = world.now();
        Progress { world, name, since: now, bar, last_line: Mutex::new(now) }
    }

    /// `at` of the total is done, which is `resources` resources so far.
    pub fn at(&self, at: u64, resources: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(at);
            bar.set_message(self.rate(resources));
            return;
        }
        let now = self.world.now();
        // A poisoned lock means that a line was not printed: nothing hangs on it.
        let Ok(mut last) = self.last_line.lock() else { return };
        if now.0 - last.0 >= LINE_EVERY_MS {
            *last = now;
            eprintln!("{}: {}", self.name, self.rate(resources));
        }
    }

    /// A message above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        (self.world.now().0 - self.since.0).max(1) as f64 / 1000.0
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn rate(&self, resources: u64) -> String {
        format!("{resources} resources, {:.0}/s", resources as f64 / self.seconds())
    }
}

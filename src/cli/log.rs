//! The log goes to standard error. It holds no PHI: no path, query, body or value of a resource is ever logged.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic;

use phial::app::Config;
use phial::app::config::LogFormat;
use phial::error::{Error, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// A panic says where it happened and no more: its message may quote what was worked on, as that of a text cut within a
/// character does.
pub fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("without a name");
        eprintln!("phial: panic at {place} (thread {thread}): {}", message(info.payload()));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            eprintln!("{trace}");
        }
    }));
}

/// What the program's text says of itself; nothing that was made while it ran.
fn message(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("its message is not shown, it could hold data")
}

/// Starts logging for the whole process.
pub fn start(config: &Config) -> Result<()> {
    let wrong = || {
        Error::invalid("setting log: a level (such as `info`) or directives (such as `warn,phial=debug`) are expected")
    };
    // A word alone would be taken for the name of a module, and all others would be silent.
    let mut words = config.log.split(',').map(str::trim).filter(|part| !part.contains(['=', '[']));
    if words.any(|word| word.parse::<LevelFilter>().is_err()) {
        return Err(wrong());
    }
    let filter = EnvFilter::try_new(&config.log).map_err(|e| wrong().caused_by(e))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_shows_what_is_written_in_the_program_and_nothing_else() {
        let caught = |run: fn()| panic::catch_unwind(run).expect_err("a panic");
        let plain = caught(|| panic!("no such state"));
        assert_eq!(message(&*plain), "no such state");
        assert!(format!("{:?}", caught(|| drop(name()[..2].to_owned())).downcast_ref::<String>()).contains("Müller"));
        let quoting = [
            caught(|| drop(name()[..2].to_owned())),
            caught(|| panic!("{}", name())),
            caught(|| assert_ne!(name().parse::<u32>().map_err(|_| name()).expect("a number"), 0)),
        ];
        assert!(quoting.iter().all(|payload| !message(&**payload).contains("ller")));
    }

    fn name() -> String {
        std::hint::black_box("Müller").to_owned()
    }
}

//! The log goes to standard error. It holds no PHI: no path, query, body or value of a resource is ever logged.

use std::io::IsTerminal;

use phial::app::Config;
use phial::app::config::LogFormat;
use phial::error::{Error, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process.
pub fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|e| Error::invalid("setting log: a level or tracing directives are expected").caused_by(e))?;
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

//! The log: tracing to stderr as text or JSON, or to the systemd journal.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Starts the log for the life of the process.
///
/// # Errors
/// When the level is no filter, or the systemd journal is asked for and absent.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).with_context(|| format!("[log] level = {:?}", log.level))?;
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry
                .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour))
                .try_init()?;
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(layer).try_init()?;
        }
        LogFormat::Journald => {
            let layer =
                tracing_journald::layer().context("[log] format = \"journald\", but there is no systemd journal")?;
            registry.with(layer).try_init()?;
        }
    }
    Ok(())
}

/// Starts the log in a file, for a command that needs the terminal itself.
///
/// # Errors
/// When the file can't be written.
pub fn start_in_file(path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("can't write the log to {}", path.display()))?;
    let layer = tracing_subscriber::fmt::layer().with_writer(Mutex::new(file)).with_ansi(false);
    tracing_subscriber::registry().with(EnvFilter::new("info")).with(layer).try_init()?;
    Ok(())
}

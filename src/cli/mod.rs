//! The command line: one file for each subcommand group. stdout carries results, stderr the log.

mod check;
mod decode;
mod demo;
mod devices;
mod journal;
mod logging;
mod migrate;
mod print_config;
mod quarantine;
mod readings;
mod run;
mod simulate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use check::Checked;
use crate::config::{Config, Faults};
use crate::store::Store;

/// MQTT-native IoT bridge: device topics in, a telemetry hypertable out; nothing acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file; without it /etc/tidegate/tidegate.toml if it exists, then the built-in default
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    Run,
    /// Run everything in one process with a simulated fleet, and watch it
    Demo(demo::Args),
    /// Check the configuration and the catalog
    Check(check::Args),
    /// Print the documented default configuration
    PrintConfig,
    /// Bring the database's schema and catalog up to date
    Migrate,
    /// Publish as a fleet of devices would, to any broker
    Simulate(simulate::Args),
    /// Show what becomes of a payload (standard input), without storing it
    Decode(decode::Args),
    /// What is known of devices
    Devices(devices::Args),
    /// Stored readings of a device
    Readings(readings::Args),
    /// What could not become a reading, and why; retry it once the mapping is mended
    Quarantine(quarantine::Args),
    /// The durable log of messages
    Journal(journal::Args),
}

/// What the shell is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
    /// Wrong usage or configuration.
    Misused,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::from(1),
            Outcome::Misused => ExitCode::from(2),
        }
    }
}

/// Runs a command and tells its errors on stderr.
pub fn run(arguments: Arguments) -> ExitCode {
    match dispatch(arguments) {
        Ok(outcome) => outcome.into(),
        Err(error) if is_broken_pipe(&error) => Outcome::Done.into(),
        Err(error) => {
            let outcome = if error.is::<Faults>() { Outcome::Misused } else { Outcome::Failed };
            eprintln!("tidegate: {error:#}");
            outcome.into()
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<Outcome> {
    let place = Place::find(arguments.config);
    match arguments.command {
        Command::Run => run::run(&place),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(&place, &args),
        Command::PrintConfig => print_config::run(),
        Command::Migrate => migrate::run(&place),
        Command::Simulate(args) => simulate::run(args),
        Command::Decode(args) => decode::run(&place, &args),
        Command::Devices(args) => devices::run(&place, &args),
        Command::Readings(args) => readings::run(&place, &args),
        Command::Quarantine(args) => quarantine::run(&place, &args),
        Command::Journal(args) => journal::run(&place, &args),
    }
}

/// Whoever read our output has enough (`tidegate readings … | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Where the configuration is read from: a file, or none for the built-in default; and the environment.
struct Place {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Place {
    const SYSTEM: &str = "/etc/tidegate/tidegate.toml";

    fn find(given: Option<PathBuf>) -> Place {
        let file = given.or_else(|| Some(PathBuf::from(Place::SYSTEM)).filter(|path| path.exists()));
        // What is not UTF-8 can't be one of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Place { file, environment }
    }

    fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn config(&self) -> Result<Config, Faults> {
        Config::load(self.file(), &self.environment)
    }

    /// Configuration and catalog, each checked against the other.
    fn load(&self) -> Result<Checked, Faults> {
        check::validate(self.file(), &self.environment)
    }

    /// The configured database, its schema up to date.
    fn store(&self) -> anyhow::Result<Store> {
        let config = self.config()?;
        let store = Store::open(&config.database)?;
        store.require_schema().context("run `tidegate migrate`, or start the daemon once")?;
        Ok(store)
    }
}

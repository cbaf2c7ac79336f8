//! The command line: one file for each subcommand group. stdout carries results, stderr the log.

pub mod alerts;
pub mod archive;
pub mod check;
mod command;
pub mod decode;
pub mod demo;
pub mod devices;
mod discover;
mod job;
pub mod journal;
mod logging;
pub mod migrate;
mod output;
pub mod print_config;
pub mod quarantine;
pub mod readings;
mod replay;
mod run;
pub mod simulate;
pub mod stats;
pub mod template_examples;
pub mod template_import;
mod templates;
mod twin;
pub mod uptime;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use crate::config::{Config, DatabaseUrl, Faults};
use crate::store::Store;
use check::Checked;

/// MQTT-native IoT bridge: device topics in, a telemetry hypertable out; nothing acknowledged is lost.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub struct Arguments {
    /// Configuration file; without it $TIDEGATE_CONFIG, /etc/tidegate/tidegate.toml, the built-in default
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    Run,
    /// Run everything in one process with a simulated fleet, and watch it
    Demo(demo::DemoArgs),
    /// Check the configuration and the catalog
    Check(check::CheckArgs),
    /// Print the documented default configuration
    PrintConfig,
    /// Bring the database's schema and catalog up to date
    Migrate(migrate::MigrateArgs),
    /// Publish as a fleet of devices would, to any broker
    Simulate(simulate::SimulateArgs),
    /// Show what becomes of a payload (standard input), without storing it
    Decode(decode::DecodeArgs),
    /// Listen to a broker without storing, and print the sources, devices and metrics that it would set up
    Discover(discover::DiscoverArgs),
    /// What is known of devices
    Devices(devices::DevicesArgs),
    /// Device types: what there is, whether a file of one is right, and files in and out of the catalog
    Templates(templates::TemplatesArgs),
    /// Stored readings of a device
    Readings(readings::ReadingsArgs),
    /// What could not become a reading, and why; retry it once the mapping is mended
    Quarantine(quarantine::QuarantineArgs),
    /// Alerts: which there are, what happened to one, what people do with it, and the rules
    Alerts(alerts::AlertsArgs),
    /// Tell devices to do something, and see what becomes of it
    #[command(name = "command")]
    Tell(command::CommandArgs),
    /// Tell many devices to do something, at a rate and some of them first
    Job(Box<job::JobArgs>),
    /// Readings that were written to files before they were dropped
    Archive(archive::ArchiveArgs),
    /// The durable log of messages
    Journal(journal::JournalArgs),
    /// What the database says of itself: sizes, layout, rows, the slowest queries
    Stats(stats::StatsArgs),
}

/// Runs a command and tells its errors on stderr. 0: done; 1: failed; 2: wrong usage or configuration; 3: `run` gave
/// way to another tidegate.
pub fn run(arguments: Arguments) -> ExitCode {
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Faults>() => {
            eprintln!("{error}");
            ExitCode::from(check::EXIT_CONFIGURATION)
        }
        Err(error) => {
            eprintln!("tidegate: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, less those that an error before has quoted.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let place = Place::find(arguments.config);
    match arguments.command {
        Command::Run => run::run(&place),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(&place, &args),
        Command::PrintConfig => print_config::run(&mut std::io::stdout().lock()),
        Command::Migrate(args) => migrate::run(&place, &args),
        Command::Simulate(args) => simulate::command(args),
        Command::Decode(args) => decode::run(&place, &args),
        Command::Discover(args) => discover::run(&place, &args),
        Command::Devices(args) => devices::run(&place, &args),
        Command::Templates(args) => templates::run(&place, &args),
        Command::Readings(args) => readings::run(&place, &args),
        Command::Quarantine(args) => quarantine::run(&place, &args),
        Command::Alerts(args) => alerts::run(&place, &args),
        Command::Tell(args) => command::run(&place, &args),
        Command::Job(args) => job::run(&place, &args),
        Command::Archive(args) => archive::run(&place, &args),
        Command::Journal(args) => journal::run(&place, &args),
        Command::Stats(args) => stats::run(&place, &args),
    }
}

/// Whoever read our output has enough (`tidegate readings … | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

const NO_SCHEMA: &str = "the database has no schema of tidegate; run `tidegate migrate`";

/// Where the configuration is read from.
struct Place {
    given: Option<PathBuf>,
    environment: Vec<(String, String)>,
}

impl Place {
    fn find(given: Option<PathBuf>) -> Place {
        // What is not UTF-8 can't be one of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Place { given, environment }
    }

    fn file(&self) -> Option<&Path> {
        self.given.as_deref()
    }

    fn config(&self) -> Result<Config, Faults> {
        Config::load(self.file(), &self.environment)
    }

    /// Configuration and catalog, each checked against the other.
    fn load(&self) -> Result<Checked, Faults> {
        check::validate(self.file(), &self.environment)
    }

    /// The configured database, with a schema in it, for commands that only read: where there is a replica, its answer will
    /// do.
    fn reader(&self) -> anyhow::Result<Store> {
        let config = self.config()?;
        if config.database.replica_url.is_none() {
            return self.store();
        }
        let store = Store::open(&config.database)?;
        let read = store.catalog_version_to_read();
        if let Some(why) = store.replica_away() {
            eprintln!("tidegate: the replica is not asked, but the primary: {why}");
        }
        if read.is_err() {
            // Nobody there is told otherwise than nothing in it.
            store.ping()?;
        }
        read.context(NO_SCHEMA)?;
        Ok(store)
    }

    /// The configured database, with a schema in it.
    fn store(&self) -> anyhow::Result<Store> {
        let config = self.config()?;
        if let DatabaseUrl::Sqlite(path) = &config.database.url
            && !path.exists()
        {
            bail!("there is no database at {}; start the daemon once, or run `tidegate migrate`", path.display());
        }
        let store = Store::open(&config.database)?;
        store.ping()?;
        store.catalog_version().context(NO_SCHEMA)?;
        Ok(store)
    }
}

//! The command line of `scripts/bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::runner::scenario::Effort;

/// Measure tidegate with private servers; without a scenario, all of them but the soak.
#[derive(Parser)]
#[command(name = "scripts/bench", args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Args)]
pub struct Options {
    /// What to measure; see --list
    pub scenarios: Vec<String>,
    /// Name the scenarios and what each is
    #[arg(long)]
    pub list: bool,
    /// Measured runs of each scenario, after a warm-up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: u32,
    /// Messages of a run, instead of the scenario's own number
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,
    /// Readings a second, where the scenario has a rate
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..))]
    pub rate: Option<u64>,
    /// How long the soak takes
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// How long the database is away in catch-up
    #[arg(long, value_parser = humantime::parse_duration)]
    pub outage: Option<Duration>,
    /// Also write the figures to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Print the figures of a JSON file as Markdown
    Report {
        results: PathBuf,
        /// Put it into this file, between its markers
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Draw how cost grows, from the figures of a JSON file
    Plot { results: PathBuf, svg: PathBuf },
}

impl Arguments {
    /// Ends the process where they are wrong, or ask for help.
    pub fn read(given: &[String]) -> Arguments {
        // The script gives `run` first, so that it is told from a plain `cargo bench`.
        let given = given.strip_prefix(&["run".to_owned()]).unwrap_or(given);
        Arguments::parse_from(std::iter::once("scripts/bench").chain(given.iter().map(String::as_str)))
    }
}

impl Options {
    pub fn effort(&self) -> Effort {
        Effort {
            repetitions: self.repetitions,
            messages: self.messages,
            rate: self.rate,
            duration: self.duration,
            outage: self.outage,
        }
    }

    /// The command that does the same again.
    pub fn command_line(&self) -> String {
        let given = std::env::args().skip(1).filter(|argument| argument != "--bench" && argument != "run");
        std::iter::once("scripts/bench".to_owned()).chain(given).collect::<Vec<_>>().join(" ")
    }
}

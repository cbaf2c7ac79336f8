//! Measures tidegate as a whole, between a private broker and a private database: `scripts/bench --list`.

#[allow(dead_code)]
#[path = "../../tests/support/mod.rs"]
mod support;

mod arguments;
mod plot;
mod report;
mod runner;

use std::process::ExitCode;

use anyhow::Context as _;

use arguments::{Arguments, Command, Options};
use runner::results::{Outcome, Results};
use runner::scenario::{Effort, Scenario, all};

fn main() -> ExitCode {
    // Plain `cargo bench` runs every target, and this one would take half an hour.
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if given.is_empty() {
        println!("the benchmark of the whole: scripts/bench --list");
        return ExitCode::SUCCESS;
    }
    match run(&Arguments::read(&given)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Some(Command::Report { results, into: None }) => {
            print!("{}", report::markdown(&Results::read(results)?));
            Ok(())
        }
        Some(Command::Report { results, into: Some(file) }) => report::write_into(file, &Results::read(results)?),
        Some(Command::Plot { results, svg }) => plot::draw(&Results::read(results)?, svg),
        None if arguments.options.list => {
            for scenario in all() {
                println!("{:15} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
        None => measure(&arguments.options),
    }
}

/// Measures what is asked for. A scenario that fails does not keep the others from being measured.
fn measure(options: &Options) -> anyhow::Result<()> {
    let scenarios = chosen(options)?;
    if let Some(file) = options.json.as_ref().filter(|file| file.exists()) {
        Results::read(file).context("--json adds to a file of figures, and this is none")?;
    }
    let mut results = Results::begin(&options.command_line())?;
    print!("{}", report::preamble(&results));
    let mut failed = Vec::new();
    for scenario in scenarios {
        eprintln!("\n{}: {}", scenario.name, scenario.about);
        match guarded(&scenario, &options.effort()) {
            Ok(outcome) => {
                print!("{}", report::table(&outcome));
                results.outcomes.push(outcome);
            }
            Err(error) => {
                eprintln!("{} failed: {error:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
        if let Some(file) = &options.json {
            results.write(file).with_context(|| file.display().to_string())?;
        }
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The servers' own support panics where a server does not answer.
fn guarded(scenario: &Scenario, effort: &Effort) -> anyhow::Result<Outcome> {
    let run = std::panic::AssertUnwindSafe(|| runner::run(scenario, effort));
    std::panic::catch_unwind(run).unwrap_or_else(|_| Err(anyhow::anyhow!("a server did not do what it should")))
}

/// The scenarios asked for; without any, all but those that take long.
fn chosen(options: &Options) -> anyhow::Result<Vec<Scenario>> {
    if options.scenarios.is_empty() {
        return Ok(all().into_iter().filter(|scenario| !scenario.long).collect());
    }
    let find = |name: &String| all().into_iter().find(|scenario| scenario.name == *name);
    options.scenarios.iter().map(|name| find(name).with_context(|| format!("no scenario {name}; see --list"))).collect()
}

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
use runner::scenario::{Scenario, all};

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

fn measure(options: &Options) -> anyhow::Result<()> {
    let scenarios = chosen(options)?;
    let mut results = Results::begin(&options.command_line())?;
    print!("{}", report::preamble(&results));
    for scenario in scenarios {
        eprintln!("\n{}: {}", scenario.name, scenario.about);
        let outcome = runner::run(&scenario, &options.effort())?;
        print!("{}", report::table(&outcome));
        results.outcomes.retain(|earlier: &Outcome| earlier.name != outcome.name);
        results.outcomes.push(outcome);
        // After each, so that a later failure costs nothing.
        if let Some(file) = &options.json {
            results.write(file).with_context(|| file.display().to_string())?;
        }
    }
    Ok(())
}

/// The scenarios asked for; without any, all but those that take long.
fn chosen(options: &Options) -> anyhow::Result<Vec<Scenario>> {
    if options.scenarios.is_empty() {
        return Ok(all().into_iter().filter(|scenario| !scenario.long).collect());
    }
    let find = |name: &String| all().into_iter().find(|scenario| scenario.name == *name);
    options.scenarios.iter().map(|name| find(name).with_context(|| format!("no scenario {name}; see --list"))).collect()
}

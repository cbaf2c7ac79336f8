//! Runs one scenario: servers, warm-up, repetitions, and the count of rows that must come out exactly.

pub mod alerts;
pub mod copy;
pub mod database;
pub mod load;
pub mod machine;
pub mod outage;
pub mod idle;
pub mod full;
pub mod jobs;
pub mod pgbouncer;
pub mod probe;
pub mod process;
pub mod rig;
pub mod results;
pub mod scenario;
pub mod soak;
pub mod stage;
pub mod start;
pub mod steady;
pub mod watch;
pub mod writer;

use results::Outcome;
use scenario::{Effort, Scenario, Shape};
use stage::Skipped;

/// Measures it. A scenario whose surroundings are not installed is told as skipped.
///
/// # Errors
/// When a server can't be had or does not answer, and when rows are missing or too many.
pub fn run(scenario: &Scenario, effort: &Effort) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::of(scenario, effort);
    let measured = match &scenario.shape {
        Shape::Full(setup) => full::measure(setup, effort, &mut outcome),
        Shape::Steady(setup) => steady::measure(setup, effort, &mut outcome),
        Shape::Alerts(setup) => alerts::measure(setup, effort, &mut outcome),
        Shape::Jobs(setup) => jobs::measure(setup, effort, &mut outcome),
        Shape::Outage(setup) => outage::measure(setup, effort, &mut outcome),
        Shape::Soak(setup) => soak::measure(setup, effort, &mut outcome),
        Shape::Start(setup) => start::measure(setup, effort, &mut outcome),
        Shape::Writer(setup) => writer::measure(setup, effort, &mut outcome),
        Shape::Idle => idle::measure(effort, &mut outcome),
    };
    match measured {
        Ok(()) => {}
        Err(error) => match error.downcast::<Skipped>() {
            Ok(Skipped(why)) => outcome.skipped = Some(why),
            Err(error) => return Err(error),
        },
    }
    Ok(outcome)
}

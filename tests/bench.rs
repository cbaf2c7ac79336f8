//! The benchmark still runs, and counts right.

#[allow(dead_code)]
#[path = "../benches/whole/runner/mod.rs"]
mod runner;

use runner::results;
use runner::scenario::{Effort, all};

fn short(name: &str) -> runner::results::Outcome {
    let scenario = all().into_iter().find(|scenario| scenario.name == name).unwrap();
    let effort = Effort { repetitions: 1, messages: Some(50), rate: None, duration: None, outage: None };
    runner::run(&scenario, &effort).unwrap()
}

#[test]
fn a_short_benchmark_into_sqlite_counts_its_rows_exactly() {
    let outcome = short("sqlite");
    // The warm-up brings each of the thousand devices up; the probe adds a reading now and then.
    assert!((10_500..11_000).contains(&outcome.rows), "{} rows", outcome.rows);
    for figure in [results::RATE, results::OF_CEILING, results::TIDEGATE_CPU, results::VISIBLE_99, results::DISK] {
        assert!(outcome.figure(figure).is_some(), "{figure} is missing");
    }
}

#[test]
fn a_short_benchmark_of_jobs_counts_its_commands_exactly() {
    let outcome = short("job-10k-sqlite");
    assert_eq!(outcome.rows, 100, "of the warm-up and of one job");
    for figure in [results::JOB, results::JOB_RATE, results::TIDEGATE_CPU, results::DISK] {
        assert!(outcome.figure(figure).is_some(), "{figure} is missing");
    }
}

//! At a rate far below what it can do: how long until a reading can be queried.

use std::time::Duration;

use super::full::costs;
use super::load::Load;
use super::process;
use super::results::{self, Outcome, quantile};
use super::rig::Rig;
use super::scenario::{Effort, Setup};

/// Readings a second, unless told otherwise.
const RATE: u64 = 10_000;
/// Of one repetition.
const SECONDS: u64 = 20;
/// The probe's pace: enough numbers in a repetition for a 99th percentile.
const PROBE_EVERY: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(2);
const MIB: f64 = 1024.0 * 1024.0;

/// Warm-up and repetitions at the rate.
///
/// # Errors
/// Servers', and a wrong count.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let rate = effort.rate.unwrap_or(RATE) as f64 / f64::from(setup.metrics);
    let messages = effort.messages.unwrap_or((rate * SECONDS as f64) as u64);
    let mut rig = Rig::start(setup, effort)?;
    outcome.layout = rig.stage.database.layout()?.to_owned();
    rig.watch.look_every(LOOK);
    for repetition in 1..=effort.repetitions {
        let readings = rig.readings();
        process::forget_peak(rig.stage.tidegate.pid());
        rig.watch.take_latencies();
        let before = rig.stage.used(rig.watch.backend());
        let probe = rig.probe(PROBE_EVERY);
        let sent = Load::finish(rig.paced(messages, rate));
        probe.end()?;
        let reached = rig.settle()?;
        let used = rig.stage.used(rig.watch.backend()) - before;
        let readings = (rig.readings() - readings) as f64;
        outcome.add(results::RATE, "readings/s", readings / (reached - sent.began).as_secs_f64());
        costs(setup, outcome, &used, readings);
        let latencies = rig.watch.take_latencies();
        let (p50, p99) = (quantile(&latencies, 0.5), quantile(&latencies, 0.99));
        outcome.add(results::VISIBLE_50, "ms", p50);
        outcome.add(results::VISIBLE_99, "ms", p99);
        outcome.add(results::MEMORY, "MiB", process::peak(rig.stage.tidegate.pid()) as f64 / MIB);
        eprintln!("  {repetition}: visible after {p50:.1} ms, p99 {p99:.1} ms");
    }
    rig.stage.database.holds_exactly(rig.readings())?;
    outcome.rows = rig.readings();
    Ok(())
}

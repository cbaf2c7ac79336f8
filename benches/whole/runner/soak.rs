//! A long time at a rate: whether memory and latency stay flat.

use std::time::{Duration, Instant};

use super::full::costs;
use super::load::Load;
use super::process;
use super::results::{self, Outcome, quantile};
use super::rig::Rig;
use super::scenario::{Effort, Setup};

/// Readings a second and how long, unless told otherwise.
const RATE: u64 = 50_000;
const DURATION: Duration = Duration::from_secs(30 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(5);
const MIB: f64 = 1024.0 * 1024.0;
/// A rise from the first to the last minute that still counts as flat, as a share of the mean.
const FLAT: f64 = 0.1;

/// Prints memory and latency each minute, and at the end how they have moved.
///
/// # Errors
/// Servers', and a wrong count.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let rate = effort.rate.unwrap_or(RATE) as f64 / f64::from(setup.metrics);
    let duration = effort.duration.unwrap_or(DURATION);
    // A short soak is a trial of the command; its "minutes" are tenths.
    let minute = MINUTE.min(duration / 10);
    let mut rig = Rig::start(setup, effort)?;
    outcome.layout = rig.stage.database.layout()?.to_owned();
    outcome.repetitions = 1;
    rig.watch.look_every(LOOK);
    rig.watch.take_latencies();
    let (readings, pid) = (rig.readings(), rig.stage.tidegate.pid());
    let before = rig.stage.used(rig.watch.backend());
    let probe = rig.probe(PROBE_EVERY);
    let load = rig.paced((rate * duration.as_secs_f64()) as u64, rate);
    let began = Instant::now();
    let (mut memory, mut latency) = (Vec::new(), Vec::new());
    let mut position = rig.watch.position();
    while began.elapsed() + minute / 2 < duration {
        let next = minute * (memory.len() as u32 + 1);
        std::thread::sleep(next.saturating_sub(began.elapsed()));
        let latencies = rig.watch.take_latencies();
        let (p50, p99) = (quantile(&latencies, 0.5), quantile(&latencies, 0.99));
        let resident = process::resident(pid) as f64 / MIB;
        let stored = (rig.watch.position() - position) as f64 * f64::from(setup.metrics) / minute.as_secs_f64();
        position = rig.watch.position();
        eprintln!(
            "  {:>6.1} min: {stored:.0} readings/s, {resident:.1} MiB, visible after {p50:.1} ms, p99 {p99:.1} ms",
            next.as_secs_f64() / 60.0
        );
        memory.push(resident);
        latency.push(p99);
        outcome.add(results::VISIBLE_50, "ms", p50);
        outcome.add(results::VISIBLE_99, "ms", p99);
        outcome.add("resident memory of tidegate", "MiB", resident);
        outcome.add(results::RATE, "readings/s", stored);
    }
    Load::finish(load);
    probe.end()?;
    rig.settle()?;
    let used = rig.stage.used(rig.watch.backend()) - before;
    costs(setup, outcome, &used, (rig.readings() - readings) as f64);
    outcome.add(results::MEMORY, "MiB", process::peak(pid) as f64 / MIB);
    outcome.add(results::MEMORY_SLOPE, "MiB/min", verdict("memory", &memory, minute));
    outcome.add(results::LATENCY_SLOPE, "ms/min", verdict("latency", &latency, minute));
    rig.stage.database.holds_exactly(rig.readings())?;
    outcome.rows = rig.readings();
    Ok(())
}

/// The slope by least squares, a minute; says whether it is flat. The first tenth is left out: caches fill.
fn verdict(what: &str, values: &[f64], minute: Duration) -> f64 {
    let values = values.get(values.len() / 10..).unwrap_or_default();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let middle = (count - 1.0) / 2.0;
    let (mut across, mut along) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        across += (index as f64 - middle) * (value - mean);
        along += (index as f64 - middle).powi(2);
    }
    let slope = if along > 0.0 { across / along } else { 0.0 };
    let rise = slope * (count - 1.0) / mean;
    let word = if rise <= FLAT { "flat" } else { "NOT FLAT" };
    eprintln!("  {what}: {word}, {:+.1} % from the first minute to the last", rise * 100.0);
    slope * 60.0 / minute.as_secs_f64()
}

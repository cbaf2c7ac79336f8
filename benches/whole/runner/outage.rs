//! The database goes away while devices go on, comes back, and what has gathered is brought in.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::database::Database;
use super::load::Load;
use super::process;
use super::results::{self, Outcome};
use super::rig::Rig;
use super::scenario::{Effort, Setup};

/// Readings a second, unless told otherwise.
const RATE: u64 = 50_000;
const OUTAGE: Duration = Duration::from_secs(20);
/// Load before the outage.
const BEFORE: Duration = Duration::from_secs(3);
/// Traffic that is to go on after it, as a share of it: catching up at twice the arrivals takes as long as the outage.
const AFTER: f64 = 3.0;
const MIB: f64 = 1024.0 * 1024.0;

/// An outage for each repetition.
///
/// # Errors
/// Servers', a wrong count, and a backlog that was still there when the load had ended.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let rate = effort.rate.unwrap_or(RATE) as f64 / f64::from(setup.metrics);
    let outage = effort.outage.unwrap_or(OUTAGE);
    let mut rig = Rig::start(setup, effort)?;
    outcome.layout = rig.stage.database.layout()?.to_owned();
    let database = std::sync::Arc::clone(&rig.stage.database);
    let Database::Postgres { server, .. } = &*database else { anyhow::bail!("an outage needs a server") };
    for repetition in 1..=effort.repetitions {
        let pid = rig.stage.tidegate.pid();
        let whole = BEFORE.as_secs_f64() + outage.as_secs_f64() * (1.0 + AFTER) + 10.0;
        let load = rig.paced((rate * whole) as u64, rate);
        std::thread::sleep(BEFORE);
        process::forget_peak(pid);
        server.stop();
        let stopped_at = rig.watch.position();
        std::thread::sleep(outage);
        let in_outage = process::peak(pid);
        process::forget_peak(pid);
        server.restart();
        let back = Instant::now();
        let caught_up = wait_until_level(&rig, rate, Duration::from_secs_f64(outage.as_secs_f64() * AFTER))?;
        let catching_up = process::peak(pid);
        let moves = rig.watch.moves_since(back);
        // From when tidegate first got through again: how long it waits between attempts is told apart.
        let first = moves.first().context("nothing was committed after the outage")?.0;
        let drained = (rig.watch.position() - stopped_at) as f64 * f64::from(setup.metrics);
        let drained = drained / (caught_up - first).as_secs_f64().max(0.001);
        let arriving = rate * f64::from(setup.metrics);
        Load::finish(load);
        rig.settle()?;
        rig.watch.take_latencies();

        outcome.add(results::ARRIVING, "readings/s", arriving);
        outcome.add(results::DRAINED, "readings/s", drained);
        outcome.add(results::DRAINED_TO_ARRIVING, "", drained / arriving);
        outcome.add(results::CATCHING_UP, "s", (caught_up - back).as_secs_f64());
        outcome.add("first commit after the database is back", "s", (first - back).as_secs_f64());
        outcome.add(results::MEMORY_IN_OUTAGE, "MiB", in_outage as f64 / MIB);
        outcome.add(results::MEMORY_CATCHING_UP, "MiB", catching_up as f64 / MIB);
        eprintln!("  {repetition}: drained {drained:.0} readings/s while {arriving:.0} arrived");
    }
    rig.stage.database.holds_exactly(rig.readings())?;
    outcome.rows = rig.readings();
    Ok(())
}

/// Waits until what is not committed is less than what arrives in a fifth of a second.
fn wait_until_level(rig: &Rig<'_>, rate: f64, longest: Duration) -> anyhow::Result<Instant> {
    let began = Instant::now();
    loop {
        if rig.stage.tidegate.metric("tidegate_journal_lag_messages") <= (rate / 5.0).max(10.0) {
            return Ok(Instant::now());
        }
        anyhow::ensure!(began.elapsed() < longest, "not caught up {longest:?} after the database was back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

//! As fast as the broker takes the messages: what a reading costs, and how near the database's own limit that is.
//!
//! The broker acknowledges faster than anybody stores, so messages wait in its queue, and PUBLISH to visible counts that
//! wait. The rate is that of the whole: from the first connection of the load to the last reading committed.

use super::copy;
use super::process;
use super::results::{self, Outcome, quantile};
use super::rig::{PROBE_EVERY, Rig};
use super::scenario::{Effort, Kind, Setup};
use super::stage::Used;

const MIB: f64 = 1024.0 * 1024.0;

/// Warm-up and repetitions; after each, the plain client brings in as many rows.
///
/// # Errors
/// Servers', and a wrong count.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut rig = Rig::start(setup, effort)?;
    outcome.layout = rig.stage.database.layout()?.to_owned();
    for repetition in 1..=effort.repetitions {
        let rate = repeat(&mut rig, setup.messages(effort), outcome)?;
        let rows = setup.messages(effort) * u64::from(setup.metrics);
        let (took, rows) = copy::copy(&rig.stage.database, setup, rows)?;
        let ceiling = rows as f64 / took.as_secs_f64();
        outcome.add(results::CEILING, "readings/s", ceiling);
        outcome.add(results::OF_CEILING, "", rate / ceiling);
        eprintln!("  {repetition}: {rate:.0} readings/s; the plain client {ceiling:.0}");
    }
    rig.stage.database.holds_exactly(rig.readings())?;
    outcome.rows = rig.readings();
    Ok(())
}

fn repeat(rig: &mut Rig<'_>, messages: u64, outcome: &mut Outcome) -> anyhow::Result<f64> {
    let metric = |rig: &Rig<'_>, name: &str| rig.stage.tidegate.metric(name);
    let counters =
        ["tidegate_journal_messages_total", "tidegate_journal_groups_total", "tidegate_batches_committed_total"];
    let counted = counters.map(|name| metric(rig, name));
    let size = rig.stage.database.size()?;
    let (readings, dropped) = (rig.readings(), rig.dropped);
    process::forget_peak(rig.stage.tidegate.pid());
    rig.watch.take_latencies();
    let before = rig.stage.used(rig.watch.backend());

    let probe = rig.probe(PROBE_EVERY);
    let sent = rig.flood(messages);
    probe.end()?;
    let reached = rig.settle()?;

    let used = rig.stage.used(rig.watch.backend()) - before;
    let readings = (rig.readings() - readings) as f64;
    let rate = readings / (reached - sent.began).as_secs_f64();
    outcome.add(results::RATE, "readings/s", rate);
    costs(rig.setup, outcome, &used, readings);
    for (name, value) in [(results::PUBACK_50, sent.puback_p50_ms), (results::PUBACK_99, sent.puback_p99_ms)] {
        if let Some(value) = value {
            outcome.add(name, "ms", value);
        }
    }
    let latencies = rig.watch.take_latencies();
    outcome.add(results::VISIBLE_50, "ms", quantile(&latencies, 0.5));
    outcome.add(results::VISIBLE_99, "ms", quantile(&latencies, 0.99));
    outcome.add(results::MEMORY, "MiB", process::peak(rig.stage.tidegate.pid()) as f64 / MIB);
    outcome.add(results::DISK, "bytes/reading", (rig.stage.database.size()? - size) as f64 / readings);
    let now = counters.map(|name| metric(rig, name));
    outcome.add(results::GROUP, "", (now[0] - counted[0]) / (now[1] - counted[1]));
    outcome.add(results::TRANSACTION, "", readings / (now[2] - counted[2]));
    if rig.setup.qos == 0 {
        outcome.add(results::DROPPED, "messages", (rig.dropped - dropped) as f64);
    }
    Ok(rate)
}

/// µs of processor time a reading. What runs inside of tidegate is in tidegate's.
pub fn costs(setup: &Setup, outcome: &mut Outcome, used: &Used, readings: f64) {
    let mut add = |name, seconds: f64| outcome.add(name, "µs/reading", seconds * 1e6 / readings);
    add(results::TIDEGATE_CPU, used.tidegate);
    if setup.broker == super::scenario::Broker::Mosquitto {
        add(results::BROKER_CPU, used.broker);
    }
    if setup.database != Kind::Sqlite {
        add(results::DATABASE_CPU, used.database);
    }
    if setup.database == Kind::PgBouncer {
        add(results::POOLER_CPU, used.pooler);
    }
    if used.load > 0.0 {
        add(results::LOAD_CPU, used.load);
    }
}

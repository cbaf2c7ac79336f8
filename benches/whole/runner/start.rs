//! A start with many devices and sensors known.

use std::time::{Duration, Instant};

use super::probe::Probe;
use super::process;
use super::results::{self, Outcome};
use super::rig::Rig;
use super::scenario::{Effort, Setup};

const MIB: f64 = 1024.0 * 1024.0;
/// Long enough for a catalog of any size here.
const PATIENCE: Duration = Duration::from_secs(120);

/// The warm-up makes the devices; each repetition stops tidegate, leaves one message with the broker, and starts it. The
/// start is over once that message's reading is visible: session, journal, catalog and writer all work then.
///
/// # Errors
/// Servers', and a wrong count.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let mut rig = Rig::start(setup, effort)?;
    outcome.layout = rig.stage.database.layout()?.to_owned();
    let known = rig.stage.database.connect()?.number("SELECT count(*) AS n FROM device_sensors")?;
    eprintln!("  {known} sensors are known");
    rig.watch.look_every(Duration::from_millis(2));
    for repetition in 1..=effort.repetitions {
        let status = rig.stage.tidegate.stop();
        anyhow::ensure!(status.success(), "tidegate ended with {status}");
        Probe::once(rig.stage.port(), &rig.stamps)?;
        let began = Instant::now();
        rig.stage.tidegate.spawn();
        while rig.stage.tidegate.said("runs").is_none() {
            anyhow::ensure!(began.elapsed() < PATIENCE, "tidegate does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        rig.stage.tidegate.listening();
        let listening = began.elapsed();
        let whole = rig.settle()? - began;
        let peak = process::peak(rig.stage.tidegate.pid());
        outcome.add(results::START, "s", whole.as_secs_f64());
        outcome.add(results::START_LISTENING, "s", listening.as_secs_f64());
        outcome.add(results::MEMORY, "MiB", peak as f64 / MIB);
        eprintln!("  {repetition}: {:.2} s, {:.1} MiB", whole.as_secs_f64(), peak as f64 / MIB);
    }
    rig.stage.database.holds_exactly(rig.readings())?;
    outcome.rows = rig.readings();
    Ok(())
}

//! One job for the whole fleet: every device is told a command, carries it out once and says so.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::load::Load;
use super::process;
use super::results::{self, Outcome};
use super::scenario::{Broker, Effort, Kind, Setup};
use super::stage::{Stage, template};
use crate::support::load::Simulation;

/// Telemetry beside it, messages a second: the devices must have something to do, and that is not what is measured.
const BESIDE: &str = "1";
/// More messages than a repetition lasts.
const ENOUGH: &str = "1000000";
/// What the fleet is told.
const COMMAND: &str = "[[command]]\nname = \"dim\"\nparameters = { type = \"object\", required = [\"level\"] }\n";
const MIB: f64 = 1024.0 * 1024.0;

/// Repetitions, each a job of its own.
///
/// # Errors
/// Servers'; a job that does not succeed on every device; a device that is told twice.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    // As many commands as are asked for, one to each device.
    let number = effort.messages.and_then(|messages| u32::try_from(messages).ok()).unwrap_or(setup.devices);
    let setup = &Setup { devices: number, ..*setup };
    let mut stage = Stage::prepare(setup)?;
    stage.tidegate.catalog_file("templates/bench.toml", &(template(setup.metrics) + COMMAND));
    stage.begin();
    // Every device says something once, and is known then.
    Load { setup, port: stage.port(), seed: 1 }.flood(u64::from(setup.devices));
    let readings = u64::from(setup.devices) * u64::from(setup.metrics);
    stage.tidegate.wait_for_metric("tidegate_readings_stored_total", readings as f64);
    outcome.layout = stage.database.layout()?.to_owned();
    let devices = setup.devices.to_string();
    let fleet = ["--devices", &devices, "--metrics", "1", "--answer", "--rate", BESIDE, "--messages", ENOUGH];
    let _fleet = Simulation::start(stage.port(), &fleet);
    // The first job finds the caches of nobody filled, and the fleet perhaps not there.
    run(&stage, setup, "warm-up")?;
    for repetition in 1..=effort.repetitions {
        process::forget_peak(stage.tidegate.pid());
        let size = stage.database.size()?;
        let before = stage.used(None);
        let took = run(&stage, setup, &format!("job-{repetition}"))?;
        let used = stage.used(None) - before;
        let commands = f64::from(setup.devices);
        let mut add = |name, seconds: f64| outcome.add(name, "µs/command", seconds * 1e6 / commands);
        add(results::TIDEGATE_CPU, used.tidegate);
        if setup.broker == Broker::Mosquitto {
            add(results::BROKER_CPU, used.broker);
        }
        if setup.database != Kind::Sqlite {
            add(results::DATABASE_CPU, used.database);
        }
        outcome.add(results::JOB, "s", took.as_secs_f64());
        outcome.add(results::JOB_RATE, "commands/s", commands / took.as_secs_f64());
        outcome.add(results::MEMORY, "MiB", process::peak(stage.tidegate.pid()) as f64 / MIB);
        outcome.add(results::DISK, "bytes/command", (stage.database.size()? - size) as f64 / commands);
        eprintln!("  {repetition}: {commands} commands in {:.1} s", took.as_secs_f64());
    }
    let mut connection = stage.database.connect()?;
    let once = "SELECT count(*) AS n FROM job_executions e JOIN device_commands c ON c.id = e.command_id \
                WHERE e.state = 'SUCCEEDED' AND c.state = 'succeeded' AND c.attempts = 1";
    let commands = u64::try_from(connection.number(once)?)?;
    let wanted = u64::from(setup.devices) * u64::from(effort.repetitions + 1);
    anyhow::ensure!(commands == wanted, "{commands} of {wanted} commands were sent once and have succeeded");
    outcome.rows = commands;
    Ok(())
}

/// A job for all, from when it is asked for until the last device has said that it is done.
fn run(stage: &Stage, setup: &Setup, name: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let arguments = ["job", "create", name, "--command", "dim", "--params", r#"{"level":7}"#, "--template", "bench"];
    let output = stage.tidegate.command(&arguments).args(["--wait", "--json"]).output()?;
    let took = begun.elapsed();
    let shown: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let succeeded = shown["executions"]["SUCCEEDED"].as_u64();
    anyhow::ensure!(succeeded == Some(u64::from(setup.devices)), "the job came to {shown}");
    Ok(took)
}

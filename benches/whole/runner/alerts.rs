//! From a device's PUBLISH to the alert at whoever subscribed, beside 10,000 readings a second and with 1,000 rules, while the database
//! answers and while it does not.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::database::Database;
use super::load::Load;
use super::process;
use super::results::{self, Outcome, quantile};
use super::rig::Rig;
use super::scenario::{Effort, Setup};

/// Readings a second, unless told otherwise.
const RATE: u64 = 10_000;
/// Of one repetition.
const SECONDS: u64 = 20;
/// The probe's pace: each of its numbers raises one alert and ends the one before.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Each fires at one of the probe's numbers; further ones look at the fleet.
pub const PROBE_RULES: u32 = 1400;
const FLEET_RULES: u32 = 10;
/// How long the last alerts may take.
const PATIENCE: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;

/// The rules, as files of a catalog.
pub fn rules() -> impl Iterator<Item = (String, String)> {
    let rule = |slug: &str, scope: &str, when: &str| {
        format!("slug = \"{slug}\"\nname = \"{slug}\"\nseverity = \"warning\"\n[scope]\n{scope}\n[when]\n{when}\n")
    };
    let probe = (0..PROBE_RULES).map(move |n| {
        let slug = format!("n{n}");
        (format!("rules/{slug}.toml"), rule(&slug, "device = \"probe\"", &format!("metric = \"n\"\neq = {n}")))
    });
    let fleet = (0..FLEET_RULES).map(move |n| {
        let (slug, metric) = (format!("fleet{n}"), n % 10 + 1);
        (
            format!("rules/{slug}.toml"),
            rule(&slug, "template = \"bench\"", &format!("metric = \"q{metric}\"\ngt = 200")),
        )
    });
    probe.chain(fleet)
}

/// Whoever subscribes: the probe's number of each alert that fires, and when it came.
struct Listener {
    child: Child,
    firing: Receiver<(Instant, usize)>,
}

impl Listener {
    fn start(port: u16) -> anyhow::Result<Listener> {
        let mut child = Command::new("mosquitto_sub")
            .args(["-p", &port.to_string(), "-q", "1", "-t", "tidegate/alerts/default/probe/+", "-F", "%t %p"])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = BufReader::new(child.stdout.take().context("its output")?);
        let (sender, firing) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let at = Instant::now();
                let Some((topic, payload)) = line.split_once(' ') else { continue };
                let number = topic.rsplit("/n").next().and_then(|number| number.parse::<usize>().ok());
                if let Some(number) = number.filter(|_| payload.contains("\"firing\""))
                    && sender.send((at, number)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Listener { child, firing })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repetitions with the database, then as many seconds without.
///
/// # Errors
/// Servers'; an alert that does not come; a wrong count.
pub fn measure(setup: &Setup, effort: &Effort, outcome: &mut Outcome) -> anyhow::Result<()> {
    let rate = effort.rate.unwrap_or(RATE) as f64 / f64::from(setup.metrics);
    let messages = effort.messages.unwrap_or((rate * SECONDS as f64) as u64);
    let mut rig = Rig::start_with(setup, effort, rules())?;
    outcome.layout = rig.stage.database.layout()?.to_owned();
    let listener = Listener::start(rig.stage.port())?;
    for repetition in 1..=effort.repetitions {
        process::forget_peak(rig.stage.tidegate.pid());
        let latencies = repeat(&mut rig, &listener, messages, rate)?;
        let (p50, p99) = (quantile(&latencies, 0.5), quantile(&latencies, 0.99));
        rig.settle()?;
        outcome.add(results::ALERT_50, "ms", p50);
        outcome.add(results::ALERT_99, "ms", p99);
        outcome.add(results::MEMORY, "MiB", process::peak(rig.stage.tidegate.pid()) as f64 / MIB);
        eprintln!("  {repetition}: alerts after {p50:.1} ms, p99 {p99:.1} ms");
    }
    let database = std::sync::Arc::clone(&rig.stage.database);
    let Database::Postgres { server, .. } = &*database else { anyhow::bail!("an outage needs a server") };
    server.stop();
    let latencies = repeat(&mut rig, &listener, messages, rate)?;
    let (p50, p99) = (quantile(&latencies, 0.5), quantile(&latencies, 0.99));
    outcome.add(results::ALERT_DOWN_50, "ms", p50);
    outcome.add(results::ALERT_DOWN_99, "ms", p99);
    eprintln!("  without the database: alerts after {p50:.1} ms, p99 {p99:.1} ms");
    server.restart();
    rig.settle()?;
    rig.stage.database.holds_exactly(rig.readings())?;
    outcome.rows = rig.readings();
    Ok(())
}

/// Load and probe; milliseconds from when each of the probe's numbers was due until its alert was here.
fn repeat(rig: &mut Rig<'_>, listener: &Listener, messages: u64, rate: f64) -> anyhow::Result<Vec<f64>> {
    while listener.firing.try_recv().is_ok() {}
    let first = rig.stamps().count() as usize;
    let probe = rig.probe(PROBE_EVERY);
    Load::finish(rig.paced(messages, rate));
    probe.end()?;
    let last = rig.stamps().count() as usize;
    anyhow::ensure!(
        last <= PROBE_RULES as usize,
        "there are rules for {PROBE_RULES} numbers only; fewer repetitions fit"
    );
    let mut latencies = Vec::new();
    for _ in first..last {
        let (at, number) = listener.firing.recv_timeout(PATIENCE).context("an alert did not come")?;
        if let Some(due) = rig.stamps().of(number) {
            latencies.push((at - due).as_secs_f64() * 1000.0);
        }
    }
    Ok(latencies)
}

//! The figures of a run, as they are printed and kept in JSON.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::scenario::{Broker, Effort, Scenario, Setup, Shape};

pub const RATE: &str = "stored";
pub const CEILING: &str = "ceiling";
pub const OF_CEILING: &str = "of the ceiling";
pub const TIDEGATE_CPU: &str = "CPU of tidegate";
pub const BROKER_CPU: &str = "CPU of the broker";
pub const DATABASE_CPU: &str = "CPU of the database";
pub const POOLER_CPU: &str = "CPU of PgBouncer";
pub const LOAD_CPU: &str = "CPU of the load generator";
pub const PUBACK_50: &str = "PUBLISH to PUBACK, p50";
pub const PUBACK_99: &str = "PUBLISH to PUBACK, p99";
pub const VISIBLE_50: &str = "PUBLISH to visible, p50";
pub const VISIBLE_99: &str = "PUBLISH to visible, p99";
pub const ALERT_50: &str = "PUBLISH to alert, p50";
pub const ALERT_99: &str = "PUBLISH to alert, p99";
pub const ALERT_DOWN_50: &str = "PUBLISH to alert, p50, database down";
pub const ALERT_DOWN_99: &str = "PUBLISH to alert, p99, database down";
pub const MEMORY: &str = "peak memory of tidegate";
pub const DISK: &str = "on disk";
pub const GROUP: &str = "messages a journal group";
pub const TRANSACTION: &str = "readings a transaction";
pub const DROPPED: &str = "dropped at QoS 0";
pub const FSYNC: &str = "fsync in place, p50";
pub const FSYNC_GROWING: &str = "fsync of a file that grows, p50";
pub const IN_FSYNCS: &str = "PUBLISH to PUBACK, in fsyncs";
pub const IN_GROWTHS: &str = "PUBLISH to PUBACK, in fsyncs of a file that grows";
pub const EMBEDDED_PUBACK_50: &str = "the embedded broker's PUBACK, p50";
pub const EMBEDDED_PUBACK_99: &str = "the embedded broker's PUBACK, p99";
pub const EMBEDDED_IN_FSYNCS: &str = "the embedded broker's PUBACK, in fsyncs";
pub const ARRIVING: &str = "arriving";
pub const DRAINED: &str = "drained";
pub const DRAINED_TO_ARRIVING: &str = "drained to arriving";
pub const CATCHING_UP: &str = "catching up took";
pub const MEMORY_IN_OUTAGE: &str = "peak memory during the outage";
pub const MEMORY_CATCHING_UP: &str = "peak memory while catching up";
pub const JOB: &str = "until the last has succeeded";
pub const JOB_RATE: &str = "carried out";
pub const START: &str = "start until the first reading is stored";
pub const START_LISTENING: &str = "start until the broker's session is up";
pub const MEMORY_SLOPE: &str = "memory's slope";
pub const LATENCY_SLOPE: &str = "slope of PUBLISH to visible, p99";

/// A run of some scenarios on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    pub command: String,
    pub machine: Machine,
    pub outcomes: Vec<Outcome>,
}

/// What a scenario came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub about: String,
    /// The command that does the same again.
    pub command: String,
    pub setup: String,
    /// What telemetry is; empty without a database to measure.
    pub layout: String,
    pub metrics: Option<u32>,
    pub devices: Option<u32>,
    pub repetitions: u32,
    /// Why it was not run.
    pub skipped: Option<String>,
    /// Counted in the database at the end, and found to be what was sent.
    pub rows: u64,
    pub figures: Vec<Figure>,
}

/// A value for each repetition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub values: Vec<f64>,
}

impl Results {
    /// Looks at the machine.
    ///
    /// # Errors
    /// When a temporary file can't be written.
    pub fn begin(command: &str) -> anyhow::Result<Results> {
        Ok(Results { command: command.to_owned(), machine: Machine::look()?, outcomes: Vec::new() })
    }

    /// # Errors
    /// When there is no such file, or it holds something else.
    pub fn read(file: &Path) -> anyhow::Result<Results> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    /// Writes the file. Scenarios that it holds and this run has not measured stay in it.
    ///
    /// # Errors
    /// When it can't be written, or holds something else.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut all = Results { command: self.command.clone(), machine: self.machine.clone(), outcomes: Vec::new() };
        if file.exists() {
            let kept = Results::read(file)?.outcomes;
            let anew = |old: &Outcome| self.outcomes.iter().any(|outcome| outcome.name == old.name);
            all.outcomes.extend(kept.into_iter().filter(|old| !anew(old)));
        }
        all.outcomes.extend(self.outcomes.iter().cloned());
        let place = |outcome: &Outcome| super::scenario::all().iter().position(|one| one.name == outcome.name);
        all.outcomes.sort_by_key(place);
        Ok(std::fs::write(file, serde_json::to_string_pretty(&all)? + "\n")?)
    }

    pub fn outcome(&self, name: &str) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.name == name && outcome.skipped.is_none())
    }
}

impl Outcome {
    pub fn of(scenario: &Scenario, effort: &Effort) -> Outcome {
        let setup = match &scenario.shape {
            Shape::Full(setup) | Shape::Steady(setup) | Shape::Alerts(setup) | Shape::Outage(setup) => Some(setup),
            Shape::Soak(setup) | Shape::Start(setup) | Shape::Writer(setup) | Shape::Jobs(setup) => Some(setup),
            Shape::Idle => None,
        };
        Outcome {
            name: scenario.name.to_owned(),
            about: scenario.about.to_owned(),
            command: command(scenario, effort),
            setup: setup.map_or_else(|| "a scripted broker; the embedded broker".to_owned(), describe),
            layout: String::new(),
            metrics: setup.map(|setup| setup.metrics),
            devices: setup.map(|setup| setup.devices),
            repetitions: effort.repetitions,
            skipped: None,
            rows: 0,
            figures: Vec::new(),
        }
    }

    /// Adds a repetition's value.
    pub fn add(&mut self, name: &str, unit: &str, value: f64) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure { name: name.to_owned(), unit: unit.to_owned(), values: vec![value] }),
        }
    }

    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}

impl Figure {
    pub fn median(&self) -> f64 {
        quantile(&self.values, 0.5)
    }

    pub fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn max(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// The value that `share` of them do not exceed, between neighbours in proportion; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

fn command(scenario: &Scenario, effort: &Effort) -> String {
    let mut command = format!("scripts/bench {}", scenario.name);
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            command.push_str(&format!(" --{name} {value}"));
        }
    };
    let repeats = !matches!(scenario.shape, Shape::Soak(_));
    option("repetitions", repeats.then(|| effort.repetitions.to_string()));
    option("messages", effort.messages.map(|messages| messages.to_string()));
    option("rate", effort.rate.map(|rate| rate.to_string()));
    option("for", effort.duration.map(|duration| humantime::format_duration(duration).to_string().replace(' ', "")));
    option("outage", effort.outage.map(|outage| humantime::format_duration(outage).to_string().replace(' ', "")));
    command
}

fn describe(setup: &Setup) -> String {
    let broker = match setup.broker {
        Broker::Mosquitto => "mosquitto",
        Broker::Embedded => "embedded broker",
    };
    let Setup { metrics, devices, qos, receive_maximum, .. } = setup;
    format!(
        "{broker}, {}, QoS {qos}, {metrics} metrics a message, {devices} devices, receive_maximum = {receive_maximum}",
        setup.database.name()
    )
}

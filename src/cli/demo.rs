//! `tidegate demo`: what its terminal shows while the simulated fleet publishes, and what it says at the end.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::logging;
use super::output::printable;
use crate::bridge::Bridge;
use crate::catalog;
use crate::clock;
use crate::config::{Config, DatabaseUrl, Endpoint};
use crate::latency::LatencyRecorder;
use crate::metrics::{ByReason, Metrics};
use crate::mqtt::load::{Settings, Tally};
use crate::quarantine::Reason;
use crate::simulate::{self, Fleet, Kind, Plan};
use crate::store::Store;
use crate::store::query::{DeviceFilter, ReadingRow};
use crate::time::UtcMicros;

#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// Devices of each kind
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    devices: u32,
    /// Messages a second, all devices together
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Stop after so long, e.g. 30s; else at Ctrl-C
    #[arg(long = "for", id = "duration", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Where the database, the journal, a log and a configuration to query them with are put
    #[arg(long, default_value = "tidegate-demo-data")]
    dir: PathBuf,
}

/// How often the summary is drawn.
const FRAME: Duration = Duration::from_secs(1);

pub(super) fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    if cfg!(not(feature = "embedded-broker")) {
        bail!("the demo needs the embedded broker, and this tidegate is built without it");
    }
    std::fs::create_dir_all(&args.dir).with_context(|| format!("can't make {}", args.dir.display()))?;
    let dir = args.dir.canonicalize()?;
    logging::start_in_file(&dir.join("demo.log"))?;
    let file = dir.join("tidegate.toml");
    std::fs::write(&file, configuration(&dir)).with_context(|| format!("can't write {}", file.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(&args, &dir, &file));
    runtime.shutdown_background();
    outcome
}

/// What `tidegate run`, `readings`, … need to go on with the demo's data.
fn configuration(dir: &Path) -> String {
    let mut text = format!(
        "# Written by `tidegate demo`.\n[instance]\nid = \"demo\"\nstate_dir = {:?}\n\n[broker]\nurl = \"embedded\"\n",
        dir.display().to_string()
    );
    for source in simulate::demo_sources() {
        let decoder = source.decoder.name();
        let _ = write!(
            text,
            "\n[[sources]]\nname = {:?}\nfilter = {:?}\ndecoder = {decoder:?}\n",
            source.name, source.filter
        );
        for (key, value) in [("template", &source.template), ("timestamp", &source.timestamp)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {value:?}");
            }
        }
    }
    text
}

async fn play(args: &DemoArgs, dir: &Path, file: &Path) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(Some(file), &[])?;
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    config.broker.endpoint = Endpoint::Embedded { listen: free };
    config.http.listen = Some(free);
    let DatabaseUrl::Sqlite(database) = config.database.url.clone() else {
        bail!("the demo's configuration in {} names another database than SQLite", file.display());
    };
    let store = Store::open(&config.database)?;
    let mut bridge = Bridge::start(config, catalog::files::load(None)?).await?;
    let broker = bridge.broker_addr.context("the embedded broker did not start")?;
    let metrics_at = bridge.http_addr.map(|http| format!("; metrics at http://{http}/metrics")).unwrap_or_default();
    println!("embedded broker at mqtt://{broker}{metrics_at}; data and log in {}\n", dir.display());

    let counts = Kind::REAL.map(|kind| (kind, usize::try_from(args.devices).unwrap_or(1)));
    let fleet = Fleet::new(&counts, "demo-", clock::now().0.unsigned_abs(), false);
    let connections = fleet.len();
    let plan = Plan { connections, rate: args.rate, messages: None, duration: args.duration };
    let stop = CancellationToken::new();
    let settings = load_settings(broker)?;
    let tally = Arc::new(Tally::default());
    let simulation = simulate::run(fleet, plan, &settings, tally, stop.clone());
    tokio::pin!(simulation);

    let terminal = io::stdout().is_terminal();
    let mut dashboard = Dashboard::new(io::stdout(), terminal);
    let mut frames = tokio::time::interval(FRAME);
    let failure = loop {
        tokio::select! {
            _ = frames.tick() => {
                let recent = recent(&store).await;
                let snapshot = Snapshot::take(&bridge.metrics, &bridge.latency, recent);
                dashboard.draw(Instant::now(), &snapshot)?;
            }
            summary = &mut simulation => break summary.err().map(anyhow::Error::from),
            error = bridge.failed() => break Some(error.into()),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                println!("\ndraining …");
                stop.cancel();
                // What the fleet still waits for is answered before the broker goes.
                break tokio::time::timeout(Duration::from_secs(5), &mut simulation).await.ok().and_then(|ended| ended.err()).map(Into::into);
            }
        }
    };
    let (metrics, latency) = (bridge.metrics.clone(), bridge.latency.clone());
    bridge.stop().await?;
    if let Some(error) = failure {
        return Err(error);
    }
    let totals = Snapshot::take(&metrics, &latency, Vec::new());
    let device = store.devices(&DeviceFilter::default(), 1)?.into_iter().next().map_or_else(String::new, |one| one.uid);
    print!("\n{}", farewell(&database, Some(file), &device, &totals));
    Ok(ExitCode::SUCCESS)
}

fn load_settings(broker: SocketAddr) -> anyhow::Result<Settings> {
    Ok(Settings {
        target: format!("mqtt://{broker}").parse()?,
        client_id: "tidegate-demo".to_owned(),
        credentials: None,
        ca: None,
        qos: 1,
        window: 10,
        grace: Duration::from_secs(5),
        give_up: Duration::from_secs(30),
    })
}

/// The newest readings; none while the database is not there yet.
async fn recent(store: &Store) -> Vec<Recent> {
    let store = store.clone();
    let rows =
        tokio::task::spawn_blocking(move || store.latest(i64::try_from(Dashboard::<io::Stdout>::RECENT).unwrap_or(8)))
            .await;
    let rows = rows.ok().and_then(Result::ok).unwrap_or_default();
    let shown = |row: ReadingRow| Recent {
        time: row.time,
        device: row.device,
        metric: row.metric,
        value: row.value.map_or_else(|| row.text.unwrap_or_default(), |value| value.to_string()),
        unit: row.unit,
    };
    rows.into_iter().map(shown).collect()
}

/// A reading to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    pub time: UtcMicros,
    pub device: String,
    pub metric: String,
    /// As the database has it, number or text.
    pub value: String,
    pub unit: String,
}

/// The state of the bridge at one moment; totals since its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub messages: u64,
    pub readings: u64,
    pub quarantined: u64,
    /// Messages journalled and not yet in the database.
    pub lag: i64,
    /// From receipt to commit, since the last snapshot; none: nothing was committed.
    pub p99: Option<Duration>,
    /// Newest last.
    pub recent: Vec<Recent>,
}

impl Snapshot {
    /// Reads the counters; the latency starts anew.
    pub fn take(metrics: &Metrics, latency: &LatencyRecorder, recent: Vec<Recent>) -> Snapshot {
        let refusals = Reason::ALL
            .iter()
            .map(|reason| metrics.quarantined.get_or_create(&ByReason { reason: reason.code() }).get())
            .sum();
        Snapshot {
            messages: metrics.journal_messages.get(),
            readings: metrics.readings_stored.get(),
            quarantined: refusals,
            lag: metrics.journal_lag_messages.get(),
            p99: latency.p99_and_reset(),
            recent,
        }
    }
}

/// The live summary: redrawn in place on a terminal, else a line for each snapshot.
pub struct Dashboard<W: Write> {
    out: W,
    terminal: bool,
    last: Option<(Instant, u64, u64)>,
    /// Lines on the terminal to draw over.
    drawn: usize,
}

impl<W: Write> Dashboard<W> {
    /// Readings shown at most.
    pub const RECENT: usize = 8;
    /// Terminals narrower than this wrap, and a wrapped line can't be drawn over.
    const WIDTH: usize = 79;

    /// `terminal`: `out` understands ANSI sequences.
    pub fn new(out: W, terminal: bool) -> Dashboard<W> {
        Dashboard { out, terminal, last: None, drawn: 0 }
    }

    /// Shows a snapshot taken at `now`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn draw(&mut self, now: Instant, snapshot: &Snapshot) -> io::Result<()> {
        let (messages, readings) = self.rates(now, snapshot);
        let p99 = snapshot.p99.map_or("-".to_owned(), |p99| format!("{:.1} ms", p99.as_secs_f64() * 1e3));
        let (quarantined, lag) = (snapshot.quarantined, snapshot.lag);
        if !self.terminal {
            writeln!(
                self.out,
                "{messages:.0} messages/s, {readings:.0} readings/s, {} readings, {quarantined} quarantined, \
                 lag {lag} messages, p99 {p99}",
                snapshot.readings
            )?;
            return self.out.flush();
        }
        let mut lines = vec![
            format!("messages     {messages:>10.0} /s {:>14} in all", snapshot.messages),
            format!("readings     {readings:>10.0} /s {:>14} in all", snapshot.readings),
            format!("quarantined  {quarantined:>10}"),
            format!("journal lag  {lag:>10} messages"),
            format!("p99 latency  {p99:>10} from PUBLISH to committed"),
            String::new(),
        ];
        let skip = snapshot.recent.len().saturating_sub(Self::RECENT);
        lines.extend(snapshot.recent.iter().skip(skip).map(line));
        self.redraw(&lines)
    }

    fn redraw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            // Writing to a String can't fail.
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        for line in lines {
            let shown: String = line.chars().take(Self::WIDTH).collect();
            let _ = writeln!(text, "\r\x1b[2K{shown}");
        }
        // What a longer picture left below.
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    fn rates(&mut self, now: Instant, snapshot: &Snapshot) -> (f64, f64) {
        let before = self.last.replace((now, snapshot.messages, snapshot.readings));
        let Some((then, messages, readings)) = before else { return (0.0, 0.0) };
        let seconds = now.saturating_duration_since(then).as_secs_f64().max(1e-3);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (rate(snapshot.messages, messages), rate(snapshot.readings, readings))
    }
}

fn line(reading: &Recent) -> String {
    let time = jiff::Timestamp::from_microsecond(reading.time.0)
        .map(|time| time.strftime("%H:%M:%S%.3f").to_string())
        .unwrap_or_default();
    let value = printable(&reading.value);
    format!("{time}  {:<20} {:<22} {value:>10} {}", reading.device, reading.metric, reading.unit)
}

/// What is said once everything is drained: where the data lies and how to query it.
pub fn farewell(database: &Path, config: Option<&Path>, device: &str, totals: &Snapshot) -> String {
    let config = config.map_or(String::new(), |path| format!(" --config {}", quoted(path)));
    format!(
        "{} messages became {} readings; {} refusals are in quarantine.\n\
         The data is in {}. Query it:\n\
         \n  sqlite3 {} \"SELECT time, device, metric, value, unit FROM readings ORDER BY time DESC LIMIT 10\"\
         \n  tidegate readings {device}{config}\
         \n  tidegate devices list{config}\n",
        totals.messages,
        totals.readings,
        totals.quarantined,
        database.display(),
        quoted(database),
    )
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(messages: u64, recent: usize) -> Snapshot {
        let reading = |n: usize| Recent {
            time: UtcMicros(1_700_000_000_000_000),
            device: format!("plug-{n}"),
            metric: "power".into(),
            value: "12\x1b[31m".into(),
            unit: "W".into(),
        };
        Snapshot {
            messages,
            readings: messages * 3,
            quarantined: 2,
            lag: 5,
            p99: Some(Duration::from_micros(12_345)),
            recent: (0..recent).map(reading).collect(),
        }
    }

    #[test]
    fn without_a_terminal_each_snapshot_is_one_plain_line() {
        let mut dashboard = Dashboard::new(Vec::new(), false);
        let start = Instant::now();
        dashboard.draw(start, &snapshot(100, 1)).unwrap();
        dashboard.draw(start + Duration::from_secs(2), &snapshot(300, 1)).unwrap();
        let text = String::from_utf8(dashboard.out).unwrap();
        assert!(!text.contains('\x1b'));
        let second = text.lines().nth(1).unwrap();
        assert_eq!(second, "100 messages/s, 300 readings/s, 900 readings, 2 quarantined, lag 5 messages, p99 12.3 ms");
    }

    #[test]
    fn a_terminal_is_drawn_over_and_gets_no_control_characters_of_devices() {
        let mut dashboard = Dashboard::new(Vec::new(), true);
        let start = Instant::now();
        dashboard.draw(start, &snapshot(100, 20)).unwrap();
        let lines = dashboard.drawn;
        assert_eq!(lines, 6 + Dashboard::<Vec<u8>>::RECENT);
        dashboard.draw(start + Duration::from_secs(1), &snapshot(300, 2)).unwrap();
        let text = String::from_utf8(dashboard.out).unwrap();
        assert!(text.contains(&format!("\x1b[{lines}A")));
        assert!(text.contains("plug-19") && !text.contains("plug-11 ") && !text.contains("\x1b[31m"));
    }

    #[test]
    fn the_totals_come_from_the_metrics() {
        let metrics = Metrics::new();
        metrics.journal_messages.inc_by(7);
        metrics.count_refusal(Reason::Malformed);
        metrics.count_refusal(Reason::BadTime);
        let latency = LatencyRecorder::new();
        latency.record(Duration::from_millis(4));
        let taken = Snapshot::take(&metrics, &latency, Vec::new());
        assert_eq!((taken.messages, taken.quarantined), (7, 2));
        assert!(taken.p99.is_some() && Snapshot::take(&metrics, &latency, Vec::new()).p99.is_none());
    }

    #[test]
    fn the_farewell_can_be_pasted_into_a_shell() {
        let said = farewell(Path::new("/tmp/a b/t.db"), Some(Path::new("/etc/t.toml")), "plug-1", &snapshot(1, 0));
        assert!(said.contains("sqlite3 '/tmp/a b/t.db' \"SELECT"), "{said}");
        assert!(said.contains("tidegate readings plug-1 --config /etc/t.toml"), "{said}");
    }
}

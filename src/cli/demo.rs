//! `tidegate demo`: what its terminal shows while the simulated fleet publishes, and what it says at the end.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::latency::LatencyRecorder;
use crate::metrics::{ByReason, Metrics};
use crate::quarantine::Reason;
use crate::time::UtcMicros;

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
    // Control characters of a device's own text must not reach the terminal.
    let value: String = reading.value.chars().filter(|c| !c.is_control()).collect();
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

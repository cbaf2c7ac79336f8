//! `tidegate devices uptime DEVICE | --all [--since] [--interval]`.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::output::{self, instant};
use crate::clock;
use crate::presence::uptime::{Day, by_day};
use crate::store::Store;
use crate::store::completeness::{Basis, DeviceCompleteness, Gap, Period, SensorCompleteness};
use crate::store::connections::ConnectionHistory;
use crate::store::query::DeviceFilter;

/// Events of a connection that are looked at, the newest.
const EVENTS: i64 = 100_000;

#[derive(Args, Debug)]
pub(super) struct UptimeArgs {
    #[arg(required_unless_present = "all")]
    device: Option<String>,
    /// A line for each device
    #[arg(long, conflicts_with = "device")]
    all: bool,
    /// From so long ago until now
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    since: Duration,
    /// What lies between two readings when all is well; without it, the median of the period, sensor by sensor
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    interval: Option<Duration>,
    #[arg(long)]
    tenant: Option<String>,
    /// Only devices with this template
    #[arg(long, value_name = "SLUG")]
    template: Option<String>,
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval.is_zero() { Err("is zero, expected the time between two readings".to_owned()) } else { Ok(interval) }
}

pub(super) fn run(store: &Store, args: &UptimeArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let to = clock::now();
    let Some(from) = to.checked_sub(args.since) else { bail!("--since reaches too far back") };
    let period = Period { from, to, interval: args.interval };
    let filter = DeviceFilter {
        tenant: args.tenant.clone(),
        template: args.template.clone(),
        uid: args.device.clone(),
        ..DeviceFilter::default()
    };
    match &args.device {
        Some(device) => one(store, &filter, device, period, args.json, out),
        None => all(store, &filter, period, args.json, out),
    }
}

/// Shows every device of this uid with its sensors.
///
/// # Errors
/// When there is none; the store's, and those of writing.
pub fn one(
    store: &Store,
    filter: &DeviceFilter,
    device: &str,
    period: Period,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut found = Vec::new();
    store.completeness(filter, period, |device| {
        found.push(device);
        Ok::<(), anyhow::Error>(())
    })?;
    if found.is_empty() {
        bail!("there is no device {device:?}; `tidegate devices list` shows those there are");
    }
    let histories = store.connection_history(filter, (period.from, period.to), EVENTS)?;
    let days = |device: &DeviceCompleteness| {
        let of = |history: &&ConnectionHistory| history.tenant == device.tenant;
        histories.iter().find(of).map_or_else(Vec::new, |history| days(history, period))
    };
    if as_json {
        let shown = found.iter().map(|device| {
            let mut value = device_json(device, true);
            if let Value::Object(fields) = &mut value {
                fields.insert("days".into(), days(device).iter().map(day_json).collect());
            }
            value
        });
        output::json(out, &shown.collect())?;
        return Ok(());
    }
    for device in &found {
        show(device, out)?;
        show_days(&days(device), out)?;
    }
    Ok(())
}

/// A line, or an element of the list, for each device as it is known: a fleet's need not fit into memory.
///
/// # Errors
/// The store's, and those of writing.
pub fn all(
    store: &Store,
    filter: &DeviceFilter,
    period: Period,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if as_json {
        let mut separator = "[";
        store.completeness(filter, period, |device| -> anyhow::Result<()> {
            write!(out, "{separator}\n{}", device_json(&device, false))?;
            separator = ",";
            Ok(())
        })?;
        writeln!(out, "{}", if separator == "[" { "[]" } else { "\n]" })?;
        return Ok(());
    }
    writeln!(out, "{:>8}  {:>8}  {:>12}  {:>14}  DEVICE", "UPTIME", "COMPLETE", "READINGS", "LONGEST DOWN")?;
    store.completeness(filter, period, |device| -> anyhow::Result<()> {
        let present: u64 = device.sensors.iter().map(|sensor| sensor.present).sum();
        let down = device.longest_down.first().map_or_else(|| "-".to_owned(), |gap| length(gap.length()));
        let (uptime, complete) = (percent(device.uptime), percent(device.completeness));
        let tenant = if device.tenant == crate::catalog::DEFAULT_TENANT {
            String::new()
        } else {
            format!(" ({})", device.tenant)
        };
        let name = output::printable(&format!("{}{tenant}", device.device));
        writeln!(out, "{uptime:>8}  {complete:>8}  {present:>12}  {down:>14}  {name}")?;
        Ok(())
    })
}

fn show(device: &DeviceCompleteness, out: &mut dyn Write) -> anyhow::Result<()> {
    let facts = [
        ("device", device.device.clone()),
        ("tenant", device.tenant.clone()),
        ("period", format!("{} to {}", instant(device.period.from), instant(device.period.to))),
        ("uptime", format!("{} (one sensor at least reported)", percent(device.uptime))),
        ("completeness", percent(device.completeness)),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    for gap in &device.longest_down {
        writeln!(out, "down from {} to {}, {}", instant(gap.from), instant(gap.to), length(gap.length()))?;
    }
    writeln!(out)?;
    let lines = device.sensors.iter().map(|sensor| {
        let expected = sensor.expected.map_or_else(|| "-".to_owned(), |expected| expected.to_string());
        let longest = sensor
            .longest
            .first()
            .map_or_else(|| "-".to_owned(), |gap| format!("{} from {}", length(gap.length()), instant(gap.from)));
        vec![
            sensor.metric.clone(),
            sensor.present.to_string(),
            expected,
            percent(sensor.completeness),
            percent(sensor.covered),
            interval(sensor),
            sensor.gaps.to_string(),
            longest,
        ]
    });
    let headers = ["METRIC", "PRESENT", "EXPECTED", "COMPLETE", "COVERED", "INTERVAL", "GAPS", "LONGEST"];
    output::table(out, &headers, lines)?;
    Ok(())
}

/// What the connection was, day by day.
fn days(history: &ConnectionHistory, period: Period) -> Vec<Day> {
    let events: Vec<_> = history.events.iter().map(|event| (event.time, event.status.clone())).collect();
    by_day(period.from, period.to, history.before.as_deref(), &events)
}

fn show_days(days: &[Day], out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out)?;
    let lines = days.iter().map(|day| {
        let spent = |status: &str| day.spent.get(status).map_or_else(|| "-".to_owned(), |spent| length(*spent));
        let named = ["online", "offline", "stale", "unreachable", "flapping", "maintenance"].map(spent);
        let first = [instant(day.from).chars().take(10).collect(), percent(day.uptime())];
        first.into_iter().chain(named).chain([day.events.to_string()]).collect()
    });
    let headers = ["DAY", "UPTIME", "ONLINE", "OFFLINE", "STALE", "UNREACHABLE", "FLAPPING", "MAINTENANCE", "CHANGES"];
    output::table(out, &headers, lines)?;
    Ok(())
}

fn day_json(day: &Day) -> Value {
    let spent: serde_json::Map<String, Value> =
        day.spent.iter().map(|(status, spent)| (status.clone(), json!(spent.as_secs_f64()))).collect();
    json!({
        "from": instant(day.from), "to": instant(day.to), "uptime": day.uptime(), "seconds": spent,
        "changes": day.events,
    })
}

/// With the word for where it comes from.
fn interval(sensor: &SensorCompleteness) -> String {
    match sensor.interval {
        Some((interval, Basis::Given)) => format!("{} given", length(interval)),
        Some((interval, Basis::Median)) => format!("{} median", length(interval)),
        None => "unknown".to_owned(),
    }
}

/// To the second where it is minutes, to the millisecond else.
fn length(span: Duration) -> String {
    let rounded = if span >= Duration::from_secs(60) {
        Duration::from_secs(span.as_secs())
    } else {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    };
    humantime::format_duration(rounded).to_string()
}

/// Cut, not rounded: what is not whole is never shown as 100 %.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", (share * 10_000.0).floor() / 100.0))
}

fn gap_json(gap: &Gap) -> Value {
    json!({"from": instant(gap.from), "to": instant(gap.to), "seconds": gap.length().as_secs_f64()})
}

fn sensor_json(sensor: &SensorCompleteness) -> Value {
    let (interval, basis) = match sensor.interval {
        Some((interval, Basis::Given)) => (Some(interval.as_secs_f64()), Some("given")),
        Some((interval, Basis::Median)) => (Some(interval.as_secs_f64()), Some("median")),
        None => (None, None),
    };
    json!({
        "metric": sensor.metric, "present": sensor.present, "expected": sensor.expected,
        "completeness": sensor.completeness, "covered": sensor.covered,
        "interval_seconds": interval, "interval_from": basis,
        "gaps": sensor.gaps, "longest_gaps": sensor.longest.iter().map(gap_json).collect::<Vec<_>>(),
    })
}

fn device_json(device: &DeviceCompleteness, with_sensors: bool) -> Value {
    let mut value = json!({
        "device": device.device, "tenant": device.tenant,
        "from": instant(device.period.from), "to": instant(device.period.to),
        "uptime": device.uptime, "completeness": device.completeness,
        "longest_down": device.longest_down.iter().map(gap_json).collect::<Vec<_>>(),
    });
    if let (true, Value::Object(fields)) = (with_sensors, &mut value) {
        fields.insert("sensors".into(), device.sensors.iter().map(sensor_json).collect());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_never_shown_as_whole() {
        assert_eq!(percent(Some(0.999_99)), "99.99 %");
        assert_eq!(percent(Some(1.0)), "100.00 %");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn lengths_are_short() {
        assert_eq!(length(Duration::from_micros(3_661_000_001)), "1h 1m 1s");
        assert_eq!(length(Duration::from_micros(1_500_001)), "1s 500ms");
    }
}

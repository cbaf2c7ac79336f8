//! `tidegate alerts backtest RULE.toml`: the episodes that a rule would have raised.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::amount;
use crate::alert::backtest::{PastEpisode, PastOf, PastReading, PastValue, backtest, cast, companies, metrics, reach};
use crate::alert::rule_file;
use crate::alert::timeline::{Panel, svg};
use crate::alert::{HeldBack, Rule, Withheld};
use crate::catalog::Device;
use crate::cli::output::{self, instant, instant_or_dash};
use crate::clock;
use crate::store::Store;
use crate::store::query::ReadingsQuery;
use crate::time::UtcMicros;

/// Readings of one device and metric that are looked at; of more, the newest.
const MOST: usize = 1_000_000;
/// Devices that a picture shows; those with the most episodes.
const PANELS: usize = 20;

#[derive(Args, Clone, Debug)]
pub struct BacktestArgs {
    /// The rule's file
    rule: PathBuf,
    /// From when on, e.g. 7d
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "7d")]
    since: Duration,
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Also draws the rule's first metric with the episodes on it, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

/// What it has found of one device or group.
struct Found {
    about: String,
    /// Of the device, or of the one that brought the group over first; where they are to be drawn.
    readings: Vec<PastReading>,
    episodes: Vec<PastEpisode>,
}

/// Runs a rule's file over the stored readings; nothing is stored or published.
///
/// # Errors
/// Faults of the file; the store's; those of writing.
pub fn run(store: &Store, args: &BacktestArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let rule = Arc::new(rule_file::load(&args.rule)?.rule);
    let until = clock::now();
    let from = until.checked_sub(args.since).unwrap_or(UtcMicros(i64::MIN));
    let mut found = Vec::new();
    let mut withheld = Vec::new();
    let mut looked_at = 0_usize;
    let snapshot = store.snapshot()?;
    if let Some(wanted) = &args.device
        && !snapshot.devices.iter().any(|device| *device.uid == **wanted)
    {
        anyhow::bail!("there is no device {wanted}; `tidegate devices list` tells which there are");
    }
    let cast = cast(&rule, &snapshot);
    let rules = || cast.iter().map(|rule| &**rule);
    let (wanted, read_from) = (metrics(rules()), from.checked_sub(reach(rules())).unwrap_or(UtcMicros(i64::MIN)));
    for company in companies(&cast, &snapshot, args.device.as_deref()) {
        looked_at = looked_at.saturating_add(company.in_scope);
        let mut past = Vec::with_capacity(company.devices.len());
        for device in company.devices {
            past.push(PastOf { device, readings: readings(store, device, wanted.as_deref(), read_from)? });
        }
        let outcome = backtest(&cast, &past, &snapshot, (from, until));
        // Others of the company are looked at for what they hold back.
        let is_meant =
            |device: &str, in_group: bool| in_group || args.device.as_deref().is_none_or(|uid| uid == device);
        withheld.extend(outcome.withheld.into_iter().filter(|one| is_meant(&one.device, rule.group.is_some())));
        let mut by_holder: BTreeMap<(Arc<str>, Arc<str>), Vec<PastEpisode>> = BTreeMap::new();
        for episode in outcome.episodes.into_iter().filter(|one| is_meant(&one.device, one.group.is_some())) {
            by_holder.entry((Arc::clone(&episode.tenant), Arc::clone(episode.about()))).or_default().push(episode);
        }
        for ((tenant, about), episodes) in by_holder {
            let first = episodes.first().map(|episode| Arc::clone(&episode.device));
            let of = past.iter_mut().find(|of| of.device.tenant == tenant && Some(&of.device.uid) == first.as_ref());
            let readings = of.filter(|_| args.svg.is_some()).map(|of| of.readings.clone()).unwrap_or_default();
            found.push(Found { about: about.to_string(), readings, episodes });
        }
    }
    if let Some(file) = &args.svg {
        draw(&rule, &mut found, file, (from, until))?;
    }
    if args.json {
        let episodes = found.iter().flat_map(|one| &one.episodes).map(episode_json).collect::<Vec<Value>>();
        let withheld = withheld.iter().map(|one: &Withheld| {
            json!({ "tenant": &*one.tenant, "device": &*one.device, "at": instant(one.at), "by": one.by.word() })
        });
        let withheld: Vec<Value> = withheld.collect();
        let whole = json!({ "rule": &*rule.slug, "devices": looked_at, "episodes": episodes, "withheld": withheld });
        output::json(out, &whole)?;
        return Ok(());
    }
    let headers = ["DEVICE", "SINCE", "RESOLVED", "LASTED", "SEVERITY", "VALUE", "MESSAGE"];
    output::table(out, &headers, found.iter().flat_map(|one| &one.episodes).map(|one| line(one, until)))?;
    let episodes: usize = found.iter().map(|one| one.episodes.len()).sum();
    let groups = if rule.group.is_some() { " groups" } else { "" };
    writeln!(out, "{episodes} episodes on {}{groups} of {looked_at} devices in the rule's scope", found.len())?;
    for by in HeldBack::ALL {
        let count = withheld.iter().filter(|one| one.by == by).count();
        if count > 0 {
            writeln!(out, "{count} times held back by {}", by.word())?;
        }
    }
    for missing in rule.depends_on.iter().filter(|one| !cast.iter().any(|known| known.slug == one.rule)) {
        writeln!(out, "there is no rule {} in force: nothing is held back by it", missing.rule)?;
    }
    Ok(())
}

/// The device's readings of these metrics, or of all, in order of time.
fn readings(
    store: &Store,
    device: &Device,
    metrics: Option<&[Arc<str>]>,
    since: UtcMicros,
) -> anyhow::Result<Vec<PastReading>> {
    let wanted: Vec<Option<String>> = match metrics {
        Some(metrics) => metrics.iter().map(|metric| Some(metric.to_string())).collect(),
        None => vec![None],
    };
    // Many have the same name and unit.
    let mut texts: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let mut shared = |text: String| Arc::clone(texts.entry(text).or_insert_with_key(|text| text.as_str().into()));
    let mut readings = Vec::new();
    for metric in wanted {
        let query = ReadingsQuery {
            tenant: Some(device.tenant.to_string()),
            device: device.uid.to_string(),
            metric: metric.clone(),
            since: Some(since),
            limit: MOST,
            after: None,
        };
        let page = store.readings(&query)?;
        if page.rows.len() >= MOST {
            let what = metric.as_deref().unwrap_or("all metrics");
            tracing::warn!(device = %device.uid, what, readings = MOST, "more readings than are looked at; the newest count");
        }
        readings.extend(page.rows.into_iter().filter_map(|row| {
            let value = match (row.value, row.text) {
                (Some(value), _) => PastValue::Number(value),
                (None, Some(text)) => PastValue::Text(text),
                (None, None) => return None,
            };
            Some(PastReading { time: row.time, metric: shared(row.metric), unit: shared(row.unit), value })
        }));
    }
    readings.sort_by_key(|reading| reading.time);
    Ok(readings)
}

fn line(episode: &PastEpisode, until: UtcMicros) -> Vec<String> {
    let lasted = Duration::from_secs(episode.resolved.unwrap_or(until).since(episode.since).as_secs());
    vec![
        episode.about().to_string(),
        instant(episode.since),
        instant_or_dash(episode.resolved),
        humantime::format_duration(lasted).to_string(),
        episode.severity.word().to_owned(),
        amount(episode.value, &episode.unit),
        episode.message.clone(),
    ]
}

fn episode_json(episode: &PastEpisode) -> Value {
    json!({
        "id": &*episode.id, "tenant": &*episode.tenant, "device": &*episode.device, "group": episode.group.as_deref(), "metric": &*episode.metric,
        "severity": episode.severity.word(), "onset": instant(episode.onset), "since": instant(episode.since),
        "resolved_at": episode.resolved.map(instant), "value": episode.value, "threshold": episode.threshold,
        "unit": &*episode.unit, "message": episode.message,
    })
}

fn draw(rule: &Rule, found: &mut [Found], file: &Path, (from, until): (UtcMicros, UtcMicros)) -> anyhow::Result<()> {
    found.sort_by_key(|one| std::cmp::Reverse(one.episodes.len()));
    let panels = found.iter().take(PANELS).map(|one| {
        // A rule about silence has no metric of its own.
        let of_rule = one.episodes.first().map(|episode| &*episode.metric).filter(|metric| !metric.is_empty());
        let any = one.readings.first().map(|reading| &*reading.metric);
        let metric = of_rule.or(any).unwrap_or("");
        Panel { device: &one.about, metric, readings: &one.readings, episodes: &one.episodes }
    });
    let panels: Vec<Panel<'_>> = panels.collect();
    std::fs::write(file, svg(&rule.name, &panels, from, until))
        .with_context(|| format!("can't write {}", file.display()))
}

//! `tidegate alerts explain`: why an alert fired, or why a rule does not.

use std::io::Write;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::amount;
use crate::alert::backtest::{metrics, reach};
use crate::alert::evaluator::wording;
use crate::alert::{Evaluator, Rule, Standing, Stands};
use crate::catalog::{Device, Snapshot};
use crate::cli::Place;
use crate::cli::output::{self, instant, instant_or_dash};
use crate::clock;
use crate::config::fault::did_you_mean;
use crate::store::Store;
use crate::store::query::{ReadingRow, ReadingsQuery};
use crate::time::UtcMicros;

/// Readings shown of each metric.
const READINGS: usize = 20;

#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The alert's id, or its first digits
    #[arg(required_unless_present_all = ["rule", "device"], conflicts_with_all = ["rule", "device"])]
    id: Option<String>,
    /// Or a rule
    #[arg(long, requires = "device")]
    rule: Option<String>,
    /// on a device
    #[arg(long, requires = "rule")]
    device: Option<String>,
    #[arg(long, default_value = crate::catalog::DEFAULT_TENANT)]
    tenant: String,
    #[arg(long)]
    json: bool,
}

/// Tells how a rule stands on a device, and the readings that it goes by: those before the alert fired, or the newest.
///
/// # Errors
/// When there is no such alert, rule or device; the store's, and those of writing.
pub fn run(place: &Place, args: &ExplainArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let store = place.reader()?;
    let mut until = clock::now();
    let (rule, tenant, uid) = match (&args.id, &args.rule, &args.device) {
        (Some(id), ..) => {
            let alert = store.alert(id)?.alert;
            until = alert.since;
            (alert.rule, alert.tenant, alert.device)
        }
        (None, Some(rule), Some(device)) => (rule.clone(), args.tenant.clone(), device.clone()),
        _ => bail!("an alert's id is wanted, or --rule and --device"),
    };
    let snapshot = store.snapshot()?;
    let Some(rule) = snapshot.rules.iter().find(|known| *known.slug == *rule).cloned() else {
        let hint = did_you_mean(&rule, snapshot.rules.iter().map(|known| &*known.slug));
        bail!("no rule {rule} is in force{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default());
    };
    let found = snapshot.devices.iter().find(|device| *device.uid == *uid && *device.tenant == *tenant).cloned();
    let Some(device) = found else { bail!("there is no device {uid} in the tenant {tenant}") };
    let standing = standing(&store, &place.load()?.config.instance.id, snapshot, &rule, &device)?;
    let from = until.checked_sub(reach(&rule)).unwrap_or(UtcMicros(i64::MIN));
    let readings = readings(&store, &rule, &device, until)?;
    if args.json {
        output::json(out, &as_json(&rule, standing.as_ref(), &readings))?;
        return Ok(());
    }
    writeln!(out, "{} ({}): {}", rule.name, rule.slug, wording::condition(&rule.when))?;
    match &standing {
        None => writeln!(out, "\n{uid} is not in the rule's scope")?,
        Some(standing) => tell(standing, out)?,
    }
    writeln!(out, "\nreadings up to {}; those since {} decide", instant(until), instant(from))?;
    let lines = readings.iter().map(|row| {
        let text = row.text.clone().unwrap_or_else(|| amount(row.value, &row.unit));
        vec![instant(row.time), row.metric.clone(), text]
    });
    output::table(out, &["TIME", "METRIC", "VALUE"], lines)?;
    Ok(())
}

/// How the rule stands, from what is committed. None: the device is not in its scope.
fn standing(
    store: &Store,
    instance: &str,
    snapshot: Snapshot,
    rule: &Arc<Rule>,
    device: &Device,
) -> anyhow::Result<Option<Standing>> {
    let alone = Snapshot { rules: vec![Arc::clone(rule)], devices: vec![device.clone()], ..snapshot };
    let mut remembered = store.alert_states(instance)?;
    remembered.retain(|one| one.rule == rule.slug && one.device == device.uid && one.tenant == device.tenant);
    let mut evaluator = Evaluator::new(&alone, remembered);
    evaluator.recall(&store.recent(&evaluator.wanted())?);
    Ok(evaluator.standing(&device.tenant, &device.uid).pop())
}

fn readings(store: &Store, rule: &Rule, device: &Device, until: UtcMicros) -> anyhow::Result<Vec<ReadingRow>> {
    let wanted: Vec<Option<String>> = match metrics(rule) {
        Some(metrics) => metrics.iter().map(|metric| Some(metric.to_string())).collect(),
        None => vec![None],
    };
    let mut rows = Vec::new();
    for metric in wanted {
        let query = ReadingsQuery {
            tenant: Some(device.tenant.to_string()),
            device: device.uid.to_string(),
            metric,
            since: until.checked_sub(reach(rule).saturating_mul(2).max(std::time::Duration::from_secs(3600))),
            limit: 100_000,
            after: None,
        };
        let found = store.readings(&query)?.rows.into_iter().filter(|row| row.time <= until);
        let found: Vec<ReadingRow> = found.collect();
        let from = found.len().saturating_sub(READINGS);
        rows.extend(found.into_iter().skip(from));
    }
    rows.sort_by_key(|row| row.time);
    Ok(rows)
}

fn tell(standing: &Standing, out: &mut dyn Write) -> anyhow::Result<()> {
    let lines = standing.conditions.iter().map(|Stands { part, words, holds, since, hold }| {
        let holds = match holds {
            Some(true) => "holds",
            Some(false) => "does not hold",
            None => "no reading has told since the last start",
        };
        let hold = if hold.is_zero() { String::new() } else { humantime::format_duration(*hold).to_string() };
        vec![(*part).to_owned(), words.clone(), holds.to_owned(), instant_or_dash(*since), hold]
    });
    writeln!(out)?;
    output::table(out, &["PART", "CONDITION", "STANDS", "SINCE", "MUST HOLD"], lines)?;
    if let Some(id) = &standing.episode {
        writeln!(out, "an alert goes on: {id}")?;
    }
    if let Some(until) = standing.snoozed_until {
        writeln!(out, "nothing is said of it until {}", instant(until))?;
    }
    if let Some(until) = standing.quiet_until {
        writeln!(out, "the cooldown of the last alert ends at {}", instant(until))?;
    }
    if standing.spent {
        writeln!(out, "the last alert was ended by hand; its condition must cease before it fires again")?;
    }
    if !standing.lag.is_zero() {
        writeln!(out, "the device's time is {} behind", humantime::format_duration(standing.lag))?;
    }
    Ok(())
}

fn as_json(rule: &Rule, standing: Option<&Standing>, readings: &[ReadingRow]) -> Value {
    let conditions = |standing: &Standing| -> Vec<Value> {
        let of = |one: &Stands| {
            json!({ "part": one.part, "condition": one.words, "holds": one.holds, "since": one.since.map(instant),
                "must_hold_seconds": one.hold.as_secs_f64() })
        };
        standing.conditions.iter().map(of).collect()
    };
    json!({
        "rule": &*rule.slug,
        "condition": wording::condition(&rule.when),
        "in_scope": standing.is_some(),
        "conditions": standing.map(conditions),
        "alert": standing.and_then(|standing| standing.episode.clone()),
        "snoozed_until": standing.and_then(|standing| standing.snoozed_until).map(instant),
        "quiet_until": standing.and_then(|standing| standing.quiet_until).map(instant),
        "spent": standing.is_some_and(|standing| standing.spent),
        "readings": readings.iter().map(|row| json!({ "time": instant(row.time), "metric": row.metric, "value": row.value, "text": row.text })).collect::<Vec<_>>(),
    })
}

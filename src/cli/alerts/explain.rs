//! `tidegate alerts explain`: why an alert fired, or why a rule does not.

use std::io::Write;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::amount;
use crate::alert::backtest::{metrics, reach};
use crate::alert::evaluator::wording;
use crate::alert::{Evaluator, Holder, InGroup, Rule, Standing, Stands};
use crate::catalog::{Device, Snapshot};
use crate::cli::Place;
use crate::cli::output::{self, instant, instant_or_dash};
use crate::clock;
use crate::config::fault::did_you_mean;
use crate::store::Store;
use crate::store::query::{ReadingRow, ReadingsQuery};
use crate::time::UtcMicros;

/// Devices of a group that are named.
const NAMES: usize = 20;
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
    let from = until.checked_sub(reach([&*rule])).unwrap_or(UtcMicros(i64::MIN));
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
    let rules = snapshot
        .rules
        .iter()
        .filter(|one| one.slug == rule.slug || rule.depends_on.iter().any(|on| on.rule == one.slug));
    let rules: Vec<Arc<Rule>> = rules.cloned().collect();
    let concerned = if rules.iter().any(|rule| rule.group.is_some()) {
        snapshot.devices.iter().filter(|one| one.tenant == device.tenant).cloned().collect()
    } else {
        concerned(&snapshot.devices, device)
    };
    let mut remembered = store.alert_states(instance)?;
    remembered.retain(|one| {
        rules.iter().any(|rule| rule.slug == one.rule)
            && match &one.holder {
                Holder::Device(uid) => concerned.iter().any(|device| device.uid == *uid && device.tenant == one.tenant),
                Holder::Group(_) => true,
            }
    });
    let alone = Snapshot { rules, devices: concerned, ..snapshot };
    let mut evaluator = Evaluator::new(&alone, remembered);
    evaluator.recall(&store.recent(&evaluator.wanted())?);
    let standing = evaluator.standing(&device.tenant, &device.uid, clock::now());
    Ok(standing.into_iter().find(|one| one.rule == rule.slug))
}

/// The device and the gateways that it is behind.
fn concerned(devices: &[Device], device: &Device) -> Vec<Device> {
    let mut found = vec![device.clone()];
    while let Some(parent) = found.last().and_then(|last| last.parent.clone()) {
        let gateway = devices.iter().find(|one| one.tenant == device.tenant && one.uid == parent);
        match gateway {
            // The database lets no circle be.
            Some(gateway) if found.len() < 32 => found.push(gateway.clone()),
            _ => break,
        }
    }
    found
}

fn readings(store: &Store, rule: &Rule, device: &Device, until: UtcMicros) -> anyhow::Result<Vec<ReadingRow>> {
    let wanted: Vec<Option<String>> = match metrics([rule]) {
        Some(metrics) => metrics.iter().map(|metric| Some(metric.to_string())).collect(),
        None => vec![None],
    };
    let mut rows = Vec::new();
    for metric in wanted {
        let query = ReadingsQuery {
            tenant: Some(device.tenant.to_string()),
            device: device.uid.to_string(),
            metric,
            since: until.checked_sub(reach([rule]).saturating_mul(2).max(std::time::Duration::from_secs(3600))),
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
    if let Some(InGroup { name, members, inside, enough }) = &standing.group {
        let (count, shown) = (inside.len(), inside.iter().take(NAMES).map(|uid| &**uid).collect::<Vec<_>>().join(", "));
        let more = count.saturating_sub(NAMES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let colon = if count > 0 { ": " } else { "" };
        writeln!(
            out,
            "the group {name}: it holds on {count} of {members} devices, {enough} make an alert{colon}{shown}{more}"
        )?;
    }
    if let Some(id) = &standing.episode {
        writeln!(out, "an alert goes on: {id}")?;
    }
    if let Some(until) = standing.snoozed_until {
        writeln!(out, "nothing is said of it until {}", instant(until))?;
    }
    if let Some(until) = standing.quiet_until {
        writeln!(out, "the cooldown of the last alert ends at {}", instant(until))?;
    }
    if let Some((by, until)) = &standing.held_back {
        let until = until.map(|until| format!(", which may change at {}", instant(until))).unwrap_or_default();
        writeln!(out, "held back by {by}{until}")?;
    }
    if let Some(until) = standing.flaps_until {
        writeln!(out, "it flaps: no step is taken before it has been calm until {}", instant(until))?;
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
        "held_back": standing.and_then(|standing| standing.held_back.as_ref()).map(|(by, _)| by),
        "held_back_until": standing.and_then(|standing| standing.held_back.as_ref()?.1).map(instant),
        "flaps_until": standing.and_then(|standing| standing.flaps_until).map(instant),
        "group": standing.and_then(|standing| standing.group.as_ref()).map(|group| json!({
            "name": &*group.name, "members": group.members, "enough": group.enough,
            "inside": group.inside.iter().map(|uid| &**uid).collect::<Vec<_>>(),
        })),
        "spent": standing.is_some_and(|standing| standing.spent),
        "readings": readings.iter().map(|row| json!({ "time": instant(row.time), "metric": row.metric, "value": row.value, "text": row.text })).collect::<Vec<_>>(),
    })
}

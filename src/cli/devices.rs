//! `tidegate devices list | show | assign | status | uptime | twin`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{self, instant, instant_or_dash, or_dash};
use super::{Place, twin, uptime};
use crate::clock;
use crate::store::connections::{ConnectionEvent, ConnectionHistory, Mode, STATUSES};
use crate::store::query::{DeviceDetail, DeviceFilter, DeviceRow, SensorRow};
use crate::store::{Assignment, Store};
use crate::time::UtcMicros;

/// Events of a device's connection that are shown, the newest.
const EVENTS_SHOWN: i64 = 20;

#[derive(Args, Debug)]
pub(super) struct DevicesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List devices by name
    List {
        #[arg(long)]
        tenant: Option<String>,
        /// Only those with this template
        #[arg(long, value_name = "SLUG")]
        template: Option<String>,
        /// Only those that are: never_seen, online, offline, stale, unreachable, maintenance or retired
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(STATUSES))]
        status: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        #[arg(long)]
        json: bool,
    },
    /// Show a device with its modules, its sensors and their last values
    Show {
        device: String,
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Give a device its template by hand, whatever matches; what it has stored keeps its units
    ///
    /// A series that can't go on with the new template is set aside as `<metric>~1`, and a new one begins. A template that a
    /// file of the catalog declares is changed there.
    Assign {
        device: String,
        /// Slug of the template
        #[arg(required_unless_present_any = ["none", "auto"], conflicts_with_all = ["none", "auto"])]
        template: Option<String>,
        #[arg(long)]
        tenant: Option<String>,
        /// No template, and none by matching either
        #[arg(long, conflicts_with = "auto")]
        none: bool,
        /// Whatever matches, from its next message on
        #[arg(long)]
        auto: bool,
    },
    /// Say that a device is being worked at, or out of use; or neither any more
    ///
    /// Until then that is its status, whatever becomes of its connection, which is not recorded meanwhile.
    Status {
        device: String,
        #[arg(long, required_unless_present_any = ["retired", "active"], conflicts_with_all = ["retired", "active"])]
        maintenance: bool,
        #[arg(long, conflicts_with = "active")]
        retired: bool,
        /// Its status is what is known of its connection
        #[arg(long)]
        active: bool,
        /// For the history
        #[arg(long)]
        reason: Option<String>,
        #[arg(long)]
        tenant: Option<String>,
    },
    /// How much of what was to be expected has come: completeness, gaps and the share of time covered
    Uptime(uptime::UptimeArgs),
    /// What a device is to be, and what it says it is
    Twin(twin::TwinArgs),
}

pub(super) fn run(place: &Place, args: &DevicesArgs) -> anyhow::Result<ExitCode> {
    if let Action::Twin(args) = &args.action {
        return twin::run(place, args);
    }
    let mut out = std::io::stdout().lock();
    if let Action::Assign { device, template, tenant, none, .. } = &args.action {
        let to = match template {
            Some(slug) => Assignment::Template(slug),
            None if *none => Assignment::Nothing,
            None => Assignment::Matching,
        };
        assign(&place.store()?, tenant.as_deref(), device, to, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Action::Status { device, maintenance, retired, reason, tenant, .. } = &args.action {
        let (mode, why) = match (maintenance, retired) {
            (true, _) => (Mode::Maintenance, "under maintenance"),
            (_, true) => (Mode::Retired, "out of use"),
            _ => (Mode::Active, "active again"),
        };
        let set = place.store()?.set_mode(tenant.as_deref(), device, mode, reason.as_deref().unwrap_or(why))?;
        writeln!(out, "{device} is {} (before: {})", set.status, set.before)?;
        return Ok(ExitCode::SUCCESS);
    }
    let store = place.reader()?;
    match &args.action {
        Action::List { tenant, template, status, limit, json } => {
            let filter = DeviceFilter {
                tenant: tenant.clone(),
                template: template.clone(),
                status: status.clone(),
                ..DeviceFilter::default()
            };
            list(&store, &filter, *limit, *json, &mut out)?;
        }
        Action::Show { device, tenant, json } => show(&store, tenant.as_deref(), device, *json, &mut out)?,
        Action::Assign { .. } | Action::Status { .. } | Action::Twin(_) => {}
        Action::Uptime(args) => uptime::run(&store, args, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives a device its template by hand, and says what that has changed.
///
/// # Errors
/// The store's, and those of writing.
pub fn assign(
    store: &Store,
    tenant: Option<&str>,
    uid: &str,
    to: Assignment<'_>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let assigned = store.assign(tenant, uid, to)?;
    let before = assigned.before.as_deref().unwrap_or("none");
    match to {
        Assignment::Template(slug) => writeln!(out, "{uid} has the template {slug} (before: {before})")?,
        Assignment::Nothing => writeln!(out, "{uid} has no template (before: {before})")?,
        Assignment::Matching => {
            writeln!(out, "{uid} is given a template by its next message that matches (before: {before})")?;
        }
    }
    for name in &assigned.set_aside {
        writeln!(out, "a series could not go on, and is now {name}")?;
    }
    Ok(())
}

/// Lists devices by uid.
///
/// # Errors
/// The store's, and those of writing.
pub fn list(
    store: &Store,
    filter: &DeviceFilter,
    limit: i64,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let rows = store.devices(filter, limit)?;
    if as_json {
        output::json(out, &rows.iter().map(DeviceRow::json).collect())?;
    } else {
        let lines = rows.iter().map(|row| {
            vec![
                row.uid.clone(),
                row.tenant.clone(),
                row.status.clone(),
                template(row),
                or_dash(row.model.as_deref()),
                or_dash(row.site.as_deref()),
                or_dash(row.source.as_deref()),
                instant_or_dash(row.last_seen),
            ]
        });
        output::table(out, &["DEVICE", "TENANT", "STATUS", "TEMPLATE", "MODEL", "SITE", "SOURCE", "LAST SEEN"], lines)?;
    }
    Ok(())
}

/// Shows every device of this uid, in one tenant or in all, with its sensors and their last values.
///
/// # Errors
/// When there is none; the store's, and those of writing.
pub fn show(store: &Store, tenant: Option<&str>, uid: &str, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let found = store.device(tenant, uid)?;
    if found.is_empty() {
        bail!("there is no device {uid:?}; `tidegate devices list` shows those there are");
    }
    let filter =
        DeviceFilter { tenant: tenant.map(str::to_owned), uid: Some(uid.to_owned()), ..DeviceFilter::default() };
    let histories = store.connection_history(&filter, (UtcMicros(0), clock::now()), EVENTS_SHOWN)?;
    let history = |detail: &DeviceDetail| {
        let of = |history: &&ConnectionHistory| history.tenant == detail.device.tenant;
        histories.iter().find(of).map(|history| history.events.as_slice()).unwrap_or_default()
    };
    if as_json {
        output::json(out, &found.iter().map(|detail| with_history(detail.json(), history(detail))).collect())?;
        return Ok(());
    }
    for detail in &found {
        show_one(detail, history(detail), out)?;
    }
    Ok(())
}

fn show_one(detail: &DeviceDetail, history: &[ConnectionEvent], out: &mut dyn Write) -> anyhow::Result<()> {
    let device = &detail.device;
    let facts = [
        ("device", device.uid.clone()),
        ("tenant", device.tenant.clone()),
        ("status", status(device)),
        ("name", or_dash(device.name.as_deref())),
        ("template", template(device)),
        ("manufacturer", or_dash(device.manufacturer.as_deref())),
        ("model", or_dash(device.model.as_deref())),
        ("firmware", or_dash(device.firmware.as_deref())),
        ("protocol", protocol(device)),
        ("connectivity", or_dash(device.connectivity.as_deref())),
        ("gateway", or_dash(detail.parent.as_deref())),
        ("children", children(&detail.children)),
        ("site", or_dash(device.site.as_deref())),
        ("source", or_dash(device.source.as_deref())),
        ("declared", device.declared.to_string()),
        ("first seen", instant_or_dash(device.first_seen)),
        ("last seen", instant_or_dash(device.last_seen)),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    if !detail.modules.is_empty() {
        writeln!(out)?;
        let lines = detail.modules.iter().map(|module| {
            let shown = [&module.slot, &module.address, &module.template].map(|text| or_dash(text.as_deref()));
            std::iter::once(module.uid.clone()).chain(shown).collect()
        });
        output::table(out, &["MODULE", "SLOT", "ADDRESS", "TEMPLATE"], lines)?;
    }
    writeln!(out)?;
    let lines = detail.sensors.iter().map(|sensor| {
        let (time, value) = last(sensor);
        vec![sensor.metric.clone(), value, sensor.unit.clone(), instant_or_dash(time), sensor.source.clone()]
    });
    output::table(out, &["METRIC", "LAST", "UNIT", "AT", "SOURCE"], lines)?;
    if !history.is_empty() {
        writeln!(out)?;
        let line = |event: &ConnectionEvent| vec![instant(event.time), event.status.clone(), event.cause.clone()];
        output::table(out, &["SINCE", "STATUS", "CAUSE"], history.iter().rev().map(line))?;
    }
    Ok(())
}

/// What it is, since when and why.
fn status(device: &DeviceRow) -> String {
    let since = device.status_since.map(|at| format!(" since {}", instant(at))).unwrap_or_default();
    let cause = device.status_cause.as_deref().map(|cause| format!(" ({cause})")).unwrap_or_default();
    format!("{}{since}{cause}", device.status)
}

/// The template and how it was given.
fn template(device: &DeviceRow) -> String {
    match (device.template.as_deref(), device.template_by.as_deref()) {
        (Some(slug), Some(by)) => format!("{slug} ({by})"),
        (Some(slug), None) => slug.to_owned(),
        (None, Some(by)) => format!("none ({by})"),
        (None, None) => or_dash(None),
    }
}

fn protocol(device: &DeviceRow) -> String {
    match (device.protocol.as_deref(), device.protocol_why.as_deref()) {
        (Some(protocol), Some(why)) => format!("{protocol} ({why})"),
        (protocol, _) => or_dash(protocol),
    }
}

/// As many as fit, and how many more there are.
fn children(uids: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = uids.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match uids.len().saturating_sub(SHOWN) {
        0 if uids.is_empty() => or_dash(None),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The newer of a sensor's last number and last text.
fn last(sensor: &SensorRow) -> (Option<crate::time::UtcMicros>, String) {
    if sensor.last_text_time > sensor.last_time {
        (sensor.last_text_time, or_dash(sensor.last_text.as_deref()))
    } else {
        (sensor.last_time, sensor.last_value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
    }
}

/// The newest first.
fn with_history(mut detail: Value, history: &[ConnectionEvent]) -> Value {
    let event =
        |event: &ConnectionEvent| json!({"time": instant(event.time), "status": event.status, "cause": event.cause});
    if let Value::Object(fields) = &mut detail {
        fields.insert("history".into(), history.iter().rev().map(event).collect());
    }
    detail
}

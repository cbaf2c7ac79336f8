//! `tidegate alerts list | show | ack | resolve | snooze | note | rules | maintenance | explain | notify | on-call | backtest`.

mod act;
mod backtest;
mod explain;
mod list;
mod maintenance;
mod notify;
mod on_call;
mod rules;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Place;
use super::output::or_dash;
use crate::alert::transition::Deed;
use crate::alert::{Severity, State};
use crate::clock;
use crate::store::alerts::{AlertFilter, AlertRow, Which};
use crate::time::UtcMicros;

pub use act::act;
pub use list::list;
pub use rules::{rules, switch};
pub use show::show;

/// Digits of an alert's id that tables show; as many as tell it apart from some thousands of others.
const SHOWN_DIGITS: usize = 10;

#[derive(Args, Debug)]
pub(super) struct AlertsArgs {
    #[command(subcommand)]
    action: AlertsAction,
}

#[derive(Debug, Subcommand)]
enum AlertsAction {
    /// List alerts, the newest first; without --state those that are not over
    List(ListArgs),
    /// Show the whole story of an alert: each step with its time, what decided it, and who
    Show {
        /// The alert's id, or its first digits
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Say that somebody sees to it
    Ack(ActArgs),
    /// End it, whatever the readings say
    Resolve(ActArgs),
    /// Say nothing of it for a while
    Snooze {
        #[command(flatten)]
        act: ActArgs,
        /// How long, e.g. 2h
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        lasts: Duration,
    },
    /// Put a remark into its story
    Note {
        #[command(flatten)]
        act: ActArgs,
    },
    /// List the rules, or switch one on or off
    Rules(RulesArgs),
    /// Let devices rest while somebody works at them
    Maintenance(maintenance::MaintenanceArgs),
    /// Tell why an alert fired, or why a rule does not fire on a device: its conditions, the readings, what holds it back
    Explain(explain::ExplainArgs),
    /// What the channels of [[notify]] have been told, and were not
    Notify(notify::NotifyArgs),
    /// Tell who is on call, and who is next
    OnCall(on_call::OnCallArgs),
    /// Tell which alerts a rule would have raised, before it is trusted
    Backtest(backtest::BacktestArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    #[arg(long, value_enum)]
    severity: Option<SeverityArg>,
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long)]
    device: Option<String>,
    /// Only those of this rule
    #[arg(long, value_name = "SLUG")]
    rule: Option<String>,
    /// Only those that began to fire within this time, e.g. 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    #[arg(long)]
    json: bool,
}

/// Whom and what a change of an alert is about.
#[derive(Args, Clone, Debug)]
struct ActArgs {
    /// The alert's id, or its first digits
    id: String,
    /// Who wants it
    #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
    who: String,
    /// A remark, kept with the step
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
struct RulesArgs {
    #[command(subcommand)]
    action: Option<RulesAction>,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RulesAction {
    /// Let a rule fire again
    Enable { slug: String },
    /// Let a rule rest, whether a file declares it or not; what is active of it ends
    Disable { slug: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Firing,
    Acknowledged,
    Resolved,
    All,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SeverityArg {
    Info,
    Warning,
    Critical,
}

pub(super) fn run(place: &Place, args: &AlertsArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        AlertsAction::List(args) => list(&place.reader()?, &filter(args), args.limit, args.json, &mut out)?,
        AlertsAction::Show { id, json } => show(&place.reader()?, id, *json, &mut out)?,
        AlertsAction::Ack(args) => args.run(place, Deed::Acknowledge, &mut out)?,
        AlertsAction::Resolve(args) => args.run(place, Deed::Resolve, &mut out)?,
        AlertsAction::Snooze { act, lasts } => {
            let until = clock::now().checked_add(*lasts).map_or(i64::MAX, |until| until.0);
            act.run(place, Deed::Snooze { until }, &mut out)?;
        }
        AlertsAction::Note { act } => act.run(place, Deed::Note, &mut out)?,
        AlertsAction::Maintenance(args) => maintenance::run(place, args, &mut out)?,
        AlertsAction::Explain(args) => explain::run(place, args, &mut out)?,
        AlertsAction::Notify(args) => notify::run(place, args, &mut out)?,
        AlertsAction::OnCall(args) => on_call::run(place, args, &mut out)?,
        AlertsAction::Backtest(args) => backtest::run(&place.reader()?, args, &mut out)?,
        AlertsAction::Rules(args) => match &args.action {
            None => rules(&place.reader()?, args.json, &mut out)?,
            Some(RulesAction::Enable { slug }) => switch(&place.store()?, slug, true, &mut out)?,
            Some(RulesAction::Disable { slug }) => switch(&place.store()?, slug, false, &mut out)?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(args: &ListArgs) -> AlertFilter {
    let which = match args.state {
        None => Which::Active,
        Some(StateArg::All) => Which::All,
        Some(StateArg::Firing) => Which::In(State::Firing),
        Some(StateArg::Acknowledged) => Which::In(State::Acknowledged),
        Some(StateArg::Resolved) => Which::In(State::Resolved),
    };
    let severity = args.severity.map(|severity| match severity {
        SeverityArg::Info => Severity::Info,
        SeverityArg::Warning => Severity::Warning,
        SeverityArg::Critical => Severity::Critical,
    });
    AlertFilter {
        which,
        severity,
        tenant: args.tenant.clone(),
        device: args.device.clone(),
        rule: args.rule.clone(),
        since: args.since.and_then(|age| clock::now().checked_sub(age)),
        after: None,
    }
}

/// The first digits of an id, for a table.
fn short(id: &str) -> &str {
    id.get(..SHOWN_DIGITS).unwrap_or(id)
}

/// A value with its unit.
fn amount(value: Option<f64>, unit: &str) -> String {
    match value {
        Some(value) if unit.is_empty() => value.to_string(),
        Some(value) => format!("{value} {unit}"),
        None => or_dash(None),
    }
}

/// Until when nothing is said of it, where that is still to come.
fn snoozed(row: &AlertRow, now: UtcMicros) -> Option<UtcMicros> {
    row.snoozed_until.filter(|until| row.resolved_at.is_none() && *until > now)
}

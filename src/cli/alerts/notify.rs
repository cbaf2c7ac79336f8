//! `tidegate alerts notify list | retry`: what the channels of `[[notify]]` have been told, and were not.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::short;
use crate::cli::Place;
use crate::cli::output::{self, instant, or_dash};
use crate::store::Store;
use crate::store::alerts::{NotificationFilter, NotificationRow};

#[derive(Args, Debug)]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    action: NotifyAction,
}

#[derive(Debug, Subcommand)]
enum NotifyAction {
    /// List notifications, the newest first
    List {
        #[command(flatten)]
        wanted: Wanted,
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        #[arg(long)]
        json: bool,
    },
    /// Send once more what was given up; a running daemon does it within seconds, else the next start
    Retry {
        #[command(flatten)]
        wanted: Wanted,
    },
}

#[derive(Args, Debug)]
struct Wanted {
    /// Only those by this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only those of this alert: its id, or its first digits
    #[arg(long, value_name = "ID")]
    alert: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Pending,
    Sent,
    Dead,
}

impl StateArg {
    fn word(self) -> &'static str {
        match self {
            StateArg::Pending => "pending",
            StateArg::Sent => "sent",
            StateArg::Dead => "dead",
        }
    }
}

impl Wanted {
    fn filter(&self, state: Option<StateArg>) -> NotificationFilter {
        let state = state.map(|state| state.word().to_owned());
        NotificationFilter { state, channel: self.channel.clone(), alert: self.alert.clone() }
    }
}

pub(super) fn run(place: &Place, args: &NotifyArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.action {
        NotifyAction::List { wanted, state, limit, json } => {
            list(&place.reader()?, &wanted.filter(*state), *limit, *json, out)
        }
        NotifyAction::Retry { wanted } => retry(&place.store()?, &wanted.filter(None), out),
    }
}

/// Prints notifications.
///
/// # Errors
/// The store's, and those of writing.
pub fn list(
    store: &Store,
    wanted: &NotificationFilter,
    limit: i64,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let rows = store.notifications(wanted, limit)?;
    if as_json {
        output::json(out, &rows.iter().map(json_of).collect())?;
        return Ok(());
    }
    let headers = ["alert", "step", "rule", "device", "channel", "state", "attempts", "at", "error"];
    let cells = rows.iter().map(|row| {
        vec![
            short(&row.alert).to_owned(),
            told(row),
            row.rule.clone(),
            row.group.as_ref().unwrap_or(&row.device).clone(),
            row.channel.clone(),
            row.state.clone(),
            row.attempts.to_string(),
            instant(row.at),
            or_dash(row.last_error.as_deref()),
        ]
    });
    output::table(out, &headers, cells)?;
    Ok(())
}

/// Which step it is, or what a digest says.
fn told(row: &NotificationRow) -> String {
    match (&row.message, &row.escalation, row.level) {
        (Some(message), ..) => message.clone(),
        (None, Some(policy), Some(level)) => format!("{} {}, level {level} of {policy}", row.step, row.step_state),
        _ => format!("{} {}", row.step, row.step_state),
    }
}

fn json_of(row: &NotificationRow) -> serde_json::Value {
    let pending = row.state == "pending";
    serde_json::json!({
        "alert": row.alert, "step": row.step, "rule": row.rule, "device": row.device, "group": row.group, "step_state": row.step_state,
        "channel": row.channel, "state": row.state, "attempts": row.attempts, "at": instant(row.at),
        "next_at": pending.then(|| instant(row.next_at)), "last_error": row.last_error,
        "escalation": row.escalation, "level": row.level, "message": row.message,
    })
}

/// Has what was given up sent once more, and says how much it is.
///
/// # Errors
/// The store's, and those of writing.
pub fn retry(store: &Store, wanted: &NotificationFilter, out: &mut dyn Write) -> anyhow::Result<()> {
    let count = store.retry_notifications(wanted)?;
    writeln!(out, "{count} to be sent once more")?;
    Ok(())
}

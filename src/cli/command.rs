//! `tidegate command send | list | show | cancel`.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::Place;
use super::output::{self, instant, instant_or_dash, or_dash, printable};
use crate::catalog::DEFAULT_TENANT;
use crate::clock;
use crate::command::{Ask, State, new_id};
use crate::config;
use crate::store::Store;
use crate::store::commands::{CommandDetail, CommandFilter, CommandRow};

/// Digits of an id that tables show.
const SHOWN_DIGITS: usize = 10;
/// How often whoever waits looks.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
pub(super) struct CommandArgs {
    #[command(subcommand)]
    action: CommandAction,
}

#[derive(Debug, Subcommand)]
enum CommandAction {
    /// Tell a device to do something; a running daemon sends it within a second
    Send(SendArgs),
    /// List commands, the newest first; without --state those that have not ended
    List(ListArgs),
    /// Show a command with every step it has taken, when and why
    Show {
        /// The command's id, or its beginning
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Take a command back: it is not sent any more, and nobody waits for its answer
    Cancel {
        /// The command's id, or its beginning
        id: String,
        /// Who wants it
        #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
        who: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct SendArgs {
    device: String,
    /// One of the commands of the device's template
    name: String,
    /// A JSON object; - reads it from standard input
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// Wait until it has ended, and fail unless it has succeeded; at most this long, if told
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = humantime::parse_duration)]
    wait: Option<Option<Duration>>,
    /// How long it may wait to be sent, e.g. 10m; else as the template or the configuration says
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// The higher goes first, -1000 to 1000
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Its id, so that the same is not asked twice; a random one unless told
    #[arg(long)]
    id: Option<String>,
    /// The instance whose broker the device is at; the first that looks unless told
    #[arg(long)]
    instance: Option<String>,
    /// Who wants it
    #[arg(long, env = "USER", hide_env_values = true, default_value = "somebody")]
    who: String,
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListArgs {
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long)]
    device: Option<String>,
    /// Only those of this name
    #[arg(long)]
    name: Option<String>,
    /// Only those that were asked for within this time, e.g. 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    Queued,
    Sent,
    Delivered,
    Succeeded,
    Failed,
    Rejected,
    Expired,
    Cancelled,
    #[value(name = "timed_out")]
    TimedOut,
    All,
}

pub(super) fn run(place: &Place, args: &CommandArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match &args.action {
        CommandAction::Send(args) => return send(&place.store()?, &place.config()?.commands, args, &mut out),
        CommandAction::List(args) => list(&place.reader()?, &filter(args), args.limit, args.json, &mut out)?,
        CommandAction::Show { id, json } => show(&place.reader()?, id, *json, &mut out)?,
        CommandAction::Cancel { id, who } => {
            let id = place.store()?.cancel_command(id, who)?;
            writeln!(out, "command {id} is cancelled")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for a command, and where told waits for its end. Says each step on the way.
fn send(store: &Store, settings: &config::Commands, args: &SendArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let params = match args.params.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().lock().read_to_string(&mut text).context("reading the parameters")?;
            text
        }
        given => given.to_owned(),
    };
    let now = clock::now();
    let ask = Ask {
        id: args.id.clone().unwrap_or_else(new_id),
        tenant: args.tenant.clone(),
        device: args.device.clone(),
        name: args.name.clone(),
        params,
        priority: args.priority,
        at: now,
        expires_at: args.expires.map(|lives| now.checked_add(lives).context("--expires is too long")).transpose()?,
        who: Some(args.who.clone()),
        via: "cli",
        reply: None,
        refused: None,
    };
    store.ask_command(&ask, args.instance.as_deref(), settings)?;
    let Some(wait) = args.wait else {
        match args.json {
            true => output::json(out, &json!({ "id": ask.id }))?,
            false => writeln!(out, "command {} is queued for {}", ask.id, printable(&ask.device))?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !args.json {
        writeln!(out, "command {}", ask.id)?;
    }
    let detail = await_end(store, &ask.id, wait, (!args.json).then_some(&mut *out))?;
    if args.json {
        output::json(out, &detail.json())?;
    } else if let Some(result) = &detail.command.result {
        writeln!(out, "{result}")?;
    }
    let row = &detail.command;
    // Where nothing can say more, that the broker has it is all that was asked for.
    let done = row.state == State::Succeeded.word() || (row.state == State::Sent.word() && row.ended_at.is_some());
    if done {
        return Ok(ExitCode::SUCCESS);
    }
    if row.ended_at.is_none() {
        eprintln!("tidegate: the command has not ended; it is {}, see `tidegate command show {}`", row.state, row.id);
    }
    Ok(ExitCode::FAILURE)
}

/// Looks until the command has ended, or `wait` is over; tells each new step.
fn await_end(
    store: &Store,
    id: &str,
    wait: Option<Duration>,
    mut out: Option<&mut dyn Write>,
) -> anyhow::Result<CommandDetail> {
    let begun = Instant::now();
    let mut told = 0;
    loop {
        let detail = store.command_now(id)?;
        if let Some(out) = &mut out {
            for step in detail.steps.iter().filter(|step| step.step > told) {
                writeln!(out, "{}  {:<9}  {}", instant(step.at), step.state, printable(&step.cause))?;
                out.flush()?;
            }
        }
        told = detail.steps.last().map_or(told, |step| step.step);
        let is_over = wait.is_some_and(|wait| begun.elapsed() >= wait);
        if detail.command.ended_at.is_some() || is_over {
            return Ok(detail);
        }
        if told == 0 && begun.elapsed() > Duration::from_secs(5) && std::io::stderr().is_terminal() {
            told = -1;
            eprintln!("tidegate: no daemon has looked at it yet");
        }
        std::thread::sleep(LOOK);
    }
}

fn filter(args: &ListArgs) -> CommandFilter {
    let state = args.state.and_then(|state| match state {
        StateArg::Queued => Some(State::Queued),
        StateArg::Sent => Some(State::Sent),
        StateArg::Delivered => Some(State::Delivered),
        StateArg::Succeeded => Some(State::Succeeded),
        StateArg::Failed => Some(State::Failed),
        StateArg::Rejected => Some(State::Rejected),
        StateArg::Expired => Some(State::Expired),
        StateArg::Cancelled => Some(State::Cancelled),
        StateArg::TimedOut => Some(State::TimedOut),
        StateArg::All => None,
    });
    CommandFilter {
        tenant: args.tenant.clone(),
        device: args.device.clone(),
        name: args.name.clone(),
        state,
        open: args.state.is_none(),
        since: args.since.and_then(|age| clock::now().checked_sub(age)),
    }
}

/// Lists commands, the newest first.
fn list(store: &Store, filter: &CommandFilter, limit: i64, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = store.commands(filter, limit)?;
    if as_json {
        output::json(out, &rows.iter().map(CommandRow::json).collect())?;
        return Ok(());
    }
    let lines = rows.iter().map(|row| {
        vec![
            row.id.get(..SHOWN_DIGITS).unwrap_or(&row.id).to_owned(),
            instant(row.created_at),
            state(row),
            row.tenant.clone(),
            row.device.clone(),
            row.name.clone(),
            row.attempts.to_string(),
            or_dash(row.error.as_deref()),
        ]
    });
    output::table(out, &["COMMAND", "ASKED", "STATE", "TENANT", "DEVICE", "NAME", "SENT", "ERROR"], lines)?;
    Ok(())
}

fn state(row: &CommandRow) -> String {
    match row.repeated {
        true => format!("{}, repeated", row.state),
        false => row.state.clone(),
    }
}

/// Shows a command and its story.
fn show(store: &Store, id: &str, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let detail = store.command(id)?;
    if as_json {
        output::json(out, &detail.json())?;
        return Ok(());
    }
    let row = &detail.command;
    let facts = [
        ("command", row.id.clone()),
        ("device", row.device.clone()),
        ("tenant", row.tenant.clone()),
        ("name", row.name.clone()),
        ("params", row.params.clone()),
        ("state", state(row)),
        ("asked for", format!("{} by {} ({})", instant(row.created_at), or_dash(row.who.as_deref()), row.via)),
        ("priority", row.priority.to_string()),
        ("expires", instant_or_dash(row.expires_at)),
        ("instance", or_dash(row.instance.as_deref())),
        ("sends", row.attempts.to_string()),
        ("sent", instant_or_dash(row.sent_at)),
        ("delivered", instant_or_dash(row.delivered_at)),
        ("ended", instant_or_dash(row.ended_at)),
        ("result", or_dash(row.result.as_deref())),
        ("error", or_dash(row.error.as_deref())),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    writeln!(out)?;
    let lines = detail
        .steps
        .iter()
        .map(|step| vec![step.step.to_string(), instant(step.at), step.state.clone(), step.cause.clone()]);
    output::table(out, &["STEP", "AT", "STATE", "CAUSE"], lines)?;
    Ok(())
}

//! `tidegate journal replay`: what the journal still holds, through today's configuration and catalog.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Place, output};
use crate::clock;
use crate::config::fault::did_you_mean;
use crate::replay::{Outcome, Replay, Request};
use crate::time::UtcMicros;

/// Devices and metrics that the table shows; `--json` has all.
const SHOWN: usize = 100;
/// Between lines of progress where there is no terminal.
const SAID_EVERY: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Messages received within this time, e.g. 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Duration,
    /// Only what this source takes today
    #[arg(long)]
    source: Option<String>,
    /// Store nothing; show what would change
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(place: &Place, args: &ReplayArgs) -> anyhow::Result<()> {
    let config = place.load()?.config;
    if let Some(wanted) = &args.source
        && !config.sources.iter().any(|source| source.name == *wanted)
    {
        let names = config.sources.iter().map(|source| source.name.as_str());
        let hint = did_you_mean(wanted, names).map(|hint| format!(" ({hint})")).unwrap_or_default();
        bail!("there is no source \"{wanted}\"{hint}");
    }
    let store = place.store()?;
    let since = clock::now().checked_sub(args.since).unwrap_or(UtcMicros(i64::MIN));
    let request = Request { since, source: args.source.clone(), dry_run: args.dry_run };
    let replay = Replay::prepare(&store, &config, &request)?;
    let progress = Progress::begin(replay.messages());
    let outcome = replay.run(&mut |looked_at| progress.at(looked_at));
    progress.end();
    let outcome = outcome?;
    let mut out = std::io::stdout().lock();
    if args.json {
        output::json(&mut out, &as_json(&outcome, args.dry_run))?;
    } else {
        print(&outcome, args.dry_run, &mut out)?;
    }
    Ok(())
}

/// A bar on a terminal, else a line now and then; on stderr.
enum Progress {
    Bar(ProgressBar),
    Lines { messages: u64, said: std::cell::Cell<Instant> },
}

impl Progress {
    fn begin(messages: u64) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines { messages, said: std::cell::Cell::new(Instant::now()) };
        }
        let bar = ProgressBar::new(messages);
        let style =
            ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} messages, {per_sec}, {eta} left");
        Progress::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn at(&self, looked_at: u64) {
        match self {
            Progress::Bar(bar) => bar.set_position(looked_at),
            Progress::Lines { messages, said } => {
                if said.get().elapsed() >= SAID_EVERY {
                    said.set(Instant::now());
                    eprintln!("{looked_at} of {messages} messages looked at");
                }
            }
        }
    }

    fn end(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn as_json(outcome: &Outcome, dry_run: bool) -> serde_json::Value {
    let readings: Vec<serde_json::Value> = outcome
        .readings
        .iter()
        .map(|((tenant, device, metric), new)| {
            json!({"tenant": &**tenant, "device": &**device, "metric": &**metric, "new": new})
        })
        .collect();
    json!({
        "dry_run": dry_run,
        "messages": outcome.messages,
        "new": outcome.readings.values().sum::<u64>(),
        "stored": outcome.stored,
        "readings": readings,
        "refused": outcome.refused,
        "quarantined": outcome.quarantined,
        "resolved": outcome.resolved,
        "uncommitted": outcome.uncommitted,
        "damaged": outcome.damaged,
    })
}

fn print(outcome: &Outcome, dry_run: bool, out: &mut dyn Write) -> std::io::Result<()> {
    if !outcome.readings.is_empty() {
        let lines = outcome.readings.iter().take(SHOWN).map(|((tenant, device, metric), new)| {
            vec![device.to_string(), metric.to_string(), new.to_string(), tenant.to_string()]
        });
        output::table(out, &["DEVICE", "METRIC", "NEW READINGS", "TENANT"], lines)?;
        let more = outcome.readings.len().saturating_sub(SHOWN);
        if more > 0 {
            writeln!(out, "and {more} more (--json has all)")?;
        }
        writeln!(out)?;
    }
    if !outcome.refused.is_empty() {
        let lines = outcome.refused.iter().map(|(reason, count)| vec![(*reason).to_owned(), count.to_string()]);
        output::table(out, &["REFUSED FOR", "TIMES"], lines)?;
        writeln!(out)?;
    }
    let new: u64 = outcome.readings.values().sum();
    let Outcome { messages, stored, quarantined, resolved, uncommitted, damaged, .. } = outcome;
    if dry_run {
        writeln!(
            out,
            "{messages} messages, and nothing stored: {new} readings would be new, {resolved} events of the quarantine \
             would be settled, {quarantined} would be added"
        )?;
    } else {
        writeln!(
            out,
            "{messages} messages replayed: {stored} readings stored, {resolved} events of the quarantine settled, \
             {quarantined} added"
        )?;
    }
    if *uncommitted > 0 {
        writeln!(out, "{uncommitted} messages are left to the daemon, which has not come to them yet")?;
    }
    if *damaged > 0 {
        writeln!(out, "{damaged} messages can't be read: their records in the journal are damaged")?;
    }
    Ok(())
}

//! `tidegate quarantine list | show | retry | purge`.

use std::io::Write;
use std::process::ExitCode;

use std::sync::Arc;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Place;
use super::output::{self, instant, instant_or_dash, or_dash};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::normalize::Normalizer;
use crate::quarantine::Reason;
use crate::store::batch::Batch;
use crate::store::quarantine::{Event, Filter, Held};
use crate::store::{Retrier, Store};

/// Longest part of a payload that `show` prints, bytes; `--json` has all of it.
const SHOWN_PAYLOAD: usize = 4096;

/// Longest part of a topic that `list` prints, characters.
const SHOWN_TOPIC: usize = 120;

/// Messages retried in one transaction.
const RETRIED_AT_ONCE: usize = 200;

#[derive(Args, Debug)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what was refused, the newest first
    List {
        #[command(flatten)]
        which: Which,
        /// Also what a retry has settled
        #[arg(long)]
        all: bool,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        #[arg(long)]
        json: bool,
    },
    /// Show a message with its payload and every reason
    Show {
        /// Number in the first column of the list
        message: i64,
        #[arg(long)]
        json: bool,
    },
    /// Run messages through today's sources and catalog, and store what they become at their original time
    Retry {
        #[command(flatten)]
        which: Which,
        #[arg(long)]
        json: bool,
    },
    /// Remove what is not wanted any more
    Purge {
        #[command(flatten)]
        which: Which,
        /// Everything; needed when nothing else restricts it
        #[arg(long)]
        all: bool,
        #[arg(long)]
        json: bool,
    },
}

/// Which events are meant; without any, all.
#[derive(Args, Clone, Debug)]
struct Which {
    /// Only this message
    #[arg(long, value_name = "NUMBER")]
    message: Option<i64>,
    /// Only this reason, e.g. wrong_kind
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
    #[arg(long)]
    device: Option<String>,
    /// Only what came by this source
    #[arg(long)]
    source: Option<String>,
    #[arg(long)]
    tenant: Option<String>,
}

fn reason(code: &str) -> Result<Reason, String> {
    let codes = || Reason::ALL.map(Reason::code).join(", ");
    Reason::from_code(code).ok_or_else(|| format!("one of {}", codes()))
}

impl Which {
    fn filter(&self, resolved: Option<bool>) -> Filter {
        Filter {
            tenant: self.tenant.clone(),
            reason: self.reason,
            device: self.device.clone(),
            source: self.source.clone(),
            message: self.message,
            resolved,
        }
    }
}

pub(super) fn run(place: &Place, args: &QuarantineArgs) -> anyhow::Result<ExitCode> {
    let store = match &args.action {
        Action::List { .. } | Action::Show { .. } => place.reader()?,
        Action::Retry { .. } | Action::Purge { .. } => place.store()?,
    };
    let mut out = std::io::stdout().lock();
    match &args.action {
        Action::List { which, all, limit, json } => {
            list(&store, &which.filter((!all).then_some(false)), *limit, *json, &mut out)?;
        }
        Action::Show { message, json } => show(&store, *message, *json, &mut out)?,
        Action::Retry { which, json } => {
            retry(&store, &place.load()?.config, &which.filter(Some(false)), *json, &mut out)?;
        }
        Action::Purge { which, all, json } => {
            let filter = which.filter(None);
            if filter == Filter::default() && !all {
                bail!("this would remove everything: say which, or --all");
            }
            purge(&store, &filter, *json, &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists events, the newest first.
///
/// # Errors
/// The store's, and those of writing.
pub fn list(store: &Store, filter: &Filter, limit: i64, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let events = store.quarantine_list(filter, limit)?;
    if as_json {
        output::json(out, &events.iter().map(event_json).collect())?;
    } else {
        let lines = events.iter().map(|event| {
            vec![
                event.message.to_string(),
                instant(event.at),
                event.reason.clone(),
                or_dash(event.key.as_deref()),
                shortened(&event.topic),
                event.detail.clone(),
            ]
        });
        output::table(out, &["MESSAGE", "AT", "REASON", "KEY", "TOPIC", "DETAIL"], lines)?;
    }
    Ok(())
}

/// Shows a message with its payload and all its events.
///
/// # Errors
/// When there is none; the store's, and those of writing.
pub fn show(store: &Store, message: i64, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some((held, events)) = store.quarantine_show(message)? else {
        bail!("there is no message {message} in quarantine; `tidegate quarantine list` shows those there are");
    };
    if as_json {
        let mut value = held_json(&held);
        if let Value::Object(fields) = &mut value {
            fields.insert("events".into(), events.iter().map(event_json).collect());
        }
        output::json(out, &value)?;
        return Ok(());
    }
    let publish = &held.message.publish;
    let facts = [
        ("message", held.id.to_string()),
        ("tenant", held.tenant.clone()),
        ("device", or_dash(held.device.as_deref())),
        ("source", or_dash(held.source.as_deref())),
        ("received", instant(held.message.received_at)),
        ("journal", format!("{} of {} on {}", held.seq, held.journal_id, held.instance)),
        ("topic", publish.topic.clone()),
        ("qos, retain", format!("{}, {}", publish.qos, publish.retain)),
        ("bytes", publish.payload.len().to_string()),
        ("payload", shown_payload(&publish.payload)),
    ];
    output::table(out, &[], facts.map(|(name, value)| vec![name.to_owned(), value]))?;
    writeln!(out)?;
    let lines = events.iter().map(|event| {
        vec![
            event.reason.clone(),
            or_dash(event.key.as_deref()),
            event.detail.clone(),
            instant_or_dash(event.resolved_at),
        ]
    });
    output::table(out, &["REASON", "KEY", "DETAIL", "RESOLVED"], lines)?;
    if held.more > 0 {
        writeln!(out, "and {} more", held.more)?;
    }
    Ok(())
}

/// Runs the messages that the filter means through the sources of `config` and the database's catalog, stores what
/// they become, and says what came of it. What is refused again stays in quarantine with today's reasons.
///
/// # Errors
/// The store's, those of a configuration that does not fit the catalog, and those of writing.
pub fn retry(
    store: &Store,
    config: &Config,
    filter: &Filter,
    as_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let mut normalizer =
        Normalizer::new(config, &store.snapshot()?, store.memory(&config.instance.id)?, metrics.clone())?;
    let mut retrier = Retrier::new(store.clone(), metrics);
    let (mut messages, mut stored, mut duplicates, mut refused, mut after) = (0_u64, 0_u64, 0_u64, 0_u64, 0_i64);
    loop {
        let held = store.take_for_retry(filter, after, RETRIED_AT_ONCE)?;
        let Some(last) = held.last() else { break };
        after = last.id;
        let ids: Vec<i64> = held.iter().map(|one| one.id).collect();
        let mut batch = Batch::default();
        for one in held {
            normalizer.process(&Arc::new(one.message), &mut batch);
            messages += 1;
        }
        let committed = retrier.resolve(&ids, &batch)?.committed;
        stored += committed.stored;
        duplicates += committed.duplicates;
        refused += committed.quarantined;
    }
    store.enforce_bound(config.quarantine.max_events)?;
    if as_json {
        let value = json!({"messages": messages, "stored": stored, "duplicates": duplicates, "refused": refused});
        output::json(out, &value)?;
    } else {
        writeln!(
            out,
            "{messages} messages retried: {stored} readings stored, {duplicates} were there already, {refused} refusals remain"
        )?;
    }
    Ok(())
}

/// Removes the events that the filter means.
///
/// # Errors
/// The store's, and those of writing.
pub fn purge(store: &Store, filter: &Filter, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let purged = store.quarantine_purge(filter)?;
    if as_json {
        output::json(out, &json!({"events": purged.events, "messages": purged.messages}))?;
    } else {
        writeln!(out, "{} events and {} messages removed", purged.events, purged.messages)?;
    }
    Ok(())
}

/// A topic may have 64 KiB; `show` and `--json` have all of it.
fn shortened(topic: &str) -> String {
    match topic.char_indices().nth(SHOWN_TOPIC) {
        Some((end, _)) => format!("{}…", topic.get(..end).unwrap_or_default()),
        None => topic.to_owned(),
    }
}

fn shown_payload(payload: &[u8]) -> String {
    let part = payload.get(..SHOWN_PAYLOAD).unwrap_or(payload);
    let dots = if part.len() < payload.len() { " …" } else { "" };
    match std::str::from_utf8(part) {
        Ok(text) => format!("{text}{dots}"),
        Err(_) => format!("{}{dots}", part.escape_ascii()),
    }
}

fn event_json(event: &Event) -> Value {
    json!({
        "id": event.id, "message": event.message, "tenant": event.tenant, "at": instant(event.at),
        "reason": event.reason, "key": event.key, "detail": event.detail,
        "resolved_at": event.resolved_at.map(instant), "topic": event.topic, "source": event.source,
        "device": event.device,
    })
}

/// A payload that is not UTF-8 is given as `payload_bytes`, numbers.
fn held_json(held: &Held) -> Value {
    let publish = &held.message.publish;
    let text = std::str::from_utf8(&publish.payload).ok();
    json!({
        "message": held.id, "tenant": held.tenant, "device": held.device, "source": held.source,
        "received_at": instant(held.message.received_at),
        "instance": held.instance, "journal": held.journal_id, "seq": held.seq,
        "topic": publish.topic, "qos": publish.qos, "retain": publish.retain,
        "payload": text, "payload_bytes": text.is_none().then(|| publish.payload.to_vec()), "more": held.more,
    })
}

//! `tidegate quarantine list | show | purge`; what `retry` needs of the store is in [`crate::store::Retrier`].

use std::io::Write;

use anyhow::bail;
use serde_json::{Value, json};

use super::output::{self, instant, instant_or_dash, or_dash};
use crate::store::Store;
use crate::store::quarantine::{Event, Filter, Held};

/// Longest part of a payload that `show` prints, bytes; `--json` has all of it.
const SHOWN_PAYLOAD: usize = 4096;

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
                event.topic.clone(),
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

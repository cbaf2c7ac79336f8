//! What the batch transaction does to the quarantine: messages and refusals in, open events settled.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use diesel::prelude::*;

use super::MESSAGES_AT_ONCE;
use crate::clock;
use crate::message::{Message, Seq};
use crate::quarantine::Refusal;
use crate::store::batch::Quarantined;
use crate::store::error::{During, StoreError};
use crate::store::limits;
use crate::store::pool::{Conn, with_db};
use crate::store::replay::HeldMessage;
use crate::store::schema::{device_sensors, devices, quarantine_events, quarantine_messages};
use crate::time::UtcMicros;

/// Bytes of payload written at once, about.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;

/// A message on its way to quarantine.
#[derive(Debug)]
pub(in crate::store) struct Entry {
    pub message: Arc<Message>,
    pub source: Option<String>,
    pub tenant_id: i32,
    pub device: Option<String>,
    pub refusals: Vec<Refusal>,
    pub more: u64,
}

impl Entry {
    pub(in crate::store) fn refuse(&mut self, refusal: Refusal) {
        if self.refusals.len() < Quarantined::MAX_REFUSALS {
            self.refusals.push(refusal);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(in crate::store) fn merge(&mut self, other: &Entry) {
        for refusal in &other.refusals {
            self.refuse(refusal.clone());
        }
        self.more = self.more.saturating_add(other.more);
    }
}

/// Where the messages of a batch come from.
pub(in crate::store) enum Origin<'a> {
    Journal {
        instance: &'a str,
        journal_id: &'a str,
    },
    /// From quarantine: `seq` is the message's id there.
    Retry,
    /// From the archive: rows without messages.
    Archive,
    /// From the journal once more; some of the messages are in quarantine already.
    Replay {
        instance: &'a str,
        journal_id: &'a str,
        held: &'a HashMap<Seq, HeldMessage>,
    },
}

/// To whom a sensor belongs.
#[derive(Clone, Debug, Queryable)]
pub(in crate::store) struct Owner {
    pub tenant_id: i32,
    pub device: String,
    pub metric: String,
}

#[derive(Insertable)]
#[diesel(table_name = quarantine_messages, treat_none_as_default_value = false)]
struct NewMessage<'a> {
    tenant_id: i32,
    instance: &'a str,
    journal_id: &'a str,
    seq: i64,
    received_at: UtcMicros,
    topic: String,
    payload: &'a [u8],
    qos: i32,
    retain: bool,
    client: Option<String>,
    properties: Option<String>,
    source: Option<String>,
    device: Option<String>,
    more: i64,
}

#[derive(Insertable)]
#[diesel(table_name = quarantine_events, treat_none_as_default_value = false)]
struct NewEvent {
    tenant_id: i32,
    message_id: i64,
    at: UtcMicros,
    reason: &'static str,
    key: Option<String>,
    detail: String,
}

/// Marks the open events of messages as settled; returns how many.
pub(in crate::store) fn settle(conn: &mut Conn<'_>, ids: &[i64]) -> Result<u64, StoreError> {
    let now = clock::now();
    let mut settled = 0;
    for ids in ids.chunks(conn.rows_per_statement(1)) {
        let open = quarantine_events::table
            .filter(quarantine_events::message_id.eq_any(ids))
            .filter(quarantine_events::resolved_at.is_null());
        settled += with_db!(conn, |c| diesel::update(open).set(quarantine_events::resolved_at.eq(now)).execute(c))
            .during("settling events")? as u64;
    }
    Ok(settled)
}

/// Marks single events as settled, by id; returns how many were open.
pub(in crate::store) fn settle_events(conn: &mut Conn<'_>, ids: &[i64]) -> Result<u64, StoreError> {
    let now = clock::now();
    let mut settled = 0;
    for ids in ids.chunks(conn.rows_per_statement(1)) {
        let open = quarantine_events::table
            .filter(quarantine_events::id.eq_any(ids))
            .filter(quarantine_events::resolved_at.is_null());
        settled += with_db!(conn, |c| diesel::update(open).set(quarantine_events::resolved_at.eq(now)).execute(c))
            .during("settling events")? as u64;
    }
    Ok(settled)
}

/// Device, metric and tenant of sensors, by id.
pub(in crate::store) fn whose(
    conn: &mut Conn<'_>,
    sensor_ids: impl Iterator<Item = i32>,
) -> Result<HashMap<i32, Owner>, StoreError> {
    let ids: BTreeSet<i32> = sensor_ids.collect();
    let ids: Vec<i32> = ids.into_iter().collect();
    let mut owners = HashMap::new();
    for chunk in ids.chunks(conn.rows_per_statement(1)) {
        let rows: Vec<(i32, Owner)> = with_db!(conn, |c| device_sensors::table
            .inner_join(devices::table)
            .filter(device_sensors::id.eq_any(chunk))
            .select((device_sensors::id, (device_sensors::tenant_id, devices::uid, device_sensors::metric)))
            .load(c))
        .during("finding whose rows were refused")?;
        owners.extend(rows);
    }
    Ok(owners)
}

/// Writes entries, each message once; returns the number of events. A message that a lost commit has left already keeps the
/// events it has.
pub(in crate::store) fn record(conn: &mut Conn<'_>, origin: &Origin<'_>, entries: &[Entry]) -> Result<u64, StoreError> {
    let mut written = 0;
    for entries in by_size(entries) {
        let ids: HashMap<Seq, i64> = match origin {
            Origin::Journal { instance, journal_id } => insert_messages(conn, instance, journal_id, entries)?,
            Origin::Retry | Origin::Archive => entries
                .iter()
                .filter_map(|entry| Some((entry.message.seq, i64::try_from(entry.message.seq).ok()?)))
                .collect(),
            Origin::Replay { instance, journal_id, held } => {
                let mut ids = insert_messages(conn, instance, journal_id, entries)?;
                let seqs = entries.iter().map(|entry| entry.message.seq);
                ids.extend(seqs.filter_map(|seq| Some((seq, held.get(&seq)?.id))));
                ids
            }
        };
        let events: Vec<NewEvent> = entries
            .iter()
            .filter_map(|entry| Some((entry, *ids.get(&entry.message.seq)?)))
            .flat_map(|(entry, message_id)| {
                let at = match origin {
                    Origin::Journal { .. } => entry.message.received_at,
                    Origin::Retry | Origin::Archive | Origin::Replay { .. } => clock::now(),
                };
                entry.refusals.iter().map(move |refusal| NewEvent {
                    tenant_id: entry.tenant_id,
                    message_id,
                    at,
                    reason: refusal.reason.code(),
                    key: refusal.key.as_deref().map(|key| limits::clip(key, limits::DETAIL)),
                    detail: limits::clip(&refusal.detail, limits::DETAIL),
                })
            })
            .collect();
        for events in events.chunks(conn.rows_per_statement(6)) {
            written += with_db!(conn, |c| diesel::insert_into(quarantine_events::table).values(events).execute(c))
                .during("writing quarantine events")? as u64;
        }
    }
    Ok(written)
}

/// Runs of entries bounded in number and payload.
fn by_size(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut bytes = 0_usize;
    let mut number = 0_usize;
    entries
        .chunk_by(|_, next| {
            bytes = bytes.saturating_add(next.message.publish.payload.len());
            number += 1;
            let together = bytes < BYTES_AT_ONCE && number < MESSAGES_AT_ONCE;
            if !together {
                (bytes, number) = (0, 0);
            }
            together
        })
        .collect()
}

/// Returns the ids of the messages that were not there before.
fn insert_messages(
    conn: &mut Conn<'_>,
    instance: &str,
    journal_id: &str,
    entries: &[Entry],
) -> Result<HashMap<Seq, i64>, StoreError> {
    let seqs: Vec<i64> = entries.iter().filter_map(|entry| i64::try_from(entry.message.seq).ok()).collect();
    let there: HashSet<i64> = find_messages(conn, instance, journal_id, &seqs)?.into_iter().map(|row| row.0).collect();
    let rows: Vec<NewMessage<'_>> = entries
        .iter()
        .filter_map(|entry| {
            let seq = i64::try_from(entry.message.seq).ok()?;
            let publish = &entry.message.publish;
            (!there.contains(&seq)).then(|| NewMessage {
                tenant_id: entry.tenant_id,
                instance,
                journal_id,
                seq,
                received_at: entry.message.received_at,
                topic: limits::clip(&publish.topic, limits::TOPIC),
                payload: &publish.payload,
                qos: i32::from(publish.qos),
                retain: publish.retain,
                client: publish.client.as_deref().map(|client| limits::clip(client, limits::TOPIC)),
                properties: publish.properties.as_ref().and_then(|all| serde_json::to_string(all).ok()),
                source: entry.source.as_deref().map(|source| limits::clip(source, limits::SOURCE)),
                device: entry.device.as_deref().map(|device| limits::clip(device, limits::TOPIC)),
                more: i64::try_from(entry.more).unwrap_or(i64::MAX),
            })
        })
        .collect();
    for rows in rows.chunks(conn.rows_per_statement(14)) {
        with_db!(conn, |c| diesel::insert_into(quarantine_messages::table).values(rows).execute(c))
            .during("writing messages to quarantine")?;
    }
    let now = find_messages(conn, instance, journal_id, &seqs)?;
    Ok(now
        .into_iter()
        .filter(|(seq, _)| !there.contains(seq))
        .filter_map(|(seq, id)| Some((Seq::try_from(seq).ok()?, id)))
        .collect())
}

fn find_messages(
    conn: &mut Conn<'_>,
    instance: &str,
    journal_id: &str,
    seqs: &[i64],
) -> Result<Vec<(i64, i64)>, StoreError> {
    with_db!(conn, |c| quarantine_messages::table
        .filter(quarantine_messages::instance.eq(instance))
        .filter(quarantine_messages::journal_id.eq(journal_id))
        .filter(quarantine_messages::seq.eq_any(seqs))
        .select((quarantine_messages::seq, quarantine_messages::id))
        .load(c))
    .during("finding messages in quarantine")
}

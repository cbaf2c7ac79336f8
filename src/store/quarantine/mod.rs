//! Messages and samples that could not become readings: kept, shown, tried again, discarded.

mod record;

pub(super) use record::{Entry, Origin, record, settle, settle_events, whose};

use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::schema::{quarantine_events, quarantine_messages, tenants};
use crate::message::{Message, Publish, Seq};
use crate::quarantine::Reason;
use crate::time::UtcMicros;

/// Messages written or read at once; payloads are kept with them.
const MESSAGES_AT_ONCE: usize = 200;
/// Which events are meant; what is none restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub tenant: Option<String>,
    pub reason: Option<Reason>,
    /// Uid.
    pub device: Option<String>,
    /// Name of a source.
    pub source: Option<String>,
    /// Id of a message in quarantine.
    pub message: Option<i64>,
    /// Only those a retry has settled, or only those it has not.
    pub resolved: Option<bool>,
}

/// One refusal, with the message it is about.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct Event {
    pub id: i64,
    /// Id of the message.
    pub message: i64,
    pub tenant: String,
    pub at: UtcMicros,
    /// A code of [`Reason`], or one of a later version.
    pub reason: String,
    pub key: Option<String>,
    pub detail: String,
    pub resolved_at: Option<UtcMicros>,
    pub topic: String,
    pub source: Option<String>,
    pub device: Option<String>,
}

/// A message in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: i64,
    pub tenant: String,
    pub source: Option<String>,
    /// Uid.
    pub device: Option<String>,
    /// Its place in the journal it came by.
    pub instance: String,
    pub journal_id: String,
    /// 0: the journal has lost it, and its place is another message's.
    pub seq: Seq,
    /// Refusals that have no event.
    pub more: u64,
    /// As it was received; `seq` is `id` here, so that what is made of it leads back to it.
    pub message: Message,
}

/// What a purge has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub events: u64,
    pub messages: u64,
}

/// Applies a [`Filter`] to a boxed query that has events, messages and tenants in it.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        let mut query = $query;
        if let Some(tenant) = &$filter.tenant {
            query = query.filter(tenants::name.eq(tenant));
        }
        if let Some(reason) = $filter.reason {
            query = query.filter(quarantine_events::reason.eq(reason.code()));
        }
        if let Some(device) = &$filter.device {
            query = query.filter(quarantine_messages::device.eq(device));
        }
        if let Some(source) = &$filter.source {
            query = query.filter(quarantine_messages::source.eq(source));
        }
        if let Some(message) = $filter.message {
            query = query.filter(quarantine_messages::id.eq(message));
        }
        match $filter.resolved {
            Some(true) => query = query.filter(quarantine_events::resolved_at.is_not_null()),
            Some(false) => query = query.filter(quarantine_events::resolved_at.is_null()),
            None => {}
        }
        query
    }};
}

/// The three tables together.
macro_rules! joined {
    () => {
        quarantine_events::table
            .inner_join(quarantine_messages::table)
            .inner_join(tenants::table.on(tenants::id.eq(quarantine_events::tenant_id)))
    };
}

impl Store {
    /// Events, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantine_list(&self, filter: &Filter, limit: i64) -> Result<Vec<Event>, StoreError> {
        self.look(|conn| {
            with_db!(conn, |c, B| {
                let query = joined!().select(event_columns()).into_boxed::<B>();
                filtered!(query, filter).order(quarantine_events::id.desc()).limit(limit).load(c)
            })
            .during("reading the quarantine")
        })
    }

    /// A message and all its events, the oldest first; none if there is no such message.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantine_show(&self, message: i64) -> Result<Option<(Held, Vec<Event>)>, StoreError> {
        self.look(|conn| {
            let Some(held) = held(conn, &[message])?.into_iter().next() else { return Ok(None) };
            let events = with_db!(conn, |c| joined!()
                .filter(quarantine_messages::id.eq(message))
                .select(event_columns())
                .order(quarantine_events::id)
                .load(c))
            .during("reading the message's events")?;
            Ok(Some((held, events)))
        })
    }

    /// The next messages after id `after` with open events that the filter means, by id, at most `limit` and 200.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn take_for_retry(&self, filter: &Filter, after: i64, limit: usize) -> Result<Vec<Held>, StoreError> {
        let filter = Filter { resolved: Some(false), ..filter.clone() };
        let limit = i64::try_from(limit.min(MESSAGES_AT_ONCE)).unwrap_or(0);
        self.db.read(|conn| {
            let ids: Vec<i64> = with_db!(conn, |c, B| {
                let query = joined!().select(quarantine_messages::id).distinct().into_boxed::<B>();
                filtered!(query, filter)
                    .filter(quarantine_messages::id.gt(after))
                    .order(quarantine_messages::id)
                    .limit(limit)
                    .load(c)
            })
            .during("choosing messages to retry")?;
            held(conn, &ids)
        })
    }

    /// Removes the events that the filter means, and the messages that have none left.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before it stays removed.
    pub fn quarantine_purge(&self, filter: &Filter) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        loop {
            let removed = self.db.write(|conn| {
                let at_once = conn.rows_per_statement(1);
                let ids: Vec<i64> = with_db!(conn, |c, B| {
                    let query = joined!().select(quarantine_events::id).into_boxed::<B>();
                    filtered!(query, filter)
                        .order(quarantine_events::id)
                        .limit(i64::try_from(at_once).unwrap_or(1))
                        .load(c)
                })
                .during("choosing events to purge")?;
                with_db!(conn, |c| {
                    diesel::delete(quarantine_events::table.filter(quarantine_events::id.eq_any(&ids))).execute(c)
                })
                .during("purging events")
            })?;
            purged.events += removed as u64;
            if removed == 0 {
                break;
            }
        }
        purged.messages = self.db.write(|conn| drop_messages_without_events(conn, i64::MAX))?;
        Ok(purged)
    }

    /// Removes at most `limit` events that are older than `before`, and the messages that have none left; returns how many
    /// events.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn expire_quarantine(&self, before: UtcMicros, limit: i64) -> Result<u64, StoreError> {
        self.db.write(|conn| {
            let old: Vec<(i64, i64)> = with_db!(conn, |c| quarantine_events::table
                .filter(quarantine_events::at.lt(before))
                .select((quarantine_events::id, quarantine_events::message_id))
                .order(quarantine_events::id)
                .limit(limit)
                .load(c))
            .during("looking for old events")?;
            let Some(newest_message) = old.iter().map(|(_, message)| *message).max() else { return Ok(0) };
            let ids: Vec<i64> = old.into_iter().map(|(id, _)| id).collect();
            let removed = with_db!(conn, |c| {
                diesel::delete(quarantine_events::table.filter(quarantine_events::id.eq_any(&ids))).execute(c)
            })
            .during("removing old events")?;
            drop_messages_without_events(conn, newest_message)?;
            Ok(removed as u64)
        })
    }

    /// Discards the oldest events beyond `max_events`, and the messages that have none left; returns how many events.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn enforce_bound(&self, max_events: u64) -> Result<u64, StoreError> {
        let keep = i64::try_from(max_events).unwrap_or(i64::MAX);
        self.db.write(|conn| {
            let cut: Option<(i64, i64)> = with_db!(conn, |c| quarantine_events::table
                .select((quarantine_events::id, quarantine_events::message_id))
                .order(quarantine_events::id.desc())
                .offset(keep)
                .limit(1)
                .first(c)
                .optional())
            .during("measuring the quarantine")?;
            let Some((last, _)) = cut else { return Ok(0) };
            let newest_message: Option<i64> = with_db!(conn, |c| quarantine_events::table
                .filter(quarantine_events::id.le(last))
                .select(diesel::dsl::max(quarantine_events::message_id))
                .first(c))
            .during("measuring the quarantine")?;
            let discarded = with_db!(conn, |c| {
                diesel::delete(quarantine_events::table.filter(quarantine_events::id.le(last))).execute(c)
            })
            .during("discarding events")?;
            drop_messages_without_events(conn, newest_message.unwrap_or(0))?;
            Ok(discarded as u64)
        })
    }
}

type EventColumns = (
    quarantine_events::id,
    quarantine_events::message_id,
    tenants::name,
    quarantine_events::at,
    quarantine_events::reason,
    quarantine_events::key,
    quarantine_events::detail,
    quarantine_events::resolved_at,
    quarantine_messages::topic,
    quarantine_messages::source,
    quarantine_messages::device,
);

fn event_columns() -> EventColumns {
    (
        quarantine_events::id,
        quarantine_events::message_id,
        tenants::name,
        quarantine_events::at,
        quarantine_events::reason,
        quarantine_events::key,
        quarantine_events::detail,
        quarantine_events::resolved_at,
        quarantine_messages::topic,
        quarantine_messages::source,
        quarantine_messages::device,
    )
}

/// Messages and events are written in one transaction, so a message without events is one whose events are gone.
fn drop_messages_without_events(conn: &mut Conn<'_>, up_to: i64) -> Result<u64, StoreError> {
    let dropped = with_db!(conn, |c| diesel::delete(
        quarantine_messages::table.filter(quarantine_messages::id.le(up_to)).filter(not(exists(
            quarantine_events::table.filter(quarantine_events::message_id.eq(quarantine_messages::id))
        )))
    )
    .execute(c))
    .during("discarding messages")?;
    Ok(dropped as u64)
}

#[derive(Queryable)]
struct HeldRow {
    id: i64,
    tenant: String,
    instance: String,
    journal_id: String,
    seq: i64,
    received_at: UtcMicros,
    topic: String,
    payload: Vec<u8>,
    qos: i32,
    retain: bool,
    client: Option<String>,
    properties: Option<String>,
    source: Option<String>,
    device: Option<String>,
    more: i64,
}

fn held(conn: &mut Conn<'_>, ids: &[i64]) -> Result<Vec<Held>, StoreError> {
    use quarantine_messages::{
        client, device, id, instance, journal_id, more, payload, properties, qos, received_at, retain, seq, source,
        table, tenant_id, topic,
    };
    let columns = (
        id,
        tenants::name,
        instance,
        journal_id,
        seq,
        received_at,
        topic,
        payload,
        qos,
        retain,
        client,
        properties,
        source,
        device,
        more,
    );
    let rows: Vec<HeldRow> = with_db!(conn, |c| table
        .inner_join(tenants::table.on(tenants::id.eq(tenant_id)))
        .filter(id.eq_any(ids))
        .select(columns)
        .order(id)
        .load(c))
    .during("reading messages from the quarantine")?;
    Ok(rows.into_iter().map(Held::from).collect())
}

impl From<HeldRow> for Held {
    fn from(row: HeldRow) -> Held {
        let publish = Publish {
            topic: row.topic,
            payload: row.payload.into(),
            qos: u8::try_from(row.qos).unwrap_or(0),
            retain: row.retain,
            dup: false,
            packet_id: 0,
            client: row.client,
            properties: row.properties.and_then(|json| serde_json::from_str(&json).ok()),
        };
        let message = Message { seq: Seq::try_from(row.id).unwrap_or(0), received_at: row.received_at, publish };
        Held {
            id: row.id,
            tenant: row.tenant,
            source: row.source,
            device: row.device,
            instance: row.instance,
            journal_id: row.journal_id,
            seq: Seq::try_from(row.seq).unwrap_or(0),
            more: u64::try_from(row.more).unwrap_or(0),
            message,
        }
    }
}

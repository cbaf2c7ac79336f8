//! What a replay of the journal asks of the database, and how it stores what is new.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{Array, Integer};

use super::Store;
use super::batch::Batch;
use super::commit::{Committed, count, write};
use super::error::{During, StoreError};
use super::introduce::Known;
use super::poison::Manner;
use super::pool::{Conn, with_db};
use super::quarantine::{Entry, Origin, settle_events};
use super::schema::{self, quarantine_events, quarantine_messages, telemetry};
use crate::message::{Message, Seq};
use crate::metrics::Metrics;
use crate::quarantine::{Reason, Refusal};
use crate::time::UtcMicros;

/// Pairs in one statement on SQLite.
const PAIRS: usize = 500;

/// A message of the journal that is in quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldMessage {
    /// Its id there.
    pub id: i64,
    /// Its events that no retry or replay has settled: reason and key, and the event's id.
    pub open: Vec<(String, Option<String>, i64)>,
}

impl HeldMessage {
    /// Whether this refusal has an open event.
    pub fn has(&self, refusal: &Refusal) -> bool {
        self.open.iter().any(|(reason, key, _)| reason == refusal.reason.code() && *key == refusal.key)
    }
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Integer)]
    sensor_id: i32,
    #[diesel(sql_type = schema::Instant)]
    time: UtcMicros,
}

impl Store {
    /// Which of these numeric readings, by sensor and time, the database has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stored_numbers(&self, keys: &[(i32, UtcMicros)]) -> Result<HashSet<(i32, UtcMicros)>, StoreError> {
        self.stored("telemetry", keys)
    }

    /// Which of these text readings, by sensor and time, the database has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stored_texts(&self, keys: &[(i32, UtcMicros)]) -> Result<HashSet<(i32, UtcMicros)>, StoreError> {
        self.stored("telemetry_text", keys)
    }

    fn stored(&self, table: &'static str, keys: &[(i32, UtcMicros)]) -> Result<HashSet<(i32, UtcMicros)>, StoreError> {
        if keys.is_empty() {
            return Ok(HashSet::new());
        }
        let rows: Vec<Key> = self.db.with(|conn| match conn {
            Conn::Postgres(c) => {
                let (ids, times): (Vec<i32>, Vec<UtcMicros>) = keys.iter().copied().unzip();
                // The LIMIT keeps the planner from reading the whole table instead.
                diesel::sql_query(format!(
                    "SELECT b.id AS sensor_id, b.time AS time FROM unnest($1, $2) AS b (id, time) CROSS JOIN LATERAL \
                     (SELECT 1 FROM {table} t WHERE t.sensor_id = b.id AND t.time = b.time LIMIT 1) AS found"
                ))
                .bind::<Array<Integer>, _>(ids)
                .bind::<Array<schema::Instant>, _>(times)
                .load(*c)
                .during("looking for stored readings")
            }
            Conn::Sqlite(c) => {
                let mut rows = Vec::new();
                for keys in keys.chunks(PAIRS) {
                    let pairs: Vec<String> = keys.iter().map(|(id, time)| format!("({id}, {})", time.0)).collect();
                    let found: Vec<Key> = diesel::sql_query(format!(
                        "WITH b (id, time) AS (VALUES {}) SELECT t.sensor_id, t.time FROM b CROSS JOIN {table} AS t \
                         ON t.sensor_id = b.id AND t.time = b.time",
                        pairs.join(", ")
                    ))
                    .load(*c)
                    .during("looking for stored readings")?;
                    rows.extend(found);
                }
                Ok(rows)
            }
        })?;
        Ok(rows.into_iter().map(|key| (key.sensor_id, key.time)).collect())
    }

    /// The newest number of each sensor before an instant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_before(
        &self,
        sensors: &[i32],
        before: UtcMicros,
    ) -> Result<HashMap<i32, (UtcMicros, f64)>, StoreError> {
        self.db.read(|conn| {
            let mut found = HashMap::new();
            for sensor in sensors {
                let last: Option<(UtcMicros, f64)> = with_db!(conn, |c| telemetry::table
                    .filter(telemetry::sensor_id.eq(sensor))
                    .filter(telemetry::time.lt(before))
                    .order(telemetry::time.desc())
                    .select((telemetry::time, telemetry::value))
                    .first(c)
                    .optional())
                .during("looking for readings of before the replay")?;
                found.extend(last.map(|last| (*sensor, last)));
            }
            Ok(found)
        })
    }

    /// The messages from `first` to `last` of a journal that are in quarantine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn held_between(
        &self,
        instance: &str,
        journal_id: &str,
        first: Seq,
        last: Seq,
    ) -> Result<HashMap<Seq, HeldMessage>, StoreError> {
        let bound = |seq: Seq| i64::try_from(seq).unwrap_or(i64::MAX);
        self.db.read(|conn| {
            let rows: Vec<(i64, i64)> = with_db!(conn, |c| quarantine_messages::table
                .filter(quarantine_messages::instance.eq(instance))
                .filter(quarantine_messages::journal_id.eq(journal_id))
                .filter(quarantine_messages::seq.between(bound(first), bound(last)))
                .select((quarantine_messages::seq, quarantine_messages::id))
                .load(c))
            .during("finding messages in quarantine")?;
            let ids: Vec<i64> = rows.iter().map(|(_, id)| *id).collect();
            let mut open: HashMap<i64, Vec<(String, Option<String>, i64)>> = HashMap::new();
            for ids in ids.chunks(conn.rows_per_statement(1)) {
                let events: Vec<(i64, String, Option<String>, i64)> = with_db!(conn, |c| quarantine_events::table
                    .filter(quarantine_events::message_id.eq_any(ids))
                    .filter(quarantine_events::resolved_at.is_null())
                    .select((
                        quarantine_events::message_id,
                        quarantine_events::reason,
                        quarantine_events::key,
                        quarantine_events::id
                    ))
                    .load(c))
                .during("reading open events")?;
                for (message, reason, key, id) in events {
                    open.entry(message).or_default().push((reason, key, id));
                }
            }
            let held = |(seq, id): (i64, i64)| {
                Some((Seq::try_from(seq).ok()?, HeldMessage { id, open: open.remove(&id).unwrap_or_default() }))
            };
            Ok(rows.into_iter().filter_map(held).collect())
        })
    }
}

/// Stores what a replay has found to be new. The position stays where it is.
pub struct Replayer {
    store: Store,
    instance: String,
    journal_id: String,
    metrics: Metrics,
    known: Known,
}

impl Replayer {
    /// For messages of a journal of `instance`.
    pub fn new(store: Store, instance: &str, journal_id: &str, metrics: Metrics) -> Replayer {
        let (instance, journal_id) = (instance.to_owned(), journal_id.to_owned());
        Replayer { store, instance, journal_id, metrics, known: Known::default() }
    }

    /// Stores a batch in one transaction; all batches are of one generation. Of what is refused, a message in `held` gets
    /// events for what it has no open event of; other messages get some only for rows that the database refused, since
    /// their outcome is decided already. `settled` are events that came to their end, by id; those of rows that the
    /// database refused stay open as long as it refuses any.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed and the same call may be made again.
    pub fn commit(
        &mut self,
        batch: &Batch,
        held: &HashMap<Seq, HeldMessage>,
        settled: &[(Option<Reason>, i64)],
        lookup: &dyn Fn(Seq) -> Option<Message>,
    ) -> Result<Replayed, StoreError> {
        let origin = Origin::Replay { instance: &self.instance, journal_id: &self.journal_id, held };
        let known = &self.known;
        let (replayed, fresh) = self.store.write_covered(batch, |conn| {
            let manner = Manner { duplicates: self.store.settings.duplicates, straight: true };
            let written = write(conn, batch, known, &origin, manner, lookup)?;
            written.keep_newest(conn, manner)?;
            let committed = written.committed;
            let ended =
                |reason: &Option<Reason>| committed.rejected == 0 || *reason != Some(Reason::RejectedByDatabase);
            let ids: Vec<i64> = settled.iter().filter(|(reason, _)| ended(reason)).map(|(_, id)| *id).collect();
            let settled = settle_events(conn, &ids)?;
            Ok((Replayed { committed, settled }, written.fresh))
        })?;
        self.known.absorb(fresh);
        count(&self.metrics, &replayed.committed);
        Ok(replayed)
    }
}

/// What a batch of a replay has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub committed: Committed,
    /// Events in quarantine that came to their end.
    pub settled: u64,
}

/// What of a replay's refusals goes to quarantine.
pub(super) fn not_yet_held(mut entries: Vec<Entry>, held: &HashMap<Seq, HeldMessage>) -> Vec<Entry> {
    for entry in &mut entries {
        match held.get(&entry.message.seq) {
            Some(held) => entry.refusals.retain(|refusal| !held.has(refusal)),
            None => entry.refusals.retain(|refusal| refusal.reason == Reason::RejectedByDatabase),
        }
    }
    entries.retain(|entry| !entry.refusals.is_empty());
    entries
}

//! The batch transaction: everything that a run of messages produced, and the position it ends at, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Store;
use super::batch::Batch;
use super::error::{During, StoreError};
use super::introduce::{Fresh, Ids, Known, introduce};
use super::memory;
use super::poison::{RefusedRow, Rows, keep_last_seen};
use super::pool::Conn;
use super::position::{Claim, claim, default_tenant};
use super::quarantine::{Entry, Origin, record, settle, whose};
use super::reconcile;
use super::replay::not_yet_held;
use crate::crash;
use crate::message::{Message, Publish, Seq};
use crate::metrics::Metrics;
use crate::quarantine::{Reason, Refusal};
use crate::time::UtcMicros;

/// What a batch has come to in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Readings, numbers and texts together, that are new.
    pub stored: u64,
    /// Readings that were there already, by sensor and time.
    pub duplicates: u64,
    /// Readings that the database refused; they are in quarantine.
    pub rejected: u64,
    pub devices_provisioned: u64,
    /// Events written to quarantine, the rejected readings' among them.
    pub quarantined: u64,
    /// Whether readings had to be bisected.
    pub bisected: bool,
    /// An earlier attempt had been committed though its answer was lost; the counts above are 0.
    pub already: bool,
}

/// Commits batches of one instance's journal. Owns which number stands for which row.
pub struct BatchWriter {
    store: Store,
    instance: String,
    journal_id: String,
    metrics: Metrics,
    generation: Option<u32>,
    known: Known,
    /// Where an attempt failed of which it isn't known whether the database committed it.
    unsure: Option<Seq>,
}

impl BatchWriter {
    /// A writer for `instance`, whose row [`Store::position`] has made.
    pub fn new(store: Store, instance: &str, journal_id: &str, metrics: Metrics) -> BatchWriter {
        BatchWriter {
            store,
            instance: instance.to_owned(),
            journal_id: journal_id.to_owned(),
            metrics,
            generation: None,
            known: Known::default(),
            unsure: None,
        }
    }

    /// Commits a batch in one transaction. After an error nothing of it is in the database and the same batch may be
    /// committed again, as it is or with later ones appended. `lookup` finds the message of a reading that the database refuses.
    ///
    /// Counts what it stored; attempts that fail are for the caller to count.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another writer has moved the position; else see [`StoreError::is_transient`].
    pub fn commit(&mut self, batch: &Batch, lookup: &dyn Fn(Seq) -> Option<Message>) -> Result<Committed, StoreError> {
        let started = Instant::now();
        let nothing = Known::default();
        let known = if self.generation == Some(batch.generation) { &self.known } else { &nothing };
        let origin = Origin::Journal { instance: &self.instance, journal_id: &self.journal_id };
        let outside = crash::has(crash::Mutation::PositionOutsideTransaction);
        if outside {
            self.store.db.write(|conn| claim(conn, &self.instance, &self.journal_id, batch.position))?;
        }
        let outcome = self.store.db.write(|conn| {
            let moved =
                if outside { Claim::Moved } else { claim(conn, &self.instance, &self.journal_id, batch.position)? };
            match moved {
                Claim::Moved => {
                    let written = write(conn, batch, known, &origin, lookup)?;
                    crash::point("writer.before_commit");
                    Ok(written)
                }
                Claim::AlreadyThere if self.unsure == Some(batch.position) => {
                    let fresh = introduce(conn, batch, known)?;
                    Ok((Committed { already: true, ..Committed::default() }, fresh))
                }
                Claim::AlreadyThere | Claim::Lost => Err(StoreError::Fenced { instance: self.instance.clone() }),
            }
        });
        let (committed, fresh) = match outcome {
            Ok(done) => done,
            Err(error) => {
                self.unsure = Some(batch.position);
                return Err(error);
            }
        };
        crash::point("writer.after_commit");
        self.unsure = None;
        if self.generation != Some(batch.generation) {
            self.generation = Some(batch.generation);
            self.known = Known::default();
        }
        self.known.absorb(fresh);
        count(&self.metrics, &committed);
        self.metrics.batches_committed.inc();
        self.metrics.batch_commit_duration.observe(started.elapsed().as_secs_f64());
        Ok(committed)
    }
}

/// What a retry of quarantined messages has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub committed: Committed,
    /// Events settled by it.
    pub events: u64,
}

/// Stores what messages from quarantine have become at another attempt.
pub struct Retrier {
    store: Store,
    metrics: Metrics,
    generation: Option<u32>,
    known: Known,
}

impl Retrier {
    pub fn new(store: Store, metrics: Metrics) -> Retrier {
        Retrier { store, metrics, generation: None, known: Known::default() }
    }

    /// Stores the batch made of the messages with these ids, at the readings' own times, and settles the messages' open
    /// events; what is refused again gets events anew. In the batch `seq` is the message's id in quarantine, as
    /// [`Store::take_for_retry`](super::Store::take_for_retry) gives it; its position is not used.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn resolve(&mut self, ids: &[i64], batch: &Batch) -> Result<Resolved, StoreError> {
        let nothing = Known::default();
        let known = if self.generation == Some(batch.generation) { &self.known } else { &nothing };
        let (resolved, fresh) = self.store.db.write(|conn| {
            // A daemon must hear of devices made here, and of last values that its checks go by.
            reconcile::raise_version(conn)?;
            let events = settle(conn, ids)?;
            let (committed, fresh) = write(conn, batch, known, &Origin::Retry, &|_| None)?;
            Ok((Resolved { committed, events }, fresh))
        })?;
        if self.generation != Some(batch.generation) {
            self.generation = Some(batch.generation);
            self.known = Known::default();
        }
        self.known.absorb(fresh);
        count(&self.metrics, &resolved.committed);
        Ok(resolved)
    }
}

pub(super) fn count(metrics: &Metrics, committed: &Committed) {
    metrics.readings_stored.inc_by(committed.stored);
    metrics.readings_duplicate.inc_by(committed.duplicates);
    metrics.devices_provisioned.inc_by(committed.devices_provisioned);
    if committed.bisected {
        metrics.batches_bisected.inc();
    }
    for _ in 0..committed.rejected {
        metrics.count_refusal(Reason::RejectedByDatabase);
    }
}

/// The batch's rows, inside the transaction that is open.
pub(super) fn write(
    conn: &mut Conn<'_>,
    batch: &Batch,
    known: &Known,
    origin: &Origin<'_>,
    lookup: &dyn Fn(Seq) -> Option<Message>,
) -> Result<(Committed, Fresh), StoreError> {
    if let Origin::Journal { instance, .. } = origin {
        memory::keep(conn, instance, &batch.memory)?;
    }
    let fresh = introduce(conn, batch, known)?;
    let ids = Ids { known, fresh: &fresh };
    let mut refused = Vec::new();

    let mut numbers = Rows::with_capacity(batch.readings.len());
    for reading in &batch.readings {
        match ids.sensor(reading.sensor) {
            Some(id) => numbers.push(id, reading.time, reading.value, reading.seq),
            None => refused.push(without_sensor(ids.unfit(reading.sensor), reading.seq)),
        }
    }
    let numbers = numbers.store(conn)?;
    let mut texts = Rows::with_capacity(batch.texts.len());
    for reading in &batch.texts {
        match ids.sensor(reading.sensor) {
            Some(id) => texts.push(id, reading.time, reading.value.as_str(), reading.seq),
            None => refused.push(without_sensor(ids.unfit(reading.sensor), reading.seq)),
        }
    }
    let texts = texts.store(conn)?;

    store_last_seen(conn, batch, &ids)?;
    let stored = numbers.stored + texts.stored;
    let bisected = numbers.bisected || texts.bisected;
    refused.extend(numbers.refused);
    refused.extend(texts.refused);
    let rejected = refused.len() as u64;
    let mut entries = entries(conn, batch, &ids, refused, lookup)?;
    if let Origin::Replay { held, .. } = origin {
        entries = not_yet_held(entries, held);
    }
    let quarantined = if entries.is_empty() { 0 } else { record(conn, origin, &entries)? };
    let all = (batch.readings.len() + batch.texts.len()) as u64;
    let committed = Committed {
        stored,
        duplicates: all.saturating_sub(stored).saturating_sub(rejected),
        rejected,
        devices_provisioned: fresh.provisioned,
        quarantined,
        bisected,
        already: false,
    };
    Ok((committed, fresh))
}

fn without_sensor(why: &str, seq: Seq) -> RefusedRow {
    RefusedRow { seq, sensor_id: 0, detail: why.to_owned() }
}

fn store_last_seen(conn: &mut Conn<'_>, batch: &Batch, ids: &Ids<'_>) -> Result<(), StoreError> {
    let mut newest: BTreeMap<i32, UtcMicros> = BTreeMap::new();
    for (device, time) in &batch.seen {
        if let Some(device) = ids.device(*device) {
            let kept = newest.entry(device.id).or_insert(*time);
            *kept = (*kept).max(*time);
        }
    }
    if newest.is_empty() {
        return Ok(());
    }
    let device_ids: Vec<i32> = newest.keys().copied().collect();
    let times: Vec<UtcMicros> = newest.values().copied().collect();
    keep_last_seen(conn, &device_ids, &times).during("keeping when devices were last seen")?;
    Ok(())
}

/// What goes to quarantine, a message at a time: what the pipeline refused and what the database refused.
fn entries(
    conn: &mut Conn<'_>,
    batch: &Batch,
    ids: &Ids<'_>,
    refused: Vec<RefusedRow>,
    lookup: &dyn Fn(Seq) -> Option<Message>,
) -> Result<Vec<Entry>, StoreError> {
    if batch.quarantined.is_empty() && refused.is_empty() {
        return Ok(Vec::new());
    }
    let nobody = default_tenant(conn)?;
    let mut entries: BTreeMap<Seq, Entry> = BTreeMap::new();
    for one in &batch.quarantined {
        let entry = Entry {
            message: Arc::clone(&one.message),
            source: one.source.clone(),
            tenant_id: ids.tenant(&one.tenant).unwrap_or(nobody),
            device: one.device.as_deref().map(str::to_owned),
            refusals: one.refusals.clone(),
            more: one.more,
        };
        entries.entry(one.message.seq).and_modify(|known| known.merge(&entry)).or_insert(entry);
    }
    let sensors = whose(conn, refused.iter().map(|row| row.sensor_id))?;
    for row in refused {
        let sensor = sensors.get(&row.sensor_id);
        let entry = entries.entry(row.seq).or_insert_with(|| Entry {
            message: Arc::new(lookup(row.seq).unwrap_or_else(|| lost(row.seq))),
            source: None,
            tenant_id: sensor.map_or(nobody, |sensor| sensor.tenant_id),
            device: sensor.map(|sensor| sensor.device.clone()),
            refusals: Vec::new(),
            more: 0,
        });
        entry.refuse(match sensor {
            Some(sensor) => Refusal::sample(Reason::RejectedByDatabase, &sensor.metric, row.detail),
            None => Refusal::message(Reason::RejectedByDatabase, row.detail),
        });
    }
    Ok(entries.into_values().collect())
}

/// Stands for a message that the journal has no more.
fn lost(seq: Seq) -> Message {
    let publish = Publish {
        topic: String::new(),
        payload: bytes::Bytes::new(),
        qos: 0,
        retain: false,
        dup: false,
        packet_id: 0,
        client: None,
        properties: None,
    };
    Message { seq, received_at: crate::clock::now(), publish }
}

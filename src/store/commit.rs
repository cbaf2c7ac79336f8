//! The batch transaction: everything that a run of messages produced, and the position it ends at, or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::batch::Batch;
use super::error::{During, StoreError};
use super::identity::Learning;
use super::introduce::{Fresh, Ids, Known, introduce};
use super::last_values::{LastValues, Recording, Turn};
use super::memory;
use super::poison::{Manner, Newest, RefusedRow, Rows, Series, keep_last_seen};
use super::pool::Conn;
use super::position::{Claim, claim, default_tenant};
use super::quarantine::{Entry, Origin, record, settle, whose};
use super::reconcile;
use super::replay::not_yet_held;
use super::rollups::mark_late;
use super::{Store, alerts, commands, connections, twins};
use crate::command::State;
use crate::crash;
use crate::message::{Message, Publish, Seq};
use crate::metrics::{ByReason, ByState, Metrics};
use crate::quarantine::{Reason, Refusal};
use crate::time::UtcMicros;
use crate::twin;

/// What a batch has come to in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Readings, numbers and texts together, that are new.
    pub stored: u64,
    /// Readings that were there already, by sensor and time.
    pub duplicates: u64,
    /// Readings that the database refused; they are in quarantine.
    pub rejected: u64,
    pub devices_provisioned: u64,
    /// Gateways that the database did not let devices be behind: a circle, which another session closed.
    pub parents_refused: u64,
    /// Events written to quarantine, the rejected readings' among them.
    pub quarantined: u64,
    /// Whether readings had to be bisected.
    pub bisected: bool,
    /// Whether the fast way was refused, so that the readings took the one that looks for each whether it is there.
    pub staged: bool,
    /// What was heard of commands.
    pub commands: commands::Kept,
    /// What was heard of twins.
    pub twins: twins::Kept,
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
    last_values: LastValues,
    /// Where an attempt failed of which it isn't known whether the database committed it.
    unsure: Option<Seq>,
    /// Batches on end that had to take the slow way.
    staged: u32,
}

/// After so many batches on end that held readings which were there already, the next ones take the slow way at once, until
/// one holds none: each copy that fails leaves dead rows behind.
const STAGED_AT_MOST: u32 = 3;

impl BatchWriter {
    /// A writer for `instance`, whose row [`Store::position`] has made.
    pub fn new(store: Store, instance: &str, journal_id: &str, metrics: Metrics) -> BatchWriter {
        BatchWriter {
            last_values: LastValues::new(store.settings.duplicates),
            store,
            instance: instance.to_owned(),
            journal_id: journal_id.to_owned(),
            metrics,
            generation: None,
            known: Known::default(),
            unsure: None,
            staged: 0,
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
        let straight = self.staged < STAGED_AT_MOST;
        let manner = Manner { duplicates: self.store.settings.duplicates, straight };
        let since = batch.oldest.unwrap_or(UtcMicros(0));
        let outcome = self.store.write_covered(batch, |conn| {
            let moved =
                if outside { Claim::Moved } else { claim(conn, &self.instance, &self.journal_id, batch.position)? };
            match moved {
                Claim::Moved => {
                    let written = write(conn, batch, known, &origin, manner, lookup)?;
                    let turn = self.last_values.of_batch(written.newest, batch.readings.len(), since);
                    let recording = self.last_values.write(conn, &self.instance, &turn)?;
                    crash::point("writer.before_commit");
                    Ok((written.committed, written.fresh, Last::Turn(turn, recording)))
                }
                Claim::AlreadyThere if self.unsure == Some(batch.position) => {
                    let fresh = introduce(conn, batch, known, Learning::Recall)?;
                    let newest = Rows::of(batch, &Ids { known, fresh: &fresh }, &mut Vec::new()).into_newest(manner);
                    Ok((Committed { already: true, ..Committed::default() }, fresh, Last::Unwritten(newest)))
                }
                Claim::AlreadyThere | Claim::Lost => Err(StoreError::Fenced { instance: self.instance.clone() }),
            }
        });
        let (committed, fresh, last) = match outcome {
            Ok(done) => done,
            Err(error) => {
                self.unsure = Some(batch.position);
                self.last_values.failed();
                return Err(error);
            }
        };
        crash::point("writer.after_commit");
        self.unsure = None;
        match last {
            Last::Turn(turn, recording) => self.last_values.absorb(turn, recording),
            Last::Unwritten(newest) => self.last_values.absorb_unwritten(&newest, since),
        }
        if self.generation != Some(batch.generation) {
            self.generation = Some(batch.generation);
            self.known = Known::default();
        }
        self.known.absorb(fresh);
        let slow = committed.staged || !straight;
        self.staged = if slow && committed.duplicates > 0 { self.staged.saturating_add(1) } else { 0 };
        count(&self.metrics, &committed);
        self.measure();
        self.metrics.batches_committed.inc();
        self.metrics.batch_commit_duration.observe(started.elapsed().as_secs_f64());
        Ok(committed)
    }

    /// Whether last values wait to be written, see [`BatchWriter::settle`].
    pub fn is_settled(&self) -> bool {
        self.last_values.waiting() == 0
    }

    /// Writes last values that wait, some thousands at most, in a transaction of their own: for when no batch comes.
    ///
    /// # Errors
    /// [`StoreError`]; they go on waiting.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        let turn = self.last_values.of_pause();
        match self.store.db.write(|conn| self.last_values.write(conn, &self.instance, &turn)) {
            Ok(recording) => {
                self.last_values.absorb(turn, recording);
                self.measure();
                Ok(())
            }
            Err(error) => {
                self.last_values.failed();
                Err(error)
            }
        }
    }

    fn measure(&self) {
        self.metrics.last_values_waiting.set(i64::try_from(self.last_values.waiting()).unwrap_or(i64::MAX));
    }
}

/// What a transaction did about last values.
enum Last {
    Turn(Turn, Recording),
    Unwritten(Vec<Newest<f64>>),
}

/// What a retry of quarantined messages has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        let (resolved, fresh) = self.store.write_covered(batch, |conn| {
            // A daemon must hear of devices made here, and of last values that its checks go by.
            reconcile::raise_version(conn)?;
            let events = settle(conn, ids)?;
            let manner = Manner { duplicates: self.store.settings.duplicates, straight: true };
            let written = write(conn, batch, known, &Origin::Retry, manner, &|_| None)?;
            written.keep_newest(conn, manner)?;
            Ok((Resolved { committed: written.committed, events }, written.fresh))
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
    metrics.parents_refused.inc_by(committed.parents_refused);
    if committed.bisected {
        metrics.batches_bisected.inc();
    }
    if committed.staged {
        metrics.batches_staged.inc();
    }
    count_commands(metrics, &committed.commands);
    count_twins(metrics, &committed.twins);
    for _ in 0..committed.rejected {
        metrics.count_refusal(Reason::RejectedByDatabase);
    }
}

fn count_commands(metrics: &Metrics, kept: &commands::Kept) {
    for (state, count) in State::ALL.iter().zip(kept.states).filter(|(_, count)| *count > 0) {
        metrics.command_states.get_or_create(&ByState { state: state.word() }).inc_by(count);
    }
    for (refused, count) in commands::Refused::ALL.iter().zip(kept.refused).filter(|(_, count)| *count > 0) {
        metrics.command_messages_refused.get_or_create(&ByReason { reason: refused.code() }).inc_by(count);
    }
}

fn count_twins(metrics: &Metrics, kept: &twins::Kept) {
    metrics.twin_desired_changes.inc_by(kept.desired);
    metrics.twin_reported_changes.inc_by(kept.reported);
    for (reason, count) in twin::Reason::ALL.iter().zip(kept.refused).filter(|(_, count)| *count > 0) {
        metrics.twin_messages_refused.get_or_create(&ByReason { reason: reason.word() }).inc_by(count);
    }
    for convergence in &kept.convergences {
        metrics.twin_convergence.observe(convergence.as_secs_f64());
    }
    metrics.twin_answers_left_out.inc_by(kept.left_out);
}

/// What a transaction has written of a batch.
pub(super) struct Written {
    pub committed: Committed,
    pub fresh: Fresh,
    /// The newest number of each sensor, in the sensors' order, not yet kept as its last value.
    pub newest: Vec<Newest<f64>>,
}

impl Written {
    /// Keeps all of the last values at once.
    pub(super) fn keep_newest(&self, conn: &mut Conn<'_>, manner: Manner) -> Result<(), StoreError> {
        keep_newest(conn, manner, &self.newest)
    }
}

fn keep_newest<V: Series>(conn: &mut Conn<'_>, manner: Manner, newest: &[Newest<V>]) -> Result<(), StoreError> {
    if !newest.is_empty() {
        V::keep_newest(conn, manner.duplicates, newest).during("keeping last values")?;
    }
    Ok(())
}

/// The batch's rows, inside the transaction that is open.
pub(super) fn write(
    conn: &mut Conn<'_>,
    batch: &Batch,
    known: &Known,
    origin: &Origin<'_>,
    manner: Manner,
    lookup: &dyn Fn(Seq) -> Option<Message>,
) -> Result<Written, StoreError> {
    if let Origin::Journal { instance, .. } = origin {
        memory::keep(conn, instance, &batch.memory)?;
    }
    let learning = match origin {
        Origin::Journal { .. } => Learning::All,
        Origin::Retry | Origin::Replay { .. } => Learning::Templates,
        Origin::Archive => Learning::Rows,
    };
    let fresh = introduce(conn, batch, known, learning)?;
    let ids = Ids { known, fresh: &fresh };
    let mut refused = Vec::new();

    let numbers = Rows::of(batch, &ids, &mut refused).store(conn, manner)?;
    let mut texts = Rows::with_capacity(batch.texts.len());
    for reading in &batch.texts {
        match ids.sensor(reading.sensor) {
            Some(id) => texts.push(id, reading.time, reading.value.as_str(), reading.seq),
            None => refused.push(without_sensor(ids.unfit(reading.sensor), reading.seq)),
        }
    }
    let texts = texts.store(conn, manner)?;
    keep_newest(conn, manner, &texts.newest)?;

    store_last_seen(conn, batch, &ids)?;
    let (mut heard, mut twins) = (commands::Kept::default(), twins::Kept::default());
    if let Origin::Journal { instance, .. } = origin {
        alerts::keep(conn, instance, batch)?;
        connections::keep(conn, instance, batch)?;
        heard = commands::keep(conn, instance, batch)?;
        twins = twins::keep(conn, instance, batch)?;
    }
    let stored = numbers.stored + texts.stored;
    refused.extend(numbers.refused);
    refused.extend(texts.refused);
    let rejected = refused.len() as u64;
    let mut entries = entries(conn, batch, &ids, refused, lookup)?;
    if let Origin::Replay { held, .. } = origin {
        entries = not_yet_held(entries, held);
    }
    let quarantined = if entries.is_empty() { 0 } else { record(conn, origin, &entries)? };
    mark_late(conn, batch, &ids)?;
    let all = (batch.readings.len() + batch.texts.len()) as u64;
    let committed = Committed {
        stored,
        duplicates: all.saturating_sub(stored).saturating_sub(rejected),
        rejected,
        devices_provisioned: fresh.provisioned,
        parents_refused: fresh.parents_refused,
        quarantined,
        bisected: numbers.bisected || texts.bisected,
        staged: numbers.staged || texts.staged,
        commands: heard,
        twins,
        already: false,
    };
    Ok(Written { committed, fresh, newest: numbers.newest })
}

impl Rows<f64> {
    /// The batch's numbers, by the rows of their sensors; those without one go to `refused`.
    fn of(batch: &Batch, ids: &Ids<'_>, refused: &mut Vec<RefusedRow>) -> Rows<f64> {
        let mut rows = Rows::with_capacity(batch.readings.len());
        for reading in &batch.readings {
            match ids.sensor(reading.sensor) {
                Some(id) => rows.push(id, reading.time, reading.value, reading.seq),
                None => refused.push(without_sensor(ids.unfit(reading.sensor), reading.seq)),
            }
        }
        rows
    }
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
    let publish = Publish::plain(String::new(), bytes::Bytes::new(), 0);
    Message { seq, received_at: crate::clock::now(), publish }
}

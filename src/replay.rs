//! Runs what the journal still holds through today's configuration and catalog, and stores what was not stored before.
//!
//! Readings keep the time they had, so those that are stored already are found again by sensor and time. The outcome
//! of a message is decided once: a replay adds readings, and settles what stood in quarantine for their lack, but it
//! puts nothing into quarantine that was not there, save a row that the database itself refuses. `min_step` and
//! `retained = "latest"` look at what was stored before the replay's beginning, not at what came later.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::backoff::Backoff;
use crate::catalog::Snapshot;
use crate::config::{Config, Retained};
use crate::journal::{Archive, JournalError};
use crate::message::{Message, Seq};
use crate::metrics::{ByReason, Metrics};
use crate::normalize::{NormalizeError, Normalizer};
use crate::quarantine::Reason;
use crate::store::batch::{Batch, DeviceIndex, SensorIndex};
use crate::store::{HeldMessage, Replayer, Store, StoreError};
use crate::time::UtcMicros;

/// Attempts at a batch, and the first and longest wait between them.
const ATTEMPTS: u32 = 5;
const RETRY: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_millis(100), std::time::Duration::from_secs(2));
/// Messages after which what has gathered is stored, however few rows that is.
const MESSAGES_AT_ONCE: u64 = 50_000;
/// New readings of a dry run that are kept in mind, lest one that comes twice be counted twice.
const REMEMBERED: usize = 1_000_000;

/// Why a replay can't begin or go on. What it had stored until then stays, and another one goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Normalize(#[from] NormalizeError),
}

/// Tenant, device and metric.
pub type SensorName = (Arc<str>, Arc<str>, Arc<str>);

/// Which messages are meant, and whether to store anything.
#[derive(Clone, Debug)]
pub struct Request {
    /// Received then or later.
    pub since: UtcMicros,
    /// Only those that this source takes today.
    pub source: Option<String>,
    /// Store nothing.
    pub dry_run: bool,
}

/// What a replay has come to, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that were run through.
    pub messages: u64,
    /// Messages that the database does not have yet: they are the daemon's.
    pub uncommitted: u64,
    /// Messages whose records in the journal are damaged.
    pub damaged: u64,
    /// New readings by tenant, device and metric.
    pub readings: BTreeMap<SensorName, u64>,
    /// Readings stored; 0 in a dry run.
    pub stored: u64,
    /// What today's configuration and catalog refuse, by reason; most of it was refused before.
    pub refused: BTreeMap<&'static str, u64>,
    /// Events that quarantine gets; a dry run does not know of rows that the database would refuse.
    pub quarantined: u64,
    /// Events in quarantine that come to their end.
    pub resolved: u64,
}

/// A replay on its way.
pub struct Replay<'a> {
    store: &'a Store,
    config: &'a Config,
    request: &'a Request,
    archive: RefCell<Archive>,
    journal_id: String,
    normalizer: Normalizer,
    metrics: Metrics,
    replayer: Replayer,
    /// The last message that is not the daemon's to store.
    committed: Seq,
    names: Names,
    remembered: HashSet<(SensorIndex, UtcMicros, bool)>,
    pending: Pending,
    outcome: Outcome,
}

/// What the numbers of devices and sensors stand for.
#[derive(Default)]
struct Names {
    devices: HashMap<DeviceIndex, (Arc<str>, Arc<str>)>,
    sensors: HashMap<SensorIndex, Named>,
}

struct Named {
    /// Its row, if the catalog had it when the replay began.
    id: Option<i32>,
    device: DeviceIndex,
    metric: Arc<str>,
}

/// What has gathered for the next transaction.
#[derive(Default)]
struct Pending {
    batch: Batch,
    held: HashMap<Seq, HeldMessage>,
    settled: Vec<(Option<Reason>, i64)>,
}

impl<'a> Replay<'a> {
    /// Ready to run on the journal in the state directory of `config`.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn prepare(store: &'a Store, config: &'a Config, request: &'a Request) -> Result<Replay<'a>, ReplayError> {
        let archive = Archive::open(&config.instance.state_dir, request.since)?;
        let instance = &config.instance.id;
        let journal_id = archive.id().to_owned();
        let committed = store.committed(instance, &journal_id)?.map_or(0, |reached| reached.seq);
        let mut snapshot = store.snapshot()?;
        if let Some(begins) = archive.begins() {
            set_back(&mut snapshot, store, config, request, begins)?;
        }
        let metrics = Metrics::new();
        Ok(Replay {
            normalizer: Normalizer::new(config, &snapshot, store.memory(&config.instance.id)?, metrics.clone())?,
            replayer: Replayer::new(store.clone(), instance, &journal_id, metrics.clone()),
            archive: RefCell::new(archive),
            store,
            config,
            request,
            journal_id,
            metrics,
            committed,
            names: Names::default(),
            remembered: HashSet::new(),
            pending: Pending::default(),
            outcome: Outcome::default(),
        })
    }

    /// How many messages there are to look at, about.
    pub fn messages(&self) -> u64 {
        self.archive.borrow().messages()
    }

    /// Runs to the end; `progress` is told how many messages have been looked at.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Outcome, ReplayError> {
        let mut looked_at = 0_u64;
        loop {
            let read = self.archive.borrow_mut().read()?;
            let Some(messages) = read else { break };
            looked_at = looked_at.saturating_add(messages.len() as u64);
            self.take(messages)?;
            progress(looked_at);
        }
        self.store_pending()?;
        self.outcome.damaged = self.archive.borrow().damaged();
        for reason in Reason::ALL {
            let count = self.metrics.quarantined.get_or_create(&ByReason { reason: reason.code() }).get();
            if count > 0 {
                self.outcome.refused.insert(reason.code(), count);
            }
        }
        Ok(self.outcome)
    }

    fn take(&mut self, messages: Vec<Message>) -> Result<(), ReplayError> {
        let mut batch = Batch::default();
        let mut seqs = Vec::new();
        for message in messages {
            if message.seq > self.committed {
                self.outcome.uncommitted = self.outcome.uncommitted.saturating_add(1);
                continue;
            }
            if !self.is_meant(&message) {
                continue;
            }
            self.outcome.messages = self.outcome.messages.saturating_add(1);
            seqs.push(message.seq);
            self.normalizer.process(&Arc::new(message), &mut batch);
            if batch.rows() >= self.config.database.batch_max {
                self.place(std::mem::take(&mut batch), &std::mem::take(&mut seqs))?;
            }
        }
        self.place(batch, &seqs)
    }

    fn is_meant(&self, message: &Message) -> bool {
        self.request.source.as_ref().is_none_or(|wanted| {
            let route = self.normalizer.sources().route(&message.publish.topic);
            route.is_some_and(|route| &*route.source.name == wanted.as_str())
        })
    }

    /// Keeps of a batch what is new, and what it settles.
    fn place(&mut self, mut batch: Batch, seqs: &[Seq]) -> Result<(), ReplayError> {
        let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(()) };
        self.names.learn(&batch);
        self.keep_new(&mut batch)?;
        let mut held = self.store.held_between(&self.config.instance.id, &self.journal_id, *first, *last)?;
        held.retain(|seq, _| seqs.binary_search(seq).is_ok());
        // Whose outcome is not in quarantine, it was decided otherwise.
        batch.quarantined.retain(|refused| held.contains_key(&refused.message.seq));
        let settled = settled(&batch, &held);
        if self.request.dry_run {
            let fresh = batch.quarantined.iter().map(|refused| {
                let held = held.get(&refused.message.seq);
                refused.refusals.iter().filter(|refusal| !held.is_some_and(|held| held.has(refusal))).count() as u64
            });
            self.outcome.quarantined = self.outcome.quarantined.saturating_add(fresh.sum());
            self.outcome.resolved = self.outcome.resolved.saturating_add(settled.len() as u64);
            return Ok(());
        }
        self.pending.batch.append(batch);
        self.pending.held.extend(held);
        self.pending.settled.extend(settled);
        let rows = self.pending.batch.rows().saturating_add(self.pending.settled.len());
        if rows >= self.config.database.batch_max || self.pending.batch.messages >= MESSAGES_AT_ONCE {
            self.store_pending()?;
        }
        Ok(())
    }

    /// Leaves the readings that the database lacks, and counts them.
    fn keep_new(&mut self, batch: &mut Batch) -> Result<(), ReplayError> {
        let key = |sensor: SensorIndex, time| Some((self.names.sensors.get(&sensor)?.id?, time));
        let numbers: Vec<_> = batch.readings.iter().filter_map(|reading| key(reading.sensor, reading.time)).collect();
        let texts: Vec<_> = batch.texts.iter().filter_map(|reading| key(reading.sensor, reading.time)).collect();
        let numbers = self.store.stored_numbers(&numbers)?;
        let texts = self.store.stored_texts(&texts)?;
        let mut in_batch = HashSet::new();
        let mut is_new = |sensor: SensorIndex, time: UtcMicros, text: bool| {
            let Some(named) = self.names.sensors.get(&sensor) else { return true };
            let stored = if text { &texts } else { &numbers };
            let this = (sensor, time, text);
            if named.id.is_some_and(|id| stored.contains(&(id, time)))
                || self.remembered.contains(&this)
                || !in_batch.insert(this)
            {
                return false;
            }
            if let Some((tenant, device)) = self.names.devices.get(&named.device) {
                let name = (Arc::clone(tenant), Arc::clone(device), Arc::clone(&named.metric));
                let count = self.outcome.readings.entry(name).or_default();
                *count = count.saturating_add(1);
            }
            true
        };
        batch.readings.retain(|reading| is_new(reading.sensor, reading.time, false));
        batch.texts.retain(|reading| is_new(reading.sensor, reading.time, true));
        let room = REMEMBERED.saturating_sub(self.remembered.len());
        self.remembered.extend(in_batch.into_iter().take(room));
        Ok(())
    }

    fn store_pending(&mut self) -> Result<(), ReplayError> {
        let Pending { batch, held, settled } = std::mem::take(&mut self.pending);
        if batch.messages == 0 {
            return Ok(());
        }
        let archive = &self.archive;
        let lookup = |seq| archive.borrow_mut().get(seq).ok().flatten();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut attempt = 1;
        let replayed = loop {
            match self.replayer.commit(&batch, &held, &settled, &lookup) {
                Ok(replayed) => break replayed,
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(backoff.next_delay());
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.outcome.stored = self.outcome.stored.saturating_add(replayed.committed.stored);
        self.outcome.quarantined = self.outcome.quarantined.saturating_add(replayed.committed.quarantined);
        self.outcome.resolved = self.outcome.resolved.saturating_add(replayed.settled);
        Ok(())
    }
}

impl Names {
    fn learn(&mut self, batch: &Batch) {
        for device in &batch.devices {
            self.devices.insert(device.index, (Arc::clone(&device.tenant), Arc::clone(&device.uid)));
        }
        for sensor in &batch.sensors {
            let named = Named { id: sensor.id, device: sensor.device, metric: Arc::clone(&sensor.metric) };
            self.sensors.insert(sensor.index, named);
        }
    }
}

/// Open events of the messages in `held` that today's refusals do not repeat.
fn settled(batch: &Batch, held: &HashMap<Seq, HeldMessage>) -> Vec<(Option<Reason>, i64)> {
    let mut refused: HashMap<Seq, HashSet<(&str, Option<&str>)>> = HashMap::new();
    for one in &batch.quarantined {
        let keys = one.refusals.iter().map(|refusal| (refusal.reason.code(), refusal.key.as_deref()));
        refused.entry(one.message.seq).or_default().extend(keys);
    }
    let mut settled = Vec::new();
    for (seq, held) in held {
        let still = refused.get(seq);
        for (reason, key, event) in &held.open {
            if !still.is_some_and(|still| still.contains(&(reason.as_str(), key.as_deref()))) {
                settled.push((Reason::from_code(reason), *event));
            }
        }
    }
    settled
}

/// Sets the sensors' last values back to what they were at `begins`, as far as anything looks at them.
fn set_back(
    snapshot: &mut Snapshot,
    store: &Store,
    config: &Config,
    request: &Request,
    begins: UtcMicros,
) -> Result<(), StoreError> {
    let meant = |name: &String| request.source.as_ref().is_none_or(|wanted| wanted == name);
    let latest = config.sources.iter().any(|source| source.retained == Retained::Latest && meant(&source.name));
    let stepped: HashSet<&str> = snapshot
        .templates
        .values()
        .flat_map(|template| &template.metrics)
        .filter(|metric| metric.min_step.is_some())
        .map(|metric| metric.name.as_str())
        .collect();
    // A module's sensor has the module's name before its metric's, and both may have dots.
    let is_looked_at = |name: &str| {
        let mut ends = name.match_indices('.').filter_map(|(dot, _)| name.get(dot.saturating_add(1)..));
        latest || stepped.contains(name) || ends.any(|metric| stepped.contains(metric))
    };
    let sensors = || snapshot.devices.iter().flat_map(|device| &device.sensors);
    let ids: Vec<i32> = sensors().filter(|sensor| is_looked_at(&sensor.metric)).map(|sensor| sensor.id).collect();
    let last = store.last_before(&ids, begins)?;
    for sensor in snapshot.devices.iter_mut().flat_map(|device| &mut device.sensors) {
        sensor.last = last.get(&sensor.id).copied();
    }
    Ok(())
}

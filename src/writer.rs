//! The writer thread: commits what has gathered since its last commit, as one transaction, until it succeeds.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::backoff::{self, Backoff};
use crate::carrier::bell::Bells;
use crate::catch_up::{CatchUp, Report};
use crate::clock;
use crate::journal::{Progress, Reader};
use crate::latency::LatencyRecorder;
use crate::message::{Message, Seq};
use crate::metrics::Metrics;
use crate::store::batch::Batch;
use crate::store::{BatchWriter, Committed, Store, StoreError};
use crate::unanswered::Unanswered;

/// Between attempts at a batch, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The quarantine's bound is enforced each time that so small a part of it has been added: it may be exceeded by that.
const SWEEP_SHARE: u64 = 100;

/// So long no batch has come when last values that wait are written without one.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the end may take for them; the next start finds the others among the readings.
const LAST_VALUES: Duration = Duration::from_secs(3);

/// The one writer of an instance's readings and position.
pub struct Writer {
    pub batches: Receiver<Batch>,
    pub store: Store,
    pub rows: BatchWriter,
    /// For the message behind a row that the database refuses.
    pub reader: Reader,
    pub progress: Progress,
    /// Most rows in one transaction.
    pub batch_max: usize,
    pub quarantine_max: u64,
    pub unanswered: Unanswered,
    /// Set when tidegate stops: a failing batch is then left to the next start.
    pub stop: CancellationToken,
    pub metrics: Metrics,
    pub latency: LatencyRecorder,
    pub catch_up: CatchUp,
    /// Rung where a batch has brought something of commands, or of twins.
    pub bells: Bells,
}

impl Writer {
    /// Runs until the pipeline has ended and its last batch is committed, or `stop` is set and the
    /// database does not take it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another instance has moved the position.
    pub fn run(mut self) -> Result<(), StoreError> {
        let mut held = None;
        // At the first commit in any case: the bound may have been lowered.
        let mut unswept = self.quarantine_max;
        while let Some(batch) = self.gather(&mut held) {
            if let Some(oldest) = batch.oldest {
                self.progress.in_hand(oldest);
            }
            self.catch_up.begin(Instant::now(), self.progress.position(), self.progress.last());
            let Some(committed) = self.commit(&batch)? else { return Ok(()) };
            unswept = unswept.saturating_add(committed.quarantined);
            if unswept > self.quarantine_max / SWEEP_SHARE {
                self.sweep();
                unswept = 0;
            }
        }
        Ok(())
    }

    /// The next batch: what came while the last commit ran, until it [is full](Batch::is_full), of one generation.
    fn gather(&mut self, held: &mut Option<Batch>) -> Option<Batch> {
        let mut batch = match held.take() {
            Some(batch) => batch,
            None => self.await_batch()?,
        };
        while !batch.is_full(self.batch_max) {
            match self.batches.try_recv() {
                Ok(next)
                    if next.generation == batch.generation
                        && batch.rows().saturating_add(next.rows()) <= self.batch_max =>
                {
                    batch.append(next);
                }
                Ok(next) => {
                    *held = Some(next);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Some(batch)
    }

    /// The next batch. While none comes, last values that wait are written. None: the pipeline has ended.
    fn await_batch(&mut self) -> Option<Batch> {
        let mut backoff = Backoff::new(PAUSE, RETRY.1);
        let mut pause = PAUSE;
        while !self.rows.is_settled() {
            match self.batches.recv_timeout(pause) {
                Ok(batch) => return Some(batch),
                Err(RecvTimeoutError::Timeout) => {
                    pause = if self.settle() { Duration::ZERO } else { backoff.next_delay() };
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let deadline = Instant::now() + LAST_VALUES;
                    while !self.rows.is_settled() && Instant::now() < deadline && self.settle() {}
                    return None;
                }
            }
        }
        self.batches.recv().ok()
    }

    /// Writes some of the last values that wait. False: the database did not take them.
    fn settle(&mut self) -> bool {
        let question = self.unanswered.ask("write last values");
        let outcome = self.rows.settle();
        drop(question);
        match outcome {
            Ok(()) => true,
            Err(error) => {
                self.metrics.database_errors.inc();
                tracing::warn!(%error, "the database did not take sensors' last values; they are tried again, or found among the readings at the next start");
                false
            }
        }
    }

    /// Tries until the batch is in the database, whatever the error: the journal keeps what comes meanwhile, and to end would
    /// help nobody. None: given up because tidegate stops.
    fn commit(&mut self, batch: &Batch) -> Result<Option<Committed>, StoreError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut failing_since = None;
        loop {
            let reader = RefCell::new(&mut self.reader);
            let question = self.unanswered.ask("commit a batch");
            let outcome = self.rows.commit(batch, &|seq| find(&mut reader.borrow_mut(), seq));
            drop(question);
            match outcome {
                Ok(committed) => {
                    self.account(batch, &committed);
                    if let Some(since) = failing_since.map(|since: Instant| since.elapsed()) {
                        tracing::info!(outage = ?since, behind = self.progress.behind(), "the database takes what is written again");
                    }
                    self.report();
                    return Ok(Some(committed));
                }
                Err(error @ StoreError::Fenced { .. }) => return Err(error),
                Err(error) => {
                    self.metrics.database_errors.inc();
                    self.metrics.database_connected.set(0);
                    if self.stop.is_cancelled() {
                        tracing::warn!(%error, "stopping while the database does not take what is written; the journal keeps it for the next start");
                        return Ok(None);
                    }
                    failing_since.get_or_insert_with(Instant::now);
                    let wait = backoff.next_delay();
                    let behind = self.progress.behind();
                    if error.is_transient() {
                        tracing::warn!(%error, retry_in = ?wait, position = batch.position, behind, "the database did not take a batch; the journal keeps it");
                    } else {
                        tracing::error!(%error, retry_in = ?wait, position = batch.position, behind, "the database refuses a batch, and waiting alone won't mend that; the journal keeps it");
                    }
                    backoff::pause(wait, &self.stop);
                }
            }
        }
    }

    fn account(&self, batch: &Batch, committed: &Committed) {
        self.progress.committed(batch.position);
        self.metrics.database_connected.set(1);
        if batch.heard() > 0 {
            self.bells.commands.ring();
        }
        if !batch.twins.is_empty() {
            self.bells.twins.ring();
        }
        if let Some(oldest) = batch.oldest {
            let micros = u64::try_from(clock::now().0.saturating_sub(oldest.0)).unwrap_or(0);
            let latency = Duration::from_micros(micros);
            self.metrics.store_latency.observe(latency.as_secs_f64());
            self.latency.record(latency);
        }
        tracing::debug!(
            position = batch.position,
            messages = batch.messages,
            stored = committed.stored,
            duplicates = committed.duplicates,
            "batch committed"
        );
    }

    /// Says how catching up goes on.
    fn report(&mut self) {
        let (position, last) = (self.progress.position(), self.progress.last());
        match self.catch_up.observe(Instant::now(), position, last) {
            None => {}
            Some(Report::Behind { behind, pace: None }) => {
                tracing::info!(position, last, behind, "catching up with the journal");
            }
            Some(Report::Behind { behind, pace: Some(pace) }) => tracing::info!(
                position,
                last,
                behind,
                committed_per_second = pace.committed.round(),
                arriving_per_second = pace.arriving.round(),
                time_left = %pace.time_left_words(behind),
                "catching up with the journal"
            ),
            Some(Report::CaughtUp { messages, took }) => {
                let per_second = (messages as f64 / took.as_secs_f64().max(0.001)).round();
                tracing::info!(position, messages, took = ?took, per_second, "caught up with the journal");
            }
        }
    }

    /// Keeps the quarantine within its bound; a failure is tried again at the next sweep.
    fn sweep(&mut self) {
        match self.store.enforce_bound(self.quarantine_max) {
            Ok(0) => {}
            Ok(discarded) => {
                self.metrics.quarantine_discarded.inc_by(discarded);
                tracing::warn!(
                    discarded,
                    "the quarantine is at [quarantine] max_events; its oldest events were discarded"
                );
            }
            Err(error) => tracing::warn!(%error, "could not look at the quarantine's size"),
        }
    }
}

fn find(reader: &mut Reader, seq: Seq) -> Option<Message> {
    match reader.get(seq) {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(%error, seq, "could not read a message back from the journal");
            None
        }
    }
}

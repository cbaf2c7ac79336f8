//! The pipeline thread: messages from the journal, in order, through decode and normalize into batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::alert::watch::{Mark, Watch};
use crate::backoff::{self, Backoff};
use crate::catalog::Snapshot;
use crate::clock;
use crate::config::Config;
use crate::errands::Errands;
use crate::journal::{JournalError, Next, Reader};
use crate::message::{Message, Seq};
use crate::metrics::Metrics;
use crate::normalize::{NormalizeError, Normalizer};
use crate::presence;
use crate::store::batch::Batch;

/// How long a look into an idle journal waits before a reload or the end is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Between attempts to read a journal that can't be read just now, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How soon the writer is offered more while something waits for it.
const AHEAD_LOOK: Duration = Duration::from_millis(2);
/// What rules may look at before the writer has it, bytes about: at 10,000 readings a second some fifty seconds of an outage.
const MOST_AHEAD: usize = 16 << 20;

/// A changed configuration or catalog, to be used from the next message on.
pub struct Reload {
    pub config: Config,
    pub snapshot: Snapshot,
    /// The last message of which the snapshot surely has everything.
    pub committed: Seq,
}

/// Why the pipeline ended early.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Normalize(#[from] NormalizeError),
}

/// One thread, so that every device's readings stay in order.
pub struct Pipeline {
    pub normalizer: Normalizer,
    pub reader: Reader,
    /// The last message that the database has.
    pub position: Seq,
    pub batches: SyncSender<Batch>,
    /// What the writer has no room for, while rules look ahead of it.
    pub ahead: VecDeque<Batch>,
    /// Rows at which a batch takes no further message.
    pub batch_max: usize,
    pub reloads: Receiver<Reload>,
    /// The alert rules.
    pub watch: Watch,
    /// Who is there.
    pub presence: presence::Watch,
    /// To devices, for decoders that lack something.
    pub errands: Errands,
    /// Set when what is left shall stay in the journal.
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl Pipeline {
    /// Runs until the journal has ended and everything in it was handed on, or the writer is gone.
    ///
    /// # Errors
    /// When the journal is malformed, so that what is left in it can't be read in order. Other failures to read are tried
    /// again.
    pub fn run(mut self) -> Result<(), PipelineError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        // What has not filled a batch while the writer is busy.
        let mut batch = Batch::default();
        while !self.stop.is_cancelled() {
            let wait = if batch.messages == 0 { self.rest() } else { Duration::ZERO };
            let next = match self.reader.next(self.position, wait) {
                Ok(next) => next,
                Err(error) if error.is_malformed() => return Err(error.into()),
                Err(error) => {
                    self.metrics.journal_errors.inc();
                    let wait = backoff.next_delay();
                    tracing::error!(%error, retry_in = ?wait, position = self.position, "can't read the journal");
                    backoff::pause(wait, &self.stop);
                    continue;
                }
            };
            backoff.reset();
            // After the wait: what came by a new filter must find the source that asked for it, and whoever was told that a
            // reload is in force may rely on it.
            if !self.reload(&mut batch) {
                return Ok(());
            }
            let going = match next {
                Next::Messages(messages) => {
                    self.notice_gap(messages.first());
                    self.hand_over(&messages, &mut batch)
                }
                Next::Idle => {
                    self.watch.tick(clock::now());
                    self.presence.tick(clock::now());
                    self.send(&mut batch)
                }
                Next::End => {
                    let _ = self.send(&mut batch) && self.hand_ahead(true);
                    break;
                }
            };
            if !going {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How long a look into the journal may wait.
    fn rest(&mut self) -> Duration {
        if !self.ahead.is_empty() {
            // The writer takes what waits as fast as it can, though no message comes.
            return AHEAD_LOOK;
        }
        let now = clock::now();
        let rests = [self.watch.rests(now), self.presence.rests(now)];
        rests.into_iter().flatten().fold(LOOK, Duration::min)
    }

    /// Hands what messages become to the writer, in batches of about `batch_max` rows; a smaller one only where the writer
    /// has room for it. False: the writer is gone.
    fn hand_over(&mut self, messages: &[Arc<Message>], batch: &mut Batch) -> bool {
        for message in messages {
            let (mark, before) = (Mark::of(batch), presence::Before::of(batch));
            self.normalizer.process(message, batch);
            self.presence.message(message, self.normalizer.sightings(), before, batch);
            self.watch.message(message, mark, batch);
            let asks = self.normalizer.take_asks();
            if !asks.is_empty() {
                self.errands.send(asks, message.received_at, clock::now());
            }
            self.position = batch.position;
            if !batch.is_full(self.batch_max) {
                continue;
            }
            if !self.send(batch) {
                return false;
            }
            if self.stop.is_cancelled() {
                return true;
            }
        }
        self.watch.conclude(batch);
        if !self.hand_ahead(false) {
            return false;
        }
        if batch.messages == 0 || !self.ahead.is_empty() {
            return true;
        }
        match self.batches.try_send(std::mem::take(batch)) {
            Ok(()) => true,
            Err(TrySendError::Full(waiting)) => {
                *batch = waiting;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// The channel is short: a slow database makes the pipeline wait here, and the journal keeps the rest; where there are rules, only
    /// once much has gathered, since alerts must not wait for the database. False: the writer is gone.
    fn send(&mut self, batch: &mut Batch) -> bool {
        self.watch.conclude(batch);
        if batch.messages > 0 {
            let batch = std::mem::take(batch);
            match self.ahead.back_mut() {
                Some(last) if last.generation == batch.generation && !last.is_full(self.batch_max) => {
                    last.append(batch)
                }
                _ => self.ahead.push_back(batch),
            }
        }
        self.hand_ahead(false)
    }

    /// Hands over what waits, in order; waits for the writer where too much does, or where `all` of it must go. False: it is gone.
    fn hand_ahead(&mut self, all: bool) -> bool {
        while let Some(batch) = self.ahead.pop_front() {
            match self.batches.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(batch)) => {
                    let waiting: usize = self.ahead.iter().map(Batch::weight).sum();
                    if !all && self.watch.looks() && waiting.saturating_add(batch.weight()) <= MOST_AHEAD {
                        self.ahead.push_front(batch);
                        return true;
                    }
                    if self.batches.send(batch).is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Messages that the database never had and the journal has no more: a restored backup, a record set aside.
    fn notice_gap(&self, first: Option<&Arc<Message>>) {
        let Some(first) = first else { return };
        let missing = first.seq.saturating_sub(self.position).saturating_sub(1);
        if missing > 0 && self.position > 0 {
            self.metrics.journal_gap_messages.inc_by(missing);
            tracing::error!(
                from = self.position,
                to = first.seq,
                missing,
                "messages are missing from the journal, as after restoring an old database or a damaged journal"
            );
        }
    }

    /// Takes up what has changed. What can't be used leaves everything as it was: messages go on being stored. What was made
    /// before goes to the writer first, since its numbers mean nothing afterwards. False: the writer is gone.
    fn reload(&mut self, batch: &mut Batch) -> bool {
        loop {
            match self.reloads.try_recv() {
                Ok(Reload { config, snapshot, committed }) => {
                    if !self.send(batch) {
                        return false;
                    }
                    match self.normalizer.replace(&config, &snapshot, committed) {
                        Ok(()) => {
                            self.watch.replace(&config, &snapshot);
                            self.presence.replace(&config.devices, &snapshot);
                            self.metrics.catalog_reloads.inc();
                        }
                        Err(error) => {
                            self.metrics.reload_errors.inc();
                            tracing::error!(%error, "the changed catalog can't be used; the old one stays in force");
                        }
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::alert::announcer::announcer;
    use crate::alert::{Evaluator, rule_file};
    use crate::config::{Decoder, Source, Sync};
    use crate::decode::memory::Memory;
    use crate::errands::errands;
    use crate::journal::{Acknowledge, Bounds, Journal, Options, Token};
    use crate::normalize::testing;
    use crate::notify::dispatch::Dispatcher;

    struct Nobody;

    impl Acknowledge for Nobody {
        fn durable(&self, _: &[Token]) {}
    }

    /// A pipeline on a journal that has ended after these payloads of one device, and what comes out of it.
    fn pipeline(dir: &Path, snapshot: &Snapshot, payloads: &[&str]) -> (Pipeline, Receiver<Batch>, SyncSender<Reload>) {
        let metrics = Metrics::new();
        let options = Options {
            dir: dir.to_owned(),
            max_size: 1 << 20,
            retain: Duration::ZERO,
            sync: Sync::Always,
            redelivery_window: 10,
            inbox: Bounds { messages: 10, bytes: 1 << 20 },
            tail_bytes: 1 << 20,
        };
        let journal = Journal::open(options, metrics.clone()).unwrap();
        let (inbox, reader) = (journal.inbox(), journal.reader());
        for payload in payloads {
            inbox.submit(testing::message(1, TOPIC, *payload).publish.clone(), None).unwrap();
        }
        inbox.close();
        journal.run(Arc::new(Nobody)).unwrap();

        let normalizer = Normalizer::new(&config(), snapshot, Memory::default(), metrics.clone()).unwrap();
        let dispatcher = Dispatcher::new(&config(), &[], Vec::new());
        let (reloads_out, reloads) = sync_channel(1);
        let (batches, made) = sync_channel(2);
        let (errands, _end) = errands(Duration::from_secs(30), metrics.clone());
        let (announcer, _announced) = announcer(metrics.clone());
        let evaluator = Evaluator::new(snapshot, Vec::new());
        let observer = presence::Observer::new(&config().devices, snapshot, Vec::new());
        let presence = presence::Watch { observer, inbox: inbox.clone(), metrics: metrics.clone(), ticked: None };
        let watch =
            Watch { evaluator, dispatcher, announcer, inbox, metrics: metrics.clone(), ticking: None, dispatched: 0 };
        let pipeline = Pipeline {
            normalizer,
            reader,
            position: 0,
            batches,
            ahead: VecDeque::new(),
            batch_max: 100,
            reloads,
            watch,
            presence,
            errands,
            stop: CancellationToken::new(),
            metrics,
        };
        (pipeline, made, reloads_out)
    }

    const TOPIC: &str = "devices/d1/telemetry";

    fn config() -> Config {
        let source = Source {
            template: Some("thermometer".into()),
            ..testing::source("native", "devices/{device}/telemetry", Decoder::Json)
        };
        testing::settings(vec![source])
    }

    fn fitting() -> Snapshot {
        testing::snapshot(vec![testing::template("thermometer", Vec::new())], Vec::new())
    }

    fn with_a_rule() -> Snapshot {
        let rule = serde_json::json!({
            "slug": "hot", "severity": "info", "scope": {"all": true}, "when": {"metric": "t", "gt": 1000},
        });
        Snapshot { rules: vec![Arc::new(rule_file::from_json(&rule, "a test").unwrap())], ..fitting() }
    }

    #[test]
    fn a_catalog_that_does_not_fit_the_sources_is_refused_and_messages_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let (pipeline, made, reloads) = pipeline(dir.path(), &fitting(), &[r#"{"t": 1}"#]);
        let metrics = pipeline.metrics.clone();
        reloads.send(Reload { config: config(), snapshot: Snapshot::default(), committed: 0 }).unwrap();
        pipeline.run().unwrap();
        let batch = made.recv().unwrap();
        assert_eq!((batch.position, batch.generation, batch.readings.len()), (1, 0, 1));
        assert_eq!((metrics.reload_errors.get(), metrics.catalog_reloads.get()), (1, 0));
    }

    /// Messages that come one by one while the writer is at a transaction that lasts; the readings of the batches it gets then.
    fn gathered(snapshot: &Snapshot, messages: u64) -> Vec<usize> {
        let dir = tempfile::tempdir().unwrap();
        let (mut pipeline, made, _reloads) = pipeline(dir.path(), snapshot, &[]);
        let mut batch = Batch::default();
        for seq in 1..=messages {
            assert!(pipeline.hand_over(&[testing::message(seq, TOPIC, r#"{"t": 1}"#)], &mut batch));
            // As after each look that finds nothing more.
            assert!(pipeline.send(&mut batch));
        }
        assert_eq!(pipeline.rest() == AHEAD_LOOK, messages > 2, "what waits is offered again soon");
        let (mut rows, mut position) = (Vec::new(), 0);
        loop {
            let before = rows.len();
            for batch in made.try_iter() {
                rows.push(batch.readings.len());
                position = batch.position;
            }
            if rows.len() == before && pipeline.ahead.is_empty() {
                assert_eq!(position, messages);
                return rows;
            }
            assert!(pipeline.hand_ahead(false));
        }
    }

    #[test]
    fn what_gathered_while_the_writer_was_busy_goes_to_it_in_whole_batches() {
        // Two were in the channel when it became busy.
        assert_eq!(gathered(&with_a_rule(), 2), [1, 1]);
        let rows = gathered(&with_a_rule(), 1002);
        assert_eq!(rows, [&[1, 1][..], &[100; 10]].concat());
        let rows = gathered(&with_a_rule(), 1003);
        assert_eq!(rows, [&[1, 1][..], &[100; 10], &[1]].concat());
    }

    #[test]
    fn what_gathered_is_read_to_the_end_of_the_journal_and_handed_over_whole() {
        let dir = tempfile::tempdir().unwrap();
        let payloads = [r#"{"t": 1}"#; 10];
        let (pipeline, made, _reloads) = pipeline(dir.path(), &with_a_rule(), &payloads);
        let (done, rows) = std::thread::scope(|scope| {
            let running = scope.spawn(|| pipeline.run().is_ok());
            let rows: usize = made.iter().map(|batch| batch.readings.len()).sum();
            (running.join().unwrap(), rows)
        });
        assert!(done);
        assert_eq!(rows, payloads.len());
    }
}

//! Takes the steps of alerts to the channels whose routes fit, tries again what failed, and has every attempt recorded.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Due, Fate, Outcome, Queue};
use super::{Channel, Failure};
use crate::alert::Transition;
use crate::backoff::Backoff;
use crate::clock;
use crate::config::Notify;
use crate::message::Seq;
use crate::metrics::{ByChannel, Metrics};
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// Outcomes that wait for the database at most; the oldest gives way, and its step is told once more later.
const MOST_OUTCOMES: usize = 10_000;
/// Outcomes in one transaction.
const AT_ONCE: usize = 500;
/// Between two looks for what is due in the database: a retry that somebody has asked for, or what found no room here.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Before outcomes are recorded, so that one transaction takes several.
const RECORD_AFTER: Duration = Duration::from_millis(200);
/// Between attempts at a database that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long the last records may take.
const CLOSING: Duration = Duration::from_millis(800);

/// What the notifier asks of the database; each call may take long.
pub trait NotifyRecord: Send + Sync + 'static {
    /// Keeps what became of attempts. A step that is given no row is passed over.
    ///
    /// # Errors
    /// [`StoreError`].
    fn record(&self, outcomes: &[Outcome]) -> Result<(), StoreError>;

    /// The steps that are due by one of these channels, with the channel's name and the attempts made; the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn due(
        &self,
        channels: &[String],
        now: UtcMicros,
        limit: usize,
    ) -> Result<Vec<(String, u32, Transition)>, StoreError>;
}

/// The alerts of one instance, in its database.
pub struct Recorded {
    pub store: Store,
    pub instance: String,
}

impl NotifyRecord for Recorded {
    fn record(&self, outcomes: &[Outcome]) -> Result<(), StoreError> {
        self.store.record_notifications(outcomes)
    }

    fn due(
        &self,
        channels: &[String],
        now: UtcMicros,
        limit: usize,
    ) -> Result<Vec<(String, u32, Transition)>, StoreError> {
        self.store.due_notifications(&self.instance, channels, now, limit)
    }
}

/// What the notifier is made from.
pub struct Notifier<R> {
    pub steps: mpsc::Receiver<Transition>,
    /// Told once the database is open.
    pub begun: oneshot::Receiver<()>,
    pub channels: Vec<(Notify, Channel)>,
    pub record: Arc<R>,
    /// The last message that the database has.
    pub committed: Box<dyn Fn() -> Seq + Send>,
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl<R: NotifyRecord> Notifier<R> {
    /// Tells until `stop`; what is under way then is told again after the next start.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self) -> Result<(), Infallible> {
        let Notifier { mut steps, mut begun, channels, record, committed, stop, metrics } = self;
        let mut work = Work::new(channels, record, committed, metrics);
        let (mut steps_live, mut waits_for_begin) = (true, true);
        loop {
            let next = work.next_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                told = &mut begun, if waits_for_begin => {
                    waits_for_begin = false;
                    work.begun = told.is_ok();
                }
                Some(ended) = work.attempts.join_next(), if !work.attempts.is_empty() => {
                    // An attempt is neither aborted nor does it panic; were it so, its channel would rest.
                    if let Ok(attempt) = ended {
                        work.attempted(attempt, Instant::now(), clock::now());
                    }
                }
                told = answered(&mut work.question) => work.hear(told, Instant::now()),
                step = steps.recv(), if steps_live => match step {
                    Some(step) => work.take(Arc::new(step), Instant::now()),
                    None => steps_live = false,
                },
                () = until(next) => {}
            }
            work.go_on(Instant::now());
        }
        work.close().await;
        Ok(())
    }
}

/// The database's answer to the question under way; pending without one.
async fn answered(question: &mut Option<JoinHandle<Told>>) -> Told {
    let Some(asked) = question else { return std::future::pending().await };
    let told = asked.await;
    *question = None;
    told.unwrap_or_else(|error| Told::Nothing(error.to_string()))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the database says.
enum Told {
    Recorded(usize),
    Due(Vec<(String, u32, Transition)>),
    /// Why it says nothing.
    Nothing(String),
}

/// An attempt that has ended.
struct Attempt {
    line: usize,
    due: Due,
    outcome: Result<(), Failure>,
}

/// A channel with its queue.
struct Line {
    notify: Arc<Notify>,
    name: Arc<str>,
    channel: Arc<Channel>,
    queue: Queue,
}

struct Work<R> {
    lines: Vec<Line>,
    attempts: JoinSet<Attempt>,
    record: Arc<R>,
    committed: Box<dyn Fn() -> Seq + Send>,
    metrics: Metrics,
    outcomes: VecDeque<Outcome>,
    record_at: Option<Instant>,
    begun: bool,
    question: Option<JoinHandle<Told>>,
    look_at: Instant,
    backoff: Backoff,
}

impl<R: NotifyRecord> Work<R> {
    fn new(
        channels: Vec<(Notify, Channel)>,
        record: Arc<R>,
        committed: Box<dyn Fn() -> Seq + Send>,
        metrics: Metrics,
    ) -> Work<R> {
        let line = |(notify, channel): (Notify, Channel)| Line {
            name: notify.name.as_str().into(),
            notify: Arc::new(notify),
            channel: Arc::new(channel),
            queue: Queue::new(),
        };
        Work {
            lines: channels.into_iter().map(line).collect(),
            attempts: JoinSet::new(),
            record,
            committed,
            metrics,
            outcomes: VecDeque::new(),
            record_at: None,
            begun: false,
            question: None,
            look_at: Instant::now(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    /// When something is to be done though nothing happens.
    fn next_at(&self) -> Option<Instant> {
        let asks = self.begun && self.question.is_none();
        let record = self.record_at.filter(|_| asks);
        let look = Some(self.look_at).filter(|_| asks);
        self.lines.iter().filter_map(|line| line.queue.next_at()).chain(record).chain(look).min()
    }

    /// Puts a step into the queues of the channels that it goes by. What finds no room is in the database.
    fn take(&mut self, step: Arc<Transition>, now: Instant) {
        for line in &mut self.lines {
            if line.notify.route.takes(&step) {
                line.queue.put(Due { step: Arc::clone(&step), attempts: 0, at: now });
            }
        }
    }

    /// After each event: begins the attempts whose time has come, and asks the database the next thing.
    fn go_on(&mut self, now: Instant) {
        for (place, line) in self.lines.iter_mut().enumerate() {
            let Some(due) = line.queue.begin(now) else { continue };
            let (channel, step, timeout) = (Arc::clone(&line.channel), Arc::clone(&due.step), line.notify.timeout);
            self.attempts.spawn(async move {
                let told = tokio::time::timeout(timeout, channel.tell(&step)).await;
                let late = |_| Err(Failure::passing(format!("no answer within {timeout:?}")));
                Attempt { line: place, due, outcome: told.unwrap_or_else(late) }
            });
        }
        if self.begun && self.question.is_none() {
            self.ask(now);
        }
    }

    fn attempted(&mut self, attempt: Attempt, now: Instant, clock: UtcMicros) {
        let Attempt { line, due, outcome } = attempt;
        let Some(line) = self.lines.get_mut(line) else { return };
        let label = ByChannel { channel: line.notify.name.clone() };
        let (step, attempts) = (Arc::clone(&due.step), due.attempts.saturating_add(1));
        let wait = line.queue.end(due, outcome.as_ref().err().map(|failure| failure.lasting), &line.notify, now);
        let (alert, channel) = (&*step.id, &*line.name);
        let fate = match (outcome, wait) {
            (Ok(()), _) => {
                self.metrics.notifications_sent.get_or_create(&label).inc();
                Fate::Sent
            }
            (Err(Failure { detail: error, .. }), Some(wait)) => {
                self.metrics.notification_errors.get_or_create(&label).inc();
                tracing::warn!(channel, alert, attempts, retry_in = ?wait, error, "a notification failed");
                Fate::Pending { error, next_at: clock.checked_add(wait).unwrap_or(clock) }
            }
            (Err(Failure { detail: error, .. }), None) => {
                self.metrics.notification_errors.get_or_create(&label).inc();
                self.metrics.notifications_dead.get_or_create(&label).inc();
                tracing::error!(
                    channel,
                    alert,
                    attempts,
                    error,
                    "a notification is given up; `tidegate alerts notify retry` sends it once more"
                );
                Fate::Dead { error }
            }
        };
        let outcome = Outcome {
            id: Arc::clone(&step.id),
            step: step.step,
            channel: Arc::clone(&line.name),
            attempts,
            fate,
            at: clock,
            seq: step.seq,
        };
        self.outcomes.push_back(outcome);
        if self.outcomes.len() > MOST_OUTCOMES {
            self.outcomes.pop_front();
        }
        self.record_at.get_or_insert(now + RECORD_AFTER);
    }

    /// Outcomes whose steps have rows, the oldest first.
    fn recordable(&self) -> Vec<Outcome> {
        let committed = (self.committed)();
        self.outcomes.iter().take_while(|outcome| outcome.seq <= committed).take(AT_ONCE).cloned().collect()
    }

    fn ask(&mut self, now: Instant) {
        let record = Arc::clone(&self.record);
        let say = |told: Result<Told, StoreError>| told.unwrap_or_else(|error| Told::Nothing(error.to_string()));
        if self.record_at.is_some_and(|at| at <= now) {
            let outcomes = self.recordable();
            if !outcomes.is_empty() {
                self.question = Some(tokio::task::spawn_blocking(move || {
                    say(record.record(&outcomes).map(|()| Told::Recorded(outcomes.len())))
                }));
                return;
            }
            self.record_at = Some(now + RECORD_AFTER);
        }
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            let names: Vec<String> =
                self.lines.iter().filter(|line| line.queue.has_room()).map(|line| line.notify.name.clone()).collect();
            if !names.is_empty() {
                let at = clock::now();
                self.question = Some(tokio::task::spawn_blocking(move || {
                    // What is under way here is among it, and is passed over.
                    say(record.due(&names, at, Queue::MOST.saturating_mul(names.len())).map(Told::Due))
                }));
            }
        }
    }

    fn hear(&mut self, told: Told, now: Instant) {
        match told {
            Told::Recorded(count) => {
                self.backoff.reset();
                self.outcomes.drain(..count.min(self.outcomes.len()));
                self.record_at = (!self.outcomes.is_empty()).then_some(now);
            }
            Told::Due(due) => {
                self.backoff.reset();
                self.take_due(due, now);
            }
            Told::Nothing(error) => {
                let wait = self.backoff.next_delay();
                self.look_at = now + wait;
                self.record_at = self.record_at.map(|_| now + wait);
                tracing::debug!(error, "the database takes no record of notifications; it is tried again");
            }
        }
    }

    fn take_due(&mut self, due: Vec<(String, u32, Transition)>, now: Instant) {
        let unrecorded: HashSet<(Arc<str>, u32, Arc<str>)> = self
            .outcomes
            .iter()
            .map(|outcome| (Arc::clone(&outcome.id), outcome.step, Arc::clone(&outcome.channel)))
            .collect();
        for (channel, attempts, step) in due {
            let Some(line) = self.lines.iter_mut().find(|line| *line.name == *channel) else { continue };
            let known = unrecorded.contains(&(Arc::clone(&step.id), step.step, Arc::clone(&line.name)));
            if !known && !line.queue.has(&step.id, step.step) {
                let step = Arc::new(Transition { seq: 0, ..step });
                line.queue.put(Due { step, attempts, at: now });
            }
        }
    }

    /// Records what can still be recorded, for a moment.
    async fn close(&mut self) {
        self.attempts.abort_all();
        let deadline = Instant::now() + CLOSING;
        if let Some(question) = self.question.take() {
            match tokio::time::timeout_at(deadline, question).await {
                Ok(Ok(Told::Recorded(count))) => drop(self.outcomes.drain(..count.min(self.outcomes.len()))),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let (record, outcomes) = (Arc::clone(&self.record), self.recordable());
        if self.begun && !outcomes.is_empty() {
            let recording = tokio::task::spawn_blocking(move || record.record(&outcomes));
            let _ = tokio::time::timeout_at(deadline, recording).await;
        }
    }
}

#[cfg(test)]
#[path = "notifier_tests.rs"]
mod tests;

//! Takes what is to be told to the channels, tries again what failed, and has every attempt recorded.
//!
//! Channels may come, change and go while it runs. What waits for one that has gone is left in the database, for when it comes back.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Due, Fate, Outcome, Queue};
use super::{Channel, Failure, Key, Notice, Order};
use crate::backoff::Backoff;
use crate::clock;
use crate::config::Notify;
use crate::message::Seq;
use crate::metrics::{ByChannel, Metrics};
use crate::mqtt::Parcel;
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// Outcomes that wait for the database at most; the oldest gives way, and is told once more later.
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
    /// Keeps what became of attempts. A notice that has no row is passed over.
    ///
    /// # Errors
    /// [`StoreError`].
    fn record(&self, outcomes: &[Outcome]) -> Result<(), StoreError>;

    /// What is due by one of these channels; the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    fn due(&self, channels: &[String], now: UtcMicros, limit: usize) -> Result<Vec<Waiting>, StoreError>;
}

/// What the database has to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Name.
    pub channel: String,
    /// Made before.
    pub attempts: u32,
    /// Its `seq` is 0.
    pub notice: Notice,
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

    fn due(&self, channels: &[String], now: UtcMicros, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        self.store.due_notifications(&self.instance, channels, now, limit)
    }
}

/// What the notifier is made from.
pub struct Notifier<R> {
    pub orders: mpsc::Receiver<Order>,
    /// Told once the database is open.
    pub begun: oneshot::Receiver<()>,
    /// As configured; may change.
    pub channels: watch::Receiver<Vec<Notify>>,
    /// The way to the broker.
    pub parcels: mpsc::Sender<Parcel>,
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
        let Notifier { mut orders, mut begun, mut channels, parcels, record, committed, stop, metrics } = self;
        let mut work = Work::new(parcels, record, committed, metrics);
        let first = channels.borrow_and_update().clone();
        work.configure(first);
        let (mut orders_live, mut waits_for_begin, mut may_change) = (true, true, true);
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
                changed = channels.changed(), if may_change => match changed {
                    Ok(()) => {
                        let changed = channels.borrow_and_update().clone();
                        work.configure(changed);
                    }
                    Err(_) => may_change = false,
                },
                order = orders.recv(), if orders_live => match order {
                    Some(order) => work.take(order, Instant::now()),
                    None => orders_live = false,
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
    Due(Vec<Waiting>),
    /// Why it says nothing.
    Nothing(String),
}

/// An attempt that has ended.
struct Attempt {
    /// Name of the channel.
    channel: Arc<str>,
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
    parcels: mpsc::Sender<Parcel>,
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
        parcels: mpsc::Sender<Parcel>,
        record: Arc<R>,
        committed: Box<dyn Fn() -> Seq + Send>,
        metrics: Metrics,
    ) -> Work<R> {
        Work {
            lines: Vec::new(),
            parcels,
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

    /// Takes these channels instead of those before. One of the same name keeps its queue; an attempt that is under way goes on as it
    /// was begun.
    fn configure(&mut self, channels: Vec<Notify>) {
        let mut before = std::mem::take(&mut self.lines);
        for notify in channels {
            let known = before.iter().position(|line| *line.name == *notify.name).map(|place| before.remove(place));
            self.lines.push(match known {
                Some(line) if *line.notify == notify => line,
                Some(line) => {
                    let channel = Arc::new(Channel::new(&notify, &self.parcels));
                    Line { channel, notify: Arc::new(notify), ..line }
                }
                None => Line {
                    name: notify.name.as_str().into(),
                    channel: Arc::new(Channel::new(&notify, &self.parcels)),
                    notify: Arc::new(notify),
                    queue: Queue::new(),
                },
            });
        }
        for gone in before {
            let waiting = gone.queue.len();
            if waiting > 0 {
                tracing::warn!(
                    channel = &*gone.name,
                    waiting,
                    "a channel is gone; what waits for it is kept until it comes back"
                );
            }
        }
        // What the database has for the new ones.
        self.look_at = Instant::now();
    }

    /// Puts a notice into the queue of its channel. What finds no room, or no channel, is in the database.
    fn take(&mut self, Order { notice, channel }: Order, now: Instant) {
        let unrecorded = self.outcomes.iter().any(|outcome| outcome.channel == channel && outcome.key == notice.key());
        if let Some(line) = self.lines.iter_mut().find(|line| line.name == channel)
            && !unrecorded
        {
            line.queue.put(Due { notice, attempts: 0, at: now });
        }
    }

    /// After each event: begins the attempts whose time has come, and asks the database the next thing.
    fn go_on(&mut self, now: Instant) {
        for line in &mut self.lines {
            let Some(due) = line.queue.begin(now) else { continue };
            let (name, channel, timeout) = (Arc::clone(&line.name), Arc::clone(&line.channel), line.notify.timeout);
            self.attempts.spawn(async move {
                let told = tokio::time::timeout(timeout, channel.tell(&due.notice)).await;
                let late = |_| Err(Failure::passing(format!("no answer within {timeout:?}")));
                Attempt { channel: name, due, outcome: told.unwrap_or_else(late) }
            });
        }
        if self.begun && self.question.is_none() {
            self.ask(now);
        }
    }

    fn attempted(&mut self, attempt: Attempt, now: Instant, clock: UtcMicros) {
        let Attempt { channel: name, due, outcome } = attempt;
        let label = ByChannel { channel: name.to_string() };
        let (key, seq, attempts) = (due.notice.key(), due.notice.seq, due.attempts.saturating_add(1));
        let id = Arc::clone(due.notice.id());
        let failed = outcome.as_ref().err().map(|failure| failure.lasting);
        let line = self.lines.iter_mut().find(|line| line.name == name);
        let wait = match line {
            Some(line) => line.queue.end(due, failed, &line.notify, now),
            // Gone meanwhile: if it failed it is left for when it comes back.
            None => failed.map(|_| Duration::ZERO),
        };
        let (alert, channel) = (&*id, &*name);
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
        let outcome = Outcome { key, channel: Arc::clone(&name), attempts, fate, at: clock, seq };
        self.outcomes.push_back(outcome);
        if self.outcomes.len() > MOST_OUTCOMES {
            self.outcomes.pop_front();
        }
        self.record_at.get_or_insert(now + RECORD_AFTER);
    }

    /// Outcomes whose notices have rows, the oldest first.
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

    fn take_due(&mut self, due: Vec<Waiting>, now: Instant) {
        let unrecorded: HashSet<(Key, Arc<str>)> =
            self.outcomes.iter().map(|outcome| (outcome.key.clone(), Arc::clone(&outcome.channel))).collect();
        for Waiting { channel, attempts, notice } in due {
            let Some(line) = self.lines.iter_mut().find(|line| *line.name == *channel) else { continue };
            if !unrecorded.contains(&(notice.key(), Arc::clone(&line.name))) {
                // One that is there already stays as it is.
                line.queue.put(Due { notice, attempts, at: now });
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

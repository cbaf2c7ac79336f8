//! From the steps of alerts to the broker, in order at QoS 1, and the database told which of them are published.
//!
//! - What the pipeline hands over is published at once, whether or not the database answers. Its mark follows once the journal's
//!   message behind it is committed: before that there is no row.
//! - What the database has and the broker may not is swept from it: at the start, once the channel has been too short
//!   (see [`super::announcer`]), and now and then, for what commands have put there.
//! - A step never follows a later one of its alert: one that is overtaken is only marked.
//! - A connection that ends is the session's matter: it publishes again on the next what was not acknowledged.
//! - What the broker refuses is tried three times; then it stays unpublished until the next start, or until a later step of the
//!   alert is published.

mod books;
mod flights;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use books::{Key, Record, Recorded};

use super::announce::{self, Summary};
use super::announcer::{Announced, Deferral, Deferred};
use super::transition::{State, Transition};
use crate::backoff::Backoff;
use crate::message::Seq;
use crate::metrics::{ByReason, Metrics};
use crate::mqtt::Parcel;
use crate::store::StoreError;
use books::{Marks, Refusals};
use flights::{Flights, Settled, Subject};

/// Attempts at what the broker refuses.
const ATTEMPTS: u32 = 3;
/// Refused steps that wait for another attempt at most; further ones are given up at once.
const MOST_AGAIN: usize = 256;
/// Before the second attempt; doubled before the third.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Steps read from the database at once.
const SWEEP: usize = 500;
/// Steps marked in one transaction at most.
const MARKS_AT_ONCE: usize = 500;
/// Between two questions to the database at least, so that one transaction marks many.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// Between attempts at a database that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a summary may wait while steps come without a pause.
const SUMMARY_AFTER: Duration = Duration::from_millis(500);
/// Between two looks for steps that somebody else has left in the database, such as a command.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
/// How often what waits for its time is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Alerts whose newest step is remembered at most while a sweep is outstanding; at it the channel is left to fill.
const MOST_REMEMBERED: usize = 200_000;
/// How long the last marks may take.
const CLOSING: Duration = Duration::from_millis(800);

/// What the publisher is made from.
pub struct Publisher<R> {
    pub announced: Announced,
    /// To the session, or to the embedded broker.
    pub parcels: mpsc::Sender<Parcel>,
    pub record: Arc<R>,
    /// The last message that the database has.
    pub committed: Box<dyn Fn() -> Seq + Send>,
    /// Whether the broker forgets retained messages at a start, as the embedded one does: then active alerts are published anew.
    pub forgetful: bool,
    /// Set after the last commit.
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl<R: Record> Publisher<R> {
    /// Publishes until `stop`.
    ///
    /// # Errors
    /// Never: what can't be done now is tried again, or found by the next start.
    pub async fn run(self) -> Result<(), Infallible> {
        let Publisher { announced, parcels, record, committed, forgetful, stop, metrics } = self;
        let Announced { mut steps, deferral, mut begun } = announced;
        let mut work = Work::new(record, committed, forgetful, metrics);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut steps_live, mut waits_for_begin) = (true, true);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                told = &mut begun, if waits_for_begin => {
                    waits_for_begin = false;
                    work.begun = told.is_ok();
                }
                settled = work.flights.settle(), if !work.flights.is_empty() => work.settled(settled, Instant::now()),
                permit = parcels.reserve(), if work.flights.is_ready() => match (permit, work.flights.take_ready()) {
                    (Ok(permit), Some(parcel)) => permit.send(parcel),
                    _ => work.flights.close(),
                },
                outcome = answered(&mut work.question) => work.hear(outcome, &deferral, Instant::now()),
                step = steps.recv(), if steps_live && work.takes_steps() => match step {
                    Some(step) => work.publish(step, 0),
                    None => steps_live = false,
                },
                _ = tick.tick(), if work.waits(deferral.get()) => {}
                () = tokio::time::sleep_until(work.sweep_at), if work.is_swept() => {}
            }
            work.go_on(steps.is_empty(), deferral.get(), Instant::now());
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
    // It is not aborted, so an error is a panic in the database's room: tried again as any other failure.
    told.unwrap_or_else(|error| Told::Nothing(error.to_string()))
}

/// What the database says.
enum Told {
    Active(Vec<Transition>),
    Marked(Vec<Key>),
    /// With as much of what was deferred when it was asked as was committed.
    Unpublished(Vec<Transition>, Deferred),
    /// Why it says nothing.
    Nothing(String),
}

/// A refused step, to be tried again.
struct Again {
    step: Transition,
    attempts: u32,
    due: Instant,
}

struct Work<R> {
    record: Arc<R>,
    committed: Box<dyn Fn() -> Seq + Send>,
    forgetful: bool,
    metrics: Metrics,
    flights: Flights,
    /// From the database, still to be published.
    backlog: VecDeque<Transition>,
    again: VecDeque<Again>,
    summary: Summary,
    summary_due: Option<Instant>,
    /// By alert: the newest step that was published or is under way.
    newest: HashMap<Arc<str>, u32>,
    marks: Marks,
    refusals: Refusals,
    /// Whether the database can be asked at all.
    begun: bool,
    /// Whether what an earlier run left was read.
    loaded: bool,
    swept: bool,
    /// When it is to be looked again.
    sweep_at: Instant,
    question: Option<JoinHandle<Told>>,
    ask_at: Instant,
    backoff: Backoff,
}

impl<R: Record> Work<R> {
    fn new(record: Arc<R>, committed: Box<dyn Fn() -> Seq + Send>, forgetful: bool, metrics: Metrics) -> Work<R> {
        Work {
            record,
            committed,
            forgetful,
            metrics,
            flights: Flights::default(),
            backlog: VecDeque::new(),
            again: VecDeque::new(),
            summary: Summary::default(),
            summary_due: None,
            newest: HashMap::new(),
            marks: Marks::default(),
            refusals: Refusals::default(),
            begun: false,
            loaded: false,
            swept: false,
            sweep_at: Instant::now(),
            question: None,
            ask_at: Instant::now(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    /// Whether a step from the channel would set out at once.
    fn takes_steps(&self) -> bool {
        self.flights.has_room() && self.backlog.is_empty() && (self.swept || self.newest.len() < MOST_REMEMBERED)
    }

    /// Whether something waits for its time.
    fn waits(&self, deferred: Deferred) -> bool {
        let asks = self.begun && (!self.swept || !self.marks.is_empty() || deferred.steps > 0);
        asks || self.summary.has_changed() || !self.again.is_empty() || !self.backlog.is_empty()
    }

    /// Whether nothing is to be done before the next look.
    fn is_swept(&self) -> bool {
        self.swept && self.question.is_none() && self.flights.is_empty()
    }

    /// Sets a step out, unless it or a later one of its alert has set out before.
    fn publish(&mut self, step: Transition, attempts: u32) {
        let overtaken = self.newest.get(&step.id).is_some_and(|newest| match attempts {
            0 => *newest >= step.step,
            _ => *newest > step.step,
        });
        if overtaken {
            self.mark((step.id, step.step), step.seq);
            return;
        }
        self.newest.insert(Arc::clone(&step.id), step.step);
        self.summary.note(&step);
        let announcements = announce::announcements(&step);
        if !announcements.is_empty() {
            self.flights.set_out(announcements, Subject::Step(Box::new(step), attempts));
        }
    }

    fn mark(&mut self, key: Key, seq: Seq) {
        if !self.marks.add(key, seq) {
            self.metrics.alerts_unmarked.inc();
        }
    }

    /// None: nobody publishes any more.
    fn settled(&mut self, settled: Option<Settled>, now: Instant) {
        let Some(Settled { subject, refused }) = settled else {
            self.flights.close();
            return;
        };
        if let Some(reason) = refused {
            self.metrics.alerts_refused.get_or_create(&ByReason { reason }).inc();
        }
        match (subject, refused) {
            (Subject::Step(step, _), None) => {
                self.metrics.alerts_published.inc();
                self.overtake(&step);
                self.mark((step.id, step.step), step.seq);
            }
            (Subject::Step(step, attempts), Some(reason)) => {
                self.refused(*step, attempts.saturating_add(1), reason, now)
            }
            (Subject::Summary, None) => {}
            (Subject::Summary, Some(reason)) => {
                tracing::warn!(reason, "the broker refused a summary of alerts; the next change makes another");
            }
        }
    }

    /// Earlier steps of the alert that the broker had refused are history.
    fn overtake(&mut self, step: &Transition) {
        for before in self.refusals.take_before(&step.id, step.step) {
            self.mark((Arc::clone(&step.id), before), 0);
        }
        let (overtaken, left) = std::mem::take(&mut self.again).into_iter().partition(|again| again.step.id == step.id);
        self.again = left;
        for Again { step, .. } in overtaken {
            self.mark((step.id, step.step), step.seq);
        }
        // Until everything is swept, an earlier one may still come from the database.
        if self.swept && step.state == State::Resolved {
            self.newest.remove(&step.id);
        }
    }

    fn refused(&mut self, step: Transition, attempts: u32, reason: &'static str, now: Instant) {
        if attempts < ATTEMPTS && self.again.len() < MOST_AGAIN {
            let due = now + AGAIN_AFTER.saturating_mul(attempts);
            self.again.push_back(Again { step, attempts, due });
            return;
        }
        tracing::error!(
            alert = &*step.id,
            rule = &*step.rule,
            device = &*step.device,
            reason,
            attempts,
            "the broker refuses an alert; it stays unpublished until the next start: let the broker's access rules allow \
             tidegate/alerts/# to this client"
        );
        self.refusals.add(&step.id, step.step);
    }

    /// After each event: everything whose time has come, as far as there is room.
    fn go_on(&mut self, channel_empty: bool, deferred: Deferred, now: Instant) {
        while self.flights.has_room() && self.again.front().is_some_and(|again| again.due <= now) {
            let Some(Again { step, attempts, .. }) = self.again.pop_front() else { break };
            self.publish(step, attempts);
        }
        while self.flights.has_room()
            && let Some(step) = self.backlog.pop_front()
        {
            self.publish(step, 0);
        }
        self.tell_summary(channel_empty && self.backlog.is_empty(), now);
        if self.begun && self.question.is_none() && now >= self.ask_at {
            self.ask(channel_empty, deferred, now);
        }
    }

    /// Once for many steps, where they come without a pause.
    fn tell_summary(&mut self, quiet: bool, now: Instant) {
        if !self.summary.has_changed() || !self.flights.has_room() {
            return;
        }
        let due = *self.summary_due.get_or_insert(now + SUMMARY_AFTER);
        if quiet || now >= due {
            self.summary_due = None;
            self.flights.set_out(self.summary.take_changed(), Subject::Summary);
        }
    }

    /// Asks the database the next thing, if there is one.
    fn ask(&mut self, channel_empty: bool, deferred: Deferred, now: Instant) {
        let (record, committed) = (Arc::clone(&self.record), (self.committed)());
        let say = |told: Result<Told, StoreError>| told.unwrap_or_else(|error| Told::Nothing(error.to_string()));
        let question = if !self.loaded {
            tokio::task::spawn_blocking(move || say(record.active().map(Told::Active)))
        } else if self.marks.is_due(committed) && !self.summary.has_changed() {
            let due = self.marks.due(committed, MARKS_AT_ONCE);
            tokio::task::spawn_blocking(move || say(record.mark_published(&due).map(|()| Told::Marked(due))))
        } else if self.sweeps(channel_empty, deferred, committed, now) {
            // What was refused is among what comes, and is passed over.
            let limit = SWEEP.saturating_add(self.refusals.len());
            // What is not committed yet is not among it.
            let seen = if deferred.up_to <= committed { deferred } else { Deferred::default() };
            tokio::task::spawn_blocking(move || {
                say(record.unpublished(limit).map(|steps| Told::Unpublished(steps, seen)))
            })
        } else {
            return;
        };
        self.question = Some(question);
        self.ask_at = now + ASK_EVERY;
    }

    /// Whether there may be steps in the database that nobody has published, and nothing else is to be done first.
    fn sweeps(&self, channel_empty: bool, deferred: Deferred, committed: Seq, now: Instant) -> bool {
        let idle = self.flights.is_empty() && self.backlog.is_empty() && self.again.is_empty();
        let caught_up = deferred.steps > 0 && deferred.up_to <= committed && channel_empty;
        idle && (!self.swept || caught_up || now >= self.sweep_at)
    }

    fn hear(&mut self, told: Told, deferral: &Deferral, now: Instant) {
        if !matches!(told, Told::Nothing(_)) {
            self.backoff.reset();
        }
        match told {
            Told::Active(active) => self.take_active(active),
            Told::Marked(keys) => self.marks.done(&keys),
            Told::Unpublished(steps, seen) => self.take_unpublished(steps, seen, deferral, now),
            Told::Nothing(error) => {
                self.ask_at = now + self.backoff.next_delay();
                tracing::debug!(error, "the database does not say which alerts are to be published; it is asked again");
            }
        }
    }

    fn take_active(&mut self, active: Vec<Transition>) {
        self.loaded = true;
        for step in active {
            // What came by the channel meanwhile is newer.
            if self.newest.contains_key(&step.id) {
                continue;
            }
            if self.forgetful {
                self.backlog.push_back(Transition { seq: 0, ..step });
            } else {
                self.summary.note(&step);
            }
        }
    }

    fn take_unpublished(&mut self, steps: Vec<Transition>, seen: Deferred, deferral: &Deferral, now: Instant) {
        let mut marked_soon = false;
        for step in steps {
            let key = (Arc::clone(&step.id), step.step);
            if self.refusals.has(&key) {
                continue;
            }
            if self.marks.has(&key) {
                marked_soon = true;
                continue;
            }
            self.backlog.push_back(Transition { seq: 0, ..step });
        }
        if self.backlog.is_empty() && !marked_soon && (seen.steps == 0 || deferral.end(seen)) {
            self.swept = true;
            self.sweep_at = now + SWEEP_EVERY;
            self.forget();
        } else if !self.backlog.is_empty() {
            self.ask_at = now;
        }
    }

    /// With everything swept, no step can come that an alert's resolution has overtaken.
    fn forget(&mut self) {
        let summary = &self.summary;
        self.newest.retain(|id, _| summary.is_active(id));
    }

    /// Marks what can still be marked, for a moment: what is left is published once more after the next start.
    async fn close(&mut self) {
        let deadline = Instant::now() + CLOSING;
        if let Some(question) = self.question.take() {
            match tokio::time::timeout_at(deadline, question).await {
                Ok(Ok(Told::Marked(keys))) => self.marks.done(&keys),
                Ok(_) => {}
                Err(_) => return,
            }
        }
        loop {
            let (record, due) = (Arc::clone(&self.record), self.marks.due((self.committed)(), MARKS_AT_ONCE));
            if due.is_empty() || !self.begun {
                return;
            }
            let marking = tokio::task::spawn_blocking(move || record.mark_published(&due).map(|()| due));
            match tokio::time::timeout_at(deadline, marking).await {
                Ok(Ok(Ok(keys))) => self.marks.done(&keys),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;

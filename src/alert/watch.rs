//! The pipeline's part in alerts: lets the rules see what each message has become, and gives the journal's clock a tick when a timer is
//! due and nothing comes.

use std::time::Duration;

use bytes::Bytes;

use super::announcer::Announcer;
use super::evaluator::{Added, Evaluator};
use super::request;
use super::transition::{ACTION_TOPIC, Action, TICK_TOPIC};
use crate::catalog::Snapshot;
use crate::config::Config;
use crate::journal::Inbox;
use crate::message::{Message, Publish};
use crate::metrics::{ByChannel, ByReason, Metrics};
use crate::notify::dispatch::{Decided, Dispatcher};
use crate::store::batch::Batch;
use crate::time::UtcMicros;

/// Between two attempts to put a tick into the journal, at least.
const AGAIN: Duration = Duration::from_millis(2);

/// Rules over what goes through the pipeline.
pub struct Watch {
    pub evaluator: Evaluator,
    /// Who is told of what they decide.
    pub dispatcher: Dispatcher,
    pub announcer: Announcer,
    /// For ticks.
    pub inbox: Inbox,
    pub metrics: Metrics,
    /// For when a tick is on its way.
    pub ticking: Option<UtcMicros>,
    /// Steps that the dispatcher has seen since the last conclusion.
    pub dispatched: usize,
}

/// How much a batch held before a message.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    devices: usize,
    sensors: usize,
    changes: usize,
    readings: usize,
    texts: usize,
}

impl Mark {
    pub fn of(batch: &Batch) -> Mark {
        Mark {
            devices: batch.devices.len(),
            sensors: batch.sensors.len(),
            changes: batch.changes.len(),
            readings: batch.readings.len(),
            texts: batch.texts.len(),
        }
    }

    fn added<'b>(&self, batch: &'b Batch) -> Added<'b> {
        // Nothing is taken out of a batch.
        Added {
            devices: batch.devices.get(self.devices..).unwrap_or_default(),
            sensors: batch.sensors.get(self.sensors..).unwrap_or_default(),
            changes: batch.changes.get(self.changes..).unwrap_or_default(),
            readings: batch.readings.get(self.readings..).unwrap_or_default(),
            texts: batch.texts.get(self.texts..).unwrap_or_default(),
            seen: &batch.seen,
        }
    }
}

impl Watch {
    /// Whether there are rules, or something that time alone will bring about.
    pub fn looks(&self) -> bool {
        !self.evaluator.is_idle() || self.dispatcher.next_due().is_some()
    }

    /// Lets the rules see a message that has been normalized into `batch`, which was as `mark` says before.
    pub fn message(&mut self, message: &Message, mark: Mark, batch: &Batch) {
        if self.ticking.is_some_and(|until| message.received_at >= until) {
            self.ticking = None;
        }
        self.dispatcher.advance(message.received_at, message.seq);
        if self.evaluator.is_idle() {
            return;
        }
        self.evaluate(message, mark, batch);
        for step in self.evaluator.steps().get(self.dispatched..).unwrap_or_default() {
            self.dispatcher.step(step, self.evaluator.whose(step), message.received_at, message.seq);
        }
        self.dispatched = self.evaluator.steps().len();
    }

    fn evaluate(&mut self, message: &Message, mark: Mark, batch: &Batch) {
        match action(message) {
            Some(Ok(action)) => {
                if !self.evaluator.act(&action, message.received_at, message.seq) {
                    self.amiss("unknown");
                    tracing::warn!(alert = action.id, who = action.who, "there is no active alert with this id");
                }
            }
            Some(Err(error)) => {
                self.amiss("unreadable");
                tracing::warn!(topic = message.publish.topic, error, "what is asked of an alert can't be done");
            }
            None => self.evaluator.message(message.received_at, message.seq, mark.added(batch)),
        }
    }

    fn amiss(&self, reason: &'static str) {
        self.metrics.alert_requests_refused.get_or_create(&ByReason { reason }).inc();
    }

    /// Adds what the rules have decided since the last call to the batch that is on its way, and has it published.
    pub fn conclude(&mut self, batch: &mut Batch) {
        let (mut transitions, mut states) = self.evaluator.drain();
        if !transitions.is_empty() {
            self.metrics.alert_transitions.inc_by(transitions.len() as u64);
            self.metrics.alerts_active.set(i64::try_from(self.evaluator.active()).unwrap_or(i64::MAX));
            self.announcer.announce(&transitions);
        }
        for withheld in self.evaluator.take_withheld() {
            self.metrics.alerts_withheld.get_or_create(&ByReason { reason: withheld.by.word() }).inc();
        }
        self.dispatched = 0;
        self.order(batch);
        let late = self.evaluator.take_late();
        if late > 0 {
            self.metrics.alert_readings_late.inc_by(late);
        }
        batch.transitions.append(&mut transitions);
        batch.alert_states.append(&mut states);
    }

    /// Has what the dispatcher has decided recorded and told.
    fn order(&mut self, batch: &mut Batch) {
        let Decided { mut orders, mut memory, held, amiss } = self.dispatcher.drain();
        self.announcer.order(&orders);
        batch.notifications.append(&mut orders);
        batch.notify_memory.append(&mut memory);
        for (channel, count) in held {
            let label = ByChannel { channel: channel.to_string() };
            self.metrics.notifications_held.get_or_create(&label).inc_by(count);
        }
        self.metrics.escalations_exhausted.inc_by(amiss.exhausted);
        self.metrics.escalations_nobody.inc_by(amiss.nobody);
    }

    /// Takes another configuration, and the rules of another catalog.
    pub fn replace(&mut self, config: &Config, snapshot: &Snapshot) {
        self.evaluator.replace(snapshot);
        self.dispatcher.configure(config, &snapshot.rules);
        self.ticking = None;
    }

    /// How long nothing needs to be done though no message comes; none: for ever.
    pub fn rests(&self, now: UtcMicros) -> Option<Duration> {
        if self.ticking.is_some() {
            return None;
        }
        self.next_due().map(|due| due.since(now).max(AGAIN))
    }

    fn next_due(&self) -> Option<UtcMicros> {
        [self.evaluator.next_due(), self.dispatcher.next_due()].into_iter().flatten().min()
    }

    /// Nothing has come: puts a tick into the journal if a timer is due. All that was received before is in the journal ahead of it,
    /// so that a replay finds the same order. One that finds no room is tried again with the next look.
    pub fn tick(&mut self, now: UtcMicros) {
        let due = self.next_due().is_some_and(|due| due <= now);
        if !due || self.ticking.is_some() {
            return;
        }
        let publish = Publish::plain(TICK_TOPIC, Bytes::new(), 0);
        if self.inbox.submit(publish, None).is_ok() {
            self.ticking = Some(now);
        }
    }
}

/// What somebody wants of an alert; none: it is another message.
fn action(message: &Message) -> Option<Result<Action, String>> {
    if message.publish.topic == ACTION_TOPIC {
        return Some(serde_json::from_slice(&message.publish.payload).map_err(|error| error.to_string()));
    }
    request::read(message).map(|read| read.map_err(|error| error.to_string()))
}

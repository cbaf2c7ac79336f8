//! The publisher: the one task that tells of twins.
//!
//! - **The database decides.** What the broker lacks is found there, as every [`Carrier`](carrier::Carrier) does, and noted there
//!   once the broker has acknowledged it. A crash between publishes once more: retained messages carry their version, answers what they answer.
//! - Of a twin only the newest state is told, however often it has changed since.

mod flights;

use std::time::Duration;

use crate::carrier::{self, Freight, Way};
use crate::crash;
use crate::metrics::{ByReason, Metrics};
use crate::mqtt::Answer;
use crate::store::twins::{Due, Message};
use crate::store::{Store, StoreError};
use flights::{Flights, Landed, Subject};

/// A question to the database, to be asked once more where it failed.
#[derive(Debug, Default)]
pub struct Turn {
    landed: Landed,
    /// How much may set out.
    room: usize,
    /// How much of what will be found is under way.
    under_way: usize,
    /// Whether the broker has lost everything.
    forgotten: bool,
    instance: String,
}

/// The answer.
#[derive(Debug, Default)]
pub struct Turned {
    twins: Vec<Due>,
    messages: Vec<Message>,
}

impl carrier::Turn for Turn {
    type Answer = Turned;

    fn take(&self, store: &Store) -> Result<Turned, StoreError> {
        let instance = self.instance.as_str();
        self.record(store)?;
        if self.forgotten {
            store.tell_twins_again(instance)?;
        }
        if self.room == 0 {
            return Ok(Turned::default());
        }
        // Those under way are among the first.
        let limit = self.room.saturating_add(self.under_way);
        Ok(Turned { messages: store.twin_messages(instance, limit)?, twins: store.untold_twins(instance, limit)? })
    }

    /// Notes what the broker has said.
    fn record(&self, store: &Store) -> Result<(), StoreError> {
        if !self.landed.twins.is_empty() {
            store.twins_told(&self.landed.twins)?;
        }
        if !self.landed.messages.is_empty() {
            store.twin_messages_told(&self.landed.messages)?;
        }
        if !self.landed.is_empty() {
            crash::point("twins.noted");
        }
        Ok(())
    }
}

/// What is carried: what is told of twins.
pub struct Publisher {
    instance: String,
    metrics: Metrics,
    flights: Flights,
    /// Whether the broker has lost what it was told before.
    forgotten: bool,
}

impl Publisher {
    /// With `forgetful` the broker keeps nothing over a restart of this process.
    pub fn new(instance: String, forgetful: bool, metrics: Metrics) -> Publisher {
        Publisher { instance, metrics, flights: Flights::default(), forgotten: forgetful }
    }
}

impl Freight for Publisher {
    type Turn = Turn;
    type Subject = Subject;

    fn way(&mut self) -> &mut Way<Subject> {
        &mut self.flights.way
    }

    fn has_landed(&self) -> bool {
        self.flights.has_landed()
    }

    fn land(&mut self, subject: Subject, answer: Answer) {
        self.flights.land(subject, answer);
    }

    fn turn(&mut self, may_send: bool) -> Turn {
        Turn {
            landed: self.flights.take_landed(),
            room: if may_send { self.flights.room() } else { 0 },
            under_way: self.flights.way.len(),
            forgotten: self.forgotten,
            instance: self.instance.clone(),
        }
    }

    fn last(&mut self) -> Turn {
        Turn { landed: self.flights.take_landed(), ..Turn::default() }
    }

    fn answered(&mut self, turn: Turn, turned: Turned) -> bool {
        self.forgotten = false;
        self.metrics.twin_messages_published.inc_by(turn.landed.published);
        for reason in &turn.landed.refused {
            self.metrics.twin_publishes_refused.get_or_create(&ByReason { reason }).inc();
            tracing::warn!(reason, "the broker does not take what is told of a twin");
        }
        // What found no room is looked for as soon as there is some.
        self.flights.set_out(turned.twins, turned.messages)
    }

    fn unanswered(&mut self, error: &StoreError, retry_in: Duration) {
        self.metrics.twin_errors.inc();
        tracing::warn!(%error, ?retry_in, "the database does not serve the publisher of twins; what is to be told waits");
    }

    fn put_back(&mut self, turn: Turn) {
        self.flights.put_back(turn.landed);
    }

    fn left_unrecorded(&self) {
        tracing::warn!("what was told of twins last is not noted; the next start tells it once more");
    }
}

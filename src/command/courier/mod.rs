//! The courier: the one task that looks through new commands, sends what is due, and ends what nobody answers.
//!
//! - **Marked before it is published.** A command that is handed to the broker's connection is marked in the database first
//!   (`sending`), and `sent` once the broker has acknowledged it. What is found marked after a crash may have been sent or not: a device
//!   that tells repeats by the id gets it again, any other too, but marked `repeated`, unless its template would rather have it fail.
//! - **The database decides.** Nothing is remembered here but what is under way: whoever cancels, answers or asks changes the row, and
//!   the courier looks, as every [`Carrier`](crate::carrier::Carrier) does.

mod flights;
mod turn;

use std::time::Duration;

use tokio::sync::watch;

use crate::carrier::{Freight, Way};
use crate::config;
use crate::metrics::{ByReason, ByState, Metrics};
use crate::mqtt::Answer;
use crate::store::StoreError;
use flights::{Flights, Subject};
use turn::{Turn, Turned};

/// What is carried: commands, and what is told of them.
pub struct Courier {
    instance: String,
    settings: watch::Receiver<config::Commands>,
    metrics: Metrics,
    flights: Flights,
    /// Whether what an earlier run was sending is still to be looked after.
    restarted: bool,
    /// Whether commands may be marked as being sent that are not under way.
    unsure: bool,
}

impl Courier {
    pub fn new(instance: String, settings: watch::Receiver<config::Commands>, metrics: Metrics) -> Courier {
        Courier { instance, settings, metrics, flights: Flights::default(), restarted: true, unsure: true }
    }
}

impl Freight for Courier {
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
            notices: if may_send { self.flights.room_for_notices() } else { 0 },
            under_way: self.flights.ids(),
            told: self.flights.notices(),
            restarted: self.restarted,
            unsure: self.unsure,
            instance: self.instance.clone(),
            settings: self.settings.borrow().clone(),
        }
    }

    fn last(&mut self) -> Turn {
        Turn { landed: self.flights.take_landed(), ..Turn::default() }
    }

    fn answered(&mut self, _: Turn, turned: Turned) -> bool {
        (self.restarted, self.unsure) = (false, false);
        self.count(&turned);
        self.flights.set_out(turned.due, turned.notices);
        turned.more
    }

    fn unanswered(&mut self, error: &StoreError, retry_in: Duration) {
        self.metrics.command_errors.inc();
        tracing::warn!(%error, ?retry_in, "the database does not serve the courier of commands; what is due waits");
        // It may have marked some before.
        self.unsure = true;
    }

    fn put_back(&mut self, turn: Turn) {
        self.flights.put_back(turn.landed);
    }

    fn left_unrecorded(&self) {
        tracing::warn!("the last commands that were sent are not recorded as sent; the next start looks after them");
    }

    fn observe(&mut self) {
        self.metrics.commands_sending.set(i64::try_from(self.flights.way.len()).unwrap_or(i64::MAX));
    }
}

impl Courier {
    fn count(&self, turned: &Turned) {
        self.metrics.commands_asked.inc_by(turned.asked);
        for (state, count) in &turned.states {
            self.metrics.command_states.get_or_create(&ByState { state: state.word() }).inc_by(*count);
        }
        self.metrics.command_notices.inc_by(turned.told);
        for reason in &turned.untellable {
            self.metrics.command_notices_refused.get_or_create(&ByReason { reason }).inc();
        }
    }
}

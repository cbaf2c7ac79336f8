//! The pipeline's end of the way of alerts to the broker: never waits, loses nothing.
//!
//! Steps go over a bounded channel. Once one did not fit, it and all that follow are *deferred*: they are left to the database, which
//! gets them with their batch as unpublished, and from which the publisher takes them in order when it has caught up. So no step
//! of an alert can overtake another.
//!
//! What goes by a channel of `[[notify]]` is handed to the notifier likewise. What finds no room there is in the database too,
//! where the notifier looks for it; it need not keep any order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::transition::Transition;
use crate::message::Seq;
use crate::metrics::Metrics;
use crate::notify::Order;

/// Steps between pipeline and publisher at most.
const WAITING: usize = 4096;

/// The pipeline's end.
pub struct Announcer {
    way: mpsc::Sender<Transition>,
    deferral: Deferral,
    begun: Vec<oneshot::Sender<()>>,
    notified: Option<mpsc::Sender<Order>>,
    metrics: Metrics,
}

/// The publisher's end.
pub struct Announced {
    pub steps: mpsc::Receiver<Transition>,
    pub deferral: Deferral,
    /// Told by [`Announcer::begin`].
    pub begun: oneshot::Receiver<()>,
}

/// Both ends.
pub fn announcer(metrics: Metrics) -> (Announcer, Announced) {
    with_room(WAITING, metrics)
}

fn with_room(room: usize, metrics: Metrics) -> (Announcer, Announced) {
    let (way, steps) = mpsc::channel(room);
    let (begun, told) = oneshot::channel();
    let deferral = Deferral::default();
    let announced = Announced { steps, deferral: deferral.clone(), begun: told };
    (Announcer { way, deferral, begun: vec![begun], notified: None, metrics }, announced)
}

impl Announcer {
    /// The database has been opened and brought up to date: it can be asked for what an earlier run left unpublished.
    pub fn begin(&mut self) {
        for begun in self.begun.drain(..) {
            // Whoever waits for it may be gone.
            let _ = begun.send(());
        }
    }

    /// Has the notifier handed what it is to tell. Returns its end: the orders, and what [`Announcer::begin`] tells.
    pub fn notify(&mut self) -> (mpsc::Receiver<Order>, oneshot::Receiver<()>) {
        let (way, orders) = mpsc::channel(WAITING);
        let (begun, told) = oneshot::channel();
        self.notified = Some(way);
        self.begun.push(begun);
        (orders, told)
    }

    /// Hands over what is to be told by channels. What finds no room is recorded, and found there.
    pub fn order(&self, orders: &[Order]) {
        if let Some(way) = &self.notified {
            orders.iter().for_each(|order| drop(way.try_send(order.clone())));
        }
    }

    /// Whether steps are left to the database for now.
    pub fn is_deferring(&self) -> bool {
        self.deferral.lock().steps > 0
    }

    /// Hands steps to the publisher, in order. What does not fit is left to the database.
    pub fn announce(&self, steps: &[Transition]) {
        for step in steps {
            let mut deferred = self.deferral.lock();
            if deferred.steps > 0 || self.way.try_send(step.clone()).is_err() {
                deferred.steps = deferred.steps.saturating_add(1);
                deferred.up_to = step.seq;
                drop(deferred);
                self.metrics.alerts_deferred.inc();
            }
        }
    }
}

/// What is left to the database; clones share it.
#[derive(Clone, Default)]
pub struct Deferral(Arc<Mutex<Deferred>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deferred {
    /// How many since the publisher has caught up last; 0: the channel is in use.
    pub steps: u64,
    /// The message of the newest of them: with it committed, all are in the database.
    pub up_to: Seq,
}

impl Deferral {
    pub fn get(&self) -> Deferred {
        *self.lock()
    }

    /// Lets the channel be used again, unless more was deferred than the publisher has seen. False: there was.
    pub fn end(&self, seen: Deferred) -> bool {
        let mut deferred = self.lock();
        let caught_up = *deferred == seen;
        if caught_up {
            *deferred = Deferred::default();
        }
        caught_up
    }

    fn lock(&self) -> MutexGuard<'_, Deferred> {
        // Two numbers, whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::State;
    use crate::alert::announce::tests::step;

    #[test]
    fn after_one_that_does_not_fit_all_are_left_to_the_database_until_the_publisher_has_caught_up() {
        let metrics = Metrics::new();
        let (announcer, mut announced) = with_room(2, metrics.clone());
        let at = |number: u32| Transition { seq: number.into(), ..step("a", number, State::Firing) };
        announcer.announce(&[at(0), at(1), at(2)]);
        assert_eq!(announced.steps.try_recv().unwrap().step, 0);
        announcer.announce(&[at(3)]);
        let deferred = announced.deferral.get();
        assert_eq!(deferred, Deferred { steps: 2, up_to: 3 });
        assert_eq!(announced.steps.try_recv().unwrap().step, 1);
        assert!(announced.steps.try_recv().is_err(), "there was room, but it would have overtaken");
        announcer.announce(&[at(4)]);
        assert!(!announced.deferral.end(deferred), "one more came");
        assert!(announced.deferral.end(announced.deferral.get()));
        announcer.announce(&[at(5)]);
        assert_eq!(announced.steps.try_recv().unwrap().step, 5);
        assert_eq!(metrics.alerts_deferred.get(), 3);
    }
}

//! The publisher: the one task that tells of twins.
//!
//! - **The database decides.** What the broker lacks is found there, when the bell rings and each second, and noted there once the broker has
//!   acknowledged it. A crash between publishes once more: retained messages carry their version, answers what they answer.
//! - Of a twin only the newest state is told, however often it has changed since.
//! - While the database does not answer, what the broker has said waits to be noted.

mod flights;

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::command::bell::Bell;
use crate::crash;
use crate::metrics::{ByReason, Metrics};
use crate::mqtt::{Link, Parcel};
use crate::store::twins::{Due, Message};
use crate::store::{Store, StoreError};
use flights::{Flights, Landed};

/// How often the database is looked at though no bell rings.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at least, so that one does for many changes.
const PAUSE: Duration = Duration::from_millis(10);
/// Between attempts at a database that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long what the broker has said may take to be noted at the end.
const CLOSING: Duration = Duration::from_millis(800);

/// What the publisher is made from.
pub struct Publisher {
    pub store: Store,
    pub instance: String,
    /// To the session, or to the embedded broker.
    pub parcels: mpsc::Sender<Parcel>,
    pub link: watch::Receiver<Link>,
    pub bell: Bell,
    /// Told once the database has its schema.
    pub begun: oneshot::Receiver<()>,
    /// Whether the broker keeps nothing over a restart of this process.
    pub forgetful: bool,
    /// From then on nothing new is published.
    pub closing: CancellationToken,
    /// Set after the last commit.
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl Publisher {
    /// Works until `stop`.
    ///
    /// # Errors
    /// Never: what can't be done now is tried again, or found by the next start.
    pub async fn run(self) -> Result<(), Infallible> {
        let Publisher { store, instance, parcels, link, bell, begun, forgetful, closing, stop, metrics } = self;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // The pipeline is gone: so is the daemon, soon.
            begun = begun => if begun.is_err() { return Ok(()) },
        }
        let mut work = Work {
            store,
            instance,
            link,
            closing,
            metrics,
            flights: Flights::default(),
            question: None,
            looks: true,
            forgotten: forgetful,
            ask_at: Instant::now(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
        };
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = answered(&mut work.question) => work.hear(outcome),
                () = work.flights.land(), if work.flights.is_under_way() => {}
                permit = parcels.reserve(), if work.flights.is_ready() => match (permit, work.flights.take_ready()) {
                    (Ok(permit), Some(parcel)) => permit.send(parcel),
                    _ => work.flights.close(),
                },
                () = tokio::time::sleep_until(work.ask_at), if work.wants() => {}
                () = bell.rung() => work.looks = true,
                _ = tick.tick() => work.looks = true,
            }
            work.go_on();
        }
        work.close().await;
        Ok(())
    }
}

/// A question to the database, to be asked once more where it failed.
#[derive(Debug, Default)]
struct Turn {
    landed: Landed,
    /// How much may set out.
    room: usize,
    /// How much of what will be found is under way.
    under_way: usize,
    /// Whether the broker has lost everything.
    forgotten: bool,
}

/// The answer.
#[derive(Debug, Default)]
struct Turned {
    twins: Vec<Due>,
    messages: Vec<Message>,
}

type Answered = (Turn, Result<Turned, StoreError>);

impl Turn {
    fn take(&self, store: &Store, instance: &str) -> Result<Turned, StoreError> {
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

/// The database's answer to the question under way; pending without one.
async fn answered(question: &mut Option<JoinHandle<Answered>>) -> Answered {
    let Some(asked) = question else { return std::future::pending().await };
    let told = asked.await;
    *question = None;
    // It is not aborted, so an error is a panic in the database's room: tried again as any other failure.
    told.unwrap_or_else(|error| (Turn::default(), Err(StoreError::Unfit { detail: error.to_string() })))
}

struct Work {
    store: Store,
    instance: String,
    link: watch::Receiver<Link>,
    closing: CancellationToken,
    metrics: Metrics,
    flights: Flights,
    question: Option<JoinHandle<Answered>>,
    /// Whether there may be something to do.
    looks: bool,
    forgotten: bool,
    ask_at: Instant,
    backoff: Backoff,
}

impl Work {
    /// Whether the database is to be asked as soon as that may be.
    fn wants(&self) -> bool {
        self.question.is_none() && (self.looks || self.flights.has_landed())
    }

    /// Asks the database the next thing, if it is time.
    fn go_on(&mut self) {
        if !self.wants() || Instant::now() < self.ask_at {
            return;
        }
        self.looks = false;
        let serves = matches!(&*self.link.borrow(), Link::Up | Link::Partial { .. });
        let may_send = serves && !self.closing.is_cancelled();
        let turn = Turn {
            landed: self.flights.take_landed(),
            room: if may_send { self.flights.room() } else { 0 },
            under_way: self.flights.len(),
            forgotten: self.forgotten,
        };
        let (store, instance) = (self.store.clone(), self.instance.clone());
        self.question = Some(tokio::task::spawn_blocking(move || {
            let outcome = turn.take(&store, &instance);
            (turn, outcome)
        }));
        self.ask_at = Instant::now() + PAUSE;
    }

    fn hear(&mut self, (turn, outcome): Answered) {
        match outcome {
            Ok(turned) => {
                self.backoff.reset();
                self.forgotten = false;
                self.metrics.twin_messages_published.inc_by(turn.landed.published);
                for reason in &turn.landed.refused {
                    self.metrics.twin_publishes_refused.get_or_create(&ByReason { reason }).inc();
                    tracing::warn!(reason, "the broker does not take what is told of a twin");
                }
                // What found no room is looked for as soon as there is some.
                self.looks |= self.flights.set_out(turned.twins, turned.messages);
            }
            Err(error) => {
                self.metrics.twin_errors.inc();
                let wait = self.backoff.next_delay();
                tracing::warn!(%error, retry_in = ?wait, "the database does not serve the publisher of twins; what is to be told waits");
                self.flights.put_back(turn.landed);
                self.looks = true;
                self.ask_at = Instant::now() + wait;
            }
        }
    }

    /// Notes what the broker has said last.
    async fn close(mut self) {
        let deadline = Instant::now() + CLOSING;
        if self.question.is_some()
            && let Ok((turn, Err(_))) = tokio::time::timeout_at(deadline, answered(&mut self.question)).await
        {
            self.flights.put_back(turn.landed);
        }
        while self.flights.is_under_way() && tokio::time::timeout_at(deadline, self.flights.land()).await.is_ok() {}
        let landed = self.flights.take_landed();
        if landed.is_empty() || self.question.is_some() {
            return;
        }
        let (store, turn) = (self.store.clone(), Turn { landed, ..Turn::default() });
        let last = tokio::task::spawn_blocking(move || turn.record(&store));
        if !matches!(tokio::time::timeout_at(deadline, last).await, Ok(Ok(Ok(())))) {
            tracing::warn!("what was told of twins last is not noted; the next start tells it once more");
        }
    }
}

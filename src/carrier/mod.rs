//! The carrier: brings to the broker what the database holds for it, and to the database what the broker has said. What it is, and what is
//! to be recorded of it, is its [`Freight`]'s: commands, or what is told of twins.
//!
//! It looks when its bell rings, and each second. While the database does not answer nothing new is sent, and what the broker has said
//! waits to be recorded.

pub mod bell;
mod way;

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::mqtt::{Answer, Link, Parcel};
use crate::store::{Store, StoreError};
use bell::Bell;
pub use way::Way;

/// How often the database is looked at though no bell rings.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at least, so that one does for many changes.
const PAUSE: Duration = Duration::from_millis(10);
/// Between attempts at a database that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long what the broker has said may take to be recorded at the end.
const CLOSING: Duration = Duration::from_millis(800);

/// A question to the database, to be asked once more where it failed.
pub trait Turn: Default + Send + 'static {
    type Answer: Send + 'static;

    /// Records what the broker has said, and finds what is to be sent.
    ///
    /// # Errors
    /// The store's; what was recorded before may stay so.
    fn take(&self, store: &Store) -> Result<Self::Answer, StoreError>;

    /// Records what the broker has said, and no more.
    ///
    /// # Errors
    /// The store's.
    fn record(&self, store: &Store) -> Result<(), StoreError>;
}

/// What is carried.
pub trait Freight: Send {
    type Turn: Turn;
    type Subject: Send;

    /// What is under way.
    fn way(&mut self) -> &mut Way<Self::Subject>;

    /// Whether something is to be recorded.
    fn has_landed(&self) -> bool;

    /// Takes what the broker has said.
    fn land(&mut self, subject: Self::Subject, answer: Answer);

    /// What is to be asked next. Without `may_send` nothing new is to set out.
    fn turn(&mut self, may_send: bool) -> Self::Turn;

    /// What is to be recorded, and nothing else.
    fn last(&mut self) -> Self::Turn;

    /// The database has answered: sends what it says. True: there may be more to do at once.
    fn answered(&mut self, turn: Self::Turn, answer: <Self::Turn as Turn>::Answer) -> bool;

    /// It has not: counts and says so.
    fn unanswered(&mut self, error: &StoreError, retry_in: Duration);

    /// What could not be recorded is to be recorded again.
    fn put_back(&mut self, turn: Self::Turn);

    /// What was said last could not be recorded in time.
    fn left_unrecorded(&self);

    /// After everything that happens.
    fn observe(&mut self) {}
}

/// What a carrier is made from.
pub struct Carrier {
    pub store: Store,
    /// To the session, or to the embedded broker.
    pub parcels: mpsc::Sender<Parcel>,
    pub link: watch::Receiver<Link>,
    pub bell: Bell,
    /// Told once the database has its schema.
    pub begun: oneshot::Receiver<()>,
    /// From then on nothing new is sent.
    pub closing: CancellationToken,
    /// Set after the last commit.
    pub stop: CancellationToken,
}

impl Carrier {
    /// Works until `stop`.
    ///
    /// # Errors
    /// Never: what can't be done now is tried again, or found by the next start.
    pub async fn run<F: Freight>(self, freight: F) -> Result<(), Infallible> {
        let Carrier { store, parcels, link, bell, begun, closing, stop } = self;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // The pipeline is gone: so is the daemon, soon.
            begun = begun => if begun.is_err() { return Ok(()) },
        }
        let (ask_at, backoff) = (Instant::now(), Backoff::new(RETRY.0, RETRY.1));
        let mut work = Work { freight, store, link, closing, question: None, looks: true, ask_at, backoff };
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (is_under_way, is_ready) = (!work.freight.way().is_empty(), work.freight.way().is_ready());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = told(&mut work.question) => work.hear(outcome),
                landed = work.freight.way().land(), if is_under_way => work.land(landed),
                permit = parcels.reserve(), if is_ready => match (permit, work.freight.way().take_ready()) {
                    (Ok(permit), Some(parcel)) => permit.send(parcel),
                    _ => work.freight.way().close(),
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

type Told<T> = (T, Result<<T as Turn>::Answer, StoreError>);

/// The database's answer to the question under way; pending without one.
async fn told<T: Turn>(question: &mut Option<JoinHandle<Told<T>>>) -> Told<T> {
    let Some(asked) = question else { return std::future::pending().await };
    let told = asked.await;
    *question = None;
    // It is not aborted, so an error is a panic in the database's room: tried again as any other failure.
    told.unwrap_or_else(|error| (T::default(), Err(StoreError::Unfit { detail: error.to_string() })))
}

struct Work<F: Freight> {
    freight: F,
    store: Store,
    link: watch::Receiver<Link>,
    closing: CancellationToken,
    question: Option<JoinHandle<Told<F::Turn>>>,
    /// Whether there may be something to do.
    looks: bool,
    ask_at: Instant,
    backoff: Backoff,
}

impl<F: Freight> Work<F> {
    /// Whether the database is to be asked as soon as that may be.
    fn wants(&self) -> bool {
        self.question.is_none() && (self.looks || self.freight.has_landed())
    }

    /// Asks the database the next thing, if it is time.
    fn go_on(&mut self) {
        self.freight.observe();
        if !self.wants() || Instant::now() < self.ask_at {
            return;
        }
        self.looks = false;
        let serves = matches!(&*self.link.borrow(), Link::Up | Link::Partial { .. });
        let turn = self.freight.turn(serves && !self.closing.is_cancelled());
        let store = self.store.clone();
        self.question = Some(tokio::task::spawn_blocking(move || {
            let outcome = turn.take(&store);
            (turn, outcome)
        }));
        self.ask_at = Instant::now() + PAUSE;
    }

    fn hear(&mut self, (turn, outcome): Told<F::Turn>) {
        match outcome {
            Ok(answer) => {
                self.backoff.reset();
                self.looks |= self.freight.answered(turn, answer);
            }
            Err(error) => {
                let wait = self.backoff.next_delay();
                self.freight.unanswered(&error, wait);
                self.freight.put_back(turn);
                self.looks = true;
                self.ask_at = Instant::now() + wait;
            }
        }
    }

    fn land(&mut self, landed: Vec<(F::Subject, Answer)>) {
        for (subject, answer) in landed {
            self.freight.land(subject, answer);
        }
    }

    /// Records what the broker has said last.
    async fn close(mut self) {
        let deadline = Instant::now() + CLOSING;
        if self.question.is_some()
            && let Ok((turn, Err(_))) = tokio::time::timeout_at(deadline, told(&mut self.question)).await
        {
            self.freight.put_back(turn);
        }
        while !self.freight.way().is_empty()
            && let Ok(landed) = tokio::time::timeout_at(deadline, self.freight.way().land()).await
        {
            self.land(landed);
        }
        match (self.freight.has_landed(), &self.question) {
            (false, _) => return,
            // The database still owes the answer before.
            (true, Some(_)) => return self.freight.left_unrecorded(),
            (true, None) => {}
        }
        let (store, turn) = (self.store.clone(), self.freight.last());
        let last = tokio::task::spawn_blocking(move || turn.record(&store));
        if !matches!(tokio::time::timeout_at(deadline, last).await, Ok(Ok(Ok(())))) {
            self.freight.left_unrecorded();
        }
    }
}

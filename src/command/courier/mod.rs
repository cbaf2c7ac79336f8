//! The courier: the one task that looks through new commands, sends what is due, and ends what nobody answers.
//!
//! - **Marked before it is published.** A command that is handed to the broker's connection is marked in the database first
//!   (`sending`), and `sent` once the broker has acknowledged it. What is found marked after a crash may have been sent or not: a device
//!   that tells repeats by the id gets it again, any other too, but marked `repeated`, unless its template would rather have it fail.
//! - **The database decides.** Nothing is remembered here but what is under way: whoever cancels, answers or asks changes the row, and
//!   the courier looks: when the bell rings, and each second.
//! - While the database does not answer nothing new is sent, and what the broker has said waits to be recorded.

mod flights;
mod turn;

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::bell::Bell;
use crate::backoff::Backoff;
use crate::config;
use crate::metrics::{ByReason, ByState, Metrics};
use crate::mqtt::{Link, Parcel};
use crate::store::{Store, StoreError};
use flights::Flights;
use turn::{Turn, Turned};

/// How often the database is looked at though no bell rings.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at least, so that one does for many commands.
const PAUSE: Duration = Duration::from_millis(10);
/// Between attempts at a database that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long what the broker has said may take to be recorded at the end.
const CLOSING: Duration = Duration::from_millis(800);

/// What the courier is made from.
pub struct Courier {
    pub store: Store,
    pub instance: String,
    pub settings: watch::Receiver<config::Commands>,
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
    pub metrics: Metrics,
}

impl Courier {
    /// Works until `stop`.
    ///
    /// # Errors
    /// Never: what can't be done now is tried again, or found by the next start.
    pub async fn run(self) -> Result<(), Infallible> {
        let Courier { store, instance, settings, parcels, link, bell, begun, closing, stop, metrics } = self;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // The pipeline is gone: so is the daemon, soon.
            begun = begun => if begun.is_err() { return Ok(()) },
        }
        let mut work = Work {
            store,
            instance,
            settings,
            link,
            closing,
            metrics,
            flights: Flights::default(),
            question: None,
            looks: true,
            restarted: true,
            unsure: true,
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

/// The database's answer to the question under way; pending without one.
async fn answered(question: &mut Option<JoinHandle<Answered>>) -> Answered {
    let Some(asked) = question else { return std::future::pending().await };
    let told = asked.await;
    *question = None;
    // It is not aborted, so an error is a panic in the database's room: tried again as any other failure.
    told.unwrap_or_else(|error| (Turn::default(), Err(StoreError::Unfit { detail: error.to_string() })))
}

/// What was asked, to be asked once more where it failed, and the answer.
type Answered = (Turn, Result<Turned, StoreError>);

struct Work {
    store: Store,
    instance: String,
    settings: watch::Receiver<config::Commands>,
    link: watch::Receiver<Link>,
    closing: CancellationToken,
    metrics: Metrics,
    flights: Flights,
    question: Option<JoinHandle<Answered>>,
    /// Whether there may be something to do.
    looks: bool,
    /// Whether what an earlier run was sending is still to be looked after.
    restarted: bool,
    /// Whether commands may be marked as being sent that are not under way.
    unsure: bool,
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
        let sending = i64::try_from(self.flights.len()).unwrap_or(i64::MAX);
        self.metrics.commands_sending.set(sending);
        if !self.wants() || Instant::now() < self.ask_at {
            return;
        }
        self.looks = false;
        let serves = matches!(&*self.link.borrow(), Link::Up | Link::Partial { .. });
        let may_send = serves && !self.closing.is_cancelled();
        let turn = Turn {
            landed: self.flights.take_landed(),
            room: if may_send { self.flights.room() } else { 0 },
            notices: if may_send { self.flights.room_for_notices() } else { 0 },
            under_way: self.flights.ids(),
            told: self.flights.notices(),
            restarted: self.restarted,
            unsure: self.unsure,
        };
        let (store, instance, settings) = (self.store.clone(), self.instance.clone(), self.settings.borrow().clone());
        self.question = Some(tokio::task::spawn_blocking(move || {
            let outcome = turn.take(&store, &instance, &settings);
            (turn, outcome)
        }));
        self.ask_at = Instant::now() + PAUSE;
    }

    fn hear(&mut self, (turn, outcome): Answered) {
        match outcome {
            Ok(turned) => {
                self.backoff.reset();
                (self.restarted, self.unsure) = (false, false);
                self.looks |= turned.more;
                self.count(&turned);
                self.flights.set_out(turned.due, turned.notices);
            }
            Err(error) => {
                self.metrics.command_errors.inc();
                let wait = self.backoff.next_delay();
                tracing::warn!(%error, retry_in = ?wait, "the database does not serve the courier of commands; what is due waits");
                self.flights.put_back(turn.landed);
                // It may have marked some before.
                (self.unsure, self.looks) = (true, true);
                self.ask_at = Instant::now() + wait;
            }
        }
    }

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

    /// Records what the broker has said last.
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
        if !matches!(tokio::time::timeout_at(deadline, last).await, Ok(Ok(Ok(_)))) {
            tracing::warn!(
                "the last commands that were sent are not recorded as sent; the next start looks after them"
            );
        }
    }
}

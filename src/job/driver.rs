//! The driver: the one task that advances jobs.
//!
//! Nothing is remembered here: what is to be done is in the database, and each step is one transaction. So a crash at any moment leaves
//! a job as it was before a step or after it. The driver looks when its bell rings, and by itself: more often while there are jobs, but
//! never so often that it keeps the database busy.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::state::ExecutionState;
use crate::backoff::Backoff;
use crate::carrier::bell::Bell;
use crate::clock;
use crate::command::State;
use crate::config;
use crate::crash;
use crate::metrics::{ByState, Metrics};
use crate::store::{Store, StoreError};

/// How often the database is looked at where there is no job.
const IDLE: Duration = Duration::from_secs(1);
/// How often it is looked at where there is one, unless a look takes longer than an eighth of that.
const LOOK: Duration = Duration::from_millis(250);
const SHARE: u32 = 8;
/// Between two steps where there is more to do at once.
const PAUSE: Duration = Duration::from_millis(10);
/// Between attempts at a database that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How long a step may go on at the end.
const CLOSING: Duration = Duration::from_millis(800);
/// Commands that are ready to be sent and are not: with so many of them nothing begins, since looking through them costs the courier
/// more the more there are.
const BACKLOG: u64 = 1000;
/// How soon it is looked again whether there is room for more of them.
const HELD: Duration = Duration::from_millis(50);

/// What the driver is made from.
pub struct Driver {
    pub store: Store,
    pub instance: String,
    pub settings: watch::Receiver<config::Commands>,
    pub bell: Bell,
    /// Rung when there are commands to send.
    pub courier: Bell,
    /// Told once the database has its schema.
    pub begun: oneshot::Receiver<()>,
    /// From then on nothing begins.
    pub closing: CancellationToken,
    /// Set after the last commit.
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

/// What a look has come to.
#[derive(Debug, Default)]
struct Look {
    open: usize,
    states: Vec<(ExecutionState, u64)>,
    commands: u64,
    more: bool,
    /// Whether more would begin if there were room.
    held: bool,
}

impl Driver {
    /// Works until `stop`.
    ///
    /// # Errors
    /// Never: what can't be done now is tried again, or found by the next start.
    pub async fn run(mut self) -> Result<(), Infallible> {
        tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            // The pipeline is gone: so is the daemon, soon.
            begun = &mut self.begun => if begun.is_err() { return Ok(()) },
        }
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let begun = Instant::now();
            let Some((look, outcome)) = self.look().await else { return Ok(()) };
            look.count(&self.metrics);
            if look.commands > 0 {
                self.courier.ring();
            }
            let wait = match outcome {
                Ok(()) => {
                    backoff.reset();
                    self.metrics.jobs_active.set(i64::try_from(look.open).unwrap_or(i64::MAX));
                    look.wait(begun.elapsed())
                }
                Err(error) => {
                    self.metrics.job_errors.inc();
                    let wait = backoff.next_delay();
                    tracing::warn!(%error, retry_in = ?wait, "the database does not serve the driver of jobs; they wait");
                    wait
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
                () = self.rung() => {}
            }
        }
    }

    /// A look at all jobs, where it holds nobody up; none where the daemon ends.
    async fn look(&self) -> Option<(Look, Result<(), StoreError>)> {
        let may_begin = !self.closing.is_cancelled();
        let (store, instance, settings) = (self.store.clone(), self.instance.clone(), self.settings.borrow().clone());
        let mut step = tokio::task::spawn_blocking(move || {
            let mut look = Look::default();
            let outcome = look.take(&store, &instance, &settings, may_begin);
            (look, outcome)
        });
        tokio::select! {
            biased;
            // A panic in the database's room is tried again as any other failure.
            told = &mut step => Some(told.unwrap_or_else(|error| {
                (Look::default(), Err(StoreError::Unfit { detail: error.to_string() }))
            })),
            () = self.stop.cancelled() => {
                // Its transaction is whole, or nothing of it is: one that takes longer is as good as a crash.
                let _ = tokio::time::timeout(CLOSING, step).await;
                None
            }
        }
    }

    /// Pending until the bell is rung, and not so soon that a bell which rings all the time has it look all the time.
    async fn rung(&self) {
        tokio::time::sleep(PAUSE).await;
        self.bell.rung().await;
    }
}

impl Look {
    /// Advances each job by a step. One that fails keeps none of the others up, unless the database is away.
    fn take(
        &mut self,
        store: &Store,
        instance: &str,
        settings: &config::Commands,
        may_begin: bool,
    ) -> Result<(), StoreError> {
        let jobs = store.open_jobs(instance)?;
        self.open = jobs.len();
        let mut room = (!may_begin).then_some(0);
        let mut failed = None;
        for job in jobs {
            match self.advance(store, (&job, instance), settings, &mut room) {
                Ok(()) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// `room`: for commands that may be made; none: nobody has looked yet.
    fn advance(
        &mut self,
        store: &Store,
        (job, instance): (&str, &str),
        settings: &config::Commands,
        room: &mut Option<u64>,
    ) -> Result<(), StoreError> {
        let now = clock::now();
        if !store.job_is_due(job, room.unwrap_or(BACKLOG), now)? {
            return Ok(());
        }
        let left = match *room {
            Some(left) => left,
            None => BACKLOG.saturating_sub(store.commands_to_send(instance, BACKLOG, now)?),
        };
        *room = Some(left);
        // What is due may have been that something begins.
        if left == 0 && !store.job_is_due(job, left, now)? {
            self.held = true;
            return Ok(());
        }
        let advanced = store.advance_job(job, instance, settings, left, now)?;
        crash::point("jobs.advanced");
        *room = Some(left.saturating_sub(advanced.commands));
        self.states.extend(advanced.states);
        self.commands = self.commands.saturating_add(advanced.commands);
        self.more |= advanced.more;
        self.held |= advanced.commands > 0 && advanced.commands == left;
        Ok(())
    }

    fn count(&self, metrics: &Metrics) {
        for (state, count) in &self.states {
            metrics.job_executions.get_or_create(&ByState { state: state.word() }).inc_by(*count);
        }
        metrics.commands_asked.inc_by(self.commands);
        metrics.command_states.get_or_create(&ByState { state: State::Queued.word() }).inc_by(self.commands);
    }

    /// Until the next look.
    fn wait(&self, took: Duration) -> Duration {
        match self {
            Look { more: true, .. } => PAUSE,
            Look { held: true, .. } => HELD,
            Look { open: 0, .. } => IDLE,
            _ => LOOK.max(took.saturating_mul(SHARE)),
        }
    }
}

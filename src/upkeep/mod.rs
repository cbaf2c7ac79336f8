//! The thread that looks after what is stored: chores that run by the clock, one at a time, each in small steps.

pub mod checkpoint;
mod chores;
pub mod compression;
mod exposition;
mod figures;
pub mod partitions;
pub mod retention;
pub mod rollups;
mod sqlite;
pub mod status;

pub use chores::chores;
pub use figures::Figures;
pub use sqlite::SqliteCare;

use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backoff::{self, Backoff};
use crate::clock;
use crate::metrics::{ByChore, Metrics};
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// Between attempts at a chore that failed, at least and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often the thread looks for what is due.
const LOOK: Duration = Duration::from_millis(500);

/// Something that is to be done to the database from time to time.
pub trait Chore: Send {
    /// In the log and as the label of metrics.
    fn name(&self) -> &'static str;

    /// Does one step, which should take seconds at most, so that others and a stop get their turn.
    ///
    /// # Errors
    /// The store's; the chore is tried again later.
    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError>;
}

/// When a chore wants its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do.
    AtOnce,
    At(UtcMicros),
}

struct Planned {
    chore: Box<dyn Chore>,
    due: UtcMicros,
    backoff: Backoff,
}

/// The chores and their times.
pub struct Upkeep {
    store: Store,
    planned: Vec<Planned>,
    stop: CancellationToken,
    metrics: Metrics,
}

impl Upkeep {
    /// Every chore is due at once.
    pub fn new(store: Store, chores: Vec<Box<dyn Chore>>, stop: CancellationToken, metrics: Metrics) -> Upkeep {
        let planned = chores.into_iter().map(|chore| {
            let backoff = Backoff::new(RETRY.0, RETRY.1);
            Planned { chore, due: UtcMicros(i64::MIN), backoff }
        });
        Upkeep { store, planned: planned.collect(), stop, metrics }
    }

    /// Waits until the database has its schema, which `opened` tells, and runs until told to stop. A chore that fails is
    /// counted, said, and tried again; it holds up no other.
    ///
    /// # Errors
    /// None; the signature is that of every thread of the daemon.
    pub fn run(mut self, opened: &Receiver<()>) -> Result<(), StoreError> {
        if opened.recv().is_err() {
            return Ok(());
        }
        while !self.stop.is_cancelled() {
            let mut busy = false;
            for planned in &mut self.planned {
                let now = clock::now();
                if planned.due <= now && !self.stop.is_cancelled() {
                    planned.due = step(planned, &self.store, now, &self.metrics);
                    busy |= planned.due <= now;
                }
            }
            if !busy {
                backoff::pause(LOOK, &self.stop);
            }
        }
        Ok(())
    }
}

/// One step of a chore that is due; returns when the next one is.
fn step(planned: &mut Planned, store: &Store, now: UtcMicros, metrics: &Metrics) -> UtcMicros {
    let chore = planned.chore.name();
    match planned.chore.step(store, now) {
        Ok(next) => {
            planned.backoff.reset();
            metrics.upkeep_steps.get_or_create(&ByChore { chore }).inc();
            match next {
                Next::AtOnce => now,
                Next::At(due) => due,
            }
        }
        Err(error) => {
            let wait = planned.backoff.next_delay();
            metrics.upkeep_errors.get_or_create(&ByChore { chore }).inc();
            tracing::warn!(chore, %error, retry_in = ?wait, "a chore of upkeep failed; it is tried again");
            clock::now().checked_add(wait).unwrap_or(now)
        }
    }
}

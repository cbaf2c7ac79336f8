//! What the journal hears from the writer, and what it says of itself.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Inbox;
use super::tail::Tail;
use crate::clock;
use crate::message::Seq;
use crate::metrics::Metrics;
use crate::time::UtcMicros;

/// How far the database has the journal; clones share it.
#[derive(Clone)]
pub struct Progress {
    committed: Arc<AtomicU64>,
    /// When the oldest message that the database lacks was received, as far as it is known.
    oldest: Arc<Mutex<Option<UtcMicros>>>,
    tail: Arc<Tail>,
    inbox: Inbox,
    metrics: Metrics,
}

impl Progress {
    pub(super) fn new(tail: Arc<Tail>, inbox: Inbox, metrics: Metrics) -> Progress {
        Progress { committed: Arc::default(), oldest: Arc::default(), tail, inbox, metrics }
    }

    /// Everything up to and with `seq` is committed to the database, so the journal may let it go. A position
    /// behind one that was reported already changes nothing.
    pub fn committed(&self, seq: Seq) {
        let mut oldest = self.oldest();
        let before = self.committed.fetch_max(seq, Ordering::SeqCst);
        let position = before.max(seq);
        match self.tail.get(position.saturating_add(1)) {
            Some(message) => *oldest = Some(message.received_at),
            None if position >= self.tail.last() => *oldest = None,
            // On the disk only: the writer tells it with its next batch.
            None => {}
        }
        drop(oldest);
        if seq > before {
            self.inbox.nudge();
        }
        self.measure();
    }

    /// The writer is about to commit a batch whose oldest message was received at this instant.
    pub fn in_hand(&self, received_at: UtcMicros) {
        *self.oldest() = Some(received_at);
    }

    /// The position reported last; 0 before the first report.
    pub fn position(&self) -> Seq {
        self.committed.load(Ordering::SeqCst)
    }

    /// The newest durable message; 0 in an empty journal.
    pub fn last(&self) -> Seq {
        self.tail.last()
    }

    /// Messages that the database lacks.
    pub fn behind(&self) -> u64 {
        self.last().saturating_sub(self.position())
    }

    /// Brings the metrics of the lag up to now: its age grows though nothing happens.
    pub fn measure(&self) {
        self.metrics.journal_lag_messages.set(i64::try_from(self.behind()).unwrap_or(i64::MAX));
        let age = self.oldest().map_or(0, |oldest| clock::now().since(oldest).as_secs());
        self.metrics.journal_lag_seconds.set(i64::try_from(age).unwrap_or(i64::MAX));
    }

    /// A group has become durable, whose first message was received at this instant.
    pub(super) fn appended(&self, received_at: UtcMicros) {
        let mut oldest = self.oldest();
        if oldest.is_none() && self.behind() > 0 {
            *oldest = Some(received_at);
        }
        drop(oldest);
        self.measure();
    }

    fn oldest(&self) -> MutexGuard<'_, Option<UtcMicros>> {
        // One word, whole at any time.
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the journal takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Working,
    /// At its size limit with nothing left to trim: it waits for the database.
    Full,
    /// Writes fail; it tries again.
    Failing,
    /// Its thread has ended.
    Ended,
}

/// The journal's state, for those who ask whether it is well; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    pub(super) fn new() -> Health {
        Health(Arc::new(AtomicU8::new(State::Working as u8)))
    }

    pub(super) fn set(&self, state: State) {
        self.0.store(state as u8, Ordering::SeqCst);
    }

    /// The state now.
    pub fn state(&self) -> State {
        let state = self.0.load(Ordering::SeqCst);
        [State::Working, State::Full, State::Failing]
            .into_iter()
            .find(|known| *known as u8 == state)
            .unwrap_or(State::Ended)
    }
}

/// How long after it was told that the journal is full it is told again.
const FULL_AGAIN: Duration = Duration::from_secs(30);

/// What the log was told of the journal's states. At its limit, under load, it is full and not full many times a second.
#[derive(Default)]
pub(super) struct Told {
    full: Option<Instant>,
    /// Whether the end of being full is to be told.
    awaits_room: bool,
}

impl Told {
    /// A state begins, or goes on. `max_size`: of the journal, bytes.
    pub fn tell(&mut self, before: State, now: State, max_size: u64) {
        match now {
            State::Full if self.full.is_none_or(|told| told.elapsed() >= FULL_AGAIN) => {
                self.full = Some(Instant::now());
                self.awaits_room = true;
                tracing::warn!(
                    max_size,
                    "the journal is full: nothing is acknowledged until the database has taken some of it; see that the \
                     database answers, or raise journal.max_size"
                );
            }
            State::Working if before == State::Failing || std::mem::take(&mut self.awaits_room) => {
                tracing::info!(?before, "the journal takes messages again");
            }
            State::Working | State::Full | State::Failing | State::Ended => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_at_its_limit_is_told_once_and_so_is_its_end() {
        let mut told = Told::default();
        told.tell(State::Working, State::Full, 1);
        let first = told.full;
        assert!(first.is_some() && told.awaits_room);
        told.tell(State::Full, State::Working, 1);
        told.tell(State::Working, State::Full, 1);
        assert_eq!((told.full, told.awaits_room), (first, false), "so soon after the first it is no news");
        told.full = first.and_then(|at| at.checked_sub(FULL_AGAIN));
        told.tell(State::Full, State::Full, 1);
        assert!(told.full > first && told.awaits_room, "it has been full for long");
    }
}

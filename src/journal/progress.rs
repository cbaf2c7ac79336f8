//! What the journal hears from the writer, and what it says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Inbox;
use super::tail::Tail;
use crate::message::Seq;
use crate::metrics::Metrics;

/// How far the database has the journal; clones share it.
#[derive(Clone)]
pub struct Progress {
    committed: Arc<AtomicU64>,
    tail: Arc<Tail>,
    inbox: Inbox,
    metrics: Metrics,
}

impl Progress {
    pub(super) fn new(tail: Arc<Tail>, inbox: Inbox, metrics: Metrics) -> Progress {
        Progress { committed: Arc::new(AtomicU64::new(0)), tail, inbox, metrics }
    }

    /// Everything up to and with `seq` is committed to the database, so the journal may let it go. A position
    /// behind one that was reported already changes nothing.
    pub fn committed(&self, seq: Seq) {
        let before = self.committed.fetch_max(seq, Ordering::SeqCst);
        if seq > before {
            self.inbox.nudge();
        }
        self.measure_lag();
    }

    /// The position reported last; 0 before the first report.
    pub fn position(&self) -> Seq {
        self.committed.load(Ordering::SeqCst)
    }

    pub(super) fn measure_lag(&self) {
        let lag = self.tail.last().saturating_sub(self.position());
        self.metrics.journal_lag_messages.set(i64::try_from(lag).unwrap_or(i64::MAX));
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

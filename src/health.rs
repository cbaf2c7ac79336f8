//! Whether a device's message would be taken right now.

use serde::Serialize;
use tokio::sync::watch;

use crate::journal::{self, State};
use crate::metrics::Metrics;
use crate::mqtt::Link;

/// Reads the state that the other rooms publish; clones share it.
#[derive(Clone)]
pub struct Health {
    broker: watch::Receiver<Link>,
    journal: journal::Health,
    progress: journal::Progress,
    metrics: Metrics,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    /// `up`, or what is wrong.
    pub broker: String,
    /// `writable`, `full`, `failing` or `ended`.
    pub journal: &'static str,
    /// `up` or `down`; not needed to be ready.
    pub database: &'static str,
}

impl Health {
    pub fn new(
        broker: watch::Receiver<Link>,
        journal: journal::Health,
        progress: journal::Progress,
        metrics: Metrics,
    ) -> Health {
        Health { broker, journal, progress, metrics }
    }

    /// Brings the metrics that move by themselves up to now.
    pub fn measure(&self) {
        self.progress.measure();
    }

    /// The state at this moment.
    pub fn report(&self) -> Report {
        let broker = self.broker.borrow().to_string();
        let connected = self.broker.borrow().is_up();
        let journal = match self.journal.state() {
            State::Working => "writable",
            State::Full => "full",
            State::Failing => "failing",
            State::Ended => "ended",
        };
        let database = if self.metrics.database_connected.get() != 0 { "up" } else { "down" };
        Report { ready: connected && journal == "writable", broker, journal, database }
    }
}

//! Whether a device's message would be taken right now.

use serde::Serialize;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::mqtt::Link;

/// Reads the state that the other rooms publish; clones share it.
#[derive(Clone)]
pub struct Health {
    broker: watch::Receiver<Link>,
    metrics: Metrics,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    /// `up`, or what is wrong.
    pub broker: String,
    /// `writable`, `full` or `failing`.
    pub journal: &'static str,
    /// `up` or `down`; not needed to be ready.
    pub database: &'static str,
}

impl Health {
    pub fn new(broker: watch::Receiver<Link>, metrics: Metrics) -> Health {
        Health { broker, metrics }
    }

    /// The state at this moment.
    pub fn report(&self) -> Report {
        let broker = self.broker.borrow().to_string();
        let connected = self.broker.borrow().is_up();
        let journal = if self.metrics.journal_full.get() != 0 {
            "full"
        } else if self.metrics.journal_failing.get() != 0 {
            "failing"
        } else {
            "writable"
        };
        let database = if self.metrics.database_connected.get() != 0 { "up" } else { "down" };
        Report { ready: connected && journal == "writable", broker, journal, database }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_the_broker_and_the_journal_but_not_the_database() {
        let metrics = Metrics::new();
        let (broker, receiver) = watch::channel(Link::Connecting);
        let health = Health::new(receiver, metrics.clone());
        assert_eq!(health.report().broker, "connecting");
        assert!(!health.report().ready);

        broker.send(Link::Up).unwrap();
        assert!(health.report().ready);
        assert_eq!(health.report().database, "down");

        metrics.journal_full.set(1);
        assert_eq!(health.report().journal, "full");
        assert!(!health.report().ready);
    }
}

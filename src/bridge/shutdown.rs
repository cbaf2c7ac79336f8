//! The daemon's end, in stages.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Bridge, BridgeError};
use crate::supervise::Exit;

/// How long the broker may take to hear the last acknowledgements and the farewell: a little more than the session allows it.
const FAREWELL: Duration = Duration::from_secs(12);
/// What a commit under way gets once the drain deadline has passed.
const LAST_COMMIT: Duration = Duration::from_secs(5);

/// The stages of a shutdown, in order.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// No message is taken any more.
    pub intake: CancellationToken,
    /// A database that does not answer is not waited for.
    pub waiting: CancellationToken,
    /// What is not yet committed stays in the journal.
    pub draining: CancellationToken,
    pub http: CancellationToken,
    /// Not a stage: set by a writer that another tidegate has fenced off.
    pub fenced: CancellationToken,
}

impl Bridge {
    /// Stops in stages: intake, journal, pipeline and writer up to `instance.drain_timeout`, HTTP.
    ///
    /// # Errors
    /// When a worker failed on the way. Messages left in the journal are no error: the next start goes on with them.
    pub async fn stop(mut self) -> Result<(), BridgeError> {
        let deadline = Instant::now() + self.config.instance.drain_timeout;
        let mut exits = Vec::new();
        self.stop.intake.cancel();
        let intake = ["broker session", "host state", "embedded broker", "deafness"];
        let (ended, late) = self.crew.wait_for(&intake, Instant::now() + FAREWELL).await;
        exits.extend(ended);
        warn_late(&late);

        self.inbox.close();
        drop(self.requests);
        self.stop.waiting.cancel();
        let threads = ["journal", "catalog", "pipeline", "writer", "upkeep", "command ear"];
        let (ended, late) = self.crew.wait_for(&threads, deadline).await;
        exits.extend(ended);
        if !late.is_empty() {
            tracing::warn!("the drain deadline has passed; what is left stays in the journal for the next start");
            self.stop.draining.cancel();
            let (ended, late) = self.crew.wait_for(&threads, Instant::now() + LAST_COMMIT).await;
            exits.extend(ended);
            warn_late(&late);
        }

        self.stop.http.cancel();
        let last = ["http", "unanswered", "alert publisher", "notifier", "courier", "twins", "jobs"];
        let (ended, _) = self.crew.wait_for(&last, Instant::now() + Duration::from_secs(1)).await;
        exits.extend(ended);
        first_failure(exits)
    }
}

fn warn_late(names: &[&'static str]) {
    for name in names {
        tracing::warn!(name, "did not end in time");
    }
}

fn first_failure(exits: Vec<Exit>) -> Result<(), BridgeError> {
    for exit in exits {
        if let Err(why) = exit.outcome {
            return Err(BridgeError::Worker { name: exit.name, why });
        }
    }
    Ok(())
}

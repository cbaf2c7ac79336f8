//! Keeps SQLite's write-ahead log short, off the writer's path.

use std::time::Duration;

use super::{Chore, Next};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// The log is moved into the database from this size on, bytes: large enough that a page which many commits write is moved once.
const BOUND: u64 = 16 << 20;
/// At this size it is no longer only late, bytes.
const ALARM: u64 = 256 << 20;
/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The chore; for SQLite only.
pub struct CheckpointLog {
    warned: Option<UtcMicros>,
    metrics: Metrics,
}

impl CheckpointLog {
    pub fn new(metrics: Metrics) -> CheckpointLog {
        CheckpointLog { warned: None, metrics }
    }
}

impl Chore for CheckpointLog {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let done = store.checkpoint(BOUND)?;
        self.metrics.sqlite_log_size.set(i64::try_from(done.bytes).unwrap_or(i64::MAX));
        if done.bytes > ALARM && self.warned.is_none_or(|warned| now.since(warned) >= WARN_EVERY) {
            self.warned = Some(now);
            tracing::warn!(
                bytes = done.bytes,
                held_by_reader = done.held,
                "SQLite's write-ahead log grows: a program that reads the database does not end its transaction; end that program"
            );
        }
        Ok(Next::At(now.checked_add(EVERY).unwrap_or(now)))
    }
}

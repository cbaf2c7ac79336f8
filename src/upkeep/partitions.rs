//! Makes the days to come, so that the writer never waits for a partition.

use std::time::Duration;

use super::{Chore, Next};
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Days ahead of what `time.max_future` lets in: an upkeep that fails over a long weekend is made up for.
const AHEAD: Duration = Duration::from_secs(4 * 24 * 3600);
/// Most days made ahead, however large `time.max_future` is; the writer makes what is further away when it comes.
const MOST: usize = 32;
const AGAIN: Duration = Duration::from_secs(3600);

/// The chore.
pub struct Partitions {
    max_future: Duration,
    warned: Option<UtcMicros>,
}

impl Partitions {
    /// For readings up to `max_future` ahead of the clock.
    pub fn new(max_future: Duration) -> Partitions {
        Partitions { max_future, warned: None }
    }

    /// A query that locks more tables than the server has room for fails: told before it is so far.
    fn look_at_locks(&mut self, store: &Store, now: UtcMicros) -> Result<(), StoreError> {
        let lately = self.warned.is_some_and(|at| now.since(at) < DAY);
        if let Some((needed, room)) = store.partition_locks()?
            && needed > room / 2
            && !lately
        {
            self.warned = Some(now);
            tracing::warn!(
                needed,
                room,
                "there are so many partitions that a query of readings without a time range takes more than half of the \
                 server's locks; raise max_locks_per_transaction in postgresql.conf, or set [retention] raw and text"
            );
        }
        Ok(())
    }
}

impl Chore for Partitions {
    fn name(&self) -> &'static str {
        "partitions"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let to = self.max_future.checked_add(AHEAD).and_then(|ahead| now.checked_add(ahead)).unwrap_or(now);
        store.make_partitions(now, to, MOST)?;
        self.look_at_locks(store, now)?;
        Ok(Next::At(now.checked_add(AGAIN).unwrap_or(now)))
    }
}

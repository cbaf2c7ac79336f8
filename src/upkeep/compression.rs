//! Compresses old days where TimescaleDB can. A chore rather than TimescaleDB's own policy: its background jobs may be off, and
//! here it is counted and told like the rest.

use std::time::Duration;

use super::{Chore, Next};
use crate::metrics::Metrics;
use crate::store::layout::{Compressed, ReadingTable};
use crate::store::{Store, StoreError};
use crate::time::UtcMicros;

/// Between two looks for days that have come of age.
const AGAIN: Duration = Duration::from_secs(3600);
/// Between two looks for compressed days that late readings have come into: a day is compressed anew as a whole.
const LATE_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The chore. A step compresses one chunk.
pub struct Compression {
    after: Duration,
    /// The chunk that the last step took; none at the beginning of a round.
    last: Option<(UtcMicros, ReadingTable)>,
    /// Whether the round is about days with late readings.
    late: bool,
    late_due: UtcMicros,
    metrics: Metrics,
}

impl Compression {
    /// For days that ended longer than `after` ago.
    pub fn new(after: Duration, metrics: Metrics) -> Compression {
        Compression { after, last: None, late: false, late_due: UtcMicros(i64::MIN), metrics }
    }
}

impl Chore for Compression {
    fn name(&self) -> &'static str {
        "compression"
    }

    fn step(&mut self, store: &Store, now: UtcMicros) -> Result<Next, StoreError> {
        let again = Next::At(now.checked_add(AGAIN).unwrap_or(now));
        let Some(before) = now.checked_sub(self.after) else { return Ok(again) };
        match store.compress_next(self.last, before, self.late)? {
            Compressed::Chunk(table, part) => {
                // Onwards in any case, so that a chunk which late readings keep coming into is taken once a round.
                self.last = Some((part.span.from, table));
                self.metrics.chunks_compressed.inc();
                tracing::debug!(table = table.name(), span = %part.span, late = self.late, "readings compressed");
                Ok(Next::AtOnce)
            }
            Compressed::NothingLeft => {
                self.last = None;
                self.late = !self.late && self.late_due <= now;
                if self.late {
                    self.late_due = now.checked_add(LATE_AGAIN).unwrap_or(now);
                    return Ok(Next::AtOnce);
                }
                Ok(again)
            }
            Compressed::NotThere => Ok(Next::At(now.checked_add(LATE_AGAIN).unwrap_or(now))),
        }
    }
}

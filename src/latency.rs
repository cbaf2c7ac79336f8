//! Durations recorded by one room and read as percentiles by another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Percentiles of durations from 1 µs to 10 minutes, to 1 %; clones share it. About 40 KiB.
#[derive(Clone)]
pub struct LatencyRecorder {
    histogram: Arc<Mutex<Histogram<u64>>>,
}

impl LatencyRecorder {
    const LONGEST_MICROS: u64 = 600_000_000;
    const DIGITS: u8 = 2;

    pub fn new() -> LatencyRecorder {
        // The bounds are constants that it accepts; the other arm only spares a panic.
        let histogram = Histogram::new_with_bounds(1, Self::LONGEST_MICROS, Self::DIGITS)
            .or_else(|_| Histogram::new(Self::DIGITS))
            .unwrap_or_else(|_| unreachable!("constant bounds"));
        LatencyRecorder { histogram: Arc::new(Mutex::new(histogram)) }
    }

    /// Adds one; longer than ten minutes counts as ten.
    pub fn record(&self, duration: Duration) {
        self.record_n(duration, 1);
    }

    /// Adds the same duration `count` times: a batch's, for each of its messages.
    pub fn record_n(&self, duration: Duration, count: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).clamp(1, Self::LONGEST_MICROS);
        self.lock().saturating_record_n(micros, count);
    }

    /// The duration that `share` (0 to 1) of those recorded do not exceed; none: nothing was recorded.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let histogram = self.lock();
        (!histogram.is_empty()).then(|| Duration::from_micros(histogram.value_at_quantile(share)))
    }

    /// The 99th percentile since the last call, and starts anew.
    pub fn p99_and_reset(&self) -> Option<Duration> {
        let p99 = self.quantile(0.99);
        self.lock().reset();
        p99
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        // Counts are whole between any two statements that can panic.
        self.histogram.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for LatencyRecorder {
    fn default() -> Self {
        LatencyRecorder::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_p99_is_of_what_came_since_the_last_one() {
        let recorder = LatencyRecorder::new();
        assert_eq!(recorder.p99_and_reset(), None);
        recorder.record_n(Duration::from_millis(1), 980);
        recorder.record_n(Duration::from_secs(3), 20);
        let p99 = recorder.p99_and_reset().unwrap();
        assert!(p99 >= Duration::from_millis(2990) && p99 <= Duration::from_millis(3030), "{p99:?}");
        assert_eq!(recorder.p99_and_reset(), None);
        recorder.record(Duration::from_secs(100_000));
        assert!(recorder.quantile(0.5).unwrap() >= Duration::from_secs(590));
    }
}

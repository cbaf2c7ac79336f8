//! Growing waits between attempts, jittered so that many daemons don't come back at once.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Doubles from `first` to `most`; each wait is drawn from its upper half.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, next: first }
    }

    /// The wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.next;
        self.next = ceiling.saturating_mul(2).min(self.most);
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// After a success: the next failure waits `first` again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Waits on a thread of its own, and no longer than a tenth of a second once `stop` is set.
pub fn pause(wait: Duration, stop: &CancellationToken) {
    const LOOK: Duration = Duration::from_millis(100);
    let begun = Instant::now();
    while !stop.is_cancelled() {
        let left = wait.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_told_to_stop() {
        let stop = CancellationToken::new();
        stop.cancel();
        let begun = Instant::now();
        pause(Duration::from_secs(60), &stop);
        assert!(begun.elapsed() < Duration::from_secs(30));
        pause(Duration::from_millis(1), &CancellationToken::new());
    }

    #[test]
    fn waits_double_up_to_the_most_and_start_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for ceiling in [100, 200, 350, 350] {
            let wait = backoff.next_delay();
            assert!(wait >= Duration::from_millis(ceiling / 2) && wait <= Duration::from_millis(ceiling), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}

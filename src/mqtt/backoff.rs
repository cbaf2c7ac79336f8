//! How long to wait before the next attempt: exponential with jitter.

use std::time::Duration;

/// Doubles from `floor` up to `ceiling`; each wait is between half and the whole of it, so that a fleet that lost
/// its broker does not come back in step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    floor: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(floor: Duration, ceiling: Duration) -> Backoff {
        Backoff { floor, ceiling, next: floor.min(ceiling) }
    }

    /// The next wait; `random` is in 0..1.
    pub(super) fn wait(&mut self, random: f64) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.ceiling);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        whole.mul_f64(0.5 + random / 2.0)
    }

    /// After success the next wait is a short one again.
    pub(super) fn reset(&mut self) {
        self.next = self.floor.min(self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(30))
    }

    #[test]
    fn doubles_up_to_the_ceiling() {
        let mut backoff = backoff();
        let waits: Vec<u128> = (0..9).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    }

    #[test]
    fn jitter_takes_off_half_at_most() {
        for random in [0.0, 0.3, 0.999, -5.0, 7.0, f64::NAN] {
            let wait = backoff().wait(random);
            assert!((250..=500).contains(&wait.as_millis()), "{random}: {wait:?}");
        }
    }

    #[test]
    fn success_starts_it_over() {
        let mut backoff = backoff();
        backoff.wait(0.5);
        backoff.wait(0.5);
        backoff.reset();
        assert_eq!(backoff.wait(1.0), Duration::from_millis(500));
    }

    #[test]
    fn a_floor_above_the_ceiling_is_no_harm() {
        let mut backoff = Backoff::new(Duration::from_secs(9), Duration::from_secs(3));
        assert_eq!(backoff.wait(1.0), Duration::from_secs(3));
        assert_eq!(backoff.wait(1.0), Duration::from_secs(3));
    }
}

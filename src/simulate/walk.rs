//! A quantity that moves a little with each reading.

/// A random walk between bounds, or a counter that only rises.
pub struct Walk {
    value: f64,
    low: f64,
    high: f64,
    step: f64,
    rising: bool,
}

impl Walk {
    /// From `start`, by at most `step` at a time, within the bounds.
    pub fn new(start: f64, (low, high): (f64, f64), step: f64) -> Walk {
        Walk { value: start, low, high, step, rising: false }
    }

    /// A counter: never falls, has no upper bound.
    pub fn rising(start: f64, step: f64) -> Walk {
        Walk { value: start, low: 0.0, high: f64::MAX, step, rising: true }
    }

    /// The next value.
    pub fn step(&mut self, random: &mut fastrand::Rng) -> f64 {
        let share = random.f64();
        let change = if self.rising { share } else { 2.0 * share - 1.0 };
        self.value = (self.value + change * self.step).clamp(self.low, self.high);
        self.value
    }

    /// Moves the start, so that two devices differ from the first reading on.
    pub fn spread(&mut self, random: &mut fastrand::Rng) {
        for _ in 0..8 {
            self.step(random);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_stay_within_their_bounds_and_counters_only_rise() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut walk = Walk::new(0.5, (0.0, 1.0), 0.4);
        let mut counter = Walk::rising(10.0, 0.5);
        let mut last = 10.0;
        for _ in 0..1000 {
            assert!((0.0..=1.0).contains(&walk.step(&mut random)));
            let next = counter.step(&mut random);
            assert!(next >= last);
            last = next;
        }
    }
}

//! Metrics worked out from others of the same device.

use std::time::Duration;

use super::expression::Expression;

/// How old an input may be where the template does not say.
pub const WITHIN: Duration = Duration::from_secs(60);
/// How far apart two readings may be that a rate is worked out from, where the template does not say.
pub const RATE_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// A metric that no payload carries: a number worked out when one of its inputs is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    pub name: String,
    /// Display unit, or empty.
    pub unit: String,
    /// Inclusive bounds.
    pub range: Option<(f64, f64)>,
    pub formula: Formula,
    /// Inputs that are not in the message are their sensors' newest, at most so much older; of a rate, how far apart its two
    /// readings may be.
    pub within: Duration,
}

/// Where a derived value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Formula {
    Expression(Expression),
    Rate(Rate),
}

/// How fast a counter rises: (new − old) / time.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Name of the counter.
    pub of: String,
    /// The time that the rate is over, as an hour for L/h.
    pub per: Duration,
    /// What the counter begins anew at.
    pub rollover: Option<f64>,
}

impl Derived {
    /// Names of the metrics that it is worked out from.
    pub fn inputs(&self) -> &[String] {
        match &self.formula {
            Formula::Expression(expression) => expression.inputs(),
            Formula::Rate(rate) => std::slice::from_ref(&rate.of),
        }
    }
}

impl Rate {
    /// The rate of a counter that went from `old` to `new` in `elapsed`. None where it was reset: a fall that is no roll-over,
    /// which leads from the upper tenth of its range to the lower.
    pub fn between(&self, old: f64, new: f64, elapsed: Duration) -> Option<f64> {
        let rise = match self.rollover {
            _ if new >= old => new - old,
            Some(end) if old >= end * 0.9 && old <= end && new >= 0.0 && new <= end * 0.1 => new + (end - old),
            _ => return None,
        };
        (!elapsed.is_zero()).then(|| rise * self.per.as_secs_f64() / elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOURLY: Rate = Rate { of: String::new(), per: Duration::from_secs(3600), rollover: None };

    #[test]
    fn a_fall_is_a_roll_over_only_from_the_end_to_the_beginning() {
        let minute = Duration::from_secs(60);
        assert_eq!(HOURLY.between(10.0, 12.0, minute), Some(120.0));
        assert_eq!(HOURLY.between(10.0, 10.0, minute), Some(0.0));
        assert_eq!(HOURLY.between(10.0, 9.0, minute), None);
        assert_eq!(HOURLY.between(10.0, 12.0, Duration::ZERO), None);
        let rate = Rate { rollover: Some(1000.0), ..HOURLY };
        assert_eq!(rate.between(990.0, 10.0, minute), Some(1200.0));
        for (old, new) in [(890.0, 10.0), (990.0, 110.0), (500.0, 0.0), (1500.0, 10.0)] {
            assert_eq!(rate.between(old, new, minute), None, "{old} {new}");
        }
    }

    proptest! {
        #[test]
        fn the_rate_over_a_counter_that_rolls_over_is_that_of_the_true_count(
            start in 0_u32..5000, steps in prop::collection::vec(0_u32..90, 1..200), seconds in 1_u64..4000,
        ) {
            let rate = Rate { rollover: Some(1000.0), ..HOURLY };
            let mut count = start;
            for step in steps {
                let shown = |count: u32| f64::from(count % 1000);
                let found = rate.between(shown(count), shown(count + step), Duration::from_secs(seconds));
                let expected = f64::from(step) * 3600.0 / seconds as f64;
                prop_assert!(found.is_some_and(|found| (found - expected).abs() <= 1e-9 * expected.max(1.0)), "{:?}", found);
                count += step;
            }
        }
    }
}

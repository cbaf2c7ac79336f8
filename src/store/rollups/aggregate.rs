//! What is kept of a bucket's values. SQLite's rollups are worked out here; the views and PostgreSQL do the same in SQL.

/// From this magnitude on sum, average and deviation are not worked out. So far below the largest double, because the
/// deviation squares multiples of the values.
pub(super) const TOO_LARGE: f64 = 1e140;

/// The figures of one bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregate {
    pub count: i64,
    pub min: f64,
    pub max: f64,
    /// None, like sum and stddev, where a value's magnitude is 1e140 or more.
    pub avg: Option<f64>,
    pub sum: Option<f64>,
    /// Of the sample (n - 1); none for a single value.
    pub stddev: Option<f64>,
    pub first: f64,
    pub last: f64,
    /// Interpolated between neighbours, as SQL's `percentile_cont`.
    pub p50: f64,
    pub p95: f64,
}

impl Aggregate {
    /// The figures of values in order of time; none of no values.
    #[expect(clippy::cast_precision_loss, reason = "a bucket has fewer than 2^53 readings")]
    pub fn of(values: &[f64]) -> Option<Aggregate> {
        let (first, last) = (*values.first()?, *values.last()?);
        let mut ordered = values.to_vec();
        ordered.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*ordered.first()?, *ordered.last()?);
        let n = values.len() as f64;
        let small = min.abs() < TOO_LARGE && max.abs() < TOO_LARGE;
        let sum = small.then(|| values.iter().sum::<f64>());
        let avg = sum.map(|sum| sum / n);
        let squares = |avg: f64| values.iter().map(|value| (value - avg).powi(2)).sum::<f64>();
        let stddev = avg.filter(|_| values.len() > 1).map(|avg| (squares(avg) / (n - 1.0)).sqrt());
        let (p50, p95) = (percentile(&ordered, 0.5)?, percentile(&ordered, 0.95)?);
        let count = i64::try_from(values.len()).ok()?;
        Some(Aggregate { count, min, max, avg, sum, stddev, first, last, p50, p95 })
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percentile(ordered: &[f64], fraction: f64) -> Option<f64> {
    let position = fraction * (ordered.len().saturating_sub(1)) as f64;
    let below = position.floor();
    let low = *ordered.get(below as usize)?;
    if position <= below {
        return Some(low);
    }
    let high = *ordered.get((below as usize).saturating_add(1))?;
    Some(low + (high - low) * (position - below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_few_values() {
        assert_eq!(Aggregate::of(&[]), None);
        let one = Aggregate::of(&[3.0]).unwrap();
        assert_eq!((one.count, one.stddev, one.p95, one.avg), (1, None, 3.0, Some(3.0)));
        let some = Aggregate::of(&[4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!((some.count, some.min, some.max, some.first, some.last), (4, 1.0, 9.0, 4.0, 9.0));
        assert_eq!((some.sum, some.avg, some.p50), (Some(16.0), Some(4.0), 3.0));
        assert!((some.p95 - 8.25).abs() < 1e-12);
        assert!((some.stddev.unwrap() - (38.0_f64 / 3.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn values_too_large_to_add_up_have_no_sum() {
        let huge = Aggregate::of(&[1.0, -1e200]).unwrap();
        assert_eq!((huge.count, huge.min, huge.sum, huge.avg, huge.stddev), (2, -1e200, None, None, None));
    }
}

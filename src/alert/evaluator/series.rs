//! The readings that a condition looks back on, of one sensor.

use std::collections::VecDeque;

use crate::alert::rule::{Aggregate, Check};

/// Readings in order of their times, no two of one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Series {
    points: VecDeque<(i64, f64)>,
}

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// So long before the newest, in microseconds; none: as many as `most`.
    pub span: Option<i64>,
    /// Also the newest reading of what is older than that.
    pub one_older: bool,
    pub most: usize,
}

impl Keep {
    /// What a check needs; none: nothing of the past.
    pub fn of(check: &Check) -> Option<Keep> {
        use super::program::micros;
        let most = Check::MOST_IN_WINDOW;
        Some(match check {
            Check::Samples { of, .. } => Keep { span: None, one_older: false, most: *of },
            Check::Window { over, .. } => Keep { span: Some(micros(*over)), one_older: false, most },
            Check::Rate { per, .. } => Keep { span: Some(micros(*per)), one_older: true, most },
            _ => return None,
        })
    }
}

impl Series {
    /// Adds a reading where it belongs by its time. Another of the same instant is left out, as it is by the database.
    pub fn insert(&mut self, time: i64, value: f64, keep: Keep) {
        match self.points.back() {
            Some((newest, _)) if time <= *newest => {
                if let Err(at) = self.points.binary_search_by_key(&time, |(time, _)| *time) {
                    self.points.insert(at, (time, value));
                }
            }
            _ => self.points.push_back((time, value)),
        }
        self.trim(keep);
    }

    /// The reading of this very instant is another, where the database keeps the last of several.
    pub fn correct(&mut self, time: i64, value: f64) {
        if let Ok(at) = self.points.binary_search_by_key(&time, |(time, _)| *time)
            && let Some((_, known)) = self.points.get_mut(at)
        {
            *known = value;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// In the order of their times.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.points.iter().map(|(_, value)| *value)
    }

    fn trim(&mut self, keep: Keep) {
        let newest = self.points.back().map_or(0, |(time, _)| *time);
        if let Some(span) = keep.span {
            let from = newest.saturating_sub(span);
            // `one_older`: the first is given up only once the second is old enough to take its place.
            let witness = usize::from(keep.one_older);
            while self.points.get(witness).is_some_and(|(time, _)| *time <= from) {
                self.points.pop_front();
            }
        }
        while self.points.len() > keep.most {
            self.points.pop_front();
        }
    }

    /// Those of the `over` before and including `at`; of what is later nothing.
    fn within(&self, at: i64, over: i64) -> impl Iterator<Item = (i64, f64)> + Clone {
        let from = at.saturating_sub(over);
        self.points.iter().copied().filter(move |(time, _)| *time > from && *time <= at)
    }

    /// How many of the newest `of` pass; none where there is no reading.
    pub fn passing(&self, of: usize, passes: impl Fn(f64) -> bool) -> Option<usize> {
        (!self.points.is_empty()).then(|| self.points.iter().rev().take(of).filter(|(_, value)| passes(*value)).count())
    }

    /// When the oldest of what is within `over` at `at` leaves it.
    pub fn leaves(&self, at: i64, over: i64) -> Option<i64> {
        self.within(at, over).next().map(|(time, _)| time.saturating_add(over))
    }

    /// None: there is nothing to aggregate. A count is 0 then, once there has been a reading at all.
    pub fn aggregate(&self, aggregate: Aggregate, at: i64, over: i64) -> Option<f64> {
        self.points.front()?;
        let values = || self.within(at, over).map(|(_, value)| value);
        let count = values().count();
        if aggregate == Aggregate::Count {
            return Some(count as f64);
        }
        if count == 0 {
            return None;
        }
        let sum: f64 = values().sum();
        Some(match aggregate {
            Aggregate::Count => count as f64,
            Aggregate::Sum => sum,
            Aggregate::Avg => sum / count as f64,
            Aggregate::Min => values().fold(f64::INFINITY, f64::min),
            Aggregate::Max => values().fold(f64::NEG_INFINITY, f64::max),
            Aggregate::Stddev => {
                if count < 2 {
                    return None;
                }
                let mean = sum / count as f64;
                let squares: f64 = values().map(|value| (value - mean) * (value - mean)).sum();
                (squares / (count as f64 - 1.0)).sqrt()
            }
            Aggregate::P95 => percentile(values().collect(), 0.95)?,
        })
    }

    /// The change in `per` up to the newest reading, from the newest one that is at least that much older. Of a counter only what
    /// rises counts.
    pub fn rate(&self, per: i64, counter: bool) -> Option<f64> {
        let (now, value) = *self.points.back()?;
        let until = now.saturating_sub(per);
        let start = self.points.iter().rposition(|(time, _)| *time <= until)?;
        let (then, before) = *self.points.get(start)?;
        let change = if counter {
            let after = self.points.iter().skip(start.saturating_add(1));
            self.points.iter().skip(start).zip(after).map(|((_, a), (_, b))| (b - a).max(0.0)).sum()
        } else {
            value - before
        };
        let span = now.saturating_sub(then) as f64;
        Some(change * per as f64 / span).filter(|rate| rate.is_finite())
    }
}

/// As the databases' `percentile_cont` has it.
fn percentile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let place = share * (values.len().checked_sub(1)? as f64);
    let (below, above) = (values.get(place.floor() as usize)?, values.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Keep = Keep { span: Some(100), one_older: false, most: 1000 };

    fn series(points: &[(i64, f64)], keep: Keep) -> Series {
        let mut series = Series::default();
        points.iter().for_each(|(time, value)| series.insert(*time, *value, keep));
        series
    }

    #[test]
    fn the_order_of_arrival_does_not_matter_and_an_instant_counts_once() {
        let ordered = series(&[(10, 1.0), (20, 2.0), (30, 3.0)], KEEP);
        assert_eq!(series(&[(30, 3.0), (10, 1.0), (20, 2.0), (20, 9.0)], KEEP), ordered);
    }

    #[test]
    fn aggregates_are_those_of_the_readings_within() {
        let series = series(&[(10, 1.0), (110, 2.0), (120, 4.0), (130, 6.0)], KEEP);
        let at = |aggregate, at| series.aggregate(aggregate, at, 100);
        assert_eq!(at(Aggregate::Avg, 130), Some(4.0));
        assert_eq!((at(Aggregate::Min, 130), at(Aggregate::Max, 130)), (Some(2.0), Some(6.0)));
        assert_eq!((at(Aggregate::Sum, 130), at(Aggregate::Count, 130)), (Some(12.0), Some(3.0)));
        assert_eq!(at(Aggregate::Stddev, 130), Some(2.0));
        assert_eq!(at(Aggregate::P95, 130), Some(5.8));
        // They leave one after the other.
        assert_eq!((series.leaves(130, 100), at(Aggregate::Min, 210)), (Some(210), Some(4.0)));
        assert_eq!((at(Aggregate::Avg, 230), at(Aggregate::Count, 230)), (None, Some(0.0)));
    }

    #[test]
    fn a_rate_reaches_back_to_the_reading_before_its_span() {
        let keep = Keep { one_older: true, ..KEEP };
        let two = series(&[(0, 5.0), (50, 6.0), (90, 7.0)], keep);
        assert_eq!(two.rate(100, false), None, "nothing is that old yet");
        let rising = series(&[(0, 5.0), (50, 6.0), (200, 9.0)], keep);
        assert_eq!(rising.rate(100, false), Some(2.0));
        let reset = series(&[(0, 100.0), (50, 110.0), (100, 3.0), (200, 5.0)], keep);
        assert_eq!((reset.rate(200, true), reset.rate(200, false)), (None, None));
        let reset = series(&[(0, 100.0), (50, 110.0), (100, 3.0), (200, 5.0)], Keep { span: Some(200), ..keep });
        assert_eq!((reset.rate(200, true), reset.rate(200, false)), (Some(12.0), Some(-95.0)));
    }

    #[test]
    fn samples_are_the_newest_ones() {
        let keep = Keep { span: None, one_older: false, most: 3 };
        let series = series(&[(1, 9.0), (2, 1.0), (3, 9.0), (4, 9.0)], keep);
        assert_eq!(series.passing(3, |value| value > 5.0), Some(2));
        assert_eq!(Series::default().passing(3, |_| true), None);
    }
}

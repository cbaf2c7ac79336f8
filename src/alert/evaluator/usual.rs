//! What is usual for a sensor: a running mean and deviation, of all readings or of those of an hour of the week.
//!
//! An hour's readings join what is usual once a later hour's come, so that a departure that lasts is not compared with itself, and
//! what must be remembered changes once an hour. Older readings count ever less: half after a week; with the hour of the week as
//! season, after four of them.

use serde::{Deserialize, Serialize};

use super::series::{Keep, Series};
use crate::alert::rule::{Check, Season};

const HOUR: i64 = 3_600_000_000;
const HOURS_OF_WEEK: i64 = 168;
/// 1970-01-01 was a Thursday; hours of the week count from Monday.
const THURSDAY: i64 = 3 * 24;
/// Fewer readings than these say nothing of what is usual.
const ENOUGH: f64 = 30.0;
/// What an hour's weight becomes with each later hour of its kind.
const FADE: f64 = 0.995_882_6;
const FADE_SEASON: f64 = 0.840_896_4;

/// Weight, mean and sum of squared deviations (Welford).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moments(f64, f64, f64);

impl Moments {
    fn of(values: impl Iterator<Item = f64>) -> Moments {
        let mut moments = Moments::default();
        values.for_each(|value| moments.add(value));
        moments
    }

    fn add(&mut self, value: f64) {
        let Moments(count, mean, squares) = self;
        *count += 1.0;
        let off = value - *mean;
        *mean += off / *count;
        *squares += off * (value - *mean);
    }

    /// Joins other readings' moments (Chan).
    fn join(&mut self, other: Moments) {
        let Moments(count, mean, squares) = *self;
        let all = count + other.0;
        if all > 0.0 {
            let off = other.1 - mean;
            *self = Moments(all, mean + off * other.0 / all, squares + other.2 + off * off * count * other.0 / all);
        }
    }

    fn fade(&mut self, by: f64) {
        self.0 *= by;
        self.2 *= by;
    }
}

/// What is usual, and the hour under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Usual {
    /// By hour of the week, or one.
    past: Vec<Moments>,
    /// Hours since 1970.
    hour: i64,
    /// Its readings: in whatever order they come, it is the same, and the same as when a start reads them.
    #[serde(skip)]
    now: Series,
}

const KEEP: Keep = Keep { span: None, one_older: false, most: Check::MOST_IN_WINDOW };

impl Usual {
    /// Takes a reading; one of an hour that is over already comes too late. Whether an hour was over, so that what is usual has
    /// changed.
    pub fn take(&mut self, time: i64, value: f64, season: Season) -> bool {
        let hour = time.div_euclid(HOUR);
        if hour < self.hour {
            return false;
        }
        let over = hour > self.hour && !self.now.is_empty();
        if over {
            let of_hour = Moments::of(self.now.values());
            let (at, fade) = (place(self.hour, season), if season == Season::None { FADE } else { FADE_SEASON });
            if self.past.len() <= at {
                self.past.resize(at.saturating_add(1), Moments::default());
            }
            if let Some(past) = self.past.get_mut(at) {
                past.fade(fade);
                past.join(of_hour);
            }
        }
        if hour > self.hour {
            self.now = Series::default();
        }
        self.hour = hour;
        self.now.insert(time, value, KEEP);
        over
    }

    /// As [`Series::correct`], of the hour under way.
    pub fn correct(&mut self, time: i64, value: f64) {
        self.now.correct(time, value);
    }

    /// Mean and standard deviation at a time; none while too little is known.
    pub fn at(&self, time: i64, season: Season) -> Option<(f64, f64)> {
        let Moments(count, mean, squares) = *self.past.get(place(time.div_euclid(HOUR), season))?;
        (count >= ENOUGH).then(|| (mean, (squares / count).max(0.0).sqrt()))
    }

    /// When the hour under way began; the readings since then are not in what is usual.
    pub fn hour_began(&self) -> i64 {
        self.hour.saturating_mul(HOUR)
    }

    /// Without the hour under way, which the readings themselves tell.
    pub fn past_only(&self) -> Usual {
        Usual { past: self.past.clone(), hour: self.hour, now: Series::default() }
    }
}

fn place(hour: i64, season: Season) -> usize {
    match season {
        Season::None => 0,
        Season::HourOfWeek => usize::try_from((hour + THURSDAY).rem_euclid(HOURS_OF_WEEK)).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_counts_once_it_is_over_and_in_its_own_season() {
        let mut usual = Usual::default();
        for minute in 0..60 {
            assert!(!usual.take(minute * 60_000_000, f64::from(minute as i32 % 3), Season::HourOfWeek));
        }
        assert_eq!(usual.at(0, Season::HourOfWeek), None);
        assert!(usual.take(HOUR, 100.0, Season::HourOfWeek));
        let (mean, deviation) = usual.at(HOURS_OF_WEEK * HOUR, Season::HourOfWeek).unwrap();
        assert!((mean - 1.0).abs() < 1e-9 && (deviation - (2.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert_eq!(usual.at(HOUR, Season::HourOfWeek), None, "of this hour nothing is known");
    }

    #[test]
    fn the_order_within_an_hour_does_not_matter_and_what_is_of_an_hour_before_comes_too_late() {
        let learned = |times: &[i64]| {
            let mut usual = Usual::default();
            for minute in times {
                usual.take(minute * 60_000_000, (minute * minute % 17) as f64 / 3.0, Season::None);
            }
            usual
        };
        let ordered: Vec<i64> = (0..70).collect();
        let mut mixed = ordered.clone();
        mixed[..60].sort_by_key(|minute| minute * 37 % 60);
        mixed.insert(30, mixed[7]);
        mixed.push(12);
        assert_eq!(learned(&mixed), learned(&ordered));
    }

    #[test]
    fn joined_moments_are_those_of_all_readings() {
        let (mut all, mut a, mut b) = (Moments::default(), Moments::default(), Moments::default());
        for value in [1.0, 4.0, 2.0, 8.0, 5.0, 7.0] {
            all.add(value);
            if value < 4.5 { a.add(value) } else { b.add(value) }
        }
        a.join(b);
        assert!((a.1 - all.1).abs() < 1e-12 && (a.2 - all.2).abs() < 1e-9 && a.0 == all.0);
    }
}

//! Which stretch of time a reading's partition is for. Pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use crate::time::UtcMicros;

/// Microseconds of a UTC day.
pub const DAY_MICROS: i64 = 86_400_000_000;
/// A missing day that is no further from today than this gets a partition of its own, as it would have if tidegate had run
/// since. What is further away goes by months: a device whose clock is wrong by years, or a fleet of them, then costs at most
/// twelve partitions a year of `time.max_age`, and any one day of it only one. A DEFAULT partition would take such readings
/// too, but then each ATTACH would read all of it under an exclusive lock.
const DAYS_AROUND: i64 = 366;
/// What a `timestamptz` can hold, as microseconds since 1970: from 4714-11-24 BC; the end is beyond an `i64`.
const EARLIEST: i64 = -210_866_803_200_000_000;

/// A stretch of time, its end not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub from: UtcMicros,
    pub to: UtcMicros,
}

impl Span {
    /// The day, as `20261120`, or from and to: for names.
    pub fn label(self) -> String {
        if self.to.0.checked_sub(self.from.0) == Some(DAY_MICROS) && self.from.0.rem_euclid(DAY_MICROS) == 0 {
            return date(self.from);
        }
        format!("{}_{}", date(self.from), date(self.to))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// `20261120`, with as much of the time as is needed.
fn date(at: UtcMicros) -> String {
    let (year, month, day) = civil(at.0.div_euclid(DAY_MICROS));
    let of_day = at.0.rem_euclid(DAY_MICROS);
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let date = format!("{year:04}{month:02}{day:02}");
    match (seconds, micros) {
        (0, 0) => date,
        (_, 0) => format!("{date}t{hour:02}{minute:02}{second:02}"),
        _ => format!("{date}t{hour:02}{minute:02}{second:02}.{micros:06}"),
    }
}

/// The beginning of each day from that of `from` to that of `to`.
pub(super) fn days(from: UtcMicros, to: UtcMicros) -> impl Iterator<Item = UtcMicros> {
    (from.0.div_euclid(DAY_MICROS)..=to.0.div_euclid(DAY_MICROS)).map(|day| UtcMicros(day.saturating_mul(DAY_MICROS)))
}

/// The spans of a table's partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Spans {
    /// Beginning → end.
    ends: BTreeMap<i64, i64>,
    /// Somebody has made a DEFAULT partition.
    everything: bool,
}

impl Spans {
    /// An end that is missing stands for no bound; both: a DEFAULT partition.
    pub(super) fn add(&mut self, from: Option<UtcMicros>, to: Option<UtcMicros>) {
        match (from, to) {
            (None, None) => self.everything = true,
            (from, to) => {
                self.ends.insert(from.map_or(i64::MIN, |at| at.0), to.map_or(i64::MAX, |at| at.0));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether a row of that time finds a partition, or no partition could take it: the database then says why.
    pub(super) fn covers(&self, time: UtcMicros) -> bool {
        self.everything
            || time.0 < EARLIEST
            || time.0 == i64::MAX
            || self.ends.range(..=time.0).next_back().is_some_and(|(_, to)| time.0 < *to)
    }

    /// One instant of each day that has none.
    pub(super) fn not_covered(&self, times: impl Iterator<Item = UtcMicros>) -> BTreeSet<UtcMicros> {
        let mut missing = BTreeSet::new();
        // Most times lie where the one before lay.
        let (mut from, mut to) = (0, 0);
        for time in times {
            if (from..to).contains(&time.0) {
                continue;
            }
            if let Some((found, end)) = self.ends.range(..=time.0).next_back() {
                (from, to) = (*found, *end);
            }
            if !self.covers(time) {
                missing.insert(UtcMicros(time.0.div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS).max(EARLIEST)));
            }
        }
        missing
    }

    /// The partition to be made for an instant that has none: its day, or its month if it is far from now, less what others
    /// have of it already.
    pub(super) fn wanted(&self, time: UtcMicros, now: UtcMicros) -> Span {
        let (day, today) = (time.0.div_euclid(DAY_MICROS), now.0.div_euclid(DAY_MICROS));
        let (first, end) = if (day - today).abs() <= DAYS_AROUND { (day, day + 1) } else { month(day) };
        let before = self.ends.range(..=time.0).next_back().map_or(EARLIEST, |(_, to)| *to);
        let after = self.ends.range(time.0..).next().map_or(i64::MAX, |(from, _)| *from);
        Span {
            from: UtcMicros(first.saturating_mul(DAY_MICROS).max(before).max(EARLIEST)),
            to: UtcMicros(end.saturating_mul(DAY_MICROS).min(after)),
        }
    }
}

/// First day of the month, and of the next one, in days since 1970.
fn month(day: i64) -> (i64, i64) {
    let (year, month, of_month) = civil(day);
    let first = day - (of_month - 1);
    let days = match month {
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (first, first + days)
}

/// Year, month and day in the proleptic Gregorian calendar. The arithmetic is that of eras of 400 years that begin in
/// March, so that the leap day is the last; jiff's calendar ends before a `timestamptz` does.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> UtcMicros {
        UtcMicros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn with(spans: &[(&str, &str)]) -> Spans {
        let mut all = Spans::default();
        spans.iter().for_each(|(from, to)| all.add(Some(at(from)), Some(at(to))));
        all
    }

    const NOW: &str = "2026-11-20T12:00:00Z";

    #[test]
    fn a_near_day_gets_its_own_partition_and_a_far_one_its_month() {
        let wanted = |time| Spans::default().wanted(at(time), at(NOW)).label();
        assert_eq!(wanted("2026-11-20T23:59:59.999999Z"), "20261120");
        assert_eq!(wanted("2026-11-21T00:00:00Z"), "20261121");
        assert_eq!(wanted("2025-11-19T00:00:00Z"), "20251119");
        assert_eq!(wanted("2025-11-18T23:00:00Z"), "20251101_20251201");
        assert_eq!(wanted("2024-02-29T10:00:00Z"), "20240201_20240301");
        assert_eq!(wanted("1969-12-31T23:59:59Z"), "19691201_19700101");
        assert_eq!(wanted("2126-01-01T00:00:00Z"), "21260101_21260201");
    }

    #[test]
    fn a_month_leaves_out_what_has_a_partition() {
        let spans =
            with(&[("2025-11-19T00:00:00Z", "2025-11-20T00:00:00Z"), ("2025-11-05T00:00:00Z", "2025-11-06T00:00:00Z")]);
        let wanted = |time| spans.wanted(at(time), at(NOW)).label();
        assert_eq!(wanted("2025-11-18T00:00:00Z"), "20251106_20251119");
        assert_eq!(wanted("2025-11-01T00:00:00Z"), "20251101_20251105");
    }

    #[test]
    fn what_no_database_holds_is_left_to_it() {
        assert!(Spans::default().covers(UtcMicros(i64::MIN)));
        assert!(!Spans::default().covers(UtcMicros(EARLIEST)));
        assert!(!Spans::default().covers(UtcMicros(i64::MAX - 1)));
    }

    proptest! {
        #[test]
        fn every_instant_gets_a_span_that_holds_it_and_no_other_has(
            times in prop::collection::vec(EARLIEST..i64::MAX, 1..20),
            near in prop::collection::vec(1_600_000_000_000_000_i64..1_900_000_000_000_000, 1..50),
        ) {
            let mut spans = Spans::default();
            for time in times.into_iter().chain(near).map(UtcMicros) {
                if spans.covers(time) {
                    continue;
                }
                let span = spans.wanted(time, at(NOW));
                prop_assert!(span.from <= time && time < span.to, "{span:?} {time:?}");
                let apart = |(from, to): (&i64, &i64)| span.to.0 <= *from || *to <= span.from.0;
                prop_assert!(spans.ends.iter().all(apart));
                spans.add(Some(span.from), Some(span.to));
            }
        }

        #[test]
        fn the_calendar_is_that_of_jiff(day in -3_000_000_i64..2_900_000) {
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(day)).unwrap();
            prop_assert_eq!(civil(day), (i64::from(date.year()), i64::from(date.month()), i64::from(date.day())));
            let (first, next) = month(day);
            prop_assert_eq!(next - first, i64::from(date.days_in_month()));
        }
    }
}

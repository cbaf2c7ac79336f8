//! Times that come again, or once: when a rule is in force, when maintenance is. Pure: what holds at an instant is asked with the instant.
//!
//! Local times are those of a time zone. Where the clock goes back and one comes twice, the first is meant; where it goes forward and one does
//! not come, it is as much later as the clock was put forward.

use std::time::Duration;

use croner::Cron;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use crate::time::UtcMicros;

/// Later than any instant, microseconds.
const NEVER: i64 = i64::MAX;
/// Days behind and ahead that are looked at for one that counts: a week, and what reaches into it.
const AROUND: std::ops::RangeInclusive<i32> = -1..=8;

/// Any of some spells.
#[derive(Clone, Debug, PartialEq)]
pub struct Times(pub Vec<Spell>);

/// When something begins and ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Spell {
    /// On some days, from one time of the day to another.
    Weekly {
        days: Days,
        from: Time,
        to: Time,
        /// `to` is on the next day.
        overnight: bool,
    },
    /// From each time that a cron expression names, for so long.
    Cron { cron: Box<Cron>, lasts: Duration },
    /// Once.
    Once { from: Moment, to: Moment },
}

/// Days of the week: bit 0 is Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub u8);

impl Days {
    pub const ALL: Days = Days(0x7f);

    /// Such as `mon, tue`; `daily` for all.
    pub fn in_words(self) -> String {
        if self == Days::ALL {
            return "daily".to_owned();
        }
        let words = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let days = words.iter().enumerate().filter(|(at, _)| self.0 >> at & 1 == 1).map(|(_, word)| *word);
        days.collect::<Vec<_>>().join(", ")
    }

    fn has(self, day: Date) -> bool {
        self.0 >> day.weekday().to_monday_zero_offset() & 1 == 1
    }
}

/// An instant as people write it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// By the clock of the place.
    Local(DateTime),
    /// With an offset of its own.
    At(UtcMicros),
}

impl Moment {
    /// Microseconds since 1970.
    pub fn micros(self, zone: &TimeZone) -> i64 {
        match self {
            Moment::At(at) => at.0,
            Moment::Local(local) => local_micros(zone, local),
        }
    }
}

impl Times {
    /// Whether it is so at an instant, and until when that surely stays; microseconds. At the second of the two it may be so still.
    pub fn at(&self, zone: &TimeZone, at: i64) -> (bool, i64) {
        let spells = self.0.iter().map(|spell| spell.at(zone, at));
        spells.fold((false, NEVER), |(so, until), (also, its)| (so || also, until.min(its)))
    }
}

impl Spell {
    fn at(&self, zone: &TimeZone, at: i64) -> (bool, i64) {
        match self {
            Spell::Once { from, to } => stretch(at, [(from.micros(zone), to.micros(zone))]),
            Spell::Weekly { days, from, to, overnight } => {
                let Some(now) = zoned(zone, at) else { return (false, NEVER) };
                let around = AROUND.filter_map(|offset| {
                    let day = now.date().checked_add(offset.days()).ok()?;
                    let last = if *overnight { day.tomorrow().ok()? } else { day };
                    let stretch =
                        (local_micros(zone, day.to_datetime(*from)), local_micros(zone, last.to_datetime(*to)));
                    days.has(day).then_some(stretch)
                });
                stretch(at, around)
            }
            Spell::Cron { cron, lasts } => {
                let Some(now) = zoned(zone, at) else { return (false, NEVER) };
                let micros =
                    |found: Result<Zoned, _>| found.ok().map(|found: Zoned| found.timestamp().as_microsecond());
                let lasts = i64::try_from(lasts.as_micros()).unwrap_or(NEVER);
                let starts =
                    [micros(cron.find_previous_occurrence(&now, true)), micros(cron.find_next_occurrence(&now, false))];
                stretch(at, starts.into_iter().flatten().map(|start| (start, start.saturating_add(lasts))))
            }
        }
    }

    /// Whether it ever comes after an instant.
    pub fn comes_after(&self, zone: &TimeZone, at: i64) -> bool {
        let (so, until) = self.at(zone, at);
        so || until != NEVER
    }
}

/// Whether an instant is within one of some stretches, from and including the first to the second, and when the next of them begins or ends.
fn stretch(at: i64, stretches: impl IntoIterator<Item = (i64, i64)>) -> (bool, i64) {
    let (mut within, mut until) = (false, NEVER);
    for (from, to) in stretches {
        within |= from <= at && at < to;
        for edge in [from, to] {
            if edge > at {
                until = until.min(edge);
            }
        }
    }
    (within, until)
}

fn zoned(zone: &TimeZone, at: i64) -> Option<Zoned> {
    Some(Timestamp::from_microsecond(at).ok()?.to_zoned(zone.clone()))
}

/// The instant of a local time; the end of time where it lies beyond.
fn local_micros(zone: &TimeZone, local: DateTime) -> i64 {
    zone.to_ambiguous_zoned(local).compatible().map_or(NEVER, |found| found.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use croner::parser::CronParser;
    use jiff::civil::{date, time};

    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    fn at(zone: &TimeZone, local: DateTime) -> i64 {
        local_micros(zone, local)
    }

    fn weekly(days: u8, from: Time, to: Time, overnight: bool) -> Times {
        Times(vec![Spell::Weekly { days: Days(days), from, to, overnight }])
    }

    /// Every change within some hours, as it would be met by following the answers, in local time.
    fn course(times: &Times, zone: &TimeZone, from: DateTime, hours: i64) -> Vec<(bool, String)> {
        let (mut now, end) = (at(zone, from), at(zone, from) + hours * 3_600_000_000);
        let mut changes: Vec<(bool, String)> = Vec::new();
        while now < end {
            let (so, until) = times.at(zone, now);
            if changes.last().is_none_or(|(was, _)| *was != so) {
                changes.push((so, zoned(zone, now).unwrap().strftime("%a %H:%M %z").to_string()));
            }
            assert!(until > now);
            now = until;
        }
        changes
    }

    fn told(changes: &[(bool, &str)]) -> Vec<(bool, String)> {
        changes.iter().map(|(so, at)| (*so, (*at).to_owned())).collect()
    }

    #[test]
    fn working_hours_are_those_of_the_place() {
        let zone = berlin();
        let hours = weekly(0b0001_1111, time(8, 0, 0, 0), time(18, 0, 0, 0), false);
        let friday = date(2026, 7, 3).at(0, 0, 0, 0);
        let expected = told(&[
            (false, "Fri 00:00 +0200"),
            (true, "Fri 08:00 +0200"),
            (false, "Fri 18:00 +0200"),
            (true, "Mon 08:00 +0200"),
            (false, "Mon 18:00 +0200"),
        ]);
        assert_eq!(course(&hours, &zone, friday, 95), expected);
        assert!(!hours.at(&TimeZone::UTC, at(&zone, date(2026, 7, 3).at(9, 0, 0, 0))).0, "7:00 UTC");
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let zone = berlin();
        let friday_night = weekly(0b0001_0000, time(22, 0, 0, 0), time(6, 0, 0, 0), true);
        let expected = told(&[(false, "Fri 00:00 +0200"), (true, "Fri 22:00 +0200"), (false, "Sat 06:00 +0200")]);
        assert_eq!(course(&friday_night, &zone, date(2026, 7, 3).at(0, 0, 0, 0), 100), expected);
    }

    #[test]
    fn a_clock_that_is_put_forward_or_back_moves_what_it_must_and_loses_nothing() {
        let zone = berlin();
        // 29 March 2026: 02:00 to 03:00 does not come; 25 October: it comes twice.
        let early = weekly(0x7f, time(2, 30, 0, 0), time(4, 0, 0, 0), false);
        let expected = told(&[(false, "Sun 00:00 +0100"), (true, "Sun 03:30 +0200"), (false, "Sun 04:00 +0200")]);
        assert_eq!(course(&early, &zone, date(2026, 3, 29).at(0, 0, 0, 0), 20), expected);
        let expected = told(&[(false, "Sun 00:00 +0200"), (true, "Sun 02:30 +0200"), (false, "Sun 04:00 +0100")]);
        assert_eq!(course(&early, &zone, date(2026, 10, 25).at(0, 0, 0, 0), 20), expected);
        let whole = weekly(0x7f, time(0, 0, 0, 0), time(0, 0, 0, 0), true);
        assert_eq!(course(&whole, &zone, date(2026, 10, 24).at(0, 0, 0, 0), 60), told(&[(true, "Sat 00:00 +0200")]));
        // As long as it says, whatever the clock does meanwhile.
        let cron = Spell::Cron {
            cron: Box::new(CronParser::new().parse("0 1 * * SUN").unwrap()),
            lasts: Duration::from_secs(3 * 3600),
        };
        let expected = told(&[(false, "Sun 00:00 +0100"), (true, "Sun 01:00 +0100"), (false, "Sun 05:00 +0200")]);
        assert_eq!(course(&Times(vec![cron]), &zone, date(2026, 3, 29).at(0, 0, 0, 0), 20), expected);
    }

    #[test]
    fn cron_names_beginnings_and_may_overlap_itself() {
        let cron = |text: &str, hours: u64| {
            let cron = Box::new(CronParser::new().parse(text).unwrap());
            Times(vec![Spell::Cron { cron, lasts: Duration::from_secs(hours * 3600) }])
        };
        let zone = TimeZone::UTC;
        let start = date(2026, 7, 1).at(0, 0, 0, 0);
        let first_monday = cron("0 20 * * MON#1", 2);
        let expected = told(&[(false, "Wed 00:00 +0000"), (true, "Mon 20:00 +0000"), (false, "Mon 22:00 +0000")]);
        assert_eq!(course(&first_monday, &zone, start, 200), expected);
        assert_eq!(course(&cron("0 * * * *", 3), &zone, start, 30), told(&[(true, "Wed 00:00 +0000")]));
        let never = cron("0 0 30 2 *", 1);
        assert!(!never.0[0].comes_after(&zone, at(&zone, start)));
        assert_eq!(never.at(&zone, at(&zone, start)), (false, NEVER));
    }

    #[test]
    fn once_is_from_one_moment_to_another() {
        let zone = berlin();
        let local = |hour| Moment::Local(date(2026, 7, 3).at(hour, 0, 0, 0));
        let times = Times(vec![Spell::Once { from: local(8), to: local(12) }]);
        let at = |hour| times.at(&zone, local(hour).micros(&zone)).0;
        assert_eq!([at(7), at(8), at(11), at(12)], [false, true, true, false]);
        assert!(!times.0[0].comes_after(&zone, local(12).micros(&zone)));
    }
}

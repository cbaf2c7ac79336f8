//! Hours of the week in a time zone: "on weekdays from 8 to 18 in Berlin". Pure.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::time::UtcMicros;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Days of the week as they are written, Monday first.
pub const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Some hours of some days of each week.
#[derive(Clone, Debug, PartialEq)]
pub struct Hours {
    /// From Monday.
    pub days: [bool; 7],
    /// Empty: the whole day.
    pub spans: Vec<Span>,
    /// None: that of whatever is looked at, or UTC.
    pub zone: Option<TimeZone>,
}

/// From a minute of the day up to another, which is not in it any more; where that is not later, it is one of the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u16,
    pub until: u16,
}

impl Hours {
    /// Whether an instant is within them. A span over midnight belongs to the day on which it begins. `usual`: the zone where they have
    /// none of their own; UTC without.
    pub fn contain(&self, at: UtcMicros, usual: Option<&TimeZone>) -> bool {
        // Beyond the years that a calendar has there is no hour to tell.
        let Ok(timestamp) = Timestamp::from_microsecond(at.0) else { return false };
        let zone = self.zone.as_ref().or(usual).cloned().unwrap_or(TimeZone::UTC);
        let local = timestamp.to_zoned(zone);
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let (today, yesterday) = (self.on(local.weekday()), self.on(local.weekday().previous()));
        if self.spans.is_empty() {
            return today;
        }
        self.spans.iter().any(|span| {
            if span.from < span.until {
                today && (span.from..span.until).contains(&minute)
            } else {
                (today && minute >= span.from) || (yesterday && minute < span.until)
            }
        })
    }

    fn on(&self, day: Weekday) -> bool {
        let place = usize::try_from(day.to_monday_zero_offset()).unwrap_or(0);
        self.days.get(place).copied().unwrap_or(false)
    }
}

impl Span {
    /// Reads `08:00-18:00`, `22:00-06:00` or `18:00-24:00`.
    pub fn parse(text: &str) -> Option<Span> {
        let (from, until) = text.split_once('-')?;
        let (from, until) = (minute(from.trim())?, minute(until.trim())?);
        (from < DAY && from != until).then_some(Span { from, until })
    }
}

/// The minute of the day of `HH:MM`, `24:00` being its end.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let minute = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

/// The days of `mon` or `mon-fri`, by their places from Monday; a range may pass Sunday.
pub fn days(text: &str) -> Option<Vec<usize>> {
    let place = |word: &str| DAYS.iter().position(|(name, _)| *name == word.trim());
    match text.split_once('-') {
        None => Some(vec![place(text)?]),
        Some((first, last)) => {
            let (first, last) = (place(first)?, place(last)?);
            let count = last.checked_add(7)?.checked_sub(first)? % 7;
            Some((0..=count).map(|more| (first + more) % 7).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(on: &[&str], spans: &[&str], zone: &str) -> Hours {
        let mut week = [false; 7];
        on.iter().flat_map(|text| days(text).unwrap()).for_each(|day| week[day] = true);
        let spans = spans.iter().map(|text| Span::parse(text).unwrap()).collect();
        Hours { days: week, spans, zone: Some(TimeZone::get(zone).unwrap()) }
    }

    fn at(text: &str) -> UtcMicros {
        UtcMicros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn hours_are_those_of_the_zone_also_when_its_clocks_change() {
        let office = hours(&["mon-fri"], &["08:00-18:00"], "Europe/Berlin");
        // In summer two hours before UTC, in winter one. 2026-10-25 is the Sunday on which it changes.
        for (instant, within) in [
            ("2026-10-23T05:59:59Z", false),
            ("2026-10-23T06:00:00Z", true),
            ("2026-10-23T15:59:59Z", true),
            ("2026-10-23T16:00:00Z", false),
            ("2026-10-25T10:00:00Z", false),
            ("2026-10-26T06:59:59Z", false),
            ("2026-10-26T07:00:00Z", true),
        ] {
            assert_eq!(office.contain(at(instant), None), within, "{instant}");
        }
        let of_nobody = Hours { zone: None, ..office };
        assert!(of_nobody.contain(at("2026-10-26T17:30:00Z"), None));
        let tokyo = TimeZone::get("Asia/Tokyo").unwrap();
        assert!(!of_nobody.contain(at("2026-10-26T17:30:00Z"), Some(&tokyo)));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let friday_night = hours(&["fri"], &["22:00-06:00"], "UTC");
        for (instant, within) in [
            ("2026-11-27T21:59:00Z", false),
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T05:59:59Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-27T05:00:00Z", false),
            ("2026-11-28T23:00:00Z", false),
        ] {
            assert_eq!(friday_night.contain(at(instant), None), within, "{instant}");
        }
        let evening = hours(&["sat-mon"], &["18:00-24:00"], "UTC");
        assert!(
            evening.contain(at("2026-11-29T23:59:59Z"), None) && !evening.contain(at("2026-11-30T00:00:00Z"), None)
        );
        assert!(hours(&["sun"], &[], "UTC").contain(at("2026-11-29T00:00:00Z"), None));
        assert!(!evening.contain(UtcMicros(i64::MAX), None));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["8:00-18:00", "08:00", "08:00-08:00", "24:00-06:00", "08:60-09:00", "08:00-25:00", "a-b", "-"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
        assert_eq!(days("fri-mon"), Some(vec![4, 5, 6, 0]));
        assert_eq!((days("monday"), days("mon-"), days("wed-wed")), (None, None, Some(vec![2])));
    }
}

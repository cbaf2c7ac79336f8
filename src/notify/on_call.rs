//! Who is on call at a time. Pure.

use jiff::civil::Date;
use jiff::{Span, Timestamp};

use crate::config::{OnCall, Override, Person};
use crate::time::UtcMicros;

/// Turns that are looked at for somebody else at most.
const MOST_TURNS: usize = 400;

/// Somebody is on call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duty<'a> {
    pub person: &'a Person,
    /// When that is to be looked at again: a handover, or where an override begins or ends.
    pub until: UtcMicros,
    /// Whether it is by an override.
    pub stands_in: bool,
}

impl OnCall {
    /// Who is on call at a time; none beyond the years that a calendar has.
    pub fn duty(&self, at: UtcMicros) -> Option<Duty<'_>> {
        let (place, handover) = self.turn(at)?;
        let within = |one: &&Override| one.from <= at && at < one.until;
        let in_force = self.overrides.iter().rfind(within);
        let begins = self.overrides.iter().map(|one| one.from).filter(|from| *from > at);
        let ends = self.overrides.iter().filter(within).map(|one| one.until);
        let until = begins.chain(ends).fold(handover, UtcMicros::min);
        let person = self.people.get(in_force.map_or(place, |one| one.who))?;
        Some(Duty { person, until, stands_in: in_force.is_some() })
    }

    /// The next who is somebody else, and when; none: it stays the same for long.
    pub fn next(&self, at: UtcMicros) -> Option<(UtcMicros, Duty<'_>)> {
        let now = self.duty(at)?;
        let mut from = now.until;
        for _ in 0..MOST_TURNS {
            let next = self.duty(from)?;
            if next.person.name != now.person.name {
                return Some((from, next));
            }
            from = next.until;
        }
        None
    }

    /// Whose turn it is, and when that ends.
    fn turn(&self, at: UtcMicros) -> Option<(usize, UtcMicros)> {
        let local = Timestamp::from_microsecond(at.0).ok()?.to_zoned(self.zone.clone()).datetime();
        let passed = local.time() >= self.handover;
        let day = if passed { local.date() } else { local.date().yesterday().ok()? };
        let days = self.begins.until(day).ok()?.get_days();
        let turn = days.checked_div_euclid(self.every)?;
        let people = i32::try_from(self.people.len()).ok()?;
        let place = usize::try_from(turn.checked_rem_euclid(people)?).ok()?;
        let ends: Date =
            self.begins.checked_add(Span::new().try_days(turn.checked_add(1)?.checked_mul(self.every)?).ok()?).ok()?;
        let ends = ends.to_datetime(self.handover).to_zoned(self.zone.clone()).ok()?;
        // Where clocks are set back over the handover, the hour comes twice.
        let until = UtcMicros(ends.timestamp().as_microsecond().max(at.0.saturating_add(1)));
        Some((place, until))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::{date, time};
    use jiff::tz::TimeZone;

    use super::*;

    fn at(text: &str) -> UtcMicros {
        UtcMicros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn rotation(every: i32) -> OnCall {
        let person = |name: &str| Person { name: name.to_owned(), channels: vec![name.into()] };
        OnCall {
            name: "plant".to_owned(),
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            // A Monday in summer.
            begins: date(2026, 10, 12),
            handover: time(9, 0, 0, 0),
            every,
            people: ["ann", "bob", "eve"].map(person).to_vec(),
            overrides: Vec::new(),
        }
    }

    fn who(rotation: &OnCall, instant: &str) -> String {
        rotation.duty(at(instant)).unwrap().person.name.clone()
    }

    #[test]
    fn people_take_turns_by_the_weeks_and_hours_of_their_zone() {
        let weekly = rotation(7);
        for (instant, expected) in [
            ("2026-10-12T06:59:59Z", "eve"),
            ("2026-10-12T07:00:00Z", "ann"),
            ("2026-10-19T06:59:59Z", "ann"),
            ("2026-10-19T07:00:00Z", "bob"),
            // Clocks go back on the 25th: 9 o'clock is an hour later in UTC.
            ("2026-10-26T07:59:59Z", "bob"),
            ("2026-10-26T08:00:00Z", "eve"),
            ("2026-11-02T08:00:00Z", "ann"),
            ("2026-10-05T07:00:00Z", "eve"),
            ("2026-09-21T07:00:00Z", "ann"),
        ] {
            assert_eq!(who(&weekly, instant), expected, "{instant}");
        }
        assert_eq!(weekly.duty(at("2026-10-20T00:00:00Z")).unwrap().until, at("2026-10-26T08:00:00Z"));
        let daily = rotation(1);
        assert_eq!(who(&daily, "2026-10-13T07:00:00Z"), "bob");
        let (from, next) = daily.next(at("2026-10-13T07:00:00Z")).unwrap();
        assert_eq!((from, next.person.name.as_str()), (at("2026-10-14T07:00:00Z"), "eve"));
    }

    #[test]
    fn an_override_stands_in_and_the_last_one_counts() {
        let mut weekly = rotation(7);
        let over = |from: &str, until: &str, who| Override { from: at(from), until: at(until), who };
        weekly.overrides = vec![
            over("2026-10-20T00:00:00Z", "2026-10-22T00:00:00Z", 0),
            over("2026-10-21T00:00:00Z", "2026-10-23T00:00:00Z", 2),
        ];
        let duty = |instant: &str| weekly.duty(at(instant)).unwrap();
        let before = duty("2026-10-19T12:00:00Z");
        assert_eq!((before.person.name.as_str(), before.until), ("bob", at("2026-10-20T00:00:00Z")));
        assert!(!before.stands_in && duty("2026-10-20T00:00:00Z").stands_in);
        assert_eq!(who(&weekly, "2026-10-20T12:00:00Z"), "ann");
        assert_eq!(duty("2026-10-20T12:00:00Z").until, at("2026-10-21T00:00:00Z"));
        assert_eq!(who(&weekly, "2026-10-21T12:00:00Z"), "eve");
        assert_eq!(who(&weekly, "2026-10-22T12:00:00Z"), "eve");
        assert_eq!(who(&weekly, "2026-10-23T00:00:00Z"), "bob");
        let (from, next) = weekly.next(at("2026-10-21T12:00:00Z")).unwrap();
        assert_eq!((from, next.person.name.as_str()), (at("2026-10-23T00:00:00Z"), "bob"));
    }

    #[test]
    fn one_alone_is_always_on_call() {
        let mut alone = rotation(7);
        alone.people.truncate(1);
        assert_eq!(who(&alone, "2031-01-01T00:00:00Z"), "ann");
        assert_eq!(alone.next(at("2026-10-21T12:00:00Z")), None);
        assert_eq!(alone.duty(UtcMicros(i64::MAX)), None);
    }
}

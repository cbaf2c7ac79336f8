//! How long a device was what, day by day, from its events. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::UtcMicros;

/// Microseconds of a UTC day.
const DAY: i64 = 86_400_000_000;

/// A UTC day, or the part of it that lies in the period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Day {
    pub from: UtcMicros,
    pub to: UtcMicros,
    /// How long it was of each status that an event tells; what comes before the first event is in none.
    pub spent: BTreeMap<String, Duration>,
    /// Events in it.
    pub events: usize,
}

impl Day {
    /// Share of the time in which it was online, of that in which it should have been and something is known: people's words
    /// `maintenance` and `retired` count as neither.
    pub fn uptime(&self) -> Option<f64> {
        let counts = |status: &str| !matches!(status, "maintenance" | "retired" | "never_seen");
        let known: Duration = self.spent.iter().filter(|(status, _)| counts(status)).map(|(_, spent)| *spent).sum();
        let online = self.spent.get("online").copied().unwrap_or_default();
        (!known.is_zero()).then(|| online.as_secs_f64() / known.as_secs_f64())
    }
}

/// The days from `from` to `to`. `before`: the status at `from`, if it is known; `events`: times and statuses since, in order.
pub fn by_day(from: UtcMicros, to: UtcMicros, before: Option<&str>, events: &[(UtcMicros, String)]) -> Vec<Day> {
    let mut days = Vec::new();
    let mut status = before;
    let mut left = events.iter().filter(|(at, _)| (from..to).contains(at)).peekable();
    let mut begin = from;
    while begin < to {
        let end = UtcMicros(begin.0.saturating_sub(begin.0.rem_euclid(DAY)).saturating_add(DAY)).min(to);
        let mut day = Day { from: begin, to: end, spent: BTreeMap::new(), events: 0 };
        let mut at = begin;
        while let Some((next, word)) = left.next_if(|(next, _)| *next < end) {
            day.spend(status, at, *next);
            (at, status) = (*next, Some(word.as_str()));
            day.events = day.events.saturating_add(1);
        }
        day.spend(status, at, end);
        days.push(day);
        begin = end;
    }
    days
}

impl Day {
    fn spend(&mut self, status: Option<&str>, from: UtcMicros, to: UtcMicros) {
        let spent = to.since(from);
        if let Some(status) = status.filter(|_| !spent.is_zero()) {
            let sum = self.spent.entry(status.to_owned()).or_default();
            *sum = sum.saturating_add(spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600_000_000;

    fn at(hours: i64) -> UtcMicros {
        UtcMicros(hours * HOUR)
    }

    fn hours(day: &Day, status: &str) -> u64 {
        day.spent.get(status).copied().unwrap_or_default().as_secs() / 3600
    }

    #[test]
    fn a_status_lasts_until_the_next_over_the_ends_of_days() {
        let events = [(at(6), "offline".to_owned()), (at(30), "online".to_owned()), (at(36), "maintenance".to_owned())];
        let days = by_day(at(2), at(44), Some("online"), &events);
        assert_eq!(days.iter().map(|day| (day.from, day.to)).collect::<Vec<_>>(), [(at(2), at(24)), (at(24), at(44))]);
        assert_eq!((hours(&days[0], "online"), hours(&days[0], "offline"), days[0].events), (4, 18, 1));
        assert_eq!((hours(&days[1], "offline"), hours(&days[1], "online")), (6, 6));
        assert_eq!((hours(&days[1], "maintenance"), days[1].uptime()), (8, Some(0.5)));
        let unknown = by_day(at(0), at(24), None, &[]);
        assert_eq!((unknown.len(), unknown[0].uptime()), (1, None));
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(from in 0_i64..100, long in 0_i64..100, mut times in prop::collection::vec(0_i64..200, 0..20)) {
            times.sort_unstable();
            let events: Vec<_> = times.iter().map(|time| (at(*time), format!("s{}", time % 3))).collect();
            let days = by_day(at(from), at(from + long), Some("online"), &events);
            let whole: Duration = days.iter().flat_map(|day| day.spent.values()).sum();
            prop_assert_eq!(whole, at(from + long).since(at(from)));
        }
    }
}

//! Times as people write them: `{ days = ["mon-fri"], from = "08:00", to = "18:00" }`, `{ cron = "0 20 * * MON#1", lasts = "2h" }`,
//! `{ from = "2026-12-01T08:00", to = "2026-12-01T12:00" }`.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use super::rule::Schedule;
use super::times::{Days, Moment, Spell, Times};
use crate::config::document::Value;
use crate::config::fault::Wrong;
use crate::config::section::Section;
use crate::config::timezone;
use crate::time::{self, Stamp, UtcMicros};

/// How long what cron begins may last.
const LASTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 86_400);
/// Most spells of one rule, or of one maintenance.
const MAX_SPELLS: usize = 16;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `schedule` of a rule: one table, or a list of such. None where there is none, or it has a fault.
pub(super) fn schedule(root: &mut Section<'_>) -> Option<Schedule> {
    let is_list = root.node("schedule").is_some_and(|node| matches!(node.value, Value::List(_)));
    let spell = |section: &mut Section<'_>| {
        let zone = zone(section);
        let spell = spell(section);
        if let Some(Spell::Once { .. }) = spell {
            section.fault(
                "from",
                "is a day that comes once; a rule rests but for that by `tidegate alerts rules disable`",
            );
            return (None, zone);
        }
        (spell, zone)
    };
    let spells = if is_list {
        root.tables("schedule", spell)?
    } else if root.has("schedule") {
        vec![root.table("schedule", spell)]
    } else {
        return None;
    };
    if !(1..=MAX_SPELLS).contains(&spells.len()) {
        root.fault("schedule", format!("{} are given, expected 1 to {MAX_SPELLS}", spells.len()));
        return None;
    }
    let zones: Vec<Option<TimeZone>> = spells.iter().map(|(_, zone)| zone.clone()).collect();
    if zones.windows(2).any(|two| two.first() != two.last()) {
        root.fault("schedule", "has more than one timezone; give each of them the same");
    }
    let zone = zones.into_iter().next().flatten();
    let times: Option<Vec<Spell>> = spells.into_iter().map(|(spell, _)| spell).collect();
    Some(Schedule { times: Times(times?), zone })
}

/// The time zone at `timezone`, if one is given.
pub(super) fn zone(section: &mut Section<'_>) -> Option<TimeZone> {
    let name = section.parsed("timezone", "an IANA time zone, such as \"Europe/Berlin\"", timezone)?;
    // It was found a moment ago.
    TimeZone::get(&name).ok()
}

/// One spell, of the keys in the section. None where it has a fault.
pub(super) fn spell(section: &mut Section<'_>) -> Option<Spell> {
    let days = days(section);
    let (from, to) = (edge(section, "from"), edge(section, "to"));
    let cron = section.parsed("cron", "a cron expression such as \"0 20 * * MON\"", cron);
    let lasts = section.duration("lasts", LASTS);
    if section.has("cron") {
        for key in ["days", "from", "to"].iter().filter(|key| section.has(key)) {
            section.fault(key, "means nothing beside cron");
        }
        if !section.has("lasts") {
            section.fault("cron", "names beginnings; give lasts = \"2h\" as well");
        }
        return Some(Spell::Cron { cron: Box::new(cron?), lasts: lasts? });
    }
    if section.has("lasts") {
        section.fault("lasts", "means nothing without cron");
        return None;
    }
    if (section.has("from") && from.is_none()) || (section.has("to") && to.is_none()) {
        return None;
    }
    match (from, to) {
        (None, None) | (Some(Edge::Time(_)), None | Some(Edge::Time(_))) | (None, Some(Edge::Time(_))) => {
            let of_day = |edge: Option<Edge>| match edge {
                Some(Edge::Time(time)) => time,
                _ => Time::midnight(),
            };
            if from.is_none() && to.is_none() && !section.has("days") {
                if section.is_table() {
                    let such = "days = [\"mon-fri\"], from = \"08:00\", to = \"18:00\"; or cron = \"0 20 * * MON\", lasts = \"2h\"";
                    section.fault_here(format!("says no time, expected such as {such}"));
                }
                return None;
            }
            let (from, to) = (of_day(from), of_day(to));
            if from == to && from != Time::midnight() {
                section.fault("to", "is empty: it ends when it begins; for the whole day leave both out");
                return None;
            }
            Some(Spell::Weekly { days: days?, from, to, overnight: to <= from })
        }
        (Some(Edge::Moment(from)), Some(Edge::Moment(to))) => {
            if section.has("days") {
                section.fault("days", "means nothing beside a date");
            }
            if from.micros(&TimeZone::UTC) >= to.micros(&TimeZone::UTC) {
                section.fault("to", "is not later than from, so that it is empty");
                return None;
            }
            Some(Spell::Once { from, to })
        }
        (Some(Edge::Moment(_)), None) => {
            section.fault("from", "has a date, so that a date is wanted for to as well");
            None
        }
        (_, Some(_)) => {
            section.fault("to", "must be a time of the day as from is, or both must have a date");
            None
        }
    }
}

/// All days where none are given; none where they have a fault.
fn days(section: &mut Section<'_>) -> Option<Days> {
    let Some(node) = section.node("days") else { return Some(Days::ALL) };
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() {
        section.fault("days", "is empty, so that no day is meant; leave it out for every day");
        return None;
    }
    let mut days = Some(0);
    for item in items {
        let read = match &item.value {
            Value::Text(text) => some_days(text),
            other => Err(format!("expected days such as \"mon-fri\", found {}", other.kind()).into()),
        };
        match read {
            Ok(these) => days = days.map(|days| days | these),
            Err(wrong) => {
                section.fault_at(item.place.clone(), "days", wrong);
                days = None;
            }
        }
    }
    days.map(Days)
}

/// `sat`, `mon-fri`, `fri-mon`, as bits.
fn some_days(text: &str) -> Result<u8, Wrong> {
    let day = |word: &str| {
        let word = word.trim().to_ascii_lowercase();
        let known = DAYS.iter().position(|day| *day == word || (word.len() > 3 && full(day) == word));
        known.ok_or_else(|| {
            Wrong::new(format!("\"{text}\" is no day, expected one of {}, or a range of them", DAYS.join(", ")))
        })
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(text)?, day(text)?),
    };
    let mut days = 0;
    let mut at = first;
    // At most once around.
    for _ in 0..DAYS.len() {
        days |= 1 << at;
        if at == last {
            break;
        }
        at = (at + 1) % DAYS.len();
    }
    Ok(days)
}

fn full(day: &str) -> &'static str {
    match day {
        "mon" => "monday",
        "tue" => "tuesday",
        "wed" => "wednesday",
        "thu" => "thursday",
        "fri" => "friday",
        "sat" => "saturday",
        _ => "sunday",
    }
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    Time(Time),
    Moment(Moment),
}

/// Where a spell begins or ends: a time of the day, or a moment.
fn edge(section: &mut Section<'_>, key: &'static str) -> Option<Edge> {
    let node = section.node(key)?;
    let text = match &node.value {
        Value::Text(text) | Value::Moment(text) => text.as_str(),
        other => {
            section.fault(
                key,
                format!("expected a time such as \"08:00\" or \"2026-12-01T08:00\", found {}", other.kind()),
            );
            return None;
        }
    };
    let read = read_edge(text);
    if read.is_none() {
        let expected = "expected a time of the day such as \"08:00\", or with its date \"2026-12-01T08:00\"";
        section.fault(key, format!("\"{text}\" is no time, {expected}"));
    }
    read
}

fn read_edge(text: &str) -> Option<Edge> {
    if text.len() <= 8 {
        let time = if text == "24:00" { Some(Time::midnight()) } else { text.parse().ok() };
        return time.map(Edge::Time);
    }
    moment(text).map(Edge::Moment)
}

/// A local time with its date, or an instant with its offset.
pub fn moment(text: &str) -> Option<Moment> {
    let has_offset = text.get(11..).is_some_and(|rest| rest.contains(['Z', 'z', '+', '-']));
    if has_offset {
        return time::read(Stamp::Text(text), None).ok().map(|UtcMicros(at)| Moment::At(UtcMicros(at)));
    }
    text.parse::<DateTime>().ok().map(Moment::Local)
}

/// A cron expression of five fields that comes some time.
///
/// # Errors
/// What is wrong with it.
pub fn cron(text: &str) -> Result<Cron, Wrong> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|error| {
        Wrong::new(format!("\"{text}\" is no cron expression: {error}"))
            .suggest(Some("five fields: minute, hour, day of the month, month, day of the week".to_owned()))
    })?;
    // Every pattern that comes at all comes within the next 28 years; a fixed beginning gives the same answer whenever it is asked.
    let spell = Spell::Cron { cron: Box::new(cron.clone()), lasts: Duration::ZERO };
    if !spell.comes_after(&TimeZone::UTC, 1_767_225_600_000_000) {
        return Err(Wrong::new(format!("\"{text}\" never comes: no month has such a day")));
    }
    Ok(cron)
}

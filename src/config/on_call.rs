//! `[[on_call]]`: who is to be told, in turn, and who stands in for whom.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::document::{Document, Value};
use super::fault::{Wrong, did_you_mean};
use super::load::Surroundings;
use super::notify::{Notify, is_name};
use super::route::timezone;
use super::section::Section;
use crate::time::UtcMicros;

/// Most rotations, people in one, and overrides in one.
const MOST: usize = 64;
const MOST_PEOPLE: usize = 100;
const MOST_OVERRIDES: usize = 1000;
/// Days of a turn.
const DAYS: RangeInclusive<i32> = 1..=366;

/// A rotation: people who are on call in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct OnCall {
    /// 1 to 64 of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// Of the handover, and of overrides.
    pub zone: TimeZone,
    /// The day on which the first person's turn begins, at `handover`.
    pub begins: Date,
    pub handover: Time,
    /// Days of a turn.
    pub every: i32,
    /// One at least.
    pub people: Vec<Person>,
    /// Of several at one time the last counts.
    pub overrides: Vec<Override>,
}

/// Somebody who is on call.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    pub name: String,
    /// Names of `[[notify]]`; one at least.
    pub channels: Vec<Arc<str>>,
}

/// Somebody stands in, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    pub from: UtcMicros,
    /// Not in it any more.
    pub until: UtcMicros,
    /// Place in `people`.
    pub who: usize,
}

/// All rotations, in the order of the file.
pub(super) fn read(root: &mut Section<'_>, around: &Surroundings<'_>, channels: &[Notify]) -> Vec<OnCall> {
    let mut names = BTreeSet::new();
    let rotations = root.tables("on_call", |section| {
        let rotation = rotation(section, around, channels);
        if let Some(rotation) = &rotation
            && !names.insert(rotation.name.clone())
        {
            section.fault("name", format!("\"{}\" is the name of an earlier [[on_call]]", rotation.name));
        }
        rotation
    });
    let rotations: Vec<OnCall> = rotations.unwrap_or_default().into_iter().flatten().collect();
    if rotations.len() > MOST {
        root.fault("on_call", format!("{} rotations; {MOST} are the most", rotations.len()));
    }
    rotations
}

fn rotation(section: &mut Section<'_>, around: &Surroundings<'_>, channels: &[Notify]) -> Option<OnCall> {
    let name = name(section);
    let zone = section.parsed("timezone", "an IANA time zone, such as \"Europe/Berlin\"", timezone);
    if !section.has("timezone") {
        section.fault_here("timezone is missing: an IANA time zone, such as \"Europe/Berlin\"");
    }
    let begins = begins(section);
    let handover = section.parsed("handover", "a time of day, such as \"09:00\"", |text| {
        let parsed = Time::strptime("%H:%M", text);
        parsed.map_err(|_| Wrong::new(format!("\"{text}\" is no time of day, expected such as \"09:00\"")))
    });
    let every = every(section);
    let people = people(section, channels);
    // What overrides mean without it does not matter: there is a fault.
    let local = zone.clone().unwrap_or(TimeZone::UTC);
    let mut overrides = section.tables("overrides", |one| stand_in(one, &local, &people)).unwrap_or_default();
    if let Some(file) = section.text("overrides_file").map(|text| around.path(text)) {
        let document = Document::read(&file);
        let more = section.another(&document, |root| root.tables("overrides", |one| stand_in(one, &local, &people)));
        overrides.extend(more.unwrap_or_default());
    }
    let overrides: Vec<Override> = overrides.into_iter().flatten().collect();
    if overrides.len() > MOST_OVERRIDES {
        section.fault_here(format!("{} overrides; {MOST_OVERRIDES} are the most", overrides.len()));
    }
    let handover = handover.unwrap_or(Time::midnight());
    if people.is_empty() {
        return None;
    }
    Some(OnCall { name: name?, zone: zone?, begins: begins?, handover, every, people, overrides })
}

pub(super) fn name(section: &mut Section<'_>) -> Option<String> {
    let name = section.required_text("name")?;
    if !is_name(name) {
        section.fault("name", "expected 1 to 64 of the characters A-Z a-z 0-9 _ . -");
    }
    Some(name.to_owned())
}

fn begins(section: &mut Section<'_>) -> Option<Date> {
    if !section.has("begins") {
        section.fault_here("begins is missing: on which day does the first person's turn begin?");
    }
    moment(section, "begins", "a day, such as 2026-11-30")
}

/// A TOML date or time, or the same as a text.
fn moment<T: std::str::FromStr>(section: &mut Section<'_>, key: &'static str, expected: &str) -> Option<T> {
    let node = section.node(key)?;
    let text = match &node.value {
        Value::Moment(text) | Value::Text(text) | Value::Variable(text) => text,
        other => {
            section.fault(key, format!("expected {expected}, found {}", other.kind()));
            return None;
        }
    };
    let parsed = text.trim().parse();
    if parsed.is_err() {
        section.fault(key, format!("\"{text}\" is not right, expected {expected}"));
    }
    parsed.ok()
}

/// Days: a word, or their number.
fn every(section: &mut Section<'_>) -> i32 {
    let Some(node) = section.node("every") else { return 7 };
    let days = match &node.value {
        Value::Integer(days) => i32::try_from(*days).ok().filter(|days| DAYS.contains(days)),
        Value::Text(text) if text == "day" => Some(1),
        Value::Text(text) if text == "week" => Some(7),
        _ => None,
    };
    if days.is_none() {
        section.fault("every", format!("expected \"day\", \"week\", or {} to {} days", DAYS.start(), DAYS.end()));
    }
    days.unwrap_or(7)
}

fn people(section: &mut Section<'_>, channels: &[Notify]) -> Vec<Person> {
    if !section.has("people") {
        section.fault_here("people is missing, such as [{ name = \"ann\", channels = [\"ann-mail\"] }]");
    }
    let people = section.tables("people", |one| {
        let name = one.required_text("name").map(str::to_owned);
        let channels = channel_names(one, channels);
        if !one.has("channels") {
            one.fault_here("channels is missing: by which [[notify]] is this person told?");
        } else if channels.is_empty() {
            one.fault("channels", "names no channel");
        }
        Some(Person { name: name?, channels })
    });
    let given = people.is_some();
    let people: Vec<Person> = people.unwrap_or_default().into_iter().flatten().collect();
    if (given && people.is_empty()) || people.len() > MOST_PEOPLE {
        section.fault("people", format!("{} people; 1 to {MOST_PEOPLE} may take turns", people.len()));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = people.iter().find(|person| !names.insert(person.name.as_str())) {
        section.fault("people", format!("\"{}\" is there twice", twice.name));
    }
    people
}

/// The key `channels`: each must be the name of a `[[notify]]`.
pub(super) fn channel_names(section: &mut Section<'_>, channels: &[Notify]) -> Vec<Arc<str>> {
    let known = || channels.iter().map(|channel| channel.name.as_str());
    let mut found = Vec::new();
    for (text, place) in section.texts("channels").unwrap_or_default() {
        if known().any(|name| name == text) {
            found.push(text.into());
        } else {
            let wrong =
                Wrong::new(format!("\"{text}\" is the name of no [[notify]]")).suggest(did_you_mean(text, known()));
            section.fault_at(place, "channels", wrong);
        }
    }
    found
}

fn stand_in(section: &mut Section<'_>, zone: &TimeZone, people: &[Person]) -> Option<Override> {
    let who = section.required_text("who");
    let found = who.and_then(|who| people.iter().position(|person| person.name == who));
    if let Some(who) = who
        && found.is_none()
        && !people.is_empty()
    {
        let names = || people.iter().map(|person| person.name.as_str());
        let wrong =
            Wrong::new(format!("\"{who}\" is none of this rotation's people")).suggest(did_you_mean(who, names()));
        section.fault("who", wrong);
    }
    let mut instant = |key: &'static str| {
        if !section.has(key) {
            section.fault_here(format!("{key} is missing, such as 2026-12-24T09:00:00"));
        }
        let local: DateTime = moment(section, key, "a day and time without a zone, such as 2026-12-24T09:00:00")?;
        let zoned = local.to_zoned(zone.clone()).ok()?;
        Some(UtcMicros(zoned.timestamp().as_microsecond()))
    };
    let (from, until) = (instant("from"), instant("until"));
    let (from, until) = (from?, until?);
    if until <= from {
        section.fault("until", "is not later than from");
    }
    Some(Override { from, until, who: found? })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    pub const CHANNELS: &str =
        "[[notify]]\nname = \"ann-mail\"\nkind = \"syslog\"\n[[notify]]\nname = \"bob-sms\"\nkind = \"syslog\"\n";

    fn read(text: &str) -> (Config, String) {
        let reading = Config::parse(Path::new("t.toml"), &format!("{CHANNELS}{text}"), &[]);
        let faults: Vec<String> = reading.faults.iter().map(ToString::to_string).collect();
        (reading.config, faults.join("\n"))
    }

    const GOOD: &str = r#"
[[on_call]]
name = "plant"
timezone = "Europe/Berlin"
begins = 2026-11-30
handover = "09:00"
people = [{ name = "ann", channels = ["ann-mail"] }, { name = "bob", channels = ["bob-sms", "ann-mail"] }]
overrides = [{ from = 2026-12-01T00:00:00, until = 2026-12-02T00:00:00, who = "bob" }]
"#;

    #[test]
    fn a_rotation_can_be_set_with_overrides_from_a_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let more = dir.path().join("more.toml");
        std::fs::write(
            &more,
            "[[overrides]]\nfrom = \"2026-12-24T09:00\"\nuntil = 2026-12-27T09:00:00\nwho = \"ann\"\n",
        )
        .unwrap();
        let (config, faults) = read(&format!("{GOOD}overrides_file = {more:?}\n"));
        assert_eq!(faults, "");
        let plant = &config.on_call[0];
        assert_eq!((plant.every, plant.people.len(), plant.overrides.len()), (7, 2, 2));
        assert_eq!(plant.overrides[1].from.to_string(), "2026-12-24T08:00:00Z");
        assert_eq!((plant.overrides[0].who, plant.overrides[1].who), (1, 0));
        std::fs::write(&more, "[[overrides]]\nfrom = 2026-12-24T09:00:00\nuntil = 2026-12-23T09:00:00\nwho = \"an\"\n")
            .unwrap();
        let (_, faults) = read(&format!("{GOOD}overrides_file = {more:?}\n"));
        assert!(faults.contains("more.toml:4") && faults.contains("did you mean `ann`"), "{faults}");
        let (_, faults) = read(&format!("{GOOD}overrides_file = \"/no/such/file\"\n"));
        assert!(faults.contains("/no/such/file"), "{faults}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, words) in [
            ("\"Europe/Berlin\"", "\"Mars\"", "time zone database"),
            ("timezone = \"Europe/Berlin\"", "", "timezone is missing"),
            ("begins = 2026-11-30", "", "begins is missing"),
            ("begins = 2026-11-30", "begins = \"soon\"", "\"soon\" is not right, expected a day"),
            ("\"09:00\"", "\"9\"", "no time of day"),
            ("handover", "every = 0\nhandover", "expected \"day\", \"week\""),
            ("\"ann-mail\"] }, {", "\"ann-mial\"] }, {", "did you mean `ann-mail`"),
            ("channels = [\"ann-mail\"]", "channels = []", "names no channel"),
            ("name = \"bob\"", "name = \"ann\"", "\"ann\" is there twice"),
            ("who = \"bob\"", "who = \"bo\"", "did you mean `bob`"),
            ("until = 2026-12-02T00:00:00", "until = 2026-11-02T00:00:00", "not later than from"),
            ("until = 2026-12-02T00:00:00, ", "", "until is missing"),
            ("name = \"plant\"", "name = \"the plant\"", "1 to 64"),
            ("handover", "colour = 1\nhandover", "unknown key"),
        ] {
            let (_, faults) = read(&GOOD.replacen(from, to, 1));
            assert!(faults.contains(words) && faults.contains("t.toml:"), "{to}: {faults}");
        }
        assert!(read(&GOOD.repeat(2)).1.contains("earlier [[on_call]]"));
    }
}

//! `[[escalation]]`: who is told of an alert that nobody sees to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::fault::{Wrong, did_you_mean};
use super::notify::Notify;
use super::on_call::{OnCall, channel_names, name};
use super::route::{self, Route};
use super::section::Section;
use crate::time::UtcMicros;

/// Most policies, and levels in one.
const MOST: usize = 64;
const MOST_LEVELS: usize = 16;
const AFTER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 24 * 3600);
const REPEAT: RangeInclusive<u32> = 0..=1000;
const REPEAT_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// Levels, one after the other until somebody acknowledges the alert or it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Escalation {
    /// 1 to 64 of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// Which alerts it is for, where their rules name none; none: only those whose rules name it.
    pub route: Option<Route>,
    /// One at least.
    pub levels: Vec<Level>,
    /// How often all levels are told once more.
    pub repeat: u32,
    /// Between the last level and the first.
    pub repeat_after: Duration,
}

/// Who is told at one level.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// After the level before, or after the alert began to fire.
    pub after: Duration,
    /// Names of `[[notify]]`.
    pub channels: Vec<Arc<str>>,
    /// Names of `[[on_call]]`.
    pub on_call: Vec<String>,
}

impl Level {
    /// The channels by which it is told at a time, each once.
    pub fn channels_at(&self, rotations: &BTreeMap<String, OnCall>, at: UtcMicros) -> BTreeSet<Arc<str>> {
        let on_call = self.on_call.iter().filter_map(|name| rotations.get(name)?.duty(at));
        let of_people = on_call.flat_map(|duty| duty.person.channels.iter());
        self.channels.iter().chain(of_people).cloned().collect()
    }
}

/// All policies, in the order of the file.
pub(super) fn read(root: &mut Section<'_>, channels: &[Notify], rotations: &[OnCall]) -> Vec<Escalation> {
    let mut names = BTreeSet::new();
    let policies = root.tables("escalation", |section| {
        let policy = policy(section, channels, rotations);
        if let Some(policy) = &policy
            && !names.insert(policy.name.clone())
        {
            section.fault("name", format!("\"{}\" is the name of an earlier [[escalation]]", policy.name));
        }
        policy
    });
    let policies: Vec<Escalation> = policies.unwrap_or_default().into_iter().flatten().collect();
    if policies.len() > MOST {
        root.fault("escalation", format!("{} escalations; {MOST} are the most", policies.len()));
    }
    policies
}

fn policy(section: &mut Section<'_>, channels: &[Notify], rotations: &[OnCall]) -> Option<Escalation> {
    let name = name(section);
    let all = section.flag("all").unwrap_or(false);
    let route = route::read(section, false);
    let chooses = route::chooses(section);
    if all && chooses {
        section.fault("all", "stands beside keys that choose alerts, which say otherwise");
    }
    let repeat = section.integer("repeat", REPEAT).unwrap_or(100);
    let repeat_after = section.duration("repeat_after", REPEAT_AFTER).unwrap_or(Duration::from_secs(1800));
    if !section.has("levels") {
        section.fault_here("levels is missing: whom shall it tell, as in [[escalation.levels]] channels = [\"…\"]?");
    }
    let levels = section.tables("levels", |one| level(one, channels, rotations));
    let given = levels.is_some();
    let levels = levels.unwrap_or_default();
    if given && !(1..=MOST_LEVELS).contains(&levels.len()) {
        section.fault("levels", format!("{} levels; 1 to {MOST_LEVELS} may be given", levels.len()));
    }
    let route = (all || chooses).then_some(route);
    (!levels.is_empty()).then_some(Escalation { name: name?, route, levels, repeat, repeat_after })
}

fn level(section: &mut Section<'_>, channels: &[Notify], rotations: &[OnCall]) -> Level {
    let after = section.duration("after", AFTER).unwrap_or_default();
    let given = section.has("channels") || section.has("on_call");
    let channels = channel_names(section, channels);
    let known = || rotations.iter().map(|rotation| rotation.name.as_str());
    let mut on_call = Vec::new();
    for (text, place) in section.texts("on_call").unwrap_or_default() {
        if known().any(|name| name == text) {
            on_call.push(text.to_owned());
        } else {
            let wrong =
                Wrong::new(format!("\"{text}\" is the name of no [[on_call]]")).suggest(did_you_mean(text, known()));
            section.fault_at(place, "on_call", wrong);
        }
    }
    if !given {
        section.fault_here("tells nobody: give it channels or on_call");
    }
    Level { after, channels, on_call }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn read(text: &str) -> (Vec<Escalation>, String) {
        let channels = "[[notify]]\nname = \"ops\"\nkind = \"syslog\"\nonly_escalations = true\n";
        let on_call = "[[on_call]]\nname = \"plant\"\ntimezone = \"UTC\"\nbegins = 2026-11-30\npeople = [{ name = \"ann\", channels = [\"ops\"] }]\n";
        let reading = Config::parse(Path::new("t.toml"), &format!("{channels}{on_call}{text}"), &[]);
        let faults: Vec<String> = reading.faults.iter().map(ToString::to_string).collect();
        (reading.config.escalations, faults.join("\n"))
    }

    const GOOD: &str = r#"
[[escalation]]
name = "night"
least = "critical"
hours = ["20:00-06:00"]
repeat = 2
repeat_after = "20m"
[[escalation.levels]]
on_call = ["plant"]
[[escalation.levels]]
after = "10m"
channels = ["ops"]
on_call = ["plant"]
"#;

    #[test]
    fn levels_are_told_in_turn_by_channels_and_by_whoever_is_on_call() {
        let (policies, faults) = read(GOOD);
        assert_eq!(faults, "");
        let night = &policies[0];
        assert_eq!((night.repeat, night.repeat_after, night.levels.len()), (2, Duration::from_secs(1200), 2));
        assert!(night.route.as_ref().unwrap().hours.is_some());
        assert_eq!((night.levels[0].after, night.levels[1].after), (Duration::ZERO, Duration::from_secs(600)));
        let by_name = read(&GOOD.replace("least = \"critical\"\nhours = [\"20:00-06:00\"]\n", "")).0;
        assert_eq!((by_name[0].route.clone(), by_name[0].name.as_str()), (None, "night"));
        let all = read(&GOOD.replace("least = \"critical\"\nhours = [\"20:00-06:00\"]\n", "all = true\n")).0;
        assert!(all[0].route.is_some());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, words) in [
            ("[\"ops\"]", "[\"opps\"]", "did you mean `ops`"),
            ("[\"plant\"]", "[\"plan\"]", "did you mean `plant`"),
            ("on_call = [\"plant\"]\n[[", "[[", "tells nobody"),
            ("after = \"10m\"", "after = \"10\"", "not a duration"),
            ("repeat = 2", "repeat = -1", "not within 0 to 1000"),
            ("repeat = 2", "all = true", "stands beside keys"),
            ("repeat = 2", "states = [\"firing\"]", "unknown key"),
        ] {
            let (_, faults) = read(&GOOD.replacen(from, to, 1));
            assert!(faults.contains(words) && faults.contains("t.toml:"), "{to}: {faults}");
        }
        assert!(read("[[escalation]]\nname = \"x\"").1.contains("levels is missing"));
        assert!(read(&GOOD.repeat(2)).1.contains("earlier [[escalation]]"));
    }
}

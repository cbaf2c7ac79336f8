//! Which steps of alerts somebody is told of: the keys that `[[notify]]` and `[[escalation]]` share.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::fault::{Wrong, did_you_mean};
use super::section::Section;
use crate::alert::{Severity, State, Transition};
use crate::catalog::matching::glob;
use crate::catalog::read_tags;
use crate::notify::hours::{self, Hours, Span};
use crate::time::UtcMicros;

pub(super) const SEVERITIES: [(&str, Severity); 3] =
    [("info", Severity::Info), ("warning", Severity::Warning), ("critical", Severity::Critical)];
const STATES: [(&str, State); 3] =
    [("firing", State::Firing), ("acknowledged", State::Acknowledged), ("resolved", State::Resolved)];
/// Those that choose, beside `states`.
const KEYS: [&str; 10] =
    ["severities", "least", "rules", "tenants", "devices", "templates", "sites", "tags", "days", "hours"];

/// Which steps of alerts go by a channel: those that fit everything that is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub severities: BTreeSet<Severity>,
    pub states: BTreeSet<State>,
    /// Slugs; empty: every rule.
    pub rules: BTreeSet<String>,
    /// Empty: every tenant.
    pub tenants: BTreeSet<String>,
    /// Uids, with `*` for any characters and `?` for one; empty: every device.
    pub devices: Vec<String>,
    /// Slugs; empty: every template, and none.
    pub templates: BTreeSet<String>,
    /// Names; empty: every site, and none.
    pub sites: BTreeSet<String>,
    /// All of these.
    pub tags: BTreeMap<String, String>,
    /// None: at any time.
    pub hours: Option<Hours>,
}

impl Default for Route {
    /// Whatever fires, and whatever is over.
    fn default() -> Route {
        Route {
            severities: SEVERITIES.iter().map(|(_, severity)| *severity).collect(),
            states: BTreeSet::from([State::Firing, State::Resolved]),
            rules: BTreeSet::new(),
            tenants: BTreeSet::new(),
            devices: Vec::new(),
            templates: BTreeSet::new(),
            sites: BTreeSet::new(),
            tags: BTreeMap::new(),
            hours: None,
        }
    }
}

/// What is known of an alert's device beside its uid and tenant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whose<'a> {
    pub template: Option<&'a str>,
    pub site: Option<&'a str>,
    pub tags: Option<&'a BTreeMap<String, String>>,
    /// Its site's.
    pub zone: Option<&'a TimeZone>,
}

impl Route {
    /// Whether a step of such a device goes by it at this time, by the journal's clock; one of an alert that was put to sleep does not.
    pub fn takes(&self, step: &Transition, whose: Whose<'_>, at: UtcMicros) -> bool {
        let any_or =
            |set: &BTreeSet<String>, name: Option<&str>| set.is_empty() || name.is_some_and(|name| set.contains(name));
        let has = |(name, value): (&String, &String)| whose.tags.is_some_and(|tags| tags.get(name) == Some(value));
        !step.snoozed
            && self.severities.contains(&step.severity)
            && self.states.contains(&step.state)
            && any_or(&self.rules, Some(&step.rule))
            && any_or(&self.tenants, Some(&step.tenant))
            && any_or(&self.templates, whose.template)
            && any_or(&self.sites, whose.site)
            && self.tags.iter().all(has)
            && (self.devices.is_empty() || self.devices.iter().any(|uid| glob(uid, &step.device, false)))
            && self.hours.as_ref().is_none_or(|hours| hours.contain(at, whose.zone))
    }
}

/// Whether one of the keys is there that choose by something else than the state.
pub(super) fn chooses(section: &Section<'_>) -> bool {
    KEYS.iter().any(|key| section.has(key))
}

/// The keys of a route. Those that are not read with `states` choose of what begins.
pub(super) fn read(section: &mut Section<'_>, with_states: bool) -> Route {
    let least = section.word("least", &SEVERITIES);
    let severities = words(section, "severities", &SEVERITIES);
    if least.is_some() && section.has("severities") {
        section.fault("least", "is given beside severities; give one of them");
    }
    let worse =
        |least: Severity| SEVERITIES.map(|(_, severity)| severity).into_iter().filter(|one| *one >= least).collect();
    let states = if with_states { words(section, "states", &STATES) } else { Some(BTreeSet::from([State::Firing])) };
    Route {
        severities: severities.unwrap_or_else(|| worse(least.unwrap_or(Severity::Info))),
        states: states.unwrap_or_else(|| Route::default().states),
        rules: names(section, "rules"),
        tenants: names(section, "tenants"),
        devices: names(section, "devices").into_iter().collect(),
        templates: names(section, "templates"),
        sites: names(section, "sites"),
        tags: read_tags(section, "tags"),
        hours: when(section),
    }
}

fn when(section: &mut Section<'_>) -> Option<Hours> {
    let days = section.texts("days");
    let spans = section.texts("hours");
    let zone = section.parsed("timezone", "an IANA time zone, such as \"Europe/Berlin\"", timezone);
    if days.is_none() && spans.is_none() {
        if section.has("timezone") {
            section.fault("timezone", "has a meaning beside days or hours only");
        }
        return None;
    }
    for (key, list) in [("days", &days), ("hours", &spans)] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            section.fault(key, "is empty: nothing would be told");
        }
    }
    let mut week = [days.is_none(); 7];
    for (text, place) in days.unwrap_or_default() {
        match hours::days(text) {
            Some(found) => found.into_iter().filter_map(|day| week.get_mut(day).map(|on| *on = true)).for_each(drop),
            None => {
                let known = hours::DAYS.map(|(name, _)| name);
                let wrong = Wrong::new(format!(
                    "\"{text}\" is no day, expected one of {}, or such as \"mon-fri\"",
                    known.join(", ")
                ))
                .suggest(did_you_mean(text, known));
                section.fault_at(place, "days", wrong);
            }
        }
    }
    let mut within = Vec::new();
    for (text, place) in spans.unwrap_or_default() {
        match Span::parse(text) {
            Some(span) => within.push(span),
            None => {
                let wrong = format!("\"{text}\" are no hours, expected such as \"08:00-18:00\" or \"22:00-06:00\"");
                section.fault_at(place, "hours", wrong);
            }
        }
    }
    Some(Hours { days: week, spans: within, zone })
}

/// A time zone of the system's database.
pub(super) fn timezone(text: &str) -> Result<TimeZone, Wrong> {
    TimeZone::get(text).map_err(|_| {
        Wrong::new(format!("\"{text}\" is not in the time zone database, expected a name such as \"Europe/Berlin\""))
    })
}

fn words<T: Copy + Ord>(section: &mut Section<'_>, key: &'static str, known: &[(&str, T)]) -> Option<BTreeSet<T>> {
    let texts = section.texts(key)?;
    if texts.is_empty() {
        section.fault(key, "is empty: nothing would be told");
    }
    let mut found = BTreeSet::new();
    for (text, place) in texts {
        match known.iter().find(|(name, _)| *name == text) {
            Some((_, word)) => {
                found.insert(*word);
            }
            None => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let wrong = Wrong::new(format!("\"{text}\" is unknown, expected one of {}", names.join(", ")))
                    .suggest(did_you_mean(text, names.iter().copied()));
                section.fault_at(place, key, wrong);
            }
        }
    }
    Some(found)
}

fn names(section: &mut Section<'_>, key: &'static str) -> BTreeSet<String> {
    section.texts(key).unwrap_or_default().into_iter().map(|(text, _)| text.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;
    use crate::alert::announce::tests::step;

    const NOW: UtcMicros = UtcMicros(1_700_000_000_000_000);

    fn route(rest: &str) -> Route {
        let text = format!("[[notify]]\nname = \"n\"\nkind = \"syslog\"\n{rest}");
        let mut reading = Config::parse(Path::new("t.toml"), &text, &[]);
        assert!(reading.faults.is_empty(), "{:?}", reading.faults);
        reading.config.notify.remove(0).route.unwrap()
    }

    #[test]
    fn a_step_goes_by_a_channel_whose_route_fits_in_everything() {
        let takes = |route: &Route, step: &Transition| route.takes(step, Whose::default(), NOW);
        let firing = step("ab", 0, State::Firing);
        let with = |change: &dyn Fn(&mut Transition)| {
            let mut step = firing.clone();
            change(&mut step);
            step
        };
        let usual = route("");
        assert!(takes(&usual, &firing) && takes(&usual, &with(&|step| step.state = State::Resolved)));
        assert!(!takes(&usual, &with(&|step| step.state = State::Acknowledged)));
        assert!(!takes(&usual, &with(&|step| step.snoozed = true)));
        let warning = with(&|step| step.severity = Severity::Warning);
        assert!(takes(&route("least = \"warning\""), &warning) && !takes(&route("least = \"critical\""), &warning));
        assert!(takes(&route("severities = [\"info\", \"critical\"]"), &firing));
        assert!(!takes(&route("severities = [\"info\", \"critical\"]"), &warning));
        assert!(takes(&route("rules = [\"too-hot\"]\ntenants = [\"default\"]"), &firing));
        assert!(!takes(&route("rules = [\"too-hot\"]\ntenants = [\"acme\"]"), &firing));
        assert!(!takes(&route("rules = [\"too-cold\"]"), &firing));
        assert!(takes(&route("devices = [\"x\", \"d?\"]"), &firing) && !takes(&route("devices = [\"e*\"]"), &firing));
    }

    #[test]
    fn the_device_and_the_hour_decide_too() {
        let firing = step("ab", 0, State::Firing);
        let tags = BTreeMap::from([("room".to_owned(), "cold".to_owned()), ("floor".to_owned(), "2".to_owned())]);
        let zone = TimeZone::get("Asia/Tokyo").unwrap();
        let cold = Whose { template: Some("fridge"), site: Some("Warehouse 3"), tags: Some(&tags), zone: Some(&zone) };
        let takes = |rest: &str, whose| route(rest).takes(&firing, whose, NOW);
        for (rest, fits) in [
            ("templates = [\"fridge\", \"oven\"]", true),
            ("templates = [\"oven\"]", false),
            ("sites = [\"Warehouse 3\"]", true),
            ("sites = [\"Warehouse\"]", false),
            ("tags = { room = \"cold\" }", true),
            ("tags = { room = \"cold\", floor = \"1\" }", false),
            // A Tuesday, 22:13 UTC; in Tokyo Wednesday, 07:13.
            ("days = [\"wed\"]\nhours = [\"07:00-08:00\"]", true),
            ("hours = [\"22:00-23:00\"]", false),
            ("days = [\"tue\"]\nhours = [\"22:00-23:00\"]\ntimezone = \"UTC\"", true),
        ] {
            assert_eq!(takes(rest, cold), fits, "{rest}");
        }
        for rest in ["templates = [\"fridge\"]", "sites = [\"Warehouse 3\"]", "tags = { room = \"cold\" }"] {
            assert!(!takes(rest, Whose::default()), "{rest}");
        }
        assert!(takes("days = [\"tue\"]", Whose::default()));
    }
}

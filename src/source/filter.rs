//! A topic filter with named captures.
//!
//! It is an MQTT topic filter (MQTT 5, 4.7) in which wildcards may have names: `{device}` stands for one level (`+`), a last
//! `{metric...}` for the rest (`#`). As in MQTT, the rest may be nothing: `a/{device...}` matches `a` too, with an empty
//! device. A filter that begins with a wildcard matches no topic that begins with `$` (MQTT 5, 4.7.2), nor one of tidegate's own
//! under `tidegate/`: what it says must not come back as readings, which may be what it says it of.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Longest filter, in bytes (MQTT 5, 1.5.4).
const MAX_FILTER: usize = 65_535;

/// What a filter may capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Tenant,
    Device,
    Module,
    Metric,
    Gateway,
}

impl Name {
    const ALL: [(&'static str, Name); 5] = [
        ("tenant", Name::Tenant),
        ("device", Name::Device),
        ("module", Name::Module),
        ("metric", Name::Metric),
        ("gateway", Name::Gateway),
    ];
}

#[derive(Clone, Debug, PartialEq)]
enum Level {
    Literal(String),
    One(Option<Name>),
}

/// A topic filter with named captures.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Group of a shared subscription (MQTT 5, 4.8.2).
    share: Option<String>,
    levels: Vec<Level>,
    /// Set when the filter ends in `#` or `{name...}`.
    rest: Option<Option<Name>>,
}

/// Why a filter can't be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(pub String);

/// What the named wildcards of a filter stood for in one topic. Anything may be in them, and they may be empty: the
/// topic is the sender's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Captures<'t> {
    pub tenant: Option<&'t str>,
    pub device: Option<&'t str>,
    pub module: Option<&'t str>,
    /// Its levels joined with dots; none where `{metric...}` stood for nothing.
    pub metric: Option<Cow<'t, str>>,
    pub gateway: Option<&'t str>,
}

impl<'t> Captures<'t> {
    fn set(&mut self, name: Option<Name>, text: &'t str) {
        match name {
            Some(Name::Tenant) => self.tenant = Some(text),
            Some(Name::Device) => self.device = Some(text),
            Some(Name::Module) => self.module = Some(text),
            Some(Name::Metric) => self.metric = Some(Cow::Borrowed(text)),
            Some(Name::Gateway) => self.gateway = Some(text),
            None => {}
        }
    }
}

impl Filter {
    /// Reads a filter as written in `[[sources]]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.contains('\0') {
            return fault("a topic filter can't hold NUL");
        }
        let (share, pattern) = split_share(text)?;
        if pattern.is_empty() {
            return fault("a topic filter can't be empty");
        }
        let mut filter = Filter { share, levels: Vec::new(), rest: None };
        let mut used = Vec::new();
        let mut parts = pattern.split('/').peekable();
        while let Some(part) = parts.next() {
            match read_level(part, &mut used)? {
                Part::Level(level) => filter.levels.push(level),
                Part::Rest(_) if parts.peek().is_some() => {
                    return fault(format!("`{part}` stands for the rest of the topic, so it must be the last level"));
                }
                Part::Rest(name) => filter.rest = Some(name),
            }
        }
        if filter.subscription().len() > MAX_FILTER {
            return fault(format!("a topic filter has at most {MAX_FILTER} bytes"));
        }
        Ok(filter)
    }

    /// The filter to subscribe to, with `+` and `#`, and the `$share` prefix if it has one.
    pub fn subscription(&self) -> String {
        let mut text = match &self.share {
            Some(group) => format!("$share/{group}/"),
            None => String::new(),
        };
        for (i, level) in self.levels.iter().enumerate() {
            if i > 0 {
                text.push('/');
            }
            match level {
                Level::Literal(literal) => text.push_str(literal),
                Level::One(_) => text.push('+'),
            }
        }
        if self.rest.is_some() {
            text.push_str(if self.levels.is_empty() { "#" } else { "/#" });
        }
        text
    }

    /// What the named wildcards stand for in `topic`; none if the filter does not match it.
    pub fn captures<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let reserved = topic.starts_with('$') || is_own(topic);
        if reserved && !matches!(self.levels.first(), Some(Level::Literal(_))) {
            return None;
        }
        let mut captures = Captures::default();
        let mut left = Some(topic);
        for level in &self.levels {
            let text = left?;
            let (part, after) = match text.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (text, None),
            };
            match level {
                Level::Literal(literal) if literal == part => {}
                Level::Literal(_) => return None,
                Level::One(name) => captures.set(*name, part),
            }
            left = after;
        }
        match (self.rest, left) {
            (None, None) => {}
            (None, Some(_)) => return None,
            (Some(Some(Name::Metric)), None) => {}
            (Some(Some(Name::Metric)), Some(rest)) => captures.metric = Some(dotted(rest)),
            (Some(name), rest) => captures.set(name, rest.unwrap_or("")),
        }
        Some(captures)
    }

    /// Whether there may be a topic that both filters match; their groups and names aside.
    pub fn overlaps(&self, other: &Filter) -> bool {
        let alike = |(this, that): (&Level, &Level)| match (this, that) {
            (Level::Literal(this), Level::Literal(that)) => this == that,
            _ => true,
        };
        let long_enough = match self.levels.len().cmp(&other.levels.len()) {
            Ordering::Less => self.rest.is_some(),
            Ordering::Equal => true,
            Ordering::Greater => other.rest.is_some(),
        };
        long_enough && self.levels.iter().zip(&other.levels).all(alike)
    }

    /// Whether the filter tells the device.
    pub(super) fn names_device(&self) -> bool {
        self.rest == Some(Some(Name::Device)) || self.levels.contains(&Level::One(Some(Name::Device)))
    }
}

/// Whether tidegate says or hears something of its own on the topic.
pub fn is_own(topic: &str) -> bool {
    topic.starts_with("tidegate/")
}

fn dotted(rest: &str) -> Cow<'_, str> {
    if rest.contains('/') { Cow::Owned(rest.replace('/', ".")) } else { Cow::Borrowed(rest) }
}

fn fault<T>(text: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError(text.into()))
}

/// Takes `$share/group/` off (MQTT 5, 4.8.2).
fn split_share(text: &str) -> Result<(Option<String>, &str), FilterError> {
    let Some(after) = text.strip_prefix("$share/") else {
        return Ok((None, text));
    };
    let Some((group, pattern)) = after.split_once('/') else {
        return fault("a shared subscription is written `$share/group/filter`");
    };
    if group.is_empty() || group.contains(['+', '#', '{', '}']) {
        return fault(format!("`{group}` can't be the group of a shared subscription: a plain name is wanted"));
    }
    Ok((Some(group.to_owned()), pattern))
}

enum Part {
    Level(Level),
    Rest(Option<Name>),
}

fn read_level(part: &str, used: &mut Vec<Name>) -> Result<Part, FilterError> {
    match part {
        "+" => return Ok(Part::Level(Level::One(None))),
        "#" => return Ok(Part::Rest(None)),
        _ => {}
    }
    if part.contains(['+', '#']) {
        return fault(format!("`{part}`: a wildcard stands alone in its level"));
    }
    if !part.contains(['{', '}']) {
        return Ok(Part::Level(Level::Literal(part.to_owned())));
    }
    let inner = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let Some(inner) = inner.filter(|inner| !inner.contains(['{', '}'])) else {
        return fault(format!("`{part}`: a capture such as {{device}} stands alone in its level"));
    };
    let (word, rest) = match inner.strip_suffix("...") {
        Some(word) => (word, true),
        None => (inner, false),
    };
    let Some((_, name)) = Name::ALL.into_iter().find(|(known, _)| *known == word) else {
        return fault(format!("`{part}`: unknown capture; known are tenant, device, module, metric, gateway"));
    };
    if used.contains(&name) {
        return fault(format!("`{{{word}}}` occurs twice"));
    }
    used.push(name);
    Ok(if rest { Part::Rest(Some(name)) } else { Part::Level(Level::One(Some(name))) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn captured<'t>(filter: &str, topic: &'t str) -> Option<Captures<'t>> {
        Filter::parse(filter).unwrap().captures(topic)
    }

    #[test]
    fn filters_overlap_where_one_topic_could_be_of_both() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (Filter::parse(one).unwrap(), Filter::parse(other).unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("tele/+/SENSOR", "tele/{device}/{metric...}"));
        assert!(overlap("#", "a/b") && overlap("a/#", "a") && overlap("a/+", "+/b") && overlap("$share/g/a", "a"));
        assert!(!overlap("tele/+/SENSOR", "stat/#") && !overlap("a/+", "a") && !overlap("a/b/#", "a/c/#"));
    }

    #[test]
    fn a_name_stands_for_one_level_and_dots_for_the_rest() {
        let captures = captured("{tenant}/gw/{gateway}/{device}/{module}/{metric...}", "t/gw/g/d/m/a/b/c").unwrap();
        assert_eq!((captures.tenant, captures.gateway, captures.device), (Some("t"), Some("g"), Some("d")));
        assert_eq!((captures.module, captures.metric.as_deref()), (Some("m"), Some("a.b.c")));
        assert_eq!(captured("zigbee2mqtt/{device...}", "zigbee2mqtt/a/b").unwrap().device, Some("a/b"));
        assert_eq!(captured("a/{device}/b", "a/x/c"), None);
        assert_eq!(captured("a/{device}", "a/x/y"), None);
        assert_eq!(captured("a/{device}", "a"), None);
        assert_eq!(captured("/{device}", "/").unwrap().device, Some(""));
    }

    #[test]
    fn the_rest_may_be_nothing() {
        assert_eq!(captured("a/{device...}", "a").unwrap().device, Some(""));
        assert_eq!(captured("a/{device}/{metric...}", "a/d").unwrap().metric, None);
        assert_eq!(captured("a/{device}/#", "a/d").unwrap().device, Some("d"));
    }

    #[test]
    fn wildcards_in_front_do_not_match_system_topics() {
        assert_eq!(captured("{device}/x", "$SYS/x"), None);
        assert_eq!(captured("#", "$SYS/x"), None);
        assert_eq!(captured("#", "tidegate/alerts/t/d/r"), None);
        assert_eq!(captured("+/alerts/{tenant}/{device}/#", "tidegate/alerts/t/d/r"), None);
        assert_eq!(captured("tidegate/alerts/+/{device}/+", "tidegate/alerts/t/d/r").unwrap().device, Some("d"));
        assert_eq!(captured("$SYS/{metric...}", "$SYS/a/b").unwrap().metric.as_deref(), Some("a.b"));
    }

    #[test]
    fn a_shared_subscription_keeps_its_prefix_and_matches_without_it() {
        let filter = Filter::parse("$share/g/devices/{device}/telemetry").unwrap();
        assert_eq!(filter.subscription(), "$share/g/devices/+/telemetry");
        assert_eq!(filter.captures("devices/d/telemetry").unwrap().device, Some("d"));
        assert_eq!(Filter::parse("$share/g/{device...}").unwrap().captures("$SYS/x"), None);
    }

    #[test]
    fn bad_filters_are_refused() {
        let long = format!("{}/{{device}}", "x".repeat(MAX_FILTER));
        for bad in [
            "",
            "a/#/b",
            "a/{metric...}/b",
            "a/b+",
            "a#",
            "x{device}",
            "{device}x",
            "{{device}}",
            "{device",
            "{}",
            "{...}",
            "{colour}",
            "{Device}",
            "{device}/{device}",
            "{device}/{device...}",
            "a\0b",
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            long.as_str(),
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    /// MQTT 5, 4.7, level by level.
    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => naive(filter, topic),
            ([level, filter @ ..], [part, topic @ ..]) => level == part && naive(filter, topic),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_filter_matches_what_mqtt_says(
            levels in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+", "{device}", "$x"]), 1..5),
            tail in prop::sample::select(vec!["", "/#", "/{metric...}"]),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "$x"]), 1..6),
        ) {
            let text = levels.join("/") + tail;
            let topic = topic.join("/");
            if let Ok(filter) = Filter::parse(&text) {
                let plain = filter.subscription();
                let plain: Vec<&str> = plain.split('/').collect();
                let hidden = topic.starts_with('$') && matches!(plain[0], "+" | "#");
                let expected = !hidden && naive(&plain, &topic.split('/').collect::<Vec<_>>());
                prop_assert_eq!(filter.captures(&topic).is_some(), expected, "{} {}", text, topic);
            }
        }
    }
}

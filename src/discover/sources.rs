//! Which sources would take what was heard.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Decoder;
use crate::decode::auto;
use crate::source::Filter;

/// Most devices that are counted for one source.
const MAX_COUNTED: usize = 10_000;

/// A source as it would stand in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub name: String,
    pub filter: String,
    pub decoder: Decoder,
    /// How many devices it would have, and one of them.
    pub devices: usize,
    pub example: String,
}

/// Filters with the decoders that they are for, while messages come.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    found: BTreeMap<(String, &'static str), BTreeSet<String>>,
}

impl Proposals {
    /// A message on `topic` gave readings of the device `uid` through `decoder`.
    pub(super) fn add(&mut self, decoder: Decoder, topic: &str, uid: &str) {
        let (filter, decoder) = match auto::filter(decoder, topic) {
            Some(filter) => (filter, decoder),
            // What a discovery announces comes to the source that has heard the discovery.
            None if decoder == Decoder::HomeAssistant => ("#".to_owned(), Decoder::Auto),
            None => (below_first(topic), Decoder::Auto),
        };
        let sound = Filter::parse(&filter).is_ok_and(|parsed| parsed.captures(topic).is_some());
        let (filter, decoder) = if sound { (filter, decoder) } else { ("#".to_owned(), Decoder::Auto) };
        let devices = self.found.entry((filter, decoder.name())).or_default();
        if devices.len() < MAX_COUNTED && !devices.contains(uid) {
            devices.insert(uid.to_owned());
        }
    }

    /// The narrow ones first, since the first that matches takes a message. Where two would have the same topics, `auto` has
    /// them.
    pub(super) fn finish(self) -> Vec<Proposal> {
        let mut by_topics: BTreeMap<String, (String, Decoder, BTreeSet<String>)> = BTreeMap::new();
        for ((filter, name), devices) in self.found {
            let Some(decoder) = Decoder::ALL.into_iter().find(|decoder| decoder.name() == name) else { continue };
            let Ok(parsed) = Filter::parse(&filter) else { continue };
            let (known, kept, all) =
                by_topics.entry(parsed.subscription()).or_insert_with(|| (filter.clone(), decoder, BTreeSet::new()));
            all.extend(devices);
            if *kept != decoder {
                (*known, *kept) = (parsed.subscription(), Decoder::Auto);
            }
        }
        let mut found: Vec<_> = by_topics.into_iter().collect();
        found.sort_by_key(|(topics, _)| breadth(topics));
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let proposal = |(topics, (filter, decoder, devices)): (String, (String, Decoder, BTreeSet<String>))| {
            let base = name(decoder, &topics);
            let count = names.entry(base.clone()).or_default();
            *count = count.saturating_add(1);
            Proposal {
                name: if *count > 1 { format!("{base}-{count}") } else { base },
                filter,
                decoder,
                devices: devices.len(),
                example: devices.into_iter().next().unwrap_or_default(),
            }
        };
        found.into_iter().map(proposal).collect()
    }
}

fn below_first(topic: &str) -> String {
    match topic.split_once('/') {
        Some((first, _)) if !first.is_empty() => format!("{first}/#"),
        Some(_) => "#".to_owned(),
        None => topic.to_owned(),
    }
}

/// Whether it ends in `#`, how many wildcards it has, and whether it begins with one.
fn breadth(filter: &str) -> (bool, bool, usize) {
    let wild = filter.split('/').filter(|level| matches!(*level, "+" | "#")).count();
    (filter.ends_with('#'), filter.starts_with(['+', '#']), wild)
}

/// 1 to 64 of what a source's name may hold.
fn name(decoder: Decoder, filter: &str) -> String {
    if decoder != Decoder::Auto {
        return decoder.name().to_owned();
    }
    let first = filter.split('/').next().unwrap_or("");
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' };
    let text: String = first.chars().take(48).map(plain).collect();
    if text.chars().any(|c| c.is_ascii_alphanumeric()) { text } else { "rest".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(messages: &[(Decoder, &str, &str)]) -> Vec<(String, String, Decoder, usize)> {
        let mut proposals = Proposals::default();
        messages.iter().for_each(|(decoder, topic, uid)| proposals.add(*decoder, topic, uid));
        proposals.finish().into_iter().map(|one| (one.name, one.filter, one.decoder, one.devices)).collect()
    }

    fn source(name: &str, filter: &str, decoder: Decoder, devices: usize) -> (String, String, Decoder, usize) {
        (name.to_owned(), filter.to_owned(), decoder, devices)
    }

    #[test]
    fn narrow_filters_come_first_and_names_are_single() {
        let found = sources(&[
            (Decoder::HomeAssistant, "x/announced", "h"),
            (Decoder::Scalar, "plant/pump/flow", "plant/pump"),
            (Decoder::Json, "plant/fan", "plant/fan"),
            (Decoder::Tasmota, "tele/a/SENSOR", "a"),
            (Decoder::Tasmota, "tele/b/STATE", "b"),
            (Decoder::Tasmota, "stat/a/POWER", "a"),
        ]);
        assert_eq!(
            found,
            [
                source("tasmota", "stat/{device}/+", Decoder::Tasmota, 1),
                source("tasmota-2", "tele/{device}/+", Decoder::Tasmota, 2),
                source("plant", "plant/#", Decoder::Auto, 2),
                source("rest", "#", Decoder::Auto, 1),
            ]
        );
    }

    #[test]
    fn two_formats_below_one_level_are_left_to_auto_and_names_that_filters_can_not_hold_too() {
        let found =
            sources(&[(Decoder::OpenMqttGateway, "home/g/BTtoMQTT/A", "A"), (Decoder::Json, "home/x", "home/x")]);
        assert_eq!(found, [source("home", "home/#", Decoder::Auto, 2)]);
        assert_eq!(sources(&[(Decoder::Json, "{x}/y", "u")]), [source("rest", "#", Decoder::Auto, 1)]);
        assert_eq!(sources(&[(Decoder::Json, "/y", "u")]), [source("rest", "#", Decoder::Auto, 1)]);
        assert_eq!(sources(&[(Decoder::Scalar, "y", "y")]), [source("y", "y", Decoder::Auto, 1)]);
    }
}

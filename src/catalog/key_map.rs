//! The raw keys of a template: which metric each stands for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::pattern::{Captured, Pattern, sensor_name};
use super::unit::{self, Conversion};
use super::{Kind, Metric};

/// A raw key of a metric, with how its values become the metric's.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub pattern: Pattern,
    /// Unit of the raw values, where it is not the metric's.
    pub unit: Option<String>,
    /// Applied to the raw value first. Where any of the three is given, the metric's own scale and offset are not applied.
    pub scale: Option<f64>,
    pub offset: Option<f64>,
    /// Another raw key that tells the unit, in place of `unit`.
    pub unit_from: Option<Box<UnitField>>,
}

/// A raw key whose value tells the unit of other keys' values.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitField {
    pub key: String,
    /// Its values as text, and the units that they stand for; what is not listed is read as a unit's name.
    pub units: BTreeMap<String, String>,
}

impl Key {
    /// As written in a list of texts.
    pub fn of(pattern: Pattern) -> Key {
        Key { pattern, unit: None, scale: None, offset: None, unit_from: None }
    }

    /// Whether it says itself how its values are converted.
    pub fn converts(&self) -> bool {
        self.unit.is_some() || self.scale.is_some() || self.offset.is_some() || self.unit_from.is_some()
    }

    /// Its own scale and offset.
    pub fn raw(&self) -> Conversion {
        Conversion { scale: self.scale.unwrap_or(1.0), offset: self.offset.unwrap_or(0.0) }
    }

    /// What leads from its raw values to the metric's, in one step; where nothing else tells their unit.
    pub fn conversion(&self, metric: &Metric) -> Conversion {
        if !self.converts() {
            return Conversion { scale: metric.scale, offset: metric.offset };
        }
        let raw = self.raw();
        // Checked when the file was read.
        let unit = self.unit.as_deref().and_then(|unit| unit::convert(unit, &metric.unit));
        raw.then(unit.unwrap_or(Conversion::NONE))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key::of(Pattern::from(text.to_owned()))
    }
}

/// Where a key stands: the metric, and its place among the metric's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    pub metric: usize,
    pub place: usize,
}

/// What a raw key is by a template.
#[derive(Debug, PartialEq)]
pub struct Found<'t, 'k> {
    pub at: KeyPlace,
    /// None for an exact key.
    pub captured: Option<Captured<'t, 'k>>,
}

/// Raw key → metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyMap {
    exact: HashMap<String, KeyPlace>,
    /// In the order of the file; each metric's own name behind all others.
    patterns: Vec<KeyPlace>,
}

impl KeyMap {
    /// The map of a template's metrics; of two that claim one key, the earlier has it.
    pub fn of(metrics: &[Arc<Metric>]) -> KeyMap {
        let mut map = KeyMap::default();
        for (metric, one) in metrics.iter().enumerate() {
            for (place, key) in one.keys.iter().enumerate() {
                match key.pattern.literal() {
                    Some(literal) => {
                        map.exact.entry(literal.to_owned()).or_insert(KeyPlace { metric, place });
                    }
                    None => map.patterns.push(KeyPlace { metric, place }),
                }
            }
        }
        map.patterns.sort_by_key(|at| {
            let own =
                metrics.get(at.metric).and_then(|metric| Some(metric.is_own_name(&metric.keys.get(at.place)?.pattern)));
            own.unwrap_or(false)
        });
        map
    }

    /// The place of an exact key.
    pub fn exact(&self, key: &str) -> Option<KeyPlace> {
        self.exact.get(key).copied()
    }

    /// What a key is: an exact one, or else the first pattern that matches it. A pattern never gives a sensor the name of
    /// another metric.
    pub fn find<'t, 'k>(&self, metrics: &'t [Arc<Metric>], key: &'k str) -> Option<Found<'t, 'k>> {
        if let Some(at) = self.exact(key) {
            return Some(Found { at, captured: None });
        }
        self.patterns.iter().find_map(|at| {
            let metric = metrics.get(at.metric)?;
            let captured = metric.keys.get(at.place)?.pattern.captures(key)?;
            let name = sensor_name(&metric.name, &captured);
            let taken = metrics.iter().enumerate().any(|(index, other)| index != at.metric && other.name == name);
            (!taken).then_some(Found { at: *at, captured: Some(captured) })
        })
    }
}

impl Metric {
    /// The last of its keys: its own name, so that what a device already calls by the vocabulary's name lands in the same
    /// series; with its numbers, where it has several sensors.
    pub fn own_name(&self) -> Vec<Pattern> {
        let mut own = vec![self.name.clone()];
        if self.is_numbered() {
            own.push(format!("{}_{{n}}", self.name));
        }
        own.iter().filter_map(|text| Pattern::parse(text).ok()).collect()
    }

    fn is_own_name(&self, pattern: &Pattern) -> bool {
        pattern.text().strip_prefix(self.name.as_str()).is_some_and(|rest| rest.is_empty() || rest == "_{n}")
    }

    /// Whether it may have several sensors on one device, numbered.
    pub fn is_numbered(&self) -> bool {
        self.keys.iter().any(|key| key.pattern.numbers())
    }

    /// Whether the number of a sensor may depend on which raw key came first.
    pub fn is_starred(&self) -> bool {
        self.keys.iter().any(|key| key.pattern.is_starred())
    }

    /// Whether a sensor of it may have this name.
    pub fn names(&self, sensor: &str) -> bool {
        if self.name == sensor {
            return true;
        }
        let plain = match sensor.rsplit_once('_') {
            Some((plain, number)) if self.is_numbered() && number.parse::<u32>().is_ok_and(|n| n > 1) => plain,
            _ => sensor,
        };
        self.name == plain
            || (self.name.contains('{')
                && Pattern::parse(&self.name).is_ok_and(|own| own.matches(plain) || own.matches(sensor)))
    }

    /// Whether expressions can be over it.
    pub fn is_countable(&self) -> bool {
        self.kind != Kind::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::testing::metric;

    fn named(name: &str, keys: &[&str]) -> Metric {
        Metric { keys: keys.iter().map(|key| Key::from(*key)).collect(), ..metric(name, Kind::Number) }
    }

    #[test]
    fn exact_keys_win_and_patterns_are_tried_in_order() {
        let metrics =
            [named("power", &["{n}.p", "a.p"]), named("power_{phase}", &["{phase}.p"]), named("power_total", &["t"])]
                .map(Arc::new);
        let map = KeyMap::of(&metrics);
        let found = |key: &str| {
            let found = map.find(&metrics, key)?;
            let name = &metrics[found.at.metric].name;
            Some(found.captured.map_or(name.clone(), |captured| sensor_name(name, &captured)))
        };
        assert_eq!(found("a.p").as_deref(), Some("power"));
        assert_eq!(found("2.p").as_deref(), Some("power_2"));
        assert_eq!(found("b.p").as_deref(), Some("power_b"));
        assert_eq!(found("t").as_deref(), Some("power_total"));
        assert_eq!(found("total.p"), None, "the name is another metric's");
        assert_eq!(found("x"), None);
    }

    #[test]
    fn a_key_of_its_own_unit_leaves_the_metrics_scale_aside() {
        let power = Metric { unit: "W".into(), scale: 10.0, offset: 1.0, ..metric("power", Kind::Number) };
        let plain = Key::from("p").conversion(&power);
        assert_eq!((plain.scale, plain.offset), (10.0, 1.0));
        let milli = Key { unit: Some("mW".into()), ..Key::from("p") }.conversion(&power);
        assert_eq!((milli.scale, milli.offset), (0.001, 0.0));
        let scaled = Key { unit: Some("kW".into()), scale: Some(0.1), offset: Some(2.0), ..Key::from("p") };
        assert!((scaled.conversion(&power).apply(5.0) - 2500.0).abs() < 1e-9);
    }

    #[test]
    fn a_text_that_is_put_into_other_words_is_not_taken_as_it_is() {
        let plain = metric("state", Kind::Text);
        assert!(plain.takes_as_is("state"));
        let worded = Metric { words: [("0".to_owned(), "idle".to_owned())].into(), ..plain };
        assert!(!worded.takes_as_is("state"));
    }

    #[test]
    fn the_names_of_a_metrics_sensors_are_known() {
        let power = named("power", &["{n}.p"]);
        assert!(power.names("power") && power.names("power_2") && !power.names("power_1") && !power.names("power_x"));
        let phase = named("power_{phase}", &["{phase}.{n}"]);
        assert!(phase.names("power_a") && phase.names("power_a_2") && !phase.names("power"));
        assert!(!metric("power", Kind::Number).names("power_2"));
    }
}

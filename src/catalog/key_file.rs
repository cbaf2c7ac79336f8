//! `keys` of a metric: raw keys and patterns of them, each perhaps with a unit or a scale of its own.

use std::collections::BTreeMap;

use super::metric_file::{Claims, unit_of};
use super::pattern::{Pattern, words_in_name};
use super::{Key, Kind, MAX_NAME, Metric, UnitField, unit};
use crate::config::document::{Node, Value};
use crate::config::fault::{Place, Wrong};
use crate::config::section::Section;

/// The raw keys; the metric's name where none are given.
pub(super) fn read(section: &mut Section<'_>, metric: &Metric, index: usize, claims: &mut Claims) -> Vec<Key> {
    let items =
        section.items("keys", "a list of raw keys, each a text or a table such as { key = \"t\", unit = \"°F\" }");
    if items.is_some_and(<[Node]>::is_empty) {
        section.fault("keys", "is empty, so that nothing could arrive; leave it out to use the metric's name");
    }
    let mut keys = Vec::new();
    for (at, item) in items.unwrap_or_default().iter().enumerate() {
        let key = match &item.value {
            Value::Text(text) => key(section, text, &item.place).map(Key::of),
            Value::Table(_) => section.item(item, &format!("keys[{at}]"), |own| key_table(own, metric)),
            other => {
                section.fault_at(
                    item.place.clone(),
                    "keys",
                    format!("expected a text or a table, found {}", other.kind()),
                );
                None
            }
        };
        let Some(key) = key else { continue };
        if let Err(wrong) = names_fit(metric, &key.pattern).and_then(|()| claim(&key.pattern, index, claims)) {
            section.fault_at(item.place.clone(), "keys", wrong);
            continue;
        }
        keys.push(key);
    }
    keys
}

fn key(section: &Section<'_>, text: &str, place: &Place) -> Option<Pattern> {
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(wrong) => {
            section.fault_at(place.clone(), "keys", wrong);
            None
        }
    }
}

/// `{ key = "x", unit = "mW", scale = 0.1, offset = 0, unit_from = "y", units = { 1 = "W" } }`.
fn key_table(section: &mut Section<'_>, metric: &Metric) -> Option<Key> {
    let pattern = if section.has("key") {
        section.parsed("key", "a raw key", Pattern::parse)
    } else {
        section.required_text("key");
        None
    };
    let unit =
        section.parsed("unit", "a unit such as \"°F\"", |text| unit_of(text).and_then(|unit| converts(unit, metric)));
    let (scale, offset) = (section.number("scale"), section.number("offset"));
    if scale == Some(0.0) {
        section.fault("scale", "is 0, which would make every value the same");
    }
    let unit_from = unit_field(section, metric, pattern.as_ref());
    if metric.kind != Kind::Number {
        for key in ["unit", "scale", "offset", "unit_from", "units"].iter().filter(|key| section.has(key)) {
            section.fault(key, "has a meaning for kind = \"number\" only");
        }
    }
    Some(Key { pattern: pattern?, unit, scale, offset, unit_from })
}

/// The raw key that tells the unit, with what its values mean.
fn unit_field(section: &mut Section<'_>, metric: &Metric, own: Option<&Pattern>) -> Option<Box<UnitField>> {
    let key = section.parsed("unit_from", "the raw key whose value tells the unit", |text| match text {
        text if text.is_empty() || text.len() > MAX_NAME => Err(Wrong::new(format!("expected 1 to {MAX_NAME} bytes"))),
        text if own.is_some_and(|own| own.matches(text)) => {
            let message = format!("\"{text}\" is the key itself, expected another one that tells its unit");
            Err(Wrong::new(message))
        }
        text => Ok(text.to_owned()),
    });
    if metric.unit.is_empty() && key.is_some() && metric.kind == Kind::Number {
        section.fault("unit_from", "has no meaning, since the metric has no unit to convert to");
    }
    let units = section.table("units", |section| {
        let mut units = BTreeMap::new();
        for (raw, node) in section.entries() {
            let Value::Text(text) = &node.value else {
                section.fault(raw, format!("expected a unit such as \"°F\", found {}", node.value.kind()));
                continue;
            };
            match unit_of(text).and_then(|unit| converts(unit, metric)) {
                Ok(unit) => drop(units.insert(raw.to_owned(), unit)),
                Err(wrong) => section.fault(raw, wrong),
            }
        }
        units
    });
    if section.has("units") && !section.has("unit_from") {
        let wrong = Wrong::new("has no meaning without unit_from, the raw key whose values it puts into units");
        section.fault("units", wrong.suggest(Some("for one unit that is always so, unit = \"°F\"".to_owned())));
    }
    Some(Box::new(UnitField { key: key?, units }))
}

/// The unit, if values in it can be given in the metric's.
fn converts(text: String, metric: &Metric) -> Result<String, Wrong> {
    if text.is_empty() {
        return Err("is empty; leave it out for a key in the metric's unit".into());
    }
    if metric.unit.is_empty() {
        return Err(format!("\"{text}\" can't be converted, since the metric has no unit").into());
    }
    if unit::convert(&text, &metric.unit).is_some() {
        return Ok(text);
    }
    let Some((from, to)) = unit::find(&text).zip(unit::find(&metric.unit)) else { return Ok(text) };
    let all = to.fellows().map(|unit| unit.display).collect::<Vec<_>>().join(", ");
    let message = if from.quantity == to.quantity {
        format!("\"{text}\" and the metric's \"{}\" are not told apart by a factor", to.display)
    } else {
        format!("\"{text}\" measures {}, but the metric's \"{}\" {}", from.quantity, to.display, to.quantity)
    };
    Err(Wrong::new(message).suggest(Some(format!("convertible to {}: {all}", to.display))))
}

/// Whether the placeholders of the key are those of the metric's name.
fn names_fit(metric: &Metric, key: &Pattern) -> Result<(), Wrong> {
    let wanted = words_in_name(&metric.name);
    if let Some(word) = key.words().find(|word| !wanted.contains(word)) {
        let message = format!("\"{}\" has {{{word}}}, but the metric's name has not", key.text());
        let suggestion = Some(format!("put it there, such as \"{}_{{{word}}}\"", metric.name));
        return Err(Wrong::new(message).suggest(suggestion));
    }
    match wanted.iter().find(|word| !key.words().any(|own| own == **word)) {
        Some(word) => Err(format!("\"{}\" lacks {{{word}}}, which the metric's name needs", key.text()).into()),
        None => Ok(()),
    }
}

fn claim(key: &Pattern, index: usize, claims: &mut Claims) -> Result<(), Wrong> {
    match claims.keys.insert(key.shape(), index) {
        None => Ok(()),
        Some(earlier) if earlier == index => Err(format!("\"{}\" is listed twice", key.text()).into()),
        Some(earlier) => {
            let holder = claims.names.iter().find(|(_, at)| **at == earlier).map_or("", |(name, _)| name.as_str());
            Err(format!("\"{}\" is claimed by the metric \"{holder}\" too", key.text()).into())
        }
    }
}

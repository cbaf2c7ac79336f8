//! `[[example]]` of a template: a real payload and what must become of it. The template's own test; the daemon does not keep it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::matching_file::{decoder, topic};
use crate::config::Decoder;
use crate::config::document::Value;
use crate::config::fault::Place;
use crate::config::section::{Section, as_number};
use crate::source::Filter;

/// A payload with the readings that must come of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Where it was written.
    pub place: Place,
    /// Where the payload is from.
    pub origin: Option<String>,
    pub decoder: Decoder,
    /// The source's topic filter.
    pub filter: String,
    pub topic: String,
    pub payload: Vec<u8>,
    /// Exactly what must come out, by sensor.
    pub readings: BTreeMap<String, ExampleValue>,
    /// Raw keys that may stay without a metric.
    pub unmodeled: Vec<String>,
}

/// A value as an example has it.
#[derive(Clone, Debug, PartialEq)]
pub enum ExampleValue {
    Number(f64),
    Text(String),
}

/// All examples of a template.
pub(super) fn read(root: &mut Section<'_>) -> Vec<Example> {
    root.tables("example", example).unwrap_or_default().into_iter().flatten().collect()
}

fn example(section: &mut Section<'_>) -> Option<Example> {
    let origin = section.text("origin").map(str::to_owned);
    let name = required(section, "decoder").and_then(|_| section.parsed("decoder", "a decoder's name", decoder));
    let decoder = name.and_then(|name| Decoder::ALL.into_iter().find(|one| one.name() == name));
    let filter = required(section, "filter").and_then(|_| section.parsed("filter", "a topic filter", topic));
    let at = section.required_text("topic").map(str::to_owned);
    if let (Some(filter), Some(at)) = (&filter, &at)
        && Filter::parse(filter).is_ok_and(|filter| filter.captures(at).is_none())
    {
        section.fault("topic", format!("the filter \"{filter}\" does not match it"));
    }
    let payload = payload(section);
    let unmodeled = section.texts("unmodeled").unwrap_or_default().into_iter().map(|(key, _)| key.to_owned()).collect();
    if !section.has("readings") {
        section.fault_here("readings is missing, expected what must come of the payload, such as { power = 12.3 }");
    }
    let readings = section.table("readings", readings);
    let place = section.place();
    Some(Example {
        place,
        origin,
        decoder: decoder?,
        filter: filter?,
        topic: at?,
        payload: payload?,
        readings,
        unmodeled,
    })
}

/// Notes that a key is missing.
fn required(section: &mut Section<'_>, key: &'static str) -> Option<()> {
    if section.has(key) {
        return Some(());
    }
    section.required_text(key);
    None
}

fn payload(section: &mut Section<'_>) -> Option<Vec<u8>> {
    let (plain, coded) = (section.text("payload"), section.text("payload_base64"));
    match (plain, coded) {
        (Some(_), Some(_)) => {
            section.fault("payload_base64", "stands beside payload; give one of them");
            None
        }
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(text)) => {
            let packed: String = text.split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(packed);
            if let Err(error) = &bytes {
                section.fault("payload_base64", format!("is not base64 (RFC 4648, section 4): {error}"));
            }
            bytes.ok()
        }
        (None, None) => {
            if !section.has("payload") && !section.has("payload_base64") {
                section.fault_here("payload is missing, or payload_base64");
            }
            None
        }
    }
}

fn readings(section: &mut Section<'_>) -> BTreeMap<String, ExampleValue> {
    let mut readings = BTreeMap::new();
    for (name, node) in section.entries() {
        let value = match &node.value {
            Value::Text(text) => Some(ExampleValue::Text(text.clone())),
            Value::Flag(flag) => Some(ExampleValue::Number(f64::from(u8::from(*flag)))),
            other => as_number(other).map(ExampleValue::Number),
        };
        match value {
            Some(value) => drop(readings.insert(name.to_owned(), value)),
            None => {
                section.fault(name, format!("expected a number, true, false or a text, found {}", node.value.kind()))
            }
        }
    }
    readings
}

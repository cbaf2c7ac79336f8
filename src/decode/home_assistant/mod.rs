//! Home Assistant: what its statestream integration publishes, and what devices announce to it.
//! Documentation of Home Assistant, *MQTT Statestream*; *MQTT*, *MQTT Discovery*.
//!
//! Statestream, `<base>/<domain>/<object id>/<attribute>`:
//! - `state` is raw text, and `unknown` and `unavailable` are states like any other; `last_changed` and `last_updated` are text;
//!   every other attribute is a JSON value, where `NaN` and the infinities that Python writes are absence.
//! - The key is the attribute. `{device}` captures the object id, with the domain best as `{module}`, or `light.x` and
//!   `sensor.x` meet; without a `{device}` it is the entity id, `light.x`.
//!
//! Discovery, `homeassistant/<component>/…/config`, is remembered by state topic: see [`discovery`].
//! - What comes on an announced topic belongs to the announced device (its first identifier, connection or name), under the
//!   key `<component>.<object id>` without the device's id in front, and with the announced unit.
//! - A value template is read if it is a plain path; an entity with another is left out, which is told when it is announced.
//!   Of an entity only the state topic is read: no availability, no attributes, no further state topics of climates or lights.
//! - The device block tells manufacturer, model, firmware and name, and `via_device` the gateway.
//! - Of class `signal_strength` in dBm: the device's `rssi`.
//! - Both the discovery and the states must come to one source. Discovery is retained: it is learned even with `retained = "ignore"`.
//!   A topic that nothing announced and that is no statestream's is refused.
//!
//! There is no time.

mod discovery;
mod template;

use std::collections::HashSet;

use super::document::{Flat, Node};
use super::memory::Recall;
use super::{Context, Point, Report, Value, scalar, topic};
use crate::quarantine::{Reason, Refusal};
use discovery::{Announcement, Entity};
use template::Template;

/// Domains that statestream is recognised by where the filter captures no device.
const DOMAINS: [&str; 38] = [
    "air_quality",
    "alarm_control_panel",
    "automation",
    "binary_sensor",
    "button",
    "calendar",
    "camera",
    "climate",
    "counter",
    "cover",
    "date",
    "datetime",
    "device_tracker",
    "event",
    "fan",
    "group",
    "humidifier",
    "input_boolean",
    "input_number",
    "input_select",
    "input_text",
    "lawn_mower",
    "light",
    "lock",
    "media_player",
    "number",
    "person",
    "remote",
    "select",
    "sensor",
    "siren",
    "sun",
    "switch",
    "text",
    "update",
    "valve",
    "water_heater",
    "weather",
];

pub(super) fn decode(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    if let Some(announcement) = Announcement::of(context.topic) {
        return announcement.learn(payload, context, memory);
    }
    if context.topic == "homeassistant/status" {
        return Ok(Vec::new());
    }
    let entities = discovery::entities(memory, context.topic);
    if entities.is_empty() { statestream(payload, context) } else { states(payload, &entities, context) }
}

/// Whether the topic is that of an announcement.
pub(super) fn teaches(topic: &str) -> bool {
    Announcement::of(topic).is_some()
}

/// Whether an entity was announced for the topic.
pub(super) fn announced(memory: &Recall<'_>, topic: &str) -> bool {
    discovery::is_announced(memory, topic)
}

/// The levels before domain, object id and attribute, if a domain that is known stands there.
pub(super) fn statestream_base(topic: &str) -> Option<&str> {
    let (rest, _) = topic::split_last(topic);
    let (rest, object) = topic::split_last(rest);
    let (base, domain) = topic::split_last(rest);
    (DOMAINS.contains(&domain) && !object.is_empty() && !base.is_empty()).then_some(base)
}

fn statestream(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let (rest, attribute) = topic::split_last(context.topic);
    let (rest, object) = topic::split_last(rest);
    let (_, domain) = topic::split_last(rest);
    let device = match context.captures.device {
        Some(_) => None,
        None if DOMAINS.contains(&domain) => Some(format!("{domain}.{object}")),
        None => {
            let detail = "no discovery announced the topic, and it is no <base>/<domain>/<object id>/<attribute>";
            return Err(Refusal::message(Reason::BadName, detail));
        }
    };
    let key = context.captures.metric.as_deref().unwrap_or(attribute);
    let points = match key {
        "state" | "last_changed" | "last_updated" => scalar::named(key, payload, context.limits)?,
        _ => attribute_value(key, payload, context)?,
    };
    Ok(vec![Report { device, ..Report::of_topic(points) }])
}

fn attribute_value(key: &str, payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    if matches!(payload.trim_ascii(), b"" | b"NaN" | b"Infinity" | b"-Infinity") {
        return Ok(Vec::new());
    }
    let mut flat = Flat::new(context.limits);
    flat.add(key, &Node::parse(payload, context.limits)?)?;
    Ok(vec![flat.finish()?])
}

/// What comes on a topic that was announced: a report for each device. Of a key that is announced twice, the first is taken.
fn states(payload: &[u8], entities: &[Entity], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    let is_document = is_object || entities.iter().any(|entity| matches!(entity.template, Template::Path(_)));
    let absent = payload.trim_ascii().is_empty();
    let document = if is_document && !absent { Some(Node::parse(payload, context.limits)?) } else { None };
    let (mut reports, mut keys, mut count): (Vec<Report>, _, _) = (Vec::new(), HashSet::new(), 0_usize);
    for entity in entities.iter().filter(|entity| keys.insert((&entity.device, &entity.key))) {
        let point = match (&entity.template, &document) {
            (Template::Path(path), Some(document)) => flat(entity, Template::follow(path, document), context)?,
            (Template::Whole, Some(document)) if is_object => flat(entity, Some(document), context)?,
            (Template::Whole, _) => whole(entity, payload, context)?,
            (Template::Path(_), None) => Point::default(),
        };
        count = count.saturating_add(point.samples.len());
        if count > context.limits.max_keys {
            let detail = format!("too many keys: limits.max_keys is {}", context.limits.max_keys);
            return Err(Refusal::message(Reason::TooManyKeys, detail));
        }
        add(&mut reports, entity, point);
    }
    Ok(reports)
}

fn flat(entity: &Entity, node: Option<&Node>, context: &Context<'_>) -> Result<Point, Refusal> {
    let mut flat = Flat::new(context.limits);
    flat.add(&entity.key, node.unwrap_or(&Node::Null))?;
    flat.finish()
}

fn whole(entity: &Entity, payload: &[u8], context: &Context<'_>) -> Result<Point, Refusal> {
    let points = scalar::named(&entity.key, payload, context.limits)?;
    Ok(points.into_iter().next().unwrap_or_default())
}

/// Adds an entity's samples to the report of its device.
fn add(reports: &mut Vec<Report>, entity: &Entity, found: Point) {
    let place = reports.iter().position(|report| report.device.as_ref() == Some(&entity.device));
    let report = match place.and_then(|place| reports.get_mut(place)) {
        Some(report) => report,
        None => {
            let device = Some(entity.device.clone());
            let (told, parent) = (entity.told.clone(), entity.parent.clone());
            reports.push(Report { device, told, parent, ..Report::of_topic(vec![Point::default()]) });
            let Some(report) = reports.last_mut() else { return };
            report
        }
    };
    if let Some(value) = found.get(&entity.key) {
        report.units.extend(entity.unit.clone().map(|unit| (entity.key.clone(), unit)));
        let is_signal = entity.class.as_deref() == Some("signal_strength") && entity.unit.as_deref() == Some("dBm");
        if is_signal && report.signal.is_empty() && matches!(value, Value::Number(_)) {
            report.signal.push(("rssi", value.clone()));
        }
    }
    if let Some(point) = report.points.first_mut() {
        for sample in found.samples {
            point.push(sample.key(&found.keys), sample.value);
        }
    }
}

#[cfg(test)]
mod tests;

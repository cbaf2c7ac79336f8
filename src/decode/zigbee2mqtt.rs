//! Zigbee2MQTT: `<base>/<friendly name>` with one JSON object, or `<base>/<friendly name>/<attribute>` with one value.
//!
//! - Friendly names may hold `/`: the filter's `{device...}` takes them whole. Where the filter captures no device, the first
//!   level is the base, an object is of the device that all other levels name, and anything else is the attribute that the
//!   last one names; of the bridge's own topics only `state` and `health` are read then.
//! - `last_seen` (ISO 8601, or milliseconds however small) is the time; its relative spelling (`2 minutes ago`) is none. A
//!   publish from the cache repeats old values under the newest `last_seen`, which nothing in it tells.
//! - A level that `{metric}` captures leads the keys of what is below it: an attribute, or `availability`, which is a bare
//!   word or an object. An empty payload there is absence.
//! - `availability`, and `bridge/state` of Zigbee2MQTT itself, say who is there. Devices are behind the device `bridge` once that has
//!   told its state to a source that leaves the topic's device uncaptured: they go with it.
//! - `device`, the description of the device itself, is no telemetry, but tells its model. So does the retained
//!   `<base>/bridge/devices`, which is remembered by friendly name where it comes to the same source (the filter
//!   `<base>/{device...}` takes both, as `<base>/#` does).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::document::{Flat, Node};
use super::memory::Recall;
use super::{Context, Report, Told, bad_time, presence, scalar, signal, told};
use crate::quarantine::{Reason, Refusal};
use crate::source::Captures;
use crate::time::{self, Stamp, UtcMicros};

/// What Zigbee2MQTT itself is called.
const BRIDGE: &str = "bridge";

/// What is remembered of a device under its friendly name.
#[derive(Serialize, Deserialize)]
struct Known {
    told: Vec<(Told, String)>,
}

pub(super) fn decode(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    if teaches(context.topic) {
        return learn(payload, context, memory);
    }
    if context.captures.device.is_none() {
        return by_topic(payload, context, memory);
    }
    let mut reports = telemetry(payload, context)?;
    if let (Some(report), Some("availability")) = (reports.first_mut(), context.captures.metric.as_deref()) {
        report.presence = presence::availability(payload, "availability", context);
    }
    let name = context.captures.device.filter(|_| context.captures.metric.is_none());
    if let (Some(report), Some(known)) = (reports.first_mut(), name.and_then(|name| known(memory, name)))
        && report.told.is_empty()
    {
        report.told = known.told;
    }
    Ok(reports)
}

/// Whether the topic is that of the list of devices.
pub(super) fn teaches(topic: &str) -> bool {
    topic.ends_with("/bridge/devices")
}

/// Remembers what the list says of each device. Of those that it no longer has, what was known stays: they send nothing.
fn learn(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    let list = Node::parse(payload, context.limits)?;
    let mut reports = Vec::new();
    for device in list.elements() {
        let Some(name) = device.get("friendly_name").and_then(Node::text).filter(|name| !name.is_empty()) else {
            continue;
        };
        let text = |way: &[&str]| device.at(way).and_then(Node::text);
        let told = told([
            (Told::Manufacturer, text(&["definition", "vendor"]).or_else(|| text(&["manufacturer"]))),
            (Told::Model, text(&["definition", "model"]).or_else(|| text(&["model_id"]))),
            (Told::Firmware, text(&["software_build_id"])),
        ]);
        if !told.is_empty() {
            let known = postcard::to_stdvec(&Known { told: told.clone() });
            let known = known
                .map_err(|error| Refusal::message(Reason::Unsupported, format!("can't be remembered: {error}")))?;
            memory.put(&key_of(name), &known)?;
            reports.push(Report { device: Some(name.to_owned()), told, ..Report::default() });
        }
    }
    Ok(reports)
}

fn known(memory: &Recall<'_>, name: &str) -> Option<Known> {
    memory.get(&key_of(name)).and_then(|bytes| postcard::from_bytes(bytes).ok())
}

/// Under what it is remembered that the bridge of a base tells its state.
fn bridge_of(base: &str) -> String {
    format!("bridge {base}")
}

fn key_of(name: &str) -> String {
    format!("device {name}")
}

fn telemetry(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let attribute = context.captures.metric.as_deref();
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    match attribute {
        Some(_) if !is_object => Ok(vec![Report::of_topic(scalar::decode(payload, context)?)]),
        _ => object(&Node::parse(payload, context.limits)?, attribute.unwrap_or(""), context),
    }
}

fn by_topic(payload: &[u8], context: &Context<'_>, memory: &mut Recall<'_>) -> Result<Vec<Report>, Refusal> {
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    let Some((_, below)) = context.topic.split_once('/') else { return Ok(Vec::new()) };
    let (device, metric) = match below.rsplit_once('/') {
        Some((BRIDGE, metric @ ("state" | "health"))) => (BRIDGE, Some(metric)),
        _ if below.starts_with("bridge/") => return Ok(Vec::new()),
        Some((device, "availability")) => (device, Some("availability")),
        Some((device, metric)) if !is_object => (device, Some(metric)),
        _ => (below, None),
    };
    if device.is_empty() {
        return Ok(Vec::new());
    }
    let base = context.topic.split('/').next().unwrap_or_default();
    let is_state = device == BRIDGE && metric == Some("state");
    if is_state {
        memory.put(&bridge_of(base), b"")?;
    }
    let captures = Captures { device: Some(device), metric: metric.map(Cow::Borrowed), ..context.captures.clone() };
    let mut reports = decode(payload, &Context { captures: &captures, ..*context }, memory)?;
    for report in &mut reports {
        report.device = Some(device.to_owned());
        if is_state {
            report.presence = presence::availability(payload, "bridge", context);
        } else if device != BRIDGE && memory.get(&bridge_of(base)).is_some() {
            report.parent = Some(BRIDGE.to_owned());
        }
    }
    Ok(reports)
}

fn object(document: &Node, attribute: &str, context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    document.expect_object()?;
    let mut flat = Flat::new(context.limits);
    let mut told = Vec::new();
    for (key, node) in document.members() {
        match key.as_str() {
            "last_seen" if attribute.is_empty() => {}
            "device" if attribute.is_empty() => told = described(node),
            _ if attribute.is_empty() => flat.add(key, node)?,
            _ => flat.add(&format!("{attribute}.{key}"), node)?,
        }
    }
    let time = document.get("last_seen").filter(|_| attribute.is_empty()).map(last_seen).transpose()?.flatten();
    let point = flat.finish()?.at(time);
    let signal = signal(&point, &[("linkquality", "link_quality")]);
    Ok(vec![Report { points: vec![point], signal, told, ..Report::default() }])
}

/// The `device` block of a message (`mqtt.include_device_information`).
fn described(device: &Node) -> Vec<(Told, String)> {
    let text = |key| device.get(key).and_then(Node::text);
    told([
        (Told::Manufacturer, text("manufacturerName")),
        (Told::Model, text("model").or_else(|| text("modelId"))),
        (Told::Firmware, text("softwareBuildID").or_else(|| text("softwareBuildId"))),
    ])
}

/// None: a spelling that tells no instant.
fn last_seen(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    match node {
        Node::Null => Ok(None),
        Node::Text(text) => Ok(time::read(Stamp::Text(text), None).ok()),
        Node::Integer(millis) => {
            let micros = millis.checked_mul(1000).and_then(|micros| i64::try_from(micros).ok());
            micros
                .map(UtcMicros)
                .map(Some)
                .ok_or_else(|| bad_time("last_seen", &format!("{millis} is beyond all years")))
        }
        other => Err(bad_time("last_seen", &format!("is {}, a time is wanted", other.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::memory::Memory;
    use super::super::tests::context;
    use super::*;

    fn of(payload: &[u8]) -> Result<Vec<Report>, Refusal> {
        let captures = Captures { device: Some("d"), ..Captures::default() };
        decode(payload, &Context { captures: &captures, ..context() }, &mut Memory::default().of_source(&"s".into()))
    }

    #[test]
    fn the_topic_alone_tells_device_and_attribute() {
        let read = |topic: &str, payload: &str| {
            let mut memory = Memory::default();
            let context = Context { topic, ..context() };
            let reports = decode(payload.as_bytes(), &context, &mut memory.of_source(&"s".into())).unwrap();
            let found = |report: Report| {
                (report.device.unwrap(), report.points.into_iter().map(|point| point.keys).collect::<String>())
            };
            reports.into_iter().map(found).next()
        };
        let told = |device: &str, keys: &str| Some((device.to_owned(), keys.to_owned()));
        assert_eq!(read("z/attic/lamp", r#"{"state":"ON"}"#), told("attic/lamp", "state"));
        assert_eq!(read("z/attic/lamp/state", "ON"), told("attic/lamp", "state"));
        assert_eq!(read("z/lamp/availability", r#"{"state":"online"}"#), told("lamp", "availability.state"));
        assert_eq!(read("z/bridge/state", r#"{"state":"online"}"#), told("bridge", "state.state"));
        assert_eq!(read("z/bridge/info", r#"{"version":"2"}"#), None);
        assert_eq!((read("z", "{}"), read("z/", "x")), (None, None));
    }

    #[test]
    fn link_quality_is_told_beside_the_samples() {
        let report = of(br#"{"t":1,"linkquality":61}"#).unwrap().remove(0);
        assert_eq!(report.signal, [("link_quality", Value::Number(61.0))]);
    }

    #[test]
    fn a_time_that_is_none_refuses_and_one_that_tells_nothing_does_not() {
        let reason = |payload: &str| of(payload.as_bytes()).map_err(|refusal| refusal.reason);
        assert_eq!(reason(r#"{"last_seen":true}"#).unwrap_err(), Reason::BadTime);
        assert_eq!(reason(r#"{"last_seen":99999999999999999999999999}"#).unwrap_err(), Reason::BadTime);
        assert_eq!(reason(r#"{"last_seen":"yesterday"}"#).unwrap()[0].points[0].time, None);
        assert_eq!(reason("[1]").unwrap_err(), Reason::Malformed);
        assert_eq!(reason("").unwrap_err(), Reason::Empty);
    }

    #[test]
    fn the_device_block_and_the_list_of_devices_tell_the_model() {
        let block = r#"{"t":1,"device":{"model":"WSDCGQ11LM","manufacturerName":"LUMI","softwareBuildID":""}}"#;
        let facts = |pairs: &[(Told, &str)]| pairs.iter().map(|(f, t)| (*f, (*t).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            of(block.as_bytes()).unwrap()[0].told,
            facts(&[(Told::Manufacturer, "LUMI"), (Told::Model, "WSDCGQ11LM")])
        );

        let mut memory = Memory::default();
        let mut recall = memory.of_source(&"s".into());
        let list = r#"[{"friendly_name":"Coordinator","definition":null},{"friendly_name":"attic","model_id":"lumi.weather",
            "software_build_id":"3000-0001","definition":{"model":"WSDCGQ11LM","vendor":"Aqara"}}]"#;
        let at = |topic, captures| Context { topic, captures, ..context() };
        let nothing = Captures::default();
        let learned = decode(list.as_bytes(), &at("z/bridge/devices", &nothing), &mut recall).unwrap();
        let aqara = [(Told::Manufacturer, "Aqara"), (Told::Model, "WSDCGQ11LM"), (Told::Firmware, "3000-0001")];
        assert_eq!((learned.len(), &learned[0].told), (1, &facts(&aqara)));
        let attic = Captures { device: Some("attic"), ..Captures::default() };
        let report = decode(br#"{"t":1}"#, &at("z/attic", &attic), &mut recall).unwrap().remove(0);
        assert_eq!(report.told, facts(&aqara));
        let cellar = Captures { device: Some("cellar"), ..Captures::default() };
        assert_eq!(decode(br#"{"t":1}"#, &at("z/cellar", &cellar), &mut recall).unwrap()[0].told, []);
    }
}

//! rtl_433: `rtl_433/<host>/events` with one JSON object for each decoded frame, and `rtl_433/<host>/devices/…` with one value
//! for each key. Documentation of rtl_433, *Operation* (output formats) and *Integration*; `data_format.md` names the keys.
//!
//! - An event names its device: `[type/]model[/subtype][/channel][/id]`, the order of the default devices topic. These keys
//!   are no samples.
//! - `time` is local time without a zone (the source's `timezone`), ISO 8601 with or without offset, or seconds since 1970 as text,
//!   whatever `-M time` says; `@…s` is a place in a recording, and no time.
//! - A sensor sends a frame two or three times within a second: the repeats are readings of the same instant, also where a
//!   damaged one differs.
//! - A devices topic's last level is the key; the identity and the time, which have topics of their own there, are no samples.
//! - With `-M level`, `snr` is in dB. `rssi` and `noise` are in dB below full scale, not in dBm: only samples.
//! - `model` is what rtl_433 calls the protocol of the device. With `-M level`, `freq` (MHz) tells the band.
//! - An event without a model (statistics, log) belongs to the device that the topic names.

use super::document::{Flat, Node};
use super::{Context, Report, Told, bad_time, scalar, seconds, signal, told, topic};
use crate::quarantine::Refusal;
use crate::time::{self, Stamp, UtcMicros};

/// What names the device, in this order.
const IDENTITY: [&str; 5] = ["type", "model", "subtype", "channel", "id"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    let (rest, last) = topic::split_last(context.topic);
    if is_object || (last == "events" && context.captures.metric.is_none()) {
        return Ok(vec![event(&Node::parse(payload, context.limits)?, context)?]);
    }
    let key = context.captures.metric.as_deref().unwrap_or(last);
    let device = match topic::around(rest, |level| level == "devices") {
        Some((_, _, device)) => device,
        None => topic::split_last(rest).1,
    };
    let is_sample = key != "time" && !IDENTITY.contains(&key);
    let points = if is_sample { scalar::named(key, payload, context.limits)? } else { Vec::new() };
    Ok(vec![Report { device: topic::device(context, device), ..Report::of_topic(points) }])
}

fn event(document: &Node, context: &Context<'_>) -> Result<Report, Refusal> {
    document.expect_object()?;
    let device = device(document);
    let mut flat = Flat::new(context.limits);
    for (key, node) in document.members() {
        let key = key.as_str();
        if key != "time" && !(device.is_some() && IDENTITY.contains(&key)) {
            flat.add(key, node)?;
        }
    }
    let point = flat.finish()?;
    let signal = signal(&point, &[("snr", "snr")]);
    let time = document.get("time").map(|node| own_time(node, context)).transpose()?.flatten();
    let model = document.get("model").and_then(Node::text);
    let freq = document.get("freq").or_else(|| document.get("freq1")).and_then(Node::number);
    let told = told([(Told::Model, model), (Told::Connectivity, freq.and_then(band))]);
    Ok(Report { device, signal, told, ..Report::of_topic(vec![point.at(time)]) })
}

/// The licence-free band that a frequency in MHz lies in.
fn band(freq: f64) -> Option<&'static str> {
    [("315mhz", 312.0..318.0), ("433mhz", 433.0..435.0), ("868mhz", 863.0..870.0), ("915mhz", 902.0..928.0)]
        .into_iter()
        .find_map(|(name, band)| band.contains(&freq).then_some(name))
}

/// None: the object has no model.
fn device(document: &Node) -> Option<String> {
    document.get("model").and_then(Node::text).filter(|model| !model.is_empty())?;
    let level = |key: &&str| match document.get(key)? {
        Node::Text(text) => Some(text.clone()),
        Node::Integer(number) => Some(number.to_string()),
        Node::Float(number) => Some(number.to_string()),
        _ => None,
    };
    let levels: Vec<String> = IDENTITY.iter().filter_map(level).filter(|level| !level.is_empty()).collect();
    Some(levels.join("/"))
}

/// None: it tells no instant.
fn own_time(node: &Node, context: &Context<'_>) -> Result<Option<UtcMicros>, Refusal> {
    match node {
        Node::Text(text) if text.starts_with('@') => Ok(None),
        Node::Text(text) => match seconds::of_digits(text) {
            Some(time) => Ok(Some(time)),
            None => {
                let time = time::read(Stamp::Text(text), context.timezone);
                time.map(Some).map_err(|error| bad_time("time", &error.to_string()))
            }
        },
        other => seconds::read("time", other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Value, tests::LIMITS, tests::context};
    use super::*;
    use crate::quarantine::Reason;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    fn one(payload: &str) -> Report {
        of("rtl_433/pi/events", payload).unwrap().remove(0)
    }

    #[test]
    fn the_identity_names_the_device_whatever_its_types() {
        let device = |payload: &str| one(payload).device;
        assert_eq!(device(r#"{"model":"M","id":1.5,"channel":null,"subtype":""}"#).as_deref(), Some("M/1.5"));
        assert_eq!(device(r#"{"model":"M","type":"T","id":true,"channel":3}"#).as_deref(), Some("T/M/3"));
        assert_eq!(device(r#"{"id":1,"n":2}"#), None);
        assert_eq!(one(r#"{"id":1,"n":2}"#).points[0].samples.len(), 2);
    }

    #[test]
    fn devices_topics_tell_device_and_key() {
        let report = of("rtl_433/pi/devices/Acurite/A/1/temperature_C", "3.5").unwrap().remove(0);
        assert_eq!(report.device.as_deref(), Some("Acurite/A/1"));
        assert_eq!(report.points[0].keys, "temperature_C");
        for key in ["time", "id", "model"] {
            assert!(of(&format!("rtl_433/pi/devices/Acurite/A/1/{key}"), "1").unwrap()[0].points.is_empty());
        }
        assert_eq!(of("rtl_433/pi/availability", "online").unwrap()[0].device.as_deref(), Some("pi"));
    }

    #[test]
    fn the_model_and_the_band_are_told() {
        let fact = |fact, text: &str| (fact, text.to_owned());
        let told = |payload: &str| one(payload).told;
        let expected = [fact(Told::Model, "M"), fact(Told::Connectivity, "433mhz")];
        assert_eq!(told(r#"{"model":"M","freq":433.92}"#), expected);
        assert_eq!(told(r#"{"model":"M","freq1":868.1,"freq2":868.4}"#)[1], fact(Told::Connectivity, "868mhz"));
        assert_eq!(told(r#"{"freq":100}"#), []);
    }

    #[test]
    fn only_the_ratio_to_the_noise_is_a_signal() {
        let report = one(r#"{"model":"M","rssi":-0.1,"snr":27.5,"noise":-27.6}"#);
        assert_eq!(report.signal, [("snr", Value::Number(27.5))]);
        assert_eq!(report.points[0].samples.len(), 3);
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let time = |text: &str| {
            of("rtl_433/pi/events", &format!(r#"{{"time":{text}}}"#))
                .map(|found| found[0].points[0].time.map(|at| at.0))
        };
        assert_eq!(time("1700000000"), Ok(Some(1_700_000_000_000_000)));
        assert_eq!(time(r#""200000000000""#), Ok(Some(200_000_000_000_000_000)));
        assert_eq!(time(r#""2023-11-14T22:13:20""#), Ok(Some(1_700_000_000_000_000)));
        assert_eq!(time(r#""2023-11-14 23:13:20.5+0100""#), Ok(Some(1_700_000_000_500_000)));
        assert_eq!(time("null"), Ok(None));
        assert_eq!(time(r#""@x""#), Ok(None));
        assert_eq!(time(r#""soon""#).unwrap_err().reason, Reason::BadTime);
        assert_eq!(time("[]").unwrap_err().reason, Reason::BadTime);
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |payload: &str| of("rtl_433/pi/events", payload).unwrap_err().reason;
        assert_eq!(reason("1"), Reason::Malformed);
        assert_eq!(reason(""), Reason::Empty);
        assert_eq!(reason(r#"{"model":"M","a":1,"a":2}"#), Reason::DuplicateKey);
        let long = "k".repeat(LIMITS.max_key_length + 1);
        assert_eq!(reason(&format!(r#"{{"{long}":1}}"#)), Reason::KeyTooLong);
    }
}

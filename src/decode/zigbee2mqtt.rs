//! Zigbee2MQTT: `<base>/<friendly name>` with one JSON object, or `<base>/<friendly name>/<attribute>` with one value.
//!
//! - Friendly names may hold `/`: the filter's `{device...}` takes them whole. Where the filter captures no device, the first
//!   level is the base, an object is of the device that all other levels name, and anything else is the attribute that the
//!   last one names; of the bridge's own topics only `state` and `health` are read then.
//! - `last_seen` (ISO 8601, or milliseconds however small) is the time; its relative spelling (`2 minutes ago`) is none. A
//!   publish from the cache repeats old values under the newest `last_seen`, which nothing in it tells.
//! - A level that `{metric}` captures leads the keys of what is below it: an attribute, or `availability`, which is a bare
//!   word or an object. An empty payload there is absence.
//! - `device`, the description of the device itself, is no telemetry.

use std::borrow::Cow;

use super::document::{Flat, Node};
use super::{Context, Report, bad_time, scalar, signal};
use crate::quarantine::Refusal;
use crate::source::Captures;
use crate::time::{self, Stamp, UtcMicros};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    if context.captures.device.is_none() {
        return by_topic(payload, context);
    }
    let attribute = context.captures.metric.as_deref();
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    match attribute {
        Some(_) if !is_object => Ok(vec![Report::of_topic(scalar::decode(payload, context)?)]),
        _ => object(&Node::parse(payload, context.limits)?, attribute.unwrap_or(""), context),
    }
}

fn by_topic(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    let Some((_, below)) = context.topic.split_once('/') else { return Ok(Vec::new()) };
    let (device, metric) = match below.rsplit_once('/') {
        Some(("bridge", metric @ ("state" | "health"))) => ("bridge", Some(metric)),
        _ if below.starts_with("bridge/") => return Ok(Vec::new()),
        Some((device, "availability")) => (device, Some("availability")),
        Some((device, metric)) if !is_object => (device, Some(metric)),
        _ => (below, None),
    };
    if device.is_empty() {
        return Ok(Vec::new());
    }
    let captures = Captures { device: Some(device), metric: metric.map(Cow::Borrowed), ..context.captures.clone() };
    let mut reports = decode(payload, &Context { captures: &captures, ..*context })?;
    reports.iter_mut().for_each(|report| report.device = Some(device.to_owned()));
    Ok(reports)
}

fn object(document: &Node, attribute: &str, context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    document.expect_object()?;
    let mut flat = Flat::new(context.limits);
    for (key, node) in document.members() {
        match key.as_str() {
            "last_seen" | "device" if attribute.is_empty() => {}
            _ if attribute.is_empty() => flat.add(key, node)?,
            _ => flat.add(&format!("{attribute}.{key}"), node)?,
        }
    }
    let time = document.get("last_seen").filter(|_| attribute.is_empty()).map(last_seen).transpose()?.flatten();
    let point = flat.finish()?.at(time);
    let signal = signal(&point, &[("linkquality", "link_quality")]);
    Ok(vec![Report { points: vec![point], signal, ..Report::default() }])
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
    use super::super::tests::context;
    use super::*;
    use crate::quarantine::Reason;

    #[test]
    fn the_topic_alone_tells_device_and_attribute() {
        let read = |topic: &str, payload: &str| {
            let reports = decode(payload.as_bytes(), &Context { topic, ..context() }).unwrap();
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
        let context = Context { topic: "z/d", ..context() };
        let report = decode(br#"{"t":1,"linkquality":61}"#, &context).unwrap().remove(0);
        assert_eq!(report.signal, [("link_quality", Value::Number(61.0))]);
    }

    #[test]
    fn a_time_that_is_none_refuses_and_one_that_tells_nothing_does_not() {
        let captures = Captures { device: Some("d"), ..Captures::default() };
        let named = Context { captures: &captures, ..context() };
        let reason = |payload: &str| decode(payload.as_bytes(), &named).map_err(|refusal| refusal.reason);
        assert_eq!(reason(r#"{"last_seen":true}"#).unwrap_err(), Reason::BadTime);
        assert_eq!(reason(r#"{"last_seen":99999999999999999999999999}"#).unwrap_err(), Reason::BadTime);
        assert_eq!(reason(r#"{"last_seen":"yesterday"}"#).unwrap()[0].points[0].time, None);
        assert_eq!(reason("[1]").unwrap_err(), Reason::Malformed);
        assert_eq!(reason("").unwrap_err(), Reason::Empty);
    }
}

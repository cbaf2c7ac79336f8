//! ThingsBoard: the device API (`v1/devices/me/telemetry`, `v2/t`) and the gateway API (`v1/gateway/telemetry`).
//!
//! - A device sends an object of values, `{"ts": …, "values": {…}}`, or an array of those. `ts` beside anything but `values`
//!   is a value like any other. A gateway sends `{"<device>": [those]}`, and one object for the array is taken too.
//! - `ts` is always milliseconds, however small, and may be a quoted number.
//! - The topic says `me` for every device: whoever bridges these topics puts the device into another level.
//! - Devices of the gateway API are behind the gateway that the filter captures as `{gateway}`.
//! - Nested objects flatten, where ThingsBoard keeps them as one JSON value. `metadata` beside `values` is left out.
//! - Numbers beyond 64 bits are numbers, where ThingsBoard makes them text; its unquoted keys are refused.
//! - Attributes, connects, disconnects, claims and RPC carry no readings. A call to a device, on the topic of its answers, is no sign of its life.
//!
//! ThingsBoard documentation: "MQTT Device API Reference" and "MQTT Gateway API Reference", the sections on telemetry upload.

use super::document::{Flat, Node};
use super::{Context, Point, Presence, Report, bad_time, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Unit, UtcMicros};

/// Kinds of messages that carry something else.
const NO_TELEMETRY: [&str; 5] = ["attributes", "claim", "connect", "disconnect", "rpc"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let document = Node::parse(payload, context.limits)?;
    let (gateway, kind) = kind(context.topic);
    let telemetry = !kind.is_some_and(|kind| NO_TELEMETRY.contains(&kind));
    match (gateway, telemetry) {
        (true, true) => of_gateway(&document, context),
        (true, false) => {
            document.expect_object()?;
            let device = document.get("device").and_then(Node::text).map(str::to_owned);
            let presence = match kind {
                Some("connect") => Some(Presence::There("connect".into())),
                Some("disconnect") => Some(Presence::Gone("disconnect".into())),
                Some("rpc") if is_call(&document) => Some(Presence::Hearsay),
                _ => None,
            };
            let report = |device| Report { device: Some(device), presence, ..Report::default() };
            Ok(device.map(report).into_iter().collect())
        }
        (false, telemetry) => {
            let points = if telemetry { points(&document, context)? } else { Vec::new() };
            let device = topic::device(context, topic::level_after(context.topic, "devices"));
            Ok(vec![Report { device, points, ..Report::default() }])
        }
    }
}

/// Whether a topic is of the gateway API, and the level that names the kind of message.
fn kind(topic: &str) -> (bool, Option<&str>) {
    let mut levels = topic.split('/');
    if levels.any(|level| level == "devices") {
        return (false, levels.nth(1));
    }
    let kind = topic::level_after(topic, "gateway");
    (kind.is_some(), kind)
}

/// Whether it is a server's call rather than a gateway's answer.
fn is_call(document: &Node) -> bool {
    document.get("data").is_some_and(|data| data.get("method").is_some())
}

fn of_gateway(document: &Node, context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    document.expect_object()?;
    let report = |(device, node): &(String, Node)| {
        let points = points(node, context)?;
        Ok(Report { device: Some(device.clone()), points, ..Report::default() })
    };
    document.members().iter().map(report).collect()
}

fn points(node: &Node, context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    match node {
        Node::Null => Ok(Vec::new()),
        Node::Array(elements) => elements.iter().map(|element| point(element, context)).collect(),
        other => Ok(vec![point(other, context)?]),
    }
}

fn point(node: &Node, context: &Context<'_>) -> Result<Point, Refusal> {
    if !matches!(node, Node::Object(_)) {
        let detail = format!("malformed JSON: {} as telemetry, an object is wanted", node.kind());
        return Err(Refusal::message(Reason::Malformed, detail));
    }
    let mut flat = Flat::new(context.limits);
    let time = match (node.get("ts"), node.get("values")) {
        (Some(ts), Some(values @ (Node::Object(_) | Node::Null))) => {
            flat.add("", values)?;
            milliseconds(ts)?
        }
        _ => {
            flat.add("", node)?;
            None
        }
    };
    Ok(flat.finish()?.at(time))
}

fn milliseconds(ts: &Node) -> Result<Option<UtcMicros>, Refusal> {
    if *ts == Node::Null {
        return Ok(None);
    }
    let Some(stamp) = ts.stamp() else {
        return Err(bad_time("ts", &format!("is {}, milliseconds are wanted", ts.kind())));
    };
    time::count(stamp, Unit::Millis).map(Some).map_err(|error| bad_time("ts", &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::*;

    fn reports(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    fn keys(topic: &str, payload: &str) -> Vec<(Option<UtcMicros>, Vec<String>)> {
        let points = reports(topic, payload).unwrap().into_iter().flat_map(|report| report.points);
        let keys = |point: Point| point.iter().map(|(key, _)| key.to_owned()).collect();
        points.map(|point| (point.time, keys(point))).collect()
    }

    const DEVICE: &str = "v1/devices/me/telemetry";
    const GATEWAY: &str = "v1/gateway/telemetry";

    #[test]
    fn ts_is_the_time_only_beside_values() {
        assert_eq!(keys(DEVICE, r#"{"ts":1,"a":2}"#), [(None, vec!["ts".into(), "a".into()])]);
        assert_eq!(keys(DEVICE, r#"{"values":{"a":2}}"#), [(None, vec!["values.a".into()])]);
        assert_eq!(keys(DEVICE, r#"{"ts":null,"values":{"a":2}}"#), [(None, vec!["a".into()])]);
        assert_eq!(keys(DEVICE, r#"{"ts":1.5,"values":{"a":null}}"#), [(Some(UtcMicros(1500)), vec![])]);
        assert_eq!(keys(GATEWAY, r#"{"A":{"a":2},"B":[]}"#), [(None, vec!["a".into()])]);
    }

    #[test]
    fn what_is_no_telemetry_has_no_readings() {
        for topic in ["attributes", "claim", "rpc/request/1", "rpc/response/1", "attributes/request/1"] {
            assert_eq!(keys(&format!("v1/devices/me/{topic}"), r#"{"a":1}"#), [], "{topic}");
        }
        assert_eq!(keys("site/v1/devices/gateway/telemetry", r#"{"a":1}"#).len(), 1);
        assert_eq!(keys("v2/t", r#"{"a":1}"#).len(), 1);
        let of = |topic: &str, payload: &str| reports(topic, payload).unwrap();
        assert_eq!(of("v1/gateway/disconnect", r#"{"device":"A"}"#)[0].device.as_deref(), Some("A"));
        assert_eq!(of("v1/gateway/attributes", r#"{"A":{"x":1}}"#), []);
        assert_eq!(of(DEVICE, "{}")[0].device.as_deref(), Some("me"));
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (topic, payload, reason) in [
            (DEVICE, "[[{}]]", Reason::Malformed),
            (DEVICE, "7", Reason::Malformed),
            (DEVICE, r#"{"ts":"noon","values":{}}"#, Reason::BadTime),
            (DEVICE, r#"{"ts":true,"values":{}}"#, Reason::BadTime),
            (DEVICE, r#"{"ts":99999999999999999999,"values":{}}"#, Reason::BadTime),
            (GATEWAY, r#"{"A":7}"#, Reason::Malformed),
            (GATEWAY, r#"{"A":[{"a":1}],"B":[{"a":1,"a":2}]}"#, Reason::DuplicateKey),
            (GATEWAY, "[]", Reason::Malformed),
            (GATEWAY, "", Reason::Empty),
        ] {
            assert_eq!(reports(topic, payload).unwrap_err().reason, reason, "{topic} {payload}");
        }
    }
}

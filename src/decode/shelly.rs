//! Shelly. Gen1: `shellies/<id>/<path>` with one value. Gen2 and later: JSON-RPC notifications on `<prefix>/events/rpc`, and the
//! status of a component on `<prefix>/status/<component>`. Shelly's API documentation, Gen1 *MQTT*; Gen2+ *Mqtt*,
//! *Notifications* (`NotifyStatus`, `NotifyFullStatus`, `NotifyEvent`).
//!
//! The topic tells the generation:
//! - `events/rpc`: `params.ts` (seconds) is the time, and each other member of `params` a component with part of its status. An
//!   event has a component and a time of its own. The device is the topic prefix, which operators rename; `src` is not read.
//! - `status/<component>`: the full status, without a time. Both give `<component>.<path>`, so that the two meet in one
//!   series; a filter with `{module}` in the component's place would prefix it once more. A component's own `id` is no
//!   sample.
//! - Gen1's `announce` and `info` tell model and firmware; they carry no readings.
//! - `rpc` carries requests and answers, `command` and `set` what is to be done: no telemetry. The log (`debug/log`) is refused, as it is not JSON.
//! - Anything else is Gen1's way: the key is the levels below the device, and JSON continues it. A relay's `energy` is in
//!   Watt-minutes, and an emeter's too, while `total` is in Wh: nothing in the payload says so, templates do.
//! - `online` is `true`, and by the will `false`: whether the device is there, and a sample.
//! - `wifi.rssi` of Gen2 is how well the device hears its access point.

use super::document::{Flat, Node};
use super::{Context, Point, Report, Told, json, presence, scalar, seconds, signal, told, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::UtcMicros;

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let (rest, last) = topic::split_last(context.topic);
    let (prefix, before) = topic::split_last(rest);
    match (before, last) {
        ("events", "rpc") => notification(&Node::parse(payload, context.limits)?, prefix, context),
        ("status", component) => status(&Node::parse(payload, context.limits)?, prefix, component, context),
        (_, "announce" | "info") => Ok(announced(payload, context)),
        (_, "rpc" | "command" | "set") => Ok(Vec::new()),
        ("debug", "log") => Err(json::malformed("not JSON: the debug log is no telemetry; narrow the source's filter")),
        _ => value(payload, context),
    }
}

/// What a device says of itself; what is no object says nothing.
fn announced(payload: &[u8], context: &Context<'_>) -> Vec<Report> {
    let Ok(document @ Node::Object(_)) = Node::parse(payload, context.limits) else { return Vec::new() };
    let text = |key| document.get(key).and_then(Node::text);
    let told = told([
        (Told::Manufacturer, Some("Shelly")),
        (Told::Model, text("model")),
        (Told::Firmware, text("fw_ver").or_else(|| document.at(&["update", "old_version"]).and_then(Node::text))),
    ]);
    let below = context.topic.strip_prefix("shellies/").unwrap_or(context.topic);
    let level = below.split_once('/').map_or("", |(device, _)| device);
    let device = topic::device(context, text("id").unwrap_or(level));
    if device.is_none() && context.captures.device.is_none() {
        return Vec::new();
    }
    vec![Report { device, told, ..Report::default() }]
}

/// Gen1, and single values of later generations such as `online`.
fn value(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let below = context.topic.strip_prefix("shellies/").unwrap_or(context.topic);
    let (device, path) = below.split_once('/').unwrap_or(("", below));
    let key = topic::key(context, path);
    let points = match payload.trim_ascii_start() {
        [b'{' | b'[', ..] => {
            let mut flat = Flat::new(context.limits);
            flat.add(&key, &Node::parse(payload, context.limits)?)?;
            vec![flat.finish()?]
        }
        value => scalar::named(&key, value, context.limits)?,
    };
    let presence = (topic::split_last(context.topic).1 == "online")
        .then(|| presence::availability(payload, "online", context))
        .flatten();
    Ok(vec![Report { device: topic::device(context, device), presence, ..Report::of_topic(points) }])
}

fn status(document: &Node, prefix: &str, component: &str, context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    document.expect_object()?;
    let mut flat = Flat::new(context.limits);
    add_component(&mut flat, component, document, &["id"])?;
    Ok(vec![report(vec![flat.finish()?], prefix, context)])
}

fn notification(document: &Node, prefix: &str, context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    document.expect_object()?;
    let params = document.get("params").unwrap_or(&Node::Null);
    let points = match document.get("method").and_then(Node::text) {
        Some("NotifyStatus" | "NotifyFullStatus") => vec![components(params, context)?],
        Some("NotifyEvent") => events(params, context)?,
        _ => {
            let detail = "no notification: method NotifyStatus, NotifyFullStatus or NotifyEvent is wanted";
            return Err(Refusal::message(Reason::Unsupported, detail));
        }
    };
    Ok(vec![report(points, prefix, context)])
}

fn report(points: Vec<Point>, prefix: &str, context: &Context<'_>) -> Report {
    let signal = points.last().map(|point| signal(point, &[("wifi.rssi", "rssi")])).unwrap_or_default();
    Report { device: topic::device(context, prefix), signal, ..Report::of_topic(points) }
}

fn components(params: &Node, context: &Context<'_>) -> Result<Point, Refusal> {
    let mut flat = Flat::new(context.limits);
    for (component, node) in params.members().iter().filter(|(key, _)| key != "ts") {
        add_component(&mut flat, component, node, &["id"])?;
    }
    Ok(flat.finish()?.at(own_time(params)?))
}

/// A point for each event.
fn events(params: &Node, context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    let mut points = Vec::new();
    for event in params.get("events").unwrap_or(&Node::Null).elements() {
        let component = event.get("component").and_then(Node::text).unwrap_or("sys");
        let mut flat = Flat::new(context.limits);
        add_component(&mut flat, component, event, &["component", "id", "ts"])?;
        let time = match own_time(event)? {
            Some(time) => Some(time),
            None => own_time(params)?,
        };
        points.push(flat.finish()?.at(time));
    }
    Ok(points)
}

/// Adds what a node holds under the component's name, but for some of its members.
fn add_component(flat: &mut Flat<'_>, component: &str, node: &Node, but: &[&str]) -> Result<(), Refusal> {
    if !matches!(node, Node::Object(_)) {
        return flat.add(component, node);
    }
    for (key, node) in node.members().iter().filter(|(key, _)| !but.contains(&key.as_str())) {
        flat.add(&format!("{component}.{key}"), node)?;
    }
    Ok(())
}

fn own_time(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    Ok(node.get("ts").map(|ts| seconds::read("ts", ts)).transpose()?.flatten())
}

#[cfg(test)]
mod tests {
    use super::super::{Value, tests::LIMITS, tests::context};
    use super::*;
    use crate::source::Captures;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    fn told(report: &Report) -> (Option<&str>, Vec<&str>) {
        let samples = report.points.iter().flat_map(Point::iter);
        (report.device.as_deref(), samples.map(|(key, _)| key).collect())
    }

    #[test]
    fn the_topic_alone_tells_generation_device_and_key() {
        for (topic, payload, device, key) in [
            ("shellies/em3/emeter/0/power", "1.5", "em3", "emeter.0.power"),
            ("shellies/d/light/0/status", r#"{"ison":true}"#, "d", "light.0.status.ison"),
            ("house/plug/status/switch:0", r#"{"id":0,"apower":1}"#, "house/plug", "switch:0.apower"),
            ("shellies/plug/status/switch:0", r#"{"apower":1}"#, "shellies/plug", "switch:0.apower"),
            ("plug/online", "true", "plug", "online"),
            (
                "plug/events/rpc",
                r#"{"method":"NotifyStatus","params":{"ts":1.5,"switch:0":{"id":0,"apower":1}}}"#,
                "plug",
                "switch:0.apower",
            ),
        ] {
            assert_eq!(told(&of(topic, payload).unwrap()[0]), (Some(device), vec![key]), "{topic}");
        }
    }

    #[test]
    fn a_rest_that_is_not_captured_is_the_key_still() {
        let captures = Captures { device: Some("plug"), ..Captures::default() };
        let context = Context { topic: "plug/a/b", captures: &captures, ..context() };
        assert_eq!(told(&decode(b"1", &context).unwrap()[0]), (None, vec!["a.b"]));
    }

    #[test]
    fn every_event_is_a_point_of_its_own() {
        let payload = r#"{"method":"NotifyEvent","params":{"ts":5,"events":[
            {"component":"input:0","id":0,"event":"btn_down","ts":4.25},{"component":"input:0","event":"btn_up"}]}}"#;
        let report = of("plug/events/rpc", payload).unwrap().remove(0);
        let times: Vec<_> = report.points.iter().map(|point| point.time).collect();
        assert_eq!(times, [Some(UtcMicros(4_250_000)), Some(UtcMicros(5_000_000))]);
        assert_eq!(told(&report).1, ["input:0.event", "input:0.event"]);
    }

    #[test]
    fn the_signal_is_that_of_the_access_point() {
        let rssi = [("rssi", Value::Number(-60.0))];
        assert_eq!(of("plug/status/wifi", r#"{"rssi":-60}"#).unwrap()[0].signal, rssi);
        let payload = r#"{"method":"NotifyFullStatus","params":{"ts":null,"wifi":{"rssi":-60}}}"#;
        assert_eq!(of("plug/events/rpc", payload).unwrap()[0].signal, rssi);
    }

    #[test]
    fn an_announcement_tells_the_model() {
        let payload = r#"{"id":"shellyix3-A4","model":"SHIX3-1","mac":"A4","fw_ver":"2020/v1.7"}"#;
        let report = of("shellies/announce", payload).unwrap().remove(0);
        let fact = |fact, text: &str| (fact, text.to_owned());
        let expected =
            [fact(Told::Manufacturer, "Shelly"), fact(Told::Model, "SHIX3-1"), fact(Told::Firmware, "2020/v1.7")];
        assert_eq!((report.device.as_deref(), &report.told[..]), (Some("shellyix3-A4"), &expected[..]));
        assert!(report.points.is_empty());
    }

    #[test]
    fn what_is_no_telemetry_gives_nothing() {
        for topic in ["a/rpc", "shellies/announce", "shellies/x/info", "shellies/x/relay/0/command", "x/light/0/set"] {
            assert_eq!(of(topic, "{"), Ok(Vec::new()), "{topic}");
        }
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |topic: &str, payload: &str| of(topic, payload).unwrap_err().reason;
        assert_eq!(reason("x/events/rpc", r#"{"params":{}}"#), Reason::Unsupported);
        assert_eq!(reason("x/events/rpc", r#"{"method":"NotifyStatus","params":{"ts":"x"}}"#), Reason::BadTime);
        assert_eq!(reason("x/events/rpc", "1"), Reason::Malformed);
        assert_eq!(reason("x/status/a", "1"), Reason::Malformed);
        assert_eq!(reason("x/status/a", ""), Reason::Empty);
        assert_eq!(reason("x/status/a", r#"{"b.c":1,"b":{"c":2}}"#), Reason::DuplicateKey);
        assert_eq!(reason("shellies/x/relay/0", "{"), Reason::Malformed);
        let long = format!("x/status/{}", "k".repeat(LIMITS.max_key_length));
        assert_eq!(reason(&long, r#"{"a":1}"#), Reason::KeyTooLong);
    }
}

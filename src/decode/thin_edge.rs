//! thin-edge.io measurements: `te/device/<id>/<service levels>/m/<type>` with one JSON object.
//!
//! - Values are numbers, or objects of numbers, one level deep; anything else is refused, as thin-edge.io does. `null` is
//!   absence.
//! - `time` is ISO 8601 text or Unix seconds, whatever its size; `properties` is free-form context and left out.
//! - A device that is no service has empty service levels, which `+` matches and a named wildcard does not take.
//! - `main` is the gateway: any other device is its child, unless the filter captures a `{gateway}`.
//! - The device is the level after `device`, where the filter does not take it from the topic. Registrations, events, alarms,
//!   commands, twin data, status, and the metadata of a type (`…/m/<type>/meta`) carry no readings.
//!
//! thin-edge.io documentation: "Thin Edge JSON format", "MQTT topics on thin-edge".

use super::document::{Flat, Node};
use super::{Context, Report, bad_time, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, Unit, UtcMicros};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let level = topic::level_after(context.topic, "device");
    let device = topic::device(context, level);
    let is_child = level.is_some_and(|level| !matches!(level, "" | "main")) && context.captures.gateway.is_none();
    let parent = is_child.then(|| "main".to_owned());
    if !is_measurement(context.topic) {
        return Ok(vec![Report { device, parent, ..Report::default() }]);
    }
    let document = Node::parse(payload, context.limits)?;
    document.expect_object()?;
    let mut flat = Flat::new(context.limits);
    for (key, node) in document.members() {
        if !matches!(key.as_str(), "time" | "properties") {
            expect_numbers(key, node)?;
            flat.add(key, node)?;
        }
    }
    let time = document.get("time").map(instant).transpose()?.flatten();
    let points = vec![flat.finish()?.at(time)];
    Ok(vec![Report { device, points, parent, ..Report::default() }])
}

/// Whether the topic, where it follows thin-edge.io's scheme, is one of measurements.
fn is_measurement(topic: &str) -> bool {
    let mut levels = topic.split('/');
    if !levels.any(|level| level == "te") {
        return true;
    }
    levels.nth(4) == Some("m") && levels.nth(1) != Some("meta")
}

fn expect_numbers(key: &str, node: &Node) -> Result<(), Refusal> {
    let is_number = |node: &Node| matches!(node, Node::Null | Node::Integer(_) | Node::Float(_));
    let wrong = match node {
        Node::Object(members) => members.iter().find(|(_, node)| !is_number(node)).map(|(_, node)| node),
        node => Some(node).filter(|node| !is_number(node)),
    };
    match wrong {
        None => Ok(()),
        Some(wrong) => {
            let detail = format!("{} in {key}: a number, or an object of numbers, is wanted", wrong.kind());
            Err(Refusal::message(Reason::Malformed, detail))
        }
    }
}

fn instant(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    let read = match node.stamp() {
        None if *node == Node::Null => return Ok(None),
        None => return Err(bad_time("time", &format!("is {}, a time is wanted", node.kind()))),
        Some(text @ Stamp::Text(_)) => time::read(text, None),
        Some(number) => time::count(number, Unit::Seconds),
    };
    read.map(Some).map_err(|error| bad_time("time", &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::Point;
    use super::super::tests::context;
    use super::*;

    fn reports(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    #[test]
    fn only_measurements_are_read() {
        let measurement = |topic: &str| reports(topic, r#"{"a":1}"#).unwrap()[0].points.len() == 1;
        for topic in ["te/device/main///m/env", "te/device/c/service/s/m/", "site/te/device/main///m/", "elsewhere"] {
            assert!(measurement(topic), "{topic}");
        }
        for topic in ["te/device/main//", "te/device/main///e/login", "te/device/main///m/env/meta", "te"] {
            assert!(!measurement(topic), "{topic}");
        }
        assert_eq!(reports("te/device/c1///m/", "{}").unwrap()[0].device.as_deref(), Some("c1"));
    }

    #[test]
    fn children_are_behind_main() {
        let parent = |topic: &str| reports(topic, r#"{"a":1}"#).unwrap().remove(0).parent;
        assert_eq!(parent("te/device/child01///m/env").as_deref(), Some("main"));
        assert_eq!(parent("te/device/main///m/env"), None);
        assert_eq!(parent("elsewhere"), None);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (payload, reason) in [
            (r#"{"a":"on"}"#, Reason::Malformed),
            (r#"{"a":true}"#, Reason::Malformed),
            (r#"{"a":[1]}"#, Reason::Malformed),
            (r#"{"a":{"b":{"c":1}}}"#, Reason::Malformed),
            (r#"{"time":"2021-04-30","a":1}"#, Reason::BadTime),
            (r#"{"time":[],"a":1}"#, Reason::BadTime),
            (r#"{"time":1619802194000000,"a":1}"#, Reason::BadTime),
            (r#"{"a":{"b":1},"a.b":2}"#, Reason::DuplicateKey),
            ("[]", Reason::Malformed),
            ("", Reason::Empty),
        ] {
            assert_eq!(reports("te/device/main///m/", payload).unwrap_err().reason, reason, "{payload}");
        }
        let found = reports("te/device/main///m/", r#"{"a":null,"b":{"c":null},"time":1.5}"#).unwrap();
        assert_eq!(found[0].points, [Point::default().at(Some(UtcMicros(1_500_000)))]);
    }
}

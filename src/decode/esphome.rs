//! ESPHome: `<prefix>/<component>/<object id>[/<aspect>]/state` with one value.
//! Documentation of ESPHome, *MQTT Client Component*; the forms are those of its `mqtt` component's sources.
//!
//! - The key is the levels below the prefix; JSON (lights, events, dates, updates) continues it. Text sensors, texts and selects
//!   are text whatever they look like.
//! - A sensor without a valid value says `nan`, or `None`: absence.
//! - `<prefix>/status` is `online` or `offline`, by the birth or the will: whether the device is there, and a sample; `<prefix>/debug` the log with colours, and commands and discovery
//!   (`esphome/…`) are no telemetry.
//! - Without a `{device}`, the levels before the component are the device.
//! - There is no time, and no signal but the sensors somebody made for it.

use super::document::{Flat, Node};
use super::{Context, Report, presence, scalar, topic};
use crate::quarantine::Refusal;

/// The component types that have a state, as topics spell them.
const COMPONENTS: [&str; 19] = [
    "alarm_control_panel",
    "binary_sensor",
    "climate",
    "cover",
    "date",
    "datetime",
    "event",
    "fan",
    "light",
    "lock",
    "media_player",
    "number",
    "select",
    "sensor",
    "switch",
    "text",
    "text_sensor",
    "update",
    "valve",
];

/// Components whose state is text.
const TEXTS: [&str; 3] = ["select", "text", "text_sensor"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let (prefix, last) = topic::split_last(context.topic);
    if matches!(last, "debug" | "command") || context.topic.starts_with("esphome/") {
        return Ok(Vec::new());
    }
    let found = topic::around(context.topic, |level| COMPONENTS.contains(&level));
    let (device, path) = match found {
        Some((device, component, rest)) => (device, format!("{component}/{rest}")),
        None if last == "status" => (prefix, last.to_owned()),
        None => ("", last.to_owned()),
    };
    let key = topic::key(context, &path);
    let component = key.split('.').next().unwrap_or("");
    let points = match payload.trim_ascii() {
        b"None" if !TEXTS.contains(&component) => Vec::new(),
        [b'{', ..] if !TEXTS.contains(&component) => {
            let mut flat = Flat::new(context.limits);
            flat.add(&key, &Node::parse(payload, context.limits)?)?;
            vec![flat.finish()?]
        }
        value => scalar::named(&key, value, context.limits)?,
    };
    let presence = (last == "status").then(|| presence::availability(payload, last, context)).flatten();
    Ok(vec![Report { device: topic::device(context, device), presence, ..Report::of_topic(points) }])
}

/// The levels before the component, if the topic is that of a state.
pub(super) fn device(topic: &str) -> Option<&str> {
    let (device, _, object) = topic::around(topic, |level| COMPONENTS.contains(&level))?;
    let is_state = object.split('/').count() > 1 && topic::split_last(object).1 == "state";
    (is_state && !device.is_empty()).then_some(device)
}

#[cfg(test)]
mod tests {
    use super::super::{Value, tests::LIMITS, tests::context};
    use super::*;
    use crate::quarantine::Reason;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    #[test]
    fn the_topic_alone_tells_device_and_key() {
        for (topic, device, key) in [
            ("attic/sensor/t/state", "attic", "sensor.t.state"),
            ("home/attic/climate/h/mode/state", "home/attic", "climate.h.mode.state"),
            ("attic/status", "attic", "status"),
        ] {
            let report = of(topic, "1").unwrap().remove(0);
            assert_eq!((report.device.as_deref(), report.points[0].keys.as_str()), (Some(device), key));
        }
        assert_eq!(of("elsewhere", "1").unwrap()[0].device, None);
    }

    #[test]
    fn text_stays_text() {
        let value = |topic: &str, payload: &str| of(topic, payload).unwrap()[0].points[0].samples[0].value.clone();
        assert_eq!(value("d/text_sensor/x/state", "{\"a\":1}"), Value::Text("{\"a\":1}".into()));
        assert_eq!(value("d/select/x/state", "None"), Value::Text("None".into()));
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |payload: &str| of("d/sensor/x/state", payload).unwrap_err().reason;
        assert_eq!(reason("{\"a\":"), Reason::Malformed);
        assert_eq!(reason("1e999"), Reason::NumberOutOfRange);
        assert_eq!(reason(&"x".repeat(LIMITS.max_text_length + 1)), Reason::TooLarge);
        assert_eq!(decode(b"\xff", &context()).unwrap_err().reason, Reason::NotUtf8);
        for topic in ["d/debug", "d/switch/x/command", "esphome/discover/d"] {
            assert_eq!(of(topic, "\u{1b}[0m{"), Ok(Vec::new()), "{topic}");
        }
    }
}

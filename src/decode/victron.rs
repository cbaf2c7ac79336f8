//! Victron Venus OS: `N/<portal id>/<service>/<instance>/<D-Bus path>` with `{"value": x}`.
//! README of `dbus-flashmq`, *Notifications* and *Keep-alive*.
//!
//! - The device is the portal id; the key is the levels below it, and what is inside of `value` follows. `min` and `max` of
//!   a setting are no samples.
//! - `{"value": null}` is an invalid value, an empty payload a service that went away: both are absence.
//! - `full_publish_completed` is a marker, and requests (`R/…`, `W/…`) are no telemetry.
//! - `ProductName` and `FirmwareVersion` of the portal itself (service `platform` or `system`) tell the model; services have
//!   their own as readings.
//! - There is no time, and nothing comes until somebody sends keep-alive requests: tidegate sends none.

use super::document::{Flat, Node};
use super::{Context, Report, Told, json, told, topic};
use crate::quarantine::Refusal;

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let (_, _, below) = topic::around(context.topic, |level| level == "N").unwrap_or_default();
    let (portal, path) = below.split_once('/').unwrap_or((below, ""));
    let is_request = context.topic.starts_with("R/") || context.topic.starts_with("W/");
    if is_request || topic::split_last(context.topic).1 == "full_publish_completed" {
        return Ok(Vec::new());
    }
    let (mut points, mut facts) = (Vec::new(), Vec::new());
    if !payload.trim_ascii().is_empty() {
        let document = Node::parse(payload, context.limits)?;
        document.expect_object()?;
        let Some(value) = document.get("value") else {
            return Err(json::malformed("the object has no member value"));
        };
        let mut flat = Flat::new(context.limits);
        flat.add(&topic::key(context, path), value)?;
        points.push(flat.finish()?);
        facts = told([(fact(path), value.text())].into_iter().filter_map(|(fact, text)| Some((fact?, text))));
    }
    Ok(vec![Report { device: topic::device(context, portal), told: facts, ..Report::of_topic(points) }])
}

/// What a path says of the portal itself.
fn fact(path: &str) -> Option<Told> {
    let (service, rest) = path.split_once('/')?;
    let (_, path) = rest.split_once('/')?;
    match (service, path) {
        ("platform", "Device/Model") | ("system" | "platform", "ProductName") => Some(Told::Model),
        ("platform", "Firmware/Installed/Version") => Some(Told::Firmware),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMITS, context};
    use super::*;
    use crate::quarantine::Reason;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    #[test]
    fn the_topic_alone_tells_device_and_key() {
        let report = of("N/abc/system/0/Dc/Battery/Soc", r#"{"value":84.5}"#).unwrap().remove(0);
        assert_eq!(report.device.as_deref(), Some("abc"));
        assert_eq!(report.points[0].keys, "system.0.Dc.Battery.Soc");
    }

    #[test]
    fn requests_and_markers_are_no_telemetry() {
        for topic in ["R/abc/keepalive", "W/abc/settings/0/x", "N/abc/full_publish_completed"] {
            assert_eq!(of(topic, "x"), Ok(Vec::new()), "{topic}");
        }
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |payload: &str| of("N/abc/a/0/b", payload).unwrap_err().reason;
        for bad in ["1", "[]", "null", "{}", r#"{"valu":1}"#, "x"] {
            assert_eq!(reason(bad), Reason::Malformed, "{bad}");
        }
        assert_eq!(reason(r#"{"value":{"a.b":1,"a":{"b":1}}}"#), Reason::DuplicateKey);
        assert_eq!(reason(r#"{"value":1,"value":2}"#), Reason::DuplicateKey);
        assert_eq!(reason(&format!(r#"{{"value":{}1}}"#, "[".repeat(LIMITS.max_depth))), Reason::TooDeep);
        let long = format!("N/abc/{}", "x/".repeat(LIMITS.max_key_length));
        assert_eq!(of(&long, r#"{"value":1}"#).unwrap_err().reason, Reason::KeyTooLong);
    }
}

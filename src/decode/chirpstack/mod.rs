//! ChirpStack 4: events in JSON or in Protobuf, `application/<id>/device/<EUI>/event/<kind>`.
//!
//! - `up`: samples are the keys of `object`; without a codec it is absent, and there are none. `status`: `margin` and
//!   `batteryLevel`. `location`: `location.*`. Joins, acknowledgements, logs and integrations carry no readings, though
//!   the last have an `object` too. What kind an event is, only the topic's last level tells.
//! - The time is `time`, not that of a gateway. The device is `deviceInfo.devEui`, where the filter does not take it from the
//!   topic.
//! - `deviceInfo.deviceProfileName`, the type that the operator gave it, is the model; `deviceName` the name.
//! - Older releases, and Protobuf, leave out fields that are zero: a status without `margin` has 0 dB, one without
//!   `batteryLevel` 0 %; a LoRa uplink without `snr` was heard at 0 dB.
//! - A device on external power, or that does not know its battery, still says 0 % in newer releases: that is no reading.
//!
//! ChirpStack documentation: "Integrations / Events"; `api/proto/integration/integration.proto`.

mod event;
mod protobuf;

use super::document::{Flat, Node};
use super::envelope::{self, Heard};
use super::{Context, Point, Presence, Report, Told, bad_time, integer, told, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, UtcMicros};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Up,
    Status,
    Location,
    Log,
    /// A join, an acknowledgement, an integration's answer.
    Other,
}

impl Kind {
    fn of_topic(topic: &str) -> Result<Kind, Refusal> {
        match topic.rsplit('/').next().unwrap_or_default() {
            "up" => Ok(Kind::Up),
            "status" => Ok(Kind::Status),
            "location" => Ok(Kind::Location),
            "log" => Ok(Kind::Log),
            "join" | "ack" | "txack" | "integration" => Ok(Kind::Other),
            other => {
                let detail = format!("{other:?} as the topic's last level, an event such as up or status is wanted");
                Err(Refusal::message(Reason::Malformed, detail))
            }
        }
    }
}

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let kind = Kind::of_topic(context.topic)?;
    let text = payload.trim_ascii_start();
    let document = if text.is_empty() || text.starts_with(b"{") {
        Node::parse(payload, context.limits)?
    } else {
        event::parse(payload, kind, context.limits)?
    };
    document.expect_object()?;
    let named = document.at(&["deviceInfo", "devEui"]).and_then(Node::text);
    let info = |key| document.at(&["deviceInfo", key]).and_then(Node::text);
    let told = told([(Told::Model, info("deviceProfileName")), (Told::Name, info("deviceName"))]);
    let mut report = Report { device: topic::device(context, named), told, ..Report::default() };
    let point = match kind {
        Kind::Log | Kind::Other => {
            report.presence = presence(context.topic);
            return Ok(vec![report]);
        }
        Kind::Up => {
            report.signal = envelope::signal(gateways(&document));
            flat(document.get("object"), "", context)?
        }
        Kind::Location => flat(document.get("location"), "location", context)?,
        Kind::Status => status(&document)?,
    };
    let time = document.get("time").map(instant).transpose()?.flatten();
    report.points = vec![point.at(time)];
    Ok(vec![report])
}

/// A join and an acknowledgement come from the device, the others from the network.
fn presence(topic: &str) -> Option<Presence> {
    match topic.rsplit('/').next() {
        Some("join") => Some(Presence::There("join".into())),
        Some("ack") => None,
        _ => Some(Presence::Hearsay),
    }
}

fn flat(object: Option<&Node>, key: &str, context: &Context<'_>) -> Result<Point, Refusal> {
    let mut flat = Flat::new(context.limits);
    match object {
        None | Some(Node::Null) => {}
        Some(object @ Node::Object(_)) => flat.add(key, object)?,
        Some(other) => {
            let detail = format!("object or location is {}, an object is wanted", other.kind());
            return Err(Refusal::message(Reason::Malformed, detail));
        }
    }
    flat.finish()
}

fn status(event: &Node) -> Result<Point, Refusal> {
    let says = |key| event.get(key).and_then(Node::flag) == Some(true);
    let unknown = says("externalPowerSource") || says("batteryLevelUnavailable");
    let keys = if unknown { &["margin"][..] } else { &["margin", "batteryLevel"] };
    let mut point = Point::default();
    for key in keys {
        let value = match event.get(key) {
            None | Some(Node::Null) => integer(0),
            Some(Node::Integer(number)) => integer(*number),
            Some(Node::Float(number)) => super::Value::Number(*number),
            Some(other) => {
                let detail = format!("{key} is {}, a number is wanted", other.kind());
                return Err(Refusal::message(Reason::Malformed, detail));
            }
        };
        point.push(key, value);
    }
    Ok(point)
}

fn instant(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    match node {
        Node::Null => Ok(None),
        Node::Text(text) => {
            time::read(Stamp::Text(text), None).map(Some).map_err(|error| bad_time("time", &error.to_string()))
        }
        other => Err(bad_time("time", &format!("is {}, a time is wanted", other.kind()))),
    }
}

fn gateways(event: &Node) -> impl Iterator<Item = Heard> {
    let lora = event.at(&["txInfo", "modulation", "lora"]).is_some();
    event.get("rxInfo").map_or(&[][..], Node::elements).iter().map(move |gateway| {
        let number = |key| gateway.get(key).and_then(Node::number);
        let rssi = number("rssi");
        Heard { rssi, snr: number("snr").or(rssi.filter(|_| lora).map(|_| 0.0)) }
    })
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::tests::context;
    use super::*;

    fn report(kind: &str, payload: &str) -> Result<Report, Reason> {
        let topic = format!("application/a/device/d/event/{kind}");
        let reports = decode(payload.as_bytes(), &Context { topic: &topic, ..context() });
        reports.map(|mut reports| reports.remove(0)).map_err(|refusal| refusal.reason)
    }

    fn samples(point: &Point) -> Vec<(&str, Value)> {
        point.iter().map(|(key, value)| (key, value.clone())).collect()
    }

    #[test]
    fn an_uplink_without_a_codec_still_tells_how_it_was_heard() {
        let payload = r#"{"deviceInfo":{"devEui":"0102"},"rxInfo":[{"rssi":-113,"snr":-1},{"rssi":-106}],
            "txInfo":{"modulation":{"lora":{}}}}"#;
        let report = report("up", payload).unwrap();
        assert_eq!(report.device.as_deref(), Some("0102"));
        assert_eq!(report.points, [Point::default()]);
        assert_eq!(report.signal, [("rssi", Value::Number(-106.0)), ("snr", Value::Number(0.0))]);
    }

    #[test]
    fn a_status_fills_in_zeros_but_invents_no_battery() {
        let status = |payload: &str| report("status", payload).unwrap().points.remove(0);
        let zero = |key| (key, Value::Number(0.0));
        assert_eq!(samples(&status("{}")), [zero("margin"), zero("batteryLevel")]);
        for flag in ["externalPowerSource", "batteryLevelUnavailable"] {
            let payload = format!(r#"{{"margin":7,"batteryLevel":0.0,"{flag}":true}}"#);
            assert_eq!(samples(&status(&payload)), [("margin", Value::Number(7.0))]);
        }
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (kind, payload, reason) in [
            ("down", "{}", Reason::Malformed),
            ("up", "", Reason::Empty),
            ("up", "{", Reason::Malformed),
            ("up", "hello", Reason::Malformed),
            ("up", r#"{"object":[1]}"#, Reason::Malformed),
            ("up", r#"{"object":{"a.b":1,"a":{"b":2}}}"#, Reason::DuplicateKey),
            ("up", r#"{"time":5}"#, Reason::BadTime),
            ("location", r#"{"location":7}"#, Reason::Malformed),
            ("status", r#"{"margin":"x"}"#, Reason::Malformed),
        ] {
            assert_eq!(report(kind, payload).unwrap_err(), reason, "{kind} {payload}");
        }
    }
}

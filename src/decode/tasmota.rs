//! Tasmota: `<prefix>/<topic>/<kind>` or `<topic>/<prefix>/<kind>`, prefix `tele` or `stat`, with one JSON object or one word.
//! Documentation of Tasmota, *MQTT*, *JSON Status Responses*, *Commands* (`Time`).
//!
//! - The last level is the kind of message. It adds nothing to the keys of an object, and is the key of a word (`LWT`, `POWER1`).
//! - `StatusSNS` and `StatusSTS`, the answers to `Status 8`, `10` and `11`, are stripped: `SENSOR` and `STATE` have the same keys.
//! - `Epoch` (seconds) is the time before `Time`, which has no zone unless it is set so: the source's `timezone` says which.
//!   `Time` is also written with dots and a blank, or as a number of seconds. Before the clock is set it says 1970, which is
//!   left to `time.max_age`. A `Time` further inside is an ordinary sample.
//! - `TempUnit`, `PressureUnit` and `SpeedUnit` tell the unit of what is beside them. It is declared where it is not Tasmota's
//!   usual one (`C`, `hPa`), for `…Temperature` and `DewPoint`, `…Pressure`, and `Speed…`.
//! - `ENERGY.Power` is a number, or an array if there are several channels; sensors are numbered by their place on the bus;
//!   keys contain dots (`PM2.5`).
//! - Device-wide signal: `Wifi.Signal` (dBm) is `rssi`; `Wifi.RSSI` is a percentage, and only a sample.
//! - The answer to `Status 2` tells the firmware, and `tasmota/discovery/<MAC>/config` model, name and firmware of the device whose
//!   topic it names: neither is telemetry.
//! - `LWT` says `Online`, and by the will `Offline`: whether the device is there, and a sample.
//! - Commands (`cmnd`) and the log (`LOGGING`) are no telemetry.

use super::document::{Flat, Node};
use super::{Context, Point, Report, Told, bad_time, presence, scalar, seconds, signal, told, topic};
use crate::quarantine::Refusal;
use crate::time::{self, Stamp, UtcMicros};

/// Members of the document that are no samples.
const ENVELOPE: [&str; 5] = ["Time", "Epoch", "TempUnit", "PressureUnit", "SpeedUnit"];

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let (rest, kind) = topic::split_last(context.topic);
    let is_command = topic::around(rest, |level| level == "cmnd").is_some();
    if is_command || kind == "LOGGING" {
        return Ok(Vec::new());
    }
    if context.topic.starts_with("tasmota/discovery/") {
        return Ok(if kind == "config" { discovery(payload, context)? } else { Vec::new() });
    }
    let mut report = if is_object(kind) || payload.trim_ascii_start().first() == Some(&b'{') {
        object(&Node::parse(payload, context.limits)?, context)?
    } else {
        Report::of_topic(scalar::named(kind, payload, context.limits)?)
    };
    report.device = topic::device(context, device(rest));
    report.presence = (kind == "LWT").then(|| presence::availability(payload, kind, context)).flatten();
    Ok(vec![report])
}

/// What the native discovery says of a device, which it names by `t`: a report without points. The module is Tasmota's name of
/// the hardware.
fn discovery(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    if payload.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let document = Node::parse(payload, context.limits)?;
    document.expect_object()?;
    let text = |key| document.get(key).and_then(Node::text);
    let told = told([(Told::Model, text("md")), (Told::Firmware, text("sw")), (Told::Name, text("dn"))]);
    let device = text("t").filter(|topic| !topic.is_empty()).map(str::to_owned);
    Ok(device.map(|device| Report { device: Some(device), told, ..Report::default() }).into_iter().collect())
}

/// What is before or after the prefix, whichever the configured order has.
fn device(rest: &str) -> &str {
    match topic::around(rest, |level| matches!(level, "tele" | "stat")) {
        Some((before, _, "")) => before,
        Some((_, _, after)) => after,
        None => "",
    }
}

/// Kinds of message that are objects.
fn is_object(kind: &str) -> bool {
    let number = kind.strip_prefix("STATUS");
    matches!(kind, "SENSOR" | "STATE" | "RESULT")
        || number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn object(document: &Node, context: &Context<'_>) -> Result<Report, Refusal> {
    document.expect_object()?;
    let body = match document.members() {
        [(name, body @ Node::Object(_))] if matches!(name.as_str(), "StatusSNS" | "StatusSTS") => body,
        _ => document,
    };
    let mut flat = Flat::new(context.limits);
    for (key, node) in body.members().iter().filter(|(key, _)| !ENVELOPE.contains(&key.as_str())) {
        flat.add(key, node)?;
    }
    let point = flat.finish()?;
    let (units, signal) = (units(body, &point), signal(&point, &[("Wifi.Signal", "rssi")]));
    let time = own_time(body, context)?;
    let firmware = document.at(&["StatusFWR", "Version"]).and_then(Node::text);
    let told = told([(Told::Firmware, firmware)]);
    Ok(Report { points: vec![point.at(time)], units, signal, told, ..Report::default() })
}

fn own_time(body: &Node, context: &Context<'_>) -> Result<Option<UtcMicros>, Refusal> {
    if let Some(epoch) = body.get("Epoch")
        && let Some(time) = seconds::read("Epoch", epoch)?
    {
        return Ok(Some(time));
    }
    match body.get("Time") {
        None => Ok(None),
        Some(Node::Text(text)) => {
            let text = with_dashes(text);
            let time = time::read(Stamp::Text(&text), context.timezone);
            time.map(Some).map_err(|error| bad_time("Time", &error.to_string()))
        }
        Some(other) => seconds::read("Time", other),
    }
}

/// `2018.02.01 21:29:40` as `2018-02-01 21:29:40`.
fn with_dashes(text: &str) -> String {
    match text.split_at_checked(10) {
        Some((date, clock)) if date.bytes().filter(|byte| *byte == b'.').count() == 2 => date.replace('.', "-") + clock,
        _ => text.to_owned(),
    }
}

/// The units that the document's unit words declare, by raw key.
fn units(body: &Node, point: &Point) -> Vec<(String, String)> {
    let word = |name: &str| body.get(name).and_then(Node::text);
    let temperature = word("TempUnit").filter(|unit| *unit == "F").map(|_| "°F");
    let pressure = word("PressureUnit").filter(|unit| *unit != "hPa");
    let speed = word("SpeedUnit");
    let unit = |key: &str| {
        let last = key.rsplit('.').next().unwrap_or(key);
        if last == "DewPoint" || last.contains("Temperature") {
            temperature
        } else if last.contains("Pressure") {
            pressure
        } else if key.split('.').any(|level| level.starts_with("Speed")) {
            speed
        } else {
            None
        }
    };
    point.iter().filter_map(|(key, _)| Some((key.to_owned(), unit(key)?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::tests::{LIMITS, context};
    use super::*;
    use crate::quarantine::Reason;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    fn one(topic: &str, payload: &str) -> Report {
        of(topic, payload).unwrap().remove(0)
    }

    #[test]
    fn the_topic_names_the_device_in_both_orders() {
        for (topic, device) in [
            ("tele/plug/SENSOR", "plug"),
            ("tele/cellar/plug/SENSOR", "cellar/plug"),
            ("home/plug/tele/SENSOR", "home/plug"),
            ("stat/plug/STATUS10", "plug"),
        ] {
            assert_eq!(one(topic, "{}").device.as_deref(), Some(device), "{topic}");
        }
        assert_eq!(one("plug/SENSOR", "{}").device, None);
    }

    #[test]
    fn what_is_no_telemetry_gives_nothing() {
        for topic in ["cmnd/plug/POWER", "plug/cmnd/POWER", "stat/plug/LOGGING", "tasmota/discovery/AABB/sensors"] {
            assert_eq!(of(topic, "00:00:01 x"), Ok(Vec::new()), "{topic}");
        }
    }

    #[test]
    fn discovery_and_status_2_tell_the_hardware_and_the_firmware() {
        let fact = |fact, text: &str| (fact, text.to_owned());
        let config = r#"{"ip":"192.168.1.2","dn":"Fridge","md":"Sonoff Basic","sw":"14.1.0","t":"plug"}"#;
        let report = one("tasmota/discovery/AABB/config", config);
        assert_eq!((report.device.as_deref(), report.points.len()), (Some("plug"), 0));
        let expected = [fact(Told::Model, "Sonoff Basic"), fact(Told::Firmware, "14.1.0"), fact(Told::Name, "Fridge")];
        assert_eq!(report.told, expected);
        assert_eq!(of("tasmota/discovery/AABB/config", ""), Ok(Vec::new()));
        let status = one("stat/plug/STATUS2", r#"{"StatusFWR":{"Version":"9.1.0(tasmota)"}}"#);
        assert_eq!(status.told, [fact(Told::Firmware, "9.1.0(tasmota)")]);
    }

    #[test]
    fn units_are_declared_where_they_are_not_the_usual_ones() {
        let payload = r#"{"BME280":{"Temperature":70.1,"DewPoint":40.2,"Humidity":3,"Pressure":29.9},"TempUnit":"F",
            "PressureUnit":"inHg","TX23":{"Speed":{"Act":3}},"SpeedUnit":"m/s"}"#;
        let declared = |key: &str, unit: &str| (key.to_owned(), unit.to_owned());
        let expected = [
            declared("BME280.Temperature", "°F"),
            declared("BME280.DewPoint", "°F"),
            declared("BME280.Pressure", "inHg"),
            declared("TX23.Speed.Act", "m/s"),
        ];
        assert_eq!(one("tele/x/SENSOR", payload).units, expected);
        assert!(one("tele/x/SENSOR", r#"{"A":{"Temperature":20},"TempUnit":"C"}"#).units.is_empty());
    }

    #[test]
    fn the_signal_of_the_device_is_told_in_dbm() {
        let report = one("tele/x/STATE", r#"{"Wifi":{"RSSI":86,"Signal":-57}}"#);
        assert_eq!(report.signal, [("rssi", Value::Number(-57.0))]);
        assert!(one("tele/x/STATE", r#"{"Wifi":{"Signal":"weak"}}"#).signal.is_empty());
    }

    #[test]
    fn every_spelling_of_the_time_is_read() {
        let berlin = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let zoned = Context { topic: "tele/x/SENSOR", timezone: Some(&berlin), ..context() };
        let time = |payload: &str| decode(payload.as_bytes(), &zoned).map(|found| found[0].points[0].time);
        let at = |text| Ok(Some(time::read(Stamp::Text(text), None).unwrap()));
        assert_eq!(time(r#"{"Time":"2021-01-02T09:09:44"}"#), at("2021-01-02T08:09:44Z"));
        assert_eq!(time(r#"{"Time":"2021-01-02T09:09:44.25","Epoch":null}"#), at("2021-01-02T08:09:44.25Z"));
        assert_eq!(time(r#"{"Time":1609578584}"#), at("2021-01-02T09:09:44Z"));
        assert_eq!(time(r#"{"Time":"soon","Epoch":1609578584}"#), at("2021-01-02T09:09:44Z"));
        assert_eq!(time(r#"{"Time":null}"#), Ok(None));
        for bad in [r#"{"Time":"soon"}"#, r#"{"Time":true}"#, r#"{"Epoch":"x"}"#, r#"{"Time":"äöüäöü"}"#] {
            assert_eq!(time(bad).unwrap_err().reason, Reason::BadTime, "{bad}");
        }
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |topic: &str, payload: &str| of(topic, payload).unwrap_err().reason;
        assert_eq!(reason("tele/x/SENSOR", "ON"), Reason::Malformed);
        assert_eq!(reason("tele/x/SENSOR", "[1]"), Reason::Malformed);
        assert_eq!(reason("stat/x/STATUS", ""), Reason::Empty);
        assert_eq!(reason("tele/x/STATE", r#"{"a.b":1,"a":{"b":2}}"#), Reason::DuplicateKey);
        let long = "k".repeat(LIMITS.max_key_length + 1);
        assert_eq!(reason("tele/x/STATE", &format!("{{\"{long}\":1}}")), Reason::KeyTooLong);
        assert_eq!(reason(&format!("tele/x/{long}"), "1"), Reason::KeyTooLong);
        assert!(of("tele/x/LWT", "").unwrap()[0].points.is_empty());
    }
}

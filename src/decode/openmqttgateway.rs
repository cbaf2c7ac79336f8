//! OpenMQTTGateway: `<base>/<gateway>/<kind>toMQTT/<id…>` with one JSON object.
//! Documentation of OpenMQTTGateway, *Use*: *BLE*, *RTL_433*, *RF*, *Gateway*.
//!
//! - Without a `{device}`, the device is the levels after the kind, and the gateway where there are none (`SYStoMQTT`,
//!   `433toMQTT`) or no kind (`LWT`, `version`). A level that names the kind adds nothing to the keys.
//! - `id` at the top repeats the device and is no sample.
//! - Old firmware sends numbers as text, which stay text, and one value for each topic below the device; `nan` is absence.
//! - `rssi` (dBm) and `snr` (dB) are how well the gateway heard the device.
//! - `brand` and `model_id` (what Theengs recognised), or `model` alone, tell the device; the kind tells what it is connected by.
//!   Behind a gateway that the topic names, the gateway is its parent.
//! - `LWT` says `online`, and by the will `offline`: whether the gateway is there, and a sample.
//! - Commands (`…/commands/…`) are no telemetry. There is no time.

use super::document::{Flat, Node};
use super::{Context, Report, Told, presence, scalar, signal, told, topic};
use crate::quarantine::Refusal;

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    if topic::around(context.topic, |level| level == "commands").is_some() {
        return Ok(Vec::new());
    }
    let is_object = payload.trim_ascii_start().first() == Some(&b'{');
    let kind = topic::around(context.topic, |level| level.ends_with("toMQTT"));
    let (rest, last) = topic::split_last(context.topic);
    let (device, key) = match kind {
        Some((gateway, _, "")) => (topic::split_last(gateway).1, ""),
        Some((_, _, id)) if is_object => (id, ""),
        Some((_, _, id)) => topic::split_last(id),
        None => (topic::split_last(rest).1, last),
    };
    let mut report = if is_object || (key.is_empty() && context.captures.metric.is_none()) {
        object(&Node::parse(payload, context.limits)?, context)?
    } else {
        let key = context.captures.metric.as_deref().unwrap_or(key);
        Report::of_topic(scalar::named(key, payload, context.limits)?)
    };
    report.device = topic::device(context, device);
    report.presence = (last == "LWT").then(|| presence::availability(payload, last, context)).flatten();
    if let Some((gateway, kind, id)) = kind {
        report.told.extend(connectivity(kind).map(|word| (Told::Connectivity, word.to_owned())));
        let gateway = topic::split_last(gateway).1;
        report.parent = Some(gateway.to_owned()).filter(|gateway| !id.is_empty() && !gateway.is_empty());
    }
    Ok(vec![report])
}

/// What devices of a kind are connected by.
fn connectivity(kind: &str) -> Option<&'static str> {
    match kind {
        "BTtoMQTT" => Some("ble"),
        "LORAtoMQTT" => Some("lora"),
        "433toMQTT" | "RTL_433toMQTT" | "PilighttoMQTT" | "RFtoMQTT" | "SRFBtoMQTT" | "RF2toMQTT" => Some("433mhz"),
        _ => None,
    }
}

fn object(document: &Node, context: &Context<'_>) -> Result<Report, Refusal> {
    document.expect_object()?;
    let lead = context.captures.metric.as_deref().filter(|metric| !metric.ends_with("toMQTT"));
    let mut flat = Flat::new(context.limits);
    for (key, node) in document.members().iter().filter(|(key, _)| key != "id") {
        match lead {
            Some(lead) => flat.add(&format!("{lead}.{key}"), node)?,
            None => flat.add(key, node)?,
        }
    }
    let point = flat.finish()?;
    let signal = signal(&point, &[("rssi", "rssi"), ("snr", "snr")]);
    let text = |key| document.get(key).and_then(Node::text);
    let told = told([
        (Told::Manufacturer, text("brand")),
        (Told::Model, text("model_id").or_else(|| text("model"))),
        (Told::Firmware, text("version")),
    ]);
    Ok(Report { signal, told, ..Report::of_topic(vec![point]) })
}

#[cfg(test)]
mod tests {
    use super::super::{Value, tests::context};
    use super::*;
    use crate::quarantine::Reason;

    fn of(topic: &str, payload: &str) -> Result<Vec<Report>, Refusal> {
        decode(payload.as_bytes(), &Context { topic, ..context() })
    }

    #[test]
    fn the_topic_alone_tells_the_device() {
        for (topic, payload, device, key) in [
            ("home/omg/BTtoMQTT/AABB", r#"{"id":"AA:BB","t":1}"#, "AABB", "t"),
            ("home/omg/RTL_433toMQTT/Nexus-TH/3/169", r#"{"t":1}"#, "Nexus-TH/3/169", "t"),
            ("home/omg/SYStoMQTT", r#"{"t":1}"#, "omg", "t"),
            ("home/omg/LWT", "online", "omg", "LWT"),
            ("home/BTtoMQTT/AABB/lux", "3", "AABB", "lux"),
        ] {
            let report = of(topic, payload).unwrap().remove(0);
            assert_eq!((report.device.as_deref(), report.points[0].keys.as_str()), (Some(device), key));
        }
    }

    #[test]
    fn the_model_the_medium_and_the_gateway_are_told() {
        let fact = |fact, text: &str| (fact, text.to_owned());
        let payload = r#"{"id":"AA:BB","brand":"Xiaomi","model":"MiFlora","model_id":"HHCCJCY01HHCC"}"#;
        let report = of("home/omg/BTtoMQTT/AABB", payload).unwrap().remove(0);
        let expected =
            [fact(Told::Manufacturer, "Xiaomi"), fact(Told::Model, "HHCCJCY01HHCC"), fact(Told::Connectivity, "ble")];
        assert_eq!((&report.told[..], report.parent.as_deref()), (&expected[..], Some("omg")));
        let own = of("home/omg/SYStoMQTT", r#"{"version":"v1.7.0"}"#).unwrap().remove(0);
        assert_eq!((own.told, own.parent), (vec![fact(Told::Firmware, "v1.7.0")], None));
    }

    #[test]
    fn the_signal_is_told_where_it_is_a_number() {
        let report = of("home/omg/LORAtoMQTT/n", r#"{"rssi":-90,"snr":7.5}"#).unwrap().remove(0);
        let told = |key, number| (key, Value::Number(number));
        assert_eq!(report.signal, [told("rssi", -90.0), told("snr", 7.5)]);
        assert!(of("home/omg/BTtoMQTT/n", r#"{"rssi":"-90"}"#).unwrap()[0].signal.is_empty());
    }

    #[test]
    fn hostile_messages_are_refused() {
        let reason = |topic: &str, payload: &str| of(topic, payload).unwrap_err().reason;
        assert_eq!(reason("home/omg/SYStoMQTT", "on"), Reason::Malformed);
        assert_eq!(reason("home/omg/SYStoMQTT", ""), Reason::Empty);
        assert_eq!(reason("home/omg/BTtoMQTT/n", "{} {}"), Reason::Malformed);
        assert_eq!(reason("home/omg/BTtoMQTT/n", r#"{"id":1,"id":2}"#), Reason::DuplicateKey);
        assert_eq!(of("home/omg/commands/MQTTtoBT/config", "{"), Ok(Vec::new()));
    }
}

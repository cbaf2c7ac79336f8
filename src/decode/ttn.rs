//! The Things Stack v3: application messages in JSON, `v3/<application>[@<tenant>]/devices/<device>/<kind>`.
//!
//! - `uplink_message.decoded_payload` holds the samples, `uplink_normalized.normalized_payload` (topic `…/up/normalized`)
//!   normalized ones; what is named `time` in them is a sample like any other. Without a payload formatter they are absent:
//!   no samples.
//! - The time is the outer `received_at`. The inner one is the zero time on simulated and on stored messages.
//! - The device is `end_device_ids.device_id`, where the filter does not take it from the topic.
//! - Fields that are zero, false or empty are left out: a LoRa uplink without `snr` was heard at 0 dB.
//! - `uplink_message.version_ids`, of a device that came from the repository, tells brand, model and firmware.
//! - Joins, downlinks, service data and solved locations carry no readings; nor does the rest of an uplink.
//!
//! The Things Stack documentation: "Data Formats", "MQTT Server", "Payload Formatters".

use super::document::{Flat, Node};
use super::envelope::{self, Heard};
use super::{Context, Presence, Report, Told, bad_time, told, topic};
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, UtcMicros};

/// What an absent time reads as: the first second of the year 1.
const ZERO_TIME: UtcMicros = UtcMicros(-62_135_596_800_000_000);

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Report>, Refusal> {
    let document = Node::parse(payload, context.limits)?;
    document.expect_object()?;
    let named = document.at(&["end_device_ids", "device_id"]).and_then(Node::text);
    let device = topic::device(context, named);
    let decoded = ["uplink_message", "decoded_payload"];
    let normalized = ["uplink_normalized", "normalized_payload"];
    for [kind, samples] in [decoded, normalized] {
        let Some(uplink) = document.get(kind) else { continue };
        let time = document.get("received_at").map(received_at).transpose()?.flatten();
        let mut flat = Flat::new(context.limits);
        match uplink.get(samples) {
            None | Some(Node::Null) => {}
            Some(object @ Node::Object(_)) => flat.add("", object)?,
            Some(other) => {
                let detail = format!("{kind}.{samples} is {}, an object is wanted", other.kind());
                return Err(Refusal::message(Reason::Malformed, detail));
            }
        }
        let points = vec![flat.finish()?.at(time)];
        let signal = envelope::signal(gateways(uplink));
        return Ok(vec![Report { device, points, signal, told: identity(uplink), ..Report::default() }]);
    }
    Ok(vec![Report { device, presence: presence(&document), ..Report::default() }])
}

/// What messages that are no uplinks say: a join and acknowledgements come from the device, the others from the network.
fn presence(document: &Node) -> Option<Presence> {
    let has = |key: &&str| document.get(key).is_some();
    if has(&"join_accept") {
        return Some(Presence::There("join".into()));
    }
    let of_network = ["downlink_queued", "downlink_sent", "downlink_failed", "service_data", "location_solved"];
    of_network.iter().any(has).then_some(Presence::Hearsay)
}

fn identity(uplink: &Node) -> Vec<(Told, String)> {
    let id = |key| uplink.at(&["version_ids", key]).and_then(Node::text);
    told([
        (Told::Manufacturer, id("brand_id")),
        (Told::Model, id("model_id")),
        (Told::Firmware, id("firmware_version")),
    ])
}

fn received_at(node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    let read = match node {
        Node::Null => return Ok(None),
        Node::Text(text) => time::read(Stamp::Text(text), None).map_err(|error| error.to_string()),
        other => Err(format!("is {}, a time is wanted", other.kind())),
    };
    let time = read.map_err(|detail| bad_time("received_at", &detail))?;
    Ok(Some(time).filter(|time| *time != ZERO_TIME))
}

fn gateways(uplink: &Node) -> impl Iterator<Item = Heard> {
    let lora = uplink.at(&["settings", "data_rate", "lora"]).is_some();
    uplink.get("rx_metadata").map_or(&[][..], Node::elements).iter().map(move |gateway| {
        let number = |key| gateway.get(key).and_then(Node::number);
        let rssi = number("rssi").or_else(|| number("channel_rssi"));
        Heard { rssi, snr: number("snr").or(rssi.filter(|_| lora).map(|_| 0.0)) }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::context;
    use super::super::{Point, Signal, Value};
    use super::*;

    fn report(payload: &str) -> Report {
        let mut reports = decode(payload.as_bytes(), &context()).unwrap();
        assert_eq!(reports.len(), 1);
        reports.remove(0)
    }

    fn signal(payload: &str) -> Vec<Signal> {
        report(payload).signal
    }

    fn pair(rssi: f64, snr: f64) -> Vec<Signal> {
        vec![("rssi", Value::Number(rssi)), ("snr", Value::Number(snr))]
    }

    #[test]
    fn the_best_gateway_tells_the_signal_with_or_without_a_decoded_payload() {
        let uplink = r#"{"uplink_message":{"settings":{"data_rate":{"lora":{}}},"rx_metadata":[
            {"rssi":-110,"snr":-7.5},{"rssi":-90},{"gateway_ids":{}}]}}"#;
        assert_eq!(signal(uplink), pair(-90.0, 0.0));
        assert_eq!(report(uplink).points, [Point::default()]);
        let fsk = r#"{"uplink_message":{"settings":{"data_rate":{"fsk":{}}},"rx_metadata":[{"rssi":-90}]}}"#;
        assert_eq!(signal(fsk), [("rssi", Value::Number(-90.0))]);
        assert_eq!(signal(r#"{"uplink_message":{"rx_metadata":7}}"#), []);
    }

    #[test]
    fn the_repository_tells_brand_and_model() {
        let uplink = r#"{"uplink_message":{"version_ids":{"brand_id":"milesight-iot","model_id":"em300-th",
            "hardware_version":"1.0","firmware_version":"1.1","band_id":""}}}"#;
        let fact = |fact, text: &str| (fact, text.to_owned());
        let expected =
            [fact(Told::Manufacturer, "milesight-iot"), fact(Told::Model, "em300-th"), fact(Told::Firmware, "1.1")];
        assert_eq!(report(uplink).told, expected);
        assert_eq!(report(r#"{"uplink_message":{"version_ids":7}}"#).told, []);
    }

    #[test]
    fn normalized_payloads_are_read_and_the_zero_time_is_none() {
        let payload = r#"{"end_device_ids":{"device_id":"d"},"received_at":"0001-01-01T00:00:00Z",
            "uplink_normalized":{"normalized_payload":{"air":{"temperature":20.5},"time":"x"}}}"#;
        let report = report(payload);
        assert_eq!(report.device.as_deref(), Some("d"));
        assert_eq!(report.points[0].time, None);
        let keys: Vec<&str> = report.points[0].iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["air.temperature", "time"]);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        for (payload, reason) in [
            (r#"{"received_at":"soon","uplink_message":{}}"#, Reason::BadTime),
            (r#"{"received_at":1700000000,"uplink_message":{}}"#, Reason::BadTime),
            (r#"{"uplink_message":{"decoded_payload":[1]}}"#, Reason::Malformed),
            (r#"{"uplink_message":{"decoded_payload":{"a":{"b":1},"a.b":2}}}"#, Reason::DuplicateKey),
            ("[]", Reason::Malformed),
            ("", Reason::Empty),
        ] {
            assert_eq!(decode(payload.as_bytes(), &context()).unwrap_err().reason, reason, "{payload}");
        }
    }
}

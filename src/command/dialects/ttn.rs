//! The Things Stack documentation, *MQTT Server* (scheduling downlinks) and *Data Formats*.

use serde_json::{Value, json};

use super::{Device, ID, Outcome, settled};

#[test]
fn a_downlink_is_pushed_with_a_correlation_id() {
    let device = Device::new("dev1", "ttn").tagged("application", "app1@ttn");
    let (topic, payload) = device.sends("downlink", &json!({ "f_port": 10, "data": "AQID" }));
    assert_eq!(topic, "v3/app1@ttn/devices/dev1/down/push");
    let wanted = json!({ "downlinks": [{ "f_port": 10, "frm_payload": "AQID", "priority": "NORMAL", "confirmed": true,
        "correlation_ids": [format!("tidegate:{ID}")] }] });
    assert_eq!(serde_json::from_str::<Value>(&payload).unwrap(), wanted);
}

#[test]
fn events_tell_how_far_it_is() {
    let device = Device::new("dev1", "ttn").tagged("application", "app1@ttn");
    let params = json!({ "f_port": 10, "data": "AQID" });
    let hears = |event: &str, payload: Value| {
        device.hears(("downlink", &params), &format!("v3/app1@ttn/devices/dev1/down/{event}"), &payload.to_string())
    };
    let event = |kind: &str, body: Value| {
        json!({ "end_device_ids": { "device_id": "dev1" }, "received_at": "2024-01-01T00:00:00Z",
            "correlation_ids": ["as:downlink:01E6K7C4", format!("tidegate:{ID}")], kind: body })
    };
    let item = json!({ "f_port": 10, "f_cnt": 1, "confirmed": true });
    assert_eq!(hears("queued", event("downlink_queued", item.clone())), None, "it waits there");
    assert_eq!(hears("sent", event("downlink_sent", item.clone())), settled(Outcome::InProgress));
    assert_eq!(hears("ack", event("downlink_ack", item.clone())), settled(Outcome::Succeeded));
    assert_eq!(hears("nack", event("downlink_nack", item.clone())), settled(Outcome::Failed));
    let failed = json!({ "downlink": item, "error": { "namespace": "pkg/networkserver", "name": "application_downlink_too_long",
        "message_format": "application downlink payload length `{length}` exceeds maximum", "code": 3 } });
    let (outcome, error) = hears("failed", event("downlink_failed", failed)).unwrap();
    assert_eq!((outcome, error.unwrap().contains("exceeds maximum")), (Outcome::Failed, true));
    let mut foreign = event("downlink_ack", json!({}));
    foreign["correlation_ids"] = json!(["as:downlink:01E6K7C4", "tidegate:another"]);
    assert_eq!(hears("ack", foreign), None);
    assert_eq!(hears("ack", json!({})), None);
    assert_eq!(hears("ack", json!("garbage")), None);
}

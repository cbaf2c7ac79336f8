//! ChirpStack documentation, *Integrations / MQTT* (downlinks) and *Events*.

use serde_json::json;

use super::{Device, ID, Outcome, UUID, settled};

const EUI: &str = "0102030405060708";

fn device() -> Device {
    Device::new(EUI, "chirpstack").tagged("application", "17c82e96-be03-4f38-aef3-f83d48582d97")
}

#[test]
fn a_downlink_is_confirmed_and_has_the_commands_uuid() {
    let (topic, payload) = device().sends("downlink", &json!({ "f_port": 10, "data": "AQID" }));
    assert_eq!(topic, "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/0102030405060708/command/down");
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    let wanted = json!({ "id": UUID, "devEui": EUI, "confirmed": true, "fPort": 10, "data": "AQID" });
    assert_eq!(payload, wanted);
    for wrong in
        [json!({ "data": "AQID" }), json!({ "f_port": 0, "data": "AQID" }), json!({ "f_port": 1, "data": "?" })]
    {
        assert!(device().refuses("downlink", &wrong), "{wrong}");
    }
    let untagged = Device::new(EUI, "chirpstack");
    let (command, params) = (untagged.command("downlink"), json!({ "f_port": 1, "data": "" }));
    let wrong = untagged.template.dialect.render(&command.manner, &untagged.facts("downlink", &params)).unwrap_err();
    assert!(wrong.contains("{tag.application}"), "{wrong}");
}

#[test]
fn events_tell_how_far_it_is() {
    let (device, params) = (device(), json!({ "f_port": 10, "data": "AQID" }));
    let hears = |event: &str, payload: &str| {
        let topic = format!("application/17c82e96-be03-4f38-aef3-f83d48582d97/device/{EUI}/event/{event}");
        device.hears(("downlink", &params), &topic, payload)
    };
    let txack = json!({ "downlinkId": 3_123_137_189_u32, "time": "2022-07-18T09:33:28.823500726+00:00",
        "deviceInfo": { "devEui": EUI }, "queueItemId": UUID, "fCntDown": 8, "gatewayId": "0016c001f153a14c" });
    assert_eq!(hears("txack", &txack.to_string()), settled(Outcome::InProgress));
    let ack = |acknowledged: bool| {
        json!({ "deduplicationId": "f7bb3d1f", "deviceInfo": { "devEui": EUI }, "queueItemId": UUID,
            "acknowledged": acknowledged, "fCntDown": 8 })
        .to_string()
    };
    assert_eq!(hears("ack", &ack(true)), settled(Outcome::Succeeded));
    assert_eq!(hears("ack", &ack(false)), settled(Outcome::Failed));
    assert_eq!(hears("ack", &ack(false).replace("\"acknowledged\":false,", "")), settled(Outcome::Failed));
    let log = json!({ "deviceInfo": { "devEui": EUI }, "level": "ERROR", "code": "DOWNLINK_PAYLOAD_SIZE",
        "description": "Device queue-item discarded because it exceeds the max. payload size",
        "context": { "item_size": "99", "max_payload_size": "51", "queue_item_id": UUID } });
    let (outcome, error) = hears("log", &log.to_string()).unwrap();
    assert_eq!((outcome, error.unwrap().contains("max. payload size")), (Outcome::Failed, true));
    // A warning, another item's, an uplink, what can't be read.
    assert_eq!(hears("log", &log.to_string().replace("ERROR", "WARNING")), None);
    assert_eq!(hears("ack", &ack(true).replace(UUID, ID)), None);
    assert_eq!(hears("up", r#"{"object":{"acknowledged":true}}"#), None);
    assert_eq!(hears("ack", "\u{8}\u{1}"), None);
}

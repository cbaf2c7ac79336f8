//! Documentation of Zigbee2MQTT, *MQTT Topics and Messages*; the errors as its issue tracker has them.

use serde_json::json;

use super::{Device, Outcome, settled};

const FAILED: &str = r#"{"level":"error","message":"z2m: Publish 'set' 'state' to 'lamp' failed: 'Error: ZCL command 0x0123456789abcdef/1 genOnOff.on({}) failed (Data request failed with error: 'MAC_NO_ACK' (0xe9))'"}"#;

#[test]
fn a_lamps_reported_state_confirms_what_was_set() {
    let lamp = Device::new("lamp", "zigbee-light");
    let params = json!({ "state": "ON", "brightness": 120, "transition": 2 });
    let (topic, payload) = lamp.sends("light", &params);
    assert_eq!((topic.as_str(), serde_json::from_str(&payload).ok()), ("zigbee2mqtt/lamp/set", Some(params.clone())));
    let says = |payload| lamp.hears(("light", &params), "zigbee2mqtt/lamp", payload);
    assert_eq!(says(r#"{"state":"ON","brightness":120,"linkquality":80}"#), settled(Outcome::Succeeded));
    assert_eq!(says(r#"{"state":"ON","brightness":121,"linkquality":80}"#), settled(Outcome::Succeeded), "rounded");
    for other in [
        r#"{"state":"ON","brightness":60}"#,
        r#"{"state":"OFF","brightness":120}"#,
        r#"{"state":"ON"}"#,
        r#"{"linkquality":80}"#,
        "{}",
        "null",
        "ON",
    ] {
        assert_eq!(says(other), None, "{other}");
    }
    assert_eq!(lamp.hears(("light", &params), "zigbee2mqtt/other", r#"{"state":"ON","brightness":120}"#), None);
    assert!(lamp.refuses("light", &json!({})) && lamp.refuses("light", &json!({ "brightness": 255 })));
}

#[test]
fn an_error_of_the_bridge_fails_the_device_that_it_names() {
    let lamp = Device::new("lamp", "zigbee-light");
    let params = json!({ "state": "ON" });
    let says = |payload: &str| lamp.hears(("light", &params), "zigbee2mqtt/bridge/logging", payload);
    let (outcome, error) = says(FAILED).unwrap();
    assert_eq!(outcome, Outcome::Failed);
    assert!(error.unwrap().contains("MAC_NO_ACK"));
    assert_eq!(says(&FAILED.replace("'lamp'", "'hall'")), None);
    assert_eq!(says(&FAILED.replace("error\"", "info\"")), None);
    for garbage in ["", "{}", r#"{"level":"error","message":7}"#, r#"{"level":"error","message":"' to '' failed"}"#] {
        assert_eq!(says(garbage), None, "{garbage}");
    }
    let any = Device::new("lamp", "zigbee2mqtt");
    let refusal = r#"{"level":"error","message":"z2m: No converter available for 'colour' on 'lamp': (\"red\")"}"#;
    let red = json!({ "colour": "red" });
    let (outcome, _) = any.hears(("set", &red), "zigbee2mqtt/bridge/logging", refusal).unwrap();
    assert_eq!(outcome, Outcome::Rejected);
}

#[test]
fn valves_switches_and_curtains_have_commands_of_their_own() {
    let valve = Device::new("office", "zigbee-thermostat");
    let warm = json!({ "occupied_heating_setpoint": 20.5 });
    assert_eq!(valve.sends("setpoint", &warm).0, "zigbee2mqtt/office/set");
    let says = |payload| valve.hears(("setpoint", &warm), "zigbee2mqtt/office", payload);
    assert_eq!(says(r#"{"occupied_heating_setpoint":20.5,"local_temperature":19}"#), settled(Outcome::Succeeded));
    assert_eq!(says(r#"{"occupied_heating_setpoint":20,"local_temperature":19}"#), None);

    let wall = Device::new("wall", "zigbee-wall-switch");
    let right = json!({ "state_l2": "OFF" });
    let says = |payload| wall.hears(("switch", &right), "zigbee2mqtt/wall", payload);
    assert_eq!(says(r#"{"state_l1":"ON","state_l2":"OFF"}"#), settled(Outcome::Succeeded));
    assert!(wall.refuses("switch", &json!({ "state": "TOGGLE" })), "nothing could confirm it");

    let curtain = Device::new("c", "zigbee-curtain");
    let half = json!({ "position": 50 });
    assert_eq!(curtain.hears(("position", &half), "zigbee2mqtt/c", r#"{"position":30}"#), None);
    assert_eq!(curtain.hears(("position", &half), "zigbee2mqtt/c", r#"{"position":51}"#), settled(Outcome::Succeeded));
}

//! Documentation of ESPHome, *MQTT Client Component*; the forms of its `mqtt` component's sources.

use serde_json::json;

use super::{Device, Outcome, settled};

#[test]
fn the_state_beside_the_command_confirms_it() {
    let node = Device::new("livingroom", "esphome");
    let on = json!({ "component": "switch", "object": "fan", "value": "ON" });
    assert_eq!(node.sends("set", &on), ("livingroom/switch/fan/command".into(), "ON".into()));
    let hears = |topic, payload| node.hears(("set", &on), topic, payload);
    assert_eq!(hears("livingroom/switch/fan/state", "ON"), settled(Outcome::Succeeded));
    for (topic, payload) in [
        ("livingroom/switch/fan/state", "OFF"),
        ("livingroom/switch/pump/state", "ON"),
        ("livingroom/binary_sensor/fan/state", "ON"),
        ("kitchen/switch/fan/state", "ON"),
        ("livingroom/switch/fan/state", "\u{1b}[0m"),
    ] {
        assert_eq!(hears(topic, payload), None, "{topic} {payload}");
    }
    assert!(node.refuses("set", &json!({ "component": "sensor", "object": "fan", "value": "ON" })));
}

#[test]
fn lamps_covers_and_heaters_have_topics_of_their_own() {
    let node = Device::new("livingroom", "esphome");
    let dim = json!({ "object": "lamp", "brightness": 128 });
    let (topic, payload) = node.sends("light", &dim);
    assert_eq!(
        (topic.as_str(), payload.as_str()),
        ("livingroom/light/lamp/command", r#"{"brightness":128,"state":"ON"}"#)
    );
    let state = r#"{"effect":"None","color_mode":"brightness","state":"ON","brightness":127,"color":{}}"#;
    assert_eq!(node.hears(("light", &dim), "livingroom/light/lamp/state", state), settled(Outcome::Succeeded));
    let half = json!({ "object": "blind", "position": 50 });
    assert_eq!(node.sends("cover_position", &half), ("livingroom/cover/blind/position/command".into(), "50".into()));
    let at = |payload| node.hears(("cover_position", &half), "livingroom/cover/blind/position/state", payload);
    assert_eq!((at("50"), at("80")), (settled(Outcome::Succeeded), None));
    let warm = json!({ "object": "heater", "temperature": 21.5 });
    assert_eq!(node.sends("setpoint", &warm).0, "livingroom/climate/heater/target_temperature/command");
    let says = |payload| node.hears(("setpoint", &warm), "livingroom/climate/heater/target_temperature/state", payload);
    assert_eq!((says("21.5"), says("21"), says("nan")), (settled(Outcome::Succeeded), None, None));
}

//! Shelly's API documentation: Gen2+ *RPC Protocol*, *Switch*, *Cover*; Gen1 *MQTT*, *Shelly2.5*, *Shelly Dimmer*.

use serde_json::{Value, json};

use super::{Device, ID, Outcome, settled};
use crate::command::ident;

fn frame(id: u32, rest: Value) -> String {
    let mut frame = json!({ "id": id, "src": "shellyplus1pm-0123456789ab", "dst": "tidegate-rpc/s1" });
    frame.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    frame.to_string()
}

#[test]
fn a_call_is_answered_by_its_number() {
    let device = Device::new("s1", "shelly-1pm");
    let on = json!({ "id": 0, "on": true });
    let (topic, payload) = device.sends("Switch.Set", &on);
    let number = ident::number(ID);
    let wanted = json!({ "id": number, "src": "tidegate-rpc/s1", "method": "Switch.Set", "params": on });
    assert_eq!((topic.as_str(), serde_json::from_str(&payload).ok()), ("s1/rpc", Some(wanted)));
    let hears = |payload: &str| device.hears(("Switch.Set", &on), "tidegate-rpc/s1/rpc", payload);
    assert_eq!(hears(&frame(number, json!({ "result": { "was_on": false } }))), settled(Outcome::Succeeded));
    assert_eq!(hears(&frame(number, json!({ "result": null }))), settled(Outcome::Succeeded));
    let error = |code: i32, message: &str| frame(number, json!({ "error": { "code": code, "message": message } }));
    assert_eq!(
        hears(&error(-105, "Argument 'id', value 7 not found!")),
        Some((Outcome::Rejected, Some("Argument 'id', value 7 not found!".into())))
    );
    assert_eq!(hears(&error(-109, "Safety")), Some((Outcome::Failed, Some("Safety".into()))));
    // Another call's answer, one that says nothing, one that is none.
    assert_eq!(hears(&frame(number ^ 1, json!({ "result": {} }))), None);
    assert_eq!(hears(&frame(number, json!({}))), None);
    assert_eq!(hears("garbage"), None);
    let elsewhere = frame(number, json!({ "result": {} }));
    assert_eq!(device.hears(("Switch.Set", &on), "tidegate-rpc/s2/rpc", &elsewhere), None);
    assert!(device.refuses("Switch.Set", &json!({ "id": 0, "on": "yes" })));
}

#[test]
fn the_first_generation_is_confirmed_by_its_state() {
    let plug = Device::new("shellyplug-s-0123AB", "shelly-gen1");
    let on = json!({ "state": "on" });
    assert_eq!(plug.sends("relay", &on), ("shellies/shellyplug-s-0123AB/relay/0/command".into(), "on".into()));
    let hears = |topic, payload| plug.hears(("relay", &on), topic, payload);
    assert_eq!(hears("shellies/shellyplug-s-0123AB/relay/0", "on"), settled(Outcome::Succeeded));
    assert_eq!(hears("shellies/shellyplug-s-0123AB/relay/0", "overpower"), settled(Outcome::Failed));
    for (topic, payload) in [
        ("shellies/shellyplug-s-0123AB/relay/0", "off"),
        ("shellies/shellyplug-s-0123AB/relay/1", "on"),
        ("shellies/other/relay/0", "on"),
        ("shellies/shellyplug-s-0123AB/relay/0/power", "12.3"),
        ("shellies/shellyplug-s-0123AB/relay/0", ""),
    ] {
        assert_eq!(hears(topic, payload), None, "{topic} {payload}");
    }
    let second = json!({ "state": "off", "channel": 1 });
    assert_eq!(plug.sends("relay", &second).0, "shellies/shellyplug-s-0123AB/relay/1/command");
}

#[test]
fn rollers_and_dimmers_say_where_they_are() {
    let roller = Device::new("r", "shelly-25");
    let half = json!({ "position": 50 });
    assert_eq!(roller.sends("position", &half), ("shellies/r/roller/0/command/pos".into(), "50".into()));
    assert_eq!(roller.hears(("position", &half), "shellies/r/roller/0/pos", "80"), None);
    assert_eq!(roller.hears(("position", &half), "shellies/r/roller/0/pos", "49"), settled(Outcome::Succeeded));
    assert_eq!(roller.hears(("position", &half), "shellies/r/roller/0/pos", "-1"), None, "not calibrated");
    let dimmer = Device::new("d", "shelly-dimmer");
    let low = json!({ "brightness": 20 });
    let (topic, payload) = dimmer.sends("light", &low);
    assert_eq!((topic.as_str(), payload.as_str()), ("shellies/d/light/0/set", r#"{"brightness":20,"turn":"on"}"#));
    let status = r#"{"ison":true,"source":"mqtt","mode":"white","brightness":20,"transition":0}"#;
    assert_eq!(dimmer.hears(("light", &low), "shellies/d/light/0/status", status), settled(Outcome::Succeeded));
    let off = status.replace("true", "false");
    assert_eq!(dimmer.hears(("light", &low), "shellies/d/light/0/status", &off), None);
}

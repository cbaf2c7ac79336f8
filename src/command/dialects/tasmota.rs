//! Documentation of Tasmota, *Commands*, *MQTT*, *Blinds and Shutters*.

use serde_json::json;

use super::{Device, Outcome, settled};

#[test]
fn a_plug_is_told_by_tasmotas_own_name_and_answers_with_it() {
    let plug = Device::new("plug", "tasmota-plug");
    let on = json!({ "value": "ON" });
    assert_eq!(plug.sends("POWER", &on), ("cmnd/plug/POWER".into(), "ON".into()));
    let done = settled(Outcome::Succeeded);
    assert_eq!(plug.hears(("POWER", &on), "stat/plug/RESULT", r#"{"POWER":"ON"}"#), done);
    assert_eq!(plug.hears(("POWER", &on), "stat/plug/POWER", r#"{"POWER":"ON"}"#), done, "SetOption4");
    let rejected = Some((Outcome::Rejected, Some("Unknown".to_owned())));
    assert_eq!(plug.hears(("POWER", &on), "stat/plug/RESULT", r#"{"Command":"Unknown"}"#), rejected);
    assert_eq!(plug.hears(("POWER", &on), "stat/plug/COMMAND", r#"{"Command":"Unknown","Input":"POWER"}"#), rejected);
    for (topic, payload) in [
        // Somebody has pressed the button; another command's answer; another device's; garbage.
        ("stat/plug/RESULT", r#"{"POWER":"OFF"}"#),
        ("stat/plug/RESULT", r#"{"TelePeriod":300}"#),
        ("stat/other/RESULT", r#"{"POWER":"ON"}"#),
        ("tele/plug/STATE", r#"{"POWER":"ON"}"#),
        ("stat/plug/RESULT", r#"{"POWER":"#),
        ("stat/plug/RESULT", ""),
        ("stat/plug/RESULT", "[[[[\0"),
    ] {
        assert_eq!(plug.hears(("POWER", &on), topic, payload), None, "{topic} {payload}");
    }
    assert!(plug.refuses("POWER", &json!({ "value": "BLINK" })) && plug.refuses("TelePeriod", &json!({ "value": 5 })));
    assert_eq!(plug.sends("Restart", &json!({})), ("cmnd/plug/Restart".into(), "1".into()));
    let restarting = plug.hears(("Restart", &json!({})), "stat/plug/RESULT", r#"{"Restart":"Restarting"}"#);
    assert_eq!(restarting, done);
}

#[test]
fn lamps_and_second_sockets_are_told_apart() {
    let lamp = Device::new("lamp", "tasmota-light");
    let dim = json!({ "value": 40 });
    assert_eq!(lamp.sends("Dimmer", &dim), ("cmnd/lamp/Dimmer".into(), "40".into()));
    let answer = r#"{"POWER":"ON","Dimmer":40,"Color":"666666","HSBColor":"0,0,40","White":0,"Channel":[40,40,40]}"#;
    assert_eq!(lamp.hears(("Dimmer", &dim), "stat/lamp/RESULT", answer), settled(Outcome::Succeeded));
    let plug = Device::new("plug", "tasmota-two-channel-plug");
    let off = json!({ "value": "OFF" });
    assert_eq!(plug.sends("POWER2", &off), ("cmnd/plug/POWER2".into(), "OFF".into()));
    assert_eq!(plug.hears(("POWER2", &off), "stat/plug/RESULT", r#"{"POWER1":"OFF"}"#), None);
    assert_eq!(plug.hears(("POWER2", &off), "stat/plug/RESULT", r#"{"POWER2":"OFF"}"#), settled(Outcome::Succeeded));
}

#[test]
fn a_shutter_is_there_when_it_stands_still() {
    let blind = Device::new("blind", "tasmota-shutter");
    let half = json!({ "value": 50 });
    assert_eq!(blind.sends("ShutterPosition1", &half), ("cmnd/blind/ShutterPosition1".into(), "50".into()));
    let says = |payload| blind.hears(("ShutterPosition1", &half), "stat/blind/RESULT", payload);
    assert_eq!(
        says(r#"{"Shutter1":{"Position":62,"Direction":-1,"Target":50,"Tilt":0}}"#),
        settled(Outcome::InProgress)
    );
    assert_eq!(says(r#"{"Shutter1":{"Position":51,"Direction":-1,"Target":50}}"#), settled(Outcome::InProgress));
    assert_eq!(says(r#"{"Shutter1":{"Position":49,"Direction":0,"Target":50}}"#), settled(Outcome::Succeeded));
    // Stopped on its way, or sent somewhere else.
    assert_eq!(says(r#"{"Shutter1":{"Position":62,"Direction":0,"Target":62}}"#), None);
}

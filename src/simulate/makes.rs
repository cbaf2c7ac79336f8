//! What simulated devices of other makes answer to a command, in the shapes that real ones send. Pure.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::Outgoing;

/// What of a simulated climate sensor behind Zigbee2MQTT can be set.
const SETTABLE: [&str; 3] = ["temperature_calibration", "humidity_calibration", "temperature_unit"];

/// Which switches are on, by device. No more than there are devices.
#[derive(Debug, Default)]
pub(super) struct Switches(HashSet<String>);

impl Switches {
    fn is_on(&self, device: &str) -> bool {
        self.0.contains(device)
    }

    /// Returns what it was before.
    fn switch(&mut self, device: &str, on: bool) -> bool {
        if on { !self.0.insert(device.to_owned()) } else { self.0.remove(device) }
    }
}

fn message(topic: String, payload: &Value) -> Outgoing {
    Outgoing { topic, payload: payload.to_string().into_bytes() }
}

/// `cmnd/<device>/<name>`: Tasmota documentation, *Commands*.
pub(super) fn tasmota(switches: &mut Switches, device: &str, name: &str, payload: &[u8]) -> Vec<Outgoing> {
    let given = String::from_utf8_lossy(payload).trim().to_ascii_uppercase();
    let is_on = match given.as_str() {
        "ON" | "1" | "TRUE" => true,
        "OFF" | "0" | "FALSE" => false,
        "TOGGLE" | "2" => !switches.is_on(device),
        // Nothing else switches: it is asked.
        _ => switches.is_on(device),
    };
    let result = |answer: Value| message(format!("stat/{device}/RESULT"), &answer);
    match name.to_ascii_uppercase().as_str() {
        "POWER" | "POWER1" => {
            switches.switch(device, is_on);
            let word = if is_on { "ON" } else { "OFF" };
            let plain = Outgoing { topic: format!("stat/{device}/POWER"), payload: word.into() };
            vec![result(json!({ "POWER": word })), plain]
        }
        "TELEPERIOD" => vec![result(json!({ "TelePeriod": given.parse::<u16>().unwrap_or(300).clamp(10, 3600) }))],
        "RESTART" if given == "1" => vec![result(json!({ "Restart": "Restarting" }))],
        _ => vec![result(json!({ "Command": "Unknown", "Input": name.to_ascii_uppercase() }))],
    }
}

/// `zigbee2mqtt/<device>/set`: the state with what was set, or what Zigbee2MQTT's log says of a property that the device does not have.
pub(super) fn zigbee2mqtt(device: &str, payload: &[u8]) -> Vec<Outgoing> {
    let Ok(Value::Object(mut state)) = serde_json::from_slice::<Value>(payload) else { return Vec::new() };
    if let Some((key, value)) = state.iter().find(|(key, _)| !SETTABLE.contains(&key.as_str())) {
        let words = format!("z2m: No converter available for '{key}' on '{device}': ({value})");
        let log = json!({ "level": "error", "message": words, "namespace": "z2m" });
        return vec![message("zigbee2mqtt/bridge/logging".to_owned(), &log)];
    }
    state.insert("linkquality".to_owned(), 120.into());
    vec![message(format!("zigbee2mqtt/{device}"), &Value::Object(state))]
}

/// `<device>/rpc` of a Plus 1PM: Shelly's API documentation, *RPC Protocol* and *Switch*.
pub(super) fn shelly(switches: &mut Switches, device: &str, payload: &[u8]) -> Vec<Outgoing> {
    let call: Value = serde_json::from_slice(payload).unwrap_or_default();
    let Some(src) = call.get("src").and_then(Value::as_str) else { return Vec::new() };
    let params = call.get("params").cloned().unwrap_or_default();
    let method = call.get("method").and_then(Value::as_str).unwrap_or_default();
    let refusal = |code: i32, words: String| ("error", json!({ "code": code, "message": words }));
    let is_switch = method.starts_with("Switch.");
    let (key, said) = match (method, params.get("on").and_then(Value::as_bool)) {
        _ if is_switch && params.get("id") != Some(&json!(0)) => {
            let id = params.get("id").unwrap_or(&Value::Null);
            refusal(-105, format!("Argument 'id', value {id} not found!"))
        }
        ("Switch.Set", Some(on)) => ("result", json!({ "was_on": switches.switch(device, on) })),
        ("Switch.Set", None) => refusal(-103, "Missing required argument 'on'!".to_owned()),
        ("Switch.Toggle", _) => {
            let on = !switches.is_on(device);
            ("result", json!({ "was_on": switches.switch(device, on) }))
        }
        ("Shelly.Reboot", _) => ("result", Value::Null),
        _ => refusal(404, format!("No handler for {method}")),
    };
    let id = call.get("id").cloned().unwrap_or_default();
    vec![message(format!("{src}/rpc"), &json!({ "id": id, "src": device, "dst": src, key: said }))]
}

/// `application/<id>/device/<EUI>/command/down`: the gateway has sent it, and the device's radio confirms it where that is asked for.
pub(super) fn chirpstack(device: &str, payload: &[u8]) -> Vec<Outgoing> {
    let item: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
    let event = |kind: &str, more: (&str, Value)| {
        let topic = format!("application/{}/device/{device}/event/{kind}", super::envelopes::APPLICATION);
        let said = json!({ "deviceInfo": { "devEui": device }, "queueItemId": item.get("id"), more.0: more.1 });
        message(topic, &said)
    };
    let mut events = vec![event("txack", ("gatewayId", "2cf7f11081400088".into()))];
    if item.get("confirmed") == Some(&Value::Bool(true)) {
        events.push(event("ack", ("acknowledged", true.into())));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: &[Outgoing]) -> Vec<(&str, Value)> {
        let json = |payload: &[u8]| {
            serde_json::from_slice(payload)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(payload).into_owned()))
        };
        messages.iter().map(|message| (message.topic.as_str(), json(&message.payload))).collect()
    }

    #[test]
    fn a_tasmota_plug_says_what_holds_from_then_on() {
        let mut switches = Switches::default();
        let mut told = |name: &str, value: &str| {
            let answers = tasmota(&mut switches, "p", name, value.as_bytes());
            read(&answers)[0].clone().1
        };
        assert_eq!(told("POWER", "TOGGLE"), json!({ "POWER": "ON" }));
        assert_eq!(told("Power", ""), json!({ "POWER": "ON" }));
        assert_eq!(told("POWER", "off"), json!({ "POWER": "OFF" }));
        assert_eq!(told("TelePeriod", "60"), json!({ "TelePeriod": 60 }));
        assert_eq!(told("Restart", "1"), json!({ "Restart": "Restarting" }));
        assert_eq!(told("Dimmer", "7"), json!({ "Command": "Unknown", "Input": "DIMMER" }));
    }

    #[test]
    fn a_sensor_has_calibrations_and_nothing_else_to_set() {
        let set = zigbee2mqtt("r", br#"{"temperature_calibration":-0.5}"#);
        assert_eq!(read(&set), [("zigbee2mqtt/r", json!({ "temperature_calibration": -0.5, "linkquality": 120 }))]);
        let refused = zigbee2mqtt("r", br#"{"state":"ON"}"#);
        assert!(read(&refused)[0].1["message"].as_str().unwrap().contains("'state' on 'r'"), "{refused:?}");
        assert!(zigbee2mqtt("r", b"ON").is_empty());
    }

    #[test]
    fn a_shelly_answers_by_number_and_refuses_by_code() {
        let mut switches = Switches::default();
        let mut call = |method: &str, params: Value| {
            let call = json!({ "id": 7, "src": "me", "method": method, "params": params }).to_string();
            let answers = shelly(&mut switches, "s", call.as_bytes());
            let (topic, answer) = read(&answers)[0].clone();
            assert_eq!((topic, &answer["id"], &answer["src"]), ("me/rpc", &json!(7), &json!("s")));
            answer
        };
        assert_eq!(call("Switch.Set", json!({ "id": 0, "on": true }))["result"], json!({ "was_on": false }));
        assert_eq!(call("Switch.Toggle", json!({ "id": 0 }))["result"], json!({ "was_on": true }));
        assert_eq!(call("Switch.Set", json!({ "id": 3, "on": true }))["error"]["code"], -105);
        assert_eq!(call("Switch.Set", json!({ "id": 0 }))["error"]["code"], -103);
        assert_eq!(call("Light.Set", json!({}))["error"]["code"], 404);
        assert!(shelly(&mut switches, "s", b"?").is_empty());
    }

    #[test]
    fn a_downlink_is_sent_and_confirmed_where_that_is_asked_for() {
        let kinds = |payload: &[u8]| {
            let answers = chirpstack("eui", payload);
            answers.iter().map(|event| event.topic.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(br#"{"id":"q","confirmed":true}"#), ["txack", "ack"]);
        assert_eq!(kinds(br#"{"id":"q"}"#), ["txack"]);
    }
}

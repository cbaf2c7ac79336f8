//! Devices of other makes, simulated as they answer: what shipped templates send them, and what becomes of it.

use std::net::SocketAddr;

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::executor::Executor;
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::SQLITE;

fn address(broker: &Mosquitto) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], broker.port))
}

/// A daemon that knows one device, of a shipped template.
fn serving(broker: &Mosquitto, uid: &str, template: &str, more: &str) -> Tidegate {
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    let device = format!("[[device]]\nuid = \"{uid}\"\ntemplate = \"{template}\"\n{more}\n");
    tidegate.catalog_file("devices/one.toml", &device);
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    tidegate
}

/// Sends, waits for the end, and returns the command with its story.
fn send(tidegate: &Tidegate, device: &str, name: &str, params: Value) -> Value {
    let params = params.to_string();
    let output =
        tidegate.command(&["command", "send", device, name, "--params", &params, "--wait", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", complaint(&output)))
}

fn states(command: &Value) -> Vec<&str> {
    command["steps"].as_array().unwrap().iter().map(|step| step["state"].as_str().unwrap()).collect()
}

#[test]
fn a_tasmota_plug_answers_with_what_holds_from_then_on() {
    let broker = Mosquitto::plain();
    let plug = Executor::start(address(&broker), "plug", &["cmnd/plug/#"], |heard| {
        let name = heard.topic.rsplit('/').next().unwrap().to_owned();
        let value = String::from_utf8_lossy(&heard.payload).to_uppercase();
        let answer = match name.as_str() {
            "POWER" => json!({ "POWER": value }),
            _ => json!({ "Command": "Unknown", "Input": name }),
        };
        vec![
            // Not what was asked for, and nobody's answer.
            ("stat/plug/RESULT".to_owned(), "{garbage".to_owned()),
            ("stat/other/RESULT".to_owned(), answer.to_string()),
            ("stat/plug/RESULT".to_owned(), answer.to_string()),
            ("stat/plug/POWER".to_owned(), value),
        ]
    });
    let tidegate = serving(&broker, "plug", "tasmota-plug", "");
    let done = send(&tidegate, "plug", "POWER", json!({ "value": "ON" }));
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "POWER": "ON" })), "{done}");
    assert_eq!((plug.await_heard(0).topic, plug.await_heard(0).payload), ("cmnd/plug/POWER".into(), b"ON".to_vec()));
    let unknown = send(&tidegate, "plug", "TelePeriod", json!({ "value": 60 }));
    assert_eq!((&unknown["state"], &unknown["error"]), (&json!("rejected"), &json!("Unknown")), "{unknown}");
    // An answer after the end is telemetry and no more.
    plug.publish("stat/plug/RESULT", r#"{"TelePeriod":60}"#, PublishProperties::default());
    let off = send(&tidegate, "plug", "POWER", json!({ "value": "OFF" }));
    assert_eq!(off["state"], "succeeded");
    let shown = tidegate.json(&["command", "show", unknown["id"].as_str().unwrap()]);
    assert_eq!(shown["state"], "rejected");
}

#[test]
fn a_zigbee_lamp_is_confirmed_by_its_state_or_failed_by_the_bridge() {
    let broker = Mosquitto::plain();
    let _bridge = Executor::start(address(&broker), "bridge", &["zigbee2mqtt/lamp/set"], |heard| {
        let asked = heard.json();
        if asked["state"] == "OFF" {
            let log = |name: &str| {
                let message = format!("z2m: Publish 'set' 'state' to '{name}' failed: 'Error: MAC_NO_ACK'");
                json!({ "level": "error", "message": message }).to_string()
            };
            let topic = || "zigbee2mqtt/bridge/logging".to_owned();
            return vec![(topic(), log("another")), (topic(), log("lamp"))];
        }
        let mut state = json!({ "state": "OFF", "linkquality": 80 });
        let before = ("zigbee2mqtt/lamp".to_owned(), state.to_string());
        state["state"] = json!("ON");
        state["brightness"] = asked["brightness"].clone();
        vec![before, ("zigbee2mqtt/lamp".to_owned(), state.to_string())]
    });
    let tidegate = serving(&broker, "lamp", "zigbee-light", "");
    let done = send(&tidegate, "lamp", "light", json!({ "state": "ON", "brightness": 120, "transition": 1 }));
    assert_eq!((&done["state"], &done["result"]["brightness"]), (&json!("succeeded"), &json!(120)), "{done}");
    let failed = send(&tidegate, "lamp", "light", json!({ "state": "OFF" }));
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("to 'lamp' failed"), "{failed}");
}

#[test]
fn a_shelly_answers_the_call_by_its_number() {
    let broker = Mosquitto::plain();
    let _switch = Executor::start(address(&broker), "switch", &["shellyplus1pm-1/rpc"], |heard| {
        let call = heard.json();
        let to = format!("{}/rpc", call["src"].as_str().unwrap());
        let id = call["id"].as_u64().unwrap();
        let frame = |id: u64, key: &str, value: Value| {
            json!({ "id": id, "src": "shellyplus1pm-1", "dst": call["src"], key: value }).to_string()
        };
        let answer = match call["params"]["id"].as_u64() {
            Some(0) => frame(id, "result", json!({ "was_on": false })),
            _ => frame(id, "error", json!({ "code": -105, "message": "Argument 'id', value 7 not found!" })),
        };
        vec![(to.clone(), frame(id ^ 1, "result", json!({}))), (to, answer)]
    });
    let tidegate = serving(&broker, "shellyplus1pm-1", "shelly-1pm", "");
    let done = send(&tidegate, "shellyplus1pm-1", "Switch.Set", json!({ "id": 0, "on": true }));
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "was_on": false })), "{done}");
    let rejected = send(&tidegate, "shellyplus1pm-1", "Switch.Set", json!({ "id": 7, "on": true }));
    assert_eq!(rejected["state"], "rejected", "{rejected}");
    assert!(rejected["error"].as_str().unwrap().contains("not found"), "{rejected}");
}

#[test]
fn a_homie_device_says_where_it_is_going_and_when_it_is_there() {
    let broker = Mosquitto::plain();
    let _blind = Executor::start(address(&broker), "blind", &["homie/5/blind/+/+/set"], |heard| {
        let property = heard.topic.strip_suffix("/set").unwrap();
        let value = String::from_utf8(heard.payload.clone()).unwrap();
        vec![
            (format!("{property}/$target"), value.clone()),
            (property.to_owned(), "10".into()),
            (property.to_owned(), value),
        ]
    });
    let tidegate = serving(&broker, "blind", "homie", "tags = { homie = \"homie/5\" }");
    let done = send(&tidegate, "blind", "set", json!({ "node": "main", "property": "position", "value": 40 }));
    assert_eq!(done["state"], "succeeded", "{done}");
    assert!(states(&done).contains(&"delivered"), "{done}");
}

#[test]
fn an_esphome_switch_and_a_shelly_of_the_first_generation_are_confirmed_by_their_state() {
    let broker = Mosquitto::plain();
    let _node = Executor::start(address(&broker), "node", &["garden/switch/pump/command"], |heard| {
        let value = String::from_utf8(heard.payload.clone()).unwrap();
        vec![("garden/switch/fan/state".into(), value.clone()), ("garden/switch/pump/state".into(), value)]
    });
    let _relay = Executor::start(address(&broker), "relay", &["shellies/relay-1/relay/+/command"], |heard| {
        let topic = heard.topic.strip_suffix("/command").unwrap().to_owned();
        let word = if topic.ends_with('1') {
            "overpower".to_owned()
        } else {
            String::from_utf8(heard.payload.clone()).unwrap()
        };
        vec![(topic, word)]
    });
    let tidegate = serving(&broker, "garden", "esphome", "[[device]]\nuid = \"relay-1\"\ntemplate = \"shelly-gen1\"");
    let done = send(&tidegate, "garden", "set", json!({ "component": "switch", "object": "pump", "value": "ON" }));
    assert_eq!(done["state"], "succeeded", "{done}");
    let done = send(&tidegate, "relay-1", "relay", json!({ "state": "on" }));
    assert_eq!(done["state"], "succeeded", "{done}");
    let failed = send(&tidegate, "relay-1", "relay", json!({ "state": "on", "channel": 1 }));
    assert_eq!(failed["state"], "failed", "{failed}");
}

#[test]
fn chirpstack_tells_of_a_downlink_by_its_events() {
    const EUI: &str = "0102030405060708";
    let broker = Mosquitto::plain();
    let _server = Executor::start(address(&broker), "server", &["application/+/device/+/command/down"], |heard| {
        let item = heard.json();
        let event = |kind: &str| heard.topic.replace("command/down", &format!("event/{kind}"));
        let info = json!({ "devEui": item["devEui"] });
        let txack = json!({ "deviceInfo": info, "queueItemId": item["id"], "fCntDown": 1 });
        let ack = json!({ "deviceInfo": info, "queueItemId": item["id"], "acknowledged": item["fPort"] == 10 });
        let log = json!({ "deviceInfo": info, "level": "ERROR", "code": "DOWNLINK_PAYLOAD_SIZE",
            "description": "Device queue-item discarded because it exceeds the max. payload size",
            "context": { "queue_item_id": item["id"] } });
        match item["fPort"].as_u64() {
            Some(99) => vec![(event("log"), log.to_string())],
            _ => vec![(event("txack"), txack.to_string()), (event("ack"), ack.to_string())],
        }
    });
    let tidegate = serving(&broker, EUI, "chirpstack", "tags = { application = \"app\" }");
    let done = send(&tidegate, EUI, "downlink", json!({ "f_port": 10, "data": "AQID" }));
    assert_eq!(done["state"], "succeeded", "{done}");
    assert!(states(&done).contains(&"delivered"), "{done}");
    assert_eq!(send(&tidegate, EUI, "downlink", json!({ "f_port": 11, "data": "AQID" }))["state"], "failed");
    let failed = send(&tidegate, EUI, "downlink", json!({ "f_port": 99, "data": "AQID" }));
    assert!(failed["error"].as_str().unwrap().contains("max. payload size"), "{failed}");
}

#[test]
fn the_things_stack_tells_of_a_downlink_by_its_correlation_ids() {
    let broker = Mosquitto::plain();
    let _server = Executor::start(address(&broker), "server", &["v3/+/devices/+/down/push"], |heard| {
        let item = heard.json()["downlinks"][0].clone();
        let event = |kind: &str, body: Value| {
            let mut ids = item["correlation_ids"].as_array().unwrap().clone();
            ids.insert(0, json!("as:downlink:01"));
            let event = json!({ "correlation_ids": ids, format!("downlink_{kind}"): body });
            (heard.topic.replace("/push", &format!("/{kind}")), event.to_string())
        };
        let first = vec![event("queued", item.clone()), event("sent", item.clone())];
        let last = match item["f_port"].as_u64() {
            Some(10) => event("ack", item.clone()),
            Some(11) => event("nack", item.clone()),
            _ => event("failed", json!({ "downlink": item, "error": { "message_format": "too long" } })),
        };
        first.into_iter().chain([last]).collect()
    });
    let tidegate = serving(&broker, "dev1", "ttn", "tags = { application = \"app1@ttn\" }");
    let done = send(&tidegate, "dev1", "downlink", json!({ "f_port": 10, "data": "AQID" }));
    assert_eq!(done["state"], "succeeded", "{done}");
    assert!(states(&done).contains(&"delivered"), "{done}");
    assert_eq!(send(&tidegate, "dev1", "downlink", json!({ "f_port": 11, "data": "AQID" }))["state"], "failed");
    assert_eq!(send(&tidegate, "dev1", "downlink", json!({ "f_port": 12, "data": "AQID" }))["error"], "too long");
}

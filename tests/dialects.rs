//! Devices of other makes, simulated as they answer: what shipped templates send them, and what becomes of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::executor::Executor;
use crate::support::load::Simulation;
use crate::support::mosquitto::Mosquitto;
use crate::support::sparkplug::{Metric, Payload};
use crate::support::stranger::SQLITE;

fn address(broker: &Mosquitto) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], broker.port))
}

/// A daemon that knows one device, of a shipped template.
fn serving(broker: &Mosquitto, uid: &str, template: &str, more: &str) -> Tidegate {
    hearing(broker, NATIVE, (uid, template, more))
}

/// As [`serving`], with other sources.
fn hearing(broker: &Mosquitto, sources: &str, (uid, template, more): (&str, &str, &str)) -> Tidegate {
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + sources;
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

/// A job that brings one device its firmware, to its end.
fn install(tidegate: &Tidegate, device: &str, version: &str) -> Value {
    let sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let document = ["--version", version, "--url", "http://files.example/image.bin", "--size", "4096", "--sha256", sum];
    let output = tidegate
        .command(&[&["job", "firmware", "new", "--device", device, "--wait"][..], &document[..]].concat())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", complaint(&output));
    tidegate.json(&["job", "executions", "new"])[0].clone()
}

#[test]
fn a_tasmota_plug_fetches_its_firmware_and_tells_the_version_when_it_is_back() {
    let broker = Mosquitto::plain();
    let plug = Executor::start(address(&broker), "plug", &["cmnd/plug/#"], |_| {
        vec![
            ("stat/plug/RESULT".to_owned(), json!({ "OtaUrl": "http://files.example/image.bin" }).to_string()),
            ("stat/plug/UPGRADE".to_owned(), json!({ "Upgrade": "Successful. Restarting" }).to_string()),
            ("tele/plug/INFO1".to_owned(), json!({ "Info1": { "Version": "13.1.0(tasmota)" } }).to_string()),
        ]
    });
    let sources = "[[sources]]\nname = \"tasmota\"\nfilter = \"tele/{device}/+\"\ndecoder = \"tasmota\"\n";
    let tidegate = hearing(&broker, sources, ("plug", "tasmota-plug", ""));
    let done = install(&tidegate, "plug", "13.1.0(tasmota)");
    assert_eq!(done["state"], "SUCCEEDED", "{done}");
    let heard = plug.await_heard(0);
    assert_eq!(
        (heard.topic.as_str(), heard.payload.as_slice()),
        ("cmnd/plug/Backlog", &b"OtaUrl http://files.example/image.bin; Upgrade 1"[..])
    );
}

#[test]
fn a_zigbee_lamps_firmware_is_the_bridges_to_bring_and_the_lamps_to_report() {
    let broker = Mosquitto::plain();
    let asked = "zigbee2mqtt/bridge/request/device/ota_update/update";
    let _bridge = Executor::start(address(&broker), "bridge", &[asked], |heard| {
        let call = heard.json();
        let topic = || "zigbee2mqtt/bridge/response/device/ota_update/update".to_owned();
        let transaction = &call["transaction"];
        if call["url"] != "http://files.example/image.bin" {
            let error = "Update of 'lamp' failed (No image)";
            let answer = json!({ "data": {}, "status": "error", "error": error, "transaction": transaction });
            return vec![(topic(), answer.to_string())];
        }
        let answer = json!({ "data": { "id": call["id"] }, "status": "ok", "transaction": transaction });
        let told =
            json!({ "update": { "state": "idle", "installed_version": 587_806_257, "latest_version": 587_806_257 } });
        vec![(topic(), answer.to_string()), ("zigbee2mqtt/lamp".to_owned(), told.to_string())]
    });
    let sources = "[[sources]]\nname = \"zigbee\"\nfilter = \"zigbee2mqtt/{device}\"\ndecoder = \"zigbee2mqtt\"\n";
    let tidegate = hearing(&broker, sources, ("lamp", "zigbee-light", ""));
    let done = install(&tidegate, "lamp", "587806257");
    assert_eq!(done["state"], "SUCCEEDED", "{done}");
    let failed = send(&tidegate, "lamp", "update", json!({ "url": "http://files.example/none.bin" }));
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("No image"), "{failed}");
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

const PLANT: &str = "[[sources]]\nname = \"plant\"\nfilter = \"spBv1.0/#\"\ndecoder = \"sparkplug\"\n";

/// The edge node `Edge` with the device `Motor`.
#[derive(Clone, Default)]
struct Node(Arc<AtomicU64>);

impl Node {
    fn message(&self, kind: &str, metrics: Vec<Metric>) -> (String, Vec<u8>) {
        if kind == "NBIRTH" {
            self.0.store(0, Ordering::Relaxed);
        }
        let seq = (kind != "NDEATH").then(|| self.0.fetch_add(1, Ordering::Relaxed));
        let device = if kind.starts_with('D') { "/Motor" } else { "" };
        let timestamp = u64::try_from(jiff::Timestamp::now().as_millisecond()).ok();
        (format!("spBv1.0/Plant/{kind}/Edge{device}"), Payload { timestamp, metrics, seq }.encode_to_vec())
    }

    fn births(&self) -> Vec<(String, Vec<u8>)> {
        let off = |name| Metric { flag: Some(false), ..Metric::named(name, 11) };
        let node = vec![bd_seq(), off("Node Control/Rebirth"), off("Node Control/Reboot")];
        let device = vec![
            Metric { alias: Some(7), int: Some(0), ..Metric::named("Torque", 2) },
            Metric { alias: Some(8), float: Some(0.0), ..Metric::named("Ramp", 9) },
            off("Running"),
        ];
        vec![self.message("NBIRTH", node), self.message("DBIRTH", device)]
    }

    /// What it does of what it is told.
    fn obey(&self, topic: &str, told: Payload) -> Vec<(String, Vec<u8>)> {
        assert!(told.timestamp.is_some() && told.seq.is_none(), "{told:?}");
        if topic == "spBv1.0/Plant/DCMD/Edge/Motor" {
            let data = |torque: i32| {
                let set = told.metrics.iter().map(|metric| Metric {
                    int: metric.int.map(|_| torque.cast_unsigned()),
                    datatype: None,
                    ..metric.clone()
                });
                self.message("DDATA", set.collect())
            };
            // On its way, and there.
            return vec![data(-1), data(-300)];
        }
        assert_eq!(topic, "spBv1.0/Plant/NCMD/Edge");
        let named = told.metrics[0].name.as_deref();
        assert_eq!((told.metrics.len(), told.metrics[0].flag), (1, Some(true)));
        let death = (named == Some("Node Control/Reboot")).then(|| self.message("NDEATH", vec![bd_seq()]));
        death.into_iter().chain(self.births()).collect()
    }
}

fn bd_seq() -> Metric {
    Metric { long: Some(0), ..Metric::named("bdSeq", 8) }
}

#[test]
fn sparkplugs_metrics_are_set_as_their_births_told_and_confirmed_by_data() {
    let broker = Mosquitto::plain();
    let node = Node::default();
    let obedient = node.clone();
    let edge = Executor::binary(
        address(&broker),
        "edge",
        &["spBv1.0/Plant/NCMD/Edge", "spBv1.0/Plant/DCMD/Edge/+"],
        move |heard| obedient.obey(&heard.topic, Payload::decode(&heard.payload[..]).unwrap()),
    );
    let also = "[[device]]\nuid = \"Edge\"\ntemplate = \"sparkplug\"";
    let tidegate = hearing(&broker, PLANT, ("Motor", "sparkplug", also));
    let wanted = json!({ "Torque": -300, "Ramp": 0.1, "Running": true });
    let early = tidegate.json(&["command", "send", "Motor", "set", "--params", &wanted.to_string()]);
    let early = early["id"].as_str().unwrap();
    let show = || tidegate.json(&["command", "show", early]);
    eventually("it waits for a birth", || show().to_string().contains("no birth").then_some(()));
    assert_eq!((&show()["state"], edge.heard().len()), (&json!("queued"), 0));
    for (topic, payload) in node.births() {
        edge.publish(&topic, payload, PublishProperties::default());
    }
    let done = eventually("it is done", || Some(show()).filter(|shown| shown["state"] == "succeeded"));
    assert_eq!((&done["result"]["Torque"], &done["result"]["Running"]), (&json!(-300), &json!(true)), "{done}");

    let told = Payload::decode(&edge.await_heard(0).payload[..]).unwrap().metrics;
    let by_alias = |alias| told.iter().find(|metric| metric.alias == Some(alias)).unwrap();
    assert_eq!((by_alias(7).int, by_alias(7).name.clone()), (Some((-300_i32).cast_unsigned()), None));
    assert_eq!(by_alias(8).float, Some(0.1));
    assert!(told.iter().any(|metric| metric.name.as_deref() == Some("Running") && metric.flag == Some(true)));

    for (device, params, word) in [
        ("Motor", json!({ "Torqe": 1 }), "did you mean `Torque`"),
        ("Motor", json!({ "Torque": 40_000 }), "Int16"),
        ("Motor", json!({ "Node Control/Rebirth": true }), "send it to Edge"),
        ("Edge", json!({ "Torque": 1 }), "NBIRTH"),
    ] {
        let rejected = send(&tidegate, device, "set", params);
        assert_eq!(rejected["state"], "rejected", "{rejected}");
        assert!(rejected["error"].as_str().unwrap().contains(word), "{rejected}");
    }
    assert_eq!(edge.heard().len(), 1, "nothing was sent");

    assert_eq!(send(&tidegate, "Edge", "rebirth", json!({}))["state"], "succeeded");
    let rebooted = send(&tidegate, "Edge", "reboot", json!({}));
    assert_eq!(rebooted["state"], "succeeded", "{rebooted}");
    assert!(states(&rebooted).contains(&"delivered"), "{rebooted}");
}

#[test]
fn a_thingsboard_gateway_answers_for_its_devices() {
    let broker = Mosquitto::plain();
    let _gateway = Executor::start(address(&broker), "gateway", &["v1/gateway/rpc"], |heard| {
        let call = heard.json();
        // Its own answers come back to it.
        let Some(method) = call["data"]["method"].as_str() else { return Vec::new() };
        let answer = |device: &Value, id: u64, data: Value| {
            let answer = json!({ "device": device, "id": id, "data": data });
            ("v1/gateway/rpc".to_owned(), answer.to_string())
        };
        let id = call["data"]["id"].as_u64().unwrap();
        let data = match method {
            "setGpio" => json!({ "pin": call["data"]["params"]["pin"], "value": true }),
            "jam" => json!({ "success": false }),
            _ => json!({ "error": "no such method" }),
        };
        vec![
            answer(&json!("Device B"), id, json!({ "success": true })),
            answer(&call["device"], id ^ 1, json!({ "success": true })),
            answer(&call["device"], id, data),
        ]
    });
    let sources = "[[sources]]\nname = \"tb\"\nfilter = \"v1/gateway/+\"\ndecoder = \"thingsboard\"\n";
    let tidegate = hearing(&broker, sources, ("Device A", "thingsboard", ""));
    let rpc = |method: &str| send(&tidegate, "Device A", "rpc", json!({ "method": method, "params": { "pin": 4 } }));
    let done = rpc("setGpio");
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "pin": 4, "value": true })), "{done}");
    assert_eq!(rpc("jam")["state"], "failed");
    let unknown = rpc("fly");
    assert_eq!((&unknown["state"], &unknown["error"]), (&json!("failed"), &json!("no such method")), "{unknown}");
}

#[test]
fn simulated_devices_answer_in_the_dialect_of_their_kind() {
    const APPLICATION: &str = "635fda7b-0428-495e-812f-027490bcaf9d";
    const SOURCES: &str = "[[sources]]\nname = \"tasmota\"\nfilter = \"tele/{device}/SENSOR\"\ndecoder = \"json\"\n\
        [[sources]]\nname = \"z2m\"\nfilter = \"zigbee2mqtt/{device}\"\ndecoder = \"json\"\n\
        [[sources]]\nname = \"shelly\"\nfilter = \"{device}/events/rpc\"\ndecoder = \"shelly\"\n\
        [[sources]]\nname = \"lora\"\nfilter = \"application/+/device/{device}/event/+\"\ndecoder = \"chirpstack\"\n";
    let broker = Mosquitto::plain();
    let fleet = ["--format", "formats", "--devices", "5", "--rate", "50", "--for", "10m", "--answer"];
    let fleet = Simulation::start(broker.port, &fleet);
    let eui = eventually("the sensor is heard", || {
        let uplink: Value = serde_json::from_str(&broker.read_one("application/+/device/+/event/up")?).ok()?;
        uplink["deviceInfo"]["devEui"].as_str().map(str::to_owned)
    });
    let also = [
        ("sim-room-0001", "zigbee2mqtt", ""),
        ("sim-shellyplus1pm-0001", "shelly-1pm", ""),
        ("sim-plc-0001", "sparkplug", ""),
        ("sim-plc-0001-motor", "sparkplug", ""),
        (&*eui, "chirpstack", &*format!("tags = {{ application = \"{APPLICATION}\" }}")),
    ]
    .map(|(uid, template, more)| format!("[[device]]\nuid = \"{uid}\"\ntemplate = \"{template}\"\n{more}\n"))
    .concat();
    let sources = format!("{SOURCES}{PLANT}");
    let tidegate = hearing(&broker, &sources, ("sim-plug-0001", "tasmota-plug", &*also));
    for (device, name, params) in [
        ("sim-plug-0001", "POWER", json!({ "value": "ON" })),
        ("sim-room-0001", "set", json!({ "temperature_calibration": -0.5 })),
        ("sim-shellyplus1pm-0001", "Switch.Set", json!({ "id": 0, "on": true })),
        (&*eui, "downlink", json!({ "f_port": 2, "data": "AQID" })),
        ("sim-plc-0001-motor", "set", json!({ "Line/Running": false, "Motor/Speed": 1234 })),
        ("sim-plc-0001", "set", json!({ "Supply Voltage": 23.5 })),
        ("sim-plc-0001", "rebirth", json!({})),
    ] {
        let done = send(&tidegate, device, name, params);
        assert_eq!(done["state"], "succeeded", "{done}");
    }
    let refused = send(&tidegate, "sim-room-0001", "set", json!({ "state": "ON" }));
    assert_eq!(refused["state"], "rejected", "{refused}");
    let summary = fleet.interrupted();
    // tidegate itself may have asked for a rebirth.
    assert!(summary["commands"]["carried_out"].as_u64().unwrap() >= 8, "{summary}");
}

//! Commands from outside: asked for in every way, sent in order, answered, and what becomes of everything that is not right.

use std::net::SocketAddr;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::executor::Executor;
use crate::support::load::Simulation;
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::{SQLITE, Stranger};

const LAMP: &str = r#"
slug = "lamp"
name = "Lamp"
[[metric]]
name = "temperature"
keys = ["temperature"]
[[command]]
name = "dim"
timeout = "1s"
parameters = { type = "object", required = ["level"], additionalProperties = false, properties = { level = { type = "integer", minimum = 0, maximum = 100 } } }
[[command]]
name = "ping"
timeout = "1s"
idempotent = true
attempts = 2
"#;

const PLUG: &str = r#"
slug = "plug"
name = "Plug"
[command_dialect]
kind = "template"
topic = "cmnd/{device}/{name}"
payload = "{params.value}"
[[command_dialect.response]]
topic = "stat/{device}/RESULT"
when = { "{name}" = "{params.value}" }
[[command]]
name = "POWER"
timeout = "2s"
[[command]]
name = "BLINK"
topic = "blink/{device}"
payload = { id = "{id}", times = "{params.times:int}" }
[[command.response]]
topic = "blinked/{device}/{id}"
status = { at = "ok", succeeded = ["true"], failed = ["false"] }
error = "why"
"#;

const BUZZER: &str = r#"
slug = "buzzer"
name = "Buzzer"
[command_dialect]
kind = "template"
topic = "buzz/{device}"
payload = "{params.seconds:number=1}"
[[command]]
name = "buzz"
"#;

fn address(broker: &Mosquitto) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], broker.port))
}

fn configured(broker: &Mosquitto, database: &str, more: &str) -> Tidegate {
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE + more;
    let tidegate = Tidegate::configured(&toml);
    for (slug, template) in [("lamp", LAMP), ("plug", PLUG), ("buzzer", BUZZER)] {
        tidegate.catalog_file(&format!("templates/{slug}.toml"), template);
    }
    let device = |uid: &str, template: &str| {
        tidegate.catalog_file(
            &format!("devices/{uid}.toml"),
            &format!("[[device]]\nuid = \"{uid}\"\ntemplate = \"{template}\"\n"),
        );
    };
    device("lamp-1", "lamp");
    device("plug-1", "plug");
    device("buzzer-1", "buzzer");
    tidegate
}

fn serving(broker: &Mosquitto, database: &str, more: &str) -> Tidegate {
    let mut tidegate = configured(broker, database, more);
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    tidegate
}

/// Sends, waits for the end, and returns the command with its story.
fn send(tidegate: &Tidegate, device: &str, name: &str, params: Value, more: &[&str]) -> Value {
    let params = params.to_string();
    let mut arguments = vec!["command", "send", device, name, "--params", &params, "--wait", "--json"];
    arguments.extend(more);
    let output = tidegate.command(&arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", complaint(&output)))
}

/// Asks without waiting; returns the id.
fn ask(tidegate: &Tidegate, device: &str, name: &str, params: Value, more: &[&str]) -> String {
    let params = params.to_string();
    let mut arguments = vec!["command", "send", device, name, "--params", &params];
    arguments.extend(more);
    tidegate.json(&arguments)["id"].as_str().unwrap().to_owned()
}

fn ended(tidegate: &Tidegate, id: &str) -> Value {
    eventually(&format!("the end of {id}"), || {
        let shown = tidegate.json(&["command", "show", id]);
        (!shown["ended_at"].is_null()).then_some(shown)
    })
}

fn states(command: &Value) -> Vec<&str> {
    command["steps"].as_array().unwrap().iter().map(|step| step["state"].as_str().unwrap()).collect()
}

#[test]
fn a_native_device_is_told_and_answers() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "");
    let lamp = Executor::native(address(&broker), "lamp-1");
    let done = send(&tidegate, "lamp-1", "dim", json!({ "level": 7 }), &["--expires", "10m"]);
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(done["result"], json!({ "level": 7 }));
    assert_eq!((states(&done).first(), states(&done).last()), (Some(&"queued"), Some(&"succeeded")));
    assert!((&done["attempts"], &done["repeated"]) == (&json!(1), &json!(false)));

    let heard = lamp.await_heard(0);
    let id = done["id"].as_str().unwrap();
    assert_eq!(heard.topic, format!("devices/lamp-1/commands/{id}"));
    let payload = heard.json();
    assert_eq!(
        (&payload["id"], &payload["name"], &payload["params"]),
        (&json!(id), &json!("dim"), &json!({ "level": 7 }))
    );
    let expiry = heard.properties.message_expiry_interval.unwrap();
    assert!((500..=600).contains(&expiry), "{expiry}");
    assert_eq!(heard.properties.response_topic.as_deref(), Some(format!("{}/response", heard.topic).as_str()));
    assert_eq!(heard.properties.correlation_data.as_deref(), Some(id.as_bytes()));

    let list = tidegate.json(&["command", "list", "--state", "all", "--device", "lamp-1"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert!(tidegate.output(&["command", "list"]).lines().count() == 1, "nothing is open");
    tidegate.wait_for_metric("tidegate_command_states_total{state=\"succeeded\"}", 1.0);
}

#[test]
fn what_is_not_valid_is_refused_with_a_clear_word() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "[commands]\nmax_waiting = 2\n");
    let refusal = |device: &str, name: &str, params: &str| {
        let output = tidegate.command(&["command", "send", device, name, "--params", params]).output().unwrap();
        assert!(!output.status.success());
        complaint(&output)
    };
    assert!(refusal("lamp-1", "dim", r#"{"level":300}"#).contains("params.level"));
    assert!(refusal("lamp-1", "dim", "{}").contains("level"));
    assert!(refusal("lamp-1", "dimm", "{}").contains("did you mean `dim`"));
    assert!(refusal("nobody", "dim", "{}").contains("no device \"nobody\""));
    assert!(refusal("plug-1", "POWER", "{}").contains("{params.value}"));

    // A row is not refused by the database, but rejected by the daemon.
    let stranger = Stranger::of_file(&tidegate);
    for (row, word) in [
        ("'lamp-1', 'dim', '{\"level\":300}'", "params.level"),
        ("'lamp-1', 'dim', 'seven'", "no JSON"),
        ("'lamp-9', 'dim', '{}'", "no device"),
        ("'lamp-1', 'fly', '{}'", "no command"),
    ] {
        stranger.ask(&format!("INSERT INTO device_commands (device, name, params) VALUES ({row})"));
        let why = eventually("a rejection", || {
            let sql = "SELECT error FROM device_commands WHERE state = 'rejected' ORDER BY created_at DESC, rowid DESC LIMIT 1";
            Some(stranger.ask(sql)).filter(|why| why.contains(word))
        });
        assert!(!why.is_empty());
    }
    let steps = stranger.ask("SELECT count(*) FROM device_command_steps WHERE state = 'rejected'");
    assert_eq!(steps, "4");

    // Nobody is there, so they wait: two may.
    let ids: Vec<String> = (0..2).map(|_| ask(&tidegate, "lamp-1", "ping", json!({}), &[])).collect();
    let third = ended(&tidegate, &ask(&tidegate, "lamp-1", "ping", json!({}), &[]));
    assert_eq!(third["state"], "rejected");
    assert!(third["error"].as_str().unwrap().contains("max_waiting"), "{third}");
    for id in ids {
        assert!(tidegate.output(&["command", "cancel", &id]).contains("cancelled"));
    }
}

#[test]
fn a_row_that_anybody_puts_in_is_sent() {
    let (stranger, url) = Stranger::on_shared_server();
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, &url, "");
    let _lamp = Executor::native(address(&broker), "lamp-1");
    stranger.ask(
        "INSERT INTO device_commands (id, device, name, params) VALUES ('mine', 'lamp-1', 'dim', '{\"level\": 1}')",
    );
    let done = ended(&tidegate, "mine");
    assert_eq!((&done["state"], &done["via"]), (&json!("succeeded"), &json!("sql")), "{done}");
    // It never leaves its end.
    let output = tidegate.command(&["command", "cancel", "mine"]).output().unwrap();
    assert!(complaint(&output).contains("has ended: it is succeeded"), "{}", complaint(&output));
}

#[test]
fn a_request_by_mqtt_is_answered_on_its_response_topic() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "");
    let _lamp = Executor::native(address(&broker), "lamp-1");
    let caller = Executor::start(address(&broker), "caller", &["replies/caller"], |_| Vec::new());
    let request = |topic: &str, payload: &str, correlation: &'static str| {
        let properties = PublishProperties {
            response_topic: Some("replies/caller".to_owned()),
            correlation_data: Some(Bytes::from_static(correlation.as_bytes())),
            ..PublishProperties::default()
        };
        caller.publish(topic, payload, properties);
    };
    request("tidegate/commands/default/lamp-1/dim", r#"{"params":{"level":9},"id":"from-mqtt","who":"ann"}"#, "one");
    let (first, second) = (caller.await_heard(0), caller.await_heard(1));
    assert_eq!((&first.json()["state"], &first.json()["id"]), (&json!("queued"), &json!("from-mqtt")));
    assert_eq!((&second.json()["state"], &second.json()["result"]), (&json!("succeeded"), &json!({ "level": 9 })));
    assert_eq!(second.properties.correlation_data.as_deref(), Some(b"one".as_slice()));
    let shown = tidegate.json(&["command", "show", "from-mqtt"]);
    assert_eq!((&shown["who"], &shown["via"]), (&json!("ann"), &json!("mqtt")));

    request("tidegate/commands/default/lamp-1/dim", r#"{"level":101}"#, "two");
    let third = caller.await_heard(2);
    assert_eq!(third.json()["state"], "rejected");
    assert!(third.json()["error"].as_str().unwrap().contains("params.level"), "{:?}", third.json());
    assert_eq!(third.properties.correlation_data.as_deref(), Some(b"two".as_slice()));
    request("tidegate/commands/default/nobody/dim", "up", "three");
    assert!(caller.await_heard(3).json()["error"].as_str().unwrap().contains("no JSON"));
    tidegate.wait_for_metric("tidegate_command_notices_total", 4.0);

    // The same id is the same command.
    request("tidegate/commands/default/lamp-1/dim", r#"{"params":{"level":9},"id":"from-mqtt"}"#, "four");
    tidegate.wait_for_metric("tidegate_command_messages_refused_total{reason=\"asked_before\"}", 1.0);
    assert_eq!(tidegate.json(&["command", "list", "--state", "succeeded"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_template_says_how_commands_go_out_and_are_answered() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "");
    let plug = Executor::start(address(&broker), "plug", &["cmnd/plug-1/+", "blink/plug-1"], |heard| {
        match heard.topic.strip_prefix("cmnd/plug-1/") {
            Some(name) => {
                let value = String::from_utf8_lossy(&heard.payload).to_uppercase();
                vec![("stat/plug-1/RESULT".to_owned(), json!({ name: value }).to_string())]
            }
            None => {
                let (id, times) =
                    (heard.json()["id"].as_str().unwrap().to_owned(), heard.json()["times"].as_i64().unwrap());
                let answer = json!({ "ok": times < 5, "why": "too often" });
                vec![(format!("blinked/plug-1/{id}"), answer.to_string())]
            }
        }
    });
    let done = send(&tidegate, "plug-1", "POWER", json!({ "value": "on" }), &[]);
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "POWER": "ON" })), "{done}");
    assert_eq!(plug.await_heard(0).payload, b"on");
    let done = send(&tidegate, "plug-1", "BLINK", json!({ "times": "3" }), &[]);
    assert_eq!(done["state"], "succeeded", "{done}");
    let failed = send(&tidegate, "plug-1", "BLINK", json!({ "times": 9 }), &[]);
    assert_eq!((&failed["state"], &failed["error"]), (&json!("failed"), &json!("too often")), "{failed}");

    // Nothing can say what becomes of it: it stays what is known.
    let _buzzer = Executor::start(address(&broker), "buzzer", &["buzz/buzzer-1"], |_| Vec::new());
    let sent = send(&tidegate, "buzzer-1", "buzz", json!({}), &[]);
    assert_eq!(sent["state"], "sent", "{sent}");
    assert!(!sent["ended_at"].is_null());
}

#[test]
fn answers_that_are_not_right_change_nothing() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "");
    let lamp = Executor::start(address(&broker), "lamp", &["devices/lamp-1/commands/+"], |_| Vec::new());
    let id = ask(&tidegate, "lamp-1", "dim", json!({ "level": 1 }), &["--expires", "1h"]);
    lamp.await_heard(0);
    let say = |topic: &str, payload: &str| lamp.publish(topic, payload, PublishProperties::default());
    let refused = |reason: &str| {
        tidegate.wait_for_metric(&format!("tidegate_command_messages_refused_total{{reason=\"{reason}\"}}"), 1.0)
    };
    let own = format!("devices/lamp-1/commands/{id}/response");
    say("devices/lamp-1/commands/never/response", r#"{"status":"succeeded"}"#);
    refused("unknown_command");
    say(&format!("devices/plug-1/commands/{id}/response"), r#"{"status":"succeeded"}"#);
    refused("another_devices_command");
    say(&own, "garbage");
    refused("unreadable");
    say(&own, r#"{"status":"in_progress"}"#);
    eventually("it is delivered", || (tidegate.json(&["command", "show", &id])["state"] == "delivered").then_some(()));
    say(&own, r#"{"status":"failed","error":"jammed"}"#);
    assert_eq!(ended(&tidegate, &id)["error"], "jammed");
    say(&own, r#"{"status":"succeeded"}"#);
    refused("ended");
    let shown = tidegate.json(&["command", "show", &id]);
    assert_eq!(states(&shown), ["queued", "sent", "delivered", "failed", "failed"], "{shown}");
    let remark = shown["steps"][4]["cause"].as_str().unwrap();
    assert!(remark.contains("after the end"), "{remark}");
    // None of it was telemetry.
    assert_eq!(tidegate.json(&["quarantine", "list"]).as_array().unwrap().len(), 0);
}

#[test]
fn what_nobody_answers_is_sent_again_if_that_does_no_harm_and_times_out() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "");
    let lamp = Executor::start(address(&broker), "lamp", &["devices/lamp-1/commands/+"], |_| {
        // It is there, and says something else.
        vec![("devices/lamp-1/telemetry".to_owned(), r#"{"temperature":20}"#.to_owned())]
    });
    let once = send(&tidegate, "lamp-1", "dim", json!({ "level": 1 }), &[]);
    assert_eq!((&once["state"], &once["attempts"]), (&json!("timed_out"), &json!(1)), "{once}");
    let twice = send(&tidegate, "lamp-1", "ping", json!({}), &[]);
    assert_eq!((&twice["state"], &twice["attempts"]), (&json!("timed_out"), &json!(2)), "{twice}");
    assert_eq!(states(&twice), ["queued", "sent", "queued", "sent", "timed_out"]);
    assert_eq!(lamp.deliveries().values().copied().collect::<Vec<_>>().iter().sum::<u32>(), 3);
}

#[test]
fn a_device_that_is_not_there_gets_its_commands_in_order_and_never_too_late() {
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, SQLITE, "");
    let ids: Vec<String> = [("first", "0"), ("second", "0"), ("urgent", "5")]
        .into_iter()
        .map(|(id, priority)| ask(&tidegate, "lamp-1", "ping", json!({}), &["--id", id, "--priority", priority]))
        .collect();
    let late = ask(&tidegate, "lamp-1", "ping", json!({}), &["--id", "late", "--expires", "1s"]);
    assert_eq!(ended(&tidegate, &late)["state"], "expired");
    let waits = tidegate.json(&["command", "list"]);
    assert_eq!(waits.as_array().unwrap().len(), 3, "{waits}");
    assert!(waits.as_array().unwrap().iter().all(|command| command["state"] == "queued"), "{waits}");

    let lamp = Executor::native(address(&broker), "lamp-1");
    for id in &ids {
        assert_eq!(ended(&tidegate, id)["state"], "succeeded");
    }
    let order: Vec<String> = lamp.heard().iter().map(|heard| heard.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order, ["urgent", "first", "second"]);
}

#[test]
fn a_device_that_is_said_to_be_offline_is_waited_for_over_a_kill() {
    const STATUS: &str =
        "[[sources]]\nname = \"status\"\nfilter = \"devices/{device}/status\"\ndecoder = \"presence\"\n";
    for on_postgres in [false, true] {
        let broker = Mosquitto::plain();
        let server = on_postgres.then(Stranger::on_shared_server);
        let mut tidegate = configured(&broker, server.as_ref().map_or(SQLITE, |(_, url)| url), STATUS);
        let hasty = LAMP.replace("slug = \"lamp\"", "slug = \"hasty\"");
        let hasty = hasty.replace("[[metric]]", "[command_dialect]\nwaits_for_device = false\n[[metric]]");
        tidegate.catalog_file("templates/hasty.toml", &hasty);
        tidegate.catalog_file("devices/hasty.toml", "[[device]]\nuid = \"hasty-1\"\ntemplate = \"hasty\"\n");
        tidegate.start();
        tidegate.listening();
        eventually("the database is open", || tidegate.said("database open"));
        let (lamp, hasty) =
            (Executor::native(address(&broker), "lamp-1"), Executor::native(address(&broker), "hasty-1"));
        let say = |device: &str, word: &str| broker.publish(&format!("devices/{device}/status"), word, &["-q", "1"]);
        for device in ["lamp-1", "hasty-1"] {
            say(device, "offline");
            eventually("it is offline", || {
                (tidegate.found(&["devices", "show", device])?[0]["status"] == "offline").then_some(())
            });
        }
        let kept = ask(&tidegate, "lamp-1", "dim", json!({ "level": 7 }), &[]);
        eventually("it waits", || {
            tidegate.json(&["command", "show", &kept]).to_string().contains("is offline").then_some(())
        });
        assert_eq!(send(&tidegate, "hasty-1", "dim", json!({ "level": 1 }), &[])["state"], "succeeded");
        tidegate.kill();
        tidegate.start();
        tidegate.listening();
        let late = ask(&tidegate, "lamp-1", "ping", json!({}), &["--expires", "1s"]);
        assert_eq!(ended(&tidegate, &late)["state"], "expired");
        assert_eq!((lamp.heard().len(), hasty.heard().len()), (0, 1));
        say("lamp-1", "online");
        let done = ended(&tidegate, &kept);
        assert_eq!((&done["state"], &done["repeated"]), (&json!("succeeded"), &json!(false)), "{done}");
        assert_eq!(lamp.deliveries(), [(kept, 1)].into());
    }
}

#[test]
fn what_is_asked_of_commands_changes_with_a_reload() {
    let (stranger, url) = Stranger::on_shared_server();
    let broker = Mosquitto::plain();
    let tidegate = serving(&broker, &url, "");
    let toml = std::fs::read_to_string(tidegate.config_file()).unwrap();
    std::fs::write(tidegate.config_file(), format!("{toml}\n[commands]\nexpires = \"1s\"\n")).unwrap();
    assert!(tidegate.reload());
    assert!(!tidegate.log().contains("takes effect at the next start"));
    // Nobody is there to hear it: without the reload it would wait for an hour.
    stranger.ask("INSERT INTO device_commands (id, device, name) VALUES ('brief', 'lamp-1', 'ping')");
    assert_eq!(ended(&tidegate, "brief")["state"], "expired");
}

#[test]
fn simulated_devices_carry_out_what_they_are_told() {
    let broker = Mosquitto::plain();
    let mut tidegate = configured(&broker, SQLITE, "");
    let sim = "[[device]]\nuid = \"sim-device-0001\"\ntemplate = \"lamp\"\n";
    tidegate.catalog_file("devices/sim.toml", sim);
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    let fleet = Simulation::start(broker.port, &["--devices", "1", "--rate", "8", "--messages", "160", "--answer"]);
    for level in [1, 2] {
        let done = send(&tidegate, "sim-device-0001", "dim", json!({ "level": level }), &["--expires", "10s"]);
        assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({ "level": level })), "{done}");
    }
    let summary = fleet.finish();
    assert_eq!(summary["commands"], json!({ "carried_out": 2, "repeated": 0, "answered": 2 }));
}

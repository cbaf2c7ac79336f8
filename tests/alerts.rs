//! Alerts from a device's PUBLISH to the retained message, the database and the command line; over kills, outages and silence.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, eventually, sqlite};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

const HOT: &str = r#"
slug = "too-hot"
name = "Too hot"
severity = "critical"
[scope]
all = true
[when]
metric = "temperature"
gt = 30.0
[clear]
lt = 28.0
"#;

pub fn patient() -> Mosquitto {
    Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() })
}

pub fn watching(broker: &Mosquitto, database: &str, rules: &[(&str, &str)]) -> Tidegate {
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE;
    let tidegate = Tidegate::configured(&toml);
    for (name, rule) in rules {
        tidegate.catalog_file(&format!("rules/{name}.toml"), rule);
    }
    tidegate
}

pub fn send(broker: &Mosquitto, device: &str, payload: &str) {
    broker.publish(&format!("devices/{device}/telemetry"), payload, &["-q", "1"]);
}

/// Whoever listens to alerts: topics and payloads as they come.
pub struct Listener {
    child: Child,
    lines: Receiver<(String, String)>,
}

impl Listener {
    pub fn on(broker: &Mosquitto, filter: &str) -> Listener {
        let port = broker.port.to_string();
        let mut child = Command::new("mosquitto_sub")
            .args(["-p", &port, "-q", "1", "-t", filter, "-F", "%t %p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let (topic, payload) = line.split_once(' ').unwrap_or((&line, ""));
                if sender.send((topic.to_owned(), payload.to_owned())).is_err() {
                    return;
                }
            }
        });
        Listener { child, lines }
    }

    /// The next one on a topic of an alert.
    pub fn next(&self) -> (String, Value) {
        loop {
            let (topic, payload) = self.lines.recv_timeout(Duration::from_secs(60)).expect("an alert is published");
            if !topic.ends_with("/summary") {
                return (topic, serde_json::from_str(&payload).unwrap_or(Value::Null));
            }
        }
    }

    /// State and device of the next alert.
    fn state(&self) -> (String, String) {
        let (_, alert) = self.next();
        (alert["state"].as_str().unwrap_or("cleared").to_owned(), alert["device"].as_str().unwrap_or("").to_owned())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn steps(stranger: &Stranger) -> Vec<String> {
    let all = stranger.ask(
        "SELECT a.device_id, t.step, t.state FROM alert_transitions t JOIN alerts a ON a.id = t.alert_id ORDER BY a.since, a.id, t.step",
    );
    all.lines().map(str::to_owned).collect()
}

#[test]
fn an_alert_fires_is_retained_and_is_cleared_when_it_is_over() {
    let broker = patient();
    for on_postgres in [false, true] {
        let on_server = on_postgres.then(Stranger::on_shared_server);
        let mut tidegate = watching(&broker, on_server.as_ref().map_or(SQLITE, |(_, url)| url), &[("hot", HOT)]);
        tidegate.start();
        tidegate.listening();
        let stranger = on_server.map_or_else(|| Stranger::of_file(&tidegate), |(stranger, _)| stranger);
        let listener = Listener::on(&broker, "tidegate/alerts/#");
        send(&broker, "oven", r#"{"temperature": 25}"#);
        send(&broker, "oven", r#"{"temperature": 31.5}"#);
        let (topic, alert) = listener.next();
        assert_eq!(topic, "tidegate/alerts/default/oven/too-hot");
        for (key, value) in [
            ("rule", json!("too-hot")),
            ("tenant", json!("default")),
            ("device", json!("oven")),
            ("metric", json!("temperature")),
            ("severity", json!("critical")),
            ("state", json!("firing")),
            ("value", json!(31.5)),
            ("threshold", json!(30.0)),
        ] {
            assert_eq!(alert[key], value, "{key} in {alert}");
        }
        assert!(broker.read_one(&topic).is_some(), "it is retained");
        send(&broker, "oven", r#"{"temperature": 29}"#);
        send(&broker, "oven", r#"{"temperature": 27}"#);
        let (_, resolved) = listener.next();
        assert_eq!(
            (&resolved["state"], &resolved["id"], &resolved["value"]),
            (&json!("resolved"), &alert["id"], &json!(27.0))
        );
        assert_eq!(listener.next(), (topic.clone(), Value::Null), "the retained message goes");
        eventually("the database knows that it is published", || {
            (stranger.number("SELECT count(*) FROM alert_transitions WHERE published = true") == 2).then_some(())
        });
        let listed = tidegate.json(&["alerts", "list", "--state", "all"]);
        assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&alert["id"], &json!("resolved")));
        assert!(tidegate.stop().success());
    }
}

#[test]
fn what_lasts_fires_by_the_clock_and_silence_is_noticed_without_a_message() {
    let lasting = HOT.replace("[clear]\nlt = 28.0\n", "").replace("gt = 30.0", "gt = 30.0\nfor = \"2s\"");
    let silent =
        "slug = \"silent\"\nname = \"Silent\"\nseverity = \"warning\"\n[scope]\nall = true\n[when]\nabsent = \"3s\"\n";
    let broker = patient();
    let mut tidegate = watching(&broker, SQLITE, &[("lasting", &lasting), ("silent", silent)]);
    tidegate.start();
    tidegate.listening();
    let listener = Listener::on(&broker, "tidegate/alerts/#");
    send(&broker, "oven", r#"{"temperature": 31}"#);
    let (topic, hot) = listener.next();
    assert_eq!((topic.as_str(), &hot["state"]), ("tidegate/alerts/default/oven/too-hot", &json!("firing")));
    let (topic, silence) = listener.next();
    assert_eq!((topic.as_str(), &silence["state"]), ("tidegate/alerts/default/oven/silent", &json!("firing")));
    let stranger = Stranger::of_file(&tidegate);
    eventually("it is stored though no message came", || (steps(&stranger).len() == 2).then_some(()));
    assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);
    // The second is exactly as long after the reading as the rule says.
    let exact = "SELECT since - onset FROM alerts WHERE rule = 'too-hot'";
    assert_eq!(stranger.ask(exact), "2000000");
    send(&broker, "oven", r#"{"temperature": 20}"#);
    let states: Vec<_> = (0..4).map(|_| listener.state().0).collect();
    assert_eq!(states.iter().filter(|state| *state == "resolved").count(), 2, "{states:?}");
}

#[test]
fn killed_in_the_midst_of_it_alerts_are_neither_lost_nor_doubled() {
    let broker = patient();
    let lasting = HOT.replace("[clear]\nlt = 28.0\n", "").replace("gt = 30.0", "gt = 30.0\nfor = \"1s\"");
    let mut tidegate = watching(&broker, SQLITE, &[("hot", &lasting)]);
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    for device in 0..20 {
        send(&broker, &format!("d{device}"), r#"{"temperature": 40}"#);
    }
    for _ in 0..3 {
        tidegate.kill();
        tidegate.start();
    }
    eventually("the database is open", || (tidegate.readyz().1["database"] == "up").then_some(()));
    eventually("each fires", || (stranger.number("SELECT count(*) FROM alerts") == 20).then_some(()));
    tidegate.kill();
    for device in 0..20 {
        send(&broker, &format!("d{device}"), r#"{"temperature": 10}"#);
    }
    tidegate.start();
    let over = "SELECT count(*) FROM alerts WHERE state = 'resolved'";
    eventually("each is over", || (stranger.number(over) == 20).then_some(()));
    assert_eq!(stranger.number("SELECT count(*) FROM alerts"), 20);
    assert_eq!(stranger.number("SELECT count(*) FROM alert_transitions"), 40);
    eventually("all of it is published", || {
        (stranger.number("SELECT count(*) FROM alert_transitions WHERE published = false") == 0).then_some(())
    });
    assert_eq!(broker.read_one("tidegate/alerts/default/d3/too-hot"), None);
    assert_eq!(stranger.number("SELECT count(*) FROM alert_states"), 0);
    assert!(tidegate.stop().success());
}

#[test]
fn alerts_are_published_while_the_database_is_away_and_recorded_when_it_is_back() {
    let broker = patient();
    let mut tidegate = watching(&broker, SQLITE, &[("hot", HOT)]);
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    send(&broker, "oven", r#"{"temperature": 20}"#);
    stranger.wait_for_rows(1);
    let listener = Listener::on(&broker, "tidegate/alerts/#");
    let lock = crate::support::scene::lock(&tidegate.state_dir().join("tidegate.db"));
    send(&broker, "oven", r#"{"temperature": 31}"#);
    assert_eq!(listener.state(), ("firing".to_owned(), "oven".to_owned()));
    send(&broker, "oven", r#"{"temperature": 20}"#);
    assert_eq!(listener.state().0, "resolved");
    drop(lock);
    eventually("both steps are recorded", || (steps(&stranger).len() == 2).then_some(()));
    eventually("and marked as published", || {
        (stranger.number("SELECT count(*) FROM alert_transitions WHERE published = true") == 2).then_some(())
    });
}

#[test]
fn people_acknowledge_by_command_and_by_mqtt() {
    let broker = patient();
    let mut tidegate = watching(&broker, SQLITE, &[("hot", HOT)]);
    tidegate.start();
    tidegate.listening();
    let listener = Listener::on(&broker, "tidegate/alerts/+/+/too-hot");
    send(&broker, "oven", r#"{"temperature": 31}"#);
    let (_, first) = listener.next();
    let id = first["id"].as_str().unwrap();
    eventually("it is stored", || tidegate.found(&["alerts", "show", id]));
    tidegate.output(&["alerts", "ack", &id[..8], "--who", "kim", "--note", "on my way"]);
    let (_, acknowledged) = listener.next();
    assert_eq!((&acknowledged["state"], &acknowledged["id"]), (&json!("acknowledged"), &json!(id)));
    broker.publish(&format!("tidegate/alerts/default/{id}/resolve"), r#"{"who": "lee"}"#, &["-q", "1"]);
    assert_eq!(listener.state().0, "resolved");
    let stranger = Stranger::of_file(&tidegate);
    eventually("its story is told", || {
        let shown = tidegate.json(&["alerts", "show", id]);
        let told = shown.to_string();
        (told.contains("kim") && told.contains("on my way") && told.contains("lee")).then_some(())
    });
    assert_eq!(stranger.number("SELECT count(*) FROM alert_transitions"), 3);
    // It must cease before it fires again.
    send(&broker, "oven", r#"{"temperature": 33}"#);
    stranger.wait_for_rows(2);
    assert_eq!(stranger.number("SELECT count(*) FROM alerts"), 1);
    broker.publish("tidegate/alerts/default/0123456789abcdef0123456789abcdef/ack", "", &["-q", "1"]);
    tidegate.wait_for_metric("tidegate_alert_requests_refused_total{reason=\"unknown\"}", 1.0);
}

#[test]
fn a_rule_is_tried_on_the_past_before_it_is_trusted() {
    let broker = patient();
    let mut tidegate = watching(&broker, SQLITE, &[]);
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    for value in [20, 35, 36, 20, 40] {
        send(&broker, "oven", &format!("{{\"temperature\": {value}}}"));
    }
    send(&broker, "fridge", r#"{"temperature": 4}"#);
    stranger.wait_for_rows(6);
    tidegate.catalog_file("hot.toml", HOT);
    let file = tidegate.config_file().parent().unwrap().join("catalog/hot.toml");
    let picture = tidegate.state_dir().join("hot.svg");
    let (file, drawn) = (file.to_str().unwrap(), picture.to_str().unwrap());
    let found = tidegate.json(&["alerts", "backtest", file, "--since", "1h", "--svg", drawn]);
    assert_eq!(found["devices"], 2);
    let episodes: Vec<_> =
        found["episodes"].as_array().unwrap().iter().map(|one| (&one["value"], one["resolved_at"].is_null())).collect();
    assert_eq!(episodes, [(&json!(35.0), false), (&json!(40.0), true)]);
    assert!(std::fs::read_to_string(&picture).unwrap().contains("<polyline"));
    tidegate.catalog_file("hot.toml", &format!("depends_on = {{ rule = \"gone\" }}\ngroup.by = \"all\"\n{HOT}"));
    let said = tidegate.output(&["alerts", "backtest", file, "--since", "1h"]);
    for words in
        ["2 episodes on 1 groups of 2 devices", "there is no rule gone in force", "Too hot: all, 1 of 2 devices"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(sqlite(&tidegate.state_dir().join("tidegate.db"), "SELECT count(*) FROM alerts"), "0");
}

#[test]
fn alerts_look_ahead_of_a_database_that_is_away_under_load() {
    let broker = patient();
    let mut tidegate = watching(&broker, SQLITE, &[("hot", HOT)]);
    let toml = std::fs::read_to_string(tidegate.config_file()).unwrap();
    tidegate.configure(&toml.replace("[database]\n", "[database]\nbatch_max = 100\n"));
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    send(&broker, "oven", r#"{"temperature": 20}"#);
    stranger.wait_for_rows(1);
    let listener = Listener::on(&broker, "tidegate/alerts/#");
    let lock = crate::support::scene::lock(&tidegate.state_dir().join("tidegate.db"));
    let lines: Vec<String> = (0..3000).map(|n| format!("{{\"n\": {n}}}")).collect();
    broker.publish_lines("devices/pump/telemetry", &lines);
    send(&broker, "oven", r#"{"temperature": 31}"#);
    assert_eq!(listener.state(), ("firing".to_owned(), "oven".to_owned()));
    drop(lock);
    stranger.wait_for_rows(3002);
    assert!(tidegate.stop().success());
    assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);
    assert_eq!(steps(&stranger).len(), 1);
}

//! Who is told of alerts: routes, limits with their digests, escalations and rotations, over restarts and reloads.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::SQLITE;

const HOT: &str =
    "slug = \"too-hot\"\nseverity = \"critical\"\nscope.all = true\nwhen = { metric = \"temperature\", gt = 30.0 }\n";

/// A web server that takes everything: the path, and the JSON.
fn server() -> (u16, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(&mut stream);
            let (mut head, mut length) = (String::new(), 0);
            // One that is cut off, as by a kill, is none.
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
            for line in head.lines() {
                if let Some((key, value)) = line.split_once(':')
                    && key.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() || length == 0 {
                continue;
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let _ = write!(stream, "HTTP/1.1 204 No Content\r\n\r\n");
            if sender.send((path, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (port, requests)
}

struct Rig {
    broker: Mosquitto,
    tidegate: Tidegate,
    port: u16,
    requests: Receiver<(String, Value)>,
}

impl Rig {
    /// `{port}` in the tables is the web server's.
    fn start(tables: &str) -> Rig {
        let (port, requests) = server();
        let mut rig = Rig { broker: Mosquitto::plain(), tidegate: Tidegate::configured(""), port, requests };
        rig.configure(tables);
        rig.tidegate.catalog_file("rules/hot.toml", HOT);
        rig.run();
        rig
    }

    fn configure(&self, tables: &str) {
        let url = format!("mqtt://127.0.0.1:{}", self.broker.port);
        let tables = tables.replace("{port}", &self.port.to_string());
        self.tidegate.configure(&(between(&url, SQLITE) + NATIVE + &tables));
    }

    fn run(&mut self) {
        self.tidegate.start();
        self.tidegate.listening();
        eventually("the database is open", || self.tidegate.said("database open"));
    }

    fn send(&self, device: &str, temperature: f64) {
        let payload = format!("{{\"temperature\": {temperature}}}");
        self.broker.publish(&format!("devices/{device}/telemetry"), &payload, &["-q", "1"]);
    }

    fn next(&self) -> (String, Value) {
        self.requests.recv_timeout(Duration::from_secs(60)).expect("a request comes")
    }

    /// The notifications of a channel that were sent: alert's device, step's state, level.
    fn sent(&self, channel: &str) -> Vec<(String, String, Option<i64>)> {
        let rows = self.tidegate.json(&["alerts", "notify", "list", "--channel", channel, "--state", "sent"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |row: &Value| (text(&row["device"]), text(&row["step_state"]), row["level"].as_i64());
        rows.as_array().unwrap().iter().rev().map(row).collect()
    }
}

fn hook(name: &str, more: &str) -> String {
    format!("[[notify]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{{port}}/{name}\"\n{more}\n")
}

#[test]
fn beyond_a_limit_one_digest_comes_though_tidegate_is_killed_in_the_midst() {
    let mut rig = Rig::start(&hook("ops", "limit = \"2 in 15s\""));
    for device in ["a", "b", "c", "d", "e"] {
        rig.send(device, 31.5);
    }
    assert_eq!((rig.next().1["device"].clone(), rig.next().1["device"].clone()), ("a".into(), "b".into()));
    rig.send("a", 20.0);
    eventually("four are held back", || {
        (rig.tidegate.metric("tidegate_notifications_held_total{channel=\"ops\"}") >= 4.0).then_some(())
    });
    eventually("both are recorded", || (rig.sent("ops").len() == 2).then_some(()));
    rig.tidegate.kill();
    rig.run();
    let (_, digest) = rig.next();
    assert_eq!(digest["message"], "4 more of rule too-hot: 3 firing, 1 resolved");
    assert_eq!((&digest["state"], &digest["severity"]), (&"digest".into(), &"critical".into()));
    eventually("it is recorded", || (rig.sent("ops").len() == 3).then_some(()));
    let rows = rig.tidegate.json(&["alerts", "notify", "list"]);
    let digests = rows.as_array().unwrap().iter().filter(|row| row["step_state"] == "digest");
    assert_eq!(digests.map(|row| row["message"].clone()).collect::<Vec<_>>(), [digest["message"].clone()]);
    assert!(rig.tidegate.output(&["alerts", "notify", "list"]).contains("4 more of rule too-hot"));
    // A new window: what comes now is told singly, and nothing of before.
    rig.send("f", 40.0);
    assert_eq!(rig.next().1["device"], "f");
    assert!(rig.tidegate.stop().success());
}

const ESCALATED: &str = r#"
[[on_call]]
name = "plant"
timezone = "UTC"
begins = 2026-01-05
people = [{ name = "ann", channels = ["ann"] }, { name = "bob", channels = ["bob"] }]
overrides = [{ from = 2020-01-01T00:00:00, until = 2099-01-01T00:00:00, who = "bob" }]
[[escalation]]
name = "night"
repeat_after = "2s"
[[escalation.levels]]
channels = ["ops"]
[[escalation.levels]]
after = "3s"
on_call = ["plant"]
"#;

#[test]
fn an_alert_is_escalated_over_a_kill_until_somebody_acknowledges_it() {
    let only = "only_escalations = true";
    let tables = hook("ops", only) + &hook("ann", only) + &hook("bob", only) + ESCALATED;
    let mut rig = Rig::start(&tables);
    rig.tidegate.catalog_file("rules/hot.toml", &format!("escalation = \"night\"\n{HOT}"));
    assert!(rig.tidegate.reload());
    rig.send("oven", 31.5);
    let (path, first) = rig.next();
    assert_eq!((path.as_str(), &first["level"], &first["escalation"]), ("/ops", &1.into(), &"night".into()));
    eventually("it is recorded", || (!rig.sent("ops").is_empty()).then_some(()));
    rig.tidegate.kill();
    rig.run();
    // Nothing comes but the time.
    let (path, second) = rig.next();
    assert_eq!((path.as_str(), &second["level"], &second["id"]), ("/bob", &2.into(), &first["id"]));
    let (path, third) = rig.next();
    assert_eq!((path.as_str(), &third["level"]), ("/ops", &1.into()), "it begins anew");
    let id = first["id"].as_str().unwrap();
    rig.broker.publish(&format!("tidegate/alerts/default/{id}/ack"), r#"{"who": "bob"}"#, &["-q", "1"]);
    let acknowledged = eventually("both hear of it", || {
        let rows = [rig.sent("ops"), rig.sent("bob")];
        rows.iter().all(|rows| rows.iter().any(|row| row.1 == "acknowledged")).then_some(rows)
    });
    assert!(acknowledged[0].iter().any(|row| row.2 == Some(1)) && rig.sent("ann").is_empty());
    let remembered = || {
        crate::support::daemon::sqlite(
            &rig.tidegate.state_dir().join("tidegate.db"),
            "SELECT count(*) FROM notify_memory",
        )
    };
    assert_eq!(remembered().trim(), "0", "nothing is under way any more");

    let on_call = rig.tidegate.json(&["alerts", "on-call"]);
    assert_eq!((&on_call[0]["who"], &on_call[0]["override"]), (&"bob".into(), &true.into()));
    let then = rig.tidegate.json(&["alerts", "on-call", "plant", "--at", "2100-01-01T00:00:00Z"]);
    assert!(then[0]["next"]["who"] != then[0]["who"] && then[0]["override"] == false, "{then}");
    assert!(rig.tidegate.output(&["alerts", "on-call"]).contains("bob (override)"));
    assert!(rig.tidegate.stop().success());
}

#[test]
fn sites_tags_and_devices_choose_who_is_told_and_channels_change_while_it_runs() {
    let cold = hook("cold", "sites = [\"Warehouse 3\"]\ntags = { room = \"cold\" }");
    let mut rig = Rig::start(&(cold.clone() + &hook("presses", "devices = [\"press-*\"]")));
    rig.tidegate.catalog_file(
        "devices/all.toml",
        "[[device]]\nuid = \"fridge\"\nsite = \"Warehouse 3\"\ntags = { room = \"cold\" }\n\
         [[device]]\nuid = \"oven\"\nsite = \"Warehouse 3\"\ntags = { room = \"hot\" }\n",
    );
    assert!(rig.tidegate.reload());
    for device in ["oven", "fridge", "press-1"] {
        rig.send(device, 31.5);
    }
    let mut told = [rig.next(), rig.next()].map(|(path, alert)| (path, alert["device"].as_str().unwrap().to_owned()));
    told.sort();
    assert_eq!(
        told,
        [("/cold".into(), "fridge".into()), ("/presses".into(), "press-1".into())] as [(String, String); 2]
    );

    // One goes, one comes, one stays.
    rig.configure(&(cold + &hook("all", "states = [\"resolved\"]")));
    assert!(rig.tidegate.reload());
    assert!(!rig.tidegate.log().contains("takes effect at the next start"));
    rig.send("press-1", 20.0);
    let (path, over) = rig.next();
    assert_eq!((path.as_str(), &over["state"]), ("/all", &"resolved".into()));
    // What is refused changes nothing.
    rig.configure(&hook("all", "hours = [\"8-9\"]"));
    assert!(!rig.tidegate.reload());
    rig.send("oven", 20.0);
    assert_eq!(rig.next().0, "/all");
    assert!(rig.tidegate.stop().success());
}

#[test]
fn a_snooze_by_mqtt_is_shown_and_an_end_in_it_clears_the_topic() {
    let mut rig = Rig::start("");
    rig.send("oven", 31.5);
    let alert = eventually("it fires", || rig.broker.read_one("tidegate/alerts/default/oven/too-hot"));
    let id = serde_json::from_str::<Value>(&alert).unwrap()["id"].as_str().unwrap().to_owned();
    rig.broker.publish(&format!("tidegate/alerts/default/{id}/snooze"), r#"{"for": "2h"}"#, &["-q", "1"]);
    let shown = || rig.tidegate.json(&["alerts", "list"])[0]["snoozed_until"].as_str().map(str::to_owned);
    eventually("the list says so", shown);
    rig.send("oven", 20.0);
    eventually("its topic is cleared", || {
        rig.broker.read_one("tidegate/alerts/default/oven/too-hot").is_none().then_some(())
    });
    assert!(rig.tidegate.stop().success());
}

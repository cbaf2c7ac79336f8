//! One alert for a whole group of devices: on MQTT, in the database, over kills, and dealt with by people.

use serde_json::{Value, json};

use crate::alerts::{Listener, patient, send, watching};
use crate::support::daemon::eventually;
use crate::support::stranger::{SQLITE, Stranger};

const HOT: &str = r#"
slug = "too-hot"
severity = "warning"
scope.all = true
when = { metric = "t", gt = 30 }
raise = [{ severity = "critical", when = { gt = 40 } }]
group = { by = "site", min = 2 }
message = "{value} of {members} devices of {group}, {device} last"
"#;
const DEVICES: &str = r#"
[[device]]
uid = "d1"
site = "Hall"
[[device]]
uid = "d2"
site = "Hall"
[[device]]
uid = "d3"
site = "Hall"
[[device]]
uid = "lonely"
site = "Yard"
"#;
const TOPIC: &str = "tidegate/alerts/default/group:site:Hall/too-hot";

fn hot(broker: &crate::support::mosquitto::Mosquitto, device: &str, value: i32) {
    send(broker, device, &format!("{{\"t\": {value}}}"));
}

#[test]
fn a_group_has_one_alert_that_survives_a_kill() {
    let broker = patient();
    for on_postgres in [false, true] {
        let on_server = on_postgres.then(Stranger::on_shared_server);
        let mut tidegate = watching(&broker, on_server.as_ref().map_or(SQLITE, |(_, url)| url), &[("hot", HOT)]);
        tidegate.catalog_file("devices/hall.toml", DEVICES);
        tidegate.start();
        tidegate.listening();
        let stranger = on_server.map_or_else(|| Stranger::of_file(&tidegate), |(stranger, _)| stranger);
        let listener = Listener::on(&broker, "tidegate/alerts/+/+/too-hot");
        for device in ["lonely", "d1"] {
            hot(&broker, device, 35);
        }
        stranger.wait_for_rows(2);
        assert_eq!(stranger.number("SELECT count(*) FROM alert_states"), 2, "both are in their groups");
        // Killed before enough are in: how many were is known afterwards.
        tidegate.kill();
        tidegate.start();
        hot(&broker, "d2", 36);
        let (topic, firing) = listener.next();
        assert_eq!(topic, TOPIC);
        for (key, value) in [
            ("group", json!("site:Hall")),
            ("device", json!("d2")),
            ("metric", json!("t")),
            ("severity", json!("warning")),
            ("state", json!("firing")),
            ("value", json!(2.0)),
            ("threshold", json!(2.0)),
            ("message", json!("2 of 3 devices of site:Hall, d2 last")),
        ] {
            assert_eq!(firing[key], value, "{key} in {firing}");
        }
        let id = firing["id"].as_str().unwrap();
        broker.publish(&format!("tidegate/alerts/default/{id}/ack"), r#"{"who": "ann"}"#, &["-q", "1"]);
        assert_eq!(listener.next().1["state"], json!("acknowledged"));
        eventually("the acknowledgement is recorded", || {
            let shown = tidegate.found(&["alerts", "show", id])?;
            (shown["acknowledged_by"] == json!("ann")).then_some(())
        });
        tidegate.kill();
        tidegate.start();
        hot(&broker, "d1", 20);
        let (_, resolved) = listener.next();
        assert_eq!(
            (&resolved["state"], &resolved["id"], &resolved["value"]),
            (&json!("resolved"), &json!(id), &json!(1.0))
        );
        assert_eq!(listener.next(), (TOPIC.to_owned(), Value::Null), "the retained message goes");
        eventually("all is recorded", || {
            (stranger.number("SELECT count(*) FROM alert_transitions WHERE published = true") == 3).then_some(())
        });
        let listed = tidegate.json(&["alerts", "list", "--state", "all"]);
        assert_eq!(listed.as_array().unwrap().len(), 1, "no device has an alert of its own");
        assert_eq!((&listed[0]["group"], &listed[0]["device"]), (&json!("site:Hall"), &json!("d2")));
        let explained = tidegate.json(&["alerts", "explain", id]);
        let group = json!({ "name": "site:Hall", "members": 3, "enough": 2, "inside": ["d2"] });
        assert_eq!(explained["group"], group);
        let said = tidegate.output(&["alerts", "explain", "--rule", "too-hot", "--device", "lonely"]);
        assert!(said.contains("the group site:Yard: it holds on 1 of 1 devices, 2 make an alert: lonely"), "{said}");
        assert!(tidegate.stop().success());
    }
}

//! Twins under faults: what is desired and what is reported are told and counted once, whatever dies in between.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::executor::Executor;
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::SQLITE;

const DEVICES: usize = 6;

fn start(tidegate: &mut Tidegate, environment: &[(&str, &str)]) {
    tidegate.start_with(environment);
    eventually("the database is open", || tidegate.said("database open"));
}

#[test]
fn a_crash_at_any_point_leaves_each_device_with_the_last_wish_and_doubles_no_version() {
    let broker =
        Mosquitto::start(Setup { persistent: true, extra: "max_queued_messages 0".to_owned(), ..Setup::default() });
    let mut tidegate = Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE));
    for number in 0..DEVICES {
        tidegate.catalog_file(&format!("devices/d{number}.toml"), &format!("[[device]]\nuid = \"d{number}\"\n"));
    }
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    // Each wish is fulfilled as often as it is told.
    let devices = Executor::start(address, "fleet", &["devices/+/twin/delta"], |heard| {
        if heard.payload.is_empty() {
            return Vec::new();
        }
        vec![(heard.topic.replace("/delta", "/reported"), heard.json()["state"].to_string())]
    });
    start(&mut tidegate, &[]);
    tidegate.stop();
    let points: Vec<&str> = tidegate::crash::POINTS
        .into_iter()
        .filter(|point| point.starts_with("twins") || point.starts_with("writer"))
        .collect();
    for (round, point) in points.iter().enumerate() {
        for number in 0..DEVICES {
            let wish = json!({ "round": round }).to_string();
            tidegate.json(&["devices", "twin", "patch", &format!("d{number}"), &wish]);
        }
        start(&mut tidegate, &[("TIDEGATE_CRASH_AT", point)]);
        tidegate.wait();
    }
    start(&mut tidegate, &[]);
    let last = points.len() - 1;
    for number in 0..DEVICES {
        let device = format!("d{number}");
        let twin: Value = eventually(&format!("{device} is what it is to be"), || {
            let twin = tidegate.json(&["devices", "twin", "show", &device]);
            (twin["reported"]["state"] == json!({ "round": last }) && twin["published"] == true).then_some(twin)
        });
        let (version, desired) = (twin["version"].as_u64().unwrap(), twin["desired"]["version"].as_u64().unwrap());
        // A version for each wish, and one at most for each report that is another: none for what came twice.
        assert!(version <= 2 * points.len() as u64 && desired < version, "{twin}");
        eventually("the delta is cleared", || {
            let topic = format!("devices/{device}/twin/delta");
            let heard = devices.heard();
            heard.iter().rev().find(|heard| heard.topic == topic)?.payload.is_empty().then_some(())
        });
    }
}

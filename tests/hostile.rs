//! Devices that mean harm, or are broken for ever: every bound holds, and the others go on.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::daemon::{PATIENCE, Tidegate, eventually};
use crate::support::device::Device;

fn configured(more: &str) -> Tidegate {
    Tidegate::configured(&format!(
        "[instance]\nstate_dir = \"{{state}}\"\n[broker]\nurl = \"embedded://127.0.0.1:0\"\n[http]\n\
         listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n{more}"
    ))
}

fn stored(tidegate: &Tidegate, readings: usize) {
    eventually("the readings", || (tidegate.metric("tidegate_readings_stored_total") == readings as f64).then_some(()));
}

fn refused(tidegate: &Tidegate, reason: &str) -> f64 {
    tidegate.metric(&format!("tidegate_quarantined_total{{reason=\"{reason}\"}}"))
}

#[test]
fn a_device_that_invents_keys_for_ever_stops_at_max_sensors() {
    let mut tidegate = configured("[devices]\nmax_sensors = 5\n");
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "inventor");
    for number in 0..20 {
        device.publish("devices/inventor/telemetry", format!("{{\"k{number}\":1,\"known\":{number}}}"));
    }
    device.publish("devices/other/telemetry", r#"{"a":1}"#);
    // `known`, four of its inventions, and the other device.
    stored(&tidegate, 20 + 4 + 1);
    assert_eq!(refused(&tidegate, "too_many_sensors"), 16.0);
    let shown = tidegate.json(&["devices", "show", "inventor"]);
    assert_eq!(shown[0]["sensors"].as_array().unwrap().len(), 5);
    let events = tidegate.json(&["quarantine", "list", "--reason", "too_many_sensors"]);
    assert_eq!(events[0]["detail"], "the device has 5 sensors, which is devices.max_sensors");
}

#[test]
fn new_devices_for_ever_stop_at_max_devices_after_a_restart_too() {
    let mut tidegate = configured("[devices]\nmax_devices = 3\n");
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "spawner");
    for number in 0..10 {
        device.publish(&format!("devices/d{number}/telemetry"), r#"{"a":1}"#);
    }
    device.publish("devices/d0/telemetry", r#"{"a":2}"#);
    stored(&tidegate, 4);
    assert_eq!(refused(&tidegate, "too_many_devices"), 7.0);
    assert!(tidegate.stop().success());
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "spawner");
    device.publish("devices/d10/telemetry", r#"{"a":1}"#);
    device.publish("devices/d1/telemetry", r#"{"a":2}"#);
    stored(&tidegate, 1);
    assert_eq!(refused(&tidegate, "too_many_devices"), 1.0);
    assert_eq!(tidegate.json(&["devices", "list"]).as_array().unwrap().len(), 3);
    let events = tidegate.json(&["quarantine", "list"]);
    assert_eq!(events[0]["detail"], "the device is new, and devices.max_devices is 3");
}

#[test]
fn the_quarantine_keeps_to_its_bound_and_counts_what_gave_way() {
    let mut tidegate = configured("[quarantine]\nmax_events = 20\n");
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "babbler");
    for number in 0..100 {
        device.publish(&format!("devices/d{number}/telemetry"), "{");
    }
    eventually("80 discarded", || (tidegate.metric("tidegate_quarantine_discarded_total") == 80.0).then_some(()));
    let events = tidegate.json(&["quarantine", "list", "--all", "--limit", "1000"]);
    let topics: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["topic"].as_str().unwrap()).collect();
    let newest: Vec<String> = (80..100).rev().map(|number| format!("devices/d{number}/telemetry")).collect();
    assert_eq!(topics, newest);
    assert_eq!(refused(&tidegate, "malformed"), 100.0);
    assert!(tidegate.said("the quarantine is at [quarantine] max_events").is_some());
}

#[test]
fn topics_of_64_kib_are_answered_and_kept_out_of_the_operators_way() {
    let rest = "[[sources]]\nname = \"native\"\nfilter = \"devices/{device}/telemetry\"\n\
                [[sources]]\nname = \"rest\"\nfilter = \"rest/{device...}\"\n";
    let mut tidegate = configured(rest);
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "tester");
    let room = |fixed: &str| usize::from(u16::MAX) - fixed.len();
    let one_level = format!("devices/{}/telemetry", "x".repeat(room("devices//telemetry")));
    let many_levels = format!("rest/{}", "a/".repeat(room("rest/") / 2));
    let unmatched = "y".repeat(room(""));
    for topic in [&one_level, &many_levels, &unmatched] {
        device.publish(topic, r#"{"a":1}"#);
    }
    device.publish("devices/d1/telemetry", r#"{"a":1}"#);
    stored(&tidegate, 1);
    assert_eq!(refused(&tidegate, "bad_name"), 2.0);
    assert_eq!(tidegate.metric("tidegate_messages_unmatched_total"), 1.0);
    let list = tidegate.output(&["quarantine", "list"]);
    assert!(list.lines().all(|line| line.chars().count() < 400), "{list}");
    let events = tidegate.json(&["quarantine", "list"]);
    assert_eq!(events[1]["topic"], one_level);
    assert!(tidegate.log().lines().all(|line| line.len() < 4096));
}

#[test]
fn a_flood_at_qos_0_is_stored_or_counted_to_the_last_message() {
    const FLOOD: usize = 30_000;
    let mut tidegate = configured("");
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "flood");
    device.flood("devices/flood/telemetry", FLOOD, |number| format!("{{\"n\":{number}}}"));
    device.publish("devices/d1/telemetry", r#"{"a":1}"#);
    let dropped = || tidegate.metric("tidegate_messages_dropped_total{reason=\"journal_full\"}");
    eventually("all received", || {
        (tidegate.metric("tidegate_messages_received_total") == (FLOOD + 1) as f64).then_some(())
    });
    eventually("all stored or counted", || {
        let stored = tidegate.metric("tidegate_readings_stored_total");
        (stored + dropped() == (FLOOD + 1) as f64).then_some(())
    });
    assert_eq!(tidegate.json(&["readings", "d1"]).as_array().unwrap().len(), 1);
}

/// A v5 client would be told the limit in the CONNACK and keep to it; this one is of MQTT 3.1.1.
#[test]
fn a_packet_beyond_every_bound_ends_its_connection_and_no_other() {
    let mut tidegate = configured("");
    tidegate.start();
    let mut other = Device::connect(tidegate.address("broker"), "other");
    let mut giant = TcpStream::connect(tidegate.address("broker")).unwrap();
    giant.set_read_timeout(Some(PATIENCE)).unwrap();
    giant.write_all(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05giant").unwrap();
    let mut connack = [0; 4];
    giant.read_exact(&mut connack).unwrap();
    // A PUBLISH at QoS 1 of 8 MiB.
    giant.write_all(b"\x32\x80\x80\x80\x04\x00\x17devices/giant/telemetry\x00\x01{").unwrap();
    assert!(matches!(giant.read(&mut connack), Ok(0) | Err(_)), "closed");
    other.publish("devices/d1/telemetry", r#"{"a":1}"#);
    stored(&tidegate, 1);
    let told = eventually("the log tells", || tidegate.said("the embedded broker closed a device's connection"));
    assert_eq!(told["client"], "giant");
    assert!(told["reason"].as_str().unwrap().to_lowercase().contains("size"), "{told}");
    assert_eq!(tidegate.metric("tidegate_embedded_disconnects_total"), 1.0);
    assert!(tidegate.stop().success());
    assert_eq!(tidegate.log().matches("closed a device's connection").count(), 1, "{}", tidegate.log());
}

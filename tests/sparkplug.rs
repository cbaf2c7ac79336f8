//! Sparkplug edge nodes over a real broker: aliases outlive the daemon, what is missing is asked for, and the host says how it is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value as Json;

use crate::support::daemon::{Tidegate, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::sparkplug::{Metric, Payload};
use crate::support::stranger::Stranger;

const VERSIONS: [u8; 2] = [5, 3];
const NODE: &str = "spBv1.0/Plant/{}/Edge";

fn bd_seq() -> Metric {
    Metric { name: Some("bdSeq".into()), datatype: Some(8), long: Some(0), ..Metric::default() }
}

/// The motor's torque, an Int16 with an alias.
fn torque(value: i16) -> Metric {
    Metric { alias: Some(7), int: Some(i32::from(value).cast_unsigned()), ..Metric::default() }
}

/// Topic and payload.
type Heard = (String, Vec<u8>);

/// A client that hears, and one that speaks as the edge node `Edge` with the device `Motor`.
struct Client311 {
    client: Client,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Client311 {
    fn connect(broker: SocketAddr, id: &str, filter: &str) -> Client311 {
        let options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
        let (client, mut connection) = Client::new(options, 10);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (ears, (ready, subscribed)) = (Arc::clone(&heard), std::sync::mpsc::channel());
        client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        ears.lock().unwrap().push((publish.topic, publish.payload.to_vec()));
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        subscribed.recv_timeout(Duration::from_secs(60)).expect("subscribed");
        Client311 { client, heard }
    }

    fn send(&self, kind: &str, seq: Option<u64>, metrics: &[Metric]) {
        let topic = NODE.replace("{}", kind);
        let topic = if kind.starts_with('D') { format!("{topic}/Motor") } else { topic };
        let timestamp = u64::try_from(jiff::Timestamp::now().as_millisecond()).ok();
        let payload = Payload { timestamp, metrics: metrics.to_vec(), seq };
        self.client.publish(topic, QoS::AtMostOnce, false, payload.encode_to_vec()).unwrap();
        // Its time is the reading's: two of one would be one reading.
        std::thread::sleep(Duration::from_millis(2));
    }

    fn born(&self) {
        self.send("NBIRTH", Some(0), &[bd_seq()]);
        let named = Metric { name: Some("Torque".into()), datatype: Some(2), ..torque(1) };
        self.send("DBIRTH", Some(1), &[named]);
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The requests for a rebirth so far.
    fn asked(&self) -> usize {
        let is_rebirth = |(topic, payload): &Heard| {
            let read = Payload::decode(&payload[..]).unwrap();
            let control = Metric {
                name: Some("Node Control/Rebirth".into()),
                datatype: Some(11),
                flag: Some(true),
                ..Metric::default()
            };
            *topic == NODE.replace("{}", "NCMD") && read.metrics == [control] && read.timestamp.is_some()
        };
        let heard = self.heard();
        assert!(heard.iter().all(is_rebirth), "{heard:?}");
        heard.len()
    }
}

fn local(broker: &Mosquitto) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], broker.port))
}

fn configured(broker: &str, version: u8, more: &str) -> Tidegate {
    Tidegate::configured(&format!(
        "[instance]\nid = \"test\"\nstate_dir = \"{{state}}\"\n[broker]\nurl = {broker:?}\nversion = {version}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [[sources]]\nname = \"plant\"\nfilter = \"spBv1.0/#\"\ndecoder = \"sparkplug\"\n{more}"
    ))
}

/// Waits for the motor's torques, in their order.
fn torques(tidegate: &Tidegate, wanted: &str) {
    let stranger = Stranger::of_file(tidegate);
    let sql = "SELECT group_concat(CAST(value AS INTEGER), ' ') FROM \
               (SELECT value FROM readings WHERE device = 'Motor' AND metric = 'Torque' ORDER BY time)";
    let rows = wanted.split(' ').count() as u64;
    stranger.wait_for_rows(rows);
    assert_eq!(stranger.ask(sql), wanted);
}

#[test]
fn aliases_outlive_the_daemon_and_what_is_missing_is_asked_for() {
    for version in VERSIONS {
        let broker = Mosquitto::plain();
        let url = format!("mqtt://127.0.0.1:{}", broker.port);
        let mut tidegate = configured(&url, version, "[sparkplug]\nrebirth_every = \"1s\"\n");
        tidegate.start();
        tidegate.listening();
        let node = Client311::connect(local(&broker), "edge", "spBv1.0/+/NCMD/#");
        node.born();
        node.send("DDATA", Some(2), &[torque(-300)]);
        torques(&tidegate, "1 -300");

        tidegate.kill();
        tidegate.start();
        tidegate.listening();
        node.send("DDATA", Some(3), &[torque(-301)]);
        torques(&tidegate, "1 -300 -301");
        assert_eq!(node.asked(), 0, "everything was remembered");

        node.send("DDATA", Some(6), &[torque(-302)]);
        torques(&tidegate, "1 -300 -301 -302");
        eventually("a rebirth is asked for", || (node.asked() == 1).then_some(()));
        node.born();
        node.send("DDATA", Some(2), &[torque(5)]);
        torques(&tidegate, "1 -300 -301 -302 1 5");
        assert_eq!((node.asked(), tidegate.metric("tidegate_errands_sent_total")), (1, 1.0));

        node.send("NDEATH", None, &[bd_seq()]);
        let refused = "tidegate_quarantined_total{reason=\"not_announced\"}";
        eventually("a rebirth of the dead is asked for", || {
            node.send("DDATA", Some(3), &[torque(6)]);
            (node.asked() > 1).then_some(())
        });
        assert!(tidegate.metric(refused) > 0.0);
        assert!(tidegate.stop().success());
    }
}

#[test]
fn nobody_is_asked_where_the_source_says_so() {
    let broker = Mosquitto::plain();
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut tidegate = configured(&url, 5, "[sources.sparkplug]\nrebirth = false\n");
    tidegate.start();
    tidegate.listening();
    let node = Client311::connect(local(&broker), "edge", "spBv1.0/+/NCMD/#");
    node.send("DDATA", Some(3), &[torque(6)]);
    tidegate.wait_for_metric("tidegate_quarantined_total{reason=\"not_announced\"}", 1.0);
    assert!(tidegate.stop().success());
    assert_eq!(node.asked(), 0);
}

#[test]
fn a_replay_asks_for_nothing() {
    let broker = Mosquitto::plain();
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut tidegate = configured(&url, 5, "");
    tidegate.start();
    tidegate.listening();
    let node = Client311::connect(local(&broker), "edge", "spBv1.0/+/NCMD/#");
    node.send("DDATA", Some(3), &[torque(6)]);
    eventually("a rebirth is asked for", || (node.asked() == 1).then_some(()));
    tidegate.output(&["journal", "replay", "--since", "1h"]);
    assert!(tidegate.stop().success());
    assert_eq!(node.asked(), 1);
}

fn state(heard: &Heard) -> (bool, i64) {
    let said: Json = serde_json::from_slice(&heard.1).unwrap();
    (said["online"].as_bool().unwrap(), said["timestamp"].as_i64().unwrap())
}

/// Waits for so many states of the host; returns them.
fn states(watcher: &Client311, count: usize) -> Vec<(bool, i64)> {
    eventually(&format!("{count} states"), || {
        let heard: Vec<_> = watcher.heard().iter().map(state).collect();
        (heard.len() >= count).then_some(heard)
    })
}

#[test]
fn the_host_says_how_it_is_and_its_will_does_when_it_is_killed() {
    for version in VERSIONS {
        let broker = Mosquitto::plain();
        let url = format!("mqtt://127.0.0.1:{}", broker.port);
        let mut tidegate = configured(&url, version, "[sparkplug]\nhost_id = \"scada\"\n");
        let watcher = Client311::connect(local(&broker), "watcher", "spBv1.0/STATE/scada");
        let status = Client311::connect(local(&broker), "status", "tidegate/status/test");
        tidegate.start();
        let birth = states(&watcher, 1)[0];
        assert!(birth.0);
        eventually("the metric is told", || (tidegate.metric("tidegate_sparkplug_state_online") == 1.0).then_some(()));

        // Somebody else's word is not left standing.
        let offline = format!("{{\"online\":false,\"timestamp\":{}}}", birth.1);
        watcher.client.publish("spBv1.0/STATE/scada", QoS::AtLeastOnce, true, offline).unwrap();
        assert_eq!(states(&watcher, 3), [birth, (false, birth.1), birth]);

        tidegate.kill();
        assert_eq!(states(&watcher, 4)[3], (false, birth.1), "the will has the birth's time");
        eventually("the status goes offline too", || {
            (status.heard().last().map(|(_, payload)| &payload[..]) == Some(b"offline")).then_some(())
        });

        tidegate.start();
        let again = states(&watcher, 5)[4];
        assert!(again.0 && again.1 > birth.1, "{again:?}");
        eventually("the database is open", || tidegate.said("database open"));
        assert!(tidegate.stop().success());
        let farewell = states(&watcher, 6)[5];
        assert!(!farewell.0 && farewell.1 >= again.1, "{farewell:?}");
        let late = Client311::connect(local(&broker), "late", "spBv1.0/STATE/scada");
        assert_eq!(states(&late, 1), [farewell], "it is retained");
    }
}

#[cfg(feature = "embedded-broker")]
#[test]
fn the_embedded_broker_asks_and_says_too() {
    let mut tidegate = configured("embedded://127.0.0.1:0", 5, "[sparkplug]\nhost_id = \"scada\"\n");
    tidegate.start();
    let address = tidegate.address("broker");
    let node = Client311::connect(address, "edge", "spBv1.0/+/NCMD/#");
    let watcher = Client311::connect(address, "watcher", "spBv1.0/STATE/scada");
    assert!(states(&watcher, 1)[0].0);
    node.send("DDATA", Some(3), &[torque(6)]);
    eventually("a rebirth is asked for", || (node.asked() == 1).then_some(()));
    node.born();
    node.send("DDATA", Some(2), &[torque(-5)]);
    torques(&tidegate, "1 -5");
    assert!(tidegate.stop().success());
}

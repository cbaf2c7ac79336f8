//! `tidegate discover`: what it prints is a configuration that takes what a broker has, and nothing is left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value as Json;
use tidegate::config::{Config, Decoder};
use tidegate::source::Sources;

use crate::support::daemon::{Tidegate, complaint};
use crate::support::fake_broker::{FakeBroker, Packet};
use crate::support::mosquitto::{Mosquitto, Setup};

/// Topic, payload, and the decoder of the source that is to take it.
const RETAINED: [(&str, &str, Decoder); 9] = [
    ("tele/plug1/SENSOR", r#"{"Time":"2021-01-02T09:09:44","ENERGY":{"Power":12}}"#, Decoder::Tasmota),
    ("zigbee2mqtt/attic/lamp", r#"{"state":"ON","linkquality":60}"#, Decoder::Zigbee2Mqtt),
    ("shellyplug-1/status/switch:0", r#"{"id":0,"output":true,"apower":3.5}"#, Decoder::Shelly),
    ("cellar/sensor/level/state", "21.5", Decoder::Esphome),
    ("homie/car/engine/temperature", "21.5", Decoder::Homie),
    ("senml/m1", r#"[{"bn":"m1:","n":"t","u":"Cel","v":21}]"#, Decoder::Senml),
    ("devices/d1/telemetry", r#"{"temp":21}"#, Decoder::Json),
    ("plant/pump/flow", "3", Decoder::Auto),
    ("devices/d1/commands/7", r#"{"name":"reboot"}"#, Decoder::Json),
];

fn configured() -> Tidegate {
    Tidegate::configured("[instance]\nstate_dir = \"{state}\"\n")
}

fn discover(tidegate: &Tidegate, url: &str, arguments: &[&str]) -> Output {
    let output = tidegate.command(&["discover", "--broker", url]).args(arguments).output().unwrap();
    assert!(!tidegate.state_dir().exists(), "nothing is written");
    output
}

fn full_broker() -> Mosquitto {
    let broker = Mosquitto::plain();
    for (topic, payload, _) in RETAINED {
        broker.publish(topic, payload, &["-r"]);
    }
    broker
}

fn url(port: u16) -> String {
    format!("mqtt://127.0.0.1:{port}")
}

#[test]
fn what_is_printed_is_a_configuration_that_takes_what_was_heard() {
    let (broker, tidegate) = (full_broker(), configured());
    let output = discover(&tidegate, &url(broker.port), &["--messages", "9", "--for", "10m"]);
    assert!(output.status.success(), "{}", complaint(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let reading = Config::parse(Path::new("pasted.toml"), &text, &[]);
    assert!(reading.faults.is_empty(), "{:?}\n{text}", reading.faults);
    let sources = Sources::compile(&reading.config.sources).unwrap();
    for (topic, _, decoder) in RETAINED.iter().filter(|(topic, ..)| !topic.contains("commands")) {
        let route = sources.route(topic).unwrap_or_else(|| panic!("{topic}: {text}"));
        assert_eq!(route.source.decoder, *decoder, "{topic}: {text}");
    }
    assert!(sources.route("devices/d1/commands/7").is_none(), "{text}");
    for words in [
        "8 devices",
        "1 carried no telemetry, and 0 could",
        " %) are modelled",
        "# plug1: tasmota (the topic is tele/{device}/+)",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(String::from_utf8(output.stderr).unwrap().contains("messages"), "progress is on stderr");
}

#[test]
fn json_tells_of_every_device_and_both_versions_of_mqtt_are_spoken() {
    let (broker, tidegate) = (full_broker(), configured());
    for version in ["3", "5"] {
        let arguments = ["--messages", "9", "--json", "--mqtt-version", version];
        let output = discover(&tidegate, &url(broker.port), &arguments);
        assert!(output.status.success(), "{}", complaint(&output));
        let found: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&found["messages"], &found["devices"].as_array().unwrap().len()), (&9.into(), &8));
        let device = |uid: &str| found["devices"].as_array().unwrap().iter().find(|one| one["device"] == uid).unwrap();
        assert_eq!(device("attic/lamp")["decoder"], "zigbee2mqtt");
        assert_eq!(device("plant/pump")["metrics"][0]["value"], "3");
    }
}

#[test]
fn ctrl_c_ends_it_and_prints_what_was_found() {
    let (broker, tidegate) = (full_broker(), configured());
    let mut command = tidegate.command(&["discover", "--broker", &url(broker.port), "--for", "1h"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = told.next().unwrap().unwrap();
    assert!(first.contains("messages"), "{first}");
    let killed = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    // Whatever else it says.
    told.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("Found by"));
}

#[test]
fn nothing_to_hear_a_wrong_password_and_nobody_there_are_told_apart() {
    let tidegate = configured();
    let broker = Mosquitto::start(Setup { users: vec![("u", "secret")], ..Setup::default() });
    let password = tidegate.dir.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let login = ["--username", "u", "--password-file", password.to_str().unwrap()];
    let said = |port: u16, arguments: &[&str]| {
        let output = discover(&tidegate, &url(port), arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let silence = said(broker.port, &[&login[..], &["--for", "100ms"]].concat());
    assert!(silence.contains("nothing was heard on #"), "{silence}");
    assert!(said(broker.port, &["--for", "1h"]).contains("refused the connection"));
    let nobody = said(crate::support::free_port(), &["--for", "1h"]);
    assert!(nobody.contains("nothing listens there"), "{nobody}");
    let wrong = discover(&tidegate, "tcp://u:hunter2@h", &[]);
    let complaint = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(2) && complaint.contains("unknown scheme"), "{complaint}");
    assert!(!complaint.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_refused_is_told_with_the_reason() {
    let broker = FakeBroker::start(5).await;
    let url = url(broker.port);
    let running = tokio::task::spawn_blocking(move || discover(&configured(), &url, &["--for", "1h"]));
    let mut peer = broker.accept().await;
    assert!(matches!(peer.next().await, Packet::Connect { clean: true, .. }));
    peer.connack(false, 0, &[]).await;
    let Packet::Subscribe { id, filters } = peer.next().await else { panic!("no SUBSCRIBE") };
    assert_eq!(filters, [("#".to_owned(), 0)]);
    peer.suback(id, &[0x87]).await;
    let output = running.await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint.contains("refused the subscription to #") && complaint.contains("not authorized"), "{complaint}");
}

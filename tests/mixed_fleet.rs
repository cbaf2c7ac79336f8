//! Zigbee2MQTT, Tasmota, Shelly, ChirpStack and Sparkplug at once, into one database, without a mapping written for any of them.

use crate::support::daemon::{Tidegate, between, eventually};
use crate::support::load::Simulation;
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::Stranger;

const MESSAGES: u64 = 2000;
const EVERYTHING: &str = "\n[[sources]]\nname = \"everything\"\nfilter = \"#\"\ndecoder = \"auto\"\n";

#[test]
fn five_formats_share_one_database_and_their_keys_are_modeled() {
    let broker = Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() });
    let (stranger, url) = Stranger::on_shared_server();
    let url_of_broker = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut tidegate = Tidegate::configured(&(between(&url_of_broker, &url) + EVERYTHING));
    tidegate.start();
    tidegate.listening();
    let messages = MESSAGES.to_string();
    let arguments = ["--format", "formats", "--devices", "50", "--messages", &messages, "--connections", "4"];
    let summary = Simulation::start(broker.port, &arguments).finish();
    let sent = summary["acknowledged"].as_u64().unwrap();
    assert!(sent >= MESSAGES, "{summary}");
    eventually("all of them are stored", || {
        let journal = tidegate.json(&["journal", "status"]);
        (journal["last_seq"].as_u64() >= Some(sent) && journal["lag"] == 0).then_some(())
    });
    assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);

    let sensors = stranger.number("SELECT count(*) FROM device_sensors");
    let unmodeled = stranger.number("SELECT count(*) FROM device_sensors WHERE source = 'unmodeled'");
    assert!(sensors > 300, "{sensors} sensors");
    assert!(unmodeled * 20 < sensors, "{unmodeled} of {sensors} sensors are unmodeled");
    for (protocol, metric, unit) in [
        ("zigbee2mqtt", "temperature", "°C"),
        ("chirpstack", "temperature", "°C"),
        ("tasmota", "power", "W"),
        ("shelly", "power", "W"),
        ("sparkplug", "temperature", "°C"),
    ] {
        let devices = stranger.number(&format!("SELECT count(*) FROM devices WHERE protocol = '{protocol}'"));
        let told = stranger.number(&format!(
            "SELECT count(*) FROM devices WHERE protocol = '{protocol}' AND protocol_why IS NOT NULL AND template_id IS NOT NULL"
        ));
        assert!(devices >= 10 && told == devices, "{protocol}: {told} of {devices} have a template and a reason");
        let named = stranger.number(&format!(
            "SELECT count(*) FROM device_sensors s JOIN devices d ON d.id = s.device_id \
             WHERE d.protocol = '{protocol}' AND s.metric = '{metric}' AND s.unit = '{unit}'"
        ));
        assert!(named >= 10, "{protocol}: {named} sensors are {metric} in {unit}");
        let uid = stranger.ask(&format!("SELECT min(uid) FROM devices WHERE protocol = '{protocol}'"));
        let shown = tidegate.json(&["devices", "show", &uid]);
        let shown = shown.get(0).unwrap_or(&shown);
        assert_eq!(shown["protocol"], protocol, "{shown}");
        let why = shown["protocol_why"].as_str().unwrap_or_default();
        let told = tidegate.output(&["devices", "show", &uid]);
        assert!(!why.is_empty() && told.contains(protocol) && told.contains(why), "{why}: {told}");
    }
}

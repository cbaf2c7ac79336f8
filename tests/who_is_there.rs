//! Which devices are there: wills, the broker's word on its clients, silence and people's word, seen in the database and on the
//! command line; over kills and retained messages.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

/// What a device or its will says, and what mosquitto tells of its clients.
const STATUS: &str = "[[sources]]\nname = \"status\"\nfilter = \"devices/{device}/status\"\ndecoder = \"presence\"\n\
                      [[sources]]\nname = \"clients\"\nfilter = \"$SYS/broker/log/N\"\ndecoder = \"presence\"\n";

fn talkative() -> Mosquitto {
    let extra = "log_dest topic\nlog_type notice\nconnection_messages true\nmax_queued_messages 0".to_owned();
    Mosquitto::start(Setup { extra, ..Setup::default() })
}

fn configured(broker: &Mosquitto, database: &str, more: &str) -> Tidegate {
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE + STATUS + more;
    Tidegate::configured(&toml)
}

fn send(broker: &Mosquitto, device: &str) {
    broker.publish(&format!("devices/{device}/telemetry"), r#"{"temperature": 21}"#, &["-q", "1"]);
}

/// A client of this name that stays connected, with a will.
fn connected(broker: &Mosquitto, device: &str) -> Child {
    let (port, topic) = (broker.port.to_string(), format!("devices/{device}/status"));
    Command::new("mosquitto_sub")
        .args(["-p", &port, "-i", device, "-t", "nothing", "-q", "1"])
        .args(["--will-topic", &topic, "--will-payload", "offline", "--will-retain", "--will-qos", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn die(mut client: Child) {
    client.kill().unwrap();
    client.wait().unwrap();
}

fn device(tidegate: &Tidegate, uid: &str) -> Value {
    tidegate.json(&["devices", "show", uid])[0].clone()
}

fn comes_to_be(tidegate: &Tidegate, uid: &str, status: &str) {
    eventually(&format!("{uid} is {status}"), || {
        (tidegate.found(&["devices", "show", uid])?[0]["status"] == status).then_some(())
    });
}

/// The history, the oldest first.
fn history(tidegate: &Tidegate, uid: &str) -> Vec<String> {
    let shown = device(tidegate, uid);
    let events = shown["history"].as_array().unwrap().iter().rev();
    events.map(|event| event["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_will_the_brokers_clients_and_people_tell_it() {
    let broker = talkative();
    for on_postgres in [false, true] {
        let on_server = on_postgres.then(Stranger::on_shared_server);
        let mut tidegate = configured(&broker, on_server.as_ref().map_or(SQLITE, |(_, url)| url), "");
        tidegate.start();
        tidegate.listening();
        let (willing, plain) = (format!("willing{on_postgres}"), format!("plain{on_postgres}"));
        send(&broker, &willing);
        send(&broker, &plain);
        comes_to_be(&tidegate, &plain, "online");
        broker.publish(&format!("devices/{willing}/status"), "offline", &["-q", "1"]);
        comes_to_be(&tidegate, &willing, "offline");
        let client = connected(&broker, &willing);
        comes_to_be(&tidegate, &willing, "online");
        die(client);
        comes_to_be(&tidegate, &willing, "offline");
        let shown = device(&tidegate, &willing);
        assert!(shown["status_cause"].as_str().unwrap().contains(": "), "{shown}");
        let listed = tidegate.json(&["devices", "list", "--status", "offline"]);
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["device"]), (1, &Value::from(willing.clone())));
        // The will is retained: another session hears it again, and it says nothing new.
        assert!(tidegate.stop().success());
        tidegate.start();
        tidegate.listening();
        send(&broker, &plain);
        eventually("what is retained was heard", || {
            tidegate.metric("tidegate_retained_ignored_total").ge(&1.0).then_some(())
        });
        assert_eq!(history(&tidegate, &willing), ["online", "offline", "online", "offline"]);
        send(&broker, &willing);
        comes_to_be(&tidegate, &willing, "online");

        let said = tidegate.output(&["devices", "status", &plain, "--maintenance", "--reason", "a new battery"]);
        assert_eq!(said.trim(), format!("{plain} is maintenance (before: online)"));
        broker.publish(&format!("devices/{plain}/status"), "offline", &["-q", "1"]);
        broker.publish(&format!("devices/{willing}/status"), "offline", &["-q", "1"]);
        comes_to_be(&tidegate, &willing, "offline");
        assert_eq!(device(&tidegate, &plain)["status"], "maintenance", "nobody is told what becomes of it");
        let said = tidegate.output(&["devices", "status", &plain, "--active"]);
        assert_eq!(said.trim(), format!("{plain} is offline (before: maintenance)"));
        tidegate.output(&["devices", "status", &plain, "--retired"]);
        send(&broker, &plain);
        eventually("it is counted", || (tidegate.metric("tidegate_devices{status=\"retired\"}") == 1.0).then_some(()));
        assert_eq!(history(&tidegate, &plain), ["online", "maintenance", "offline", "retired"]);
        let unknown = tidegate.command(&["devices", "status", "nobody", "--active"]).output().unwrap();
        assert!(!unknown.status.success() && complaint(&unknown).contains("there is no device nobody"));
        let days = tidegate.json(&["devices", "uptime", &willing, "--since", "1d"])[0]["days"].clone();
        let uptime = days.as_array().unwrap().last().unwrap()["uptime"].as_f64().unwrap();
        assert!(uptime > 0.0 && uptime < 1.0, "{days}");
        assert!(tidegate.output(&["devices", "uptime", &willing]).contains("UNREACHABLE"));
        assert!(tidegate.stop().success());
    }
}

#[test]
fn silence_is_noticed_once_wherever_tidegate_is_killed() {
    let broker = talkative();
    let more = "[devices]\nstale_after = \"3s\"\n";
    for on_postgres in [false, true] {
        let on_server = on_postgres.then(Stranger::on_shared_server);
        let mut tidegate = configured(&broker, on_server.as_ref().map_or(SQLITE, |(_, url)| url), more);
        tidegate.start();
        tidegate.listening();
        let stranger = on_server.map_or_else(|| Stranger::of_file(&tidegate), |(stranger, _)| stranger);
        eventually("the database is open", || tidegate.said("database open"));
        for number in 0..10 {
            send(&broker, &format!("d{number}"));
        }
        eventually("all are known", || (stranger.number("SELECT count(*) FROM devices") == 10).then_some(()));
        for _ in 0..3 {
            tidegate.kill();
            tidegate.start();
        }
        let stale = "SELECT count(*) FROM devices WHERE status = 'stale'";
        eventually("silence is noticed though nothing comes", || (stranger.number(stale) == 10).then_some(()));
        let events = |word: &str| {
            stranger.number(&format!("SELECT count(*) FROM device_connection_events WHERE status = '{word}'"))
        };
        assert_eq!((events("online"), events("stale")), (10, 10));
        // Each at its own time: as long after its message as the silence is.
        let late = match on_postgres {
            true => "SELECT count(*) FROM devices WHERE status_since <> last_seen + interval '3 seconds'",
            false => "SELECT count(*) FROM devices WHERE status_since <> last_seen + 3000000",
        };
        assert_eq!(stranger.number(late), 0);
        tidegate.kill();
        send(&broker, "d0");
        tidegate.start();
        // Not its state: where the machine is slow, it is silent again before anybody has looked.
        eventually("d0 was online again", || (events("online") == 11).then_some(()));
        assert!(tidegate.stop().success());
    }
}

#[test]
fn a_template_says_how_long_a_silence_may_be_and_what_is_behind_a_gateway_goes_with_it() {
    let broker = talkative();
    let more = "[[sources]]\nname = \"behind\"\nfilter = \"behind/{gateway}/{device}\"\ntemplate = \"quick\"\n";
    let mut tidegate = configured(&broker, SQLITE, more);
    tidegate.catalog_file(
        "templates/quick.toml",
        "slug = \"quick\"\nexpected_interval = \"2s\"\n[[metric]]\nname = \"temperature\"\nkind = \"number\"\nkeys = [\"t\"]\n",
    );
    tidegate.start();
    tidegate.listening();
    send(&broker, "gw");
    broker.publish("behind/gw/probe", r#"{"t": 1}"#, &["-q", "1"]);
    comes_to_be(&tidegate, "probe", "stale");
    assert_eq!(device(&tidegate, "gw")["status"], "online", "nothing says how long it may be silent");
    broker.publish("behind/gw/probe", r#"{"t": 1}"#, &["-q", "1"]);
    broker.publish("devices/gw/status", "offline", &["-q", "1"]);
    comes_to_be(&tidegate, "probe", "unreachable");
    let shown = device(&tidegate, "probe");
    assert_eq!(shown["status_cause"], "its gateway gw is offline");
    assert_eq!(device(&tidegate, "gw")["status"], "offline");
    broker.publish("devices/gw/status", "online", &["-q", "1"]);
    comes_to_be(&tidegate, "probe", "stale");
    let told = history(&tidegate, "probe");
    assert!(told.ends_with(&["unreachable".to_owned(), "online".to_owned(), "stale".to_owned()]), "{told:?}");
}

#[cfg(feature = "embedded-broker")]
#[test]
fn the_embedded_broker_tells_of_its_own_clients_and_nobody_else_can() {
    use crate::support::device::Device;
    const CLIENTS: &str =
        "[[sources]]\nname = \"clients\"\nfilter = \"$SYS/brokers/+/clients/{device}/+\"\ndecoder = \"presence\"\n";
    let mut tidegate = Tidegate::configured(&(between("embedded://127.0.0.1:0", SQLITE) + NATIVE + CLIENTS));
    tidegate.start();
    let broker = tidegate.address("broker");
    let mut pump = Device::connect(broker, "pump");
    pump.publish("devices/pump/telemetry", r#"{"temperature": 21}"#);
    comes_to_be(&tidegate, "pump", "online");
    let mut stranger = Device::connect(broker, "stranger");
    stranger.publish("$SYS/brokers/tidegate/clients/pump/disconnected", r#"{"clientid": "pump"}"#);
    // Another connection of its name takes its place: it is no less there.
    let again = Device::connect(broker, "pump");
    drop(pump);
    stranger.publish("devices/other/telemetry", r#"{"temperature": 21}"#);
    comes_to_be(&tidegate, "other", "online");
    assert_eq!(history(&tidegate, "pump"), ["online"]);
    drop(again);
    comes_to_be(&tidegate, "pump", "offline");
    tidegate.kill();
    tidegate.start();
    eventually("the database is open", || tidegate.said("database open"));
    assert_eq!(history(&tidegate, "pump"), ["online", "offline"]);
    let _back = Device::connect(tidegate.address("broker"), "pump");
    comes_to_be(&tidegate, "pump", "online");
    // That tidegate goes is not for the devices to answer for.
    assert!(tidegate.stop().success());
    tidegate.start();
    eventually("the database is open", || tidegate.said("database open"));
    assert_eq!(history(&tidegate, "pump"), ["online", "offline", "online"]);
}

//! A replay of the journal stores what was not stored before, and nothing twice; on both databases.

use serde_json::{Value, json};

use crate::support::daemon::{Tidegate, complaint, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::postgres::{self, Postgres};

const TEMPLATE: &str = r#"
slug = "acme"
name = "ACME"
category = "sensor"
version = 1
[[metric]]
name = "temperature"
unit = "°C"
kind = "number"
keys = ["temp"]
range = [-40, 85]
[[metric]]
name = "energy"
unit = "kWh"
kind = "number"
keys = ["kwh"]
min_step = 0
"#;

fn configured(broker: &Mosquitto, database: &str) -> Tidegate {
    let tidegate = Tidegate::configured(&format!(
        r#"
[instance]
state_dir = "{{state}}"
[broker]
url = "mqtt://127.0.0.1:{}"
[database]
url = "{database}"
[[sources]]
name = "first"
filter = "first/{{device}}"
template = "acme"
[[sources]]
name = "second"
filter = "second/{{device}}"
template = "acme"
[metrics]
unmodeled = "quarantine"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
"#,
        broker.port
    ));
    tidegate.catalog_file("templates/acme.toml", TEMPLATE);
    tidegate
}

/// The template as it should have been.
fn mend(tidegate: &Tidegate) {
    let mended = TEMPLATE.replace("[\"temp\"]", "[\"temp\", \"t\"]").replace("85]", "1000]");
    tidegate.catalog_file("templates/acme.toml", &mended);
}

fn committed(tidegate: &Tidegate, messages: f64) {
    eventually("every message is committed", || {
        let journalled = tidegate.metric("tidegate_journal_messages_total") == messages;
        (journalled && tidegate.metric("tidegate_journal_lag_messages") == 0.0).then_some(())
    });
}

fn replay(tidegate: &Tidegate, arguments: &[&str]) -> Value {
    tidegate.json(&[&["journal", "replay", "--since", "1h"], arguments].concat())
}

fn values(tidegate: &Tidegate, device: &str) -> Vec<f64> {
    let readings = tidegate.json(&["readings", device]);
    readings.as_array().unwrap().iter().map(|reading| reading["value"].as_f64().unwrap()).collect()
}

fn open_reasons(tidegate: &Tidegate) -> Vec<String> {
    let events = tidegate.json(&["quarantine", "list"]);
    let mut reasons: Vec<String> =
        events.as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect();
    reasons.sort();
    reasons
}

fn on_each(test: impl Fn(&str)) {
    test("sqlite:tidegate.db");
    let server = postgres::shared();
    test(&server.database());
}

#[test]
fn once_a_mapping_is_mended_a_replay_stores_what_it_kept_out_and_nothing_else() {
    on_each(|database| {
        let broker = Mosquitto::plain();
        let mut tidegate = configured(&broker, database);
        tidegate.start();
        eventually("subscribed", || (tidegate.metric("tidegate_broker_connected") == 1.0).then_some(()));
        for (topic, payload) in [
            ("first/d1", "{\"temp\": 20}"),
            ("first/d1", "{\"t\": 21}"),
            ("first/d1", "{\"temp\": 900}"),
            ("first/d1", "{\"temp\": \"wet\"}"),
            ("second/d2", "{\"t\": 22, \"kwh\": \"dry\"}"),
        ] {
            broker.publish(topic, payload, &["-q", "1"]);
        }
        committed(&tidegate, 5.0);
        let refused = ["out_of_range", "unmodeled_metric", "unmodeled_metric", "wrong_kind", "wrong_kind"];
        assert_eq!(open_reasons(&tidegate), refused);
        let before = tidegate.json(&["journal", "status"])["committed"].clone();
        // As long as nothing has changed, there is nothing to do.
        let idle = replay(&tidegate, &[]);
        assert_eq!(
            (&idle["stored"], &idle["quarantined"], &idle["resolved"]),
            (&json!(0), &json!(0), &json!(0)),
            "{idle}"
        );
        assert_eq!(open_reasons(&tidegate), refused);

        mend(&tidegate);
        tidegate.signal("HUP");
        eventually("reloaded", || tidegate.said("reloaded"));
        let planned = replay(&tidegate, &["--dry-run"]);
        let expected = json!([
            {"tenant": "default", "device": "d1", "metric": "temperature", "new": 2},
            {"tenant": "default", "device": "d2", "metric": "temperature", "new": 1},
        ]);
        assert_eq!(planned["readings"], expected, "{planned}");
        assert_eq!(planned["refused"], json!({"wrong_kind": 2}), "{planned}");
        assert_eq!((&planned["messages"], &planned["new"], &planned["stored"]), (&json!(5), &json!(3), &json!(0)));
        assert_eq!((&planned["resolved"], &planned["quarantined"]), (&json!(3), &json!(0)));
        assert_eq!(values(&tidegate, "d1"), [20.0], "a dry run stores nothing");
        assert_eq!(open_reasons(&tidegate), refused);

        let first = replay(&tidegate, &["--source", "first"]);
        assert_eq!(
            (&first["stored"], &first["resolved"], &first["messages"]),
            (&json!(2), &json!(2), &json!(4)),
            "{first}"
        );
        assert_eq!(values(&tidegate, "d1"), [20.0, 21.0, 900.0], "in the order of their receipt");
        // Without a daemon too.
        assert!(tidegate.stop().success());
        let rest = replay(&tidegate, &[]);
        assert_eq!(
            (&rest["stored"], &rest["resolved"], &rest["quarantined"]),
            (&json!(1), &json!(1), &json!(0)),
            "{rest}"
        );
        assert_eq!(values(&tidegate, "d2"), [22.0]);
        assert_eq!(open_reasons(&tidegate), ["wrong_kind", "wrong_kind"]);
        let again = replay(&tidegate, &[]);
        assert_eq!((&again["new"], &again["stored"], &again["resolved"]), (&json!(0), &json!(0), &json!(0)), "{again}");
        assert_eq!(tidegate.json(&["journal", "status"])["committed"], before, "the position stays");
        let words = tidegate.output(&["journal", "replay", "--since", "1h", "--dry-run"]);
        assert!(words.contains("wrong_kind") && words.contains("0 readings would be new"), "{words}");
    });
}

#[test]
fn a_replay_judges_a_rising_counter_as_it_was_judged_then() {
    on_each(|database| {
        let broker = Mosquitto::plain();
        let mut tidegate = configured(&broker, database);
        tidegate.start();
        eventually("subscribed", || (tidegate.metric("tidegate_broker_connected") == 1.0).then_some(()));
        for kwh in [100, 50, 110, 105, 120] {
            broker.publish("first/meter", &format!("{{\"kwh\": {kwh}}}"), &["-q", "1"]);
        }
        committed(&tidegate, 5.0);
        assert_eq!(values(&tidegate, "meter"), [100.0, 110.0, 120.0]);
        let replayed = replay(&tidegate, &[]);
        assert_eq!((&replayed["stored"], &replayed["quarantined"]), (&json!(0), &json!(0)), "{replayed}");
        assert_eq!(replayed["refused"], json!({"not_monotonic": 2}), "{replayed}");
        assert_eq!(open_reasons(&tidegate), ["not_monotonic", "not_monotonic"]);
        assert_eq!(values(&tidegate, "meter"), [100.0, 110.0, 120.0]);
    });
}

#[test]
fn a_reading_that_was_lost_from_the_database_comes_back_at_its_time() {
    let broker = Mosquitto::plain();
    let mut tidegate = configured(&broker, "sqlite:tidegate.db");
    tidegate.start();
    eventually("subscribed", || (tidegate.metric("tidegate_broker_connected") == 1.0).then_some(()));
    let lines: Vec<String> = (0..500).map(|n| format!("{{\"temp\": {}}}", f64::from(n) / 10.0)).collect();
    broker.publish_lines("first/d1", &lines);
    committed(&tidegate, 500.0);
    let file = tidegate.state_dir().join("tidegate.db");
    let ask = |sql: &str| crate::support::daemon::sqlite(&file, sql);
    let before = ask("SELECT sum(time), count(*) FROM telemetry");
    ask("DELETE FROM telemetry WHERE value < 10");
    let replayed = replay(&tidegate, &[]);
    assert_eq!((&replayed["new"], &replayed["stored"]), (&json!(100), &json!(100)), "{replayed}");
    assert_eq!(ask("SELECT sum(time), count(*) FROM telemetry"), before);
}

#[test]
fn what_the_daemon_has_not_come_to_yet_is_left_to_it() {
    let (broker, server) = (Mosquitto::plain(), Postgres::start(false));
    let mut tidegate = configured(&broker, &server.url("postgres"));
    server.stop();
    tidegate.start();
    eventually("subscribed", || (tidegate.metric("tidegate_broker_connected") == 1.0).then_some(()));
    broker.publish("first/d1", "{\"temp\": 1}", &["-q", "1"]);
    eventually("it is journalled", || (tidegate.metric("tidegate_journal_messages_total") == 1.0).then_some(()));
    tidegate.kill();
    server.restart();
    tidegate.output(&["migrate"]);
    let replayed = replay(&tidegate, &[]);
    assert_eq!((&replayed["messages"], &replayed["uncommitted"]), (&json!(0), &json!(1)), "{replayed}");
    tidegate.start();
    eventually("the daemon stores it", || (tidegate.metric("tidegate_readings_stored_total") == 1.0).then_some(()));
    let replayed = replay(&tidegate, &[]);
    assert_eq!((&replayed["messages"], &replayed["new"]), (&json!(1), &json!(0)), "{replayed}");
}

#[test]
fn a_source_that_is_not_there_is_told_with_a_suggestion() {
    let broker = Mosquitto::plain();
    let mut tidegate = configured(&broker, "sqlite:tidegate.db");
    tidegate.start();
    let output = tidegate.command(&["journal", "replay", "--since", "1h", "--source", "frist"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaint(&output).contains("there is no source \"frist\" (did you mean `first`?)"),
        "{}",
        complaint(&output)
    );
}

//! `tidegate alerts`: what people see of alerts and do with them, with and without a daemon.

use std::path::PathBuf;

use serde_json::Value;
use tidegate::alert::{Severity, State, Transition, Who};
use tidegate::config::{Config, Database, DatabaseUrl};
use tidegate::metrics::Metrics;
use tidegate::store::batch::{Batch, DeviceIntro};
use tidegate::store::{BatchWriter, Store};
use tidegate::time::UtcMicros;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually, sqlite};
use crate::support::device::Device;
use crate::support::mosquitto::{Mosquitto, Setup};

const RULE: &str = "slug = \"too-hot\"\nname = \"Too hot\"\nseverity = \"critical\"\n[scope]\nall = true\n\
                    [when]\nmetric = \"temperature\"\ngt = 30.0\n";

/// A database beside a configuration, with the alerts of these steps in it.
fn with_alerts(transitions: Vec<Transition>) -> Tidegate {
    let tidegate = Tidegate::configured(&between("mqtt://127.0.0.1:1", "sqlite:tidegate.db"));
    tidegate.catalog_file("rules/too-hot.toml", RULE);
    std::fs::create_dir(tidegate.state_dir()).unwrap();
    let said = tidegate.output(&["migrate"]);
    assert!(said.contains("rules: 1 added, 0 changed, 0 retired"), "{said}");
    let url = DatabaseUrl::Sqlite(database(&tidegate));
    let store = Store::open(&Database { url, ..Config::default().database }).unwrap();
    store.position("test", "a journal").unwrap();
    let batch = Batch {
        position: 1,
        generation: 1,
        messages: 1,
        devices: vec![DeviceIntro {
            index: 0,
            id: None,
            tenant: "default".into(),
            uid: "boiler".into(),
            template: None,
            template_by: None,
            told: Vec::new(),
            protocol: None,
            protocol_why: None,
            source: "native".into(),
            first_seen: UtcMicros(1_700_000_000_000_000),
        }],
        transitions,
        ..Batch::default()
    };
    BatchWriter::new(store, "test", "a journal", Metrics::new()).commit(&batch, &|_| None).unwrap();
    tidegate
}

fn database(tidegate: &Tidegate) -> PathBuf {
    tidegate.state_dir().join("tidegate.db")
}

fn step(digits: &str, number: u32, state: State) -> Transition {
    let at = UtcMicros(1_700_000_000_000_000);
    Transition {
        id: format!("{digits:0<32}").into(),
        step: number,
        rule: "too-hot".into(),
        tenant: "default".into(),
        device: "boiler".into(),
        group: None,
        metric: "temperature".into(),
        state,
        severity: Severity::Critical,
        at,
        onset: at,
        since: at,
        value: Some(31.5),
        threshold: Some(30.0),
        unit: "°C".into(),
        message: "Too hot: boiler".into(),
        snoozed: false,
        snoozed_until: None,
        who: Who::Rule,
        why: "temperature > 30".into(),
        seq: 1,
    }
}

fn ids(list: &Value) -> Vec<String> {
    let rows = list.as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().trim_end_matches('0').to_owned()).collect()
}

#[test]
fn without_a_daemon_alerts_are_seen_and_dealt_with() {
    let over = Transition { severity: Severity::Info, ..step("cd12", 0, State::Resolved) };
    let tidegate = with_alerts(vec![step("ab12", 0, State::Firing), over]);
    assert_eq!(ids(&tidegate.json(&["alerts", "list"])), ["ab12"]);
    assert_eq!(ids(&tidegate.json(&["alerts", "list", "--state", "all"])), ["ab12", "cd12"]);
    assert_eq!(ids(&tidegate.json(&["alerts", "list", "--state", "all", "--severity", "info"])), ["cd12"]);
    assert_eq!(ids(&tidegate.json(&["alerts", "list", "--since", "1h"])), [""; 0]);
    let table = tidegate.output(&["alerts", "list"]);
    assert!(table.contains("ab12000000") && table.contains("31.5 °C") && table.contains("Too hot: boiler"), "{table}");

    let said = tidegate.output(&["alerts", "ack", "ab12", "--who", "eve", "--note", "on my way"]);
    assert_eq!(said, "alert ab12000000 (too-hot on boiler) is acknowledged\n");
    tidegate.output(&["alerts", "snooze", "ab12", "--who", "eve", "--for", "2h"]);
    tidegate.output(&["alerts", "note", "ab12", "--note", "it's the fan"]);
    let shown = tidegate.json(&["alerts", "show", "ab12"]);
    assert_eq!((&shown["state"], &shown["acknowledged_by"]), (&"acknowledged".into(), &"eve".into()));
    assert!(shown["snoozed_until"].is_string(), "{shown}");
    let why: Vec<&str> = shown["steps"].as_array().unwrap().iter().filter_map(|step| step["why"].as_str()).collect();
    assert_eq!(why, ["temperature > 30", "on my way", "snoozed", "it's the fan"]);
    assert_eq!(shown["waiting"], 3);
    let story = tidegate.output(&["alerts", "show", "ab12"]);
    assert!(story.contains("the rule") && story.contains("on my way"), "{story}");
    assert!(story.contains("3 of what was asked is still to be taken by the daemon of test"), "{story}");
    assert!(tidegate.output(&["alerts", "list"]).contains("acknowledged, snoozed"));

    assert_eq!(tidegate.json(&["alerts", "resolve", "ab12"])["state"], "resolved");
    assert_eq!(ids(&tidegate.json(&["alerts", "list"])), [""; 0]);
    for (arguments, code, words) in [
        (vec!["alerts", "resolve", "ab12"], 1, "it is over already"),
        (vec!["alerts", "show", "ab13"], 1, "there is no alert ab13"),
        (vec!["alerts", "show", "zz"], 1, "hexadecimal digits are wanted"),
        (vec!["alerts", "snooze", "ab12"], 2, "--for"),
        (vec!["alerts", "list", "--state", "burning"], 2, "firing, acknowledged, resolved, all"),
    ] {
        let output = tidegate.command(&arguments).output().unwrap();
        let said = complaint(&output);
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn rules_are_listed_and_switched() {
    let tidegate = with_alerts(vec![step("ab12", 0, State::Firing)]);
    sqlite(
        &database(&tidegate),
        "INSERT INTO alert_rules (slug, name, severity, definition) VALUES ('by-hand', 'By hand', 'info', '{}')",
    );
    let rules = tidegate.json(&["alerts", "rules"]);
    let (by_hand, too_hot) = (&rules[0], &rules[1]);
    assert_eq!((&by_hand["rule"], &by_hand["declared"]), (&"by-hand".into(), &false.into()));
    assert!(by_hand["invalid"].as_str().unwrap().contains("slug"), "{by_hand}");
    assert_eq!(
        (&too_hot["active"], &too_hot["severity"], &too_hot["invalid"]),
        (&1.into(), &"critical".into(), &Value::Null)
    );
    let table = tidegate.output(&["alerts", "rules"]);
    assert!(
        table.contains("every device") && table.contains("invalid") && table.contains("can't be read: "),
        "{table}"
    );
    assert_eq!(tidegate.output(&["alerts", "rules", "disable", "too-hot"]), "rule too-hot is disabled\n");
    assert_eq!(tidegate.output(&["alerts", "rules", "disable", "too-hot"]), "rule too-hot is disabled already\n");
    assert_eq!(tidegate.json(&["alerts", "rules"])[1]["enabled"], false);
    let output = tidegate.command(&["alerts", "rules", "enable", "too-hott"]).output().unwrap();
    assert!(complaint(&output).contains("did you mean `too-hot`?"), "{}", complaint(&output));
}

#[test]
fn a_running_daemon_takes_what_is_asked() {
    let broker = Mosquitto::start(Setup::default());
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), "sqlite:tidegate.db") + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("rules/too-hot.toml", RULE);
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
    let mut boiler = Device::connect(([127, 0, 0, 1], broker.port).into(), "boiler");
    boiler.publish("devices/boiler/telemetry", "{\"temperature\": 35}");
    let id = eventually("it fires", || {
        let list = tidegate.json(&["alerts", "list"]);
        list[0]["id"].as_str().map(str::to_owned)
    });
    let active = |json: &Value| json.as_array().unwrap().len();
    tidegate.output(&["alerts", "ack", &id[..8], "--who", "eve"]);
    let steps = |least: usize| {
        eventually("the daemon has taken and published it", || {
            let shown = tidegate.json(&["alerts", "show", &id]);
            let steps = shown["steps"].as_array().unwrap().clone();
            let done = shown["waiting"] == 0 && steps.iter().all(|step| step["published"] == true);
            (done && steps.len() >= least).then_some(steps)
        })
    };
    let told = steps(2);
    assert_eq!((&told[1]["state"], &told[1]["who"]), (&"acknowledged".into(), &"eve".into()));
    assert_eq!(told.len(), 2, "once, though the command has written it too");
    tidegate.output(&["alerts", "resolve", &id, "--who", "eve", "--note", "unplugged"]);
    let told = steps(3);
    assert_eq!((&told[2]["state"], &told[2]["why"], told.len()), (&"resolved".into(), &"unplugged".into(), 3));
    assert_eq!(active(&tidegate.json(&["alerts", "list"])), 0);

    // Rules that people put in, and the switch, are taken up too.
    let definition = RULE.replace("too-hot", "hot-too");
    let definition: toml::Table = toml::from_str(&definition).unwrap();
    let definition = serde_json::to_string(&definition).unwrap();
    let row = |slug: &str, json: &str| {
        sqlite(
            &database(&tidegate),
            &format!(
                "INSERT INTO alert_rules (slug, name, severity, definition) VALUES ('{slug}', 'S', 'info', '{json}')"
            ),
        )
    };
    row("broken", "{\"slug\": 1}");
    row("hot-too", &definition);
    eventually("it is told that one can't be read", || tidegate.said("A ROW OF alert_rules CAN'T BE READ"));
    eventually("the other fires", || {
        boiler.publish("devices/boiler/telemetry", "{\"temperature\": 36}");
        let found = tidegate.json(&["alerts", "list", "--rule", "hot-too"]);
        (active(&found) == 1).then_some(())
    });
    assert!((tidegate.metric("tidegate_alert_rules_invalid") - 1.0).abs() < f64::EPSILON);
    sqlite(&database(&tidegate), "INSERT INTO maintenance (name, definition, added_at) VALUES ('odd', '{}', 0)");
    eventually("it is told what can't be read", || tidegate.said("A ROW OF maintenance CAN'T BE READ"));
    tidegate.output(&["alerts", "rules", "disable", "hot-too"]);
    eventually("what is active of it ends", || {
        (active(&tidegate.json(&["alerts", "list", "--rule", "hot-too"])) == 0).then_some(())
    });
    assert!(tidegate.stop().success());
}

#[test]
fn a_database_that_is_not_there_is_said() {
    let tidegate = Tidegate::configured(&between("mqtt://127.0.0.1:1", "sqlite:tidegate.db"));
    let output = tidegate.command(&["alerts", "list"]).output().unwrap();
    assert!(output.status.code() == Some(1) && complaint(&output).contains("there is no database at"));
    assert!(!database(&tidegate).exists(), "none was made by looking");
}

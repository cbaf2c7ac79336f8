//! What an operator sees of a running tidegate: HTTP, lists, the log.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::daemon::{NATIVE, Tidegate, between, eventually, http_get};
use crate::support::load::Simulation;
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::postgres::Postgres;
use crate::support::stranger::{SQLITE, Stranger};

/// A daemon between mosquitto and SQLite, with a climate sensor `attic` that has sent twice and garbage once.
fn with_an_attic() -> (Mosquitto, Tidegate) {
    let broker = Mosquitto::plain();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&(toml + "template = \"native-climate\"\n"));
    tidegate.start();
    tidegate.listening();
    let ancient = "{\"ts\":1700000000,\"values\":{\"temp\":20.5,\"hum\":40}}";
    for payload in [ancient, "{\"temp\":21.5}", "{\"temp\":"] {
        broker.publish("devices/attic/telemetry", payload, &["-q", "1"]);
    }
    tidegate.wait_for_metric("tidegate_quarantined_total{reason=\"malformed\"}", 1.0);
    committed(&tidegate, 3);
    (broker, tidegate)
}

fn committed(tidegate: &Tidegate, messages: u64) {
    eventually("all is committed", || {
        let journal = tidegate.json(&["journal", "status"]);
        (journal["last_seq"] == messages && journal["lag"] == 0).then_some(())
    });
}

#[test]
fn probes_tell_life_and_readiness_with_the_reason() {
    let (mut broker, tidegate) = with_an_attic();
    let http = tidegate.address("http");
    assert_eq!(http_get(http, "/healthz"), (200, "ok\n".to_owned()));
    let (status, report) = tidegate.readyz();
    assert_eq!(status, 200);
    let expected = serde_json::json!({"ready": true, "broker": "up", "journal": "writable", "database": "up"});
    assert_eq!(report, expected);
    broker.kill();
    let reason = eventually("the loss of the broker is told", || {
        let (status, report) = tidegate.readyz();
        let reason = report["broker"].as_str().unwrap().to_owned();
        (status == 503 && reason.contains("refused")).then_some(reason)
    });
    assert!(reason.starts_with("down: "), "{reason}");
    assert_eq!(http_get(http, "/healthz").0, 200);
    assert_eq!(tidegate.metric("tidegate_broker_connected"), 0.0);
    assert_eq!(http_get(http, "/nothing").0, 404);
}

#[test]
fn metrics_are_openmetrics_text_and_all_are_ours() {
    let (_broker, tidegate) = with_an_attic();
    let text = http_get(tidegate.address("http"), "/metrics").1;
    let mut kinds = HashMap::new();
    let mut samples = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "{name} twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
            assert!(labels.is_none_or(|labels| labels.ends_with("\"}")), "{line}");
            assert!(name.starts_with("tidegate_"), "{line}");
            let suffixes: HashMap<&str, &[&str]> = HashMap::from([
                ("counter", &["_total"][..]),
                ("gauge", &[""]),
                ("histogram", &["_bucket", "_sum", "_count"]),
            ]);
            let declared = |(family, kind): (&&str, &&str)| {
                name.strip_prefix(*family).is_some_and(|suffix| suffixes[kind].contains(&suffix))
            };
            assert!(kinds.iter().any(declared), "{line}");
            samples += 1;
        } else {
            assert!(["# HELP ", "# UNIT ", "# EOF"].iter().any(|start| line.starts_with(start)), "{line}");
        }
    }
    assert!(text.ends_with("# EOF\n") && samples > 50, "{text}");
    assert_eq!(tidegate.metric("tidegate_readings_stored_total"), 3.0);
    assert_eq!(tidegate.metric("tidegate_source_messages_total{source=\"native\"}"), 3.0);
}

#[test]
fn devices_are_listed_and_shown() {
    let (_broker, tidegate) = with_an_attic();
    let list = tidegate.json(&["devices", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((&list[0]["device"], &list[0]["template"]), (&"attic".into(), &"native-climate".into()));
    assert!(tidegate.output(&["devices", "list"]).contains("attic"));
    let shown = tidegate.json(&["devices", "show", "attic"]);
    let sensors = shown[0]["sensors"].as_array().unwrap();
    let last = |metric: &str| sensors.iter().find(|sensor| sensor["metric"] == metric).unwrap()["last_value"].clone();
    assert_eq!((last("temperature"), last("humidity")), (21.5.into(), 40.0.into()));
    assert!(tidegate.output(&["devices", "show", "attic"]).contains("°C"));
    let none = tidegate.command(&["devices", "show", "cellar"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("cellar"));
}

#[test]
fn hours_and_days_are_shown_and_rolled_up_by_themselves() {
    let broker = Mosquitto::plain();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&(toml + "\n[rollups]\nrefresh = \"1s\"\n"));
    tidegate.start();
    tidegate.listening();
    let send = |payload: &str| broker.publish("devices/attic/telemetry", payload, &["-q", "1"]);
    send("{\"ts\":1700000000,\"values\":{\"temp\":20.5}}");
    let rolled = "tidegate_rollup_buckets_total{grain=\"day\"}";
    tidegate.wait_for_metric(rolled, 1.0);
    send("{\"ts\":1700000060,\"values\":{\"temp\":22.5}}");
    tidegate.wait_for_metric(rolled, 2.0);
    let days = tidegate.json(&["readings", "attic", "--every", "day"]);
    assert_eq!(days.as_array().unwrap().len(), 1);
    assert_eq!((&days[0]["time"], &days[0]["count"]), (&"2023-11-14T00:00:00.000000Z".into(), &2.into()));
    assert_eq!((&days[0]["avg"], &days[0]["p50"], &days[0]["last"]), (&21.5.into(), &21.5.into(), &22.5.into()));
    let table = tidegate.output(&["readings", "attic", "--every", "hour", "--metric", "temp"]);
    assert!(table.contains("AVG") && table.contains("21.5"), "{table}");
    assert_eq!(tidegate.json(&["readings", "attic", "--every", "hour", "--since", "1h"]).as_array().unwrap().len(), 0);
}

#[test]
fn readings_are_shown_by_metric_and_age_and_followed_live() {
    let (broker, tidegate) = with_an_attic();
    assert_eq!(tidegate.json(&["readings", "attic"]).as_array().unwrap().len(), 3);
    let temperature = tidegate.json(&["readings", "attic", "--metric", "temperature"]);
    let values: Vec<&Value> = temperature.as_array().unwrap().iter().map(|row| &row["value"]).collect();
    assert_eq!(values, [20.5, 21.5]);
    assert_eq!(temperature[0]["time"], "2023-11-14T22:13:20.000000Z");
    let recent = tidegate.json(&["readings", "attic", "--since", "1h"]);
    assert_eq!(recent.as_array().unwrap().len(), 1);
    let table = tidegate.output(&["readings", "attic", "--metric", "humidity"]);
    assert!(table.contains("2023-11-14T22:13:20.000000Z") && table.contains('%'), "{table}");

    let arguments = ["readings", "attic", "--follow", "--json", "--metric", "temperature"];
    let mut follower = tidegate.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!((next()["value"].clone(), next()["value"].clone()), (20.5.into(), 21.5.into()));
    broker.publish("devices/attic/telemetry", "{\"hum\":41,\"temp\":22.5}", &["-q", "1"]);
    assert_eq!(next()["value"], 22.5);
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn the_journal_tells_how_far_the_database_is() {
    let (_broker, mut tidegate) = with_an_attic();
    let expect = |tidegate: &Tidegate| {
        let journal = tidegate.json(&["journal", "status"]);
        for (key, value) in [("messages", 3), ("last_seq", 3), ("committed", 3), ("lag", 0)] {
            assert_eq!(journal[key], value, "{key}: {journal}");
        }
        let text = tidegate.output(&["journal", "status"]);
        assert!(text.contains("committed 3, 0 behind"), "{text}");
    };
    expect(&tidegate);
    assert!(tidegate.stop().success());
    expect(&tidegate);
}

#[test]
fn the_quarantine_is_listed_shown_and_purged() {
    let (_broker, tidegate) = with_an_attic();
    let list = tidegate.json(&["quarantine", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((&list[0]["reason"], &list[0]["topic"]), (&"malformed".into(), &"devices/attic/telemetry".into()));
    assert!(tidegate.output(&["quarantine", "list", "--reason", "malformed"]).contains("devices/attic"));
    assert_eq!(tidegate.json(&["quarantine", "list", "--reason", "bad_time"]), serde_json::json!([]));
    let number = list[0]["message"].to_string();
    let shown = tidegate.json(&["quarantine", "show", &number]);
    assert_eq!((&shown["payload"], &shown["events"][0]["reason"]), (&"{\"temp\":".into(), &"malformed".into()));
    assert!(tidegate.output(&["quarantine", "show", &number]).contains("{\"temp\":"));
    let careless = tidegate.command(&["quarantine", "purge"]).output().unwrap();
    assert_eq!(careless.status.code(), Some(1));
    let purged = tidegate.json(&["quarantine", "purge", "--message", &number]);
    assert_eq!(purged, serde_json::json!({"events": 1, "messages": 1}));
    assert_eq!(tidegate.json(&["quarantine", "list"]), serde_json::json!([]));
}

#[test]
fn the_simulator_sums_up() {
    let broker = Mosquitto::plain();
    let summary =
        Simulation::start(broker.port, &["--messages", "100", "--devices", "3", "--format", "mixed"]).finish();
    for (key, value) in [("devices", 3), ("connections", 3), ("qos", 1), ("published", 100), ("acknowledged", 100)] {
        assert_eq!(summary[key], value, "{key}: {summary}");
    }
    assert!(summary["p99_ms"].as_f64().unwrap() > 0.0 && summary["errors"].as_array().unwrap().is_empty());
}

#[test]
fn the_log_is_one_json_object_a_line_and_holds_no_secret() {
    let (database_secret, broker_secret) = ("wave-of-databases", "wave-of-brokers");
    let server = Postgres::start(false);
    let admin = Stranger::Postgres(server.url("postgres"), None);
    admin.ask(&format!("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{database_secret}'"));
    let url = format!("postgres://keeper:{database_secret}@127.0.0.1:{}/postgres", server.port());
    let mut broker = Mosquitto::start(Setup { users: vec![("bridge", broker_secret)], ..Setup::default() });
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), &url)
        .replace("[broker]\n", &format!("[broker]\nusername = \"bridge\"\npassword = \"{broker_secret}\"\n"))
        .replace("[database]\n", "[database]\nconnect_timeout = \"1s\"\n")
        .replace("[log]\n", "[log]\nlevel = \"trace\"\n");
    let mut tidegate = Tidegate::configured(&(toml.clone() + NATIVE));
    tidegate.start();
    tidegate.listening();
    broker.publish("devices/attic/telemetry", "{\"temp\":1}", &["-q", "1"]);
    tidegate.wait_for_metric("tidegate_readings_stored_total", 1.0);
    tidegate.signal("HUP");
    eventually("it has reloaded", || tidegate.said("reloaded"));
    // Errors tell most: neither server answers any more.
    server.kill();
    broker.publish("devices/attic/telemetry", "{\"temp\":2}", &["-q", "1"]);
    eventually("the database's absence is logged", || tidegate.said("did not take a batch"));
    broker.kill();
    eventually("the broker's absence is told", || (tidegate.readyz().0 == 503).then_some(()));
    let metrics = http_get(tidegate.address("http"), "/metrics").1;
    let status = tidegate.command(&["journal", "status"]).output().unwrap();
    let list = tidegate.command(&["devices", "list"]).output().unwrap();
    let check = tidegate.command(&["check", "--connect"]).output().unwrap();
    assert!(!check.status.success() && !list.status.success());
    tidegate.kill();
    let log = tidegate.log();
    let mut said = vec![log.clone(), metrics];
    for output in [status, list, check] {
        said.push(crate::support::daemon::complaint(&output));
    }
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(event["level"].is_string() && event["timestamp"].is_string() && event["target"].is_string(), "{line}");
    }
    for text in said {
        assert!(!text.contains(database_secret) && !text.contains(broker_secret), "a secret: {text}");
    }
}

//! Bad input through a running daemon: each gets its one clear answer, what comes after it is stored, and all that was
//! acknowledged is accounted for.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::support::daemon::{Tidegate, eventually};
use crate::support::device::Device;
use crate::support::mosquitto::Mosquitto;
use crate::support::postgres;

const MIB: usize = 1 << 20;

const SOURCES: &str = r#"
[instance]
state_dir = "{state}"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
[[sources]]
name = "native"
filter = "devices/{device}/telemetry"
[[sources]]
name = "large"
filter = "large/{device}"
max_payload = "4MiB"
[[sources]]
name = "climate"
filter = "climate/{device}"
template = "native-climate"
[[sources]]
name = "rest"
filter = "rest/{device...}"
[[sources]]
name = "scalar"
filter = "scalar/{device}/{metric...}"
decoder = "scalar"
"#;

const EMBEDDED: &str = "[broker]\nurl = \"embedded://127.0.0.1:0\"\n";

/// A message, and what must come of it.
struct Case {
    topic: String,
    payload: Vec<u8>,
    /// Metric and value, in their order.
    readings: Vec<(&'static str, Json)>,
    /// Reason, key (empty: the whole message), words of the detail.
    refusals: Vec<(&'static str, &'static str, &'static str)>,
}

fn refused(
    topic: impl Into<String>,
    payload: impl AsRef<[u8]>,
    refusal: (&'static str, &'static str, &'static str),
) -> Case {
    Case { topic: topic.into(), payload: payload.as_ref().to_vec(), readings: vec![], refusals: vec![refusal] }
}

fn read(topic: impl Into<String>, payload: &str, readings: &[(&'static str, Json)]) -> Case {
    Case { topic: topic.into(), payload: payload.into(), readings: readings.to_vec(), refusals: vec![] }
}

fn native(device: &str) -> String {
    format!("devices/{device}/telemetry")
}

fn long_text() -> String {
    format!("{{\"a\":\"{}\"}}", "x".repeat(MIB))
}

/// Payloads that can't be read.
fn unreadable() -> Vec<Case> {
    let keys: Vec<String> = (0..10_000).map(|number| format!("\"k{number}\":1")).collect();
    vec![
        refused(native("truncated"), r#"{"temp":21.5"#, ("malformed", "", "malformed JSON: EOF")),
        refused(native("not-utf8"), b"{\"a\":\"\xff\"}", ("not_utf8", "", "invalid UTF-8 after 6 bytes")),
        refused(native("empty"), "", ("empty", "", "a JSON document is wanted")),
        refused(native("nan"), r#"{"a":NaN}"#, ("malformed", "", "column 6")),
        refused(native("1e400"), r#"{"b":{"a":1e400}}"#, ("number_out_of_range", "", "key b.a")),
        refused(native("deep"), "[".repeat(500) + &"]".repeat(500), ("malformed", "", "an object is wanted")),
        refused(
            native("nested"),
            r#"{"k":"#.repeat(500) + "1" + &"}".repeat(500),
            ("too_deep", "", "limits.max_depth is 64"),
        ),
        refused(
            native("large"),
            long_text(),
            ("too_large", "", "payload of 1048584 bytes, the source's max_payload is 262144"),
        ),
        refused("large/one", long_text(), ("too_large", "", "1048576 bytes, limits.max_text_length is 65536; key a")),
        refused(native("keys"), format!("{{{}}}", keys.join(",")), ("too_many_keys", "", "limits.max_keys is 5000")),
        refused(native("twice"), r#"{"a":1,"a":2}"#, ("duplicate_key", "", "duplicate key a")),
        refused(native("nul"), "{\"a\":\"x\0y\"}", ("malformed", "", "control character")),
        refused(native("key"), format!("{{\"{}\":1}}", "k".repeat(300)), ("key_too_long", "", "300 bytes")),
        refused("scalar/s1/a", b"caf\xe9", ("not_utf8", "", "invalid UTF-8 after 3 bytes")),
        refused("scalar/s1/b", "1e400", ("number_out_of_range", "", "key b")),
    ]
}

/// Names that the topic can't give, and those that it can.
fn names() -> Vec<Case> {
    vec![
        read(native("🌡️-кухня"), r#"{"a":1}"#, &[("a", json!(1.0))]),
        refused(native(&"d".repeat(300)), r#"{"a":1}"#, ("bad_name", "", "the topic's device has 300 bytes, 255")),
        refused(native(""), r#"{"a":1}"#, ("bad_name", "", "the topic's device is empty")),
        refused(native("a\u{7}b"), r#"{"a":1}"#, ("bad_name", "", "control characters")),
        read("rest/hall/2/door", r#"{"a":1}"#, &[("a", json!(1.0))]),
    ]
}

/// Values, times and kinds.
fn values() -> Vec<Case> {
    vec![
        read(native("text"), r#"{"a":"21.5"}"#, &[("a", json!("21.5"))]),
        read("climate/quoted", r#"{"temp":"21.5"}"#, &[("temperature", json!(21.5))]),
        refused(
            "climate/word",
            r#"{"temp":"warm"}"#,
            ("wrong_kind", "temp", "found text \"warm\"; temperature wants a number"),
        ),
        refused("climate/hot", r#"{"temp":900}"#, ("out_of_range", "temp", "900 is outside of -40 to 85")),
        read(
            native("integers"),
            r#"{"a":9007199254740993,"b":18446744073709551615}"#,
            &[("a", json!(9_007_199_254_740_992.0)), ("b", json!(18_446_744_073_709_551_616.0))],
        ),
        refused(native("1970"), r#"{"ts":0,"a":1}"#, ("bad_time", "", "time.max_age is 20years")),
        refused(
            native("2099"),
            r#"{"ts":"2099-01-01T00:00:00Z","a":1}"#,
            ("bad_time", "", "2099-01-01T00:00:00Z is 7"),
        ),
        refused(native("when"), r#"{"ts":"soon","a":1}"#, ("bad_time", "", "\"soon\" is not a timestamp")),
        // Unmodelled: each is stored as it came. Modelled: refused.
        read(native("kind-1"), r#"{"a":1}"#, &[("a", json!(1.0))]),
        Case {
            topic: "climate/kind".into(),
            payload: r#"[{"values":{"temp":1}},{"ts":1700000000,"values":{"temp":true}}]"#.into(),
            readings: vec![("temperature", json!(1.0))],
            refusals: vec![("wrong_kind", "temp", "found boolean true")],
        },
        Case {
            topic: native("nul-text"),
            payload: r#"{"a":"x\u0000y","b":1,"c\u0000d":1}"#.into(),
            readings: vec![("b", json!(1.0))],
            refusals: vec![("bad_text", "a", "NUL"), ("bad_name", "c\u{2400}d", "control characters")],
        },
        read("scalar/s1/nan", "nan", &[]),
        read("scalar/s1/nothing", "", &[]),
    ]
}

#[test]
fn bad_input_is_quarantined_with_its_reason_and_nothing_else_suffers_on_sqlite() {
    bad_input_is_accounted_for(EMBEDDED);
}

#[test]
fn bad_input_is_quarantined_with_its_reason_and_nothing_else_suffers_on_postgresql() {
    let postgres = postgres::shared();
    bad_input_is_accounted_for(&format!("{EMBEDDED}[database]\nurl = \"{}\"\n", postgres.database()));
}

fn bad_input_is_accounted_for(servers: &str) {
    let mut tidegate = Tidegate::configured(&format!("{SOURCES}{servers}"));
    tidegate.start();
    let cases: Vec<Case> = [unreadable(), names(), values()].into_iter().flatten().collect();
    let mut device = Device::connect(tidegate.address("broker"), "tester");
    for (number, case) in cases.iter().enumerate() {
        device.publish(&case.topic, &case.payload);
        device.publish(&native("good"), format!("{{\"n\":{number}}}"));
    }
    // Everything sent and acknowledged is in the journal, and all of that in the database.
    let sent = 2 * cases.len();
    let bad_readings: usize = cases.iter().map(|case| case.readings.len()).sum();
    let readings = cases.len() + bad_readings;
    eventually("all is stored", || {
        (tidegate.metric("tidegate_readings_stored_total") == readings as f64).then_some(())
    });
    eventually("nothing is left", || (tidegate.metric("tidegate_journal_lag_messages") == 0.0).then_some(()));
    assert_eq!(tidegate.metric("tidegate_journal_messages_total"), sent as f64);
    assert_eq!(tidegate.metric("tidegate_messages_acknowledged_total"), sent as f64);

    let good = tidegate.json(&["readings", "good", "--limit", "1000"]);
    let numbers: Vec<f64> = good.as_array().unwrap().iter().map(|row| row["value"].as_f64().unwrap()).collect();
    assert_eq!(numbers, (0..cases.len()).map(|number| number as f64).collect::<Vec<_>>());

    let events = tidegate.json(&["quarantine", "list", "--limit", "1000"]);
    let mut by_reason: BTreeMap<&str, u32> = BTreeMap::new();
    for case in &cases {
        let found: Vec<&Json> =
            events.as_array().unwrap().iter().filter(|event| event["topic"] == case.topic).collect();
        assert_eq!(found.len(), case.refusals.len(), "{}: {found:?}", case.topic);
        for (reason, key, words) in &case.refusals {
            let event = found.iter().find(|event| event["key"].as_str().unwrap_or("") == *key);
            let event = event.unwrap_or_else(|| panic!("{}: no event of {key:?} in {found:?}", case.topic));
            assert_eq!(event["reason"], *reason, "{}: {event}", case.topic);
            assert!(event["detail"].as_str().unwrap().contains(words), "{}: {event} lacks {words:?}", case.topic);
            *by_reason.entry(reason).or_default() += 1;
        }
        for (metric, value) in &case.readings {
            let device = case.topic.split_once('/').unwrap().1.trim_end_matches("/telemetry");
            let stored = tidegate.json(&["readings", device, "--metric", metric]);
            assert_eq!(stored.as_array().unwrap().len(), 1, "{}: {stored}", case.topic);
            let field = if value.is_string() { "text_value" } else { "value" };
            assert_eq!(stored[0][field], *value, "{}", case.topic);
        }
    }
    assert_eq!(events.as_array().unwrap().len(), by_reason.values().sum::<u32>() as usize);
    for (reason, count) in by_reason {
        let metric = format!("tidegate_quarantined_total{{reason=\"{reason}\"}}");
        assert_eq!(tidegate.metric(&metric), f64::from(count), "{reason}");
    }
    // What is kept is what came, to the byte.
    let message = events.as_array().unwrap().iter().find(|event| event["topic"] == native("not-utf8")).unwrap();
    let held = tidegate.json(&["quarantine", "show", &message["message"].to_string()]);
    assert_eq!(held["payload_bytes"], json!(b"{\"a\":\"\xff\"}"));
    assert!(tidegate.stop().success());
}

#[test]
fn an_unmodelled_metric_that_changes_kind_is_stored_as_it_came() {
    let mut tidegate = Tidegate::configured(&format!("{SOURCES}{EMBEDDED}"));
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "tester");
    for payload in [r#"{"a":1}"#, r#"{"a":"open"}"#, r#"{"a":true}"#, r#"{"a":2.5}"#] {
        device.publish(&native("d1"), payload);
    }
    let rows = eventually("four readings", || {
        (tidegate.metric("tidegate_readings_stored_total") == 4.0).then(|| tidegate.json(&["readings", "d1"]))
    });
    let rows: Vec<Json> = rows.as_array().unwrap().iter().map(|row| json!([row["value"], row["text_value"]])).collect();
    assert_eq!(rows, [json!([1.0, null]), json!([null, "open"]), json!([1.0, null]), json!([2.5, null])]);
    assert_eq!(tidegate.json(&["quarantine", "list"]), json!([]));
}

#[test]
fn a_topic_that_no_source_takes_is_acknowledged_counted_and_told() {
    let mut tidegate = Tidegate::configured(&format!("{SOURCES}{EMBEDDED}"));
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "lost-device");
    device.publish("devices/d1/telemetri", r#"{"a":1}"#);
    device.publish(&native("d1"), r#"{"a":2}"#);
    eventually("the good one", || (tidegate.metric("tidegate_readings_stored_total") == 1.0).then_some(()));
    assert_eq!(tidegate.metric("tidegate_messages_unmatched_total"), 1.0);
    assert_eq!(tidegate.metric("tidegate_journal_messages_total"), 1.0);
    let told = tidegate.said("no source's filter matches the topic").unwrap();
    assert_eq!((&told["topic"], &told["client"]), (&json!("devices/d1/telemetri"), &json!("lost-device")));
}

/// A broker passes over in silence what is larger than its subscriber announces.
#[test]
fn a_payload_above_max_payload_is_quarantined_behind_mosquitto_too() {
    let broker = Mosquitto::plain();
    let servers = format!("[broker]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port);
    let mut tidegate = Tidegate::configured(&format!("{SOURCES}{servers}"));
    tidegate.start();
    eventually("the session", || (tidegate.metric("tidegate_broker_connected") == 1.0).then_some(()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], broker.port));
    let mut device = Device::connect(address, "tester");
    device.publish(&native("d1"), long_text());
    device.publish(&native("d1"), r#"{"a":2}"#);
    eventually("the good one", || (tidegate.metric("tidegate_readings_stored_total") == 1.0).then_some(()));
    let events = tidegate.json(&["quarantine", "list"]);
    assert_eq!((&events[0]["reason"], &events[1]), (&json!("too_large"), &Json::Null));
}

#[test]
fn modules_have_key_maps_of_their_own_before_their_devices() {
    let sources = "[[sources]]\nname = \"modules\"\nfilter = \"m/{device}/{module}\"\n\
                   [[sources]]\nname = \"whole\"\nfilter = \"d/{device}\"\n";
    let mut tidegate = Tidegate::configured(&format!("{SOURCES}{EMBEDDED}{sources}"));
    let metric = |name: &str, key: &str, scale: &str| {
        format!("[[metric]]\nname = \"{name}\"\nkind = \"number\"\nunit = \"W\"\nkeys = [\"{key}\"]\nscale = {scale}\n")
    };
    let slot = "[[slot]]\nname = \"bus-1\"\ninterface = \"rs485\"\ncompatible = [\"acme-meter\"]\n";
    let head = |slug: &str| format!("slug = \"{slug}\"\nname = \"{slug}\"\ncategory = \"meter\"\nversion = 1\n");
    let cabinet = [head("acme-cabinet"), metric("power", "p", "1.0"), metric("load", "l", "1.0"), slot.into()].concat();
    tidegate.catalog_file("templates/cabinet.toml", &cabinet);
    tidegate.catalog_file("templates/meter.toml", &(head("acme-meter") + &metric("power", "p", "0.1")));
    tidegate.catalog_file(
        "devices/site.toml",
        "[[device]]\nuid = \"gateway\"\n\n[[device]]\nuid = \"cab-1\"\ntemplate = \"acme-cabinet\"\nparent = \"gateway\"\n\
         [[device.module]]\nuid = \"m1\"\nslot = \"bus-1\"\ntemplate = \"acme-meter\"\n",
    );
    tidegate.start();
    let mut device = Device::connect(tidegate.address("broker"), "tester");
    device.publish("m/cab-1/m1", r#"{"p":100,"l":5,"x":1}"#);
    device.publish("m/cab-1/unknown", r#"{"p":7,"x":2}"#);
    device.publish("d/cab-1", r#"{"p":200}"#);
    eventually("six readings", || (tidegate.metric("tidegate_readings_stored_total") == 6.0).then_some(()));
    let rows = tidegate.json(&["readings", "cab-1"]);
    let mut found: Vec<(String, f64)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["metric"].as_str().unwrap().to_owned(), row["value"].as_f64().unwrap()))
        .collect();
    found.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let wanted =
        [("load", 5.0), ("m1.power", 10.0), ("m1.power", 20.0), ("m1.x", 1.0), ("power", 7.0), ("unknown.x", 2.0)];
    assert_eq!(found, wanted.map(|(metric, value)| (metric.to_owned(), value)));
    let shown = tidegate.output(&["devices", "show", "cab-1"]);
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["gateway gateway", "m1 bus-1 - acme-meter"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

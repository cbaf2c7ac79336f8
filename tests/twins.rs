//! Twins from outside: what is desired reaches the device, what it reports ends the difference, and what becomes of everything that is not
//! right.

use std::net::SocketAddr;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};

use crate::api::{Ask, ask, head_of};
#[cfg(feature = "embedded-broker")]
use crate::support::daemon::lasting_port;
use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::executor::{Executor, Heard};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

const LAMP: &str = r#"
slug = "lamp"
name = "Lamp"
[[metric]]
name = "interval"
keys = ["interval"]
twin = "settings.interval"
[[metric]]
name = "on"
kind = "bool"
keys = ["on"]
twin = "on"
[[metric]]
name = "firmware"
kind = "text"
keys = ["fw"]
twin = "firmware"
[[metric]]
name = "temperature"
keys = ["temperature"]
"#;

const SHADOWS: &str = "[[sources]]\nname = \"shadows\"\nfilter = \"$aws/things/{device}/shadow/#\"\n\
                       decoder = \"aws_shadow\"\naws_shadow.answer = true\n";

/// A daemon with declared devices, lamp-1 and plain-1 without a template, between a broker and a database.
fn configured(broker: &str, database: &str, more: &str) -> Tidegate {
    let tidegate = Tidegate::configured(&(between(broker, database) + NATIVE + more));
    tidegate.catalog_file("templates/lamp.toml", LAMP);
    tidegate.catalog_file("devices/lamp-1.toml", "[[device]]\nuid = \"lamp-1\"\ntemplate = \"lamp\"\n");
    tidegate.catalog_file("devices/plain-1.toml", "[[device]]\nuid = \"plain-1\"\n");
    tidegate
}

fn start(tidegate: &mut Tidegate, environment: &[(&str, &str)]) {
    tidegate.start_with(environment);
    tidegate.listening();
    eventually("the database is open", || tidegate.said("database open"));
}

/// With mosquitto, and a SQLite file.
fn serving(more: &str) -> (Mosquitto, Tidegate, SocketAddr) {
    let broker = Mosquitto::plain();
    let mut tidegate = configured(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE, more);
    start(&mut tidegate, &[]);
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    (broker, tidegate, address)
}

fn twin(tidegate: &Tidegate, device: &str) -> Value {
    tidegate.json(&["devices", "twin", "show", device])
}

fn desire(tidegate: &Tidegate, device: &str, document: Value, more: &[&str]) -> Value {
    let document = document.to_string();
    let mut arguments = vec!["devices", "twin", "patch", device, &document];
    arguments.extend(more);
    tidegate.json(&arguments)
}

/// Hears all that is told of a device's twin, and does nothing.
fn watcher(broker: SocketAddr, id: &str, device: &str) -> Executor {
    Executor::start(
        broker,
        id,
        &[&format!("devices/{device}/twin/desired"), &format!("devices/{device}/twin/delta")],
        |_| Vec::new(),
    )
}

/// A lamp that does what its delta says, and reports it.
fn obedient(broker: SocketAddr, device: &str) -> Executor {
    Executor::start(broker, device, &[&format!("devices/{device}/twin/delta")], move |heard| {
        if heard.payload.is_empty() {
            return Vec::new();
        }
        let reported = heard.topic.replace("/delta", "/reported");
        vec![(reported, heard.json()["state"].to_string())]
    })
}

/// The last of what was heard on a topic's end; an empty payload is null.
fn last(executor: &Executor, end: &str) -> Option<Value> {
    let of = |heard: &Heard| match heard.payload.is_empty() {
        true => Value::Null,
        false => heard.json(),
    };
    executor.heard().iter().rev().find(|heard| heard.topic.ends_with(end)).map(of)
}

fn converges(broker: &str, address: SocketAddr, database: &str) {
    let mut tidegate = configured(broker, database, "");
    start(&mut tidegate, &[]);
    let set = tidegate.json(&["devices", "twin", "set", "lamp-1", r#"{"on": true, "settings": {"interval": 30}}"#]);
    assert_eq!((&set["version"], &set["delta"]["on"]), (&json!(1), &json!(true)), "{set}");
    eventually("it is published", || (twin(&tidegate, "lamp-1")["published"] == true).then_some(()));

    // Nobody was there: whoever comes finds it.
    let before = watcher(address, "before", "lamp-1");
    eventually("the wish", || {
        let delta = last(&before, "/delta")?;
        let desired = last(&before, "/desired")?;
        assert_eq!(delta["state"], json!({"on": true, "settings": {"interval": 30}}));
        assert_eq!(desired, json!({"version": 1, "state": {"on": true, "settings": {"interval": 30}}}));
        Some(())
    });
    let _lamp = obedient(address, "lamp-1");
    let done = eventually("nothing differs", || {
        let shown = twin(&tidegate, "lamp-1");
        (shown["delta"] == json!({})).then_some(shown)
    });
    assert_eq!((&done["version"], &done["reported"]["state"]["on"]), (&json!(2), &json!(true)), "{done}");
    assert!(done["convergence_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{done}");
    eventually("the delta is cleared", || (last(&before, "/delta")? == Value::Null).then_some(()));
    tidegate.wait_for_metric("tidegate_twin_convergence_seconds_count", 1.0);

    // After a restart nothing is there but what is so.
    start_again(&mut tidegate);
    let after = watcher(address, "after", "lamp-1");
    eventually("what is desired is still there", || last(&after, "/desired"));
    assert!(last(&after, "/delta").is_none_or(|delta| delta == Value::Null), "{:?}", after.heard());
    desire(&tidegate, "lamp-1", json!({"on": false}), &["--version", "2"]);
    eventually("the next wish is fulfilled too", || {
        let shown = twin(&tidegate, "lamp-1");
        (shown["reported"]["state"]["on"] == false && shown["delta"] == json!({})).then_some(())
    });
}

/// Waits until so many are counted of each reason, and sees that there are no more.
fn counts(tidegate: &Tidegate, refused: &[(&str, f64)]) {
    for (reason, times) in refused {
        let metric = format!("tidegate_twin_messages_refused_total{{reason=\"{reason}\"}}");
        tidegate.wait_for_metric(&metric, *times);
        assert_eq!(tidegate.metric(&metric), *times, "{reason}");
    }
}

fn start_again(tidegate: &mut Tidegate) {
    assert!(tidegate.stop().success());
    start(tidegate, &[]);
}

#[test]
fn a_wish_is_told_until_it_is_so_between_mosquitto_and_sqlite() {
    let broker = Mosquitto::plain();
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    converges(&format!("mqtt://{address}"), address, SQLITE);
}

#[test]
fn a_wish_is_told_until_it_is_so_between_mosquitto_and_postgresql() {
    let broker = Mosquitto::plain();
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    let (_database, url) = Stranger::on_shared_server();
    converges(&format!("mqtt://{address}"), address, &url);
}

#[cfg(feature = "embedded-broker")]
#[test]
fn a_wish_is_told_until_it_is_so_by_the_embedded_broker() {
    let address = SocketAddr::from(([127, 0, 0, 1], lasting_port()));
    converges(&format!("embedded://{address}"), address, SQLITE);
}

#[test]
fn a_device_that_asks_is_told_again_and_others_get_answers() {
    let (_broker, tidegate, address) = serving("");
    desire(&tidegate, "lamp-1", json!({"on": true}), &[]);
    eventually("it is published", || (twin(&tidegate, "lamp-1")["published"] == true).then_some(()));
    let lamp = watcher(address, "lamp", "lamp-1");
    eventually("the wish", || (last(&lamp, "/desired").is_some() && last(&lamp, "/delta").is_some()).then_some(()));
    let before = lamp.heard().len();
    lamp.publish("devices/lamp-1/twin/get", "", PublishProperties::default());
    eventually("both once more", || (lamp.heard().len() == before + 2).then_some(()));

    let program = Executor::start(address, "program", &["replies/ann"], |_| Vec::new());
    let asked = |number: usize, verb: &str, payload: &str| {
        let properties = PublishProperties {
            response_topic: Some("replies/ann".to_owned()),
            correlation_data: Some(Bytes::from(number.to_string())),
            ..PublishProperties::default()
        };
        program.publish(&format!("tidegate/twins/default/{verb}"), payload, properties);
        let heard = program.await_heard(number);
        assert_eq!(heard.properties.correlation_data, Some(Bytes::from(number.to_string())));
        heard.json()
    };
    let got = asked(0, "lamp-1/get", "");
    assert_eq!((&got["desired"]["state"], &got["version"]), (&json!({"on": true}), &json!(1)), "{got}");
    let patched = asked(1, "lamp-1/patch", r#"{"state": {"level": 4}, "version": 1}"#);
    assert_eq!(patched["desired"]["state"], json!({"on": true, "level": 4}), "{patched}");
    let replaced = asked(2, "lamp-1/set", r#"{"level": 5}"#);
    assert_eq!(replaced["desired"]["state"], json!({"level": 5}), "{replaced}");

    // Everything that is not right has its word.
    let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(1 << 20));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(12), "}".repeat(12));
    let very_deep = "[".repeat(100_000);
    for (number, (verb, payload, code, reason)) in [
        ("lamp-1/patch", r#"{"state": {"level": 6}, "version": 2}"#, 409, "conflict"),
        ("lamp-1/patch", r#"{"state": {"level": 6}, "version": 99}"#, 409, "conflict"),
        ("lamp-1/patch", "on", 400, "malformed"),
        ("lamp-1/patch", "[1]", 400, "malformed"),
        ("lamp-1/drop", "{}", 400, "malformed"),
        ("lamp-1/set", &large, 413, "too_large"),
        ("lamp-1/set", &deep, 400, "too_deep"),
        ("lamp-1/set", &very_deep, 413, "too_large"),
        ("lamp-2/set", "{}", 404, "unknown_device"),
        ("lamp-2/get", "", 404, "unknown_device"),
    ]
    .into_iter()
    .enumerate()
    {
        let error = asked(number + 3, verb, payload)["error"].take();
        assert_eq!((&error["code"], &error["reason"]), (&json!(code), &json!(reason)), "{verb} {payload:.40}");
        assert!(error["message"].as_str().is_some_and(|words| !words.is_empty()));
    }
    counts(&tidegate, &[("conflict", 2.0), ("too_large", 2.0), ("unknown_device", 2.0)]);
    assert_eq!(twin(&tidegate, "lamp-1")["version"], 3, "none of it has changed anything");
}

#[test]
fn reports_that_are_not_right_change_nothing_and_are_counted() {
    let (broker, tidegate, _) = serving("");
    broker.publish("devices/lamp-1/twin/reported", "half a doc", &["-q", "1"]);
    broker.publish("devices/stranger/twin/reported", r#"{"on":true}"#, &["-q", "1"]);
    broker.publish("devices//twin/reported", r#"{"on":true}"#, &["-q", "1"]);
    broker.publish("devices/lamp-1/twin/reported", r#"{"state":{"on":true},"version":7}"#, &["-q", "1"]);
    let long = format!("devices/{}/twin/reported", "x".repeat(5000));
    broker.publish(&long, r#"{"on":true}"#, &["-q", "1"]);
    // What tidegate says itself, and what is no twin's.
    broker.publish("devices/lamp-1/twin/delta", r#"{"state":{"on":false}}"#, &["-q", "1"]);
    broker.publish("devices/lamp-1/twin/reported", r#"{"on":true}"#, &["-q", "1"]);
    let shown = eventually("the good report", || {
        let shown = twin(&tidegate, "lamp-1");
        (shown["version"] == 1).then_some(shown)
    });
    assert_eq!(shown["reported"]["state"], json!({"on": true}));
    counts(&tidegate, &[("malformed", 1.0), ("conflict", 1.0), ("unknown_device", 3.0)]);
    assert!(!tidegate.output(&["devices", "list"]).contains("stranger"), "no report makes a device");
}

#[test]
fn people_and_programs_hear_of_conflicts_and_limits() {
    let (_broker, tidegate, _) = serving("[twins]\nmax_size = \"1KiB\"\n");
    let refused = |arguments: &[&str]| {
        let output = tidegate.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
        complaint(&output)
    };
    desire(&tidegate, "lamp-1", json!({"level": 1}), &[]);
    desire(&tidegate, "lamp-1", json!({"level": 2}), &["--version", "1"]);
    let large = json!({"a": "x".repeat(1100)}).to_string();
    let filling = json!({"a": "x".repeat(900)}).to_string();
    tidegate.json(&["devices", "twin", "set", "lamp-1", &filling]);
    for (arguments, words) in [
        (&["patch", "lamp-1", r#"{"level": 3}"#, "--version", "1"][..], "has changed since version 1"),
        (&["patch", "lamp-1", r#"{"level": 3}"#, "--version", "50"], "version 50 is yet to come, it is 3"),
        (&["patch", "lamp-1", "level=3"], "no JSON"),
        (&["patch", "lamp-1", "[]"], "no JSON object"),
        (&["set", "lamp-1", &large], "more than 1024 bytes"),
        (&["patch", "lamp-1", &filling.replace("\"a\"", "\"b\"")], "twins.max_size is 1024"),
        (&["set", "lamp-2", "{}"], "there is no device \"lamp-2\""),
        (&["show", "lamp-2"], "there is no device \"lamp-2\""),
        (&["set", "lamp-1", "{}", "--name", "a/b"], "name"),
    ] {
        let said = refused(&[&["devices", "twin"], arguments].concat());
        assert!(said.contains(words), "{arguments:?}: {said}");
    }

    let path = "/api/v1/devices/default/lamp-1/twin";
    let http = |method: &str, path: &str, headers: &[&str], body: &str| {
        let headers = [&["Content-Type: application/json"], headers].concat();
        ask(tidegate.address("http"), &Ask { method, path, headers: &headers, body })
    };
    let (status, set) = http("PUT", path, &[], r#"{"desired": {"level": 4}}"#);
    assert_eq!((status, &set["version"], &set["desired"]["state"]), (200, &json!(4), &json!({"level": 4})), "{set}");
    let get = Ask { method: "GET", path, headers: &[], body: "" };
    assert!(head_of(tidegate.address("http"), &get).to_lowercase().contains("etag: \"4\""));
    let (status, patched) = http("PATCH", path, &["If-Match: \"4\""], r#"{"desired": {"on": true}}"#);
    assert_eq!((status, &patched["delta"]), (200, &json!({"level": 4, "on": true})), "{patched}");
    for (method, path, headers, body, status, error) in [
        ("PATCH", path, &["If-Match: \"4\""][..], r#"{"desired": {"on": false}}"#, 409, "conflict"),
        ("PATCH", path, &[], r#"{"desired": {"on": false}, "version": 4}"#, 409, "conflict"),
        ("PATCH", path, &["If-Match: four"], r#"{"desired": {}}"#, 400, "bad_parameter"),
        ("PUT", path, &[], "{", 400, "bad_body"),
        ("PUT", path, &[], r#"{"state": {}}"#, 400, "bad_body"),
        ("PUT", path, &[], &format!(r#"{{"desired": {large}}}"#), 413, "too_large"),
        ("PUT", path, &[], &format!(r#"{{"desired": {{"a": "{}"}}}}"#, "x".repeat(1 << 20)), 413, "too_large"),
        ("PUT", "/api/v1/devices/default/lamp-2/twin", &[], r#"{"desired": {}}"#, 404, "unknown_device"),
        ("GET", "/api/v1/devices/other/lamp-1/twin", &[], "", 404, "unknown_device"),
        ("POST", path, &[], "{}", 405, "method_not_allowed"),
    ] {
        let (found, answer) = http(method, path, headers, body);
        assert_eq!((found, &answer["error"]), (status, &json!(error)), "{method} {path} {body:.60}: {answer}");
    }
    assert_eq!(twin(&tidegate, "lamp-1")["version"], 5);
}

#[test]
fn readings_are_reported_state_where_the_template_says_so() {
    let (broker, tidegate, address) = serving("");
    desire(&tidegate, "lamp-1", json!({"settings": {"interval": 30}, "on": false}), &[]);
    let watcher = watcher(address, "watcher", "lamp-1");
    broker.publish(
        "devices/lamp-1/telemetry",
        r#"{"interval": 60, "on": true, "fw": "1.2", "temperature": 20.5}"#,
        &["-q", "1"],
    );
    let shown = eventually("the readings", || {
        let shown = twin(&tidegate, "lamp-1");
        (shown["reported"]["version"] == 2).then_some(shown)
    });
    assert_eq!(shown["reported"]["state"], json!({"settings": {"interval": 60}, "on": true, "firmware": "1.2"}));
    assert_eq!(shown["delta"], json!({"settings": {"interval": 30}, "on": false}));
    // The same once more is no change, and what is older changes nothing.
    let now = jiff::Timestamp::now().as_second();
    broker.publish("devices/lamp-1/telemetry", r#"{"interval": 60, "temperature": 21.5}"#, &["-q", "1"]);
    broker.publish(
        "devices/lamp-1/telemetry",
        &json!({"ts": now - 3600, "values": {"interval": 30}}).to_string(),
        &["-q", "1"],
    );
    broker.publish("devices/lamp-1/telemetry", r#"{"on": false}"#, &["-q", "1"]);
    let shown = eventually("one of two is so", || {
        let shown = twin(&tidegate, "lamp-1");
        (shown["delta"] == json!({"settings": {"interval": 30}})).then_some(shown)
    });
    assert_eq!(shown["version"], 3, "{shown}");
    broker.publish("devices/lamp-1/telemetry", r#"{"interval": 30.0}"#, &["-q", "1"]);
    eventually("nothing differs", || (last(&watcher, "/delta")? == Value::Null).then_some(()));
    tidegate.wait_for_metric("tidegate_twin_convergence_seconds_count", 1.0);
}

/// The conversation of the developer guide, by a device that knows nothing of tidegate.
#[test]
fn a_device_of_aws_iot_finds_its_shadow() {
    let (_broker, tidegate, address) = serving(SHADOWS);
    let thing = Executor::start(
        address,
        "thing",
        &["$aws/things/plain-1/shadow/+/+", "$aws/things/plain-1/shadow/name/+/+/+"],
        |_| Vec::new(),
    );
    let mut number = 0;
    let mut next = |end: &str| {
        let heard = thing.await_heard(number);
        number += 1;
        assert!(heard.topic.ends_with(end), "{} {}", heard.topic, heard.json());
        heard.json()
    };
    let say = |rest: &str, payload: &str| {
        thing.publish(&format!("$aws/things/plain-1/shadow/{rest}"), payload, PublishProperties::default());
    };
    say("get", r#"{"clientToken": "first"}"#);
    let rejected = next("shadow/get/rejected");
    assert_eq!((&rejected["code"], &rejected["clientToken"]), (&json!(404), &json!("first")));

    say("update", r#"{"state": {"reported": {"interval": 60, "on": false}}, "clientToken": "a"}"#);
    let accepted = next("shadow/update/accepted");
    assert_eq!((&accepted["version"], &accepted["clientToken"]), (&json!(1), &json!("a")));
    assert!(accepted["metadata"]["reported"]["on"]["timestamp"].is_i64(), "{accepted}");
    assert_eq!(next("shadow/update/documents")["current"]["state"]["reported"]["interval"], 60);

    // By a person: the thing hears of it on its own topics.
    desire(&tidegate, "plain-1", json!({"on": true}), &[]);
    let delta = next("shadow/update/delta");
    assert_eq!((&delta["state"], &delta["version"]), (&json!({"on": true}), &json!(2)));
    assert_eq!(next("shadow/update/documents")["previous"]["version"], 1);

    say("update", r#"{"state": {"reported": {"on": true}}, "version": 1, "clientToken": "stale"}"#);
    let rejected = next("shadow/update/rejected");
    assert_eq!((&rejected["code"], &rejected["clientToken"]), (&json!(409), &json!("stale")));
    say("update", r#"{"state": {"reported": {"on": true}}, "version": 2}"#);
    assert_eq!(next("shadow/update/accepted")["version"], 3);
    next("shadow/update/documents");
    assert_eq!(twin(&tidegate, "plain-1")["delta"], json!({}));

    say("get", "");
    let got = next("shadow/get/accepted");
    assert_eq!(got["state"], json!({"desired": {"on": true}, "reported": {"interval": 60, "on": true}}), "{got}");

    // A named one is another.
    say("name/net/update", r#"{"state": {"desired": {"ssid": "x"}}}"#);
    assert_eq!(next("shadow/name/net/update/accepted")["version"], 1);
    assert_eq!(next("shadow/name/net/update/delta")["state"], json!({"ssid": "x"}));
    next("shadow/name/net/update/documents");
    say("name/net/delete", "");
    next("shadow/name/net/delete/accepted");
    say("name/net/get", "");
    assert_eq!(next("shadow/name/net/get/rejected")["code"], 404);

    let large = format!(r#"{{"state": {{"desired": {{"a": "{}"}}}}}}"#, "x".repeat(1 << 20));
    for (payload, code) in [("half", 400), (r#"{"state": []}"#, 400), ("{}", 400), (large.as_str(), 413)] {
        say("update", payload);
        assert_eq!(next("shadow/update/rejected")["code"], code, "{payload:.40}");
    }
    thing.publish("$aws/things/nobody/shadow/get", "", PublishProperties::default());
    say("delete", r#"{"clientToken": "end"}"#);
    let deleted = next("shadow/delete/accepted");
    assert_eq!((&deleted["version"], &deleted["clientToken"]), (&json!(4), &json!("end")));
    say("get", "");
    assert_eq!(next("shadow/get/rejected")["code"], 404);
    // What was reported is a reading once, though its answers came by too.
    let readings = tidegate.json(&["readings", "plain-1", "--metric", "interval"]);
    assert_eq!(readings.as_array().map(Vec::len), Some(1), "{readings}");
}

#[test]
fn nothing_is_told_of_a_device_that_is_out_of_use_or_gone() {
    let broker = Mosquitto::start(Setup { persistent: true, ..Setup::default() });
    let mut tidegate = configured(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE, "");
    start(&mut tidegate, &[]);
    let database = Stranger::of_file(&tidegate);
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    desire(&tidegate, "lamp-1", json!({"on": true}), &[]);
    let watcher = watcher(address, "watcher", "lamp-1");
    eventually("the wish", || (last(&watcher, "/delta")?["state"]["on"] == true).then_some(()));
    tidegate.output(&["devices", "status", "lamp-1", "--retired"]);
    let is_cleared =
        || (last(&watcher, "/delta")? == Value::Null && last(&watcher, "/desired")? == Value::Null).then_some(());
    eventually("it is cleared", is_cleared);
    let output = tidegate.command(&["devices", "twin", "patch", "lamp-1", "{}"]).output().unwrap();
    assert!(complaint(&output).contains("retired"), "{}", complaint(&output));
    tidegate.output(&["devices", "status", "lamp-1", "--active"]);
    eventually("it is told again", || (last(&watcher, "/delta")?["state"]["on"] == true).then_some(()));
    // As a person would: no file declares it any more.
    database.ask("PRAGMA foreign_keys = ON; DELETE FROM device_sensors; DELETE FROM devices WHERE uid = 'lamp-1'");
    eventually("it is cleared for good", is_cleared);
    assert_eq!(database.number("SELECT count(*) FROM device_twins"), 0);
}

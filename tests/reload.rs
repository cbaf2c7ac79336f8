//! Changes reach the running daemon without a message lost or reordered.

use std::time::{Duration, Instant};

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::load::{METRICS, Simulation, sent};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

/// A broker that holds whatever tidegate has not taken yet.
fn patient() -> Mosquitto {
    Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() })
}

fn configuration(broker: &Mosquitto) -> String {
    between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE)
}

/// The numbers of the simulated devices, multiplied.
fn numbers(scale: u32) -> String {
    let metric =
        |n: usize| format!("[[metric]]\nname = \"m{n}\"\nkind = \"number\"\nkeys = [\"m{n}\"]\nscale = {scale}\n");
    let metrics: String = (1..=METRICS).map(metric).collect();
    format!("slug = \"numbers\"\nname = \"Numbers\"\ncategory = \"sensor\"\nversion = {scale}\n{metrics}")
}

fn with_numbers(broker: &Mosquitto) -> Tidegate {
    let toml = configuration(broker) + NATIVE + "template = \"numbers\"\n";
    let tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("templates/numbers.toml", &numbers(1));
    tidegate
}

/// A gauge with one metric, `level`, between 0 and `high`.
fn gauge(high: u32) -> String {
    format!(
        "slug = \"gauge\"\nname = \"Gauge\"\ncategory = \"sensor\"\nversion = 1\n\
         [[metric]]\nname = \"level\"\nunit = \"m\"\nkind = \"number\"\nkeys = [\"lvl\"]\nrange = [0, {high}]\n"
    )
}

#[test]
fn changed_templates_apply_under_load_without_a_message_lost_or_reordered() {
    let broker = patient();
    let mut tidegate = with_numbers(&broker);
    tidegate.start();
    tidegate.listening();
    // Devices that were held make up for it at once: what is left after the first change must outlast the second one.
    let simulation = Simulation::numbers(broker.port, 5000, &["--rate", "500"]);
    let scales = [1, 10, 100];
    for (scale, most) in scales[1..].iter().zip([2500.0, 4000.0]) {
        let stored = tidegate.metric("tidegate_readings_stored_total");
        tidegate.wait_for_metric("tidegate_readings_stored_total", stored + 1000.0);
        tidegate.catalog_file("templates/numbers.toml", &numbers(*scale));
        let reloads = tidegate.metric("tidegate_catalog_reloads_total");
        tidegate.signal("HUP");
        simulation.lasts_until(&tidegate, most, "the new template is in force", || {
            tidegate.metric("tidegate_catalog_reloads_total") > reloads
        });
    }
    simulation.finish();
    let stranger = Stranger::of_file(&tidegate);
    stranger.wait_for_rows(5000 * METRICS as u64);
    assert!(tidegate.stop().success());
    let (found, sent) = (stranger.series(), sent(5000));
    assert_eq!(found.keys().collect::<Vec<_>>(), sent.keys().collect::<Vec<_>>());
    for (sensor, sent) in sent {
        let found = &found[&sensor];
        assert_eq!(found.len(), sent.len(), "{sensor:?}");
        let mut at = 0;
        for (found, sent) in found.iter().zip(sent) {
            let fits = |scale: &u32| (found - sent * f64::from(*scale)).abs() <= found.abs() * 1e-9;
            at = (at..scales.len())
                .find(|at| fits(&scales[*at]))
                .unwrap_or_else(|| panic!("{sensor:?}: {found} of {sent}"));
        }
        assert_eq!(at, scales.len() - 1, "the last template came to {sensor:?}");
    }
}

#[test]
fn new_filters_are_subscribed_and_old_ones_given_up() {
    let broker = patient();
    let source = |filter: &str| configuration(&broker) + &NATIVE.replace("devices/", filter);
    let mut tidegate = Tidegate::configured(&source("old/"));
    tidegate.start();
    tidegate.listening();
    broker.publish("old/one/telemetry", "{\"a\":1}", &["-q", "1"]);
    let stranger = Stranger::of_file(&tidegate);
    stranger.wait_for_rows(1);
    tidegate.configure(&source("new/"));
    assert!(tidegate.reload());
    eventually("the old filter is given up", || tidegate.said("unsubscribed"));
    broker.publish("old/two/telemetry", "{\"a\":2}", &["-q", "1"]);
    eventually("the new filter is heard", || {
        broker.publish("new/three/telemetry", "{\"a\":3}", &["-q", "1"]);
        (tidegate.metric("tidegate_readings_stored_total") > 1.0).then_some(())
    });
    assert!(tidegate.metric("tidegate_messages_received_total") >= 2.0);
    let connects = tidegate.metric("tidegate_broker_connects_total");
    assert_eq!(connects, 1.0, "the connection was kept");
    assert!(tidegate.stop().success());
    assert_eq!(stranger.ask("SELECT DISTINCT device FROM readings ORDER BY device"), "one\nthree");
    assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);
}

#[cfg(feature = "embedded-broker")]
#[test]
fn the_first_message_of_a_new_source_is_read_by_it() {
    let embedded = || between("embedded://127.0.0.1:0", SQLITE);
    let mut tidegate = Tidegate::configured(&(embedded() + NATIVE));
    tidegate.start();
    let stranger = Stranger::of_file(&tidegate);
    let bench = "[[sources]]\nname = \"bench\"\nfilter = \"bench/{device}/{metric...}\"\ndecoder = \"scalar\"\n";
    let port = tidegate.address("broker").port();
    let simulation = Simulation::start(port, &["--format", "scalar", "--messages", "6000", "--rate", "600"]);
    // The embedded broker takes these from the moment that the source is in force, and not a message earlier.
    eventually("devices publish", || (tidegate.metric("tidegate_broker_connected") > 0.0).then_some(()));
    tidegate.configure(&(embedded() + NATIVE + bench));
    assert!(tidegate.reload());
    simulation.finish();
    let taken = tidegate.metric("tidegate_messages_received_total");
    assert!(taken > 0.0);
    tidegate.wait_for_metric("tidegate_journal_messages_total", taken);
    assert!(tidegate.stop().success());
    assert_eq!(stranger.ask("SELECT DISTINCT reason FROM quarantine_events"), "");
    assert_eq!(stranger.rows() as f64, taken);
}

#[test]
fn what_cannot_change_live_is_named_and_the_rest_applies() {
    let broker = patient();
    let mut tidegate = with_numbers(&broker);
    tidegate.start();
    tidegate.listening();
    let changed = configuration(&broker).replace("[instance]\n", "[instance]\ndrain_timeout = \"20s\"\n")
        + "[journal]\nretain = \"1h\"\n[metrics]\nunmodeled = \"drop\"\n"
        + NATIVE
        + "template = \"numbers\"\n";
    tidegate.configure(&changed);
    assert!(tidegate.reload());
    let log = tidegate.log();
    let named = |section: &str| {
        log.contains("takes effect at the next start") && log.contains(&format!("\"section\":\"{section}\""))
    };
    assert!(named("instance") && named("journal") && !named("broker"), "{log}");
    broker.publish("devices/one/telemetry", "{\"m1\":1,\"other\":2}", &["-q", "1"]);
    let stranger = Stranger::of_file(&tidegate);
    stranger.wait_for_rows(1);
    tidegate.wait_for_metric("tidegate_unmodeled_dropped_total", 1.0);
    assert_eq!(stranger.ask("SELECT metric FROM readings"), "m1");
}

#[test]
fn a_faulty_file_leaves_the_old_configuration_in_force() {
    let broker = patient();
    let mut tidegate = with_numbers(&broker);
    tidegate.start();
    tidegate.listening();
    let good = configuration(&broker) + NATIVE + "template = \"numbers\"\n";
    tidegate.configure(&good.replace("decoder = \"json\"", "decodr = \"json\""));
    assert!(!tidegate.reload());
    let log = tidegate.log();
    assert!(log.contains("tidegate.toml:") && log.contains("decodr") && log.contains("did you mean"), "{log}");
    assert_eq!(tidegate.metric("tidegate_reload_errors_total"), 1.0);
    tidegate.configure(&good);
    tidegate.catalog_file("templates/numbers.toml", &numbers(2).replace("kind = \"number\"", "kind = \"numbr\""));
    assert!(!tidegate.reload());
    assert!(tidegate.log().contains("numbers.toml:"), "{}", tidegate.log());
    assert_eq!(tidegate.metric("tidegate_reload_errors_total"), 2.0);
    broker.publish("devices/one/telemetry", "{\"m1\":7}", &["-q", "1"]);
    let stranger = Stranger::of_file(&tidegate);
    stranger.wait_for_rows(1);
    assert_eq!(stranger.ask("SELECT value FROM readings"), "7.0", "still the old scale");
    tidegate.catalog_file("templates/numbers.toml", &numbers(2));
    assert!(tidegate.reload());
    broker.publish("devices/one/telemetry", "{\"m1\":7}", &["-q", "1"]);
    stranger.wait_for_rows(2);
    assert_eq!(stranger.ask("SELECT value FROM readings ORDER BY time DESC LIMIT 1"), "14.0");
}

#[test]
fn a_running_daemon_sees_what_another_program_migrates() {
    let broker = patient();
    let mut tidegate = with_numbers(&broker);
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    broker.publish("devices/one/telemetry", "{\"m1\":7}", &["-q", "1"]);
    stranger.wait_for_rows(1);
    let swapped = tidegate.metric("tidegate_catalog_reloads_total");
    tidegate.catalog_file("templates/numbers.toml", &numbers(3));
    let began = Instant::now();
    let report = tidegate.json(&["migrate"]);
    assert_eq!(report["templates"]["changed"], serde_json::json!(["numbers"]), "{report}");
    tidegate.wait_for_metric("tidegate_catalog_reloads_total", swapped + 1.0);
    assert!(began.elapsed() < Duration::from_secs(20), "within seconds, even on a busy machine");
    broker.publish("devices/one/telemetry", "{\"m1\":7}", &["-q", "1"]);
    stranger.wait_for_rows(2);
    assert_eq!(stranger.ask("SELECT value FROM readings ORDER BY time"), "7.0\n21.0");
}

#[test]
fn a_template_that_another_program_retires_does_not_end_a_daemon_that_names_it() {
    let broker = patient();
    let mut tidegate = with_numbers(&broker);
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || (tidegate.readyz().1["database"] == "up").then_some(()));
    let without = Tidegate::configured(&(configuration(&broker) + NATIVE));
    let database = format!("sqlite:{}", tidegate.state_dir().join("tidegate.db").display());
    let output = without.command(&["migrate"]).env("TIDEGATE_DATABASE__URL", &database).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    tidegate.wait_for_metric("tidegate_reload_errors_total", 1.0);
    assert!(tidegate.log().contains("numbers"), "it is named");
    broker.publish("devices/one/telemetry", "{\"m1\":7}", &["-q", "1"]);
    let stranger = Stranger::of_file(&tidegate);
    stranger.wait_for_rows(1);
    assert!(tidegate.stop().success());
}

#[test]
fn a_retry_after_the_template_is_mended_stores_readings_at_their_original_time() {
    let broker = patient();
    let (stranger, url) = Stranger::on_shared_server();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), &url) + NATIVE + "template = \"gauge\"\n";
    let mut tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("templates/gauge.toml", &gauge(10));
    tidegate.start();
    tidegate.listening();
    broker.publish("devices/well/telemetry", "{\"lvl\":21.5}", &["-q", "1"]);
    broker.publish("devices/well/telemetry", "{\"ts\":1700000000000,\"values\":{\"lvl\":22.5}}", &["-q", "1"]);
    broker.publish("devices/well/telemetry", "{\"lvl\":99}", &["-q", "1"]);
    broker.publish("devices/well/telemetry", "{\"lvl\":5}", &["-q", "1"]);
    stranger.wait_for_rows(1);
    let held = tidegate.json(&["quarantine", "list"]);
    let reasons: Vec<&str> = held.as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["out_of_range"; 3], "{held}");

    tidegate.catalog_file("templates/gauge.toml", &gauge(50));
    assert!(tidegate.reload());
    let outcome = tidegate.json(&["quarantine", "retry", "--reason", "out_of_range"]);
    let expected = serde_json::json!({"messages": 3, "stored": 2, "duplicates": 0, "refused": 1});
    assert_eq!(outcome, expected);
    let times =
        "SELECT count(*) FROM readings r JOIN quarantine_messages m ON m.received_at = r.time WHERE r.value = 21.5";
    assert_eq!(stranger.number(times), 1, "the time of its receipt");
    let own = "SELECT extract(epoch FROM time)::bigint FROM readings WHERE value = 22.5";
    assert_eq!(stranger.number(own), 1_700_000_000, "the time that the device gave");
    let left = tidegate.json(&["quarantine", "list"]);
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["key"], "lvl");
    // The daemon and the retry agree on the device.
    broker.publish("devices/well/telemetry", "{\"lvl\":49}", &["-q", "1"]);
    stranger.wait_for_rows(4);
    assert_eq!(stranger.number("SELECT count(*) FROM devices"), 1);
    assert_eq!(stranger.number("SELECT last_value::int FROM device_sensors"), 49);
}

#[test]
fn a_retry_of_an_unknown_device_provisions_it_beside_the_running_daemon() {
    let broker = patient();
    let policy = |unknown: &str| configuration(&broker) + NATIVE + &format!("[devices]\nunknown = \"{unknown}\"\n");
    let mut tidegate = Tidegate::configured(&policy("quarantine"));
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    broker.publish("devices/new/telemetry", "{\"a\":1}", &["-q", "1"]);
    eventually("it is in quarantine", || {
        (tidegate.metric("tidegate_quarantined_total{reason=\"unknown_device\"}") > 0.0
            && tidegate.metric("tidegate_journal_lag_messages") == 0.0)
            .then_some(())
    });
    tidegate.configure(&policy("provision"));
    assert_eq!(tidegate.json(&["quarantine", "retry"])["stored"], 1);
    // The daemon has not been told of the policy, and knows the device all the same: within a second or so.
    let swapped = "the catalog was swapped";
    eventually(swapped, || (tidegate.metric("tidegate_catalog_reloads_total") > 0.0).then_some(()));
    broker.publish("devices/new/telemetry", "{\"a\":2,\"b\":3}", &["-q", "1"]);
    stranger.wait_for_rows(3);
    assert_eq!(stranger.ask("SELECT count(*) FROM devices"), "1");
    assert_eq!(stranger.ask("SELECT metric, value FROM readings ORDER BY time, metric"), "a|1.0\na|2.0\nb|3.0");
}

#[test]
fn what_should_be_put_right_is_said_at_the_start_at_a_reload_and_by_check() {
    let broker = patient();
    let sources = configuration(&broker) + NATIVE;
    let mut tidegate = Tidegate::configured(&sources);
    let waiting = |version: u32, matching: &str| {
        format!("slug = \"hope\"\nversion = {version}\n[match]\n{matching}\n[[metric]]\nname = \"m\"\nunit = \"m\"\n")
    };
    let rule = |text: &str| {
        format!("slug = \"r\"\nseverity = \"info\"\nscope.template = \"{text}\"\nwhen = {{ metric = \"m\", gt = 1 }}\n")
    };
    let checked = |tidegate: &Tidegate| complaint(&tidegate.command(&["check"]).output().unwrap());
    let mut told = Vec::new();
    let mut expect = |tidegate: &Tidegate, words: &str| {
        assert!(checked(tidegate).contains(words), "check: {}", checked(tidegate));
        eventually(words, || tidegate.said(words));
        told.push(words.to_owned());
        // Each once, and nothing that was put right.
        for words in &told {
            assert_eq!(tidegate.log().matches(words.as_str()).count(), 1, "{words}: {}", tidegate.log());
        }
    };
    tidegate.catalog_file("templates/hope.toml", &waiting(1, "source = [\"natvie\"]"));
    tidegate.start();
    tidegate.listening();
    expect(&tidegate, "hope.toml:4: match.source: there is no source");
    for (file, text, words) in [
        (
            "templates/hope.toml",
            waiting(2, "decoder = [\"victron\"]"),
            "hope.toml:3: match: can never match: no source has the decoder victron",
        ),
        (
            "templates/hope.toml",
            waiting(3, "topic = [\"factory/#\"]"),
            "hope.toml:3: match: can never match: no source hears topics of factory/#",
        ),
    ] {
        tidegate.catalog_file(file, &text);
        assert!(tidegate.reload(), "{}", tidegate.log());
        expect(&tidegate, words);
    }
    tidegate.catalog_file("templates/hope.toml", &waiting(4, "device = [\"d*\"]"));
    tidegate.catalog_file("rules/r.toml", &rule("hop"));
    assert!(tidegate.reload(), "{}", tidegate.log());
    expect(&tidegate, "scope.template: there is no template");
    tidegate.catalog_file("rules/r.toml", &rule("hope"));
    assert!(tidegate.reload());
    assert!(!checked(&tidegate).contains("warning"), "{}", checked(&tidegate));
    let same_version = "template hope: its content has changed under the same version 4";
    assert!(tidegate.said(same_version).is_none());
    tidegate.catalog_file("templates/hope.toml", &waiting(4, "device = [\"e*\"]"));
    assert!(tidegate.reload());
    eventually("other content under one version is said", || tidegate.said(same_version));
    assert!(tidegate.stop().success());
}

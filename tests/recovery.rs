//! Whatever is killed under load, the rows are exact afterwards.

use serde_json::Value;

use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::load::{METRICS, Simulation, sent};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::postgres::Postgres;
use crate::support::stranger::{SQLITE, Stranger, unordered};

const ROWS: u64 = METRICS as u64;

/// Holds whatever tidegate has not acknowledged, however much.
fn patient() -> Setup {
    Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() }
}

fn configuration(broker: &Mosquitto, database: &str) -> String {
    between(&format!("mqtt://127.0.0.1:{}", broker.port), database)
        .replace("[database]\n", "[database]\nconnect_timeout = \"2s\"\n")
}

fn on(broker: &Mosquitto, database: &str) -> Tidegate {
    Tidegate::configured(&(configuration(broker, database) + NATIVE))
}

/// Waits for the rows, ends tidegate orderly, and compares every value.
fn settle(mut tidegate: Tidegate, stranger: &Stranger, messages: u64) {
    stranger.wait_for_rows(messages * ROWS);
    assert!(tidegate.stop().success());
    assert!(unordered(stranger.series()) == unordered(sent(messages)), "every value exactly once");
    assert_eq!(stranger.number("SELECT count(*) FROM quarantine_events"), 0);
}

/// Kills tidegate several times while devices publish.
fn kill_under_load(tidegate: &mut Tidegate, simulation: &Simulation, times: u32) {
    for _ in 0..times {
        tidegate.wait_for_metric("tidegate_readings_stored_total", 1000.0);
        tidegate.kill();
        start_again(tidegate, simulation);
    }
}

/// Devices wait until it stores again, however long that takes, so that they are not done before what comes next.
fn start_again(tidegate: &mut Tidegate, simulation: &Simulation) {
    simulation.hold();
    tidegate.start();
    eventually("the database is open", || (tidegate.readyz().1["database"] == "up").then_some(()));
    simulation.go_on();
}

#[test]
fn killed_under_load_with_mosquitto_nothing_is_lost_or_doubled() {
    let broker = Mosquitto::start(patient());
    for on_postgres in [false, true] {
        let on_server = on_postgres.then(Stranger::on_shared_server);
        let mut tidegate = on(&broker, on_server.as_ref().map_or(SQLITE, |(_, url)| url));
        tidegate.start();
        tidegate.listening();
        let stranger = on_server.map_or_else(|| Stranger::of_file(&tidegate), |(stranger, _)| stranger);
        let simulation = Simulation::numbers(broker.port, 4000, &["--rate", "500"]);
        kill_under_load(&mut tidegate, &simulation, 3);
        simulation.finish();
        settle(tidegate, &stranger, 4000);
    }
}

#[cfg(feature = "embedded-broker")]
#[test]
fn killed_under_load_the_embedded_broker_has_every_message_it_acknowledged_exactly_once() {
    use crate::support::daemon::lasting_port;
    let port = lasting_port();
    let mut tidegate = Tidegate::configured(&(between(&format!("embedded://127.0.0.1:{port}"), SQLITE) + NATIVE));
    tidegate.start();
    let stranger = Stranger::of_file(&tidegate);
    let simulation = Simulation::numbers(port, 4000, &["--rate", "500"]);
    kill_under_load(&mut tidegate, &simulation, 3);
    let summary = simulation.finish();
    assert_eq!(summary["acknowledged"], 4000);
    assert!(summary["connects"].as_u64().unwrap() > 4, "it was away: {summary}");
    settle(tidegate, &stranger, 4000);
}

#[test]
fn sigterm_under_load_drains_and_the_restart_repeats_nothing() {
    let broker = Mosquitto::start(patient());
    let mut tidegate = on(&broker, SQLITE);
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    let simulation = Simulation::numbers(broker.port, 3000, &["--rate", "400"]);
    for _ in 0..2 {
        tidegate.wait_for_metric("tidegate_readings_stored_total", 500.0);
        assert!(tidegate.stop().success(), "{}", tidegate.log());
        let journal = tidegate.json(&["journal", "status"]);
        assert_eq!(journal["lag"], 0, "{journal}");
        assert_eq!(stranger.rows(), journal["last_seq"].as_u64().unwrap() * ROWS, "all that is journalled is stored");
        start_again(&mut tidegate, &simulation);
    }
    simulation.finish();
    stranger.wait_for_rows(3000 * ROWS);
    for nothing in ["readings_duplicate", "redeliveries_recognised", "acknowledgements_stale"] {
        assert_eq!(tidegate.metric(&format!("tidegate_{nothing}_total")), 0.0, "{nothing}");
    }
    settle(tidegate, &stranger, 3000);
}

#[cfg(feature = "embedded-broker")]
#[test]
fn sigterm_under_load_with_the_embedded_broker_drains_what_it_acknowledged() {
    use crate::support::daemon::lasting_port;
    let port = lasting_port();
    let mut tidegate = Tidegate::configured(&(between(&format!("embedded://127.0.0.1:{port}"), SQLITE) + NATIVE));
    tidegate.start();
    let stranger = Stranger::of_file(&tidegate);
    let simulation = Simulation::numbers(port, 3000, &["--rate", "400"]);
    for _ in 0..2 {
        tidegate.wait_for_metric("tidegate_readings_stored_total", 500.0);
        assert!(tidegate.stop().success(), "{}", tidegate.log());
        assert_eq!(tidegate.json(&["journal", "status"])["lag"], 0);
        start_again(&mut tidegate, &simulation);
    }
    simulation.finish();
    stranger.wait_for_rows(3000 * ROWS);
    assert_eq!(tidegate.metric("tidegate_readings_duplicate_total"), 0.0);
    settle(tidegate, &stranger, 3000);
}

/// A server of its own with an empty database `bridge`.
fn killable() -> (Postgres, Stranger) {
    let server = Postgres::start(true);
    Stranger::Postgres(server.url("postgres"), None).ask("CREATE DATABASE bridge");
    let stranger = Stranger::Postgres(server.url("bridge"), None);
    (server, stranger)
}

#[test]
fn a_database_that_dies_under_load_is_not_noticed_by_devices() {
    let (server, stranger) = killable();
    let broker = Mosquitto::start(patient());
    let mut tidegate = on(&broker, &server.url("bridge"));
    tidegate.start();
    tidegate.listening();
    for outage in 1..=2 {
        let stored = tidegate.metric("tidegate_readings_stored_total");
        let simulation = Simulation::numbers(broker.port, 1000, &["--rate", "1000"]);
        tidegate.wait_for_metric("tidegate_readings_stored_total", stored + 500.0);
        server.kill();
        simulation.finish();
        // These at least can't be stored.
        let simulation = Simulation::numbers(broker.port, 1000, &["--rate", "1000"]);
        eventually("the outage is seen", || (tidegate.readyz().1["database"] == "down").then_some(()));
        assert_eq!(tidegate.metric("tidegate_database_connected"), 0.0);
        simulation.finish();
        tidegate.wait_for_metric("tidegate_messages_acknowledged_total", f64::from(outage) * 2000.0);
        let (status, report) = tidegate.readyz();
        assert_eq!((status, &report["ready"], &report["database"]), (200, &Value::Bool(true), &"down".into()));
        server.restart();
        eventually("it is connected again", || (tidegate.readyz().1["database"] == "up").then_some(()));
    }
    stranger.wait_for_rows(2 * 2000 * ROWS);
    assert!(tidegate.stop().success());
    let mut all = sent(1000);
    all.values_mut().for_each(|values| *values = values.repeat(4));
    assert!(stranger.series() == all, "every value exactly once, in order");
}

#[test]
fn started_without_its_database_tidegate_journals_at_once_and_stores_when_it_comes() {
    let (server, stranger) = killable();
    server.stop();
    let broker = Mosquitto::start(patient());
    let mut tidegate = on(&broker, &server.url("bridge"));
    tidegate.start();
    tidegate.listening();
    Simulation::numbers(broker.port, 500, &[]).finish();
    tidegate.wait_for_metric("tidegate_messages_acknowledged_total", 500.0);
    assert_eq!(tidegate.metric("tidegate_journal_messages_total"), 500.0);
    let (status, report) = tidegate.readyz();
    assert_eq!((status, &report["database"]), (200, &"down".into()));
    assert!(tidegate.metric("tidegate_database_errors_total") > 0.0);
    // What is journalled survives tidegate's own end meanwhile.
    tidegate.kill();
    tidegate.start();
    server.restart();
    settle(tidegate, &stranger, 500);
}

#[test]
fn a_full_journal_makes_the_broker_hold_the_messages_until_the_database_is_back() {
    let (server, stranger) = killable();
    let broker = Mosquitto::start(patient());
    let toml = configuration(&broker, &server.url("bridge")).replace("[broker]\n", "[broker]\nreceive_maximum = 100\n");
    let mut tidegate = Tidegate::configured(&(toml + "[journal]\nmax_size = \"1MiB\"\nretain = \"0s\"\n" + NATIVE));
    tidegate.start();
    tidegate.listening();
    eventually("the database is open", || (tidegate.readyz().1["database"] == "up").then_some(()));
    server.kill();
    let ballast = "x".repeat(2000);
    let lines: Vec<String> = (1..=1000).map(|n| format!("{{\"n\":{n},\"ballast\":\"{ballast}\"}}")).collect();
    broker.publish_lines("devices/ship/telemetry", &lines);
    tidegate.wait_for_metric("tidegate_journal_full", 1.0);
    assert!(tidegate.metric("tidegate_journal_size_bytes") < 1.25 * f64::from(1 << 20), "it keeps to its limit");
    let (status, report) = tidegate.readyz();
    assert_eq!((status, &report["journal"]), (503, &"full".into()));
    assert!(tidegate.metric("tidegate_messages_acknowledged_total") < 700.0, "the rest is the broker's");
    server.restart();
    tidegate.wait_for_metric("tidegate_messages_acknowledged_total", 1000.0);
    eventually("it is ready again", || (tidegate.readyz().0 == 200).then_some(()));
    assert_eq!(tidegate.metric("tidegate_journal_full"), 0.0);
    stranger.wait_for_rows(2000);
    assert!(tidegate.stop().success());
    let exact = "SELECT count(*), count(DISTINCT value), sum(value) FROM readings WHERE metric = 'n'";
    assert_eq!(stranger.ask(exact), "1000|1000|500500");
    let in_order = "SELECT count(*) FROM (SELECT value - lag(value) OVER (ORDER BY time) AS step FROM readings \
                    WHERE metric = 'n') steps WHERE step <> 1";
    assert_eq!(stranger.number(in_order), 0);
}

#[test]
fn a_broker_that_dies_and_returns_is_heard_again_with_what_it_had_kept() {
    let mut broker = Mosquitto::start(Setup { persistent: true, ..patient() });
    let mut tidegate = on(&broker, SQLITE);
    tidegate.start();
    tidegate.listening();
    let stranger = Stranger::of_file(&tidegate);
    // Its file is written after each change, which is too slow for more.
    let publish = |broker: &Mosquitto, from: u64| {
        let lines: Vec<String> = (from..from + 50).map(|n| format!("{{\"n\":{n}}}")).collect();
        broker.publish_lines("devices/pump/telemetry", &lines);
    };
    publish(&broker, 0);
    stranger.wait_for_rows(50);
    broker.kill();
    eventually("the loss is seen", || (tidegate.readyz().0 == 503).then_some(()));
    broker.restart();
    tidegate.listening();
    publish(&broker, 50);
    stranger.wait_for_rows(100);

    // What it acknowledged to a device while tidegate was away comes from its file.
    assert!(tidegate.stop().success());
    publish(&broker, 100);
    broker.stop();
    broker.restart();
    tidegate.start();
    stranger.wait_for_rows(150);
    assert!(tidegate.stop().success());
    assert_eq!(stranger.ask("SELECT count(*), count(DISTINCT value), sum(value) FROM readings"), "150|150|11175.0");
}

#[test]
fn the_retained_status_tells_whether_tidegate_is_there() {
    let broker = Mosquitto::start(patient());
    let mut tidegate = on(&broker, SQLITE);
    let status = |wanted: &str| {
        eventually(wanted, || (broker.read_one("tidegate/status/test").as_deref() == Some(wanted)).then_some(()));
    };
    for kill in [false, true] {
        tidegate.start();
        status("online");
        if kill {
            tidegate.kill()
        } else {
            assert!(tidegate.stop().success())
        }
        status("offline");
    }
}

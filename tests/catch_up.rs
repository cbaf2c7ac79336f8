//! How far the database is behind, and how it catches up, can be seen from outside.

use diesel::connection::SimpleConnection;

use crate::support::daemon::{Tidegate, eventually};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::postgres;

#[test]
fn a_database_that_takes_nothing_shows_in_metrics_and_status_and_its_catching_up_in_the_log() {
    // Else it drops what a slow reader has not taken.
    let unbounded = Setup { extra: "max_queued_messages 0".into(), ..Setup::default() };
    let (broker, server) = (Mosquitto::start(unbounded), postgres::shared());
    let url = server.database();
    let mut tidegate = Tidegate::configured(&format!(
        r#"
[instance]
state_dir = "{{state}}"
[broker]
url = "mqtt://127.0.0.1:{}"
[database]
url = "{url}"
batch_max = 100
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
"#,
        broker.port
    ));
    tidegate.start();
    tidegate.listening();
    broker.publish("devices/d1/telemetry", "{\"temp\": 1}", &["-q", "1"]);
    eventually("the first is stored", || (tidegate.metric("tidegate_readings_stored_total") == 1.0).then_some(()));
    assert_eq!(tidegate.metric("tidegate_journal_lag_seconds"), 0.0);

    let database = url.rsplit('/').next().unwrap();
    let mut blocker = server.connect(database);
    blocker.batch_execute("BEGIN; LOCK TABLE telemetry IN EXCLUSIVE MODE").unwrap();
    let lines: Vec<String> = (0..3000).map(|n| format!("{{\"temp\": {n}}}")).collect();
    broker.publish_lines("devices/d1/telemetry", &lines);
    eventually("all are journalled", || (tidegate.metric("tidegate_journal_messages_total") == 3001.0).then_some(()));
    let status = tidegate.json(&["journal", "status"]);
    assert_eq!((&status["committed"], &status["lag"]), (&1.into(), &3000.into()), "{status}");
    assert_eq!((&status["committed_per_second"], &status["seconds_left"]), (&0.0.into(), &serde_json::Value::Null));
    assert!(tidegate.output(&["journal", "status"]).contains("nothing committed for now"));
    // Behind is what the database has not reached ten seconds later.
    eventually("it is old", || (tidegate.metric("tidegate_journal_lag_seconds") >= 11.0).then_some(()));

    blocker.batch_execute("ROLLBACK").unwrap();
    let behind = eventually("catching up is told", || tidegate.said("catching up with the journal"));
    assert!(behind["behind"].as_u64().is_some_and(|behind| behind > 1000 && behind < 3000), "{behind}");
    assert_eq!(behind["last"], 3001);
    let done = eventually("its end is told", || tidegate.said("caught up with the journal"));
    assert!(done["messages"].as_u64().is_some_and(|messages| messages > 1000), "{done}");
    eventually("all are stored", || (tidegate.metric("tidegate_readings_stored_total") == 3001.0).then_some(()));
    // Batches kept to batch_max.
    assert!(tidegate.metric("tidegate_batches_committed_total") >= 31.0);
    assert_eq!(tidegate.metric("tidegate_journal_lag_seconds"), 0.0);
    let status = tidegate.json(&["journal", "status"]);
    assert_eq!((&status["lag"], &status["committed_per_second"]), (&0.into(), &serde_json::Value::Null), "{status}");
}

//! tidegate describes itself: figures in the database, and commands that tell of it.

use serde_json::Value;

use crate::support::daemon::{Tidegate, eventually, sqlite};

/// A daemon whose broker does not answer; its database does.
fn started() -> Tidegate {
    let port = crate::support::free_port();
    let mut tidegate = Tidegate::configured(&format!(
        "[instance]\nid = \"gw-7\"\nstate_dir = \"{{state}}\"\n[broker]\nurl = \"mqtt://127.0.0.1:{port}\"\n\
         [http]\nlisten = \"off\"\n[figures]\nevery = \"1s\"\n[log]\nformat = \"json\"\n"
    ));
    tidegate.start();
    eventually("the database is open", || tidegate.said("database open"));
    tidegate
}

#[test]
fn a_running_daemon_writes_its_figures_and_tells_of_its_database() {
    let mut tidegate = started();
    let database = tidegate.state_dir().join("tidegate.db");
    let written =
        "SELECT max(value) FROM system_metrics WHERE instance = 'gw-7' AND name = 'tidegate_figures_written_total'";
    eventually("figures are written again and again", || {
        sqlite(&database, written).trim().parse::<f64>().is_ok_and(|count| count > 50.0).then_some(())
    });
    let stats = tidegate.json(&["stats"]);
    assert_eq!(stats["layout"], "plain table");
    assert_eq!((&stats["readings"]["rows"], &stats["journal"]["messages"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(stats["journal"]["lag"], 0);
    assert_eq!(stats["sqlite"]["incremental_vacuum"], true);
    let figures = stats["tables"].as_array().unwrap().iter().find(|table| table["table"] == "system_metrics").unwrap();
    assert!(figures["rows"].as_u64().unwrap() > 50, "{figures}");
    assert!(tidegate.output(&["stats"]).contains("system_metrics"));
    assert_eq!(tidegate.json(&["devices", "uptime", "--all"]), serde_json::json!([]));
    assert!(tidegate.stop().success());
}

#[test]
fn without_a_device_uptime_wants_to_know_which() {
    let tidegate = Tidegate::configured("");
    let output = tidegate.command(&["devices", "uptime"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = tidegate.command(&["devices", "uptime", "d", "--interval", "0s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

//! `tidegate demo`: everything in one process, and data to go on with.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::daemon::{eventually, sqlite, tidegate};

fn demo(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = tidegate(&["demo", "--dir", "here", "--devices", "2"]);
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn a_demo_ends_by_itself_with_readings_of_all_four_kinds() {
    let dir = TempDir::new().unwrap();
    let output = demo(dir.path(), &["--for", "3s"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let here = dir.path().join("here").canonicalize().unwrap();
    let database = here.join("tidegate.db");
    assert!(said.contains(database.to_str().unwrap()) && said.contains("tidegate readings"), "{said}");
    let kinds = "SELECT count(DISTINCT d.source) FROM readings r JOIN devices d ON d.uid = r.device";
    assert_eq!(sqlite(&database, kinds), "4");
    assert_eq!(sqlite(&database, "SELECT count(*) FROM devices"), "8");
    assert_eq!(sqlite(&database, "SELECT count(*) FROM quarantine_events"), "0");

    // The commands that it names work as they are, and so does its configuration.
    let first = said.lines().find_map(|line| line.trim().strip_prefix("tidegate readings ")).unwrap();
    let arguments: Vec<&str> = ["readings"].into_iter().chain(first.split(' ')).collect();
    let readings = tidegate(&arguments).output().unwrap();
    assert!(readings.status.success() && readings.stdout.len() > 200, "{arguments:?}");
    let config = here.join("tidegate.toml");
    let list = tidegate(&["devices", "list", "--json", "--config", config.to_str().unwrap()]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 8);
    let shell = said.lines().find(|line| line.trim().starts_with("sqlite3 ")).unwrap();
    let asked = Command::new("sh").args(["-c", shell]).output().unwrap();
    assert_eq!(String::from_utf8(asked.stdout).unwrap().lines().count(), 10, "{shell}");
}

#[test]
fn ctrl_c_ends_a_demo_and_nothing_is_left_behind() {
    let dir = TempDir::new().unwrap();
    let mut running = demo(dir.path(), &[]).spawn().unwrap();
    let database = dir.path().join("here/tidegate.db");
    eventually("readings come", || {
        let there = database.exists()
            && sqlite(&database, "SELECT count(*) FROM sqlite_master WHERE name = 'telemetry'") == "1"
            && sqlite(&database, "SELECT count(*) FROM telemetry") != "0";
        there.then_some(())
    });
    assert!(Command::new("kill").args(["-s", "INT", &running.id().to_string()]).status().unwrap().success());
    let status = eventually("the demo ends", || running.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let config = dir.path().join("here/tidegate.toml");
    let journal = tidegate(&["journal", "status", "--json", "--config", config.to_str().unwrap()]).output().unwrap();
    let journal: serde_json::Value = serde_json::from_slice(&journal.stdout).unwrap();
    assert!(journal["last_seq"].as_u64().unwrap() > 0 && journal["lag"] == 0, "{journal}");
}

//! What an operator sees of old readings: laid out, dropped at their time, archived, brought back.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::daemon::{NATIVE, Tidegate, between, complaint};
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::{SQLITE, Stranger};

const RETENTION: &str =
    "[time]\nmax_age = \"10days\"\n[retention]\nraw = \"10days\"\ntext = \"10days\"\n[archive]\ndir = \"old\"\n";

fn old_readings_move_to_the_archive_and_back(on_postgres: bool) {
    let broker = Mosquitto::plain();
    let (server, url) = if on_postgres {
        let (stranger, url) = Stranger::on_shared_server();
        (Some(stranger), url)
    } else {
        (None, SQLITE.to_owned())
    };
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), &url) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    tidegate.start();
    tidegate.listening();
    let stranger = server.unwrap_or_else(|| Stranger::of_file(&tidegate));
    let old = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 20 * 86_400;
    let payload = format!("{{\"ts\":{old},\"values\":{{\"temp\":20.5,\"note\":\"old\"}}}}");
    for payload in [payload.as_str(), "{\"temp\":21.5}"] {
        broker.publish("devices/attic/telemetry", payload, &["-q", "1"]);
    }
    stranger.wait_for_rows(3);
    let status = tidegate.json(&["migrate", "--status"]);
    assert_eq!(status["pending"], serde_json::json!([]));
    assert_eq!(status["layout"]["kind"], if on_postgres { "partitions" } else { "plain" });
    if on_postgres {
        assert!(status["layout"]["tables"][0]["parts"].as_u64().is_some_and(|parts| parts >= 5), "{status}");
    }
    assert!(tidegate.output(&["migrate", "--status"]).contains("applied  2026-11-20-000004_layout"));
    let nowhere = tidegate.command(&["archive", "list"]).output().unwrap();
    assert!(complaint(&nowhere).contains("set [archive] dir"), "{}", complaint(&nowhere));
    assert!(tidegate.stop().success());

    tidegate.configure(&(toml + RETENTION));
    tidegate.start();
    tidegate.wait_for_metric("tidegate_retention_parts_total{class=\"text\"}", 1.0);
    assert_eq!(tidegate.metric("tidegate_archive_files_total"), 2.0);
    assert_eq!(tidegate.metric("tidegate_archive_errors_total"), 0.0);
    assert_eq!(stranger.ask("SELECT value FROM readings"), "21.5");
    let files = tidegate.json(&["archive", "list"]);
    assert_eq!((files.as_array().unwrap().len(), &files[0]["rows"]), (2, &1.into()), "{files}");
    assert!(tidegate.output(&["archive", "verify"]).contains("ok       telemetry_text_"));
    let unnamed = tidegate.command(&["archive", "restore"]).output().unwrap();
    assert!(complaint(&unnamed).contains("name files, or a time"), "{}", complaint(&unnamed));

    let file = files[0]["file"].as_str().unwrap();
    assert!(tidegate.output(&["archive", "restore", file]).contains("1 readings restored, 0 were there"));
    assert!(
        tidegate
            .output(&["archive", "restore", "--from", "2020-01-01T00:00:00Z"])
            .contains("0 readings restored, 1 were there")
    );
    assert_eq!(stranger.ask("SELECT value FROM readings WHERE value IS NOT NULL ORDER BY time"), "20.5\n21.5");
    assert_eq!(stranger.ask("SELECT text_value FROM readings WHERE metric = 'note'"), "old");
    // A restart looks through everything again.
    assert!(tidegate.stop().success());
    tidegate.start();
    tidegate.wait_for_metric("tidegate_upkeep_steps_total{chore=\"retention\"}", 3.0);
    assert_eq!(stranger.rows(), 3, "what is restored stays for a time");
    assert!(tidegate.stop().success());
}

#[test]
fn old_readings_move_to_the_archive_and_back_on_postgres() {
    old_readings_move_to_the_archive_and_back(true);
}

#[test]
fn old_readings_move_to_the_archive_and_back_on_sqlite() {
    old_readings_move_to_the_archive_and_back(false);
}

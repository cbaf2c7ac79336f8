//! `database.replica_url`: a streaming standby answers the commands that only read, and nothing else.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::postgres::Postgres;
use crate::support::stranger::{Stranger, psql};

struct Scene {
    broker: Mosquitto,
    primary: Postgres,
    standby: Postgres,
    tidegate: Tidegate,
}

impl Scene {
    /// A daemon that has stored one reading, and its standby that has it too.
    fn start() -> Scene {
        let primary = Postgres::start(false);
        let standby = primary.standby();
        let broker = Mosquitto::plain();
        let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), &primary.url("postgres")).replace(
            "[http]",
            &format!("replica_url = \"{}\"\nconnect_timeout = \"2s\"\n[http]", standby.url("postgres")),
        );
        let mut tidegate = Tidegate::configured(&(toml + NATIVE));
        tidegate.start();
        tidegate.listening();
        let scene = Scene { broker, primary, standby, tidegate };
        scene.publish(1);
        let at_the_standby = Stranger::Postgres(scene.standby.url("postgres"), None);
        eventually("the standby has it", || (at_the_standby.rows() == 1).then_some(()));
        scene
    }

    /// Publishes a value and waits until the primary has it.
    fn publish(&self, value: u64) {
        self.broker.publish("devices/d/telemetry", &format!("{{\"a\":{value}}}"), &["-q", "1"]);
        let primary = self.primary.url("postgres");
        let sql = format!("SELECT count(*) FROM readings WHERE value = {value}");
        eventually("the primary has it", || {
            (Stranger::Postgres(primary.clone(), None).rows() > 0 && psql(&primary, &sql) == "1").then_some(())
        });
    }

    /// What `readings` shows, and what it says beside.
    fn readings(&self) -> (usize, String) {
        let output = self.tidegate.command(&["readings", "d", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (rows.as_array().unwrap().len(), String::from_utf8(output.stderr).unwrap())
    }

    fn replay(&self, what: &str) {
        self.standby.connect("postgres").batch_execute(&format!("SELECT pg_wal_replay_{what}()")).unwrap();
    }
}

#[test]
fn a_replica_that_is_behind_is_read_from_and_decides_nothing() {
    let mut scene = Scene::start();
    scene.replay("pause");
    scene.publish(2);
    assert_eq!(scene.readings(), (1, String::new()), "the standby's state");
    for command in [&["devices", "list"][..], &["devices", "show", "d"], &["quarantine", "list"]] {
        scene.tidegate.json(command);
    }
    for command in ["alerts", "command"] {
        let unknown = scene.tidegate.command(&[command, "show", "nobody"]).output().unwrap();
        let told = complaint(&unknown);
        assert!(unknown.status.code() == Some(1) && told.contains("nobody"), "{told}");
        assert!(!told.contains("the replica"), "it has answered: {told}");
    }

    // A daemon that took its position from there would begin before the second, and be fenced off.
    scene.tidegate.kill();
    scene.tidegate.start();
    scene.tidegate.listening();
    scene.publish(3);
    assert_eq!(Stranger::Postgres(scene.primary.url("postgres"), None).rows(), 3);
    assert_eq!(scene.tidegate.metric("tidegate_readings_duplicate_total"), 0.0);
    scene.replay("resume");
    eventually("the standby has caught up", || (scene.readings() == (3, String::new())).then_some(()));
    assert!(scene.tidegate.output(&["check", "--connect"]).contains("replica answers"));
    assert!(scene.tidegate.stop().success());
}

#[test]
fn the_primary_answers_when_the_replica_does_not_and_each_does_without_the_other() {
    let mut scene = Scene::start();
    scene.standby.stop();
    scene.publish(2);
    let (rows, said) = scene.readings();
    assert_eq!(rows, 2);
    assert_eq!(said.matches("the replica is not asked, but the primary").count(), 1, "{said}");
    assert!(said.contains("Connection refused") && !said.contains(":tide@"), "{said}");
    let check = scene.tidegate.command(&["check", "--connect"]).output().unwrap();
    let told = complaint(&check);
    assert!(check.status.code() == Some(1) && told.contains("database answers"), "{told}");
    assert!(told.contains("database.replica_url: the database does not answer"), "{told}");

    scene.standby.restart();
    eventually("the standby has caught up", || (scene.readings() == (2, String::new())).then_some(()));
    scene.primary.stop();
    assert_eq!(scene.readings(), (2, String::new()), "without the primary");
    scene.standby.stop();
    let neither = scene.tidegate.command(&["readings", "d"]).output().unwrap();
    assert!(
        neither.status.code() == Some(1) && complaint(&neither).contains("does not answer"),
        "{}",
        complaint(&neither)
    );
    scene.primary.restart();
    assert!(scene.tidegate.stop().success());
}

#[test]
fn a_replica_that_hangs_holds_a_reader_up_no_longer_than_the_connect_timeout() {
    let mut scene = Scene::start();
    scene.standby.freeze();
    let asked = Instant::now();
    let (rows, said) = scene.readings();
    assert!(rows == 1 && said.contains("timeout expired"), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(30));
    scene.standby.thaw();
    assert!(scene.tidegate.stop().success());
}

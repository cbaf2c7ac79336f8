//! PgBouncer in transaction pooling between tidegate and PostgreSQL: each transaction may run in another session.

use std::sync::Arc;

use crate::main_job::exactly_what_was_sent;
use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::load::{METRICS, Simulation};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres::{self, Postgres};
use crate::support::stranger::Stranger;

const MESSAGES: u64 = 3000;
const ROWS: u64 = MESSAGES * METRICS as u64;
/// What the log says when nobody has told it of the pooler.
const FOUND: &str = "a connection pooler such as PgBouncer stands before the database";

struct Scene {
    broker: Mosquitto,
    pooler: PgBouncer,
    tidegate: Tidegate,
    stranger: Stranger,
    _server: Arc<Postgres>,
}

impl Scene {
    /// `told`: whether `database.pgbouncer` is set.
    fn new(told: bool, connections: u32, more: &str) -> Scene {
        let server = postgres::shared();
        let direct = server.database();
        let pooler = PgBouncer::start(&server, connections, more);
        let url = pooler.url(direct.rsplit('/').next().unwrap());
        let broker = Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() });
        let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), &url)
            .replace("[http]", &format!("pgbouncer = {told}\nconnect_timeout = \"2s\"\n[http]"));
        let tidegate = Tidegate::configured(&(toml + NATIVE));
        let stranger = Stranger::Postgres(direct, Some(Arc::clone(&server)));
        Scene { broker, pooler, tidegate, stranger, _server: server }
    }

    /// Everything that a fleet sends is stored, exactly, though the pooler goes away in the middle of it.
    fn main_job(&mut self) {
        self.tidegate.start();
        self.tidegate.listening();
        let fleet = Simulation::numbers(self.broker.port, MESSAGES, &["--qos", "1"]);
        let stored = "tidegate_readings_stored_total";
        self.tidegate.wait_for_metric(stored, ROWS as f64 / 4.0);
        self.pooler.restart();
        fleet.finish();
        self.stranger.wait_for_rows(ROWS);
        eventually("nothing is behind", || {
            (self.tidegate.metric("tidegate_journal_lag_messages") == 0.0).then_some(())
        });
        exactly_what_was_sent(&self.stranger, MESSAGES);
        let log = self.tidegate.log();
        assert!(!log.contains("prepared statement") && !log.contains("refuses a batch"), "{log}");
        let devices = self.tidegate.json(&["devices", "list"]);
        assert_eq!(devices.as_array().unwrap().len(), 10);
        assert!(self.tidegate.stop().success());
    }
}

#[test]
fn the_main_job_through_a_pooler_that_lends_two_sessions_and_is_restarted() {
    let mut scene = Scene::new(true, 2, "");
    let migrated = scene.tidegate.json(&["migrate"]);
    assert!(!migrated["migrations"].as_array().unwrap().is_empty(), "{migrated}");
    scene.main_job();
    assert!(scene.tidegate.said(FOUND).is_none());
}

#[test]
fn a_pooler_that_nobody_told_of_is_noticed_and_works_as_if_told() {
    // The second takes what tells them apart, and forgets it.
    for more in ["", "ignore_startup_parameters = options"] {
        let mut scene = Scene::new(false, 3, more);
        scene.main_job();
        assert_eq!(scene.tidegate.said(FOUND).expect("it is said")["level"], "WARN");
        let check = scene.tidegate.command(&["check", "--connect"]).output().unwrap();
        let said = complaint(&check);
        assert!(check.status.success() && said.contains("set database.pgbouncer = true"), "{said}");
        assert!(scene.pooler.log().contains("unsupported startup parameter: options") == more.is_empty());
    }
}

#[test]
fn a_server_without_a_pooler_is_not_taken_for_one() {
    let (_stranger, url) = Stranger::on_shared_server();
    let tidegate = Tidegate::configured(&between("embedded://127.0.0.1:0", &url));
    let check = tidegate.command(&["check", "--connect"]).output().unwrap();
    let said = complaint(&check);
    assert!(said.contains("database answers") && !said.contains("pgbouncer"), "{said}");
}

#[test]
fn an_option_that_pgbouncer_does_not_take_is_told_with_what_to_do() {
    let server = postgres::shared();
    let pooler = PgBouncer::start(&server, 2, "");
    let url = pooler.url("postgres") + "?options=-c%20search_path%3Dx";
    let tidegate = Tidegate::configured(&between("embedded://127.0.0.1:0", &url));
    let check = tidegate.command(&["check", "--connect"]).output().unwrap();
    let said = complaint(&check);
    assert_eq!(check.status.code(), Some(1), "{said}");
    assert!(said.contains("unsupported startup parameter: options"), "{said}");
    assert!(
        said.contains("take it out of database.url, or name it in PgBouncer's ignore_startup_parameters"),
        "{said}"
    );
}

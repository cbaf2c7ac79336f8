//! Jobs under faults: each device is told once, and carries it out once, whenever tidegate dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::json;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::executor::Executor;
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

const DEVICES: usize = 12;
const TEMPLATE: &str = "slug = \"native\"\nname = \"N\"\n[[command]]\nname = \"count\"\n";

/// A broker that keeps everything, a daemon, and a fleet that counts.
struct Scene {
    tidegate: Tidegate,
    fleet: Executor,
    database: Stranger,
    _broker: Mosquitto,
}

impl Scene {
    fn start(database: &str, stranger: impl FnOnce(&Tidegate) -> Stranger) -> Scene {
        let setup = Setup { persistent: true, extra: "max_queued_messages 0".to_owned(), ..Setup::default() };
        let broker = Mosquitto::start(setup);
        let tidegate =
            Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE));
        tidegate.catalog_file("templates/native.toml", TEMPLATE);
        let fleet: String =
            (0..DEVICES).map(|number| format!("[[device]]\nuid = \"n{number}\"\ntemplate = \"native\"\n")).collect();
        tidegate.catalog_file("devices/fleet.toml", &fleet);
        let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
        let fleet = Executor::start(address, "fleet", &["devices/+/commands/+"], |heard| {
            vec![(format!("{}/response", heard.topic), json!({ "status": "succeeded" }).to_string())]
        });
        let database = stranger(&tidegate);
        Scene { tidegate, fleet, database, _broker: broker }
    }

    fn serve(&mut self, environment: &[(&str, &str)]) {
        self.tidegate.start_with(environment);
        eventually("the database is open", || self.tidegate.said("database open"));
    }

    fn create(&self, job: &str) {
        let arguments = ["job", "create", job, "--command", "count", "--template", "native", "--canary", "3"];
        let output = self.tidegate.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
    }

    /// Waits until every job has ended, and holds what the devices have counted against it.
    fn judge(&self, jobs: usize) {
        eventually("every job has ended", || {
            (self.database.number("SELECT count(*) FROM jobs WHERE state = 'COMPLETED'") == jobs as u64).then_some(())
        });
        let executions = (jobs * DEVICES) as u64;
        assert_eq!(self.database.number("SELECT count(*) FROM job_executions WHERE state = 'SUCCEEDED'"), executions);
        assert_eq!(self.database.number("SELECT count(*) FROM device_commands"), executions);
        // A repeat has the same id, so that the device carries it out once; and of each job each device has one.
        let told: BTreeMap<String, String> = self
            .fleet
            .heard()
            .iter()
            .map(|heard| (heard.json()["id"].as_str().unwrap().to_owned(), heard.topic.clone()))
            .collect();
        assert_eq!(told.len() as u64, executions);
        let made = self.database.ask("SELECT command_id, device FROM job_executions");
        let made: BTreeSet<(&str, &str)> = made.lines().map(|line| line.split_once('|').unwrap()).collect();
        for (id, topic) in &told {
            assert!(made.contains(&(id.as_str(), topic.split('/').nth(1).unwrap())), "{id} on {topic}");
        }
    }
}

fn a_crash_at_any_point_tells_no_device_twice(mut scene: Scene) {
    let points: Vec<&str> = tidegate::crash::POINTS
        .into_iter()
        .filter(|point| ["jobs", "courier", "writer"].iter().any(|room| point.starts_with(room)))
        .collect();
    for (round, point) in points.iter().enumerate() {
        scene.serve(&[("TIDEGATE_CRASH_AT", &format!("{point}:2"))]);
        scene.create(&format!("round-{round}"));
        scene.tidegate.wait();
    }
    scene.serve(&[]);
    scene.judge(points.len());
}

#[test]
fn a_crash_at_any_point_of_a_job_tells_no_device_twice_on_sqlite() {
    a_crash_at_any_point_tells_no_device_twice(Scene::start(SQLITE, Stranger::of_file));
}

#[test]
fn a_crash_at_any_point_of_a_job_tells_no_device_twice_on_postgres() {
    let (stranger, url) = Stranger::on_shared_server();
    a_crash_at_any_point_tells_no_device_twice(Scene::start(&url, |_| stranger));
}

#[test]
fn killed_again_and_again_a_job_tells_no_device_twice() {
    let mut scene = Scene::start(SQLITE, Stranger::of_file);
    scene.serve(&[]);
    for (round, heard) in [1, 4, 9].into_iter().enumerate() {
        let before = scene.fleet.heard().len();
        scene.create(&format!("round-{round}"));
        // In the middle of it.
        scene.fleet.await_heard(before + heard - 1);
        scene.tidegate.kill();
        scene.serve(&[]);
    }
    scene.judge(3);
}

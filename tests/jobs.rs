//! Jobs from outside: many devices are told, some of them first, and no further than it goes well.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::executor::{Executor, Heard};
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::{SQLITE, Stranger};

const LAMP: &str = r#"
slug = "lamp"
name = "Lamp"
[[metric]]
name = "fw"
kind = "text"
keys = ["fw"]
[[command]]
name = "dim"
parameters = { type = "object", properties = { level = { type = "integer", maximum = 100 } } }
[[command]]
name = "update"
version_metric = "fw"
parameters = { type = "object", required = ["version", "url", "size", "sha256"] }
"#;
const PLUG: &str = "slug = \"plug\"\nname = \"Plug\"\n[[command]]\nname = \"on\"\n";
const LAMPS: usize = 20;
const SUM: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

struct Scene {
    tidegate: Tidegate,
    broker: Mosquitto,
    database: Stranger,
}

impl Scene {
    /// Twenty lamps at two sites and a plug, of which nobody is there yet.
    fn start(database: &str, stranger: impl FnOnce(&Tidegate) -> Stranger) -> Scene {
        let broker = Mosquitto::plain();
        let mut tidegate =
            Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE));
        tidegate.catalog_file("templates/lamp.toml", LAMP);
        tidegate.catalog_file("templates/plug.toml", PLUG);
        let device = |number: usize| {
            let (site, floor) = (if number < 5 { "north" } else { "south" }, number % 2);
            format!(
                "[[device]]\nuid = \"lamp-{number}\"\ntemplate = \"lamp\"\nsite = \"{site}\"\ntags = {{ floor = \"{floor}\" }}\n"
            )
        };
        let fleet: String = (0..LAMPS).map(device).collect();
        let plug = "[[device]]\nuid = \"plug-1\"\ntemplate = \"plug\"\nsite = \"north\"\n";
        tidegate.catalog_file("devices/fleet.toml", &format!("{fleet}{plug}"));
        tidegate.start();
        tidegate.listening();
        eventually("the database is open", || tidegate.said("database open"));
        let database = stranger(&tidegate);
        Scene { tidegate, broker, database }
    }

    fn on_sqlite() -> Scene {
        Scene::start(SQLITE, Stranger::of_file)
    }

    fn on_postgres() -> Scene {
        let (stranger, url) = Stranger::on_shared_server();
        Scene::start(&url, |_| stranger)
    }

    /// All devices in one: what each makes of a command, with its uid, and what it tells besides.
    fn devices(&self, script: impl Fn(&str, &Value) -> (Value, Vec<(String, String)>) + Send + 'static) -> Executor {
        let address = SocketAddr::from(([127, 0, 0, 1], self.broker.port));
        Executor::start(address, "fleet", &["devices/+/commands/+"], move |heard| {
            let (answer, mut more) = script(&device(heard), &heard.json());
            more.insert(0, (format!("{}/response", heard.topic), answer.to_string()));
            more
        })
    }

    fn obedient(&self) -> Executor {
        self.devices(|_, _| (json!({ "status": "succeeded" }), Vec::new()))
    }

    fn create(&self, arguments: &[&str]) {
        let output = self.tidegate.command(&[&["job", "create"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{}", complaint(&output));
    }

    fn show(&self, job: &str) -> Value {
        self.tidegate.json(&["job", "show", job])
    }

    /// Waits until so many executions are in this state.
    fn await_count(&self, job: &str, state: &str, count: u64) -> Value {
        eventually(&format!("{count} of {job} {state}"), || {
            Some(self.show(job)).filter(|shown| shown["executions"][state].as_u64() == Some(count))
        })
    }

    fn ended(&self, job: &str) -> Value {
        eventually(&format!("the end of {job}"), || Some(self.show(job)).filter(|shown| !shown["ended_at"].is_null()))
    }

    fn executions(&self, job: &str, more: &[&str]) -> Vec<Value> {
        let listed = self.tidegate.json(&[&["job", "executions", job], more].concat());
        listed.as_array().unwrap().clone()
    }

    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.tidegate.command(&[&["job"], arguments].concat()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        complaint(&output)
    }
}

fn device(heard: &Heard) -> String {
    heard.topic.split('/').nth(1).unwrap().to_owned()
}

fn counts(shown: &Value) -> BTreeMap<&str, u64> {
    let counts = shown["executions"].as_object().unwrap().iter();
    counts.map(|(state, count)| (state.as_str(), count.as_u64().unwrap())).filter(|(_, count)| *count > 0).collect()
}

fn canaries_pass_and_the_rest_follows(scene: &Scene) {
    let devices = scene.obedient();
    let arguments = ["all", "--command", "dim", "--params", r#"{"level":7}"#, "--template", "lamp", "--canary", "10%"];
    let output =
        scene.tidegate.command(&[&["job", "create"], &arguments[..], &["--wait", "--json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", complaint(&output));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["state"], counts(&done)), (&json!("COMPLETED"), BTreeMap::from([("SUCCEEDED", 20)])));
    assert!(!done["canaries_passed_at"].is_null());
    assert!(String::from_utf8_lossy(&output.stderr).contains("of 20 have ended"), "{}", complaint(&output));

    let heard = devices.heard();
    let canaries: BTreeSet<String> = scene
        .executions("all", &[])
        .iter()
        .filter(|one| one["canary"] == true)
        .map(|one| one["device"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((heard.len(), canaries.len()), (20, 2));
    assert_eq!(heard[..2].iter().map(device).collect::<BTreeSet<_>>(), canaries, "they come first");
    assert!(heard.iter().all(|heard| heard.json()["params"] == json!({ "level": 7 })));
    assert_eq!(heard.iter().map(device).collect::<BTreeSet<_>>().len(), 20);
    scene.tidegate.wait_for_metric("tidegate_job_executions_total{state=\"SUCCEEDED\"}", 20.0);
    assert_eq!(scene.tidegate.metric("tidegate_job_executions_total{state=\"QUEUED\"}"), 20.0);
    let events = scene.database.ask("SELECT kind FROM events WHERE kind LIKE 'job%' ORDER BY id");
    assert_eq!(events.lines().collect::<Vec<_>>(), ["job_created", "job_canaries_passed", "job_completed"]);
    // A command of a job is a command like any other.
    let one = &scene.executions("all", &["--device", "lamp-3"])[0];
    let command = scene.tidegate.json(&["command", "show", one["command"].as_str().unwrap()]);
    assert_eq!(
        (&command["state"], &command["via"], &command["device"]),
        (&json!("succeeded"), &json!("job"), &json!("lamp-3"))
    );
}

#[test]
fn canaries_pass_and_the_rest_follows_on_sqlite() {
    canaries_pass_and_the_rest_follows(&Scene::on_sqlite());
}

#[test]
fn canaries_pass_and_the_rest_follows_on_postgres() {
    canaries_pass_and_the_rest_follows(&Scene::on_postgres());
}

fn canaries_that_fail_are_the_last(scene: &Scene) {
    let devices = scene.devices(|_, _| (json!({ "status": "failed", "error": "the lamp is broken" }), Vec::new()));
    scene.create(&["bad", "--command", "dim", "--template", "lamp", "--canary", "3", "--abort", "50%"]);
    let done = scene.ended("bad");
    assert_eq!((&done["state"], counts(&done)), (&json!("ABORTED"), BTreeMap::from([("FAILED", 3), ("CANCELED", 17)])));
    assert!(done["reason"].as_str().unwrap().contains("3 of the 3 canaries"), "{done}");
    assert_eq!(devices.heard().len(), 3);
    let failed = scene.executions("bad", &["--state", "FAILED"]);
    assert!(failed.len() == 3 && failed.iter().all(|one| one["reason"] == "the lamp is broken"), "{failed:?}");
    scene.tidegate.wait_for_metric("tidegate_job_executions_total{state=\"CANCELED\"}", 17.0);
    eventually("no job is active", || (scene.tidegate.metric("tidegate_jobs_active") == 0.0).then_some(()));
    let output = scene
        .tidegate
        .command(&["job", "create", "bad-2", "--command", "dim", "--device", "lamp-1", "--wait"])
        .output()
        .unwrap();
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 FAILED"),
        "{}",
        complaint(&output)
    );
}

#[test]
fn canaries_that_fail_are_the_last_on_sqlite() {
    canaries_that_fail_are_the_last(&Scene::on_sqlite());
}

#[test]
fn canaries_that_fail_are_the_last_on_postgres() {
    canaries_that_fail_are_the_last(&Scene::on_postgres());
}

/// Never looked at by the clock: at one a minute only the first may begin while the test lasts.
#[test]
fn a_slow_job_begins_one_and_is_paused_resumed_and_canceled() {
    let scene = Scene::on_sqlite();
    let devices = scene.obedient();
    scene.create(&["slow", "--command", "dim", "--site", "south", "--tag", "floor=1", "--rate", "1/m"]);
    let shown = scene.await_count("slow", "SUCCEEDED", 1);
    assert_eq!(counts(&shown), BTreeMap::from([("QUEUED", 7), ("SUCCEEDED", 1)]));
    assert_eq!(scene.database.number("SELECT count(*) FROM device_commands"), 1);
    assert!(
        ["lamp-5", "lamp-7", "lamp-9", "lamp-11", "lamp-13", "lamp-15", "lamp-17", "lamp-19"]
            .contains(&device(&devices.heard()[0]).as_str())
    );

    assert!(scene.tidegate.output(&["job", "pause", "slow", "--who", "ann"]).contains("paused"));
    let shown = scene.show("slow");
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("PAUSED"), &json!("paused by ann")));
    assert!(scene.refusal(&["pause", "slow"]).contains("is PAUSED"));
    assert!(scene.tidegate.output(&["job", "resume", shown["id"].as_str().unwrap()]).contains("goes on"));
    assert_eq!(scene.tidegate.json(&["job", "list"]).as_array().unwrap().len(), 1);
    assert!(scene.tidegate.output(&["job", "cancel", "slow", "--who", "bob"]).contains("canceled"));
    let done = scene.ended("slow");
    assert_eq!(
        (&done["state"], counts(&done)),
        (&json!("CANCELED"), BTreeMap::from([("SUCCEEDED", 1), ("CANCELED", 7)]))
    );
    assert!(scene.refusal(&["cancel", "slow"]).contains("has ended"));
    assert_eq!((devices.heard().len(), scene.tidegate.json(&["job", "list"]).as_array().unwrap().len()), (1, 0));
    assert!(scene.tidegate.output(&["job", "show", "slow"]).contains("canceled by bob"));
    assert!(scene.tidegate.output(&["job", "executions", "slow", "--state", "canceled"]).contains("lamp-"));
}

fn firmware_is_there_once_devices_report_it(scene: &Scene) {
    let tell = |uid: &str, version: &str| (format!("devices/{uid}/telemetry"), json!({ "fw": version }).to_string());
    // One has it already; one says that it is done and stays as it was; the others come back with it.
    scene.broker.publish("devices/lamp-0/telemetry", r#"{"fw": "2.0"}"#, &["-q", "1"]);
    scene.broker.publish("devices/lamp-1/telemetry", r#"{"fw": "1.0"}"#, &["-q", "1"]);
    scene.database.wait_for_rows(2);
    let devices = scene.devices(move |uid, command| {
        let version = if uid == "lamp-1" { "1.0" } else { command["params"]["version"].as_str().unwrap() };
        (json!({ "status": "succeeded" }), vec![tell(uid, version)])
    });
    let document = ["--version", "2.0", "--url", "https://files.example/lamp.bin", "--size", "4096", "--sha256", SUM];
    let arguments = ["job", "firmware", "two", "--site", "north", "--template", "lamp", "--timeout", "1h"];
    let output = scene.tidegate.command(&[&arguments[..], &document[..]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", complaint(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("5 devices, 1 have the version already"),
        "{}",
        complaint(&output)
    );
    let shown = scene.await_count("two", "SUCCEEDED", 4);
    assert_eq!(
        (&shown["state"], counts(&shown)),
        (&json!("RUNNING"), BTreeMap::from([("IN_PROGRESS", 1), ("SUCCEEDED", 4)]))
    );
    assert!(devices.heard().iter().all(|heard| device(heard) != "lamp-0"), "it needs none");
    let heard = devices.heard()[0].json();
    assert_eq!(
        (&heard["name"], &heard["params"]["sha256"], &heard["params"]["size"]),
        (&json!("update"), &json!(SUM), &json!(4096))
    );
    let behind = scene.executions("two", &["--state", "IN_PROGRESS"]);
    assert_eq!(behind[0]["device"], "lamp-1");
    scene.broker.publish("devices/lamp-1/telemetry", r#"{"fw": "2.0"}"#, &["-q", "1"]);
    let done = scene.ended("two");
    assert_eq!((&done["state"], counts(&done)), (&json!("COMPLETED"), BTreeMap::from([("SUCCEEDED", 5)])));
}

#[test]
fn firmware_is_there_once_devices_report_it_on_sqlite() {
    firmware_is_there_once_devices_report_it(&Scene::on_sqlite());
}

#[test]
fn firmware_is_there_once_devices_report_it_on_postgres() {
    firmware_is_there_once_devices_report_it(&Scene::on_postgres());
}

#[test]
fn what_is_not_valid_is_refused_with_a_clear_word() {
    let scene = Scene::on_sqlite();
    let devices = scene.obedient();
    let dim = ["create", "j", "--command", "dim"];
    let with = |more: &[&str]| scene.refusal(&[&dim[..], more].concat());
    for (more, word) in [
        (&[][..], "a job on nothing"),
        (&["--template", "lmap"], "did you mean `lamp`"),
        (&["--site", "nort"], "did you mean `north`"),
        (&["--tag", "flor=1"], "did you mean `floor`"),
        (&["--tag", "floor=8"], "no device has the tag floor=8"),
        (&["--tag", "floor"], "NAME=VALUE"),
        (&["--tag", "floor=1", "--tag", "floor=0"], "given twice"),
        (&["--device", "lamp-20"], "no device \"lamp-20\""),
        (&["--device", "plug-1", "--template", "lamp"], "no device is all"),
        (&["--device", "plug-1"], "no command \"dim\""),
        (&["--template", "lamp", "--params", r#"{"level":300}"#], "params.level"),
        (&["--template", "lamp", "--params", "7"], "no JSON object"),
        (&["--template", "lamp", "--rate", "fast"], "no rate"),
        (&["--template", "lamp", "--rate", "0/m"], "no rate"),
        (&["--template", "lamp", "--canary", "0%"], "no share"),
        (&["--template", "lamp", "--abort", "120%"], "no share"),
        (&["--template", "lamp", "--abort-after", "0"], "0 is not in"),
        (&["--template", "lamp", "--tenant", "acme"], "no tenant"),
        (&["--devices-from", "/nowhere/devices"], "/nowhere/devices"),
    ] {
        let why = with(more);
        assert!(why.contains(word), "{more:?}: {why}");
    }
    let document = |url: &str, size: &str, sum: &str| {
        let document = ["--version", "2", "--url", url, "--size", size, "--sha256", sum, "--template", "lamp"];
        scene.refusal(&[&["firmware", "f"], &document[..]].concat())
    };
    assert!(document("ftp://files.example/f", "1", SUM).contains("url: "));
    assert!(document("https://files.example/f", "0", SUM).contains("size: "));
    assert!(document("https://files.example/f", "1", &SUM[1..]).contains("sha256: "));
    assert!(scene.refusal(&["show", "nothing"]).contains("no job"));
    assert_eq!(scene.database.number("SELECT count(*) FROM jobs"), 0);

    // Those that can do it are told; the others are rejected, with the reason, and counted.
    let file = scene.tidegate.dir.path().join("uids");
    std::fs::write(&file, "lamp-1\n\nplug-1\n").unwrap();
    scene.create(&["mixed", "--command", "dim", "--devices-from", file.to_str().unwrap()]);
    let done = scene.ended("mixed");
    assert_eq!(counts(&done), BTreeMap::from([("REJECTED", 1), ("SUCCEEDED", 1)]));
    let rejected = scene.executions("mixed", &["--state", "rejected"]);
    assert!(
        rejected[0]["reason"].as_str().unwrap().contains("the template plug has no command \"dim\""),
        "{rejected:?}"
    );
    assert!(rejected[0]["command"].is_null() && devices.heard().len() == 1);
    scene.tidegate.wait_for_metric("tidegate_job_executions_total{state=\"REJECTED\"}", 1.0);
    assert!(scene.refusal(&["create", "mixed", "--command", "dim", "--device", "lamp-2"]).contains("another name"));
}

//! Commands under faults: none is lost, and a device carries each out once where it can tell a repeat.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{NATIVE, Tidegate, between, eventually};
use crate::support::executor::Executor;
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::proxy::Proxy;
use crate::support::stranger::{SQLITE, Stranger};

const COMMANDS: usize = 12;

const TEMPLATES: [(&str, &str); 3] = [
    ("native", "slug = \"native\"\nname = \"N\"\n[[command]]\nname = \"count\"\ntimeout = \"30s\"\n"),
    (
        "plain",
        "slug = \"plain\"\nname = \"P\"\n[command_dialect]\nkind = \"template\"\ntopic = \"plain/{device}\"\n\
         payload = { id = \"{id}\" }\n[[command_dialect.response]]\ntopic = \"plain/{device}/done\"\nid = \"id\"\n\
         [[command]]\nname = \"count\"\ntimeout = \"30s\"\n",
    ),
    (
        "careful",
        "slug = \"careful\"\nname = \"C\"\n[command_dialect]\nkind = \"template\"\ntopic = \"careful/{device}\"\n\
         payload = { id = \"{id}\" }\n[[command_dialect.response]]\ntopic = \"careful/{device}/done\"\nid = \"id\"\n\
         [[command]]\nname = \"count\"\ntimeout = \"30s\"\nwhen_unsure = \"fail\"\n",
    ),
];

/// A broker that keeps everything, a proxy before it, a daemon, and three devices that count.
struct Scene {
    tidegate: Tidegate,
    broker: Mosquitto,
    link: Proxy,
    devices: Vec<Executor>,
    database: Stranger,
}

impl Scene {
    fn start() -> Scene {
        let broker =
            Mosquitto::start(Setup { persistent: true, extra: "max_queued_messages 0".to_owned(), ..Setup::default() });
        let link = Proxy::start(broker.port);
        let tidegate = Tidegate::configured(&(between(&format!("mqtt://127.0.0.1:{}", link.port), SQLITE) + NATIVE));
        for (slug, template) in TEMPLATES {
            tidegate.catalog_file(&format!("templates/{slug}.toml"), template);
            tidegate.catalog_file(
                &format!("devices/{slug}.toml"),
                &format!("[[device]]\nuid = \"{slug}\"\ntemplate = \"{slug}\"\n"),
            );
        }
        let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
        let echo = |slug: &'static str| {
            Executor::start(address, slug, &[&format!("{slug}/{slug}")], move |heard| {
                vec![(format!("{slug}/{slug}/done"), json!({ "id": heard.json()["id"] }).to_string())]
            })
        };
        let devices = vec![Executor::native(address, "native"), echo("plain"), echo("careful")];
        let database = Stranger::of_file(&tidegate);
        Scene { tidegate, broker, link, devices, database }
    }

    fn serve(&mut self, environment: &[(&str, &str)]) {
        self.tidegate.start_with(environment);
        eventually("the database is open", || self.tidegate.said("database open"));
    }

    fn ask(&self, round: usize) {
        for (slug, _) in TEMPLATES {
            for number in 0..COMMANDS {
                let sql = format!(
                    "INSERT INTO device_commands (id, device, name, created_at) VALUES ('{slug}-{round}-{number}', '{slug}', 'count', \
                     CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + {number})"
                );
                self.database.ask(&sql);
            }
        }
    }

    /// Waits until every command has ended, and holds what the devices have counted against it.
    fn judge(&self, rounds: usize) {
        let asked = rounds * COMMANDS * TEMPLATES.len();
        eventually("every command has ended", || {
            let open = self.database.number("SELECT count(*) FROM device_commands WHERE ended_at IS NULL");
            let all = self.database.number("SELECT count(*) FROM device_commands");
            (open == 0 && all == asked as u64).then_some(())
        });
        let rows: Value = self.tidegate.json(&["command", "list", "--state", "all", "--limit", "10000"]);
        for row in rows.as_array().unwrap() {
            let (id, device) = (row["id"].as_str().unwrap(), row["device"].as_str().unwrap());
            let at = TEMPLATES.iter().position(|(slug, _)| *slug == device).unwrap();
            let times = self.devices[at].deliveries().get(id).copied().unwrap_or(0);
            let state = row["state"].as_str().unwrap();
            match device {
                // Repeats have the same id, so that the device carries it out once.
                "native" => assert!(state == "succeeded" && times >= 1, "{row}"),
                // A repeat is marked.
                "plain" => {
                    assert!(state == "succeeded" && times >= 1, "{row}");
                    assert!(times == 1 || row["repeated"] == true, "{times} times and not marked: {row}");
                }
                // Nothing is sent twice; what nobody knows of has failed.
                _ => {
                    assert!(times <= 1, "{times} times: {row}");
                    assert!(state == "failed" || (state == "succeeded" && times == 1), "{row}");
                }
            }
        }
    }
}

#[test]
fn a_crash_at_any_point_of_the_courier_loses_and_doubles_no_command() {
    let mut scene = Scene::start();
    let points: Vec<&str> = tidegate::crash::POINTS
        .into_iter()
        .filter(|point| point.starts_with("courier") || point.starts_with("writer"))
        .collect();
    for (round, point) in points.iter().enumerate() {
        scene.serve(&[("TIDEGATE_CRASH_AT", &format!("{point}:3"))]);
        scene.ask(round);
        scene.tidegate.wait();
    }
    scene.serve(&[]);
    scene.judge(points.len());
}

#[test]
fn a_broker_that_restarts_and_a_link_that_is_cut_lose_and_double_no_command() {
    let mut scene = Scene::start();
    scene.serve(&[]);
    for round in 0..4 {
        scene.ask(round);
        match round {
            0 => scene.link.cut(),
            1 => {
                scene.broker.stop();
                std::thread::sleep(Duration::from_millis(300));
                scene.broker.restart();
            }
            2 => {
                scene.tidegate.kill();
                scene.serve(&[]);
            }
            _ => scene.link.cut_after(crate::support::proxy::Way::ToClient, 100),
        }
    }
    scene.judge(4);
}

//! When no alert begins: schedules, maintenance, a gateway's alert; from outside.

use serde_json::json;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::SQLITE;

fn rule(slug: &str, more: &str) -> String {
    format!(
        "slug = \"{slug}\"\nseverity = \"warning\"\nscope.all = true\nwhen = {{ metric = \"t\", gt = 30 }}\n{more}\n"
    )
}

/// The active alerts, as `rule on device`.
fn active(tidegate: &Tidegate) -> Vec<String> {
    let listed = tidegate.json(&["alerts", "list"]);
    let rows = listed.as_array().unwrap().iter();
    let mut found: Vec<String> =
        rows.map(|row| format!("{} on {}", row["rule"].as_str().unwrap(), row["device"].as_str().unwrap())).collect();
    found.sort();
    found
}

/// Six hours, twelve hours away from now.
fn far_from_now() -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let hour = |ahead: i8| (now.hour() + ahead).rem_euclid(24);
    format!("schedule = {{ from = \"{:02}:00\", to = \"{:02}:00\", timezone = \"UTC\" }}", hour(9), hour(15))
}

#[test]
fn what_is_held_back_is_told_why_and_fires_when_maintenance_is_ended() {
    let broker = Mosquitto::start(Setup::default());
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("rules/hot.toml", &rule("hot", ""));
    tidegate.catalog_file("rules/later.toml", &rule("later", &far_from_now()));
    tidegate.catalog_file("rules/less.toml", &rule("less", "depends_on = { rule = \"hot\" }"));
    tidegate.catalog_file(
        "devices/d.toml",
        "[[site]]\nname = \"Hall\"\ntimezone = \"Europe/Berlin\"\n[[device]]\nuid = \"d1\"\nsite = \"Hall\"\n",
    );
    tidegate.start();
    tidegate.listening();
    tidegate.wait_for_metric("tidegate_database_connected", 1.0);
    let said =
        tidegate.output(&["alerts", "maintenance", "add", "roof", "--site", "Hall", "--for", "2h", "--who", "kim"]);
    assert!(said.starts_with("maintenance roof is added: "), "{said}");
    let send = |device: &str| broker.publish(&format!("devices/{device}/telemetry"), r#"{"t": 31}"#, &["-q", "1"]);
    tidegate.wait_for_metric("tidegate_catalog_reloads_total", 1.0);
    send("d1");
    send("d2");
    eventually("what nothing holds back fires", || (active(&tidegate) == ["hot on d2"]).then_some(()));
    let explain = |rule: &str, device: &str| tidegate.json(&["alerts", "explain", "--rule", rule, "--device", device]);
    assert_eq!(explain("hot", "d1")["held_back"], json!("maintenance: roof"));
    assert_eq!(explain("less", "d2")["held_back"], json!("an alert of the rule hot"));
    assert_eq!(explain("later", "d2")["held_back"], json!("its schedule: it is not in force now"));
    assert_eq!(explain("hot", "d2")["held_back"], json!(null));
    for reason in ["maintenance", "dependency", "schedule"] {
        assert!(tidegate.metric(&format!("tidegate_alerts_withheld_total{{reason=\"{reason}\"}}")) >= 1.0, "{reason}");
    }
    let listed = tidegate.json(&["alerts", "maintenance", "list"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["standing"], &listed[0]["added_by"]),
        (&json!("roof"), &json!("under way"), &json!("kim"))
    );
    tidegate.kill();
    tidegate.start();
    tidegate.listening();
    assert_eq!(active(&tidegate), ["hot on d2"], "a restart lets nothing through");
    let said = tidegate.output(&["alerts", "maintenance", "end", "roof"]);
    assert_eq!(said.trim(), "maintenance roof is ended");
    eventually("what holds still fires", || (active(&tidegate) == ["hot on d1", "hot on d2"]).then_some(()));
    assert!(tidegate.stop().success());
}

#[test]
fn maintenance_that_makes_no_sense_is_refused_with_words() {
    let tidegate = Tidegate::configured(&between("mqtt://127.0.0.1:1", "sqlite:tidegate.db"));
    std::fs::create_dir(tidegate.state_dir()).unwrap();
    tidegate.output(&["migrate"]);
    for (args, words) in [
        (vec!["x", "--for", "2h"], "which devices?"),
        (vec!["x", "--all"], "when?"),
        (vec!["x", "--all", "--cron", "0 0 30 2 *", "--lasts", "2h"], "never comes"),
        (vec!["x", "--all", "--from", "2026-12-01T08:00", "--to", "2026-12-01T07:00"], "is not later than from"),
        (vec!["x", "--all", "--from", "08:00", "--to", "2026-12-01T07:00"], "must be a time of the day as from is"),
        (vec!["x", "--all", "--days", "mon-fry"], "is no day"),
        (vec!["x", "--all", "--days", "mon", "--timezone", "Europe/Berln"], "did you mean"),
    ] {
        let all: Vec<&str> = ["alerts", "maintenance", "add"].into_iter().chain(args).collect();
        let said = complaint(&tidegate.command(&all).output().unwrap());
        assert!(said.contains(words), "{said}");
    }
}

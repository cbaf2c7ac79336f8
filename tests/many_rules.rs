//! Ten thousand rules: all of them are taken and work, every warning is told, and a faulty one costs only what the documentation says.

use serde_json::json;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint, eventually};
use crate::support::mosquitto::Mosquitto;
use crate::support::stranger::{SQLITE, Stranger};

const RULES: usize = 10_000;

/// For most a rule of one device, among them some for every device, and some on a metric that no template has.
fn write_rules(tidegate: &Tidegate) {
    for n in 0..RULES {
        let (scope, metric) = match n % 100 {
            7 => ("all = true".to_owned(), "humidity"),
            8 => ("all = true".to_owned(), "humidty"),
            _ => (format!("device = \"d{n}\""), "temperature"),
        };
        let rule = format!(
            "slug = \"r{n}\"\nseverity = \"warning\"\nscope.{scope}\nwhen = {{ metric = \"{metric}\", gt = {} }}\n",
            n % 1000
        );
        tidegate.catalog_file(&format!("rules/{}/r{n}.toml", n / 1000), &rule);
    }
}

fn send(broker: &Mosquitto, device: &str, payload: &str) {
    broker.publish(&format!("devices/{device}/telemetry"), payload, &["-q", "1"]);
}

#[test]
fn ten_thousand_rules_are_taken_and_a_faulty_one_leaves_the_rest_going() {
    let broker = Mosquitto::plain();
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), SQLITE) + NATIVE;
    let mut tidegate = Tidegate::configured(&toml);
    write_rules(&tidegate);
    tidegate.start();
    let told = tidegate.told("no template has a metric \"humidty\"", "message");
    assert_eq!(told.len(), RULES / 100, "{told:?}");
    tidegate.listening();
    eventually("the database is open", || (tidegate.readyz().1["database"] == "up").then_some(()));
    let stranger = Stranger::of_file(&tidegate);
    let fired = |rule: &str, device: &str| {
        eventually(rule, || {
            let alerts = tidegate.json(&["alerts", "list", "--rule", rule, "--device", device]);
            (alerts[0]["state"] == "firing").then_some(())
        });
    };
    send(&broker, "d9999", r#"{"temperature": 1000}"#);
    send(&broker, "d123", r#"{"temperature": 124, "humidity": 50}"#);
    fired("r9999", "d9999");
    fired("r123", "d123");
    // One for every device, and only those below 50.
    fired("r7", "d123");
    let of_humidity = "SELECT count(*) FROM alerts WHERE metric = 'humidity'";
    // In each thousand the numbers 7 and no other.
    assert_eq!(stranger.number(of_humidity), (RULES / 1000) as u64);

    // A row that can't be read is left out, alone.
    let row = "INSERT INTO alert_rules (slug, name, severity, definition, declared) \
               VALUES ('broken', 'Broken', 'info', '{\"slug\": \"broken\"}', false)";
    stranger.ask(row);
    tidegate.wait_for_metric("tidegate_alert_rules_invalid", 1.0);
    send(&broker, "d124", r#"{"temperature": 125}"#);
    fired("r124", "d124");

    // A file with a fault is refused with all others, and the daemon goes on with what it had.
    tidegate.catalog_file(
        "rules/0/r125.toml",
        "slug = \"r125\"\nseverity = \"dire\"\nscope.all = true\nwhen = { metric = \"t\", gt = 1 }\n",
    );
    tidegate.catalog_file("rules/0/r126.toml", "slug = \"r126\"\nseverity = \"info\"\nscope.all = true\n");
    let check = tidegate.command(&["check"]).output().unwrap();
    let said = complaint(&check);
    assert!(
        check.status.code() == Some(2) && said.contains("r125.toml:2") && said.contains("r126.toml"),
        "{said:.2000}"
    );
    let errors = tidegate.metric("tidegate_reload_errors_total");
    tidegate.signal("HUP");
    tidegate.wait_for_metric("tidegate_reload_errors_total", errors + 1.0);
    send(&broker, "d125", r#"{"temperature": 126}"#);
    fired("r125", "d125");
    assert_eq!(stranger.number("SELECT count(*) FROM alert_rules"), (RULES + 1) as u64);
    assert_eq!(
        tidegate.json(&["alerts", "show", &stranger.ask("SELECT id FROM alerts WHERE rule = 'r125'")])["severity"],
        json!("warning")
    );
    assert!(tidegate.stop().success());
}

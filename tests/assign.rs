//! A device gets another template by hand while its messages are stored.

use std::process::Stdio;

use crate::support::daemon::{NATIVE, Tidegate, between, complaint};
use crate::support::load::{METRICS, Simulation, sent};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::stranger::{SQLITE, Stranger};

/// The numbers of the simulated devices, multiplied, in a unit.
fn numbers(slug: &str, unit: &str, scale: u32) -> String {
    let metric = |n: usize| {
        format!(
            "[[metric]]\nname = \"m{n}\"\nunit = \"{unit}\"\nkind = \"number\"\nkeys = [\"m{n}\"]\nscale = {scale}\n"
        )
    };
    let metrics: String = (1..=METRICS).map(metric).collect();
    format!("slug = \"{slug}\"\nname = \"{slug}\"\ncategory = \"sensor\"\nversion = 1\n{metrics}")
}

#[test]
fn on_sqlite_an_assignment_under_load_loses_nothing_and_mixes_no_units() {
    assigned_under_load(SQLITE, Stranger::of_file);
}

#[test]
fn on_postgres_an_assignment_under_load_loses_nothing_and_mixes_no_units() {
    let (stranger, url) = Stranger::on_shared_server();
    assigned_under_load(&url, |_| stranger);
}

fn assigned_under_load(database: &str, stranger: impl FnOnce(&Tidegate) -> Stranger) {
    let broker = Mosquitto::start(Setup { extra: "max_queued_messages 0".to_owned(), ..Setup::default() });
    let toml = between(&format!("mqtt://127.0.0.1:{}", broker.port), database) + NATIVE + "template = \"meters\"\n";
    let mut tidegate = Tidegate::configured(&toml);
    tidegate.catalog_file("templates/meters.toml", &numbers("meters", "m", 1));
    tidegate.catalog_file("templates/centimetres.toml", &numbers("centimetres", "cm", 100));
    tidegate.start();
    tidegate.listening();
    let simulation = Simulation::numbers(broker.port, 4000, &["--rate", "500"]);
    tidegate.wait_for_metric("tidegate_readings_stored_total", 2000.0);
    let listed = tidegate.json(&["devices", "list"]);
    let device = listed[0]["device"].as_str().unwrap();
    let reloads = tidegate.metric("tidegate_catalog_reloads_total");
    let assigning = tidegate.command(&["devices", "assign", device, "centimetres"]).stdout(Stdio::piped()).spawn();
    simulation.lasts_until(&tidegate, 3000.0, "the daemon has seen it", || {
        tidegate.metric("tidegate_catalog_reloads_total") > reloads
    });
    let said = String::from_utf8(assigning.unwrap().wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("(before: meters)") && said.contains("m1~1"), "{said}");
    simulation.finish();
    let stranger = stranger(&tidegate);
    stranger.wait_for_rows(4000 * METRICS as u64);
    let shown = tidegate.json(&["devices", "show", device]);
    let shown = shown.get(0).unwrap_or(&shown).clone();
    assert_eq!((&shown["template"], &shown["template_by"]), (&"centimetres".into(), &"assigned".into()));
    let refused = tidegate.command(&["devices", "assign", device, "no-such"]).output().unwrap();
    assert!(complaint(&refused).contains("there is no template no-such"), "{}", complaint(&refused));
    assert!(tidegate.stop().success());

    let (found, sent) = (stranger.series(), sent(4000));
    let unit = |metric: &str| {
        stranger.ask(&format!("SELECT DISTINCT unit FROM readings WHERE device = '{device}' AND metric = '{metric}'"))
    };
    for ((of, metric), sent) in sent {
        let whole = &found[&(of.clone(), metric.clone())];
        if of != device {
            assert_eq!(*whole, sent, "{of} {metric}");
            continue;
        }
        let before = &found[&(of.clone(), format!("{metric}~1"))];
        assert_eq!((unit(&metric), unit(&format!("{metric}~1"))), ("cm".to_owned(), "m".to_owned()));
        let (first, then) = sent.split_at(before.len());
        assert_eq!(*before, first, "{metric}: what was under way belongs to the old series");
        assert_eq!(whole.len(), then.len(), "{metric}");
        let scaled = |(found, sent): (&f64, &f64)| (found - sent * 100.0).abs() <= found.abs() * 1e-9;
        assert!(!then.is_empty() && whole.iter().zip(then).all(scaled), "{metric}");
    }
}

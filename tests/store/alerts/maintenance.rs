//! Sites with their time zones, and maintenance of files and of people.

use serde_json::json;
use tidegate::alert::maintenance::DeclaredMaintenance;
use tidegate::alert::maintenance_file;
use tidegate::catalog::{AmissTable, Declared, DeclaredSite};

use super::{Site, on_both};

on_both!(
    sites_have_the_time_zone_that_a_file_says,
    maintenance_is_that_of_the_files_and_of_people,
    a_row_that_is_no_maintenance_costs_itself_only,
    rules_that_wait_for_one_another_are_left_out,
);

fn window(name: &str, to: &str) -> DeclaredMaintenance {
    let definition = json!({ "name": name, "scope": {"site": "Hall"}, "from": "2026-12-01T08:00", "to": to, "timezone": "Europe/Berlin" });
    DeclaredMaintenance { maintenance: maintenance_file::from_json(&definition, "a test").unwrap(), definition }
}

fn names(site: &Site) -> Vec<(String, bool)> {
    let snapshot = site.store.snapshot().unwrap();
    snapshot.maintenance.iter().map(|one| (one.name.clone(), one.ended_at.is_some())).collect()
}

fn sites_have_the_time_zone_that_a_file_says(site: &Site) {
    let declared = |zone: &str| {
        let sites = vec![DeclaredSite { tenant: "acme".into(), name: "Hall".into(), timezone: zone.into() }];
        Declared { sites, ..Declared::default() }
    };
    let report = site.store.reconcile(&declared("Europe/Berlin")).unwrap();
    assert_eq!((report.sites_changed, report.catalog_version), (1, site.store.catalog_version().unwrap()));
    let sites = site.store.snapshot().unwrap().sites;
    assert_eq!(
        (&*sites[0].tenant, &*sites[0].name, sites[0].zone.iana_name()),
        ("acme", "Hall", Some("Europe/Berlin"))
    );
    let again = site.store.reconcile(&declared("Europe/Berlin")).unwrap();
    assert!(again.is_empty() && again.catalog_version == report.catalog_version);
    let before = site.store.catalog_version().unwrap();
    site.execute("UPDATE sites SET timezone = 'Nowhere/Else'");
    assert!(site.store.catalog_version().unwrap() > before, "a daemon hears of it");
    assert!(site.store.snapshot().unwrap().sites.is_empty(), "it goes by UTC");
    assert_eq!(site.store.reconcile(&Declared::default()).unwrap().sites_changed, 1);
}

fn maintenance_is_that_of_the_files_and_of_people(site: &Site) {
    let of = |windows: &[DeclaredMaintenance]| Declared { maintenance: windows.to_vec(), ..Declared::default() };
    let (roof, floor) = (window("roof", "2026-12-01T12:00"), window("floor", "2026-12-01T12:00"));
    let report = site.store.reconcile(&of(&[roof.clone(), floor.clone()])).unwrap();
    assert_eq!(report.maintenance_changed, ["floor", "roof"]);
    assert_eq!(*site.store.snapshot().unwrap().maintenance[1], roof.maintenance);
    assert!(site.store.reconcile(&of(&[roof.clone(), floor.clone()])).unwrap().is_empty());

    let before = site.store.catalog_version().unwrap();
    let pumps = window("pumps", "2026-12-02T12:00");
    site.store.add_maintenance(&pumps, "kim").unwrap();
    assert!(site.store.catalog_version().unwrap() > before);
    assert!(site.store.add_maintenance(&pumps, "kim").unwrap_err().to_string().contains("pumps already"));
    assert!(site.store.end_maintenance("roof", "kim").unwrap());
    assert!(!site.store.end_maintenance("roof", "kim").unwrap());
    let error = site.store.end_maintenance("rof", "kim").unwrap_err().to_string();
    assert!(error.contains("there is no maintenance rof; did you mean"), "{error}");
    let all = [("floor".to_owned(), false), ("pumps".to_owned(), false), ("roof".to_owned(), true)];
    assert_eq!(names(site), all);

    // A person's stays, and what a person has ended stays so until the file says something else.
    assert!(site.store.reconcile(&of(&[roof, floor])).unwrap().is_empty());
    assert_eq!(names(site), all);
    let report =
        site.store.reconcile(&of(&[window("roof", "2026-12-01T13:00"), window("pumps", "2026-12-03T12:00")])).unwrap();
    assert_eq!(report.maintenance_changed, ["floor", "roof"]);
    assert!(
        report.warnings[0].contains("maintenance pumps: somebody has added one of this name"),
        "{:?}",
        report.warnings
    );
    assert_eq!(names(site), [("pumps".to_owned(), false), ("roof".to_owned(), false)]);
    let rows = site.store.maintenance().unwrap();
    assert_eq!((rows[0].added_by.as_deref(), rows[0].declared, rows[1].declared), (Some("kim"), false, true));
}

fn a_row_that_is_no_maintenance_costs_itself_only(site: &Site) {
    site.store.add_maintenance(&window("pumps", "2026-12-02T12:00"), "kim").unwrap();
    site.execute("INSERT INTO maintenance (name, definition, added_at) SELECT 'odd', '{\"name\": \"odd\"}', added_at FROM maintenance");
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(snapshot.maintenance.len(), 1);
    let amiss = &snapshot.amiss[0];
    assert_eq!((amiss.table, amiss.name.as_str()), (AmissTable::Maintenance, "odd"));
    assert!(amiss.why.contains("scope: is missing"), "{amiss:?}");
    site.store.record_amiss(amiss).unwrap();
    let events = site.texts("SELECT detail AS t FROM events WHERE kind = 'maintenance_invalid'");
    assert!(events.len() == 1 && events[0].starts_with("maintenance odd: "), "{events:?}");
}

fn rules_that_wait_for_one_another_are_left_out(site: &Site) {
    let insert = |slug: &str, on: &str| {
        let definition = json!({
            "slug": slug, "severity": "info", "scope": {"all": true}, "when": {"metric": "t", "gt": 1},
            "depends_on": {"rule": on},
        });
        site.execute(&format!(
            "INSERT INTO alert_rules (slug, name, severity, definition) VALUES ('{slug}', 'x', 'info', '{definition}')"
        ));
    };
    insert("a", "b");
    insert("b", "a");
    insert("c", "a");
    let snapshot = site.store.snapshot().unwrap();
    let slugs: Vec<&str> = snapshot.rules.iter().map(|rule| &*rule.slug).collect();
    assert_eq!(slugs, ["c"]);
    let amiss: Vec<_> = snapshot.amiss.iter().map(|one| (one.name.as_str(), one.why.as_str())).collect();
    assert_eq!(amiss, [("a", "waits for itself: a → b → a"), ("b", "waits for itself: a → b → a")]);
}

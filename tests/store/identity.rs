//! Who devices are, as the database holds it; and what it refuses.

use std::sync::mpsc::channel;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tidegate::catalog::matching::GivenBy;
use tidegate::config::DatabaseUrl;
use tidegate::decode::Told;
use tidegate::store::batch::{Batch, Change, DeviceChange, DeviceIntro};

use super::{Site, at, device, lookup, on_both, reading, sensor};
use crate::support::daemon::eventually;

on_both!(
    the_database_refuses_circles_and_other_tenants,
    what_was_there_before_gets_who_gave_its_template,
    what_a_device_tells_is_kept_and_said,
    a_circle_costs_only_itself,
    a_weaker_match_changes_nothing,
);

fn the_database_refuses_circles_and_other_tenants(site: &Site) {
    site.execute(
        "INSERT INTO tenants (id, name) VALUES (9, 'acme');
         INSERT INTO devices (id, tenant_id, uid) VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 1, 'c'), (4, 9, 'd');
         UPDATE devices SET parent_id = 2 WHERE id = 1;
         UPDATE devices SET parent_id = 3 WHERE id = 2",
    );
    for (sql, words) in [
        ("UPDATE devices SET parent_id = 1 WHERE id = 1", "behind itself"),
        ("UPDATE devices SET parent_id = 1 WHERE id = 3", "behind itself"),
        ("UPDATE devices SET parent_id = 2 WHERE id = 3", "behind itself"),
        ("INSERT INTO devices (id, tenant_id, uid, parent_id) VALUES (5, 1, 'e', 5)", "behind itself"),
        ("UPDATE devices SET parent_id = 4 WHERE id = 3", "another tenant"),
        ("INSERT INTO devices (id, tenant_id, uid, parent_id) VALUES (6, 9, 'e', 1)", "another tenant"),
        ("UPDATE devices SET tenant_id = 9 WHERE id = 3", "stays with its tenant"),
        ("INSERT INTO device_modules (tenant_id, device_id, uid) VALUES (9, 1, 'm')", "another tenant"),
        (
            "INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source)
             VALUES (9, 1, 'm', '', 'number', 'unmodeled')",
            "another tenant",
        ),
        (
            "INSERT INTO device_modules (tenant_id, device_id, uid) VALUES (1, 1, 'm');
             UPDATE device_modules SET device_id = 4 WHERE uid = 'm'",
            "another tenant",
        ),
        ("UPDATE devices SET template_by = 'magic' WHERE id = 1", "template_by"),
    ] {
        let refused = site.attempt(sql).expect_err(sql);
        assert!(refused.contains(words), "{sql}: {refused}");
    }
    // What is no circle is taken, in any order, and a gateway that goes leaves its devices behind nothing.
    site.execute("INSERT INTO devices (id, tenant_id, uid, parent_id) VALUES (7, 1, 'f', 1); UPDATE devices SET parent_id = 3 WHERE id = 1");
    site.execute("DELETE FROM devices WHERE id = 3");
    assert_eq!(site.number("SELECT count(*) AS n FROM devices WHERE parent_id IS NULL"), 3);
}

#[test]
fn two_sessions_that_each_close_half_of_a_circle_are_not_both_taken() {
    let site = Site::postgres();
    site.execute("INSERT INTO devices (id, tenant_id, uid) VALUES (1, 1, 'a'), (2, 1, 'b')");
    let DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let mut first = PgConnection::establish(url.expose()).unwrap();
        first
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; UPDATE devices SET parent_id = 2 WHERE id = 1"))
            .unwrap();
        let (begun, begins) = channel();
        let second = std::thread::spawn({
            let url = url.expose().to_owned();
            move || {
                let mut second = PgConnection::establish(&url).unwrap();
                // Its one snapshot, where it has one, is from before the first commits.
                second.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT * FROM tenants")).unwrap();
                begun.send(()).unwrap();
                second
                    .batch_execute("UPDATE devices SET parent_id = 1 WHERE id = 2; COMMIT")
                    .map_err(|error| error.to_string())
            }
        });
        begins.recv().unwrap();
        // For the advisory lock, or for the row that the first has locked to look at it.
        let waits = "SELECT count(*) AS n FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the second waits", || (site.number(waits) > 0).then_some(()));
        first.batch_execute("COMMIT").unwrap();
        let refused = second.join().unwrap().expect_err(isolation);
        assert!(refused.contains("behind itself") || refused.contains("could not serialize"), "{isolation}: {refused}");
        site.execute("UPDATE devices SET parent_id = NULL");
    }
}

fn what_was_there_before_gets_who_gave_its_template(site: &Site) {
    const OURS: &str = "2026-11-21-000010_device_identity";
    site.store.revert_all().unwrap();
    site.store.migrate().unwrap();
    let folder = super::migrations().join(if site.is_postgres { "postgres" } else { "sqlite" });
    let script = |migration: &str, name: &str| std::fs::read_to_string(folder.join(migration).join(name)).unwrap();
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.as_str() >= OURS)
        .collect();
    names.sort_unstable();
    // What came later may stand on it.
    for migration in names.iter().rev() {
        site.execute(&script(migration, "down.sql"));
    }
    site.execute(
        "INSERT INTO device_templates (id, slug, name, category, version, locked) VALUES (1, 't', 'T', 'sensor', 1, TRUE);
         INSERT INTO devices (tenant_id, uid, template_id, declared) VALUES (1, 'a', 1, TRUE), (1, 'b', 1, FALSE), (1, 'c', NULL, TRUE)",
    );
    site.execute(&script(OURS, "up.sql"));
    let given = site.texts("SELECT COALESCE(template_by, '-') AS t FROM devices ORDER BY uid");
    assert_eq!(given, ["declared", "source", "-"]);
}

fn learned(device: u32, change: Change) -> DeviceChange {
    DeviceChange { device, sensors_before: 0, change }
}

/// Three devices, the first two with one sensor each.
fn three(position: u64, changes: Vec<DeviceChange>) -> Batch {
    Batch {
        position,
        generation: 1,
        messages: 1,
        devices: vec![device(0), device(1), device(2)],
        sensors: vec![sensor(0, 0, "temperature"), sensor(1, 1, "temperature")],
        readings: vec![reading(0, position as i64, 1.0, position)],
        seen: vec![(0, at(5))],
        changes,
        ..Batch::default()
    }
}

fn what_a_device_tells_is_kept_and_said(site: &Site) {
    let (mut writer, _) = site.writer();
    let told = vec![(Told::Model, "WSDCGQ11LM".into()), (Told::Name, "Attic".into())];
    let first =
        DeviceIntro { told, protocol: Some("zigbee2mqtt".into()), protocol_why: Some("the topic".into()), ..device(0) };
    let mut batch = three(1, vec![learned(0, Change::Parent(1))]);
    batch.devices[0] = first;
    writer.commit(&batch, &lookup).unwrap();
    let found = site.store.device(None, "d0").unwrap().remove(0);
    let row = &found.device;
    assert_eq!(
        (row.model.as_deref(), row.manufacturer.as_deref(), row.name.as_deref()),
        (Some("WSDCGQ11LM"), None, Some("Attic"))
    );
    assert_eq!((row.protocol.as_deref(), row.protocol_why.as_deref()), (Some("zigbee2mqtt"), Some("the topic")));
    assert_eq!(found.parent.as_deref(), Some("d1"));
    assert_eq!(site.store.device(None, "d1").unwrap()[0].children, ["d0"]);

    let news = vec![(Told::Firmware, "2".into()), (Told::Manufacturer, "Aqara".into())];
    let moved = vec![
        learned(0, Change::Told(news)),
        learned(0, Change::Parent(1)),
        learned(0, Change::Protocol { decoder: "json".into(), why: None }),
        learned(0, Change::Parent(2)),
    ];
    writer.commit(&Batch { devices: Vec::new(), sensors: Vec::new(), ..three(2, moved) }, &lookup).unwrap();
    let found = site.store.device(None, "d0").unwrap().remove(0);
    let row = &found.device;
    assert_eq!(
        (row.model.as_deref(), row.manufacturer.as_deref(), row.firmware.as_deref()),
        (Some("WSDCGQ11LM"), Some("Aqara"), Some("2"))
    );
    assert_eq!((row.protocol.as_deref(), found.parent.as_deref()), (Some("json"), Some("d2")));
    let known = site.store.snapshot().unwrap().devices.remove(0);
    assert_eq!((known.parent.as_deref(), known.source.as_deref(), known.told.len()), (Some("d2"), Some("native"), 3));
}

fn a_circle_costs_only_itself(site: &Site) {
    let (mut writer, metrics) = site.writer();
    let circle = vec![learned(0, Change::Parent(1)), learned(1, Change::Parent(0)), learned(2, Change::Parent(2))];
    let committed = writer.commit(&three(1, circle), &lookup).unwrap();
    assert_eq!((committed.stored, committed.parents_refused), (1, 2));
    assert_eq!(metrics.parents_refused.get(), 2);
    assert_eq!(site.number("SELECT count(*) AS n FROM devices WHERE parent_id IS NOT NULL"), 1);
    // A file's word is not a message's to change.
    site.execute("UPDATE devices SET parent_declared = TRUE WHERE uid = 'd0'");
    let batch = Batch { devices: Vec::new(), sensors: Vec::new(), ..three(2, vec![learned(0, Change::Parent(2))]) };
    assert_eq!(writer.commit(&batch, &lookup).unwrap().parents_refused, 0);
    assert_eq!(site.store.device(None, "d0").unwrap()[0].parent.as_deref(), Some("d1"));
}

fn a_weaker_match_changes_nothing(site: &Site) {
    site.execute(
        "INSERT INTO device_templates (id, slug, name, category, version, locked) VALUES
         (1, 't1', 'T', 'sensor', 1, TRUE), (2, 't2', 'T', 'sensor', 1, TRUE)",
    );
    let (mut writer, _) = site.writer();
    let mut batch = three(1, Vec::new());
    let intro = |index| DeviceIntro { template: Some("t1".into()), template_by: Some(GivenBy::Keys), ..device(index) };
    batch.devices = vec![intro(0), intro(1), device(2)];
    writer.commit(&batch, &lookup).unwrap();
    let give = |device, by| learned(device, Change::Template { slug: "t2".into(), by });
    let changes = vec![give(0, GivenBy::Model), give(1, GivenBy::Decoder), give(2, GivenBy::Decoder)];
    writer.commit(&Batch { devices: Vec::new(), sensors: Vec::new(), ..three(2, changes) }, &lookup).unwrap();
    let rows = site.store.devices(&Default::default(), 10).unwrap();
    let given: Vec<_> = rows.iter().map(|row| (row.template.as_deref(), row.template_by.as_deref())).collect();
    assert_eq!(given, [(Some("t2"), Some("model")), (Some("t1"), Some("keys")), (Some("t2"), Some("decoder"))]);
}

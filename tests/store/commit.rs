use std::sync::Arc;

use tidegate::catalog::Kind;
use tidegate::quarantine::{Reason, Refusal};
use tidegate::store::batch::{Batch, Quarantined, SensorIntro, TextReading};
use tidegate::store::quarantine::Filter;
use tidegate::store::query::ReadingsQuery;
use tidegate::store::{BatchWriter, Committed, StoreError};

use super::{Site, at, batch, device, lookup, message, on_both, reading, sensor};
use tidegate::metrics::Metrics;

on_both!(
    a_batch_is_stored_whole_and_once,
    readings_that_are_there_already_are_counted_as_duplicates,
    only_the_owner_of_the_position_commits,
    a_new_journal_begins_at_zero_and_is_told,
    a_commit_that_fails_leaves_nothing_and_can_be_repeated,
    a_commit_whose_answer_was_lost_is_recognised,
    one_poison_row_costs_itself_only,
    what_only_one_database_refuses_is_found_as_well,
    a_row_is_not_blamed_when_the_table_takes_nothing,
    a_late_reading_does_not_lower_the_last_value,
    numbers_and_texts_of_one_sensor_keep_their_own_last_value,
    more_rows_than_one_statement_can_bind,
    what_no_table_takes_goes_to_quarantine,
    a_new_generation_starts_its_numbers_anew,
    modules_and_tenants_are_made_when_they_are_new,
);

fn a_batch_is_stored_whole_and_once(site: &Site) {
    let (mut writer, metrics) = site.writer();
    let mut first = batch(10, (0..1000).map(|n| reading(0, n, n as f64, 1)).collect());
    first.texts = vec![TextReading { sensor: 0, time: at(3), value: "hällo".into(), seq: 2 }];
    first.quarantined = vec![Quarantined {
        message: Arc::new(message(4)),
        source: Some("native".into()),
        tenant: "default".into(),
        device: Some("d0".into()),
        refusals: vec![Refusal::sample(Reason::OutOfRange, "t", "900 is above 85")],
        more: 0,
    }];
    let done = writer.commit(&first, &lookup).unwrap();
    assert_eq!(done, Committed { stored: 1001, devices_provisioned: 1, quarantined: 1, ..Committed::default() });
    assert_eq!(site.rows("telemetry"), 1000);
    assert_eq!(site.rows("telemetry_text"), 1);
    assert_eq!(site.rows("devices"), 1);
    assert_eq!(site.rows("quarantine_events"), 1);
    assert_eq!(site.store.position("gw", "journal-1").unwrap().seq, 10);
    let device = site.store.device(None, "d0").unwrap().remove(0);
    assert_eq!(device.device.last_seen, Some(at(5)));
    assert_eq!((device.sensors[0].last_time, device.sensors[0].last_value), (Some(at(999)), Some(999.0)));
    assert_eq!(device.sensors[0].last_text.as_deref(), Some("hällo"));
    assert_eq!(metrics.readings_stored.get(), 1001);
    assert_eq!(metrics.batches_committed.get(), 1);

    // Numbers known from the first batch are not introduced again.
    let second = Batch { position: 11, generation: 1, readings: vec![reading(0, 5000, 1.0, 11)], ..Batch::default() };
    assert_eq!(writer.commit(&second, &lookup).unwrap().stored, 1);
    assert_eq!(site.rows("telemetry"), 1001);
}

fn readings_that_are_there_already_are_counted_as_duplicates(site: &Site) {
    let (mut writer, metrics) = site.writer();
    writer.commit(&batch(1, vec![reading(0, 1, 1.0, 1), reading(0, 1, 9.0, 1)]), &lookup).unwrap();
    let again = Batch {
        position: 2,
        generation: 1,
        readings: vec![reading(0, 1, 2.0, 2), reading(0, 2, 3.0, 2)],
        ..Batch::default()
    };
    let done = writer.commit(&again, &lookup).unwrap();
    assert_eq!((done.stored, done.duplicates), (1, 1));
    assert_eq!(metrics.readings_duplicate.get(), 2);
    // The first to come counts.
    assert_eq!(site.number("SELECT count(*) AS n FROM telemetry WHERE value = 1.0"), 1);
}

fn only_the_owner_of_the_position_commits(site: &Site) {
    let (mut writer, metrics) = site.writer();
    writer.commit(&batch(5, vec![reading(0, 1, 1.0, 1)]), &lookup).unwrap();
    for (journal, position) in [("journal-1", 5), ("journal-1", 4), ("journal-2", 6)] {
        let mut other = BatchWriter::new(site.store.clone(), "gw", journal, metrics.clone());
        let refused = other.commit(&batch(position, vec![reading(0, 77, 1.0, 1)]), &lookup);
        assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{journal} {position}: {refused:?}");
    }
    assert_eq!(site.rows("telemetry"), 1);
}

fn a_new_journal_begins_at_zero_and_is_told(site: &Site) {
    let (mut writer, _) = site.writer();
    writer.commit(&batch(5, vec![]), &lookup).unwrap();
    let position = site.store.position("gw", "journal-2").unwrap();
    assert_eq!(position.seq, 0);
    let replaced = position.replaced.unwrap();
    assert_eq!((replaced.journal_id.as_str(), replaced.seq), ("journal-1", 5));
    assert_eq!(site.rows("events"), 1);
    assert_eq!(site.store.position("gw", "journal-2").unwrap().replaced, None);
    assert!(matches!(writer.commit(&batch(6, vec![]), &lookup), Err(StoreError::Fenced { .. })));
}

fn a_commit_that_fails_leaves_nothing_and_can_be_repeated(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut work = batch(5, vec![reading(0, 1, 1.0, 1)]);
    work.quarantined = vec![Quarantined {
        message: Arc::new(message(4)),
        source: None,
        tenant: "default".into(),
        device: None,
        refusals: vec![Refusal::message(Reason::Malformed, "x")],
        more: 2,
    }];
    // The last statement of the transaction fails.
    site.execute("ALTER TABLE quarantine_events RENAME TO away");
    writer.commit(&work, &lookup).unwrap_err();
    site.execute("ALTER TABLE away RENAME TO quarantine_events");
    for table in ["telemetry", "devices", "device_sensors", "quarantine_messages"] {
        assert_eq!(site.rows(table), 0, "{table}");
    }
    assert_eq!(site.store.position("gw", "journal-1").unwrap().seq, 0);
    assert_eq!(writer.commit(&work, &lookup).unwrap().stored, 1);
    assert_eq!(site.rows("quarantine_events"), 1);
}

fn a_commit_whose_answer_was_lost_is_recognised(site: &Site) {
    let (mut writer, metrics) = site.writer();
    let work = batch(5, vec![reading(0, 1, 1.0, 1)]);
    site.execute("ALTER TABLE telemetry RENAME TO away");
    writer.commit(&work, &lookup).unwrap_err();
    site.execute("ALTER TABLE away RENAME TO telemetry");
    // As if it had gone through after all.
    BatchWriter::new(site.store.clone(), "gw", "journal-1", metrics).commit(&work, &lookup).unwrap();
    let done = writer.commit(&work, &lookup).unwrap();
    assert!(done.already);
    assert_eq!(site.rows("telemetry"), 1);
    let next = Batch { position: 6, generation: 1, readings: vec![reading(0, 2, 1.0, 6)], ..Batch::default() };
    assert_eq!(writer.commit(&next, &lookup).unwrap().stored, 1);
}

fn one_poison_row_costs_itself_only(site: &Site) {
    let (mut writer, metrics) = site.writer();
    site.refuse_unless("value <> 666");
    let mut readings: Vec<_> = (0..1000).map(|n| reading(0, n, 1.0, 100 + n as u64)).collect();
    readings[617].value = 666.0;
    let mut last = reading(0, 100_000, 666.0, 1200);
    last.time = at(100_000);
    readings.push(last);
    let done = writer.commit(&batch(2000, readings), &lookup).unwrap();
    assert_eq!((done.stored, done.rejected, done.duplicates, done.bisected), (999, 2, 0, true));
    assert_eq!(metrics.batches_bisected.get(), 1);
    let events = site.store.quarantine_list(&Filter::default(), 10).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].reason, "rejected_by_database");
    assert_eq!(events[1].topic, "devices/d717/telemetry");
    assert_eq!(events[1].key.as_deref(), Some("temperature"));
    assert_eq!(events[1].device.as_deref(), Some("d0"));
    assert!(events[1].detail.contains("of_the_test"), "{}", events[1].detail);
    let device = site.store.device(None, "d0").unwrap().remove(0);
    assert_eq!(device.sensors[0].last_time, Some(at(999)), "a refused reading is no last value");
}

fn what_only_one_database_refuses_is_found_as_well(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut readings: Vec<_> = (0..8).map(|n| reading(0, n, 1.0, 1)).collect();
    if site.is_postgres {
        readings[3].time.0 = i64::MIN / 2;
        readings[4].time.0 = i64::MIN;
    } else {
        readings[3].value = f64::NAN;
        readings[4].value = f64::NAN;
    }
    let done = writer.commit(&batch(1, readings), &lookup).unwrap();
    assert_eq!((done.stored, done.rejected), (6, 2));
}

fn a_row_is_not_blamed_when_the_table_takes_nothing(site: &Site) {
    let (mut writer, _) = site.writer();
    site.refuse_unless("value < -1e300");
    let work = batch(5, vec![reading(0, 1, 1.0, 1), reading(0, 2, 1.0, 1)]);
    let error = writer.commit(&work, &lookup).unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(site.rows("quarantine_events"), 0);
    site.accept_all();
    assert_eq!(writer.commit(&work, &lookup).unwrap().stored, 2);
    assert_eq!(site.number("SELECT count(*) AS n FROM telemetry WHERE sensor_id = 0"), 0);
}

fn a_late_reading_does_not_lower_the_last_value(site: &Site) {
    let (mut writer, _) = site.writer();
    writer.commit(&batch(1, vec![reading(0, 100, 1.0, 1), reading(0, 50, 9.0, 1)]), &lookup).unwrap();
    let late = Batch {
        position: 2,
        generation: 1,
        readings: vec![reading(0, 60, 2.0, 2)],
        seen: vec![(0, at(1))],
        ..Batch::default()
    };
    writer.commit(&late, &lookup).unwrap();
    let device = site.store.device(None, "d0").unwrap().remove(0);
    assert_eq!((device.sensors[0].last_time, device.sensors[0].last_value), (Some(at(100)), Some(1.0)));
    assert_eq!(device.device.last_seen, Some(at(5)));
}

fn numbers_and_texts_of_one_sensor_keep_their_own_last_value(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut work = batch(1, vec![reading(0, 100, 1.0, 1)]);
    work.texts = vec![TextReading { sensor: 0, time: at(200), value: "n/a".into(), seq: 1 }];
    writer.commit(&work, &lookup).unwrap();
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(snapshot.devices[0].sensors[0].last, Some((at(100), 1.0)));
}

fn more_rows_than_one_statement_can_bind(site: &Site) {
    let (mut writer, _) = site.writer();
    let devices: u32 = 12_000;
    let work = Batch {
        position: 1,
        generation: 1,
        devices: (0..devices).map(device).collect(),
        sensors: (0..devices).map(|n| sensor(n, n, "t")).collect(),
        readings: (0..70_000).map(|n| reading(n % devices, i64::from(n / devices), f64::from(n), 1)).collect(),
        seen: (0..devices).map(|n| (n, at(9))).collect(),
        ..Batch::default()
    };
    let done = writer.commit(&work, &lookup).unwrap();
    assert_eq!((done.stored, done.devices_provisioned), (70_000, 12_000));
    while !writer.is_settled() {
        writer.settle().unwrap();
    }
    assert_eq!(site.rows("telemetry"), 70_000);
    // Each number of the pipeline stands for the right row: device n's sensor has the values n, n + 12,000, …
    assert_eq!(
        site.number(
            "SELECT count(*) AS n FROM readings WHERE 'd' || (CAST(value AS integer) % 12000) = device AND metric = 't'"
        ),
        70_000
    );
    assert_eq!(site.number("SELECT count(*) AS n FROM device_sensors WHERE last_value >= 58000"), 12_000);
    assert_eq!(site.number("SELECT count(*) AS n FROM devices WHERE last_seen IS NOT NULL"), 12_000);
    let snapshot = site.store.snapshot().unwrap();
    assert_eq!(snapshot.devices.len(), 12_000);
    assert!(snapshot.devices.iter().all(|device| device.sensors.len() == 1));
}

fn what_no_table_takes_goes_to_quarantine(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut work = batch(1, vec![reading(0, 1, 1.0, 1), reading(1, 1, 1.0, 2), reading(9, 1, 1.0, 3)]);
    let mut huge = device(1);
    huge.uid = "x".repeat(2000).into();
    work.devices.push(huge);
    work.sensors.push(sensor(1, 1, "t"));
    let mut refused = message(4);
    refused.publish.topic = "a\0b".into();
    work.quarantined = vec![Quarantined {
        message: Arc::new(refused),
        source: None,
        tenant: "no\0tenant".into(),
        device: Some("d\0".into()),
        refusals: vec![Refusal { reason: Reason::BadName, key: Some("k\0".into()), detail: "d\0".into() }],
        more: 0,
    }];
    let done = writer.commit(&work, &lookup).unwrap();
    assert_eq!((done.stored, done.rejected, done.quarantined), (1, 2, 3));
    let events = site.store.quarantine_list(&Filter::default(), 10).unwrap();
    let details: Vec<&str> = events.iter().map(|event| event.detail.as_str()).collect();
    assert!(details.contains(&"the device's uid has 2000 bytes, 512 are allowed"), "{details:?}");
    assert!(details.contains(&"the sensor was never introduced"), "{details:?}");
    assert!(details.contains(&"d\u{2400}"), "{details:?}");
    // The sensor stays known as unfit.
    let next = Batch { position: 2, generation: 1, readings: vec![reading(1, 5, 1.0, 9)], ..Batch::default() };
    assert_eq!(writer.commit(&next, &lookup).unwrap().rejected, 1);
}

fn a_new_generation_starts_its_numbers_anew(site: &Site) {
    let (mut writer, _) = site.writer();
    writer.commit(&batch(1, vec![reading(0, 1, 1.0, 1)]), &lookup).unwrap();
    let known = site.store.snapshot().unwrap().devices.remove(0);
    let mut other = device(0);
    other.uid = "other".into();
    let mut same = device(1);
    same.id = Some(known.id);
    same.uid = known.uid;
    let mut its_sensor = sensor(1, 1, "temperature");
    its_sensor.id = Some(known.sensors[0].id);
    let next = Batch {
        position: 2,
        generation: 2,
        devices: vec![other, same],
        sensors: vec![sensor(0, 0, "temperature"), its_sensor],
        readings: vec![reading(0, 2, 2.0, 2), reading(1, 3, 3.0, 2)],
        ..Batch::default()
    };
    assert_eq!(writer.commit(&next, &lookup).unwrap().stored, 2);
    let values = |uid: &str| {
        let query = ReadingsQuery { device: uid.into(), limit: 10, ..ReadingsQuery::default() };
        site.store.readings(&query).unwrap().rows.into_iter().filter_map(|row| row.value).collect::<Vec<_>>()
    };
    assert_eq!(values("other"), [2.0]);
    assert_eq!(values("d0"), [1.0, 3.0]);
}

fn modules_and_tenants_are_made_when_they_are_new(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut work = batch(1, vec![reading(0, 1, 1.0, 1), reading(1, 1, 2.0, 1)]);
    let mut elsewhere = device(1);
    elsewhere.tenant = "acme".into();
    elsewhere.uid = "d0".into();
    work.devices.push(elsewhere);
    work.sensors.push(SensorIntro { module: Some("m1".into()), kind: Kind::Bool, ..sensor(1, 1, "m1.contact") });
    writer.commit(&work, &lookup).unwrap();
    assert_eq!(site.store.device(None, "d0").unwrap().len(), 2);
    let found = site.store.device(Some("acme"), "d0").unwrap().remove(0);
    assert_eq!(found.modules[0].uid, "m1");
    assert_eq!(found.sensors[0].metric, "m1.contact");
    assert_eq!(found.sensors[0].kind, "bool");
    // The same device again, by another writer that does not know it.
    let mut again = BatchWriter::new(site.store.clone(), "gw", "journal-1", Metrics::new());
    work.position = 2;
    let done = again.commit(&work, &lookup).unwrap();
    assert_eq!((done.devices_provisioned, done.duplicates), (0, 2));
}

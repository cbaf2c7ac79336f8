use tidegate::store::batch::Batch;
use tidegate::store::{BatchWriter, Store};

use super::{Site, at, device, lookup, on_both, reading, sensor};

on_both!(
    last_values_of_a_large_batch_are_written_in_their_turn,
    last_values_that_a_crash_took_along_are_found_among_the_readings,
);

const SENSORS: u32 = 3000;

/// A reading of each of many sensors, each with a device of its own.
fn wide(position: u64, time: i64, value: f64) -> Batch {
    let mut batch = Batch {
        position,
        generation: 1,
        oldest: Some(at(time)),
        readings: (0..SENSORS).map(|n| reading(n, time, value, position)).collect(),
        seen: (0..SENSORS).map(|n| (n, at(time))).collect(),
        ..Batch::default()
    };
    if position == 1 {
        batch.devices = (0..SENSORS).map(device).collect();
        batch.sensors = (0..SENSORS).map(|n| sensor(n, n, "t")).collect();
    }
    batch
}

fn with_last_value(site: &Site, value: f64) -> i64 {
    site.number(&format!("SELECT count(*) AS n FROM device_sensors WHERE last_value = {value}"))
}

fn waiting_since(site: &Site) -> i64 {
    site.number("SELECT count(last_values_since) AS n FROM bridge_instances")
}

fn last_values_of_a_large_batch_are_written_in_their_turn(site: &Site) {
    let (mut writer, metrics) = site.writer();
    writer.commit(&wide(1, 10, 1.0), &lookup).unwrap();
    assert_eq!((with_last_value(site, 1.0), metrics.last_values_waiting.get(), waiting_since(site)), (1000, 2000, 1));
    writer.commit(&wide(2, 20, 2.0), &lookup).unwrap();
    assert_eq!((with_last_value(site, 1.0), with_last_value(site, 2.0)), (1000, 1000));
    assert_eq!(site.rows("telemetry"), 6000, "the readings themselves wait for nothing");
    while !writer.is_settled() {
        writer.settle().unwrap();
    }
    assert_eq!((with_last_value(site, 2.0), waiting_since(site)), (3000, 0));
    let small = Batch { position: 3, generation: 1, readings: vec![reading(5, 30, 3.0, 3)], ..Batch::default() };
    writer.commit(&small, &lookup).unwrap();
    assert_eq!((with_last_value(site, 3.0), writer.is_settled()), (1, true));
}

fn last_values_that_a_crash_took_along_are_found_among_the_readings(site: &Site) {
    let (mut writer, metrics) = site.writer();
    writer.commit(&wide(1, 10, 1.0), &lookup).unwrap();
    writer.commit(&wide(2, 20, 2.0), &lookup).unwrap();
    // A late one is no last value.
    let late = Batch { position: 3, generation: 1, readings: vec![reading(7, 15, 9.0, 3)], ..Batch::default() };
    writer.commit(&late, &lookup).unwrap();
    drop(writer);
    assert!(with_last_value(site, 2.0) < 3000);

    let store = Store::open(&site.settings).unwrap();
    assert_eq!(store.position("gw", "journal-1").unwrap().seq, 3);
    assert_eq!((with_last_value(site, 2.0), waiting_since(site)), (3000, 0));
    assert!(store.snapshot().unwrap().devices.iter().all(|device| device.sensors[0].last == Some((at(20), 2.0))));
    let mut writer = BatchWriter::new(store, "gw", "journal-1", metrics);
    let next = Batch { position: 4, ..wide(1, 30, 3.0) };
    writer.commit(&next, &lookup).unwrap();
    assert_eq!(with_last_value(site, 3.0), 1000);
}

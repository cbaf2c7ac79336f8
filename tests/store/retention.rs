//! What has outlived its lifetime goes, and nothing else; readings are in the archive before they are gone.

use std::time::Duration;

use tidegate::archive::Archive;
use tidegate::cli;
use tidegate::config::{Config, Retention as Lifetimes};
use tidegate::metrics::{ByClass, Metrics};
use tidegate::store::batch::{Batch, DeviceIntro, Reading, SensorIntro, TextReading};
use tidegate::store::layout::ReadingTable;
use tidegate::store::retention::{Measured, ReadingSink, SeriesName};
use tidegate::store::{Store, StoreError};
use tidegate::time::UtcMicros;
use tidegate::upkeep::retention::Retention;
use tidegate::upkeep::rollups::Rollups;
use tidegate::upkeep::{Chore, Next};

use super::{Site, device, lookup, on_both, sensor};

on_both!(
    old_readings_go_by_whole_days_and_younger_ones_stay,
    nothing_goes_where_everything_lives_for_ever,
    old_events_and_refusals_go,
    readings_are_archived_before_they_go_and_can_be_restored,
    an_archive_that_fails_holds_the_drop_back,
    deleted_devices_are_made_anew_by_a_restore,
    a_damaged_archive_is_found_and_nothing_of_it_restored,
    days_with_very_many_readings_go_in_slices,
    numbers_stay_until_they_are_rolled_up,
);

const DAY: i64 = 86_400_000_000;

pub fn days_ago(days: i64) -> UtcMicros {
    UtcMicros(tidegate::clock::now().0 - days * DAY)
}

/// Two devices, with two readings and a text on each of these days.
pub fn fill(site: &Site, days: &[i64]) {
    let (mut writer, _) = site.writer();
    let mut work = Batch {
        position: 1,
        generation: 1,
        messages: 1,
        devices: vec![
            device(0),
            DeviceIntro { tenant: "acme".into(), uid: "with, \"quotes\"\nand lines".into(), ..device(1) },
        ],
        sensors: vec![sensor(0, 0, "temperature"), SensorIntro { unit: "%".into(), ..sensor(1, 1, "humidity") }],
        ..Batch::default()
    };
    for day in days {
        for sensor in 0..2 {
            let time = UtcMicros(days_ago(*day).0 + i64::from(sensor));
            let other = UtcMicros(time.0 + 10);
            work.readings.push(Reading { sensor, time, value: *day as f64 + 0.1, seq: 1 });
            work.readings.push(Reading { sensor, time: other, value: -1e-7, seq: 1 });
            work.texts.push(TextReading { sensor, time, value: format!("day, \"{day}\"\nñ"), seq: 1 });
        }
    }
    assert_eq!(writer.commit(&work, &lookup).unwrap().rejected, 0);
}

pub fn lifetimes(days: u64) -> Lifetimes {
    let life = Some(Duration::from_secs(days * 86_400));
    Lifetimes { raw: life, text: life, quarantine: life, events: life, ..Config::default().retention }
}

/// Steps until there is nothing left to do.
pub fn run(store: &Store, lifetimes: &Lifetimes, archive: Option<&Archive>) -> Result<Metrics, StoreError> {
    let metrics = Metrics::new();
    let mut chore = Retention::new(lifetimes, archive.cloned(), false, metrics.clone());
    until_done(&mut chore, store).map(|()| metrics)
}

fn numbers_stay_until_they_are_rolled_up(site: &Site) {
    fill(site, &[0, 12]);
    let metrics = Metrics::new();
    let retain = |metrics: &Metrics| {
        let mut chore = Retention::new(&lifetimes(10), None, true, metrics.clone());
        until_done(&mut chore, &site.store).unwrap();
    };
    retain(&metrics);
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (8, 2));

    let days = "SELECT CAST(time AS text) || '|' || metric || '|' || CAST(count AS text) || '|' || CAST(max AS text) AS t \
                FROM readings_daily ORDER BY 1";
    let before = site.texts(days);
    let mut rollups = Rollups::new(Config::default().rollups, lifetimes(10).raw, metrics.clone());
    until_done(&mut rollups, &site.store).unwrap();
    retain(&metrics);
    assert_eq!(site.rows("telemetry"), 4);
    assert_eq!(before.len(), 4);
    assert_eq!(site.texts(days), before, "the day that is gone is still summed up");
}

pub fn until_done(chore: &mut dyn Chore, store: &Store) -> Result<(), StoreError> {
    for _ in 0..1000 {
        let now = tidegate::clock::now();
        if let Next::At(due) = chore.step(store, now)? {
            assert!(due > now);
            return Ok(());
        }
    }
    panic!("{} does not end", chore.name());
}

/// Everything in the view, to compare.
pub fn contents(site: &Site) -> Vec<String> {
    site.texts(
        "SELECT tenant || '|' || device || '|' || metric || '|' || unit || '|' || CAST(time AS text) || '|' || \
         coalesce(CAST(value AS text), '') || '|' || coalesce(text_value, '') AS t FROM readings ORDER BY 1",
    )
}

fn class(metrics: &Metrics, class: &'static str) -> (u64, u64) {
    let class = ByClass { class };
    (metrics.retention_rows.get_or_create(&class).get(), metrics.retention_parts.get_or_create(&class).get())
}

fn archive() -> (tempfile::TempDir, Archive) {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new(dir.path().join("of/readings"));
    (dir, archive)
}

fn old_readings_go_by_whole_days_and_younger_ones_stay(site: &Site) {
    fill(site, &[0, 1, 9, 12, 13, 40]);
    let metrics = run(&site.store, &lifetimes(10), None).unwrap();
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (12, 6));
    assert_eq!(class(&metrics, "raw").1, 3);
    assert_eq!(class(&metrics, "text").1, 3);
    if !site.is_postgres {
        assert_eq!(class(&metrics, "raw").0, 12);
    }
    // A late reading for a day that is gone is taken, and goes again.
    fill_again(site, 12);
    assert_eq!(site.rows("telemetry"), 13);
    run(&site.store, &lifetimes(10), None).unwrap();
    assert_eq!(site.rows("telemetry"), 12);
}

fn fill_again(site: &Site, day: i64) {
    let (mut writer, _) = site.writer();
    let mut work = super::batch(9, vec![Reading { sensor: 0, time: days_ago(day), value: 1.0, seq: 9 }]);
    work.seen.clear();
    writer.commit(&work, &lookup).unwrap();
}

fn nothing_goes_where_everything_lives_for_ever(site: &Site) {
    fill(site, &[0, 5000]);
    let before = contents(site);
    let (_dir, archive) = archive();
    run(&site.store, &Config::default().retention, Some(&archive)).unwrap();
    assert_eq!(contents(site), before);
    assert_eq!(archive.entries().unwrap(), []);
}

fn old_events_and_refusals_go(site: &Site) {
    let at = |days: i64| {
        let time = days_ago(days).0;
        if site.is_postgres { format!("to_timestamp({})", time / 1_000_000) } else { time.to_string() }
    };
    let empty = if site.is_postgres { "''::bytea" } else { "x''" };
    let no = if site.is_postgres { "false" } else { "0" };
    for (id, days) in [(1, 30), (2, 3)] {
        site.execute(&format!(
            "INSERT INTO events (tenant_id, at, kind, detail) VALUES (1, {at}, 'k', 'd');
             INSERT INTO quarantine_messages (id, tenant_id, instance, journal_id, seq, received_at, topic, payload, qos, retain, more)
                 VALUES ({id}, 1, 'gw', 'j', {id}, {at}, 't', {empty}, 1, {no}, 0);
             INSERT INTO quarantine_events (tenant_id, message_id, at, reason, detail) VALUES (1, {id}, {at}, 'malformed', 'd')",
            at = at(days)
        ));
    }
    let metrics = run(&site.store, &lifetimes(10), None).unwrap();
    for table in ["events", "quarantine_events", "quarantine_messages"] {
        assert_eq!(site.rows(table), 1, "{table}");
    }
    assert_eq!((class(&metrics, "events").0, class(&metrics, "quarantine").0), (1, 1));
}

fn readings_are_archived_before_they_go_and_can_be_restored(site: &Site) {
    fill(site, &[0, 1, 12, 13, 400]);
    let before = contents(site);
    let (_dir, archive) = archive();
    let metrics = run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (8, 4));
    let entries = archive.entries().unwrap();
    assert_eq!((entries.len() as u64, metrics.archive_files.get()), (6, 6));
    assert_eq!(entries.iter().map(|entry| entry.rows).sum::<u64>(), 18);
    assert!(entries.iter().all(|entry| entry.series == 2 && entry.sha256.len() == 64), "{entries:?}");
    assert_eq!(class(&metrics, "raw"), (12, 3));

    let mut out = Vec::new();
    assert!(cli::archive::verify(&archive, false, &mut out).unwrap());
    cli::archive::list(&archive, true, &mut out).unwrap();
    let told = String::from_utf8(out).unwrap();
    assert!(told.contains("ok       telemetry_") && told.contains("\"sha256\""), "{told}");

    let month = Duration::from_secs(30 * 86_400);
    for _ in 0..2 {
        cli::archive::restore(&archive, &site.store, &entries, month, false, &mut Vec::new()).unwrap();
        assert_eq!(contents(site), before);
    }
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!(contents(site), before, "restored readings are left alone");

    // Until the time is over; then they go as before, and what is archived is not archived twice.
    site.execute(&format!(
        "UPDATE archive_restored SET kept_until = {}",
        if site.is_postgres { "now() - interval '1 second'" } else { "0" }
    ));
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (8, 4));
    assert_eq!(archive.entries().unwrap().len(), 6);
    assert_eq!(archive.strays().unwrap(), Vec::<String>::new());
}

fn an_archive_that_fails_holds_the_drop_back(site: &Site) {
    fill(site, &[0, 12]);
    let before = contents(site);
    let dir = tempfile::tempdir().unwrap();
    // A file where the directory should be: not even root writes there.
    std::fs::write(dir.path().join("taken"), "").unwrap();
    let metrics = Metrics::new();
    let mut chore =
        Retention::new(&lifetimes(10), Some(Archive::new(dir.path().join("taken"))), false, metrics.clone());
    let errors = (0..10).filter_map(|_| chore.step(&site.store, tidegate::clock::now()).err());
    let errors: Vec<StoreError> = errors.collect();
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|error| error.to_string().contains("see that [archive] dir exists")), "{errors:?}");
    assert_eq!(metrics.archive_errors.get(), errors.len() as u64);
    assert_eq!(contents(site), before);

    // No room, in the middle or at the end.
    let part = site.store.expired_part(ReadingTable::Numbers, days_ago(5), days_ago(0)).unwrap().unwrap();
    for rows_until_full in [2, 100] {
        let mut full = Full { rows_until_full };
        let error = site.store.drop_part(ReadingTable::Numbers, &part, Some(&mut full)).unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("No space left"), "{error}");
        assert_eq!(contents(site), before);
    }
    // Room again.
    std::fs::remove_file(dir.path().join("taken")).unwrap();
    let archive = Archive::new(dir.path().join("taken"));
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!(archive.entries().unwrap().len(), 2);
    assert_eq!(site.rows("telemetry"), 4);
}

/// A disk with room for some rows, and none for the end of the file.
struct Full {
    rows_until_full: u32,
}

impl ReadingSink for Full {
    fn take(&mut self, _: &SeriesName, _: UtcMicros, _: Measured<'_>) -> Result<(), String> {
        self.rows_until_full -= 1;
        if self.rows_until_full == 0 { Err("No space left on device".to_owned()) } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), String> {
        Err("No space left on device".to_owned())
    }
}

fn deleted_devices_are_made_anew_by_a_restore(site: &Site) {
    fill(site, &[12, 13]);
    let before = contents(site);
    let (_dir, archive) = archive();
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!(site.rows("readings"), 0);
    site.execute("DELETE FROM devices WHERE uid <> 'd0'");
    let version = site.store.catalog_version().unwrap();
    let mut out = Vec::new();
    let entries = archive.entries().unwrap();
    cli::archive::restore(&archive, &site.store, &entries, Duration::from_secs(9), false, &mut out).unwrap();
    assert_eq!(contents(site), before);
    assert!(String::from_utf8(out).unwrap().contains("1 devices were gone"));
    assert!(site.store.catalog_version().unwrap() > version, "a running daemon hears of them");
}

fn a_damaged_archive_is_found_and_nothing_of_it_restored(site: &Site) {
    fill(site, &[12, 13]);
    let (_dir, archive) = archive();
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    let entries = archive.entries().unwrap();
    let path = archive.dir().join(&entries[0].file);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(archive.dir().join(&entries[1].file)).unwrap();
    std::fs::write(archive.dir().join("stranger.csv.gz"), "").unwrap();
    let mut out = Vec::new();
    assert!(!cli::archive::verify(&archive, false, &mut out).unwrap());
    let told = String::from_utf8(out).unwrap();
    assert_eq!(told.lines().filter(|line| line.starts_with("damaged")).count(), 2, "{told}");
    assert!(told.contains("SHA-256") && told.contains("stray    stranger.csv.gz"), "{told}");
    let keep = Duration::from_secs(9);
    cli::archive::restore(&archive, &site.store, &entries[..1], keep, false, &mut Vec::new()).unwrap_err();
    assert_eq!(site.rows("readings"), 0);
    // A line torn by a crash costs itself only.
    let manifest = archive.dir().join("manifest.jsonl");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, &text[..text.len() - 9]).unwrap();
    assert_eq!(archive.entries().unwrap().len(), entries.len() - 1);
    fill_again(site, 15);
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert!(archive.entries().unwrap().len() > entries.len() - 1);
}

fn days_with_very_many_readings_go_in_slices(site: &Site) {
    let (mut writer, _) = site.writer();
    let day = days_ago(12).0.div_euclid(DAY) * DAY;
    let readings = (0..250_000_i64)
        .map(|n| Reading { sensor: 0, time: UtcMicros(day + n * (DAY / 250_000)), value: 1.0, seq: 1 })
        .collect();
    writer.commit(&super::batch(1, readings), &lookup).unwrap();
    let (_dir, archive) = archive();
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!(site.rows("telemetry"), 0);
    let entries = archive.entries().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.rows).sum::<u64>(), 250_000);
    if site.is_postgres {
        assert_eq!(entries.len(), 1);
    } else {
        assert!(entries.len() > 2 && entries.iter().all(|entry| entry.rows <= 100_000), "{entries:?}");
    }
}

#[test]
fn a_long_query_is_left_in_peace_and_the_drop_tried_again() {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, PgConnection};
    let site = Site::postgres();
    fill(&site, &[0, 12]);
    let tidegate::config::DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut reader = PgConnection::establish(url.expose()).unwrap();
    reader.batch_execute("BEGIN; SELECT count(*) FROM telemetry").unwrap();
    let (_dir, archive) = archive();
    let error = run(&site.store, &lifetimes(10), Some(&archive)).err().unwrap();
    assert!(error.is_transient() && error.to_string().contains("lock timeout"), "{error}");
    assert_eq!(site.rows("telemetry"), 8);
    reader.batch_execute("COMMIT").unwrap();
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (4, 2));
    assert_eq!(archive.entries().unwrap().len(), 2, "what was archived before is not archived twice");
}

#[test]
fn two_programs_drop_the_same_days_and_archive_them_once() {
    let site = Site::postgres();
    fill(&site, &[0, 12, 13, 14, 15]);
    let (_dir, archive) = archive();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let store = Store::open(&site.settings).unwrap();
                let deadline = std::time::Instant::now() + Duration::from_secs(60);
                // A drop may be held up by the other's for a moment.
                while run(&store, &lifetimes(10), Some(&archive)).is_err() {
                    assert!(std::time::Instant::now() < deadline);
                }
            });
        }
    });
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (4, 2));
    assert_eq!(archive.entries().unwrap().iter().map(|entry| entry.rows).sum::<u64>(), 24);
    assert!(cli::archive::verify(&archive, false, &mut Vec::new()).unwrap());
}

//! The layout on real TimescaleDB, where it is installed.

use std::sync::Arc;
use std::time::Duration;

use tidegate::archive::Archive;
use tidegate::cli;
use tidegate::config::{Config, DatabaseUrl, LayoutChoice, Retention as Lifetimes, Secret};
use tidegate::metrics::Metrics;
use tidegate::store::Store;
use tidegate::store::batch::Reading;
use tidegate::store::layout::Layout;
use tidegate::store::rollups::Grain;
use tidegate::upkeep::compression::Compression;
use tidegate::upkeep::{Chore, Next};

use super::layout::undo_down_to_layout;
use super::retention::{contents, days_ago, fill, lifetimes, run};
use super::{Site, batch, lookup, settings};
use crate::support::postgres::Postgres;

pub(super) fn site(server: &Arc<Postgres>, layout: LayoutChoice) -> Site {
    let mut settings = settings(DatabaseUrl::Postgres(Secret::new(server.database())));
    settings.layout = layout;
    let store = Store::open(&settings).unwrap();
    Site { store, settings, is_postgres: true, _server: Some(Arc::clone(server)), _dir: None }
}

/// How many chunks there were to compress.
pub(super) fn compress(site: &Site) -> u64 {
    let metrics = Metrics::new();
    let mut chore = Compression::new(Duration::from_secs(7 * 86_400), metrics.clone());
    for _ in 0..1000 {
        if let Next::At(_) = chore.step(&site.store, tidegate::clock::now()).unwrap() {
            return metrics.chunks_compressed.get();
        }
    }
    panic!("compression does not end");
}

#[test]
fn readings_of_any_day_live_in_chunks_are_archived_and_restored() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let site = site(&server, LayoutChoice::Auto);
    site.store.migrate().unwrap();
    assert_eq!(site.store.layout().unwrap(), Layout::Timescale);
    let hypertables = "SELECT hypertable_name::text AS t FROM timescaledb_information.hypertables ORDER BY 1";
    let readings_and_figures = ["system_metrics", "telemetry", "telemetry_text"];
    assert!(readings_and_figures.iter().all(|name| site.texts(hypertables).iter().any(|found| found == name)));
    let found = site.store.schema_status().unwrap().layout.unwrap().recorded;
    assert!(found.detail.starts_with("TimescaleDB 2."), "{found:?}");
    fill(&site, &[0, 1, 12, 13, 400]);
    let before = contents(&site);
    assert_eq!(before.len(), 30);
    let status = site.store.schema_status().unwrap().layout.unwrap();
    assert_eq!((status.tables[0].parts, status.tables[1].parts), (5, 5));
    let indexes = "SELECT count(*) AS n FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'telemetry'";
    assert_eq!(site.number(indexes), 1, "the primary key serves");

    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::new(dir.path().to_owned());
    assert_eq!(compress(&site), 6);
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (8, 4));
    let entries = archive.entries().unwrap();
    assert_eq!(entries.len(), 6);
    for _ in 0..2 {
        cli::archive::restore(&archive, &site.store, &entries, Duration::from_secs(900), false, &mut Vec::new())
            .unwrap();
        assert_eq!(contents(&site), before);
    }
    run(&site.store, &lifetimes(10), Some(&archive)).unwrap();
    assert_eq!(contents(&site), before);

    // The way back to plain tables.
    undo_down_to_layout(&site);
    assert_eq!(contents(&site), before);
}

#[test]
fn late_readings_come_into_compressed_chunks_once() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let site = site(&server, LayoutChoice::Timescale);
    site.store.migrate().unwrap();
    fill(&site, &[0, 12]);
    assert_eq!(compress(&site), 2);
    assert_eq!(site.store.schema_status().unwrap().layout.unwrap().tables[0].compressed, 1);
    let old =
        site.number("SELECT (extract(epoch FROM min(time)) * 1000000)::bigint AS n FROM telemetry WHERE sensor_id = 1");
    let (mut writer, _) = site.writer();
    let reading = |time: i64| Reading { sensor: 0, time: tidegate::time::UtcMicros(time), value: 7.0, seq: 2 };
    // One that is there and one that is not.
    let done = writer.commit(&batch(2, vec![reading(old), reading(old + 500)]), &lookup).unwrap();
    assert_eq!((done.stored, done.duplicates, done.rejected), (1, 1, 0));
    assert_eq!(site.rows("telemetry"), 9);
    // The same by COPY.
    let copy = |micros: i64| {
        site.execute(&format!(
            "COPY telemetry FROM PROGRAM 'date -u -d @{}.{:06} \"+1,%Y-%m-%d %H:%M:%S.%6N+00,8\"' (FORMAT csv)",
            micros / 1_000_000,
            micros % 1_000_000
        ));
    };
    copy(old + 900);
    assert_eq!(site.rows("telemetry"), 10);
    let twice = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| copy(old)));
    assert!(twice.is_err(), "COPY sees what is compressed too");
    assert_eq!(site.rows("telemetry"), 10);
    // What came late is compressed as well.
    assert_eq!(compress(&site), 1);
    assert_eq!(compress(&site), 0);
    assert_eq!(site.rows("telemetry"), 10);
}

#[test]
fn without_the_right_to_make_the_extension_partitions_are_taken() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let owner = site(&server, LayoutChoice::Auto);
    owner.execute("CREATE ROLE small LOGIN PASSWORD 'tide'; GRANT CREATE ON SCHEMA public TO small");
    let DatabaseUrl::Postgres(url) = &owner.settings.url else { panic!() };
    let mut settings = owner.settings.clone();
    settings.url = DatabaseUrl::Postgres(Secret::new(url.expose().replace("postgres:tide@", "small:tide@")));
    let store = Store::open(&settings).unwrap();
    settings.layout = LayoutChoice::Timescale;
    let error = Store::open(&settings).unwrap().migrate().unwrap_err();
    assert!(error.to_string().contains("CREATE EXTENSION timescaledb failed: permission denied"), "{error}");
    store.migrate().unwrap();
    assert_eq!(store.layout().unwrap(), Layout::Partitions);
    let detail = store.schema_status().unwrap().layout.unwrap().recorded.detail;
    assert!(detail.contains("permission denied"), "{detail}");
    store.position("gw", "journal-1").unwrap();
    let mut writer = tidegate::store::BatchWriter::new(store, "gw", "journal-1", Metrics::new());
    let work = batch(1, vec![Reading { sensor: 0, time: days_ago(20), value: 1.0, seq: 1 }]);
    assert_eq!(writer.commit(&work, &lookup).unwrap().stored, 1);
}

#[test]
fn rollups_that_have_expired_go_by_chunks() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let site = site(&server, LayoutChoice::Timescale);
    site.store.migrate().unwrap();
    fill(&site, &[0, 12, 400]);
    for grain in Grain::ALL {
        site.store.refresh_rollups(grain, None, days_ago(1)).unwrap();
    }
    let life = Some(Duration::from_secs(300 * 86_400));
    let lifetimes = Lifetimes { raw: life, rollups_hourly: life, ..Config::default().retention };
    run(&site.store, &lifetimes, None).unwrap();
    let oldest = "SELECT coalesce(extract(epoch FROM now() - min(time)) / 86400, 0)::bigint AS n FROM ";
    assert_eq!(site.number(&format!("{oldest} telemetry")), 12);
    assert_eq!(site.number(&format!("{oldest} readings_hourly")), 12);
    assert!(site.number(&format!("{oldest} readings_daily")) >= 399, "daily ones live for ever");
}

#[test]
fn rows_of_a_plain_table_become_chunks() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let site = site(&server, LayoutChoice::Auto);
    super::layout::as_the_first_version(&site);
    let (numbers, readings) = (site.rows("telemetry"), site.rows("readings"));
    site.store.migrate().unwrap();
    assert_eq!(site.store.layout().unwrap(), Layout::Timescale);
    assert_eq!((site.rows("telemetry"), site.rows("readings")), (numbers, readings));
    assert_eq!((site.rows("mine"), site.rows("above")), (numbers, readings));
    assert!(site.store.schema_status().unwrap().layout.unwrap().tables[0].parts >= 41);
}

//! Readings always find their place, whatever the layout.

use diesel::prelude::*;
use tidegate::cli;
use tidegate::config::LayoutChoice;
use tidegate::metrics::Metrics;
use tidegate::store::batch::{Batch, Reading, TextReading};
use tidegate::store::layout::Layout;
use tidegate::store::{BatchWriter, Store, StoreError};
use tidegate::time::UtcMicros;

use super::{Site, batch, lookup, migrations, on_both, reading};

on_both!(
    the_layout_is_chosen_once_and_recorded,
    readings_of_any_day_are_stored,
    the_status_of_the_schema_changes_nothing
);

const DAY: i64 = 86_400_000_000;

fn now() -> UtcMicros {
    tidegate::clock::now()
}

fn days_ago(days: i64) -> UtcMicros {
    UtcMicros(now().0 - days * DAY)
}

/// A reading at each of these times, in a batch of its own.
fn at_times(position: u64, times: &[UtcMicros]) -> Batch {
    let readings = times.iter().map(|time| Reading { time: *time, ..reading(0, 0, 1.0, 1) }).collect();
    let mut work = batch(position, readings);
    work.texts =
        times.iter().map(|time| TextReading { sensor: 0, time: *time, value: "x".to_owned(), seq: 1 }).collect();
    work
}

fn partitions(site: &Site, table: &str) -> i64 {
    site.number(&format!("SELECT count(*) AS n FROM pg_inherits WHERE inhparent = '{table}'::regclass"))
}

fn the_layout_is_chosen_once_and_recorded(site: &Site) {
    let expected = if site.is_postgres { Layout::Partitions } else { Layout::Plain };
    assert_eq!(site.store.layout().unwrap(), expected);
    let before = site.store.schema_status().unwrap().layout.unwrap().recorded;
    assert_eq!(before.layout, expected);
    let mut settings = site.settings.clone();
    settings.layout = LayoutChoice::Timescale;
    let other = Store::open(&settings).unwrap();
    assert_eq!(other.migrate().unwrap(), Vec::<String>::new());
    assert_eq!(other.schema_status().unwrap().layout.unwrap().recorded, before, "a later wish changes nothing");
}

fn readings_of_any_day_are_stored(site: &Site) {
    let (mut writer, metrics) = site.writer();
    let mut times: Vec<UtcMicros> = [-400, -3, -1, 0, 1, 30, 366, 367, 3000, 7300].map(days_ago).to_vec();
    times.extend([UtcMicros(-1), UtcMicros(0)]);
    let done = writer.commit(&at_times(1, &times), &lookup).unwrap();
    assert_eq!((done.stored, done.rejected, done.bisected), (24, 0, false));
    assert_eq!(site.rows("readings"), 24);
    let again = writer.commit(&at_times(2, &times), &lookup).unwrap();
    assert_eq!((again.stored, again.duplicates), (0, 24));
    assert_eq!(metrics.batches_bisected.get(), 0);
}

fn the_status_of_the_schema_changes_nothing(migrated: &Site) {
    let site = if migrated.is_postgres { Site::empty_postgres() } else { Site::empty_sqlite() };
    let before = site.store.schema_status().unwrap();
    assert_eq!((before.applied.len(), before.layout), (0, None));
    assert!(
        before.pending.iter().any(|migration| migration.name == "2026-11-20-000004_layout"),
        "{:?}",
        before.pending
    );
    let catalog = if site.is_postgres { "pg_tables WHERE schemaname = 'public'" } else { "sqlite_schema" };
    assert_eq!(site.number(&format!("SELECT count(*) AS n FROM {catalog}")), 0);

    let after = migrated.store.schema_status().unwrap();
    assert_eq!((after.applied, after.pending.len()), (before.pending, 0));
    let mut out = Vec::new();
    cli::migrate::status(&migrated.store.schema_status().unwrap(), false, &mut out).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("applied  2026-11-20-000004_layout\n"), "{shown}");
    let mut out = Vec::new();
    cli::migrate::status(&migrated.store.schema_status().unwrap(), true, &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    if migrated.is_postgres {
        assert!(shown.contains("layout   partitions since 2"), "{shown}");
        assert!(shown.contains("telemetry: 4 partitions, "), "{shown}");
        assert_eq!(json["layout"]["tables"][1]["table"], "telemetry_text");
        assert_eq!(json["layout"]["tables"][1]["parts"], 4);
    } else {
        assert!(shown.contains("layout   plain since 2"), "{shown}");
        assert_eq!(json["layout"]["tables"], serde_json::json!([]));
    }
}

/// A database as the first version of tidegate left it, with rows.
fn of_the_first_version() -> Site {
    let site = Site::empty_postgres();
    as_the_first_version(&site);
    site
}

pub fn as_the_first_version(site: &Site) {
    site.execute("CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT now())");
    for name in ["2026-08-01-000001_catalog", "2026-08-01-000002_telemetry", "2026-08-01-000003_bridge"] {
        site.execute(&std::fs::read_to_string(migrations().join("postgres").join(name).join("up.sql")).unwrap());
        let version: String = name.chars().filter(char::is_ascii_digit).collect();
        site.execute(&format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')"));
    }
    site.execute(
        "INSERT INTO devices (tenant_id, uid) VALUES (1, 'd0');
         INSERT INTO device_sensors (tenant_id, device_id, metric, unit, kind, source) VALUES (1, 1, 't', '', 'number', 'optional');
         INSERT INTO telemetry SELECT 1, t, 1 FROM generate_series(now() - interval '40 days', now(), '6 hours') t;
         INSERT INTO telemetry VALUES (1, '2011-02-03 04:05:06+00', 2);
         INSERT INTO telemetry_text VALUES (1, '2012-02-03 04:05:06+00', 'old');
         CREATE VIEW mine AS SELECT time, value * 2 AS twice FROM telemetry;
         CREATE VIEW above AS SELECT * FROM readings;
         DO $$ BEGIN CREATE ROLE reader_of_the_test; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         GRANT SELECT ON telemetry, readings TO reader_of_the_test;",
    );
}

#[test]
fn rows_views_and_grants_of_a_plain_table_are_kept() {
    let site = of_the_first_version();
    let (numbers, readings) = (site.rows("telemetry"), site.rows("readings"));
    assert!(site.store.migrate().unwrap().contains(&"20261120000004".to_owned()));
    assert_eq!(site.store.layout().unwrap(), Layout::Partitions);
    assert_eq!((site.rows("telemetry"), site.rows("readings")), (numbers, readings));
    assert_eq!((site.rows("mine"), site.rows("above")), (numbers, readings));
    assert!(partitions(&site, "telemetry") >= 41);
    for table in ["telemetry", "readings"] {
        let may = format!("SELECT has_table_privilege('reader_of_the_test', '{table}', 'SELECT')::int::bigint AS n");
        assert_eq!(site.number(&may), 1, "{table}");
    }
    let left = "SELECT count(*) AS n FROM pg_class WHERE relname LIKE '%_before%'";
    assert_eq!(site.number(left), 0);
    let (mut writer, _) = site.writer();
    assert_eq!(writer.commit(&at_times(1, &[now()]), &lookup).unwrap().stored, 2);
}

#[test]
fn the_way_back_to_plain_tables_keeps_the_rows() {
    let site = Site::postgres();
    let (mut writer, _) = site.writer();
    writer.commit(&at_times(1, &[now(), days_ago(5), days_ago(5000)]), &lookup).unwrap();
    undo_down_to_layout(&site);
    assert_eq!((site.rows("telemetry"), site.rows("readings")), (3, 6));
    site.execute("INSERT INTO telemetry VALUES (1, '1999-01-01', 1)");
}

/// Undoes the layout and what came after it, newest first.
pub fn undo_down_to_layout(site: &Site) {
    let folder = std::fs::read_dir(migrations().join("postgres")).unwrap();
    let mut names: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    names.sort_unstable();
    while let Some(migration) = names.pop() {
        site.execute(&std::fs::read_to_string(migration.join("down.sql")).unwrap());
        if migration.ends_with("2026-11-20-000004_layout") {
            return;
        }
    }
    panic!("no such migration");
}

#[test]
fn a_device_with_a_wrong_clock_costs_a_partition_a_month_at_most() {
    let site = Site::postgres();
    let (mut writer, _) = site.writer();
    let before = partitions(&site, "telemetry");
    // Twenty days of one month, fifteen years ago.
    let month = UtcMicros(1_300_000_000_000_000);
    let times: Vec<UtcMicros> = (-5..15).map(|day| UtcMicros(month.0 + day * DAY)).collect();
    for (position, time) in times.iter().enumerate() {
        writer.commit(&at_times(position as u64 + 1, &[*time]), &lookup).unwrap();
    }
    assert_eq!(site.rows("telemetry"), 20);
    assert_eq!(partitions(&site, "telemetry") - before, 1);
}

#[test]
fn a_partition_that_somebody_dropped_is_made_again_and_no_row_is_blamed() {
    let site = Site::postgres();
    let (mut writer, _) = site.writer();
    writer.commit(&at_times(1, &[days_ago(9)]), &lookup).unwrap();
    let name = site.texts("SELECT tableoid::regclass::text AS t FROM telemetry").remove(0);
    site.execute(&format!("DROP TABLE {name}"));
    let next = at_times(2, &[days_ago(9), now()]);
    let error = writer.commit(&next, &lookup).unwrap_err();
    assert!(error.is_transient(), "{error}");
    let done = writer.commit(&next, &lookup).unwrap();
    assert_eq!((done.rejected, done.bisected), (0, false));
    assert_eq!((site.rows("telemetry"), site.rows("quarantine_events")), (2, 0));
}

#[test]
fn a_table_in_the_way_of_a_partition_is_left_alone() {
    let site = Site::postgres();
    let (mut writer, _) = site.writer();
    writer.commit(&at_times(1, &[days_ago(9)]), &lookup).unwrap();
    let name = site.texts("SELECT tableoid::regclass::text AS t FROM telemetry").remove(0);
    site.execute(&format!("ALTER TABLE telemetry DETACH PARTITION {name}"));
    let next = at_times(2, &[days_ago(9)]);
    writer.commit(&next, &lookup).unwrap_err();
    writer.commit(&next, &lookup).unwrap();
    assert_eq!((site.rows("telemetry"), site.rows(&name)), (1, 1));
    assert_eq!(site.texts("SELECT tableoid::regclass::text AS t FROM telemetry"), [format!("{name}_2")]);
}

#[test]
fn programs_that_need_the_same_days_at_once_all_get_them() {
    let site = Site::postgres();
    let times: Vec<UtcMicros> = (0..60).map(|n| days_ago(n * 3)).collect();
    std::thread::scope(|scope| {
        for program in 0..4 {
            let (settings, times) = (&site.settings, &times);
            scope.spawn(move || {
                let store = Store::open(settings).unwrap();
                let instance = format!("gw-{program}");
                store.position(&instance, "j").unwrap();
                let mut writer = BatchWriter::new(store, &instance, "j", Metrics::new());
                for (position, times) in times.chunks(7).enumerate() {
                    writer.commit(&at_times(position as u64 + 1, times), &lookup).unwrap();
                }
            });
        }
    });
    assert_eq!((site.rows("telemetry"), site.rows("telemetry_text")), (60, 60));
}

#[test]
fn a_query_by_sensor_and_time_reads_only_its_partitions() {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = diesel::sql_types::Text, column_name = "QUERY PLAN")]
        line: String,
    }
    let site = Site::postgres();
    let (mut writer, _) = site.writer();
    let times: Vec<UtcMicros> = (0..30).map(days_ago).collect();
    writer.commit(&at_times(1, &times), &lookup).unwrap();
    let tidegate::config::DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut connection = PgConnection::establish(url.expose()).unwrap();
    for table in ["telemetry", "telemetry_text"] {
        let query = format!(
            "EXPLAIN SELECT * FROM {table} WHERE sensor_id = 1 AND time >= to_timestamp({}) AND time < '2500-01-01'",
            days_ago(2).0 / 1_000_000
        );
        let plan: Vec<Line> = diesel::sql_query(query).load(&mut connection).unwrap();
        let plan: Vec<String> = plan.into_iter().map(|line| line.line).collect();
        let scans = plan.iter().filter(|line| line.contains(&format!("{table}_p")) && line.contains("Scan")).count();
        // Three days, and three made ahead.
        assert!((3..=7).contains(&scans), "{plan:#?}");
    }
}

#[test]
fn a_layout_that_cannot_be_had_is_refused_and_nothing_changes() {
    let site = Site::empty_postgres();
    let mut settings = site.settings.clone();
    settings.layout = LayoutChoice::Timescale;
    let store = Store::open(&settings).unwrap();
    match store.migrate() {
        Err(error @ StoreError::Migration { .. }) => {
            assert!(error.to_string().contains("TimescaleDB is not"), "{error}");
            assert!(!error.is_transient());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(site.number("SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'public'"), 0);
    settings.layout = LayoutChoice::Partitions;
    Store::open(&settings).unwrap().migrate().unwrap();
}

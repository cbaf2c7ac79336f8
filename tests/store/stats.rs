use std::sync::Arc;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use serde_json::Value;
use tidegate::cli;
use tidegate::clock;
use tidegate::config::{DatabaseUrl, LayoutChoice, Secret};
use tidegate::store::Store;
use tidegate::store::rollups::Grain;
use tidegate::store::stats::{Layout, Oldest, Stats};
use tidegate::time::UtcMicros;

use super::{Site, batch, lookup, on_both, plans, sensor, settings, timescale};
use crate::support::postgres::Postgres;

on_both!(a_small_database_is_counted, an_empty_database_is_told_too, the_command_prints_a_table_or_json,);

const HOUR: i64 = 3_600_000_000;

/// Ten sensors with a reading an hour for ten days, until an hour ago.
fn hourly(site: &Site, now: UtcMicros) {
    let (mut writer, _) = site.writer();
    let mut work = batch(1, Vec::new());
    work.sensors = (0..10).map(|n| sensor(n, 0, &format!("m{n}"))).collect();
    for hour in 1..=240 {
        for sensor in 0..10 {
            let time = UtcMicros(now.0 - hour * HOUR);
            work.readings.push(tidegate::store::batch::Reading { sensor, time, value: 1.5, seq: 1 });
        }
    }
    writer.commit(&work, &lookup).unwrap();
}

fn table<'a>(stats: &'a Stats, name: &str) -> &'a tidegate::store::stats::TableStats {
    stats.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("{name} in {stats:?}"))
}

fn a_small_database_is_counted(site: &Site) {
    let now = clock::now();
    hourly(site, now);
    let stats = site.store.stats(now).unwrap();
    assert_eq!(stats.unknown, Vec::<String>::new());
    let rows = stats.readings.rows.unwrap();
    assert_eq!((rows.rows, rows.exact), (2400, true));
    let rate = stats.readings.rows_per_day.unwrap();
    // 168 hours of 7 days, the first of them at their very beginning.
    assert!((rate.per_day - 240.0).abs() < 0.01 && rate.exact, "{rate:?}");
    assert_eq!(stats.readings.oldest, Some((UtcMicros(now.0 - 240 * HOUR), Oldest::OfAll)));
    assert_eq!(stats.readings.newest, Some(UtcMicros(now.0 - HOUR)));
    assert!(stats.readings.bytes_per_reading.unwrap() > 10.0);
    let catalog = stats.catalog.unwrap();
    assert_eq!((catalog.devices, catalog.sensors, catalog.live_sensors), (1, 10, 10));
    assert!(table(&stats, "telemetry").total_bytes() > 0);
    assert!(stats.tables.windows(2).all(|pair| pair[0].total_bytes() >= pair[1].total_bytes()), "the largest first");
    assert_eq!(stats.sqlite.is_some(), !site.is_postgres);
    assert_eq!(stats.slowest, None, "without pg_stat_statements");
}

fn an_empty_database_is_told_too(site: &Site) {
    let stats = site.store.stats(clock::now()).unwrap();
    assert_eq!(stats.unknown, Vec::<String>::new());
    assert_eq!(stats.readings.rows.unwrap().rows, 0);
    assert_eq!((stats.readings.oldest, stats.readings.newest, stats.readings.bytes_per_reading), (None, None, None));
    assert_eq!(stats.readings.rows_per_day.unwrap().per_day, 0.0);
}

fn the_command_prints_a_table_or_json(site: &Site) {
    hourly(site, clock::now());
    let mut out = Vec::new();
    cli::stats::show(&site.store, &Err("it is elsewhere".to_owned()), true, &mut out).unwrap();
    let stats: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&stats["readings"]["rows"], &stats["catalog"]["sensors"]), (&Value::from(2400), &Value::from(10)));
    assert_eq!((&stats["journal"], &stats["journal_unknown"]), (&Value::Null, &Value::from("it is elsewhere")));
    out.clear();
    cli::stats::show(&site.store, &Err("it is elsewhere".to_owned()), false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for words in [" over the last 7 days, counted", "telemetry", "10, 10 with a number", "it is elsewhere"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert_eq!(text.contains("no pg_stat_statements"), site.is_postgres, "{text}");
}

#[test]
fn partitions_are_counted_and_their_rows_estimated() {
    let site = Site::postgres();
    plans::daily_partitions(&site);
    plans::fill(&site);
    let now = clock::now();
    let stats = site.store.stats(now).unwrap();
    assert_eq!(stats.unknown, Vec::<String>::new());
    assert_eq!(stats.layout, Layout::Partitions);
    let chunks = stats.chunks.clone().unwrap();
    assert_eq!(chunks.count, 58);
    let newest = chunks.newest.unwrap().from.unwrap();
    assert!(newest <= now && now.0 - newest.0 < 24 * HOUR, "not one that was made ahead");
    assert!(chunks.largest.unwrap().bytes > 0);
    let rows = stats.readings.rows.unwrap();
    let counted = site.rows("telemetry");
    assert!(!rows.exact);
    let off = (rows.rows as f64 / counted as f64 - 1.0).abs();
    assert!(off < 0.05, "{rows:?}, counted {counted}");
    let (oldest, _) = stats.readings.oldest.unwrap();
    assert!((now.0 - oldest.0 - 960 * HOUR).abs() < HOUR, "{oldest}");
    assert_eq!(table(&stats, "telemetry").chunks, 58);
}

#[test]
fn of_timescaledb_chunks_compression_and_continuous_aggregates_are_told() {
    let Some(server) = Postgres::with_timescaledb().map(Arc::new) else { return };
    let fresh = || {
        let site = timescale::site(&server, LayoutChoice::Timescale);
        site.store.migrate().unwrap();
        site
    };
    // As long as nothing is compressed it is told as elsewhere.
    an_empty_database_is_told_too(&fresh());
    a_small_database_is_counted(&fresh());

    let site = fresh();
    plans::fill(&site);
    let now = clock::now();
    let (counted, texts) = (site.rows("telemetry"), site.rows("telemetry_text"));
    let stats = told(&site, now);
    assert!(stats.timescaledb.as_deref().is_some_and(|version| version.starts_with("2.")), "{stats:?}");
    assert_near(&stats, "telemetry", counted);
    assert_eq!(stats.compression, None);
    let (oldest, how) = stats.readings.oldest.unwrap();
    assert!(how == Oldest::OfAll && (now.0 - oldest.0 - 960 * HOUR).abs() < HOUR, "{oldest}, {how:?}");
    let before = table(&stats, "telemetry").clone();
    assert!(before.bytes.unwrap() > 0 && before.index_bytes.unwrap() > 0 && before.chunks == 41, "{before:?}");

    assert!(timescale::compress(&site) > 60);
    // One that came late into a compressed chunk.
    site.execute("INSERT INTO telemetry SELECT 1000000, now() - interval '20 days', 1");
    site.store.refresh_rollups(Grain::Hour, None, now).unwrap();
    site.execute("ANALYZE");
    let stats = told(&site, now);
    assert_near(&stats, "telemetry", counted + 1);
    assert_near(&stats, "telemetry_text", texts);
    let compression = stats.compression.unwrap();
    assert_eq!(compression.chunks, 41);
    assert!((32..=34).contains(&compression.compressed_chunks), "{compression:?}");
    assert!(compression.ratio().unwrap() > 1.0, "{compression:?}");
    assert!(table(&stats, "telemetry").total_bytes() < before.total_bytes());
    let chunks = stats.chunks.clone().unwrap();
    // The table itself holds no row, only the empty page of its index.
    assert_eq!((chunks.count, chunks.bytes + 8192), (41, table(&stats, "telemetry").total_bytes()));
    let (oldest, how) = stats.readings.oldest.unwrap();
    let age = (now.0 - oldest.0) / HOUR;
    assert!(how == Oldest::ChunkStart && (960..=984).contains(&age), "{oldest}, {how:?}");
    assert_eq!(stats.readings.newest.map(|newest| (now.0 - newest.0) / HOUR), Some(0));
    let rate = stats.readings.rows_per_day.unwrap();
    let week = site.number("SELECT count(*) AS n FROM telemetry WHERE time >= now() - interval '7 days'") as f64 / 7.0;
    assert!(rate.per_day > week / 2.0 && rate.per_day < week * 2.0, "{rate:?}, {week} in truth");
    assert_near(&stats, "telemetry_hourly", site.rows("telemetry_hourly"));
    let hourly = table(&stats, "telemetry_hourly");
    assert!(hourly.bytes.unwrap() > 0 && hourly.index_bytes.unwrap() > 0 && hourly.chunks > 3, "{hourly:?}");

    let mut out = Vec::new();
    cli::stats::show(&site.store, &Err("it is elsewhere".to_owned()), false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for words in
        ["TimescaleDB 2.", "hypertable", " times smaller: ", " of 41 chunks, ", "where the oldest chunk begins"]
    {
        assert!(text.contains(words), "{words} in {text}");
    }
}

/// Everything could be told, and it is a hypertable.
fn told(site: &Site, now: UtcMicros) -> Stats {
    let stats = site.store.stats(now).unwrap();
    assert_eq!(stats.unknown, Vec::<String>::new());
    assert_eq!(stats.layout, Layout::Hypertable);
    stats
}

/// Estimated within 5 %.
fn assert_near(stats: &Stats, name: &str, counted: i64) {
    let rows = table(stats, name).rows.unwrap();
    let off = (rows.rows as f64 / counted as f64 - 1.0).abs();
    assert!(off < 0.05, "{name}: {rows:?}, counted {counted}");
}

#[test]
fn a_plain_table_that_was_never_analyzed_is_estimated_by_its_size() {
    let site = Site::postgres();
    plans::plain_table(&site);
    site.execute(
        "ALTER TABLE telemetry SET (autovacuum_enabled = off);
         INSERT INTO telemetry SELECT 1, now() - make_interval(secs => n), n FROM generate_series(1, 300000) n",
    );
    let rows = site.store.stats(clock::now()).unwrap().readings.rows.unwrap();
    assert!(!rows.exact && (270_000..330_000).contains(&rows.rows), "{rows:?}");
}

#[test]
fn of_a_large_sqlite_file_only_some_sensors_are_looked_at() {
    let site = Site::sqlite();
    let now = clock::now();
    hourly(&site, now);
    site.execute(
        "INSERT INTO quarantine_messages (tenant_id, instance, journal_id, seq, received_at, topic, payload, qos, retain, more)
            VALUES (1, 'gw', 'j', 1, 0, 't', zeroblob(70000000), 1, 0, 0)",
    );
    let stats = site.store.stats(now).unwrap();
    assert_eq!(stats.readings.rows.unwrap().rows, 2400);
    assert_eq!(table(&stats, "devices").rows, None);
    assert!(stats.unknown.iter().any(|what| what.contains("up to 64 MiB")), "{:?}", stats.unknown);
}

#[test]
fn the_slowest_queries_are_told_where_pg_stat_statements_is() {
    let server = Postgres::start(false);
    server.stop();
    server.configure(&["shared_preload_libraries=pg_stat_statements"]);
    server.restart();
    let store = Store::open(&settings(DatabaseUrl::Postgres(Secret::new(server.url("postgres"))))).unwrap();
    store.migrate().unwrap();
    let mut beside = server.connect("postgres");
    beside
        .batch_execute(
            "CREATE SCHEMA elsewhere; CREATE EXTENSION pg_stat_statements SCHEMA elsewhere;
             CREATE ROLE somebody PASSWORD 'hunter2'",
        )
        .unwrap();
    beside.batch_execute("SELECT count(*) FROM generate_series(1, 100000)").unwrap();
    let slowest = store.stats(clock::now()).unwrap().slowest.unwrap();
    assert!(slowest.iter().any(|slow| slow.query.contains("generate_series") && slow.calls == 1), "{slowest:?}");
    assert!(slowest.iter().all(|slow| !slow.query.contains("hunter2")), "{slowest:?}");
}

#[test]
fn what_a_user_may_not_see_is_named_and_the_rest_told() {
    let site = Site::postgres();
    hourly(&site, clock::now());
    let DatabaseUrl::Postgres(url) = &site.settings.url else { unreachable!() };
    let role = format!("reader_of_{}", url.expose().rsplit('/').next().unwrap());
    let mut connection = PgConnection::establish(url.expose()).unwrap();
    connection
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'r'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
             REVOKE ALL ON quarantine_messages FROM {role}"
        ))
        .unwrap();
    let url = url.expose().replace("postgres:tide@", &format!("{role}:r@"));
    let store = Store::open(&settings(DatabaseUrl::Postgres(Secret::new(url)))).unwrap();
    let stats = store.stats(clock::now()).unwrap();
    assert_eq!(stats.readings.rows.unwrap().rows, 2400);
    assert_eq!(stats.quarantine, None);
    assert!(stats.unknown.iter().any(|what| what.contains("the quarantine") && what.contains("permission denied")));
}

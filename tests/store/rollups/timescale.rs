//! The views on continuous aggregates, where TimescaleDB is installed.

use std::path::Path;
use std::sync::Arc;

use tidegate::config::{DatabaseUrl, Secret};
use tidegate::store::Store;
use tidegate::store::rollups::Grain;
use tidegate::time::UtcMicros;

use super::model::{Model, assert_right, chore, reading, store, value};
use super::{DAY, HOUR, MINUTE, START};
use crate::store::{Site, settings};
use crate::support::postgres::Postgres;

/// A server with TimescaleDB, if this machine has it, and a database whose `telemetry` is a hypertable.
fn timescale() -> Option<Site> {
    let has = std::fs::read_dir("/usr/share/postgresql").into_iter().flatten().flatten();
    let has = has.map(|version| version.path().join("extension/timescaledb.control")).any(|control| control.exists());
    if !has || !Path::new("/usr/share/postgresql").exists() {
        eprintln!("skipped: TimescaleDB is not installed on this machine");
        return None;
    }
    let server = Postgres::start(false);
    server.configure(&["shared_preload_libraries=timescaledb", "timescaledb.telemetry_level=off"]);
    server.stop();
    server.restart();
    let settings = settings(DatabaseUrl::Postgres(Secret::new(server.database())));
    let store = Store::open(&settings).unwrap();
    let site = Site { store, settings, is_postgres: true, _server: Some(Arc::new(server)), _dir: None };
    site.store.migrate().unwrap();
    site.execute("CREATE EXTENSION IF NOT EXISTS timescaledb");
    if site.number("SELECT count(*) AS n FROM timescaledb_information.hypertables WHERE hypertable_name = 'telemetry'")
        == 0
    {
        site.execute(
            "SELECT create_hypertable('telemetry', by_range('time', interval '1 day'), create_default_indexes => false)",
        );
        site.store.migrate().unwrap();
    }
    Some(site)
}

#[test]
fn on_timescale_the_views_equal_the_readings_after_a_refresh() {
    let Some(site) = timescale() else { return };
    assert!(site.store.rollups_are_continuous().unwrap());
    let mut random = fastrand::Rng::with_seed(5);
    let (mut writer, _) = site.writer();
    let (mut model, mut clockwork) = (Model::default(), chore(true, None));
    for round in 0..25_u64 {
        let readings = (0..40)
            .map(|_| {
                let age = if random.u8(..3) == 0 { random.i64(0..20 * DAY) } else { random.i64(0..HOUR) };
                reading(random.u32(..3), clockwork.now - age, value(&mut random))
            })
            .collect();
        store(&mut writer, &mut model, round + 1, readings);
        clockwork.run(&site.store);
        assert_right(&site, &model, &format!("round {round}"));
        clockwork.now += random.i64(0..6 * HOUR);
    }
    assert_eq!(site.rows("rollup_pending"), 0, "the writer marks nothing");
    clockwork.run(&site.store);
    assert_eq!(site.store.rolled_up_before().unwrap(), Grain::Day.floor(UtcMicros(clockwork.now - MINUTE)));
    // What is open needs no refresh.
    store(&mut writer, &mut model, 100, vec![reading(1, clockwork.now, 3.0)]);
    assert_right(&site, &model, "before a refresh");
    // What is materialized shows a late reading after it.
    store(&mut writer, &mut model, 101, vec![reading(1, START - 5 * DAY, 3.0)]);
    clockwork.run(&site.store);
    assert_right(&site, &model, "after a refresh");
    // A start takes history in again, in stretches, and changes nothing.
    let mut again = chore(true, None);
    again.now = clockwork.now;
    again.run(&site.store);
    assert_right(&site, &model, "after a start");
    site.store.migrate().unwrap();
    assert_right(&site, &model, "migrated again");
    site.store.revert_all().unwrap();
}

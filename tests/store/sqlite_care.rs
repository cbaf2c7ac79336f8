use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use jiff::tz::TimeZone;
use tidegate::config::{Config, DatabaseUrl, Secret};
use tidegate::metrics::Metrics;
use tidegate::upkeep::{Chore, Next, SqliteCare};

use super::{Site, at, batch, lookup, reading};

const HOUR: i64 = 3_600_000_000;

fn care(metrics: &Metrics) -> SqliteCare {
    SqliteCare::at(jiff::civil::time(3, 0, 0, 0), TimeZone::UTC, metrics.clone())
}

/// Runs the chore from its start until it has nothing to do for an hour.
fn night(site: &Site, chore: &mut SqliteCare) -> usize {
    let Next::At(mut now) = chore.step(&site.store, at(0)).unwrap() else { panic!("it does not wait for the night") };
    assert_eq!(now.to_string(), "2023-11-15T03:00:00Z");
    for steps in 1..10_000 {
        match chore.step(&site.store, now).unwrap() {
            Next::AtOnce => {}
            Next::At(next) if next.0 - now.0 > HOUR => return steps,
            Next::At(next) => now = next,
        }
    }
    panic!("it never ends");
}

fn made_and_emptied(site: &Site) {
    let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 200000) ";
    site.execute(&format!("INSERT INTO telemetry (sensor_id, time, value) {rows} SELECT 1, n, n FROM n"));
    site.execute("DELETE FROM telemetry WHERE time > 1000");
}

#[test]
fn free_pages_of_a_new_database_are_given_back_at_night_in_steps() {
    let (site, metrics) = (Site::sqlite(), Metrics::new());
    made_and_emptied(&site);
    let before = site.store.sqlite_pages().unwrap().unwrap();
    assert!(before.is_incremental() && before.free > 500, "{before:?}");
    let steps = night(&site, &mut care(&metrics));
    let after = site.store.sqlite_pages().unwrap().unwrap();
    assert!(steps > 4, "one step is bounded: {steps}");
    assert!(after.total < before.total / 4 && after.free <= after.total / 20, "{before:?} {after:?}");
    assert_eq!(metrics.sqlite_vacuumed.get(), u64::try_from((before.total - after.total) * before.size).unwrap());
    assert!(site.rows("sqlite_stat1 WHERE tbl = 'telemetry'") > 0, "the planner has statistics");

    let (mut writer, _) = site.writer();
    assert_eq!(writer.commit(&batch(1, vec![reading(0, 1, 1.0, 1)]), &lookup).unwrap().stored, 1);
    assert_eq!(site.texts("SELECT integrity_check AS t FROM pragma_integrity_check"), ["ok"]);
}

#[test]
fn a_database_made_without_incremental_vacuum_keeps_its_size_and_gets_its_statistics() {
    let site = Site::empty_sqlite();
    let DatabaseUrl::Sqlite(path) = &site.settings.url else { unreachable!() };
    let mut old = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    old.batch_execute("CREATE TABLE of_before (x INTEGER)").unwrap();
    site.store.migrate().unwrap();
    made_and_emptied(&site);
    let before = site.store.sqlite_pages().unwrap().unwrap();
    assert!(!before.is_incremental());
    let metrics = Metrics::new();
    night(&site, &mut care(&metrics));
    assert!(site.store.sqlite_pages().unwrap().unwrap().total >= before.total);
    assert!(site.rows("sqlite_stat1") > 0);

    // What the log advises.
    old.batch_execute("PRAGMA auto_vacuum = INCREMENTAL; VACUUM").unwrap();
    assert!(site.store.sqlite_pages().unwrap().unwrap().is_incremental());
}

#[test]
fn a_locked_database_fails_the_step_and_the_next_one_goes_on() {
    let (site, metrics) = (Site::sqlite(), Metrics::new());
    made_and_emptied(&site);
    let mut chore = care(&metrics);
    let Next::At(night) = chore.step(&site.store, at(0)).unwrap() else { panic!("it does not wait") };
    assert_eq!(chore.step(&site.store, night).unwrap(), Next::AtOnce);
    let DatabaseUrl::Sqlite(path) = &site.settings.url else { unreachable!() };
    let lock = crate::support::scene::lock(path);
    assert!(chore.step(&site.store, night).unwrap_err().is_transient());
    drop(lock);
    assert!(matches!(chore.step(&site.store, night).unwrap(), Next::At(_)));
    assert!(metrics.sqlite_vacuumed.get() > 0);
}

#[test]
fn it_is_for_sqlite_and_where_it_is_not_off() {
    let mut config = Config::default();
    assert!(SqliteCare::new(&config, Metrics::new()).is_some());
    config.maintenance.at = None;
    assert!(SqliteCare::new(&config, Metrics::new()).is_none());
    config = Config::default();
    config.database.url = DatabaseUrl::Postgres(Secret::new("postgres://h/d".into()));
    assert!(SqliteCare::new(&config, Metrics::new()).is_none());
}

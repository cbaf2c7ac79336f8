//! `readings_hourly` and `readings_daily` against a plain computation over what was stored.

mod model;
mod timescale;
mod under_way;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::cli;
use tidegate::config::DatabaseUrl;
use tidegate::metrics::Metrics;
use tidegate::store::BatchWriter;
use tidegate::store::batch::{Batch, Reading};
use tidegate::store::rollups::{Grain, RollupsQuery};
use tidegate::time::UtcMicros;
use tidegate::upkeep::{Chore, Next};

use model::{Clockwork, Model, assert_right, chore, expected, introduced, reading, shown, store, value};

use super::{Site, lookup, on_both};

on_both!(
    the_views_equal_the_readings_after_whatever_happens,
    the_views_equal_the_readings_while_everybody_writes,
    what_has_ended_is_read_from_its_rollup,
    a_late_reading_shows_at_once,
    the_horizon_does_not_pass_what_the_journal_still_holds,
    what_retention_has_dropped_keeps_its_rollups,
    rollups_that_are_switched_off_leave_the_views_right,
    a_replay_that_is_late_marks_too,
    hours_of_history_are_rolled_up_in_steps,
    lists_of_hours_and_days,
    while_there_is_no_reading_nothing_is_swept,
);

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-03-05T00:00:00Z.
const START: i64 = 1_772_668_800_000_000;

fn the_views_equal_the_readings_after_whatever_happens(site: &Site) {
    for seed in 1..=3 {
        whatever_happens(site, seed, "gw");
        site.store.revert_all().unwrap();
        site.store.migrate().unwrap();
    }
}

fn whatever_happens(site: &Site, seed: u64, instance: &str) {
    let mut random = fastrand::Rng::with_seed(seed);
    site.store.position(instance, "j").unwrap();
    let mut writer = BatchWriter::new(site.store.clone(), instance, "j", Metrics::new());
    let (mut model, mut clockwork) = (Model::default(), chore(true, None));
    let (mut position, mut before) = (0, Vec::new());
    for round in 0..60 {
        let what = match random.u8(..10) {
            0..5 => {
                // Mostly fresh; some hours or days late; some early.
                let readings: Vec<Reading> = (0..random.usize(1..60))
                    .map(|_| {
                        let age = match random.u8(..10) {
                            0..6 => random.i64(0..20 * MINUTE),
                            6..8 => random.i64(0..5 * HOUR),
                            8 => random.i64(0..4 * DAY),
                            _ => -random.i64(0..HOUR),
                        };
                        // Few enough instants that some come twice.
                        let time = (clockwork.now - age).div_euclid(10_000_000) * 10_000_000;
                        reading(random.u32(..3), time, value(&mut random))
                    })
                    .collect();
                position += 1;
                before.push(readings.clone());
                store(&mut writer, &mut model, position, readings);
                "stored"
            }
            5 if !before.is_empty() => {
                position += 1;
                let again = before[random.usize(..before.len())].clone();
                store(&mut writer, &mut model, position, again);
                "stored again"
            }
            6 => {
                clockwork.run(&site.store);
                "rolled up whole"
            }
            7 => {
                clockwork.now += random.i64(0..3 * HOUR);
                clockwork.step(&site.store);
                "a step later"
            }
            8 => {
                clockwork.now += random.i64(0..20 * MINUTE);
                "later"
            }
            _ => {
                clockwork.step(&site.store);
                "a step"
            }
        };
        assert_right(site, &model, &format!("seed {seed}, round {round}: {what}"));
    }
    clockwork.now += 2 * DAY;
    clockwork.run(&site.store);
    assert_right(site, &model, &format!("seed {seed}: at the end"));
    assert_eq!(site.rows("rollup_pending"), 0);
    assert_eq!(site.rows("rollup_hourly"), expected(&model, Grain::Hour).len() as i64, "all of it is rolled up");
    assert_eq!(site.rows("rollup_daily"), expected(&model, Grain::Day).len() as i64, "all of it is rolled up");
}

/// Two instances store late and fresh readings, two daemons roll up, the clock runs; whoever looks sees no difference.
fn the_views_equal_the_readings_while_everybody_writes(site: &Site) {
    let over = AtomicBool::new(false);
    let clock = std::sync::atomic::AtomicI64::new(START);
    // One statement, so one state of the database.
    let difference = "SELECT CAST((SELECT coalesce(sum(count), 0) FROM readings_hourly) AS bigint) * 1000003 \
        + CAST((SELECT coalesce(sum(count), 0) FROM readings_daily) AS bigint) - 1000004 * (SELECT count(*) FROM telemetry) AS n";
    let models = std::thread::scope(|scope| {
        let writers: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|instance| {
                let clock = &clock;
                scope.spawn(move || {
                    site.store.position(instance, "j").unwrap();
                    let mut writer = BatchWriter::new(site.store.clone(), instance, "j", Metrics::new());
                    let mut random = fastrand::Rng::with_seed(u64::from(instance.as_bytes()[0]));
                    let mut model = Model::default();
                    for position in 1..=80 {
                        let now = clock.fetch_add(10 * MINUTE, Ordering::SeqCst);
                        let readings = (0..20)
                            .map(|_| {
                                let age = if random.bool() { random.i64(0..HOUR) } else { random.i64(0..DAY) };
                                let time = now - age;
                                // The two never store the same key, so that what counts is known.
                                let time = time - time.rem_euclid(2) + i64::from(instance == "b");
                                reading(random.u32(..3), time, value(&mut random))
                            })
                            .collect();
                        store(&mut writer, &mut model, position, readings);
                    }
                    model
                })
            })
            .collect();
        for _ in 0..2 {
            let (clock, over) = (&clock, &over);
            scope.spawn(move || {
                let mut clockwork = chore(true, None);
                while !over.load(Ordering::SeqCst) {
                    clockwork.now = clock.load(Ordering::SeqCst);
                    // A lock may be refused; the daemon tries again.
                    let _ = clockwork.chore.step(&site.store, UtcMicros(clockwork.now));
                }
            });
        }
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while !over.load(Ordering::SeqCst) {
                assert_eq!(site.number(difference), 0, "look {looks}");
                looks += 1;
            }
            looks
        });
        let models: Vec<Model> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        over.store(true, Ordering::SeqCst);
        assert!(looks.join().unwrap() > 0);
        models
    });
    let model = Model(models.into_iter().flat_map(|model| model.0).collect());
    assert_right(site, &model, "when all are done");
    let mut clockwork = chore(true, None);
    clockwork.now = clock.load(Ordering::SeqCst) + 2 * DAY;
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 0);
    assert_eq!(site.rows("rollup_hourly"), expected(&model, Grain::Hour).len() as i64);
    assert_right(site, &model, "when all is rolled up");
}

/// Ten hours of three sensors, a reading a minute, rolled up at the end of the tenth.
fn ten_hours(site: &Site) -> (BatchWriter, Model, Clockwork) {
    let (mut writer, _) = site.writer();
    let mut model = Model::default();
    let readings =
        (0..600).flat_map(|n| (0..3).map(move |sensor| reading(sensor, START + n * MINUTE, n as f64))).collect();
    store(&mut writer, &mut model, 1, readings);
    let mut clockwork = chore(true, None);
    clockwork.now = START + 10 * HOUR;
    clockwork.run(&site.store);
    (writer, model, clockwork)
}

fn what_has_ended_is_read_from_its_rollup(site: &Site) {
    let (_writer, model, mut clockwork) = ten_hours(site);
    // The grace of the tenth hour is not over.
    assert_eq!((site.rows("rollup_hourly"), site.rows("rollup_daily")), (27, 0));
    assert_eq!(clockwork.buckets(Grain::Hour), 27);
    assert_right(site, &model, "rolled up");
    clockwork.now += 2 * MINUTE;
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_hourly"), 30);
    clockwork.now += 14 * HOUR;
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_daily"), 3);
    assert_right(site, &model, "the day rolled up");
    // Seen by telling a lie there.
    site.execute("UPDATE rollup_hourly SET count = 12345");
    assert!(shown(&site.store, Grain::Hour).iter().all(|row| row.count == 12345));
}

fn a_late_reading_shows_at_once(site: &Site) {
    let (mut writer, mut model, mut clockwork) = ten_hours(site);
    store(&mut writer, &mut model, 2, vec![reading(1, START + 3 * HOUR + 1, 999.0)]);
    assert_eq!(site.rows("rollup_pending"), 1, "the day is open still");
    assert_right(site, &model, "before it is rolled up anew");
    clockwork.run(&site.store);
    assert_eq!((site.rows("rollup_pending"), clockwork.pending(Grain::Hour)), (0, 0));
    assert_right(site, &model, "after");
    assert_eq!(site.rows("rollup_hourly"), 27);
    assert_eq!(clockwork.buckets(Grain::Hour), 28, "one bucket was rolled up once more");
}

fn the_horizon_does_not_pass_what_the_journal_still_holds(site: &Site) {
    let (mut writer, mut model, mut clockwork) = ten_hours(site);
    // The database was away for three hours, and the daemon has started since: how much it lacks is told by the second look.
    let lag = |messages, seconds| {
        clockwork.metrics.journal_lag_messages.set(messages);
        clockwork.metrics.journal_lag_seconds.set(seconds);
    };
    lag(1, 3 * 3600);
    clockwork.now += 3 * HOUR;
    clockwork.run(&site.store);
    store(&mut writer, &mut model, 2, vec![reading(0, START + 10 * HOUR, 1.0)]);
    assert_eq!(site.rows("rollup_pending"), 0);
    let mut restarted = chore(true, None);
    restarted.now = clockwork.now;
    restarted.metrics.journal_lag_messages.set(1);
    restarted.step(&site.store);
    store(&mut writer, &mut model, 3, vec![reading(0, START + 11 * HOUR, 1.0)]);
    assert_eq!(site.rows("rollup_pending"), 0);
    restarted.metrics.journal_lag_messages.set(0);
    restarted.run(&site.store);
    assert_right(site, &model, "caught up");
    assert_eq!(site.number("SELECT count(*) AS n FROM rollup_horizon WHERE rolled = horizon"), 2);
    store(&mut writer, &mut model, 4, vec![reading(0, START + 11 * HOUR + 1, 1.0)]);
    assert_eq!(site.rows("rollup_pending"), 1);
}

fn what_retention_has_dropped_keeps_its_rollups(site: &Site) {
    let (mut writer, mut model, _) = ten_hours(site);
    let mut clockwork = chore(true, Some(Duration::from_secs(3 * 3600)));
    clockwork.now = START + DAY + 4 * HOUR;
    clockwork.run(&site.store);
    // As of the next step what is rolled up may go.
    clockwork.run(&site.store);
    let bound = site.store.rolled_up_before().unwrap();
    assert_eq!(bound, UtcMicros(START + DAY), "the younger day is open");
    assert_right(site, &model, "before raw readings are dropped");
    let before = if site.is_postgres { "time < '2026-03-06'".to_owned() } else { format!("time < {}", START + DAY) };
    site.execute(&format!("DELETE FROM telemetry WHERE {before}"));
    assert_right(site, &model, "after");
    // Too late for a rollup whose readings are gone.
    let late = Batch { position: 2, generation: 1, readings: vec![reading(0, START + 1, 7.0)], ..Batch::default() };
    writer.commit(&late, &lookup).unwrap();
    assert_eq!(site.rows("rollup_pending"), 0);
    assert_right(site, &model, "after a reading that is too late");
    store(&mut writer, &mut model, 3, vec![reading(0, START + DAY + 2 * HOUR, 7.0)]);
    assert_eq!(site.rows("rollup_pending"), 1);
    clockwork.run(&site.store);
    assert_right(site, &model, "after another");
}

fn rollups_that_are_switched_off_leave_the_views_right(site: &Site) {
    let (mut writer, mut model, mut clockwork) = ten_hours(site);
    store(&mut writer, &mut model, 2, vec![reading(1, START + 1, 999.0)]);
    let mut off = chore(false, None);
    off.now = clockwork.now;
    off.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 0);
    store(&mut writer, &mut model, 3, vec![reading(1, START + 2, 998.0)]);
    assert_eq!(site.rows("rollup_pending"), 0, "nothing is marked");
    assert_right(site, &model, "switched off");
    clockwork.run(&site.store);
    assert_right(site, &model, "switched on again");
    assert_eq!(site.rows("rollup_hourly"), 27);
}

fn a_replay_that_is_late_marks_too(site: &Site) {
    use std::collections::HashMap;
    use tidegate::store::{Replayer, Retrier};
    let (_writer, mut model, mut clockwork) = ten_hours(site);
    let mut late = |sensor: u32, time: i64| {
        model.0.insert((sensor, time), -5.0);
        introduced(9, vec![reading(sensor, time, -5.0)])
    };
    let (first, second) = (late(0, START + 5), late(2, START + HOUR + 5));
    Replayer::new(site.store.clone(), "gw", "journal-1", Metrics::new())
        .commit(&first, &HashMap::new(), &[], &lookup)
        .unwrap();
    Retrier::new(site.store.clone(), Metrics::new()).resolve(&[], &second).unwrap();
    assert_eq!(site.rows("rollup_pending"), 2);
    assert_right(site, &model, "replayed and retried");
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 0);
    assert_right(site, &model, "and rolled up");
}

/// Years of one reading a day and one dense hour: more than one step, and the views are right between them.
fn hours_of_history_are_rolled_up_in_steps(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut model = Model::default();
    let sparse = (0..1500).map(|day| reading(0, START - day * DAY, day as f64));
    store(&mut writer, &mut model, 1, sparse.collect());
    for part in 0..3 {
        let dense = (0..40_000).map(|n| reading(1, START - 9 * DAY + part * 3 * HOUR + n * 500_000, n as f64));
        store(&mut writer, &mut model, 2 + part as u64, dense.collect());
    }
    let mut clockwork = chore(true, None);
    let mut steps = 0;
    while clockwork.step(&site.store) == Next::AtOnce {
        steps += 1;
        if steps == 1 {
            assert_right(site, &model, "in the midst of it");
        }
    }
    assert!(steps > 0);
    assert_right(site, &model, "at the end");
    assert_eq!(site.number("SELECT count(*) AS n FROM rollup_horizon WHERE rolled = horizon"), 2);
    assert!(site.rows("rollup_hourly") > 1500);
}

fn lists_of_hours_and_days(site: &Site) {
    let (_writer, _, _) = ten_hours(site);
    let query = |metric: Option<&str>, since: Option<i64>, limit| RollupsQuery {
        grain: Grain::Hour,
        tenant: Some("default".into()),
        device: "d0".into(),
        metric: metric.map(str::to_owned),
        since: since.map(UtcMicros),
        limit,
    };
    let newest = site.store.rollups(&query(Some("humidity"), None, 2)).unwrap();
    let times: Vec<&str> = newest.iter().map(|row| row.time.as_str()).collect();
    assert_eq!(times, ["2026-03-05T08:00:00.000000Z", "2026-03-05T09:00:00.000000Z"]);
    assert_eq!(site.store.rollups(&query(None, Some(START + 8 * HOUR + MINUTE), 100)).unwrap().len(), 4);
    let mut out = Vec::new();
    cli::readings::show_rollups(&site.store, &query(Some("humidity"), None, 1), true, &mut out).unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(
        shown[0],
        serde_json::json!({
            "time": "2026-03-05T09:00:00.000000Z", "tenant": "default", "device": "d0", "metric": "humidity",
            "unit": "°C", "count": 60, "min": 540.0, "max": 599.0, "avg": 569.5, "sum": 34170.0,
            "stddev": shown[0]["stddev"], "first": 540.0, "last": 599.0, "p50": 569.5, "p95": 596.05,
        })
    );
    out.clear();
    cli::readings::show_rollups(&site.store, &query(Some("humidity"), None, 1), false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("AVG") && text.contains("569.5"), "{text}");
    let type_of = if site.is_postgres { "pg_typeof(time)::text" } else { "typeof(time)" };
    for view in ["readings_hourly", "readings_daily"] {
        let types = site.texts(&format!("SELECT DISTINCT {type_of} AS t FROM {view}"));
        assert_eq!(types, [if site.is_postgres { "timestamp with time zone" } else { "text" }]);
        let columns = if site.is_postgres {
            format!(
                "SELECT column_name::text AS t FROM information_schema.columns WHERE table_name = '{view}' ORDER BY ordinal_position"
            )
        } else {
            format!("SELECT name AS t FROM pragma_table_info('{view}')")
        };
        assert_eq!(
            site.texts(&columns).join(" "),
            "time tenant device metric unit count min max avg sum stddev first last p50 p95"
        );
    }
}

fn while_there_is_no_reading_nothing_is_swept(site: &Site) {
    let (mut writer, _) = site.writer();
    let (mut model, mut clockwork) = (Model::default(), chore(true, None));
    store(&mut writer, &mut model, 1, Vec::new());
    assert!(matches!(clockwork.step(&site.store), Next::At(_)), "three sensors, and nothing to do for them");
    assert_eq!(site.store.rolled_up_before().unwrap(), UtcMicros(START - DAY), "the day before ended a grace ago");
    store(&mut writer, &mut model, 2, vec![reading(0, START - 3 * DAY, 4.0), reading(1, START - MINUTE, 5.0)]);
    assert_right(site, &model, "late");
    clockwork.run(&site.store);
    assert_right(site, &model, "settled");
}

/// The shell that Debian has reads the views: SQLite as it is built there may lack what ours has, and the other way round.
#[test]
fn the_sqlite3_shell_reads_the_views() {
    let site = Site::sqlite();
    let (mut writer, _model, _) = ten_hours(&site);
    let late = Batch { position: 2, generation: 1, readings: vec![reading(0, START + 1, 60.0)], ..Batch::default() };
    writer.commit(&late, &lookup).unwrap();
    let DatabaseUrl::Sqlite(path) = &site.settings.url else { panic!() };
    let query = "SELECT time, count, round(stddev, 6), p50, p95 FROM readings_hourly WHERE metric = 'temperature' AND device = 'd0' ORDER BY time";
    let rows = crate::support::daemon::sqlite(path, query);
    assert_eq!(rows.lines().count(), 10);
    assert_eq!(rows.lines().next(), Some("2026-03-05T00:00:00.000000Z|61|17.752934|30.0|57.0"), "{rows}");
    assert!(rows.lines().last().is_some_and(|row| row.ends_with("17.464249|569.5|596.05")), "{rows}");
}

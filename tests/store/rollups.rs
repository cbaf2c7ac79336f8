//! `readings_hourly` and `readings_daily` against a plain computation over what was stored.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::cli;
use tidegate::config::{self, DatabaseUrl, Secret};
use tidegate::metrics::{ByGrain, Metrics};
use tidegate::store::batch::{Batch, Reading};
use tidegate::store::rollups::{Grain, RollupRow, RollupsQuery};
use tidegate::store::{BatchWriter, Store};
use tidegate::time::UtcMicros;
use tidegate::upkeep::rollups::Rollups;
use tidegate::upkeep::{Chore, Next};

use super::{Site, batch, device, lookup, on_both, sensor, settings};
use crate::support::postgres::Postgres;

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
);

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-03-05T00:00:00Z.
const START: i64 = 1_772_668_800_000_000;

/// Readings as they should be stored, by sensor and time: of one key the first counts.
#[derive(Default)]
struct Model(BTreeMap<(u32, i64), f64>);

/// The chore at a clock of the test's own.
struct Clockwork {
    chore: Rollups,
    now: i64,
    metrics: Metrics,
}

fn chore(enabled: bool, keep_raw: Option<Duration>) -> Clockwork {
    let metrics = Metrics::new();
    let settings = config::Rollups { enabled, grace: Duration::from_secs(60), refresh: Duration::from_secs(30) };
    Clockwork { chore: Rollups::new(settings, keep_raw, metrics.clone()), now: START, metrics }
}

impl Clockwork {
    fn step(&mut self, store: &Store) -> Next {
        self.chore.step(store, UtcMicros(self.now)).unwrap()
    }

    fn run(&mut self, store: &Store) {
        while self.step(store) == Next::AtOnce {}
    }

    fn buckets(&self, grain: Grain) -> u64 {
        self.metrics.rollup_buckets.get_or_create(&ByGrain { grain: grain.name() }).get()
    }

    fn pending(&self, grain: Grain) -> i64 {
        self.metrics.rollup_pending.get_or_create(&ByGrain { grain: grain.name() }).get()
    }
}

/// Three sensors: two of d0, one of d1.
fn introduced(position: u64, readings: Vec<Reading>) -> Batch {
    Batch {
        devices: vec![device(0), device(1)],
        sensors: vec![sensor(0, 0, "temperature"), sensor(1, 0, "humidity"), sensor(2, 1, "temperature")],
        ..batch(position, readings)
    }
}

fn reading(sensor: u32, time: i64, value: f64) -> Reading {
    Reading { sensor, time: UtcMicros(time), value, seq: 1 }
}

fn store(writer: &mut BatchWriter, model: &mut Model, position: u64, readings: Vec<Reading>) {
    for reading in &readings {
        model.0.entry((reading.sensor, reading.time.0)).or_insert(reading.value);
    }
    writer.commit(&introduced(position, readings), &lookup).unwrap();
}

fn shown(store: &Store, grain: Grain) -> Vec<RollupRow> {
    let of = |device: &str| {
        let query =
            RollupsQuery { grain, tenant: None, device: device.into(), metric: None, since: None, limit: 1_000_000 };
        store.rollups(&query).unwrap()
    };
    let mut rows = of("d0");
    rows.extend(of("d1"));
    rows.sort_by(|a, b| (&a.device, &a.metric, &a.time).cmp(&(&b.device, &b.metric, &b.time)));
    rows
}

fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let position = fraction * (sorted.len() - 1) as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    if low == high { sorted[low] } else { sorted[low] + (sorted[high] - sorted[low]) * position.fract() }
}

/// What the view should show of the model.
fn expected(model: &Model, grain: Grain) -> Vec<RollupRow> {
    let width = if grain == Grain::Hour { HOUR } else { DAY };
    let mut buckets: BTreeMap<(u32, i64), Vec<f64>> = BTreeMap::new();
    for ((sensor, time), value) in &model.0 {
        buckets.entry((*sensor, time.div_euclid(width) * width)).or_default().push(*value);
    }
    let mut rows: Vec<RollupRow> = buckets
        .into_iter()
        .map(|((sensor, bucket), values)| {
            let n = values.len() as f64;
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let fits = values.iter().all(|value| value.abs() < 1e140);
            let sum: f64 = values.iter().sum();
            let squares: f64 = values.iter().map(|value| (value - sum / n) * (value - sum / n)).sum();
            RollupRow {
                time: jiff_text(bucket),
                tenant: "default".into(),
                device: if sensor < 2 { "d0" } else { "d1" }.into(),
                metric: if sensor == 1 { "humidity" } else { "temperature" }.into(),
                unit: "°C".into(),
                count: values.len() as i64,
                min: sorted[0],
                max: sorted[sorted.len() - 1],
                avg: fits.then_some(sum / n),
                sum: fits.then_some(sum),
                stddev: (fits && values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
                first: values[0],
                last: values[values.len() - 1],
                p50: percentile(&sorted, 0.5),
                p95: percentile(&sorted, 0.95),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.device, &a.metric, &a.time).cmp(&(&b.device, &b.metric, &b.time)));
    rows
}

fn jiff_text(micros: i64) -> String {
    UtcMicros(micros).to_string().replace('Z', ".000000Z")
}

/// Equal but for the rounding of sums.
fn agree(a: &RollupRow, b: &RollupRow) -> bool {
    let scale = a.min.abs().max(a.max.abs()).max(1e-300) * a.count as f64;
    let near = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-12 * scale || (a - b).abs() <= 1e-12 * a.abs();
    let both = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => near(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    let names = |row: &RollupRow| [&row.time, &row.tenant, &row.device, &row.metric, &row.unit].map(String::clone);
    names(a) == names(b)
        && (a.count, a.min, a.max, a.first, a.last) == (b.count, b.min, b.max, b.first, b.last)
        && both(a.avg, b.avg)
        && both(a.sum, b.sum)
        // A deviation is the root of a difference, and keeps half of the digits.
        && match (a.stddev, b.stddev) {
            (Some(x), Some(y)) => (x - y).abs() <= 1e-7 * scale,
            (x, y) => x.is_none() && y.is_none(),
        }
        && near(a.p50, b.p50)
        && near(a.p95, b.p95)
}

fn assert_right(site: &Site, model: &Model, when: &str) {
    for grain in Grain::ALL {
        let (shown, expected) = (shown(&site.store, grain), expected(model, grain));
        for (shown, expected) in shown.iter().zip(&expected) {
            assert!(agree(shown, expected), "{when}, {grain:?}:\nshown    {shown:?}\nexpected {expected:?}");
        }
        assert_eq!(shown.len(), expected.len(), "{when}, {grain:?}");
    }
}

fn value(random: &mut fastrand::Rng) -> f64 {
    match random.u8(..20) {
        0 => 1e200,
        1 => -1e-9,
        2 => 0.0,
        3..8 => f64::from(random.i32(-3..3)),
        _ => random.f64() * 100.0 - 20.0,
    }
}

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

/// A transaction that has read the horizon and not yet committed its reading, as the writer's last moments are.
#[test]
fn the_horizon_waits_for_who_is_storing() {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, PgConnection};
    let site = Site::postgres();
    let (_writer, mut model, mut clockwork) = ten_hours(&site);
    let DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut storing = PgConnection::establish(url.expose()).unwrap();
    let insert = "INSERT INTO telemetry SELECT id, '2026-03-05 09:30:00.5+00', 77 FROM device_sensors \
         WHERE metric = 'humidity'; SELECT * FROM rollup_horizon ORDER BY grain FOR KEY SHARE";
    storing.batch_execute(&format!("BEGIN; {insert}")).unwrap();
    model.0.insert((1, START + 9 * HOUR + 30 * MINUTE + 500_000), 77.0);
    clockwork.now += 2 * MINUTE;
    std::thread::scope(|scope| {
        let rolling = scope.spawn(|| clockwork.run(&site.store));
        let waits = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%rollup_horizon%'";
        crate::support::daemon::eventually("the horizon waits", || (site.number(waits) > 0).then_some(()));
        storing.batch_execute("COMMIT").unwrap();
        rolling.join().unwrap();
    });
    assert_eq!(site.rows("rollup_hourly"), 30, "the tenth hour is rolled up");
    assert_right(&site, &model, "with what was being stored");
}

/// The mark of a reading that is being stored is neither taken nor lost.
#[test]
fn a_mark_that_is_being_put_is_left_for_later() {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, PgConnection};
    let site = Site::postgres();
    let (mut writer, mut model, mut clockwork) = ten_hours(&site);
    store(&mut writer, &mut model, 2, vec![reading(1, START + 1, 5.0)]);
    let DatabaseUrl::Postgres(url) = &site.settings.url else { panic!() };
    let mut storing = PgConnection::establish(url.expose()).unwrap();
    let insert = "INSERT INTO telemetry SELECT id, '2026-03-05 00:30:00.5+00', 77 FROM device_sensors \
         WHERE metric = 'humidity'; INSERT INTO rollup_pending SELECT * FROM rollup_pending \
         ON CONFLICT (grain, sensor_id, bucket) DO UPDATE SET bucket = excluded.bucket WHERE false";
    storing.batch_execute(&format!("BEGIN; {insert}")).unwrap();
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 1);
    assert_right(&site, &model, "while it is stored");
    storing.batch_execute("COMMIT").unwrap();
    model.0.insert((1, START + 30 * MINUTE + 500_000), 77.0);
    assert_right(&site, &model, "stored");
    clockwork.run(&site.store);
    assert_eq!(site.rows("rollup_pending"), 0);
    assert_right(&site, &model, "rolled up anew");
}

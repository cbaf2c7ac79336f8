//! What the views must show: computed plainly from what was stored; and the chore at a clock of the test's own.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::config;
use tidegate::metrics::{ByGrain, Metrics};
use tidegate::store::batch::{Batch, Reading};
use tidegate::store::rollups::{Grain, RollupRow, RollupsQuery};
use tidegate::store::{BatchWriter, Store};
use tidegate::time::UtcMicros;
use tidegate::upkeep::rollups::Rollups;
use tidegate::upkeep::{Chore, Next};

use super::{DAY, HOUR, START};
use crate::store::{Site, batch, device, lookup, sensor};

/// Readings as they should be stored, by sensor and time: of one key the first counts.
#[derive(Default)]
pub(super) struct Model(pub BTreeMap<(u32, i64), f64>);

/// The chore at a clock of the test's own.
pub(super) struct Clockwork {
    pub(super) chore: Rollups,
    pub(super) now: i64,
    pub(super) metrics: Metrics,
}

pub(super) fn chore(enabled: bool, keep_raw: Option<Duration>) -> Clockwork {
    let metrics = Metrics::new();
    let settings = config::Rollups { enabled, grace: Duration::from_secs(60), refresh: Duration::from_secs(30) };
    Clockwork { chore: Rollups::new(settings, keep_raw, metrics.clone()), now: START, metrics }
}

impl Clockwork {
    pub(super) fn step(&mut self, store: &Store) -> Next {
        self.chore.step(store, UtcMicros(self.now)).unwrap()
    }

    pub(super) fn run(&mut self, store: &Store) {
        while self.step(store) == Next::AtOnce {}
    }

    pub(super) fn buckets(&self, grain: Grain) -> u64 {
        self.metrics.rollup_buckets.get_or_create(&ByGrain { grain: grain.name() }).get()
    }

    pub(super) fn pending(&self, grain: Grain) -> i64 {
        self.metrics.rollup_pending.get_or_create(&ByGrain { grain: grain.name() }).get()
    }
}

/// Three sensors: two of d0, one of d1.
pub(super) fn introduced(position: u64, readings: Vec<Reading>) -> Batch {
    Batch {
        devices: vec![device(0), device(1)],
        sensors: vec![sensor(0, 0, "temperature"), sensor(1, 0, "humidity"), sensor(2, 1, "temperature")],
        ..batch(position, readings)
    }
}

pub(super) fn reading(sensor: u32, time: i64, value: f64) -> Reading {
    Reading { sensor, time: UtcMicros(time), value, seq: 1 }
}

pub(super) fn store(writer: &mut BatchWriter, model: &mut Model, position: u64, readings: Vec<Reading>) {
    for reading in &readings {
        model.0.entry((reading.sensor, reading.time.0)).or_insert(reading.value);
    }
    writer.commit(&introduced(position, readings), &lookup).unwrap();
}

pub(super) fn shown(store: &Store, grain: Grain) -> Vec<RollupRow> {
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
pub(super) fn expected(model: &Model, grain: Grain) -> Vec<RollupRow> {
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

pub(super) fn assert_right(site: &Site, model: &Model, when: &str) {
    for grain in Grain::ALL {
        let (shown, expected) = (shown(&site.store, grain), expected(model, grain));
        for (shown, expected) in shown.iter().zip(&expected) {
            assert!(agree(shown, expected), "{when}, {grain:?}:\nshown    {shown:?}\nexpected {expected:?}");
        }
        assert_eq!(shown.len(), expected.len(), "{when}, {grain:?}");
    }
}

pub(super) fn value(random: &mut fastrand::Rng) -> f64 {
    match random.u8(..20) {
        0 => 1e200,
        1 => -1e-9,
        2 => 0.0,
        3..8 => f64::from(random.i32(-3..3)),
        _ => random.f64() * 100.0 - 20.0,
    }
}

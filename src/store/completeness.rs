//! How much of what a device should have reported has come: readings present and expected, and the gaps between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use diesel::connection::DefaultLoadingMode;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use hdrhistogram::Histogram;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use super::query::DeviceFilter;
use super::schema::{device_sensors, device_templates, devices, telemetry, telemetry_text, tenants};
use crate::time::UtcMicros;

/// A pause between two readings of more than so many intervals is a gap.
pub const GAP_INTERVALS: u32 = 2;
/// Gaps of one sensor that are remembered one by one, the longest. Beyond them the shorter ones count as no gaps.
const REMEMBERED: usize = 4096;
/// Gaps told of one sensor.
const TOLD: usize = 5;
/// Distinguishes gaps to one in a thousand, whatever their length.
const DIGITS: u8 = 3;

/// A span without readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    pub from: UtcMicros,
    pub to: UtcMicros,
}

impl Gap {
    pub fn length(self) -> Duration {
        self.to.since(self.from)
    }
}

/// Where the expected interval comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The caller gave it.
    Given,
    /// The median of the pauses between the period's readings, to three digits.
    Median,
}

/// One sensor over the period.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorCompleteness {
    pub metric: String,
    pub present: u64,
    /// Between two readings; none: fewer than two readings, and none was given.
    pub interval: Option<(Duration, Basis)>,
    /// The period divided by the interval.
    pub expected: Option<u64>,
    /// Present by expected, at most 1.
    pub completeness: Option<f64>,
    /// Share of the period that lies in no gap.
    pub covered: Option<f64>,
    /// Gaps of more than [`GAP_INTERVALS`] intervals, the ends of the period included.
    pub gaps: u64,
    /// The longest of these, the longest first.
    pub longest: Vec<Gap>,
}

/// One device over the period.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceCompleteness {
    pub tenant: String,
    pub device: String,
    /// Begins with the device, if that is later than was asked for.
    pub period: Gap,
    pub sensors: Vec<SensorCompleteness>,
    /// Sum of the present by sum of the expected, at most 1; none: nothing is expected.
    pub completeness: Option<f64>,
    /// Share of the period in which one sensor at least was in no gap; none: no sensor has an interval.
    pub uptime: Option<f64>,
    /// The longest spans in which every sensor was in a gap.
    pub longest_down: Vec<Gap>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: UtcMicros,
    /// Exclusive.
    pub to: UtcMicros,
    /// What every sensor should keep to; none: each one's median.
    pub interval: Option<Duration>,
}

impl Store {
    /// The completeness of every device that the filter means, by uid, each handed to `each` as it is known. Of one sensor at a
    /// time the readings pass through memory one by one.
    ///
    /// # Errors
    /// [`StoreError`], and what `each` returns.
    pub fn completeness<E: From<StoreError>>(
        &self,
        filter: &DeviceFilter,
        period: Period,
        mut each: impl FnMut(DeviceCompleteness) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after: Option<(String, String)> = None;
        loop {
            let rows = self.db.with(|conn| page(conn, filter, after.as_ref()))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some((last.uid.clone(), last.tenant.clone()));
            for device in &rows {
                each(self.db.with(|conn| of_device(conn, device, period))?)?;
            }
        }
    }
}

/// What is needed of a device.
#[derive(Queryable)]
struct Known {
    id: i32,
    tenant: String,
    uid: String,
    first_seen: Option<UtcMicros>,
}

/// The next devices by uid and tenant.
fn page(
    conn: &mut Conn<'_>,
    filter: &DeviceFilter,
    after: Option<&(String, String)>,
) -> Result<Vec<Known>, StoreError> {
    with_db!(conn, |c, B| {
        let mut query = devices::table
            .inner_join(tenants::table)
            .left_join(device_templates::table.on(devices::template_id.eq(device_templates::id.nullable())))
            .select((devices::id, tenants::name, devices::uid, devices::first_seen))
            .into_boxed::<B>();
        if let Some(tenant) = &filter.tenant {
            query = query.filter(tenants::name.eq(tenant));
        }
        if let Some(template) = &filter.template {
            query = query.filter(device_templates::slug.eq(template));
        }
        if let Some(uid) = &filter.uid {
            query = query.filter(devices::uid.eq(uid));
        }
        if let Some((uid, tenant)) = after {
            query = query.filter(devices::uid.gt(uid).or(devices::uid.eq(uid).and(tenants::name.gt(tenant))));
        }
        query.order((devices::uid, tenants::name)).limit(500).load(c)
    })
    .during("reading devices")
}

fn of_device(conn: &mut Conn<'_>, device: &Known, period: Period) -> Result<DeviceCompleteness, StoreError> {
    let sensors: Vec<(i32, String, String)> = with_db!(conn, |c| device_sensors::table
        .filter(device_sensors::device_id.eq(device.id))
        .select((device_sensors::id, device_sensors::metric, device_sensors::kind))
        .order(device_sensors::metric)
        .load(c))
    .during("reading sensors")?;
    let mut from = device.first_seen.map_or(period.from, |seen| seen.max(period.from));
    let mut passes = Vec::with_capacity(sensors.len());
    for (id, metric, kind) in sensors {
        let pass = pass(conn, id, kind == "text", period)?.settle(period.interval);
        // What was sent in later, with times of before the device was first heard, counts.
        from = pass.first.map_or(from, |first| from.min(first)).max(period.from);
        passes.push((metric, pass));
    }
    let span = Gap { from, to: period.to.max(from) };
    let mut sensors = Vec::with_capacity(passes.len());
    let mut down: Option<Vec<Gap>> = None;
    for (metric, pass) in passes {
        let (sensor, gaps) = judge(metric, pass, span);
        if sensor.interval.is_some() {
            down = Some(down.map_or_else(|| gaps.clone(), |down| intersection(&down, &gaps)));
        }
        sensors.push(sensor);
    }
    let present: u64 = sensors.iter().filter(|sensor| sensor.expected.is_some()).map(|sensor| sensor.present).sum();
    let expected: u64 = sensors.iter().filter_map(|sensor| sensor.expected).sum();
    let length = span.length().as_secs_f64();
    let missing = down.as_ref().map(|gaps| gaps.iter().map(|gap| gap.length().as_secs_f64()).sum::<f64>());
    Ok(DeviceCompleteness {
        tenant: device.tenant.clone(),
        device: device.uid.clone(),
        period: span,
        completeness: (expected > 0).then(|| (present as f64 / expected as f64).min(1.0)),
        uptime: missing.filter(|_| length > 0.0).map(|missing| (1.0 - missing / length).clamp(0.0, 1.0)),
        longest_down: longest(down.unwrap_or_default()),
        sensors,
    })
}

/// What one pass over a sensor's readings leaves.
struct Pass {
    present: u64,
    first: Option<UtcMicros>,
    last: Option<UtcMicros>,
    /// Microseconds between readings.
    pauses: Histogram<u64>,
    /// The longest pauses by length.
    longest: BinaryHeap<Reverse<(Duration, Gap)>>,
}

impl Pass {
    fn new() -> Result<Pass, StoreError> {
        let pauses = Histogram::new(DIGITS).map_err(|error| StoreError::Unfit { detail: error.to_string() })?;
        Ok(Pass { present: 0, first: None, last: None, pauses, longest: BinaryHeap::new() })
    }

    fn take(&mut self, time: UtcMicros) {
        self.present = self.present.saturating_add(1);
        if let Some(from) = self.last.replace(time) {
            let pause = Gap { from, to: time };
            // One that resizes itself refuses nothing.
            let _ = self.pauses.record(u64::try_from(pause.length().as_micros()).unwrap_or(u64::MAX));
            self.remember(pause);
        }
        self.first.get_or_insert(time);
    }

    fn remember(&mut self, gap: Gap) {
        let entry = Reverse((gap.length(), gap));
        if self.longest.len() < REMEMBERED {
            self.longest.push(entry);
        } else if self.longest.peek().is_some_and(|shortest| shortest.0.0 < gap.length()) {
            self.longest.pop();
            self.longest.push(entry);
        }
    }
}

/// A pass, less what only served to find the interval: a device may have a thousand sensors.
struct Settled {
    present: u64,
    first: Option<UtcMicros>,
    last: Option<UtcMicros>,
    interval: Option<(Duration, Basis)>,
    /// Between readings.
    gaps: Vec<Gap>,
}

impl Pass {
    fn settle(self, given: Option<Duration>) -> Settled {
        let median = || Duration::from_micros(three_digits(self.pauses.value_at_quantile(0.5)));
        let interval = match given {
            Some(given) => Some((given, Basis::Given)),
            None => (self.present >= 2).then(|| (median(), Basis::Median)),
        };
        let interval = interval.filter(|(interval, _)| !interval.is_zero());
        let gaps = self.longest.into_iter().map(|Reverse((_, gap))| gap);
        let gaps = gaps.filter(|gap| interval.is_some_and(|(interval, _)| is_gap(*gap, interval))).collect();
        Settled { present: self.present, first: self.first, last: self.last, interval, gaps }
    }
}

/// Rounded to as many digits as the histogram tells apart, so that ten seconds are ten seconds.
fn three_digits(number: u64) -> u64 {
    let unit = 10_u64.saturating_pow(number.checked_ilog10().unwrap_or(0).saturating_sub(2));
    number.saturating_add(unit / 2) / unit * unit
}

fn is_gap(pause: Gap, interval: Duration) -> bool {
    pause.length() > interval.saturating_mul(GAP_INTERVALS)
}

/// One range of the primary key, in its order; the rows are streamed.
fn pass(conn: &mut Conn<'_>, sensor: i32, is_text: bool, period: Period) -> Result<Pass, StoreError> {
    let mut pass = Pass::new()?;
    let take = |row: QueryResult<UtcMicros>| row.map(|time| pass.take(time));
    macro_rules! stream {
        ($table:ident) => {{
            let rows = $table::table
                .filter($table::sensor_id.eq(sensor))
                .filter($table::time.ge(period.from))
                .filter($table::time.lt(period.to))
                .select($table::time)
                .order($table::time);
            match conn {
                Conn::Postgres(c) => {
                    rows.load_iter::<UtcMicros, PgRowByRowLoadingMode>(*c).and_then(|mut rows| rows.try_for_each(take))
                }
                Conn::Sqlite(c) => {
                    rows.load_iter::<UtcMicros, DefaultLoadingMode>(*c).and_then(|mut rows| rows.try_for_each(take))
                }
            }
        }};
    }
    if is_text { stream!(telemetry_text) } else { stream!(telemetry) }.during("reading a sensor's times")?;
    Ok(pass)
}

/// The verdict on one sensor, and its gaps in order of time.
fn judge(metric: String, pass: Settled, span: Gap) -> (SensorCompleteness, Vec<Gap>) {
    let mut sensor = SensorCompleteness {
        metric,
        present: pass.present,
        interval: pass.interval,
        expected: None,
        completeness: None,
        covered: None,
        gaps: 0,
        longest: Vec::new(),
    };
    let Some((interval, _)) = pass.interval else { return (sensor, Vec::new()) };
    let mut gaps = pass.gaps;
    let ends = match (pass.first, pass.last) {
        (Some(first), Some(last)) => vec![Gap { from: span.from, to: first }, Gap { from: last, to: span.to }],
        _ => vec![span],
    };
    gaps.extend(ends.into_iter().filter(|gap| is_gap(*gap, interval)));
    gaps.sort_unstable();
    let length = span.length().as_secs_f64();
    let expected = length / interval.as_secs_f64();
    let missing: f64 = gaps.iter().map(|gap| gap.length().as_secs_f64()).sum();
    sensor.expected = Some(whole(expected));
    sensor.completeness = (expected >= 1.0).then(|| (pass.present as f64 / expected.floor()).min(1.0));
    sensor.covered = (length > 0.0).then(|| (1.0 - missing / length).clamp(0.0, 1.0));
    sensor.gaps = gaps.len() as u64;
    sensor.longest = longest(gaps.clone());
    (sensor, gaps)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and no sign is left")]
fn whole(number: f64) -> u64 {
    number.max(0.0) as u64
}

fn longest(mut gaps: Vec<Gap>) -> Vec<Gap> {
    gaps.sort_by_key(|gap| (Reverse(gap.length()), gap.from));
    gaps.truncate(TOLD);
    gaps
}

/// What lies in both; each is in order of time and without overlaps.
fn intersection(a: &[Gap], b: &[Gap]) -> Vec<Gap> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(one), Some(other)) = (a.peek(), b.peek()) {
        let common = Gap { from: one.from.max(other.from), to: one.to.min(other.to) };
        if common.from < common.to {
            both.push(common);
        }
        if one.to < other.to {
            a.next()
        } else {
            b.next()
        };
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    fn gap(from: i64, to: i64) -> Gap {
        Gap { from: UtcMicros(from * SECOND), to: UtcMicros(to * SECOND) }
    }

    fn passed(seconds: impl IntoIterator<Item = i64>) -> Pass {
        let mut pass = Pass::new().unwrap();
        seconds.into_iter().for_each(|second| pass.take(UtcMicros(second * SECOND)));
        pass
    }

    fn judged(seconds: impl IntoIterator<Item = i64>, span: Gap, given: Option<u64>) -> (SensorCompleteness, Vec<Gap>) {
        judge("m".to_owned(), passed(seconds).settle(given.map(Duration::from_secs)), span)
    }

    #[test]
    fn the_median_pause_is_what_is_expected_and_longer_ones_are_gaps() {
        let times = (0..100).filter(|n| !(40..60).contains(n)).map(|n| n * 10);
        let (sensor, gaps) = judged(times, gap(0, 1000), None);
        let (interval, basis) = sensor.interval.unwrap();
        assert!((9.9..10.1).contains(&interval.as_secs_f64()), "{interval:?}");
        assert_eq!(basis, Basis::Median);
        assert_eq!(gaps, [gap(390, 600)]);
        assert_eq!((sensor.present, sensor.gaps), (80, 1));
        assert!((sensor.completeness.unwrap() - 0.8).abs() < 0.01, "{sensor:?}");
        assert!((sensor.covered.unwrap() - 0.79).abs() < 0.001, "{sensor:?}");
    }

    #[test]
    fn an_interval_has_three_digits() {
        for (number, rounded) in [(0, 0), (7, 7), (999, 999), (10_002_431, 10_000_000), (59_981_823, 60_000_000)] {
            assert_eq!(three_digits(number), rounded);
        }
    }

    #[test]
    fn silence_at_both_ends_of_the_period_is_a_gap() {
        let (_, gaps) = judged((30..40).map(|n| n * 10), gap(0, 1000), Some(10));
        assert_eq!(gaps, [gap(0, 300), gap(390, 1000)]);
    }

    #[test]
    fn a_silent_sensor_is_judged_only_by_a_given_interval() {
        let (sensor, gaps) = judged([], gap(0, 100), None);
        assert_eq!((sensor.expected, sensor.completeness, gaps.len()), (None, None, 0));
        let (sensor, gaps) = judged([], gap(0, 100), Some(10));
        assert_eq!((sensor.expected, sensor.completeness, sensor.covered), (Some(10), Some(0.0), Some(0.0)));
        assert_eq!(gaps, [gap(0, 100)]);
        assert_eq!(judged([5], gap(0, 100), None).0.expected, None);
    }

    #[test]
    fn only_the_longest_gaps_are_remembered() {
        let times = (0..10_000).map(|n| n * 10 + i64::from(n == 5_000) * 5);
        let pass = passed(times);
        assert_eq!(pass.longest.len(), REMEMBERED);
        assert!(pass.longest.iter().any(|Reverse((length, _))| length.as_secs() == 15));
    }

    proptest! {
        #[test]
        fn an_intersection_is_what_both_have(cuts in prop::collection::vec(0_i64..300, 0..40), other in prop::collection::vec(0_i64..300, 0..40)) {
            let gaps = |mut cuts: Vec<i64>| {
                cuts.sort_unstable();
                cuts.dedup();
                cuts.chunks_exact(2).map(|pair| gap(pair[0], pair[1])).collect::<Vec<_>>()
            };
            let (a, b) = (gaps(cuts), gaps(other));
            let has = |gaps: &[Gap], second: i64| gaps.iter().any(|one| one.from.0 <= second * SECOND && second * SECOND < one.to.0);
            let both = intersection(&a, &b);
            for second in 0..300 {
                prop_assert_eq!(has(&both, second), has(&a, second) && has(&b, second));
            }
        }
    }
}

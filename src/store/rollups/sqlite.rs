//! Rolling up on SQLite, which knows no percentiles: the readings are read, and the figures worked out here. A sweep reads
//! without the one lock that writers have to share, and holds it only to write down what it has found.

use std::ops::Range;
use std::time::Duration;

use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Double, Integer, Nullable};
use diesel::sqlite::Sqlite;

use super::postgres::COLUMNS;
use super::{Aggregate, Grain, Pace, Progress, STEP, Work};
use crate::store::error::{During, StoreError};
use crate::store::pool::Conn;
use crate::store::schema::{Instant, device_sensors, rollup_horizon, rollup_pending, telemetry};
use crate::time::UtcMicros;

/// Readings that are read at once, and about as many as one step takes.
const READINGS: i64 = 50_000;
/// Sensors that are looked for at once.
const SENSORS: i64 = 500;
/// Sensors in one step, at most: each costs a statement while the lock is held.
const SENSORS_OF_STEP: usize = 2000;
/// Buckets in one step, about.
const ROWS_OF_STEP: usize = 5000;
/// How long marks are settled in one transaction, about, for the writer waits meanwhile.
const LOCKED: Duration = Duration::from_millis(50);
/// Rows in one INSERT.
const ROWS: usize = 256;

/// A bucket that is rolled up.
struct Row {
    sensor_id: i32,
    bucket: UtcMicros,
    figures: Aggregate,
}

/// What a step of the sweep is about to write.
pub(super) struct Found {
    seen: Progress,
    next: Progress,
    /// What is replaced by `rows`.
    stretches: Vec<(i32, Range<UtcMicros>)>,
    rows: Vec<Row>,
}

/// The reading half of a step, in one read transaction. None: there is nothing to sweep.
pub(super) fn look(c: &mut SqliteConnection, grain: Grain) -> Result<Option<Found>, StoreError> {
    let seen = progress(c, grain)?;
    if seen.is_swept() {
        return Ok(None);
    }
    let mut found = Found { seen, next: seen, stretches: Vec::new(), rows: Vec::new() };
    let pace = Pace::begin();
    let mut left = READINGS;
    loop {
        let sensors: Vec<i32> = device_sensors::table
            .filter(device_sensors::id.ge(found.next.sensor_id))
            .select(device_sensors::id)
            .order(device_sensors::id)
            .limit(SENSORS)
            .load(c)
            .during("finding the next sensors to roll up")?;
        if sensors.is_empty() {
            found.next = found.next.complete();
            return Ok(Some(found));
        }
        for sensor in sensors {
            loop {
                let from = found.next.sweep_from(sensor);
                let (to, read) = stretch(c, grain, sensor, from..seen.horizon, &mut found.rows)?;
                left -= read;
                found.stretches.push((sensor, from..to));
                found.next = found.next.swept_to(sensor, to);
                let full = found.stretches.len() >= SENSORS_OF_STEP || found.rows.len() >= ROWS_OF_STEP;
                if left <= 0 || full || pace.is_over(STEP) {
                    return Ok(Some(found));
                }
                if to >= seen.horizon {
                    break;
                }
            }
        }
    }
}

/// Rolls up the buckets from the beginning of `within`, as far as [`READINGS`] go or to its end; tells where that is, and how
/// many readings it were.
fn stretch(
    c: &mut SqliteConnection,
    grain: Grain,
    sensor: i32,
    within: Range<UtcMicros>,
    rows: &mut Vec<Row>,
) -> Result<(UtcMicros, i64), StoreError> {
    let mut readings = load(c, sensor, within.clone(), READINGS)?;
    let mut to = within.end;
    if i64::try_from(readings.len()).is_ok_and(|read| read >= READINGS)
        && let (Some((first, _)), Some((last, _))) = (readings.first().copied(), readings.last().copied())
    {
        // The last bucket may not be whole; the first has to be.
        to = grain.floor(last);
        if to <= grain.floor(first) {
            to = grain.end(to);
            readings = load(c, sensor, within.start..to, i64::MAX)?;
        } else {
            readings.truncate(readings.partition_point(|(time, _)| *time < to));
        }
    }
    for bucket in readings.chunk_by(|(a, _), (b, _)| grain.floor(*a) == grain.floor(*b)) {
        let values: Vec<f64> = bucket.iter().map(|(_, value)| *value).collect();
        if let (Some((time, _)), Some(figures)) = (bucket.first(), Aggregate::of(&values)) {
            rows.push(Row { sensor_id: sensor, bucket: grain.floor(*time), figures });
        }
    }
    Ok((to, i64::try_from(readings.len()).unwrap_or(i64::MAX)))
}

fn load(
    c: &mut SqliteConnection,
    sensor: i32,
    within: Range<UtcMicros>,
    limit: i64,
) -> Result<Vec<(UtcMicros, f64)>, StoreError> {
    telemetry::table
        .filter(telemetry::sensor_id.eq(sensor))
        .filter(telemetry::time.ge(within.start))
        .filter(telemetry::time.lt(within.end))
        .select((telemetry::time, telemetry::value))
        .order(telemetry::time)
        .limit(limit)
        .load(c)
        .during("reading what is to be rolled up")
}

/// The writing half, in one write transaction: nothing, if somebody else has moved the sweep meanwhile.
pub(super) fn keep_swept(c: &mut SqliteConnection, grain: Grain, found: &Found) -> Result<Work, StoreError> {
    let now = progress(c, grain)?;
    if (Progress { raw_from: found.seen.raw_from, ..now }) != found.seen {
        return Ok(Work { buckets: 0, more: true });
    }
    for (sensor, stretch) in &found.stretches {
        clear(c, grain, *sensor, stretch.clone())?;
    }
    insert(c, grain, &found.rows)?;
    super::keep(&mut Conn::Sqlite(c), grain, Progress { raw_from: now.raw_from, ..found.next })?;
    Ok(Work { buckets: found.rows.len() as u64, more: !found.next.is_swept() })
}

/// Some marks, inside the write transaction that is open.
pub(super) fn settle(c: &mut SqliteConnection, grain: Grain) -> Result<Work, StoreError> {
    let at = progress(c, grain)?;
    let pace = Pace::begin();
    let marks: Vec<(i32, UtcMicros)> = rollup_pending::table
        .filter(rollup_pending::grain.eq(grain.name()))
        .filter(
            rollup_pending::bucket
                .lt(at.rolled)
                .or(rollup_pending::sensor_id.lt(at.sensor_id).and(rollup_pending::bucket.lt(at.horizon)))
                .or(rollup_pending::sensor_id.eq(at.sensor_id).and(rollup_pending::bucket.lt(at.bucket))),
        )
        .order((rollup_pending::sensor_id, rollup_pending::bucket))
        .limit(SENSORS)
        .select((rollup_pending::sensor_id, rollup_pending::bucket))
        .load(c)
        .during("finding buckets with late readings")?;
    let (mut rows, mut left, mut settled) = (Vec::new(), READINGS, 0);
    for (sensor, bucket) in &marks {
        // What was rolled up of readings that may be gone stays.
        if *bucket >= at.raw_from {
            let within = *bucket..grain.end(*bucket);
            clear(c, grain, *sensor, within.clone())?;
            left -= stretch(c, grain, *sensor, within, &mut rows)?.1;
        }
        diesel::delete(rollup_pending::table.find((grain.name(), *sensor, *bucket)))
            .execute(c)
            .during("settling buckets with late readings")?;
        settled += 1;
        if left <= 0 || pace.is_over(LOCKED) {
            break;
        }
    }
    insert(c, grain, &rows)?;
    let more = settled < marks.len() || i64::try_from(settled).is_ok_and(|settled| settled == SENSORS);
    Ok(Work { buckets: rows.len() as u64, more })
}

fn progress(c: &mut SqliteConnection, grain: Grain) -> Result<Progress, StoreError> {
    rollup_horizon::table
        .find(grain.name())
        .select(Progress::COLUMNS)
        .first(c)
        .during("reading how far the rollups have come")
}

fn clear(c: &mut SqliteConnection, grain: Grain, sensor: i32, stretch: Range<UtcMicros>) -> Result<(), StoreError> {
    diesel::sql_query(format!("DELETE FROM {} WHERE sensor_id = ? AND bucket >= ? AND bucket < ?", grain.table()))
        .bind::<Integer, _>(sensor)
        .bind::<Instant, _>(stretch.start)
        .bind::<Instant, _>(stretch.end)
        .execute(c)
        .during("clearing rollups")?;
    Ok(())
}

fn insert(c: &mut SqliteConnection, grain: Grain, rows: &[Row]) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS) {
        Insert { grain, rows }.execute(c).during("writing rollups")?;
    }
    Ok(())
}

struct Insert<'a> {
    grain: Grain,
    rows: &'a [Row],
}

impl QueryFragment<Sqlite> for Insert<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO ");
        out.push_sql(self.grain.table());
        out.push_sql(" (sensor_id, bucket, ");
        out.push_sql(COLUMNS);
        for (n, row) in self.rows.iter().enumerate() {
            out.push_sql(if n == 0 { ") VALUES (" } else { "), (" });
            out.push_bind_param::<Integer, i32>(&row.sensor_id)?;
            out.push_sql(", ");
            out.push_bind_param::<Instant, UtcMicros>(&row.bucket)?;
            out.push_sql(", ");
            let figures = &row.figures;
            out.push_bind_param::<BigInt, i64>(&figures.count)?;
            for value in [&figures.min, &figures.max] {
                out.push_sql(", ");
                out.push_bind_param::<Double, f64>(value)?;
            }
            for value in [&figures.avg, &figures.sum, &figures.stddev] {
                out.push_sql(", ");
                out.push_bind_param::<Nullable<Double>, Option<f64>>(value)?;
            }
            for value in [&figures.first, &figures.last, &figures.p50, &figures.p95] {
                out.push_sql(", ");
                out.push_bind_param::<Double, f64>(value)?;
            }
        }
        out.push_sql(")");
        Ok(())
    }
}

/// No static id: the statement is cached by its text.
impl QueryId for Insert<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for Insert<'_> {}

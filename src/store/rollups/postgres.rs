//! Rolling up on PostgreSQL: the database does the sums, so that no reading leaves it.

use std::time::Instant as Clock;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Text};

use super::{Grain, Pace, Progress, STEP, Work};
use crate::store::error::{During, StoreError};
use crate::store::pool::Conn;
use crate::store::schema::{Instant, device_sensors, rollup_horizon, telemetry};
use crate::time::UtcMicros;

/// The figures of a group of readings, as the columns of the rollups have them. A value from which avg, sum or stddev would
/// overflow, which is an error, makes them null instead.
pub(super) const FIGURES: &str = "count(*) AS count, min(value) AS min, max(value) AS max, \
    CASE WHEN max(abs(value)) < '1e140'::float8 THEN avg(value) FILTER (WHERE abs(value) < '1e140'::float8) END AS avg, \
    CASE WHEN max(abs(value)) < '1e140'::float8 THEN sum(value) FILTER (WHERE abs(value) < '1e140'::float8) END AS sum, \
    CASE WHEN max(abs(value)) < '1e140'::float8 THEN stddev_samp(value) FILTER (WHERE abs(value) < '1e140'::float8) END \
        AS stddev, \
    (array_agg(value ORDER BY time))[1] AS first, (array_agg(value ORDER BY time DESC))[1] AS last, \
    percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS p50, \
    percentile_cont(0.95) WITHIN GROUP (ORDER BY value) AS p95";

/// The names of those columns.
pub(super) const COLUMNS: &str = "count, min, max, avg, sum, stddev, first, last, p50, p95";

/// Where buckets are counted from: a midnight before any reading.
pub(super) const ORIGIN: &str = "timestamptz '0001-01-01 00:00:00+00'";

/// Readings that a sweep over much time takes at once, of one sensor.
const READINGS: i64 = 50_000;

/// The views where TimescaleDB does not make them. LATERAL, so that only what is asked for is worked out: device and metric lead to
/// the sensor, the sensor to its rollups and its newest readings by their primary keys.
pub(super) fn view(grain: Grain) -> String {
    let (view, table, name, width) = (grain.view(), grain.table(), grain.name(), grain.interval());
    format!(
        "CREATE VIEW {view} AS \
         SELECT a.bucket AS time, n.name AS tenant, d.uid AS device, s.metric, s.unit, a.count, a.min, a.max, a.avg, a.sum, \
             a.stddev, a.first, a.last, a.p50, a.p95 \
         FROM device_sensors s \
         JOIN devices d ON d.id = s.device_id \
         JOIN tenants n ON n.id = d.tenant_id \
         CROSS JOIN rollup_horizon h \
         CROSS JOIN LATERAL (SELECT greatest(h.raw_from, CASE WHEN s.id < h.sensor_id THEN h.horizon \
             WHEN s.id = h.sensor_id THEN h.bucket ELSE h.rolled END) AS live) l \
         CROSS JOIN LATERAL ( \
             SELECT r.bucket, {rolled} FROM {table} r \
             WHERE r.sensor_id = s.id AND r.bucket < l.live AND NOT (r.bucket >= h.raw_from AND EXISTS ( \
                 SELECT FROM rollup_pending p \
                 WHERE p.grain = '{name}' AND p.sensor_id = s.id AND p.bucket = r.bucket)) \
             UNION ALL \
             SELECT date_bin({width}, t.time, {ORIGIN}), {FIGURES} FROM telemetry t \
             WHERE t.sensor_id = s.id AND t.time >= l.live GROUP BY 1 \
             UNION ALL \
             SELECT p.bucket, f.* FROM rollup_pending p \
             CROSS JOIN LATERAL (SELECT {FIGURES} FROM telemetry t \
                 WHERE t.sensor_id = s.id AND t.time >= p.bucket AND t.time < p.bucket + {width}) f \
             WHERE p.grain = '{name}' AND p.sensor_id = s.id AND p.bucket >= h.raw_from AND p.bucket < l.live \
                 AND f.count > 0 \
         ) a \
         WHERE h.grain = '{name}'",
        rolled = COLUMNS.split(", ").map(|column| format!("r.{column}")).collect::<Vec<_>>().join(", "),
    )
}

#[derive(QueryableByName)]
struct Mark {
    #[diesel(sql_type = Integer)]
    sensor_id: i32,
    #[diesel(sql_type = Instant)]
    bucket: UtcMicros,
}

#[derive(QueryableByName)]
struct Group {
    #[diesel(sql_type = diesel::sql_types::Nullable<Integer>)]
    last: Option<i32>,
}

/// Takes the grain's work; none if another has it.
fn take(c: &mut PgConnection, grain: Grain) -> Result<Option<Progress>, StoreError> {
    rollup_horizon::table
        .find(grain.name())
        .select(Progress::COLUMNS)
        .for_no_key_update()
        .skip_locked()
        .first(c)
        .optional()
        .during("taking up the rollups")
}

/// One step of the sweep, inside the transaction that is open.
pub(super) fn sweep(c: &mut PgConnection, grain: Grain) -> Result<Work, StoreError> {
    let Some(mut at) = take(c, grain)?.filter(|at| !at.is_swept()) else { return Ok(Work::default()) };
    let mut pace = Pace::begin();
    let mut buckets = 0;
    while !at.is_swept() && !pace.is_over(STEP) {
        let started = Clock::now();
        let (next, rolled) = if at.is_long() || at.bucket > at.rolled {
            sweep_one(c, grain, at)?
        } else {
            sweep_some(c, grain, at, pace.size)?
        };
        at = next;
        buckets += rolled;
        pace.took(started.elapsed());
    }
    super::keep(&mut Conn::Postgres(c), grain, at)?;
    Ok(Work { buckets, more: !at.is_swept() })
}

/// The next stretch of one sensor, of so many readings that a step stays short.
fn sweep_one(c: &mut PgConnection, grain: Grain, at: Progress) -> Result<(Progress, u64), StoreError> {
    let next: Option<i32> = device_sensors::table
        .filter(device_sensors::id.ge(at.sensor_id))
        .select(diesel::dsl::min(device_sensors::id))
        .first(c)
        .during("finding the next sensor to roll up")?;
    let Some(sensor) = next else { return Ok((at.complete(), 0)) };
    let from = at.sweep_from(sensor);
    let readings = telemetry::table
        .filter(telemetry::sensor_id.eq(sensor))
        .filter(telemetry::time.ge(from))
        .filter(telemetry::time.lt(at.horizon))
        .select(telemetry::time)
        .order(telemetry::time);
    let beyond: Option<UtcMicros> =
        readings.offset(READINGS).first(c).optional().during("measuring what is to be rolled up")?;
    let to = match beyond.map(|time| grain.floor(time)) {
        // All of the readings are in one bucket, or before it is nothing.
        Some(bucket) if bucket <= from => grain.end(bucket),
        Some(bucket) => bucket,
        None => at.horizon,
    };
    let table = grain.table();
    diesel::sql_query(format!("DELETE FROM {table} WHERE sensor_id = $1 AND bucket >= $2 AND bucket < $3"))
        .bind::<Integer, _>(sensor)
        .bind::<Instant, _>(from)
        .bind::<Instant, _>(to)
        .execute(c)
        .during("clearing rollups")?;
    let rolled = diesel::sql_query(format!(
        "INSERT INTO {table} (sensor_id, bucket, {COLUMNS}) \
         SELECT $1, date_bin({}, time, {ORIGIN}), {FIGURES} FROM telemetry \
         WHERE sensor_id = $1 AND time >= $2 AND time < $3 GROUP BY 2",
        grain.interval()
    ))
    .bind::<Integer, _>(sensor)
    .bind::<Instant, _>(from)
    .bind::<Instant, _>(to)
    .execute(c)
    .during("rolling up a sensor")?;
    Ok((at.swept_to(sensor, to), rolled as u64))
}

/// All of the next sensors, where that is little time.
fn sweep_some(c: &mut PgConnection, grain: Grain, at: Progress, sensors: i64) -> Result<(Progress, u64), StoreError> {
    let group: Group = diesel::sql_query(
        "SELECT max(id) AS last FROM (SELECT id FROM device_sensors WHERE id >= $1 ORDER BY id LIMIT $2) g",
    )
    .bind::<Integer, _>(at.sensor_id)
    .bind::<BigInt, _>(sensors)
    .get_result(c)
    .during("finding the next sensors to roll up")?;
    let Some(last) = group.last else { return Ok((at.complete(), 0)) };
    let set: Vec<String> = COLUMNS.split(", ").map(|column| format!("{column} = excluded.{column}")).collect();
    let rolled = diesel::sql_query(format!(
        "INSERT INTO {table} (sensor_id, bucket, {COLUMNS}) \
         SELECT s.id, a.* FROM device_sensors s CROSS JOIN LATERAL \
             (SELECT date_bin({width}, time, {ORIGIN}) AS bucket, {FIGURES} FROM telemetry t \
              WHERE t.sensor_id = s.id AND t.time >= $3 AND t.time < $4 GROUP BY 1) a \
         WHERE s.id BETWEEN $1 AND $2 \
         ON CONFLICT (sensor_id, bucket) DO UPDATE SET {set}",
        table = grain.table(),
        width = grain.interval(),
        set = set.join(", "),
    ))
    .bind::<Integer, _>(at.sensor_id)
    .bind::<Integer, _>(last)
    .bind::<Instant, _>(at.sweep_from(0))
    .bind::<Instant, _>(at.horizon)
    .execute(c)
    .during("rolling up sensors")?;
    Ok((at.swept_past(last), rolled as u64))
}

/// Some marks, inside the transaction that is open.
pub(super) fn settle(c: &mut PgConnection, grain: Grain) -> Result<Work, StoreError> {
    let Some(at) = take(c, grain)? else { return Ok(Work::default()) };
    let mut pace = Pace::begin();
    let mut buckets = 0;
    while !pace.is_over(STEP) {
        let started = Clock::now();
        // Marks that a writer is putting at this moment are left for the next time, not waited for.
        let marks: Vec<Mark> = diesel::sql_query(
            "SELECT sensor_id, bucket FROM rollup_pending WHERE grain = $1 \
             AND bucket < CASE WHEN sensor_id < $2 THEN $3 WHEN sensor_id = $2 THEN $4 ELSE $5 END \
             ORDER BY sensor_id, bucket LIMIT $6 FOR UPDATE SKIP LOCKED",
        )
        .bind::<Text, _>(grain.name())
        .bind::<Integer, _>(at.sensor_id)
        .bind::<Instant, _>(at.horizon)
        .bind::<Instant, _>(at.bucket)
        .bind::<Instant, _>(at.rolled)
        .bind::<BigInt, _>(pace.size)
        .load(c)
        .during("taking buckets with late readings")?;
        if marks.is_empty() {
            return Ok(Work { buckets, more: false });
        }
        // What was rolled up of readings that may be gone stays.
        let (ids, times): (Vec<i32>, Vec<UtcMicros>) =
            marks.iter().filter(|mark| mark.bucket >= at.raw_from).map(|mark| (mark.sensor_id, mark.bucket)).unzip();
        buckets += roll_up(c, grain, &ids, &times)?;
        let (ids, times): (Vec<i32>, Vec<UtcMicros>) = marks.iter().map(|mark| (mark.sensor_id, mark.bucket)).unzip();
        diesel::sql_query(
            "DELETE FROM rollup_pending p USING unnest($2, $3) AS k (sensor_id, bucket) \
             WHERE p.grain = $1 AND p.sensor_id = k.sensor_id AND p.bucket = k.bucket",
        )
        .bind::<Text, _>(grain.name())
        .bind::<Array<Integer>, _>(ids)
        .bind::<Array<Instant>, _>(times)
        .execute(c)
        .during("settling buckets with late readings")?;
        pace.took(started.elapsed());
    }
    Ok(Work { buckets, more: true })
}

/// These buckets, anew.
fn roll_up(c: &mut PgConnection, grain: Grain, ids: &[i32], buckets: &[UtcMicros]) -> Result<u64, StoreError> {
    let table = grain.table();
    diesel::sql_query(format!(
        "DELETE FROM {table} r USING unnest($1, $2) AS k (sensor_id, bucket) \
         WHERE r.sensor_id = k.sensor_id AND r.bucket = k.bucket"
    ))
    .bind::<Array<Integer>, _>(ids)
    .bind::<Array<Instant>, _>(buckets)
    .execute(c)
    .during("clearing rollups")?;
    let rolled = diesel::sql_query(format!(
        "INSERT INTO {table} (sensor_id, bucket, {COLUMNS}) \
         SELECT k.sensor_id, k.bucket, a.* FROM unnest($1, $2) AS k (sensor_id, bucket) CROSS JOIN LATERAL \
             (SELECT {FIGURES} FROM telemetry t \
              WHERE t.sensor_id = k.sensor_id AND t.time >= k.bucket AND t.time < k.bucket + {}) a \
         WHERE a.count > 0",
        grain.interval()
    ))
    .bind::<Array<Integer>, _>(ids)
    .bind::<Array<Instant>, _>(buckets)
    .execute(c)
    .during("rolling up buckets with late readings")?;
    Ok(rolled as u64)
}

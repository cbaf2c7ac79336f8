//! How many readings there are and how they come, told from sensors' ends of the primary key rather than by a count.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable};

use super::{CatalogCounts, Count, Oldest, Stats, rounded, told, unsigned};
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::Instant;
use crate::time::UtcMicros;

/// The days that "rows a day" is taken over.
const DAYS: i64 = 7;
const DAY_MICROS: i64 = 86_400_000_000;
/// Sensors looked at, at most.
const SENSORS: i64 = 200;
/// Readings counted over all of them, at most.
const READINGS: i64 = 1_000_000;
/// Sensors whose first reading is looked up, at most.
const FIRSTS: i64 = 1_000;

/// Readings a day, and of how many sensors that was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    pub per_day: f64,
    pub sensors: u64,
    /// Sensors with readings in these days.
    pub of: u64,
    /// All readings of all of them were counted.
    pub exact: bool,
}

#[derive(QueryableByName)]
struct Ends {
    #[diesel(sql_type = BigInt)]
    sensors: i64,
    #[diesel(sql_type = BigInt)]
    with_numbers: i64,
    #[diesel(sql_type = BigInt)]
    live: i64,
    #[diesel(sql_type = Nullable<Instant>)]
    newest: Option<UtcMicros>,
    #[diesel(sql_type = Nullable<Instant>)]
    newest_text: Option<UtcMicros>,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = Integer)]
    id: i32,
}

#[derive(QueryableByName)]
struct Newest {
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = Nullable<Instant>)]
    from: Option<UtcMicros>,
    #[diesel(sql_type = Nullable<Instant>)]
    to: Option<UtcMicros>,
}

#[derive(QueryableByName)]
struct First {
    #[diesel(sql_type = Nullable<Instant>)]
    first: Option<UtcMicros>,
    #[diesel(sql_type = BigInt)]
    sensors: i64,
}

/// Fills in what concerns the readings. `oldest` are the tables, partitions or chunks in which the oldest reading may be.
pub(super) fn describe(conn: &mut Conn<'_>, oldest: &[String], now: UtcMicros, stats: &mut Stats) {
    let since = UtcMicros(now.0.saturating_sub(DAYS * DAY_MICROS));
    let Some(ends) = told(conn, &mut stats.unknown, "the sensors", |conn| ends(conn, since)) else { return };
    stats.catalog = Some(CatalogCounts {
        sensors: unsigned(ends.sensors),
        live_sensors: unsigned(ends.live),
        ..CatalogCounts::default()
    });
    stats.readings.newest = ends.newest.max(ends.newest_text);
    stats.readings.rows_per_day =
        told(conn, &mut stats.unknown, "readings a day", |conn| rate(conn, since, now, unsigned(ends.live)));
    if stats.readings.rows.is_none() {
        stats.readings.rows =
            told(conn, &mut stats.unknown, "the number of readings", |conn| all(conn, ends.with_numbers));
    }
    for table in oldest {
        if let Some(Some((time, how))) =
            told(conn, &mut stats.unknown, "the oldest reading", |conn| first_of(conn, table))
        {
            let known = stats.readings.oldest.unwrap_or((time, how));
            stats.readings.oldest = Some((known.0.min(time), known.1.max(how)));
        }
    }
}

fn ends(conn: &mut Conn<'_>, since: UtcMicros) -> Result<Ends, StoreError> {
    let query = diesel::sql_query(
        "SELECT count(*) AS sensors, count(last_time) AS with_numbers, \
         count(CASE WHEN last_time >= $1 THEN 1 END) AS live, max(last_time) AS newest, max(last_text_time) AS newest_text \
         FROM device_sensors",
    )
    .bind::<Instant, _>(since);
    with_db!(conn, |c| query.get_result(c)).during("asking the sensors")
}

/// Sensors with a number since then, spread over all ids: those of one metric often lie at equal distances.
fn sample(conn: &mut Conn<'_>, since: UtcMicros) -> Result<Vec<i32>, StoreError> {
    let query = diesel::sql_query(
        "SELECT id FROM device_sensors WHERE last_time >= $1 \
         ORDER BY (CAST(id AS bigint) * 2654435761) % 4294967296, id LIMIT $2",
    )
    .bind::<Instant, _>(since)
    .bind::<BigInt, _>(SENSORS);
    let rows: Vec<Id> = with_db!(conn, |c| query.load(c)).during("choosing sensors")?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// The newest so many readings of a sensor within a time: their number, and their first and last.
fn newest(
    conn: &mut Conn<'_>,
    sensor: i32,
    (from, to): (UtcMicros, UtcMicros),
    at_most: i64,
) -> Result<Newest, StoreError> {
    let query = diesel::sql_query(
        "SELECT count(*) AS n, min(x.time) AS \"from\", max(x.time) AS \"to\" FROM (SELECT t.time FROM telemetry t \
         WHERE t.sensor_id = $1 AND t.time >= $2 AND t.time < $3 ORDER BY t.time DESC LIMIT $4) x",
    )
    .bind::<Integer, _>(sensor)
    .bind::<Instant, _>(from)
    .bind::<Instant, _>(to)
    .bind::<BigInt, _>(at_most);
    with_db!(conn, |c| query.get_result(c)).during("counting a sensor's readings")
}

fn rate(conn: &mut Conn<'_>, since: UtcMicros, now: UtcMicros, live: u64) -> Result<Sampled, StoreError> {
    let sensors = sample(conn, since)?;
    let at_most = READINGS / i64::try_from(sensors.len()).unwrap_or(i64::MAX).max(1);
    let (mut per_day, mut whole) = (0.0, true);
    for sensor in &sensors {
        let found = newest(conn, *sensor, (since, now), at_most)?;
        // Where there are more than are counted, the newest tell how fast they come.
        let span = if found.n < at_most { DAYS * DAY_MICROS } else { now.0 - found.from.unwrap_or(since).0 };
        whole &= found.n < at_most;
        per_day += found.n as f64 * DAY_MICROS as f64 / span.max(1) as f64;
    }
    let looked_at = sensors.len() as u64;
    // Those that have died in between make it less than 1.
    let share = if looked_at == 0 { 1.0 } else { live.max(looked_at) as f64 / looked_at as f64 };
    Ok(Sampled { per_day: per_day * share, sensors: looked_at, of: live, exact: whole && looked_at >= live })
}

/// All readings, told from some sensors: each one's own where they can be counted, else its pace over its whole life.
fn all(conn: &mut Conn<'_>, with_numbers: i64) -> Result<Count, StoreError> {
    let sensors = sample(conn, EARLIEST)?;
    let at_most = READINGS / i64::try_from(sensors.len()).unwrap_or(i64::MAX).max(1);
    let (mut rows, mut whole) = (0.0, true);
    for sensor in &sensors {
        let found = newest(conn, *sensor, (EARLIEST, LATEST), at_most)?;
        let Some((from, to)) = found.from.zip(found.to) else { continue };
        let first = if found.n < at_most { None } else { first_of_sensor(conn, *sensor)? };
        rows += match first {
            Some(first) if to > from => found.n as f64 * (to.0 - first.0) as f64 / (to.0 - from.0) as f64,
            _ => found.n as f64,
        };
        whole &= found.n < at_most;
    }
    let looked_at = sensors.len() as f64;
    let share = if sensors.is_empty() { 1.0 } else { (with_numbers as f64).max(looked_at) / looked_at };
    Ok(Count { rows: rounded(rows * share), exact: whole && unsigned(with_numbers) <= sensors.len() as u64 })
}

/// The first instant of a `timestamptz`, and the last of the year 9999.
const EARLIEST: UtcMicros = UtcMicros(-210_866_803_200_000_000);
const LATEST: UtcMicros = UtcMicros(253_402_300_799_999_999);

fn first_of_sensor(conn: &mut Conn<'_>, sensor: i32) -> Result<Option<UtcMicros>, StoreError> {
    use crate::store::schema::telemetry::{sensor_id, table, time};
    let first = table.filter(sensor_id.eq(sensor)).select(time).order(time).limit(1);
    with_db!(conn, |c| first.first(c).optional()).during("reading a sensor's first reading")
}

/// The first reading in a table, of as many sensors as are looked at. From sensor to sensor by
/// descents of the primary key: there is no index by time alone.
fn first_of(conn: &mut Conn<'_>, table: &str) -> Result<Option<(UtcMicros, Oldest)>, StoreError> {
    let query = diesel::sql_query(format!(
        "WITH RECURSIVE s (id, n) AS (SELECT min(sensor_id), 1 FROM {table} UNION ALL \
         SELECT (SELECT min(t.sensor_id) FROM {table} t WHERE t.sensor_id > s.id), s.n + 1 FROM s \
         WHERE s.id IS NOT NULL AND s.n < {FIRSTS}) \
         SELECT min((SELECT min(t.time) FROM {table} t WHERE t.sensor_id = s.id)) AS first, count(s.id) AS sensors FROM s"
    ));
    let first: First = with_db!(conn, |c| query.get_result(c)).during("looking for the oldest reading")?;
    let how = if first.sensors < FIRSTS { Oldest::OfAll } else { Oldest::OfSome };
    Ok(first.first.map(|time| (time, how)))
}

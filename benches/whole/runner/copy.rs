//! The plain client that tidegate is held against: nothing but rows into the very table that tidegate writes.
//!
//! They are of sensors that do not exist, in batches of as many as tidegate's, sorted like them, each a transaction.

use std::time::{Duration, Instant};

use diesel::pg::CopyFormat;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Double, Integer};
use diesel::sqlite::Sqlite;
use tidegate::clock;
use tidegate::store::schema::telemetry;

use super::database::{Connection, Database};
use super::scenario::Setup;

/// Sensors from here on are the plain client's.
pub const FIRST_SENSOR: i32 = 1_000_000_000;
/// Rows of a transaction.
pub const BATCH: usize = 10_000;
/// Rows of a statement for SQLite; whole batches are made of it.
const STATEMENT: usize = 500;

/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

#[derive(Clone, Copy)]
pub struct Row {
    sensor: i32,
    time: i64,
    value: f64,
}

/// How long it takes to bring in `rows`, rounded down to whole batches; and how many those are. Encoding is not counted.
///
/// # Errors
/// The database's.
pub fn copy(database: &Database, setup: &Setup, rows: u64) -> anyhow::Result<(Duration, u64)> {
    let mut connection = database.connect()?;
    let batches = (rows / BATCH as u64).max(1);
    let mut took = Duration::ZERO;
    let mut made = Rows::new(setup);
    for _ in 0..batches {
        took += insert(&mut connection, &made.batch())?;
    }
    Ok((took, batches * BATCH as u64))
}

/// How long one batch takes, committed.
///
/// # Errors
/// The database's.
pub fn insert(connection: &mut Connection, rows: &[Row]) -> anyhow::Result<Duration> {
    match connection {
        Connection::Postgres(connection) => {
            let bytes = encoded(rows);
            let started = Instant::now();
            diesel::copy_from(telemetry::table)
                .from_raw_data(telemetry::all_columns, |out| {
                    out.write_all(&bytes).map_err(|error| diesel::result::Error::SerializationError(error.into()))
                })
                .with_format(CopyFormat::Binary)
                .execute(connection)?;
            Ok(started.elapsed())
        }
        Connection::Sqlite(connection) => {
            let started = Instant::now();
            connection.immediate_transaction(|connection| {
                for rows in rows.chunks_exact(STATEMENT) {
                    Insert(rows).execute(connection)?;
                }
                diesel::QueryResult::Ok(())
            })?;
            Ok(started.elapsed())
        }
    }
}

/// Rows as the devices' messages would give them.
pub struct Rows {
    devices: usize,
    metrics: usize,
    message: usize,
    began: i64,
    /// Left over of a message that two batches share.
    rest: Vec<Row>,
}

impl Rows {
    pub fn new(setup: &Setup) -> Rows {
        let (devices, metrics) = (setup.devices as usize, setup.metrics as usize);
        Rows { devices, metrics, message: 0, began: clock::now().0, rest: Vec::new() }
    }

    /// The next [`BATCH`], by sensor and time.
    pub fn batch(&mut self) -> Vec<Row> {
        let mut rows = std::mem::take(&mut self.rest);
        while rows.len() < BATCH {
            let first = (self.message % self.devices) * self.metrics;
            let time = self.began + self.message as i64;
            let sensors = first..first + self.metrics;
            rows.extend(sensors.map(|sensor| Row {
                sensor: FIRST_SENSOR + sensor as i32,
                time,
                value: fastrand::f64(),
            }));
            self.message += 1;
        }
        self.rest = rows.split_off(BATCH);
        rows.sort_by_key(|row| (row.sensor, row.time));
        rows
    }
}

/// PostgreSQL's binary COPY format.
fn encoded(rows: &[Row]) -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        bytes.extend(3_i16.to_be_bytes());
        bytes.extend(4_i32.to_be_bytes());
        bytes.extend(row.sensor.to_be_bytes());
        bytes.extend(8_i32.to_be_bytes());
        bytes.extend((row.time - POSTGRES_EPOCH_MICROS).to_be_bytes());
        bytes.extend(8_i32.to_be_bytes());
        bytes.extend(row.value.to_be_bytes());
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}

/// One prepared statement of [`STATEMENT`] rows.
struct Insert<'a>(&'a [Row]);

impl QueryFragment<Sqlite> for Insert<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO telemetry (sensor_id, time, value) VALUES ");
        for (index, row) in self.0.iter().enumerate() {
            out.push_sql(if index == 0 { "(" } else { ", (" });
            out.push_bind_param::<Integer, i32>(&row.sensor)?;
            out.push_sql(", ");
            out.push_bind_param::<BigInt, i64>(&row.time)?;
            out.push_sql(", ");
            out.push_bind_param::<Double, f64>(&row.value)?;
            out.push_sql(")");
        }
        Ok(())
    }
}

/// Every statement has the same number of rows, so the text need not be made again.
impl QueryId for Insert<'_> {
    type QueryId = Insert<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl RunQueryDsl<SqliteConnection> for Insert<'_> {}

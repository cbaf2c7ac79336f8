//! What only PostgreSQL does: rows by binary COPY, and whole columns as arrays, three binds for any number of rows.

use std::io::Write;

use diesel::pg::{CopyFormat, Pg};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::serialize::ToSql;
use diesel::sql_types::{Array, BigInt, HasSqlType, Integer};

use super::poison::Row;
use super::schema::{self, Instant, telemetry};
use crate::time::UtcMicros;

/// What is handed to libpq at once, bytes: one message of the protocol and about one system call each.
const CHUNK: usize = 64 << 10;
/// The signature of the binary format, its flags and the length of its header's extension (COPY, Binary Format).
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In the place of a row's number of columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// A row of `telemetry`: the number of columns, then each column's length and content.
const ROW: usize = 2 + (4 + 4) + (4 + 8) + (4 + 8);

/// Waits for a lock that ends with the transaction, so that it works through PgBouncer too.
pub(super) fn lock_for_transaction(conn: &mut PgConnection, key: i64) -> QueryResult<usize> {
    diesel::sql_query("SELECT pg_advisory_xact_lock($1)").bind::<BigInt, _>(key).execute(conn)
}

/// Copies rows into `telemetry`; each is new, or the whole statement fails. PostgreSQL tells a row that is there already
/// by a code, which reaches the caller as a unique violation.
pub(super) fn copy_numbers(conn: &mut PgConnection, rows: &[Row<f64>]) -> QueryResult<usize> {
    let columns = (telemetry::sensor_id, telemetry::time, telemetry::value);
    let statement = diesel::copy_from(telemetry::table)
        .from_raw_data(columns, |out| write_rows(out, rows))
        .with_format(CopyFormat::Binary);
    ExecuteCopyFromDsl::execute(statement, conn)
}

fn write_rows(out: &mut dyn Write, rows: &[Row<f64>]) -> QueryResult<()> {
    let mut chunk = Vec::with_capacity(CHUNK.min(HEADER.len() + rows.len() * ROW + TRAILER.len()));
    chunk.extend_from_slice(HEADER);
    for row in rows {
        if chunk.len() + ROW > CHUNK {
            out.write_all(&chunk).map_err(cause)?;
            chunk.clear();
        }
        let time = schema::postgres_micros(row.time).map_err(|words| DieselError::SerializationError(words.into()))?;
        chunk.extend_from_slice(&[0, 3, 0, 0, 0, 4]);
        chunk.extend_from_slice(&row.sensor_id.to_be_bytes());
        chunk.extend_from_slice(&[0, 0, 0, 8]);
        chunk.extend_from_slice(&time.to_be_bytes());
        chunk.extend_from_slice(&[0, 0, 0, 8]);
        chunk.extend_from_slice(&row.value.to_be_bytes());
    }
    chunk.extend_from_slice(&TRAILER);
    out.write_all(&chunk).map_err(cause)
}

/// What diesel wrapped for the sake of `Write`.
fn cause(error: std::io::Error) -> DieselError {
    match error.downcast::<DieselError>() {
        Ok(cause) => cause,
        Err(other) => DieselError::SerializationError(Box::new(other)),
    }
}

/// What stands before, between and after the arrays.
#[derive(Clone, Copy)]
pub(super) struct Text {
    head: &'static str,
    between: &'static str,
    tail: &'static str,
}

/// A statement around `unnest` of a sensor's or device's ids, times and perhaps values.
pub(super) struct Unnest<'a, V, ST> {
    text: Text,
    ids: &'a [i32],
    times: &'a [UtcMicros],
    values: Option<&'a [V]>,
    value_type: std::marker::PhantomData<ST>,
}

impl<'a, V, ST> Unnest<'a, V, ST> {
    pub(super) fn new(text: Text, ids: &'a [i32], times: &'a [UtcMicros], values: Option<&'a [V]>) -> Self {
        Unnest { text, ids, times, values, value_type: std::marker::PhantomData }
    }
}

impl<V, ST> QueryFragment<Pg> for Unnest<'_, V, ST>
where
    Pg: HasSqlType<ST>,
    [V]: ToSql<Array<ST>, Pg>,
    ST: 'static,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.text.head);
        out.push_bind_param::<Array<Integer>, [i32]>(self.ids)?;
        out.push_sql(self.text.between);
        out.push_bind_param::<Array<Instant>, [UtcMicros]>(self.times)?;
        if let Some(values) = self.values {
            out.push_sql(self.text.between);
            out.push_bind_param::<Array<ST>, [V]>(values)?;
        }
        out.push_sql(self.text.tail);
        Ok(())
    }
}

/// No static id: the statement is cached by its text.
impl<V, ST> QueryId for Unnest<'_, V, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<V, ST> RunQueryDsl<PgConnection> for Unnest<'_, V, ST> {}

pub(super) const INSERT_NUMBERS: Text = Text {
    head: "INSERT INTO telemetry (sensor_id, time, value) SELECT * FROM unnest(",
    between: ", ",
    tail: ") ON CONFLICT DO NOTHING",
};
/// Only rows that differ are written.
pub(super) const PUT_NUMBERS: Text = Text {
    tail: ") ON CONFLICT (sensor_id, time) DO UPDATE SET value = EXCLUDED.value \
           WHERE telemetry.value IS DISTINCT FROM EXCLUDED.value",
    ..INSERT_NUMBERS
};
pub(super) const INSERT_TEXTS: Text = Text {
    head: "INSERT INTO telemetry_text (sensor_id, time, value) SELECT * FROM unnest(",
    between: ", ",
    tail: ") ON CONFLICT DO NOTHING",
};
pub(super) const PUT_TEXTS: Text = Text {
    tail: ") ON CONFLICT (sensor_id, time) DO UPDATE SET value = EXCLUDED.value \
           WHERE telemetry_text.value IS DISTINCT FROM EXCLUDED.value",
    ..INSERT_TEXTS
};

// In the updates each array is the result of a sub-select: a planner that sees thousands of elements would rather read the
// whole table than look the rows up, which is several times slower where sensors are many.
pub(super) const LAST_NUMBERS: Text = Text {
    head: "UPDATE device_sensors AS s SET last_time = b.time, last_value = b.value FROM unnest((SELECT ",
    between: "), (SELECT ",
    tail: ")) AS b (id, time, value) WHERE s.id = b.id AND (s.last_time IS NULL OR s.last_time < b.time)",
};
/// Where of two readings with one time the later to come counts.
pub(super) const LAST_NUMBERS_OVER: Text = Text {
    tail: ")) AS b (id, time, value) WHERE s.id = b.id AND (s.last_time IS NULL OR s.last_time <= b.time)",
    ..LAST_NUMBERS
};
pub(super) const LAST_TEXTS: Text = Text {
    head: "UPDATE device_sensors AS s SET last_text_time = b.time, last_text = b.value FROM unnest((SELECT ",
    between: "), (SELECT ",
    tail: ")) AS b (id, time, value) WHERE s.id = b.id AND (s.last_text_time IS NULL OR s.last_text_time < b.time)",
};
pub(super) const LAST_TEXTS_OVER: Text = Text {
    tail: ")) AS b (id, time, value) WHERE s.id = b.id AND (s.last_text_time IS NULL OR s.last_text_time <= b.time)",
    ..LAST_TEXTS
};
pub(super) const LAST_SEEN: Text = Text {
    head: "UPDATE devices AS d SET last_seen = b.time FROM unnest((SELECT ",
    between: "), (SELECT ",
    tail: ")) AS b (id, time) WHERE d.id = b.id AND (d.last_seen IS NULL OR d.last_seen < b.time)",
};

//! What only SQLite does: rows of binds, in statements of a few fixed sizes so that they stay prepared.

use std::ops::Range;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{Double, HasSqlType, Integer};
use diesel::sqlite::Sqlite;

use super::poison::Poured;
use super::schema::Instant;
use crate::time::UtcMicros;

/// Rows in the largest statement; the others are smaller powers of two.
const LARGEST: usize = 512;

/// A statement around `VALUES` of a sensor's or device's ids, times and perhaps values.
struct Values<'a, V, ST> {
    head: &'static str,
    ids: &'a [i32],
    times: &'a [UtcMicros],
    values: Option<&'a [V]>,
    tail: &'static str,
    value_type: std::marker::PhantomData<ST>,
}

impl<V, ST> QueryFragment<Sqlite> for Values<'_, V, ST>
where
    Sqlite: HasSqlType<ST>,
    V: ToSql<ST, Sqlite>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(self.head);
        for (row, (id, time)) in self.ids.iter().zip(self.times).enumerate() {
            out.push_sql(if row == 0 { "(" } else { ", (" });
            out.push_bind_param::<Integer, i32>(id)?;
            out.push_sql(", ");
            out.push_bind_param::<Instant, UtcMicros>(time)?;
            if let Some(value) = self.values.and_then(|values| values.get(row)) {
                out.push_sql(", ");
                out.push_bind_param::<ST, V>(value)?;
            }
            out.push_sql(")");
        }
        out.push_sql(self.tail);
        Ok(())
    }
}

/// No static id: the statement is cached by its text.
impl<V, ST> QueryId for Values<'_, V, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<V, ST> RunQueryDsl<SqliteConnection> for Values<'_, V, ST> {}

/// Runs `head VALUES tail` over all rows and returns how many were changed.
pub(super) fn execute<V, ST>(
    connection: &mut SqliteConnection,
    statement: (&'static str, &'static str),
    ids: &[i32],
    times: &[UtcMicros],
    values: Option<&[V]>,
) -> QueryResult<usize>
where
    Sqlite: HasSqlType<ST>,
    V: ToSql<ST, Sqlite>,
{
    let mut changed = 0_usize;
    for rows in statements(ids.len()) {
        changed += run::<V, ST>(connection, statement, rows, (ids, times, values))?;
    }
    Ok(changed)
}

/// Inserts numbers until one is refused.
///
/// A statement that undoes its rows when one is refused has SQLite copy every page before it is touched, as a savepoint does: on 10,000 sensors
/// that is half of what is written. `OR FAIL` leaves them in, and `changes()` tells how many they were.
pub(super) fn pour(
    connection: &mut SqliteConnection,
    ids: &[i32],
    times: &[UtcMicros],
    values: &[f64],
) -> QueryResult<Poured> {
    let mut poured = Poured { new: 0, done: 0, failure: None };
    for rows in statements(ids.len()) {
        let end = rows.end;
        match run::<f64, Double>(connection, POUR_NUMBERS, rows, (ids, times, Some(values))) {
            Ok(new) => {
                poured.new += new;
                poured.done = end;
            }
            Err(failure) => {
                let asked = diesel::select(sql::<Integer>("changes()")).get_result::<i32>(connection);
                // Where not even that is answered, it was not a row's fault.
                let Ok(left_in) = asked else { return Err(failure) };
                poured.new += usize::try_from(left_in).unwrap_or(0);
                poured.failure = Some(failure);
                break;
            }
        }
    }
    Ok(poured)
}

/// The rows of one statement after the other: each time the largest power of two that is not beyond what is left.
fn statements(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0_usize;
    std::iter::from_fn(move || {
        let size = LARGEST.min(1 << rows.saturating_sub(from).checked_ilog2()?);
        let statement = from..from + size;
        from = statement.end;
        Some(statement)
    })
}

fn run<V, ST>(
    connection: &mut SqliteConnection,
    (head, tail): (&'static str, &'static str),
    rows: Range<usize>,
    (ids, times, values): (&[i32], &[UtcMicros], Option<&[V]>),
) -> QueryResult<usize>
where
    Sqlite: HasSqlType<ST>,
    V: ToSql<ST, Sqlite>,
{
    let (Some(ids), Some(times)) = (ids.get(rows.clone()), times.get(rows.clone())) else { return Ok(0) };
    let values = values.and_then(|values| values.get(rows));
    Values::<V, ST> { head, ids, times, values, tail, value_type: std::marker::PhantomData }.execute(connection)
}

/// `ON CONFLICT` of the key, never `OR IGNORE`: that would also pass over a row that a CHECK refuses, in silence.
pub(super) const INSERT_NUMBERS: (&str, &str) =
    ("INSERT INTO telemetry (sensor_id, time, value) VALUES ", " ON CONFLICT (sensor_id, time) DO NOTHING");
/// As [`INSERT_NUMBERS`], for [`pour`].
const POUR_NUMBERS: (&str, &str) = ("INSERT OR FAIL INTO telemetry (sensor_id, time, value) VALUES ", INSERT_NUMBERS.1);
pub(super) const INSERT_TEXTS: (&str, &str) =
    ("INSERT INTO telemetry_text (sensor_id, time, value) VALUES ", " ON CONFLICT (sensor_id, time) DO NOTHING");
/// Only rows that differ are written.
pub(super) const PUT_NUMBERS: (&str, &str) = (
    INSERT_NUMBERS.0,
    " ON CONFLICT (sensor_id, time) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value",
);
pub(super) const PUT_TEXTS: (&str, &str) = (INSERT_TEXTS.0, PUT_NUMBERS.1);
pub(super) const LAST_NUMBERS: (&str, &str) = (
    "WITH b (id, time, value) AS (VALUES ",
    ") UPDATE device_sensors AS s SET last_time = b.time, last_value = b.value FROM b \
     WHERE s.id = b.id AND (s.last_time IS NULL OR s.last_time < b.time)",
);
/// Where of two readings with one time the later to come counts.
pub(super) const LAST_NUMBERS_OVER: (&str, &str) = (
    LAST_NUMBERS.0,
    ") UPDATE device_sensors AS s SET last_time = b.time, last_value = b.value FROM b \
     WHERE s.id = b.id AND (s.last_time IS NULL OR s.last_time <= b.time)",
);
pub(super) const LAST_TEXTS: (&str, &str) = (
    "WITH b (id, time, value) AS (VALUES ",
    ") UPDATE device_sensors AS s SET last_text_time = b.time, last_text = b.value FROM b \
     WHERE s.id = b.id AND (s.last_text_time IS NULL OR s.last_text_time < b.time)",
);
pub(super) const LAST_TEXTS_OVER: (&str, &str) = (
    LAST_TEXTS.0,
    ") UPDATE device_sensors AS s SET last_text_time = b.time, last_text = b.value FROM b \
     WHERE s.id = b.id AND (s.last_text_time IS NULL OR s.last_text_time <= b.time)",
);
pub(super) const LAST_SEEN: (&str, &str) = (
    "WITH b (id, time) AS (VALUES ",
    ") UPDATE devices AS d SET last_seen = b.time FROM b \
     WHERE d.id = b.id AND (d.last_seen IS NULL OR d.last_seen < b.time)",
);

//! Rows of readings into their table; a row that the database refuses is found and left out.

use std::collections::HashMap;
use std::ops::Range;

use diesel::prelude::*;
use diesel::sql_types::{Double, Text};

use super::error::{During, StoreError};
use super::pool::Conn;
use super::{postgres, sqlite};
use crate::clock;
use crate::message::Seq;
use crate::time::UtcMicros;

/// The row that tells whether the table takes anything: of no sensor, and always undone.
const CANARY_SENSOR: i32 = 0;

/// Readings by columns, as both databases take them.
#[derive(Debug)]
pub(super) struct Rows<V> {
    pub ids: Vec<i32>,
    pub times: Vec<UtcMicros>,
    pub values: Vec<V>,
    pub seqs: Vec<Seq>,
}

/// A row that the database refused, with its words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RefusedRow {
    pub seq: Seq,
    pub sensor_id: i32,
    pub detail: String,
}

/// What became of the rows.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub stored: u64,
    pub refused: Vec<RefusedRow>,
    pub bisected: bool,
}

/// A kind of values with a table of its own.
pub(super) trait Series: Copy {
    const CANARY: Self;
    fn insert(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros], values: &[Self]) -> QueryResult<usize>;
    fn keep_newest(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros], values: &[Self]) -> QueryResult<usize>;
    /// For a person.
    fn shown(self) -> String;
}

impl Series for f64 {
    const CANARY: f64 = 0.0;

    fn insert(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros], values: &[f64]) -> QueryResult<usize> {
        run::<f64, Double>(conn, postgres::INSERT_NUMBERS, sqlite::INSERT_NUMBERS, ids, times, Some(values))
    }

    fn keep_newest(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros], values: &[f64]) -> QueryResult<usize> {
        run::<f64, Double>(conn, postgres::LAST_NUMBERS, sqlite::LAST_NUMBERS, ids, times, Some(values))
    }

    fn shown(self) -> String {
        self.to_string()
    }
}

impl Series for &str {
    const CANARY: &'static str = "";

    fn insert(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros], values: &[&str]) -> QueryResult<usize> {
        run::<&str, Text>(conn, postgres::INSERT_TEXTS, sqlite::INSERT_TEXTS, ids, times, Some(values))
    }

    fn keep_newest(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros], values: &[&str]) -> QueryResult<usize> {
        run::<&str, Text>(conn, postgres::LAST_TEXTS, sqlite::LAST_TEXTS, ids, times, Some(values))
    }

    fn shown(self) -> String {
        format!("{:?}", super::limits::clip(self, 40))
    }
}

/// Raises `last_seen` of devices; each id once.
pub(super) fn keep_last_seen(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros]) -> QueryResult<usize> {
    run::<f64, Double>(conn, postgres::LAST_SEEN, sqlite::LAST_SEEN, ids, times, None)
}

fn run<V, ST>(
    conn: &mut Conn<'_>,
    on_postgres: postgres::Text,
    on_sqlite: (&'static str, &'static str),
    ids: &[i32],
    times: &[UtcMicros],
    values: Option<&[V]>,
) -> QueryResult<usize>
where
    ST: 'static,
    diesel::pg::Pg: diesel::sql_types::HasSqlType<ST>,
    [V]: diesel::serialize::ToSql<diesel::sql_types::Array<ST>, diesel::pg::Pg>,
    diesel::sqlite::Sqlite: diesel::sql_types::HasSqlType<ST>,
    V: diesel::serialize::ToSql<ST, diesel::sqlite::Sqlite>,
{
    match conn {
        Conn::Postgres(c) => postgres::Unnest::<V, ST>::new(on_postgres, ids, times, values).execute(*c),
        Conn::Sqlite(c) => sqlite::execute::<V, ST>(c, on_sqlite, ids, times, values),
    }
}

impl<V: Series> Rows<V> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Rows {
            ids: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows),
            seqs: Vec::with_capacity(rows),
        }
    }

    pub(super) fn push(&mut self, sensor_id: i32, time: UtcMicros, value: V, seq: Seq) {
        self.ids.push(sensor_id);
        self.times.push(time);
        self.values.push(value);
        self.seqs.push(seq);
    }

    /// Puts the rows into the order of the table's key, those with one key in the order they have: neighbours in the
    /// index are written one after the other, and two writers meet rows in one order.
    fn sort(&mut self) {
        let columns = self.ids.iter().zip(&self.times).zip(&self.values).zip(&self.seqs);
        let mut rows: Vec<(i32, UtcMicros, V, Seq)> =
            columns.map(|(((id, time), value), seq)| (*id, *time, *value, *seq)).collect();
        rows.sort_by_key(|(id, time, ..)| (*id, *time));
        *self = Rows::with_capacity(rows.len());
        for (id, time, value, seq) in rows {
            self.push(id, time, value, seq);
        }
    }

    /// Stores the rows inside the transaction that is open, each refused one left out, and then the newest of each sensor
    /// as its last value. Of two rows with one sensor and time the earlier counts.
    ///
    /// A failure that is not the rows' fault comes back as it is.
    pub(super) fn store(mut self, conn: &mut Conn<'_>) -> Result<Stored, StoreError> {
        self.sort();
        let mut outcome = Stored::default();
        let mut left_out = Vec::new();
        // Left halves are on top, so that rows go in in their order.
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..self.ids.len()).collect();
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            match conn.savepoint(|c| self.insert(c, range.clone())) {
                Ok(stored) => outcome.stored += stored as u64,
                Err(error) if !error.may_be_the_row() => return Err(error),
                Err(error) if range.len() == 1 => {
                    try_canary::<V>(conn)?;
                    outcome.refused.extend(self.refused(range.start, &error));
                    left_out.push(range.start);
                }
                Err(_) => {
                    outcome.bisected = true;
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
        }
        self.keep_newest(conn, &left_out)?;
        Ok(outcome)
    }

    fn insert(&self, conn: &mut Conn<'_>, range: Range<usize>) -> Result<usize, StoreError> {
        match (self.ids.get(range.clone()), self.times.get(range.clone()), self.values.get(range)) {
            (Some(ids), Some(times), Some(values)) => V::insert(conn, ids, times, values).during("storing readings"),
            _ => Ok(0),
        }
    }

    fn refused(&self, row: usize, error: &StoreError) -> Option<RefusedRow> {
        let (sensor_id, time, value) = (*self.ids.get(row)?, self.times.get(row)?, self.values.get(row)?);
        let detail = format!("{} (value {}, time {} µs)", error.words(), value.shown(), time.0);
        Some(RefusedRow { seq: *self.seqs.get(row)?, sensor_id, detail })
    }

    /// `left_out` is in order.
    fn keep_newest(&self, conn: &mut Conn<'_>, left_out: &[usize]) -> Result<(), StoreError> {
        let mut newest: HashMap<i32, (UtcMicros, V)> = HashMap::new();
        for (row, ((id, time), value)) in self.ids.iter().zip(&self.times).zip(&self.values).enumerate() {
            if !left_out.is_empty() && left_out.binary_search(&row).is_ok() {
                continue;
            }
            let kept = newest.entry(*id).or_insert((*time, *value));
            if *time > kept.0 {
                *kept = (*time, *value);
            }
        }
        if newest.is_empty() {
            return Ok(());
        }
        // In one order for all writers, so that two never wait for each other.
        let mut newest: Vec<(i32, (UtcMicros, V))> = newest.into_iter().collect();
        newest.sort_unstable_by_key(|(id, _)| *id);
        let ids: Vec<i32> = newest.iter().map(|(id, _)| *id).collect();
        let times: Vec<UtcMicros> = newest.iter().map(|(_, (time, _))| *time).collect();
        let values: Vec<V> = newest.iter().map(|(_, (_, value))| *value).collect();
        V::keep_newest(conn, &ids, &times, &values).during("keeping last values")?;
        Ok(())
    }
}

/// A harmless row, undone at once: if it is refused too, the table is the trouble, and no row is to be blamed.
fn try_canary<V: Series>(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    conn.rehearse(|c| {
        // Now: a time for which there is a partition.
        V::insert(c, &[CANARY_SENSOR], &[clock::now()], &[V::CANARY]).during("storing a harmless test row")?;
        Ok(())
    })
    .map_err(|error| {
        if error.may_be_the_row() {
            StoreError::Unavailable { detail: format!("the table of readings takes no row at all: {}", error.words()) }
        } else {
            error
        }
    })
}

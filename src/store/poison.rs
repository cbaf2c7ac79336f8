//! Rows of readings into their table; a row that the database refuses is found and left out.

use std::ops::Range;

use diesel::prelude::*;
use diesel::sql_types::{Double, Text};

use super::error::{During, StoreError};
use super::pool::Conn;
use super::{postgres, sqlite};
use crate::clock;
use crate::config::Duplicates;
use crate::message::Seq;
use crate::time::UtcMicros;

/// The row that tells whether the table takes anything: of no sensor, and always undone.
const CANARY_SENSOR: i32 = 0;

/// A reading, and the message it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row<V> {
    pub sensor_id: i32,
    pub time: UtcMicros,
    pub value: V,
    pub seq: Seq,
}

/// Readings for one table.
#[derive(Debug)]
pub(super) struct Rows<V> {
    rows: Vec<Row<V>>,
}

/// The newest reading of a sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Newest<V> {
    pub sensor_id: i32,
    pub time: UtcMicros,
    pub value: V,
}

/// A row that the database refused, with its words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RefusedRow {
    pub seq: Seq,
    pub sensor_id: i32,
    pub detail: String,
}

/// What became of the rows.
#[derive(Debug)]
pub(super) struct Stored<V> {
    pub stored: u64,
    pub refused: Vec<RefusedRow>,
    pub bisected: bool,
    /// The fast way was refused.
    pub staged: bool,
    /// Of what is in the table now, by sensor.
    pub newest: Vec<Newest<V>>,
}

/// How rows go in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub duplicates: Duplicates,
    /// First as if no row were there already, if the database has a fast way for that.
    pub straight: bool,
}

/// A kind of values with a table of its own.
pub(super) trait Series: Copy {
    const CANARY: Self;

    /// The fast way of rows that are all new: one that is there already fails the whole. None: there is no such way.
    fn copy(conn: &mut Conn<'_>, rows: &[Row<Self>]) -> Option<QueryResult<usize>>;

    /// The fast way that needs no savepoint, for which SQLite would copy each page that it touches. None: there is no such way.
    fn pour(conn: &mut Conn<'_>, rows: &[Row<Self>]) -> Option<QueryResult<Poured>>;

    /// Inserts rows that are not there yet, or with `over` puts the others' values in the place of those that are there.
    /// Returns how many were inserted or changed.
    fn insert(conn: &mut Conn<'_>, over: bool, rows: &[Row<Self>]) -> QueryResult<usize>;

    /// Raises the sensors' last values; each sensor once.
    fn keep_newest(conn: &mut Conn<'_>, duplicates: Duplicates, newest: &[Newest<Self>]) -> QueryResult<usize>;

    /// For a person.
    fn shown(self) -> String;
}

impl Series for f64 {
    const CANARY: f64 = 0.0;

    fn copy(conn: &mut Conn<'_>, rows: &[Row<f64>]) -> Option<QueryResult<usize>> {
        match conn {
            Conn::Postgres(c) => Some(postgres::copy_numbers(c, rows)),
            Conn::Sqlite(_) => None,
        }
    }

    fn pour(conn: &mut Conn<'_>, rows: &[Row<f64>]) -> Option<QueryResult<Poured>> {
        let Conn::Sqlite(c) = conn else { return None };
        let Columns { ids, times, values } = Columns::of_rows(rows);
        Some(sqlite::pour(c, &ids, &times, &values))
    }

    fn insert(conn: &mut Conn<'_>, over: bool, rows: &[Row<f64>]) -> QueryResult<usize> {
        let statement = match over {
            false => (postgres::INSERT_NUMBERS, sqlite::INSERT_NUMBERS),
            true => (postgres::PUT_NUMBERS, sqlite::PUT_NUMBERS),
        };
        run::<f64, Double>(conn, statement, &Columns::of_rows(rows))
    }

    fn keep_newest(conn: &mut Conn<'_>, duplicates: Duplicates, newest: &[Newest<f64>]) -> QueryResult<usize> {
        let statement = match duplicates {
            Duplicates::KeepFirst => (postgres::LAST_NUMBERS, sqlite::LAST_NUMBERS),
            Duplicates::KeepLast => (postgres::LAST_NUMBERS_OVER, sqlite::LAST_NUMBERS_OVER),
        };
        run::<f64, Double>(conn, statement, &Columns::of_newest(newest))
    }

    fn shown(self) -> String {
        self.to_string()
    }
}

impl Series for &str {
    const CANARY: &'static str = "";

    fn copy(_: &mut Conn<'_>, _: &[Row<&str>]) -> Option<QueryResult<usize>> {
        // Texts are few.
        None
    }

    fn pour(_: &mut Conn<'_>, _: &[Row<&str>]) -> Option<QueryResult<Poured>> {
        None
    }

    fn insert(conn: &mut Conn<'_>, over: bool, rows: &[Row<&str>]) -> QueryResult<usize> {
        let statement = match over {
            false => (postgres::INSERT_TEXTS, sqlite::INSERT_TEXTS),
            true => (postgres::PUT_TEXTS, sqlite::PUT_TEXTS),
        };
        run::<&str, Text>(conn, statement, &Columns::of_rows(rows))
    }

    fn keep_newest(conn: &mut Conn<'_>, duplicates: Duplicates, newest: &[Newest<&str>]) -> QueryResult<usize> {
        let statement = match duplicates {
            Duplicates::KeepFirst => (postgres::LAST_TEXTS, sqlite::LAST_TEXTS),
            Duplicates::KeepLast => (postgres::LAST_TEXTS_OVER, sqlite::LAST_TEXTS_OVER),
        };
        run::<&str, Text>(conn, statement, &Columns::of_newest(newest))
    }

    fn shown(self) -> String {
        format!("{:?}", super::limits::clip(self, 40))
    }
}

/// What a statement of several rows binds.
struct Columns<V> {
    ids: Vec<i32>,
    times: Vec<UtcMicros>,
    values: Vec<V>,
}

impl<V: Copy> Columns<V> {
    fn of_rows(rows: &[Row<V>]) -> Columns<V> {
        Columns {
            ids: rows.iter().map(|row| row.sensor_id).collect(),
            times: rows.iter().map(|row| row.time).collect(),
            values: rows.iter().map(|row| row.value).collect(),
        }
    }

    fn of_newest(newest: &[Newest<V>]) -> Columns<V> {
        Columns {
            ids: newest.iter().map(|one| one.sensor_id).collect(),
            times: newest.iter().map(|one| one.time).collect(),
            values: newest.iter().map(|one| one.value).collect(),
        }
    }
}

fn run<V, ST>(
    conn: &mut Conn<'_>,
    (on_postgres, on_sqlite): (postgres::Text, (&'static str, &'static str)),
    columns: &Columns<V>,
) -> QueryResult<usize>
where
    ST: 'static,
    diesel::pg::Pg: diesel::sql_types::HasSqlType<ST>,
    [V]: diesel::serialize::ToSql<diesel::sql_types::Array<ST>, diesel::pg::Pg>,
    diesel::sqlite::Sqlite: diesel::sql_types::HasSqlType<ST>,
    V: diesel::serialize::ToSql<ST, diesel::sqlite::Sqlite>,
{
    let Columns { ids, times, values } = columns;
    match conn {
        Conn::Postgres(c) => postgres::Unnest::<V, ST>::new(on_postgres, ids, times, Some(values)).execute(*c),
        Conn::Sqlite(c) => sqlite::execute::<V, ST>(c, on_sqlite, ids, times, Some(values)),
    }
}

/// Raises `last_seen` of devices; each id once.
pub(super) fn keep_last_seen(conn: &mut Conn<'_>, ids: &[i32], times: &[UtcMicros]) -> QueryResult<usize> {
    match conn {
        Conn::Postgres(c) => postgres::Unnest::<f64, Double>::new(postgres::LAST_SEEN, ids, times, None).execute(*c),
        Conn::Sqlite(c) => sqlite::execute::<f64, Double>(c, sqlite::LAST_SEEN, ids, times, None),
    }
}

impl<V: Series> Rows<V> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Rows { rows: Vec::with_capacity(rows) }
    }

    pub(super) fn push(&mut self, sensor_id: i32, time: UtcMicros, value: V, seq: Seq) {
        self.rows.push(Row { sensor_id, time, value, seq });
    }

    /// Puts the rows into the order of the table's key: neighbours in the index are written one after the other, and two
    /// writers meet rows in one order. Of those with one key, the first or the last to come stays.
    fn sort(&mut self, duplicates: Duplicates) {
        self.rows.sort_by_key(|row| (row.sensor_id, row.time));
        self.rows.dedup_by(|later, earlier| {
            let same = later.sensor_id == earlier.sensor_id && later.time == earlier.time;
            if same && duplicates == Duplicates::KeepLast {
                *earlier = *later;
            }
            same
        });
    }

    /// Stores the rows inside the transaction that is open, each refused one left out.
    ///
    /// A failure that is not the rows' fault comes back as it is.
    pub(super) fn store(mut self, conn: &mut Conn<'_>, manner: Manner) -> Result<Stored<V>, StoreError> {
        self.sort(manner.duplicates);
        let mut outcome = Stored { stored: 0, refused: Vec::new(), bisected: false, staged: false, newest: Vec::new() };
        let mut left_out = Vec::new();
        let done = match self.pour(conn, manner.duplicates, &mut outcome)? {
            Some(done) => done,
            None if manner.straight && self.copy(conn, &mut outcome)? => self.rows.len(),
            None => 0,
        };
        self.insert_all(conn, manner.duplicates, done..self.rows.len(), &mut outcome, &mut left_out)?;
        outcome.newest = self.newest(&left_out);
        Ok(outcome)
    }

    /// The newest row of each sensor, as if all were stored.
    pub(super) fn into_newest(mut self, manner: Manner) -> Vec<Newest<V>> {
        self.sort(manner.duplicates);
        self.newest(&[])
    }

    /// Pours the rows in; how many of the first need no other way, if there is this one.
    fn pour(
        &self,
        conn: &mut Conn<'_>,
        duplicates: Duplicates,
        outcome: &mut Stored<V>,
    ) -> Result<Option<usize>, StoreError> {
        let Some(poured) = V::pour(conn, &self.rows) else { return Ok(None) };
        let Poured { new, done, failure } = poured.during("storing readings")?;
        match failure.map_or(Ok(()), Err).during("storing readings") {
            Ok(()) => {}
            Err(error) if error.may_be_the_row() => outcome.bisected = true,
            Err(error) => return Err(error),
        }
        outcome.stored = new as u64;
        let puts_over = duplicates == Duplicates::KeepLast && new < done;
        Ok(Some(if puts_over { 0 } else { done }))
    }

    /// Tries the fast way. False: there is none, or a row was refused. Whether that was since it is there already is
    /// found out the slow way, whatever the language of the database's words.
    fn copy(&self, conn: &mut Conn<'_>, outcome: &mut Stored<V>) -> Result<bool, StoreError> {
        if self.rows.is_empty() {
            return Ok(true);
        }
        let copied = conn.savepoint(|c| match V::copy(c, &self.rows) {
            None => Ok(None),
            Some(copied) => copied.during("storing readings").map(Some),
        });
        match copied {
            Ok(None) => Ok(false),
            Ok(Some(stored)) => {
                outcome.stored = stored as u64;
                Ok(true)
            }
            Err(error) if error.may_be_the_row() => {
                outcome.staged = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn insert_all(
        &self,
        conn: &mut Conn<'_>,
        duplicates: Duplicates,
        rows: Range<usize>,
        outcome: &mut Stored<V>,
        left_out: &mut Vec<usize>,
    ) -> Result<(), StoreError> {
        // Left halves are on top, so that rows go in in their order.
        let mut ranges: Vec<Range<usize>> = std::iter::once(rows).collect();
        while let Some(range) = ranges.pop() {
            let Some(rows) = self.rows.get(range.clone()).filter(|rows| !rows.is_empty()) else { continue };
            match conn.savepoint(|c| insert(c, duplicates, rows)) {
                Ok(stored) => outcome.stored += stored as u64,
                Err(error) if !error.may_be_the_row() => return Err(error),
                Err(error) => match rows {
                    [row] => {
                        try_canary::<V>(conn)?;
                        outcome.refused.push(refused(row, &error));
                        left_out.push(range.start);
                    }
                    _ => {
                        outcome.bisected = true;
                        let middle = range.start + range.len() / 2;
                        ranges.push(middle..range.end);
                        ranges.push(range.start..middle);
                    }
                },
            }
        }
        Ok(())
    }

    /// The newest row of each sensor, in the sensors' order, so that two writers never wait for each other. `left_out` is
    /// in order.
    fn newest(&self, left_out: &[usize]) -> Vec<Newest<V>> {
        let mut newest: Vec<Newest<V>> = Vec::new();
        for (place, row) in self.rows.iter().enumerate() {
            if !left_out.is_empty() && left_out.binary_search(&place).is_ok() {
                continue;
            }
            let Row { sensor_id, time, value, .. } = *row;
            match newest.last_mut() {
                Some(last) if last.sensor_id == sensor_id => *last = Newest { sensor_id, time, value },
                _ => newest.push(Newest { sensor_id, time, value }),
            }
        }
        newest
    }
}

/// Inserts rows that may be there already. Returns how many are new.
fn insert<V: Series>(conn: &mut Conn<'_>, duplicates: Duplicates, rows: &[Row<V>]) -> Result<usize, StoreError> {
    let new = V::insert(conn, false, rows).during("storing readings")?;
    // In a statement of its own, so that the first one's count tells the new rows.
    if new < rows.len() && duplicates == Duplicates::KeepLast {
        V::insert(conn, true, rows).during("putting readings in the place of earlier ones")?;
    }
    Ok(new)
}

fn refused<V: Series>(row: &Row<V>, error: &StoreError) -> RefusedRow {
    let detail = format!("{} (value {}, time {} µs)", error.words(), row.value.shown(), row.time.0);
    RefusedRow { seq: row.seq, sensor_id: row.sensor_id, detail }
}

/// What became of rows that were poured in.
#[derive(Debug)]
pub(super) struct Poured {
    pub new: usize,
    /// Rows before the statement that failed; all, if none did. Some of that statement's may be in, and are counted as new.
    pub done: usize,
    pub failure: Option<diesel::result::Error>,
}

/// A harmless row, undone at once: if it is refused too, the table is the trouble, and no row is to be blamed.
fn try_canary<V: Series>(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    // Now: a time for which there is a partition.
    let canary = Row { sensor_id: CANARY_SENSOR, time: clock::now(), value: V::CANARY, seq: 0 };
    conn.rehearse(|c| {
        V::insert(c, false, &[canary]).during("storing a harmless test row")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(found: &[(i32, i64, f64)]) -> Rows<f64> {
        let mut rows = Rows::with_capacity(found.len());
        for (seq, (sensor, time, value)) in found.iter().enumerate() {
            rows.push(*sensor, UtcMicros(*time), *value, seq as Seq);
        }
        rows
    }

    fn sorted(found: &[(i32, i64, f64)], duplicates: Duplicates) -> Vec<(i32, i64, f64)> {
        let mut rows = rows(found);
        rows.sort(duplicates);
        rows.rows.iter().map(|row| (row.sensor_id, row.time.0, row.value)).collect()
    }

    #[test]
    fn of_one_sensor_and_time_the_first_or_the_last_to_come_stays() {
        let found = [(2, 5, 1.0), (1, 5, 2.0), (2, 5, 3.0), (2, 4, 4.0), (2, 5, 5.0)];
        assert_eq!(sorted(&found, Duplicates::KeepFirst), [(1, 5, 2.0), (2, 4, 4.0), (2, 5, 1.0)]);
        assert_eq!(sorted(&found, Duplicates::KeepLast), [(1, 5, 2.0), (2, 4, 4.0), (2, 5, 5.0)]);
    }

    #[test]
    fn the_newest_of_a_sensor_is_never_a_refused_row() {
        let mut rows = rows(&[(1, 1, 1.0), (1, 2, 2.0), (2, 9, 9.0)]);
        rows.sort(Duplicates::KeepFirst);
        let newest: Vec<_> = rows.newest(&[1, 2]).iter().map(|one| (one.sensor_id, one.value)).collect();
        assert_eq!(newest, [(1, 1.0)]);
    }
}

//! Readings of a stretch of time, one after the other, with the names of their series.

use std::collections::HashMap;

use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::sql_types::{Double, HasSqlType, Integer, Text};

use super::readings::{ReadingSink, rows_of_sensors, sensors_with_readings};
use crate::store::error::{During, StoreError};
use crate::store::layout::{ReadingTable, Span};
use crate::store::pool::{Conn, with_db};
use crate::store::schema::{Instant, device_sensors, devices, tenants};
use crate::time::UtcMicros;

/// Series whose names are in memory at once.
const SERIES_AT_ONCE: i64 = 1000;

/// What a series is called, so that its readings can be told without the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesName {
    /// Empty, as is the device, where the sensor has been deleted.
    pub tenant: String,
    /// Uid.
    pub device: String,
    pub metric: String,
    pub unit: String,
    /// `number`, `bool` or `text`.
    pub kind: String,
}

/// A reading's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured<'a> {
    Number(f64),
    Text(&'a str),
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = Integer)]
    sensor_id: i32,
    #[diesel(sql_type = Instant)]
    time: UtcMicros,
    #[diesel(sql_type = Double)]
    value: f64,
}

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Integer)]
    sensor_id: i32,
    #[diesel(sql_type = Instant)]
    time: UtcMicros,
    #[diesel(sql_type = Text)]
    value: String,
}

trait Row {
    fn parts(&self) -> (i32, UtcMicros, Measured<'_>);
}

impl Row for NumberRow {
    fn parts(&self) -> (i32, UtcMicros, Measured<'_>) {
        (self.sensor_id, self.time, Measured::Number(self.value))
    }
}

impl Row for TextRow {
    fn parts(&self) -> (i32, UtcMicros, Measured<'_>) {
        (self.sensor_id, self.time, Measured::Text(&self.value))
    }
}

/// Hands every reading of the span to the sink, by sensor and time; returns how many. Sensors are taken some at a time, with
/// their names, and of the rows only one is in memory.
pub(super) fn hand_over(
    conn: &mut Conn<'_>,
    table: ReadingTable,
    span: Span,
    sink: &mut dyn ReadingSink,
) -> Result<u64, StoreError> {
    let mut rows = 0;
    let mut from = i32::MIN;
    loop {
        let names = names(conn, from)?;
        let full = names.len() as i64 == SERIES_AT_ONCE;
        let last = names.keys().copied().max().filter(|_| full);
        let to = last.unwrap_or(i32::MAX);
        let mut each = |id: i32, time: UtcMicros, value: Measured<'_>| {
            rows += 1;
            let unknown;
            let name = match names.get(&id) {
                Some(name) => name,
                None => {
                    unknown = SeriesName { metric: format!("sensor {id}"), ..SeriesName::default() };
                    &unknown
                }
            };
            sink.take(name, time, value).map_err(|detail| StoreError::Archive { detail })
        };
        match table {
            ReadingTable::Numbers => stream::<NumberRow>(conn, table, span, (from, to), &mut each)?,
            ReadingTable::Texts => stream::<TextRow>(conn, table, span, (from, to), &mut each)?,
        }
        match last.and_then(|last| last.checked_add(1)) {
            Some(next) => from = next,
            None => return Ok(rows),
        }
    }
}

fn names(conn: &mut Conn<'_>, from: i32) -> Result<HashMap<i32, SeriesName>, StoreError> {
    let rows: Vec<(i32, String, String, String, String, String)> = with_db!(conn, |c| device_sensors::table
        .inner_join(devices::table.inner_join(tenants::table))
        .filter(device_sensors::id.ge(from))
        .select((
            device_sensors::id,
            tenants::name,
            devices::uid,
            device_sensors::metric,
            device_sensors::unit,
            device_sensors::kind,
        ))
        .order(device_sensors::id)
        .limit(SERIES_AT_ONCE)
        .load(c))
    .during("reading the names of series")?;
    let name = |(id, tenant, device, metric, unit, kind)| (id, SeriesName { tenant, device, metric, unit, kind });
    Ok(rows.into_iter().map(name).collect())
}

fn stream<R>(
    conn: &mut Conn<'_>,
    table: ReadingTable,
    span: Span,
    (from, to): (i32, i32),
    each: &mut dyn FnMut(i32, UtcMicros, Measured<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError>
where
    R: Row + QueryableByName<diesel::pg::Pg> + QueryableByName<diesel::sqlite::Sqlite> + 'static,
    diesel::pg::Pg: HasSqlType<Instant>,
{
    const WHAT: &str = "reading what is to be archived";
    match conn {
        Conn::Postgres(c) => {
            let query = diesel::sql_query(format!(
                "SELECT sensor_id, time, value FROM {} WHERE sensor_id BETWEEN $1 AND $2 AND time >= $3 AND time < $4 \
                 ORDER BY sensor_id, time",
                table.name()
            ))
            .bind::<Integer, _>(from)
            .bind::<Integer, _>(to)
            .bind::<Instant, _>(span.from)
            .bind::<Instant, _>(span.to);
            let rows = query.load_iter::<R, PgRowByRowLoadingMode>(*c).during(WHAT)?;
            for row in rows {
                let row = row.during(WHAT)?;
                let (id, time, value) = row.parts();
                each(id, time, value)?;
            }
        }
        Conn::Sqlite(c) => {
            let query = diesel::sql_query(format!(
                "{} SELECT t.sensor_id, t.time, t.value {}",
                sensors_with_readings(table, from, to),
                rows_of_sensors(table, span, to)
            ));
            let rows = query.load_iter::<R, diesel::connection::DefaultLoadingMode>(*c).during(WHAT)?;
            for row in rows {
                let row = row.during(WHAT)?;
                let (id, time, value) = row.parts();
                each(id, time, value)?;
            }
        }
    }
    Ok(())
}

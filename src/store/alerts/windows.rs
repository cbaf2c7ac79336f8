//! The newest readings of many sensors, from which a start fills the windows of rules anew.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Integer};

use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::{Conn, with_db};
use crate::store::query::{EARLIEST, From, numbers};
use crate::store::schema;
use crate::time::UtcMicros;

/// Sensors in one statement on PostgreSQL.
const AT_ONCE: usize = 2000;

/// The newest readings of one sensor, the oldest first.
pub type Recent = (i32, Vec<(UtcMicros, f64)>);

#[derive(QueryableByName)]
struct Row {
    /// Of the sensor among those asked for, from 1.
    #[diesel(sql_type = BigInt)]
    place: i64,
    #[diesel(sql_type = schema::Instant)]
    time: UtcMicros,
    #[diesel(sql_type = Double)]
    value: f64,
}

impl Store {
    /// Of each of these sensors the newest numbers at or after an instant, so many at most; the oldest first. Sensors come in the
    /// order asked for, each once for each time asked for, also those without a reading.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn recent(&self, wanted: &[(i32, UtcMicros, usize)]) -> Result<Vec<Recent>, StoreError> {
        self.db.read(|conn| {
            let mut found = Vec::with_capacity(wanted.len());
            match conn {
                Conn::Postgres(c) => {
                    for wanted in wanted.chunks(AT_ONCE) {
                        found.extend(of_postgres(c, wanted)?);
                    }
                }
                Conn::Sqlite(_) => {
                    for (sensor, since, most) in wanted {
                        let from = From { since: Some(*since), after: None };
                        let mut readings = numbers(conn, *sensor, from, *most)?;
                        readings.reverse();
                        found.push((*sensor, readings));
                    }
                }
            }
            Ok(found)
        })
    }
}

impl Store {
    /// When these sensors last had a text, those that had one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn text_times(&self, sensors: &[i32]) -> Result<Vec<(i32, UtcMicros)>, StoreError> {
        use schema::device_sensors::{id, last_text_time, table};
        self.db.read(|conn| {
            let mut found = Vec::with_capacity(sensors.len());
            for ids in sensors.chunks(conn.rows_per_statement(1)) {
                let rows: Vec<(i32, Option<UtcMicros>)> = with_db!(conn, |c| table
                    .filter(id.eq_any(ids))
                    .filter(last_text_time.is_not_null())
                    .select((id, last_text_time))
                    .load(c))
                .during("reading when sensors last had a text")?;
                found.extend(rows.into_iter().filter_map(|(sensor, time)| Some((sensor, time?))));
            }
            Ok(found)
        })
    }
}

/// One walk down the end of the primary key for each sensor. The least of the instants is there for the planner, which leaves older
/// partitions out by it.
fn of_postgres(c: &mut PgConnection, wanted: &[(i32, UtcMicros, usize)]) -> Result<Vec<Recent>, StoreError> {
    let ids: Vec<i32> = wanted.iter().map(|(id, ..)| *id).collect();
    let since: Vec<UtcMicros> = wanted.iter().map(|(_, since, _)| (*since).max(EARLIEST)).collect();
    let most: Vec<i64> = wanted.iter().map(|(.., most)| i64::try_from(*most).unwrap_or(i64::MAX)).collect();
    let least = since.iter().min().copied().unwrap_or(EARLIEST);
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT w.place, t.time, t.value \
         FROM unnest($1, $2, $3) WITH ORDINALITY AS w (id, since, most, place) CROSS JOIN LATERAL \
         (SELECT time, value FROM telemetry WHERE sensor_id = w.id AND time >= w.since AND time >= $4 \
          ORDER BY time DESC LIMIT w.most) AS t \
         ORDER BY w.place, t.time",
    )
    .bind::<Array<Integer>, _>(ids)
    .bind::<Array<schema::Instant>, _>(since)
    .bind::<Array<BigInt>, _>(most)
    .bind::<schema::Instant, _>(least)
    .load(c)
    .during("reading the newest readings of sensors")?;
    let mut found: Vec<Recent> = wanted.iter().map(|(id, ..)| (*id, Vec::new())).collect();
    for row in rows {
        let place = usize::try_from(row.place.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some((_, readings)) = found.get_mut(place) {
            readings.push((row.time, row.value));
        }
    }
    Ok(found)
}

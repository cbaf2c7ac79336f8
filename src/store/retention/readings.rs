//! The oldest part of a table of readings: found, handed to the archive, and dropped, all or nothing.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::stream::{self, Measured, SeriesName};
use crate::store::Store;
use crate::store::error::{During, StoreError, tells_of_lock};
use crate::store::layout::{DAY_MICROS, Layout, Part, ReadingTable, Span, parts};
use crate::store::pool::{Conn, with_db};
use crate::store::postgres::lock_for_transaction;
use crate::store::schema::{Instant, archive_restored};
use crate::time::UtcMicros;

/// Rows that a part of a plain table holds at most: they are deleted in one transaction, which the writer waits for.
const SLICE_ROWS: i64 = 100_000;
/// A slice is not made shorter than this, however many rows it has.
const SHORTEST_SLICE: i64 = 1_000_000;
/// Attempts at the lock that a drop needs. Whoever reads or writes meanwhile waits as long, so each attempt is short; a long
/// query that is under way is left in peace, and the drop tried again later.
const LOCK_ATTEMPTS: u32 = 5;

/// Key of the advisory lock under which readings are dropped: "tidedrop" in ASCII.
const LOCK_KEY: i64 = 0x7469_6465_6472_6f70;

/// What takes readings before they are dropped.
pub trait ReadingSink {
    /// One reading, in the order of sensor and time.
    ///
    /// # Errors
    /// What to tell the operator; nothing is dropped then.
    fn take(&mut self, series: &SeriesName, time: UtcMicros, value: Measured<'_>) -> Result<(), String>;

    /// All have been taken; once this returns they may be dropped.
    ///
    /// # Errors
    /// What to tell the operator; nothing is dropped then.
    fn finish(&mut self) -> Result<(), String>;
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// None where whole partitions were dropped without a look into them.
    pub rows: Option<u64>,
}

#[derive(QueryableByName)]
struct Oldest {
    #[diesel(sql_type = Nullable<Instant>)]
    time: Option<UtcMicros>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Store {
    /// The oldest part of a table of readings that ends at `before` or earlier and was not brought back from the archive
    /// for longer: a partition, a chunk, or of a plain table a day or less.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expired_part(
        &self,
        table: ReadingTable,
        before: UtcMicros,
        now: UtcMicros,
    ) -> Result<Option<Part>, StoreError> {
        let layout = self.layout()?;
        let kept = self.db.write(|conn| kept_spans(conn, table, now))?;
        self.db.read(|conn| {
            if layout == Layout::Plain {
                return expired_slice(conn, table, before, &kept);
            }
            let expired = |part: &Part| {
                part.span.to <= before && kept.iter().all(|kept| part.span.to <= kept.from || kept.to <= part.span.from)
            };
            Ok(parts(conn, layout, table)?.into_iter().find(expired))
        })
    }

    /// Hands the readings of a part to the archive, if there is one, and drops them in the same transaction. Nobody adds
    /// readings to the part meanwhile; elsewhere reading and writing go on. None: another program has dropped it.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::Archive`] among them; then nothing was dropped.
    pub fn drop_part(
        &self,
        table: ReadingTable,
        part: &Part,
        sink: Option<&mut dyn ReadingSink>,
    ) -> Result<Option<Dropped>, StoreError> {
        let layout = self.layout()?;
        let outcome = match layout {
            Layout::Plain => self.drop_slice(table, part.span, sink).map(Some),
            Layout::Partitions | Layout::Timescale => self.db.write(|conn| {
                let Conn::Postgres(c) = conn else { return Ok(None) };
                c.batch_execute("SET LOCAL lock_timeout = '1s'").during("limiting the wait for locks")?;
                if !alone_with(c, part)? {
                    return Ok(None);
                }
                let rows = match sink {
                    Some(sink) => {
                        c.batch_execute(&format!("LOCK TABLE {} IN SHARE MODE", part.name))
                            .during("locking what is to be archived")?;
                        let rows = stream::hand_over(&mut Conn::Postgres(c), table, part.span, sink)?;
                        sink.finish().map_err(|detail| StoreError::Archive { detail })?;
                        Some(rows)
                    }
                    None => None,
                };
                drop_patiently(c, layout, table, part)?;
                Ok(Some(Dropped { rows }))
            }),
        };
        // The writer's idea of which partitions there are.
        self.known.forget();
        outcome
    }

    /// First read, then deleted if there is still the same number: nobody else deletes readings. The file is written without
    /// a lock, which the writer would have to wait for.
    fn drop_slice(
        &self,
        table: ReadingTable,
        span: Span,
        sink: Option<&mut dyn ReadingSink>,
    ) -> Result<Dropped, StoreError> {
        let archived = match sink {
            Some(sink) => {
                let rows = self.db.read(|conn| stream::hand_over(conn, table, span, sink))?;
                sink.finish().map_err(|detail| StoreError::Archive { detail })?;
                Some(rows)
            }
            None => None,
        };
        self.db.write(|conn| {
            if let Some(archived) = archived
                && archived != count(conn, table, span)?
            {
                let detail = format!("late readings came into {span} while it was archived; it is archived once more");
                return Err(StoreError::Archive { detail });
            }
            let rows = delete_slice(conn, table, span)?;
            Ok(Dropped { rows: Some(rows) })
        })
    }

    /// Notes that retention is to leave a stretch of time alone until then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_restored(&self, table: ReadingTable, span: Span, until: UtcMicros) -> Result<(), StoreError> {
        self.db.write(|conn| {
            let row = (
                archive_restored::readings.eq(table.name()),
                archive_restored::from_time.eq(span.from),
                archive_restored::to_time.eq(span.to),
                archive_restored::kept_until.eq(until),
            );
            with_db!(conn, |c| diesel::insert_into(archive_restored::table)
                .values(row)
                .on_conflict((archive_restored::readings, archive_restored::from_time, archive_restored::to_time))
                .do_update()
                .set(archive_restored::kept_until.eq(until))
                .execute(c))
            .during("noting what is restored")?;
            Ok(())
        })
    }
}

/// What retention leaves alone, in order; notes that have run out are removed.
fn kept_spans(conn: &mut Conn<'_>, table: ReadingTable, now: UtcMicros) -> Result<Vec<Span>, StoreError> {
    let over = archive_restored::table.filter(archive_restored::kept_until.le(now));
    with_db!(conn, |c| diesel::delete(over).execute(c)).during("forgetting what was restored for a time")?;
    let rows: Vec<(UtcMicros, UtcMicros)> = with_db!(conn, |c| archive_restored::table
        .filter(archive_restored::readings.eq(table.name()))
        .select((archive_restored::from_time, archive_restored::to_time))
        .order(archive_restored::from_time)
        .load(c))
    .during("reading what was restored")?;
    Ok(rows.into_iter().map(|(from, to)| Span { from, to }).collect())
}

/// Takes the lock under which readings are dropped, since two programs that archive the same part would each hold up the
/// other's drop. False: the part is gone.
fn alone_with(c: &mut PgConnection, part: &Part) -> Result<bool, StoreError> {
    lock_for_transaction(c, LOCK_KEY).during("waiting for another program that drops old readings")?;
    let found: Count = diesel::sql_query("SELECT (to_regclass($1) IS NOT NULL)::int::bigint AS n")
        .bind::<Text, _>(&part.name)
        .get_result(c)
        .during("looking for what is to be dropped")?;
    Ok(found.n == 1)
}

/// A drop needs the whole table for a moment.
fn drop_patiently(c: &mut PgConnection, layout: Layout, table: ReadingTable, part: &Part) -> Result<(), StoreError> {
    let mut attempt = 1;
    loop {
        let outcome = c.transaction(|c| match layout {
            Layout::Timescale => {
                diesel::sql_query("SELECT drop_chunks(to_regclass($1), older_than => $2, newer_than => $3)")
                    .bind::<Text, _>(table.name())
                    .bind::<Instant, _>(part.span.to)
                    .bind::<Instant, _>(part.span.from)
                    .execute(c)
                    .map(|_| ())
                    .during("dropping a chunk")
            }
            _ => c.batch_execute(&format!("DROP TABLE {}", part.name)).during("dropping a partition"),
        });
        match outcome {
            Err(error) if tells_of_lock(&error) && attempt < LOCK_ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// The ids of sensors with readings, each found through the key: the table has no other index, and is not read whole.
pub(super) fn sensors_with_readings(table: ReadingTable, from: i32, to: i32) -> String {
    let name = table.name();
    format!(
        "WITH RECURSIVE ids (id) AS (SELECT min(sensor_id) FROM {name} WHERE sensor_id >= {from} UNION ALL \
         SELECT (SELECT min(sensor_id) FROM {name} WHERE sensor_id > ids.id) FROM ids WHERE ids.id < {to})"
    )
}

/// Sensor by sensor, in the order of the key.
pub(super) fn rows_of_sensors(table: ReadingTable, span: Span, to: i32) -> String {
    format!(
        "FROM ids CROSS JOIN {} AS t ON t.sensor_id = ids.id AND t.time >= {} AND t.time < {} WHERE ids.id <= {to}",
        table.name(),
        span.from.0,
        span.to.0
    )
}

fn expired_slice(
    conn: &mut Conn<'_>,
    table: ReadingTable,
    before: UtcMicros,
    kept: &[Span],
) -> Result<Option<Part>, StoreError> {
    let before = UtcMicros(before.0.div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS));
    let mut from = UtcMicros(i64::MIN);
    loop {
        let Some(oldest) = oldest(conn, table, from)?.filter(|oldest| *oldest < before) else { return Ok(None) };
        if let Some(kept) = kept.iter().find(|kept| kept.from <= oldest && oldest < kept.to) {
            from = kept.to;
            continue;
        }
        let first = oldest.0.div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS);
        let next_kept = kept.iter().map(|kept| kept.from.0).filter(|from| *from > oldest.0).min();
        let end = first.saturating_add(DAY_MICROS).min(next_kept.unwrap_or(i64::MAX));
        let mut span = Span { from: UtcMicros(first), to: UtcMicros(end) };
        while span.to.0 - span.from.0 > SHORTEST_SLICE && too_many(conn, table, span)? {
            // From where the rows begin: what lies before is empty.
            let first = span.from.0.max(oldest.0);
            span.to = UtcMicros((first + (span.to.0 - first) / 2).max(first + SHORTEST_SLICE));
        }
        return Ok(Some(Part { name: table.name().to_owned(), span, compressed: false }));
    }
}

fn oldest(conn: &mut Conn<'_>, table: ReadingTable, from: UtcMicros) -> Result<Option<UtcMicros>, StoreError> {
    let sql = format!(
        "{} SELECT min((SELECT min(time) FROM {} WHERE sensor_id = ids.id AND time >= {})) AS time FROM ids",
        sensors_with_readings(table, i32::MIN, i32::MAX),
        table.name(),
        from.0
    );
    let found: Oldest =
        with_db!(conn, |c| diesel::sql_query(sql).get_result(c)).during("looking for the oldest reading")?;
    Ok(found.time)
}

fn too_many(conn: &mut Conn<'_>, table: ReadingTable, span: Span) -> Result<bool, StoreError> {
    let sql = format!(
        "{} SELECT count(*) AS n FROM (SELECT 1 {} LIMIT {})",
        sensors_with_readings(table, i32::MIN, i32::MAX),
        rows_of_sensors(table, span, i32::MAX),
        SLICE_ROWS + 1
    );
    let found: Count = with_db!(conn, |c| diesel::sql_query(sql).get_result(c)).during("counting readings")?;
    Ok(found.n > SLICE_ROWS)
}

fn count(conn: &mut Conn<'_>, table: ReadingTable, span: Span) -> Result<u64, StoreError> {
    let sql = format!(
        "{} SELECT count(*) AS n {}",
        sensors_with_readings(table, i32::MIN, i32::MAX),
        rows_of_sensors(table, span, i32::MAX)
    );
    let found: Count = with_db!(conn, |c| diesel::sql_query(sql).get_result(c)).during("counting readings")?;
    Ok(u64::try_from(found.n).unwrap_or(0))
}

fn delete_slice(conn: &mut Conn<'_>, table: ReadingTable, span: Span) -> Result<u64, StoreError> {
    let sql = format!(
        "{} DELETE FROM {} WHERE (sensor_id, time) IN (SELECT t.sensor_id, t.time {})",
        sensors_with_readings(table, i32::MIN, i32::MAX),
        table.name(),
        rows_of_sensors(table, span, i32::MAX)
    );
    let deleted = with_db!(conn, |c| diesel::sql_query(sql).execute(c)).during("deleting old readings")?;
    Ok(deleted as u64)
}

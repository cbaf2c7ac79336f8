//! The writers' side: buckets before the horizon that a batch has put readings into are marked.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::sql_types::{Array, Integer, Text};

use super::Grain;
use crate::store::batch::Batch;
use crate::store::error::{During, StoreError};
use crate::store::introduce::Ids;
use crate::store::pool::Conn;
use crate::store::schema::{Instant, rollup_horizon};
use crate::time::UtcMicros;

/// Marks in one statement on SQLite.
const ROWS: usize = 500;

/// What of a grain a writer needs to know.
type Horizon = (String, UtcMicros, UtcMicros);
type Mark = (Grain, i32, UtcMicros);

/// To be called last in the transaction, so that what it locks is held for short. A row that is marked though it was
/// there already, or was refused, costs one bucket's work.
pub(in crate::store) fn mark_late(conn: &mut Conn<'_>, batch: &Batch, ids: &Ids<'_>) -> Result<(), StoreError> {
    let Some(oldest) = batch.readings.iter().map(|reading| reading.time).min() else { return Ok(()) };
    let mut marks: BTreeSet<Mark> = BTreeSet::new();
    for (grain, horizon, raw_from) in horizons(conn)? {
        let Some(grain) = Grain::named(&grain).filter(|_| oldest < horizon) else { continue };
        for reading in batch.readings.iter().filter(|reading| reading.time < horizon) {
            let bucket = grain.floor(reading.time);
            if bucket >= raw_from
                && let Some(id) = ids.sensor(reading.sensor)
            {
                marks.insert((grain, id, bucket));
            }
        }
    }
    if marks.is_empty() {
        return Ok(());
    }
    // A set is in the order of the table's key: two writers meet marks in one order.
    put(conn, &marks).during("marking the hours and days that late readings belong to")
}

fn horizons(conn: &mut Conn<'_>) -> Result<Vec<Horizon>, StoreError> {
    let columns = (rollup_horizon::grain, rollup_horizon::horizon, rollup_horizon::raw_from);
    match conn {
        Conn::Postgres(c) => {
            rollup_horizon::table.select(columns).order(rollup_horizon::grain).for_key_share().load(*c)
        }
        Conn::Sqlite(c) => rollup_horizon::table.select(columns).load(*c),
    }
    .during("reading the rollups' horizons")
}

fn put(conn: &mut Conn<'_>, marks: &BTreeSet<Mark>) -> QueryResult<()> {
    match conn {
        Conn::Postgres(c) => {
            let grains: Vec<&str> = marks.iter().map(|(grain, ..)| grain.name()).collect();
            let ids: Vec<i32> = marks.iter().map(|(_, id, _)| *id).collect();
            let buckets: Vec<UtcMicros> = marks.iter().map(|(.., bucket)| *bucket).collect();
            // The conflict locks the mark that is there, and waits for who is settling it, but writes nothing.
            diesel::sql_query(
                "INSERT INTO rollup_pending (grain, sensor_id, bucket) SELECT * FROM unnest($1, $2, $3) \
                 ON CONFLICT (grain, sensor_id, bucket) DO UPDATE SET bucket = excluded.bucket WHERE false",
            )
            .bind::<Array<Text>, _>(grains)
            .bind::<Array<Integer>, _>(ids)
            .bind::<Array<Instant>, _>(buckets)
            .execute(*c)?;
        }
        Conn::Sqlite(c) => {
            let rows: Vec<String> =
                marks.iter().map(|(grain, id, bucket)| format!("('{}', {id}, {})", grain.name(), bucket.0)).collect();
            for rows in rows.chunks(ROWS) {
                diesel::sql_query(format!(
                    "INSERT INTO rollup_pending (grain, sensor_id, bucket) VALUES {} ON CONFLICT DO NOTHING",
                    rows.join(", ")
                ))
                .execute(*c)?;
            }
        }
    }
    Ok(())
}

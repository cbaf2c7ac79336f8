//! What of the rollups differs on TimescaleDB, where `telemetry` is a hypertable: continuous aggregates.
//!
//! `materialized_only` is off: what lies after the watermark is aggregated from `telemetry` as it is queried. Late readings
//! are in the extension's own log of invalidations, and the next refresh takes them in; that log costs the writer nothing.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable};

use super::postgres::{self, COLUMNS, FIGURES};
use super::{Grain, keep, progress_alone};
use crate::store::error::{During, StoreError};
use crate::store::extensions::is_hypertable;
use crate::store::pool::Conn;
use crate::store::schema::{Instant, rollup_pending};
use crate::time::UtcMicros;

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct At {
    #[diesel(sql_type = Nullable<Instant>)]
    at: Option<UtcMicros>,
}

/// Makes the views where they are missing, as the layout of `telemetry` wants them; inside the transaction of the migrations,
/// after all of them. On SQLite a migration has made them.
pub(in crate::store) fn install(conn: &mut Conn<'_>) -> Result<(), StoreError> {
    let Conn::Postgres(c) = conn else { return Ok(()) };
    let continuous = is_hypertable(c, "telemetry").during("asking for the layout of telemetry")?;
    if continuous && !has_aggregates(c)? {
        c.batch_execute("DROP VIEW IF EXISTS readings_hourly, readings_daily")
            .during("replacing the rollups' views")?;
        for grain in Grain::ALL {
            c.batch_execute(&aggregate(grain)).during("making a continuous aggregate")?;
            // The writer shall find nothing to mark.
            let opened = progress_alone(&mut Conn::Postgres(c), grain)?.opened();
            keep(&mut Conn::Postgres(c), grain, opened)?;
        }
        diesel::delete(rollup_pending::table).execute(*c).during("discarding the marks of late readings")?;
    }
    for grain in Grain::ALL {
        if !exists(c, grain.view())? {
            let view = if continuous { view(grain) } else { postgres::view(grain) };
            c.batch_execute(&view).during("making the rollups' views")?;
        }
    }
    Ok(())
}

fn aggregate(grain: Grain) -> String {
    format!(
        "CREATE MATERIALIZED VIEW {name} WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS \
         SELECT sensor_id, time_bucket({width}, time) AS bucket, {FIGURES} \
         FROM telemetry GROUP BY sensor_id, time_bucket({width}, time) WITH NO DATA",
        name = grain.aggregate(),
        width = grain.interval(),
    )
}

/// LATERAL, because the aggregate is a union whose newest part would else be worked out for every sensor.
fn view(grain: Grain) -> String {
    let columns: Vec<String> = COLUMNS.split(", ").map(|column| format!("a.{column}")).collect();
    format!(
        "CREATE VIEW {} AS \
         SELECT a.bucket AS time, n.name AS tenant, d.uid AS device, s.metric, s.unit, {} \
         FROM device_sensors s \
         JOIN devices d ON d.id = s.device_id \
         JOIN tenants n ON n.id = d.tenant_id \
         CROSS JOIN LATERAL (SELECT * FROM {} c WHERE c.sensor_id = s.id) a",
        grain.view(),
        columns.join(", "),
        grain.aggregate(),
    )
}

fn exists(c: &mut PgConnection, relation: &str) -> Result<bool, StoreError> {
    diesel::sql_query("SELECT to_regclass($1) IS NOT NULL AS yes")
        .bind::<diesel::sql_types::Text, _>(relation)
        .get_result::<Answer>(c)
        .map(|answer| answer.yes)
        .during("looking for the rollups' views")
}

pub(super) fn has_aggregates(c: &mut PgConnection) -> Result<bool, StoreError> {
    exists(c, Grain::Hour.aggregate())
}

pub(super) fn oldest_chunk(c: &mut PgConnection) -> Result<Option<UtcMicros>, StoreError> {
    let oldest: At = diesel::sql_query(
        "SELECT min(range_start) AS at FROM timescaledb_information.chunks \
         WHERE hypertable_schema = current_schema() AND hypertable_name = 'telemetry'",
    )
    .get_result(c)
    .during("finding the oldest chunk of readings")?;
    Ok(oldest.at)
}

/// In no transaction.
pub(super) fn refresh(
    c: &mut PgConnection,
    grain: Grain,
    from: Option<UtcMicros>,
    to: UtcMicros,
) -> Result<(), StoreError> {
    let instant = |at: UtcMicros| format!("to_timestamp({})", at.0.div_euclid(1_000_000));
    let from = from.map_or_else(|| "NULL".to_owned(), instant);
    c.batch_execute(&format!("CALL refresh_continuous_aggregate('{}', {from}, {})", grain.aggregate(), instant(to)))
        .during("refreshing a continuous aggregate")
}

//! The views as `tidegate readings --every` shows them.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Nullable, Text};

use super::Grain;
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::Conn;
use crate::store::schema::Instant;
use crate::time::UtcMicros;

/// Which rollups are meant.
#[derive(Clone, Debug, PartialEq)]
pub struct RollupsQuery {
    pub grain: Grain,
    /// None: any tenant.
    pub tenant: Option<String>,
    /// Uid.
    pub device: String,
    /// None: every metric.
    pub metric: Option<String>,
    /// Buckets that end after this; none: from the beginning.
    pub since: Option<UtcMicros>,
    /// The newest so many.
    pub limit: usize,
}

/// A row of `readings_hourly` or `readings_daily`.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
pub struct RollupRow {
    /// The bucket's beginning, ISO-8601 in UTC.
    #[diesel(sql_type = Text)]
    pub time: String,
    #[diesel(sql_type = Text)]
    pub tenant: String,
    #[diesel(sql_type = Text)]
    pub device: String,
    #[diesel(sql_type = Text)]
    pub metric: String,
    #[diesel(sql_type = Text)]
    pub unit: String,
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    #[diesel(sql_type = Double)]
    pub min: f64,
    #[diesel(sql_type = Double)]
    pub max: f64,
    #[diesel(sql_type = Nullable<Double>)]
    pub avg: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub sum: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub stddev: Option<f64>,
    #[diesel(sql_type = Double)]
    pub first: f64,
    #[diesel(sql_type = Double)]
    pub last: f64,
    #[diesel(sql_type = Double)]
    pub p50: f64,
    #[diesel(sql_type = Double)]
    pub p95: f64,
}

impl Store {
    /// The newest rows that the query means, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rollups(&self, query: &RollupsQuery) -> Result<Vec<RollupRow>, StoreError> {
        let since = query.since.map(|since| query.grain.floor(since));
        let (tenant, metric) = (query.tenant.as_deref(), query.metric.as_deref());
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let mut rows: Vec<RollupRow> = self.db.with(|conn| {
            match conn {
                Conn::Postgres(c) => diesel::sql_query(text(
                    query,
                    "to_char(v.time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                    ["$1", "$2", "$3", "$4", "$5"],
                ))
                .bind::<Text, _>(&query.device)
                .bind::<Nullable<Text>, _>(tenant)
                .bind::<Nullable<Text>, _>(metric)
                .bind::<Nullable<Instant>, _>(since)
                .bind::<BigInt, _>(limit)
                .load(*c),
                Conn::Sqlite(c) => diesel::sql_query(text(query, "v.time", ["?1", "?2", "?3", "?4", "?5"]))
                    .bind::<Text, _>(&query.device)
                    .bind::<Nullable<Text>, _>(tenant)
                    .bind::<Nullable<Text>, _>(metric)
                    .bind::<Nullable<Text>, _>(since.and_then(as_in_the_view))
                    .bind::<BigInt, _>(limit)
                    .load(*c),
            }
            .during("reading rollups")
        })?;
        rows.reverse();
        Ok(rows)
    }
}

/// `binds`: device, tenant, metric, since, limit.
fn text(query: &RollupsQuery, time: &str, binds: [&str; 5]) -> String {
    let [device, tenant, metric, since, limit] = binds;
    let since = match query.since {
        Some(_) => format!("v.time >= {since}"),
        None => format!("{since} IS NULL"),
    };
    let tenant = if query.tenant.is_some() { format!("v.tenant = {tenant}") } else { format!("{tenant} IS NULL") };
    let metric = if query.metric.is_some() { format!("v.metric = {metric}") } else { format!("{metric} IS NULL") };
    format!(
        "SELECT {time} AS time, v.tenant, v.device, v.metric, v.unit, {} FROM {} v \
         WHERE v.device = {device} AND {tenant} AND {metric} AND {since} ORDER BY v.time DESC, v.metric DESC LIMIT {limit}",
        super::postgres::COLUMNS.split(", ").map(|column| format!("v.{column}")).collect::<Vec<_>>().join(", "),
        query.grain.view(),
    )
}

/// The text of an instant in the views on SQLite.
fn as_in_the_view(at: UtcMicros) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(at.0).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

//! What the database says of itself: sizes, layout, rows, the slowest queries. Nothing here reads a large table whole: where
//! counting would, the figure is an estimate and says so.

mod postgres;
mod readings;
mod sqlite;
mod timescale;

use std::path::Path;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{Conn, with_db};
use crate::config::DatabaseUrl;
use crate::time::UtcMicros;

pub use readings::Sampled;

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub rows: u64,
    /// Counted, not estimated.
    pub exact: bool,
}

/// How the table `telemetry` is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    #[default]
    Plain,
    /// Native partitions by range of time.
    Partitions,
    /// TimescaleDB's.
    Hypertable,
}

/// A table with all its partitions or chunks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableStats {
    pub name: String,
    pub rows: Option<Count>,
    /// Without indexes; none where it would have to be read whole.
    pub bytes: Option<u64>,
    pub index_bytes: Option<u64>,
    /// Partitions or chunks; 0: a plain table.
    pub chunks: u64,
    /// Rows that are updated or deleted and not yet vacuumed, as the statistics have it; PostgreSQL only.
    pub dead_rows: Option<u64>,
    /// Dead rows in all rows, 0 to 1.
    pub dead_share: Option<f64>,
    /// By the daemon or by hand, the latest of the partitions.
    pub last_vacuum: Option<UtcMicros>,
    pub last_analyze: Option<UtcMicros>,
}

impl TableStats {
    pub fn total_bytes(&self) -> u64 {
        self.bytes.unwrap_or(0).saturating_add(self.index_bytes.unwrap_or(0))
    }
}

/// A partition or chunk of `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub name: String,
    /// With its indexes.
    pub bytes: u64,
    /// Where it begins; none: a default partition.
    pub from: Option<UtcMicros>,
}

/// The partitions or chunks of `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    pub count: u64,
    pub bytes: u64,
    pub largest: Option<Chunk>,
    /// The newest that has begun; those made ahead are left out.
    pub newest: Option<Chunk>,
}

/// What TimescaleDB's compression of `telemetry` has brought. Bytes with indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub chunks: u64,
    pub compressed_chunks: u64,
    /// Of the compressed chunks.
    pub before_bytes: u64,
    pub after_bytes: u64,
}

impl Compression {
    /// So many times smaller; none while nothing is compressed.
    pub fn ratio(&self) -> Option<f64> {
        (self.after_bytes > 0).then(|| self.before_bytes as f64 / self.after_bytes as f64)
    }
}

/// How the oldest reading was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oldest {
    /// Every sensor was looked at.
    OfAll,
    /// Only some were; another may have an older one.
    OfSome,
    /// It is the beginning of the oldest chunk; the reading is this old at most.
    ChunkStart,
}

/// The readings that are numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadingStats {
    pub rows: Option<Count>,
    /// Of the last seven days.
    pub rows_per_day: Option<Sampled>,
    pub bytes_per_reading: Option<f64>,
    /// Texts too.
    pub oldest: Option<(UtcMicros, Oldest)>,
    /// By the sensors' last values.
    pub newest: Option<UtcMicros>,
}

/// One of the statements that took the most time.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowQuery {
    /// Without its constants.
    pub query: String,
    pub calls: u64,
    pub mean_ms: f64,
    pub total_ms: f64,
    pub rows: u64,
}

/// SQLite's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteFile {
    pub bytes: u64,
    pub free_bytes: u64,
    /// Not yet checkpointed into the file, or kept to be written again.
    pub wal_bytes: u64,
    /// Whether free pages can be given back bit by bit.
    pub incremental_vacuum: bool,
}

/// How many there are in the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatalogCounts {
    pub tenants: u64,
    pub templates: u64,
    pub devices: u64,
    pub modules: u64,
    pub sensors: u64,
    /// Sensors with a number in the last seven days.
    pub live_sensors: u64,
}

/// What waits in quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuarantineCounts {
    pub messages: u64,
    pub events: u64,
    /// Not settled by a retry, by reason, the most frequent first.
    pub open: Vec<(String, u64)>,
}

/// Everything that the database tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Name and version.
    pub database: String,
    /// TimescaleDB's version.
    pub timescaledb: Option<String>,
    pub layout: Layout,
    pub readings: ReadingStats,
    pub chunks: Option<Chunks>,
    pub compression: Option<Compression>,
    /// The largest first.
    pub tables: Vec<TableStats>,
    /// None: `pg_stat_statements` is not there.
    pub slowest: Option<Vec<SlowQuery>>,
    pub sqlite: Option<SqliteFile>,
    pub catalog: Option<CatalogCounts>,
    pub quarantine: Option<QuarantineCounts>,
    /// What could not be told, and why.
    pub unknown: Vec<String>,
}

impl Store {
    /// Asks the database about itself, over one state of it. What one question fails at (a missing permission, more than ten
    /// seconds on PostgreSQL) is left out and stands in [`Stats::unknown`].
    ///
    /// # Errors
    /// [`StoreError`]: the database does not answer at all.
    pub fn stats(&self, now: UtcMicros) -> Result<Stats, StoreError> {
        let path = match &self.settings.url {
            DatabaseUrl::Sqlite(path) => Some(path.as_path()),
            DatabaseUrl::Postgres(_) => None,
        };
        self.db.read(|conn| gather(conn, path, now))
    }
}

fn gather(conn: &mut Conn<'_>, path: Option<&Path>, now: UtcMicros) -> Result<Stats, StoreError> {
    let mut stats = Stats::default();
    let oldest = match conn {
        Conn::Postgres(c) => postgres::describe(c, now, &mut stats)?,
        Conn::Sqlite(c) => sqlite::describe(c, path, &mut stats)?,
    };
    readings::describe(conn, &oldest, now, &mut stats);
    catalog(conn, &mut stats);
    let total = stats.tables.iter().find(|table| table.name == "telemetry").map(TableStats::total_bytes);
    if let (Some(count), Some(bytes)) = (stats.readings.rows, total) {
        stats.readings.bytes_per_reading = (count.rows > 0 && bytes > 0).then(|| bytes as f64 / count.rows as f64);
    }
    stats.tables.sort_by(|a, b| (b.total_bytes(), &a.name).cmp(&(a.total_bytes(), &b.name)));
    Ok(stats)
}

/// Asks under a savepoint; a failure is noted and costs this one answer only.
fn told<T>(
    conn: &mut Conn<'_>,
    unknown: &mut Vec<String>,
    what: &str,
    ask: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
) -> Option<T> {
    match conn.savepoint(ask) {
        Ok(answer) => Some(answer),
        Err(error) => {
            let why = error.words().split_whitespace().collect::<Vec<_>>().join(" ");
            unknown.push(format!("{what}: {why}"));
            None
        }
    }
}

fn catalog(conn: &mut Conn<'_>, stats: &mut Stats) {
    use super::schema::{device_modules, device_templates, devices, quarantine_events, quarantine_messages, tenants};
    use diesel::dsl::count_star;
    use diesel::prelude::*;
    let unknown = &mut stats.unknown;
    let sensors = stats.catalog.unwrap_or_default();
    stats.catalog = told(conn, unknown, "the catalog", |conn| {
        let counts: (i64, i64, i64, i64) = with_db!(conn, |c| {
            let templates = device_templates::table.filter(device_templates::retired.eq(false));
            tenants::table.count().get_result(c).and_then(|tenants| {
                let templates = templates.count().get_result(c)?;
                let devices = devices::table.count().get_result(c)?;
                Ok((tenants, templates, devices, device_modules::table.count().get_result(c)?))
            })
        })
        .during("counting the catalog")?;
        let (tenants, templates, devices, modules) = counts;
        let [tenants, templates, devices, modules] = [tenants, templates, devices, modules].map(unsigned);
        Ok(CatalogCounts { tenants, templates, devices, modules, ..sensors })
    });
    stats.quarantine = told(conn, unknown, "the quarantine", |conn| {
        let messages: i64 =
            with_db!(conn, |c| quarantine_messages::table.count().get_result(c)).during("counting the quarantine")?;
        let events: i64 =
            with_db!(conn, |c| quarantine_events::table.count().get_result(c)).during("counting the quarantine")?;
        let open: Vec<(String, i64)> = with_db!(conn, |c| quarantine_events::table
            .filter(quarantine_events::resolved_at.is_null())
            .group_by(quarantine_events::reason)
            .select((quarantine_events::reason, count_star()))
            .order((count_star().desc(), quarantine_events::reason))
            .load(c))
        .during("counting the quarantine")?;
        let open = open.into_iter().map(|(reason, count)| (reason, unsigned(count))).collect();
        Ok(QuarantineCounts { messages: unsigned(messages), events: unsigned(events), open })
    });
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A number that can't be negative or beyond, rounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, and no sign is left")]
fn rounded(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

//! TimescaleDB: whether it can be had, the hypertables, their chunks.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};

use super::{Layout, Part, ReadingTable, Span};
use crate::store::Store;
use crate::store::error::{During, StoreError};
use crate::store::pool::Conn;
use crate::store::schema::Instant;
use crate::time::UtcMicros;

#[derive(QueryableByName)]
struct Extension {
    #[diesel(sql_type = Nullable<Text>)]
    installed: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    available: Option<String>,
    #[diesel(sql_type = Bool)]
    loaded: bool,
}

#[derive(QueryableByName)]
struct ChunkRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Instant)]
    lower: UtcMicros,
    #[diesel(sql_type = Instant)]
    upper: UtcMicros,
    #[diesel(sql_type = Bool)]
    compressed: bool,
}

fn ask(c: &mut PgConnection) -> Result<Extension, StoreError> {
    // Settings of that name are there once the library is loaded at the server's start. Who may not read
    // shared_preload_libraries may read these, and CREATE EXTENSION without it would end the connection.
    diesel::sql_query(
        "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS installed, \
         (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb') AS available, \
         EXISTS (SELECT FROM pg_settings WHERE name LIKE 'timescaledb.%') AS loaded",
    )
    .get_result(c)
    .during("asking for TimescaleDB")
}

/// Makes both tables hypertables, and the extension too if it is not there. The version, or why it can't be had; then
/// nothing has changed.
pub(super) fn take_over(c: &mut PgConnection) -> Result<Result<String, String>, StoreError> {
    let extension = ask(c)?;
    if extension.installed.is_none() && extension.available.is_none() {
        return Ok(Err("TimescaleDB is not installed on the server".to_owned()));
    }
    if !extension.loaded {
        return Ok(Err("TimescaleDB is not in the server's shared_preload_libraries".to_owned()));
    }
    // In a savepoint: what is refused must not spoil the transaction.
    let made = c.transaction(|c| {
        if extension.installed.is_none() {
            c.batch_execute("CREATE EXTENSION timescaledb").during("CREATE EXTENSION timescaledb")?;
        }
        ReadingTable::ALL.into_iter().try_for_each(|table| make_hypertable(c, table))
    });
    match made {
        Ok(()) => Ok(Ok(ask(c)?.installed.unwrap_or_default())),
        Err(StoreError::Query { during, source: diesel::result::Error::DatabaseError(kind, words) })
            if !matches!(kind, diesel::result::DatabaseErrorKind::ClosedConnection) =>
        {
            Ok(Err(format!("{during} failed: {}", words.message())))
        }
        Err(error) => Err(error),
    }
}

/// A chunk for each day. The index that TimescaleDB would add on time costs a quarter of the write rate, and the primary key
/// serves what people ask.
fn make_hypertable(c: &mut PgConnection, table: ReadingTable) -> Result<(), StoreError> {
    c.batch_execute(&format!(
        "SELECT create_hypertable('{}', 'time', chunk_time_interval => interval '1 day', create_default_indexes => false, \
         migrate_data => true)",
        table.name()
    ))
    .during("making a hypertable")
}

/// The chunks, the oldest first.
pub(super) fn list(c: &mut PgConnection, table: ReadingTable) -> Result<Vec<Part>, StoreError> {
    let rows: Vec<ChunkRow> = diesel::sql_query(
        "SELECT format('%I.%I', chunk_schema, chunk_name) AS name, range_start AS lower, range_end AS upper, \
         coalesce(is_compressed, false) AS compressed FROM timescaledb_information.chunks \
         WHERE hypertable_schema = current_schema() AND hypertable_name = $1 ORDER BY range_start",
    )
    .bind::<Text, _>(table.name())
    .load(c)
    .during("reading the chunks")?;
    let part = |row: ChunkRow| Part {
        name: row.name,
        span: Span { from: row.lower, to: row.upper },
        compressed: row.compressed,
    };
    Ok(rows.into_iter().map(part).collect())
}

/// What a look for something to compress has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compressed {
    /// This chunk was compressed, or compressed anew with what came late; its table and part.
    Chunk(ReadingTable, Part),
    /// There is none left.
    NothingLeft,
    /// TimescaleDB under the Apache licence has no compression, and other layouts have none either.
    NotThere,
}

/// A chunk is compressed with a lock that only writers of that chunk wait for.
const LIMIT_WAIT: &str = "SET LOCAL lock_timeout = '2s'";
/// The bit of a chunk's status that tells of rows which came after it was compressed.
const PARTIAL: &str =
    "_timescaledb_functions.chunk_status(format('%I.%I', chunk_schema, chunk_name)::regclass) & 8 <> 0";

#[derive(QueryableByName)]
struct Compression {
    #[diesel(sql_type = Bool)]
    licensed: bool,
    #[diesel(sql_type = Bool)]
    enabled: bool,
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct NamedChunk {
    #[diesel(sql_type = Text)]
    hypertable: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Instant)]
    lower: UtcMicros,
    #[diesel(sql_type = Instant)]
    upper: UtcMicros,
}

impl Store {
    /// Compresses the first chunk after `after` that ends at `before` or earlier and is not compressed, or, if `partial`, is
    /// but has rows that came late. Each sensor's rows stay together, in the order of time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn compress_next(
        &self,
        after: Option<(UtcMicros, ReadingTable)>,
        before: UtcMicros,
        partial: bool,
    ) -> Result<Compressed, StoreError> {
        if self.layout()? != Layout::Timescale {
            return Ok(Compressed::NotThere);
        }
        self.db.write(|conn| {
            let Conn::Postgres(c) = conn else { return Ok(Compressed::NotThere) };
            c.batch_execute(LIMIT_WAIT).during("limiting the wait for locks")?;
            for table in ReadingTable::ALL {
                if !prepare(c, table)? {
                    return Ok(Compressed::NotThere);
                }
            }
            let condition = if partial { PARTIAL } else { "NOT coalesce(is_compressed, false)" };
            let (time, table) = after.unwrap_or((UtcMicros(i64::MIN / 50), ReadingTable::Numbers));
            let found: Option<NamedChunk> = diesel::sql_query(format!(
                "SELECT hypertable_name::text AS hypertable, format('%I.%I', chunk_schema, chunk_name) AS name, \
                 range_start AS lower, range_end AS upper FROM timescaledb_information.chunks \
                 WHERE hypertable_schema = current_schema() AND hypertable_name IN ('telemetry', 'telemetry_text') \
                 AND (range_start, hypertable_name) > ($1, $2) AND range_end <= $3 AND {condition} \
                 ORDER BY range_start, hypertable_name LIMIT 1"
            ))
            .bind::<Instant, _>(time)
            .bind::<Text, _>(table.name())
            .bind::<Instant, _>(before)
            .get_result(*c)
            .optional()
            .during("looking for a chunk to compress")?;
            let Some(chunk) = found else { return Ok(Compressed::NothingLeft) };
            diesel::sql_query("SELECT compress_chunk(to_regclass($1), if_not_compressed => true)")
                .bind::<Text, _>(&chunk.name)
                .execute(*c)
                .during("compressing a chunk")?;
            analyze_compressed(c, &chunk.name);
            let table = if chunk.hypertable == ReadingTable::Texts.name() {
                ReadingTable::Texts
            } else {
                ReadingTable::Numbers
            };
            let span = Span { from: chunk.lower, to: chunk.upper };
            Ok(Compressed::Chunk(table, Part { name: chunk.name, span, compressed: true }))
        })
    }
}

/// Until it has been analyzed, the planner takes a compressed chunk for nearly empty, and for a few sensors of it decompresses all.
/// Autovacuum comes later, and not to a small one. A version of TimescaleDB that keeps its tables elsewhere is no reason to fail.
fn analyze_compressed(c: &mut PgConnection, chunk: &str) {
    let outcome = c.transaction(|c| {
        let found: Option<Named> = diesel::sql_query(
            "SELECT format('%I.%I', k.schema_name, k.table_name) AS name FROM _timescaledb_catalog.chunk c \
             JOIN _timescaledb_catalog.chunk k ON k.id = c.compressed_chunk_id \
             WHERE format('%I.%I', c.schema_name, c.table_name) = $1",
        )
        .bind::<Text, _>(chunk)
        .get_result(c)
        .optional()?;
        found.map_or(Ok(()), |found| c.batch_execute(&format!("ANALYZE {}", found.name)))
    });
    if let Err(error) = outcome {
        tracing::debug!(chunk, %error, "a compressed chunk was not analyzed; autovacuum does it");
    }
}

/// Tells TimescaleDB once how a table is to be compressed; what an operator has set stays. False: there is no compression.
fn prepare(c: &mut PgConnection, table: ReadingTable) -> Result<bool, StoreError> {
    let found: Compression = diesel::sql_query(
        "SELECT current_setting('timescaledb.license', true) IS DISTINCT FROM 'apache' AS licensed, \
         EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema() \
         AND hypertable_name = $1 AND compression_enabled) AS enabled",
    )
    .bind::<Text, _>(table.name())
    .get_result(c)
    .during("asking for compression")?;
    if found.licensed && !found.enabled {
        c.batch_execute(&format!(
            "ALTER TABLE {} SET (timescaledb.compress, timescaledb.compress_segmentby = 'sensor_id', \
             timescaledb.compress_orderby = 'time')",
            table.name()
        ))
        .during("setting up compression")?;
    }
    Ok(found.licensed)
}

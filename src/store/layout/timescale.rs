//! TimescaleDB: whether it can be had, the hypertables, their chunks.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text};

use super::{Part, ReadingTable, Span};
use crate::store::error::{During, StoreError};
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

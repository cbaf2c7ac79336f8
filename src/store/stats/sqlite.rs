//! What SQLite says of its file.

use std::path::Path;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use super::{Count, SqliteFile, Stats, TableStats, unsigned};
use crate::store::error::{During, StoreError};
use crate::store::sqlite_care;

/// A file up to here is looked through page by page, bytes.
const SMALL: u64 = 64 << 20;

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Part {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = BigInt)]
    is_table: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Fills in what the file tells; returns the tables in which the oldest reading may be.
pub(super) fn describe(
    connection: &mut SqliteConnection,
    path: Option<&Path>,
    stats: &mut Stats,
) -> Result<Vec<String>, StoreError> {
    let version: Word =
        diesel::sql_query("SELECT sqlite_version() AS word").get_result(connection).during("asking for the version")?;
    stats.database = format!("SQLite {}", version.word);
    let pages = sqlite_care::pages(connection).during("counting the database's pages")?;
    let file = SqliteFile {
        bytes: unsigned(pages.total.saturating_mul(pages.size)),
        free_bytes: pages.free_bytes(),
        wal_bytes: path.map_or(0, wal_bytes),
        incremental_vacuum: pages.is_incremental(),
    };
    stats.sqlite = Some(file);
    let tables: Vec<Word> = diesel::sql_query(
        "SELECT name AS word FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND name NOT LIKE '\\_\\_%' ESCAPE '\\'",
    )
    .load(connection)
    .during("listing tables")?;
    stats.tables = tables.into_iter().map(|table| TableStats { name: table.word, ..TableStats::default() }).collect();
    if file.bytes <= SMALL {
        measure(connection, stats)?;
    } else {
        stats.unknown.push(format!(
            "sizes and rows of single tables: the file would have to be read whole, which is done up to {} MiB",
            SMALL >> 20
        ));
        // Nearly all of a large file is readings.
        if let Some(telemetry) = stats.tables.iter_mut().find(|table| table.name == "telemetry") {
            telemetry.bytes = Some(file.bytes.saturating_sub(file.free_bytes));
        }
    }
    Ok(vec!["telemetry".to_owned(), "telemetry_text".to_owned()])
}

/// Sizes by `dbstat` where this SQLite has it, and rows by counting them.
fn measure(connection: &mut SqliteConnection, stats: &mut Stats) -> Result<(), StoreError> {
    let parts: Result<Vec<Part>, _> = diesel::sql_query(
        "SELECT s.tbl_name AS table_name, CAST(s.type = 'table' AS INTEGER) AS is_table, CAST(sum(d.pgsize) AS INTEGER) AS bytes \
         FROM dbstat d JOIN sqlite_schema s ON s.name = d.name WHERE d.aggregate = TRUE GROUP BY 1, 2",
    )
    .load(connection);
    match &parts {
        Ok(parts) => parts.iter().for_each(|part| {
            let Some(table) = stats.tables.iter_mut().find(|table| table.name == part.table_name) else { return };
            let bytes = if part.is_table == 1 { &mut table.bytes } else { &mut table.index_bytes };
            *bytes = Some(unsigned(part.bytes));
        }),
        Err(_) => stats.unknown.push("sizes of single tables: this SQLite is built without dbstat".to_owned()),
    }
    for table in &mut stats.tables {
        let quoted = table.name.replace('"', "\"\"");
        let count: Number = diesel::sql_query(format!("SELECT count(*) AS n FROM \"{quoted}\""))
            .get_result(connection)
            .during("counting rows")?;
        table.rows = Some(Count { rows: unsigned(count.n), exact: true });
        if table.name == "telemetry" {
            stats.readings.rows = table.rows;
        }
    }
    Ok(())
}

fn wal_bytes(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |file| file.len())
}

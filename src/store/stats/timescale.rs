//! What TimescaleDB knows better than PostgreSQL's catalogs: chunks and their compressed rows, which are in tables of its own.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use super::postgres::ask;
use super::{Chunk, Chunks, Compression, Count, Oldest, Stats, unsigned};
use crate::store::pool::Conn;
use crate::store::schema::Instant;
use crate::time::UtcMicros;

/// A continuous aggregate: what people call it, and the table that it keeps its rows in, quoted.
#[derive(QueryableByName)]
pub(super) struct Aggregate {
    #[diesel(sql_type = Text)]
    pub(super) name: String,
    #[diesel(sql_type = Text)]
    pub(super) table: String,
}

#[derive(QueryableByName)]
struct Size {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    table_bytes: i64,
    #[diesel(sql_type = BigInt)]
    index_bytes: i64,
}

#[derive(QueryableByName)]
struct CompressedRows {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

#[derive(QueryableByName)]
struct ChunkRow {
    #[diesel(sql_type = Text)]
    hypertable: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    quoted: String,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = Bool)]
    compressed: bool,
    #[diesel(sql_type = Nullable<Instant>)]
    from: Option<UtcMicros>,
}

#[derive(QueryableByName)]
struct CompressionRow {
    #[diesel(sql_type = BigInt)]
    chunks: i64,
    #[diesel(sql_type = BigInt)]
    compressed: i64,
    #[diesel(sql_type = BigInt)]
    before: i64,
    #[diesel(sql_type = BigInt)]
    after: i64,
}

/// Hypertables and continuous aggregates of this schema, with the table that has the chunks.
const HYPERTABLES: &str = "WITH named (name, id) AS (
     SELECT hypertable_name::text, format('%I.%I', hypertable_schema, hypertable_name)::regclass
     FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema()
     UNION ALL
     SELECT view_name::text,
         format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass
     FROM timescaledb_information.continuous_aggregates WHERE view_schema = current_schema()) ";

pub(super) fn aggregates(c: &mut PgConnection) -> QueryResult<Vec<Aggregate>> {
    diesel::sql_query(
        "SELECT view_name::text AS name, \
         format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) AS \"table\" \
         FROM timescaledb_information.continuous_aggregates WHERE view_schema = current_schema()",
    )
    .load(c)
}

/// Sizes and rows with what is compressed. Returns the tables that have compressed rows: those are known, and to count them
/// would decompress them.
pub(super) fn describe_tables(conn: &mut Conn<'_>, stats: &mut Stats) -> Vec<String> {
    let sizes = ask(conn, &mut stats.unknown, "sizes of hypertables", |c| {
        diesel::sql_query(format!(
            "{HYPERTABLES} SELECT n.name, coalesce(sum(s.table_bytes) + sum(coalesce(s.toast_bytes, 0)), 0)::bigint AS table_bytes, \
             coalesce(sum(s.index_bytes), 0)::bigint AS index_bytes \
             FROM named n CROSS JOIN LATERAL hypertable_detailed_size(n.id) s GROUP BY n.name"
        ))
        .load::<Size>(c)
    });
    // Beside what PostgreSQL sees in the chunks themselves, which is what came late.
    let compressed = ask(conn, &mut stats.unknown, "compressed rows", |c| {
        diesel::sql_query(format!(
            "{HYPERTABLES} SELECT n.name, coalesce(sum(s.numrows_pre_compression), 0)::bigint AS rows FROM named n \
             JOIN _timescaledb_catalog.hypertable h ON format('%I.%I', h.schema_name, h.table_name)::regclass = n.id \
             JOIN _timescaledb_catalog.chunk c ON c.hypertable_id = h.id \
             JOIN _timescaledb_catalog.compression_chunk_size s ON s.chunk_id = c.id GROUP BY n.name"
        ))
        .load::<CompressedRows>(c)
    });
    for size in sizes.unwrap_or_default() {
        let Some(table) = stats.tables.iter_mut().find(|table| table.name == size.name) else { continue };
        table.bytes = Some(unsigned(size.table_bytes));
        table.index_bytes = Some(unsigned(size.index_bytes));
    }
    let compressed = compressed.unwrap_or_default();
    for found in &compressed {
        let Some(table) = stats.tables.iter_mut().find(|table| table.name == found.name) else { continue };
        let late = table.rows.map_or(0, |count| count.rows);
        table.rows = Some(Count { rows: late.saturating_add(unsigned(found.rows)), exact: false });
    }
    compressed.into_iter().map(|found| found.name).collect()
}

/// The chunks of `telemetry`, their compression, and in which the oldest reading is. Returns the chunks, quoted, that are to be
/// looked into for it.
pub(super) fn describe_readings(conn: &mut Conn<'_>, now: UtcMicros, stats: &mut Stats) -> Vec<String> {
    let chunks = ask(conn, &mut stats.unknown, "the chunks", chunks);
    let compression = ask(conn, &mut stats.unknown, "compression", |c| {
        diesel::sql_query(
            "SELECT coalesce(sum(total_chunks), 0)::bigint AS chunks, \
             coalesce(sum(number_compressed_chunks), 0)::bigint AS compressed, \
             coalesce(sum(before_compression_total_bytes), 0)::bigint AS before, \
             coalesce(sum(after_compression_total_bytes), 0)::bigint AS after \
             FROM hypertable_compression_stats('telemetry')",
        )
        .get_result::<CompressionRow>(c)
    });
    stats.compression = compression.filter(|row| row.compressed > 0).map(|row| Compression {
        chunks: unsigned(row.chunks),
        compressed_chunks: unsigned(row.compressed),
        before_bytes: unsigned(row.before),
        after_bytes: unsigned(row.after),
    });
    let all = chunks.as_deref().unwrap_or_default();
    let mut look_into = Vec::new();
    for table in ["telemetry", "telemetry_text"] {
        match all.iter().filter(|row| row.hypertable == table).min_by_key(|row| row.from) {
            // It has no key to go by: looking for its first reading would decompress it.
            Some(ChunkRow { compressed: true, from: Some(from), .. }) => {
                let known = stats.readings.oldest.map_or(*from, |(known, _)| known);
                stats.readings.oldest = Some((known.min(*from), Oldest::ChunkStart));
            }
            Some(row) => look_into.push(row.quoted.clone()),
            None => {}
        }
    }
    stats.chunks = chunks.as_deref().map(|rows| of_numbers(rows, now));
    look_into
}

fn chunks(c: &mut PgConnection) -> QueryResult<Vec<ChunkRow>> {
    diesel::sql_query(
        "SELECT h.name AS hypertable, s.chunk_name::text AS name, format('%I.%I', s.chunk_schema, s.chunk_name) AS quoted, \
         coalesce(s.total_bytes, 0) AS bytes, coalesce(c.is_compressed, false) AS compressed, c.range_start AS \"from\" \
         FROM (VALUES ('telemetry'), ('telemetry_text')) h (name) \
         CROSS JOIN LATERAL chunks_detailed_size(h.name::regclass) s JOIN timescaledb_information.chunks c \
         ON c.chunk_schema = s.chunk_schema AND c.chunk_name = s.chunk_name",
    )
    .load(c)
}

fn of_numbers(rows: &[ChunkRow], now: UtcMicros) -> Chunks {
    let own = || rows.iter().filter(|row| row.hypertable == "telemetry");
    let chunk = |row: &ChunkRow| Chunk { name: row.name.clone(), bytes: unsigned(row.bytes), from: row.from };
    Chunks {
        count: own().count() as u64,
        bytes: own().map(|row| unsigned(row.bytes)).sum(),
        largest: own().max_by_key(|row| row.bytes).map(chunk),
        newest: own().filter(|row| row.from.is_some_and(|from| from <= now)).max_by_key(|row| row.from).map(chunk),
    }
}

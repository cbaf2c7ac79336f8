//! What PostgreSQL says of its tables: from its catalogs and statistics, and from TimescaleDB's where there is one.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Nullable, Text};

use super::timescale::{self, Aggregate};
use super::{Chunk, Chunks, Count, Layout, SlowQuery, Stats, TableStats, rounded, told, unsigned};
use crate::store::error::{During, StoreError};
use crate::store::extensions::{has_extension, is_hypertable};
use crate::store::pool::Conn;
use crate::store::schema::Instant;
use crate::time::UtcMicros;

/// The readings are counted up to here, and any other table up to there, bytes; a small one may never have been analyzed.
const SMALL: u64 = 16 << 20;
const SMALL_BESIDE: u64 = 1 << 20;
/// Statements shown of `pg_stat_statements`.
const SLOWEST: i64 = 10;
/// Rows on a page of `telemetry` (48 bytes and a pointer of 4 each), for a table that was never analyzed.
const ROWS_ON_A_PAGE: f64 = 157.0;

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

#[derive(QueryableByName)]
struct MaybeWord {
    #[diesel(sql_type = Nullable<Text>)]
    word: Option<String>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// A table without children, or a partition or chunk of one.
#[derive(QueryableByName)]
struct Leaf {
    /// The table it belongs to.
    #[diesel(sql_type = Text)]
    root: String,
    #[diesel(sql_type = Bool)]
    is_root: bool,
    #[diesel(sql_type = Bool)]
    has_rows_of_its_own: bool,
    #[diesel(sql_type = Text)]
    name: String,
    /// Quoted, and with its schema where that is needed.
    #[diesel(sql_type = Text)]
    quoted: String,
    #[diesel(sql_type = BigInt)]
    heap_pages: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    index_bytes: i64,
    /// At the last VACUUM or ANALYZE; negative: never.
    #[diesel(sql_type = Double)]
    analyzed_rows: f64,
    #[diesel(sql_type = Double)]
    analyzed_pages: f64,
    #[diesel(sql_type = BigInt)]
    live: i64,
    #[diesel(sql_type = BigInt)]
    dead: i64,
    #[diesel(sql_type = Nullable<Instant>)]
    last_vacuum: Option<UtcMicros>,
    #[diesel(sql_type = Nullable<Instant>)]
    last_analyze: Option<UtcMicros>,
    /// A native partition's lower bound.
    #[diesel(sql_type = Nullable<Instant>)]
    from: Option<UtcMicros>,
}

impl Leaf {
    /// As the planner does it: the density at the last ANALYZE, times the pages there are now.
    fn rows(&self) -> f64 {
        let pages = self.heap_pages as f64;
        if self.analyzed_rows >= 0.0 && self.analyzed_pages > 0.0 {
            self.analyzed_rows / self.analyzed_pages * pages
        } else if self.live > 0 || self.heap_pages == 0 {
            self.live as f64
        } else {
            pages * ROWS_ON_A_PAGE
        }
    }

    fn total_bytes(&self) -> u64 {
        unsigned(self.bytes.saturating_add(self.index_bytes))
    }
}

/// Fills in what the catalogs tell; returns the tables in which the oldest reading may be.
pub(super) fn describe(c: &mut PgConnection, now: UtcMicros, stats: &mut Stats) -> Result<Vec<String>, StoreError> {
    // Of this transaction only, so that a pooler's next client has its own.
    diesel::sql_query("SET LOCAL statement_timeout = '10s'").execute(c).during("limiting the time of a statement")?;
    let version: Word = diesel::sql_query("SELECT current_setting('server_version') AS word")
        .get_result(c)
        .during("asking for the version")?;
    stats.database = format!("PostgreSQL {}", version.word);
    let unknown = &mut stats.unknown;
    let mut conn = Conn::Postgres(c);
    stats.timescaledb = ask(&mut conn, unknown, "TimescaleDB", |c| extension_version(c, "timescaledb")).flatten();
    let hypertable = ask(&mut conn, unknown, "the hypertable", |c| is_hypertable(c, "telemetry")).unwrap_or_default();
    let aggregates = match stats.timescaledb {
        Some(_) => ask(&mut conn, unknown, "the continuous aggregates", timescale::aggregates).unwrap_or_default(),
        None => Vec::new(),
    };
    let leaves = ask(&mut conn, unknown, "sizes of tables", |c| leaves(c, &aggregates)).unwrap_or_default();
    stats.slowest = ask(&mut conn, unknown, "the slowest queries", slowest).flatten();
    stats.tables = tables(&leaves);
    let own: Vec<&Leaf> = leaves.iter().filter(|leaf| leaf.root == "telemetry" && !leaf.is_root).collect();
    stats.layout = match (hypertable, own.is_empty()) {
        (true, _) => Layout::Hypertable,
        (false, false) => Layout::Partitions,
        (false, true) => Layout::Plain,
    };
    let mut uncounted = Vec::new();
    if stats.timescaledb.is_some() {
        uncounted = timescale::describe_tables(&mut conn, stats);
    }
    // What they show is more than what they hold.
    uncounted.extend(aggregates.into_iter().map(|aggregate| aggregate.name));
    rows(&mut conn, stats, &uncounted);
    match stats.layout {
        Layout::Hypertable => return Ok(timescale::describe_readings(&mut conn, now, stats)),
        Layout::Partitions => stats.chunks = Some(partitions(&own, now)),
        Layout::Plain => {}
    }
    Ok(["telemetry", "telemetry_text"].into_iter().filter_map(|table| oldest(&leaves, table)).collect())
}

/// [`told`], of a question to PostgreSQL.
pub(super) fn ask<T>(
    conn: &mut Conn<'_>,
    unknown: &mut Vec<String>,
    what: &'static str,
    question: impl FnOnce(&mut PgConnection) -> QueryResult<T>,
) -> Option<T> {
    told(conn, unknown, what, |conn| match conn {
        Conn::Postgres(c) => question(c).during(what),
        Conn::Sqlite(_) => Err(StoreError::Unfit { detail: "this is no PostgreSQL".to_owned() }),
    })
}

fn extension_version(c: &mut PgConnection, name: &str) -> QueryResult<Option<String>> {
    diesel::sql_query("SELECT extversion AS word FROM pg_extension WHERE extname = $1")
        .bind::<Text, _>(name)
        .get_result::<Word>(c)
        .optional()
        .map(|version| version.map(|version| version.word))
}

/// Every table of this schema with its partitions or chunks, by what the system's catalogs know; also the tables behind
/// continuous aggregates, under their names.
fn leaves(c: &mut PgConnection, aggregates: &[Aggregate]) -> QueryResult<Vec<Leaf>> {
    let (names, tables): (Vec<&str>, Vec<&str>) =
        aggregates.iter().map(|aggregate| (aggregate.name.as_str(), aggregate.table.as_str())).unzip();
    diesel::sql_query(
        "WITH RECURSIVE roots (name, oid) AS (
             SELECT c.relname::text, c.oid FROM pg_class c
             WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                 AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
             UNION ALL
             SELECT a.name, a.id::regclass FROM unnest($1, $2) a (name, id)
         ), tree (root, name, oid) AS (
             SELECT oid, name, oid FROM roots
             UNION ALL
             SELECT t.root, t.name, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
         )
         SELECT t.name AS root, t.oid = t.root AS is_root, c.relkind = 'r' AS has_rows_of_its_own,
             c.relname::text AS name, t.oid::regclass::text AS quoted,
             coalesce(pg_relation_size(t.oid) / current_setting('block_size')::bigint, 0) AS heap_pages,
             coalesce(pg_table_size(t.oid), 0) AS bytes, coalesce(pg_indexes_size(t.oid), 0) AS index_bytes,
             c.reltuples::float8 AS analyzed_rows, c.relpages::float8 AS analyzed_pages,
             coalesce(s.n_live_tup, 0) AS live, coalesce(s.n_dead_tup, 0) AS dead,
             greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,
             greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze,
             substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \\(''([^'']+)''\\) TO')::timestamptz AS \"from\"
         FROM tree t JOIN pg_class c ON c.oid = t.oid LEFT JOIN pg_stat_all_tables s ON s.relid = t.oid",
    )
    .bind::<Array<Text>, _>(names)
    .bind::<Array<Text>, _>(tables)
    .load(c)
}

fn tables(leaves: &[Leaf]) -> Vec<TableStats> {
    let mut tables: BTreeMap<&str, TableStats> = BTreeMap::new();
    let mut lived: BTreeMap<&str, f64> = BTreeMap::new();
    for leaf in leaves.iter().filter(|leaf| !leaf.root.starts_with("__")) {
        let table = tables.entry(&leaf.root).or_insert_with(|| TableStats {
            name: leaf.root.clone(),
            dead_rows: Some(0),
            ..TableStats::default()
        });
        if !leaf.has_rows_of_its_own {
            continue;
        }
        let known = table.rows.map_or(0, |count| count.rows);
        table.rows = Some(Count { rows: known.saturating_add(rounded(leaf.rows())), exact: false });
        table.bytes = Some(table.bytes.unwrap_or(0).saturating_add(unsigned(leaf.bytes)));
        table.index_bytes = Some(table.index_bytes.unwrap_or(0).saturating_add(unsigned(leaf.index_bytes)));
        table.chunks = table.chunks.saturating_add(u64::from(!leaf.is_root));
        table.dead_rows = table.dead_rows.map(|dead| dead.saturating_add(unsigned(leaf.dead)));
        table.last_vacuum = table.last_vacuum.max(leaf.last_vacuum);
        table.last_analyze = table.last_analyze.max(leaf.last_analyze);
        *lived.entry(&leaf.root).or_default() += leaf.live as f64;
    }
    for (name, table) in &mut tables {
        let (live, dead) = (lived.get(name).copied().unwrap_or(0.0), table.dead_rows.unwrap_or(0) as f64);
        table.dead_share = (live + dead > 0.0).then(|| dead / (live + dead));
    }
    tables.into_values().collect()
}

fn chunk_of(leaf: &Leaf) -> Chunk {
    Chunk { name: leaf.name.clone(), bytes: leaf.total_bytes(), from: leaf.from }
}

fn partitions(own: &[&Leaf], now: UtcMicros) -> Chunks {
    let rows = || own.iter().filter(|leaf| leaf.has_rows_of_its_own);
    Chunks {
        count: rows().count() as u64,
        bytes: rows().map(|leaf| leaf.total_bytes()).sum(),
        largest: rows().max_by_key(|leaf| leaf.total_bytes()).map(|leaf| chunk_of(leaf)),
        newest: rows()
            .filter(|leaf| leaf.from.is_some_and(|from| from <= now))
            .max_by_key(|leaf| leaf.from)
            .map(|leaf| chunk_of(leaf)),
    }
}

/// The partition with the oldest rows, or the table itself where it has no partitions.
fn oldest(leaves: &[Leaf], table: &str) -> Option<String> {
    let own = || leaves.iter().filter(|leaf| leaf.root == table && leaf.has_rows_of_its_own);
    let filled = own().filter(|leaf| !leaf.is_root && leaf.heap_pages > 0);
    let oldest = filled.filter(|leaf| leaf.from.is_some()).min_by_key(|leaf| leaf.from);
    oldest
        .map(|leaf| leaf.quoted.clone())
        .or_else(|| leaves.iter().any(|leaf| leaf.root == table).then(|| table.into()))
}

/// Counts the tables that are small; the others keep their estimate.
fn rows(conn: &mut Conn<'_>, stats: &mut Stats, uncounted: &[String]) {
    for table in &mut stats.tables {
        let is_readings = table.name == "telemetry";
        let small = if is_readings { SMALL } else { SMALL_BESIDE };
        if table.total_bytes() <= small && !uncounted.contains(&table.name) {
            let quoted = table.name.replace('"', "\"\"");
            let counted = ask(conn, &mut stats.unknown, "the number of rows", |c| {
                diesel::sql_query(format!("SELECT count(*) AS n FROM \"{quoted}\"")).get_result::<Number>(c)
            });
            table.rows = counted.map(|count| Count { rows: unsigned(count.n), exact: true }).or(table.rows);
        }
        if is_readings {
            stats.readings.rows = table.rows;
        }
    }
}

#[derive(QueryableByName)]
struct Statement {
    #[diesel(sql_type = Text)]
    query: String,
    #[diesel(sql_type = BigInt)]
    calls: i64,
    #[diesel(sql_type = Double)]
    mean_ms: f64,
    #[diesel(sql_type = Double)]
    total_ms: f64,
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

/// The statements of this database that took the most time. Only those that read and write rows: others may name a password.
fn slowest(c: &mut PgConnection) -> QueryResult<Option<Vec<SlowQuery>>> {
    if !has_extension(c, "pg_stat_statements")? {
        return Ok(None);
    }
    let schema: MaybeWord = diesel::sql_query(
        "SELECT quote_ident(n.nspname) AS word FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
         WHERE e.extname = 'pg_stat_statements'",
    )
    .get_result(c)?;
    let statements: Vec<Statement> = diesel::sql_query(format!(
        "SELECT query, calls, mean_exec_time AS mean_ms, total_exec_time AS total_ms, rows FROM {}.pg_stat_statements \
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND query ~* '^\\s*(select|insert|update|delete|with|copy)\\M' ORDER BY total_exec_time DESC LIMIT {SLOWEST}",
        schema.word.as_deref().unwrap_or("public")
    ))
    .load(c)?;
    let slow = statements.into_iter().map(|statement| SlowQuery {
        query: statement.query.split_whitespace().collect::<Vec<_>>().join(" "),
        calls: unsigned(statement.calls),
        mean_ms: statement.mean_ms,
        total_ms: statement.total_ms,
        rows: unsigned(statement.rows),
    });
    Ok(Some(slow.collect()))
}

//! PostgreSQL's own partitions: read, made, and the plain tables turned into them.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use super::{Part, ReadingTable, Span, Spans, spans};
use crate::clock;
use crate::store::error::{During, StoreError};
use crate::store::postgres::lock_for_transaction;
use crate::store::schema::Instant;
use crate::time::UtcMicros;

/// Key of the advisory lock under which partitions are made: "tidedays" in ASCII.
const LOCK_KEY: i64 = 0x7469_6465_6461_7973;
/// Partitions made in one transaction: each takes locks that it keeps to its end.
const MADE_AT_ONCE: usize = 32;
/// Days that the first and every later `migrate` makes, beside today.
const BEGINNING: i64 = 3;
/// What a query over all of one table locks for each partition: the table and its index.
const LOCKS_A_PARTITION: u64 = 2;

#[derive(QueryableByName)]
struct PartitionRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Instant>)]
    lower: Option<UtcMicros>,
    #[diesel(sql_type = Nullable<Instant>)]
    upper: Option<UtcMicros>,
}

#[derive(QueryableByName)]
struct Words {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    words: String,
}

#[derive(QueryableByName)]
struct Yes {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct Numbered {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn rows(c: &mut PgConnection, table: ReadingTable) -> Result<Vec<PartitionRow>, StoreError> {
    // The bounds are written and read in one session, so its time zone and date style do not matter. MINVALUE and MAXVALUE
    // have no quotes, and DEFAULT no bounds at all.
    diesel::sql_query(format!(
        "SELECT i.inhrelid::regclass::text AS name, \
         (regexp_match(b.bound, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz AS lower, \
         (regexp_match(b.bound, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz AS upper \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b \
         WHERE i.inhparent = '{}'::regclass ORDER BY lower",
        table.name()
    ))
    .load(c)
    .during("reading the partitions")
}

/// The partitions that have both ends, the oldest first.
pub(super) fn list(c: &mut PgConnection, table: ReadingTable) -> Result<Vec<Part>, StoreError> {
    let part = |row: PartitionRow| {
        let span = Span { from: row.lower?, to: row.upper? };
        Some(Part { name: row.name, span, compressed: false })
    };
    Ok(rows(c, table)?.into_iter().filter_map(part).collect())
}

fn spans_of(c: &mut PgConnection, table: ReadingTable) -> Result<Spans, StoreError> {
    let mut spans = Spans::default();
    rows(c, table)?.into_iter().for_each(|row| spans.add(row.lower, row.upper));
    Ok(spans)
}

/// Makes partitions for instants that have none, in the transaction that is open; of two programs one waits for the other.
/// Returns what there is then, and whether all are there: only so many are made at once.
pub(super) fn ensure(
    c: &mut PgConnection,
    table: ReadingTable,
    times: &BTreeSet<UtcMicros>,
    now: UtcMicros,
) -> Result<(Spans, bool), StoreError> {
    // Somebody's long lock must not hold this one up for ever.
    c.batch_execute("SET LOCAL lock_timeout = '10s'").during("limiting the wait for locks")?;
    lock_for_transaction(c, LOCK_KEY).during("waiting for another program that makes partitions")?;
    let mut spans = spans_of(c, table)?;
    let mut made = 0;
    for time in times {
        if spans.covers(*time) {
            continue;
        }
        if made == MADE_AT_ONCE {
            return Ok((spans, false));
        }
        let span = spans.wanted(*time, now);
        make(c, table, span)?;
        spans.add(Some(span.from), Some(span.to));
        made += 1;
    }
    Ok((spans, true))
}

/// A table like its parent, then attached to it: unlike CREATE … PARTITION OF, that lets readers and writers of the parent
/// go on.
fn make(c: &mut PgConnection, table: ReadingTable, span: Span) -> Result<(), StoreError> {
    let parent = table.name();
    let name = free_name(c, &format!("{parent}_p{}", span.label()))?;
    c.batch_execute(&format!(
        "CREATE TABLE \"{name}\" (LIKE {parent} INCLUDING ALL); \
         ALTER TABLE {parent} ATTACH PARTITION \"{name}\" FOR VALUES FROM ({}) TO ({})",
        bound(span.from),
        bound(span.to)
    ))
    .during("making a partition; the database's user must own the tables of readings")?;
    tracing::debug!(partition = name, %span, "partition made");
    Ok(())
}

/// The name, or, where a table has it that is no partition (any more), the first with a number behind it.
fn free_name(c: &mut PgConnection, wanted: &str) -> Result<String, StoreError> {
    for number in 1..1000 {
        let name = if number == 1 { wanted.to_owned() } else { format!("{wanted}_{number}") };
        let taken: Yes = diesel::sql_query("SELECT to_regclass(quote_ident($1)) IS NOT NULL AS yes")
            .bind::<Text, _>(&name)
            .get_result(c)
            .during("naming a partition")?;
        if !taken.yes {
            return Ok(name);
        }
    }
    Err(StoreError::Unfit {
        detail: format!("there are a thousand tables named like {wanted}; drop those no longer used"),
    })
}

/// In whole seconds where it is one, so that it is exact.
fn bound(at: UtcMicros) -> String {
    let (seconds, micros) = (at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000));
    format!("to_timestamp({seconds}) + make_interval(secs => 0.{micros:06})")
}

/// Makes today's partitions and the next few days', so that a database fresh from `migrate` takes readings.
pub(super) fn begin(c: &mut PgConnection) -> Result<(), StoreError> {
    let now = clock::now();
    let days: BTreeSet<UtcMicros> =
        spans::days(now, UtcMicros(now.0.saturating_add(BEGINNING * super::DAY_MICROS))).collect();
    for table in ReadingTable::ALL {
        ensure(c, table, &days, now)?;
    }
    Ok(())
}

/// Turns both plain tables into partitioned ones. What rows there are, are moved; views over the tables, people's own as
/// well, and grants stay.
pub(super) fn convert(c: &mut PgConnection) -> Result<(), StoreError> {
    c.batch_execute("LOCK TABLE telemetry, telemetry_text IN ACCESS EXCLUSIVE MODE").during("locking the readings")?;
    let views: Vec<Words> = diesel::sql_query(
        "SELECT DISTINCT v.oid::regclass::text AS name, pg_get_viewdef(v.oid) AS words FROM pg_depend d \
         JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v' \
         WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass \
         AND d.refobjid IN ('telemetry'::regclass, 'telemetry_text'::regclass)",
    )
    .load(c)
    .during("finding the views over readings")?;
    for table in ReadingTable::ALL {
        let name = table.name();
        c.batch_execute(&format!(
            "ALTER TABLE {name} RENAME TO {name}_before; ALTER INDEX {name}_pkey RENAME TO {name}_before_pkey; \
             CREATE TABLE {name} (LIKE {name}_before INCLUDING ALL) PARTITION BY RANGE (time)"
        ))
        .during("making the partitioned table of readings")?;
    }
    begin(c)?;
    for table in ReadingTable::ALL {
        move_rows(c, table)?;
    }
    for view in views {
        c.batch_execute(&format!("CREATE OR REPLACE VIEW {} AS {}", view.name, view.words))
            .during("bringing the views over to the partitioned tables")?;
    }
    c.batch_execute("DROP TABLE telemetry_before, telemetry_text_before")
        .during("dropping the plain tables of readings")
}

fn move_rows(c: &mut PgConnection, table: ReadingTable) -> Result<(), StoreError> {
    let name = table.name();
    let days: Vec<Numbered> = diesel::sql_query(format!(
        "SELECT DISTINCT floor(extract(epoch FROM time) / 86400)::bigint AS number FROM {name}_before WHERE isfinite(time)"
    ))
    .load(c)
    .during("finding the days of the readings there are")?;
    let days: BTreeSet<UtcMicros> =
        days.iter().map(|day| UtcMicros(day.number.saturating_mul(super::DAY_MICROS))).collect();
    let now = clock::now();
    while !ensure(c, table, &days, now)?.1 {}
    if !days.is_empty() {
        let infinite: Numbered =
            diesel::sql_query(format!("SELECT count(*) AS number FROM {name}_before WHERE NOT isfinite(time)"))
                .get_result(c)
                .during("looking for readings without a place in time")?;
        if infinite.number > 0 {
            tracing::warn!(
                table = name,
                rows = infinite.number,
                "readings at an infinite time have no day; they are left out"
            );
        }
        tracing::info!(
            table = name,
            days = days.len(),
            "moving the readings there are into partitions; this may take a while"
        );
        c.batch_execute(&format!("INSERT INTO {name} SELECT * FROM {name}_before WHERE isfinite(time)"))
            .during("moving readings into partitions")?;
    }
    let grants: Vec<Words> = diesel::sql_query(format!(
        "SELECT '' AS name, format('GRANT %s ON TABLE {name} TO %s%s', a.privilege_type, \
         CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
         CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS words \
         FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a \
         WHERE c.oid = '{name}_before'::regclass AND a.grantee <> c.relowner"
    ))
    .load(c)
    .during("reading who may read readings")?;
    for grant in grants {
        c.batch_execute(&grant.words).during("granting what was granted before")?;
    }
    Ok(())
}

/// Locks that a query over all readings takes, and those that the server has room for.
pub(super) fn locks(c: &mut PgConnection) -> Result<(u64, u64), StoreError> {
    let mut needed = 0;
    for table in ReadingTable::ALL {
        needed += spans_of(c, table)?.len() as u64 * LOCKS_A_PARTITION;
    }
    let room: Numbered = diesel::sql_query(
        "SELECT current_setting('max_locks_per_transaction')::bigint * (current_setting('max_connections')::bigint \
         + current_setting('max_prepared_transactions')::bigint) AS number",
    )
    .get_result(c)
    .during("asking for the room for locks")?;
    Ok((needed, u64::try_from(room.number).unwrap_or(0)))
}

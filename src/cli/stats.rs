//! `tidegate stats`: what the database says of itself, and the journal beside it.

use std::io::Write;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::Args;
use serde_json::{Value, json};

use super::output::{self, instant, instant_or_dash};
use super::{Place, journal};
use crate::clock;
use crate::config::Config;
use crate::journal::{Status, status};
use crate::store::Store;
use crate::store::stats::{Chunk, Count, Layout, Oldest, SlowQuery, Stats, TableStats};

/// Longest part of a statement that the table shows, characters; `--json` has all of it.
const SHOWN_QUERY: usize = 100;

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    #[arg(long)]
    json: bool,
}

/// The journal in the state directory, and how many of its messages the database lacks; or why that can't be told.
type JournalState = Result<(Status, Option<u64>), String>;

pub(super) fn run(place: &Place, args: &StatsArgs) -> anyhow::Result<ExitCode> {
    let store = place.store()?;
    let journal = observe(&place.config()?, &store);
    show(&store, &journal, args.json, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn observe(config: &Config, store: &Store) -> JournalState {
    let status = status(&config.instance.state_dir).map_err(|error| error.to_string())?;
    let committed = store.committed(&config.instance.id, &status.id).map_err(|error| error.to_string())?;
    let lag = committed.map(|reached| status.last_seq.saturating_sub(reached.seq));
    Ok((status, lag))
}

/// Writes what the store tells of itself.
///
/// # Errors
/// The store's, and those of writing.
pub fn show(store: &Store, journal: &JournalState, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let stats = store.stats(clock::now())?;
    if as_json {
        output::json(out, &stats_json(&stats, journal))?;
        return Ok(());
    }
    facts(&stats, journal, out)?;
    tables(&stats.tables, out)?;
    slowest(stats.slowest.as_deref(), stats.sqlite.is_none(), out)?;
    for what in &stats.unknown {
        writeln!(out, "not told: {}", output::printable(what))?;
    }
    Ok(())
}

fn facts(stats: &Stats, journal: &JournalState, out: &mut dyn Write) -> anyhow::Result<()> {
    let readings = &stats.readings;
    let mut facts = vec![("database", database(stats)), ("layout", layout(stats.layout).to_owned())];
    facts.push(("readings", readings.rows.map_or_else(unknown, rows)));
    if let Some(rate) = readings.rows_per_day {
        let word = match rate.exact {
            true => "counted".to_owned(),
            false => format!("estimated from {} of {} sensors", rate.sensors, rate.of),
        };
        facts.push(("readings a day", format!("{:.0} over the last 7 days, {word}", rate.per_day)));
    }
    let bytes = readings.bytes_per_reading;
    facts.push(("bytes a reading", bytes.map_or_else(unknown, |bytes| format!("{bytes:.1}, with indexes"))));
    let oldest = readings.oldest.map(|(time, how)| match how {
        Oldest::OfAll => instant(time),
        Oldest::OfSome => format!("{} among the sensors looked at", instant(time)),
        Oldest::ChunkStart => format!("{} at the earliest, where the oldest chunk begins", instant(time)),
    });
    facts.push(("oldest reading", oldest.unwrap_or_else(|| "-".to_owned())));
    facts.push(("newest reading", instant_or_dash(readings.newest)));
    if let Some(chunks) = &stats.chunks {
        facts.push(("chunks", format!("{}, {}", chunks.count, ByteSize(chunks.bytes))));
        facts.push(("largest chunk", chunks.largest.as_ref().map_or_else(unknown, chunk)));
        facts.push(("newest chunk", chunks.newest.as_ref().map_or_else(unknown, chunk)));
    }
    if let Some(compression) = stats.compression {
        let ratio = compression.ratio().map_or_else(unknown, |ratio| format!("{ratio:.1} times smaller"));
        let (some, all) = (compression.compressed_chunks, compression.chunks);
        let (before, after) = (ByteSize(compression.before_bytes), ByteSize(compression.after_bytes));
        facts.push(("compression", format!("{ratio}: {some} of {all} chunks, {before} to {after}")));
    }
    if let Some(file) = stats.sqlite {
        let word = if file.incremental_vacuum { "" } else { ", never given back: made without incremental vacuum" };
        facts.push(("file", format!("{}, of it free {}{word}", ByteSize(file.bytes), ByteSize(file.free_bytes))));
        facts.push(("write-ahead log", ByteSize(file.wal_bytes).to_string()));
    }
    if let Some(counts) = stats.catalog {
        let (devices, sensors, live) = (counts.devices, counts.sensors, counts.live_sensors);
        facts.push((
            "catalog",
            format!(
                "{devices} devices, {} modules, {} templates, {} tenants",
                counts.modules, counts.templates, counts.tenants
            ),
        ));
        facts.push(("sensors", format!("{sensors}, {live} with a number in the last 7 days")));
    }
    if let Some(quarantine) = &stats.quarantine {
        let open: u64 = quarantine.open.iter().map(|(_, count)| count).sum();
        let reasons: Vec<String> =
            quarantine.open.iter().take(3).map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
        facts.push(("quarantine", format!("{} messages, {open} open events{reasons}", quarantine.messages)));
    }
    facts.push(("journal", journal_words(journal)));
    output::table(out, &[], facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]))?;
    Ok(())
}

fn tables(tables: &[TableStats], out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out)?;
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| ByteSize(bytes).to_string());
    let lines = tables.iter().map(|table| {
        let dead = table.dead_rows.map_or_else(unknown, |dead| match table.dead_share {
            Some(share) => format!("{dead} ({:.0} %)", share * 100.0),
            None => dead.to_string(),
        });
        vec![
            table.name.clone(),
            table.rows.map_or_else(unknown, rows),
            size(table.bytes),
            size(table.index_bytes),
            table.chunks.to_string(),
            dead,
            instant_or_dash(table.last_vacuum),
            instant_or_dash(table.last_analyze),
        ]
    });
    let headers = ["TABLE", "ROWS", "SIZE", "INDEXES", "CHUNKS", "DEAD", "VACUUMED", "ANALYZED"];
    output::table(out, &headers, lines)?;
    Ok(())
}

fn slowest(queries: Option<&[SlowQuery]>, may_have: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(queries) = queries else {
        if may_have {
            writeln!(
                out,
                "\nslowest queries: not known, for this database has no pg_stat_statements (CREATE EXTENSION, and \
                 shared_preload_libraries)"
            )?;
        }
        return Ok(());
    };
    writeln!(out)?;
    let lines = queries.iter().map(|slow| {
        let query: String = slow.query.chars().take(SHOWN_QUERY).collect();
        let mean = format!("{:.2} ms", slow.mean_ms);
        vec![format!("{:.1} s", slow.total_ms / 1000.0), mean, slow.calls.to_string(), slow.rows.to_string(), query]
    });
    output::table(out, &["TOTAL", "MEAN", "CALLS", "ROWS", "QUERY"], lines)?;
    Ok(())
}

fn unknown() -> String {
    "-".to_owned()
}

fn rows(count: Count) -> String {
    if count.exact { count.rows.to_string() } else { format!("~{}", count.rows) }
}

fn chunk(chunk: &Chunk) -> String {
    let from = chunk.from.map_or_else(String::new, |from| format!(", from {}", instant(from)));
    format!("{}, {}{from}", chunk.name, ByteSize(chunk.bytes))
}

fn database(stats: &Stats) -> String {
    match &stats.timescaledb {
        Some(version) => format!("{}, TimescaleDB {version}", stats.database),
        None => stats.database.clone(),
    }
}

fn layout(layout: Layout) -> &'static str {
    match layout {
        Layout::Plain => "plain table",
        Layout::Partitions => "partitions",
        Layout::Hypertable => "hypertable",
    }
}

fn journal_words(journal: &JournalState) -> String {
    match journal {
        Ok((status, lag)) => {
            let lag = lag.map_or_else(|| "not known to this database".to_owned(), |lag| format!("{lag} behind"));
            format!("{} messages, {}, {lag}", status.messages, ByteSize(status.bytes))
        }
        Err(why) => format!("not told: {why}"),
    }
}

fn chunk_json(chunk: Option<&Chunk>) -> Value {
    chunk
        .map_or(Value::Null, |chunk| json!({"name": chunk.name, "bytes": chunk.bytes, "from": chunk.from.map(instant)}))
}

fn table_json(table: &TableStats) -> Value {
    json!({
        "table": table.name, "rows": table.rows.map(|count| count.rows),
        "rows_exact": table.rows.map(|count| count.exact), "bytes": table.bytes, "index_bytes": table.index_bytes,
        "chunks": table.chunks, "dead_rows": table.dead_rows, "dead_share": table.dead_share,
        "last_vacuum": table.last_vacuum.map(instant), "last_analyze": table.last_analyze.map(instant),
    })
}

fn readings_json(stats: &Stats) -> Value {
    let readings = &stats.readings;
    json!({
        "rows": readings.rows.map(|count| count.rows), "rows_exact": readings.rows.map(|count| count.exact),
        "per_day": readings.rows_per_day.map(|rate| rate.per_day),
        "per_day_exact": readings.rows_per_day.map(|rate| rate.exact),
        "per_day_sensors": readings.rows_per_day.map(|rate| rate.sensors),
        "bytes_per_reading": readings.bytes_per_reading,
        "oldest": readings.oldest.map(|(time, _)| instant(time)), "oldest_exact": readings.oldest.map(|(_, how)| how == Oldest::OfAll),
        "newest": readings.newest.map(instant),
    })
}

fn stats_json(stats: &Stats, state: &JournalState) -> Value {
    let slow = |slow: &SlowQuery| {
        json!({
            "query": slow.query, "calls": slow.calls, "mean_ms": slow.mean_ms, "total_ms": slow.total_ms,
            "rows": slow.rows,
        })
    };
    json!({
        "database": stats.database, "timescaledb": stats.timescaledb, "layout": layout(stats.layout),
        "readings": readings_json(stats),
        "chunks": stats.chunks.as_ref().map(|chunks| json!({
            "count": chunks.count, "bytes": chunks.bytes,
            "largest": chunk_json(chunks.largest.as_ref()), "newest": chunk_json(chunks.newest.as_ref()),
        })),
        "compression": stats.compression.map(|compression| json!({
            "ratio": compression.ratio(), "chunks": compression.chunks,
            "compressed_chunks": compression.compressed_chunks,
            "before_bytes": compression.before_bytes, "after_bytes": compression.after_bytes,
        })),
        "tables": stats.tables.iter().map(table_json).collect::<Vec<_>>(),
        "slowest": stats.slowest.as_ref().map(|queries| queries.iter().map(slow).collect::<Vec<_>>()),
        "sqlite": stats.sqlite.map(|file| json!({
            "bytes": file.bytes, "free_bytes": file.free_bytes, "wal_bytes": file.wal_bytes,
            "incremental_vacuum": file.incremental_vacuum,
        })),
        "catalog": stats.catalog.map(|counts| json!({
            "tenants": counts.tenants, "templates": counts.templates, "devices": counts.devices,
            "modules": counts.modules, "sensors": counts.sensors, "live_sensors": counts.live_sensors,
        })),
        "quarantine": stats.quarantine.as_ref().map(|quarantine| json!({
            "messages": quarantine.messages, "events": quarantine.events,
            "open": quarantine.open.iter().map(|(reason, count)| (reason.clone(), json!(count)))
                .collect::<serde_json::Map<_, _>>(),
        })),
        "journal": state.as_ref().ok().map(|(status, lag)| {
            let mut value = journal::as_json(status);
            if let Value::Object(fields) = &mut value {
                fields.insert("lag".into(), json!(lag));
            }
            value
        }),
        "journal_unknown": state.as_ref().err(),
        "unknown": stats.unknown,
    })
}

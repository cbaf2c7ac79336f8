//! `tidegate readings DEVICE [--metric] [--since] [--follow] [--every hour|day]`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Place;
use super::output::{self, instant, or_dash};
use crate::clock;
use crate::store::Store;
use crate::store::query::{Page, ReadingRow, ReadingsQuery};
use crate::store::rollups::{Grain, RollupRow, RollupsQuery};

/// How often a follower looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Most readings shown of one look; of more, the newest.
const FLOOD: usize = 100_000;

#[derive(Args, Debug)]
pub(super) struct ReadingsArgs {
    device: String,
    /// Only this metric
    #[arg(long)]
    metric: Option<String>,
    /// Only those younger than this, e.g. 2h
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// The newest so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Go on with new ones as they come
    #[arg(long)]
    follow: bool,
    /// The figures of each hour or day instead: count, least, greatest, average, …
    #[arg(long, value_enum, conflicts_with = "follow")]
    every: Option<Every>,
    #[arg(long)]
    tenant: Option<String>,
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Every {
    Hour,
    Day,
}

impl From<Every> for Grain {
    fn from(every: Every) -> Grain {
        match every {
            Every::Hour => Grain::Hour,
            Every::Day => Grain::Day,
        }
    }
}

pub(super) fn run(place: &Place, args: &ReadingsArgs) -> anyhow::Result<ExitCode> {
    let store = place.reader()?;
    let query = ReadingsQuery {
        tenant: args.tenant.clone(),
        device: args.device.clone(),
        metric: args.metric.clone(),
        since: args.since.and_then(|age| clock::now().checked_sub(age)),
        limit: args.limit,
        after: None,
    };
    let mut out = std::io::stdout().lock();
    if let Some(every) = args.every {
        let ReadingsQuery { tenant, device, metric, since, limit, .. } = query;
        let query = RollupsQuery { grain: every.into(), tenant, device, metric, since, limit };
        show_rollups(&store, &query, args.json, &mut out)?;
    } else if args.follow {
        // Ends with the process: Ctrl-C, or whoever reads has enough.
        follow(&store, &query, args.json, &mut out, &|| false)?;
    } else {
        show(&store, &query, args.json, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the newest readings that the query means, the oldest first; returns where a follower goes on.
///
/// # Errors
/// The store's, and those of writing.
pub fn show(store: &Store, query: &ReadingsQuery, as_json: bool, out: &mut dyn Write) -> anyhow::Result<Page> {
    let page = store.readings(query)?;
    if as_json {
        output::json(out, &page.rows.iter().map(ReadingRow::json).collect())?;
    } else {
        output::table(out, &["TIME", "METRIC", "VALUE", "UNIT", "TENANT"], page.rows.iter().map(line))?;
    }
    Ok(page)
}

/// Shows the newest hours or days that the query means, the oldest first.
///
/// # Errors
/// The store's, and those of writing.
pub fn show_rollups(store: &Store, query: &RollupsQuery, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = store.rollups(query)?;
    if as_json {
        output::json(out, &rows.iter().map(rollup_json).collect())?;
    } else {
        let headers = ["TIME", "METRIC", "COUNT", "MIN", "MAX", "AVG", "STDDEV", "P50", "P95", "UNIT", "TENANT"];
        output::table(out, &headers, rows.iter().map(rollup_line))?;
    }
    Ok(())
}

/// Shows readings as they come, one a line (JSON: one document a line), until `stop`. Outages of the database are
/// waited out.
///
/// # Errors
/// The store's that waiting can't mend, and those of writing.
pub fn follow(
    store: &Store,
    query: &ReadingsQuery,
    as_json: bool,
    out: &mut dyn Write,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<()> {
    let mut query = query.clone();
    while !stop() {
        match store.readings(&query) {
            Ok(page) => {
                for row in &page.rows {
                    if as_json {
                        output::json_line(out, &row.json())?;
                    } else {
                        output::table(out, &[], [line(row)])?;
                    }
                }
                out.flush()?;
                query.after = Some(page.cursor);
                // The operator's limit is for the beginning; what came since is shown whole, unless it is a flood.
                query.limit = query.limit.max(FLOOD);
            }
            Err(error) if error.is_transient() => tracing::warn!(%error, "the readings can't be read; trying again"),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn line(row: &ReadingRow) -> Vec<String> {
    let value = row.value.map_or_else(|| or_dash(row.text.as_deref()), |value| value.to_string());
    vec![instant(row.time), row.metric.clone(), value, row.unit.clone(), row.tenant.clone()]
}

fn rollup_line(row: &RollupRow) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(|| or_dash(None), rounded);
    let figures = [Some(row.min), Some(row.max), row.avg, row.stddev, Some(row.p50), Some(row.p95)].map(number);
    let mut line = vec![row.time.clone(), row.metric.clone(), row.count.to_string()];
    line.extend(figures);
    line.extend([row.unit.clone(), row.tenant.clone()]);
    line
}

/// Six digits after the point are enough for the eye; JSON has them all.
fn rounded(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.is_finite() && rounded != 0.0 { rounded.to_string() } else { value.to_string() }
}

fn rollup_json(row: &RollupRow) -> Value {
    json!({
        "time": row.time, "tenant": row.tenant, "device": row.device, "metric": row.metric, "unit": row.unit,
        "count": row.count, "min": row.min, "max": row.max, "avg": row.avg, "sum": row.sum, "stddev": row.stddev,
        "first": row.first, "last": row.last, "p50": row.p50, "p95": row.p95,
    })
}

//! `tidegate journal status | replay`: what the journal holds, whether or not a daemon runs.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Place, output, replay};
use crate::catch_up::Pace;
use crate::config::Config;
use crate::journal::{self, Edge, Status};
use crate::store::Store;
use crate::store::{Reached, StoreError};
use crate::time::UtcMicros;

#[derive(Args, Debug)]
pub(super) struct JournalArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What the journal holds, and how far the database has come
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Run messages through today's sources and catalog, and store what was not stored before
    Replay(replay::ReplayArgs),
}

pub(super) fn run(place: &Place, args: &JournalArgs) -> anyhow::Result<ExitCode> {
    let json = match &args.action {
        Action::Status { json } => *json,
        Action::Replay(args) => {
            replay::run(place, args)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let config = place.config()?;
    let (status, committed, pace) = observe(&config)?;
    let mut out = std::io::stdout().lock();
    if json {
        let mut value = as_json(&status);
        if let serde_json::Value::Object(fields) = &mut value {
            let lag = committed.as_ref().ok().map(|reached| behind(&status, reached));
            fields.insert("committed".into(), json!(committed.as_ref().ok().map(|reached| reached.seq)));
            fields.insert("lag".into(), json!(lag));
            fields.insert("committed_per_second".into(), json!(pace.map(|pace| pace.committed)));
            fields.insert("arriving_per_second".into(), json!(pace.map(|pace| pace.arriving)));
            let left = pace.zip(lag).and_then(|(pace, lag)| pace.time_left(lag));
            fields.insert("seconds_left".into(), json!(left.map(|left| left.as_secs())));
        }
        output::json(&mut out, &value)?;
    } else {
        write_lines(&status, &mut out)?;
        match committed {
            Ok(reached) => {
                writeln!(out, "committed {}, {} behind", reached.seq, behind(&status, &reached))?;
                write_pace(&status, &reached, pace, &mut out)?;
            }
            Err(why) => writeln!(out, "committed unknown: {why}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How long the position may take to move before it counts as standing still, and between two looks at it.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);
/// The shortest time over which a pace is taken.
const SPAN: Duration = Duration::from_secs(1);

/// The journal's status, the position that the database has of it, or why that can't be told, and how fast the
/// position moves, if it has a way to go.
fn observe(config: &Config) -> anyhow::Result<(Status, Result<Reached, String>, Option<Pace>)> {
    let state_dir = &config.instance.state_dir;
    let first = journal::status(state_dir)?;
    let store = database(config).map_err(|error| error.to_string());
    let committed = |id: &str| {
        let store = store.as_ref().map_err(String::clone)?;
        let reached = store.committed(&config.instance.id, id).map_err(|error| error.to_string())?;
        Ok(reached.unwrap_or(Reached { seq: 0, at: UtcMicros(0) }))
    };
    let began = Instant::now();
    let from = match committed(&first.id) {
        Ok(from) if behind(&first, &from) > 0 => from,
        outcome => return Ok((first, outcome, None)),
    };
    loop {
        std::thread::sleep(LOOK);
        let status = journal::status(state_dir)?;
        let to = match committed(&first.id) {
            Ok(to) => to,
            Err(why) => return Ok((status, Err(why), None)),
        };
        let waited = began.elapsed();
        // By the daemon's own stamps, which tell exactly when each position was reached.
        let moved = to.at.since(from.at);
        if (to.seq > from.seq && moved >= SPAN) || waited >= PATIENCE || behind(&status, &to) == 0 {
            let arriving = Pace::of(0, status.last_seq.saturating_sub(first.last_seq), waited).arriving;
            let span = if from.seq > 0 && to.seq > from.seq { moved } else { waited };
            let committed = Pace::of(to.seq.saturating_sub(from.seq), 0, span).committed;
            return Ok((status, Ok(to), Some(Pace { committed, arriving })));
        }
    }
}

fn behind(status: &Status, reached: &Reached) -> u64 {
    status.last_seq.saturating_sub(reached.seq)
}

fn write_pace(status: &Status, reached: &Reached, pace: Option<Pace>, out: &mut impl Write) -> std::io::Result<()> {
    let behind = behind(status, reached);
    match pace {
        Some(pace) if behind > 0 && pace.committed > 0.0 => {
            let (committed, arriving, left) = (pace.committed, pace.arriving, pace.time_left_words(behind));
            writeln!(out, "pace      {committed:.0} messages/s committed, {arriving:.0} arriving, {left} left")
        }
        Some(pace) if behind > 0 => {
            writeln!(out, "pace      nothing committed for now, {:.0} messages/s arriving", pace.arriving)
        }
        _ => Ok(()),
    }
}

fn database(config: &Config) -> Result<Store, StoreError> {
    let store = Store::open(&config.database)?;
    store.ping().map(|()| store)
}

/// Writes the status of the journal in `state_dir` to `out`, as lines or as one JSON object.
///
/// # Errors
/// There is no journal, it can't be read, or `out` can't be written.
pub fn status(state_dir: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let status = journal::status(state_dir)?;
    if json {
        writeln!(out, "{}", as_json(&status))?
    } else {
        write_lines(&status, out)?
    }
    Ok(())
}

fn write_lines(status: &Status, out: &mut impl Write) -> std::io::Result<()> {
    let limit = status.max_size.map_or(String::new(), |limit| format!(" of {}", ByteSize(limit)));
    writeln!(out, "journal   {}", status.id)?;
    writeln!(out, "messages  {}", status.messages)?;
    writeln!(out, "size      {}{limit}", ByteSize(status.bytes))?;
    for (name, edge) in [("oldest", status.oldest), ("newest", status.newest)] {
        if let Some(Edge { seq, received_at }) = edge {
            writeln!(out, "{name}    {seq}, received {received_at}")?;
        }
    }
    writeln!(out, "last seq  {}", status.last_seq)?;
    Ok(())
}

/// The status as one object; sizes in bytes, times in RFC 3339.
pub fn as_json(status: &Status) -> serde_json::Value {
    let edge = |edge: Option<Edge>| {
        edge.map(|Edge { seq, received_at }| json!({ "seq": seq, "received_at": received_at.to_string() }))
    };
    json!({
        "id": status.id,
        "format": status.format,
        "messages": status.messages,
        "bytes": status.bytes,
        "max_size": status.max_size,
        "oldest": edge(status.oldest),
        "newest": edge(status.newest),
        "last_seq": status.last_seq,
    })
}

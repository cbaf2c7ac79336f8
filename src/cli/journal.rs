//! `tidegate journal status`: what the journal holds, whether or not a daemon runs.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Place, output};
use crate::config::Config;
use crate::journal::{self, Edge, Status};
use crate::message::Seq;
use crate::store::{Store, StoreError};
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
}

pub(super) fn run(place: &Place, args: &JournalArgs) -> anyhow::Result<ExitCode> {
    let Action::Status { json } = args.action;
    let config = place.config()?;
    let status = journal::status(&config.instance.state_dir)?;
    let committed = committed(&config, &status);
    let mut out = std::io::stdout().lock();
    if json {
        let mut value = as_json(&status);
        if let serde_json::Value::Object(fields) = &mut value {
            fields.insert("committed".into(), json!(committed.as_ref().ok()));
            fields.insert("lag".into(), json!(committed.as_ref().ok().map(|seq| status.last_seq.saturating_sub(*seq))));
        }
        output::json(&mut out, &value)?;
    } else {
        write_lines(&status, &mut out)?;
        match committed {
            Ok(seq) => writeln!(out, "committed {seq}, {} behind", status.last_seq.saturating_sub(seq))?,
            Err(why) => writeln!(out, "committed unknown: {why}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The position that the database has of this journal, or why it can't be told.
fn committed(config: &Config, status: &Status) -> Result<Seq, String> {
    let store = database(config).map_err(|error| error.to_string())?;
    match store.committed(&config.instance.id, &status.id) {
        Ok(position) => Ok(position.unwrap_or(0)),
        Err(error) => Err(error.to_string()),
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
            writeln!(out, "{name}    {seq}, received {}", rfc3339(received_at))?;
        }
    }
    writeln!(out, "last seq  {}", status.last_seq)?;
    Ok(())
}

/// The status as one object; sizes in bytes, times in RFC 3339.
pub fn as_json(status: &Status) -> serde_json::Value {
    let edge = |edge: Option<Edge>| {
        edge.map(|Edge { seq, received_at }| json!({ "seq": seq, "received_at": rfc3339(received_at) }))
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

fn rfc3339(time: UtcMicros) -> String {
    jiff::Timestamp::from_microsecond(time.0).map_or_else(|_| format!("{} µs", time.0), |time| time.to_string())
}

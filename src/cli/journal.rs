//! `tidegate journal status`: what the journal holds, whether or not a daemon runs.

use std::io::Write;
use std::path::Path;

use bytesize::ByteSize;
use serde_json::json;

use crate::journal::{self, Edge, Status};
use crate::time::UtcMicros;

/// Writes the status of the journal in `state_dir` to `out`, as lines or as one JSON object.
///
/// # Errors
/// There is no journal, it can't be read, or `out` can't be written.
pub fn status(state_dir: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let status = journal::status(state_dir)?;
    if json {
        writeln!(out, "{}", as_json(&status))?;
        return Ok(());
    }
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

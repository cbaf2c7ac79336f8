//! What a journal holds, told from its file, whether or not a daemon runs.

use std::path::Path;

use super::JournalError;
use super::file::{FORMAT, JournalFile};
use crate::message::Seq;
use crate::time::UtcMicros;

/// A journal in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// 32 hex digits, made with the journal: positions of another journal mean other messages.
    pub id: String,
    /// The file's format.
    pub format: i32,
    /// Messages it holds.
    pub messages: u64,
    /// Bytes of these; the file itself is somewhat larger.
    pub bytes: u64,
    /// The limit that the last daemon ran with; bytes.
    pub max_size: Option<u64>,
    /// None: it holds no message.
    pub oldest: Option<Edge>,
    pub newest: Option<Edge>,
    /// 0 in a journal that has never held one.
    pub last_seq: Seq,
}

/// One end of what a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub seq: Seq,
    pub received_at: UtcMicros,
}

/// Reads the status of the journal in `dir`; changes nothing.
///
/// # Errors
/// There is none, or its file can't be read.
pub fn status(dir: &Path) -> Result<Status, JournalError> {
    let mut file = JournalFile::open_existing(dir)?;
    let id = file.meta("id")?.ok_or_else(|| JournalError::Foreign { path: file.path().to_owned() })?;
    let max_size = file.meta("max_size")?.and_then(|text| text.parse().ok());
    let oldest = file.oldest(1)?.pop();
    let newest = file.newest()?;
    let mut status = Status {
        id,
        format: FORMAT,
        messages: 0,
        bytes: 0,
        max_size,
        oldest: oldest.map(|group| Edge { seq: group.first, received_at: group.received_from }),
        newest: newest.map(|group| Edge { seq: group.last, received_at: group.received_to }),
        last_seq: newest.map_or(0, |group| group.last),
    };
    if let (Some(oldest), Some(newest)) = (oldest, newest) {
        let in_oldest = oldest.last.saturating_sub(oldest.first).saturating_add(1);
        status.messages = newest.messages_to.saturating_sub(oldest.messages_to).saturating_add(in_oldest);
        status.bytes = newest.bytes_to.saturating_sub(oldest.bytes_to).saturating_add(oldest.bytes);
    }
    Ok(status)
}

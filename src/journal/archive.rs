//! Reads what a journal's file still holds, from a time on, beside a daemon or without one. Changes nothing.

use std::path::Path;

use super::JournalError;
use super::file::{Extent, JournalFile};
use super::frame::Frames;
use super::tail::CHUNK;
use crate::message::{Message, Seq};
use crate::time::UtcMicros;

/// Groups looked up at once.
const LOOK_AHEAD: i64 = 256;

/// The messages received since some time, oldest first.
pub struct Archive {
    file: JournalFile,
    id: String,
    since: UtcMicros,
    next: Seq,
    /// The newest message when it was opened: it does not run after a daemon.
    last: Seq,
    begins: Option<UtcMicros>,
    messages: u64,
    damaged: u64,
}

impl Archive {
    /// Opens the journal in `dir`.
    ///
    /// # Errors
    /// There is none, or its file can't be read.
    pub fn open(dir: &Path, since: UtcMicros) -> Result<Archive, JournalError> {
        let mut file = JournalFile::open_existing(dir)?;
        let id = file.meta("id")?.ok_or_else(|| JournalError::Foreign { path: file.path().to_owned() })?;
        let newest = file.newest()?;
        let first = first_since(&mut file, since)?;
        let messages = match (first, newest) {
            (Some(first), Some(newest)) => {
                newest.messages_to.saturating_sub(first.messages_to).saturating_add(size(&first))
            }
            _ => 0,
        };
        Ok(Archive {
            file,
            id,
            since,
            next: first.map_or(Seq::MAX, |first| first.first),
            last: newest.map_or(0, |newest| newest.last),
            begins: first.map(|first| first.received_from.max(since)),
            messages,
            damaged: 0,
        })
    }

    /// The journal's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// About when its first message was received; none: there is no message.
    pub fn begins(&self) -> Option<UtcMicros> {
        self.begins
    }

    /// How many messages there are to look at, about.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Messages that were passed over because their records are damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// About 1 MiB of messages; none at the end. What a daemon trims meanwhile is left out.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&mut self) -> Result<Option<Vec<Message>>, JournalError> {
        let mut messages = Vec::new();
        let mut bytes = 0_u64;
        while messages.is_empty() || bytes < CHUNK as u64 {
            let extents =
                if self.next > self.last { Vec::new() } else { self.file.extents_from(self.next, LOOK_AHEAD)? };
            if extents.is_empty() {
                break;
            }
            for extent in extents {
                if !messages.is_empty() && bytes >= CHUNK as u64 {
                    break;
                }
                bytes = bytes.saturating_add(extent.bytes);
                self.next = extent.last.saturating_add(1);
                if extent.received_to >= self.since {
                    self.unpack(&extent, &mut messages)?;
                }
            }
        }
        Ok((!messages.is_empty()).then_some(messages))
    }

    /// The message at `seq`, if it is there and can be read.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn get(&mut self, seq: Seq) -> Result<Option<Message>, JournalError> {
        let extent = self.file.extents_from(seq, 1)?.pop().filter(|extent| extent.first <= seq);
        let Some(extent) = extent else { return Ok(None) };
        let blob = self.file.frames(extent.first)?;
        Ok(blob.and_then(|blob| Frames::new(extent.first, extent.last, blob).get(seq).ok()))
    }

    fn unpack(&mut self, extent: &Extent, messages: &mut Vec<Message>) -> Result<(), JournalError> {
        let blob = match self.file.frames(extent.first) {
            Ok(Some(blob)) => blob,
            Ok(None) => return Ok(()),
            Err(error) if error.is_malformed() => {
                self.damaged = self.damaged.saturating_add(size(extent));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let frames = Frames::new(extent.first, extent.last, blob);
        let mut seq = extent.first;
        while seq <= extent.last {
            match frames.get(seq) {
                Ok(message) if message.received_at >= self.since => messages.push(message),
                Ok(_) => {}
                Err(damage) => {
                    self.damaged = self.damaged.saturating_add(damage.to.saturating_sub(seq).saturating_add(1));
                    seq = damage.to;
                }
            }
            seq = seq.saturating_add(1);
        }
        Ok(())
    }
}

fn size(extent: &Extent) -> u64 {
    extent.last.saturating_sub(extent.first).saturating_add(1)
}

/// The first group with a message that is not older. The clock may have been set back, so they are looked at in turn.
fn first_since(file: &mut JournalFile, since: UtcMicros) -> Result<Option<Extent>, JournalError> {
    let mut next = 0;
    loop {
        let extents = file.extents_from(next, LOOK_AHEAD)?;
        let Some(last) = extents.last().map(|extent| extent.last) else { return Ok(None) };
        if let Some(found) = extents.into_iter().find(|extent| extent.received_to >= since) {
            return Ok(Some(found));
        }
        next = last.saturating_add(1);
    }
}

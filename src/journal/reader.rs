//! Reads the journal from a position: from memory where the tail has it, else from the disk.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file::{Extent, JournalFile};
use super::frame::{Damage, Frames};
use super::group::weight;
use super::place::Place;
use super::tail::{CHUNK, Found, Tail};
use super::{FILE_NAME, JournalError, corrupt};
use crate::message::{Message, Seq};
use crate::metrics::Metrics;

/// Most groups looked up at once.
const LOOK_AHEAD: i64 = 256;

/// A place to read the journal from. It sees only messages that are durable (with an interval as `sync`: committed).
pub struct Reader {
    dir: PathBuf,
    tail: Arc<Tail>,
    metrics: Metrics,
    /// Opened at the first read from the disk.
    file: Option<(Place, JournalFile)>,
    /// Groups from the disk that are not read to their end.
    loaded: VecDeque<Frames>,
    /// Where `loaded` goes on.
    expected: Seq,
    /// After the first and up to the second of these is nothing that can be read.
    hole: Option<(Seq, Seq)>,
}

/// What follows a position.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// In order, about 1 MiB at most, never empty. A position is missing only if its record was damaged, or if the
    /// journal was told to continue after a later one.
    Messages(Vec<Arc<Message>>),
    /// Nothing came in the time given.
    Idle,
    /// The journal has ended and everything was read.
    End,
}

impl Reader {
    pub(super) fn new(dir: PathBuf, tail: Arc<Tail>, metrics: Metrics) -> Reader {
        Reader { dir, tail, metrics, file: None, loaded: VecDeque::new(), expected: 0, hole: None }
    }

    /// The messages after `after`, waiting up to `wait` for the first. Asking again for the same position gives the
    /// same messages again.
    ///
    /// # Errors
    /// The file can't be read; trying again later may help, unless it is malformed.
    pub fn next(&mut self, after: Seq, wait: Duration) -> Result<Next, JournalError> {
        let deadline = Instant::now().checked_add(wait);
        loop {
            let after = match self.hole {
                Some((from, to)) if (from..to).contains(&after) => to,
                _ => after,
            };
            let wait = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.tail.look(after, wait) {
                Found::Messages(messages) => {
                    self.loaded.clear();
                    return Ok(Next::Messages(messages));
                }
                Found::OnDisk(last) => {
                    let messages = self.read(after, last).inspect_err(|error| self.give_up(error))?;
                    if !messages.is_empty() {
                        return Ok(Next::Messages(messages));
                    }
                }
                Found::Nothing => return Ok(Next::Idle),
                Found::Ended => return Ok(Next::End),
            }
        }
    }

    /// The message at `seq`, if the journal still has it and can read it.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn get(&mut self, seq: Seq) -> Result<Option<Message>, JournalError> {
        if let Some(message) = self.tail.get(seq) {
            return Ok(Some(Message::clone(&message)));
        }
        if seq > self.last_durable() {
            return Ok(None);
        }
        let file = opened(&mut self.file, &self.dir, &self.tail)?;
        let Some(extent) = file.extents_from(seq, 1)?.pop().filter(|extent| extent.first <= seq) else {
            return Ok(None);
        };
        let Some(blob) = file.frames(extent.first)? else { return Ok(None) };
        match Frames::new(extent.first, extent.last, blob).get(seq) {
            Ok(message) => Ok(Some(message)),
            Err(damage) => {
                corrupt::set_aside_record(&self.dir, &damage, &self.metrics);
                Ok(None)
            }
        }
    }

    /// The newest position that can be read; 0 in an empty journal.
    pub fn last_durable(&self) -> Seq {
        self.tail.last()
    }

    /// A journal whose structure is broken ahead of a reader would stop it at every start: the next one begins a new one.
    fn give_up(&self, error: &JournalError) {
        if error.is_malformed() {
            corrupt::condemn(&self.dir, error);
        }
    }

    /// About a chunk of what the disk has after `after` and up to `last`; if that can't be read, it becomes the hole.
    fn read(&mut self, after: Seq, last: Seq) -> Result<Vec<Arc<Message>>, JournalError> {
        let mut next = after.saturating_add(1);
        if next != self.expected {
            self.loaded.clear();
        }
        let mut messages = Vec::new();
        let mut bytes = 0_usize;
        while next <= last && bytes < CHUNK {
            let Some(frames) = self.loaded.front() else {
                if !messages.is_empty() {
                    break;
                }
                next = self.load(next, last)?;
                continue;
            };
            next = next.max(frames.first());
            while next <= frames.last().min(last) && bytes < CHUNK {
                match frames.get(next) {
                    Ok(message) => {
                        bytes = bytes.saturating_add(weight(&message));
                        next = next.saturating_add(1);
                        messages.push(Arc::new(message));
                    }
                    Err(damage) => {
                        corrupt::set_aside_record(&self.dir, &damage, &self.metrics);
                        next = damage.to.saturating_add(1);
                    }
                }
            }
            if next > frames.last() {
                self.loaded.pop_front();
            }
        }
        self.expected = next;
        if messages.is_empty() {
            self.hole = Some((after, next.saturating_sub(1)));
        }
        Ok(messages)
    }

    /// Loads about a chunk of groups that begin with the one that holds `next`. Returns the first position that may
    /// be readable from now on.
    fn load(&mut self, next: Seq, last: Seq) -> Result<Seq, JournalError> {
        let file = opened(&mut self.file, &self.dir, &self.tail)?;
        let extents = match file.extents_from(next, LOOK_AHEAD) {
            // Up to the broken place there may be groups that can be read.
            Err(error) if error.is_malformed() => file.extents_from(next, 1)?,
            outcome => outcome?,
        };
        let Some(from) = extents.first().map(|extent| extent.first) else { return Ok(last.saturating_add(1)) };
        let mut from = from.max(next);
        let mut bytes = 0_usize;
        for Extent { first, last, bytes: size, .. } in extents {
            if bytes >= CHUNK {
                break;
            }
            bytes = bytes.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            match file.frames(first) {
                Ok(Some(blob)) => self.loaded.push_back(Frames::new(first, last, blob)),
                // Trimmed since.
                Ok(None) => {}
                Err(error) if error.is_malformed() => {
                    corrupt::set_aside_record(&self.dir, &Damage { from: first, to: last, bytes: &[] }, &self.metrics);
                }
                Err(error) => return Err(error),
            }
            if self.loaded.is_empty() {
                from = last.saturating_add(1);
            }
        }
        Ok(from)
    }
}

/// The file where the tail has it; opened where it is not yet, or where it was another before. Once the journal has ended, its log
/// is gone and who opens the file gets a new one.
fn opened<'a>(
    file: &'a mut Option<(Place, JournalFile)>,
    dir: &Path,
    tail: &Tail,
) -> Result<&'a mut JournalFile, JournalError> {
    let place = tail.place();
    if file.as_ref().is_some_and(|(opened, _)| *opened != place) {
        *file = None;
    }
    match file {
        Some((_, file)) => Ok(file),
        None => {
            let opened = JournalFile::open_existing(dir)?;
            let same = |found: &Place| *found == place || (tail.has_ended() && found.is_file_of(&place));
            if !Place::of(dir)?.is_some_and(|found| same(&found)) {
                return Err(JournalError::Displaced { path: dir.join(FILE_NAME) });
            }
            Ok(&mut file.insert((place, opened)).1)
        }
    }
}

//! Sees that the journal's files are still what their names lead to, and writes them anew when they are not.
//!
//! SQLite goes on writing to a file whose name was removed or given to another: a restart would not find what was
//! acknowledged since. The open file still has everything, so it is copied under its name again before anything more
//! is acknowledged.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::file::{JournalFile, sync_dir};
use super::{FILE_NAME, JournalError, corrupt};

/// The copy while it grows, and once it is whole and on the disk.
const GROWING: &str = "journal.db.rescue-part";
const RESCUED: &str = "journal.db.rescue";

/// Which files the journal consists of, by device and inode; it holds while they are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: (u64, u64),
    log: (u64, u64),
}

impl Place {
    /// Where the names lead now. None: one of them leads nowhere.
    ///
    /// # Errors
    /// The directory can't be looked into.
    pub fn of(dir: &Path) -> Result<Option<Place>, JournalError> {
        let file = identity(dir, FILE_NAME)?;
        let log = identity(dir, &format!("{FILE_NAME}-wal"))?;
        Ok(file.zip(log).map(|(file, log)| Place { file, log }))
    }

    /// Whether the file is the same; the log need not be.
    pub fn is_file_of(&self, other: &Place) -> bool {
        self.file == other.file
    }
}

fn identity(dir: &Path, name: &str) -> Result<Option<(u64, u64)>, JournalError> {
    let path = dir.join(name);
    match fs::metadata(&path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(JournalError::Io { doing: "looking at", path, source }),
    }
}

/// Copies the open journal and gives the copy its name; what has the name now is kept under another.
///
/// # Errors
/// The copy can't be made. The open file is as it was, and trying again later may help.
pub(super) fn write_anew(open: &mut JournalFile, dir: &Path) -> Result<JournalFile, JournalError> {
    let growing = dir.join(GROWING);
    remove(&growing)?;
    open.copy_into(&growing)?;
    File::open(&growing)
        .and_then(|copy| copy.sync_all())
        .and_then(|()| fs::rename(&growing, dir.join(RESCUED)))
        .map_err(|source| JournalError::Io { doing: "writing anew", path: growing, source })?;
    sync_dir(dir)?;
    finish(dir)?;
    JournalFile::open(dir)
}

/// Gives a whole copy its name; also the first thing at a start, since a crash may have come between.
pub(super) fn finish(dir: &Path) -> Result<(), JournalError> {
    let rescued = dir.join(RESCUED);
    if !rescued.try_exists().unwrap_or(false) {
        return Ok(());
    }
    if let Some(kept) = corrupt::move_away(dir, "stray")? {
        tracing::warn!(kept = %kept.display(), "what lay in the journal's place was set aside");
    }
    let path = dir.join(FILE_NAME);
    fs::rename(&rescued, &path).map_err(|source| JournalError::Io { doing: "putting back", path, source })?;
    sync_dir(dir)
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(JournalError::Io { doing: "removing", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

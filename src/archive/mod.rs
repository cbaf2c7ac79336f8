//! Readings in files: written before they are dropped, listed, checked, read back.
//!
//! A directory holds gzipped CSV files (RFC 4180), each with the readings of one table in one stretch of time, and
//! `manifest.jsonl`, a line of JSON for each. Every row names its series, so that they can be read without the database.

mod manifest;
mod read;
mod write;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub use manifest::Entry;
pub use read::{Checked, Reader, Row};
pub use write::ArchiveFile;

use crate::store::layout::{ReadingTable, Span};

/// The columns of every file.
pub const COLUMNS: [&str; 7] = ["time", "tenant", "device", "metric", "unit", "kind", "value"];
/// What the files look like; a change that an older tidegate can't read raises it.
pub const FORMAT: u32 = 1;

/// A failure of the archive. Nothing is dropped after one.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{what} {} failed: {source}; see that [archive] dir exists, is writable and has room", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {detail}; restore the file from a copy, or remove its line from manifest.jsonl", path.display())]
    Damaged { path: PathBuf, detail: String },
    #[error("{name} is not in the archive; `tidegate archive list` shows what is")]
    Unknown { name: String },
}

/// Says what failed, and to which file.
trait At<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, ArchiveError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, ArchiveError> {
        self.map_err(|source| ArchiveError::Io { what, path: path.to_owned(), source })
    }
}

/// The archive's directory.
#[derive(Clone, Debug)]
pub struct Archive {
    dir: PathBuf,
}

impl Archive {
    /// The directory need not exist yet.
    pub fn new(dir: PathBuf) -> Archive {
        Archive { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What there is, in the order in which it was written; lines that can't be read are passed over with a warning. None
    /// when there is no manifest yet.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn entries(&self) -> Result<Vec<Entry>, ArchiveError> {
        manifest::read(&self.dir)
    }

    /// Begins a file for the readings of a stretch of time.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn begin(&self, table: ReadingTable, span: Span) -> Result<ArchiveFile, ArchiveError> {
        fs::create_dir_all(&self.dir).at("making", &self.dir)?;
        ArchiveFile::begin(&self.dir, table, span)
    }

    /// Reads a file's rows.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn read(&self, entry: &Entry) -> Result<Reader, ArchiveError> {
        Reader::open(&self.dir.join(&entry.file))
    }

    /// Holds a file against its line in the manifest: size, checksum and number of rows.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn check(&self, entry: &Entry) -> Result<Checked, ArchiveError> {
        read::check(&self.dir, entry)
    }

    /// Files in the directory that the manifest does not name: left by a crash between a file and its line, whose readings
    /// were not dropped.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn strays(&self) -> Result<Vec<String>, ArchiveError> {
        let known = self.entries()?;
        let mut strays = Vec::new();
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(strays),
            Err(error) => return Err(error).at("listing", &self.dir),
        };
        for file in listing {
            let name = file.at("listing", &self.dir)?.file_name().to_string_lossy().into_owned();
            if name != manifest::FILE && known.iter().all(|entry| entry.file != name) {
                strays.push(name);
            }
        }
        strays.sort();
        Ok(strays)
    }
}

/// A rename is on the disk once its directory is.
fn sync_dir(dir: &Path) -> Result<(), ArchiveError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("syncing", dir)
}

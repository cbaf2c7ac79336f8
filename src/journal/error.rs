//! What can go wrong with the journal, and what to do then.

use std::path::PathBuf;

use super::file::FORMAT;
use crate::message::Seq;

/// Why the journal can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("there is no journal at {}: no daemon has run with this state directory yet", path.display())]
    Absent { path: PathBuf },
    #[error("can't open the journal {}: {source}; check that the directory exists and that this user can write it", path.display())]
    Open { path: PathBuf, source: diesel::ConnectionError },
    #[error(
        "the journal {} has format {found} and this tidegate knows up to {FORMAT}: go back to the newer tidegate, \
         or move the file away and lose what in it has not reached the database", path.display()
    )]
    Newer { path: PathBuf, found: i32 },
    #[error("{} is a SQLite file but no journal: move it away, or set another instance.state_dir", path.display())]
    Foreign { path: PathBuf },
    #[error("the file system of {} can't hold a write-ahead log: put instance.state_dir on a local disk", path.display())]
    NoWal { path: PathBuf },
    #[error("{doing} the journal {} failed: {source}; {}", path.display(), advice(source))]
    Sql { doing: &'static str, path: PathBuf, source: diesel::result::Error },
    #[error("{doing} {} failed: {source}; check that the directory exists and that this user can write it", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("the journal {} was removed or replaced while it is in use: leave the state directory alone, it is being put back", path.display())]
    Displaced { path: PathBuf },
    #[error("message {seq} can't be encoded for the journal: {source}; please report this")]
    Encode { seq: Seq, source: postcard::Error },
}

impl JournalError {
    /// True if the file's structure is broken, so that trying again can't help.
    pub fn is_malformed(&self) -> bool {
        matches!(self, JournalError::Sql { source, .. } if is_malformed(source))
    }
}

// diesel does not pass SQLite's result codes on; these are the fixed texts of CORRUPT and NOTADB.
fn is_malformed(error: &diesel::result::Error) -> bool {
    let text = error.to_string();
    text.contains("database disk image is malformed") || text.contains("file is not a database")
}

fn advice(error: &diesel::result::Error) -> &'static str {
    let text = error.to_string();
    if is_malformed(error) {
        "the next start sets the file aside and begins a new journal; `sqlite3 FILE .recover` may save messages from it"
    } else if text.contains("disk is full") {
        "free space on its file system"
    } else if text.contains("locked") {
        "another program holds the file: end it"
    } else if text.contains("readonly") {
        "make the file and its directory writable for this user; if they are, check the disk, and the kernel's log: the file \
         system may have turned read-only"
    } else if text.contains("unable to open") {
        "check that the directory exists and that this user can write it"
    } else {
        "check the disk, and the kernel's log: the file system may have turned read-only"
    }
}

//! What can't be read is set aside under a name of its own, counted and said; the rest goes on.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::frame::Damage;
use super::{FILE_NAME, JournalError};
use crate::metrics::Metrics;

/// Says, in the state directory, that `journal.db` was found malformed while it was in use.
const CONDEMNED: &str = "journal.db.malformed";

/// Copies a damaged record to `journal-corrupt-<seq>.bin`. It is counted once, when that file is made, however often
/// it is met. All copies together are no larger than the journal.
pub(super) fn set_aside_record(dir: &Path, damage: &Damage<'_>, metrics: &Metrics) {
    let path = dir.join(format!("journal-corrupt-{}.bin", damage.from));
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    let copied = match made.and_then(|mut file| file.write_all(damage.bytes)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return,
        outcome => outcome,
    };
    let records = damage.to.saturating_sub(damage.from).saturating_add(1);
    metrics.journal_corrupt_records.inc_by(records);
    tracing::error!(
        first_seq = damage.from,
        last_seq = damage.to,
        copy = %path.display(),
        copy_error = copied.err().map(tracing::field::display),
        "records of the journal are damaged and were skipped; check the disk"
    );
}

/// Marks a journal whose structure broke while it ran, so that the next start begins a new one. Until then what is
/// still readable in it can reach the database.
pub(super) fn condemn(dir: &Path, cause: &JournalError) {
    if let Err(error) = fs::write(dir.join(CONDEMNED), format!("{cause}\n")) {
        tracing::error!(%error, "can't mark the journal as malformed; move journal.db away by hand");
    }
}

/// Why the journal in `dir` must not be used, if that shows before it is opened.
pub(super) fn condemned(dir: &Path) -> Option<String> {
    // SQLite would take a file cut to nothing for a new one, and drop the log beside it.
    const SQLITE_HEADER: u64 = 100;
    let length = |name: &str| fs::metadata(dir.join(name)).map(|metadata| metadata.len());
    match (length(FILE_NAME), length(&format!("{FILE_NAME}-wal"))) {
        (Ok(0), Err(_) | Ok(0)) | (Err(_), _) => None,
        (Ok(0..SQLITE_HEADER), _) => Some("it is shorter than any SQLite file".into()),
        (Ok(_), _) => fs::read_to_string(dir.join(CONDEMNED)).ok(),
    }
}

/// Renames a journal that SQLite can't read, with its write-ahead log, to `journal.db.corrupt-<UTC stamp>`.
pub(super) fn set_aside_file(dir: &Path, cause: &str, metrics: &Metrics) -> Result<(), JournalError> {
    let Some(kept) = move_away(dir, "corrupt")? else { return Ok(()) };
    let marker = dir.join(CONDEMNED);
    match fs::remove_file(&marker) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(JournalError::Io { doing: "removing", path: marker, source });
        }
        _ => {}
    }
    metrics.journal_files_set_aside.inc();
    tracing::error!(
        cause = cause.trim_end(),
        kept = %kept.display(),
        "THE JOURNAL CAN'T BE READ: it was set aside and a new one begins. Messages in it that had not reached the \
         database are missing; `sqlite3 FILE .recover` may save them"
    );
    Ok(())
}

/// Renames whatever has the journal's name, with its write-ahead log, to `journal.db.<kind>-<UTC stamp>`; tells that
/// name. None: nothing has it.
pub(super) fn move_away(dir: &Path, kind: &str) -> Result<Option<PathBuf>, JournalError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let kept = free_name(dir, &format!("{FILE_NAME}.{kind}-{stamp}"));
    let mut moved = false;
    for suffix in ["-wal", "-shm", ""] {
        let from = dir.join(format!("{FILE_NAME}{suffix}"));
        let mut to = kept.clone().into_os_string();
        to.push(suffix);
        match fs::rename(&from, &to) {
            Ok(()) => moved = true,
            Err(source) if source.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(JournalError::Io { doing: "setting aside", path: from, source }),
        }
    }
    Ok(moved.then_some(kept))
}

/// A path for `name` that nothing has yet.
pub(super) fn free_name(dir: &Path, name: &str) -> PathBuf {
    let mut path = dir.join(name);
    let mut number = 1_u32;
    while path.exists() {
        number = number.saturating_add(1);
        path = dir.join(format!("{name}-{number}"));
    }
    path
}

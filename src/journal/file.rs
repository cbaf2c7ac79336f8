//! The journal's SQLite file: the only place in this room that knows SQL.
//!
//! Write-ahead log; one group is one row, so one INSERT is one commit. Checkpoints are made by hand, after the
//! acknowledgements. Pages of deleted groups are used again, so that the file grows to the most it has held.

mod traces;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::dsl::max;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};

use super::{FILE_NAME, JournalError};
use crate::message::Seq;
use crate::time::UtcMicros;

/// The file format, in `PRAGMA user_version`.
pub(super) const FORMAT: i32 = 1;
// `*_to` columns are running sums since the journal began: totals need no scan, since groups go oldest first.
const SCHEMA: &str = "
    CREATE TABLE journal_groups (
        first_seq     INTEGER PRIMARY KEY,
        last_seq      INTEGER NOT NULL,
        received_from INTEGER NOT NULL,
        received_to   INTEGER NOT NULL,
        messages_to   INTEGER NOT NULL,
        bytes         INTEGER NOT NULL,
        bytes_to      INTEGER NOT NULL,
        frames        BLOB    NOT NULL
    );
    CREATE TABLE journal_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

diesel::table! {
    journal_groups (first_seq) {
        first_seq -> BigInt,
        last_seq -> BigInt,
        received_from -> BigInt,
        received_to -> BigInt,
        messages_to -> BigInt,
        bytes -> BigInt,
        bytes_to -> BigInt,
        frames -> Binary,
    }
}

diesel::table! {
    journal_meta (key) {
        key -> Text,
        value -> Text,
    }
}

/// A group without its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub first: Seq,
    pub last: Seq,
    pub received_from: UtcMicros,
    pub received_to: UtcMicros,
    /// Messages ever written, up to and with this group.
    pub messages_to: u64,
    pub bytes: u64,
    /// Bytes ever written, up to and with this group.
    pub bytes_to: u64,
}

type ExtentRow = (i64, i64, i64, i64, i64, i64, i64);
type ExtentColumns = (
    journal_groups::first_seq,
    journal_groups::last_seq,
    journal_groups::received_from,
    journal_groups::received_to,
    journal_groups::messages_to,
    journal_groups::bytes,
    journal_groups::bytes_to,
);
const EXTENT: ExtentColumns = (
    journal_groups::first_seq,
    journal_groups::last_seq,
    journal_groups::received_from,
    journal_groups::received_to,
    journal_groups::messages_to,
    journal_groups::bytes,
    journal_groups::bytes_to,
);

impl From<ExtentRow> for Extent {
    fn from((first, last, from, to, messages_to, bytes, bytes_to): ExtentRow) -> Extent {
        Extent {
            first: unsigned(first),
            last: unsigned(last),
            received_from: UtcMicros(from),
            received_to: UtcMicros(to),
            messages_to: unsigned(messages_to),
            bytes: unsigned(bytes),
            bytes_to: unsigned(bytes_to),
        }
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[derive(QueryableByName)]
struct UserVersion {
    #[diesel(sql_type = Integer)]
    user_version: i32,
}

#[derive(QueryableByName)]
struct JournalMode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

#[derive(QueryableByName)]
struct Checkpoint {
    /// Frames in the write-ahead log; -1 without one.
    #[diesel(sql_type = BigInt)]
    log: i64,
}

#[derive(QueryableByName)]
struct Tables {
    #[diesel(sql_type = BigInt)]
    tables: i64,
}

/// How far a commit reaches before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Synchronous {
    /// The disk.
    Full,
    /// The operating system.
    Normal,
}

/// A connection to the journal's file.
pub(super) struct JournalFile {
    connection: SqliteConnection,
    path: PathBuf,
}

impl JournalFile {
    /// Opens the file to write it, and makes it if it is not there.
    pub fn open(dir: &Path) -> Result<JournalFile, JournalError> {
        let mut file = JournalFile::connect(dir, "rwc")?;
        let found = file.format()?;
        if found > FORMAT {
            return Err(JournalError::Newer { path: file.path, found });
        }
        if found == 0 && file.has_tables()? {
            return Err(JournalError::Foreign { path: file.path });
        }
        let mode: JournalMode =
            sql_query("PRAGMA journal_mode = WAL").get_result(&mut file.connection).map_err(file.failed("opening"))?;
        if mode.journal_mode != "wal" {
            return Err(JournalError::NoWal { path: file.path });
        }
        file.pragma("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 16777216")?;
        if found == 0 {
            file.create()?;
        }
        file.pragma(traces::SCHEMA)?;
        Ok(file)
    }

    /// Opens the file to read it, beside a process that may be writing it.
    pub fn open_existing(dir: &Path) -> Result<JournalFile, JournalError> {
        let path = dir.join(FILE_NAME);
        if !path.exists() {
            return Err(JournalError::Absent { path });
        }
        let mut file = JournalFile::connect(dir, "rw")?;
        file.pragma("PRAGMA query_only = ON")?;
        match file.format()? {
            FORMAT => Ok(file),
            0 => Err(JournalError::Foreign { path }),
            found => Err(JournalError::Newer { path, found }),
        }
    }

    fn connect(dir: &Path, mode: &str) -> Result<JournalFile, JournalError> {
        let path = dir.join(FILE_NAME);
        let connection = SqliteConnection::establish(&uri(&path, mode))
            .map_err(|source| JournalError::Open { path: path.clone(), source })?;
        let mut file = JournalFile { connection, path };
        file.pragma("PRAGMA busy_timeout = 2000")?;
        Ok(file)
    }

    fn format(&mut self) -> Result<i32, JournalError> {
        let version: UserVersion =
            sql_query("PRAGMA user_version").get_result(&mut self.connection).map_err(self.failed("opening"))?;
        Ok(version.user_version)
    }

    fn has_tables(&mut self) -> Result<bool, JournalError> {
        let count: Tables = sql_query("SELECT count(*) AS tables FROM sqlite_schema")
            .get_result(&mut self.connection)
            .map_err(self.failed("opening"))?;
        Ok(count.tables != 0)
    }

    fn create(&mut self) -> Result<(), JournalError> {
        let id = fastrand::u128(..);
        let sql = format!(
            "BEGIN IMMEDIATE; {SCHEMA} INSERT INTO journal_meta VALUES ('id', '{id:032x}');
             PRAGMA user_version = {FORMAT}; COMMIT;"
        );
        self.connection.batch_execute(&sql).map_err(self.failed("creating"))?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn meta(&mut self, key: &str) -> Result<Option<String>, JournalError> {
        journal_meta::table
            .find(key)
            .select(journal_meta::value)
            .first(&mut self.connection)
            .optional()
            .map_err(self.failed("reading"))
    }

    pub fn set_meta(&mut self, key: &str, value: &str) -> Result<(), JournalError> {
        diesel::replace_into(journal_meta::table)
            .values((journal_meta::key.eq(key), journal_meta::value.eq(value)))
            .execute(&mut self.connection)
            .map(|_| ())
            .map_err(self.failed("writing"))
    }

    pub fn set_synchronous(&mut self, synchronous: Synchronous) -> Result<(), JournalError> {
        self.pragma(match synchronous {
            Synchronous::Full => "PRAGMA synchronous = FULL",
            Synchronous::Normal => "PRAGMA synchronous = NORMAL",
        })
    }

    /// Writes one group, as one commit.
    pub fn append(&mut self, extent: &Extent, frames: &[u8]) -> Result<(), JournalError> {
        diesel::insert_into(journal_groups::table)
            .values((
                journal_groups::first_seq.eq(signed(extent.first)),
                journal_groups::last_seq.eq(signed(extent.last)),
                journal_groups::received_from.eq(extent.received_from.0),
                journal_groups::received_to.eq(extent.received_to.0),
                journal_groups::messages_to.eq(signed(extent.messages_to)),
                journal_groups::bytes.eq(signed(extent.bytes)),
                journal_groups::bytes_to.eq(signed(extent.bytes_to)),
                journal_groups::frames.eq(frames),
            ))
            .execute(&mut self.connection)
            .map(|_| ())
            .map_err(self.failed("writing"))
    }

    pub fn newest(&mut self) -> Result<Option<Extent>, JournalError> {
        self.newest_before(u64::MAX)
    }

    /// The newest group that begins before `seq`.
    pub fn newest_before(&mut self, seq: Seq) -> Result<Option<Extent>, JournalError> {
        let row: Option<ExtentRow> = journal_groups::table
            .filter(journal_groups::first_seq.lt(signed(seq)))
            .order(journal_groups::first_seq.desc())
            .select(EXTENT)
            .first(&mut self.connection)
            .optional()
            .map_err(self.failed("reading"))?;
        Ok(row.map(Extent::from))
    }

    /// The oldest groups, up to `limit`, oldest first.
    pub fn oldest(&mut self, limit: i64) -> Result<Vec<Extent>, JournalError> {
        self.extents(0, limit)
    }

    /// The group that holds `seq` and those after it, up to `limit`; where no group holds it, those after it.
    pub fn extents_from(&mut self, seq: Seq, limit: i64) -> Result<Vec<Extent>, JournalError> {
        let start: Option<i64> = journal_groups::table
            .filter(journal_groups::first_seq.le(signed(seq)))
            .select(max(journal_groups::first_seq))
            .get_result(&mut self.connection)
            .map_err(self.failed("reading"))?;
        let mut extents = self.extents(start.unwrap_or(0), limit)?;
        extents.retain(|extent| extent.last >= seq);
        Ok(extents)
    }

    fn extents(&mut self, from: i64, limit: i64) -> Result<Vec<Extent>, JournalError> {
        let rows: Vec<ExtentRow> = journal_groups::table
            .filter(journal_groups::first_seq.ge(from))
            .order(journal_groups::first_seq.asc())
            .limit(limit)
            .select(EXTENT)
            .load(&mut self.connection)
            .map_err(self.failed("reading"))?;
        Ok(rows.into_iter().map(Extent::from).collect())
    }

    /// The frames of the group that begins at `first`, if it is still there.
    pub fn frames(&mut self, first: Seq) -> Result<Option<Vec<u8>>, JournalError> {
        journal_groups::table
            .find(signed(first))
            .select(journal_groups::frames)
            .first(&mut self.connection)
            .optional()
            .map_err(self.failed("reading"))
    }

    /// Moves the write-ahead log into the file; waits for readers only with `wait`. Returns the log's frames.
    pub fn checkpoint(&mut self, wait: bool) -> Result<u64, JournalError> {
        let mode = if wait { "TRUNCATE" } else { "PASSIVE" };
        let done: Checkpoint = sql_query(format!("PRAGMA wal_checkpoint({mode})"))
            .get_result(&mut self.connection)
            .map_err(self.failed("checkpointing"))?;
        Ok(unsigned(done.log))
    }

    /// Writes all of it, as last committed, to a new file at `path`.
    pub fn copy_into(&mut self, path: &Path) -> Result<(), JournalError> {
        sql_query("VACUUM INTO ?")
            .bind::<Text, _>(path.to_string_lossy())
            .execute(&mut self.connection)
            .map(|_| ())
            .map_err(self.failed("copying"))
    }

    fn pragma(&mut self, sql: &str) -> Result<(), JournalError> {
        self.connection.batch_execute(sql).map_err(self.failed("opening"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(diesel::result::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::Sql { doing, path, source }
    }
}

/// A file's name must survive a power cut like its content.
pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| JournalError::Io {
        doing: "syncing",
        path: dir.to_owned(),
        source,
    })
}

/// SQLite's file URI: only this form can forbid that a missing file is made.
fn uri(path: &Path, mode: &str) -> String {
    // With the empty authority a path that begins with two slashes is not taken for a host.
    let mut uri = String::from(if path.is_absolute() { "file://" } else { "file:" });
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?mode=");
    uri.push_str(mode);
    uri
}

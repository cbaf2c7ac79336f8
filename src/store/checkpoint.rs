//! SQLite's write-ahead log, moved into the database beside the writer rather than by its commits.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Integer;

use super::Store;
use super::error::{During, StoreError};
use super::pool::{BUSY_TIMEOUT, Conn};
use crate::config::DatabaseUrl;

#[derive(QueryableByName)]
struct Checkpoint {
    /// 1: a reader or writer was in the way.
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpointed {
    /// Of the log's file afterwards.
    pub bytes: u64,
    /// A reader still needs the log's old content, so that it grows on.
    pub held: bool,
}

impl Store {
    /// Moves the write-ahead log into the database and begins it anew, if it has more than `bound` bytes. Nothing on
    /// PostgreSQL.
    ///
    /// Most of it is moved while the writer goes on. The rest needs the writer's lock, for no longer than a tenth of a
    /// second where a reader is in the way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn checkpoint(&self, bound: u64) -> Result<Checkpointed, StoreError> {
        let bytes = self.log_bytes();
        if bytes <= bound {
            return Ok(Checkpointed { bytes, held: false });
        }
        let held = self.db.with(|conn| {
            let Conn::Sqlite(c) = conn else { return Ok(false) };
            sql_query("PRAGMA wal_checkpoint(PASSIVE)")
                .get_result::<Checkpoint>(*c)
                .during("moving the write-ahead log into the database")?;
            c.batch_execute("PRAGMA busy_timeout = 100").during("beginning the write-ahead log anew")?;
            let anew = sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result::<Checkpoint>(*c);
            // The pool gives this connection to others.
            c.batch_execute(BUSY_TIMEOUT).during("beginning the write-ahead log anew")?;
            Ok(anew.during("beginning the write-ahead log anew")?.busy != 0)
        })?;
        Ok(Checkpointed { bytes: self.log_bytes(), held })
    }

    fn log_bytes(&self) -> u64 {
        let DatabaseUrl::Sqlite(path) = &self.settings.url else { return 0 };
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        // SQLite removes the log with the last connection.
        std::fs::metadata(log).map_or(0, |found| found.len())
    }
}

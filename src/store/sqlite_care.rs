//! What SQLite does not do by itself: statistics for its planner, and giving free pages back.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::Store;
use super::error::{During, StoreError};
use super::pool::Conn;

/// Rows of an index that ANALYZE looks at, at most: it takes milliseconds, however large the table.
const ANALYSIS_LIMIT: u32 = 1_000;

/// A SQLite file in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct Pages {
    /// Bytes of one.
    #[diesel(sql_type = BigInt)]
    pub size: i64,
    #[diesel(sql_type = BigInt)]
    pub total: i64,
    /// On the freelist: used again before the file grows.
    #[diesel(sql_type = BigInt)]
    pub free: i64,
    /// 0: the file never shrinks; 2: an incremental vacuum gives free pages back.
    #[diesel(sql_type = BigInt)]
    auto_vacuum: i64,
}

impl Pages {
    /// Whether an incremental vacuum can give free pages back.
    pub fn is_incremental(&self) -> bool {
        self.auto_vacuum == 2
    }

    pub fn free_bytes(&self) -> u64 {
        u64::try_from(self.free.saturating_mul(self.size)).unwrap_or(0)
    }
}

impl Store {
    /// The pages of the SQLite file; none on PostgreSQL.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sqlite_pages(&self) -> Result<Option<Pages>, StoreError> {
        self.db.with(|conn| match conn {
            Conn::Postgres(_) => Ok(None),
            Conn::Sqlite(c) => pages(c).map(Some).during("counting the database's pages"),
        })
    }

    /// Renews the planner's statistics, on SQLite; PostgreSQL's autovacuum does it there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn analyze_sqlite(&self) -> Result<(), StoreError> {
        self.on_sqlite(&format!("PRAGMA analysis_limit = {ANALYSIS_LIMIT}; ANALYZE;"), "renewing the statistics")
    }

    /// Moves up to `at_most` free pages to the end of the file and cuts them off, as one transaction; on SQLite.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn give_pages_back(&self, at_most: u32) -> Result<(), StoreError> {
        self.on_sqlite(&format!("PRAGMA incremental_vacuum({at_most});"), "giving free pages back")
    }

    fn on_sqlite(&self, sql: &str, during: &'static str) -> Result<(), StoreError> {
        self.db.with(|conn| match conn {
            Conn::Postgres(_) => Ok(()),
            Conn::Sqlite(c) => c.batch_execute(sql).during(during),
        })
    }
}

/// The pages of the file that the connection has open.
pub(super) fn pages(connection: &mut SqliteConnection) -> QueryResult<Pages> {
    diesel::sql_query(
        "SELECT (SELECT page_size FROM pragma_page_size) AS size, (SELECT page_count FROM pragma_page_count) AS total, \
         (SELECT freelist_count FROM pragma_freelist_count) AS free, \
         (SELECT auto_vacuum FROM pragma_auto_vacuum) AS auto_vacuum",
    )
    .get_result(connection)
}

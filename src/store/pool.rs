//! The pools of connections, and the one place where the two databases become one.

use std::path::Path;
use std::time::Duration;

use diesel::connection::{Connection, SimpleConnection};
use diesel::r2d2::{ConnectionManager, CustomizeConnection, NopErrorHandler, Pool};
use diesel::{PgConnection, SqliteConnection};

use super::connect::Postgres;
use super::error::StoreError;
use crate::config::{Database, DatabaseUrl};

/// A pool of either database.
#[derive(Clone)]
pub(super) enum Db {
    Postgres(Pool<Postgres>, Postgres),
    Sqlite(Pool<ConnectionManager<SqliteConnection>>),
}

/// One connection of either database.
pub(super) enum Conn<'a> {
    Postgres(&'a mut PgConnection),
    Sqlite(&'a mut SqliteConnection),
}

/// Repeats an expression for each concrete connection: one text, two monomorphisations. The second form also names
/// diesel's backend type, for boxed queries.
macro_rules! with_db {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $conn {
            $crate::store::pool::Conn::Postgres(c) => {
                let $c: &mut diesel::PgConnection = &mut **c;
                $body
            }
            $crate::store::pool::Conn::Sqlite(c) => {
                let $c: &mut diesel::SqliteConnection = &mut **c;
                $body
            }
        }
    };
    ($conn:expr, |$c:ident, $backend:ident| $body:expr) => {
        match $conn {
            $crate::store::pool::Conn::Postgres(c) => {
                type $backend = diesel::pg::Pg;
                let $c: &mut diesel::PgConnection = &mut **c;
                $body
            }
            $crate::store::pool::Conn::Sqlite(c) => {
                type $backend = diesel::sqlite::Sqlite;
                let $c: &mut diesel::SqliteConnection = &mut **c;
                $body
            }
        }
    };
}
pub(super) use with_db;

impl Conn<'_> {
    /// Rows of `columns` columns that one statement can bind.
    pub(super) fn rows_per_statement(&self, columns: usize) -> usize {
        let binds = match self {
            Conn::Postgres(_) => 65_535,
            Conn::Sqlite(_) => 32_766,
        };
        // Some room: a statement may bind a value of its own.
        ((binds - 16) / columns.max(1)).min(5_000)
    }

    /// A statement whose values are numbered, `?1`, as this database has them.
    pub(super) fn numbered(&self, sql: &str) -> String {
        match self {
            Conn::Postgres(_) => sql.replace('?', "$"),
            Conn::Sqlite(_) => sql.to_owned(),
        }
    }

    /// Runs `work` under a savepoint of the transaction that is open.
    pub(super) fn savepoint<T>(
        &mut self,
        work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self {
            Conn::Postgres(c) => c.transaction(|c| work(&mut Conn::Postgres(c))),
            Conn::Sqlite(c) => c.transaction(|c| work(&mut Conn::Sqlite(c))),
        }
    }

    /// Runs `work` under a savepoint and undoes it even when it succeeds.
    pub(super) fn rehearse(
        &mut self,
        work: impl FnOnce(&mut Conn<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let outcome = self.savepoint(|c| {
            work(c)?;
            Err::<(), StoreError>(diesel::result::Error::RollbackTransaction.into())
        });
        match outcome {
            Err(StoreError::Query { source: diesel::result::Error::RollbackTransaction, .. }) => Ok(()),
            other => other,
        }
    }
}

impl Db {
    /// Builds the pool; does not wait for the database.
    pub(super) fn open(settings: &Database) -> Result<Db, StoreError> {
        match &settings.url {
            DatabaseUrl::Postgres(_) => {
                // Before libpq does it: so made ready, OpenSSL registers no clean-up for the end of the process, which
                // the pool's threads would run into while they connect.
                openssl_sys::init();
                let server = Postgres::new(settings)?;
                let pool = Pool::builder()
                    .max_size(settings.pool_max.max(1))
                    .min_idle(Some(settings.pool_min.min(settings.pool_max.max(1))))
                    .connection_timeout(positive(settings.connect_timeout))
                    .error_handler(Box::new(NopErrorHandler))
                    .build_unchecked(server.clone());
                Ok(Db::Postgres(pool, server))
            }
            DatabaseUrl::Sqlite(path) => {
                let manager = ConnectionManager::<SqliteConnection>::new(sqlite_path(path)?);
                Ok(Db::Sqlite(
                    Pool::builder()
                        .max_size(settings.pool_max.max(1))
                        .min_idle(Some(0))
                        .connection_timeout(positive(settings.connect_timeout))
                        .connection_customizer(Box::new(SqliteSession))
                        .error_handler(Box::new(NopErrorHandler))
                        .build_unchecked(manager),
                ))
            }
        }
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self, Db::Sqlite(_))
    }

    /// Whether a pooler stands between; found with the first connection.
    pub(super) fn is_pooled(&self) -> bool {
        match self {
            Db::Postgres(_, server) => server.is_pooled(),
            Db::Sqlite(_) => false,
        }
    }

    /// Checks a connection out and hands it to `work`.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self {
            Db::Postgres(pool, _) => {
                let mut connection = pool.get().map_err(|error| StoreError::connecting(error.to_string()))?;
                work(&mut Conn::Postgres(&mut connection))
            }
            Db::Sqlite(pool) => {
                let mut connection = pool.get().map_err(|error| StoreError::connecting(error.to_string()))?;
                work(&mut Conn::Sqlite(&mut connection))
            }
        }
    }

    /// Runs `work` in a transaction that will write. On SQLite it takes the lock at once, since a reader that turns
    /// writer can be refused without a wait.
    pub(super) fn write<T>(&self, work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|conn| match conn {
            Conn::Postgres(c) => c.transaction(|c| work(&mut Conn::Postgres(c))),
            Conn::Sqlite(c) => c.immediate_transaction(|c| work(&mut Conn::Sqlite(c))),
        })
    }

    /// Runs `work` over one state of the database.
    pub(super) fn read<T>(&self, work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|conn| match conn {
            Conn::Postgres(c) => {
                c.build_transaction().read_only().repeatable_read().run(|c| work(&mut Conn::Postgres(c)))
            }
            Conn::Sqlite(c) => c.transaction(|c| work(&mut Conn::Sqlite(c))),
        })
    }
}

/// One connection outside of the pool, which would hide for how long and why it fails.
pub(super) fn connect_once<T>(
    settings: &Database,
    work: impl FnOnce(&mut Conn<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match &settings.url {
        DatabaseUrl::Postgres(_) => {
            let server = Postgres::new(settings)?;
            let mut connection = server.establish().map_err(|error| StoreError::connecting(error.to_string()))?;
            work(&mut Conn::Postgres(&mut connection))
        }
        DatabaseUrl::Sqlite(path) => {
            let path = sqlite_path(path)?;
            let mut connection = SqliteConnection::establish(&path)
                .map_err(|error| StoreError::Refused { detail: format!("{path}: {error}") })?;
            prepare_sqlite(&mut connection).map_err(|source| match source.to_string().as_str() {
                "file is not a database" => StoreError::NotSqlite { path: path.clone() },
                _ => StoreError::Query { during: "opening the database", source },
            })?;
            work(&mut Conn::Sqlite(&mut connection))
        }
    }
}

fn sqlite_path(path: &Path) -> Result<String, StoreError> {
    match path.to_str() {
        Some(path) if !path.contains('\0') => Ok(path.to_owned()),
        _ => Err(StoreError::BadUrl { detail: format!("the path {} is not UTF-8", path.display()) }),
    }
}

/// r2d2 panics on a timeout of zero.
fn positive(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(100))
}

#[derive(Debug)]
struct SqliteSession;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for SqliteSession {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        prepare_sqlite(connection).map_err(diesel::r2d2::Error::QueryError)
    }
}

/// How long a statement waits for a lock.
pub(super) const BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 5000;";

/// The busy timeout first: turning on WAL needs a lock. FULL, because the journal forgets what is committed here. Commits move
/// the write-ahead log into the database only where it has become much longer (in pages of 4 KiB) than upkeep lets it become.
fn prepare_sqlite(connection: &mut SqliteConnection) -> diesel::QueryResult<()> {
    connection.batch_execute(BUSY_TIMEOUT)?;
    // Only a file without a page can still become one that gives its free pages back bit by bit. To say it of one that has
    // become so already would be a transaction that writes, for every connection.
    if super::sqlite_care::pages(connection)?.total == 0 {
        connection.batch_execute("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    connection.batch_execute(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA wal_autocheckpoint = 16384; PRAGMA journal_size_limit = 67108864;",
    )
}

//! The schema: embedded migrations, run by one at a time.

use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Store;
use super::error::{During, StoreError, is_transient, tells_of_outage};
use super::pool::{Conn, connect_once};
use super::rollups;

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Key of the advisory lock: "tidegate" in ASCII.
const LOCK_KEY: i64 = 0x7469_6465_6761_7465;

impl Store {
    /// Brings the schema up to date; returns the versions that were run, oldest first.
    ///
    /// All of it happens in one transaction under a lock of that transaction, so it works through PgBouncer, of two that
    /// migrate at once one waits, and a failure leaves the schema as it was.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] when the database has migrations that this binary lacks; what connecting or a
    /// migration brings.
    pub fn migrate(&self) -> Result<Vec<String>, StoreError> {
        connect_once(&self.settings, |conn| match conn {
            Conn::Postgres(c) => c.transaction(|c| {
                diesel::sql_query("SELECT pg_advisory_xact_lock($1)")
                    .bind::<BigInt, _>(LOCK_KEY)
                    .execute(c)
                    .during("locking the schema")?;
                let done = run(c, POSTGRES)?;
                rollups::install(&mut Conn::Postgres(c))?;
                Ok(done)
            }),
            Conn::Sqlite(c) => c.immediate_transaction(|c| run(c, SQLITE)),
        })
    }

    /// Undoes every migration, newest first, data and all. For tests of the migrations.
    ///
    /// # Errors
    /// What connecting or a migration brings.
    #[doc(hidden)]
    pub fn revert_all(&self) -> Result<(), StoreError> {
        connect_once(&self.settings, |conn| match conn {
            Conn::Postgres(c) => c.revert_all_migrations(POSTGRES).map(|_| ()).map_err(failed),
            Conn::Sqlite(c) => c.revert_all_migrations(SQLITE).map(|_| ()).map_err(failed),
        })
    }
}

fn run<C, DB>(connection: &mut C, source: EmbeddedMigrations) -> Result<Vec<String>, StoreError>
where
    DB: diesel::backend::Backend,
    C: MigrationHarness<DB>,
    EmbeddedMigrations: MigrationSource<DB>,
{
    let migrations: Vec<Box<dyn Migration<DB>>> = source.migrations().map_err(failed)?;
    let known: Vec<String> = migrations.iter().map(|migration| migration.name().version().to_string()).collect();
    let applied = connection.applied_migrations().map_err(failed)?;
    let mut newer: Vec<String> =
        applied.iter().map(ToString::to_string).filter(|version| !known.contains(version)).collect();
    if !newer.is_empty() {
        newer.sort();
        return Err(StoreError::NewerSchema { versions: newer });
    }
    let done = connection.run_pending_migrations(source).map_err(failed)?;
    Ok(done.iter().map(ToString::to_string).collect())
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    let detail = error.to_string();
    // What fails inside of a migration comes wrapped in a type that diesel_migrations keeps to itself.
    let transient = match error.downcast_ref::<diesel::result::Error>() {
        Some(error) => is_transient(error),
        None => tells_of_outage(&detail),
    };
    StoreError::Migration { detail, transient }
}

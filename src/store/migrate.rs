//! The schema: embedded migrations, run by one at a time.

use diesel::migration::{Migration, MigrationSource};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Store;
use super::error::{During, StoreError, is_transient, tells_of_outage};
use super::layout::{self, LayoutStatus};
use super::pool::{Conn, connect_once, with_db};
use super::postgres::lock_for_transaction;
use super::{figures, rollups};

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
    /// The first time it also chooses how readings are laid out, see [`layout`].
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] when the database has migrations that this binary lacks; what connecting or a
    /// migration brings.
    pub fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.known.forget();
        connect_once(&self.settings, |conn| match conn {
            Conn::Postgres(c) => c.transaction(|c| {
                lock_for_transaction(c, LOCK_KEY).during("locking the schema")?;
                let ran = run(c, POSTGRES)?;
                self.settle(&mut Conn::Postgres(c))?;
                Ok(ran)
            }),
            Conn::Sqlite(c) => c.immediate_transaction(|c| {
                let ran = run(c, SQLITE)?;
                self.settle(&mut Conn::Sqlite(c))?;
                Ok(ran)
            }),
        })
    }

    /// What differs with the server rather than with the version, once the migrations have run. What builds on the layout
    /// comes after it, here.
    fn settle(&self, conn: &mut Conn<'_>) -> Result<(), StoreError> {
        layout::settle(conn, self.settings.layout)?;
        figures::make_hypertable(conn)?;
        rollups::install(conn)
    }

    /// Which migrations are applied and which are to come, and the layout. Changes nothing.
    ///
    /// # Errors
    /// What connecting or reading brings.
    pub fn schema_status(&self) -> Result<SchemaStatus, StoreError> {
        connect_once(&self.settings, |conn| {
            let known = match conn {
                Conn::Postgres(_) => names::<diesel::pg::Pg>(POSTGRES)?,
                Conn::Sqlite(_) => names::<diesel::sqlite::Sqlite>(SQLITE)?,
            };
            let versions = applied(conn)?;
            let (applied, pending): (Vec<_>, Vec<_>) =
                known.iter().cloned().partition(|migration| versions.contains(&migration.version));
            let newer = versions.into_iter().filter(|version| known.iter().all(|known| known.version != *version));
            let newer = newer.collect();
            let has_layout = applied.iter().any(|migration| migration.name.ends_with("_layout"));
            let layout = if has_layout { LayoutStatus::read(conn)? } else { None };
            Ok(SchemaStatus { applied, pending, newer, layout })
        })
    }

    /// Undoes every migration, newest first, data and all. For tests of the migrations.
    ///
    /// # Errors
    /// What connecting or a migration brings.
    #[doc(hidden)]
    pub fn revert_all(&self) -> Result<(), StoreError> {
        self.known.forget();
        connect_once(&self.settings, |conn| match conn {
            Conn::Postgres(c) => c.revert_all_migrations(POSTGRES).map(|_| ()).map_err(failed),
            Conn::Sqlite(c) => c.revert_all_migrations(SQLITE).map(|_| ()).map_err(failed),
        })
    }
}

/// A migration of this version of tidegate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationName {
    /// Digits, as the database has it.
    pub version: String,
    /// As its folder is called.
    pub name: String,
}

/// How far the schema has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    pub applied: Vec<MigrationName>,
    pub pending: Vec<MigrationName>,
    /// Versions that only a later tidegate knows.
    pub newer: Vec<String>,
    /// None before the layout is chosen.
    pub layout: Option<LayoutStatus>,
}

#[derive(QueryableByName)]
struct Yes {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Asked without diesel's own look at it, which would make the table.
fn applied(conn: &mut Conn<'_>) -> Result<Vec<String>, StoreError> {
    let there = match conn {
        Conn::Postgres(_) => "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS yes",
        Conn::Sqlite(_) => {
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '__diesel_schema_migrations') AS yes"
        }
    };
    let there: Yes =
        with_db!(conn, |c| diesel::sql_query(there).get_result(c)).during("looking for the list of migrations")?;
    if !there.yes {
        return Ok(Vec::new());
    }
    let sql = "SELECT version FROM __diesel_schema_migrations ORDER BY version";
    let rows: Vec<Version> =
        with_db!(conn, |c| diesel::sql_query(sql).load(c)).during("reading the list of migrations")?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

/// The migrations in the binary, the oldest first.
fn names<DB: diesel::backend::Backend>(source: EmbeddedMigrations) -> Result<Vec<MigrationName>, StoreError>
where
    EmbeddedMigrations: MigrationSource<DB>,
{
    let migrations: Vec<Box<dyn Migration<DB>>> = source.migrations().map_err(failed)?;
    let names = migrations.iter().map(|migration| MigrationName {
        version: migration.name().version().to_string(),
        name: migration.name().to_string(),
    });
    let mut names: Vec<MigrationName> = names.collect();
    names.sort_by(|a, b| a.version.cmp(&b.version));
    Ok(names)
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

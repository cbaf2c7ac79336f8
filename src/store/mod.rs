//! Everything that knows SQL: pools, migrations, the batch transaction, the catalog's rows, queries.

pub mod alerts;
mod assign;
pub mod batch;
mod checkpoint;
pub mod commands;
mod commit;
pub mod completeness;
mod connect;
pub mod connections;
mod error;
mod extensions;
pub mod figures;
mod identity;
mod introduce;
pub mod jobs;
mod json;
pub mod layout;
mod last_values;
pub mod limits;
mod memory;
mod migrate;
pub mod page;
mod pool;
mod poison;
mod position;
mod postgres;
pub mod quarantine;
pub mod query;
mod reconcile;
mod replay;
mod restore;
pub mod retention;
pub mod rollups;
mod replica;
pub mod schema;
mod series;
mod snapshot;
mod sqlite;
pub mod sqlite_care;
pub mod stats;
mod template_json;
mod template_versions;
mod templates;
pub mod twins;

use std::sync::Arc;

use diesel::prelude::*;

pub use assign::{Assigned, Assignment};
pub use checkpoint::Checkpointed;
pub use commit::{BatchWriter, Committed, Resolved, Retrier};
pub use error::StoreError;
pub use migrate::{MigrationName, SchemaStatus};
pub use position::{Position, Reached, Replaced};
pub use reconcile::Report;
pub use replay::{HeldMessage, Replayed, Replayer};
pub use restore::Restorer;

use crate::config::Database;
use error::During;
use pool::{Conn, Db, connect_once, with_db};
use replica::Replica;

/// The database: every transaction begins and ends in this room. Clones share the pool.
#[derive(Clone)]
pub struct Store {
    db: Db,
    replica: Option<Replica>,
    settings: Database,
    known: Arc<layout::Known>,
    fresh: Arc<templates::Fresh>,
}

impl Store {
    /// Makes the pool. The database need not answer yet.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub fn open(settings: &Database) -> Result<Store, StoreError> {
        Ok(Store {
            db: Db::open(settings)?,
            replica: Replica::open(settings)?,
            settings: settings.clone(),
            known: Arc::default(),
            fresh: Arc::default(),
        })
    }

    /// Asks the database whether it is there, once; waits up to `database.connect_timeout`.
    ///
    /// # Errors
    /// Why it is not.
    pub fn ping(&self) -> Result<(), StoreError> {
        connect_once(&self.settings, |conn| {
            with_db!(conn, |c| diesel::sql_query("SELECT 1").execute(c))
                .during("asking whether the database is there")?;
            Ok(())
        })
    }

    /// Whether a connection pooler stands before the database though `database.pgbouncer` is false.
    ///
    /// # Errors
    /// Why the database does not answer.
    pub fn is_behind_untold_pooler(&self) -> Result<bool, StoreError> {
        self.db.with(|_| Ok(()))?;
        Ok(!self.settings.pgbouncer && self.db.is_pooled())
    }

    /// Asks the replica whether it is there, once; none where none is configured.
    ///
    /// # Errors
    /// Why it is not.
    pub fn ping_replica(&self) -> Option<Result<(), StoreError>> {
        self.replica.as_ref().map(Replica::ping)
    }

    /// Why the primary answers in the replica's place; none while the replica answers, or where there is none.
    pub fn replica_away(&self) -> Option<String> {
        self.replica.as_ref().and_then(Replica::away)
    }

    /// Runs `work`, which only reads, for a person: over one state of the replica where one is configured and answers, else of
    /// the primary. Nothing that decides what is written may be read so: a replica may be behind.
    fn look<T>(&self, work: impl Fn(&mut Conn<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.replica.as_ref().and_then(|replica| replica.ask(&work)) {
            Some(found) => Ok(found),
            None => self.db.read(work),
        }
    }

    /// As [`Store::catalog_version`], where a reader looks: whether there is a schema to read from.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn catalog_version_to_read(&self) -> Result<i64, StoreError> {
        self.look(catalog_version)
    }

    /// Number of the catalog's state in the database; rises when something other than a device's first message changes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn catalog_version(&self) -> Result<i64, StoreError> {
        self.db.with(catalog_version)
    }
}

fn catalog_version(conn: &mut Conn<'_>) -> Result<i64, StoreError> {
    with_db!(conn, |c| schema::catalog_version::table.select(schema::catalog_version::version).first(c))
        .during("reading the catalog's version")
}

//! Everything that knows SQL: pools, migrations, the batch transaction, the catalog's rows, queries.

pub mod batch;
mod commit;
mod error;
mod introduce;
pub mod limits;
mod memory;
mod migrate;
mod pool;
mod poison;
mod position;
mod postgres;
pub mod quarantine;
pub mod query;
mod reconcile;
mod replay;
pub mod schema;
mod snapshot;
mod sqlite;
mod templates;

use diesel::prelude::*;

pub use commit::{BatchWriter, Committed, Resolved, Retrier};
pub use error::StoreError;
pub use position::{Position, Reached, Replaced};
pub use reconcile::Report;
pub use replay::{HeldMessage, Replayed, Replayer};

use crate::config::Database;
use error::During;
use pool::{Db, connect_once, with_db};

/// The database: every transaction begins and ends in this room. Clones share the pool.
#[derive(Clone)]
pub struct Store {
    db: Db,
    settings: Database,
}

impl Store {
    /// Makes the pool. The database need not answer yet.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub fn open(settings: &Database) -> Result<Store, StoreError> {
        Ok(Store { db: Db::open(settings)?, settings: settings.clone() })
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

    /// Number of the catalog's state in the database; rises when something other than a device's first message changes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn catalog_version(&self) -> Result<i64, StoreError> {
        self.db.with(|conn| {
            with_db!(conn, |c| schema::catalog_version::table.select(schema::catalog_version::version).first(c))
                .during("reading the catalog's version")
        })
    }
}

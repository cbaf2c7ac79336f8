//! Readings brought back: as they were, with devices and sensors made anew where they are gone.

use super::Store;
use super::batch::Batch;
use super::commit::{Committed, write};
use super::error::StoreError;
use super::introduce::Known;
use super::poison::Manner;
use super::quarantine::Origin;
use super::reconcile;
use crate::config::Duplicates;

/// Stores readings from the archive. What is there already stays as it is.
pub struct Restorer {
    store: Store,
    made: u64,
}

impl Restorer {
    pub fn new(store: Store) -> Restorer {
        Restorer { store, made: 0 }
    }

    /// Stores a batch in one transaction; its numbers of devices and sensors are its own, and its position is not used.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of it is stored.
    pub fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        // What is in the database is as good as what is in the archive.
        let manner = Manner { duplicates: Duplicates::KeepFirst, straight: true };
        let committed = self.store.write_covered(batch, |conn| {
            let written = write(conn, batch, &Known::default(), &Origin::Archive, manner, &|_| None)?;
            written.keep_newest(conn, manner)?;
            Ok(written.committed)
        })?;
        self.made += committed.devices_provisioned;
        Ok(committed)
    }

    /// Lets a running daemon know of devices made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(self) -> Result<(), StoreError> {
        if self.made > 0 {
            self.store.db.write(|conn| reconcile::raise_version(conn).map(|_| ()))?;
        }
        Ok(())
    }
}

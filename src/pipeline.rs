//! The pipeline thread: messages from the journal, in order, through decode and normalize into batches.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::Snapshot;
use crate::config::Config;
use crate::journal::{JournalError, Next, Reader};
use crate::message::{Message, Seq};
use crate::metrics::Metrics;
use crate::normalize::{NormalizeError, Normalizer};
use crate::store::batch::Batch;

/// How long a look into an idle journal waits before a reload or the end is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// A changed configuration or catalog, to be used from the next message on.
pub struct Reload {
    pub config: Config,
    pub snapshot: Snapshot,
}

/// Why the pipeline ended early.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Normalize(#[from] NormalizeError),
}

/// One thread, so that every device's readings stay in order.
pub struct Pipeline {
    pub normalizer: Normalizer,
    pub reader: Reader,
    /// The last message that the database has.
    pub position: Seq,
    pub batches: SyncSender<Batch>,
    pub reloads: Receiver<Reload>,
    /// Set when what is left shall stay in the journal.
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl Pipeline {
    /// Runs until the journal has ended and everything in it was handed on, or the writer is gone.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub fn run(mut self) -> Result<(), PipelineError> {
        while !self.stop.is_cancelled() {
            let next = self.reader.next(self.position, LOOK)?;
            // After the wait: what came by a new filter must find the source that asked for it, and whoever was told that a
            // reload is in force may rely on it.
            self.reload();
            match next {
                Next::Messages(messages) => {
                    let mut batch = Batch::default();
                    for message in &messages {
                        self.normalizer.process(message, &mut batch);
                    }
                    self.notice_gap(messages.first());
                    self.position = batch.position;
                    // The channel is short: a slow database makes the pipeline wait here, and the journal keeps the rest.
                    if self.batches.send(batch).is_err() {
                        return Ok(());
                    }
                }
                Next::Idle => {}
                Next::End => break,
            }
        }
        Ok(())
    }

    /// Messages that the database never had and the journal has no more: a restored backup, a record set aside.
    fn notice_gap(&self, first: Option<&Arc<Message>>) {
        let Some(first) = first else { return };
        let missing = first.seq.saturating_sub(self.position).saturating_sub(1);
        if missing > 0 && self.position > 0 {
            self.metrics.journal_gap_messages.inc_by(missing);
            tracing::error!(
                from = self.position,
                to = first.seq,
                missing,
                "messages are missing from the journal, as after restoring an old database or a damaged journal"
            );
        }
    }

    fn reload(&mut self) {
        while let Ok(reload) = self.reloads.try_recv() {
            match self.normalizer.replace(&reload.config, &reload.snapshot) {
                Ok(()) => {
                    self.metrics.catalog_reloads.inc();
                }
                Err(error) => {
                    self.metrics.reload_errors.inc();
                    tracing::error!(%error, "the changed catalog can't be used; the old one stays in force");
                }
            }
        }
    }
}

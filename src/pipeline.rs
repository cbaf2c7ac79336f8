//! The pipeline thread: messages from the journal, in order, through decode and normalize into batches.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
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
    /// Rows at which a batch takes no further message.
    pub batch_max: usize,
    pub reloads: Receiver<Reload>,
    /// Set when what is left shall stay in the journal.
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl Pipeline {
    /// Runs until the journal has ended and everything in it was handed on, or the writer is gone.
    ///
    /// # Errors
    /// When the journal can't be read, or a reload turns out unusable.
    pub fn run(mut self) -> Result<(), PipelineError> {
        while !self.stop.is_cancelled() {
            self.reload()?;
            match self.reader.next(self.position, LOOK)? {
                Next::Messages(messages) => {
                    self.notice_gap(messages.first());
                    if !self.hand_over(&messages) {
                        return Ok(());
                    }
                }
                Next::Idle => {}
                Next::End => break,
            }
        }
        Ok(())
    }

    /// Hands what messages become to the writer, in batches of about `batch_max` rows. False: the writer is gone.
    fn hand_over(&mut self, messages: &[Arc<Message>]) -> bool {
        let mut batch = Batch::default();
        for message in messages {
            self.normalizer.process(message, &mut batch);
            if batch.rows() < self.batch_max {
                continue;
            }
            if !self.send(std::mem::take(&mut batch)) {
                return false;
            }
            if self.stop.is_cancelled() {
                return true;
            }
        }
        batch.messages == 0 || self.send(batch)
    }

    /// The channel is short: a slow database makes the pipeline wait here, and the journal keeps the rest.
    fn send(&mut self, batch: Batch) -> bool {
        self.position = batch.position;
        self.batches.send(batch).is_ok()
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

    fn reload(&mut self) -> Result<(), PipelineError> {
        loop {
            match self.reloads.try_recv() {
                Ok(reload) => {
                    self.normalizer.replace(&reload.config, &reload.snapshot)?;
                    self.metrics.catalog_reloads.inc();
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

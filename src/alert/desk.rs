//! The catalog thread's part in alerts: what people ask by a command goes from the database into the journal, and rules that can't
//! be read are told, and so is maintenance.

use std::collections::BTreeSet;

use super::transition::{ACTION_TOPIC, Action};
use crate::catalog::RowAmiss;
use crate::journal::Inbox;
use crate::message::Publish;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// What is under way, and what has been told.
pub struct Desk {
    inbox: Inbox,
    under_way: Option<UnderWay>,
    told: BTreeSet<RowAmiss>,
}

/// Actions that are submitted to the journal, and perhaps not durable yet.
struct UnderWay {
    /// Of their rows.
    numbers: Vec<i64>,
    /// Of the last one's submission.
    submission: u64,
}

impl Desk {
    pub fn new(inbox: Inbox) -> Desk {
        Desk { inbox, under_way: None, told: BTreeSet::new() }
    }

    /// Submits the actions that wait for this instance's journal, in order, and marks those as taken that have become durable there.
    /// After a crash in between, some come into the journal once more.
    ///
    /// # Errors
    /// [`StoreError`]; then the next call goes on.
    pub fn take_actions(&mut self, store: &Store, instance: &str) -> Result<(), StoreError> {
        if let Some(under_way) = &self.under_way {
            if !self.inbox.is_settled(under_way.submission) {
                return Ok(());
            }
            store.actions_taken(&under_way.numbers)?;
            self.under_way = None;
        }
        let mut numbers = Vec::new();
        for waiting in store.waiting_actions(instance)? {
            let publish = Publish::plain(ACTION_TOPIC, numbered(waiting.number, waiting.action), 0);
            if let Err(refused) = self.inbox.submit(publish, None) {
                tracing::debug!(%refused, "what is asked of alerts waits");
                break;
            }
            numbers.push(waiting.number);
        }
        if !numbers.is_empty() {
            self.under_way = Some(UnderWay { numbers, submission: self.inbox.submitted() });
        }
        Ok(())
    }

    /// Says which rules and maintenance can't be read, each once: in the log, in the database's `events`, and by their number as a metric.
    pub fn tell_amiss(&mut self, amiss: &[RowAmiss], store: &Store, metrics: &Metrics) {
        metrics.alert_rules_invalid.set(i64::try_from(amiss.len()).unwrap_or(i64::MAX));
        for one in amiss.iter().filter(|one| !self.told.contains(one)) {
            let RowAmiss { table, name, why } = one;
            tracing::error!(
                name,
                why,
                "A ROW OF {} CAN'T BE READ and is left out; correct its definition",
                table.word()
            );
            if let Err(error) = store.record_amiss(one) {
                tracing::warn!(%error, "could not record which row can't be read");
            }
        }
        self.told = amiss.iter().cloned().collect();
    }
}

/// The action with its row's number, by which one that comes into the journal twice is known; what is none stays as it is.
fn numbered(number: i64, action: String) -> String {
    match serde_json::from_str::<Action>(&action) {
        Ok(read) => serde_json::to_string(&Action { ask: Some(number), ..read }).unwrap_or(action),
        Err(_) => action,
    }
}

//! What the courier asks of the database at once.

use std::collections::HashSet;

use super::flights::Landed;
use crate::carrier;
use crate::clock;
use crate::command::State;
use crate::config;
use crate::crash;
use crate::store::commands::{Due, Notice, Taken};
use crate::store::{Store, StoreError};

/// A question to the database.
#[derive(Debug, Default)]
pub struct Turn {
    pub(super) landed: Landed,
    /// How many commands may set out, and how many notices.
    pub(super) room: usize,
    pub(super) notices: usize,
    /// Commands that are marked as being sent and are looked after.
    pub(super) under_way: HashSet<String>,
    /// Notices that are under way.
    pub(super) told: HashSet<(String, i32)>,
    pub(super) restarted: bool,
    pub(super) unsure: bool,
    pub(super) instance: String,
    pub(super) settings: config::Commands,
}

/// The answer.
#[derive(Debug, Default)]
pub struct Turned {
    pub(super) due: Vec<Due>,
    pub(super) notices: Vec<Notice>,
    pub(super) asked: u64,
    pub(super) states: Vec<(State, u64)>,
    /// Notices that are recorded as told.
    pub(super) told: u64,
    /// Why others could not be.
    pub(super) untellable: Vec<&'static str>,
    /// Whether there may be more to do at once.
    pub(super) more: bool,
}

impl carrier::Turn for Turn {
    type Answer = Turned;

    /// Everything that is due: records, looks through what is new, ends what is over, marks what is to be sent.
    fn take(&self, store: &Store) -> Result<Turned, StoreError> {
        let (instance, settings) = (self.instance.as_str(), &self.settings);
        let mut turned = self.recorded(store)?;
        let now = clock::now();
        if self.unsure {
            let failed = store.recover_commands(instance, &self.under_way, self.restarted, now)?;
            turned.states.push((State::Failed, failed));
        }
        let admitted = store.admit_commands(instance, settings, now)?;
        turned.asked = admitted.queued.saturating_add(admitted.rejected).saturating_add(admitted.expired);
        turned.states.extend([
            (State::Queued, admitted.queued),
            (State::Rejected, admitted.rejected),
            (State::Expired, admitted.expired),
        ]);
        let (timed, more) = store.time_commands(instance, now)?;
        turned.states.extend(timed);
        turned.more = admitted.more || more;
        if self.notices > 0 {
            // Those under way are among the first.
            let limit = self.notices.saturating_add(self.told.len());
            let notices = store.untold_steps(instance, limit)?;
            turned.more |= notices.len() == limit;
            turned.notices =
                notices.into_iter().filter(|one| !self.told.contains(&(one.id.clone(), one.step))).collect();
        }
        if self.room > 0 {
            // Last, and without a failure behind it: what is marked sets out.
            let Taken { due, failed, held } = store.take_commands(instance, self.room, now)?;
            turned.more |= held > 0;
            turned.states.push((State::Failed, failed));
            turned.due = due;
        }
        Ok(turned)
    }

    fn record(&self, store: &Store) -> Result<(), StoreError> {
        self.recorded(store).map(drop)
    }
}

impl Turn {
    /// Records what the broker has said.
    fn recorded(&self, store: &Store) -> Result<Turned, StoreError> {
        let mut turned = Turned::default();
        if !self.landed.commands.is_empty() {
            turned.states = store.record_sendings(&self.landed.commands)?;
            crash::point("courier.recorded");
        }
        if !self.landed.notices.is_empty() {
            // What the broker refuses is not told a second time: whoever asked can look.
            let steps: Vec<(String, i32)> =
                self.landed.notices.iter().map(|(id, step, _)| (id.clone(), *step)).collect();
            store.steps_told(&steps)?;
            turned.untellable = self.landed.notices.iter().filter_map(|(_, _, refused)| *refused).collect();
            turned.told = (self.landed.notices.len().saturating_sub(turned.untellable.len())) as u64;
        }
        Ok(turned)
    }
}

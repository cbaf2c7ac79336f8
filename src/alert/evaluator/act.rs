//! What people do with an episode, and what becomes of one whose rule is gone.

use std::sync::Arc;

use super::{Evaluator, Orphan};
use crate::alert::transition::{Action, Deed, Holder, State, StateChange, Transition, Who};
use crate::message::Seq;
use crate::time::UtcMicros;

impl Evaluator {
    /// Does what somebody wants of an episode; whether there is one with this id.
    pub fn act(&mut self, action: &Action, received_at: UtcMicros, seq: Seq) -> bool {
        self.advance(received_at, seq);
        let known = self.perform(action, received_at);
        self.conclude_groups(received_at.0);
        known
    }

    fn perform(&mut self, action: &Action, received_at: UtcMicros) -> bool {
        let Some((device, place)) = self.outcome.active.get(action.id.as_str()).copied() else { return false };
        let lag = self.fleet.devices.get(device as usize).map_or(0, |device| device.lag);
        let Some(instance) =
            self.fleet.devices.get_mut(device as usize).and_then(|of| of.instances.get_mut(place as usize))
        else {
            return false;
        };
        if let Some(episode) = &mut instance.episode
            && let Some(ask) = action.ask
        {
            // Asked once, and twice in the journal, as after a kill before it was marked as taken.
            if episode.asked.is_some_and(|last| ask <= last) {
                return true;
            }
            episode.asked = Some(ask);
        }
        let at = received_at.0.saturating_sub(lag).max(instance.at);
        instance.at = at;
        let who = Who::Person(action.who.clone());
        let why = |words: &str| if action.note.is_empty() { words.to_owned() } else { action.note.clone() };
        let Some(episode) = &mut instance.episode else { return false };
        match action.action {
            // Asked by two.
            Deed::Acknowledge if episode.state == State::Acknowledged => {}
            Deed::Snooze { until } if episode.snoozed == Some(until) => {}
            Deed::Acknowledge => {
                episode.state = State::Acknowledged;
                self.judge().step(device, place, at, who, why("acknowledged"));
            }
            Deed::Resolve => {
                instance.spent = true;
                instance.flap = None;
                self.judge().resolve(device, place, at, who, why("resolved by hand"));
                self.judge().schedule(device, place);
            }
            Deed::Snooze { until } => {
                episode.snoozed = Some(until);
                self.judge().step(device, place, at, who, why("snoozed"));
                self.judge().arm(device, place);
            }
            Deed::Note => self.judge().step(device, place, at, who, why("a note")),
        }
        true
    }

    /// Tells that an episode has ended with its rule.
    pub(super) fn forsaken(&mut self, orphan: Orphan, who: Who) {
        let Orphan { tenant, holder, rule, episode } = orphan;
        let name = Arc::clone(holder.name());
        if let Some(episode) = episode.filter(|episode| !episode.id.is_empty()) {
            self.outcome.active.remove(&episode.id);
            let at = UtcMicros(self.now.max(episode.since));
            self.outcome.transitions.push(Transition {
                id: episode.id,
                step: episode.step,
                rule: Arc::clone(&rule),
                tenant: Arc::clone(&tenant),
                device: episode.device.unwrap_or_else(|| Arc::clone(&name)),
                group: matches!(holder, Holder::Group(_)).then(|| Arc::clone(&name)),
                metric: "".into(),
                state: State::Resolved,
                severity: episode.severity,
                at,
                onset: UtcMicros(episode.onset),
                since: UtcMicros(episode.since),
                value: None,
                threshold: None,
                unit: "".into(),
                message: format!("the rule {rule} does not look at {name} any more"),
                snoozed: false,
                snoozed_until: None,
                who,
                why: "its rule is gone, or is not kept for it any more".to_owned(),
                seq: self.seq,
            });
        }
        self.forgotten.push(StateChange { rule, tenant, holder, state: None });
    }
}

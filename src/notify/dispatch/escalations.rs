//! Alerts that nobody has seen to yet: who is told next, and when. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::alert::{State, Transition};
use crate::config::{Escalation, OnCall, Whose};
use crate::notify::{Escalated, MemoryChange};
use crate::time::UtcMicros;

/// Begins the keys of what is remembered.
const KEY: &str = "escalation/";

/// What is remembered of an alert, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Running {
    /// Name of the `[[escalation]]`.
    policy: Arc<str>,
    /// The one that is told next, from 0.
    level: usize,
    /// How often it has begun anew.
    round: u32,
    /// By the journal's clock; none: it rests, as while the alert is snoozed, or is through.
    due: Option<UtcMicros>,
    /// Whether it is through with all levels and repetitions.
    #[serde(default)]
    through: bool,
    occasions: u32,
    /// The alert's newest.
    step: Transition,
    /// Channels that it has told.
    #[serde(default)]
    told: BTreeSet<Arc<str>>,
}

/// Somebody to be told.
#[derive(Debug)]
pub(super) struct Call {
    pub step: Arc<Transition>,
    pub channel: Arc<str>,
    /// None: a step that ends it, told as itself.
    pub escalated: Option<Escalated>,
}

/// What became of escalations, for metrics and log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amiss {
    /// Through with all levels, and nobody has acknowledged the alert.
    pub exhausted: u64,
    /// A level at which there was nobody to tell.
    pub nobody: u64,
}

/// Every alert that is escalated.
#[derive(Debug, Default)]
pub(super) struct Escalations {
    policies: Vec<Escalation>,
    rotations: BTreeMap<String, OnCall>,
    /// By the rule's slug, where it names one.
    by_rule: HashMap<Arc<str>, String>,
    running: BTreeMap<Arc<str>, Running>,
    due: BTreeSet<(UtcMicros, Arc<str>)>,
    changed: BTreeSet<Arc<str>>,
    pub amiss: Amiss,
}

impl Escalations {
    /// Takes other policies; what is under way goes on by the policy of the same name, if there is one.
    pub(super) fn configure(&mut self, policies: &[Escalation], rotations: &[OnCall]) {
        self.policies = policies.to_vec();
        self.rotations = rotations.iter().map(|one| (one.name.clone(), one.clone())).collect();
    }

    /// Takes the names that rules give.
    pub(super) fn of_rules(&mut self, by_rule: HashMap<Arc<str>, String>) {
        for (rule, name) in &by_rule {
            let known = self.policies.iter().any(|policy| policy.name == *name);
            if !known && self.by_rule.get(rule) != Some(name) {
                tracing::error!(
                    rule = &**rule,
                    escalation = name,
                    "a rule names an escalation that there is not; it is escalated as if it named none"
                );
            }
        }
        self.by_rule = by_rule;
    }

    /// Takes up what was remembered under a key; whether it is one of these.
    pub(super) fn recall(&mut self, key: &str, value: &str) -> bool {
        let Some(id) = key.strip_prefix(KEY) else { return false };
        match serde_json::from_str::<Running>(value) {
            Ok(running) => {
                let id: Arc<str> = id.into();
                self.due.extend(running.due.map(|due| (due, Arc::clone(&id))));
                self.running.insert(id, running);
            }
            Err(error) => tracing::error!(%error, key, "what an escalation remembered can't be read; it ends"),
        }
        true
    }

    pub(super) fn next_due(&self) -> Option<UtcMicros> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes a step of an alert: begins, goes on, rests or ends. `routed`: the channels that the step goes by anyway.
    pub(super) fn step(
        &mut self,
        step: &Transition,
        whose: Whose<'_>,
        now: UtcMicros,
        routed: &BTreeSet<Arc<str>>,
    ) -> Vec<Call> {
        if self.policies.is_empty() && self.running.is_empty() {
            return Vec::new();
        }
        let known = self.running.contains_key(&step.id);
        match (step.state, step.snoozed) {
            (State::Firing, false) if !known => self.begin(step, whose, now),
            (State::Firing, snoozed) if known => self.go_on(step, snoozed, now),
            (State::Acknowledged | State::Resolved, snoozed) if known => return self.end(step, snoozed, routed),
            _ => return Vec::new(),
        }
        let at_once = self.running.get(&step.id).and_then(|running| running.due).is_some_and(|due| due <= now);
        if at_once { self.call(&step.id, now, routed) } else { Vec::new() }
    }

    fn begin(&mut self, step: &Transition, whose: Whose<'_>, now: UtcMicros) {
        let named = self.by_rule.get(&step.rule);
        let policy = self.policies.iter().find(|policy| Some(&policy.name) == named);
        let fits = |policy: &&Escalation| policy.route.as_ref().is_some_and(|route| route.takes(step, whose, now));
        let Some(policy) = policy.or_else(|| self.policies.iter().find(fits)) else { return };
        let Some(first) = policy.levels.first() else { return };
        let running = Running {
            policy: policy.name.as_str().into(),
            level: 0,
            round: 0,
            due: now.checked_add(first.after),
            through: false,
            occasions: 0,
            step: step.clone(),
            told: BTreeSet::new(),
        };
        self.put(&step.id, running);
    }

    /// The alert is still firing. A snooze holds the escalation; after it the level that is next has its whole delay once more.
    fn go_on(&mut self, step: &Transition, snoozed: bool, now: UtcMicros) {
        let Some(running) = self.running.get(&step.id) else { return };
        let mut running = Running { step: step.clone(), ..running.clone() };
        if snoozed {
            running.due = None;
        } else if running.due.is_none() && !running.through {
            let policy = self.policies.iter().find(|policy| *policy.name == *running.policy);
            let after = policy.and_then(|policy| policy.levels.get(running.level)).map(|level| level.after);
            running.due = now.checked_add(after.unwrap_or_default());
        }
        self.put(&step.id, running);
    }

    /// Somebody sees to it, or it is over: whoever was told hears that.
    fn end(&mut self, step: &Transition, snoozed: bool, routed: &BTreeSet<Arc<str>>) -> Vec<Call> {
        let Some(running) = self.take(&step.id) else { return Vec::new() };
        if snoozed {
            return Vec::new();
        }
        let step = Arc::new(step.clone());
        let told = running.told.into_iter().filter(|channel| !routed.contains(channel));
        told.map(|channel| Call { step: Arc::clone(&step), channel, escalated: None }).collect()
    }

    /// Tells the levels whose time has come; of an alert one at a time, so that a long absence brings no burst.
    pub(super) fn advance(&mut self, now: UtcMicros) -> Vec<Call> {
        let due: Vec<Arc<str>> =
            self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| Arc::clone(id)).collect();
        due.iter().flat_map(|id| self.call(id, now, &BTreeSet::new())).collect()
    }

    /// Tells the level of an alert that is next.
    fn call(&mut self, id: &Arc<str>, now: UtcMicros, routed: &BTreeSet<Arc<str>>) -> Vec<Call> {
        let Some(mut running) = self.take(id) else { return Vec::new() };
        let Some(policy) = self.policies.iter().find(|policy| *policy.name == *running.policy) else {
            tracing::warn!(
                alert = &**id,
                escalation = &*running.policy,
                "an escalation is gone; its alert is not escalated any more"
            );
            return Vec::new();
        };
        let channels = policy.levels.get(running.level).map(|level| level.channels_at(&self.rotations, now));
        let channels = channels.unwrap_or_default();
        if channels.is_empty() {
            self.amiss.nobody = self.amiss.nobody.saturating_add(1);
            tracing::error!(
                alert = &**id,
                escalation = &*running.policy,
                level = running.level + 1,
                "there is nobody to tell"
            );
        }
        running.occasions = running.occasions.saturating_add(1);
        let escalated = Escalated {
            policy: Arc::clone(&running.policy),
            level: u32::try_from(running.level.saturating_add(1)).unwrap_or(u32::MAX),
            occasion: running.occasions,
        };
        let step = Arc::new(running.step.clone());
        let calls = channels.iter().filter(|channel| !routed.contains(*channel)).map(|channel| Call {
            step: Arc::clone(&step),
            channel: Arc::clone(channel),
            escalated: Some(escalated.clone()),
        });
        let calls: Vec<Call> = calls.collect();
        running.told.extend(channels);
        running.level = running.level.saturating_add(1);
        running.due = match policy.levels.get(running.level) {
            Some(level) => now.checked_add(level.after),
            None if running.round < policy.repeat => {
                running.round = running.round.saturating_add(1);
                running.level = 0;
                now.checked_add(policy.repeat_after)
            }
            None => {
                running.through = true;
                self.amiss.exhausted = self.amiss.exhausted.saturating_add(1);
                tracing::error!(
                    alert = &**id,
                    escalation = &*running.policy,
                    "nobody has acknowledged an alert, and its escalation is through"
                );
                None
            }
        };
        // Never at this very instant again, whatever the delays are.
        running.due = running.due.map(|due| due.max(UtcMicros(now.0.saturating_add(1))));
        self.put(id, running);
        calls
    }

    fn take(&mut self, id: &Arc<str>) -> Option<Running> {
        let running = self.running.remove(id)?;
        self.changed.insert(Arc::clone(id));
        if let Some(due) = running.due {
            self.due.remove(&(due, Arc::clone(id)));
        }
        Some(running)
    }

    fn put(&mut self, id: &Arc<str>, running: Running) {
        self.take(id);
        self.changed.insert(Arc::clone(id));
        self.due.extend(running.due.map(|due| (due, Arc::clone(id))));
        self.running.insert(Arc::clone(id), running);
    }

    pub(super) fn drain(&mut self, into: &mut Vec<MemoryChange>) {
        for id in std::mem::take(&mut self.changed) {
            // Plain data: it always has a JSON form.
            let value = self.running.get(&id).and_then(|running| serde_json::to_string(running).ok());
            into.push(MemoryChange { key: format!("{KEY}{id}"), value });
        }
    }
}

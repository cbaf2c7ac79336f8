//! Who is told of what, and when: the routes, limits and escalations of the configuration at work. Pure: no I/O, and no clock but the
//! journal's, so that the same journal has the same told, however its messages are split into batches.
//!
//! What must be remembered between messages (open windows of limits, escalations under way) is committed with the position.

mod escalations;
mod storm;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use escalations::Amiss;

use super::{MemoryChange, Notice, Order, Subject};
use crate::alert::{Rule, Transition};
use crate::config::{Config, Limit, Route, Whose};
use crate::message::Seq;
use crate::time::UtcMicros;
use escalations::{Call, Escalations};
use storm::Storms;

/// A channel, as far as it matters to whether it is told.
#[derive(Debug)]
struct Lane {
    name: Arc<str>,
    route: Option<Route>,
    limit: Option<Limit>,
}

/// What was decided since the last time.
#[derive(Debug, Default)]
pub struct Decided {
    pub orders: Vec<Order>,
    pub memory: Vec<MemoryChange>,
    /// Notices that a limit held back, by channel.
    pub held: BTreeMap<Arc<str>, u64>,
    pub amiss: Amiss,
}

/// Decides who is told.
#[derive(Debug)]
pub struct Dispatcher {
    instance: Arc<str>,
    lanes: Vec<Lane>,
    storms: Storms,
    escalations: Escalations,
    orders: Vec<Order>,
    held: BTreeMap<Arc<str>, u64>,
}

impl Dispatcher {
    /// Ready for the first message after the position at which this was remembered, as key and value.
    pub fn new(config: &Config, rules: &[Arc<Rule>], remembered: Vec<(String, String)>) -> Dispatcher {
        let mut dispatcher = Dispatcher {
            instance: config.instance.id.as_str().into(),
            lanes: Vec::new(),
            storms: Storms::default(),
            escalations: Escalations::default(),
            orders: Vec::new(),
            held: BTreeMap::new(),
        };
        dispatcher.configure(config, rules);
        for (key, value) in &remembered {
            if !dispatcher.storms.recall(key, value) && !dispatcher.escalations.recall(key, value) {
                tracing::warn!(key, "what another version remembered of notifications is left alone");
            }
        }
        dispatcher
    }

    /// Takes another configuration from the next message on. Windows and escalations that are open go on.
    pub fn configure(&mut self, config: &Config, rules: &[Arc<Rule>]) {
        let lane = |notify: &crate::config::Notify| Lane {
            name: notify.name.as_str().into(),
            route: notify.route.clone(),
            limit: notify.limit,
        };
        self.lanes = config.notify.iter().map(lane).collect();
        self.escalations.configure(&config.escalations, &config.on_call);
        let named = rules.iter().filter_map(|rule| Some((Arc::clone(&rule.slug), rule.escalation.clone()?)));
        self.escalations.of_rules(named.collect::<HashMap<_, _>>());
    }

    /// When the journal's clock must come next; none: only a step changes anything.
    pub fn next_due(&self) -> Option<UtcMicros> {
        [self.storms.next_due(), self.escalations.next_due()].into_iter().flatten().min()
    }

    /// Lets the journal's clock come to `now`, with this message: whatever time alone brings about until then happens.
    pub fn advance(&mut self, now: UtcMicros, seq: Seq) {
        if self.next_due().is_none_or(|due| due > now) {
            return;
        }
        let digests = self.storms.end(now, &self.instance);
        self.orders.extend(digests.into_iter().map(|digest| {
            let channel = Arc::clone(&digest.channel);
            Order { notice: Notice { subject: Subject::Digest(Arc::new(digest)), seq }, channel }
        }));
        let calls = self.escalations.advance(now);
        self.calls(calls, now, seq);
    }

    /// Takes a step of an alert that came about with this message.
    pub fn step(&mut self, step: &Transition, whose: Whose<'_>, now: UtcMicros, seq: Seq) {
        let takes = |lane: &&Lane| lane.route.as_ref().is_some_and(|route| route.takes(step, whose, now));
        let routed: BTreeSet<Arc<str>> = self.lanes.iter().filter(takes).map(|lane| Arc::clone(&lane.name)).collect();
        if !routed.is_empty() {
            let shared = Arc::new(step.clone());
            for channel in &routed {
                let notice = Notice { seq, ..Notice::of_step(Arc::clone(&shared)) };
                self.order(notice, step, channel, now);
            }
        }
        let calls = self.escalations.step(step, whose, now, &routed);
        self.calls(calls, now, seq);
    }

    fn calls(&mut self, calls: Vec<Call>, now: UtcMicros, seq: Seq) {
        for Call { step, channel, escalated } in calls {
            let notice = Notice { subject: Subject::Step { step: Arc::clone(&step), escalated }, seq };
            self.order(notice, &step, &channel, now);
        }
    }

    /// Has something told, unless the channel's limit holds it back.
    fn order(&mut self, notice: Notice, step: &Transition, channel: &Arc<str>, now: UtcMicros) {
        let limit = self.lanes.iter().find(|lane| lane.name == *channel).and_then(|lane| lane.limit);
        if limit.is_none_or(|limit| self.storms.admits(channel, limit, step, now)) {
            self.orders.push(Order { notice, channel: Arc::clone(channel) });
        } else {
            let held = self.held.entry(Arc::clone(channel)).or_default();
            *held = held.saturating_add(1);
        }
    }

    /// Takes what was decided since the last call.
    pub fn drain(&mut self) -> Decided {
        let mut memory = Vec::new();
        self.storms.drain(&mut memory);
        self.escalations.drain(&mut memory);
        Decided {
            orders: std::mem::take(&mut self.orders),
            memory,
            held: std::mem::take(&mut self.held),
            amiss: std::mem::take(&mut self.escalations.amiss),
        }
    }
}

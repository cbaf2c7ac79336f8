//! How much of one rule goes singly by one channel: windows of time, and one digest for what was more. Pure.
//!
//! A window opens with the first step that is told, and ends so long after it by the journal's clock. What comes in it beyond the limit
//! is counted; when it ends with something counted, that is one digest. So a limit of 20 in ten minutes is 21 notices at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ring::digest as sha;
use serde::{Deserialize, Serialize};

use crate::alert::{Severity, State, Transition};
use crate::config::Limit;
use crate::notify::{Digest, MemoryChange};
use crate::time::UtcMicros;

/// Begins the keys of what is remembered.
const KEY: &str = "storm/";

/// Names of the channel and of the rule.
type Lane = (Arc<str>, Arc<str>);

/// What is remembered of a lane, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Window {
    channel: Arc<str>,
    rule: Arc<str>,
    since: UtcMicros,
    until: UtcMicros,
    /// Singly.
    told: u32,
    #[serde(default)]
    firing: u64,
    #[serde(default)]
    acknowledged: u64,
    #[serde(default)]
    resolved: u64,
    /// The worst of those that were not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    severity: Option<Severity>,
}

/// Every window that is open.
#[derive(Debug, Default)]
pub(super) struct Storms {
    open: BTreeMap<Lane, Window>,
    ends: BTreeSet<(UtcMicros, Lane)>,
    changed: BTreeSet<Lane>,
}

impl Storms {
    /// Takes up what was remembered under a key; whether it is one of these.
    pub(super) fn recall(&mut self, key: &str, value: &str) -> bool {
        if !key.starts_with(KEY) {
            return false;
        }
        match serde_json::from_str::<Window>(value) {
            Ok(window) => {
                let lane = (Arc::clone(&window.channel), Arc::clone(&window.rule));
                self.ends.insert((window.until, lane.clone()));
                self.open.insert(lane, window);
            }
            Err(error) => tracing::error!(%error, key, "what a limit remembered can't be read; it begins anew"),
        }
        true
    }

    /// Whether a step may go singly by a channel now; else it is counted.
    pub(super) fn admits(&mut self, channel: &Arc<str>, limit: Limit, step: &Transition, now: UtcMicros) -> bool {
        let lane = (Arc::clone(channel), Arc::clone(&step.rule));
        self.changed.insert(lane.clone());
        let Some(window) = self.open.get_mut(&lane) else {
            let until = now.checked_add(limit.within).unwrap_or(now);
            self.ends.insert((until, lane.clone()));
            let window = Window {
                channel: Arc::clone(channel),
                rule: Arc::clone(&step.rule),
                since: now,
                until,
                told: 1,
                firing: 0,
                acknowledged: 0,
                resolved: 0,
                severity: None,
            };
            self.open.insert(lane, window);
            return true;
        };
        if window.told < limit.most {
            window.told = window.told.saturating_add(1);
            return true;
        }
        let count = match step.state {
            State::Firing => &mut window.firing,
            State::Acknowledged => &mut window.acknowledged,
            State::Resolved => &mut window.resolved,
        };
        *count = count.saturating_add(1);
        window.severity = window.severity.max(Some(step.severity));
        false
    }

    pub(super) fn next_due(&self) -> Option<UtcMicros> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Ends the windows whose time is over, and returns the digests of those that have counted something.
    pub(super) fn end(&mut self, now: UtcMicros, instance: &str) -> Vec<Digest> {
        let mut digests = Vec::new();
        while let Some((until, lane)) = self.ends.pop_first() {
            if until > now {
                self.ends.insert((until, lane));
                break;
            }
            if let Some(window) = self.open.remove(&lane) {
                digests.extend(digest(window, instance));
            }
            self.changed.insert(lane);
        }
        digests
    }

    pub(super) fn drain(&mut self, into: &mut Vec<MemoryChange>) {
        for lane in std::mem::take(&mut self.changed) {
            let key = format!("{KEY}{}/{}", lane.0, lane.1);
            // Plain data: it always has a JSON form.
            let value = self.open.get(&lane).and_then(|window| serde_json::to_string(window).ok());
            into.push(MemoryChange { key, value });
        }
    }
}

/// None where everything was told singly.
fn digest(window: Window, instance: &str) -> Option<Digest> {
    let severity = window.severity?;
    let mut context = sha::Context::new(&sha::SHA256);
    for part in [instance, &window.channel, &window.rule] {
        // The length keeps neighbours apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(&window.since.0.to_be_bytes());
    let id = context.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
    let Window { channel, rule, since, until, firing, acknowledged, resolved, .. } = window;
    Some(Digest { id: id.into(), channel, rule, since, until, firing, acknowledged, resolved, severity })
}

//! What is kept of a rule's state for a device beside the position, and taken up at a start.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::episode::Episode;
use super::flap::Flap;
use super::fleet::{Instance, NEVER, NOT_YET, NodeState, Past};
use super::program::Compiled;
use super::usual::Usual;

/// As JSON in `alert_states`. What readings tell anew is not in it: windows, samples, the hour under way.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Of the conditions that `nodes` and `usual` belong to.
    conditions: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<(Option<bool>, Option<i64>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    usual: Vec<Option<Usual>>,
    /// Of values that have not changed for long: what they are, and since when; readings tell of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    same: Vec<Option<(f64, i64)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    episode: Option<Episode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quiet_until: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flap: Option<Flap>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    spent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<i64>,
    /// When it was last looked at: what time alone has changed until then is not to happen again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
    /// When the metrics were last heard whose silence the conditions are about; none: with the device's last message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    heard: Vec<Option<i64>>,
    /// The device's, where its time is behind.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lag: i64,
    /// Since when it was, by the journal's time: what other rules remember of it may be older.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lag_at: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Memory {
    /// None where the first readings tell all of it. `heard`: when a metric was last.
    pub fn of(
        instance: &Instance,
        rule: &Compiled,
        (lag, lag_at): (i64, i64),
        heard: impl Fn(&str) -> Option<i64>,
    ) -> Option<Memory> {
        let simple =
            instance.episode.is_none() && matches!(instance.nodes.as_slice(), [only] if only.truth != Some(true));
        let unknown = instance.nodes.iter().all(|node| node.truth.is_none());
        let nodes = |node: &NodeState| (node.truth, (node.since != NEVER).then_some(node.since));
        let usual = |past: &Past| match past {
            Past::Usual(usual) => Some(usual.past_only()),
            _ => None,
        };
        let usual: Vec<Option<Usual>> = instance.past.iter().flatten().map(usual).collect();
        let same = |(past, node): (&Past, &NodeState)| match past {
            Past::Same { value, since, told, .. } if *told || node.truth == Some(true) => Some((*value, *since)),
            _ => None,
        };
        let same: Vec<Option<(f64, i64)>> = instance.past.iter().flatten().zip(&instance.nodes).map(same).collect();
        let is_apart = |apart: u64, id: u16| apart.checked_shr(id.into()).unwrap_or(0) & 1 == 1;
        let heard = |apart: u64| {
            let of = |(id, metric): (u16, &Arc<str>)| heard(metric).filter(|_| is_apart(apart, id));
            rule.silences().map(of).collect::<Vec<Option<i64>>>()
        };
        let apart = instance.apart.map(heard).unwrap_or_default();
        let memory = Memory {
            conditions: rule.fingerprint,
            nodes: if simple || unknown { Vec::new() } else { instance.nodes.iter().map(nodes).collect() },
            usual: if usual.iter().any(Option::is_some) { usual } else { Vec::new() },
            same: if same.iter().any(Option::is_some) { same } else { Vec::new() },
            episode: instance.episode.as_deref().cloned(),
            quiet_until: (instance.quiet_until != NOT_YET).then_some(instance.quiet_until),
            ended: (instance.ended != NOT_YET).then_some(instance.ended),
            flap: instance.flap.as_deref().cloned(),
            spent: instance.spent,
            from: (instance.from != NOT_YET).then_some(instance.from),
            at: rule.keeps.then_some(instance.at),
            heard: apart,
            // What silence is told by.
            lag: if rule.absent { lag } else { 0 },
            lag_at: 0,
        };
        let nothing = Memory { conditions: rule.fingerprint, ..Memory::default() };
        (memory != nothing).then_some(Memory { at: Some(instance.at), lag, lag_at, ..memory })
    }

    /// The episode that goes on, if one does.
    pub fn episode(&self) -> Option<&Episode> {
        self.episode.as_ref()
    }

    /// The same, taken out.
    pub fn into_episode(self) -> Option<Episode> {
        self.episode
    }

    /// When the metrics were last heard whose silence the conditions of `rule` are about: with the device's last message, where it is
    /// none. Nothing where that was not remembered.
    pub fn heard<'r>(&self, rule: &'r Compiled) -> impl Iterator<Item = (&'r Arc<str>, Option<i64>)> {
        let known = if self.conditions == rule.fingerprint { self.heard.clone() } else { Vec::new() };
        rule.silences().map(|(_, metric)| metric).zip(known)
    }

    /// Gives it back. Of other conditions only the episode is taken up.
    pub fn restore(self, instance: &mut Instance, rule: &Compiled) {
        instance.episode = self.episode.map(Box::new);
        instance.quiet_until = self.quiet_until.unwrap_or(NOT_YET);
        instance.ended = self.ended.unwrap_or(NOT_YET);
        instance.flap = self.flap.filter(|_| rule.rule.flapping.is_some()).map(Box::new);
        instance.from = self.from.unwrap_or(NOT_YET);
        instance.at = self.at.unwrap_or(NOT_YET);
        if self.conditions != rule.fingerprint {
            return;
        }
        instance.spent = self.spent;
        if !self.heard.is_empty() {
            let apart = rule.silences().zip(&self.heard).filter(|(_, heard)| heard.is_some());
            let bits = apart.map(|((id, _), _)| 1_u64.checked_shl(id.into()).unwrap_or(0));
            instance.apart = Some(bits.fold(0, |all, bit| all | bit));
        }
        for (node, (truth, since)) in instance.nodes.iter_mut().zip(self.nodes) {
            *node = NodeState { truth, since: since.unwrap_or(NEVER) };
        }
        for (past, same) in instance.past.iter_mut().flatten().zip(self.same) {
            if let Some((value, since)) = same {
                *past = Past::Same { value, since, told: true, count: 0 };
            }
        }
        for (past, usual) in instance.past.iter_mut().flatten().zip(self.usual) {
            if let (Past::Usual(past), Some(usual)) = (past, usual) {
                **past = usual;
            }
        }
    }
}

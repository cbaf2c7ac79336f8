//! How a rule stands on one device, for people.

use std::time::Duration;

use super::Evaluator;
use super::fleet::{NEVER, NOT_YET};
use super::measure::measured;
use super::program::NodeKind;
use super::wording;
use crate::time::UtcMicros;

/// How a rule stands on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub conditions: Vec<Stands>,
    /// The number that it goes by now, and what that is compared with.
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    /// Of the episode that goes on.
    pub episode: Option<String>,
    /// Until when nothing is said of it.
    pub snoozed_until: Option<UtcMicros>,
    /// Before this no other episode begins.
    pub quiet_until: Option<UtcMicros>,
    /// Somebody has ended its last episode: its condition must cease first.
    pub spent: bool,
    /// How far the device's time is behind.
    pub lag: Duration,
}

/// How one condition stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Stands {
    /// What it is part of: `when`, `clear` or `raise`.
    pub part: &'static str,
    pub words: String,
    /// None: nothing has told yet, or not since the last start.
    pub holds: Option<bool>,
    pub since: Option<UtcMicros>,
    /// How long it must hold.
    pub hold: Duration,
}

impl Evaluator {
    /// How each rule stands on a device; empty: none looks at it.
    pub fn standing(&self, tenant: &str, uid: &str) -> Vec<Standing> {
        let Some(device) = self.fleet.find(tenant, uid).and_then(|no| self.fleet.devices.get(no as usize)) else {
            return Vec::new();
        };
        let of = device.instances.iter().filter_map(|instance| {
            let rule = self.program.rules.get(instance.rule as usize)?;
            let conditions = rule.numbered().zip(&instance.nodes).map(|((id, node), state)| Stands {
                part: if id <= rule.when {
                    "when"
                } else if rule.clear.is_some_and(|clear| id <= clear) {
                    "clear"
                } else {
                    "raise"
                },
                words: match &node.kind {
                    NodeKind::Metric { metric, check } => wording::check(metric, check),
                    NodeKind::Absent { metric, .. } => {
                        metric.as_ref().map_or_else(|| "nothing heard".to_owned(), |metric| format!("no {metric}"))
                    }
                    NodeKind::All(_) => "all of these".to_owned(),
                    NodeKind::Any(_) => "any of these".to_owned(),
                    NodeKind::Not(_) => "not this".to_owned(),
                },
                holds: state.truth,
                since: (state.since != NEVER).then_some(UtcMicros(state.since)),
                hold: Duration::from_micros(u64::try_from(node.hold).unwrap_or(0)),
            });
            let decided = measured(&self.fleet, device, instance, rule, instance.at);
            let episode = instance.episode.as_deref();
            Some(Standing {
                conditions: conditions.collect(),
                value: decided.value,
                threshold: decided.threshold,
                episode: episode.map(|episode| episode.id.to_string()),
                snoozed_until: episode.and_then(|episode| episode.snoozed).map(UtcMicros),
                quiet_until: (instance.quiet_until != NOT_YET).then_some(UtcMicros(instance.quiet_until)),
                spent: instance.spent,
                lag: Duration::from_micros(u64::try_from(device.lag).unwrap_or(0)),
            })
        });
        of.collect()
    }
}

//! How a rule stands on one device, for people.

use std::sync::Arc;
use std::time::Duration;

use super::Evaluator;
use super::flap::calm_at;
use super::fleet::{DeviceNo, Instance, NEVER, NOT_YET};
use super::measure::measured;
use super::program::{Compiled, NodeKind};
use super::restraint::Cause;
use super::wording;
use crate::time::UtcMicros;

/// How a rule stands on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Slug.
    pub rule: Arc<str>,
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
    /// What holds it back now, in words, and when time alone may change that.
    pub held_back: Option<(String, Option<UtcMicros>)>,
    /// It flaps: nothing is said before this.
    pub flaps_until: Option<UtcMicros>,
    /// Where the rule is kept for groups: the device's. Episode, snooze, cooldown and flapping are the group's then.
    pub group: Option<InGroup>,
}

/// How it stands with a group.
#[derive(Clone, Debug, PartialEq)]
pub struct InGroup {
    pub name: Arc<str>,
    /// How many devices it has.
    pub members: u32,
    /// Uids of those on which the rule holds.
    pub inside: Vec<Arc<str>>,
    /// On how many it must.
    pub enough: u32,
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
    /// How each rule stands on a device, and what holds it back at an instant; empty: none looks at it.
    pub fn standing(&mut self, tenant: &str, uid: &str, now: UtcMicros) -> Vec<Standing> {
        let Some(no) = self.fleet.find(tenant, uid) else { return Vec::new() };
        let judge = self.judge();
        let lag = judge.fleet.devices.get(no as usize).map_or(0, |of| of.lag);
        let count = judge.fleet.devices.get(no as usize).map_or(0, |of| of.instances.len());
        let places = 0..super::fleet::number(count);
        let held: Vec<_> = places.map(|place| judge.restraint(no, place, now.0.saturating_sub(lag))).collect();
        let Some(device) = self.fleet.devices.get(no as usize) else { return Vec::new() };
        let of = device.instances.iter().zip(held).filter_map(|(instance, restraint)| {
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
                    NodeKind::Enough { .. } => "enough of the group's devices".to_owned(),
                },
                holds: state.truth,
                since: (state.since != NEVER).then_some(UtcMicros(state.since)),
                hold: Duration::from_micros(u64::try_from(node.hold).unwrap_or(0)),
            });
            let decided = measured(&self.fleet, device, instance, rule, instance.at);
            let group = self.fleet.groups.of(no, instance.rule);
            let (own, own_rule) = group.and_then(|group| self.of_group(group)).unwrap_or((instance, rule));
            let episode = own.episode.as_deref().filter(|episode| !episode.id.is_empty());
            let until = (restraint.until != NEVER).then_some(UtcMicros(restraint.until));
            Some(Standing {
                rule: Arc::clone(&rule.rule.slug),
                conditions: conditions.collect(),
                value: decided.value,
                threshold: decided.threshold,
                episode: episode.map(|episode| episode.id.to_string()),
                snoozed_until: episode.and_then(|episode| episode.snoozed).map(UtcMicros),
                quiet_until: (own.quiet_until != NOT_YET).then_some(UtcMicros(own.quiet_until)),
                spent: own.spent,
                lag: Duration::from_micros(u64::try_from(device.lag).unwrap_or(0)),
                held_back: restraint.by.map(|cause| (self.in_words(cause), until)),
                flaps_until: calm_at(own, own_rule).map(UtcMicros),
                group: group.and_then(|group| self.in_group(group, own_rule)),
            })
        });
        of.collect()
    }

    /// The instance of a group, and its rule's form for groups.
    fn of_group(&self, group: DeviceNo) -> Option<(&Instance, &Compiled)> {
        let instance = self.fleet.devices.get(group as usize)?.instances.first()?;
        Some((instance, self.program.rules.get(instance.rule as usize)?))
    }

    fn in_group(&self, group: DeviceNo, rule: &Compiled) -> Option<InGroup> {
        let members = self.fleet.groups.tally(group)?.members;
        let enough = rule.rule.group.as_ref()?.enough.of(members);
        let name = Arc::clone(&self.fleet.devices.get(group as usize)?.uid);
        Some(InGroup { name, members, inside: self.fleet.inside(group), enough })
    }

    fn in_words(&self, cause: Cause) -> String {
        match cause {
            Cause::Schedule => "its schedule: it is not in force now".to_owned(),
            Cause::Maintenance(number) => {
                let window = self.program.windows.get(number as usize);
                format!("maintenance: {}", window.map_or("", |window| &window.maintenance.name))
            }
            Cause::Dependency(number) => {
                let rule = self.program.rules.get(number as usize);
                format!("an alert of the rule {}", rule.map_or("", |rule| &rule.rule.slug))
            }
        }
    }
}

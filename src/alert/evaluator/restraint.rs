//! What holds a rule back on a device though its condition holds: its schedule, maintenance, and the alert of another rule.

use std::sync::Arc;

use super::conditions::next_due;
use super::fleet::{DeviceNo, NEVER, NOT_YET};
use super::judge::Judge;
use super::program::{Depends, Form};
use crate::alert::rule::DependsOn;
use crate::time::UtcMicros;

/// Why an alert does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldBack {
    /// The rule is not in force at this time.
    Schedule,
    /// Somebody works at the device.
    Maintenance,
    /// An alert of a rule that it depends on is active, or was a moment ago.
    Dependency,
}

impl HeldBack {
    pub const ALL: [HeldBack; 3] = [HeldBack::Schedule, HeldBack::Maintenance, HeldBack::Dependency];

    /// As metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            HeldBack::Schedule => "schedule",
            HeldBack::Maintenance => "maintenance",
            HeldBack::Dependency => "dependency",
        }
    }
}

/// How a rule is held back on a device at one instant, by the device's own time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Restraint {
    pub by: Option<Cause>,
    /// Time alone may change it then.
    pub until: i64,
}

/// What holds back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cause {
    Schedule,
    /// Position among the program's windows.
    Maintenance(u32),
    /// Position of the rule.
    Dependency(u32),
}

impl Cause {
    pub fn kind(self) -> HeldBack {
        match self {
            Cause::Schedule => HeldBack::Schedule,
            Cause::Maintenance(_) => HeldBack::Maintenance,
            Cause::Dependency(_) => HeldBack::Dependency,
        }
    }
}

/// An alert that would have begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Withheld {
    pub rule: Arc<str>,
    pub tenant: Arc<str>,
    pub device: Arc<str>,
    /// When its condition came to hold, or something else began to hold it back; by the device's own time.
    pub at: UtcMicros,
    pub by: HeldBack,
}

impl Restraint {
    pub const NONE: Restraint = Restraint { by: None, until: NEVER };

    /// Whether the rule is not in force.
    pub fn is_off(&self) -> bool {
        self.by == Some(Cause::Schedule)
    }
}

impl Judge<'_> {
    /// What holds the rule back on the device at an instant.
    pub fn restraint(&self, device: DeviceNo, place: u32, at: i64) -> Restraint {
        let Some(of) = self.fleet.devices.get(device as usize) else { return Restraint::NONE };
        let Some(instance) = of.instances.get(place as usize) else { return Restraint::NONE };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return Restraint::NONE };
        if rule.schedule.is_none() && rule.depends_on.is_empty() && of.windows.is_empty() {
            return Restraint::NONE;
        }
        let mut found = Restraint::NONE;
        for dependency in &rule.depends_on {
            let (active, until) = self.dependency(&of.tenant, &of.uid, dependency, at);
            if active {
                found.by = Some(Cause::Dependency(dependency.rule));
            }
            found.until = found.until.min(until);
        }
        for number in &of.windows {
            let Some(window) = self.program.windows.get(*number as usize) else { continue };
            let (within, until) = window.gates.at(of.zone, at);
            if within {
                found.by = Some(Cause::Maintenance(*number));
            }
            found.until = found.until.min(until);
        }
        if let Some(gates) = &rule.schedule {
            let (within, until) = gates.at(of.zone, at);
            if !within {
                found.by = Some(Cause::Schedule);
            }
            found.until = found.until.min(until);
        }
        found
    }

    /// Takes what is due by an instant of the rules on the device that others depend on, and that come before this one: they may hold it back.
    pub fn run_earlier(&mut self, device: DeviceNo, place: u32, at: i64) {
        for earlier in 0..place {
            let Some((instance, rule)) = self.instance(device, earlier) else { return };
            if rule.has_dependents && instance.due <= at {
                self.run_due(device, earlier, at);
            }
        }
    }

    /// Whether an alert of a rule is active on the device or one of its gateways, or was a moment ago; and until when that moment lasts.
    fn dependency(&self, tenant: &Arc<str>, uid: &Arc<str>, depends: &Depends, at: i64) -> (bool, i64) {
        let Depends { rule, on, grace } = *depends;
        let is_for_groups =
            self.program.rules.get(rule as usize).is_some_and(|rule| matches!(rule.form, Form::Member(_)));
        let look = |uid: &str| {
            let no = self.fleet.find(tenant, uid)?;
            // The alert is that of the device's group then.
            let no = if is_for_groups { self.fleet.groups.of(no, rule)? } else { no };
            let mut of = self.fleet.devices.get(no as usize)?.instances.iter();
            let instance = of.find(|instance| is_for_groups || instance.rule == rule)?;
            if instance.episode.is_some() {
                return Some((true, NEVER));
            }
            let until = if instance.ended == NOT_YET { NOT_YET } else { instance.ended.saturating_add(grace) };
            (grace > 0 && at < until).then_some((true, until))
        };
        let found: Vec<(bool, i64)> = match on {
            DependsOn::Device => look(uid).into_iter().collect(),
            DependsOn::Gateway => self.fleet.gateways.above(tenant, uid).filter_map(|uid| look(uid)).collect(),
        };
        found.iter().fold((false, NEVER), |(active, until), (also, its)| (active || *also, until.min(*its)))
    }

    /// Works out when time alone changes the rule on the device next, after `at`.
    pub fn reckon(&mut self, device: DeviceNo, place: u32, at: i64, restraint: Option<Restraint>) {
        let Some((instance, rule)) = self.instance(device, place) else { return };
        let mut due = next_due(instance, rule, at);
        let waits = instance.nodes.get(usize::from(rule.when)).is_some_and(|node| node.truth == Some(true));
        if waits || instance.episode.is_some() {
            let restraint = restraint.unwrap_or_else(|| self.restraint(device, place, at));
            if restraint.until > at {
                due = due.min(restraint.until);
            }
        }
        if let Some((instance, _)) = self.instance(device, place) {
            instance.due = due;
        }
    }

    /// An alert would have begun: noted once, until its condition ceases or something else holds it back.
    pub fn withhold(&mut self, device: DeviceNo, place: u32, at: i64, cause: Cause) {
        let Some((instance, rule)) = self.instance(device, place) else { return };
        let by = cause.kind();
        if instance.held.replace(by) == Some(by) {
            return;
        }
        let rule = Arc::clone(&rule.rule.slug);
        if let Some(of) = self.fleet.devices.get(device as usize) {
            let (tenant, device) = (Arc::clone(&of.tenant), Arc::clone(&of.uid));
            self.out.withheld.push(Withheld { rule, tenant, device, at: UtcMicros(at), by });
        }
    }

    /// What held an alert back may be gone with the catalog before: it is looked at once more.
    pub fn look_again(&mut self, device: DeviceNo, place: u32) {
        let now = self.now;
        let Some(lag) = self.fleet.devices.get(device as usize).map(|of| of.lag) else { return };
        let Some((instance, rule)) = self.instance(device, place) else { return };
        let waits = instance.nodes.get(usize::from(rule.when)).is_some_and(|node| node.truth == Some(true));
        if waits && instance.episode.is_none() && instance.at != NOT_YET {
            let at = if now == NOT_YET { instance.at } else { instance.at.max(now.saturating_sub(lag)) };
            instance.due = instance.due.min(at);
            self.arm(device, place);
        }
    }

    /// An alert has ended: what depends on its rule, on the device itself and on those behind it, may begin now.
    pub fn release(&mut self, device: DeviceNo, rule: u32) {
        let Some(ended) = self.program.rules.get(rule as usize).filter(|rule| rule.has_dependents) else { return };
        match ended.form {
            Form::Group(rule) => {
                self.fleet.groups.members(device).into_iter().for_each(|member| self.release_on(member, rule));
            }
            Form::Device | Form::Member(_) => self.release_on(device, rule),
        }
    }

    fn release_on(&mut self, device: DeviceNo, rule: u32) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let below = self.fleet.gateways.below(&of.tenant, &of.uid);
        let behind = below.iter().filter_map(|uid| Some((self.fleet.find(&of.tenant, uid)?, DependsOn::Gateway)));
        let concerned: Vec<(DeviceNo, DependsOn)> =
            std::iter::once((device, DependsOn::Device)).chain(behind).collect();
        for (no, on) in concerned {
            let Some(of) = self.fleet.devices.get(no as usize) else { continue };
            let waits = |instance: &super::fleet::Instance| {
                let Some(dependent) = self.program.rules.get(instance.rule as usize) else { return false };
                instance.episode.is_none()
                    && instance.nodes.get(usize::from(dependent.when)).is_some_and(|node| node.truth == Some(true))
                    && dependent.depends_on.iter().any(|one| one.rule == rule && one.on == on)
            };
            let time = self.now.saturating_sub(of.lag);
            let places: Vec<u32> =
                (0..).zip(&of.instances).filter(|(_, one)| waits(one)).map(|(place, _)| place).collect();
            for place in places {
                self.settle(no, place, time);
            }
        }
    }
}

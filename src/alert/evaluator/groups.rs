//! Groups: on how many of its devices a rule holds, and the one alert that comes of it.
//!
//! A group is kept as a device of its own that goes by the journal's clock, with one instance of its rule's form for groups, whose
//! conditions are that enough of its members are *in*. A device is in while it would have an alert if the rule were kept for each.
//! What members have become is looked at once after each message and after each instant at which something was due: whatever a device sends
//! at once of its past, its group goes by how it stands at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::adopt::{State, instance_of};
use super::fleet::{Device, DeviceNo, Fleet, NOT_YET};
use super::judge::Judge;
use super::measure::Measured;
use super::program::{Form, NodeKind};
use super::{Evaluator, Orphan};
use crate::alert::rule::{By, Severity};
use crate::alert::transition::{Holder, State as Stage};

/// Which devices are together, and which of them are in.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// By tenant, the place of the rule's form for devices, and name.
    by_name: HashMap<(Arc<str>, u32, Arc<str>), DeviceNo>,
    tallies: HashMap<DeviceNo, Tally>,
    /// By device and the place of the rule's form for devices.
    of: BTreeMap<(DeviceNo, u32), DeviceNo>,
    /// Those whose members have changed since they were looked at.
    touched: BTreeSet<DeviceNo>,
}

/// The members of a group.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many there are.
    pub members: u32,
    /// Those that are in, and how bad it is on each.
    inside: BTreeMap<DeviceNo, Severity>,
    /// How many of those have each severity, the mildest first.
    counts: [u32; 3],
}

impl Tally {
    /// How many are in.
    pub fn inside(&self) -> u32 {
        self.counts.iter().fold(0, |all, count| all.saturating_add(*count))
    }

    /// How many are in with this severity or a worse one.
    fn at_least(&self, least: Severity) -> u32 {
        self.counts.iter().skip(least as usize).fold(0, |all, count| all.saturating_add(*count))
    }

    fn set(&mut self, device: DeviceNo, severity: Option<Severity>) -> bool {
        let before = match severity {
            Some(severity) => self.inside.insert(device, severity),
            None => self.inside.remove(&device),
        };
        if let Some(count) = before.and_then(|before| self.counts.get_mut(before as usize)) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = severity.and_then(|severity| self.counts.get_mut(severity as usize)) {
            *count = count.saturating_add(1);
        }
        before != severity
    }
}

impl Groups {
    /// Whether what the fleet has at this position is a group.
    pub fn is_group(&self, no: DeviceNo) -> bool {
        self.tallies.contains_key(&no)
    }

    /// The group in which a device is for a rule; `rule`: the place of its form for devices.
    pub fn of(&self, device: DeviceNo, rule: u32) -> Option<DeviceNo> {
        self.of.get(&(device, rule)).copied()
    }

    pub fn tally(&self, group: DeviceNo) -> Option<&Tally> {
        self.tallies.get(&group)
    }

    /// All devices of a group.
    pub fn members(&self, group: DeviceNo) -> Vec<DeviceNo> {
        self.of.iter().filter(|(_, of)| **of == group).map(|((device, _), _)| *device).collect()
    }

    /// Whether a group waits to be looked at.
    pub fn wait(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Notes how bad it is on a device; none: it is not in.
    fn note(&mut self, device: DeviceNo, rule: u32, severity: Option<Severity>) {
        let Some(group) = self.of(device, rule) else { return };
        if self.tallies.get_mut(&group).is_some_and(|tally| tally.set(device, severity)) {
            self.touched.insert(group);
        }
    }

    fn join(&mut self, device: DeviceNo, rule: u32, group: DeviceNo) {
        self.of.insert((device, rule), group);
        if let Some(tally) = self.tallies.get_mut(&group) {
            tally.members = tally.members.saturating_add(1);
        }
        self.touched.insert(group);
    }

    fn leave(&mut self, device: DeviceNo, rule: u32) {
        self.note(device, rule, None);
        let Some(group) = self.of.remove(&(device, rule)) else { return };
        if let Some(tally) = self.tallies.get_mut(&group) {
            tally.members = tally.members.saturating_sub(1);
        }
        self.touched.insert(group);
    }
}

impl Fleet {
    /// How many of a group's members are in, and how many it takes.
    pub fn counted(&self, group: DeviceNo, enough: crate::alert::rule::Enough) -> Measured {
        let (inside, members) = self.groups.tally(group).map_or((0, 0), |tally| (tally.inside(), tally.members));
        let (value, threshold) = (Some(f64::from(inside)), Some(f64::from(enough.of(members))));
        Measured { value, threshold, unit: "".into() }
    }

    /// The uids of a group's members that are in, in their order.
    pub fn inside(&self, group: DeviceNo) -> Vec<Arc<str>> {
        let inside = self.groups.tally(group).into_iter().flat_map(|tally| tally.inside.keys());
        let mut uids: Vec<Arc<str>> =
            inside.filter_map(|no| Some(Arc::clone(&self.devices.get(*no as usize)?.uid))).collect();
        uids.sort_unstable();
        uids
    }
}

impl Judge<'_> {
    /// A member has come in, has left, or is in with another severity.
    pub fn note_member(&mut self, device: DeviceNo, place: u32) {
        let Some(instance) = self.fleet.devices.get(device as usize).and_then(|of| of.instances.get(place as usize))
        else {
            return;
        };
        let severity = instance.episode.as_ref().filter(|one| one.state != Stage::Resolved).map(|one| one.severity);
        let rule = instance.rule;
        self.fleet.groups.note(device, rule, severity);
        self.mark(device, place);
    }

    /// The member that has come in last by its own time: it brought its group over. What it is found by is remembered, so that it is the same
    /// after a restart.
    pub fn latest_inside(&self, group: DeviceNo, rule: u32) -> Option<Arc<str>> {
        let inside = self.fleet.groups.tally(group)?.inside.keys();
        let since = |no: &DeviceNo| {
            let device = self.fleet.devices.get(*no as usize)?;
            let instance = device.instances.iter().find(|instance| instance.rule == rule)?;
            Some((instance.episode.as_ref()?.since, &device.uid))
        };
        inside.filter_map(since).max().map(|(_, uid)| Arc::clone(uid))
    }

    /// Lets the groups whose members have changed draw their conclusions.
    pub fn conclude_groups(&mut self) {
        // One that ends may let others' members come in; rules don't wait for each other in circles.
        while let Some(group) = self.fleet.groups.touched.pop_first() {
            let now = self.now;
            let (Fleet { devices, groups, .. }, program) = (&mut *self.fleet, self.program);
            let Some(tally) = groups.tallies.get(&group) else { continue };
            let Some(instance) = devices.get_mut(group as usize).and_then(|of| of.instances.first_mut()) else {
                continue;
            };
            let Some(rule) = program.rules.get(instance.rule as usize) else { continue };
            let Some(enough) = rule.rule.group.as_ref().map(|group| group.enough.of(tally.members)) else { continue };
            let mut changed = false;
            for (node, state) in rule.nodes.iter().zip(instance.nodes.iter_mut()) {
                if let NodeKind::Enough { least } = node.kind {
                    changed |= state.set(Some(tally.at_least(least) >= enough), now);
                }
            }
            if changed {
                self.mark(group, 0);
                self.settle(group, 0, now);
            }
        }
    }
}

impl Evaluator {
    /// Lets groups draw their conclusions at an instant, by the journal's time.
    pub(super) fn conclude_groups(&mut self, now: i64) {
        if self.fleet.groups.wait() {
            let mut judge = self.judge();
            judge.now = now;
            judge.conclude_groups();
        }
    }

    /// Puts a device where it belongs in the groups of its rules.
    pub(super) fn regroup(&mut self, device: DeviceNo) {
        if !self.program.groups {
            return;
        }
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let tenant = Arc::clone(&of.tenant);
        let mut belongs: BTreeMap<u32, (u32, Arc<str>, Option<Severity>)> = BTreeMap::new();
        for instance in &of.instances {
            let Some(rule) = self.program.rules.get(instance.rule as usize) else { continue };
            let (Form::Member(form), Some(group)) = (rule.form, &rule.rule.group) else { continue };
            if let Some(name) = self.name_of_group(of, &group.by) {
                let severity = instance.episode.as_ref().map(|episode| episode.severity);
                belongs.insert(instance.rule, (form, name, severity));
            }
        }
        let all = (device, 0)..=(device, u32::MAX);
        let before: Vec<(u32, DeviceNo)> =
            self.fleet.groups.of.range(all).map(|((_, rule), of)| (*rule, *of)).collect();
        for (rule, group) in before {
            let same = |(_, name, _): &(u32, Arc<str>, Option<Severity>)| {
                self.fleet.devices.get(group as usize).is_some_and(|of| of.uid == *name)
            };
            if !belongs.get(&rule).is_some_and(same) {
                self.fleet.groups.leave(device, rule);
            }
        }
        for (rule, (form, name, severity)) in belongs {
            let group = self.group(&tenant, rule, form, &name);
            if self.fleet.groups.of(device, rule) != Some(group) {
                self.fleet.groups.join(device, rule, group);
            }
            self.fleet.groups.note(device, rule, severity);
        }
    }

    /// What the group is called that a device is in; none: it is in none.
    fn name_of_group(&self, device: &Device, by: &By) -> Option<Arc<str>> {
        let placed = || self.placed.get(&(Arc::clone(&device.tenant), Arc::clone(&device.uid)));
        let name = match by {
            By::Site => format!("site:{}", placed()?.site.as_ref()?),
            By::Template => format!("template:{}", device.template.as_ref()?),
            By::Parent => format!("parent:{}", self.fleet.gateways.of(&device.tenant, &device.uid)?),
            By::Tag(name) => format!("tag:{name}={}", placed()?.tags.get(name)?),
            By::All => "all".to_owned(),
        };
        Some(name.into())
    }

    /// The group of this name, which is made where there is none yet.
    fn group(&mut self, tenant: &Arc<str>, rule: u32, form: u32, name: &Arc<str>) -> DeviceNo {
        let key = (Arc::clone(tenant), rule, Arc::clone(name));
        if let Some(known) = self.fleet.groups.by_name.get(&key) {
            return *known;
        }
        let instances = self.program.rules.get(form as usize).map(|compiled| {
            let state = self.lost.remove(&(Arc::clone(tenant), Arc::clone(&compiled.rule.slug), Arc::clone(name)));
            instance_of(form, compiled, state, &mut (0, NOT_YET))
        });
        let no = self.fleet.add_unnamed(Device {
            tenant: Arc::clone(tenant),
            uid: Arc::clone(name),
            template: None,
            zone: 0,
            windows: Box::default(),
            instances: instances.into_iter().collect(),
            silence: false,
            sensors: Vec::new(),
            heard: NOT_YET,
            lag: 0,
            lag_at: NOT_YET,
        });
        self.fleet.groups.by_name.insert(key, no);
        self.fleet.groups.tallies.insert(no, Tally::default());
        self.enlist(no);
        no
    }

    /// Ends the alerts of groups that there are no more.
    pub(super) fn end_lost_groups(&mut self) {
        let mut lost: Vec<_> = std::mem::take(&mut self.lost).into_iter().collect();
        lost.sort_by(|(a, _), (b, _)| a.cmp(b));
        for ((tenant, rule, name), state) in lost {
            self.orphans.push(Orphan { tenant, holder: Holder::Group(name), rule, episode: state.into_episode() });
        }
    }
}

/// A rule's state for a group so far, by tenant, slug and name.
pub(super) type Kept = HashMap<(Arc<str>, Arc<str>, Arc<str>), State>;

/// What a group is called beside devices: on MQTT, and where its alerts get their ids.
pub(crate) fn among_devices(name: &str) -> String {
    format!("group:{name}")
}

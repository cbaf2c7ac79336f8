//! One rule on one device at one time: which conditions hold, what that makes of its episode, and when time alone will change it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::episode::{self, Episode};
use super::fleet::{Device, DeviceNo, Fleet, Instance, NEVER, NOT_YET, Past};
use super::measure::measured;
use super::program::{Compiled, NodeId, NodeKind, Program, micros};
use super::wording;
use crate::alert::rule::{Check, Resolve, Severity};
use crate::alert::transition::{State, Transition, Who};
use crate::message::Seq;
use crate::time::UtcMicros;

/// What an evaluation leaves behind.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub transitions: Vec<Transition>,
    /// Instances whose memory has changed, each once.
    pub dirty: Vec<(DeviceNo, u32)>,
    /// Episodes that go on, by id.
    pub active: HashMap<Arc<str>, (DeviceNo, u32)>,
    /// When the clock must look at an instance; entries that its `armed` does not name are void.
    pub clock: BinaryHeap<Reverse<(i64, DeviceNo, u32)>>,
}

/// Evaluates; made for the time of one message.
pub(super) struct Judge<'a> {
    pub program: &'a Program,
    pub fleet: &'a mut Fleet,
    pub out: &'a mut Outcome,
    /// The journal's time.
    pub now: i64,
    pub seq: Seq,
}

impl Judge<'_> {
    fn instance(&mut self, device: DeviceNo, at: u32) -> Option<(&mut Instance, &Compiled)> {
        let instance = self.fleet.devices.get_mut(device as usize)?.instances.get_mut(at as usize)?;
        let rule = self.program.rules.get(instance.rule as usize)?;
        Some((instance, rule))
    }

    /// Takes every step that time alone brings about up to and including `until`, by the device's own time.
    pub fn run_due(&mut self, device: DeviceNo, at: u32, until: i64) {
        while let Some((instance, _)) = self.instance(device, at) {
            let due = instance.due;
            if due > until {
                return;
            }
            // Never the same again, whatever a condition says.
            self.settle(device, at, due);
            if let Some((instance, _)) = self.instance(device, at)
                && instance.due <= due
            {
                instance.due = due.saturating_add(1);
            }
        }
    }

    /// Draws the conclusions from what conditions have become at a time.
    pub fn settle(&mut self, device: DeviceNo, place: u32, time: i64) {
        let Some((instance, rule)) = self.instance(device, place) else { return };
        let at = time.max(instance.at);
        instance.at = at;
        let mut changed = refresh(instance, rule, at);
        changed |= combine(instance, rule, at);
        let held = |node: NodeId| held(instance, rule, node, at);
        let when = held(rule.when);
        let cleared = match rule.clear {
            Some(clear) => held(clear) == Some(true),
            None => when == Some(false),
        };
        let raised = rule.raise.iter().filter(|(_, node)| held(*node) == Some(true)).map(|(severity, _)| *severity);
        let severity = raised.fold(rule.rule.severity, Severity::max);
        if when == Some(false) && instance.spent {
            instance.spent = false;
            changed = true;
        }
        let may_end = rule.rule.resolve == Resolve::Auto;
        match &mut instance.episode {
            // Where both hold, what clears it counts: else it would begin and end in turn.
            None if when == Some(true) && !cleared && at >= instance.quiet_until && !instance.spent => {
                self.fire(device, place, at, severity);
            }
            None => {}
            Some(episode) if cleared && may_end && at >= episode.since.saturating_add(rule.min_firing) => {
                let why =
                    if rule.clear.is_some() { "what clears it holds" } else { "its condition does not hold any more" };
                self.resolve(device, place, at, Who::Rule, why.to_owned());
            }
            Some(episode) if episode.severity != severity => {
                let why = format!("from {} to {}", episode.severity.word(), severity.word());
                episode.severity = severity;
                self.step(device, place, at, Who::Rule, why);
            }
            Some(_) => {}
        }
        if let Some((instance, rule)) = self.instance(device, place) {
            instance.due = next_due(instance, rule, at);
        }
        if changed {
            self.mark(device, place);
        }
        self.arm(device, place);
    }

    fn fire(&mut self, device: DeviceNo, place: u32, at: i64, severity: Severity) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        let onset = onset(instance, rule, rule.when, at);
        let metric = wording::metric_of(rule);
        let id = episode::id(&rule.rule.slug, &of.tenant, &of.uid, &metric, onset);
        let why = wording::condition(&rule.rule.when);
        let episode = Episode { id, onset, since: at, step: 0, state: State::Firing, severity, snoozed: None };
        self.out.active.insert(Arc::clone(&episode.id), (device, place));
        if let Some((instance, _)) = self.instance(device, place) {
            instance.episode = Some(Box::new(episode));
        }
        self.step(device, place, at, Who::Rule, why);
    }

    /// Ends the episode.
    pub fn resolve(&mut self, device: DeviceNo, place: u32, at: i64, who: Who, why: String) {
        if let Some((instance, _)) = self.instance(device, place)
            && let Some(episode) = &mut instance.episode
        {
            episode.state = State::Resolved;
        }
        self.step(device, place, at, who, why);
        let Some((instance, rule)) = self.instance(device, place) else { return };
        if rule.cooldown > 0 {
            instance.quiet_until = at.saturating_add(rule.cooldown);
        }
        if let Some(episode) = instance.episode.take() {
            self.out.active.remove(&episode.id);
        }
        self.mark(device, place);
    }

    /// Tells how the episode stands now.
    pub fn step(&mut self, device: DeviceNo, place: u32, at: i64, who: Who, why: String) {
        let now = self.now;
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        let Some(episode) = instance.episode.as_deref() else { return };
        let decided = measured(self.fleet, of, instance, rule, at);
        let mut transition = Transition {
            id: Arc::clone(&episode.id),
            step: episode.step,
            rule: Arc::clone(&rule.rule.slug),
            tenant: Arc::clone(&of.tenant),
            device: Arc::clone(&of.uid),
            metric: wording::metric_of(rule),
            state: episode.state,
            severity: episode.severity,
            at: UtcMicros(at),
            onset: UtcMicros(episode.onset),
            since: UtcMicros(episode.since),
            value: decided.value,
            threshold: decided.threshold,
            unit: decided.unit,
            message: String::new(),
            snoozed: episode.snoozed.is_some_and(|until| until > now),
            who,
            why,
            seq: self.seq,
        };
        transition.message = wording::message(&rule.rule, &transition);
        self.out.transitions.push(transition);
        if let Some((instance, _)) = self.instance(device, place)
            && let Some(episode) = &mut instance.episode
        {
            episode.step = episode.step.saturating_add(1);
        }
        self.mark(device, place);
    }

    /// Its memory is to be kept anew.
    pub fn mark(&mut self, device: DeviceNo, place: u32) {
        if let Some((instance, _)) = self.instance(device, place)
            && !instance.dirty
        {
            instance.dirty = true;
            self.out.dirty.push((device, place));
        }
    }

    /// Works out when time alone changes it next, and makes sure that the clock looks at it then.
    pub fn schedule(&mut self, device: DeviceNo, place: u32) {
        if let Some((instance, rule)) = self.instance(device, place) {
            instance.due = next_due(instance, rule, instance.at);
        }
        self.arm(device, place);
    }

    /// Makes sure that the clock looks at it in time.
    pub fn arm(&mut self, device: DeviceNo, place: u32) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        let mut due = if instance.due == NEVER { NEVER } else { instance.due.saturating_add(of.lag) };
        if rule.absent {
            due = due.min(silence_due(self.fleet, of, instance, rule));
        }
        if let Some(until) = instance.episode.as_ref().and_then(|episode| episode.snoozed) {
            due = due.min(until);
        }
        if let Some((instance, _)) = self.instance(device, place)
            && due < instance.armed
        {
            instance.armed = due;
            self.out.clock.push(Reverse((due, device, place)));
        }
    }

    /// The clock has come to `at`, by the journal's time, for which the instance was armed.
    pub fn ring(&mut self, device: DeviceNo, place: u32, at: i64) {
        let Some((instance, rule)) = self.instance(device, place) else { return };
        if instance.armed != at {
            return;
        }
        instance.armed = NEVER;
        let silent = rule.absent;
        if at == NOT_YET {
            self.begin_silence(device, place);
            return;
        }
        let lag = self.fleet.devices.get(device as usize).map_or(0, |device| device.lag);
        let time = at.saturating_sub(lag);
        self.run_due(device, place, time.saturating_sub(1));
        // Whatever is so at this instant is so at once.
        let changed = silent && self.look_for_silence(device, place, at, time);
        if changed || self.instance(device, place).is_some_and(|(instance, _)| instance.due <= time) {
            self.settle(device, place, time);
        }
        self.wake(device, place, at, time);
        self.arm(device, place);
    }

    /// If something that a rule waits for was never heard, its silence counts from now on.
    pub fn begin_silence(&mut self, device: DeviceNo, place: u32) {
        let now = self.now;
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        if silence_due(self.fleet, of, instance, rule) == NOT_YET
            && let Some((instance, _)) = self.instance(device, place)
        {
            instance.from = now;
            self.mark(device, place);
        }
        self.arm(device, place);
    }

    /// Notes which conditions about silence hold now; whether one has changed.
    pub fn look_for_silence(&mut self, device: DeviceNo, place: u32, at: i64, time: i64) -> bool {
        let mut changed = false;
        let Some(of) = self.fleet.devices.get(device as usize) else { return false };
        let Some(instance) = of.instances.get(place as usize) else { return false };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return false };
        let mut found: Vec<(NodeId, bool)> = Vec::new();
        for (id, node) in rule.numbered() {
            if let NodeKind::Absent { metric, after } = &node.kind {
                let heard = heard(self.fleet, of, instance, metric.as_deref());
                found.push((id, heard != NOT_YET && at.saturating_sub(heard) >= *after));
            }
        }
        if let Some((instance, _)) = self.instance(device, place) {
            for (id, silent) in found {
                if let Some(node) = instance.nodes.get_mut(usize::from(id)) {
                    changed |= node.set(Some(silent), time.max(instance.at));
                }
            }
        }
        if changed {
            self.mark(device, place);
        }
        changed
    }

    /// Ends a snooze whose time has come.
    fn wake(&mut self, device: DeviceNo, place: u32, at: i64, time: i64) {
        let Some((instance, _)) = self.instance(device, place) else { return };
        let time = time.max(instance.at);
        if let Some(episode) = &mut instance.episode
            && episode.snoozed.is_some_and(|until| until <= at)
        {
            episode.snoozed = None;
            self.step(device, place, time, Who::Rule, "the snooze is over".to_owned());
        }
    }
}

/// Whether a node has held for as long as it must.
fn held(instance: &Instance, rule: &Compiled, node: NodeId, at: i64) -> Option<bool> {
    let hold = rule.nodes.get(usize::from(node))?.hold;
    instance.nodes.get(usize::from(node))?.held(hold, at)
}

/// Works out what consists of other conditions; an unknown one decides nothing (Kleene). Whether something has changed.
fn combine(instance: &mut Instance, rule: &Compiled, at: i64) -> bool {
    let mut changed = false;
    for (id, node) in rule.numbered() {
        let truth = match &node.kind {
            NodeKind::Metric { .. } | NodeKind::Absent { .. } => continue,
            NodeKind::Not(of) => held(instance, rule, *of, at).map(|truth| !truth),
            NodeKind::All(of) => decide(of.iter().map(|node| held(instance, rule, *node, at)), false),
            NodeKind::Any(of) => decide(of.iter().map(|node| held(instance, rule, *node, at)), true),
        };
        if let Some(state) = instance.nodes.get_mut(usize::from(id)) {
            changed |= state.set(truth, at);
        }
    }
    changed
}

/// `decisive` if one is that; unknown if one is; else the other.
fn decide(truths: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let mut unknown = false;
    for truth in truths {
        match truth {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(!decisive)
}

/// When what holds now began to: of all conditions the last, of any the first.
fn onset(instance: &Instance, rule: &Compiled, node: NodeId, at: i64) -> i64 {
    let begun = instance.nodes.get(usize::from(node)).map_or(NEVER, |state| state.since);
    let own = if begun == NEVER { at } else { begun };
    let of = |nodes: &[NodeId]| -> Vec<i64> {
        let holding = nodes.iter().filter(|node| held(instance, rule, **node, at) == Some(true));
        holding.map(|node| onset(instance, rule, *node, at)).collect()
    };
    match rule.nodes.get(usize::from(node)).map(|node| &node.kind) {
        Some(NodeKind::All(nodes)) => of(nodes).into_iter().max().unwrap_or(own),
        Some(NodeKind::Any(nodes)) => of(nodes).into_iter().min().unwrap_or(own),
        _ => own,
    }
}

/// Windows lose their oldest readings as time goes by. Whether that changes a condition.
fn refresh(instance: &mut Instance, rule: &Compiled, at: i64) -> bool {
    let mut changed = false;
    let Some(pasts) = &instance.past else { return false };
    for ((node, past), state) in rule.nodes.iter().zip(pasts).zip(instance.nodes.iter_mut()) {
        if let (NodeKind::Metric { check: Check::Window { over, aggregate, is }, .. }, Past::Series(series)) =
            (&node.kind, past)
        {
            let value = series.aggregate(*aggregate, at, micros(*over));
            changed |= state.set(value.map(|value| is.holds(value)), at);
        }
    }
    changed
}

/// When time alone changes something after `at`.
fn next_due(instance: &Instance, rule: &Compiled, at: i64) -> i64 {
    let mut due = NEVER;
    let mut consider = |time: i64| {
        if time > at {
            due = due.min(time);
        }
    };
    for (node, state) in rule.nodes.iter().zip(&instance.nodes) {
        if node.hold > 0 {
            consider(state.due(node.hold));
        }
    }
    for (node, past) in rule.nodes.iter().zip(instance.past.iter().flatten()) {
        if let (NodeKind::Metric { check: Check::Window { over, .. }, .. }, Past::Series(series)) = (&node.kind, past)
            && let Some(leaves) = series.leaves(at, micros(*over))
        {
            consider(leaves);
        }
    }
    match &instance.episode {
        Some(episode) if rule.min_firing > 0 => consider(episode.since.saturating_add(rule.min_firing)),
        None if instance.quiet_until != NOT_YET => consider(instance.quiet_until),
        _ => {}
    }
    due
}

/// When a device, or one metric of it, was last heard, by the journal's time; [`NOT_YET`]: silence does not count yet.
fn heard(fleet: &Fleet, device: &Device, instance: &Instance, metric: Option<&str>) -> i64 {
    let heard = match metric {
        None => device.heard,
        Some(metric) => {
            let sensor = fleet.sensor_of(device, metric).and_then(|no| fleet.sensors.get(no as usize));
            sensor.map_or(NOT_YET, |sensor| sensor.heard)
        }
    };
    if heard == NOT_YET { instance.from } else { heard }
}

/// When silence will have lasted; at once where it must first be noted from when on it counts.
fn silence_due(fleet: &Fleet, device: &Device, instance: &Instance, rule: &Compiled) -> i64 {
    let mut due = NEVER;
    for (node, state) in rule.nodes.iter().zip(&instance.nodes) {
        if let NodeKind::Absent { metric, after } = &node.kind {
            let heard = heard(fleet, device, instance, metric.as_deref());
            if heard == NOT_YET {
                return NOT_YET;
            }
            if state.truth != Some(true) {
                due = due.min(heard.saturating_add(*after));
            }
        }
    }
    due
}

//! One rule on one device at one time: which conditions hold, what that makes of its episode, and when time alone will change it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::conditions::{combine, held, onset, refresh};
use super::episode::{self, Episode};
use super::flap::{self, Says};
use super::fleet::{DeviceNo, Fleet, Instance, NEVER, NOT_YET};
use super::measure::measured;
use super::program::{Compiled, Form, NodeId, Program};
use super::restraint::{Restraint, Withheld};
use super::silence::silence_due;
use super::{groups, wording};
use crate::alert::rule::Severity;
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
    /// When the clock must look at an instance of a device; entries that its `armed` does not name are void.
    clock: BinaryHeap<Reverse<(i64, DeviceNo, u32)>>,
    /// The same for groups.
    group_clock: BinaryHeap<Reverse<(i64, DeviceNo, u32)>>,
    /// Alerts that something has held back.
    pub withheld: Vec<Withheld>,
}

/// What the clock must look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// By the journal's time; [`NOT_YET`]: at once.
    pub at: i64,
    pub device: DeviceNo,
    pub place: u32,
    pub is_group: bool,
}

impl Outcome {
    /// What comes next. Of one instant devices come before groups, which go by what has become of those.
    pub fn next_ring(&self) -> Option<Ring> {
        let ring = |is_group: bool, entry: Option<&Reverse<(i64, DeviceNo, u32)>>| {
            entry.map(|Reverse((at, device, place))| Ring { at: *at, device: *device, place: *place, is_group })
        };
        let (device, group) = (ring(false, self.clock.peek()), ring(true, self.group_clock.peek()));
        [device, group].into_iter().flatten().min_by_key(|ring| (ring.at, ring.is_group))
    }

    /// Takes it.
    pub fn pop(&mut self, ring: Ring) {
        if ring.is_group {
            self.group_clock.pop()
        } else {
            self.clock.pop()
        };
    }
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
    pub fn instance(&mut self, device: DeviceNo, at: u32) -> Option<(&mut Instance, &Compiled)> {
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
        // Worked out anew below; until then nothing of it is due, whatever else happens first.
        instance.due = NEVER;
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
        let says = Says {
            // Where both hold, what clears it counts: else it would begin and end in turn.
            begins: when == Some(true) && !cleared && at >= instance.quiet_until && !instance.spent,
            cleared,
            severity,
        };
        let may_begin = says.begins && instance.episode.is_none() && !rule.depends_on.is_empty();
        if !says.begins {
            instance.held = None;
        }
        if changed {
            self.mark(device, place);
        }
        if may_begin {
            self.run_earlier(device, place, at);
        }
        let restraint = self.restraint(device, place, at);
        self.decide(device, place, at, says, restraint);
        self.reckon(device, place, at, Some(restraint));
        self.arm(device, place);
    }

    /// What the conditions make of the episode.
    fn decide(&mut self, device: DeviceNo, place: u32, at: i64, says: Says, restraint: Restraint) {
        let Some((instance, rule)) = self.instance(device, place) else { return };
        let is_wild = instance.flap.as_ref().is_some_and(|flap| flap.is_wild());
        match &mut instance.episode {
            None if says.begins => match restraint.by {
                Some(cause) => self.withhold(device, place, at, cause),
                None => self.fire(device, place, at, says.severity),
            },
            None => {}
            Some(episode) if restraint.is_off() && rule.may_end() && at >= rule.may_end_at(episode) => {
                instance.flap = None;
                self.resolve(device, place, at, Who::Rule, "its schedule is over for now".to_owned());
            }
            Some(_) if is_wild => self.flutter(device, place, at, says, restraint),
            Some(episode) if says.cleared && rule.may_end() && at >= rule.may_end_at(episode) => {
                if flap::note(instance, rule, at, false) {
                    return self.step(device, place, at, Who::Rule, "it flaps".to_owned());
                }
                let why =
                    if rule.clear.is_some() { "what clears it holds" } else { "its condition does not hold any more" };
                self.resolve(device, place, at, Who::Rule, why.to_owned());
            }
            // What holds back an alert holds back that one gets worse or better.
            Some(episode) if episode.severity != says.severity && restraint.by.is_none() => {
                let why = format!("from {} to {}", episode.severity.word(), says.severity.word());
                episode.severity = says.severity;
                self.step(device, place, at, Who::Rule, why);
            }
            Some(_) => {}
        }
    }

    fn fire(&mut self, device: DeviceNo, place: u32, at: i64, severity: Severity) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        let onset = onset(instance, rule, rule.when, at);
        let slug = &rule.rule.slug;
        let id_on = |holder: &str| episode::id(slug, &of.tenant, holder, &wording::metric_of(&rule.rule), onset);
        let (id, member) = match rule.form {
            Form::Device => (id_on(&of.uid), None),
            Form::Member(_) => ("".into(), None),
            Form::Group(members) => (id_on(&groups::among_devices(&of.uid)), self.latest_inside(device, members)),
        };
        let why = wording::condition(&rule.rule.when);
        let state = State::Firing;
        let episode =
            Episode { id, onset, since: at, step: 0, state, severity, snoozed: None, device: member, asked: None };
        if !matches!(rule.form, Form::Member(_)) {
            self.out.active.insert(Arc::clone(&episode.id), (device, place));
        }
        let Some((instance, rule)) = self.instance(device, place) else { return };
        instance.episode = Some(Box::new(episode));
        instance.held = None;
        let flaps = flap::note(instance, rule, at, true);
        self.step(device, place, at, Who::Rule, if flaps { format!("{why}; it flaps") } else { why });
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
        if rule.lingers {
            instance.ended = at;
        }
        let number = instance.rule;
        if let Some(episode) = instance.episode.take() {
            self.out.active.remove(&episode.id);
        }
        self.mark(device, place);
        self.release(device, number);
    }

    /// Tells how the episode stands now.
    pub fn step(&mut self, device: DeviceNo, place: u32, at: i64, who: Who, why: String) {
        let now = self.now;
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        let Some(episode) = instance.episode.as_deref() else { return };
        if let Form::Member(_) = rule.form {
            return self.note_member(device, place);
        }
        let in_group = rule.rule.group.as_ref().map(|group| self.fleet.counted(device, group.enough));
        let decided = in_group.unwrap_or_else(|| measured(self.fleet, of, instance, rule, at));
        let members = self.fleet.groups.tally(device).map(|tally| tally.members);
        let mut transition = Transition {
            id: Arc::clone(&episode.id),
            step: episode.step,
            rule: Arc::clone(&rule.rule.slug),
            tenant: Arc::clone(&of.tenant),
            device: Arc::clone(episode.device.as_ref().unwrap_or(&of.uid)),
            group: members.map(|_| Arc::clone(&of.uid)),
            metric: wording::metric_of(&rule.rule),
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
            snoozed_until: episode.snoozed.filter(|until| *until > now).map(UtcMicros),
            who,
            why,
            seq: self.seq,
        };
        transition.message = wording::message(&rule.rule, &transition, members);
        if instance.flap.as_ref().is_some_and(|flap| flap.is_wild()) {
            wording::add_flapping(&mut transition.message, &rule.rule);
        }
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
        if let Some((instance, _)) = self.instance(device, place) {
            let at = instance.at;
            self.reckon(device, place, at, None);
        }
        self.arm(device, place);
    }

    /// Makes sure that the clock looks at it in time.
    pub fn arm(&mut self, device: DeviceNo, place: u32) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        let is_group = matches!(rule.form, Form::Group(_));
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
            let clock = if is_group { &mut self.out.group_clock } else { &mut self.out.clock };
            clock.push(Reverse((due, device, place)));
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

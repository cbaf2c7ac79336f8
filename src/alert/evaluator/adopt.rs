//! Devices and sensors come under the rules that look at them: at a start, when they are heard first, and when either changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::episode::Episode;
use super::fleet::{
    Device, DeviceNo, Fleet, Instance, NEVER, NONE, NOT_YET, NodeState, Past, Sensor, SensorNo, Watch, number,
};
use super::program::{Compiled, Form, NodeKind, Program, Subject};
use super::remembered::Memory;
use super::series::{Keep, Series};
use super::{Evaluator, Orphan};
use crate::alert::rule::Check;
use crate::alert::transition::{Holder, Who};
use crate::time::UtcMicros;

/// The newest readings that are asked for however old they are: a rate begins before its span, perhaps before a long gap.
const BEFORE_A_GAP: usize = 64;

/// Where a device is, and what it is called by.
#[derive(Clone, Debug, Default)]
pub(super) struct Placed {
    pub site: Option<Arc<str>>,
    pub tags: BTreeMap<String, String>,
}

/// What is known of a device before its rules are.
#[derive(Debug, Default)]
pub(super) struct Seed {
    pub template: Option<Arc<str>>,
    pub placed: Placed,
    pub heard: Option<i64>,
    /// And since when it is, by the journal's time.
    pub lag: (i64, i64),
    pub sensors: Vec<SeedSensor>,
    /// By the rule's slug.
    pub states: HashMap<Arc<str>, State>,
}

/// What is known of a sensor.
#[derive(Debug)]
pub(super) struct SeedSensor {
    pub metric: Arc<str>,
    pub unit: Arc<str>,
    pub latest: i64,
    pub newest: f64,
    pub heard: i64,
    /// Its row, at a start.
    pub id: Option<i32>,
}

/// A rule's state for the device so far.
#[derive(Debug)]
pub(super) enum State {
    Stored(Box<Memory>),
    /// With the fingerprint of its conditions.
    Living(Box<Instance>, u64),
}

impl State {
    /// The episode that goes on, if one does.
    pub fn into_episode(self) -> Option<Episode> {
        match self {
            State::Living(instance, _) => instance.episode.map(|episode| *episode),
            State::Stored(memory) => memory.into_episode(),
        }
    }

    /// Whether it can go on in a rule of this form: a device that becomes the member of a group, or is one no longer, begins anew.
    fn suits(&self, form: Form) -> bool {
        let episode = match self {
            State::Living(instance, _) => instance.episode.as_deref(),
            State::Stored(memory) => memory.episode(),
        };
        episode.is_none_or(|episode| episode.id.is_empty() == matches!(form, Form::Member(_)))
    }
}

impl Evaluator {
    /// Takes a device that is not known yet, if a rule looks at it.
    pub(super) fn adopt(&mut self, tenant: &Arc<str>, uid: &Arc<str>, mut seed: Seed) -> DeviceNo {
        let subject = Subject {
            tenant,
            uid,
            template: seed.template.as_deref(),
            site: seed.placed.site.as_deref(),
            tags: &seed.placed.tags,
        };
        let rules = self.program.rules_for(subject);
        if rules.is_empty() && seed.states.is_empty() {
            return NONE;
        }
        let mut instances = Vec::with_capacity(rules.len());
        let mut lag = seed.lag;
        for place in rules {
            let Some(rule) = self.program.rules.get(place as usize) else { continue };
            if let Some(State::Stored(memory)) = seed.states.get(&rule.rule.slug) {
                for (metric, at) in memory.heard(rule) {
                    let of_metric = seed.sensors.iter_mut().filter(|sensor| sensor.metric == *metric);
                    of_metric.for_each(|sensor| sensor.heard = at.or(seed.heard).unwrap_or(sensor.heard));
                }
            }
            let state = match seed.states.get(&rule.rule.slug) {
                Some(state) if state.suits(rule.form) => seed.states.remove(&rule.rule.slug),
                _ => None,
            };
            instances.push(instance_of(place, rule, state, &mut lag));
        }
        let heard = seed.heard.unwrap_or(NOT_YET);
        let windows = self.program.windows_for(subject);
        let zone = self.program.zone_of(tenant, seed.placed.site.as_ref());
        let device = self.fleet.add(Device {
            tenant: Arc::clone(tenant),
            uid: Arc::clone(uid),
            template: seed.template.clone(),
            zone,
            windows,
            silence: is_about_silence(&self.program, &instances),
            instances,
            sensors: Vec::new(),
            heard,
            lag: lag.0,
            lag_at: lag.1,
        });
        for sensor in seed.sensors {
            if let Some(no) = self.adopt_sensor(device, &sensor)
                && let Some(id) = sensor.id
            {
                self.rows.push((id, no));
            }
        }
        self.look_from_newest(device);
        self.enlist(device);
        self.end_orphans(device, seed.states);
        self.regroup(device);
        device
    }

    /// What was taken up is as it was with the newest reading. A condition that keeps readings was looked at with each of its own; for
    /// others, what is due at the newest one's very instant may still be to come.
    pub(super) fn look_from_newest(&mut self, device: DeviceNo) {
        let Some(of) = self.fleet.devices.get_mut(device as usize) else { return };
        let mut newest = NOT_YET;
        let mut own: Vec<Option<i64>> = vec![None; of.instances.len()];
        for sensor in of.sensors.iter().filter_map(|no| self.fleet.sensors.get(*no as usize)) {
            newest = newest.max(sensor.latest);
            for watch in &sensor.watches {
                let past = of.instances.get(watch.instance as usize).and_then(|instance| instance.past.as_ref());
                let keeps = matches!(past.and_then(|pasts| pasts.get(usize::from(watch.node))), Some(Past::Series(_)));
                if let Some(own) = own.get_mut(watch.instance as usize).filter(|_| keeps) {
                    *own = (*own).max(Some(sensor.latest));
                }
            }
        }
        for (instance, own) in of.instances.iter_mut().zip(own) {
            instance.at = instance.at.max(own.unwrap_or(newest.saturating_sub(1)));
        }
    }

    /// Arms the device's instances and finds its episodes again.
    pub(super) fn enlist(&mut self, device: DeviceNo) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let episodes =
            of.instances.iter().map(|instance| instance.episode.as_ref().map(|episode| Arc::clone(&episode.id)));
        let episodes: Vec<_> = episodes.collect();
        for (place, episode) in (0..).zip(episodes) {
            if let Some(id) = episode.filter(|id| !id.is_empty()) {
                self.outcome.active.insert(id, (device, place));
            }
            let mut judge = self.judge();
            judge.schedule(device, place);
            judge.look_again(device, place);
        }
    }

    /// Ends the episodes of rules that don't look at the device any more.
    fn end_orphans(&mut self, device: DeviceNo, states: HashMap<Arc<str>, State>) {
        let mut orphans: Vec<_> = states.into_iter().collect();
        orphans.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (slug, state) in orphans {
            let Some(of) = self.fleet.devices.get(device as usize) else { continue };
            let (tenant, holder) = (Arc::clone(&of.tenant), Holder::Device(Arc::clone(&of.uid)));
            self.orphans.push(Orphan { tenant, holder, rule: slug, episode: state.into_episode() });
        }
    }

    /// Takes a sensor of a known device, if a rule looks at it. One that is known stays as it is.
    pub(super) fn adopt_sensor(&mut self, device: DeviceNo, seed: &SeedSensor) -> Option<SensorNo> {
        let of = self.fleet.devices.get(device as usize)?;
        if let Some(known) = self.fleet.sensor_of(of, &seed.metric) {
            return Some(known);
        }
        let watches = watches(&self.program, of, &seed.metric);
        if watches.is_empty() {
            return None;
        }
        let (metric, unit) = (self.fleet.text(&seed.metric), self.fleet.text(&seed.unit));
        let SeedSensor { latest, newest, heard, .. } = *seed;
        Some(self.fleet.add_sensor(Sensor { device, metric, unit, latest, newest, heard, watches }))
    }

    /// Takes the device's rules anew, since its template is another.
    pub(super) fn rescope(&mut self, device: DeviceNo, template: &Arc<str>) {
        let Some(of) = self.fleet.devices.get_mut(device as usize) else { return };
        of.template = Some(Arc::clone(template));
        let (tenant, uid) = (Arc::clone(&of.tenant), Arc::clone(&of.uid));
        let placed = self.placed.get(&(Arc::clone(&tenant), Arc::clone(&uid))).cloned().unwrap_or_default();
        let subject = Subject {
            tenant: &tenant,
            uid: &uid,
            template: Some(template),
            site: placed.site.as_deref(),
            tags: &placed.tags,
        };
        let rules = self.program.rules_for(subject);
        let windows = self.program.windows_for(subject);
        let Some(of) = self.fleet.devices.get_mut(device as usize) else { return };
        of.windows = windows;
        let mut old: Vec<Option<Instance>> = of.instances.drain(..).map(Some).collect();
        let mut instances = Vec::with_capacity(rules.len());
        for place in rules {
            let kept =
                old.iter_mut().find(|one| one.as_ref().is_some_and(|one| one.rule == place)).and_then(Option::take);
            let Some(rule) = self.program.rules.get(place as usize) else { continue };
            let mut lag = (of.lag, of.lag_at);
            instances.push(match kept {
                // What the clock has noted of it is void: its place is another.
                Some(kept) => Instance { armed: NEVER, ..kept },
                None => instance_of(place, rule, None, &mut lag),
            });
        }
        let left: HashMap<_, _> = old
            .into_iter()
            .flatten()
            .filter_map(|instance| {
                let rule = self.program.rules.get(instance.rule as usize)?;
                Some((Arc::clone(&rule.rule.slug), State::Living(Box::new(instance), rule.fingerprint)))
            })
            .collect();
        of.silence = is_about_silence(&self.program, &instances);
        of.instances = instances;
        // Marked by their old places.
        of.instances.iter_mut().for_each(|instance| instance.dirty = false);
        self.outcome.dirty.retain(|(of, _)| *of != device);
        self.rewatch(device);
        self.enlist(device);
        for place in 0..self.fleet.devices.get(device as usize).map_or(0, |of| number(of.instances.len())) {
            self.judge().mark(device, place);
        }
        self.end_orphans(device, left);
        self.regroup(device);
    }

    /// Which of the device's sensors decide which of its conditions.
    fn rewatch(&mut self, device: DeviceNo) {
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let found: Vec<_> = of
            .sensors
            .iter()
            .filter_map(|no| Some((*no, watches(&self.program, of, &self.fleet.sensors.get(*no as usize)?.metric))))
            .collect();
        for (no, watches) in found {
            if let Some(sensor) = self.fleet.sensors.get_mut(no as usize) {
                sensor.watches = watches;
            }
        }
    }

    /// Tells of episodes whose rule is gone for their device, at the time of the message at hand.
    pub(super) fn end_forsaken(&mut self) {
        for orphan in std::mem::take(&mut self.orphans) {
            let slug = &orphan.rule;
            let rule =
                self.program.rules.iter().zip(0..).find(|(rule, _)| rule.rule.slug == *slug).map(|(_, place)| place);
            let device = match &orphan.holder {
                Holder::Device(uid) => self.fleet.find(&orphan.tenant, uid),
                Holder::Group(_) => None,
            };
            self.forsaken(orphan, Who::Rule);
            if let Some((device, rule)) = device.zip(rule) {
                self.judge().release(device, rule);
            }
        }
    }
}

fn is_about_silence(program: &Program, instances: &[Instance]) -> bool {
    instances.iter().any(|one| program.rules.get(one.rule as usize).is_some_and(|rule| rule.absent))
}

pub(super) fn instance_of(place: u32, rule: &Compiled, state: Option<State>, lag: &mut (i64, i64)) -> Instance {
    let mut instance = fresh(place, rule);
    match state {
        None => {}
        Some(State::Stored(memory)) => {
            if memory.lag_at > lag.1 {
                *lag = (memory.lag, memory.lag_at);
            }
            memory.restore(&mut instance, rule);
            instance.kept = true;
        }
        Some(State::Living(old, fingerprint)) if fingerprint == rule.fingerprint => {
            instance = Instance { rule: place, armed: NEVER, dirty: false, ..*old };
        }
        Some(State::Living(old, _)) => {
            instance.episode = old.episode;
            instance.quiet_until = old.quiet_until;
            instance.ended = old.ended;
            instance.flap = old.flap;
            instance.kept = old.kept;
        }
    }
    instance
}

fn fresh(place: u32, rule: &Compiled) -> Instance {
    let past = |kind: &NodeKind| match kind {
        NodeKind::Metric { check, .. } if Keep::of(check).is_some() => Past::Series(Series::default()),
        NodeKind::Metric { check: Check::Anomaly { .. }, .. } => Past::Usual(Box::default()),
        _ => Past::Nothing,
    };
    Instance {
        rule: place,
        dirty: false,
        kept: false,
        spent: false,
        held: None,
        nodes: rule.nodes.iter().map(|_| NodeState::UNKNOWN).collect::<SmallVec<_>>(),
        past: rule.keeps.then(|| rule.nodes.iter().map(|node| past(&node.kind)).collect()),
        episode: None,
        quiet_until: NOT_YET,
        ended: NOT_YET,
        flap: None,
        due: NEVER,
        armed: NEVER,
        from: NOT_YET,
        at: NOT_YET,
        apart: None,
    }
}

/// The conditions of a device that readings of a metric decide; those of one instance together.
fn watches(program: &Program, device: &Device, metric: &str) -> Box<[Watch]> {
    let mut found = Vec::new();
    for (instance, place) in device.instances.iter().zip(0..) {
        let Some(rule) = program.rules.get(instance.rule as usize) else { continue };
        let nodes = rule.numbered().filter(|(_, node)| node.looks_at(metric));
        found.extend(nodes.map(|(node, _)| Watch { instance: place, node }));
    }
    found.into()
}

/// What conditions must be told of the past at a start: for each row of a sensor, since when and how many readings at most.
pub(super) fn wanted(program: &Program, fleet: &Fleet, rows: &[(i32, SensorNo)]) -> Vec<(i32, UtcMicros, usize)> {
    let mut wanted = Vec::new();
    for (id, no) in rows {
        let Some(sensor) = fleet.sensors.get(*no as usize) else { continue };
        let Some(device) = fleet.devices.get(sensor.device as usize) else { continue };
        let (mut since, mut most, mut one_older) = (NEVER, 0, false);
        for watch in &sensor.watches {
            let Some(instance) = device.instances.get(watch.instance as usize) else { continue };
            let Some(rule) = program.rules.get(instance.rule as usize) else { continue };
            let Some(NodeKind::Metric { metric, check }) =
                rule.nodes.get(usize::from(watch.node)).map(|node| &node.kind)
            else {
                continue;
            };
            if **metric != *sensor.metric {
                continue;
            }
            let past = instance.past.as_ref().and_then(|pasts| pasts.get(usize::from(watch.node)));
            if let Some((from, count)) = needs(check, past, sensor.latest) {
                since = since.min(from);
                most = most.max(count);
            }
            one_older |= matches!(check, Check::Rate { .. });
        }
        if most > 0 {
            wanted.push((*id, UtcMicros(since), most));
        }
        if one_older {
            wanted.push((*id, UtcMicros(NOT_YET), BEFORE_A_GAP));
        }
    }
    wanted
}

fn needs(check: &Check, past: Option<&Past>, latest: i64) -> Option<(i64, usize)> {
    let back = |span: std::time::Duration| latest.saturating_sub(super::program::micros(span));
    match (check, past) {
        (Check::Samples { of, .. }, _) => Some((NOT_YET, *of)),
        (Check::Window { over, .. } | Check::Stuck { over }, _) => Some((back(*over), Check::MOST_IN_WINDOW)),
        (Check::Rate { per, .. }, _) => Some((back(per.saturating_mul(4)), Check::MOST_IN_WINDOW)),
        (Check::Anomaly { .. }, Some(Past::Usual(usual))) => Some((usual.hour_began(), Check::MOST_IN_WINDOW)),
        _ => None,
    }
}

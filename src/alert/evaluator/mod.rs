//! The rules at work: readings in, steps of episodes out. Pure: no I/O, and no clock but the journal's, so that the same journal gives
//! the same steps at the same times, however its messages are split into batches.
//!
//! - A reading that is not later than the one before it changes no comparison; windows and samples take it in where it belongs.
//! - Readings of one device and one instant are taken together.
//! - What has held for long enough fires when that is so by the device's own time: at a later reading's time, or, when none comes, by the
//!   journal's clock, less what the device was behind it with its last reading.
//! - Silence is by the journal's clock alone.

mod act;
mod adopt;
mod conditions;
mod episode;
mod explain;
mod flap;
mod fleet;
mod gates;
mod gateways;
mod geo;
mod groups;
mod heed;
mod judge;
mod measure;
mod past;
mod program;
mod remembered;
mod restraint;
mod series;
mod silence;
mod usual;
mod whose;
pub(crate) mod wording;
#[cfg(test)]
mod group_reference;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod restraint_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

#[cfg(test)]
pub(crate) use episode::id as episode_id;
pub use explain::{InGroup, Standing, Stands};
pub(crate) use groups::among_devices;
pub use restraint::{HeldBack, Withheld};
pub use whose::Looked;

use adopt::{Placed, Seed, SeedSensor, State as Held};
use episode::Episode;
use fleet::{DeviceNo, Fleet, NOT_YET, SensorNo};
use judge::{Judge, Outcome};
use program::Program;
use remembered::Memory;

use super::transition::{Holder, StateChange, Transition};
use crate::catalog::Snapshot;
use crate::config::Duplicates;
use crate::message::Seq;
use crate::store::batch::{DeviceChange, DeviceIndex, DeviceIntro, Reading, SensorIndex, SensorIntro, TextReading};
use crate::time::UtcMicros;

/// A rule's memory of a device or group, as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Slug.
    pub rule: Arc<str>,
    pub tenant: Arc<str>,
    pub holder: Holder,
    /// JSON.
    pub state: String,
}

/// What one message has added to a batch.
#[derive(Clone, Copy, Debug)]
pub struct Added<'a> {
    pub devices: &'a [DeviceIntro],
    pub sensors: &'a [SensorIntro],
    pub changes: &'a [DeviceChange],
    pub readings: &'a [Reading],
    pub texts: &'a [TextReading],
    /// Devices that it was heard of.
    pub seen: &'a [(DeviceIndex, UtcMicros)],
}

/// A device of the generation.
struct Introduced {
    tenant: Arc<str>,
    uid: Arc<str>,
    no: DeviceNo,
    sensors: Vec<SensorIndex>,
}

/// A sensor of the generation.
struct IntroducedSensor {
    metric: Arc<str>,
    unit: Arc<str>,
    no: SensorNo,
}

/// What a rule has kept for a device or group for which it is not kept any more.
struct Orphan {
    tenant: Arc<str>,
    holder: Holder,
    /// Slug.
    rule: Arc<str>,
    episode: Option<Episode>,
}

/// Tenant and uid.
type DeviceKey = (Arc<str>, Arc<str>);

/// Every rule's state for every device in its scope.
pub struct Evaluator {
    program: Program,
    fleet: Fleet,
    outcome: Outcome,
    /// Memories of rules that no longer look at their device.
    forgotten: Vec<StateChange>,
    orphans: Vec<Orphan>,
    /// What was kept for groups that have no member yet; nothing once all devices are there.
    lost: groups::Kept,
    /// Devices that have a site or tags.
    placed: HashMap<DeviceKey, Placed>,
    devices: Vec<Introduced>,
    sensors: Vec<IntroducedSensor>,
    /// Rows of sensors that a rule looks at, until the past is recalled.
    rows: Vec<(i32, SensorNo)>,
    now: i64,
    seq: Seq,
    entries: Vec<heed::Entry>,
    touched: Vec<(DeviceNo, u32, i64)>,
    /// Readings that came too late to change a comparison.
    late: u64,
    /// Which of several readings of one instant a window keeps.
    duplicates: Duplicates,
}

impl Evaluator {
    /// Ready for the first message after the snapshot; `remembered`: what was kept of the rules' state at its position.
    /// [`Evaluator::wanted`] tells what else it must be told.
    pub fn new(snapshot: &Snapshot, remembered: Vec<Remembered>) -> Evaluator {
        let mut states: HashMap<DeviceKey, HashMap<Arc<str>, Held>> = HashMap::new();
        let mut evaluator = Evaluator::of(snapshot);
        for one in remembered {
            let held = match serde_json::from_str::<Memory>(&one.state) {
                Ok(memory) => Held::Stored(Box::new(memory)),
                Err(error) => {
                    let (rule, holder) = (one.rule, one.holder.name());
                    tracing::error!(%error, %rule, %holder, "what a rule remembered can't be read; it begins anew");
                    continue;
                }
            };
            match one.holder {
                Holder::Device(uid) => drop(states.entry((one.tenant, uid)).or_default().insert(one.rule, held)),
                Holder::Group(name) => drop(evaluator.lost.insert((one.tenant, one.rule, name), held)),
            }
        }
        for device in &snapshot.devices {
            let states = states.remove(&(Arc::clone(&device.tenant), Arc::clone(&device.uid))).unwrap_or_default();
            evaluator.settle_in(device, |seed| seed.states = states);
        }
        evaluator.end_lost_groups();
        evaluator
    }

    /// Has windows keep the reading that the database keeps of several of one instant; without it, the first.
    pub fn keeping(self, duplicates: Duplicates) -> Evaluator {
        Evaluator { duplicates, ..self }
    }

    fn of(snapshot: &Snapshot) -> Evaluator {
        Evaluator {
            program: Program::of(snapshot),
            fleet: Fleet::default(),
            outcome: Outcome::default(),
            forgotten: Vec::new(),
            orphans: Vec::new(),
            lost: HashMap::new(),
            placed: HashMap::new(),
            devices: Vec::new(),
            sensors: Vec::new(),
            rows: Vec::new(),
            now: NOT_YET,
            seq: 0,
            entries: Vec::new(),
            touched: Vec::new(),
            late: 0,
            duplicates: Duplicates::KeepFirst,
        }
    }

    /// Takes a device of a snapshot.
    fn settle_in(&mut self, device: &crate::catalog::Device, change: impl FnOnce(&mut Seed)) {
        let placed = Placed { site: device.site.clone(), tags: device.tags.clone() };
        if placed.site.is_some() || !placed.tags.is_empty() {
            self.placed.insert((Arc::clone(&device.tenant), Arc::clone(&device.uid)), placed.clone());
        }
        if let Some(gateway) = device.parent.as_ref().filter(|_| self.program.looks_up) {
            self.fleet.gateways.put(&device.tenant, &device.uid, gateway);
        }
        let heard = device.last_seen.map(|at| at.0);
        // Where there is no rule, what one has left behind is ended.
        let looked_at = device.sensors.iter().filter(|_| !self.program.rules.is_empty());
        let sensors = looked_at.map(|sensor| SeedSensor {
            metric: Arc::clone(&sensor.metric),
            unit: Arc::clone(&sensor.unit),
            latest: sensor.last.map_or(NOT_YET, |(time, _)| time.0),
            newest: sensor.last.map_or(f64::NAN, |(_, value)| value),
            heard: sensor.last.map(|(time, _)| time.0).or(heard).unwrap_or(NOT_YET),
            id: Some(sensor.id),
        });
        let template = device.template.as_deref().map(|slug| self.fleet.text(slug));
        let (sensors, states) = (sensors.collect(), HashMap::new());
        let mut seed = Seed { template, placed, heard, lag: (0, NOT_YET), sensors, states };
        change(&mut seed);
        self.adopt(&device.tenant, &device.uid, seed);
    }

    /// Takes other rules and a newer catalog, and starts a new generation. States go on where rule and conditions are the same;
    /// episodes of rules that are gone end with the next message.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::replace(self, Evaluator::of(snapshot));
        (self.now, self.seq, self.late, self.duplicates) = (old.now, old.seq, old.late, old.duplicates);
        self.forgotten = std::mem::take(&mut old.forgotten);
        self.orphans = std::mem::take(&mut old.orphans);
        self.outcome.transitions = std::mem::take(&mut old.outcome.transitions);
        let dirty = std::mem::take(&mut old.outcome.dirty);
        let (mut carried, groups) = old.into_seeds();
        self.lost = groups;
        for device in &snapshot.devices {
            let before = carried.remove(&(Arc::clone(&device.tenant), Arc::clone(&device.uid)));
            self.settle_in(device, |seed| {
                if let Some(before) = before {
                    seed.carry(before);
                }
            });
        }
        // Those that the database does not have yet.
        let mut new: Vec<_> = carried.into_iter().collect();
        new.sort_by(|(a, _), (b, _)| a.cmp(b));
        for ((tenant, uid), seed) in new {
            self.adopt(&tenant, &uid, seed);
        }
        self.end_lost_groups();
        if !dirty.is_empty() {
            self.mark_all();
        }
    }

    fn mark_all(&mut self) {
        let counts: Vec<_> = self.fleet.devices.iter().map(|device| fleet::number(device.instances.len())).collect();
        for (device, count) in (0..).zip(counts) {
            for place in 0..count {
                self.judge().mark(device, place);
            }
        }
    }

    /// Everything that it knows, by device; and what it keeps for groups.
    fn into_seeds(self) -> (HashMap<DeviceKey, Seed>, groups::Kept) {
        let Evaluator { program, fleet, placed, .. } = self;
        let Fleet { devices, sensors, groups, .. } = fleet;
        let (mut seeds, mut kept) = (HashMap::new(), groups::Kept::new());
        for (no, device) in (0..).zip(devices) {
            let instances = device.instances.into_iter().filter_map(|instance| {
                let rule = program.rules.get(instance.rule as usize)?;
                Some((Arc::clone(&rule.rule.slug), Held::Living(Box::new(instance), rule.fingerprint)))
            });
            if groups.is_group(no) {
                let (tenant, name) = (device.tenant, device.uid);
                kept.extend(instances.map(|(slug, state)| ((Arc::clone(&tenant), slug, Arc::clone(&name)), state)));
                continue;
            }
            let of = device.sensors.iter().filter_map(|no| sensors.get(*no as usize)).map(|sensor| SeedSensor {
                metric: Arc::clone(&sensor.metric),
                unit: Arc::clone(&sensor.unit),
                latest: sensor.latest,
                newest: sensor.newest,
                heard: sensor.heard,
                id: None,
            });
            let key = (device.tenant, device.uid);
            let placed = placed.get(&key).cloned().unwrap_or_default();
            let heard = (device.heard != NOT_YET).then_some(device.heard);
            let (sensors, states) = (of.collect(), instances.collect());
            let lag = (device.lag, device.lag_at);
            let seed = Seed { template: device.template, placed, heard, lag, sensors, states };
            seeds.insert(key, seed);
        }
        (seeds, kept)
    }

    /// Whether there is nothing to evaluate.
    pub fn is_idle(&self) -> bool {
        self.program.rules.is_empty() && self.orphans.is_empty()
    }

    /// Whether any known device is in the scope of a rule.
    pub fn looks_at_devices(&self) -> bool {
        !self.fleet.devices.is_empty()
    }

    fn judge(&mut self) -> Judge<'_> {
        let Evaluator { program, fleet, outcome, now, seq, .. } = self;
        Judge { program, fleet, out: outcome, now: *now, seq: *seq }
    }

    /// Lets the journal's clock come to `now`: whatever time alone brings about until then happens.
    pub fn advance(&mut self, now: UtcMicros, seq: Seq) {
        (self.now, self.seq) = (now.0, seq);
        self.end_forsaken();
        let mut rung = NOT_YET;
        while let Some(ring) = self.outcome.next_ring() {
            let at = ring.at;
            if at > now.0 {
                break;
            }
            if (at != rung || ring.is_group) && self.fleet.groups.wait() {
                self.conclude_groups(if rung == NOT_YET { at } else { rung });
                continue;
            }
            rung = at;
            self.outcome.pop(ring);
            let mut judge = self.judge();
            // So that it does not matter when the clock is looked at.
            judge.now = if at == NOT_YET { judge.now } else { at };
            judge.ring(ring.device, ring.place, at);
        }
        self.conclude_groups(if rung == NOT_YET { now.0 } else { rung });
    }

    /// When the clock must come next, by the journal's time; none: only a message changes anything.
    pub fn next_due(&self) -> Option<UtcMicros> {
        if !self.orphans.is_empty() {
            return Some(UtcMicros(self.now));
        }
        self.outcome.next_ring().map(|ring| UtcMicros(ring.at))
    }

    /// Takes the steps and the changed memories since the last call.
    pub fn drain(&mut self) -> (Vec<Transition>, Vec<StateChange>) {
        let mut changes = std::mem::take(&mut self.forgotten);
        for (device, place) in std::mem::take(&mut self.outcome.dirty) {
            let Some(of) = self.fleet.devices.get(device as usize) else { continue };
            let Some(instance) = of.instances.get(place as usize) else { continue };
            let Some(rule) = self.program.rules.get(instance.rule as usize) else { continue };
            let memory = Memory::of(instance, rule, (of.lag, of.lag_at), |metric| self.fleet.heard_of(of, metric));
            // Plain data: it always has a JSON form.
            let state = memory.and_then(|memory| serde_json::to_string(&memory).ok());
            let Some(of) = self.fleet.devices.get_mut(device as usize) else { continue };
            let Some(instance) = of.instances.get_mut(place as usize) else { continue };
            instance.dirty = false;
            if state.is_none() && !instance.kept {
                continue;
            }
            instance.kept = state.is_some();
            let (tenant, name) = (Arc::clone(&of.tenant), Arc::clone(&of.uid));
            let is_group = self.fleet.groups.is_group(device);
            let holder = if is_group { Holder::Group(name) } else { Holder::Device(name) };
            changes.push(StateChange { rule: Arc::clone(&rule.rule.slug), tenant, holder, state });
        }
        (std::mem::take(&mut self.outcome.transitions), changes)
    }

    /// Takes the alerts that something has held back since the last call, each once for each cause.
    pub fn take_withheld(&mut self) -> Vec<Withheld> {
        std::mem::take(&mut self.outcome.withheld)
    }

    /// Readings since the last call that came too late to change a comparison.
    pub fn take_late(&mut self) -> u64 {
        std::mem::take(&mut self.late)
    }

    /// How many episodes go on.
    pub fn active(&self) -> usize {
        self.outcome.active.len()
    }
}

impl Seed {
    /// Takes over what another generation knew better.
    fn carry(&mut self, before: Seed) {
        self.heard = self.heard.max(before.heard);
        self.lag = before.lag;
        self.states = before.states;
        for old in before.sensors {
            match self.sensors.iter_mut().find(|sensor| sensor.metric == old.metric) {
                Some(sensor) => *sensor = SeedSensor { id: sensor.id, ..old },
                None => self.sensors.push(old),
            }
        }
    }
}

//! The rules at work: readings in, steps of episodes out. Pure: no I/O, and no clock but the journal's, so that the same journal gives
//! the same steps at the same times, however its messages are split into batches.
//!
//! - A reading that is not later than the one before it changes no comparison; windows and samples take it in where it belongs.
//! - Readings of one device and one instant are taken together.
//! - What has held for long enough fires when that is so by the device's own time: at a later reading's time, or, when none comes, by the
//!   journal's clock, less what the device was behind it with its last reading.
//! - Silence is by the journal's clock alone.

mod adopt;
mod episode;
mod explain;
mod fleet;
mod geo;
mod judge;
mod measure;
mod program;
mod remembered;
mod series;
mod usual;
pub(crate) mod wording;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use explain::{Standing, Stands};

use adopt::{Placed, Seed, SeedSensor, State as Held};
use episode::Episode;
use fleet::{DeviceNo, Fleet, NEVER, NONE, NOT_YET, Past, SensorNo};
use judge::{Judge, Outcome};
use measure::{Others, Seen, Value, Verdict, judge};
use program::{NodeKind, Program};
use remembered::Memory;

use super::rule::{Check, Rule};
use super::transition::{Action, Deed, State, StateChange, Transition, Who};
use crate::catalog::Snapshot;
use crate::message::Seq;
use crate::store::batch::{Change, DeviceChange, DeviceIntro, Reading, SensorIntro, TextReading};
use crate::store::batch::{DeviceIndex, SensorIndex};
use crate::time::UtcMicros;

/// What a device is behind the journal's time is rounded up to these, microseconds: so its timers wait for a reading that is under way,
/// and need not be set anew with each one.
const SECOND: i64 = 1_000_000;

/// A rule's memory of a device, as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// Slug.
    pub rule: Arc<str>,
    pub tenant: Arc<str>,
    pub device: Arc<str>,
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
}

/// A sensor of the generation.
struct IntroducedSensor {
    device: DeviceIndex,
    metric: Arc<str>,
    unit: Arc<str>,
    no: SensorNo,
}

/// A reading on its way to the conditions.
#[derive(Clone, Copy)]
struct Entry {
    device: DeviceNo,
    time: i64,
    sensor: SensorNo,
    /// A number, or which of the message's texts.
    value: Result<f64, usize>,
    in_order: bool,
}

/// An episode whose rule is gone for its device.
type Orphan = (Arc<str>, Arc<str>, Arc<str>, Option<Episode>);

/// Every rule's state for every device in its scope.
pub struct Evaluator {
    program: Program,
    fleet: Fleet,
    outcome: Outcome,
    /// Memories of rules that no longer look at their device.
    forgotten: Vec<StateChange>,
    orphans: Vec<Orphan>,
    /// Devices that have a site or tags.
    placed: HashMap<(Arc<str>, Arc<str>), Placed>,
    devices: Vec<Introduced>,
    sensors: Vec<IntroducedSensor>,
    /// Rows of sensors that a rule looks at, until the past is recalled.
    rows: Vec<(i32, SensorNo)>,
    now: i64,
    seq: Seq,
    entries: Vec<Entry>,
    touched: Vec<(DeviceNo, u32, i64)>,
    /// Readings that came too late to change a comparison.
    late: u64,
}

impl Evaluator {
    /// Ready for the first message after the snapshot; `remembered`: what was kept of the rules' state at its position.
    /// [`Evaluator::wanted`] tells what else it must be told.
    pub fn new(snapshot: &Snapshot, remembered: Vec<Remembered>) -> Evaluator {
        let mut states: HashMap<(Arc<str>, Arc<str>), HashMap<Arc<str>, Held>> = HashMap::new();
        for one in remembered {
            match serde_json::from_str::<Memory>(&one.state) {
                Ok(memory) => {
                    states.entry((one.tenant, one.device)).or_default().insert(one.rule, Held::Stored(memory));
                }
                Err(error) => tracing::error!(
                    %error,
                    rule = %one.rule,
                    device = %one.device,
                    "what a rule remembered of a device can't be read; it begins anew"
                ),
            }
        }
        let mut evaluator = Evaluator::of(&snapshot.rules);
        for device in &snapshot.devices {
            let states = states.remove(&(Arc::clone(&device.tenant), Arc::clone(&device.uid))).unwrap_or_default();
            evaluator.settle_in(device, |seed| seed.states = states);
        }
        evaluator
    }

    fn of(rules: &[Arc<Rule>]) -> Evaluator {
        Evaluator {
            program: Program::of(rules),
            fleet: Fleet::default(),
            outcome: Outcome::default(),
            forgotten: Vec::new(),
            orphans: Vec::new(),
            placed: HashMap::new(),
            devices: Vec::new(),
            sensors: Vec::new(),
            rows: Vec::new(),
            now: NOT_YET,
            seq: 0,
            entries: Vec::new(),
            touched: Vec::new(),
            late: 0,
        }
    }

    /// Takes a device of a snapshot.
    fn settle_in(&mut self, device: &crate::catalog::Device, change: impl FnOnce(&mut Seed)) {
        let placed = Placed { site: device.site.clone(), tags: device.tags.clone() };
        if placed.site.is_some() || !placed.tags.is_empty() {
            self.placed.insert((Arc::clone(&device.tenant), Arc::clone(&device.uid)), placed.clone());
        }
        if self.program.rules.is_empty() {
            return;
        }
        let heard = device.last_seen.map(|at| at.0);
        let sensors = device.sensors.iter().map(|sensor| SeedSensor {
            metric: Arc::clone(&sensor.metric),
            unit: Arc::clone(&sensor.unit),
            latest: sensor.last.map_or(NOT_YET, |(time, _)| time.0),
            newest: sensor.last.map_or(f64::NAN, |(_, value)| value),
            heard: sensor.last.map(|(time, _)| time.0).or(heard).unwrap_or(NOT_YET),
            id: Some(sensor.id),
        });
        let template = device.template.as_deref().map(|slug| self.fleet.text(slug));
        let mut seed = Seed { template, placed, heard, lag: 0, sensors: sensors.collect(), states: HashMap::new() };
        change(&mut seed);
        self.adopt(&device.tenant, &device.uid, seed);
    }

    /// Takes other rules and a newer catalog, and starts a new generation. States go on where rule and conditions are the same;
    /// episodes of rules that are gone end with the next message.
    pub fn replace(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::replace(self, Evaluator::of(&snapshot.rules));
        (self.now, self.seq, self.late) = (old.now, old.seq, old.late);
        self.forgotten = std::mem::take(&mut old.forgotten);
        self.orphans = std::mem::take(&mut old.orphans);
        self.outcome.transitions = std::mem::take(&mut old.outcome.transitions);
        let dirty = std::mem::take(&mut old.outcome.dirty);
        let mut carried = old.into_seeds();
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

    /// Everything that it knows, by device.
    fn into_seeds(self) -> HashMap<(Arc<str>, Arc<str>), Seed> {
        let Evaluator { program, fleet, placed, .. } = self;
        let Fleet { devices, sensors, .. } = fleet;
        let mut seeds = HashMap::new();
        for device in devices {
            let instances = device.instances.into_iter().filter_map(|instance| {
                let rule = program.rules.get(instance.rule as usize)?;
                Some((Arc::clone(&rule.rule.slug), Held::Living(Box::new(instance), rule.fingerprint)))
            });
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
            let seed = Seed { template: device.template, placed, heard, lag: device.lag, sensors, states };
            seeds.insert(key, seed);
        }
        seeds
    }

    /// Whether there is nothing to evaluate.
    pub fn is_idle(&self) -> bool {
        self.program.rules.is_empty() && self.orphans.is_empty()
    }

    /// Whether any known device is in the scope of a rule.
    pub fn looks_at_devices(&self) -> bool {
        !self.fleet.devices.is_empty()
    }

    /// The readings of the past that conditions look back on: a sensor's row, since when, and how many of the newest at most.
    pub fn wanted(&self) -> Vec<(i32, UtcMicros, usize)> {
        adopt::wanted(&self.program, &self.fleet, &self.rows)
    }

    /// Takes what [`Evaluator::wanted`] asked for. To be called once, before the first message.
    pub fn recall(&mut self, found: &[(i32, Vec<(UtcMicros, f64)>)]) {
        let rows: HashMap<i32, SensorNo> = std::mem::take(&mut self.rows).into_iter().collect();
        let mut merged: BTreeMap<i32, BTreeMap<UtcMicros, f64>> = BTreeMap::new();
        for (id, readings) in found {
            merged.entry(*id).or_default().extend(readings.iter().copied());
        }
        for (id, readings) in &merged {
            let Some(sensor) = rows.get(id).and_then(|no| self.fleet.sensors.get(*no as usize)) else { continue };
            let (device, metric, watches) = (sensor.device, Arc::clone(&sensor.metric), sensor.watches.clone());
            for watch in &watches {
                let Some(of) = self.fleet.devices.get_mut(device as usize) else { continue };
                let Some(instance) = of.instances.get_mut(watch.instance as usize) else { continue };
                let Some(rule) = self.program.rules.get(instance.rule as usize) else { continue };
                let Some(NodeKind::Metric { metric: own, check }) =
                    rule.nodes.get(usize::from(watch.node)).map(|node| &node.kind)
                else {
                    continue;
                };
                let past = instance.past.as_mut().and_then(|pasts| pasts.get_mut(usize::from(watch.node)));
                if let Some(past) = past.filter(|_| *own == metric) {
                    recall(check, past, readings);
                }
                self.judge().schedule(device, watch.instance);
            }
        }
    }

    fn judge(&mut self) -> Judge<'_> {
        let Evaluator { program, fleet, outcome, now, seq, .. } = self;
        Judge { program, fleet, out: outcome, now: *now, seq: *seq }
    }

    /// Lets the journal's clock come to `now`: whatever time alone brings about until then happens.
    pub fn advance(&mut self, now: UtcMicros, seq: Seq) {
        (self.now, self.seq) = (now.0, seq);
        self.end_forsaken();
        while let Some(std::cmp::Reverse((at, device, place))) = self.outcome.clock.peek().copied() {
            if at > now.0 {
                return;
            }
            self.outcome.clock.pop();
            self.judge().ring(device, place, at);
        }
    }

    /// When the clock must come next, by the journal's time; none: only a message changes anything.
    pub fn next_due(&self) -> Option<UtcMicros> {
        if !self.orphans.is_empty() {
            return Some(UtcMicros(self.now));
        }
        self.outcome.clock.peek().map(|std::cmp::Reverse((at, ..))| UtcMicros(*at))
    }

    /// Takes what a message has become; messages come in the journal's order.
    pub fn message(&mut self, received_at: UtcMicros, seq: Seq, added: Added<'_>) {
        // Not what is due at this very instant: its readings count first.
        self.advance(UtcMicros(received_at.0.saturating_sub(1)), seq);
        self.now = received_at.0;
        self.introduce(&added);
        for (device, at) in added.seen.iter().rev() {
            if *at != received_at {
                break;
            }
            if let Some(no) = self.devices.get(*device as usize).map(|device| device.no).filter(|no| *no != NONE) {
                self.hear(no, received_at.0);
            }
        }
        let mut entries = std::mem::take(&mut self.entries);
        self.gather(&added, &mut entries);
        let ordered = entries.is_sorted_by_key(|entry| (entry.device, entry.time));
        if !ordered {
            entries.sort_by_key(|entry| (entry.device, entry.time));
        }
        for group in entries.chunk_by_mut(|a, b| (a.device, a.time) == (b.device, b.time)) {
            self.instant(group, added.texts, received_at.0);
        }
        self.conclude();
        entries.clear();
        self.entries = entries;
    }

    fn introduce(&mut self, added: &Added<'_>) {
        for device in added.devices {
            let (tenant, uid) = (Arc::clone(&device.tenant), Arc::clone(&device.uid));
            let no = match self.fleet.find(&tenant, &uid) {
                Some(no) => no,
                None => {
                    let template = device.template.as_deref().map(|slug| self.fleet.text(slug));
                    let placed = self.placed.get(&(Arc::clone(&tenant), Arc::clone(&uid))).cloned().unwrap_or_default();
                    self.adopt(&tenant, &uid, Seed { template, placed, ..Seed::default() })
                }
            };
            put(&mut self.devices, device.index as usize, Introduced { tenant, uid, no });
        }
        for change in added.changes {
            let Change::Template { slug, .. } = &change.change else { continue };
            let Some(known) = self.devices.get(change.device as usize) else { continue };
            if known.no != NONE {
                self.rescope(known.no, slug);
            } else {
                let (tenant, uid) = (Arc::clone(&known.tenant), Arc::clone(&known.uid));
                let placed = self.placed.get(&(Arc::clone(&tenant), Arc::clone(&uid))).cloned().unwrap_or_default();
                let no =
                    self.adopt(&tenant, &uid, Seed { template: Some(Arc::clone(slug)), placed, ..Seed::default() });
                if let Some(known) = self.devices.get_mut(change.device as usize) {
                    known.no = no;
                }
            }
            self.look_again(change.device);
        }
        for sensor in added.sensors {
            let unit = self.fleet.text(&sensor.unit);
            let metric = self.fleet.text(&sensor.metric);
            let no = self.sensor_of(sensor.device, &metric, &unit);
            let known = IntroducedSensor { device: sensor.device, metric, unit, no };
            put(&mut self.sensors, sensor.index as usize, known);
        }
    }

    fn sensor_of(&mut self, device: DeviceIndex, metric: &Arc<str>, unit: &Arc<str>) -> SensorNo {
        let Some(device) = self.devices.get(device as usize).map(|device| device.no).filter(|no| *no != NONE) else {
            return NONE;
        };
        let (metric, unit) = (Arc::clone(metric), Arc::clone(unit));
        let seed = SeedSensor { metric, unit, latest: NOT_YET, newest: f64::NAN, heard: NOT_YET, id: None };
        self.adopt_sensor(device, &seed).unwrap_or(NONE)
    }

    /// Sensors that no rule looked at, when other rules look at their device.
    fn look_again(&mut self, device: DeviceIndex) {
        for index in 0..self.sensors.len() {
            let Some(sensor) = self.sensors.get(index).filter(|one| one.device == device && one.no == NONE) else {
                continue;
            };
            let (metric, unit) = (Arc::clone(&sensor.metric), Arc::clone(&sensor.unit));
            let no = self.sensor_of(device, &metric, &unit);
            if let Some(sensor) = self.sensors.get_mut(index) {
                sensor.no = no;
            }
        }
    }

    /// The device was heard, whatever it said. What that makes of its rules is for after its readings.
    fn hear(&mut self, no: DeviceNo, at: i64) {
        let Some(device) = self.fleet.devices.get_mut(no as usize) else { return };
        device.heard = at;
        if !device.silence {
            return;
        }
        let time = at.saturating_sub(device.lag);
        let of_silence =
            |instance: &fleet::Instance| self.program.rules.get(instance.rule as usize).is_some_and(|rule| rule.absent);
        let places: Vec<u32> =
            (0..).zip(&device.instances).filter(|(_, one)| of_silence(one)).map(|(place, _)| place).collect();
        for place in places {
            if self.judge().look_for_silence(no, place, at, time) {
                self.touched.push((no, place, time));
            }
            self.judge().begin_silence(no, place);
        }
    }

    /// The message's readings of sensors that a rule looks at.
    fn gather(&mut self, added: &Added<'_>, entries: &mut Vec<Entry>) {
        let numbers = added.readings.iter().map(|reading| (reading.sensor, reading.time.0, Ok(reading.value)));
        let texts = added.texts.iter().enumerate().map(|(at, reading)| (reading.sensor, reading.time.0, Err(at)));
        for (index, time, value) in numbers.chain(texts) {
            let index: SensorIndex = index;
            let Some(no) = self.sensors.get(index as usize).map(|sensor| sensor.no).filter(|no| *no != NONE) else {
                continue;
            };
            let Some(sensor) = self.fleet.sensors.get(no as usize) else { continue };
            entries.push(Entry { device: sensor.device, time, sensor: no, value, in_order: false });
        }
    }

    /// Takes the readings of one device at one instant.
    fn instant(&mut self, group: &mut [Entry], texts: &[TextReading], received: i64) {
        let Some((device, time)) = group.first().map(|entry| (entry.device, entry.time)) else { return };
        let mut in_order = false;
        for entry in &mut *group {
            let Some(sensor) = self.fleet.sensors.get_mut(entry.sensor as usize) else { continue };
            sensor.heard = received;
            entry.in_order = time > sensor.latest;
            if entry.in_order {
                sensor.latest = time;
                if let Ok(value) = entry.value {
                    sensor.newest = value;
                }
                in_order = true;
            } else {
                self.late = self.late.saturating_add(1);
            }
        }
        if in_order {
            self.keep_lag(device, received.saturating_sub(time));
        }
        let mut touched = std::mem::take(&mut self.touched);
        for entry in &*group {
            let value = match entry.value {
                Ok(value) => Value::Number(value),
                Err(at) => Value::Text(texts.get(at).map_or("", |text| text.value.as_str())),
            };
            self.watch(entry, value, received, &mut touched);
        }
        self.touched = touched;
        self.conclude();
    }

    /// Draws the conclusions wherever a condition may have changed.
    fn conclude(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for (device, place, time) in touched.drain(..) {
            self.judge().settle(device, place, time);
        }
        self.touched = touched;
    }

    fn keep_lag(&mut self, no: DeviceNo, behind: i64) {
        let lag = behind.max(0).saturating_add(SECOND - 1).div_euclid(SECOND).saturating_mul(SECOND);
        let Some(device) = self.fleet.devices.get_mut(no as usize) else { return };
        if device.lag == lag {
            return;
        }
        device.lag = lag;
        let pending = (0..).zip(&device.instances).filter(|(_, one)| one.due != NEVER).map(|(place, _)| place);
        for place in pending.collect::<Vec<u32>>() {
            self.judge().mark(no, place);
            self.judge().arm(no, place);
        }
    }

    /// Lets the conditions that look at the reading's sensor see it; notes the instances that must draw conclusions.
    fn watch(&mut self, entry: &Entry, value: Value<'_>, received: i64, touched: &mut Vec<(DeviceNo, u32, i64)>) {
        let Entry { device: no, time, sensor, in_order, .. } = *entry;
        let count = self.fleet.sensors.get(sensor as usize).map_or(0, |sensor| sensor.watches.len());
        for at in 0..count {
            let Some(of) = self.fleet.sensors.get(sensor as usize) else { return };
            let Some(watch) = of.watches.get(at).copied() else { return };
            let Some(instance) =
                self.fleet.devices.get(no as usize).and_then(|device| device.instances.get(watch.instance as usize))
            else {
                continue;
            };
            if in_order && instance.due < time {
                self.judge().run_due(no, watch.instance, time.saturating_sub(1));
            }
            let Some(others) = self.others(entry, watch) else { continue };
            let Some(instance) = self
                .fleet
                .devices
                .get_mut(no as usize)
                .and_then(|device| device.instances.get_mut(watch.instance as usize))
            else {
                continue;
            };
            let Some(rule) = self.program.rules.get(instance.rule as usize) else { continue };
            let Some(node) = rule.nodes.get(usize::from(watch.node)) else { continue };
            let Some(state) = instance.nodes.get_mut(usize::from(watch.node)) else { continue };
            let when = time.max(instance.at);
            match &node.kind {
                NodeKind::Metric { metric, check } => {
                    let own = self.fleet.sensors.get(sensor as usize).is_some_and(|sensor| sensor.metric == *metric);
                    let past = instance.past.as_mut().and_then(|pasts| pasts.get_mut(usize::from(watch.node)));
                    let keeps = matches!(past, Some(Past::Series(_)));
                    let seen = Seen { time, value, in_order, own };
                    let (verdict, learned) = judge(check, past, seen, &others);
                    let changed = match verdict {
                        Verdict::Is(truth) => state.set(truth, when),
                        Verdict::Nothing => false,
                    };
                    if changed || keeps {
                        touched.push((no, watch.instance, when));
                    }
                    if changed || learned {
                        self.judge().mark(no, watch.instance);
                    }
                }
                NodeKind::Absent { .. } => {
                    if state.set(Some(false), when) {
                        touched.push((no, watch.instance, when));
                        self.judge().mark(no, watch.instance);
                    }
                    let _ = received;
                }
                NodeKind::All(_) | NodeKind::Any(_) | NodeKind::Not(_) => {}
            }
        }
    }

    /// What else a condition needs to see a reading.
    fn others(&self, entry: &Entry, watch: fleet::Watch) -> Option<Others> {
        let device = self.fleet.devices.get(entry.device as usize)?;
        let instance = device.instances.get(watch.instance as usize)?;
        let rule = self.program.rules.get(instance.rule as usize)?;
        let mut others = Others { own: None, other: None, at: instance.at };
        if let NodeKind::Metric { metric, check } = &rule.nodes.get(usize::from(watch.node))?.kind
            && let Check::Geofence { longitude: other, .. } | Check::Difference { other, .. } = check
        {
            others.own = self.fleet.newest_of(device, metric);
            others.other = self.fleet.newest_of(device, other);
        }
        Some(others)
    }

    /// Does what somebody wants of an episode; whether there is one with this id.
    pub fn act(&mut self, action: &Action, received_at: UtcMicros, seq: Seq) -> bool {
        self.advance(received_at, seq);
        let Some((device, place)) = self.outcome.active.get(action.id.as_str()).copied() else { return false };
        let lag = self.fleet.devices.get(device as usize).map_or(0, |device| device.lag);
        let Some(instance) =
            self.fleet.devices.get_mut(device as usize).and_then(|of| of.instances.get_mut(place as usize))
        else {
            return false;
        };
        let at = received_at.0.saturating_sub(lag).max(instance.at);
        instance.at = at;
        let who = Who::Person(action.who.clone());
        let why = |words: &str| if action.note.is_empty() { words.to_owned() } else { action.note.clone() };
        let Some(episode) = &mut instance.episode else { return false };
        match action.action {
            Deed::Acknowledge => {
                episode.state = State::Acknowledged;
                self.judge().step(device, place, at, who, why("acknowledged"));
            }
            Deed::Resolve => {
                instance.spent = true;
                self.judge().resolve(device, place, at, who, why("resolved by hand"));
                self.judge().schedule(device, place);
            }
            Deed::Snooze { until } => {
                episode.snoozed = Some(until);
                self.judge().step(device, place, at, who, why("snoozed"));
                self.judge().arm(device, place);
            }
            Deed::Note => self.judge().step(device, place, at, who, why("a note")),
        }
        true
    }

    /// Tells that an episode has ended with its rule.
    fn forsaken(&mut self, tenant: &Arc<str>, uid: &Arc<str>, slug: &Arc<str>, episode: Option<Episode>, who: Who) {
        let (rule, tenant, device) = (Arc::clone(slug), Arc::clone(tenant), Arc::clone(uid));
        if let Some(episode) = episode {
            self.outcome.active.remove(&episode.id);
            let at = UtcMicros(self.now.max(episode.since));
            self.outcome.transitions.push(Transition {
                id: episode.id,
                step: episode.step,
                rule: Arc::clone(&rule),
                tenant: Arc::clone(&tenant),
                device: Arc::clone(&device),
                metric: "".into(),
                state: State::Resolved,
                severity: episode.severity,
                at,
                onset: UtcMicros(episode.onset),
                since: UtcMicros(episode.since),
                value: None,
                threshold: None,
                unit: "".into(),
                message: format!("the rule {slug} does not look at {device} any more"),
                snoozed: false,
                who,
                why: "its rule is gone, or does not look at the device any more".to_owned(),
                seq: self.seq,
            });
        }
        self.forgotten.push(StateChange { rule, tenant, device, state: None });
    }

    /// Takes the steps and the changed memories since the last call.
    pub fn drain(&mut self) -> (Vec<Transition>, Vec<StateChange>) {
        let mut changes = std::mem::take(&mut self.forgotten);
        for (device, place) in std::mem::take(&mut self.outcome.dirty) {
            let Some(of) = self.fleet.devices.get_mut(device as usize) else { continue };
            let Some(instance) = of.instances.get_mut(place as usize) else { continue };
            let Some(rule) = self.program.rules.get(instance.rule as usize) else { continue };
            instance.dirty = false;
            let memory = Memory::of(instance, rule, of.lag);
            // Plain data: it always has a JSON form.
            let state = memory.and_then(|memory| serde_json::to_string(&memory).ok());
            if state.is_none() && !instance.kept {
                continue;
            }
            instance.kept = state.is_some();
            let (tenant, device) = (Arc::clone(&of.tenant), Arc::clone(&of.uid));
            changes.push(StateChange { rule: Arc::clone(&rule.rule.slug), tenant, device, state });
        }
        (std::mem::take(&mut self.outcome.transitions), changes)
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

fn recall(check: &Check, past: &mut Past, readings: &BTreeMap<UtcMicros, f64>) {
    for (time, value) in readings {
        match (check, &mut *past) {
            (Check::Stuck { .. }, _) => {
                let since = match past {
                    Past::Same { value: same, since } if same == value => *since,
                    _ => time.0,
                };
                *past = Past::Same { value: *value, since };
            }
            (Check::Anomaly { season, .. }, Past::Usual(usual)) => {
                usual.take(time.0, *value, *season);
            }
            (_, Past::Series(series)) => {
                if let Some(keep) = series::Keep::of(check) {
                    series.insert(time.0, *value, keep);
                }
            }
            _ => {}
        }
    }
}

/// Indexes are given in order, so that the list grows by one at a time.
fn put<T>(list: &mut Vec<T>, index: usize, item: T) {
    match list.get_mut(index) {
        Some(known) => *known = item,
        None => list.push(item),
    }
}

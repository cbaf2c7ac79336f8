//! What a message has become, brought to the conditions that look at it.

use std::sync::Arc;

use super::adopt::{Seed, SeedSensor};
use super::fleet::{self, DeviceNo, NEVER, NONE, NOT_YET, Past, SensorNo};
use super::measure::{Others, Seen, Value, Verdict, judge};
use super::program::NodeKind;
use super::{Added, Evaluator, Introduced, IntroducedSensor};
use crate::alert::rule::Check;
use crate::message::Seq;
use crate::store::batch::{Change, DeviceIndex, SensorIndex, TextReading};
use crate::time::UtcMicros;

/// What a device is behind the journal's time is rounded up to these, microseconds: so its timers wait for a reading that is under way,
/// and need not be set anew with each one.
pub(super) const SECOND: i64 = 1_000_000;

/// A reading on its way to the conditions.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    device: DeviceNo,
    time: i64,
    sensor: SensorNo,
    /// A number, or which of the message's texts.
    value: Result<f64, usize>,
    in_order: bool,
}

impl Evaluator {
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
        self.conclude_groups(received_at.0);
        for (device, at) in added.seen.iter().rev() {
            if *at != received_at {
                break;
            }
            if let Some(no) = self.devices.get(*device as usize).map(|device| device.no).filter(|no| *no != NONE) {
                self.keep_heard(no);
            }
        }
    }

    /// When a metric was heard is known from when its device was, as long as it comes with each of its messages; else it is to be
    /// remembered, for the silence that a rule waits for.
    fn keep_heard(&mut self, no: DeviceNo) {
        let Some(device) = self.fleet.devices.get(no as usize).filter(|device| device.silence) else { return };
        let found = |(place, instance): (u32, &fleet::Instance)| {
            let rule = self.program.rules.get(instance.rule as usize).filter(|rule| rule.absent)?;
            let apart = self.fleet.apart(device, rule)?;
            (instance.apart != Some(apart)).then_some((place, apart))
        };
        for (place, apart) in (0..).zip(&device.instances).filter_map(found).collect::<Vec<_>>() {
            let instance = self.fleet.devices.get_mut(no as usize).and_then(|of| of.instances.get_mut(place as usize));
            if let Some(instance) = instance {
                instance.apart = Some(apart);
            }
            self.judge().mark(no, place);
        }
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
            put(&mut self.devices, device.index as usize, Introduced { tenant, uid, no, sensors: Vec::new() });
        }
        for change in added.changes {
            if let Change::Parent(gateway) = &change.change {
                self.put_behind(change.device, *gateway);
            }
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
            if let Some(device) = self.devices.get_mut(sensor.device as usize)
                && !device.sensors.contains(&sensor.index)
            {
                device.sensors.push(sensor.index);
            }
            let known = IntroducedSensor { metric, unit, no };
            put(&mut self.sensors, sensor.index as usize, known);
        }
    }

    fn put_behind(&mut self, device: DeviceIndex, gateway: DeviceIndex) {
        let of = |index: DeviceIndex| self.devices.get(index as usize);
        let Some((device, gateway)) = of(device).zip(of(gateway)).filter(|_| self.program.looks_up) else { return };
        self.fleet.gateways.put(&device.tenant, &device.uid, &gateway.uid);
        let no = device.no;
        self.regroup(no);
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
        let of_device = self.devices.get(device as usize).map(|device| device.sensors.clone()).unwrap_or_default();
        for index in of_device {
            let Some(sensor) = self.sensors.get(index as usize).filter(|one| one.no == NONE) else { continue };
            let (metric, unit) = (Arc::clone(&sensor.metric), Arc::clone(&sensor.unit));
            let no = self.sensor_of(device, &metric, &unit);
            if let Some(sensor) = self.sensors.get_mut(index as usize) {
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
        device.lag_at = self.now;
        // When time alone changes something, and by which time that is told, goes by it.
        let rules = &self.program.rules;
        let goes_by_it = |instance: &fleet::Instance| {
            instance.due != NEVER
                || instance.episode.is_some()
                || rules.get(instance.rule as usize).is_some_and(|rule| rule.absent)
        };
        let places = (0..).zip(&device.instances).filter(|(_, one)| goes_by_it(one)).map(|(place, _)| place);
        for place in places.collect::<Vec<u32>>() {
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
                    let seen = Seen { time, value, in_order, own, duplicates: self.duplicates };
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
                NodeKind::All(_) | NodeKind::Any(_) | NodeKind::Not(_) | NodeKind::Enough { .. } => {}
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
}

/// Indexes are given in order, so that the list grows by one at a time.
fn put<T>(list: &mut Vec<T>, index: usize, item: T) {
    match list.get_mut(index) {
        Some(known) => *known = item,
        None => list.push(item),
    }
}

//! The work on one message: route, check, find the device, decode, and place each sample.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::coerce::{self, Fit, Misfit};
use super::{Fate, MAX_NAME, Policy};
use crate::catalog::registry::{DeviceSlot, Model, Registry, SensorSlot, Target};
use crate::catalog::{Kind, Metric};
use crate::config::{Retained, UnknownDevice, Unmodeled};
use crate::decode::{Context, Point, Sample, decode};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::quarantine::{Reason, Refusal};
use crate::source::{Captures, Source, Sources};
use crate::store::batch::{Batch, DeviceIntro, Quarantined, Reading, SensorIntro, SensorOrigin, TextReading};
use crate::time::UtcMicros;

/// How many raw keys of a device are remembered, for each sensor that it may have: keys have aliases, and modules share
/// their device's.
const KEYS_PER_SENSOR: usize = 4;

/// A sample's target, and whether it is still to be remembered.
#[derive(Clone, Copy)]
pub(super) struct Resolved {
    target: Target,
    fresh: bool,
}

/// One message on its way; made anew for each.
pub(super) struct Work<'a, F> {
    pub(super) message: &'a Arc<Message>,
    pub(super) policy: &'a Policy,
    pub(super) registry: &'a mut Registry,
    pub(super) metrics: &'a Metrics,
    pub(super) scratch: &'a mut Vec<Option<Resolved>>,
    pub(super) out: &'a mut Batch,
    pub(super) observe: F,
    pub(super) source: Option<&'a Source>,
    pub(super) captures: Captures<'a>,
    /// As far as the topic told them and they could be taken.
    pub(super) tenant: &'a str,
    pub(super) device: Option<&'a str>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) more: u64,
}

impl<'a, F: FnMut(&str, Fate<'_>)> Work<'a, F> {
    pub(super) fn run(mut self, sources: &'a Sources, counts: &[Counter]) {
        if let Err(refusal) = self.take(sources, counts) {
            self.refuse(refusal);
        }
        if self.refusals.is_empty() {
            return;
        }
        self.out.quarantined.push(Quarantined {
            message: Arc::clone(self.message),
            source: self.source.map(|source| source.name.to_string()),
            tenant: self.tenant.into(),
            device: self.device.map(Arc::from),
            refusals: self.refusals,
            more: self.more,
        });
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.metrics.count_refusal(refusal.reason);
        if let Some(key) = &refusal.key {
            (self.observe)(key, Fate::Refused(&refusal));
        }
        if self.refusals.len() < Quarantined::MAX_REFUSALS {
            self.refusals.push(refusal);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// The way of the message up to its points.
    fn take(&mut self, sources: &'a Sources, counts: &[Counter]) -> Result<(), Refusal> {
        let publish = &self.message.publish;
        let Some(route) = sources.route(&publish.topic) else {
            return Err(Refusal::message(Reason::UnknownSource, "no source's filter matches the topic"));
        };
        if let Some(count) = counts.get(route.index) {
            count.inc();
        }
        let source = route.source;
        self.source = Some(source);
        self.captures = route.captures;
        let (length, most) = (publish.payload.len(), source.max_payload);
        if length > most {
            let detail = format!("payload of {length} bytes, the source's max_payload is {most}");
            return Err(Refusal::message(Reason::TooLarge, detail));
        }
        if publish.retain && source.retained == Retained::Ignore {
            self.metrics.retained_ignored.inc();
            return Ok(());
        }
        let uid = self.check_names()?;
        let known = self.registry.device(self.tenant, uid);
        match known {
            Some(device) => self.see(device),
            None if self.policy.unknown == UnknownDevice::Quarantine => {
                let detail = "declare the device in the catalog, or set devices.unknown = \"provision\"";
                return Err(Refusal::message(Reason::UnknownDevice, detail));
            }
            None => {}
        }
        let context = Context {
            metric: self.captures.metric.as_deref(),
            timestamp: source.timestamp.as_deref(),
            timezone: source.timezone.as_ref(),
            limits: &self.policy.limits,
        };
        let points = decode(source.decoder, &publish.payload, &context)?;
        let device = match known {
            Some(device) => device,
            None if points.is_empty() => return Ok(()),
            None => self.provision(uid, source)?,
        };
        self.points(device, points, publish.retain && source.retained == Retained::Latest);
        Ok(())
    }

    /// Checks whatever the topic names; returns the device's uid.
    fn check_names(&mut self) -> Result<&'a str, Refusal> {
        let Captures { tenant, device, module, gateway, .. } = self.captures;
        let sound = |name: &&str| name_fault(name).is_none();
        self.tenant = tenant.filter(sound).unwrap_or(self.tenant);
        self.device = device.filter(sound);
        let named = [("device", device), ("tenant", tenant), ("module", module), ("gateway", gateway)];
        for (what, name) in named.into_iter().chain([("metric", self.captures.metric.as_deref())]) {
            if let Some(fault) = name.and_then(name_fault) {
                return Err(Refusal::message(Reason::BadName, format!("the topic's {what} {fault}")));
            }
        }
        // Sources without a device do not compile.
        device.ok_or_else(|| Refusal::message(Reason::BadName, "the topic names no device"))
    }

    fn provision(&mut self, uid: &str, source: &Source) -> Result<DeviceSlot, Refusal> {
        let most = self.policy.max_devices;
        if self.registry.device_count() >= most {
            let detail = format!("the device is new, and devices.max_devices is {most}");
            return Err(Refusal::message(Reason::TooManyDevices, detail));
        }
        let device = self.registry.add_device(self.tenant, uid, source.template.as_deref());
        self.see(device);
        Ok(device)
    }

    /// Notes that the device was heard; introduces it at its first use in the generation, with the sensors that its
    /// template requires if it is new.
    fn see(&mut self, device: DeviceSlot) {
        let (index, first) = self.registry.introduce_device(device);
        let at = self.message.received_at;
        if first {
            let id = self.registry.device_id(device);
            self.out.devices.push(DeviceIntro {
                index,
                id,
                tenant: Arc::clone(self.registry.tenant(device)),
                uid: Arc::clone(self.registry.uid(device)),
                template: self.registry.template(device).map(|template| template.slug.clone()),
                source: self.source.map(|source| source.name.to_string()).unwrap_or_default(),
                first_seen: at,
            });
            if id.is_none() {
                for model in self.registry.required(device) {
                    let name = self.registry.metric(model).name.clone();
                    let sensor = self.registry.add_sensor(device, &name);
                    self.introduce(
                        device,
                        sensor,
                        &name,
                        &Target { sensor: None, model: Some(model), owner: None, rank: 0 },
                        Kind::Number,
                    );
                }
            }
        }
        match self.out.seen.last_mut() {
            Some(last) if last.0 == index => last.1 = last.1.max(at),
            _ => self.out.seen.push((index, at)),
        }
    }

    fn points(&mut self, device: DeviceSlot, points: Vec<Point>, latest: bool) {
        let stored = self.out.readings.len() + self.out.texts.len();
        let mut stale = false;
        for point in points {
            stale |= self.point(device, point, latest);
        }
        if stale && stored == self.out.readings.len() + self.out.texts.len() {
            self.metrics.retained_ignored.inc();
        }
    }

    /// Stores one instant's samples; whether any was left out for being retained and not newer.
    fn point(&mut self, device: DeviceSlot, point: Point, latest: bool) -> bool {
        if latest && point.time.is_none() {
            for sample in &point.samples {
                (self.observe)(&sample.key, Fate::Stale);
            }
            return true;
        }
        let time = point.time.unwrap_or(self.message.received_at);
        if let Err(refusal) = self.check_time(time) {
            self.refuse(refusal);
            return false;
        }
        let mut resolved = std::mem::take(self.scratch);
        resolved.clear();
        for sample in &point.samples {
            let one = self.resolve(device, &sample.key);
            resolved.push(one);
        }
        self.shadow(&mut resolved, &point.samples);
        let mut stale = false;
        for (sample, resolved) in point.samples.into_iter().zip(&resolved) {
            if let Some(resolved) = resolved {
                stale |= self.sample(device, time, sample, *resolved, latest);
            }
        }
        *self.scratch = resolved;
        stale
    }

    fn check_time(&self, time: UtcMicros) -> Result<(), Refusal> {
        let received = self.message.received_at;
        let (early, late) = (received.since(time), time.since(received));
        let (by, side, name, most) = if early > self.policy.max_age {
            (early, "before", "max_age", self.policy.max_age)
        } else if late > self.policy.max_future {
            (late, "after", "max_future", self.policy.max_future)
        } else {
            return Ok(());
        };
        let by = humantime::format_duration(std::time::Duration::from_secs(by.as_secs()));
        let most = humantime::format_duration(most);
        let detail = format!("{time} is {by} {side} its receipt; time.{name} is {most}");
        Err(Refusal::message(Reason::BadTime, detail))
    }

    /// What a raw key is; none if its sample goes no further, which has been told then.
    fn resolve(&mut self, device: DeviceSlot, key: &str) -> Option<Resolved> {
        let module = self.captures.module;
        if let Some(target) = self.registry.remembered(device, module, key) {
            return Some(Resolved { target, fresh: false });
        }
        if let Some((model, owner)) = self.registry.modeled(device, module, key) {
            let metric = self.registry.metric(model);
            let rank = metric.keys.iter().position(|known| known == key).unwrap_or(usize::MAX);
            let sensor = match owner {
                Some(owner) => self.registry.sensor(device, &joined(self.registry.name(owner), &metric.name)),
                None => self.registry.sensor(device, &metric.name),
            };
            let rank = u32::try_from(rank).unwrap_or(u32::MAX);
            return Some(Resolved { target: Target { sensor, model: Some(model), owner, rank }, fresh: true });
        }
        match self.policy.unmodeled {
            Unmodeled::Store => {}
            Unmodeled::Drop => {
                self.metrics.unmodeled_dropped.inc();
                (self.observe)(key, Fate::Dropped);
                return None;
            }
            Unmodeled::Quarantine => {
                let detail = "no metric of the device's template or modules has this key in its `keys`";
                self.refuse(Refusal::sample(Reason::UnmodeledMetric, key, detail));
                return None;
            }
        }
        let name = self.sensor_name(key, None, None);
        if let Some(fault) = name_fault(&name) {
            self.refuse(Refusal::sample(Reason::BadName, key, format!("the key {fault}, so it can't name a sensor")));
            return None;
        }
        if self.registry.is_metric(device, &name) {
            let detail = format!("{name} is a metric of the device, but its `keys` lacks this key; add it");
            self.refuse(Refusal::sample(Reason::UnmodeledMetric, key, detail));
            return None;
        }
        let sensor = self.registry.sensor(device, &name);
        Some(Resolved { target: Target { sensor, model: None, owner: None, rank: 0 }, fresh: true })
    }

    /// Of several keys of one metric, leaves the one it prefers.
    fn shadow(&mut self, resolved: &mut [Option<Resolved>], samples: &[Sample]) {
        for later in 1..resolved.len() {
            let (before, rest) = resolved.split_at_mut(later);
            let Some(this) = rest.first_mut() else { continue };
            let Some(Resolved { target: Target { model: Some(model), owner, rank, .. }, .. }) = *this else { continue };
            let same = |other: &&mut Option<Resolved>| {
                other.is_some_and(|other| other.target.model == Some(model) && other.target.owner == owner)
            };
            let Some((place, other)) = before.iter_mut().enumerate().find(|(_, other)| same(other)) else { continue };
            let loser = if other.is_some_and(|other| other.target.rank < rank) {
                *this = None;
                later
            } else {
                *other = None;
                place
            };
            if let Some(sample) = samples.get(loser) {
                (self.observe)(&sample.key, Fate::Shadowed);
            }
        }
    }

    /// Stores one sample or refuses it; whether it was left out for being retained and not newer.
    fn sample(
        &mut self,
        device: DeviceSlot,
        time: UtcMicros,
        sample: Sample,
        resolved: Resolved,
        latest: bool,
    ) -> bool {
        let Sample { key, value } = sample;
        let Resolved { mut target, fresh } = resolved;
        let fitted = match target.model {
            Some(model) => {
                let metric = self.registry.metric(model);
                coerce::fit(metric, value).map(|fit| (metric.kind, fit))
            }
            None => Ok(coerce::as_found(value)),
        };
        let checked = fitted.and_then(|(kind, fit)| self.check(&target, time, &fit).map(|()| (kind, fit)));
        let (kind, fit) = match checked {
            Ok(fitting) => fitting,
            Err((reason, detail)) => {
                self.refuse(Refusal::sample(reason, &key, detail));
                return false;
            }
        };
        if latest && matches!(fit, Fit::Number(_)) && self.last(&target).is_some_and(|(newest, _)| time <= newest) {
            (self.observe)(&key, Fate::Stale);
            return true;
        }
        let Some(sensor) = self.sensor(device, &key, &mut target, kind) else {
            return false;
        };
        if fresh {
            let most = self.policy.max_sensors.saturating_mul(KEYS_PER_SENSOR);
            self.registry.remember(device, self.captures.module, &key, target, most);
        }
        self.emit(&key, sensor, time, kind, fit);
        false
    }

    fn last(&self, target: &Target) -> Option<(UtcMicros, f64)> {
        target.sensor.and_then(|sensor| self.registry.last(sensor))
    }

    /// What must hold of a value beside fitting its metric.
    fn check(&self, target: &Target, time: UtcMicros, fit: &Fit) -> Result<(), Misfit> {
        let value = match fit {
            Fit::Text(text) if text.contains('\0') => {
                return Err((Reason::BadText, "the text has a NUL, which the database can't hold".to_owned()));
            }
            Fit::Text(_) => return Ok(()),
            Fit::Number(value) => *value,
        };
        let Some(metric) = target.model.map(|model| self.registry.metric(model)) else {
            return Ok(());
        };
        match (metric.min_step, self.last(target)) {
            (Some(step), Some((newest, last))) if time > newest && !rises(last, value, step) => {
                let detail = format!("{value} after {last}: {} rises by {step} at least", metric.name);
                Err((Reason::NotMonotonic, detail))
            }
            _ => Ok(()),
        }
    }

    /// The sample's sensor, made and introduced where that is still to be done. None: refused.
    fn sensor(&mut self, device: DeviceSlot, key: &str, target: &mut Target, kind: Kind) -> Option<SensorSlot> {
        if let Some(sensor) = target.sensor
            && self.registry.is_introduced(sensor)
        {
            return Some(sensor);
        }
        let name = self.sensor_name(key, target.model, target.owner);
        let sensor = match target.sensor.or_else(|| self.registry.sensor(device, &name)) {
            Some(sensor) => sensor,
            None => {
                let most = self.policy.max_sensors;
                if self.registry.sensor_count(device) >= most {
                    let detail = format!("the device has {most} sensors, which is devices.max_sensors");
                    self.refuse(Refusal::sample(Reason::TooManySensors, key, detail));
                    return None;
                }
                if let Some(fault) = name_fault(&name) {
                    let detail = format!("the sensor's name (module and metric) {fault}");
                    self.refuse(Refusal::sample(Reason::BadName, key, detail));
                    return None;
                }
                self.registry.add_sensor(device, &name)
            }
        };
        target.sensor = Some(sensor);
        self.introduce(device, sensor, &name, target, kind);
        Some(sensor)
    }

    /// Name in the `readings` view.
    fn sensor_name(&self, key: &str, model: Option<Model>, owner: Option<u32>) -> String {
        match (model.map(|model| self.registry.metric(model)), owner, self.captures.module) {
            (Some(metric), Some(owner), _) => joined(self.registry.name(owner), &metric.name),
            (Some(metric), None, _) => metric.name.clone(),
            (None, _, Some(module)) => joined(module, key),
            (None, _, None) => key.to_owned(),
        }
    }

    /// Tells the writer of a sensor at its first use in the generation. `found`: the kind of an unmodeled one.
    fn introduce(&mut self, device: DeviceSlot, sensor: SensorSlot, name: &str, target: &Target, found: Kind) {
        let (index, first) = self.registry.introduce_sensor(sensor);
        if !first {
            return;
        }
        let (device, _) = self.registry.introduce_device(device);
        let metric: Option<&Metric> = target.model.map(|model| self.registry.metric(model));
        let module = match (metric, target.owner) {
            (Some(_), owner) => owner.map(|owner| self.registry.name(owner).to_string()),
            (None, _) => self.captures.module.map(str::to_owned),
        };
        self.out.sensors.push(SensorIntro {
            index,
            id: self.registry.sensor_id(sensor),
            device,
            module,
            metric: name.into(),
            unit: metric.map(|metric| metric.unit.clone()).unwrap_or_default(),
            kind: metric.map_or(found, |metric| metric.kind),
            origin: match metric {
                Some(metric) if metric.required => SensorOrigin::Required,
                Some(_) => SensorOrigin::Optional,
                None => SensorOrigin::Unmodeled,
            },
        });
    }

    fn emit(&mut self, key: &str, sensor: SensorSlot, time: UtcMicros, kind: Kind, fit: Fit) {
        let (index, _) = self.registry.introduce_sensor(sensor);
        let seq = self.message.seq;
        match fit {
            Fit::Number(value) => {
                self.registry.observe(sensor, time, value);
                let reading = Reading { sensor: index, time, value, seq };
                self.out.readings.push(reading);
                (self.observe)(key, Fate::Number(&reading, kind));
            }
            Fit::Text(value) => {
                let reading = TextReading { sensor: index, time, value, seq };
                (self.observe)(key, Fate::Text(&reading));
                self.out.texts.push(reading);
            }
        }
    }
}

/// Whether `value` is at least `step` above `last`, give or take what adding decimal fractions as floats costs.
pub(super) fn rises(last: f64, value: f64, step: f64) -> bool {
    let slack = if step > 0.0 { 1e-9 * last.abs().max(value.abs()).max(step) } else { 0.0 };
    value - last >= step - slack
}

fn joined(module: &str, metric: &str) -> String {
    format!("{module}.{metric}")
}

/// What is wrong with a name, if anything.
fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > MAX_NAME {
        Some(format!("has {} bytes, {MAX_NAME} are the most", name.len()))
    } else if name.chars().any(char::is_control) {
        Some("has control characters".to_owned())
    } else {
        None
    }
}

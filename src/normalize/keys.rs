//! What a raw key of a device is: which metric or unmodeled key, and which sensor; the sensor made where it is missing.

use super::Fate;
use super::work::{Resolved, Work, name_fault};
use crate::catalog::registry::{DeviceSlot, Model, SensorSlot, Target};
use crate::catalog::{Kind, Metric};
use crate::config::Unmodeled;
use crate::decode::Point;
use crate::quarantine::{Reason, Refusal};
use crate::store::batch::{SensorIntro, SensorOrigin};

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    /// What a raw key at this place of the message is; none if its sample goes no further, which has been told then.
    pub(super) fn resolve(&mut self, device: DeviceSlot, key: &str, place: usize) -> Option<Resolved> {
        let module = self.captures.module;
        if let Some(target) = self.registry.remembered(device, module, key, place) {
            return Some(Resolved { target, fresh: false });
        }
        if let Some((model, owner)) = self.registry.modeled(device, module, key) {
            let metric = self.registry.metric(model);
            let rank = metric.keys.iter().position(|known| known.pattern.literal() == Some(key)).unwrap_or(usize::MAX);
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
    pub(super) fn shadow(&mut self, resolved: &mut [Option<Resolved>], point: &Point) {
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
            if let Some(sample) = point.samples.get(loser) {
                (self.observe)(sample.key(&point.keys), Fate::Shadowed);
            }
        }
    }

    /// The sample's sensor, made and introduced where that is still to be done. None: refused.
    pub(super) fn sensor(
        &mut self,
        device: DeviceSlot,
        key: &str,
        target: &mut Target,
        kind: Kind,
    ) -> Option<SensorSlot> {
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
    pub(super) fn introduce(
        &mut self,
        device: DeviceSlot,
        sensor: SensorSlot,
        name: &str,
        target: &Target,
        found: Kind,
    ) {
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
}

fn joined(module: &str, metric: &str) -> String {
    format!("{module}.{metric}")
}

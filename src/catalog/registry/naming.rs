//! What raw keys are by the key maps, which sensors they stand for, and in which units.

use std::sync::Arc;

use super::{ConversionId, DeviceSlot, Model, Modeled, NO_NAME, NO_UNIT, NameId, Registry, SensorSlot, number};
use crate::catalog::pattern::{numbered, sensor_name};
use crate::catalog::unit::{Conversion, UNITS, Unit};
use crate::catalog::{Metric, Template};

/// The raw keys that tell the units of others, each once.
pub(super) fn unit_fields(template: &Template) -> Vec<Box<str>> {
    let keys = template.metrics.iter().flat_map(|metric| &metric.keys);
    let mut fields: Vec<Box<str>> = keys.filter_map(|key| Some(key.unit_from.as_ref()?.key.as_str().into())).collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

impl Registry {
    /// Looks a raw key up in the key maps: that of the module that the topic names, or else of each of the device's
    /// modules in turn, then of the device's template.
    pub fn modeled(&self, device: DeviceSlot, module: Option<&str>, key: &str) -> Option<Modeled> {
        let device = &self.devices[device];
        let named = module.map(|module| self.names.find(module));
        let in_modules = device.modules.iter().filter(|(uid, _)| named.is_none_or(|named| named == Some(*uid)));
        let mut found = in_modules.filter_map(|(uid, template)| self.model((*template)?, Some(*uid), key));
        found.next().or_else(|| self.model(device.template?, None, key))
    }

    fn model(&self, template: u32, owner: Option<NameId>, key: &str) -> Option<Modeled> {
        let known = &self.templates[template as usize];
        let found = known.keys.find(&known.metrics, key)?;
        let metric = known.metrics.get(found.at.metric)?;
        let plain =
            found.captured.as_ref().map_or_else(|| metric.name.clone(), |found| sensor_name(&metric.name, found));
        Some(Modeled {
            model: Model { template, metric: number(found.at.metric) },
            owner,
            place: found.at.place,
            name: self.joined(owner, &plain),
            starred: found.captured.is_some_and(|found| found.starred),
        })
    }

    /// Name in the `readings` view: `module.metric` for a module's.
    pub fn joined(&self, owner: Option<NameId>, metric: &str) -> String {
        owner.map_or_else(|| metric.to_owned(), |owner| format!("{}.{metric}", self.name(owner)))
    }

    /// The id of how the values of a metric's key are converted.
    pub fn conversion_of(&mut self, model: Model, place: usize) -> ConversionId {
        let metric = self.metric(model);
        let conversion = metric.keys.get(place).map_or(Conversion::NONE, |key| key.conversion(metric));
        let at = self.conversions.iter().position(|known| *known == conversion).unwrap_or_else(|| {
            self.conversions.push(conversion);
            self.conversions.len() - 1
        });
        number(at)
    }

    /// The conversion with this id.
    pub fn conversion(&self, id: ConversionId) -> Conversion {
        self.conversions.get(id as usize).copied().unwrap_or(Conversion::NONE)
    }

    /// The device's sensor that stands for this raw key of a starred metric, with its name. `plain`: name of the first one.
    pub fn claimed(&self, device: DeviceSlot, plain: &str, key: &str) -> Option<(SensorSlot, String)> {
        let key = self.names.find(key)?;
        let mut sensors = self.devices[device].sensors.iter();
        sensors.find_map(|(name, slot)| {
            let name = self.names.get(*name);
            let numbered = name.strip_prefix(plain).is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix('_').is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 1))
            });
            (numbered && self.sensors[*slot as usize].raw_key == key).then(|| (*slot, name.to_string()))
        })
    }

    /// The name that the next raw key of a starred metric gives its sensor: the first that no other key has, and that is no
    /// other metric's.
    pub fn next_number(&self, device: DeviceSlot, model: Model, owner: Option<NameId>, plain: &str) -> String {
        let metrics = &self.templates[model.template as usize].metrics;
        let own = self.metric(model);
        let mut count = 1_u32;
        loop {
            let name = numbered(plain.to_owned(), count);
            let free = self.sensor(device, &name).is_none_or(|slot| self.sensors[slot as usize].raw_key == NO_NAME);
            let other = |metric: &Metric| metric.name != own.name && self.joined(owner, &metric.name) == name;
            if count == u32::MAX || (free && !metrics.iter().any(|metric| other(metric))) {
                return name;
            }
            count = count.saturating_add(1);
        }
    }

    /// Keeps that the sensor stands for a raw key, unless it stands for one already. Whether it is news.
    pub fn claim(&mut self, sensor: SensorSlot, key: &str) -> bool {
        if self.sensors[sensor as usize].raw_key != NO_NAME {
            return false;
        }
        self.sensors[sensor as usize].raw_key = self.names.intern(key);
        true
    }

    /// The unit of a sensor, as far as the snapshot or a payload told.
    pub fn unit(&self, sensor: SensorSlot) -> Option<&'static Unit> {
        UNITS.get(usize::from(self.sensors[sensor as usize].unit))
    }

    /// Keeps the unit of a sensor.
    pub fn set_unit(&mut self, sensor: SensorSlot, unit: &Unit) {
        let at = UNITS.iter().position(|known| known.display == unit.display);
        self.sensors[sensor as usize].unit = at.and_then(|at| u16::try_from(at).ok()).unwrap_or(NO_UNIT);
    }

    /// Whether the device's template or one of its modules' has derived metrics.
    pub fn derives(&self, device: DeviceSlot) -> bool {
        self.templates_of(device).any(|template| !self.templates[template].derived.is_empty())
    }

    /// Whether one of those templates has metrics that are reported state too.
    pub fn reports(&self, device: DeviceSlot) -> bool {
        self.templates_of(device).any(|template| self.reporting[template])
    }

    /// Whether one of those templates has keys whose unit another key tells.
    pub fn tells_units(&self, device: DeviceSlot) -> bool {
        self.templates_of(device).any(|template| !self.unit_fields[template].is_empty())
    }

    /// Whether the raw key tells the unit of others, by one of those templates.
    pub fn is_unit_field(&self, device: DeviceSlot, key: &str) -> bool {
        self.templates_of(device).any(|template| self.unit_fields[template].iter().any(|field| **field == *key))
    }

    /// Places of the templates of the device and of its modules.
    fn templates_of(&self, device: DeviceSlot) -> impl Iterator<Item = usize> {
        let device = &self.devices[device];
        let modules = device.modules.iter().filter_map(|(_, template)| *template);
        device.template.into_iter().chain(modules).map(|template| template as usize)
    }

    /// The templates of the device and of its modules that have derived metrics, each with its module.
    pub fn deriving(&self, device: DeviceSlot) -> Vec<(Arc<Template>, Option<NameId>)> {
        let device = &self.devices[device];
        let own = device.template.map(|template| (template, None));
        let modules = device.modules.iter().filter_map(|(uid, template)| Some(((*template)?, Some(*uid))));
        let all = own.into_iter().chain(modules);
        let all = all.map(|(template, owner)| (Arc::clone(&self.templates[template as usize]), owner));
        all.filter(|(template, _)| !template.derived.is_empty()).collect()
    }

    /// Whether the device's template, or one of its modules', has a metric whose sensor has this name.
    pub fn is_metric(&self, device: DeviceSlot, name: &str) -> bool {
        let device = &self.devices[device];
        let has = |template: Option<u32>, name: &str| {
            template.map(|slot| &self.templates[slot as usize]).is_some_and(|template| {
                template.metrics.iter().any(|metric| metric.names(name))
                    || template.derived.iter().any(|derived| derived.name == name)
            })
        };
        has(device.template, name)
            || device.modules.iter().any(|(uid, template)| {
                let own = name.strip_prefix(&**self.names.get(*uid)).and_then(|rest| rest.strip_prefix('.'));
                own.is_some_and(|own| has(*template, own))
            })
    }
}

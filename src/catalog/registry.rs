//! What the pipeline knows of devices and sensors between messages: the snapshot in a compact form, and what was added
//! since. A device takes about 200 bytes and a sensor in use about 80, beside their names, of which equal ones are kept once.

mod identity;
mod names;
mod naming;
mod sensors;

use std::collections::HashMap;
use std::sync::Arc;

use super::matching::{GivenBy, Offers};
use super::unit::{Conversion, UNITS};
use super::{Metric, Snapshot, Template};
use crate::message::Seq;
use crate::store::batch::DeviceIndex;
use names::Names;
use sensors::{Kept, Sensor};

/// A name, kept once.
pub type NameId = u32;
/// Position of a device in the registry.
pub type DeviceSlot = usize;
/// Position of a sensor in the registry.
pub type SensorSlot = u32;

/// Bounded by memory long before: four thousand million names or sensors take more than a hundred gigabytes.
fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A metric of one of the registry's templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    template: u32,
    metric: u32,
}

/// What a raw key of a device is: decided once, then looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// None: the sensor does not exist yet.
    pub sensor: Option<SensorSlot>,
    /// None: unmodeled.
    pub model: Option<Model>,
    /// The module whose sensor it is, by uid.
    pub owner: Option<NameId>,
    /// Place of the key among the metric's keys; the first is preferred.
    pub rank: u32,
    /// How its values become the metric's.
    pub conversion: ConversionId,
}

/// A conversion, kept once.
pub type ConversionId = u32;
/// The one that leaves values as they are.
pub const NO_CONVERSION: ConversionId = 0;

/// What a raw key is by a key map.
#[derive(Clone, Debug, PartialEq)]
pub struct Modeled {
    pub model: Model,
    /// The module whose template it is.
    pub owner: Option<NameId>,
    /// Place of the key among the metric's keys.
    pub place: usize,
    /// Name of the sensor in the `readings` view; where it is starred, that of the first one.
    pub name: String,
    /// Whether its number depends on which keys came before.
    pub starred: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The module that the topic names; [`NO_MODULE`] for none.
    module: NameId,
    key: NameId,
    target: Target,
}

const NO_MODULE: NameId = NameId::MAX;

/// A device, as the pipeline needs it.
struct Device {
    id: Option<i32>,
    tenant: Arc<str>,
    uid: Arc<str>,
    /// Position in the registry's templates.
    template: Option<u32>,
    identity: identity::Identity,
    /// Set once it is introduced in this generation.
    index: Option<DeviceIndex>,
    modules: Vec<(NameId, Option<u32>)>,
    /// Sensors by name; sorted.
    sensors: Vec<(NameId, SensorSlot)>,
    /// What raw keys are; sorted by module and key.
    entries: Vec<Entry>,
    /// Which of `entries` the keys of the last messages were, by their place in the message: the next one has the same.
    order: Vec<u32>,
}

const NO_NAME: NameId = NameId::MAX;
const NO_UNIT: u16 = u16::MAX;

/// Devices, sensors and templates by number, and the names they go by.
#[derive(Default)]
pub struct Registry {
    names: Names,
    templates: Vec<Arc<Template>>,
    /// Of each template, the raw keys that tell the units of others.
    unit_fields: Vec<Vec<Box<str>>>,
    /// Of each template, whether it has metrics that are reported state too.
    reporting: Vec<bool>,
    template_slots: HashMap<String, u32>,
    offers: Offers,
    tenants: HashMap<Arc<str>, HashMap<Arc<str>, DeviceSlot>>,
    devices: Vec<Device>,
    sensors: Vec<Sensor>,
    /// The first is [`Conversion::NONE`]. As many as templates and payloads have different ones.
    conversions: Vec<Conversion>,
    devices_introduced: u32,
    sensors_introduced: u32,
}

impl Registry {
    /// The registry of a snapshot; nothing is introduced yet.
    pub fn of(snapshot: &Snapshot) -> Registry {
        let mut registry = Registry {
            conversions: vec![Conversion::NONE],
            offers: Offers::of(&snapshot.offers),
            ..Registry::default()
        };
        let mut units: HashMap<&str, u16> = UNITS.iter().zip(0_u16..).map(|(unit, at)| (unit.display, at)).collect();
        units.insert("", NO_UNIT);
        let mut slugs: Vec<&String> = snapshot.templates.keys().collect();
        slugs.sort_unstable();
        for slug in slugs {
            if let Some(template) = snapshot.templates.get(slug) {
                registry.template_slots.insert(slug.clone(), number(registry.templates.len()));
                registry.templates.push(Arc::clone(template));
                registry.unit_fields.push(naming::unit_fields(template));
                registry.reporting.push(template.metrics.iter().any(|metric| metric.twin.is_some()));
            }
        }
        for known in &snapshot.devices {
            let slot = registry.add_device(&known.tenant, &known.uid, known.template.as_deref());
            let modules = known.modules.iter().map(|module| {
                let template = module.template.as_ref().and_then(|slug| registry.template_slots.get(slug).copied());
                (registry.names.intern(&module.uid), template)
            });
            let modules: Vec<_> = modules.collect();
            for sensor in &known.sensors {
                let added = registry.add_sensor(slot, &sensor.metric);
                let unit = registry.names.intern(&sensor.unit);
                let raw_key = sensor.raw_key.as_deref().map_or(NO_NAME, |key| registry.names.intern(key));
                let added = &mut registry.sensors[added as usize];
                added.series = Some(Kept { unit, kind: sensor.kind, modeled: sensor.modeled });
                added.id = Some(sensor.id);
                added.last = sensor.last;
                added.raw_key = raw_key;
                added.unit = units.get(&*sensor.unit).copied().unwrap_or(NO_UNIT);
            }
            registry.know(slot, known);
            let device = &mut registry.devices[slot];
            device.id = Some(known.id);
            device.modules = modules;
            device.sensors.shrink_to_fit();
        }
        registry.know_parents(&snapshot.devices);
        registry
    }

    /// Takes over from the registry before: sensors' last values where they are newer, and those of devices and sensors
    /// that were new to the database then and may not be in it yet. So with what was learned of devices by messages after
    /// `committed`, which the snapshot may not have.
    pub fn inherit(&mut self, before: &Registry, committed: Seq) {
        for old in &before.devices {
            let slot = match self.device(&old.tenant, &old.uid) {
                Some(slot) => slot,
                // In the database once, and no longer: deleted.
                None if old.id.is_some() => continue,
                None => {
                    let template = old.template.map(|template| before.templates[template as usize].slug.as_str());
                    self.add_device(&old.tenant, &old.uid, template)
                }
            };
            self.inherit_identity(slot, before, old, committed);
            for (name, sensor) in &old.sensors {
                let (name, sensor) = (before.names.get(*name), &before.sensors[*sensor as usize]);
                let found = match self.sensor(slot, name) {
                    Some(found) => found,
                    None if sensor.id.is_some() => continue,
                    None => self.add_sensor(slot, name),
                };
                if sensor.raw_key != NO_NAME {
                    self.claim(found, before.names.get(sensor.raw_key));
                }
                if !self.is_one_series(found, before, sensor) {
                    continue;
                }
                let taken = &mut self.sensors[found as usize];
                taken.unit = if taken.unit == NO_UNIT { sensor.unit } else { taken.unit };
                if let Some((time, value)) = sensor.last {
                    self.observe(found, time, value);
                }
            }
        }
        self.inherit_parents(before, committed);
    }

    /// How many devices are known.
    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    /// The device with this uid.
    pub fn device(&self, tenant: &str, uid: &str) -> Option<DeviceSlot> {
        self.tenants.get(tenant)?.get(uid).copied()
    }

    /// Adds a device that is not known yet.
    pub fn add_device(&mut self, tenant: &str, uid: &str, template: Option<&str>) -> DeviceSlot {
        let tenant = match self.tenants.get_key_value(tenant) {
            Some((tenant, _)) => Arc::clone(tenant),
            None => tenant.into(),
        };
        let uid: Arc<str> = uid.into();
        let slot = self.devices.len();
        self.tenants.entry(Arc::clone(&tenant)).or_default().insert(Arc::clone(&uid), slot);
        self.devices.push(Device {
            id: None,
            tenant,
            uid,
            template: template.and_then(|slug| self.template_slots.get(slug).copied()),
            identity: identity::Identity::default(),
            index: None,
            modules: Vec::new(),
            sensors: Vec::new(),
            entries: Vec::new(),
            order: Vec::new(),
        });
        slot
    }

    /// The device's row, where the snapshot had it.
    pub fn device_id(&self, device: DeviceSlot) -> Option<i32> {
        self.devices[device].id
    }

    pub fn tenant(&self, device: DeviceSlot) -> &Arc<str> {
        &self.devices[device].tenant
    }

    pub fn uid(&self, device: DeviceSlot) -> &Arc<str> {
        &self.devices[device].uid
    }

    /// Position in the registry's templates of the one with this slug.
    fn template_slot(&self, slug: &str) -> Option<u32> {
        self.template_slots.get(slug).copied()
    }

    /// The device's own template.
    pub fn template(&self, device: DeviceSlot) -> Option<&Arc<Template>> {
        self.devices[device].template.map(|template| &self.templates[template as usize])
    }

    pub fn metric(&self, model: Model) -> &Metric {
        &self.templates[model.template as usize].metrics[model.metric as usize]
    }

    pub fn name(&self, id: NameId) -> &Arc<str> {
        self.names.get(id)
    }

    /// The device's index in this generation, and whether it was given just now.
    pub fn introduce_device(&mut self, device: DeviceSlot) -> (DeviceIndex, bool) {
        let device = &mut self.devices[device];
        if let Some(index) = device.index {
            return (index, false);
        }
        let index = self.devices_introduced;
        self.devices_introduced = self.devices_introduced.saturating_add(1);
        device.index = Some(index);
        (index, true)
    }

    /// What is remembered of a raw key that came under this module of the device. `place`: the key's in its message; a
    /// device whose messages are alike costs no search.
    pub fn remembered(&mut self, device: DeviceSlot, module: Option<&str>, key: &str, place: usize) -> Option<Target> {
        let device = &mut self.devices[device];
        let named = |entry: &Entry| match module {
            Some(module) => entry.module != NO_MODULE && **self.names.get(entry.module) == *module,
            None => entry.module == NO_MODULE,
        };
        let expected = device.order.get(place).and_then(|at| device.entries.get(*at as usize));
        if let Some(entry) = expected.filter(|entry| **self.names.get(entry.key) == *key && named(entry)) {
            return Some(entry.target);
        }
        let key = self.names.find(key)?;
        let module = match module {
            Some(module) => self.names.find(module)?,
            None => NO_MODULE,
        };
        let at = device.entries.binary_search_by_key(&(module, key), |entry| (entry.module, entry.key)).ok()?;
        // Keys that are not remembered take places too, but the list stays in proportion to the entries.
        if place >= device.order.len() && place < device.entries.len() * 2 {
            device.order.resize(place + 1, u32::MAX);
        }
        if let Some(expected) = device.order.get_mut(place) {
            *expected = number(at);
        }
        device.entries.get(at).map(|entry| entry.target)
    }

    /// Remembers what a raw key is. At most `most` are remembered for a device; others are worked out each time.
    pub fn remember(&mut self, device: DeviceSlot, module: Option<&str>, key: &str, target: Target, most: usize) {
        if self.devices[device].entries.len() >= most {
            return;
        }
        let module = module.map_or(NO_MODULE, |module| self.names.intern(module));
        let key = self.names.intern(key);
        let device = &mut self.devices[device];
        if let Err(at) = device.entries.binary_search_by_key(&(module, key), |entry| (entry.module, entry.key)) {
            device.entries.insert(at, Entry { module, key, target });
            // The entries behind it have moved.
            device.order.clear();
        }
    }

    /// The metrics whose sensors a new device gets at once.
    pub fn required(&self, device: DeviceSlot) -> Vec<Model> {
        let Some(template) = self.devices[device].template else {
            return Vec::new();
        };
        let metrics = self.templates[template as usize].metrics.iter().enumerate();
        metrics.filter(|(_, metric)| metric.required).map(|(i, _)| Model { template, metric: number(i) }).collect()
    }
}

//! Sensors: the series behind their names, and their newest readings.

use std::sync::Arc;

use super::names::Names;
use super::{DeviceSlot, Model, NO_NAME, NO_UNIT, NameId, Registry, SensorSlot, number};
use crate::catalog::Kind;
use crate::catalog::series::{Onward, Series};
use crate::store::batch::SensorIndex;
use crate::time::UtcMicros;

/// A sensor, as the pipeline needs it.
#[derive(Clone, Copy)]
pub(super) struct Sensor {
    pub id: Option<i32>,
    /// Set once it is introduced in this generation.
    pub index: Option<SensorIndex>,
    pub last: Option<(UtcMicros, f64)>,
    /// The raw key that it stands for; [`NO_NAME`] where its number depends on none.
    pub raw_key: NameId,
    /// Position in [`UNITS`](crate::catalog::unit::UNITS); [`NO_UNIT`] for none.
    pub unit: u16,
    /// None until its first use, where the snapshot does not have it.
    pub series: Option<Kept>,
}

/// What a sensor's series is.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub unit: NameId,
    pub kind: Kind,
    pub modeled: bool,
}

impl Kept {
    pub(super) fn of(self, names: &Names) -> Series<'_> {
        Series { unit: names.get(self.unit), kind: self.kind, modeled: self.modeled, plain: true }
    }
}

impl Sensor {
    /// One that nothing has come for yet.
    pub(super) fn unused() -> Sensor {
        Sensor { id: None, index: None, last: None, raw_key: NO_NAME, unit: NO_UNIT, series: None }
    }
}

impl Registry {
    /// Whether a sensor is the one that another registry had under its name: none was set aside meanwhile.
    pub(super) fn is_one_series(&self, sensor: SensorSlot, before: &Registry, old: &Sensor) -> bool {
        let new = &self.sensors[sensor as usize];
        let goes_on = match (new.series, old.series) {
            (Some(new), Some(old)) => new.of(&self.names).onward(&old.of(&before.names)) != Onward::Aside,
            _ => true,
        };
        goes_on && (new.id.is_none() || old.id.is_none() || new.id == old.id)
    }

    /// The sensor's index in this generation, and whether it was given just now.
    pub fn introduce_sensor(&mut self, sensor: SensorSlot) -> (SensorIndex, bool) {
        let sensor = &mut self.sensors[sensor as usize];
        if let Some(index) = sensor.index {
            return (index, false);
        }
        let index = self.sensors_introduced;
        self.sensors_introduced = self.sensors_introduced.saturating_add(1);
        sensor.index = Some(index);
        (index, true)
    }

    /// Whether the sensor has an index in this generation.
    pub fn is_introduced(&self, sensor: SensorSlot) -> bool {
        self.sensors[sensor as usize].index.is_some()
    }

    /// The sensor's row, where the snapshot had it.
    pub fn sensor_id(&self, sensor: SensorSlot) -> Option<i32> {
        self.sensors[sensor as usize].id
    }

    /// How many sensors the device has.
    pub fn sensor_count(&self, device: DeviceSlot) -> usize {
        self.devices[device].sensors.len()
    }

    /// The device's sensor of this name.
    pub fn sensor(&self, device: DeviceSlot, name: &str) -> Option<SensorSlot> {
        let name = self.names.find(name)?;
        let sensors = &self.devices[device].sensors;
        let at = sensors.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        sensors.get(at).map(|(_, sensor)| *sensor)
    }

    /// Adds the sensor unless the device has it.
    pub fn add_sensor(&mut self, device: DeviceSlot, name: &str) -> SensorSlot {
        let name = self.names.intern(name);
        let sensors = &mut self.devices[device].sensors;
        match sensors.binary_search_by_key(&name, |(name, _)| *name) {
            Ok(at) => sensors[at].1,
            Err(at) => {
                let slot = number(self.sensors.len());
                self.sensors.push(Sensor::unused());
                sensors.insert(at, (name, slot));
                slot
            }
        }
    }

    /// As [`Registry::sensor_for`], of the sensor that a metric's key stands for; `name` with its module's.
    pub fn sensor_of_metric(
        &mut self,
        device: DeviceSlot,
        (model, owner): (Model, Option<NameId>),
        name: &str,
    ) -> Option<SensorSlot> {
        let template = Arc::clone(&self.templates[model.template as usize]);
        let metric = template.metrics.get(model.metric as usize)?;
        self.sensor_for(device, name, &Series::of_metric(metric, self.bare(owner, name)))
    }

    /// A sensor's name without its module's.
    pub fn bare<'n>(&self, owner: Option<NameId>, name: &'n str) -> &'n str {
        let without = owner.and_then(|owner| name.strip_prefix(&**self.name(owner))?.strip_prefix('.'));
        without.unwrap_or(name)
    }

    /// The device's sensor of this name, where its series can go on as `wanted`. Where it can't, the name gets a new sensor, and
    /// the old one is the database's to set aside.
    pub fn sensor_for(&mut self, device: DeviceSlot, name: &str, wanted: &Series<'_>) -> Option<SensorSlot> {
        let sensor = self.sensor(device, name)?;
        let Some(kept) = self.sensors[sensor as usize].series else { return Some(sensor) };
        match kept.of(&self.names).onward(wanted) {
            Onward::Same => {}
            Onward::Takes => self.keep_series(sensor, wanted),
            Onward::Aside => {
                let name = self.names.intern(name);
                let slot = number(self.sensors.len());
                self.sensors.push(Sensor::unused());
                let sensors = &mut self.devices[device].sensors;
                if let Ok(at) = sensors.binary_search_by_key(&name, |(name, _)| *name) {
                    sensors[at].1 = slot;
                }
                return Some(slot);
            }
        }
        Some(sensor)
    }

    /// Whether it is known what the sensor's series is.
    pub fn has_series(&self, sensor: SensorSlot) -> bool {
        self.sensors[sensor as usize].series.is_some()
    }

    /// Keeps what a sensor's series is.
    pub fn keep_series(&mut self, sensor: SensorSlot, series: &Series<'_>) {
        let unit = self.names.intern(series.unit);
        self.sensors[sensor as usize].series = Some(Kept { unit, kind: series.kind, modeled: series.modeled });
    }

    /// Time and value of the sensor's newest numeric reading.
    pub fn last(&self, sensor: SensorSlot) -> Option<(UtcMicros, f64)> {
        self.sensors[sensor as usize].last
    }

    /// Keeps a reading as the sensor's last, if it is newer.
    pub fn observe(&mut self, sensor: SensorSlot, time: UtcMicros, value: f64) {
        let last = &mut self.sensors[sensor as usize].last;
        if last.is_none_or(|(newest, _)| time > newest) {
            *last = Some((time, value));
        }
    }
}

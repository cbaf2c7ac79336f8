//! What a raw key of a device is: which metric or unmodeled key, and which sensor; the sensor made where it is missing.

use super::Fate;
use super::work::{Work, name_fault};
use crate::catalog::Kind;
use crate::catalog::registry::{DeviceSlot, Modeled, NO_CONVERSION, SensorSlot, Target};
use crate::catalog::series::Series;
use crate::catalog::unit::Unit;
use crate::config::Unmodeled;
use crate::decode::Point;
use crate::quarantine::{Reason, Refusal};
use crate::store::batch::{SensorIntro, SensorOrigin};

/// A sample's target.
pub(super) struct Resolved {
    pub(super) target: Target,
    /// For what is still to be remembered.
    pub(super) fresh: Option<Box<Fresh>>,
    /// The unit that another key of the instant tells.
    pub(super) told: Option<&'static Unit>,
}

/// What a key that is not remembered stands for.
pub(super) struct Fresh {
    /// Name of the sensor in the `readings` view.
    pub(super) name: String,
    /// The name is that of the first sensor; which one it is, is decided once the sample is stored.
    pub(super) starred: bool,
}

impl Resolved {
    /// Whether two keys of metrics stand for the same sensor.
    pub(super) fn is_of_one_sensor_with(&self, other: &Resolved) -> bool {
        let (this, that) = (&self.target, &other.target);
        let alike = this.model == that.model && this.owner == that.owner;
        alike
            && match (this.sensor, that.sensor, &self.fresh, &other.fresh) {
                (Some(this), Some(that), ..) => this == that,
                (None, None, Some(this), Some(that)) => this.name == that.name && !this.starred && !that.starred,
                _ => false,
            }
    }
}

/// What the writer is told of a sensor.
pub(super) struct Introduction<'i> {
    pub(super) name: &'i str,
    pub(super) module: Option<String>,
    pub(super) series: Series<'i>,
    pub(super) origin: SensorOrigin,
    /// That it stands for from now on.
    pub(super) raw_key: Option<&'i str>,
}

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    /// What a raw key at this place of the message is; none if its sample goes no further, which has been told then.
    pub(super) fn resolve(&mut self, device: DeviceSlot, key: &str, place: usize) -> Option<Resolved> {
        let module = self.captures.module;
        if let Some(target) = self.registry.remembered(device, module, key, place) {
            return Some(Resolved { target, fresh: None, told: None });
        }
        if let Some(found) = self.registry.modeled(device, module, key) {
            return Some(self.resolve_modeled(device, key, found));
        }
        if self.tells_units && self.registry.is_unit_field(device, key) {
            (self.observe)(key, Fate::Unit);
            return None;
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
        let name = self.unmodeled_name(key);
        if let Some(fault) = name_fault(&name) {
            self.refuse(Refusal::sample(Reason::BadName, key, format!("the key {fault}, so it can't name a sensor")));
            return None;
        }
        if self.registry.is_metric(device, &name) {
            let detail = format!("{name} is a metric of the device, but its `keys` lacks this key; add it");
            self.refuse(Refusal::sample(Reason::UnmodeledMetric, key, detail));
            return None;
        }
        let sensor = self.registry.sensor_for(device, &name, &Series::raw("", Kind::Number));
        let target = Target { sensor, model: None, owner: None, rank: 0, conversion: NO_CONVERSION };
        Some(Resolved { target, fresh: Some(Box::new(Fresh { name, starred: false })), told: None })
    }

    fn resolve_modeled(&mut self, device: DeviceSlot, key: &str, found: Modeled) -> Resolved {
        let Modeled { model, owner, place, name, starred } = found;
        let (sensor, fresh) = match starred.then(|| self.registry.claimed(device, &name, key)) {
            Some(Some((_, name))) => {
                (self.registry.sensor_of_metric(device, (model, owner), &name), Fresh { name, starred: false })
            }
            Some(None) => (None, Fresh { name, starred }),
            None => (self.registry.sensor_of_metric(device, (model, owner), &name), Fresh { name, starred }),
        };
        let conversion = self.registry.conversion_of(model, place);
        let rank = u32::try_from(place).unwrap_or(u32::MAX);
        let target = Target { sensor, model: Some(model), owner, rank, conversion };
        Resolved { target, fresh: Some(Box::new(fresh)), told: None }
    }

    /// Of several keys of one sensor, leaves the one that its metric prefers.
    pub(super) fn shadow(&mut self, resolved: &mut [Option<Resolved>], point: &Point) {
        for later in 1..resolved.len() {
            let (before, rest) = resolved.split_at_mut(later);
            let Some(this) = rest.first_mut() else { continue };
            let Some(one) = this.as_ref().filter(|one| one.target.model.is_some()) else { continue };
            let same = |other: &Option<Resolved>| other.as_ref().is_some_and(|other| one.is_of_one_sensor_with(other));
            let Some((place, other)) = before.iter_mut().enumerate().find(|(_, other)| same(other)) else { continue };
            let loser = if other.as_ref().is_some_and(|other| other.target.rank < one.target.rank) {
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

    /// The sample's sensor, made and introduced where that is still to be done. None: refused. `unit`: that the payload
    /// declares for an unmodeled number.
    pub(super) fn sensor(
        &mut self,
        device: DeviceSlot,
        key: &str,
        target: &mut Target,
        fresh: Option<&Fresh>,
        (kind, unit): (Kind, Option<&'static Unit>),
    ) -> Option<SensorSlot> {
        let Some(Fresh { name, starred }) = fresh else {
            // Remembered, so it was introduced; but its unit may be news.
            let sensor = target.sensor?;
            if unit.is_some() && self.registry.unit(sensor).is_none() {
                let name = self.unmodeled_name(key);
                self.introduce_target(device, (sensor, &name), target, (kind, unit), None);
            }
            return Some(sensor);
        };
        let numbered =
            target.model.filter(|_| *starred).map(|model| self.registry.next_number(device, model, target.owner, name));
        let name = numbered.as_deref().unwrap_or(name);
        let found = match (target.sensor, target.model) {
            (None, Some(model)) => self.registry.sensor_of_metric(device, (model, target.owner), name),
            (None, None) => self.registry.sensor(device, name),
            (found, _) => found,
        };
        let sensor = match found {
            Some(sensor) => sensor,
            None => self.add_sensor(device, key, name)?,
        };
        target.sensor = Some(sensor);
        let claims = target.model.is_some_and(|model| self.registry.metric(model).is_starred());
        let raw_key = (claims && self.registry.claim(sensor, key)).then_some(key);
        self.introduce_target(device, (sensor, name), target, (kind, unit), raw_key);
        Some(sensor)
    }

    /// Makes a sensor unless the device has too many, or its name can't be one.
    pub(super) fn add_sensor(&mut self, device: DeviceSlot, key: &str, name: &str) -> Option<SensorSlot> {
        let most = self.policy.max_sensors;
        if self.registry.sensor_count(device) >= most {
            let detail = format!("the device has {most} sensors, which is devices.max_sensors");
            self.refuse(Refusal::sample(Reason::TooManySensors, key, detail));
            return None;
        }
        if let Some(fault) = name_fault(name) {
            let detail = format!("the sensor's name (module and metric) {fault}");
            self.refuse(Refusal::sample(Reason::BadName, key, detail));
            return None;
        }
        Some(self.registry.add_sensor(device, name))
    }

    /// Name in the `readings` view of what no metric has.
    fn unmodeled_name(&self, key: &str) -> String {
        self.captures.module.map_or_else(|| key.to_owned(), |module| format!("{module}.{key}"))
    }

    /// Introduces the sensor that a key stands for. `found`: kind and declared unit of an unmodeled one.
    pub(super) fn introduce_target(
        &mut self,
        device: DeviceSlot,
        (sensor, name): (SensorSlot, &str),
        target: &Target,
        found: (Kind, Option<&'static Unit>),
        raw_key: Option<&str>,
    ) {
        let Some(model) = target.model else {
            let (kind, unit) = found;
            let news = unit.filter(|_| self.registry.unit(sensor).is_none());
            if let Some(unit) = news {
                self.registry.set_unit(sensor, unit);
            }
            let module = self.captures.module.map(str::to_owned);
            let unit = news.map_or("", |unit| unit.display);
            let origin = SensorOrigin::Unmodeled;
            let introduction = Introduction { name, module, series: Series::raw(unit, kind), origin, raw_key: None };
            return self.introduce(device, sensor, introduction, news.is_some());
        };
        if self.registry.is_introduced(sensor) && raw_key.is_none() {
            return;
        }
        let metric = self.registry.metric(model);
        let plain = metric.takes_as_is(self.registry.bare(target.owner, name));
        let (unit, kind) = (metric.unit.clone(), metric.kind);
        let origin = if metric.required { SensorOrigin::Required } else { SensorOrigin::Optional };
        let module = target.owner.map(|owner| self.registry.name(owner).to_string());
        let series = Series { unit: &unit, kind, modeled: true, plain };
        let introduction = Introduction { name, module, series, origin, raw_key };
        self.introduce(device, sensor, introduction, raw_key.is_some());
    }

    /// Tells the writer of a sensor at its first use in the generation, or of what is new about it.
    pub(super) fn introduce(&mut self, device: DeviceSlot, sensor: SensorSlot, told: Introduction<'_>, news: bool) {
        let (index, first) = self.registry.introduce_sensor(sensor);
        if !first && !news {
            return;
        }
        let (device, _) = self.registry.introduce_device(device);
        // What is known of a raw key's series stays.
        if told.series.modeled || !told.series.unit.is_empty() || !self.registry.has_series(sensor) {
            self.registry.keep_series(sensor, &told.series);
        }
        self.out.sensors.push(SensorIntro {
            index,
            id: self.registry.sensor_id(sensor),
            device,
            module: told.module,
            metric: told.name.into(),
            unit: told.series.unit.to_owned(),
            kind: told.series.kind,
            plain: told.series.plain,
            origin: told.origin,
            raw_key: told.raw_key.map(Into::into),
        });
    }
}

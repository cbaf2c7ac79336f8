//! Metrics worked out from others, once the samples of an instant are stored.
//!
//! What is not of that instant is the sensor's newest reading, as the registry has it: the database's last value after a restart,
//! which `store/last_values.rs` makes complete before the first message. So a restart or a replay changes nothing.

use super::Fate;
use super::coerce::{Fit, in_range};
use super::keys::Introduction;
use super::points::Stored;
use super::work::Work;
use crate::catalog::registry::{DeviceSlot, NameId, SensorSlot};
use crate::catalog::series::Series;
use crate::catalog::{Derived, Formula, Kind, Rate};
use crate::quarantine::Refusal;
use crate::store::batch::SensorOrigin;
use crate::time::UtcMicros;

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    /// Stores what can be worked out from the numbers that the point at `time` has brought. Each derived metric stands behind
    /// its inputs, so one look at each is enough.
    pub(super) fn derive(&mut self, device: DeviceSlot, time: UtcMicros) {
        if !self.stored.is_empty() {
            for (template, owner) in self.registry.deriving(device) {
                for derived in &template.derived {
                    self.derive_one(device, time, derived, owner);
                }
            }
        }
        self.stored.clear();
    }

    fn derive_one(&mut self, device: DeviceSlot, time: UtcMicros, derived: &Derived, owner: Option<NameId>) {
        let value = match &derived.formula {
            Formula::Rate(rate) => self.rate(device, time, derived, rate, owner),
            Formula::Expression(expression) => {
                self.inputs(device, time, derived, owner).map(|inputs| expression.evaluate(&inputs))
            }
        };
        let Some(value) = value else { return };
        if !value.is_finite() {
            self.metrics.derived_undefined.inc();
            return;
        }
        let name = self.registry.joined(owner, &derived.name);
        if let Err((reason, detail)) = in_range(&derived.name, derived.range, value) {
            self.refuse(Refusal::sample(reason, &name, detail));
            return;
        }
        let series = Series { unit: &derived.unit, kind: Kind::Number, modeled: true, plain: false };
        let found = self.registry.sensor_for(device, &name, &series);
        let Some(sensor) = found.or_else(|| self.add_sensor(device, &name, &name)) else { return };
        let module = owner.map(|owner| self.registry.name(owner).to_string());
        let origin = SensorOrigin::Optional;
        let told = Introduction { name: &name, module, series, origin, raw_key: None };
        self.introduce(device, sensor, told, false);
        // Minus nothing is nothing.
        self.emit(&name, sensor, time, Kind::Number, Fit::Number(value + 0.0));
    }

    /// The values of all inputs, if one of them is of this point and none is missing or too old.
    fn inputs(
        &self,
        device: DeviceSlot,
        time: UtcMicros,
        derived: &Derived,
        owner: Option<NameId>,
    ) -> Option<Vec<f64>> {
        let mut is_news = false;
        let mut value = |input: &String| {
            let sensor = self.input(device, input, owner)?;
            if let Some(stored) = self.stored(sensor) {
                is_news = true;
                return Some(stored.value);
            }
            let (at, value) = self.registry.last(sensor)?;
            (at <= time && time.since(at) <= derived.within).then_some(value)
        };
        let values = derived.inputs().iter().map(&mut value).collect::<Option<Vec<f64>>>()?;
        is_news.then_some(values)
    }

    fn rate(
        &self,
        device: DeviceSlot,
        time: UtcMicros,
        derived: &Derived,
        rate: &Rate,
        owner: Option<NameId>,
    ) -> Option<f64> {
        let new = self.stored(self.input(device, &rate.of, owner)?)?;
        let (at, old) = new.before?;
        let elapsed = if at < time { time.since(at) } else { return None };
        if elapsed > derived.within { None } else { rate.between(old, new.value, elapsed) }
    }

    fn input(&self, device: DeviceSlot, name: &str, owner: Option<NameId>) -> Option<SensorSlot> {
        match owner {
            None => self.registry.sensor(device, name),
            Some(_) => self.registry.sensor(device, &self.registry.joined(owner, name)),
        }
    }

    fn stored(&self, sensor: SensorSlot) -> Option<&Stored> {
        self.stored.iter().rev().find(|stored| stored.sensor == sensor)
    }
}

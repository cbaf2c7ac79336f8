//! The points of a report: each sample is fitted to its metric, checked, and stored or refused.

use super::Fate;
use super::coerce::{self, Fit, Misfit};
use super::keys::Resolved;
use super::work::Work;
use crate::catalog::Kind;
use crate::catalog::registry::{DeviceSlot, SensorSlot, Target};
use crate::decode::{Point, Value};
use crate::quarantine::{Reason, Refusal};
use crate::store::batch::{Reading, TextReading};
use crate::time::UtcMicros;

/// How many raw keys of a device are remembered, for each sensor that it may have: keys have aliases, and modules share
/// their device's.
const KEYS_PER_SENSOR: usize = 4;

/// A number that was just stored.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) sensor: SensorSlot,
    pub(super) value: f64,
    /// The sensor's newest reading before it.
    pub(super) before: Option<(UtcMicros, f64)>,
}

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    pub(super) fn points(&mut self, device: DeviceSlot, points: Vec<Point>, latest: bool) {
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
                (self.observe)(sample.key(&point.keys), Fate::Stale);
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
        for (place, sample) in point.samples.iter().enumerate() {
            let one = self.resolve(device, sample.key(&point.keys), place);
            resolved.push(one);
        }
        self.shadow(&mut resolved, &point);
        if self.tells_units {
            self.tell_units(&mut resolved, &point);
        }
        let mut stale = false;
        for (sample, resolved) in point.samples.into_iter().zip(&mut resolved) {
            if let Some(resolved) = resolved.take() {
                stale |= self.sample(device, time, (sample.key(&point.keys), sample.value), resolved, latest);
            }
        }
        *self.scratch = resolved;
        if self.deriving {
            self.derive(device, time);
        }
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

    /// Stores one sample or refuses it; whether it was left out for being retained and not newer.
    fn sample(
        &mut self,
        device: DeviceSlot,
        time: UtcMicros,
        (key, value): (&str, Value),
        resolved: Resolved,
        latest: bool,
    ) -> bool {
        let Resolved { mut target, fresh, told } = resolved;
        let declared = if self.units.is_empty() { None } else { self.declared_unit(key) };
        let fitted = match (target.model, told.or(declared)) {
            (Some(model), Some(unit)) if told.is_some() => self.fit_told(model, &target, unit, value),
            (Some(model), None) => {
                let metric = self.registry.metric(model);
                coerce::fit(metric, self.registry.conversion(target.conversion), value).map(|fit| (metric.kind, fit))
            }
            (Some(model), Some(unit)) => self.fit_declared(model, &target, unit, value),
            (None, None) => Ok(coerce::as_found(value)),
            (None, Some(unit)) => self.as_found_in(&target, unit, value),
        };
        let checked = fitted.and_then(|(kind, fit)| self.check(&target, time, &fit).map(|()| (kind, fit)));
        let (kind, fit) = match checked {
            Ok(fitting) => fitting,
            Err((reason, detail)) => {
                self.refuse(Refusal::sample(reason, key, detail));
                return false;
            }
        };
        if latest && matches!(fit, Fit::Number(_)) && self.last(&target).is_some_and(|(newest, _)| time <= newest) {
            (self.observe)(key, Fate::Stale);
            return true;
        }
        let unit = declared.filter(|_| target.model.is_none() && kind == Kind::Number);
        let Some(sensor) = self.sensor(device, key, &mut target, fresh.as_deref(), (kind, unit)) else {
            return false;
        };
        if fresh.is_some() {
            let most = self.policy.max_sensors.saturating_mul(KEYS_PER_SENSOR);
            self.registry.remember(device, self.captures.module, key, target, most);
        }
        if self.reports {
            self.reported(&target, time, kind, &fit);
        }
        self.emit(key, sensor, time, kind, fit);
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

    pub(super) fn emit(&mut self, key: &str, sensor: SensorSlot, time: UtcMicros, kind: Kind, fit: Fit) {
        let (index, _) = self.registry.introduce_sensor(sensor);
        let seq = self.message.seq;
        match fit {
            Fit::Number(value) => {
                if self.deriving {
                    self.stored.push(Stored { sensor, value, before: self.registry.last(sensor) });
                }
                self.registry.observe(sensor, time, value);
                let reading = Reading { sensor: index, time, value, seq };
                self.out.readings.push(reading);
                (self.observe)(key, Fate::Number(&reading, kind));
            }
            Fit::Text(value) => {
                let reading = TextReading { sensor: index, time, value, seq };
                (self.observe)(key, Fate::Text(&reading));
                self.out.bytes = self.out.bytes.saturating_add(reading.value.len());
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

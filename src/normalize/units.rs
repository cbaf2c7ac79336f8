//! Units that a payload declares for its own keys, by its format's rules or in fields that the template names.

use super::Fate;
use super::coerce::{self, Fit, Misfit};
use super::keys::Resolved;
use super::work::Work;
use crate::catalog::registry::{Model, Target};
use crate::catalog::unit::{self, Conversion, Unit};
use crate::catalog::{Key, Kind};
use crate::decode::{Point, Value};
use crate::quarantine::Reason;

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    /// The unit that the payload declares for a raw key, if tidegate knows it.
    pub(super) fn declared_unit(&self, key: &str) -> Option<&'static Unit> {
        let at = self.units.partition_point(|(known, _)| known.as_str() < key);
        let (_, text) = self.units.get(at).filter(|(known, _)| known == key)?;
        unit::declared(text)
    }

    /// As [`coerce::fit`], of a value in the declared unit. A key that the template gives a scale or an offset is converted by
    /// these alone: whoever wrote them knew the payload.
    pub(super) fn fit_declared(
        &self,
        model: Model,
        target: &Target,
        declared: &'static Unit,
        value: Value,
    ) -> Result<(Kind, Fit), Misfit> {
        let metric = self.registry.metric(model);
        let key = self.key(model, target);
        let scaled = key.is_some_and(|key| {
            key.scale.or(key.offset).is_some() || (!key.converts() && (metric.scale != 1.0 || metric.offset != 0.0))
        });
        let wanted = unit::find(&metric.unit).filter(|_| metric.kind == Kind::Number && !scaled);
        let conversion = match wanted.map(|wanted| conversion(declared, wanted)) {
            Some(conversion) => conversion?,
            None => self.registry.conversion(target.conversion),
        };
        coerce::fit(metric, conversion, value).map(|fit| (metric.kind, fit))
    }

    /// Finds for each key whose unit another key tells what that one has at this instant.
    pub(super) fn tell_units(&self, resolved: &mut [Option<Resolved>], point: &Point) {
        for one in resolved.iter_mut().flatten() {
            let key = one.target.model.and_then(|model| self.key(model, &one.target));
            let field = key.and_then(|key| key.unit_from.as_ref());
            one.told = field.and_then(|field| {
                let told = point.get(&field.key)?;
                match coerce::listed(&field.units, told) {
                    Some(unit) => unit::find(unit),
                    None => unit::declared(coerce::plain(told.clone()).trim()),
                }
            });
        }
    }

    /// As [`coerce::fit`], of a value in the unit that another key tells; the key's own scale is applied before it.
    pub(super) fn fit_told(
        &self,
        model: Model,
        target: &Target,
        told: &'static Unit,
        value: Value,
    ) -> Result<(Kind, Fit), Misfit> {
        let metric = self.registry.metric(model);
        let raw = self.key(model, target).map_or(Conversion::NONE, Key::raw);
        let converted = unit::find(&metric.unit).map_or(Ok(Conversion::NONE), |wanted| conversion(told, wanted))?;
        coerce::fit(metric, raw.then(converted), value).map(|fit| (metric.kind, fit))
    }

    fn key(&self, model: Model, target: &Target) -> Option<&Key> {
        self.registry.metric(model).keys.get(target.rank as usize)
    }

    /// An unmodeled value in the declared unit, in that of its sensor.
    pub(super) fn as_found_in(
        &self,
        target: &Target,
        declared: &'static Unit,
        value: Value,
    ) -> Result<(Kind, Fit), Misfit> {
        let (kind, fit) = coerce::as_found(value);
        let known = target.sensor.and_then(|sensor| self.registry.unit(sensor));
        match (known, kind, &fit) {
            (Some(known), Kind::Number, Fit::Number(number)) => {
                let number = coerce::converted(conversion(declared, known)?, *number)?;
                Ok((kind, Fit::Number(number)))
            }
            _ => Ok((kind, fit)),
        }
    }
}

/// What leads from the declared unit to the wanted one. Units of one quantity that no factor tells apart, as dB and dBm, are
/// taken for each other: which is meant is not for the payload to say.
fn conversion(declared: &Unit, wanted: &Unit) -> Result<Conversion, Misfit> {
    match declared.to(wanted) {
        Some(conversion) => Ok(conversion),
        None if declared.quantity == wanted.quantity => Ok(Conversion::NONE),
        None => {
            let (found, right) = (declared.quantity, wanted.quantity);
            let detail =
                format!("the payload declares {} ({found}), expected {} ({right})", declared.display, wanted.display);
            Err((Reason::WrongUnit, detail))
        }
    }
}

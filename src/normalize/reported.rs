//! Readings that a template takes for reported state of the device's twin.

use std::sync::Arc;

use serde_json::Value;

use super::Fate;
use super::coerce::Fit;
use super::work::Work;
use crate::catalog::Kind;
use crate::catalog::registry::{DeviceSlot, Target};
use crate::time::UtcMicros;
use crate::twin::state::Measured;
use crate::twin::{Answer, Ask, Want};

/// Largest whole number up to which a float holds each.
const WHOLE: f64 = 9_007_199_254_740_992.0;

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    /// Notes a reading whose metric has a place in the reported state; a module's stands below the module's name.
    pub(super) fn reported(&mut self, target: &Target, time: UtcMicros, kind: Kind, fit: &Fit) {
        let Some(path) = target.model.and_then(|model| self.registry.metric(model).twin.as_deref()) else { return };
        let path = match target.owner {
            Some(module) => format!("{}.{path}", self.registry.name(module)),
            None => path.to_owned(),
        };
        let value = match fit {
            Fit::Text(text) => Value::from(text.as_str()),
            Fit::Number(number) if kind == Kind::Bool => Value::from(*number != 0.0),
            // As a device would write it, which is also how people do.
            Fit::Number(number) if number.fract() == 0.0 && number.abs() < WHOLE => Value::from(*number as i64),
            Fit::Number(number) => Value::from(*number),
        };
        self.measured.push(Measured { path, value, time });
    }

    /// Hands over what was noted, once for a report.
    pub(super) fn put_reported(&mut self, device: DeviceSlot) {
        if self.measured.is_empty() {
            return;
        }
        let measured = std::mem::take(&mut self.measured);
        self.out.bytes = self.out.bytes.saturating_add(measured.len().saturating_add(1).saturating_mul(Ask::WEIGHT));
        self.out.twins.push(Ask {
            tenant: Some(Arc::clone(self.registry.tenant(device))),
            device: Arc::clone(self.registry.uid(device)),
            name: "".into(),
            at: self.message.received_at,
            limits: self.twins,
            want: Want::Measure(measured),
            answer: Answer::Nobody,
        });
    }
}

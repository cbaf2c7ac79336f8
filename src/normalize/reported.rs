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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::Metric;
    use crate::config::{Decoder, Source};
    use crate::decode::memory::Memory;
    use crate::metrics::Metrics;
    use crate::normalize::Normalizer;
    use crate::normalize::testing::{device, message, metric, module, settings, snapshot, source, template};
    use crate::store::batch::Batch;

    /// What the messages of a device with a module make of its reported state.
    fn measured(messages: &[(&str, &str)]) -> Vec<Vec<Measured>> {
        let placed = |name: &str, kind, path: &str| Metric { twin: Some(path.into()), ..metric(name, kind) };
        let meter = template("meter", vec![placed("interval", Kind::Number, "interval")]);
        let metrics = vec![
            placed("on", Kind::Bool, "on"),
            placed("setpoint", Kind::Number, "climate.setpoint"),
            placed("firmware", Kind::Text, "firmware"),
            metric("temperature", Kind::Number),
        ];
        let mut known = device(1, "d1", Some("lamp"));
        known.modules = vec![module("m1", "meter")];
        let sources: Vec<Source> = vec![
            source("native", "devices/{device}/telemetry", Decoder::Json),
            source("modules", "m/{device}/{module}", Decoder::Json),
        ];
        let snapshot = snapshot(vec![template("lamp", metrics), meter], vec![known]);
        let mut normalizer = Normalizer::new(&settings(sources), &snapshot, Memory::default(), Metrics::new()).unwrap();
        let mut batch = Batch::default();
        for (seq, (topic, payload)) in (1..).zip(messages) {
            normalizer.process(&message(seq, topic, *payload), &mut batch);
        }
        let of = |ask: Ask| match ask.want {
            Want::Measure(measured) => measured,
            other => panic!("{other:?}"),
        };
        batch.twins.into_iter().map(of).collect()
    }

    fn values(measured: &[Measured]) -> Vec<(&str, Value)> {
        measured.iter().map(|one| (one.path.as_str(), one.value.clone())).collect()
    }

    #[test]
    fn readings_go_where_their_metrics_say_as_devices_write_them() {
        let found = measured(&[
            ("devices/d1/telemetry", r#"{"on": true, "setpoint": 21.0, "firmware": "1.2", "temperature": 20}"#),
            ("devices/d1/telemetry", r#"{"temperature": 21}"#),
            ("devices/d1/telemetry", r#"{"setpoint": 21.5}"#),
            ("m/d1/m1", r#"{"interval": 60}"#),
        ]);
        assert_eq!(found.len(), 3, "one for each message that says something of it");
        let mut first = values(&found[0]);
        first.sort_by_key(|(path, _)| *path);
        assert_eq!(first, [("climate.setpoint", json!(21)), ("firmware", json!("1.2")), ("on", json!(true))]);
        assert_eq!(values(&found[1]), [("climate.setpoint", json!(21.5))]);
        assert_eq!(values(&found[2]), [("m1.interval", json!(60))], "a module's below its name");
    }
}

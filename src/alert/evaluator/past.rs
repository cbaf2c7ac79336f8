//! What conditions look back on: the readings that a start asks the database for, and takes before the first message.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::fleet::{Past, SensorNo, Watch};
use super::program::NodeKind;
use super::{Evaluator, adopt, series};
use crate::alert::rule::Check;
use crate::time::UtcMicros;

impl Evaluator {
    /// The readings of the past that conditions look back on: a sensor's row, since when, and how many of the newest at most.
    pub fn wanted(&self) -> Vec<(i32, UtcMicros, usize)> {
        adopt::wanted(&self.program, &self.fleet, &self.rows)
    }

    /// The rows of the sensors whose newest text a condition went by.
    pub fn texts_wanted(&self) -> Vec<i32> {
        let of_text = |no: SensorNo| {
            let sensor = self.fleet.sensors.get(no as usize)?;
            let device = self.fleet.devices.get(sensor.device as usize)?;
            let is_text = |watch: &Watch| {
                let rule = self.program.rules.get(device.instances.get(watch.instance as usize)?.rule as usize)?;
                let kind = &rule.nodes.get(usize::from(watch.node))?.kind;
                Some(matches!(kind, NodeKind::Metric { check: Check::Text { .. }, .. }))
            };
            Some(sensor.watches.iter().any(|watch| is_text(watch) == Some(true)))
        };
        self.rows.iter().filter(|(_, no)| of_text(*no) == Some(true)).map(|(id, _)| *id).collect()
    }

    /// Takes when the sensors of [`Evaluator::texts_wanted`] last had a text: an earlier one comes late. To be called before
    /// [`Evaluator::recall`].
    pub fn recall_texts(&mut self, found: &[(i32, UtcMicros)]) {
        let rows: HashMap<i32, SensorNo> = self.rows.iter().copied().collect();
        for (id, time) in found {
            let Some(sensor) = rows.get(id).and_then(|no| self.fleet.sensors.get_mut(*no as usize)) else { continue };
            sensor.latest = sensor.latest.max(time.0);
            let device = sensor.device;
            self.look_from_newest(device);
        }
    }

    /// Takes what [`Evaluator::wanted`] asked for. To be called once, before the first message.
    pub fn recall(&mut self, found: &[(i32, Vec<(UtcMicros, f64)>)]) {
        let rows: HashMap<i32, SensorNo> = std::mem::take(&mut self.rows).into_iter().collect();
        let mut merged: BTreeMap<i32, BTreeMap<UtcMicros, f64>> = BTreeMap::new();
        for (id, readings) in found {
            merged.entry(*id).or_default().extend(readings.iter().copied());
        }
        for (id, readings) in &merged {
            let Some(sensor) = rows.get(id).and_then(|no| self.fleet.sensors.get(*no as usize)) else { continue };
            let (device, metric, watches) = (sensor.device, Arc::clone(&sensor.metric), sensor.watches.clone());
            for watch in &watches {
                let Some(of) = self.fleet.devices.get_mut(device as usize) else { continue };
                let Some(instance) = of.instances.get_mut(watch.instance as usize) else { continue };
                let Some(rule) = self.program.rules.get(instance.rule as usize) else { continue };
                let Some(NodeKind::Metric { metric: own, check }) =
                    rule.nodes.get(usize::from(watch.node)).map(|node| &node.kind)
                else {
                    continue;
                };
                let past = instance.past.as_mut().and_then(|pasts| pasts.get_mut(usize::from(watch.node)));
                if let Some(past) = past.filter(|_| *own == metric) {
                    recall(check, past, readings);
                }
                self.judge().schedule(device, watch.instance);
            }
        }
    }
}

fn recall(check: &Check, past: &mut Past, readings: &BTreeMap<UtcMicros, f64>) {
    for (time, value) in readings {
        match (check, &mut *past) {
            (Check::Stuck { .. }, _) => {
                let since = match past {
                    // It was remembered, since the readings do not tell.
                    Past::Same { told: true, .. } => return,
                    Past::Same { value: same, since, .. } if same == value => *since,
                    _ => time.0,
                };
                *past = Past::Same { value: *value, since, told: false, count: 0 };
            }
            (Check::Anomaly { season, .. }, Past::Usual(usual)) => {
                usual.take(time.0, *value, *season);
            }
            (_, Past::Series(series)) => {
                if let Some(keep) = series::Keep::of(check) {
                    series.insert(time.0, *value, keep);
                }
            }
            _ => {}
        }
    }
}

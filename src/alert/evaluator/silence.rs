//! What was not heard for long: by the journal's clock alone.

use super::fleet::{Device, DeviceNo, Fleet, Instance, NEVER, NOT_YET};
use super::judge::Judge;
use super::program::{Compiled, NodeId, NodeKind};

impl Judge<'_> {
    /// If something that a rule waits for was never heard, its silence counts from now on.
    pub fn begin_silence(&mut self, device: DeviceNo, place: u32) {
        let now = self.now;
        let Some(of) = self.fleet.devices.get(device as usize) else { return };
        let Some(instance) = of.instances.get(place as usize) else { return };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return };
        if silence_due(self.fleet, of, instance, rule) == NOT_YET
            && let Some((instance, _)) = self.instance(device, place)
        {
            instance.from = now;
            self.mark(device, place);
        }
        self.arm(device, place);
    }

    /// Notes which conditions about silence hold now; whether one has changed.
    pub fn look_for_silence(&mut self, device: DeviceNo, place: u32, at: i64, time: i64) -> bool {
        let mut changed = false;
        let Some(of) = self.fleet.devices.get(device as usize) else { return false };
        let Some(instance) = of.instances.get(place as usize) else { return false };
        let Some(rule) = self.program.rules.get(instance.rule as usize) else { return false };
        let mut found: Vec<(NodeId, bool)> = Vec::new();
        for (id, node) in rule.numbered() {
            if let NodeKind::Absent { metric, after } = &node.kind {
                let heard = heard(self.fleet, of, instance, metric.as_deref());
                found.push((id, heard != NOT_YET && at.saturating_sub(heard) >= *after));
            }
        }
        if let Some((instance, _)) = self.instance(device, place) {
            for (id, silent) in found {
                if let Some(node) = instance.nodes.get_mut(usize::from(id)) {
                    changed |= node.set(Some(silent), time.max(instance.at));
                }
            }
        }
        if changed {
            self.mark(device, place);
        }
        changed
    }
}

/// When a device, or one metric of it, was last heard, by the journal's time; [`NOT_YET`]: silence does not count yet.
fn heard(fleet: &Fleet, device: &Device, instance: &Instance, metric: Option<&str>) -> i64 {
    let heard = match metric {
        None => device.heard,
        Some(metric) => {
            let sensor = fleet.sensor_of(device, metric).and_then(|no| fleet.sensors.get(no as usize));
            sensor.map_or(NOT_YET, |sensor| sensor.heard)
        }
    };
    if heard == NOT_YET { instance.from } else { heard }
}

/// When silence will have lasted; at once where it must first be noted from when on it counts.
pub(super) fn silence_due(fleet: &Fleet, device: &Device, instance: &Instance, rule: &Compiled) -> i64 {
    let mut due = NEVER;
    for (node, state) in rule.nodes.iter().zip(&instance.nodes) {
        if let NodeKind::Absent { metric, after } = &node.kind {
            let heard = heard(fleet, device, instance, metric.as_deref());
            if heard == NOT_YET {
                return NOT_YET;
            }
            if state.truth != Some(true) {
                due = due.min(heard.saturating_add(*after));
            }
        }
    }
    due
}

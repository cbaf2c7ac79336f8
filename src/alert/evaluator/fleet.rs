//! What is known of devices and sensors that a rule looks at, and the rules' state for each.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::episode::Episode;
use super::flap::Flap;
use super::gates::ZoneNo;
use super::gateways::Gateways;
use super::groups::Groups;
use super::program::{Compiled, NodeId};
use super::restraint::HeldBack;
use super::series::Series;
use super::usual::Usual;

/// Later than any instant.
pub(super) const NEVER: i64 = i64::MAX;
/// Earlier than any instant.
pub(super) const NOT_YET: i64 = i64::MIN;
/// Position of a device among those that a rule looks at.
pub(super) type DeviceNo = u32;
/// Position of a sensor among those that a rule looks at.
pub(super) type SensorNo = u32;
/// No device, or no sensor, that a rule looks at.
pub(super) const NONE: u32 = u32::MAX;

/// Whether a condition holds, and since when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NodeState {
    /// Without regard to `for`; none: nothing has told.
    pub truth: Option<bool>,
    /// When it began to be true; [`NEVER`] while it is not.
    pub since: i64,
}

impl NodeState {
    pub const UNKNOWN: NodeState = NodeState { truth: None, since: NEVER };

    /// Takes what is true at `at`; whether that is news.
    pub fn set(&mut self, truth: Option<bool>, at: i64) -> bool {
        if self.truth == truth {
            return false;
        }
        self.truth = truth;
        self.since = if truth == Some(true) { at } else { NEVER };
        true
    }

    /// Whether it has held for `hold` at `at`.
    pub fn held(self, hold: i64, at: i64) -> Option<bool> {
        self.truth.map(|truth| truth && at.saturating_sub(self.since) >= hold)
    }

    /// When it will have held for `hold`, if it goes on.
    pub fn due(self, hold: i64) -> i64 {
        if self.truth == Some(true) { self.since.saturating_add(hold) } else { NEVER }
    }
}

/// What a condition keeps of the past.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Past {
    Nothing,
    Series(Series),
    /// The newest number, and since when it is that.
    Same {
        value: f64,
        since: i64,
        /// To be remembered: stored readings would tell something else, as one that came late in between, or are too many to be read
        /// at a start.
        told: bool,
        /// Readings so far, as far as it is counted.
        count: u16,
    },
    Usual(Box<Usual>),
}

/// One rule's state for one device.
#[derive(Debug)]
pub(super) struct Instance {
    /// Its place in the program.
    pub rule: u32,
    /// Changed since what was last remembered.
    pub dirty: bool,
    /// Whether something is remembered of it.
    pub kept: bool,
    /// Its condition must cease before it fires again: somebody has ended the episode.
    pub spent: bool,
    /// What holds its alert back, as was last told.
    pub held: Option<HeldBack>,
    pub nodes: SmallVec<[NodeState; 1]>,
    /// For each node, where the rule keeps anything.
    pub past: Option<Box<[Past]>>,
    pub episode: Option<Box<Episode>>,
    /// No episode begins before.
    pub quiet_until: i64,
    /// When its last episode ended, where others depend on that.
    pub ended: i64,
    pub flap: Option<Box<Flap>>,
    /// When time alone changes something next, by the device's own time.
    pub due: i64,
    /// When the clock will look at it, by the journal's time.
    pub armed: i64,
    /// From when on silence counts, for what was never heard.
    pub from: i64,
    /// The latest time that it was looked at for; by the device's own time.
    pub at: i64,
    /// Which of its conditions about a metric's silence have a metric that did not come with the device's last message, by their
    /// places as bits; as far as that is remembered.
    pub apart: Option<u64>,
}

/// A device that a rule looks at.
#[derive(Debug)]
pub(super) struct Device {
    pub tenant: Arc<str>,
    pub uid: Arc<str>,
    /// Slug.
    pub template: Option<Arc<str>>,
    pub zone: ZoneNo,
    /// Maintenance that concerns it.
    pub windows: Box<[u32]>,
    pub instances: Vec<Instance>,
    /// Whether a rule is about its silence.
    pub silence: bool,
    pub sensors: Vec<SensorNo>,
    /// When its last message was received; [`NOT_YET`] if none was.
    pub heard: i64,
    /// How far its own time is behind the journal's, in whole seconds, rounded up.
    pub lag: i64,
    /// Since when it is, by the journal's time.
    pub lag_at: i64,
}

/// A sensor that a rule looks at.
#[derive(Debug)]
pub(super) struct Sensor {
    pub device: DeviceNo,
    pub metric: Arc<str>,
    pub unit: Arc<str>,
    /// Time of its newest reading.
    pub latest: i64,
    /// Its newest number; NaN while there is none.
    pub newest: f64,
    /// When a reading of it was last received.
    pub heard: i64,
    pub watches: Box<[Watch]>,
}

/// A condition that readings of a sensor decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Position among the device's.
    pub instance: u32,
    pub node: NodeId,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub devices: Vec<Device>,
    pub sensors: Vec<Sensor>,
    pub gateways: Gateways,
    pub groups: Groups,
    by_uid: HashMap<Arc<str>, Vec<DeviceNo>>,
    /// Texts that many have, once.
    texts: HashMap<Arc<str>, ()>,
}

impl Fleet {
    pub fn find(&self, tenant: &str, uid: &str) -> Option<DeviceNo> {
        let numbers = self.by_uid.get(uid)?;
        numbers
            .iter()
            .copied()
            .find(|no| self.devices.get(*no as usize).is_some_and(|device| *device.tenant == *tenant))
    }

    /// The newest number of a device's metric.
    pub fn newest_of(&self, device: &Device, metric: &str) -> Option<f64> {
        let sensor = self.sensors.get(self.sensor_of(device, metric)? as usize)?;
        Some(sensor.newest).filter(|value| value.is_finite())
    }

    /// Adds a device that is not there yet.
    pub fn add(&mut self, device: Device) -> DeviceNo {
        let uid = Arc::clone(&device.uid);
        let no = self.add_unnamed(device);
        self.by_uid.entry(uid).or_default().push(no);
        no
    }

    /// Adds what is found by no uid.
    pub fn add_unnamed(&mut self, group: Device) -> DeviceNo {
        let no = number(self.devices.len());
        self.devices.push(group);
        no
    }

    pub fn add_sensor(&mut self, sensor: Sensor) -> SensorNo {
        let no = number(self.sensors.len());
        if let Some(device) = self.devices.get_mut(sensor.device as usize) {
            device.sensors.push(no);
        }
        self.sensors.push(sensor);
        no
    }

    /// When a device's metric was last heard, if it was.
    pub fn heard_of(&self, device: &Device, metric: &str) -> Option<i64> {
        let sensor = self.sensors.get(self.sensor_of(device, metric)? as usize)?;
        (sensor.heard != NOT_YET).then_some(sensor.heard)
    }

    /// As [`Instance::apart`] ought to be now; none while no metric of such a condition was heard.
    pub fn apart(&self, device: &Device, rule: &Compiled) -> Option<u64> {
        let mut apart = None;
        for (id, metric) in rule.silences() {
            if let Some(heard) = self.heard_of(device, metric) {
                let bit = 1_u64.checked_shl(id.into()).filter(|_| heard != device.heard).unwrap_or(0);
                apart = Some(apart.unwrap_or(0) | bit);
            }
        }
        apart
    }

    /// The device's sensor of this metric.
    pub fn sensor_of(&self, device: &Device, metric: &str) -> Option<SensorNo> {
        let named = |no: &SensorNo| self.sensors.get(*no as usize).is_some_and(|sensor| *sensor.metric == *metric);
        device.sensors.iter().copied().find(named)
    }

    pub fn text(&mut self, text: &str) -> Arc<str> {
        if let Some((kept, ())) = self.texts.get_key_value(text) {
            return Arc::clone(kept);
        }
        let kept: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&kept), ());
        kept
    }
}

/// Bounded by memory long before.
pub(super) fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(NONE)
}

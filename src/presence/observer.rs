//! Every device's connection, by what each message tells and by the journal's time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
use super::connection::Status;
use super::connection::{Connection, Damping, Told};
use super::{ConnectionChange, Sighting};
use crate::catalog::Snapshot;
use crate::config::Devices;
use crate::decode::Presence;
use crate::store::batch::{Batch, Change, DeviceIndex};
use crate::time::UtcMicros;

/// Later than any instant.
const NEVER: i64 = i64::MAX;
/// Earlier than any instant.
const NOT_YET: i64 = i64::MIN;
/// No device.
const NOBODY: DeviceNo = u32::MAX;
/// Most causes are short; names of gateways may be long.
const LONGEST_NAME: usize = 80;

type DeviceNo = u32;

/// What is kept of a device's connection, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub tenant: Arc<str>,
    pub device: Arc<str>,
    /// JSON.
    pub memory: String,
}

/// How much a batch held before a message.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    devices: usize,
    changes: usize,
}

impl Before {
    pub fn of(batch: &Batch) -> Before {
        Before { devices: batch.devices.len(), changes: batch.changes.len() }
    }
}

struct Device {
    tenant: Arc<str>,
    uid: Arc<str>,
    /// Whether the database had it.
    stored: bool,
    /// Longest silence that is to be expected, microseconds.
    interval: Option<i64>,
    parent: DeviceNo,
    children: Vec<DeviceNo>,
    /// When its last message came.
    heard: i64,
    /// When the clock looks at it next.
    armed: i64,
    connection: Option<Connection>,
}

/// What is known of all devices. About 200 bytes each.
pub struct Observer {
    devices: Vec<Device>,
    by_name: HashMap<(Arc<str>, Arc<str>), DeviceNo>,
    /// Those of the generation.
    introduced: Vec<DeviceNo>,
    clock: BinaryHeap<Reverse<(i64, DeviceNo)>>,
    /// By the template's slug.
    intervals: HashMap<Arc<str>, i64>,
    stale_after: Option<i64>,
    damping: Damping,
    changes: u64,
}

impl Observer {
    /// Ready for the first message after the snapshot; `remembered` is what was kept at its position.
    pub fn new(settings: &Devices, snapshot: &Snapshot, remembered: Vec<Remembered>) -> Observer {
        let mut observer = Observer::of(settings, snapshot);
        for one in remembered {
            let Some(no) = observer.by_name.get(&(one.tenant, one.device)).copied() else { continue };
            let Some(device) = observer.devices.get_mut(no as usize) else { continue };
            match serde_json::from_str(&one.memory) {
                Ok(connection) => device.connection = Some(connection),
                Err(error) => tracing::error!(
                    %error,
                    device = %device.uid,
                    "what is remembered of a device's connection can't be read; its next message begins it anew"
                ),
            }
        }
        observer.arm_all();
        observer
    }

    /// The snapshot's devices; none was heard.
    fn of(settings: &Devices, snapshot: &Snapshot) -> Observer {
        let interval = |(slug, template): (&String, &Arc<crate::catalog::Template>)| {
            Some((slug.as_str().into(), micros(template.expected_interval?)))
        };
        let mut observer = Observer {
            devices: Vec::with_capacity(snapshot.devices.len()),
            by_name: HashMap::with_capacity(snapshot.devices.len()),
            introduced: Vec::new(),
            clock: BinaryHeap::new(),
            intervals: snapshot.templates.iter().filter_map(interval).collect(),
            stale_after: settings.stale_after.map(micros),
            damping: Damping { changes: settings.flapping_changes, window: micros(settings.flapping_window) },
            changes: 0,
        };
        for device in &snapshot.devices {
            let no = observer.add(&device.tenant, &device.uid, device.template.as_deref());
            if let Some(added) = observer.devices.get_mut(no as usize) {
                added.stored = true;
                added.heard = device.last_seen.map_or(NOT_YET, |at| at.0);
            }
        }
        for device in snapshot.devices.iter().filter(|device| device.parent.is_some()) {
            if let Some(parent) = &device.parent {
                observer.link_named((&device.tenant, &device.uid), (&device.tenant, parent));
            }
        }
        observer
    }

    /// Takes another configuration and a newer catalog, and starts a new generation. What is known of devices goes on.
    pub fn replace(&mut self, settings: &Devices, snapshot: &Snapshot) {
        let old = std::mem::replace(self, Observer::of(settings, snapshot));
        self.changes = old.changes;
        let mut behind = Vec::new();
        for device in &old.devices {
            let name = (Arc::clone(&device.tenant), Arc::clone(&device.uid));
            let no = match self.by_name.get(&name) {
                Some(no) => *no,
                // In the database once, and no longer: deleted.
                None if device.stored => continue,
                None => self.add(&device.tenant, &device.uid, None),
            };
            let Some(kept) = self.devices.get_mut(no as usize) else { continue };
            kept.heard = kept.heard.max(device.heard);
            kept.connection.clone_from(&device.connection);
            if !kept.stored {
                kept.interval = device.interval;
            }
            if let Some(parent) = old.devices.get(device.parent as usize).filter(|_| kept.parent == NOBODY) {
                behind.push((name, (Arc::clone(&parent.tenant), Arc::clone(&parent.uid))));
            }
        }
        for (device, parent) in behind {
            self.link_named((&device.0, &device.1), (&parent.0, &parent.1));
        }
        self.arm_all();
    }

    /// Takes what a message, normalized into `batch`, tells of devices, and adds what changes by it. Messages come in the journal's
    /// order.
    pub fn message(&mut self, at: UtcMicros, sightings: &[Sighting], before: Before, batch: &mut Batch) {
        // Not what is due at this very instant: that it was heard counts first.
        self.advance(UtcMicros(at.0.saturating_sub(1)), batch);
        if batch.devices.len() > before.devices || batch.changes.len() > before.changes {
            self.introduce(before, batch);
        }
        for sighting in sightings {
            let Some(no) = self.introduced.get(sighting.device as usize).copied().filter(|no| *no != NOBODY) else {
                continue;
            };
            self.sight(no, at.0, sighting, batch);
        }
    }

    fn introduce(&mut self, before: Before, batch: &Batch) {
        for device in batch.devices.get(before.devices..).unwrap_or_default() {
            let name = (Arc::clone(&device.tenant), Arc::clone(&device.uid));
            let no = match self.by_name.get(&name) {
                Some(no) => *no,
                None => self.add(&device.tenant, &device.uid, device.template.as_deref()),
            };
            put(&mut self.introduced, device.index, no);
        }
        for change in batch.changes.get(before.changes..).unwrap_or_default() {
            let Some(no) = self.introduced.get(change.device as usize).copied() else { continue };
            match &change.change {
                Change::Template { slug, .. } => {
                    let interval = self.interval(Some(slug));
                    if let Some(device) = self.devices.get_mut(no as usize) {
                        device.interval = interval;
                    }
                    self.arm(no);
                }
                Change::Parent(above) => {
                    let above = self.introduced.get(*above as usize).copied().unwrap_or(NOBODY);
                    self.link(no, above);
                }
                Change::Told(_) | Change::Protocol { .. } => {}
            }
        }
    }

    fn sight(&mut self, no: DeviceNo, at: i64, sighting: &Sighting, batch: &mut Batch) {
        let damping = self.damping;
        let Some(device) = self.devices.get_mut(no as usize) else { return };
        if sighting.heard && matches!(sighting.said, None | Some(Presence::There(_))) {
            device.heard = at;
        }
        let (online, cause) = match &sighting.said {
            Some(Presence::Hearsay) => return,
            None if !sighting.heard => return,
            None => {
                if device.connection.as_ref().is_some_and(Connection::is_plainly_online) {
                    return;
                }
                (true, if device.connection.is_some() { "heard again" } else { "first message" })
            }
            Some(Presence::There(cause)) => (true, &**cause),
            Some(Presence::Gone(cause)) => (false, &**cause),
        };
        let told = match &mut device.connection {
            Some(connection) => connection.say(online, at, damping),
            None => {
                device.connection = Some(Connection::begin(online, at));
                Some(Told::Changed)
            }
        };
        if let Some(told) = told {
            self.changed(no, at, (told, cause), batch);
        }
        self.arm(no);
    }

    /// Writes a change down, and takes along what is behind the device.
    fn changed(&mut self, no: DeviceNo, at: i64, (told, cause): (Told, &str), batch: &mut Batch) {
        self.record(no, at, (told, cause), batch);
        let mut waiting = vec![no];
        // Nothing comes twice: parents form no circle, and whoever has changed with its gateway does not change with it again.
        while let Some(no) = waiting.pop() {
            let Some(gateway) = self.devices.get(no as usize) else { continue };
            let Some(status) = gateway.connection.as_ref().map(Connection::shown) else { continue };
            let name: String = gateway.uid.chars().take(LONGEST_NAME).collect();
            for child in gateway.children.clone() {
                let damping = self.damping;
                let Some(device) = self.devices.get_mut(child as usize) else { continue };
                let Some(connection) = &mut device.connection else { continue };
                let (told, cause) = if status.cuts_off() && connection.depends() {
                    (connection.cut(true, at, damping), format!("its gateway {name} is {}", status.word()))
                } else if !status.cuts_off() && connection.is_cut_off() {
                    (connection.cut(false, at, damping), format!("its gateway {name} is back"))
                } else {
                    continue;
                };
                if let Some(told) = told {
                    self.record(child, at, (told, &cause), batch);
                    waiting.push(child);
                }
                self.arm(child);
            }
        }
    }

    fn record(&mut self, no: DeviceNo, at: i64, (told, cause): (Told, &str), batch: &mut Batch) {
        let (changes, window) = (self.damping.changes, self.damping.window);
        let Some(device) = self.devices.get(no as usize) else { return };
        let Some(connection) = &device.connection else { return };
        let status = connection.shown();
        let (event, cause) = match told {
            Told::Changed => (Some(status.word()), cause.to_owned()),
            Told::Flapping => {
                let window = humantime::format_duration(Duration::from_micros(window.unsigned_abs()));
                (Some(FLAPPING), format!("more than {changes} changes within {window}; the last: {cause}"))
            }
            Told::Quiet => (None, cause.to_owned()),
        };
        self.changes = self.changes.saturating_add(1);
        let change = ConnectionChange {
            tenant: Arc::clone(&device.tenant),
            device: Arc::clone(&device.uid),
            at: UtcMicros(at),
            status,
            cause,
            event,
            // Plain data: it always has a JSON form.
            memory: serde_json::to_string(connection).unwrap_or_default(),
        };
        batch.bytes = batch.bytes.saturating_add(change.memory.len()).saturating_add(change.cause.len());
        batch.connections.push(change);
    }

    /// Lets the journal's clock come to `now`: who has been silent for too long by then is stale, who was steady flaps no more.
    pub fn advance(&mut self, now: UtcMicros, batch: &mut Batch) {
        while let Some((due, no)) = self.next() {
            if due > now.0 {
                return;
            }
            self.clock.pop();
            let damping = self.damping;
            let Some(device) = self.devices.get_mut(no as usize) else { continue };
            device.armed = NEVER;
            let (heard, interval) = (device.heard, device.interval);
            let Some(connection) = &mut device.connection else { continue };
            if connection.steady_at(damping).is_some_and(|at| at <= due) {
                connection.steady();
                self.record(no, due, (Told::Changed, "steady again"), batch);
            } else if connection.silent_at(heard, interval).is_some_and(|at| at <= due)
                && let Some(told) = connection.fall_silent(due, damping)
            {
                let silence = Duration::from_micros(interval.unwrap_or(0).unsigned_abs());
                let cause = format!("nothing heard for {}", humantime::format_duration(silence));
                self.changed(no, due, (told, &cause), batch);
            }
            self.arm(no);
        }
    }

    /// When the clock must come next, by the journal's time; none: only a message changes anything.
    pub fn next_due(&mut self) -> Option<UtcMicros> {
        self.next().map(|(due, _)| UtcMicros(due))
    }

    /// The first device for which something is due, after those that were heard meanwhile are put off.
    fn next(&mut self) -> Option<(i64, DeviceNo)> {
        while let Some(Reverse((at, no))) = self.clock.peek().copied() {
            let due = self.due(no);
            if due == at {
                return Some((at, no));
            }
            self.clock.pop();
            if let Some(device) = self.devices.get_mut(no as usize).filter(|device| device.armed == at) {
                device.armed = NEVER;
                self.arm(no);
            }
        }
        None
    }

    /// Changes since the last call.
    pub fn take_changes(&mut self) -> u64 {
        std::mem::take(&mut self.changes)
    }

    fn due(&self, no: DeviceNo) -> i64 {
        let Some(device) = self.devices.get(no as usize) else { return NEVER };
        let Some(connection) = &device.connection else { return NEVER };
        let silent = connection.silent_at(device.heard, device.interval).unwrap_or(NEVER);
        silent.min(connection.steady_at(self.damping).unwrap_or(NEVER))
    }

    /// Sets the clock for a device, unless it comes early enough.
    fn arm(&mut self, no: DeviceNo) {
        let due = self.due(no);
        if let Some(device) = self.devices.get_mut(no as usize).filter(|device| due < device.armed) {
            device.armed = due;
            self.clock.push(Reverse((due, no)));
        }
    }

    fn arm_all(&mut self) {
        for no in 0..number(self.devices.len()) {
            self.arm(no);
        }
    }

    fn interval(&self, template: Option<&str>) -> Option<i64> {
        template.and_then(|slug| self.intervals.get(slug)).copied().or(self.stale_after)
    }

    fn add(&mut self, tenant: &Arc<str>, uid: &Arc<str>, template: Option<&str>) -> DeviceNo {
        let no = number(self.devices.len());
        self.by_name.insert((Arc::clone(tenant), Arc::clone(uid)), no);
        self.devices.push(Device {
            tenant: Arc::clone(tenant),
            uid: Arc::clone(uid),
            stored: false,
            interval: self.interval(template),
            parent: NOBODY,
            children: Vec::new(),
            heard: NOT_YET,
            armed: NEVER,
            connection: None,
        });
        no
    }

    fn link_named(&mut self, device: (&Arc<str>, &Arc<str>), above: (&Arc<str>, &Arc<str>)) {
        let find = |(tenant, uid): (&Arc<str>, &Arc<str>)| self.by_name.get(&(Arc::clone(tenant), Arc::clone(uid)));
        if let (Some(no), Some(above)) = (find(device).copied(), find(above).copied()) {
            self.link(no, above);
        }
    }

    /// Puts a device behind another.
    fn link(&mut self, no: DeviceNo, above: DeviceNo) {
        let Some(device) = self.devices.get_mut(no as usize) else { return };
        let before = std::mem::replace(&mut device.parent, above);
        if before == above {
            return;
        }
        if let Some(gateway) = self.devices.get_mut(before as usize) {
            gateway.children.retain(|child| *child != no);
        }
        if let Some(gateway) = self.devices.get_mut(above as usize) {
            gateway.children.push(no);
        }
    }

    /// The status of a device; none: it was never heard.
    #[cfg(test)]
    pub(super) fn status(&self, uid: &str) -> Option<Status> {
        let device = self.devices.iter().find(|device| *device.uid == *uid)?;
        device.connection.as_ref().map(Connection::shown)
    }
}

/// Word of the one event of a device that changes too often.
const FLAPPING: &str = "flapping";

fn put(list: &mut Vec<DeviceNo>, index: DeviceIndex, no: DeviceNo) {
    let index = index as usize;
    if list.len() <= index {
        list.resize(index.saturating_add(1), NOBODY);
    }
    if let Some(place) = list.get_mut(index) {
        *place = no;
    }
}

/// Bounded by memory long before.
fn number(length: usize) -> DeviceNo {
    u32::try_from(length).unwrap_or(NOBODY)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(NEVER)
}

#[cfg(test)]
#[path = "observer_tests.rs"]
mod tests;

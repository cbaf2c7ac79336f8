//! The work on one message: route, check, find the device, decode, and hand on its points.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::keys::Resolved;
use super::points::Stored;
use super::{Fate, MAX_NAME, Policy};
use crate::catalog::registry::{DeviceSlot, Registry};
use crate::command::Hearing;
use crate::config::{Decoder, Retained, UnknownDevice};
use crate::decode::memory::Memory;
use crate::decode::{Context, Point, Presence, Report, Signal, decode, teaches, tells_presence};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::presence::Sighting;
use crate::quarantine::{Reason, Refusal};
use crate::source::{Captures, Source, Sources, is_own};
use crate::store::batch::{Batch, Quarantined};
use crate::twin::Limits;
use crate::twin::state::Measured;

/// One message on its way; made anew for each.
pub(super) struct Work<'a, F> {
    pub(super) message: &'a Arc<Message>,
    pub(super) policy: &'a Policy,
    pub(super) registry: &'a mut Registry,
    pub(super) memory: &'a mut Memory,
    pub(super) hearing: &'a Hearing,
    /// What twins' documents may be.
    pub(super) twins: Limits,
    pub(super) metrics: &'a Metrics,
    pub(super) scratch: &'a mut Vec<Option<Resolved>>,
    /// What the message tells of devices' connections.
    pub(super) sightings: &'a mut Vec<Sighting>,
    pub(super) out: &'a mut Batch,
    pub(super) observe: F,
    /// Units that the payload declares, sorted by raw key.
    pub(super) units: Vec<(String, String)>,
    /// Numbers of the point at hand; none are kept unless something is derived from them.
    pub(super) stored: Vec<Stored>,
    pub(super) deriving: bool,
    /// Whether some of the device's metrics are reported state too.
    pub(super) reports: bool,
    /// Those readings of the report at hand.
    pub(super) measured: Vec<Measured>,
    /// Whether some keys' units are told by others.
    pub(super) tells_units: bool,
    pub(super) source: Option<&'a Source>,
    /// Which of the sources it is, from 1.
    pub(super) place: usize,
    /// Why the decoder of a device that is being provisioned was chosen.
    pub(super) why: Option<String>,
    pub(super) captures: Captures<'a>,
    /// As far as the topic told them and they could be taken.
    pub(super) tenant: &'a str,
    pub(super) device: Option<&'a str>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) more: u64,
}

impl<'a, F: FnMut(&str, Fate<'_>)> Work<'a, F> {
    pub(super) fn run(mut self, sources: &'a Sources, counts: &[Counter]) {
        if let Err(refusal) = self.take(sources, counts) {
            self.refuse(refusal);
        }
        if self.refusals.is_empty() {
            return;
        }
        self.out.bytes = self.out.bytes.saturating_add(self.message.publish.payload.len());
        self.out.quarantined.push(Quarantined {
            message: Arc::clone(self.message),
            source: self.source.map(|source| source.name.to_string()),
            tenant: self.tenant.into(),
            device: self.device.map(Arc::from),
            refusals: self.refusals,
            more: self.more,
        });
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.metrics.count_refusal(refusal.reason);
        if let Some(key) = &refusal.key {
            (self.observe)(key, Fate::Refused(&refusal));
        }
        if self.refusals.len() < Quarantined::MAX_REFUSALS {
            self.refusals.push(refusal);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// The way of the message up to its points.
    fn take(&mut self, sources: &'a Sources, counts: &[Counter]) -> Result<(), Refusal> {
        let publish = &self.message.publish;
        let Some(route) = sources.route(&publish.topic) else {
            if publish.topic.starts_with("$tidegate/") {
                // The journal's own messages.
                return Ok(());
            }
            if is_own(&publish.topic) {
                self.metrics.own_ignored.inc();
                return Ok(());
            }
            if self.hearing.listens(&publish.topic) {
                // Subscribed to for the answers to commands alone.
                return Ok(());
            }
            return Err(Refusal::message(Reason::UnknownSource, "no source's filter matches the topic"));
        };
        if let Some(count) = counts.get(route.index) {
            count.inc();
        }
        let source = route.source;
        self.source = Some(source);
        self.place = route.index.saturating_add(1);
        self.captures = route.captures;
        let (length, most) = (publish.payload.len(), source.max_payload);
        if length > most {
            let detail = format!("payload of {length} bytes, the source's max_payload is {most}");
            return Err(Refusal::message(Reason::TooLarge, detail));
        }
        if publish.retain && source.retained == Retained::Ignore {
            self.metrics.retained_ignored.inc();
            if teaches(source.decoder, &publish.topic) {
                return self.learn(source);
            }
            return if tells_presence(source.decoder, &publish.topic) { self.attend(source) } else { Ok(()) };
        }
        if teaches(source.decoder, &publish.topic) {
            return self.learn(source);
        }
        self.check_names()?;
        // A known device was heard, whatever its payload is worth.
        let known = match self.device {
            Some(uid) => self.known(uid)?,
            None => None,
        };
        if let Some(device) = known {
            self.see(device);
        }
        let reports = self.decode(source)?;
        if source.decoder == Decoder::Auto && reports.is_empty() {
            self.metrics.auto_ignored.inc();
        }
        let latest = publish.retain && source.retained == Retained::Latest;
        for mut report in reports {
            report.left_out.drain(..).for_each(|refusal| self.refuse(refusal));
            self.report(report, known, source, latest)?;
        }
        Ok(())
    }

    /// Lets a message without values teach the decoder, and tell what known devices are; nothing else of it is stored.
    fn learn(&mut self, source: &Source) -> Result<(), Refusal> {
        self.check_names()?;
        for mut report in self.decode(source)? {
            report.left_out.drain(..).for_each(|refusal| self.refuse(refusal));
            let known = report.device.as_deref().and_then(|uid| self.registry.device(self.tenant, uid));
            if let Some(device) = known.filter(|_| !report.told.is_empty()) {
                self.meet(device);
                self.tell(device, &report.told);
            }
        }
        Ok(())
    }

    /// Takes what a retained message says of known devices' connections; nothing else of it is stored.
    fn attend(&mut self, source: &Source) -> Result<(), Refusal> {
        self.check_names()?;
        // What can't be read says nothing, and is not even refused: it would not have been looked at otherwise.
        for report in self.decode(source).unwrap_or_default() {
            let uid = report.device.as_deref().or(self.device);
            let known = uid.and_then(|uid| self.registry.device(self.tenant, uid));
            if let (Some(device), Some(said)) = (known, report.presence) {
                self.say(device, said);
            }
        }
        Ok(())
    }

    /// Notes what the message says of a device's connection.
    fn say(&mut self, device: DeviceSlot, said: Presence) {
        let device = self.meet(device);
        match self.sightings.iter_mut().find(|known| known.device == device) {
            Some(known) => known.said = Some(said),
            None => self.sightings.push(Sighting { device, heard: false, said: Some(said) }),
        }
    }

    fn decode(&mut self, source: &Source) -> Result<Vec<Report>, Refusal> {
        let publish = &self.message.publish;
        let context = Context {
            topic: &publish.topic,
            captures: &self.captures,
            received_at: self.message.received_at,
            timestamp: source.timestamp.as_deref(),
            timezone: source.timezone.as_ref(),
            limits: &self.policy.limits,
            csv: source.csv,
            sparkplug: source.sparkplug,
        };
        let decoded = decode(source.decoder, &publish.payload, &context, &mut self.memory.of_source(&source.name));
        if publish.retain || !source.sparkplug.rebirth {
            self.memory.take_asks();
        }
        decoded
    }

    /// What a message says of one device; `known`: the one that the topic names.
    fn report(
        &mut self,
        report: Report,
        known: Option<DeviceSlot>,
        source: &Source,
        latest: bool,
    ) -> Result<(), Refusal> {
        let device = match (&report.device, self.device) {
            (Some(uid), _) => {
                if let Some(fault) = name_fault(uid) {
                    return Err(Refusal::message(Reason::BadName, format!("the payload's device {fault}")));
                }
                self.known(uid)?
            }
            (None, Some(_)) => known,
            (None, None) => return Err(Refusal::message(Reason::BadName, "neither topic nor payload names a device")),
        };
        let device = match (device, report.device.as_deref().or(self.device)) {
            (Some(device), _) => {
                self.see(device);
                device
            }
            (None, Some(uid)) if !(report.points.is_empty() && report.signal.is_empty()) => {
                self.provision(uid, source, &report)?
            }
            (None, _) => return Ok(()),
        };
        self.identify(device, &report, source);
        if let Some(template) = self.registry.template(device)
            && let Some(uid) = report.device.as_deref().or(self.device)
            && let Some(reply) = self.hearing.read(self.message, (self.tenant, uid, template), &report)
        {
            self.out.bytes = self.out.bytes.saturating_add(self.message.publish.payload.len());
            self.out.replies.push(reply);
        }
        if let Some(said) = report.presence {
            self.say(device, said);
        }
        self.units = report.units;
        self.units.sort_by(|a, b| a.0.cmp(&b.0));
        self.deriving = self.registry.derives(device);
        self.tells_units = self.registry.tells_units(device);
        self.reports = self.registry.reports(device);
        self.points(device, with_signal(report.points, report.signal), latest);
        self.put_reported(device);
        Ok(())
    }

    /// The device with this uid; none if it is new and may be provisioned.
    pub(super) fn known(&self, uid: &str) -> Result<Option<DeviceSlot>, Refusal> {
        match self.registry.device(self.tenant, uid) {
            None if self.policy.unknown == UnknownDevice::Quarantine => {
                let detail = format!(
                    "device {uid} is not known: declare it in the catalog, or set devices.unknown = \"provision\""
                );
                Err(Refusal::message(Reason::UnknownDevice, detail))
            }
            found => Ok(found),
        }
    }

    /// Checks whatever the topic names.
    fn check_names(&mut self) -> Result<(), Refusal> {
        let Captures { tenant, device, module, gateway, .. } = self.captures;
        let sound = |name: &&str| name_fault(name).is_none();
        self.tenant = tenant.filter(sound).unwrap_or(self.tenant);
        self.device = device.filter(sound);
        let named = [("device", device), ("tenant", tenant), ("module", module), ("gateway", gateway)];
        for (what, name) in named.into_iter().chain([("metric", self.captures.metric.as_deref())]) {
            if let Some(fault) = name.and_then(name_fault) {
                return Err(Refusal::message(Reason::BadName, format!("the topic's {what} {fault}")));
            }
        }
        Ok(())
    }

    fn provision(&mut self, uid: &str, source: &Source, report: &Report) -> Result<DeviceSlot, Refusal> {
        let most = self.policy.max_devices;
        if self.registry.device_count() >= most {
            let detail = format!("the device is new, and devices.max_devices is {most}");
            return Err(Refusal::message(Reason::TooManyDevices, detail));
        }
        let device = self.registry.add_device(self.tenant, uid, None);
        self.registry.set_source(device, &source.name);
        self.make_known(device, report, source);
        self.see(device);
        Ok(device)
    }

    /// Notes that the device was heard; introduces it at its first use in the generation.
    fn see(&mut self, device: DeviceSlot) {
        let index = self.meet(device);
        let at = self.message.received_at;
        match self.out.seen.last_mut() {
            Some(last) if last.0 == index => last.1 = last.1.max(at),
            _ => self.out.seen.push((index, at)),
        }
        let publish = &self.message.publish;
        // Where tidegate is the broker all messages are live.
        let heard = !publish.retain || publish.client.is_some();
        if self.sightings.iter().rev().take(2).all(|known| known.device != index) {
            self.sightings.push(Sighting { device: index, heard, said: None });
        }
    }
}

/// Adds how well the device was heard to the last point, unless the payload itself has such a key.
fn with_signal(mut points: Vec<Point>, signal: Vec<Signal>) -> Vec<Point> {
    if signal.is_empty() {
        return points;
    }
    if points.is_empty() {
        points.push(Point::default());
    }
    if let Some(last) = points.last_mut() {
        for (name, value) in signal {
            if last.get(name).is_none() {
                last.push(name, value);
            }
        }
    }
    points
}

/// What is wrong with a name, if anything.
pub(super) fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > MAX_NAME {
        Some(format!("has {} bytes, {MAX_NAME} are the most", name.len()))
    } else if name.chars().any(char::is_control) {
        Some("has control characters".to_owned())
    } else {
        None
    }
}

//! Who a device is: what it tells of itself, what reads it, what it is behind, and which template that gives it.
//!
//! A device that has told everything and whose template nothing stronger can replace costs a comparison of its source, and of
//! whatever its messages repeat. Where a message may still bring a stronger template, its keys are compared with those of the last
//! one; only what was not tried before is matched.

use std::sync::Arc;

use super::Fate;
use super::work::{Work, name_fault};
use crate::catalog::Kind;
use crate::catalog::matching::{GivenBy, Heard};
use crate::catalog::registry::{DeviceSlot, NO_CONVERSION, Target};
use crate::config::UnknownDevice;
use crate::decode::{Report, Told, connectivity};
use crate::source::Source;
use crate::store::batch::{Change, DeviceChange, DeviceIndex, DeviceIntro};

impl<F: FnMut(&str, Fate<'_>)> Work<'_, F> {
    /// Introduces the device at its first use in the generation, with the sensors that its template requires if it is new.
    pub(super) fn meet(&mut self, device: DeviceSlot) -> DeviceIndex {
        let (index, first) = self.registry.introduce_device(device);
        if !first {
            return index;
        }
        let id = self.registry.device_id(device);
        let is_new = id.is_none();
        self.out.devices.push(DeviceIntro {
            index,
            id,
            tenant: Arc::clone(self.registry.tenant(device)),
            uid: Arc::clone(self.registry.uid(device)),
            template: self.registry.template(device).map(|template| template.slug.clone()),
            template_by: self.registry.template_by(device),
            told: if is_new { self.registry.told(device) } else { Vec::new() },
            protocol: self.registry.protocol(device).filter(|_| is_new).cloned(),
            protocol_why: self.why.take(),
            source: self.source.map(|source| source.name.to_string()).unwrap_or_default(),
            first_seen: self.message.received_at,
        });
        if is_new {
            self.require(device);
        }
        if self.registry.take_unsaved(device) {
            self.tell_again(device);
        }
        index
    }

    /// Makes the sensors that the device's template requires.
    fn require(&mut self, device: DeviceSlot) {
        for model in self.registry.required(device) {
            let name = self.registry.metric(model).name.clone();
            let sensor = match self.registry.sensor_of_metric(device, (model, None), &name) {
                Some(sensor) => sensor,
                None => self.registry.add_sensor(device, &name),
            };
            let target = Target { sensor: None, model: Some(model), owner: None, rank: 0, conversion: NO_CONVERSION };
            self.introduce_target(device, (sensor, &name), &target, (Kind::Number, None), None);
        }
    }

    /// Says once more what the database may not have: it was learned before the catalog was read anew.
    fn tell_again(&mut self, device: DeviceSlot) {
        let template = self.registry.template(device).map(|template| template.slug.as_str().into());
        let by = self.registry.template_by(device).filter(|by| GivenBy::Declared.is_stronger_than(Some(*by)));
        if let (Some(slug), Some(by)) = (template, by) {
            self.change(device, Change::Template { slug, by });
        }
        let told = self.registry.told(device);
        if !told.is_empty() {
            self.change(device, Change::Told(told));
        }
        if let Some(above) = self.registry.parent(device).filter(|_| !self.registry.has_declared_parent(device)) {
            let above = self.meet(above);
            self.change(device, Change::Parent(above));
        }
    }

    /// Adds what was learned of a device that is introduced.
    fn change(&mut self, device: DeviceSlot, change: Change) {
        let device = self.meet(device);
        let sensors_before = self.out.sensors.len();
        self.out.changes.push(DeviceChange { device, sensors_before, change });
    }

    /// Everything that the first message of a new device says of it, before it is introduced.
    pub(super) fn make_known(&mut self, device: DeviceSlot, report: &Report, source: &Source) {
        let seq = self.message.seq;
        let decoder = report.read_as.as_ref().map_or(source.decoder, |(decoder, _)| *decoder);
        self.why = report.read_as.as_ref().map(|(_, why)| why.clone());
        self.registry.set_protocol(device, decoder.name(), seq);
        if let Some(word) = connectivity(decoder) {
            self.registry.tell(device, Told::Connectivity, word, seq);
        }
        for (fact, text) in report.told.iter().filter_map(|(fact, text)| Some((*fact, sound(text)?))) {
            self.registry.tell(device, fact, text, seq);
        }
        let given = source.template.as_deref();
        if given.is_some_and(|slug| self.registry.give(device, slug, GivenBy::Source, seq)) {
            return;
        }
        let heard = Heard { topic: &self.message.publish.topic, points: &report.points };
        if let Some((slug, by)) = self.registry.best(device, &heard, (&source.name, decoder.name())) {
            self.registry.give(device, &slug, by, seq);
        }
    }

    /// Takes what a report says of its device.
    pub(super) fn identify(&mut self, device: DeviceSlot, report: &Report, source: &Source) {
        if !report.told.is_empty() {
            self.tell(device, &report.told);
        }
        if let Some(above) = report.parent.as_deref().or(self.captures.gateway)
            && !self.registry.is_behind(device, above)
        {
            self.behind(device, above, source);
        }
        let decoder = report.read_as.as_ref().map_or(source.decoder, |(decoder, _)| *decoder);
        // A decoder that chooses among others may read each message of a device as something else.
        let heard_by = match &report.read_as {
            None => self.place,
            Some(_) => self.place.saturating_add((decoder as usize).saturating_add(1).saturating_mul(1 << 20)),
        };
        if self.registry.is_newly_heard(device, heard_by) {
            self.hear(device, report, source, heard_by);
        }
        let heard = Heard { topic: &self.message.publish.topic, points: &report.points };
        if !self.registry.is_open_to(device, &heard) {
            return;
        }
        match self.registry.best(device, &heard, (&source.name, decoder.name())) {
            Some((slug, by)) => self.give(device, &slug, by),
            None => self.registry.remember_tried(device, &heard),
        }
    }

    /// What is looked at once for a device and a source, until something is learned of it.
    fn hear(&mut self, device: DeviceSlot, report: &Report, source: &Source, heard_by: usize) {
        let (decoder, why) = match &report.read_as {
            Some((decoder, why)) => (*decoder, Some(why.clone())),
            None => (source.decoder, None),
        };
        let known = self.registry.protocol(device).map(|known| **known == *decoder.name());
        // Of several sources that hear it, the first one's format counts; another decoder there replaces it.
        let is_first = self.registry.source(device).is_none_or(|first| **first == *source.name) && why.is_none();
        if known.is_none() || (known == Some(false) && is_first) {
            self.registry.set_protocol(device, decoder.name(), self.message.seq);
            self.change(device, Change::Protocol { decoder: decoder.name().into(), why });
        }
        if let Some(word) = connectivity(decoder)
            && self.registry.fact(device, Told::Connectivity).is_none()
        {
            self.tell(device, &[(Told::Connectivity, word.to_owned())]);
        }
        if let Some(slug) = &source.template
            && GivenBy::Source.is_stronger_than(self.registry.template_by(device))
        {
            self.give(device, slug, GivenBy::Source);
        }
        self.registry.hear(device, heard_by, (&source.name, decoder.name()));
    }

    /// Keeps what is news of what a device tells; what no table takes is passed over.
    pub(super) fn tell(&mut self, device: DeviceSlot, told: &[(Told, String)]) {
        let mut news = Vec::new();
        for (fact, text) in told.iter().filter_map(|(fact, text)| Some((*fact, sound(text)?))) {
            if self.registry.tell(device, fact, text, self.message.seq) {
                news.push((fact, text.into()));
            }
        }
        if !news.is_empty() {
            self.change(device, Change::Told(news));
        }
    }

    /// Gives a known device a stronger template, from this message on.
    fn give(&mut self, device: DeviceSlot, slug: &str, by: GivenBy) {
        if self.registry.give(device, slug, by, self.message.seq) {
            self.change(device, Change::Template { slug: slug.into(), by });
            self.require(device);
            self.metrics.templates_given.inc();
        }
    }

    /// Puts a device behind another, which is made where it is missing. What can't be is counted, and costs only itself; the
    /// gateway's own messages put it behind nothing.
    fn behind(&mut self, device: DeviceSlot, above: &str, source: &Source) {
        if **self.registry.uid(device) == *above || self.registry.has_declared_parent(device) {
            return;
        }
        let gateway = match self.registry.device(self.tenant, above) {
            Some(gateway) => Some(gateway),
            None if name_fault(above).is_some() || !self.may_provision() => None,
            None => {
                let gateway = self.registry.add_device(self.tenant, above, None);
                self.registry.set_source(gateway, &source.name);
                Some(gateway)
            }
        };
        match gateway.filter(|gateway| !self.registry.is_below(*gateway, device)) {
            Some(gateway) => {
                let index = self.meet(gateway);
                self.registry.set_parent(device, gateway, self.message.seq);
                self.change(device, Change::Parent(index));
            }
            None => drop(self.metrics.parents_refused.inc()),
        }
    }

    fn may_provision(&self) -> bool {
        self.policy.unknown == UnknownDevice::Provision && self.registry.device_count() < self.policy.max_devices
    }
}

/// A fact as the tables take it; none: it says nothing, or is no text for people.
fn sound(text: &str) -> Option<&str> {
    let text = text.trim();
    name_fault(text).is_none().then_some(text)
}

//! What the pipeline knows of who a device is: what it told, who gave it its template, what it is behind.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::{DeviceSlot, GivenBy, NameId, Registry};
use crate::catalog;
use crate::catalog::matching::{Facts, Heard, Open};
use crate::decode::{Sample, Told};
use crate::message::Seq;

/// Kinds of messages of a device that are remembered for having matched nothing.
const MAX_TRIED: usize = 64;
/// Most steps from a device up to the last gateway.
const MAX_DEPTH: usize = 1000;

/// Who a device is; 0 and none: nothing is known.
#[derive(Default)]
pub(super) struct Identity {
    template_by: Option<GivenBy>,
    source: Option<NameId>,
    protocol: Option<NameId>,
    told: Vec<(Told, NameId)>,
    parent: Option<DeviceSlot>,
    parent_declared: bool,
    /// The source that it was heard by last, from 1, and what its template may still depend on there.
    heard_by: usize,
    open: Open,
    /// Of devices that are open.
    tried: Option<Box<Tried>>,
    /// The last message that something was learned by.
    changed: Seq,
    /// What was learned may be missing in the database.
    unsaved: bool,
}

/// Messages that matched nothing.
#[derive(Default)]
struct Tried {
    /// Topic and keys of the last one, as far as it depends on them.
    topic: String,
    keys: String,
    /// Where each key stands in `keys`: the same letters may be other keys.
    places: Vec<Range<usize>>,
    others: HashSet<u64>,
}

impl Registry {
    /// Takes over what the snapshot knows of a device but for its parent.
    pub(super) fn know(&mut self, device: DeviceSlot, known: &catalog::Device) {
        let told = known.told.iter().map(|(fact, text)| (*fact, self.names.intern(text))).collect();
        let source = known.source.as_deref().map(|name| self.names.intern(name));
        let protocol = known.protocol.as_deref().map(|name| self.names.intern(name));
        let identity = &mut self.devices[device].identity;
        identity.told = told;
        identity.source = source;
        identity.protocol = protocol;
        identity.template_by = known.template_by;
        identity.parent_declared = known.parent_declared;
    }

    /// The parents, once all devices are known.
    pub(super) fn know_parents(&mut self, known: &[catalog::Device]) {
        for device in known {
            if let Some(parent) = &device.parent
                && let (Some(slot), Some(above)) =
                    (self.device(&device.tenant, &device.uid), self.device(&device.tenant, parent))
            {
                self.devices[slot].identity.parent = Some(above);
            }
        }
    }

    /// Takes over what was learned of a device by a message after `committed`, but for its parent.
    pub(super) fn inherit_identity(
        &mut self,
        device: DeviceSlot,
        before: &Registry,
        old: &super::Device,
        committed: Seq,
    ) {
        let new_to_the_database = old.id.is_none();
        if old.identity.changed <= committed && !(new_to_the_database && self.devices[device].id.is_none()) {
            return;
        }
        let name = |id: NameId| before.names.get(id);
        let told: Vec<_> =
            old.identity.told.iter().map(|(fact, text)| (*fact, self.names.intern(name(*text)))).collect();
        let source = old.identity.source.map(|id| self.names.intern(name(id)));
        let protocol = old.identity.protocol.map(|id| self.names.intern(name(id)));
        let template = old.template.map(|slot| before.templates[slot as usize].slug.as_str());
        let template = template.and_then(|slug| self.template_slot(slug));
        let kept = &mut self.devices[device];
        let identity = &mut kept.identity;
        for (fact, text) in told {
            match identity.told.iter_mut().find(|(known, _)| *known == fact) {
                Some(known) => known.1 = text,
                None => identity.told.push((fact, text)),
            }
        }
        identity.source = identity.source.or(source);
        identity.protocol = protocol.or(identity.protocol);
        if let Some(by) = old.identity.template_by
            && template.is_some()
            && (by.is_stronger_than(identity.template_by) || kept.id.is_none())
        {
            identity.template_by = Some(by);
            kept.template = template;
        }
        identity.changed = old.identity.changed;
        identity.unsaved = kept.id.is_some();
    }

    /// Takes over the parents that were learned by messages after `committed`.
    pub(super) fn inherit_parents(&mut self, before: &Registry, committed: Seq) {
        for old in &before.devices {
            let Some(above) = old.identity.parent.map(|above| &before.devices[above]) else { continue };
            let (Some(slot), Some(above)) = (self.device(&old.tenant, &old.uid), self.device(&old.tenant, &above.uid))
            else {
                continue;
            };
            let is_late = old.identity.changed > committed || (old.id.is_none() && self.devices[slot].id.is_none());
            if is_late && !self.devices[slot].identity.parent_declared && !self.is_below(above, slot) {
                self.devices[slot].identity.parent = Some(above);
            }
        }
    }

    /// Who gave the device its template, or decided that it has none.
    pub fn template_by(&self, device: DeviceSlot) -> Option<GivenBy> {
        self.devices[device].identity.template_by
    }

    /// Gives the device a template; what its raw keys are is decided anew. False: there is none with this slug, or it is another
    /// tenant's own.
    pub fn give(&mut self, device: DeviceSlot, slug: &str, by: GivenBy, seq: Seq) -> bool {
        let Some(template) = self.template_slot(slug) else { return false };
        let owner = self.templates[template as usize].tenant.as_deref();
        if owner.is_some_and(|owner| *owner != *self.devices[device].tenant) {
            return false;
        }
        let known = &mut self.devices[device];
        known.template = Some(template);
        known.entries.clear();
        known.order.clear();
        known.identity.template_by = Some(by);
        known.identity.heard_by = 0;
        known.identity.tried = None;
        known.identity.changed = seq;
        true
    }

    /// What the device has told.
    pub fn told(&self, device: DeviceSlot) -> Vec<(Told, Arc<str>)> {
        let told = self.devices[device].identity.told.iter();
        told.map(|(fact, text)| (*fact, Arc::clone(self.names.get(*text)))).collect()
    }

    pub fn fact(&self, device: DeviceSlot, fact: Told) -> Option<&Arc<str>> {
        let told = &self.devices[device].identity.told;
        told.iter().find(|(known, _)| *known == fact).map(|(_, text)| self.names.get(*text))
    }

    /// Keeps a fact; whether it is news.
    pub fn tell(&mut self, device: DeviceSlot, fact: Told, text: &str, seq: Seq) -> bool {
        if self.fact(device, fact).is_some_and(|known| **known == *text) {
            return false;
        }
        let text = self.names.intern(text);
        let identity = &mut self.devices[device].identity;
        match identity.told.iter_mut().find(|(known, _)| *known == fact) {
            Some(known) => known.1 = text,
            None => identity.told.push((fact, text)),
        }
        identity.heard_by = 0;
        identity.tried = None;
        identity.changed = seq;
        true
    }

    pub fn protocol(&self, device: DeviceSlot) -> Option<&Arc<str>> {
        self.devices[device].identity.protocol.map(|id| self.names.get(id))
    }

    pub fn set_protocol(&mut self, device: DeviceSlot, decoder: &str, seq: Seq) {
        let decoder = self.names.intern(decoder);
        let identity = &mut self.devices[device].identity;
        identity.protocol = Some(decoder);
        identity.changed = seq;
    }

    /// Name of the source that the device was first heard by.
    pub fn source(&self, device: DeviceSlot) -> Option<&Arc<str>> {
        self.devices[device].identity.source.map(|id| self.names.get(id))
    }

    pub fn set_source(&mut self, device: DeviceSlot, source: &str) {
        self.devices[device].identity.source = Some(self.names.intern(source));
    }

    /// Whether the device is behind the one with this uid.
    pub fn is_behind(&self, device: DeviceSlot, uid: &str) -> bool {
        self.devices[device].identity.parent.is_some_and(|above| *self.devices[above].uid == *uid)
    }

    /// The device that it is behind.
    pub fn parent(&self, device: DeviceSlot) -> Option<DeviceSlot> {
        self.devices[device].identity.parent
    }

    /// Whether a file says what it is behind.
    pub fn has_declared_parent(&self, device: DeviceSlot) -> bool {
        self.devices[device].identity.parent_declared
    }

    /// Whether a device is another, or behind it at whatever distance.
    pub fn is_below(&self, device: DeviceSlot, other: DeviceSlot) -> bool {
        let mut at = Some(device);
        for _ in 0..MAX_DEPTH {
            match at {
                None => return false,
                Some(slot) if slot == other => return true,
                Some(slot) => at = self.devices[slot].identity.parent,
            }
        }
        true
    }

    pub fn set_parent(&mut self, device: DeviceSlot, above: DeviceSlot, seq: Seq) {
        let identity = &mut self.devices[device].identity;
        identity.parent = Some(above);
        identity.changed = seq;
    }

    /// Whether what was learned of the device may be missing in the database; it is told once.
    pub fn take_unsaved(&mut self, device: DeviceSlot) -> bool {
        std::mem::take(&mut self.devices[device].identity.unsaved)
    }

    /// Whether the device is heard by this source for the first time since something was learned of it, or after another one.
    /// `source` counts from 1.
    pub fn is_newly_heard(&self, device: DeviceSlot, source: usize) -> bool {
        self.devices[device].identity.heard_by != source
    }

    /// Works out what the device's template may still depend on at this source. `names`: of the source and the decoder.
    pub fn hear(&mut self, device: DeviceSlot, source: usize, names: (&str, &str)) {
        let open = self.offers.open(&self.facts(device, names), self.template_by(device));
        let identity = &mut self.devices[device].identity;
        identity.heard_by = source;
        identity.open = open;
        if !open.is_open() {
            identity.tried = None;
        }
    }

    /// Whether the device's template may depend on this message.
    pub fn is_open_to(&mut self, device: DeviceSlot, heard: &Heard<'_>) -> bool {
        let identity = &mut self.devices[device].identity;
        if !identity.open.is_open() {
            return false;
        }
        let open = identity.open;
        let tried = identity.tried.get_or_insert_default();
        if !open.fields
            && let [point] = heard.points
            && (!open.topic || tried.topic == heard.topic)
            && tried.keys == point.keys
            && tried.places.iter().eq(point.samples.iter().map(Sample::place))
            && !tried.others.is_empty()
        {
            return false;
        }
        !tried.others.contains(&self.offers.print(open, heard))
    }

    /// The strongest template for the device that this message matches, if it is stronger than what it has.
    pub fn best(&self, device: DeviceSlot, heard: &Heard<'_>, names: (&str, &str)) -> Option<(Arc<str>, GivenBy)> {
        let found = self.offers.best(&self.facts(device, names), heard, self.template_by(device));
        found.filter(|(slug, _)| self.template_slots.contains_key(&***slug)).map(|(slug, by)| (Arc::clone(slug), by))
    }

    /// Remembers that this message matched nothing.
    pub fn remember_tried(&mut self, device: DeviceSlot, heard: &Heard<'_>) {
        let identity = &mut self.devices[device].identity;
        let open = identity.open;
        let tried = identity.tried.get_or_insert_default();
        if tried.others.len() >= MAX_TRIED {
            tried.others.clear();
        }
        tried.others.insert(self.offers.print(open, heard));
        heard.topic.clone_into(&mut tried.topic);
        tried.places.clear();
        let keys = if let [point] = heard.points {
            tried.places.extend(point.samples.iter().map(|sample| sample.place().clone()));
            point.keys.as_str()
        } else {
            ""
        };
        keys.clone_into(&mut tried.keys);
    }

    fn facts<'r>(&'r self, device: DeviceSlot, (source, decoder): (&'r str, &'r str)) -> Facts<'r> {
        Facts {
            tenant: &self.devices[device].tenant,
            uid: &self.devices[device].uid,
            source,
            decoder,
            model: self.fact(device, Told::Model).map(|text| &**text),
            manufacturer: self.fact(device, Told::Manufacturer).map(|text| &**text),
        }
    }
}

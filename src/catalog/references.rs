//! Whether what the catalog's files say of each other is so: slugs, slots, parents, rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::device_file::{DeviceEntry, ModuleEntry, SiteEntry};
use super::template_file::TemplateFile;
use super::{Slot, Template};
use crate::alert::dependency;
use crate::alert::maintenance_file::MaintenanceFile;
use crate::alert::rule_file::RuleFile;
use crate::config::fault::{Place, Wrong, did_you_mean};
use crate::config::section::Findings;

/// Interfaces that many modules share, each with an address.
const BUSES: [&str; 6] = ["rs485", "i2c", "1-wire", "ble", "lora", "fsk"];

/// A value with the place and the dotted key it was written at.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub value: T,
    pub place: Place,
    pub key: String,
}

impl<T> Placed<T> {
    pub(super) fn fault(&self, findings: &Findings, wrong: impl Into<Wrong>) {
        findings.fault(self.place.clone(), self.key.clone(), wrong);
    }
}

/// The operator's templates without those that repeat a shipped one; a slug that is taken is a fault.
pub(super) fn distinct(shipped: &[TemplateFile], files: Vec<TemplateFile>, findings: &Findings) -> Vec<TemplateFile> {
    let mut places: HashMap<String, Place> = HashMap::new();
    let mut kept = Vec::new();
    for file in files {
        let slug = &file.slug;
        if let Some(locked) = shipped.iter().find(|locked| locked.slug.value == slug.value) {
            if locked.template != file.template {
                let message = format!("\"{}\" is a template shipped with tidegate, which is locked", slug.value);
                let suggestion = Some(format!("give yours a slug of its own, such as `{}-2`", slug.value));
                slug.fault(findings, Wrong::new(message).suggest(suggestion));
            }
            continue;
        }
        match places.get(&slug.value) {
            Some(earlier) => {
                slug.fault(findings, format!("\"{}\" is the slug of another template, at {earlier}", slug.value));
            }
            None => {
                places.insert(slug.value.clone(), slug.place.clone());
                kept.push(file);
            }
        }
    }
    kept
}

/// A site is declared once in its tenant.
pub(super) fn sites(entries: &[SiteEntry], findings: &Findings) {
    let mut places: HashMap<(&str, &str), &Place> = HashMap::new();
    for SiteEntry { site, name } in entries {
        match places.get(&(site.tenant.as_str(), site.name.as_str())) {
            Some(earlier) => {
                name.fault(findings, format!("\"{}\" is another site of this tenant, at {earlier}", site.name));
            }
            None => drop(places.insert((&site.tenant, &site.name), &name.place)),
        }
    }
}

/// A maintenance's name is its own.
pub(super) fn maintenance(files: &[MaintenanceFile], findings: &Findings) {
    let mut places: HashMap<&str, &Place> = HashMap::new();
    for file in files {
        let Some(name) = file.declared.as_ref().map(|declared| declared.maintenance.name.as_str()) else { continue };
        match places.get(name) {
            Some(earlier) => {
                let message = format!("\"{name}\" is the name of another maintenance, at {earlier}");
                findings.fault(file.place.clone(), "name", message);
            }
            None => drop(places.insert(name, &file.place)),
        }
    }
}

/// A rule's slug is its own, and none waits for itself.
pub(super) fn rules(files: &[RuleFile], findings: &Findings) {
    let mut places: HashMap<&str, &Place> = HashMap::new();
    for file in files {
        match places.get(file.slug.as_str()) {
            Some(earlier) => {
                let message = format!("\"{}\" is the slug of another rule, at {earlier}", file.slug);
                findings.fault(file.place.clone(), "slug", message);
            }
            None => drop(places.insert(&file.slug, &file.place)),
        }
    }
    let sound = || files.iter().filter_map(|file| Some(&file.declared.as_ref()?.rule));
    for circle in dependency::circles(sound()) {
        let Some(file) = files.iter().find(|file| circle.first().is_some_and(|slug| **slug == *file.slug)) else {
            continue;
        };
        let message = format!("waits for itself: {}", dependency::in_words(&circle));
        findings.fault(file.place_of("depends_on"), "depends_on", message);
    }
}

/// Every slug that a slot calls compatible must be a template.
pub(super) fn slots(files: &[TemplateFile], known: &BTreeMap<&str, &Template>, findings: &Findings) {
    for compatible in files.iter().flat_map(|file| &file.compatible) {
        if !known.contains_key(compatible.value.as_str()) {
            compatible.fault(findings, no_template(&compatible.value, known));
        }
    }
}

/// What is wrong with a slug that names no template.
pub(super) fn no_template(slug: &str, known: &BTreeMap<&str, &Template>) -> Wrong {
    no_such(slug, known.keys().copied())
}

/// As [`no_template`], of the slugs that there are.
pub(super) fn no_such<'a>(slug: &str, known: impl Iterator<Item = &'a str> + Clone) -> Wrong {
    let all = || Some(format!("known: {}", known.clone().collect::<Vec<_>>().join(", ")));
    let suggestion = did_you_mean(slug, known.clone()).or_else(all);
    Wrong::new(format!("there is no template \"{slug}\"")).suggest(suggestion)
}

/// Uids once each in a tenant; templates, slots and parents that exist and fit; no cycle of parents.
pub(super) fn devices(entries: &[DeviceEntry], known: &BTreeMap<&str, &Template>, findings: &Findings) {
    let mut by_uid: BTreeMap<(&str, &str), &DeviceEntry> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.device.uid.is_empty()) {
        let key = (entry.device.tenant.as_str(), entry.device.uid.as_str());
        match by_uid.get(&key) {
            Some(earlier) => {
                let message = format!("\"{}\" is another device of this tenant, at {}", key.1, earlier.uid.place);
                entry.uid.fault(findings, message);
            }
            None => drop(by_uid.insert(key, entry)),
        }
    }
    for entry in entries {
        device(entry, known, findings);
        parent(entry, &by_uid, findings);
    }
    cycles(&by_uid, findings);
}

fn device(entry: &DeviceEntry, known: &BTreeMap<&str, &Template>, findings: &Findings) {
    let find = |slug: &Option<String>, placed: &Placed<()>| {
        let slug = slug.as_deref()?;
        let template = known.get(slug).copied();
        match template.map(|template| template.tenant.as_deref()) {
            None => placed.fault(findings, no_template(slug, known)),
            Some(Some(owner)) if owner != entry.device.tenant => {
                let device = &entry.device.tenant;
                let message =
                    format!("\"{slug}\" is a template of the tenant \"{owner}\", the device is of \"{device}\"");
                placed.fault(findings, message);
            }
            Some(_) => {}
        }
        template
    };
    let template = find(&entry.device.template, &entry.template);
    let mut taken: BTreeSet<(&str, Option<&str>)> = BTreeSet::new();
    for (module, places) in entry.device.modules.iter().zip(&entry.modules) {
        let fits = find(&module.template, &places.template);
        let Some(name) = module.slot.as_deref() else {
            if module.address.is_some() {
                places.address.fault(findings, "has no meaning without a slot, on whose bus it is");
            }
            continue;
        };
        let Some(template) = template else {
            if entry.device.template.is_none() {
                places.slot.fault(findings, "the device has no template, so it has no slots");
            }
            continue;
        };
        let Some(slot) = template.slots.iter().find(|slot| slot.name == name) else {
            let names: Vec<&str> = template.slots.iter().map(|slot| slot.name.as_str()).collect();
            let all = if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) };
            let suggestion = did_you_mean(name, names).or(Some(all));
            let message = format!("the template \"{}\" has no slot \"{name}\"", template.slug);
            places.slot.fault(findings, Wrong::new(message).suggest(suggestion));
            continue;
        };
        occupy(slot, module.address.as_deref(), places, &mut taken, findings);
        if let Some(fits) = fits
            && !slot.compatible.is_empty()
            && !slot.compatible.contains(&fits.slug)
        {
            let message = format!("\"{}\" does not fit the slot \"{name}\" of \"{}\"", fits.slug, template.slug);
            let suggestion = Some(format!("compatible: {}", slot.compatible.join(", ")));
            places.template.fault(findings, Wrong::new(message).suggest(suggestion));
        }
    }
}

/// One module in a port; on a bus as many as have addresses of their own.
fn occupy<'a>(
    slot: &'a Slot,
    address: Option<&'a str>,
    places: &ModuleEntry,
    taken: &mut BTreeSet<(&'a str, Option<&'a str>)>,
    findings: &Findings,
) {
    let (name, interface) = (slot.name.as_str(), slot.interface.as_str());
    if !BUSES.contains(&interface) {
        if address.is_some() {
            let message = format!("the slot \"{name}\" is no bus but {interface}, so its module has no address");
            places.address.fault(findings, message);
        }
        if !taken.insert((name, None)) {
            places.slot.fault(findings, format!("the slot \"{name}\" has a module already"));
        }
        return;
    }
    let is_alone = !taken.iter().any(|(other, _)| *other == name);
    match address {
        // Alone on a bus, it may leave its address out.
        None if is_alone => drop(taken.insert((name, None))),
        None => places.slot.fault(findings, format!("other modules are on the bus \"{name}\": each needs an address")),
        Some(_) if taken.contains(&(name, None)) => {
            let message = format!("an earlier module on the bus \"{name}\" has no address: each of several needs one");
            places.slot.fault(findings, message);
        }
        Some(address) if !taken.insert((name, Some(address))) => {
            let message = format!("\"{address}\" is the address of an earlier module on the bus \"{name}\"");
            places.address.fault(findings, message);
        }
        Some(_) => {}
    }
}

fn parent(entry: &DeviceEntry, by_uid: &BTreeMap<(&str, &str), &DeviceEntry>, findings: &Findings) {
    let Some(parent) = entry.device.parent.as_deref() else { return };
    let tenant = entry.device.tenant.as_str();
    if !by_uid.contains_key(&(tenant, parent)) {
        let uids = by_uid.keys().filter(|(of, _)| *of == tenant).map(|(_, uid)| *uid);
        let suggestion = did_you_mean(parent, uids);
        let message = format!("there is no device \"{parent}\" declared in the tenant \"{tenant}\"");
        entry.parent.fault(findings, Wrong::new(message).suggest(suggestion));
    }
}

/// Names each cycle once, at its first device.
fn cycles(by_uid: &BTreeMap<(&str, &str), &DeviceEntry>, findings: &Findings) {
    let mut settled: BTreeSet<(&str, &str)> = BTreeSet::new();
    for start in by_uid.keys() {
        let mut path = Vec::new();
        let mut at = *start;
        // Ends: every step settles a device or stops.
        while settled.insert(at) {
            path.push(at);
            let parent = by_uid.get(&at).and_then(|entry| entry.device.parent.as_deref());
            match parent.map(|parent| (at.0, parent)).filter(|key| by_uid.contains_key(key)) {
                Some(next) => at = next,
                None => break,
            }
        }
        let Some(first) = path.iter().position(|key| *key == at).filter(|_| closes(by_uid, &path, at)) else {
            continue;
        };
        let names = path.iter().skip(first).map(|(_, uid)| *uid).chain([at.1]).collect::<Vec<_>>().join(" → ");
        if let Some(entry) = by_uid.get(&at) {
            entry.parent.fault(findings, format!("the parents form a cycle: {names}"));
        }
    }
}

/// Whether the parent of the path's last device is `at`, which lies on the path.
fn closes<'a>(by_uid: &BTreeMap<(&'a str, &'a str), &'a DeviceEntry>, path: &[(&str, &str)], at: (&str, &str)) -> bool {
    let parent = path.last().and_then(|last| by_uid.get(last)).and_then(|entry| entry.device.parent.as_deref());
    parent == Some(at.1)
}

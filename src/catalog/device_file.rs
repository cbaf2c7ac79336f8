//! One file of `devices/`: devices known beforehand, their gateways, tags and modules; and the sites that they are at.

use super::references::Placed;
use super::template_file::display_name;
use super::{DEFAULT_TENANT, DeclaredDevice, DeclaredModule, DeclaredSite, tags};
use crate::config::document::Document;
use crate::config::fault::Wrong;
use crate::config::section::{Findings, Section};
use crate::config::timezone;

/// A device with the places of what must be checked against other files.
pub(super) struct DeviceEntry {
    pub device: DeclaredDevice,
    pub uid: Placed<()>,
    pub template: Placed<()>,
    pub parent: Placed<()>,
    pub modules: Vec<ModuleEntry>,
}

/// The places of a module.
pub(super) struct ModuleEntry {
    pub slot: Placed<()>,
    pub address: Placed<()>,
    pub template: Placed<()>,
}

/// A site with the place of its name.
pub(super) struct SiteEntry {
    pub site: DeclaredSite,
    pub name: Placed<()>,
}

/// All devices and sites of a file.
pub(super) fn read(document: &Document, findings: &Findings) -> (Vec<DeviceEntry>, Vec<SiteEntry>) {
    findings.read(document, |root| {
        let devices = root.tables("device", device).unwrap_or_default();
        (devices, root.tables("site", site).unwrap_or_default().into_iter().flatten().collect())
    })
}

/// None where it has a fault.
fn site(section: &mut Section<'_>) -> Option<SiteEntry> {
    let name = section.required_text("name");
    let zone = section.required_text("timezone");
    let tenant = section.parsed("tenant", "a text", name_in_topic);
    let zone = zone.map(timezone).and_then(|read| read.map_err(|wrong| section.fault("timezone", wrong)).ok());
    let name = name.map(display_name).and_then(|read| read.map_err(|wrong| section.fault("name", wrong)).ok());
    let place = Placed { value: (), place: section.place_of("name"), key: section.path_of("name") };
    let tenant = tenant.unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    Some(SiteEntry { site: DeclaredSite { tenant, name: name?, timezone: zone? }, name: place })
}

fn device(section: &mut Section<'_>) -> DeviceEntry {
    let place = |section: &Section<'_>, key: &str| Placed {
        value: (),
        place: section.place_of(key),
        key: section.path_of(key),
    };
    let uid = uid(section, "uid");
    let mut seen = Vec::new();
    let modules = section
        .tables("module", |section| {
            let module = module(section, &mut seen);
            let entry = ModuleEntry {
                slot: place(section, "slot"),
                address: place(section, "address"),
                template: place(section, "template"),
            };
            (module, entry)
        })
        .unwrap_or_default();
    let (declared, entries) = modules.into_iter().unzip();
    let device = DeclaredDevice {
        tenant: section.parsed("tenant", "a text", name_in_topic).unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
        uid,
        name: section.parsed("name", "a text", display_name),
        template: section.text("template").map(str::to_owned),
        parent: section.text("parent").map(str::to_owned),
        site: section.parsed("site", "a text", display_name),
        tags: tags::read(section, "tags"),
        modules: declared,
    };
    DeviceEntry {
        device,
        uid: place(section, "uid"),
        template: place(section, "template"),
        parent: place(section, "parent"),
        modules: entries,
    }
}

fn module(section: &mut Section<'_>, seen: &mut Vec<String>) -> DeclaredModule {
    let uid = uid(section, "uid");
    if !uid.is_empty() && seen.contains(&uid) {
        section.fault("uid", format!("\"{uid}\" is an earlier module of this device"));
    }
    seen.push(uid.clone());
    DeclaredModule {
        uid,
        slot: section.text("slot").map(str::to_owned),
        address: section.parsed("address", "a text such as \"17\"", display_name),
        template: section.text("template").map(str::to_owned),
    }
}

fn uid(section: &mut Section<'_>, key: &'static str) -> String {
    let Some(text) = section.required_text(key) else { return String::new() };
    match name_in_topic(text) {
        Ok(uid) => uid,
        Err(wrong) => {
            section.fault(key, wrong);
            String::new()
        }
    }
}

/// What a topic can carry and the database hold: 1 to 255 bytes, no control characters, no wildcards.
pub(crate) fn name_in_topic(text: &str) -> Result<String, Wrong> {
    let name = display_name(text)?;
    if name.contains(['+', '#']) {
        return Err("may not have + or #, which are wildcards in topic filters".into());
    }
    Ok(name)
}

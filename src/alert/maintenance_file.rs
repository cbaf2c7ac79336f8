//! One file of `maintenance/`, or the definition of a row of `maintenance`: when somebody works at which devices.

use std::sync::Arc;

use super::maintenance::{DeclaredMaintenance, Maintenance};
use super::times::Times;
use super::{scope_file, times_file};
use crate::catalog::{display_name, name_in_topic};
use crate::config::document::{Document, Node, Value};
use crate::config::fault::{Faults, Place};
use crate::config::section::{Findings, Section};

/// Maintenance as a file has it, with the place of its name.
pub(crate) struct MaintenanceFile {
    pub place: Place,
    /// None where it has a fault.
    pub declared: Option<DeclaredMaintenance>,
}

/// Every `[[maintenance]]` of a file.
pub(crate) fn read(document: &Document, findings: &Findings) -> Vec<MaintenanceFile> {
    let nodes = match &document.root.value {
        Value::Table(table) => table.get("maintenance"),
        _ => None,
    };
    let definitions = nodes.map(Node::json);
    let own = Findings::default();
    let read = own.read(document, |root| {
        root.tables("maintenance", |section| (section.place_of("name"), maintenance(section))).unwrap_or_default()
    });
    findings.add(own.into_inner());
    let one = |(index, (place, maintenance)): (usize, (Place, Option<Maintenance>))| {
        let definition = definitions.as_ref().and_then(|list| list.get(index)).cloned().unwrap_or_default();
        let declared = maintenance.map(|maintenance| DeclaredMaintenance { maintenance, definition });
        MaintenanceFile { place, declared }
    };
    read.into_iter().enumerate().map(one).collect()
}

/// Reads the definition of a row, JSON with the keys of a file. `row` is how people find it, such as `maintenance boiler`.
///
/// # Errors
/// Every fault in it.
pub fn from_json(definition: &serde_json::Value, row: &str) -> Result<Maintenance, Faults> {
    let findings = Findings::default();
    let document = Document::of_json(&Place::Row(Arc::from(row)), definition);
    let read = findings.read(&document, maintenance);
    let faults = findings.into_inner().faults;
    match read {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(Faults::new(faults)),
    }
}

fn maintenance(section: &mut Section<'_>) -> Option<Maintenance> {
    let name = section.required_text("name").map(display_name);
    let name = match name {
        Some(Err(wrong)) => {
            section.fault("name", wrong);
            None
        }
        name => name.and_then(Result::ok),
    };
    let tenant = section.parsed("tenant", "a text", name_in_topic);
    let scope = scope_file::read(section);
    let note = section.parsed("note", "a text", display_name);
    let zone = times_file::zone(section);
    let spell = times_file::spell(section);
    let times = Times(vec![spell?]);
    Some(Maintenance { name: name?, tenant, scope, times, zone, note, ended_at: None })
}

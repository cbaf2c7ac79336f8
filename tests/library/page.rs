//! docs/devices.md: what the shipped templates are for, written from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use tidegate::catalog::Template;
use tidegate::catalog::files::ReadTemplate;
use tidegate::catalog::matching::Criteria;

use super::rig::{Library, strength};

/// Most metrics that a row names.
const NAMED: usize = 10;

const HEAD: &str = "# Devices

What tidegate names and scales by itself: the shipped templates, each with a payload as such devices send it as its test. A device is given the one that
matches it most closely; one of a known format that no row knows still gets its format's family, and whatever has no metric there is
stored under its own key. `tidegate devices show` tells which one a device has, and `tidegate devices assign` gives it another.
The names and units are those of [metrics.md](metrics.md), commands are told of in [commands.md](commands.md); how to write a template of
your own is in [templates.md](templates.md).

This page is written from the templates: `UPDATE_DOCS=1 cargo nextest run --test suite library::page`.
";

#[test]
fn the_page_of_devices_is_written_from_the_templates() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/devices.md");
    let page = page(&Library::shipped().templates);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|set| set == "1") {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/devices.md is not what the templates say; UPDATE_DOCS=1 writes it anew");
}

fn page(templates: &[ReadTemplate]) -> String {
    let mut formats: BTreeMap<String, Vec<&ReadTemplate>> = BTreeMap::new();
    for template in templates {
        let mut decoders: Vec<&str> = Vec::new();
        for decoder in template.template.matching.iter().flat_map(|criteria| &criteria.decoder) {
            if !decoders.contains(&decoder.as_str()) {
                decoders.push(decoder);
            }
        }
        let format =
            if decoders.is_empty() { "Given by name".to_owned() } else { format!("`{}`", decoders.join("`, `")) };
        formats.entry(format).or_default().push(template);
    }
    let mut page = String::from(HEAD);
    for (format, mut rows) in formats {
        // Those that know most of a device first, the family behind them.
        rows.sort_by_key(|row| (strength(&row.template), row.template.slug.clone()));
        write!(page, "\n## {format}\n\n| device | template | recognised by | readings | commands |\n| --- | --- | --- | --- | --- |\n")
            .unwrap();
        for row in rows {
            let template = &row.template;
            let name = match &template.reference {
                Some(reference) => format!("[{}]({reference})", template.name),
                None => template.name.clone(),
            };
            let models =
                if template.models.is_empty() { String::new() } else { format!(": {}", template.models.join(", ")) };
            let maker = template.manufacturer.as_ref().map(|maker| format!("; {maker}{models}")).unwrap_or_default();
            let (slug, by, readings) = (&template.slug, recognised(template), readings(row));
            let commands = commands(template);
            writeln!(page, "| {} | `{slug}` | {by} | {readings} | {commands} |", cell(&(name + &maker))).unwrap();
        }
    }
    page
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn recognised(template: &Template) -> String {
    if template.matching.is_empty() {
        return "–".to_owned();
    }
    template.matching.iter().map(by).collect::<Vec<_>>().join("; or ")
}

fn by(criteria: &Criteria) -> String {
    let mut parts = Vec::new();
    let mut list = |what: &str, texts: &[String]| {
        if !texts.is_empty() {
            let some: Vec<String> = texts.iter().take(4).map(|text| format!("`{}`", cell(text))).collect();
            let more = if texts.len() > some.len() { ", …" } else { "" };
            parts.push(format!("{what} {}{more}", some.join(", ")));
        }
    };
    list("model", &criteria.model);
    list("manufacturer", &criteria.manufacturer);
    for (key, values) in &criteria.fields {
        list(key, values);
    }
    list("device", &criteria.device);
    list("topic", &criteria.topic);
    list("source", &criteria.source);
    list("keys", &criteria.keys);
    if parts.is_empty() {
        return "its format".to_owned();
    }
    parts.join("; ")
}

/// What it can be told, its own before its family's.
fn commands(template: &Template) -> String {
    if template.commands.is_empty() {
        return "–".to_owned();
    }
    template.commands.iter().map(|command| format!("`{}`", command.name)).collect::<Vec<_>>().join(", ")
}

/// What its examples give, those that it always has first.
fn readings(row: &ReadTemplate) -> String {
    let required = row.template.metrics.iter().filter(|metric| metric.required).map(|metric| metric.name.as_str());
    let mut names: Vec<&str> = required.filter(|name| !name.contains('{')).collect();
    let told: BTreeSet<&str> =
        row.examples.iter().flat_map(|example| example.readings.keys()).map(String::as_str).collect();
    let more: Vec<&str> = told.into_iter().filter(|name| !names.contains(name)).collect();
    names.extend(more);
    let count = names.len();
    names.truncate(NAMED);
    let dots = if count > NAMED { ", …" } else { "" };
    format!("{}{dots}", names.join(", "))
}

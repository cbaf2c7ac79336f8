//! `[match]` of a template, or several `[[match]]`: the devices that it is for.

use std::collections::BTreeMap;

use super::MAX_NAME;
use super::matching::Criteria;
use super::pattern::Pattern;
use super::references::Placed;
use crate::config::Decoder;
use crate::config::document::{Node, Value};
use crate::config::fault::{Place, Wrong, did_you_mean};
use crate::config::section::Section;
use crate::source::Filter;

/// Most `[[match]]` of one template.
const MAX_MATCHES: usize = 32;

/// What a template's file says of the devices that it is for.
#[derive(Default)]
pub(super) struct MatchFile {
    /// Empty without `[match]`.
    pub matching: Vec<Criteria>,
    /// Of each.
    pub places: Vec<Placed<()>>,
    /// Every source that is named.
    pub sources: Vec<Placed<String>>,
}

pub(super) fn read(root: &mut Section<'_>) -> MatchFile {
    let mut file = MatchFile::default();
    let Some(node) = root.node("match") else { return file };
    let Value::List(all) = &node.value else {
        file.matching = vec![root.item(node, "match", |section| criteria(section, &mut file.sources))];
        file.places = vec![Placed { value: (), place: node.place.clone(), key: "match".to_owned() }];
        return file;
    };
    if all.is_empty() || all.len() > MAX_MATCHES {
        root.fault("match", format!("expected a table, or 1 to {MAX_MATCHES} each headed [[match]]"));
        return file;
    }
    let each =
        |(index, item)| root.item(item, &format!("match[{index}]"), |section| criteria(section, &mut file.sources));
    file.matching = all.iter().enumerate().map(each).collect();
    let place = |(index, item): (usize, &Node)| {
        let key = format!("match[{index}]");
        Placed { value: (), place: item.place.clone(), key }
    };
    file.places = all.iter().enumerate().map(place).collect();
    file
}

fn criteria(section: &mut Section<'_>, sources: &mut Vec<Placed<String>>) -> Criteria {
    let heard_by = placed(section, "source", plain);
    let key = section.path_of("source");
    sources.extend(heard_by.iter().map(|(name, place)| Placed {
        value: name.clone(),
        place: place.clone(),
        key: key.clone(),
    }));
    let criteria = Criteria {
        decoder: texts(section, "decoder", decoder),
        source: heard_by.into_iter().map(|(name, _)| name).collect(),
        topic: texts(section, "topic", topic),
        device: texts(section, "device", plain),
        model: texts(section, "model", plain),
        manufacturer: texts(section, "manufacturer", plain),
        fields: fields(section),
        keys: texts(section, "keys", |text| Pattern::parse(text).map(|_| text.to_owned())),
    };
    if section.is_empty() {
        section.fault_here("holds no criterion; leave it out for a template that is only given by name");
    }
    criteria
}

fn texts(section: &mut Section<'_>, key: &'static str, read: impl Fn(&str) -> Result<String, Wrong>) -> Vec<String> {
    placed(section, key, read).into_iter().map(|(text, _)| text).collect()
}

/// As [`texts`], each with its place.
fn placed(
    section: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<String, Wrong>,
) -> Vec<(String, Place)> {
    let given = section.texts(key);
    if given.as_ref().is_some_and(Vec::is_empty) {
        section.fault(key, "is empty, so that nothing could match; leave it out");
    }
    let mut all = Vec::new();
    for (text, place) in given.unwrap_or_default() {
        match read(text) {
            Ok(one) => all.push((one, place)),
            Err(wrong) => section.fault_at(place, key, wrong),
        }
    }
    all
}

fn plain(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > MAX_NAME || text.contains('\0') {
        return Err(format!("expected 1 to {MAX_NAME} bytes without NUL").into());
    }
    Ok(text.to_owned())
}

/// Name of a decoder.
pub(super) fn decoder(text: &str) -> Result<String, Wrong> {
    let names = || Decoder::ALL.iter().map(|decoder| decoder.name());
    if names().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let all = || Some(format!("known: {}", names().collect::<Vec<_>>().join(", ")));
    Err(Wrong::new(format!("there is no decoder \"{text}\"")).suggest(did_you_mean(text, names()).or_else(all)))
}

/// An MQTT topic filter.
pub(super) fn topic(text: &str) -> Result<String, Wrong> {
    Filter::parse(text).map(|_| text.to_owned()).map_err(|error| Wrong::new(error.to_string()))
}

fn fields(section: &mut Section<'_>) -> BTreeMap<String, Vec<String>> {
    section.table("fields", |section| {
        let mut fields = BTreeMap::new();
        for (key, node) in section.entries() {
            let values: Option<Vec<String>> = match &node.value {
                Value::List(items) => items.iter().map(as_plain).collect(),
                _ => as_plain(node).map(|one| vec![one]),
            };
            match values {
                Some(values) if values.is_empty() => section.fault(key, "is empty, so that nothing could match"),
                Some(values) => drop(fields.insert(key.to_owned(), values)),
                None => section.fault(key, "expected a list of the values that the raw key may have"),
            }
        }
        fields
    })
}

/// A value as text, as the payload has it.
fn as_plain(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Flag(flag) => Some(flag.to_string()),
        _ => None,
    }
}

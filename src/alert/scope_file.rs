//! `[scope]` of a rule: the devices that it looks at.

use super::rule::{Scope, Selector};
use crate::catalog::{display_name, read_tags, slug_fault};
use crate::config::document::Value;
use crate::config::fault::Wrong;
use crate::config::section::Section;

/// Most values in one list.
const MAX_VALUES: usize = 1024;

/// The keys that choose devices.
const KEYS: [&str; 4] = ["device", "template", "site", "tags"];

/// Where it has a fault, what could be read.
pub(super) fn read(root: &mut Section<'_>) -> Scope {
    if !root.has("scope") {
        let wrong = Wrong::new("is missing: which devices does the rule look at?");
        root.fault("scope", wrong.suggest(Some("such as [scope] template = \"…\", or all = true".to_owned())));
    }
    root.table("scope", |section| {
        let of = selectors(section);
        let all = section.flag("all");
        let chosen = KEYS.iter().find(|key| section.has(key));
        match (all, chosen) {
            (Some(false), _) => section.fault("all", "is false, which says nothing; leave it out"),
            (Some(true), Some(key)) => section.fault("all", format!("stands beside {key}, which says otherwise")),
            (None, None) if !section.has("all") && section.is_table() => {
                section.fault_here("chooses no device, expected device, template, site or tags, or all = true");
            }
            _ => {}
        }
        Scope { of, except: except(section) }
    })
}

fn except(section: &mut Section<'_>) -> Vec<Selector> {
    section.table("except", |section| {
        let except = selectors(section);
        if section.is_table() && !KEYS.iter().any(|key| section.has(key)) {
            section.fault_here("excepts nothing, expected device, template, site or tags; or leave it out");
        }
        except
    })
}

fn selectors(section: &mut Section<'_>) -> Vec<Selector> {
    let device = texts(section, "device", |text| display_name(text).map(drop)).map(Selector::Device);
    let template = texts(section, "template", |text| slug_fault(text).map_or(Ok(()), Err)).map(Selector::Template);
    let site = texts(section, "site", |text| display_name(text).map(drop)).map(Selector::Site);
    let has_tags = section.has("tags");
    let tags = read_tags(section, "tags");
    if has_tags && tags.is_empty() {
        section.fault("tags", "chooses by no tag, expected tags = { floor = \"2\" }");
    }
    [device, template, site, has_tags.then_some(Selector::Tags(tags))].into_iter().flatten().collect()
}

/// A text, or a list of texts of which any will do.
fn texts(
    section: &mut Section<'_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), Wrong>,
) -> Option<Vec<String>> {
    let node = section.node(key)?;
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if !(1..=MAX_VALUES).contains(&items.len()) {
        section.fault(key, format!("{} are given, expected 1 to {MAX_VALUES}", items.len()));
        return None;
    }
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        let read = match &item.value {
            Value::Text(text) => check(text).map(|()| text.clone()),
            other => Err(format!("expected a text in quotes, or a list of such, found {}", other.kind()).into()),
        };
        match read {
            Ok(text) => texts.push(text),
            Err(wrong) => section.fault_at(item.place.clone(), key, wrong),
        }
    }
    Some(texts)
}

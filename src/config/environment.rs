//! `TIDEGATE_<SECTION>__<KEY>` variables laid over the file.

use super::document::{Document, Node, Table, Value};
use super::fault::{Fault, Place, nearest};

const PREFIX: &str = "TIDEGATE_";
const SEPARATOR: &str = "__";
/// More than the deepest key has.
const MAX_PARTS: usize = 4;

/// Puts every override into the tree: `TIDEGATE_BROKER__TLS__CA` becomes `broker.tls.ca`.
///
/// Variables without a double underscore (`TIDEGATE_CONFIG`) are not overrides.
pub fn overlay(document: &mut Document, env: &[(String, String)]) {
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if !rest.contains(SEPARATOR) {
            continue;
        }
        let keys: Vec<String> = rest.split(SEPARATOR).map(str::to_lowercase).collect();
        let place = Place::Variable(name.clone());
        let node = Node { place: place.clone(), value: Value::Variable(value.clone()) };
        let message = if keys.len() > MAX_PARTS || keys.iter().any(String::is_empty) {
            "expected the form TIDEGATE_<SECTION>__<KEY>"
        } else if insert(&mut document.root, &keys, node) {
            continue;
        } else {
            "a list can't be set by a variable; write it in the configuration file"
        };
        document.faults.push(Fault { place, key: keys.join("."), message: message.to_owned(), suggestion: None });
    }
}

/// Whether `node` could be put at `keys`; not below a list.
fn insert(at: &mut Node, keys: &[String], node: Node) -> bool {
    let Some((first, rest)) = keys.split_first() else {
        let list = matches!(at.value, Value::List(_));
        if !list {
            *at = node;
        }
        return !list;
    };
    let place = node.place.clone();
    match &mut at.value {
        Value::List(_) => false,
        Value::Table(table) => {
            let empty = || Node { place, value: Value::Table(Table::new()) };
            insert(table.entry(first.clone()).or_insert_with(empty), rest, node)
        }
        other => {
            *other = Value::Table(Table::new());
            insert(at, keys, node)
        }
    }
}

/// Faults for variables that look like an override written with single underscores, given all keys there are.
pub fn near_misses<'a>(env: &[(String, String)], keys: impl IntoIterator<Item = &'a str> + Clone) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, _) in env {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if rest.contains(SEPARATOR) {
            continue;
        }
        let meant = keys.clone().into_iter().find(|key| key.contains('.') && variable(key, "_") == *rest);
        if let Some(meant) = meant {
            faults.push(Fault {
                place: Place::Variable(name.clone()),
                key: String::new(),
                message: "is not read: a section and its key are joined by two underscores".to_owned(),
                suggestion: Some(format!("did you mean `{PREFIX}{}`?", variable(meant, SEPARATOR))),
            });
        }
    }
    faults
}

/// The variable to suggest for a misspelt override.
pub fn suggest<'a>(path: &str, key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let meant = nearest(key, known)?;
    let full = super::document::join(path, meant);
    let rest = if path.is_empty() { "__…" } else { "" };
    Some(format!("did you mean `{PREFIX}{}{rest}`?", variable(&full, SEPARATOR)))
}

fn variable(dotted: &str, separator: &str) -> String {
    dotted.to_uppercase().replace('.', separator)
}

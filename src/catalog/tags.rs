//! Texts that people put on devices and on rules, by names of their own: `tags = { floor = "2" }`.

use std::collections::BTreeMap;

use super::MAX_NAME;
use crate::config::document::Value;
use crate::config::fault::Wrong;
use crate::config::section::Section;

/// Most tags of one device, or labels of one rule.
const MAX_TAGS: usize = 32;
/// Most bytes of a tag's name.
const MAX_TAG: usize = 64;

/// The table at `key`; empty where it is absent.
pub(crate) fn read(section: &mut Section<'_>, key: &'static str) -> BTreeMap<String, String> {
    let tags = section.table(key, |section| {
        let mut tags = BTreeMap::new();
        for (name, node) in section.entries() {
            match tag(name, &node.value) {
                Ok(text) => drop(tags.insert(name.to_owned(), text)),
                Err(wrong) => section.fault(name, wrong),
            }
        }
        tags
    });
    if tags.len() > MAX_TAGS {
        section.fault(key, format!("{} are given, {MAX_TAGS} are the most", tags.len()));
    }
    tags
}

/// What is wrong with a tag's name.
pub(crate) fn name_fault(name: &str) -> Option<Wrong> {
    let wrong = name.is_empty() || name.len() > MAX_TAG || name.chars().any(char::is_control);
    wrong.then(|| format!("expected a name of 1 to {MAX_TAG} bytes without control characters").into())
}

fn tag(name: &str, value: &Value) -> Result<String, Wrong> {
    if let Some(wrong) = name_fault(name) {
        return Err(wrong);
    }
    let suggestion = match value {
        Value::Text(text) if text.len() > MAX_NAME || text.chars().any(char::is_control) => {
            return Err(format!("expected at most {MAX_NAME} bytes without control characters").into());
        }
        Value::Text(text) => return Ok(text.clone()),
        Value::Integer(number) => Some(format!("write \"{number}\"")),
        Value::Float(number) => Some(format!("write \"{number}\"")),
        Value::Flag(flag) => Some(format!("write \"{flag}\"")),
        _ => None,
    };
    Err(Wrong::new(format!("expected a text in quotes, found {}", value.kind())).suggest(suggestion))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::document::Document;
    use crate::config::section::Findings;

    fn read_text(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
        let findings = Findings::default();
        let document = Document::parse(&Arc::from(Path::new("d.toml")), text);
        let tags = findings.read(&document, |root| read(root, "tags"));
        (tags, findings.into_inner().faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn tags_are_texts_within_their_limits() {
        let (tags, faults) = read_text("tags = { floor = \"2\", \"room name\" = \"\" }");
        assert_eq!(faults, [""; 0]);
        assert_eq!(tags, BTreeMap::from([("floor".into(), "2".into()), ("room name".into(), String::new())]));
        let (_, faults) = read_text("[tags]\nfloor = 2\n\"\" = \"x\"\nlong = [\"x\"]\n");
        assert_eq!(
            faults,
            [
                "d.toml:3: tags.: expected a name of 1 to 64 bytes without control characters",
                "d.toml:2: tags.floor: expected a text in quotes, found an integer (write \"2\")",
                "d.toml:4: tags.long: expected a text in quotes, found a list",
            ]
        );
        let many: String = (0..33).map(|n| format!("t{n} = \"x\"\n")).collect();
        assert_eq!(read_text(&format!("[tags]\n{many}")).1, ["d.toml:1: tags: 33 are given, 32 are the most"]);
    }
}

//! One file of `templates/`: a device type as an operator writes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::derived_file::{self, DerivedFile};
use super::dialect_file;
use super::example::{self, Example};
use super::matching_file::{self, MatchFile};
use super::metric_file::is_metric_name;
use super::references::Placed;
use super::vain::PlacedMatch;
use super::{KeyMap, MAX_METRIC, MAX_NAME, MAX_SLUG, Slot, Template, TemplateCommand, metric_file};
use crate::config::document::{Document, Value};
use crate::config::fault::Wrong;
use crate::config::section::{Findings, Section};

/// What a slot can be (`slot.interface`).
pub const INTERFACES: [&str; 10] = ["analog", "rs485", "i2c", "spi", "1-wire", "gpio", "usb", "fsk", "ble", "lora"];

/// The category of a template that neither gives nor inherits one.
const CATEGORY: &str = "sensor";
/// Shortest and longest `expected_interval`.
const EXPECTED_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);
/// The wait for a command's answer where the template names none.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A template as its own file has it, with the places of what must be checked against other files.
pub(super) struct TemplateFile {
    /// Without what it has from its parents, until [`super::extends::flatten`].
    pub template: Template,
    pub slug: Placed<String>,
    pub extends: Option<Placed<String>>,
    /// Every source that a `[match]` names.
    pub sources: Vec<Placed<String>>,
    /// Of each `[match]`.
    pub matched_at: Vec<Placed<()>>,
    /// Whether the file itself gives a category.
    pub has_category: bool,
    /// Whether the file itself has a `[command_dialect]`.
    pub has_dialect: bool,
    /// Of the formulas of `template.derived`.
    pub derived: Vec<Placed<()>>,
    /// Names of derived metrics that could not be read.
    pub broken: Vec<String>,
    /// Every slug that a slot calls compatible.
    pub compatible: Vec<Placed<String>>,
    pub examples: Vec<Example>,
}

/// Reads a template; none where it has no usable slug, which is a fault then.
pub(super) fn read(document: &Document, findings: &Findings) -> Option<TemplateFile> {
    findings.read(document, template)
}

fn template(root: &mut Section<'_>) -> Option<TemplateFile> {
    let text = root.required_text("slug");
    let slug = text.filter(|text| match slug_fault(text) {
        Some(wrong) => {
            root.fault("slug", wrong);
            false
        }
        None => true,
    });
    let slug = slug.map(|slug| placed(root, "slug", slug));
    let extends = root.text("extends").map(|slug| placed(root, "extends", slug));
    let name = root.parsed("name", "a text", display_name);
    let category = root.parsed("category", "a text", |text| slug_fault(text).map_or(Ok(text.to_owned()), Err));
    let has_category = category.is_some();
    let version = root.integer("version", 1..=i32::MAX.unsigned_abs()).unwrap_or(1);
    let tenant = root.parsed("tenant", "a text", super::device_file::name_in_topic);
    let manufacturer = root.parsed("manufacturer", "a text", display_name);
    let models = root.texts("models").unwrap_or_default().into_iter().map(|(model, _)| model.to_owned()).collect();
    let reference = root.parsed("reference", "a text", display_name);
    let expected_interval = root.duration("expected_interval", EXPECTED_INTERVALS);
    let MatchFile { matching, places: matched_at, sources } = matching_file::read(root);

    let (metrics, claims) = metric_file::read(root);
    let metrics: Vec<_> = metrics.into_iter().map(Arc::new).collect();
    let DerivedFile { derived, places, broken } = derived_file::read(root);
    let names = claims.names.keys().map(String::as_str);
    each_once(root, "derived", names, derived.iter().map(|derived| derived.name.as_str()));
    let commands = root.tables("command", command).unwrap_or_default();
    let dialect = dialect_file::dialect(root);
    each_once(root, "command", [], commands.iter().map(|command| command.name.as_str()));
    let mut compatible = Vec::new();
    let slots = root.tables("slot", |section| slot(section, &mut compatible)).unwrap_or_default();
    each_once(root, "slot", [], slots.iter().map(|slot| slot.name.as_str()));
    let examples = example::read(root);

    let slug = slug?;
    let template = Template {
        name: name.unwrap_or_else(|| slug.value.clone()),
        slug: slug.value.clone(),
        category: category.unwrap_or_else(|| CATEGORY.to_owned()),
        version,
        tenant,
        extends: extends.as_ref().map(|parent| parent.value.clone()),
        manufacturer,
        models,
        reference,
        expected_interval,
        matching,
        keys: KeyMap::of(&metrics),
        metrics,
        derived,
        commands,
        dialect: dialect.clone().unwrap_or_default(),
        slots,
    };
    let has_dialect = dialect.is_some();
    Some(TemplateFile {
        template,
        slug,
        extends,
        sources,
        matched_at,
        has_category,
        has_dialect,
        derived: places,
        broken,
        compatible,
        examples,
    })
}

impl TemplateFile {
    /// Its `[match]`es, with their places.
    pub(super) fn matches(&self) -> impl Iterator<Item = PlacedMatch> {
        let pairs = self.template.matching.iter().zip(&self.matched_at);
        pairs.map(|(criteria, at)| PlacedMatch {
            criteria: criteria.clone(),
            slug: self.slug.value.clone(),
            at: at.clone(),
        })
    }
}

fn placed(root: &Section<'_>, key: &str, value: &str) -> Placed<String> {
    Placed { value: value.to_owned(), place: root.place_of(key), key: root.path_of(key) }
}

fn command(section: &mut Section<'_>) -> TemplateCommand {
    let name = section.required_text("name").unwrap_or_default().to_owned();
    if section.has("name") && !is_metric_name(&name) {
        section.fault(
            "name",
            format!("expected 1 to {MAX_METRIC} of the characters A-Z a-z 0-9 _ . -, such as \"set_interval\""),
        );
    }
    let timeouts = Duration::from_millis(100)..=Duration::from_secs(30 * 24 * 3600);
    let timeout = section.duration("timeout", timeouts).unwrap_or(COMMAND_TIMEOUT);
    let parameters = match section.node("parameters") {
        None => serde_json::json!({ "type": "object" }),
        Some(node) => {
            if !matches!(node.value, Value::Table(_)) {
                section.fault("parameters", format!("expected a JSON Schema as a table, found {}", node.value.kind()));
            }
            node.json()
        }
    };
    let manner = dialect_file::manner(section, &parameters);
    TemplateCommand { name, timeout, parameters, manner }
}

fn slot(section: &mut Section<'_>, all: &mut Vec<Placed<String>>) -> Slot {
    let name = section.required_text("name").unwrap_or_default().to_owned();
    if section.has("name")
        && let Some(wrong) = slug_fault(&name)
    {
        section.fault("name", wrong);
    }
    let words = INTERFACES.map(|word| (word, word));
    let interface = section.word("interface", &words);
    if !section.has("interface") {
        section.fault_here(format!("interface is missing, expected one of {}", INTERFACES.join(", ")));
    }
    let mut compatible = Vec::new();
    for (slug, place) in section.texts("compatible").unwrap_or_default() {
        all.push(Placed { value: slug.to_owned(), place, key: section.path_of("compatible") });
        compatible.push(slug.to_owned());
    }
    Slot { name, interface: interface.unwrap_or_default().to_owned(), compatible }
}

/// Notes each of a list of tables whose name is another's, or a metric's.
fn each_once<'a>(
    root: &Section<'_>,
    key: &str,
    metrics: impl IntoIterator<Item = &'a str>,
    names: impl Iterator<Item = &'a str>,
) {
    let mut seen: HashMap<&str, &str> = metrics.into_iter().map(|name| (name, "metric")).collect();
    for (index, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
        if let Some(earlier) = seen.insert(name, key) {
            let place = root.place_in(key, index);
            let what = if earlier == key { format!("an earlier {key}") } else { format!("a {earlier}") };
            root.fault_at(place, &format!("{key}[{index}].name"), format!("\"{name}\" is the name of {what}"));
        }
    }
}

/// What is wrong with a slug: 1 to [`MAX_SLUG`] of `a-z 0-9 - _ .`, a letter or digit first.
pub(crate) fn slug_fault(text: &str) -> Option<Wrong> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if first && text.len() <= MAX_SLUG && text.bytes().all(allowed) {
        return None;
    }
    let message =
        format!("\"{text}\": expected 1 to {MAX_SLUG} of the characters a-z 0-9 - _ ., a letter or digit first");
    let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.by_ref().collect::<Vec<_>>().join("-").to_lowercase();
    let suggestion = Some(slug).filter(|slug| !slug.is_empty() && slug.len() <= MAX_SLUG);
    Some(Wrong::new(message).suggest(suggestion.map(|slug| format!("perhaps `{slug}`"))))
}

/// 1 to [`MAX_NAME`] bytes without control characters.
pub(crate) fn display_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {MAX_NAME} bytes without control characters").into());
    }
    Ok(text.to_owned())
}

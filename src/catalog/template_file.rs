//! One file of `templates/`: a device type as an operator writes it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::references::Placed;
use super::{Kind, Metric, Slot, Template, TemplateCommand, unit};
use crate::config::document::{Document, Node, Value};
use crate::config::fault::Wrong;
use crate::config::section::{Findings, Section, as_number};

/// What a slot can be (`slot.interface`).
pub const INTERFACES: [&str; 10] = ["analog", "rs485", "i2c", "spi", "1-wire", "gpio", "usb", "fsk", "ble", "lora"];

/// Most bytes of a slug, a category, or a slot's or a command's name.
pub const MAX_SLUG: usize = 64;
/// Most bytes of a metric's name.
pub const MAX_METRIC: usize = 128;
/// Most bytes of a display name, or of a raw key.
pub const MAX_NAME: usize = 255;
/// The wait for a command's answer where the template names none.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A template with the places of what must be checked against other files.
pub(super) struct TemplateFile {
    pub template: Template,
    pub slug: Placed<String>,
    /// Every slug that a slot calls compatible.
    pub compatible: Vec<Placed<String>>,
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
    let slug = slug.map(|slug| Placed { value: slug.to_owned(), place: root.place_of("slug"), key: "slug".to_owned() });
    let name = root.parsed("name", "a text", display_name);
    let category = root.parsed("category", "a text", |text| slug_fault(text).map_or(Ok(text.to_owned()), Err));
    let version = root.integer("version", 1..=i32::MAX.unsigned_abs()).unwrap_or(1);

    let mut claims = Claims::default();
    let mut metrics = root.tables("metric", |section| metric(section, &mut claims)).unwrap_or_default();
    answer_to_own_names(&mut metrics, &mut claims);
    let commands = root.tables("command", command).unwrap_or_default();
    each_once(root, "command", commands.iter().map(|command| command.name.as_str()));
    let mut compatible = Vec::new();
    let slots = root.tables("slot", |section| slot(section, &mut compatible)).unwrap_or_default();
    each_once(root, "slot", slots.iter().map(|slot| slot.name.as_str()));

    let slug = slug?;
    let template = Template {
        name: name.unwrap_or_else(|| slug.value.clone()),
        slug: slug.value.clone(),
        category: category.unwrap_or_else(|| "sensor".to_owned()),
        version,
        metrics,
        commands,
        slots,
        keys: claims.keys,
    };
    Some(TemplateFile { template, slug, compatible })
}

/// A metric's own name is its last raw key, unless another metric lists it: so that what a device already calls by
/// the vocabulary's name lands in the same series, scaled and checked like the rest.
fn answer_to_own_names(metrics: &mut [Metric], claims: &mut Claims) {
    for (index, metric) in metrics.iter_mut().enumerate() {
        if !metric.name.is_empty() && !claims.keys.contains_key(&metric.name) {
            claims.keys.insert(metric.name.clone(), index);
            metric.keys.push(metric.name.clone());
        }
    }
}

/// Which names and raw keys the metrics of one template have taken.
#[derive(Default)]
struct Claims {
    names: HashMap<String, usize>,
    keys: HashMap<String, usize>,
    count: usize,
}

fn metric(section: &mut Section<'_>, claims: &mut Claims) -> Metric {
    let index = claims.count;
    claims.count = index.saturating_add(1);
    let name = section.required_text("name").unwrap_or_default().to_owned();
    if section.has("name") {
        if !is_metric_name(&name) {
            let message = format!(
                "expected 1 to {MAX_METRIC} of the characters A-Z a-z 0-9 _ . -, a letter or digit first, such as \"room_temperature\""
            );
            section.fault("name", message);
        } else if claims.names.insert(name.clone(), index).is_some() {
            section.fault("name", format!("\"{name}\" is the name of an earlier metric"));
        }
    }
    let kinds = [("number", Kind::Number), ("bool", Kind::Bool), ("text", Kind::Text)];
    let kind = section.word("kind", &kinds).unwrap_or(Kind::Number);
    let metric = Metric {
        keys: keys(section, &name, index, claims),
        name,
        unit: section.parsed("unit", "a unit such as \"°C\"", unit_of).unwrap_or_default(),
        kind,
        scale: section.number("scale").unwrap_or(1.0),
        offset: section.number("offset").unwrap_or(0.0),
        range: range(section),
        required: section.flag("required").unwrap_or(false),
        values: values(section, kind),
        min_step: min_step(section),
    };
    if metric.scale == 0.0 {
        section.fault("scale", "is 0, which would make every value the same");
    }
    suits_kind(section, kind);
    metric
}

fn suits_kind(section: &Section<'_>, kind: Kind) {
    let (word, useless): (&str, &[&str]) = match kind {
        Kind::Number => return,
        Kind::Bool => ("bool", &["scale", "offset", "range", "min_step", "non_decreasing"]),
        Kind::Text => ("text", &["scale", "offset", "range", "min_step", "non_decreasing", "values"]),
    };
    for key in useless.iter().filter(|key| section.has(key)) {
        section.fault(key, format!("has no meaning for kind = \"{word}\""));
    }
}

/// The raw keys; the metric's name where none are given.
fn keys(section: &mut Section<'_>, name: &str, index: usize, claims: &mut Claims) -> Vec<String> {
    let given = section.texts("keys");
    if given.as_ref().is_some_and(Vec::is_empty) {
        section.fault("keys", "is empty, so that nothing could arrive; leave it out to use the metric's name");
    }
    let default = || if name.is_empty() { Vec::new() } else { vec![(name, section.place())] };
    let mut keys = Vec::new();
    for (key, place) in given.unwrap_or_else(default) {
        if key.is_empty() || key.len() > MAX_NAME || key.contains('\0') {
            section.fault_at(place, "keys", format!("expected keys of 1 to {MAX_NAME} bytes without NUL"));
            continue;
        }
        match claims.keys.insert(key.to_owned(), index) {
            None => keys.push(key.to_owned()),
            Some(earlier) if earlier == index => {
                section.fault_at(place, "keys", format!("\"{key}\" is listed twice"));
            }
            Some(earlier) => {
                let holder = claims.names.iter().find(|(_, at)| **at == earlier).map_or("", |(name, _)| name.as_str());
                section.fault_at(place, "keys", format!("\"{key}\" is claimed by the metric \"{holder}\" too"));
            }
        }
    }
    keys
}

fn unit_of(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || unit::find(text).is_some() {
        return Ok(text.to_owned());
    }
    let meant = unit::meant(text).map(|unit| format!("did you mean `{}`?", unit.display));
    let suggestion = meant.or_else(|| Some("leave it out for a bare number".to_owned()));
    Err(Wrong::new(format!("\"{text}\" is no unit that tidegate knows")).suggest(suggestion))
}

fn range(section: &mut Section<'_>) -> Option<(f64, f64)> {
    let numbers = section.numbers("range")?;
    match *numbers.as_slice() {
        [low, high] if low <= high => Some((low, high)),
        [low, high] => {
            section.fault("range", format!("the lower bound {low} is above the upper bound {high}"));
            None
        }
        _ => {
            section.fault("range", format!("expected [lowest, highest], found {} numbers", numbers.len()));
            None
        }
    }
}

fn values(section: &mut Section<'_>, kind: Kind) -> BTreeMap<String, f64> {
    section.table("values", |section| {
        let mut values = BTreeMap::new();
        for (word, node) in section.entries() {
            let number = match &node.value {
                Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
                other => as_number(other),
            };
            match number {
                Some(number) if kind == Kind::Bool && number != 0.0 && number != 1.0 => {
                    section.fault(word, format!("is {number}; for kind = \"bool\" expected 0 or 1"));
                }
                Some(number) => drop(values.insert(word.to_owned(), number)),
                None => section.fault(word, format!("expected a finite number, found {}", node.value.kind())),
            }
        }
        values
    })
}

fn min_step(section: &mut Section<'_>) -> Option<f64> {
    let step = section.number("min_step");
    if step.is_some_and(|step| step < 0.0) {
        section.fault("min_step", "is below 0, expected the least rise from one value to the next");
    }
    let non_decreasing = section.flag("non_decreasing").unwrap_or(false);
    if step.is_some() && non_decreasing {
        section.fault("non_decreasing", "is the same as min_step = 0; give one of them");
    }
    step.or(non_decreasing.then_some(0.0))
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
            json(node)
        }
    };
    TemplateCommand { name, timeout, parameters }
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

fn each_once<'a>(root: &Section<'_>, key: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen = HashMap::new();
    for (index, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
        if seen.insert(name, index).is_some() {
            let place = root.place_in(key, index);
            root.fault_at(
                place,
                &format!("{key}[{index}].name"),
                format!("\"{name}\" is the name of an earlier {key}"),
            );
        }
    }
}

/// TOML as JSON; dates as text.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Text(text) | Value::Variable(text) | Value::Moment(text) => text.as_str().into(),
        Value::Integer(integer) => match i64::try_from(*integer) {
            Ok(integer) => integer.into(),
            Err(_) => (*integer as f64).into(),
        },
        Value::Float(float) => (*float).into(),
        Value::Flag(flag) => (*flag).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Table(table) => {
            serde_json::Value::Object(table.iter().map(|(key, node)| (key.clone(), json(node))).collect())
        }
    }
}

/// What is wrong with a slug: 1 to [`MAX_SLUG`] of `a-z 0-9 - _ .`, a letter or digit first.
pub(super) fn slug_fault(text: &str) -> Option<Wrong> {
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

fn is_metric_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    first && text.len() <= MAX_METRIC && text.bytes().all(allowed)
}

/// 1 to [`MAX_NAME`] bytes without control characters.
pub(super) fn display_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {MAX_NAME} bytes without control characters").into());
    }
    Ok(text.to_owned())
}

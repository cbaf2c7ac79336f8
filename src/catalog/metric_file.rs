//! `[[metric]]` of a template: a named quantity, and the raw keys that carry it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::key_file;
use super::pattern::{Pattern, words_in_name};
use super::{Key, Kind, MAX_METRIC, MAX_NAME, Metric, unit};
use crate::config::document::Value;
use crate::config::fault::Wrong;
use crate::config::section::{Section, as_number};

/// Levels of a path in a device's reported state.
const MAX_TWIN_LEVELS: usize = 4;

/// Which names and raw keys the metrics of one template have taken.
#[derive(Default)]
pub(super) struct Claims {
    pub names: HashMap<String, usize>,
    /// By the shape of the key's pattern.
    pub keys: HashMap<String, usize>,
    count: usize,
}

/// All metrics of a template.
pub(super) fn read(root: &mut Section<'_>) -> (Vec<Metric>, Claims) {
    let mut claims = Claims::default();
    let mut metrics = root.tables("metric", |section| metric(section, &mut claims)).unwrap_or_default();
    answer_to_own_names(&mut metrics, &mut claims);
    (metrics, claims)
}

/// A metric's own name is its last raw key, unless another metric lists it: so that what a device already calls by
/// the vocabulary's name lands in the same series, scaled and checked like the rest.
fn answer_to_own_names(metrics: &mut [Metric], claims: &mut Claims) {
    for (index, metric) in metrics.iter_mut().enumerate().filter(|(_, metric)| !metric.name.is_empty()) {
        for pattern in metric.own_name() {
            if let Entry::Vacant(free) = claims.keys.entry(pattern.shape()) {
                free.insert(index);
                metric.keys.push(Key::of(pattern));
            }
        }
    }
}

fn metric(section: &mut Section<'_>, claims: &mut Claims) -> Metric {
    let index = claims.count;
    claims.count = index.saturating_add(1);
    let name = section.required_text("name").unwrap_or_default().to_owned();
    if section.has("name") {
        if let Some(wrong) = pattern_name_fault(&name) {
            section.fault("name", wrong);
        } else if claims.names.insert(name.clone(), index).is_some() {
            section.fault("name", format!("\"{name}\" is the name of an earlier metric"));
        }
    }
    let kinds = [("number", Kind::Number), ("bool", Kind::Bool), ("text", Kind::Text)];
    let mut metric = Metric {
        kind: section.word("kind", &kinds).unwrap_or(Kind::Number),
        unit: section.parsed("unit", "a unit such as \"°C\"", unit_of).unwrap_or_default(),
        name,
        keys: Vec::new(),
        scale: section.number("scale").unwrap_or(1.0),
        offset: section.number("offset").unwrap_or(0.0),
        range: range(section),
        required: section.flag("required").unwrap_or(false),
        values: BTreeMap::new(),
        words: words(section),
        min_step: min_step(section),
        twin: section.parsed("twin", "a dotted path, such as \"settings.interval\"", twin_path),
    };
    metric.values = values(section, metric.kind);
    metric.keys = key_file::read(section, &metric, index, claims);
    if metric.scale == 0.0 {
        section.fault("scale", "is 0, which would make every value the same");
    }
    if metric.required && !words_in_name(&metric.name).is_empty() {
        section.fault(
            "required",
            "can't be: before the first message nobody knows what the name's placeholder stands for",
        );
    }
    if metric.twin.is_some() && !words_in_name(&metric.name).is_empty() {
        section.fault("twin", "can't be: the metric's placeholder stands for several, and the path for one");
    }
    suits_kind(section, metric.kind);
    metric
}

/// Where in a device's reported state a metric is.
fn twin_path(text: &str) -> Result<Box<str>, Wrong> {
    let levels = text.split('.').count();
    if text.len() > MAX_NAME || text.contains('\0') || text.split('.').any(str::is_empty) {
        return Err(format!("expected 1 to {MAX_NAME} bytes, names with dots between them").into());
    }
    if levels > MAX_TWIN_LEVELS {
        return Err(format!("has {levels} levels, {MAX_TWIN_LEVELS} are the most").into());
    }
    Ok(text.into())
}

fn suits_kind(section: &Section<'_>, kind: Kind) {
    let useless: &[&str] = match kind {
        Kind::Number => &["words"],
        Kind::Bool => &["scale", "offset", "range", "min_step", "non_decreasing", "words"],
        Kind::Text => &["scale", "offset", "range", "min_step", "non_decreasing", "values"],
    };
    for key in useless.iter().copied().filter(|key| section.has(key)) {
        let suggestion = match key {
            "words" => Some("values gives numbers for raw values; words gives texts, for kind = \"text\""),
            "values" => Some("words gives texts for raw values"),
            _ => None,
        };
        let wrong = Wrong::new(format!("has no meaning for kind = \"{}\"", kind.word()));
        section.fault(key, wrong.suggest(suggestion.map(str::to_owned)));
    }
}

/// A unit as templates may have it, or none.
pub(super) fn unit_of(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || unit::find(text).is_some() {
        return Ok(text.to_owned());
    }
    let meant = unit::meant(text).map(|unit| format!("did you mean `{}`?", unit.display));
    let suggestion = meant.or_else(|| Some("leave it out for a bare number".to_owned()));
    Err(Wrong::new(format!("\"{text}\" is no unit that tidegate knows")).suggest(suggestion))
}

/// `range = [lowest, highest]`.
pub(super) fn range(section: &mut Section<'_>) -> Option<(f64, f64)> {
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

fn words(section: &mut Section<'_>) -> BTreeMap<String, String> {
    section.table("words", |section| {
        let mut words = BTreeMap::new();
        for (raw, node) in section.entries() {
            match &node.value {
                Value::Text(text) if (1..=MAX_NAME).contains(&text.len()) && !text.contains('\0') => {
                    words.insert(raw.to_owned(), text.clone());
                }
                Value::Text(_) => section.fault(raw, format!("expected 1 to {MAX_NAME} bytes without NUL")),
                other => section.fault(raw, format!("expected a text in quotes, found {}", other.kind())),
            }
        }
        words
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

/// What is wrong with a metric's name in which placeholders may stand.
fn pattern_name_fault(name: &str) -> Option<Wrong> {
    if !name.contains(['{', '}', '*']) {
        return metric_name_fault(name);
    }
    let pattern = match Pattern::parse(name) {
        Ok(pattern) => pattern,
        Err(wrong) => return Some(wrong),
    };
    if pattern.numbers() {
        let suggestion = Some("leave it out: from the second sensor on, its number is appended by itself".to_owned());
        return Some(Wrong::new(format!("\"{name}\" has a number's placeholder")).suggest(suggestion));
    }
    let mut plain = name.to_owned();
    for word in pattern.words() {
        plain = plain.replace(&format!("{{{word}}}"), "");
    }
    if !plain.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        let suggestion = Some("such as \"temperature_{channel}\"".to_owned());
        return Some(Wrong::new(format!("\"{name}\" says nothing beside its placeholders")).suggest(suggestion));
    }
    // A placeholder stands for at least one letter or digit or _.
    metric_name_fault(&name.replace(['{', '}'], ""))
}

/// What is wrong with a metric's name.
pub(super) fn metric_name_fault(name: &str) -> Option<Wrong> {
    let expected = format!(
        "expected 1 to {MAX_METRIC} of the characters A-Z a-z 0-9 _ . -, a letter or digit first, such as \"room_temperature\""
    );
    (!is_metric_name(name)).then(|| Wrong::new(expected))
}

/// 1 to [`MAX_METRIC`] of `A-Z a-z 0-9 _ . -`, a letter or digit first.
pub(super) fn is_metric_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    first && text.len() <= MAX_METRIC && text.bytes().all(allowed)
}

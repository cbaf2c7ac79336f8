//! Reads one table of a document: typed getters that note each fault, and what is left over is unknown.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Document, Node, Table, Value, join};
use super::environment;
use super::fault::{Fault, Place, Wrong, did_you_mean};

/// What the reading of documents has brought to light.
#[derive(Debug, Default)]
pub struct Findings {
    inner: RefCell<Found>,
}

/// The contents of [`Findings`].
#[derive(Debug, Default)]
pub struct Found {
    pub faults: Vec<Fault>,
    /// What works but should be put right.
    pub warnings: Vec<Fault>,
    /// Dotted key → where it was written, for every key that was.
    pub places: BTreeMap<String, Place>,
    /// Every dotted key that was asked for, without list indexes.
    pub known: BTreeSet<String>,
}

impl Findings {
    pub fn fault(&self, place: Place, key: impl Into<String>, wrong: impl Into<Wrong>) {
        let Wrong { message, suggestion } = wrong.into();
        self.inner.borrow_mut().faults.push(Fault { place, key: key.into(), message, suggestion });
    }

    pub fn warn(&self, place: Place, key: impl Into<String>, message: impl Into<String>) {
        let warning = Fault { place, key: key.into(), message: message.into(), suggestion: None };
        self.inner.borrow_mut().warnings.push(warning);
    }

    pub fn into_inner(self) -> Found {
        self.inner.into_inner()
    }

    /// Reads the root of a document, and notes its breaches of the grammar and of the schema.
    pub fn read<T>(&self, document: &Document, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let scratch = Findings::default();
        let value = Section::open(&document.root, "", &scratch, read);
        let mut found = scratch.into_inner();
        found.faults.retain(|fault| document.trusts(fault));
        self.inner.borrow_mut().faults.extend(document.faults.iter().cloned());
        self.add(found);
        value
    }

    /// Takes over what another reading has brought to light.
    pub fn add(&self, found: Found) {
        let mut inner = self.inner.borrow_mut();
        inner.faults.extend(found.faults);
        inner.warnings.extend(found.warnings);
        inner.places.extend(found.places);
        inner.known.extend(found.known);
    }
}

/// One table while it is read.
pub struct Section<'a> {
    table: Option<&'a Table>,
    place: Place,
    path: String,
    /// The path without list indexes.
    plain: String,
    asked: Vec<&'static str>,
    open_keys: bool,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    /// Reads a table with `read`, then notes the keys that nobody asked for.
    pub fn open<T>(node: &'a Node, path: &str, findings: &'a Findings, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        let table = match &node.value {
            Value::Table(table) => Some(table),
            other => {
                findings.fault(node.place.clone(), path, format!("expected a table, found {}", other.kind()));
                None
            }
        };
        let place = node.place.clone();
        let (path, plain) = (path.to_owned(), without_indexes(path));
        let mut section = Section { table, place, path, plain, asked: Vec::new(), open_keys: false, findings };
        let value = read(&mut section);
        section.close();
        value
    }

    fn close(self) {
        let Some(table) = self.table.filter(|_| !self.open_keys) else { return };
        for (key, node) in table {
            if self.asked.contains(&key.as_str()) {
                continue;
            }
            let suggestion = match node.place {
                Place::Variable(_) => environment::suggest(&self.path, key, self.asked.iter().copied()),
                _ => did_you_mean(key, self.asked.iter().copied()),
            };
            let suggestion = suggestion.or_else(|| Some(format!("known here: {}", self.asked.join(", "))));
            let wrong = Wrong::new("unknown key").suggest(suggestion);
            self.findings.fault(node.place.clone(), join(&self.path, key), wrong);
        }
    }

    /// Where the key was written; the table's place where it was not.
    pub fn place_of(&self, key: &str) -> Place {
        self.table.and_then(|table| table.get(key)).map_or_else(|| self.place.clone(), |node| node.place.clone())
    }

    pub fn place(&self) -> Place {
        self.place.clone()
    }

    pub fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes a fault of one key.
    pub fn fault(&self, key: &str, wrong: impl Into<Wrong>) {
        self.findings.fault(self.place_of(key), self.path_of(key), wrong);
    }

    /// Notes a fault of one key at a place of its own, such as an item of a list.
    pub fn fault_at(&self, place: Place, key: &str, wrong: impl Into<Wrong>) {
        self.findings.fault(place, self.path_of(key), wrong);
    }

    /// The place of an item of a list; the list's where there is no such item.
    pub fn place_in(&self, key: &str, index: usize) -> Place {
        let list = self.table.and_then(|table| table.get(key)).and_then(|node| as_list(&node.value));
        list.and_then(|items| items.get(index)).map_or_else(|| self.place_of(key), |item| item.place.clone())
    }

    /// Notes a fault of the table itself.
    pub fn fault_here(&self, wrong: impl Into<Wrong>) {
        self.findings.fault(self.place.clone(), self.path.clone(), wrong);
    }

    pub fn warn(&self, key: &str, message: impl Into<String>) {
        self.findings.warn(self.place_of(key), self.path_of(key), message);
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The value as written.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        let path = self.path_of(key);
        let node = self.table.and_then(|table| table.get(key));
        let mut found = self.findings.inner.borrow_mut();
        if let Some(node) = node {
            found.places.insert(path, node.place.clone());
        }
        found.known.insert(join(&self.plain, key));
        node
    }

    /// All entries of a table whose keys are the operator's own.
    pub fn entries(&mut self) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        self.open_keys = true;
        self.table.into_iter().flatten().map(|(key, node)| (key.as_str(), node))
    }

    /// The value as `convert` takes it; otherwise a fault says what was expected.
    fn typed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        let value = convert(&node.value);
        if value.is_none() {
            let found = match &node.value {
                Value::Variable(_) => "found something else".to_owned(),
                other => format!("found {}", other.kind()),
            };
            self.fault(key, format!("expected {expected}, {found}"));
        }
        value
    }

    pub fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.typed(key, "a text in quotes", as_text)
    }

    /// A text that must be there.
    pub fn required_text(&mut self, key: &'static str) -> Option<&'a str> {
        if !self.has(key) {
            self.asked.push(key);
            self.findings.inner.borrow_mut().known.insert(join(&self.plain, key));
            self.fault(key, "is missing");
            return None;
        }
        self.text(key)
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.typed(key, "true or false", |value| match value {
            Value::Flag(flag) => Some(*flag),
            Value::Variable(text) => text.trim().parse().ok(),
            _ => None,
        })
    }

    /// An integer within `range`.
    pub fn integer<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let integer = self.typed(key, "an integer", |value| match value {
            Value::Integer(integer) => Some(*integer),
            Value::Variable(text) => text.trim().parse().ok(),
            _ => None,
        })?;
        let value = T::try_from(integer).ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.fault(key, format!("{integer} is not within {} to {}", range.start(), range.end()));
        }
        value
    }

    /// A finite number.
    pub fn number(&mut self, key: &'static str) -> Option<f64> {
        self.typed(key, "a finite number", as_number)
    }

    /// A text that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let text = self.typed(key, expected, as_text)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.fault(key, wrong);
                None
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let names = || words.iter().map(|(name, _)| *name);
        let list = names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        self.parsed(key, &format!("one of {list}"), |text| match words.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(*value),
            None => Err(Wrong::new(format!("\"{text}\" is unknown, expected one of {list}"))
                .suggest(did_you_mean(text, names()))),
        })
    }

    /// A humantime duration within `range`.
    pub fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.parsed(key, "a duration such as \"30s\" or \"7d\"", |text| duration(text, &range))
    }

    /// Bytes, as `64MiB` or a plain integer, within `range`.
    pub fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = "a size such as \"64MiB\"";
        let size = self.typed(key, expected, |value| match value {
            Value::Integer(bytes) => Some(u64::try_from(*bytes).map_err(|_| bytes.to_string())),
            Value::Text(text) | Value::Variable(text) => {
                Some(text.trim().parse().map(|bytesize::ByteSize(bytes)| bytes).map_err(|_| text.clone()))
            }
            _ => None,
        })?;
        match size {
            Ok(size) if range.contains(&size) => Some(size),
            Ok(size) => {
                let [size, low, high] = [size, *range.start(), *range.end()].map(bytesize::ByteSize);
                self.fault(key, format!("{size} is not within {low} to {high}"));
                None
            }
            Err(text) => {
                self.fault(key, format!("\"{text}\" is not a size, expected {expected}"));
                None
            }
        }
    }

    /// A table; read as an empty one where it is absent, so that its keys are known.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        let path = self.path_of(key);
        match self.node(key) {
            Some(node) => Section::open(node, &path, self.findings, read),
            None => {
                let mut section = Section {
                    table: None,
                    place: self.place.clone(),
                    plain: without_indexes(&path),
                    path,
                    asked: Vec::new(),
                    open_keys: false,
                    findings: self.findings,
                };
                read(&mut section)
            }
        }
    }

    /// A list of tables, each read by `read`; none where the key is absent or is no list.
    pub fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'a>) -> T) -> Option<Vec<T>> {
        let path = self.path_of(key);
        let expected = format!("a list of tables, each headed [[{}]]", without_indexes(&path));
        let items = self.typed(key, &expected, as_list)?;
        let findings = self.findings;
        let each = |(index, item)| Section::open(item, &format!("{path}[{index}]"), findings, &mut read);
        Some(items.iter().enumerate().map(each).collect())
    }

    /// A list whose items the caller reads, by [`Section::item`] where they are tables.
    pub fn items(&mut self, key: &'static str, expected: &str) -> Option<&'a [Node]> {
        self.typed(key, expected, as_list)
    }

    /// Reads a table below this one; `key`: as it is told.
    pub fn item<T>(&self, node: &'a Node, key: &str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        Section::open(node, &self.path_of(key), self.findings, read)
    }

    /// Reads the root of another document that this table names, with its faults among this one's.
    pub fn another<T>(&self, document: &Document, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        self.findings.read(document, read)
    }

    /// Whether it was written, and is a table.
    pub fn is_table(&self) -> bool {
        self.table.is_some()
    }

    /// Whether this key is in it, and no other.
    pub fn has_only(&self, key: &str) -> bool {
        self.has(key) && self.table.is_some_and(|table| table.len() == 1)
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.table.is_none_or(Table::is_empty)
    }

    /// A list of texts, each with its place.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<(&'a str, Place)>> {
        let items = self.typed(key, "a list of texts", as_list)?;
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match as_text(&item.value) {
                Some(text) => texts.push((text, item.place.clone())),
                None => {
                    let message = format!("expected a text in quotes, found {}", item.value.kind());
                    self.findings.fault(item.place.clone(), self.path_of(key), message);
                }
            }
        }
        Some(texts)
    }

    /// A list of finite numbers.
    pub fn numbers(&mut self, key: &'static str) -> Option<Vec<f64>> {
        self.typed(key, "a list of finite numbers", |value| {
            as_list(value)?.iter().map(|item| as_number(&item.value)).collect::<Option<Vec<f64>>>()
        })
    }
}

/// A humantime duration within `range`.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let duration = humantime::parse_duration(text.trim())
        .map_err(|error| Wrong::new(format!("\"{text}\" is not a duration such as \"30s\" or \"7d\": {error}")))?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let [low, high] = [*range.start(), *range.end()].map(humantime::format_duration);
    Err(Wrong::new(format!("{} is not within {low} to {high}", humantime::format_duration(duration))))
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) | Value::Variable(text) => Some(text),
        _ => None,
    }
}

/// A finite number.
pub fn as_number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Integer(integer) => *integer as f64,
        Value::Float(float) => *float,
        Value::Variable(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    Some(number).filter(|number| number.is_finite())
}

fn as_list(value: &Value) -> Option<&[Node]> {
    match value {
        Value::List(items) => Some(items),
        _ => None,
    }
}

/// `sources[3].filter` → `sources.filter`.
fn without_indexes(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|letter| match letter {
            '[' => {
                inside = true;
                false
            }
            ']' => {
                inside = false;
                false
            }
            _ => !inside,
        })
        .collect()
}

//! TOML text, JSON and environment variables → one tree in which every value knows where it was written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place};

/// Largest configuration or catalog file, bytes.
pub const MAX_FILE: u64 = 4 << 20;

/// A table's entries by key.
pub type Table = BTreeMap<String, Node>;

/// A value and its place; that of a table is its header's.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Flag(bool),
    /// A TOML date or time, as written.
    Moment(String),
    List(Vec<Node>),
    Table(Table),
    /// An environment variable's text: read as whatever the key wants.
    Variable(String),
}

impl Value {
    /// The type, with its article; never the value, which may be a secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Integer(_) => "an integer",
            Value::Float(float) if !float.is_finite() => "a number that is not finite",
            Value::Float(_) => "a number with a fraction",
            Value::Flag(_) => "true or false",
            Value::Moment(_) => "a date or time",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Variable(_) => "a plain value",
        }
    }
}

impl Node {
    /// As JSON; dates as text.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) | Value::Variable(text) | Value::Moment(text) => text.as_str().into(),
            Value::Integer(integer) => match i64::try_from(*integer) {
                Ok(integer) => integer.into(),
                Err(_) => (*integer as f64).into(),
            },
            Value::Float(float) => (*float).into(),
            Value::Flag(flag) => (*flag).into(),
            Value::List(items) => items.iter().map(Node::json).collect(),
            Value::Table(table) => {
                serde_json::Value::Object(table.iter().map(|(key, node)| (key.clone(), node.json())).collect())
            }
        }
    }
}

/// A document as far as it could be read.
#[derive(Debug)]
pub struct Document {
    pub root: Node,
    /// Breaches of TOML's grammar.
    pub faults: Vec<Fault>,
    /// First line from which keys may have landed in the wrong table, since a header is broken.
    pub unsure_from: Option<usize>,
}

impl Document {
    /// An empty document, at `place`.
    pub fn empty(place: Place) -> Document {
        Document { root: Node { place, value: Value::Table(Table::new()) }, faults: Vec::new(), unsure_from: None }
    }

    /// Reads and parses a file; a file that can't be read gives an empty document and a fault.
    pub fn read(path: &Path) -> Document {
        let file: Arc<Path> = Arc::from(path);
        match read_text(path, MAX_FILE) {
            Ok(text) => Document::parse(&file, &text),
            Err(message) => {
                let mut document = Document::empty(Place::File(file.clone()));
                document.faults.push(Fault { place: Place::File(file), key: String::new(), message, suggestion: None });
                document
            }
        }
    }

    /// Parses TOML, past its errors.
    pub fn parse(file: &Arc<Path>, text: &str) -> Document {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut builder = Builder { file, lines: Lines::of(text), faults: Vec::new() };
        let mut unsure_from = None;
        for error in errors {
            let line = builder.lines.at(error.span().map_or(0, |span| span.start));
            if text.lines().nth(line.saturating_sub(1)).is_some_and(|text| text.trim_start().starts_with('[')) {
                unsure_from = Some(unsure_from.map_or(line, |earlier: usize| earlier.min(line)));
            }
            let message = format!("not TOML: {}", error.message().trim());
            builder.fault(line, String::new(), message);
        }
        let root =
            Node { place: Place::File(file.clone()), value: Value::Table(builder.table(table.into_inner(), "")) };
        Document { root, faults: builder.faults, unsure_from }
    }

    /// JSON as if it were a file: all of it is at `place`. A key that is null counts as absent.
    pub fn of_json(place: &Place, json: &serde_json::Value) -> Document {
        let mut document = Document::empty(place.clone());
        if let Some(value) = of_json(place, json, "", &mut document.faults) {
            document.root.value = value;
        }
        document
    }

    /// Whether a fault found in the tree says something that a breach of the grammar does not explain.
    pub fn trusts(&self, fault: &Fault) -> bool {
        match &fault.place {
            _ if self.faults.is_empty() => true,
            Place::Line { line, .. } => {
                let broken = self.faults.iter().any(|breach| breach.place == fault.place);
                !broken && self.unsure_from.is_none_or(|from| *line < from)
            }
            // What the whole file lacks may be in the broken part.
            Place::File(_) => false,
            Place::Variable(_) | Place::Row(_) | Place::BuiltIn => true,
        }
    }
}

/// The text of a file of at most `max` bytes, or why not.
///
/// # Errors
/// A sentence without the file's name.
pub fn read_text(path: &Path, max: u64) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| format!("can't be read: {error}"))?;
    if metadata.is_dir() {
        return Err("is a directory, expected a file".to_owned());
    }
    if metadata.len() > max {
        return Err(format!("has {} bytes, more than the {max} allowed", metadata.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("can't be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| {
        format!("is not UTF-8: byte {} is invalid", error.utf8_error().valid_up_to().saturating_add(1))
    })
}

/// Byte offsets of the line ends.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index).collect())
    }

    /// 1-based.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset).saturating_add(1)
    }
}

struct Builder<'a> {
    file: &'a Arc<Path>,
    lines: Lines,
    faults: Vec<Fault>,
}

impl Builder<'_> {
    fn fault(&mut self, line: usize, key: String, message: String) {
        self.faults.push(Fault {
            place: Place::Line { file: self.file.clone(), line },
            key,
            message,
            suggestion: None,
        });
    }

    fn table(&mut self, table: DeTable<'_>, path: &str) -> Table {
        let mut entries = Table::new();
        for (key, value) in table {
            let line = self.lines.at(key.span().start);
            let key = key.into_inner().into_owned();
            let path = join(path, &key);
            let value = self.value(line, value.into_inner(), &path);
            entries.insert(key, Node { place: Place::Line { file: self.file.clone(), line }, value });
        }
        entries
    }

    fn value(&mut self, line: usize, value: DeValue<'_>, path: &str) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Boolean(flag) => Value::Flag(flag),
            DeValue::Datetime(moment) => Value::Moment(moment.to_string()),
            DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => {
                    self.fault(line, path.to_owned(), "the integer has too many digits".to_owned());
                    Value::Integer(0)
                }
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => Value::Float(float),
                Err(_) => {
                    self.fault(line, path.to_owned(), "the number can't be read".to_owned());
                    Value::Float(0.0)
                }
            },
            DeValue::Array(items) => Value::List(items.into_iter().map(|item| self.item(item, path)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table, path)),
        }
    }

    fn item(&mut self, item: Spanned<DeValue<'_>>, path: &str) -> Node {
        let line = self.lines.at(item.span().start);
        let value = self.value(line, item.into_inner(), path);
        Node { place: Place::Line { file: self.file.clone(), line }, value }
    }
}

/// None for null, which is a fault in a list and as the whole.
fn of_json(place: &Place, json: &serde_json::Value, path: &str, faults: &mut Vec<Fault>) -> Option<Value> {
    let value = match json {
        serde_json::Value::Null => {
            let (place, key, message) = (place.clone(), path.to_owned(), "null means nothing here".to_owned());
            faults.push(Fault { place, key, message, suggestion: None });
            return None;
        }
        serde_json::Value::Bool(flag) => Value::Flag(*flag),
        serde_json::Value::Number(number) => match number.as_i128() {
            Some(integer) => Value::Integer(integer),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => {
            let node = |value| Node { place: place.clone(), value };
            Value::List(items.iter().filter_map(|item| of_json(place, item, path, faults).map(node)).collect())
        }
        serde_json::Value::Object(entries) => {
            let entries = entries.iter().filter(|(_, value)| !value.is_null()).filter_map(|(key, value)| {
                let value = of_json(place, value, &join(path, key), faults)?;
                Some((key.clone(), Node { place: place.clone(), value }))
            });
            Value::Table(entries.collect())
        }
    };
    Some(value)
}

/// `path.key`, or `key` at the root.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_the_tree_that_the_same_toml_is_and_json_again() {
        let text = "a = 1\nb = 2.5\nc = true\nd = \"x\"\ne = [[1, -2.0], {}]\nf.g = 9223372036854775807\n";
        let toml = Document::parse(&Arc::from(Path::new("x.toml")), text);
        let json = toml.root.json();
        assert_eq!(
            json,
            serde_json::json!({
                "a": 1, "b": 2.5, "c": true, "d": "x", "e": [[1, -2.0], {}], "f": {"g": 9_223_372_036_854_775_807_i64}
            })
        );
        let row = Document::of_json(&Place::Row("a row".into()), &json);
        assert!(row.faults.is_empty());
        assert_eq!(row.root.json(), json);
    }

    #[test]
    fn null_is_absent_in_a_table_and_a_fault_in_a_list() {
        let place = Place::Row("alert_rules hot".into());
        let document = Document::of_json(&place, &serde_json::json!({"a": null, "b": {"c": [1, null]}}));
        assert_eq!(document.root.json(), serde_json::json!({"b": {"c": [1]}}));
        let faults: Vec<String> = document.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults, ["alert_rules hot: b.c: null means nothing here"]);
    }
}

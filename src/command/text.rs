//! Texts and JSON documents with placeholders, for what goes out to devices.
//!
//! `{id}` `{id_number}` `{id_uuid}` `{name}` `{tenant}` `{device}` `{gateway}` `{tag.NAME}` `{expires_at}` `{expires_s}` `{params}` `{params.PATH}`, each with a type
//! behind a colon and a default behind an equals sign where wanted: `{params.level:int=5}`. A brace before anything else is itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ident, is_level, path};
use crate::config::fault::{Wrong, did_you_mean};
use crate::time::UtcMicros;

/// Most bytes of a text with placeholders.
const MAX_TEXT: usize = 16 << 10;

const WORDS: [&str; 12] = [
    "id",
    "id_number",
    "id_uuid",
    "name",
    "tenant",
    "device",
    "gateway",
    "expires_at",
    "expires_s",
    "params",
    "params.…",
    "tag.…",
];
const TYPES: [(&str, Type); 5] =
    [("int", Type::Int), ("number", Type::Number), ("bool", Type::Bool), ("text", Type::Text), ("json", Type::Json)];

/// What placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub tenant: &'a str,
    pub device: &'a str,
    pub gateway: Option<&'a str>,
    pub tags: &'a BTreeMap<String, String>,
    pub params: &'a Value,
    pub expires_at: UtcMicros,
    /// Now.
    pub at: UtcMicros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Int,
    Number,
    Bool,
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Id,
    /// See [`ident`].
    IdNumber,
    IdUuid,
    Name,
    Tenant,
    Device,
    Gateway,
    Tag(String),
    ExpiresAt,
    ExpiresIn,
    /// Of the parameters; empty: all of them.
    Params(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Placeholder {
    /// As written, without its braces.
    written: String,
    source: Source,
    kind: Option<Type>,
    default: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    Place(Placeholder),
}

/// A text with placeholders.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text {
    written: String,
    parts: Vec<Part>,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

// What was written says all: the parts are read from it.
impl Eq for Text {}

impl Ord for Text {
    fn cmp(&self, other: &Text) -> std::cmp::Ordering {
        self.written.cmp(&other.written)
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Text) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.written
    }
}

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(written: String) -> Result<Text, String> {
        Text::parse(&written).map_err(|wrong| wrong.message)
    }
}

impl Text {
    /// Reads a text as written.
    ///
    /// # Errors
    /// Which placeholder is none, or what is wrong with its type.
    pub fn parse(written: &str) -> Result<Text, Wrong> {
        if written.len() > MAX_TEXT {
            return Err(format!("has {} bytes, {MAX_TEXT} are allowed", written.len()).into());
        }
        let mut parts = Vec::new();
        let (mut literal, mut rest) = (String::new(), written);
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal.push_str(before);
            let body = from.strip_prefix('{').unwrap_or_default();
            let close = body.find('}').filter(|_| body.starts_with(|first: char| first.is_ascii_alphabetic()));
            match close.and_then(|close| body.get(..close)) {
                Some(inner) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Place(placeholder(inner)?));
                    rest = body.get(inner.len().saturating_add(1)..).unwrap_or_default();
                }
                None => {
                    literal.push('{');
                    rest = body;
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Text { written: written.to_owned(), parts })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether the command's id is in it.
    pub fn has_id(&self) -> bool {
        self.places().any(|place| matches!(place.source, Source::Id | Source::IdNumber | Source::IdUuid))
    }

    /// First levels of the parameters that it needs.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.places().filter(|place| place.default.is_none()).filter_map(|place| match &place.source {
            Source::Params(path) if !path.is_empty() => path.split(['.', '[']).next(),
            _ => None,
        })
    }

    fn places(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(place) => Some(place),
            Part::Literal(_) => None,
        })
    }

    /// The text with everything in its place.
    ///
    /// # Errors
    /// The placeholder for which there is nothing, or nothing of its type.
    pub fn fill(&self, facts: &Facts<'_>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Place(place) => text.push_str(&path::plain(&place.value(facts)?)),
            }
        }
        Ok(text)
    }

    /// As [`Text::fill`], for a topic: what is put in can be no more than a level of it, but for the device's own name.
    ///
    /// # Errors
    /// As there, and where a value does not fit a topic.
    pub fn fill_topic(&self, facts: &Facts<'_>) -> Result<String, String> {
        let mut topic = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => topic.push_str(literal),
                Part::Place(place) => {
                    let text = path::plain(&place.value(facts)?);
                    let levels = matches!(place.source, Source::Device | Source::Gateway | Source::Tag(_));
                    let fits = if levels { text.split('/').all(is_level) } else { is_level(&text) };
                    if !fits {
                        return Err(format!("{{{}}} is {text:?}, which can't stand in a topic", place.written));
                    }
                    topic.push_str(&text);
                }
            }
        }
        Ok(topic)
    }

    /// A value rather than a text, where it is one placeholder and nothing else.
    fn fill_value(&self, facts: &Facts<'_>) -> Result<Value, String> {
        match self.parts.as_slice() {
            [Part::Place(place)] => place.value(facts),
            _ => self.fill(facts).map(Value::String),
        }
    }
}

impl Placeholder {
    fn value(&self, facts: &Facts<'_>) -> Result<Value, String> {
        let found = match &self.source {
            Source::Id => Some(Value::from(facts.id)),
            Source::IdNumber => Some(ident::number(facts.id).into()),
            Source::IdUuid => Some(ident::uuid(facts.id).into()),
            Source::Name => Some(facts.name.into()),
            Source::Tenant => Some(facts.tenant.into()),
            Source::Device => Some(facts.device.into()),
            Source::Gateway => facts.gateway.map(Value::from),
            Source::Tag(name) => facts.tags.get(name).map(|text| text.as_str().into()),
            Source::ExpiresAt => Some(facts.expires_at.to_string().into()),
            Source::ExpiresIn => Some(facts.expires_at.since(facts.at).as_secs().into()),
            Source::Params(path) => path::at(facts.params, path).cloned(),
        };
        let found = match (found, &self.default) {
            (Some(found), _) => found,
            (None, Some(default)) => Value::String(default.clone()),
            (None, None) => return Err(format!("there is nothing for the placeholder {{{}}}", self.written)),
        };
        let Some(kind) = self.kind else { return Ok(found) };
        convert(&found, kind).ok_or_else(|| format!("the placeholder {{{}}} can't take {found}", self.written))
    }
}

fn convert(value: &Value, kind: Type) -> Option<Value> {
    // A text may be a number or a truth value as text.
    let scalar = match value {
        Value::String(text) => {
            text.trim().parse::<Value>().ok().filter(|parsed| parsed.is_number() || parsed.is_boolean())
        }
        other => Some(other.clone()),
    };
    match kind {
        Type::Text => Some(Value::String(path::plain(value))),
        Type::Json => Some(match value {
            Value::String(text) => text.parse().unwrap_or_else(|_| value.clone()),
            other => other.clone(),
        }),
        Type::Number => scalar.filter(Value::is_number),
        Type::Int => match scalar? {
            Value::Bool(flag) => Some(Value::from(i64::from(flag))),
            Value::Number(number) if number.is_i64() || number.is_u64() => Some(Value::Number(number)),
            Value::Number(number) => {
                let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
                Some(Value::from(float as i64))
            }
            _ => None,
        },
        Type::Bool => match scalar? {
            Value::Bool(flag) => Some(flag.into()),
            Value::Number(number) => match number.as_i64()? {
                0 => Some(false.into()),
                1 => Some(true.into()),
                _ => None,
            },
            _ => None,
        },
    }
}

fn placeholder(written: &str) -> Result<Placeholder, Wrong> {
    let (rest, default) = match written.split_once('=') {
        Some((rest, default)) => (rest, Some(default.to_owned())),
        None => (written, None),
    };
    let (name, kind) = match rest.split_once(':') {
        Some((name, word)) => {
            let kind = TYPES.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind);
            let kind = kind.ok_or_else(|| {
                Wrong::new(format!("{{{written}}}: {word:?} is no type, expected int, number, bool, text or json"))
                    .suggest(did_you_mean(word, TYPES.map(|(known, _)| known)))
            })?;
            (name, Some(kind))
        }
        None => (rest, None),
    };
    let source = match name {
        "id" => Source::Id,
        "id_number" => Source::IdNumber,
        "id_uuid" => Source::IdUuid,
        "name" => Source::Name,
        "tenant" => Source::Tenant,
        "device" => Source::Device,
        "gateway" => Source::Gateway,
        "expires_at" => Source::ExpiresAt,
        "expires_s" => Source::ExpiresIn,
        "params" => Source::Params(String::new()),
        other => match other.split_once('.') {
            Some(("params", path)) if !path.is_empty() => Source::Params(path.to_owned()),
            Some(("tag", name)) if !name.is_empty() => Source::Tag(name.to_owned()),
            _ => {
                let suggestion = did_you_mean(other, WORDS).or_else(|| Some(format!("known: {}", WORDS.join(", "))));
                return Err(Wrong::new(format!("{{{written}}} is no placeholder")).suggest(suggestion));
            }
        },
    };
    Ok(Placeholder { written: written.to_owned(), source, kind, default })
}

/// A JSON document whose texts have placeholders; one that is a placeholder and nothing else becomes a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Document {
    Text(Text),
    Object(BTreeMap<String, Document>),
    List(Vec<Document>),
    Plain(Value),
}

impl Document {
    /// Reads a document as written.
    ///
    /// # Errors
    /// As [`Text::parse`].
    pub fn parse(value: &Value) -> Result<Document, Wrong> {
        Ok(match value {
            Value::String(text) => Document::Text(Text::parse(text)?),
            Value::Object(members) => {
                let members = members.iter().map(|(key, value)| Ok((key.clone(), Document::parse(value)?)));
                Document::Object(members.collect::<Result<_, Wrong>>()?)
            }
            Value::Array(items) => Document::List(items.iter().map(Document::parse).collect::<Result<_, Wrong>>()?),
            plain => Document::Plain(plain.clone()),
        })
    }

    /// The document with everything in its place.
    ///
    /// # Errors
    /// As [`Text::fill`].
    pub fn fill(&self, facts: &Facts<'_>) -> Result<Value, String> {
        match self {
            Document::Text(text) => text.fill_value(facts),
            Document::Object(members) => {
                let members = members.iter().map(|(key, member)| Ok((key.clone(), member.fill(facts)?)));
                members.collect::<Result<_, String>>().map(Value::Object)
            }
            Document::List(items) => items.iter().map(|item| item.fill(facts)).collect(),
            Document::Plain(plain) => Ok(plain.clone()),
        }
    }

    /// Calls `see` with each text in it.
    pub fn texts<'d>(&'d self, see: &mut dyn FnMut(&'d Text)) {
        match self {
            Document::Text(text) => see(text),
            Document::Object(members) => members.values().for_each(|member| member.texts(see)),
            Document::List(items) => items.iter().for_each(|item| item.texts(see)),
            Document::Plain(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with<T>(params: Value, then: impl FnOnce(&Facts<'_>) -> T) -> T {
        let tags = BTreeMap::from([("app".to_owned(), "a/7".to_owned())]);
        then(&Facts {
            id: "c1",
            name: "set",
            tenant: "default",
            device: "d1",
            gateway: None,
            tags: &tags,
            params: &params,
            expires_at: UtcMicros(61_000_000),
            at: UtcMicros(1_000_000),
        })
    }

    fn fill(text: &str, params: Value) -> Result<String, String> {
        with(params, |facts| Text::parse(text).unwrap().fill(facts))
    }

    #[test]
    fn placeholders_are_filled_and_other_braces_stay() {
        let text = r#"{"m":"{name}","id":"{id}","p":{params},"v":{params.a[1]:number},"s":{expires_s}}"#;
        let filled = fill(text, json!({ "a": [1, "2.5"] })).unwrap();
        assert_eq!(filled, r#"{"m":"set","id":"c1","p":{"a":[1,"2.5"]},"v":2.5,"s":60}"#);
        assert_eq!(fill("{ } {1} {", json!({})).unwrap(), "{ } {1} {");
        assert_eq!(fill("", json!({})).unwrap(), "");
        assert_eq!(fill("{params.x:int=5} {params.y=ON}", json!({})).unwrap(), "5 ON");
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named() {
        assert_eq!(
            fill("{params.level}", json!({})).unwrap_err(),
            "there is nothing for the placeholder {params.level}"
        );
        assert!(fill("{gateway}", json!({})).unwrap_err().contains("{gateway}"));
        for (place, value) in
            [("int", json!(1.5)), ("int", json!("x")), ("bool", json!(2)), ("number", json!([])), ("bool", json!("on"))]
        {
            let wrong = fill(&format!("{{params.v:{place}}}"), json!({ "v": value })).unwrap_err();
            assert!(wrong.contains(&format!("{{params.v:{place}}}")), "{wrong}");
        }
        for (place, value, filled) in [
            ("int", json!(2.0), "2"),
            ("int", json!(true), "1"),
            ("bool", json!(1), "true"),
            ("text", json!(1.5), "1.5"),
        ] {
            assert_eq!(fill(&format!("{{params.v:{place}}}"), json!({ "v": value })).unwrap(), filled);
        }
    }

    #[test]
    fn a_placeholder_that_is_none_is_a_fault_with_a_suggestion() {
        let wrong = Text::parse("{devise}").unwrap_err();
        assert!(wrong.message.contains("{devise}"), "{wrong:?}");
        assert!(Text::parse("{params.}").is_err() && Text::parse("{tag}").is_err());
        assert!(Text::parse("{params.a:integer}").unwrap_err().message.contains("integer"));
        assert!(Text::parse(&"x".repeat(MAX_TEXT + 1)).is_err());
    }

    #[test]
    fn a_topic_takes_one_level_for_each_placeholder() {
        let topic = |text: &str, params| with(params, |facts| Text::parse(text).unwrap().fill_topic(facts));
        assert_eq!(topic("cmnd/{device}/{name}{params.n}", json!({ "n": 2 })).unwrap(), "cmnd/d1/set2");
        assert_eq!(topic("{tag.app}/down", json!({})).unwrap(), "a/7/down");
        for bad in ["a/b", "#", "+", "", "\0"] {
            assert!(topic("t/{params.n}", json!({ "n": bad })).unwrap_err().contains("{params.n}"), "{bad:?}");
        }
    }

    #[test]
    fn a_document_keeps_types_and_survives_the_database() {
        let written = json!({ "id": "{id}", "args": [{ "v": "{params.v}", "t": "n={params.v}" }], "x": 1 });
        let document = Document::parse(&written).unwrap();
        let filled = with(json!({ "v": 5 }), |facts| document.fill(facts)).unwrap();
        assert_eq!(filled, json!({ "id": "c1", "args": [{ "v": 5, "t": "n=5" }], "x": 1 }));
        let stored = serde_json::to_string(&document).unwrap();
        assert_eq!(serde_json::from_str::<Document>(&stored).unwrap(), document);
    }
}

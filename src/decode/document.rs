//! A whole document in memory, for formats whose envelope must be seen before its samples: JSON here, CBOR and the like
//! build the same tree.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::bounds::Bounds;
use super::{Point, Value, integer, json, key_too_long, out_of_range, text_too_long};
use crate::config::Limits;
use crate::quarantine::{Reason, Refusal};
use crate::time::Stamp;

/// A value and what it holds. Members keep their order, and no object has a key twice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    /// Finite.
    Float(f64),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads a JSON document within the limits on depth and on the number of values.
    ///
    /// # Errors
    /// [`Refusal`] of the message: empty, malformed, a duplicate key, a number beyond a float, too deep, too many values.
    pub(super) fn parse(payload: &[u8], limits: &Limits) -> Result<Node, Refusal> {
        let text = json::text(payload)?;
        let mut reading = Reading { bounds: Bounds::new(limits), path: String::new(), refusal: None };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let node = match (Seed { reading: &mut reading }).deserialize(&mut deserializer) {
            Ok(node) => node,
            Err(error) => return Err(reading.refusal.take().unwrap_or_else(|| json::syntax(&error, &reading.path))),
        };
        json::end(&mut deserializer)?;
        Ok(node)
    }

    /// The member of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.members().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The member at the end of a way of keys.
    pub(super) fn at(&self, way: &[&str]) -> Option<&Node> {
        way.iter().try_fold(self, |node, key| node.get(key))
    }

    /// An object's members; none for anything else.
    pub(super) fn members(&self) -> &[(String, Node)] {
        match self {
            Node::Object(members) => members,
            _ => &[],
        }
    }

    /// # Errors
    /// [`Refusal`] of the message: the document is something else.
    pub(super) fn expect_object(&self) -> Result<(), Refusal> {
        match self {
            Node::Object(_) => Ok(()),
            other => {
                let detail = format!("malformed JSON: {} as the document, an object is wanted", other.kind());
                Err(Refusal::message(Reason::Malformed, detail))
            }
        }
    }

    /// An array's elements; none for anything else.
    pub(super) fn elements(&self) -> &[Node] {
        match self {
            Node::Array(elements) => elements,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Node::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// What may be a time.
    pub(super) fn stamp(&self) -> Option<Stamp<'_>> {
        match self {
            Node::Integer(number) => Some(Stamp::Integer(*number)),
            Node::Float(number) => Some(Stamp::Float(*number)),
            Node::Text(text) => Some(Stamp::Text(text)),
            _ => None,
        }
    }

    /// A number as the nearest float.
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is wanted")]
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Node::Integer(number) => Some(*number as f64),
            Node::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// What it is, for a person.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Integer(_) | Node::Float(_) => "a number",
            Node::Text(_) => "text",
            Node::Array(_) => "an array",
            Node::Object(_) => "an object",
        }
    }
}

/// Samples of one instant, gathered from nodes: objects flatten to dotted keys, arrays to `key[0]`, `null` is absence.
pub(super) struct Flat<'l> {
    limits: &'l Limits,
    path: String,
    point: Point,
}

impl<'l> Flat<'l> {
    pub(super) fn new(limits: &'l Limits) -> Flat<'l> {
        Flat { limits, path: String::new(), point: Point::default() }
    }

    /// Adds what a node holds under `key`; an empty key adds nothing to the keys of an object's members.
    ///
    /// # Errors
    /// [`Refusal`] of the message: a key or a text is too long.
    pub(super) fn add(&mut self, key: &str, node: &Node) -> Result<(), Refusal> {
        self.path.clear();
        self.within(&[key], node)
    }

    /// The samples, without a time.
    ///
    /// # Errors
    /// [`Refusal`] of the message: two of them have one key.
    pub(super) fn finish(self) -> Result<Point, Refusal> {
        let mut keys = HashSet::with_capacity(self.point.samples.len());
        if let Some((twice, _)) = self.point.iter().find(|(key, _)| !keys.insert(*key)) {
            return Err(duplicate(twice));
        }
        Ok(self.point)
    }

    fn walk(&mut self, node: &Node) -> Result<(), Refusal> {
        let value = match node {
            Node::Null => return Ok(()),
            Node::Object(members) => {
                for (key, node) in members {
                    let dot = if self.path.is_empty() { "" } else { "." };
                    self.within(&[dot, key], node)?;
                }
                return Ok(());
            }
            Node::Array(elements) => {
                for (index, node) in elements.iter().enumerate() {
                    self.within(&["[", &index.to_string(), "]"], node)?;
                }
                return Ok(());
            }
            Node::Bool(flag) => Value::Bool(*flag),
            Node::Integer(number) => integer(*number),
            Node::Float(number) => Value::Number(*number),
            Node::Text(text) if text.len() > self.limits.max_text_length => {
                return Err(text_too_long(&self.path, text.len(), self.limits));
            }
            Node::Text(text) => Value::Text(text.clone()),
        };
        self.point.push(&self.path, value);
        Ok(())
    }

    fn within(&mut self, parts: &[&str], node: &Node) -> Result<(), Refusal> {
        let base = self.path.len();
        parts.iter().for_each(|part| self.path.push_str(part));
        if self.path.len() > self.limits.max_key_length {
            return Err(key_too_long(&self.path, self.limits));
        }
        self.walk(node)?;
        self.path.truncate(base);
        Ok(())
    }
}

pub(super) fn duplicate(key: &str) -> Refusal {
    Refusal::message(Reason::DuplicateKey, format!("duplicate key {key}"))
}

/// Where the parser is.
struct Reading<'l> {
    bounds: Bounds<'l>,
    path: String,
    /// Why reading was broken off.
    refusal: Option<Refusal>,
}

impl Reading<'_> {
    fn stop<E: Error>(&mut self, refusal: Refusal) -> E {
        self.refusal = Some(refusal);
        E::custom("stopped")
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.bounds.enter().map_err(|refusal| self.stop(refusal))
    }

    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.bounds.count().map_err(|refusal| self.stop(refusal))
    }
}

struct Seed<'r, 'l> {
    reading: &'r mut Reading<'l>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        self.reading.enter()?;
        let (mut members, mut keys, base) = (Vec::new(), HashSet::new(), self.reading.path.len());
        while let Some(key) = map.next_key::<String>()? {
            if base > 0 {
                self.reading.path.push('.');
            }
            self.reading.path.push_str(&key);
            if !keys.insert(key.clone()) {
                let refusal = duplicate(&self.reading.path);
                return Err(self.reading.stop(refusal));
            }
            let node = map.next_value_seed(Seed { reading: self.reading })?;
            self.reading.path.truncate(base);
            members.push((key, node));
        }
        self.reading.bounds.leave();
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        self.reading.enter()?;
        let mut elements = Vec::new();
        while let Some(node) = seq.next_element_seed(Seed { reading: self.reading })? {
            elements.push(node);
        }
        self.reading.bounds.leave();
        Ok(Node::Array(elements))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.reading.count()?;
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Node, E> {
        self.reading.count()?;
        Ok(Node::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        self.reading.count()?;
        Ok(Node::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        self.reading.count()?;
        Ok(Node::Integer(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        self.reading.count()?;
        if number.is_finite() {
            return Ok(Node::Float(number));
        }
        let refusal = out_of_range(&self.reading.path);
        Err(self.reading.stop(refusal))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        self.reading.count()?;
        Ok(Node::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::LIMITS;
    use super::*;

    fn flat(text: &str) -> Result<Vec<String>, Refusal> {
        let mut flat = Flat::new(&LIMITS);
        flat.add("", &Node::parse(text.as_bytes(), &LIMITS)?)?;
        Ok(flat.finish()?.iter().map(|(key, _)| key.to_owned()).collect())
    }

    #[test]
    fn objects_and_arrays_flatten_and_null_is_absence() {
        assert_eq!(flat(r#"{"a":{"b":[1,{"c":2}]},"d":null,"e":true}"#).unwrap(), ["a.b[0]", "a.b[1].c", "e"]);
    }

    #[test]
    fn duplicates_are_refused_however_they_are_spelt() {
        for (text, key) in [
            (r#"{"a":1,"a":null}"#, "a"),
            (r#"{"x":{"a":1,"\u0061":2}}"#, "x.a"),
            (r#"{"a.b":1,"a":{"b":2}}"#, "a.b"),
            (r#"{"a":[1],"a[0]":2}"#, "a[0]"),
        ] {
            assert_eq!(flat(text).unwrap_err().detail, format!("duplicate key {key}"));
        }
    }

    #[test]
    fn limits_hold() {
        let reason = |text: &str| flat(text).unwrap_err().reason;
        assert_eq!(reason(""), Reason::Empty);
        assert_eq!(reason("{\"a\":1} x"), Reason::Malformed);
        assert_eq!(reason("{\"a\":1e999}"), Reason::NumberOutOfRange);
        assert_eq!(reason(&"[".repeat(LIMITS.max_depth + 1)), Reason::TooDeep);
        assert_eq!(reason(&format!("[{}1]", "1,".repeat(LIMITS.max_keys))), Reason::TooManyKeys);
        assert_eq!(reason(&format!("{{\"{}\":1}}", "k".repeat(LIMITS.max_key_length + 1))), Reason::KeyTooLong);
        assert_eq!(reason(&format!("{{\"k\":\"{}\"}}", "t".repeat(LIMITS.max_text_length + 1))), Reason::TooLarge);
    }
}

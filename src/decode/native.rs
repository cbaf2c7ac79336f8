//! Native payloads in a binary format: a document in memory is walked as [`super::json`] walks its text, so that the forms,
//! the times and the limits are the same.

use serde::Deserializer;
use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{IntoDeserializer, Visitor};

use super::document::Node;
use super::{Context, Point, json};
use crate::quarantine::{Reason, Refusal};

/// The points of a document that `format` names; `length`: of its payload.
///
/// # Errors
/// [`Refusal`] of the message: neither an object nor an array of objects, or as for JSON.
pub(super) fn points(
    document: &Node,
    length: usize,
    format: &str,
    context: &Context<'_>,
) -> Result<Vec<Point>, Refusal> {
    let wrong = |node: &Node, place: &str| {
        let detail = format!("malformed {format}: {} {place}, an object is wanted", node.kind());
        Err(Refusal::message(Reason::Malformed, detail))
    };
    match document {
        Node::Null | Node::Object(_) => {}
        Node::Array(elements) => {
            if let Some(node) = elements.iter().find(|node| !matches!(node, Node::Null | Node::Object(_))) {
                return wrong(node, "in the outer array");
            }
        }
        other => return wrong(other, "as the document"),
    }
    json::walk(InMemory(document), length, context)
}

/// A node as serde sees it.
pub(super) struct InMemory<'n>(&'n Node);

impl<'n> IntoDeserializer<'n, Error> for &'n Node {
    type Deserializer = InMemory<'n>;

    fn into_deserializer(self) -> InMemory<'n> {
        InMemory(self)
    }
}

impl<'n> IntoDeserializer<'n, Error> for InMemory<'n> {
    type Deserializer = InMemory<'n>;

    fn into_deserializer(self) -> InMemory<'n> {
        self
    }
}

impl<'de> Deserializer<'de> for InMemory<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Node::Null => visitor.visit_unit(),
            Node::Bool(flag) => visitor.visit_bool(*flag),
            Node::Integer(number) => visitor.visit_i128(*number),
            Node::Float(number) => visitor.visit_f64(*number),
            Node::Text(text) => visitor.visit_str(text),
            Node::Array(elements) => visitor.visit_seq(SeqDeserializer::new(elements.iter())),
            Node::Object(members) => {
                let members = members.iter().map(|(key, node)| (key.as_str(), node));
                visitor.visit_map(MapDeserializer::new(members))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! What tests of binary formats write and compare.

    use super::super::{Point, Value};

    /// Microseconds, and keys with their values.
    pub type Found = (Option<i64>, Vec<(String, Value)>);

    /// Bytes as specifications print them; blanks count for nothing.
    pub fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    pub fn found(points: Vec<Point>) -> Vec<Found> {
        let samples = |point: Point| point.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        points.into_iter().map(|point| (point.time.map(|time| time.0), samples(point))).collect()
    }

    pub fn number(key: &str, number: f64) -> (String, Value) {
        (key.to_owned(), Value::Number(number))
    }
}

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

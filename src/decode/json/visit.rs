//! The parser's events, handed to the walk as they come: no document is built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::malformed;
use super::walk::{Leaf, Stopped, Walk};

fn stopped<E: Error>(_: Stopped) -> E {
    E::custom("stopped")
}

/// The whole document, or an element of the array that it is.
pub(super) struct Document<'w, 'c> {
    pub(super) walk: &'w mut Walk<'c>,
    pub(super) element: bool,
}

impl Document<'_, '_> {
    fn no_object<E: Error>(self, found: &str) -> Result<(), E> {
        let place = if self.element { "in the outer array" } else { "as the document" };
        let detail = format!("malformed JSON: {found} {place}, an object is wanted");
        Err(stopped(self.walk.stop(malformed(detail))))
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.walk.path.clear();
        members(self.walk, map, true)?;
        self.walk.finish_point().map_err(stopped)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.element {
            return self.no_object("an array");
        }
        self.walk.enter().map_err(stopped)?;
        while elements.next_element_seed(Document { walk: self.walk, element: true })?.is_some() {}
        self.walk.depth -= 1;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.walk.count_value().map_err(stopped)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.no_object("a boolean")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.no_object("a number")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.no_object("a number")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.no_object("a number")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.no_object("text")
    }
}

/// Walks an object's members; `top`: it is a point.
fn members<'de, A: MapAccess<'de>>(walk: &mut Walk<'_>, mut map: A, top: bool) -> Result<(), A::Error> {
    walk.enter().map_err(stopped)?;
    // Counted up to one for every three bytes of payload.
    walk.object = walk.object.saturating_add(1);
    let (object, base) = (walk.object, walk.path.len());
    let mut empty = true;
    while map.next_key_seed(Key { walk, separator: if top { "" } else { "." } })?.is_some() {
        empty = false;
        if top && walk.path != "ts" && walk.path != "values" {
            walk.shape.others = true;
        }
        map.next_value_seed(Node { walk, object, top })?;
        walk.path.truncate(base);
    }
    if empty {
        walk.count_value().map_err(stopped)?;
    }
    walk.depth -= 1;
    Ok(())
}

/// A member's key, added to the path.
struct Key<'w, 'c> {
    walk: &'w mut Walk<'c>,
    separator: &'static str,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.walk.extend_path(self.separator, key).map_err(stopped)
    }
}

/// Any value inside a point; the walk's path is its key.
struct Node<'w, 'c> {
    walk: &'w mut Walk<'c>,
    /// The object it is a member of; 0 for elements of arrays.
    object: u32,
    /// It is a member of the point itself.
    top: bool,
}

impl Node<'_, '_> {
    fn leaf<E: Error>(self, leaf: Leaf<'_>) -> Result<(), E> {
        self.walk.leaf(leaf, self.object, self.top).map_err(stopped)
    }

    fn container(&mut self, map: bool) {
        if self.object != 0 {
            self.walk.members.add(&self.walk.path, self.object, false);
        }
        if self.top {
            if map && self.walk.path == "values" {
                self.walk.shape.values = true;
            } else {
                self.walk.shape.others = true;
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        self.container(true);
        members(self.walk, map, false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.container(false);
        self.walk.enter().map_err(stopped)?;
        let base = self.walk.path.len();
        let mut index = 0_usize;
        loop {
            self.walk.extend_path("", &format!("[{index}]")).map_err(stopped)?;
            let more = elements.next_element_seed(Node { walk: self.walk, object: 0, top: false })?.is_some();
            self.walk.path.truncate(base);
            if !more {
                break;
            }
            index += 1;
        }
        if index == 0 {
            self.walk.count_value().map_err(stopped)?;
        }
        self.walk.depth -= 1;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf(Leaf::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.leaf(Leaf::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.leaf(Leaf::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<(), E> {
        self.leaf(Leaf::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.leaf(Leaf::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.leaf(Leaf::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.leaf(Leaf::Text(value))
    }
}

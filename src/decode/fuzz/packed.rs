//! JSON documents as CBOR (RFC 8949) and as MessagePack, for decoders of which the corpus has few payloads.

use serde_json::Value as Json;

#[derive(Clone, Copy)]
pub(super) enum Packing {
    Cbor,
    Msgpack,
}

/// The first bytes of CBOR's major types, and of MessagePack's forms with a length of 32 bits.
struct Heads {
    text: u8,
    array: u8,
    map: u8,
}

impl Packing {
    fn heads(self) -> Heads {
        match self {
            Packing::Cbor => Heads { text: 0x60, array: 0x80, map: 0xa0 },
            Packing::Msgpack => Heads { text: 0xdb, array: 0xdd, map: 0xdf },
        }
    }

    /// The head of something that has a length: CBOR's is as short as it can be.
    fn head(self, first: u8, length: usize, out: &mut Vec<u8>) {
        let long = u32::try_from(length).unwrap().to_be_bytes();
        match (self, u8::try_from(length)) {
            (Packing::Cbor, Ok(short @ ..24)) => out.push(first | short),
            (Packing::Cbor, Ok(short)) => out.extend([first | 24, short]),
            (Packing::Cbor, Err(_)) => out.extend([&[first | 26][..], &long].concat()),
            (Packing::Msgpack, _) => out.extend([&[first][..], &long].concat()),
        }
    }

    fn text(self, text: &str, out: &mut Vec<u8>) {
        self.head(self.heads().text, text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }

    fn number(self, number: &serde_json::Number, out: &mut Vec<u8>) {
        match (self, number.as_u64(), number.as_f64()) {
            (Packing::Cbor, Some(whole @ ..=0xffff_ffff), _) => self.head(0x00, usize::try_from(whole).unwrap(), out),
            (Packing::Msgpack, Some(whole), _) => out.extend([&[0xcf][..], &whole.to_be_bytes()].concat()),
            (_, _, number) => {
                out.push(if matches!(self, Packing::Cbor) { 0xfb } else { 0xcb });
                out.extend(number.unwrap().to_be_bytes());
            }
        }
    }

    pub(super) fn pack(self, document: &Json, out: &mut Vec<u8>) {
        let cbor = matches!(self, Packing::Cbor);
        match document {
            Json::Null => out.push(if cbor { 0xf6 } else { 0xc0 }),
            Json::Bool(is) => out.push(if cbor { 0xf4 } else { 0xc2 } + u8::from(*is)),
            Json::Number(number) => self.number(number, out),
            Json::String(text) => self.text(text, out),
            Json::Array(items) => {
                self.head(self.heads().array, items.len(), out);
                items.iter().for_each(|item| self.pack(item, out));
            }
            Json::Object(members) => {
                self.head(self.heads().map, members.len(), out);
                for (key, member) in members {
                    self.text(key, out);
                    self.pack(member, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::context;
    use super::super::super::{Value, decode, memory::Memory};
    use super::*;
    use crate::config::Decoder;

    #[test]
    fn what_is_packed_is_read_again() {
        let document = serde_json::json!({"a": 70_000, "b": {"c": [-1.5, true]}, "d": "x".repeat(300), "e": null});
        for (packing, decoder) in [(Packing::Cbor, Decoder::Cbor), (Packing::Msgpack, Decoder::Msgpack)] {
            let mut bytes = Vec::new();
            packing.pack(&document, &mut bytes);
            let mut memory = Memory::default();
            let reports = decode(decoder, &bytes, &context(), &mut memory.of_source(&"packed".into())).unwrap();
            let point = &reports[0].points[0];
            assert_eq!(point.get("a"), Some(&Value::Number(70_000.0)), "{decoder:?}: {point:?}");
            assert_eq!(point.get("d"), Some(&Value::Text("x".repeat(300))), "{decoder:?}");
            assert_eq!(point.iter().count(), 4, "{decoder:?}: {point:?}");
        }
    }
}

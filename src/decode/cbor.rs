//! CBOR: what [`super::json`] reads, in binary.
//!
//! - What JSON has no word for follows RFC 8949, section 6.1: byte strings are base64url text, `undefined`, simple values
//!   and NaN are absence; an infinite number is refused. Integers as keys are their digits; any other key that is no text
//!   is refused.
//! - Bignums, decimal fractions and bigfloats (tags 2 to 5; section 3.4) are numbers. A date (tags 0 and 1) is its text or
//!   number, and every other tag is its content.
//! - Indefinite lengths and half floats are read. Claimed lengths reserve nothing.
//!
//! RFC 8949.

use std::collections::HashSet;

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::bounds::{self, Bounds};
use super::document::{Node, duplicate};
use super::{Context, Point, native};
use crate::config::Limits;
use crate::quarantine::{Reason, Refusal};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    native::points(&parse(payload, context.limits)?, payload.len(), "CBOR", context)
}

/// Reads one data item within the limits on depth and on the number of values.
///
/// # Errors
/// [`Refusal`] of the message.
pub(super) fn parse(payload: &[u8], limits: &Limits) -> Result<Node, Refusal> {
    if payload.is_empty() {
        return Err(Refusal::message(Reason::Empty, "empty payload: a CBOR data item is wanted"));
    }
    let mut reader = Reader { decoder: Decoder::new(payload), bounds: Bounds::new(limits) };
    let node = reader.node()?;
    let position = reader.decoder.position();
    if position < payload.len() {
        return refuse(&format!("trailing data after {position} bytes"));
    }
    Ok(node)
}

struct Reader<'p> {
    decoder: Decoder<'p>,
    bounds: Bounds<'p>,
}

impl Reader<'_> {
    fn node(&mut self) -> Result<Node, Refusal> {
        let kind = self.kind()?;
        match kind {
            Type::Array | Type::ArrayIndef => return self.nested(Reader::array),
            Type::Map | Type::MapIndef => return self.nested(Reader::map),
            Type::Tag => return self.nested(Reader::tagged),
            _ => self.bounds.count()?,
        }
        match kind {
            Type::Null => self.decoder.null().map(|()| Node::Null).map_err(malformed),
            Type::Undefined => self.decoder.undefined().map(|()| Node::Null).map_err(malformed),
            Type::Simple => self.decoder.simple().map(|_| Node::Null).map_err(malformed),
            Type::Bool => self.decoder.bool().map(Node::Bool).map_err(malformed),
            Type::F16 | Type::F32 | Type::F64 => bounds::float(self.decoder.f64().map_err(malformed)?),
            Type::Bytes | Type::BytesIndef => self.bytes().map(|bytes| Node::Text(bounds::base64url(&bytes))),
            Type::String | Type::StringIndef => self.text().map(Node::Text),
            Type::Break | Type::Unknown(_) => refuse(&format!("{kind} at byte {}", self.decoder.position())),
            _ => self.integer().map(Node::Integer),
        }
    }

    fn kind(&self) -> Result<Type, Refusal> {
        self.decoder.datatype().map_err(malformed)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Node, Refusal>) -> Result<Node, Refusal> {
        self.bounds.enter()?;
        let node = read(self)?;
        self.bounds.leave();
        Ok(node)
    }

    fn integer(&mut self) -> Result<i128, Refusal> {
        self.decoder.int().map(i128::from).map_err(malformed)
    }

    fn text(&mut self) -> Result<String, Refusal> {
        self.decoder.str_iter().map_err(malformed)?.collect::<Result<String, _>>().map_err(malformed)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        for chunk in self.decoder.bytes_iter().map_err(malformed)? {
            bytes.extend_from_slice(chunk.map_err(malformed)?);
        }
        Ok(bytes)
    }

    /// Whether another item follows in a container with `left` more of them, or with an end to come.
    fn more(&mut self, left: &mut Option<u64>) -> Result<bool, Refusal> {
        match left {
            Some(0) => Ok(false),
            Some(count) => {
                *count = count.saturating_sub(1);
                Ok(true)
            }
            None if self.kind()? == Type::Break => {
                self.decoder.set_position(self.decoder.position().saturating_add(1));
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn array(&mut self) -> Result<Node, Refusal> {
        let mut left = self.decoder.array().map_err(malformed)?;
        let mut elements = Vec::new();
        while self.more(&mut left)? {
            elements.push(self.node()?);
        }
        if elements.is_empty() {
            self.bounds.count()?;
        }
        Ok(Node::Array(elements))
    }

    fn map(&mut self) -> Result<Node, Refusal> {
        let mut left = self.decoder.map().map_err(malformed)?;
        let (mut members, mut keys) = (Vec::new(), HashSet::new());
        while self.more(&mut left)? {
            let key = self.key()?;
            if !keys.insert(key.clone()) {
                return Err(duplicate(&key));
            }
            members.push((key, self.node()?));
        }
        if members.is_empty() {
            self.bounds.count()?;
        }
        Ok(Node::Object(members))
    }

    fn key(&mut self) -> Result<String, Refusal> {
        match self.kind()? {
            Type::String | Type::StringIndef => self.text(),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
                self.integer().map(|number| number.to_string())
            }
            kind => refuse(&format!("{kind} as a key at byte {}; text is wanted", self.decoder.position())),
        }
    }

    fn tagged(&mut self) -> Result<Node, Refusal> {
        let tag = self.decoder.tag().map_err(malformed)?.as_u64();
        match (tag, self.kind()?) {
            (2 | 3, Type::Bytes | Type::BytesIndef) => {
                self.bounds.count()?;
                bignum(&self.bytes()?, tag == 3)
            }
            (4 | 5, _) => scaled(&self.node()?, tag == 4),
            _ => self.node(),
        }
    }
}

/// An unsigned number `n`, or -1 - n.
fn bignum(bytes: &[u8], negative: bool) -> Result<Node, Refusal> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeros..).unwrap_or_default();
    if digits.len() < size_of::<i128>() {
        let number = digits.iter().fold(0_i128, |number, byte| (number << 8) | i128::from(*byte));
        return Ok(Node::Integer(if negative { -1 - number } else { number }));
    }
    let number = digits.iter().fold(0.0_f64, |number, byte| number * 256.0 + f64::from(*byte));
    let number = if negative { -number } else { number };
    if number.is_finite() { Ok(Node::Float(number)) } else { Err(bounds::beyond("a bignum")) }
}

/// `[exponent, mantissa]`, of ten or of two.
fn scaled(pair: &Node, decimal: bool) -> Result<Node, Refusal> {
    let [Node::Integer(exponent), mantissa @ (Node::Integer(_) | Node::Float(_))] = pair.elements() else {
        return refuse("a fraction that is no array of two integers");
    };
    let number = match mantissa {
        Node::Integer(mantissa) if decimal => format!("{mantissa}e{exponent}").parse().unwrap_or(f64::INFINITY),
        other => {
            let exponent = i32::try_from(*exponent).unwrap_or(if *exponent < 0 { i32::MIN } else { i32::MAX });
            let base: f64 = if decimal { 10.0 } else { 2.0 };
            other.number().unwrap_or_default() * base.powi(exponent)
        }
    };
    if number.is_finite() { Ok(Node::Float(number)) } else { Err(bounds::beyond("a fraction")) }
}

fn refuse<T>(detail: &str) -> Result<T, Refusal> {
    Err(Refusal::message(Reason::Malformed, format!("malformed CBOR: {detail}")))
}

fn malformed(error: Error) -> Refusal {
    let text = error.to_string();
    if text.starts_with("invalid utf-8") {
        return Refusal::message(Reason::NotUtf8, format!("malformed CBOR: {text}"));
    }
    let what = if error.is_end_of_input() { "truncated" } else { "malformed" };
    Refusal::message(Reason::Malformed, format!("{what} CBOR: {text}"))
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::native::testing::{Found, bytes, found, number};
    use super::super::tests::{LIMITS, context};
    use super::*;

    fn node(hex: &str) -> Result<Node, Refusal> {
        parse(&bytes(hex), &LIMITS)
    }

    fn points(hex: &str) -> Vec<Found> {
        found(decode(&bytes(hex), &context()).unwrap())
    }

    /// RFC 8949, appendix A.
    #[test]
    fn the_examples_of_the_specification_are_read() {
        for (hex, expected) in [
            ("1bffffffffffffffff", Node::Integer(18_446_744_073_709_551_615)),
            ("c249010000000000000000", Node::Integer(18_446_744_073_709_551_616)),
            ("3bffffffffffffffff", Node::Integer(-18_446_744_073_709_551_616)),
            ("c349010000000000000000", Node::Integer(-18_446_744_073_709_551_617)),
            ("f98000", Node::Float(-0.0)),
            ("f93e00", Node::Float(1.5)),
            ("fa47c35000", Node::Float(100_000.0)),
            ("fb7e37e43c8800759c", Node::Float(1.0e300)),
            ("f90001", Node::Float(5.960_464_477_539_063e-8)),
            ("f97e00", Node::Null),
            ("f7", Node::Null),
            ("f0", Node::Null),
            ("c11a514b67b0", Node::Integer(1_363_896_240)),
            ("d74401020304", Node::Text("AQIDBA".to_owned())),
            ("c48221196ab3", Node::Float(273.15)),
            ("c5822003", Node::Float(1.5)),
            ("7f657374726561646d696e67ff", Node::Text("streaming".to_owned())),
            ("9fff", Node::Array(vec![])),
            ("d9d9f7f5", Node::Bool(true)),
        ] {
            assert_eq!(node(hex).unwrap(), expected, "{hex}");
        }
    }

    #[test]
    fn payloads_are_read_as_their_json_would_be() {
        // {"temp": 21.5, "n": {"a": [1, true]}}
        let nested = ("n.a[1]".to_owned(), Value::Bool(true));
        assert_eq!(
            points("a2 6474656d70 f94d60 616e a1 6161 82 01 f5"),
            [(None, vec![number("temp", 21.5), number("n.a[0]", 1.0), nested])]
        );
        // {"ts": 1700000000000, "values": {"a": 1, "b": null}}
        let at = Some(1_700_000_000_000_000);
        assert_eq!(
            points("a2 627473 1b0000018bcfe56800 6676616c756573 a2 6161 01 6162 f6"),
            [(at, vec![number("a", 1.0)])]
        );
        // {"ts": 1(1700000000), "a": 1}
        assert_eq!(points("a2 627473 c11a6553f100 6161 01"), [(at, vec![number("a", 1.0)])]);
        // {"ts": 0("2023-11-14T22:13:20Z"), "a": 1}
        let text = "c0 74 323032332d31312d31345432323a31333a32305a";
        assert_eq!(points(&format!("a2 627473 {text} 6161 01")), [(at, vec![number("a", 1.0)])]);
        // [{"a": 1}, {"a": 2}]
        assert_eq!(
            points("82 a1 6161 01 a1 6161 02"),
            [(None, vec![number("a", 1.0)]), (None, vec![number("a", 2.0)])]
        );
        // {_ 1: 2.5, -1: 3}
        assert_eq!(points("bf 01 f94100 20 03 ff"), [(None, vec![number("1", 2.5), number("-1", 3.0)])]);
        // {"a": h'ff00'}
        assert_eq!(points("a1 6161 42ff00"), [(None, vec![("a".to_owned(), Value::Text("_wA".to_owned()))])]);
        // {"a": 2^64}
        let digits = Value::Literal { number: 18_446_744_073_709_551_616.0, text: "18446744073709551616".to_owned() };
        assert_eq!(points("a1 6161 c249010000000000000000"), [(None, vec![("a".to_owned(), digits)])]);
        assert_eq!(points("f6"), []);
        assert_eq!(points("a0"), [(None, vec![])]);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let reason = |hex: &str| decode(&bytes(hex), &context()).unwrap_err().reason;
        for (hex, expected) in [
            ("", Reason::Empty),
            ("a1", Reason::Malformed),
            ("ff", Reason::Malformed),
            ("1c", Reason::Malformed),
            ("5f01ff", Reason::Malformed),
            ("a0 00", Reason::Malformed),
            ("01", Reason::Malformed),
            ("81 01", Reason::Malformed),
            ("81 81 a0", Reason::Malformed),
            ("a1 f5 01", Reason::Malformed),
            ("a1 6161 c4 8201 61 61", Reason::Malformed),
            ("bf 6161 ff", Reason::Malformed),
            ("a1 61ff 01", Reason::NotUtf8),
            ("a1 6161 61ff", Reason::NotUtf8),
            ("a1 6161 f97c00", Reason::NumberOutOfRange),
            ("a1 6161 c4821a7fffffff01", Reason::NumberOutOfRange),
            ("a2 6161 01 6161 02", Reason::DuplicateKey),
            ("a2 01 01 6131 02", Reason::DuplicateKey),
            ("a2 63612e62 01 6161 a1 6162 02", Reason::DuplicateKey),
            ("a2 627473 6161 6161 01", Reason::BadTime),
        ] {
            assert_eq!(reason(hex), expected, "{hex}");
        }
    }

    #[test]
    fn limits_hold_and_claimed_lengths_reserve_nothing() {
        let reason = |payload: &[u8]| parse(payload, &LIMITS).unwrap_err().reason;
        assert_eq!(reason(&[0x81; 100]), Reason::TooDeep);
        assert_eq!(reason(&[0xc1; 100_000]), Reason::TooDeep);
        assert_eq!(reason(&[&[0x9f][..], &[0x00; 2000]].concat()), Reason::TooManyKeys);
        assert_eq!(reason(&[&[0x9f][..], &[0x80; 2000]].concat()), Reason::TooManyKeys);
        assert_eq!(reason(&bytes("9bffffffffffffffff")), Reason::Malformed);
        assert_eq!(reason(&bytes("bbffffffffffffffff")), Reason::Malformed);
        assert_eq!(reason(&bytes("7bffffffffffffffff")), Reason::Malformed);
        assert_eq!(reason(&bytes("5bffffffffffffffff")), Reason::Malformed);
        let long = |head: &str, length: usize| [&bytes(head)[..], &vec![b'k'; length]].concat();
        let taken = |payload: &[u8]| decode(payload, &context()).unwrap_err().reason;
        assert_eq!(taken(&long("a1 6161 79 1001", 0x1001)), Reason::TooLarge);
        assert_eq!(taken(&long("a1 6161 59 1000", 0x1000)), Reason::TooLarge);
        let key = [&long("a1 79 0100", 0x100)[..], &[0x01]].concat();
        assert_eq!(taken(&key), Reason::KeyTooLong);
    }
}

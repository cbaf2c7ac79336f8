//! MessagePack: what [`super::json`] reads, in binary.
//!
//! - Binary data is base64url text, as in CBOR; NaN is absence, and an infinite number is refused. Integers as keys are
//!   their digits; any other key that is no text is refused.
//! - The extension type -1 is an instant, and becomes RFC 3339 text; other extension types are refused.
//! - Claimed lengths reserve nothing.
//!
//! MessagePack specification, sections "Formats" and "Timestamp extension type".

use std::collections::HashSet;

use rmp::Marker;

use super::bounds::{self, Bounds};
use super::document::{Node, duplicate};
use super::{Context, Point, native};
use crate::config::Limits;
use crate::quarantine::{Reason, Refusal};
use crate::time::{self, Stamp, Unit};

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    native::points(&parse(payload, context.limits)?, payload.len(), "MessagePack", context)
}

/// Reads one object within the limits on depth and on the number of values.
///
/// # Errors
/// [`Refusal`] of the message.
pub(super) fn parse(payload: &[u8], limits: &Limits) -> Result<Node, Refusal> {
    if payload.is_empty() {
        return Err(Refusal::message(Reason::Empty, "empty payload: a MessagePack object is wanted"));
    }
    let mut reader = Reader { rest: payload, bounds: Bounds::new(limits) };
    let node = reader.node()?;
    match reader.rest.len() {
        0 => Ok(node),
        length => refuse(&format!("{length} bytes of trailing data")),
    }
}

struct Reader<'p> {
    rest: &'p [u8],
    bounds: Bounds<'p>,
}

impl<'p> Reader<'p> {
    fn take(&mut self, length: usize) -> Result<&'p [u8], Refusal> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return refuse(&format!("it ends where {length} bytes are wanted, {} are left", self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// An unsigned number of some bytes.
    fn unsigned(&mut self, bytes: usize) -> Result<u64, Refusal> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Result<usize, Refusal> {
        self.unsigned(bytes).map(|length| usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn marker(&mut self) -> Result<Marker, Refusal> {
        self.fixed::<1>().map(|[byte]| Marker::from_u8(byte))
    }

    fn node(&mut self) -> Result<Node, Refusal> {
        let marker = self.marker()?;
        match marker {
            Marker::FixArray(length) => return self.array(length.into()),
            Marker::Array16 => return self.length(2).and_then(|length| self.array(length)),
            Marker::Array32 => return self.length(4).and_then(|length| self.array(length)),
            Marker::FixMap(length) => return self.map(length.into()),
            Marker::Map16 => return self.length(2).and_then(|length| self.map(length)),
            Marker::Map32 => return self.length(4).and_then(|length| self.map(length)),
            _ => self.bounds.count()?,
        }
        if let Some(length) = self.text_length(marker)? {
            return self.text(length).map(Node::Text);
        }
        if let Some(number) = self.integer(marker)? {
            return Ok(Node::Integer(number));
        }
        match marker {
            Marker::Null => Ok(Node::Null),
            Marker::False => Ok(Node::Bool(false)),
            Marker::True => Ok(Node::Bool(true)),
            Marker::F32 => bounds::float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::F64 => bounds::float(f64::from_be_bytes(self.fixed()?)),
            Marker::Bin8 => self.binary(1),
            Marker::Bin16 => self.binary(2),
            Marker::Bin32 => self.binary(4),
            Marker::Ext8 => self.length(1).and_then(|length| self.extension(length)),
            Marker::Ext16 => self.length(2).and_then(|length| self.extension(length)),
            Marker::Ext32 => self.length(4).and_then(|length| self.extension(length)),
            Marker::FixExt1 => self.extension(1),
            Marker::FixExt2 => self.extension(2),
            Marker::FixExt4 => self.extension(4),
            Marker::FixExt8 => self.extension(8),
            Marker::FixExt16 => self.extension(16),
            _ => refuse("0xc1, which the format never uses"),
        }
    }

    fn text_length(&mut self, marker: Marker) -> Result<Option<usize>, Refusal> {
        match marker {
            Marker::FixStr(length) => Ok(Some(length.into())),
            Marker::Str8 => self.length(1).map(Some),
            Marker::Str16 => self.length(2).map(Some),
            Marker::Str32 => self.length(4).map(Some),
            _ => Ok(None),
        }
    }

    fn text(&mut self, length: usize) -> Result<String, Refusal> {
        let bytes = self.take(length)?;
        let detail = || format!("malformed MessagePack: invalid UTF-8, {} bytes before its end", self.rest.len());
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Refusal::message(Reason::NotUtf8, detail())),
        }
    }

    fn integer(&mut self, marker: Marker) -> Result<Option<i128>, Refusal> {
        Ok(Some(match marker {
            Marker::FixPos(number) => number.into(),
            Marker::FixNeg(number) => number.into(),
            Marker::U8 => self.unsigned(1)?.into(),
            Marker::U16 => self.unsigned(2)?.into(),
            Marker::U32 => self.unsigned(4)?.into(),
            Marker::U64 => self.unsigned(8)?.into(),
            Marker::I8 => i8::from_be_bytes(self.fixed()?).into(),
            Marker::I16 => i16::from_be_bytes(self.fixed()?).into(),
            Marker::I32 => i32::from_be_bytes(self.fixed()?).into(),
            Marker::I64 => i64::from_be_bytes(self.fixed()?).into(),
            _ => return Ok(None),
        }))
    }

    fn binary(&mut self, bytes: usize) -> Result<Node, Refusal> {
        let length = self.length(bytes)?;
        self.take(length).map(|bytes| Node::Text(bounds::base64url(bytes)))
    }

    fn array(&mut self, length: usize) -> Result<Node, Refusal> {
        self.bounds.enter()?;
        let mut elements = Vec::new();
        for _ in 0..length {
            elements.push(self.node()?);
        }
        if length == 0 {
            self.bounds.count()?;
        }
        self.bounds.leave();
        Ok(Node::Array(elements))
    }

    fn map(&mut self, length: usize) -> Result<Node, Refusal> {
        self.bounds.enter()?;
        let (mut members, mut keys) = (Vec::new(), HashSet::new());
        for _ in 0..length {
            let key = self.key()?;
            if !keys.insert(key.clone()) {
                return Err(duplicate(&key));
            }
            members.push((key, self.node()?));
        }
        if length == 0 {
            self.bounds.count()?;
        }
        self.bounds.leave();
        Ok(Node::Object(members))
    }

    fn key(&mut self) -> Result<String, Refusal> {
        let marker = self.marker()?;
        if let Some(length) = self.text_length(marker)? {
            return self.text(length);
        }
        match self.integer(marker)? {
            Some(number) => Ok(number.to_string()),
            None => refuse(&format!("{marker:?} as a key; text is wanted")),
        }
    }

    /// A timestamp of 32, 64 or 96 bits.
    fn extension(&mut self, length: usize) -> Result<Node, Refusal> {
        let kind = i8::from_be_bytes(self.fixed()?);
        let (seconds, nanos): (i128, u64) = match (kind, length) {
            (-1, 4) => (self.unsigned(4)?.into(), 0),
            (-1, 8) => {
                let both = self.unsigned(8)?;
                ((both & 0x3_ffff_ffff).into(), both >> 34)
            }
            (-1, 12) => {
                let nanos = self.unsigned(4)?;
                (i64::from_be_bytes(self.fixed()?).into(), nanos)
            }
            _ => return refuse(&format!("extension type {kind} of {length} bytes, which is not understood")),
        };
        let since_1970 = seconds.saturating_mul(1_000_000_000).saturating_add(nanos.into());
        match time::count(Stamp::Integer(since_1970), Unit::Nanos) {
            Ok(time) if nanos < 1_000_000_000 => Ok(Node::Text(time.to_string())),
            _ => refuse(&format!("an instant of {seconds} s and {nanos} ns")),
        }
    }
}

fn refuse<T>(detail: &str) -> Result<T, Refusal> {
    Err(Refusal::message(Reason::Malformed, format!("malformed MessagePack: {detail}")))
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::native::testing::{Found, bytes, found, number};
    use super::super::tests::{LIMITS, context};
    use super::*;

    fn points(hex: &str) -> Vec<Found> {
        found(decode(&bytes(hex), &context()).unwrap())
    }

    #[test]
    fn every_format_is_read() {
        for (hex, expected) in [
            ("7f", Node::Integer(127)),
            ("e0", Node::Integer(-32)),
            ("ccff", Node::Integer(255)),
            ("cdffff", Node::Integer(65_535)),
            ("ceffffffff", Node::Integer(4_294_967_295)),
            ("cfffffffffffffffff", Node::Integer(18_446_744_073_709_551_615)),
            ("d080", Node::Integer(-128)),
            ("d18000", Node::Integer(-32_768)),
            ("d280000000", Node::Integer(-2_147_483_648)),
            ("d38000000000000000", Node::Integer(-9_223_372_036_854_775_808)),
            ("ca41ac0000", Node::Float(21.5)),
            ("cb8000000000000000", Node::Float(-0.0)),
            ("cb7ff8000000000000", Node::Null),
            ("c0", Node::Null),
            ("c2", Node::Bool(false)),
            ("d90161", Node::Text("a".to_owned())),
            ("da000161", Node::Text("a".to_owned())),
            ("db0000000161", Node::Text("a".to_owned())),
            ("c402ff00", Node::Text("_wA".to_owned())),
            ("c50001ff", Node::Text("_w".to_owned())),
            ("c600000000", Node::Text(String::new())),
            ("dc000101", Node::Array(vec![Node::Integer(1)])),
            ("dd0000000101", Node::Array(vec![Node::Integer(1)])),
            ("de0001a16101", Node::Object(vec![("a".to_owned(), Node::Integer(1))])),
            ("df00000001a16101", Node::Object(vec![("a".to_owned(), Node::Integer(1))])),
            ("d6ff6553f100", Node::Text("2023-11-14T22:13:20Z".to_owned())),
            ("d7ff773594006553f100", Node::Text("2023-11-14T22:13:20.5Z".to_owned())),
            ("c70cff00000000ffffffffffffffff", Node::Text("1969-12-31T23:59:59Z".to_owned())),
        ] {
            assert_eq!(parse(&bytes(hex), &LIMITS).unwrap(), expected, "{hex}");
        }
    }

    #[test]
    fn payloads_are_read_as_their_json_would_be() {
        // {"temp": 21.5, "n": {"a": [1, true]}}
        let nested = ("n.a[1]".to_owned(), Value::Bool(true));
        let found = points("82 a474656d70 ca41ac0000 a16e 81 a161 92 01 c3");
        assert_eq!(found, [(None, vec![number("temp", 21.5), number("n.a[0]", 1.0), nested])]);
        // {"ts": 1700000000000, "values": {"a": 1, "b": null}}
        let at = Some(1_700_000_000_000_000);
        let found = points("82 a27473 cf0000018bcfe56800 a676616c756573 82 a161 01 a162 c0");
        assert_eq!(found, [(at, vec![number("a", 1.0)])]);
        // {"ts": an instant, "a": 1}
        assert_eq!(points("82 a27473 d6ff6553f100 a161 01"), [(at, vec![number("a", 1.0)])]);
        // [{"a": 1}, {"a": 2}]
        assert_eq!(
            points("92 81 a161 01 81 a161 02"),
            [(None, vec![number("a", 1.0)]), (None, vec![number("a", 2.0)])]
        );
        // {1: 2, -1: 3}
        assert_eq!(points("82 01 02 ff 03"), [(None, vec![number("1", 2.0), number("-1", 3.0)])]);
        let digits = Value::Literal { number: 18_446_744_073_709_551_615.0, text: "18446744073709551615".to_owned() };
        assert_eq!(points("81 a161 cfffffffffffffffff"), [(None, vec![("a".to_owned(), digits)])]);
        assert_eq!(points("c0"), []);
        assert_eq!(points("80"), [(None, vec![])]);
    }

    #[test]
    fn what_breaks_the_format_is_refused() {
        let reason = |hex: &str| decode(&bytes(hex), &context()).unwrap_err().reason;
        for (hex, expected) in [
            ("", Reason::Empty),
            ("81", Reason::Malformed),
            ("81 a2 61", Reason::Malformed),
            ("c1", Reason::Malformed),
            ("80 00", Reason::Malformed),
            ("01", Reason::Malformed),
            ("91 01", Reason::Malformed),
            ("91 91 80", Reason::Malformed),
            ("81 c3 01", Reason::Malformed),
            ("81 a161 d40500", Reason::Malformed),
            ("81 a161 d5ff0000", Reason::Malformed),
            ("81 a161 d7ffffffffff00000000", Reason::Malformed),
            ("81 a161 c70cff000000007fffffffffffffff", Reason::Malformed),
            ("81 a1ff 01", Reason::NotUtf8),
            ("81 a161 a1ff", Reason::NotUtf8),
            ("81 a161 ca7f800000", Reason::NumberOutOfRange),
            ("82 a161 01 a161 02", Reason::DuplicateKey),
            ("82 01 01 a131 02", Reason::DuplicateKey),
            ("82 a27473 a161 a161 01", Reason::BadTime),
        ] {
            assert_eq!(reason(hex), expected, "{hex}");
        }
    }

    #[test]
    fn limits_hold_and_claimed_lengths_reserve_nothing() {
        let reason = |payload: &[u8]| parse(payload, &LIMITS).unwrap_err().reason;
        assert_eq!(reason(&[0x91; 100_000]), Reason::TooDeep);
        assert_eq!(reason(&[&bytes("dd ffffffff")[..], &[0x00; 2000]].concat()), Reason::TooManyKeys);
        assert_eq!(reason(&[&bytes("dd ffffffff")[..], &[0x90; 2000]].concat()), Reason::TooManyKeys);
        for claim in ["dd ffffffff", "df ffffffff", "db ffffffff", "c6 ffffffff", "c9 ffffffff ff"] {
            assert_eq!(reason(&bytes(claim)), Reason::Malformed, "{claim}");
        }
        let long = |head: &str, length: usize| [&bytes(head)[..], &vec![b'k'; length]].concat();
        let taken = |payload: &[u8]| decode(payload, &context()).unwrap_err().reason;
        assert_eq!(taken(&long("81 a161 da 1001", 0x1001)), Reason::TooLarge);
        assert_eq!(taken(&long("81 a161 c5 1000", 0x1000)), Reason::TooLarge);
        let key = [&long("81 da 0100", 0x100)[..], &[0x01]].concat();
        assert_eq!(taken(&key), Reason::KeyTooLong);
    }
}

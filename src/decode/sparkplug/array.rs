//! Packed arrays (Sparkplug 3.0.0, 6.4.16.4): little-endian elements one after the other. The specification's text says so;
//! its examples of Float, Double and DateTime are printed the other way round.

use super::datatype::{DataType, Found, Unfit};
use crate::decode::{Value, integer};
use crate::quarantine::Reason;

/// Reads an array's bytes; `datatype` is one of the array types, and `most` elements are taken.
pub(super) fn read(datatype: DataType, bytes: &[u8], most: usize) -> Result<Found, Unfit> {
    let count = count(datatype, bytes);
    if count > most {
        return Err((Reason::TooManyKeys, format!("an array of {count}: limits.max_keys is {most}")));
    }
    let whole = |number: i128| Some(integer(number));
    let elements = match datatype.0 {
        22 => each(bytes, |raw| Some(whole(i8::from_le_bytes(raw).into()))),
        23 => each(bytes, |raw| Some(whole(i16::from_le_bytes(raw).into()))),
        24 => each(bytes, |raw| Some(whole(i32::from_le_bytes(raw).into()))),
        25 => each(bytes, |raw| Some(whole(i64::from_le_bytes(raw).into()))),
        26 => each(bytes, |raw| Some(whole(u8::from_le_bytes(raw).into()))),
        27 => each(bytes, |raw| Some(whole(u16::from_le_bytes(raw).into()))),
        28 => each(bytes, |raw| Some(whole(u32::from_le_bytes(raw).into()))),
        29 | 34 => each(bytes, |raw| Some(whole(u64::from_le_bytes(raw).into()))),
        30 => each(bytes, |raw| float(f64::from(f32::from_le_bytes(raw)))),
        31 => each(bytes, |raw| float(f64::from_le_bytes(raw))),
        32 => booleans(bytes),
        33 => texts(bytes),
        other => broken(&format!("data type {other}, which is no array")),
    };
    elements.map(Found::Array)
}

/// How many elements there are, before any is read.
fn count(datatype: DataType, bytes: &[u8]) -> usize {
    match datatype.0 {
        22 | 26 => bytes.len(),
        23 | 27 => bytes.len() / 2,
        24 | 28 | 30 => bytes.len() / 4,
        32 => bytes.len().saturating_sub(4).saturating_mul(8).saturating_sub(7),
        33 => bytes.iter().filter(|byte| **byte == 0).count(),
        _ => bytes.len() / 8,
    }
}

type Elements = Result<Vec<Option<Value>>, Unfit>;

fn broken(detail: &str) -> Elements {
    Err((Reason::Malformed, format!("a packed array of {detail}")))
}

/// Elements of `N` bytes each. `element`: none where it can't be held.
fn each<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> Option<Option<Value>>) -> Elements {
    let (elements, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return broken(&format!("{} bytes, its elements have {N}", bytes.len()));
    }
    let infinite = || (Reason::NumberOutOfRange, "an infinite value in an array".to_owned());
    elements.iter().map(|raw| element(*raw).ok_or_else(infinite)).collect()
}

fn float(number: f64) -> Option<Option<Value>> {
    match number {
        number if number.is_nan() => Some(None),
        number if number.is_finite() => Some(Some(Value::Number(number))),
        _ => None,
    }
}

/// The count in four bytes, then eight to a byte, the first in the highest bit.
fn booleans(bytes: &[u8]) -> Elements {
    let Some((count, packed)) = bytes.split_first_chunk::<4>() else {
        return broken("booleans without its count");
    };
    let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
    if count.div_ceil(8) != packed.len() {
        return broken(&format!("{count} booleans in {} bytes", packed.len()));
    }
    let flags = packed.iter().flat_map(|byte| (0..8_u32).map(move |bit| byte.wrapping_shl(bit) & 0x80 != 0));
    Ok(flags.take(count).map(|flag| Some(Value::Bool(flag))).collect())
}

/// Each ends with a NUL.
fn texts(bytes: &[u8]) -> Elements {
    let Some(bytes) = bytes.strip_suffix(b"\0") else {
        return if bytes.is_empty() { Ok(Vec::new()) } else { broken("texts whose last does not end") };
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return broken("texts that are not UTF-8") };
    Ok(text.split('\0').map(|text| Some(Value::Text(text.to_owned()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(datatype: DataType, bytes: &[u8]) -> Result<Found, Unfit> {
        super::read(datatype, bytes, 100)
    }

    fn numbers(datatype: u8, bytes: &[u8]) -> Vec<Option<f64>> {
        match read(DataType(datatype), bytes) {
            Ok(Found::Array(elements)) => elements
                .into_iter()
                .map(|element| {
                    element.map(|value| match value {
                        Value::Number(number) | Value::Literal { number, .. } => number,
                        other => panic!("{other:?}"),
                    })
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_are_little_endian() {
        assert_eq!(numbers(22, &[0xef, 0x7b]), [Some(-17.0), Some(123.0)]);
        assert_eq!(numbers(23, &[0x30, 0x8a, 0x30, 0x7d]), [Some(-30160.0), Some(32048.0)]);
        assert_eq!(numbers(26, &[0x17, 0xfa]), [Some(23.0), Some(250.0)]);
        assert_eq!(numbers(27, &[0x1e, 0x00, 0x88, 0xcc]), [Some(30.0), Some(52360.0)]);
        assert_eq!(numbers(25, &(-5_i64).to_le_bytes()), [Some(-5.0)]);
        assert_eq!(numbers(34, &1_256_102_875_335_u64.to_le_bytes()), [Some(1_256_102_875_335.0)]);
        assert_eq!(numbers(30, &[1.25_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat()), [Some(1.25), None]);
        assert_eq!(numbers(29, &[]), []);
    }

    #[test]
    fn booleans_and_texts_are_unpacked() {
        let flags = |bits: &[u8]| Found::Array(bits.iter().map(|bit| Some(Value::Bool(*bit == 1))).collect());
        let packed = [12, 0, 0, 0, 0x34, 0xd0];
        assert_eq!(read(DataType(32), &packed), Ok(flags(&[0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1])));
        let texts =
            |texts: &[&str]| Found::Array(texts.iter().map(|text| Some(Value::Text((*text).to_owned()))).collect());
        assert_eq!(read(DataType(33), b"ABC\0hello\0"), Ok(texts(&["ABC", "hello"])));
        assert_eq!(read(DataType(33), b"\0"), Ok(texts(&[""])));
        assert_eq!(read(DataType(33), b""), Ok(texts(&[])));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (datatype, bytes) in [
            (24, &[1, 2, 3][..]),
            (32, &[1, 0]),
            (32, &[9, 0, 0, 0, 1]),
            (33, b"open"),
            (33, b"\xff\0"),
            (32, &[0xff; 9]),
        ] {
            assert_eq!(read(DataType(datatype), bytes).unwrap_err().0, Reason::Malformed, "{bytes:?}");
        }
        let many = super::read(DataType(22), &[0; 101], 100).unwrap_err();
        assert_eq!(many.0, Reason::TooManyKeys);
        let infinite = f64::INFINITY.to_le_bytes();
        assert_eq!(read(DataType(31), &infinite).unwrap_err().0, Reason::NumberOutOfRange);
    }
}

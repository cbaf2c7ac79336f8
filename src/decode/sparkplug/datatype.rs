//! What a metric's value means: Sparkplug's data types (Sparkplug 3.0.0, 6.4.16) over what Protobuf carries.

use super::array;
use super::wire::Carried;
use crate::decode::{Value, integer};
use crate::quarantine::Reason;

/// A data type by its number in `sparkplug_b.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataType(pub(crate) u8);

impl DataType {
    pub(super) const UNKNOWN: DataType = DataType(0);
    pub(crate) const INT16: DataType = DataType(2);
    pub(crate) const INT32: DataType = DataType(3);
    pub(crate) const UINT64: DataType = DataType(8);
    pub(crate) const DOUBLE: DataType = DataType(10);
    pub(crate) const BOOLEAN: DataType = DataType(11);
    pub(crate) const STRING: DataType = DataType(12);

    /// None: the number says "unknown", or is none of the format's.
    pub(super) fn of(number: u32) -> Option<DataType> {
        u8::try_from(number).ok().filter(|number| (1..=34).contains(number)).map(DataType)
    }
}

/// What was found in a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    One(Value),
    /// Elements that are not a number are absent.
    Array(Vec<Option<Value>>),
    /// Not a number.
    Nothing,
}

/// Why a metric gives no sample though the rest of the message is taken.
pub(super) type Unfit = (Reason, String);

/// An integer whose data type nobody has told: it can't be read, for want of its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeUnknown;

/// Reads a value as its data type. Encoders differ in how they carry small negative integers: as `n + 2^width`, or in two's
/// complement of 32 bits whatever the width; so only the bits of the width count. `most`: elements of an array.
///
/// # Errors
/// [`TypeUnknown`].
pub(super) fn read(datatype: DataType, carried: &Carried, most: usize) -> Result<Result<Found, Unfit>, TypeUnknown> {
    let whole = match carried {
        Carried::Int(number) => Some(u64::from(*number)),
        Carried::Long(number) => Some(*number),
        _ => None,
    };
    Ok(match (datatype.0, carried, whole) {
        (0, _, Some(_)) => return Err(TypeUnknown),
        (1, _, Some(raw)) => Ok(signed(raw, 8)),
        (2, _, Some(raw)) => Ok(signed(raw, 16)),
        (3, _, Some(raw)) => Ok(signed(raw, 32)),
        (4, Carried::Int(raw), _) => Ok(signed(u64::from(*raw), 32)),
        (4, _, Some(raw)) => Ok(signed(raw, 64)),
        (5, _, Some(raw)) => unsigned(raw, 8),
        (6, _, Some(raw)) => unsigned(raw, 16),
        (7, _, Some(raw)) => unsigned(raw, 32),
        (8 | 13, _, Some(raw)) => unsigned(raw, 64),
        (0 | 9 | 10, Carried::Float(number), _) => float(f64::from(*number)),
        (0 | 9 | 10, Carried::Double(number), _) => float(*number),
        (0 | 11, Carried::Boolean(flag), _) => Ok(Found::One(Value::Bool(*flag))),
        (11, _, Some(raw @ (0 | 1))) => Ok(Found::One(Value::Bool(raw == 1))),
        (0 | 12 | 14 | 15, Carried::Text(text), _) => Ok(Found::One(Value::Text(text.clone()))),
        (22..=34, Carried::Bytes(bytes), _) => array::read(datatype, bytes, most),
        (16, ..) | (_, Carried::DataSet(_), _) => unsupported("a DataSet"),
        (17, ..) => unsupported("Bytes"),
        (18, ..) => unsupported("a File"),
        (19, ..) | (_, Carried::Template(_), _) => unsupported("a Template"),
        (20 | 21, ..) => unsupported("a PropertySet as a value"),
        (0, Carried::Bytes(_), _) => unsupported("Bytes"),
        (_, Carried::Extension(_), _) => unsupported("an extension"),
        (number, ..) => Err((Reason::WrongKind, format!("a value of another kind than its data type {number}"))),
    })
}

/// A value as its data type is carried (Sparkplug 3.0.0, 6.4.16).
///
/// # Errors
/// Why it can't be.
pub(super) fn carry(datatype: DataType, value: &serde_json::Value) -> Result<Carried, String> {
    let unfit = |what: &str| format!("{value} is no {what}");
    let whole = |width: u32, is_signed: bool| {
        let bounds = match is_signed {
            true => -(1_i128 << width.saturating_sub(1))..1_i128 << width.saturating_sub(1),
            false => 0..1_i128 << width,
        };
        let what = format!("{}Int{width}", if is_signed { "" } else { "U" });
        whole_number(value).filter(|number| bounds.contains(number)).ok_or_else(|| unfit(&what))
    };
    // Two's complement of 32 bits for all that fit, as Tahu has it.
    let int = |number: i128| Carried::Int(low_bits(number) as u32);
    let long = |number: i128| Carried::Long(low_bits(number));
    match datatype.0 {
        1 => whole(8, true).map(int),
        2 => whole(16, true).map(int),
        3 => whole(32, true).map(int),
        4 => whole(64, true).map(long),
        5 => whole(8, false).map(int),
        6 => whole(16, false).map(int),
        7 => whole(32, false).map(int),
        8 => whole(64, false).map(long),
        13 => whole(64, false).map(long).map_err(|_| unfit("DateTime, which is milliseconds since 1970")),
        9 => {
            let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
            number.map(Carried::Float).ok_or_else(|| unfit("Float"))
        }
        10 => value.as_f64().map(Carried::Double).ok_or_else(|| unfit("Double")),
        11 => value.as_bool().map(Carried::Boolean).ok_or_else(|| unfit("Boolean")),
        12 | 14 | 15 => value.as_str().map(|text| Carried::Text(text.to_owned())).ok_or_else(|| unfit("String")),
        0 => Err("its birth does not tell its data type".to_owned()),
        other => Err(format!("its data type is number {other} of Sparkplug's, which commands can't set")),
    }
}

/// A JSON number without a fraction, exactly.
fn whole_number(value: &serde_json::Value) -> Option<i128> {
    let float = || value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15).map(|float| float as i128);
    value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)).or_else(float)
}

/// The lowest 64, in two's complement.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "that is what is wanted")]
fn low_bits(number: i128) -> u64 {
    number as u64
}

fn unsupported(what: &str) -> Result<Found, Unfit> {
    Err((Reason::Unsupported, format!("{what}, which is not supported")))
}

fn signed(raw: u64, width: u32) -> Found {
    let unused = 64_u32.saturating_sub(width);
    let number = raw.wrapping_shl(unused).cast_signed().wrapping_shr(unused);
    Found::One(integer(number.into()))
}

fn unsigned(raw: u64, width: u32) -> Result<Found, Unfit> {
    if raw.checked_shr(width).is_some_and(|beyond| beyond > 0) {
        return Err((Reason::NumberOutOfRange, format!("{raw} does not fit its data type, UInt{width}")));
    }
    Ok(Found::One(integer(raw.into())))
}

fn float(number: f64) -> Result<Found, Unfit> {
    if number.is_infinite() {
        return Err((Reason::NumberOutOfRange, "an infinite value".to_owned()));
    }
    Ok(if number.is_nan() { Found::Nothing } else { Found::One(Value::Number(number)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(datatype: DataType, carried: &Carried) -> Result<Result<Found, Unfit>, TypeUnknown> {
        super::read(datatype, carried, 10)
    }

    fn number(datatype: u8, carried: Carried) -> f64 {
        match read(DataType(datatype), &carried) {
            Ok(Ok(Found::One(Value::Number(number) | Value::Literal { number, .. }))) => number,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn negative_integers_are_read_however_they_are_carried() {
        for (datatype, width) in [(1, 8), (2, 16), (3, 32)] {
            assert_eq!(number(datatype, Carried::Int(u32::MAX)), -1.0);
            assert_eq!(number(datatype, Carried::Long((1 << width) - 5)), -5.0);
            assert_eq!(number(datatype, Carried::Long(u64::MAX)), -1.0);
            assert_eq!(number(datatype, Carried::Int(100)), 100.0);
        }
        assert_eq!(number(4, Carried::Long(u64::MAX - 1)), -2.0);
        assert_eq!(number(4, Carried::Int(u32::MAX)), -1.0);
        assert_eq!(number(1, Carried::Int(0x80)), -128.0);
    }

    #[test]
    fn what_is_carried_is_read_as_it_was_meant() {
        use serde_json::json;
        for (datatype, value) in [
            (1, json!(-128)),
            (2, json!(-300)),
            (3, json!(-1)),
            (4, json!(-5_000_000_000_i64)),
            (5, json!(255)),
            (6, json!(65_535)),
            (7, json!(4_000_000_000_u32)),
            (8, json!(5.0)),
            (9, json!(0.5)),
            (10, json!(21.3)),
            (13, json!(1_656_107_875_000_u64)),
        ] {
            let carried = carry(DataType(datatype), &value).unwrap();
            assert_eq!(Some(number(datatype, carried)), value.as_f64(), "{datatype} {value}");
        }
        assert_eq!(carry(DataType(8), &json!(u64::MAX)), Ok(Carried::Long(u64::MAX)));
        assert_eq!(carry(DataType(11), &json!(true)), Ok(Carried::Boolean(true)));
        assert_eq!(carry(DataType(12), &json!("on")), Ok(Carried::Text("on".into())));
        for (datatype, value, word) in [
            (1, json!(128), "Int8"),
            (5, json!(-1), "UInt8"),
            (3, json!(1.5), "Int32"),
            (8, json!(1e30), "UInt64"),
            (9, json!(1e300), "Float"),
            (10, json!("1"), "Double"),
            (11, json!(1), "Boolean"),
            (12, json!(null), "String"),
            (13, json!("now"), "DateTime"),
            (16, json!({}), "number 16"),
            (0, json!(1), "data type"),
        ] {
            let why = carry(DataType(datatype), &value).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn unsigned_integers_keep_every_digit_and_fit_their_type() {
        let found = read(DataType(8), &Carried::Long(u64::MAX)).unwrap().unwrap();
        let text = "18446744073709551615".to_owned();
        assert_eq!(found, Found::One(Value::Literal { number: 18_446_744_073_709_551_615.0, text }));
        assert_eq!(number(7, Carried::Long(4_000_000_000)), 4e9);
        assert_eq!(number(13, Carried::Long(1_656_107_875_000)), 1_656_107_875_000.0);
        let beyond = read(DataType(5), &Carried::Int(256)).unwrap().unwrap_err();
        assert_eq!(beyond.0, Reason::NumberOutOfRange);
    }

    #[test]
    fn what_is_no_number_is_absent_and_what_can_not_be_read_says_why() {
        assert_eq!(read(DataType(9), &Carried::Float(f32::NAN)), Ok(Ok(Found::Nothing)));
        let reason = |datatype, carried| read(DataType(datatype), &carried).unwrap().unwrap_err().0;
        assert_eq!(reason(10, Carried::Double(f64::NEG_INFINITY)), Reason::NumberOutOfRange);
        assert_eq!(reason(3, Carried::Text("1".into())), Reason::WrongKind);
        assert_eq!(reason(11, Carried::Int(2)), Reason::WrongKind);
        for (datatype, carried) in [
            (16, Carried::DataSet("".into())),
            (17, Carried::Bytes("".into())),
            (18, Carried::Bytes("".into())),
            (19, Carried::Template("".into())),
            (0, Carried::Template("".into())),
            (0, Carried::Extension("".into())),
        ] {
            assert_eq!(reason(datatype, carried), Reason::Unsupported);
        }
        assert_eq!(read(DataType::UNKNOWN, &Carried::Int(1)), Err(TypeUnknown));
        assert_eq!(read(DataType::UNKNOWN, &Carried::Boolean(true)), Ok(Ok(Found::One(Value::Bool(true)))));
    }
}

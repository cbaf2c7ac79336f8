//! Seconds since 1970, for formats that fix the unit: nothing is told from the number's size.

use super::bad_time;
use super::document::Node;
use crate::quarantine::Refusal;
use crate::time::UtcMicros;

/// The instant; none: `null`. Text is a decimal number.
///
/// # Errors
/// [`Refusal`] of the message: anything else, or an instant outside of the years -9999 to 9999.
pub(super) fn read(key: &str, node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    let found = match node {
        Node::Null => return Ok(None),
        Node::Integer(seconds) => seconds.checked_mul(1_000_000),
        Node::Float(seconds) => of_float(*seconds),
        Node::Text(text) => of_text(text),
        other => return Err(bad_time(key, &format!("is {}, seconds since 1970 are wanted", other.kind()))),
    };
    match found.and_then(within_years) {
        Some(at) => Ok(Some(at)),
        None => Err(bad_time(key, "no number of seconds since 1970, or beyond the year 9999")),
    }
}

/// `digits[.digits]` as seconds since 1970, cut to microseconds.
pub(super) fn of_digits(text: &str) -> Option<UtcMicros> {
    of_text(text).and_then(within_years)
}

fn within_years(micros: i128) -> Option<UtcMicros> {
    let micros = i64::try_from(micros).ok()?;
    jiff::Timestamp::from_microsecond(micros).ok().map(|_| UtcMicros(micros))
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and what is beyond all years is refused")]
fn of_float(seconds: f64) -> Option<i128> {
    Some((seconds * 1e6).round() as i128)
}

fn of_text(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let micros: i128 = format!("{:0<6}", fraction.get(..6).unwrap_or(fraction)).parse().ok()?;
    whole.parse::<i128>().ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(node: Node) -> Option<i64> {
        read("ts", &node).ok().flatten().map(|at| at.0)
    }

    #[test]
    fn seconds_are_seconds_however_large() {
        assert_eq!(micros(Node::Integer(1_700_000_000)), Some(1_700_000_000_000_000));
        assert_eq!(micros(Node::Integer(200_000_000_000)), Some(200_000_000_000_000_000));
        assert_eq!(micros(Node::Float(1_788_945_292.88)), Some(1_788_945_292_880_000));
        assert_eq!(micros(Node::Text("1700000000.0753359".into())), Some(1_700_000_000_075_335));
        assert_eq!(micros(Node::Text("16".into())), Some(16_000_000));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ".", "1.", "-1", "1e9", "noon", &"9".repeat(60)] {
            assert!(read("ts", &Node::Text(text.into())).is_err(), "{text}");
        }
        for node in [Node::Integer(i128::MAX), Node::Float(1e300), Node::Float(-1e300), Node::Bool(true)] {
            assert!(read("ts", &node).is_err(), "{node:?}");
        }
        assert_eq!(read("ts", &Node::Null), Ok(None));
    }
}

//! Seconds since 1970, for formats that fix the unit: nothing is told from the number's size.

use super::bad_time;
use super::document::Node;
use crate::quarantine::Refusal;
use crate::time::{self, Stamp, Unit, UtcMicros};

/// The instant; none: `null`. Text is a decimal number.
///
/// # Errors
/// [`Refusal`] of the message: anything else, or an instant outside of the years -9999 to 9999.
pub(super) fn read(key: &str, node: &Node) -> Result<Option<UtcMicros>, Refusal> {
    match (node, node.stamp()) {
        (Node::Null, _) => Ok(None),
        (_, Some(stamp)) => match time::count(stamp, Unit::Seconds) {
            Ok(at) => Ok(Some(at)),
            Err(_) => Err(bad_time(key, "no number of seconds since 1970, or beyond the year 9999")),
        },
        (other, None) => Err(bad_time(key, &format!("is {}, seconds since 1970 are wanted", other.kind()))),
    }
}

/// `digits[.digits]` as seconds since 1970, cut to microseconds.
pub(super) fn of_digits(text: &str) -> Option<UtcMicros> {
    time::count(Stamp::Text(text), Unit::Seconds).ok()
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
        for text in ["", ".", "1.", "1e9", "noon", &"9".repeat(60)] {
            assert!(read("ts", &Node::Text(text.into())).is_err(), "{text}");
        }
        for node in [Node::Integer(i128::MAX), Node::Float(1e300), Node::Float(-1e300), Node::Bool(true)] {
            assert!(read("ts", &node).is_err(), "{node:?}");
        }
        assert_eq!(read("ts", &Node::Null), Ok(None));
    }
}

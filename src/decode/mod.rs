//! Payload → samples. One file for each payload format; pure.

mod json;
mod scalar;

use std::ops::Range;

use crate::config::{Decoder, Limits};
use crate::quarantine::{Reason, Refusal};
use crate::time::UtcMicros;

pub use scalar::decimal;

/// A raw value, as the decoder found it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Finite.
    Number(f64),
    /// A finite number written otherwise than its plain text (`0042`, `1.10`, an integer beyond 2^53): a metric of kind
    /// text needs the writing.
    Literal {
        number: f64,
        text: String,
    },
    Bool(bool),
    Text(String),
}

/// One raw key and value, before any template.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Where the key stands in its point's `keys`.
    place: Range<usize>,
    pub value: Value,
}

impl Sample {
    /// The raw key; `keys`: its point's.
    pub fn key<'k>(&self, keys: &'k str) -> &'k str {
        keys.get(self.place.clone()).unwrap_or_default()
    }
}

/// The samples of one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// The time that the payload gives; none: the time of receipt.
    pub time: Option<UtcMicros>,
    /// All raw keys in one text, so that none costs an allocation.
    pub keys: String,
    pub samples: Vec<Sample>,
}

/// What a decoder needs to know beside the payload.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The `metric` capture of the topic, joined with dots; names a scalar.
    pub metric: Option<&'a str>,
    /// Raw key that holds the time, if the source says so.
    pub timestamp: Option<&'a str>,
    /// For local text timestamps; none: UTC.
    pub timezone: Option<&'a jiff::tz::TimeZone>,
    pub limits: &'a Limits,
}

/// Reads a payload. No points: it says that there is no value (an empty or `null` scalar, a JSON `null`). Points of one
/// instant are not merged.
///
/// # Errors
/// The one [`Refusal`] of the whole message: a payload is taken or refused as a whole.
pub fn decode(decoder: Decoder, payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    match decoder {
        Decoder::Json => json::decode(payload, context),
        Decoder::Scalar => scalar::decode(payload, context),
    }
}

fn out_of_range(key: &str) -> Refusal {
    Refusal::message(Reason::NumberOutOfRange, format!("number out of range of a 64-bit float; key {key}"))
}

fn utf8(payload: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(payload).map_err(|error| {
        Refusal::message(Reason::NotUtf8, format!("invalid UTF-8 after {} bytes of the payload", error.valid_up_to()))
    })
}

fn key_too_long(key: &str, limits: &Limits) -> Refusal {
    let (length, most) = (key.len(), limits.max_key_length);
    let detail = format!("key too long: {length} bytes, limits.max_key_length is {most}; key {key}");
    Refusal::message(Reason::KeyTooLong, detail)
}

fn text_too_long(key: &str, length: usize, limits: &Limits) -> Refusal {
    let most = limits.max_text_length;
    let detail = format!("text value too long: {length} bytes, limits.max_text_length is {most}; key {key}");
    Refusal::message(Reason::TooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) const LIMITS: Limits =
        Limits { max_depth: 32, max_keys: 1000, max_key_length: 255, max_text_length: 4096 };

    pub(super) fn context() -> Context<'static> {
        Context { metric: None, timestamp: None, timezone: None, limits: &LIMITS }
    }

    /// JSON-like text: most of it almost right.
    fn scraps() -> impl Strategy<Value = String> {
        let scrap = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"ts\"",
            "\"values\"",
            "1",
            "-0.5e3",
            "true",
            "null",
            "\"",
            "\\u",
            " ",
        ]);
        prop::collection::vec(scrap, 0..40).prop_map(|scraps| scraps.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..200), scraps in scraps()) {
            for decoder in [Decoder::Json, Decoder::Scalar] {
                let _ = decode(decoder, &payload, &context());
                let _ = decode(decoder, scraps.as_bytes(), &Context { timestamp: Some("a"), ..context() });
            }
        }

        #[test]
        fn numbers_are_finite_and_keys_bounded(scraps in scraps()) {
            for point in decode(Decoder::Json, scraps.as_bytes(), &context()).unwrap_or_default() {
                for sample in point.samples {
                    prop_assert!(sample.key(&point.keys).len() <= LIMITS.max_key_length);
                    prop_assert!(!matches!(sample.value, Value::Number(number) if !number.is_finite()));
                }
            }
        }
    }
}

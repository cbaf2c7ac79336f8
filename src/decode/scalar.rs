//! One value as text: a number, a boolean or a word, named by the topic.

use super::{Context, Point, Sample, Value};
use crate::config::Limits;
use crate::quarantine::Refusal;

/// The key where the topic captures no metric.
const UNNAMED: &str = "value";

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    named(context.captures.metric.as_deref().unwrap_or(UNNAMED), payload, context.limits)
}

/// White space around the value is trimmed; nothing, and `null` and `nan` in any case, mean that there is no value; text in
/// JSON quotes is unquoted; what is neither number nor `true` or `false` is text.
pub(super) fn named(key: &str, payload: &[u8], limits: &Limits) -> Result<Vec<Point>, Refusal> {
    let text = super::utf8(payload)?.trim_ascii();
    let Some(value) = value(text, key, limits)? else {
        return Ok(Vec::new());
    };
    if key.len() > limits.max_key_length {
        return Err(super::key_too_long(key, limits));
    }
    let sample = Sample { place: 0..key.len(), value };
    Ok(vec![Point { time: None, keys: key.to_owned(), samples: vec![sample] }])
}

/// A value as text without white space around it; none: it says that there is none.
///
/// # Errors
/// [`Refusal`] of the message: a number beyond a float, a text that is too long.
pub(super) fn value(text: &str, key: &str, limits: &Limits) -> Result<Option<Value>, Refusal> {
    if text.is_empty() || text.eq_ignore_ascii_case("null") || text.eq_ignore_ascii_case("nan") {
        return Ok(None);
    }
    let value = read(text).ok_or_else(|| super::out_of_range(key))?;
    let length = match &value {
        Value::Text(text) | Value::Literal { text, .. } => text.len(),
        Value::Number(_) | Value::Bool(_) => 0,
    };
    if length > limits.max_text_length {
        return Err(super::text_too_long(key, length, limits));
    }
    Ok(Some(value))
}

/// None: a number that is not finite.
fn read(text: &str) -> Option<Value> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(number) = decimal(text) {
        if !number.is_finite() {
            return None;
        }
        return Some(if number.to_string() == text {
            Value::Number(number)
        } else {
            Value::Literal { number, text: text.to_owned() }
        });
    }
    if text.starts_with('"')
        && let Ok(unquoted) = serde_json::from_str::<String>(text)
    {
        return Some(Value::Text(unquoted));
    }
    Some(Value::Text(text.to_owned()))
}

/// The number, if `text` is wholly one: `[+-]digits[.digits][e[+-]digits]`, with digits before or after the point.
/// Infinite if it is beyond the range of an `f64`.
pub fn decimal(text: &str) -> Option<f64> {
    let last = *text.as_bytes().last()?;
    let alphabet = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    // Within this alphabet the parser's grammar is ours.
    if alphabet && (last.is_ascii_digit() || last == b'.') { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMITS, context};
    use super::*;
    use crate::quarantine::Reason;
    use crate::source::Captures;

    fn value(payload: &str) -> Option<Value> {
        decode(payload.as_bytes(), &context()).unwrap().pop().map(|mut point| point.samples.remove(0).value)
    }

    fn literal(number: f64, text: &str) -> Option<Value> {
        Some(Value::Literal { number, text: text.to_owned() })
    }

    fn text(text: &str) -> Option<Value> {
        Some(Value::Text(text.to_owned()))
    }

    #[test]
    fn numbers_keep_their_writing_where_a_float_does_not() {
        assert_eq!(value("21.5"), Some(Value::Number(21.5)));
        assert_eq!(value(" -3 "), Some(Value::Number(-3.0)));
        assert_eq!(value("0042"), literal(42.0, "0042"));
        assert_eq!(value("1.10"), literal(1.1, "1.10"));
        assert_eq!(value("9007199254740993"), literal(9007199254740992.0, "9007199254740993"));
        assert_eq!(value(".5"), literal(0.5, ".5"));
        assert_eq!(value("5."), literal(5.0, "5."));
    }

    #[test]
    fn what_is_no_number_is_a_word() {
        for word in
            ["ON", "21,5", "12%", "0x1F", "inf", "infinity", ".", "-", "e5", "1e", "1_000", "+nan", "True", "--1"]
        {
            assert_eq!(value(word), text(word), "{word}");
        }
        assert_eq!(value("\"a\\nb\""), text("a\nb"));
        assert_eq!(value("\"21.5\""), text("21.5"));
        assert_eq!(value("\"\""), text(""));
        assert_eq!(value("\"open"), text("\"open"));
        assert_eq!(value("true"), Some(Value::Bool(true)));
    }

    #[test]
    fn nothing_null_and_nan_mean_no_value() {
        for absent in ["", "  \r\n", "null", "NULL", "nan", "NaN"] {
            assert_eq!(value(absent), None, "{absent}");
        }
    }

    #[test]
    fn limits_hold() {
        let reason = |payload: String| decode(payload.as_bytes(), &context()).unwrap_err().reason;
        assert_eq!(reason("-1e400".into()), Reason::NumberOutOfRange);
        assert_eq!(reason("x".repeat(LIMITS.max_text_length + 1)), Reason::TooLarge);
        let long = "m".repeat(LIMITS.max_key_length + 1);
        let captures = Captures { metric: Some(long.into()), ..Captures::default() };
        let named = Context { captures: &captures, ..context() };
        assert_eq!(decode(b"1", &named).unwrap_err().reason, Reason::KeyTooLong);
    }
}

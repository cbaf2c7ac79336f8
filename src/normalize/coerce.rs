//! One raw value → the value of a metric: kind, enumerated values, scale, offset, range.
//!
//! | metric | takes |
//! | --- | --- |
//! | number | numbers; text that is wholly a decimal number; what `values` lists |
//! | bool | `true`, `false`, 1, 0; what `values` lists |
//! | text | text; numbers as the device wrote them, where that is known; `true`, `false`; all of them through `words` |
//!
//! `values` is asked first, case-sensitively, with the text, or with a number or boolean as text. What it gives is the
//! metric's value: scale and offset apply to numbers as measured only. `words` is asked likewise; what it lacks stays as it is.

use std::collections::BTreeMap;

use crate::catalog::unit::Conversion;
use crate::catalog::{Kind, Metric};
use crate::decode::{Value, decimal};
use crate::quarantine::Reason;

/// A value that fits its metric.
#[derive(Debug, PartialEq)]
pub(super) enum Fit {
    /// Finite; booleans are 1 and 0.
    Number(f64),
    Text(String),
}

/// Why a value does not fit.
pub(super) type Misfit = (Reason, String);

/// What an unmodeled value is: what it came as.
pub(super) fn as_found(value: Value) -> (Kind, Fit) {
    match value {
        Value::Number(number) | Value::Literal { number, .. } => (Kind::Number, Fit::Number(number)),
        Value::Bool(flag) => (Kind::Bool, Fit::Number(f64::from(u8::from(flag)))),
        Value::Text(text) => (Kind::Text, Fit::Text(text)),
    }
}

/// Makes a raw value one of the metric's. `conversion`: of its key.
pub(super) fn fit(metric: &Metric, conversion: Conversion, value: Value) -> Result<Fit, Misfit> {
    match metric.kind {
        Kind::Text => Ok(Fit::Text(listed(&metric.words, &value).cloned().unwrap_or_else(|| plain(value)))),
        Kind::Number => {
            let number = match listed(&metric.values, &value) {
                Some(number) => *number,
                None => converted(conversion, measured(metric, &value)?)?,
            };
            in_range(&metric.name, metric.range, number).map(Fit::Number)
        }
        Kind::Bool => {
            let number = match (listed(&metric.values, &value), &value) {
                (Some(number), _) => *number,
                (None, Value::Bool(flag)) => f64::from(u8::from(*flag)),
                (None, Value::Number(number) | Value::Literal { number, .. }) => *number,
                (None, Value::Text(_)) => return Err(wrong_kind(metric, &value)),
            };
            if number == 0.0 || number == 1.0 { Ok(Fit::Number(number.abs())) } else { Err(wrong_kind(metric, &value)) }
        }
    }
}

/// What `values` or `words` has for the raw value.
pub(super) fn listed<'m, T>(all: &'m BTreeMap<String, T>, value: &Value) -> Option<&'m T> {
    // Numbers are written out only where somebody asks.
    if all.is_empty() {
        return None;
    }
    match value {
        Value::Text(text) => all.get(text.as_str()),
        Value::Bool(flag) => all.get(if *flag { "true" } else { "false" }),
        Value::Number(number) => all.get(&number.to_string()),
        Value::Literal { number, text } => all.get(text.as_str()).or_else(|| all.get(&number.to_string())),
    }
}

fn measured(metric: &Metric, value: &Value) -> Result<f64, Misfit> {
    match value {
        Value::Number(number) | Value::Literal { number, .. } => Ok(*number),
        Value::Text(text) => match decimal(text.trim_ascii()) {
            Some(number) if number.is_finite() => Ok(number),
            Some(_) => Err((Reason::NumberOutOfRange, format!("{} is out of range of a 64-bit float", shown(value)))),
            None => Err(wrong_kind(metric, value)),
        },
        Value::Bool(_) => Err(wrong_kind(metric, value)),
    }
}

/// A number in the metric's unit.
pub(super) fn converted(conversion: Conversion, raw: f64) -> Result<f64, Misfit> {
    let number = conversion.apply(raw);
    if number.is_finite() {
        return Ok(number);
    }
    let detail = format!("{raw} × {} + {} is out of range of a 64-bit float", conversion.scale, conversion.offset);
    Err((Reason::NumberOutOfRange, detail))
}

/// The number, if it lies within a metric's range.
pub(super) fn in_range(name: &str, range: Option<(f64, f64)>, number: f64) -> Result<f64, Misfit> {
    match range {
        Some((low, high)) if number < low || number > high => {
            let detail = format!("{number} is outside of {low} to {high}, the range of {name}");
            Err((Reason::OutOfRange, detail))
        }
        _ => Ok(number),
    }
}

fn wrong_kind(metric: &Metric, value: &Value) -> Misfit {
    let wanted = match metric.kind {
        Kind::Number => "a number",
        Kind::Bool => "true, false, 1 or 0",
        Kind::Text => "text",
    };
    let mut detail = format!("found {}; {} wants {wanted}", shown(value), metric.name);
    if !metric.values.is_empty() {
        let words: Vec<&str> = metric.values.keys().map(String::as_str).take(10).collect();
        detail.push_str(" or one of its values: ");
        detail.push_str(&words.join(", "));
    }
    (Reason::WrongKind, detail)
}

/// A raw value as text.
pub(super) fn plain(value: Value) -> String {
    match value {
        Value::Text(text) | Value::Literal { text, .. } => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("text {:?}", text.get(..text.floor_char_boundary(80)).unwrap_or(text)),
        Value::Literal { text, .. } => format!("number {text}"),
        Value::Number(number) => format!("number {number}"),
        Value::Bool(flag) => format!("boolean {flag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::testing::metric;

    fn number(found: f64) -> Result<Fit, Reason> {
        Ok(Fit::Number(found))
    }

    fn try_fit(metric: &Metric, value: Value) -> Result<Fit, Reason> {
        let conversion = metric.keys[0].conversion(metric);
        fit(metric, conversion, value).map_err(|(reason, _)| reason)
    }

    fn word(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn numbers_are_scaled_then_held_against_the_range() {
        let metric = Metric { scale: 0.5, offset: 1.0, range: Some((-1.0, 6.0)), ..metric("m", Kind::Number) };
        assert_eq!(try_fit(&metric, Value::Number(10.0)), number(6.0));
        assert_eq!(try_fit(&metric, word(" 10 ")), number(6.0));
        assert_eq!(try_fit(&metric, Value::Number(10.1)), Err(Reason::OutOfRange));
        assert_eq!(try_fit(&metric, word("1e400")), Err(Reason::NumberOutOfRange));
        assert_eq!(try_fit(&metric, word("21,5")), Err(Reason::WrongKind));
        assert_eq!(try_fit(&metric, Value::Bool(true)), Err(Reason::WrongKind));
        let steep = Metric { scale: 1e10, ..metric.clone() };
        assert_eq!(try_fit(&steep, Value::Number(1e300)), Err(Reason::NumberOutOfRange));
    }

    #[test]
    fn words_stand_for_numbers_only_where_values_says_so() {
        let values = [("open", 0.0), ("closed", 1.0)].map(|(word, number)| (word.to_owned(), number));
        let contact = Metric { values: values.into_iter().collect(), ..metric("contact", Kind::Bool) };
        assert_eq!(try_fit(&contact, word("closed")), number(1.0));
        assert_eq!(try_fit(&contact, word("Closed")), Err(Reason::WrongKind));
        assert_eq!(try_fit(&contact, Value::Bool(true)), number(1.0));
        let plain = metric("contact", Kind::Bool);
        assert_eq!(try_fit(&plain, word("true")), Err(Reason::WrongKind));
        assert_eq!(try_fit(&plain, Value::Number(0.0)), number(0.0));
        assert_eq!(try_fit(&plain, Value::Number(2.0)), Err(Reason::WrongKind));
        let inverted = [("true", 0.0), ("false", 1.0), ("3", 1.0)].map(|(word, number)| (word.to_owned(), number));
        let inverted = Metric { values: inverted.into_iter().collect(), ..contact };
        assert_eq!(try_fit(&inverted, Value::Bool(true)), number(0.0));
        assert_eq!(try_fit(&inverted, Value::Number(3.0)), number(1.0));
        let (_, detail) = fit(&inverted, Conversion::NONE, word("ajar")).unwrap_err();
        assert_eq!(
            detail,
            r#"found text "ajar"; contact wants true, false, 1 or 0 or one of its values: 3, false, true"#
        );
    }

    #[test]
    fn values_are_not_scaled() {
        let values = [("off".to_owned(), 0.0), ("0".to_owned(), -1.0)];
        let metric = Metric { scale: 2.0, values: values.into_iter().collect(), ..metric("m", Kind::Number) };
        assert_eq!(try_fit(&metric, word("off")), number(0.0));
        assert_eq!(try_fit(&metric, Value::Number(0.0)), number(-1.0));
        assert_eq!(try_fit(&metric, Value::Number(4.0)), number(8.0));
    }

    #[test]
    fn raw_values_become_the_words_that_are_listed_and_others_stay() {
        let words = [("0", "idle"), ("1", "heating"), ("true", "on"), ("H", "hold")];
        let words = words.map(|(raw, word)| (raw.to_owned(), word.to_owned())).into_iter().collect();
        let state = Metric { words, ..metric("state", Kind::Text) };
        let text = |text: &str| Ok(Fit::Text(text.to_owned()));
        assert_eq!(try_fit(&state, Value::Number(1.0)), text("heating"));
        assert_eq!(try_fit(&state, Value::Literal { number: 0.0, text: "0.0".to_owned() }), text("idle"));
        assert_eq!(try_fit(&state, word("0")), text("idle"));
        assert_eq!(try_fit(&state, Value::Bool(true)), text("on"));
        assert_eq!(try_fit(&state, word("H")), text("hold"));
        assert_eq!(try_fit(&state, word("h")), text("h"));
        assert_eq!(try_fit(&state, Value::Number(2.0)), text("2"));
        assert_eq!(try_fit(&state, Value::Bool(false)), text("false"));
    }

    #[test]
    fn serial_numbers_stay_as_written() {
        let serial = metric("serial", Kind::Text);
        let written = Value::Literal { number: 42.0, text: "0042".to_owned() };
        assert_eq!(try_fit(&serial, written), Ok(Fit::Text("0042".to_owned())));
        assert_eq!(try_fit(&serial, Value::Number(55_355_535_553_555.0)), Ok(Fit::Text("55355535553555".to_owned())));
        assert_eq!(try_fit(&serial, Value::Bool(false)), Ok(Fit::Text("false".to_owned())));
    }
}

//! tidegate's native payloads: a flat or nested object, `{"ts": …, "values": {…}}`, an array of those.
//!
//! - Nested objects flatten to dotted keys, arrays to `key[0]`; `null` means that there is no value.
//! - An object whose only members are `values` (an object) and perhaps `ts` is an envelope: its values' keys stand alone.
//! - `ts` beside other members is the time too, if it is a number or text. A source whose `timestamp` names another key
//!   takes the time from there (a dotted key, as it is without the envelope), and a `ts` outside of an envelope is then
//!   an ordinary key.
//! - A time that can't be read refuses the message; one that is absent or `null` is the time of receipt.
//! - Integers beyond 2^53 become the nearest float; up to 64 bits their digits are kept for metrics of kind text.

mod visit;
mod walk;

use serde::de::{DeserializeSeed, Deserializer};

use super::{Context, Point};
use crate::quarantine::{Reason, Refusal};
use visit::Document;
use walk::Walk;

pub(super) fn decode(payload: &[u8], context: &Context<'_>) -> Result<Vec<Point>, Refusal> {
    let text = text(payload)?;
    let mut walk = Walk::new(context, text.len());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    if let Err(error) = (Document { walk: &mut walk, element: false }).deserialize(&mut deserializer) {
        return Err(walk.refusal.take().unwrap_or_else(|| syntax(&error, &walk.path)));
    }
    end(&mut deserializer)?;
    Ok(walk.points)
}

/// The points of a document that is no text; `length`: of the payload that it was.
pub(super) fn walk<'de, D: Deserializer<'de>>(
    document: D,
    length: usize,
    context: &Context<'_>,
) -> Result<Vec<Point>, Refusal> {
    let mut walk = Walk::new(context, length);
    match (Document { walk: &mut walk, element: false }).deserialize(document) {
        Ok(()) => Ok(walk.points),
        Err(error) => Err(walk.refusal.take().unwrap_or_else(|| malformed(error.to_string()))),
    }
}

/// The text of a JSON document.
pub(super) fn text(payload: &[u8]) -> Result<&str, Refusal> {
    let text = super::utf8(payload)?;
    if text.starts_with('\u{feff}') {
        return Err(malformed("byte order mark before the JSON document; send it without"));
    }
    if text.trim_ascii().is_empty() {
        return Err(Refusal::message(Reason::Empty, "empty payload: a JSON document is wanted"));
    }
    Ok(text)
}

/// Refuses what follows the document.
pub(super) fn end<'t>(
    deserializer: &mut serde_json::Deserializer<impl serde_json::de::Read<'t>>,
) -> Result<(), Refusal> {
    deserializer.end().map_err(|error| malformed(format!("trailing data after the JSON document: {error}")))
}

/// What the parser's own complaint about the value at `path` means.
pub(super) fn syntax(error: &serde_json::Error, path: &str) -> Refusal {
    let text = error.to_string();
    if text.starts_with("number out of range") {
        super::out_of_range(path)
    } else if text.starts_with("recursion limit exceeded") {
        Refusal::message(Reason::TooDeep, "nested too deep for the parser: 127 levels are the most")
    } else {
        malformed(format!("malformed JSON: {text}"))
    }
}

pub(super) fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal::message(Reason::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::super::tests::{LIMITS, context};
    use super::*;
    use crate::time::UtcMicros;

    const NOV: UtcMicros = UtcMicros(1_700_000_000_000_000);

    fn points(payload: &str, timestamp: Option<&str>) -> Vec<(Option<UtcMicros>, Vec<String>)> {
        let found = decode(payload.as_bytes(), &Context { timestamp, ..context() }).unwrap();
        let keys = |point: &Point| point.samples.iter().map(|sample| sample.key(&point.keys).to_owned()).collect();
        found.into_iter().map(|point| (point.time, keys(&point))).collect()
    }

    fn one(payload: &str, timestamp: Option<&str>) -> (Option<UtcMicros>, String) {
        let mut found = points(payload, timestamp);
        assert_eq!(found.len(), 1, "{payload}");
        let (time, keys) = found.remove(0);
        (time, keys.join(" "))
    }

    fn refusal(payload: &str) -> Refusal {
        decode(payload.as_bytes(), &context()).unwrap_err()
    }

    #[test]
    fn the_envelope_is_stripped_wherever_its_members_stand() {
        assert_eq!(one(r#"{"values":{"a":1,"b":{"c":2}},"ts":1700000000}"#, None), (Some(NOV), "a b.c".into()));
        assert_eq!(one(r#"{"values":{"a":1}}"#, None), (None, "a".into()));
        assert_eq!(one(r#"{"ts":null,"values":{"a":1}}"#, None), (None, "a".into()));
        assert_eq!(one(r#"{"ts":1700000000,"values":{"ts":5}}"#, None), (Some(NOV), "ts".into()));
        assert_eq!(one(r#"{"values":{"a":1},"n":2}"#, None), (None, "values.a n".into()));
        assert_eq!(one(r#"{"values":[1],"ts":1700000000}"#, None), (Some(NOV), "values[0]".into()));
        assert_eq!(one(r#"{"values":3}"#, None), (None, "values".into()));
    }

    #[test]
    fn ts_in_a_flat_object_is_its_time() {
        assert_eq!(one(r#"{"ts":1700000000,"a":1}"#, None), (Some(NOV), "a".into()));
        assert_eq!(one(r#"{"ts":"2023-11-14T22:13:20Z","a":1}"#, None), (Some(NOV), "a".into()));
        assert_eq!(one(r#"{"ts":true,"a":1}"#, None), (None, "ts a".into()));
        assert_eq!(one(r#"{"b":{"ts":1700000000},"a":1}"#, None), (None, "b.ts a".into()));
        assert_eq!(refusal(r#"{"ts":"soon","a":1}"#).reason, Reason::BadTime);
        assert_eq!(refusal(r#"{"ts":true,"values":{}}"#).reason, Reason::BadTime);
    }

    #[test]
    fn the_timestamp_key_of_the_source_is_the_time_and_no_sample() {
        let payload = r#"{"ts":5,"a":{"Time":"2023-11-14T22:13:20"},"b":1}"#;
        assert_eq!(one(payload, Some("a.Time")), (Some(NOV), "ts b".into()));
        assert_eq!(one(r#"{"values":{"Time":1700000000,"b":1}}"#, Some("Time")), (Some(NOV), "b".into()));
        assert_eq!(one(r#"{"ts":1700000000,"values":{"b":1}}"#, Some("Time")), (Some(NOV), "b".into()));
        assert_eq!(one(r#"{"Time":null,"b":1}"#, Some("Time")), (None, "b".into()));
        assert_eq!(one(r#"{"b":1}"#, Some("Time")), (None, "b".into()));
        for bad in [r#"{"Time":"noon","b":1}"#, r#"{"Time":false,"b":1}"#] {
            let found = decode(bad.as_bytes(), &Context { timestamp: Some("Time"), ..context() });
            assert_eq!(found.unwrap_err().reason, Reason::BadTime);
        }
    }

    #[test]
    fn nanoseconds_are_not_rounded() {
        let time = one(r#"{"ts":1700000000123456999,"values":{}}"#, None).0;
        assert_eq!(time, Some(UtcMicros(NOV.0 + 123_456)));
    }

    #[test]
    fn duplicates_are_refused_however_they_are_spelt() {
        for (payload, key) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"a":1,"a":null}"#, "a"),
            (r#"{"a":1,"\u0061":2}"#, "a"),
            (r#"{"a":{"b":1},"a":{"c":2}}"#, "a"),
            (r#"{"a":1,"a":{"b":2}}"#, "a"),
            (r#"{"a":{},"a":{}}"#, "a"),
            (r#"{"a":[1],"a[0]":2}"#, "a[0]"),
            (r#"{"a":[{"b":1,"b":2}]}"#, "a[0].b"),
            (r#"{"values":{"a.b":1,"a":{"b":2}}}"#, "a.b"),
            (r#"[{"x":1},{"a":1,"a":2}]"#, "a"),
        ] {
            let refusal = refusal(payload);
            assert_eq!((refusal.reason, refusal.detail), (Reason::DuplicateKey, format!("duplicate key {key}")));
        }
        assert_eq!(one(r#"{"a.b":{"c":1},"a":{"b":2,"b.d":3}}"#, None).1, "a.b.c a.b a.b.d");
        assert_eq!(one(r#"{"":{"x":1},"x":2}"#, None).1, ".x x");
        assert_eq!(points(r#"[{"a":1},{"a":2},null]"#, None).len(), 2);
    }

    #[test]
    fn only_objects_and_arrays_of_objects_are_native() {
        for bad in ["1", "\"a\"", "true", "[1]", "[[{}]]", "-1", "1.5", "[\"a\"]"] {
            assert_eq!(refusal(bad).reason, Reason::Malformed, "{bad}");
        }
        assert_eq!(points("null", None), []);
        assert_eq!(points("[]", None), []);
        assert_eq!(points("{}", None), [(None, Vec::new())]);
    }

    #[test]
    fn digits_beyond_a_float_are_kept() {
        let mut found = decode(br#"{"a":9007199254740993,"b":9007199254740992}"#, &context()).unwrap();
        let samples = found.remove(0).samples;
        let digits = Value::Literal { number: 9_007_199_254_740_992.0, text: "9007199254740993".into() };
        assert_eq!(samples[0].value, digits);
        assert_eq!(samples[1].value, Value::Number(9_007_199_254_740_992.0));
    }

    proptest::proptest! {
        #[test]
        fn floats_round_trip(number in -1.0e6_f64..1.0e6) {
            let payload = format!("{{\"a\":{number:?}}}");
            let samples = decode(payload.as_bytes(), &context()).unwrap().remove(0).samples;
            proptest::prop_assert_eq!(&samples[0].value, &Value::Number(number));
        }
    }

    #[test]
    fn limits_hold() {
        let keys = |n: usize| (0..n).map(|i| format!("\"k{i}\":{i}")).collect::<Vec<_>>().join(",");
        assert_eq!(refusal(&format!("{{{}}}", keys(10_000))).reason, Reason::TooManyKeys);
        assert_eq!(points(&format!("{{{}}}", keys(LIMITS.max_keys)), None)[0].1.len(), LIMITS.max_keys);
        let key = "k".repeat(LIMITS.max_key_length);
        assert_eq!(one(&format!("{{\"values\":{{\"{key}\":1}}}}"), None).1, key);
        assert_eq!(refusal(&format!("{{\"{key}k\":1}}")).reason, Reason::KeyTooLong);
        assert_eq!(refusal(&format!("{{\"{key}kkkkkkkk\":{{\"a\":1}}}}")).reason, Reason::KeyTooLong);
        let nested = |n: usize| format!("{}1{}", "{\"k\":".repeat(n), "}".repeat(n));
        assert_eq!(points(&nested(LIMITS.max_depth), None).len(), 1);
        assert_eq!(refusal(&nested(LIMITS.max_depth + 1)).reason, Reason::TooDeep);
        let generous = crate::config::Limits { max_depth: 1000, ..LIMITS };
        let found = decode(nested(500).as_bytes(), &Context { limits: &generous, ..context() });
        assert_eq!(found.unwrap_err().reason, Reason::TooDeep);
        assert_eq!(refusal(&format!("[{}1]", "[],".repeat(3))).reason, Reason::Malformed);
    }
}

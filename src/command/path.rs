//! Where a value stands in a JSON document: `a.b[0].c`. A key with a dot is found too, where it is written whole.

use serde_json::Value;

/// The value at a dotted path; the empty path is the document itself.
pub fn at<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(document);
    }
    if let Some(found) = document.get(path) {
        return Some(found);
    }
    // The longest key first, so that one with a dot is found.
    let ends = path.match_indices(['.', '[']).map(|(end, _)| end).filter(|end| *end > 0);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        let (key, rest) = (path.get(..end)?, path.get(end..)?);
        if let Some(value) = document.get(key) {
            return below(value, rest);
        }
    }
    if path.starts_with('[') { below(document, path) } else { None }
}

/// `rest` begins with `.` or `[`.
fn below<'v>(value: &'v Value, rest: &str) -> Option<&'v Value> {
    if let Some(rest) = rest.strip_prefix('.') {
        return at(value, rest);
    }
    let (index, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let item = value.get(index.parse::<usize>().ok()?)?;
    if rest.is_empty() { Some(item) } else { below(item, rest) }
}

/// A scalar as plain text, anything else as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether two values say the same: numbers by value, texts but for ASCII case, a text that is a number or a truth value like that.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => a.eq_ignore_ascii_case(b),
        (Value::String(text), other @ (Value::Number(_) | Value::Bool(_)))
        | (other @ (Value::Number(_) | Value::Bool(_)), Value::String(text)) => {
            text.parse::<Value>().is_ok_and(|value| !value.is_string() && same(&value, other))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

/// Whether a value shows another: a list in one of its items, an object in each member that the other has, and a number by at most
/// `within`. Anything else shows what is [`same`].
pub fn shows(found: &Value, wanted: &Value, within: f64) -> bool {
    match (found, wanted) {
        (Value::Array(items), wanted) if !wanted.is_array() => items.iter().any(|item| shows(item, wanted, within)),
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| shows(found, wanted, within)))
        }
        _ if within > 0.0 => match (number(found), number(wanted)) {
            (Some(found), Some(wanted)) => (found - wanted).abs() <= within,
            _ => same(found, wanted),
        },
        _ => same(found, wanted),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        other => other.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let document = json!({ "a": { "b": [{ "c": 7 }, [1, 2]] }, "x.y": 1, "x.z": { "w": 2 }, "": 3 });
        assert_eq!(at(&document, "a.b[0].c"), Some(&json!(7)));
        assert_eq!(at(&document, "a.b[1][1]"), Some(&json!(2)));
        assert_eq!(at(&document, "x.y"), Some(&json!(1)));
        assert_eq!(at(&document, "x.z.w"), Some(&json!(2)));
        assert_eq!(at(&document, ""), Some(&document));
        assert_eq!(at(&json!([5]), "[0]"), Some(&json!(5)));
        for none in ["a.c", "a.b[2]", "a.b[x]", "a.b[", "b", ".", "[", "a..b", "a.b[0]c"] {
            assert_eq!(at(&document, none), None, "{none}");
        }
    }

    #[test]
    fn a_value_shows_what_is_among_its_own() {
        assert!(shows(&json!(["a", "b"]), &json!("b"), 0.0) && !shows(&json!(["a"]), &json!("b"), 0.0));
        assert!(shows(&json!({ "x": 1, "y": 2 }), &json!({ "y": 2 }), 0.0));
        assert!(!shows(&json!({ "x": 1 }), &json!({ "y": 2 }), 0.0));
        assert!(shows(&json!("20.4"), &json!(20), 0.5) && !shows(&json!(20.6), &json!(20), 0.5));
        assert!(shows(&json!("ON"), &json!("on"), 0.5) && !shows(&json!("nan"), &json!("inf"), 0.5));
    }

    #[test]
    fn values_are_the_same_by_what_they_say() {
        for (a, b) in
            [(json!(1), json!(1.0)), (json!("ON"), json!("on")), (json!("7"), json!(7)), (json!(true), json!("true"))]
        {
            assert!(same(&a, &b) && same(&b, &a), "{a} {b}");
        }
        assert!(same(&json!({ "a": [1] }), &json!({ "a": [1.0] })));
        for (a, b) in
            [(json!(1), json!(2)), (json!("on"), json!(true)), (json!(null), json!("null")), (json!([1]), json!([]))]
        {
            assert!(!same(&a, &b) && !same(&b, &a), "{a} {b}");
        }
    }
}

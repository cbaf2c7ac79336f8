//! Documents: how a patch changes one, and where what is reported differs from what is desired. Pure.
//!
//! A patch merges by RFC 7396: objects member by member, `null` takes a member away, everything else, arrays among it, replaces. Beside
//! a document stands when each of its values was set, in a tree of the same shape whose leaves are `{"timestamp": seconds}`, as the
//! metadata of AWS IoT's shadows.

use serde_json::{Map, Value, json};

/// A JSON object.
pub type Document = Map<String, Value>;

/// Name of the only member of a leaf of a document's times.
const TIMESTAMP: &str = "timestamp";

/// Merges a patch into a document and its times; `seconds`: when.
pub fn merge(state: &mut Document, stamps: &mut Document, patch: &Document, seconds: i64) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                state.remove(key);
                stamps.remove(key);
            }
            Value::Object(inner) => {
                // What was no object gives way to one that has what the patch has.
                if !matches!(state.get(key), Some(Value::Object(_))) {
                    state.insert(key.clone(), Value::Object(Document::new()));
                    stamps.insert(key.clone(), Value::Object(Document::new()));
                }
                let stamp = stamps.entry(key.as_str()).or_insert_with(|| Value::Object(Document::new()));
                if let (Some(Value::Object(state)), Value::Object(stamps)) = (state.get_mut(key), stamp) {
                    merge(state, stamps, inner, seconds);
                }
            }
            other => {
                state.insert(key.clone(), other.clone());
                stamps.insert(key.clone(), stamp(other, seconds));
            }
        }
    }
}

/// The times of a value that was set at `seconds`.
pub fn stamp(value: &Value, seconds: i64) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().map(|(key, value)| (key.clone(), stamp(value, seconds))).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(|element| stamp(element, seconds)).collect()),
        _ => json!({ TIMESTAMP: seconds }),
    }
}

/// What of `desired` is not, or not so, in `reported`: merged into that, it makes it so.
pub fn delta(desired: &Document, reported: &Document) -> Document {
    let mut delta = Document::new();
    for (key, wanted) in desired {
        match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => {
                let inner = self::delta(wanted, found);
                if !inner.is_empty() {
                    delta.insert(key.clone(), Value::Object(inner));
                }
            }
            (wanted, Some(found)) if same(wanted, found) => {}
            (wanted, _) => drop(delta.insert(key.clone(), wanted.clone())),
        }
    }
    delta
}

/// Whether two values are the same; numbers by what they are worth, since a device may write 21.0 for 21.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => same_document(one, other),
        (one, other) => one == other,
    }
}

/// As [`same`], of whole documents.
pub fn same_document(one: &Document, other: &Document) -> bool {
    one.len() == other.len() && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
}

/// The times of what a document has, out of those of a larger one.
pub fn stamps_of(document: &Document, stamps: &Document) -> Document {
    let of = |(key, value): (&String, &Value)| {
        let stamp = stamps.get(key)?;
        let picked = match (value, stamp) {
            (Value::Object(inner), Value::Object(stamps)) => Value::Object(stamps_of(inner, stamps)),
            (_, stamp) => stamp.clone(),
        };
        Some((key.clone(), picked))
    };
    document.iter().filter_map(of).collect()
}

/// Whether objects and arrays lie in one another more than `most` deep; a document of plain values is one deep.
pub fn is_deeper(document: &Document, most: usize) -> bool {
    most == 0 || document.values().any(|value| value_is_deeper(value, most.saturating_sub(1)))
}

fn value_is_deeper(value: &Value, most: usize) -> bool {
    match value {
        Value::Object(inner) => is_deeper(inner, most),
        Value::Array(elements) => {
            most == 0 || elements.iter().any(|element| value_is_deeper(element, most.saturating_sub(1)))
        }
        _ => false,
    }
}

/// A patch that sets the value at a dotted path; none where something newer than `seconds` stands there, or the same.
pub fn patch_at(state: &Document, stamps: &Document, path: &str, value: &Value, seconds: i64) -> Option<Document> {
    let mut at = (Some(state), Some(stamps));
    let mut levels = path.split('.').peekable();
    while let Some(level) = levels.next() {
        let (found, stamp) = (at.0.and_then(|state| state.get(level)), at.1.and_then(|stamps| stamps.get(level)));
        if levels.peek().is_none() {
            let newer = stamp.and_then(|stamp| stamp.get(TIMESTAMP)).and_then(Value::as_i64);
            if newer.is_some_and(|newer| newer > seconds) || found.is_some_and(|found| same(found, value)) {
                return None;
            }
        }
        at = (found.and_then(Value::as_object), stamp.and_then(Value::as_object));
    }
    let wrapped = path
        .rsplit('.')
        .fold(value.clone(), |inner, level| Value::Object(Document::from_iter([(level.to_owned(), inner)])));
    match wrapped {
        Value::Object(patch) => Some(patch),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(value: Value) -> Document {
        match value {
            Value::Object(document) => document,
            other => panic!("{other}"),
        }
    }

    fn merged(state: Value, patch: Value) -> Value {
        let mut state = document(state);
        let mut stamps = document(stamp(&Value::Object(state.clone()), 1));
        merge(&mut state, &mut stamps, &document(patch), 2);
        Value::Object(state)
    }

    #[test]
    fn patches_merge_as_rfc_7396_has_it() {
        for (state, patch, after) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": 1}), json!({"a": null}), json!({"b": 1})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c", "x": 1}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d", "x": 1}})),
            (json!({"a": [1, {"b": 2}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": 1}), json!({"a": {"b": null, "c": {"d": null}}}), json!({"a": {"c": {}}})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        ] {
            assert_eq!(merged(state.clone(), patch.clone()), after, "{state} {patch}");
        }
    }

    #[test]
    fn a_delta_has_what_is_desired_and_not_reported_so() {
        let of = |desired, reported| Value::Object(delta(&document(desired), &document(reported)));
        assert_eq!(of(json!({"color": "red"}), json!({"color": "green"})), json!({"color": "red"}));
        assert_eq!(of(json!({"a": 1}), json!({"a": 1.0, "b": 2})), json!({}), "what is not desired is nobody's wish");
        assert_eq!(
            of(json!({"l": {"r": 255, "g": 1}}), json!({"l": {"r": 0, "g": 1}})),
            json!({"l": {"r": 255}}),
            "objects differ member by member"
        );
        assert_eq!(of(json!({"a": [1, 2]}), json!({"a": [1]})), json!({"a": [1, 2]}), "arrays are whole values");
        assert_eq!(of(json!({"a": {}}), json!({"a": 1})), json!({"a": {}}));
        assert_eq!(of(json!({"a": {"b": 1}}), json!({})), json!({"a": {"b": 1}}));
    }

    #[test]
    fn each_value_has_the_time_at_which_it_was_set() {
        let (mut state, mut stamps) = (Document::new(), Document::new());
        merge(&mut state, &mut stamps, &document(json!({"a": 1, "l": {"r": 1, "g": 2}, "list": [1, 2]})), 10);
        merge(&mut state, &mut stamps, &document(json!({"l": {"r": 3, "g": null}, "b": true})), 20);
        let at = |seconds: i64| json!({"timestamp": seconds});
        let expected = json!({"a": at(10), "b": at(20), "l": {"r": at(20)}, "list": [at(10), at(10)]});
        assert_eq!(Value::Object(stamps.clone()), expected);
        let picked = stamps_of(&document(json!({"l": {"r": 3}, "c": 0})), &stamps);
        assert_eq!(Value::Object(picked), json!({"l": {"r": at(20)}}));
    }

    #[test]
    fn a_value_at_a_path_is_patched_unless_it_is_there_or_something_newer() {
        let (mut state, mut stamps) = (Document::new(), Document::new());
        let set = |state: &mut Document, stamps: &mut Document, value: Value, seconds| {
            let patch = patch_at(state, stamps, "net.wifi.rssi", &value, seconds);
            patch.inspect(|patch| merge(state, stamps, patch, seconds)).is_some()
        };
        assert!(set(&mut state, &mut stamps, json!(-60), 10));
        assert_eq!(Value::Object(state.clone()), json!({"net": {"wifi": {"rssi": -60}}}));
        assert!(!set(&mut state, &mut stamps, json!(-60.0), 20), "the same");
        assert!(!set(&mut state, &mut stamps, json!(-70), 9), "older");
        assert!(set(&mut state, &mut stamps, json!(-70), 10));
        merge(&mut state, &mut stamps, &document(json!({"net": "down"})), 30);
        assert!(set(&mut state, &mut stamps, json!(-50), 31), "a value on the way gives way");
        assert_eq!(Value::Object(state), json!({"net": {"wifi": {"rssi": -50}}}));
    }

    #[test]
    fn depth_counts_objects_and_arrays() {
        for (value, depth) in [
            (json!({}), 1),
            (json!({"a": 1}), 1),
            (json!({"a": {}}), 2),
            (json!({"a": [[1]]}), 3),
            (json!({"a": [{"b": 1}]}), 3),
        ] {
            let value = document(value);
            assert!(is_deeper(&value, depth - 1) && !is_deeper(&value, depth), "{value:?}");
        }
    }

    fn any_document() -> impl Strategy<Value = Document> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-3_i64..3).prop_map(Value::from),
            (-3_i64..3).prop_map(|number| Value::from(number as f64)),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        let key = || "[abc]";
        let tree = leaf.prop_recursive(3, 24, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                prop::collection::btree_map(key(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        prop::collection::btree_map(key(), tree, 0..4).prop_map(|members| members.into_iter().collect())
    }

    /// A document in which some values are null: a patch.
    fn any_patch() -> impl Strategy<Value = Document> {
        (any_document(), any::<u64>()).prop_map(|(mut patch, seed)| {
            nulls(&mut patch, seed);
            patch
        })
    }

    fn nulls(document: &mut Document, seed: u64) {
        for (at, value) in document.values_mut().enumerate() {
            match value {
                Value::Object(inner) => nulls(inner, seed.rotate_left(7)),
                value if seed >> (at % 64) & 1 == 1 => *value = Value::Null,
                _ => {}
            }
        }
    }

    fn after(state: &Document, patch: &Document) -> Document {
        let (mut state, mut stamps) = (state.clone(), document(stamp(&Value::Object(state.clone()), 1)));
        merge(&mut state, &mut stamps, patch, 2);
        state
    }

    fn shape(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                Value::Object(members.iter().map(|(key, value)| (key.clone(), shape(value))).collect())
            }
            Value::Array(elements) => Value::Array(elements.iter().map(shape).collect()),
            _ => json!({"timestamp": 0}),
        }
    }

    /// Whether all of `part` is in `whole`.
    fn contains(whole: &Value, part: &Value) -> bool {
        match (whole, part) {
            (Value::Object(whole), Value::Object(part)) => {
                part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
            }
            (whole, part) => same(whole, part),
        }
    }

    proptest! {
        #[test]
        fn a_delta_merged_into_what_is_reported_makes_it_what_is_desired(desired in any_document(), reported in any_document()) {
            let difference = delta(&desired, &reported);
            let converged = after(&reported, &difference);
            prop_assert!(delta(&desired, &converged).is_empty());
            prop_assert!(contains(&Value::Object(converged), &Value::Object(desired.clone())));
            prop_assert!(delta(&desired, &desired).is_empty());
            prop_assert!(contains(&Value::Object(desired), &Value::Object(difference)), "nothing that nobody desires");
        }

        #[test]
        fn a_patch_merged_twice_is_merged_once(state in any_document(), patch in any_patch()) {
            let once = after(&state, &patch);
            prop_assert_eq!(after(&once, &patch), once);
        }

        #[test]
        fn times_have_the_shape_of_their_document(state in any_document(), patch in any_patch(), more in any_patch()) {
            let (mut state, mut stamps) = (state.clone(), document(stamp(&Value::Object(state), 0)));
            merge(&mut state, &mut stamps, &patch, 0);
            merge(&mut state, &mut stamps, &more, 0);
            prop_assert_eq!(&shape(&Value::Object(state.clone())), &Value::Object(stamps.clone()));
            prop_assert_eq!(stamps_of(&state, &stamps), stamps);
        }
    }
}

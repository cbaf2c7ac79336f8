//! The native topics of twins, and what is sent there. Pure.
//!
//! A device says what it is on `devices/{device}/twin/reported`, and asks for what it is to be on `devices/{device}/twin/get`; tidegate says
//! that on `…/desired` and `…/delta`. Other programs ask on `tidegate/twins/{tenant}/{device}/{get,set,patch}`. The topics of devices name no
//! tenant: the default tenant's device is meant, or the only one that has the name.

use serde_json::Value;

use super::document::Document;
use super::refusal::{Reason, Refused};
use super::state::{Change, Expected};

/// What is subscribed to: what devices report.
pub const REPORTED: &str = "devices/+/twin/reported";
/// What devices ask for.
pub const GET: &str = "devices/+/twin/get";
/// What other programs ask for.
pub const REQUESTS: &str = "tidegate/twins/+/+/+";
/// What every topic of theirs begins with.
const ROOT: &str = "tidegate/twins/";
/// Members of a payload that is more than a document.
const MEMBERS: [&str; 2] = ["state", "version"];

/// A topic of twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'t> {
    /// tidegate's own publish, as a wide filter brings it back.
    Own,
    Reported {
        device: &'t str,
    },
    Get {
        device: &'t str,
    },
    Request {
        tenant: &'t str,
        device: &'t str,
        verb: &'t str,
    },
}

/// Which it is; none: another.
pub fn of_topic(topic: &str) -> Option<Topic<'_>> {
    if let Some(rest) = topic.strip_prefix(ROOT) {
        let mut levels = rest.split('/');
        let (tenant, device, verb) = (levels.next()?, levels.next()?, levels.next()?);
        return levels.next().is_none().then_some(Topic::Request { tenant, device, verb });
    }
    let (device, rest) = topic.strip_prefix("devices/")?.split_once('/')?;
    match rest.strip_prefix("twin/")? {
        "reported" => Some(Topic::Reported { device }),
        "get" => Some(Topic::Get { device }),
        "desired" | "delta" => Some(Topic::Own),
        _ => None,
    }
}

/// Where tidegate says what a device is to be.
pub fn desired_topic(device: &str) -> String {
    format!("devices/{device}/twin/desired")
}

/// Where it says what of that is not so yet.
pub fn delta_topic(device: &str) -> String {
    format!("devices/{device}/twin/delta")
}

/// Reads a document: a JSON object; or, where it has a member `state` that is one and none but these, `{"state", "version"}`, the latter being
/// the version that whoever sends it has seen.
///
/// # Errors
/// Why it is none.
pub fn read(payload: &[u8], max_size: usize) -> Result<(Document, Option<Expected>), Refused> {
    let malformed = |detail: String| Refused::new(Reason::Malformed, detail);
    let mut members = object(payload, max_size)?;
    let wraps = matches!(members.get("state"), Some(Value::Object(_)))
        && members.keys().all(|key| MEMBERS.contains(&key.as_str()));
    if !wraps {
        return Ok((members, None));
    }
    let expected = match members.remove("version") {
        None | Some(Value::Null) => None,
        Some(version) => Some(
            version
                .as_i64()
                .filter(|version| *version >= 0)
                .map(Expected::UnchangedSince)
                .ok_or_else(|| malformed(format!("version is {version}, a whole number is wanted")))?,
        ),
    };
    match members.remove("state") {
        Some(Value::Object(state)) => Ok((state, expected)),
        _ => Err(malformed("state is no JSON object".to_owned())),
    }
}

/// Reads a JSON object. `max_size`: bytes.
///
/// # Errors
/// Why it is none.
pub fn object(text: &[u8], max_size: usize) -> Result<Document, Refused> {
    if text.len() > max_size {
        let detail = format!("it has more than {max_size} bytes, which is twins.max_size");
        return Err(Refused::new(Reason::TooLarge, detail));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err(Refused::new(Reason::Malformed, "it is no JSON object")),
        Err(error) => Err(Refused::new(Reason::Malformed, format!("it is no JSON: {error}"))),
    }
}

/// How other programs change what is desired.
///
/// # Errors
/// Where they ask for something else.
pub fn change_of(verb: &str, document: Document) -> Result<Change, Refused> {
    match verb {
        "set" => Ok(Change::Replace(document)),
        "patch" => Ok(Change::Merge(document)),
        other => Err(unknown_verb(other)),
    }
}

/// For whoever asks for something that there is not.
pub fn unknown_verb(verb: &str) -> Refused {
    Refused::new(Reason::Malformed, format!("{verb:?} is none of get, set, patch"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn topics_are_told_apart() {
        for (topic, expected) in [
            ("devices/d1/twin/reported", Some(Topic::Reported { device: "d1" })),
            ("devices/d1/twin/get", Some(Topic::Get { device: "d1" })),
            ("devices//twin/get", Some(Topic::Get { device: "" })),
            ("devices/d1/twin/desired", Some(Topic::Own)),
            ("devices/d1/twin/delta", Some(Topic::Own)),
            ("devices/d1/twin/other", None),
            ("devices/d1/twin/reported/x", None),
            ("devices/d1/telemetry", None),
            ("devices/a/b/twin/reported", None),
            ("x/devices/d1/twin/reported", None),
            ("tidegate/twins/t/d/set", Some(Topic::Request { tenant: "t", device: "d", verb: "set" })),
            ("tidegate/twins/t/d", None),
            ("tidegate/twins/t/d/set/x", None),
        ] {
            assert_eq!(of_topic(topic), expected, "{topic}");
        }
        for filter in [REPORTED, GET] {
            assert!(matches!(of_topic(&filter.replace('+', "x")), Some(Topic::Reported { .. } | Topic::Get { .. })));
        }
        assert!(matches!(of_topic(&REQUESTS.replace('+', "get")), Some(Topic::Request { .. })));
        for own in [desired_topic("d"), delta_topic("d")] {
            assert_eq!(of_topic(&own), Some(Topic::Own));
        }
    }

    #[test]
    fn a_payload_is_the_document_or_says_the_version_too() {
        let read = |value: Value| read(value.to_string().as_bytes(), 100).map(|(state, at)| (Value::Object(state), at));
        assert_eq!(read(json!({"a": null})), Ok((json!({"a": null}), None)));
        assert_eq!(read(json!({"state": "ON"})), Ok((json!({"state": "ON"}), None)), "a device's own word");
        assert_eq!(read(json!({"state": {}, "x": 1})), Ok((json!({"state": {}, "x": 1}), None)));
        let seen = Some(Expected::UnchangedSince(7));
        assert_eq!(read(json!({"state": {"a": 1}, "version": 7})), Ok((json!({"a": 1}), seen)));
        for bad in [json!([1]), json!("x"), json!({"state": {}, "version": -1}), json!({"state": {}, "version": "7"})] {
            assert_eq!(read(bad).unwrap_err().reason, Reason::Malformed);
        }
        assert_eq!(super::read(b"{", 100).unwrap_err().reason, Reason::Malformed);
        assert_eq!(super::read(&[b' '; 101], 100).unwrap_err().reason, Reason::TooLarge);
    }
}

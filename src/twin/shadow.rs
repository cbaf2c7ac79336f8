//! The topics of AWS IoT's device shadows, and what is sent there. Pure.
//!
//! AWS IoT Core developer guide: "Device Shadow MQTT topics", "Device Shadow service documents", "Device Shadow error messages". The classic
//! shadow of a thing is its device's own twin; a named one is a twin of its own.

use serde_json::Value;

use super::document::{Document, is_deeper};
use super::refusal::{Reason, Refused};
use super::state::{Change, Expected, Update};
use super::{Limits, is_name};

/// What is subscribed to where a source asks for it.
pub const FILTERS: [&str; 6] = [
    "$aws/things/+/shadow/get",
    "$aws/things/+/shadow/update",
    "$aws/things/+/shadow/delete",
    "$aws/things/+/shadow/name/+/get",
    "$aws/things/+/shadow/name/+/update",
    "$aws/things/+/shadow/name/+/delete",
];
/// What every such topic begins with.
const ROOT: &str = "$aws/things/";
/// Most bytes of a client token.
const MAX_TOKEN: usize = 64;

/// What is done on a topic of shadows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Get,
    Update,
    Delete,
    /// An answer, or news: tidegate's own publish, as a wide filter brings it back.
    Own,
}

/// A topic of a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'t> {
    pub thing: &'t str,
    /// Empty: the classic one.
    pub name: &'t str,
    pub action: Action,
}

/// Which it is; none: another.
pub fn of_topic(topic: &str) -> Option<Topic<'_>> {
    let (thing, rest) = topic.strip_prefix(ROOT)?.split_once('/')?;
    let rest = rest.strip_prefix("shadow/")?;
    let (name, rest) = match rest.strip_prefix("name/") {
        Some(named) => named.split_once('/')?,
        None => ("", rest),
    };
    let action = match rest {
        "get" => Action::Get,
        "update" => Action::Update,
        "delete" => Action::Delete,
        "get/accepted" | "get/rejected" | "update/accepted" | "update/rejected" | "update/delta"
        | "update/documents" | "delete/accepted" | "delete/rejected" => Action::Own,
        _ => return None,
    };
    Some(Topic { thing, name, action })
}

/// The topic of an answer, such as `get/accepted`.
pub fn topic(thing: &str, name: &str, rest: &str) -> String {
    match name {
        "" => format!("{ROOT}{thing}/shadow/{rest}"),
        name => format!("{ROOT}{thing}/shadow/name/{name}/{rest}"),
    }
}

/// Whether a twin can have the name.
///
/// # Errors
/// Where it can't.
pub fn check_name(name: &str) -> Result<(), Refused> {
    match name.is_empty() || is_name(name) {
        true => Ok(()),
        false => Err(Refused::new(Reason::BadName, format!("no shadow can have the name {name:?}"))),
    }
}

/// What a request carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub token: Option<String>,
    pub update: Update,
}

/// Reads what is asked; the words of refusals are those of AWS IoT.
///
/// # Errors
/// Why it can't be done, with the token where it could be read.
pub fn read(payload: &[u8], action: Action, limits: Limits) -> Result<Request, (Refused, Option<String>)> {
    let bad = |message: &str| (Refused::new(Reason::Malformed, message), None);
    if payload.len() > limits.max_size {
        return Err((Refused::new(Reason::TooLarge, "The payload exceeds the maximum size allowed"), None));
    }
    if action != Action::Update && payload.trim_ascii().is_empty() {
        return Ok(Request::default());
    }
    let Ok(Value::Object(mut members)) = serde_json::from_slice(payload) else { return Err(bad("Invalid JSON")) };
    let token = match members.remove("clientToken") {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) if token.len() <= MAX_TOKEN => Some(token),
        Some(_) => return Err(bad("Invalid clientToken")),
    };
    let expected = match members.remove("version") {
        None | Some(Value::Null) => None,
        Some(version) => match version.as_i64() {
            Some(version) if version >= 0 => Some(Expected::Exactly(version)),
            _ => return Err((bad("Invalid version").0, token)),
        },
    };
    let mut update = Update { expected, always: true, ..Update::default() };
    if action == Action::Update
        && let Err(refused) = fill(&mut update, members, limits)
    {
        return Err((refused, token));
    }
    Ok(Request { token, update })
}

fn fill(update: &mut Update, mut members: Document, limits: Limits) -> Result<(), Refused> {
    let bad = |message: &str| Refused::new(Reason::Malformed, message);
    let mut state = match members.remove("state") {
        None => return Err(bad("Missing required node: state")),
        Some(Value::Object(state)) => state,
        Some(_) => return Err(bad("State node must be an object")),
    };
    for (key, word, change) in [
        ("desired", "Desired node must be an object", &mut update.desired),
        ("reported", "Reported node must be an object", &mut update.reported),
    ] {
        *change = match state.remove(key) {
            None => Change::Keep,
            // All of it goes.
            Some(Value::Null) => Change::Replace(Document::new()),
            Some(Value::Object(patch)) if is_deeper(&patch, limits.max_depth) => {
                let detail = format!("JSON contains too many levels of nesting; maximum is {}", limits.max_depth);
                return Err(Refused::new(Reason::TooDeep, detail));
            }
            Some(Value::Object(patch)) => Change::Merge(patch),
            Some(_) => return Err(bad(word)),
        };
    }
    match state.is_empty() {
        true => Ok(()),
        false => Err(bad("State contains an invalid node")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits { max_size: 200, max_depth: 3 };

    #[test]
    fn topics_of_both_kinds_of_shadows_are_told_apart() {
        let is = |thing, name, action| Some(Topic { thing, name, action });
        for (text, expected) in [
            ("$aws/things/lamp/shadow/get", is("lamp", "", Action::Get)),
            ("$aws/things/lamp/shadow/update", is("lamp", "", Action::Update)),
            ("$aws/things/lamp/shadow/name/net/delete", is("lamp", "net", Action::Delete)),
            ("$aws/things/lamp/shadow/update/delta", is("lamp", "", Action::Own)),
            ("$aws/things/lamp/shadow/name/net/update/documents", is("lamp", "net", Action::Own)),
            ("$aws/things/lamp/shadow/name/get/get", is("lamp", "get", Action::Get)),
            ("$aws/things/lamp/shadow/update/other", None),
            ("$aws/things/lamp/shadow", None),
            ("$aws/things/lamp/jobs/get", None),
            ("aws/things/lamp/shadow/get", None),
        ] {
            assert_eq!(of_topic(text), expected, "{text}");
        }
        for filter in FILTERS {
            let topic = filter.replace('+', "x");
            let found = of_topic(&topic).map(|topic| topic.action);
            assert!(found.is_some_and(|action| action != Action::Own), "{filter}");
        }
        assert_eq!(topic("lamp", "net", "get/accepted"), "$aws/things/lamp/shadow/name/net/get/accepted");
        assert_eq!(topic("lamp", "", "get/accepted"), "$aws/things/lamp/shadow/get/accepted");
    }

    fn read(value: Value) -> Result<Request, (Refused, Option<String>)> {
        super::read(value.to_string().as_bytes(), Action::Update, LIMITS)
    }

    #[test]
    fn an_update_says_what_is_desired_or_reported() {
        let request = read(json!({
            "state": {"desired": {"color": "red", "old": null}, "reported": null}, "clientToken": "t-1", "version": 3,
        }));
        let Value::Object(patch) = json!({"color": "red", "old": null}) else { panic!() };
        let expected = Request {
            token: Some("t-1".to_owned()),
            update: Update {
                desired: Change::Merge(patch),
                reported: Change::Replace(Document::new()),
                expected: Some(Expected::Exactly(3)),
                always: true,
            },
        };
        assert_eq!(request, Ok(expected));
        let get = super::read(br#"{"clientToken":"x"}"#, Action::Get, LIMITS).unwrap();
        assert_eq!(get.token.as_deref(), Some("x"));
        assert_eq!(super::read(b" ", Action::Delete, LIMITS).unwrap().token, None);
    }

    #[test]
    fn each_fault_has_its_word_and_the_token() {
        for (value, word, code) in [
            (json!([]), "Invalid JSON", 400),
            (json!({}), "Missing required node: state", 400),
            (json!({"state": 1}), "State node must be an object", 400),
            (json!({"state": {"desired": 1}}), "Desired node must be an object", 400),
            (json!({"state": {"reported": []}}), "Reported node must be an object", 400),
            (json!({"state": {"other": {}}}), "State contains an invalid node", 400),
            (json!({"state": {}, "version": "x"}), "Invalid version", 400),
            (json!({"state": {}, "version": -1}), "Invalid version", 400),
            (json!({"state": {}, "clientToken": "x".repeat(65)}), "Invalid clientToken", 400),
            (json!({"state": {"desired": {"a": {"b": {"c": {}}}}}}), "too many levels of nesting; maximum is 3", 400),
            (json!({"state": {"desired": {"a": "x".repeat(200)}}}), "exceeds the maximum size", 413),
        ] {
            let (refused, _) = read(value).unwrap_err();
            assert!(refused.message.contains(word), "{refused:?}");
            assert_eq!(refused.reason.code(), code, "{refused:?}");
        }
        assert_eq!(super::read(b"{\"state\"", Action::Update, LIMITS).unwrap_err().0.message, "Invalid JSON");
        assert_eq!(read(json!({"state": 1, "clientToken": "t"})).unwrap_err().1.as_deref(), Some("t"));
        assert!(check_name("a/b").is_err() && check_name("").is_ok() && check_name(&"x".repeat(65)).is_err());
    }
}

//! What people ask for by MQTT, `tidegate/alerts/{tenant}/{id}/{ack|resolve|snooze|note}`, or over HTTP → an [`Action`]. Pure.
//!
//! The payload or body is empty or `{"who", "note", "for"}`: a name, a remark, and how long a snooze lasts as `30m` or `7d`. The topic's
//! tenant is not looked at: an alert's id is unique over all of them.

use std::time::Duration;

use serde::Deserialize;

use super::announce::ROOT;
use super::transition::{Action, Deed};
use crate::message::Message;
use crate::time::UtcMicros;

/// What is subscribed to. No rule has one of these last levels for its slug, so no alert is on such a topic.
pub const FILTERS: [&str; 4] = [
    "tidegate/alerts/+/+/ack",
    "tidegate/alerts/+/+/resolve",
    "tidegate/alerts/+/+/snooze",
    "tidegate/alerts/+/+/note",
];
/// Longest payload, bytes.
pub const LONGEST: usize = 16 << 10;
/// Longest name of who asks and longest remark, bytes.
const LONGEST_TEXT: usize = 4096;
/// Longest snooze.
const LONGEST_SNOOZE: Duration = Duration::from_secs(366 * 24 * 3600);
/// Who asks where neither payload nor broker says.
const SOMEBODY: &str = "mqtt";

/// Why a request can't be carried out; in words for the log.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The broker had it stored: it was done when it came, and would be again with each connection.
    #[error("a retained request is left alone; it should be published without RETAIN")]
    Retained,
    #[error("{0:?} is no alert's id: 32 hexadecimal digits are wanted")]
    Id(String),
    #[error("a payload of {0} bytes; {LONGEST} are taken")]
    TooLarge(usize),
    #[error("the payload is neither empty nor an object with who, note and for: {0}")]
    Payload(String),
    #[error("who or note has more than {LONGEST_TEXT} bytes")]
    LongText,
    #[error("a snooze says how long, as in {{\"for\": \"2h\"}}: {0}")]
    For(String),
    #[error("a note without a text: {{\"note\": \"…\"}} is wanted")]
    EmptyNote,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    who: String,
    note: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Ack,
    Resolve,
    Snooze,
    Note,
}

impl Verb {
    /// As the last level of a topic or path has it.
    pub fn of_word(word: &str) -> Option<Verb> {
        Some(match word {
            "ack" => Verb::Ack,
            "resolve" => Verb::Resolve,
            "snooze" => Verb::Snooze,
            "note" => Verb::Note,
            _ => return None,
        })
    }
}

impl RequestError {
    /// The field of the payload that is at fault; none: all of it.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            RequestError::For(_) => Some("for"),
            RequestError::EmptyNote => Some("note"),
            RequestError::Id(_) => Some("id"),
            RequestError::Retained | RequestError::TooLarge(_) | RequestError::Payload(_) | RequestError::LongText => {
                None
            }
        }
    }
}

/// Whether it is one of [`FILTERS`].
pub fn is_filter(filter: &str) -> bool {
    FILTERS.contains(&filter)
}

/// Whether something is asked for on the topic.
pub fn is_request(topic: &str) -> bool {
    split(topic).is_some()
}

/// The alert's id, and what is wanted.
fn split(topic: &str) -> Option<(&str, Verb)> {
    let mut levels = topic.strip_prefix(ROOT)?.split('/');
    let (_tenant, id, verb) = (levels.next()?, levels.next()?, levels.next()?);
    let verb = Verb::of_word(verb)?;
    levels.next().is_none().then_some((id, verb))
}

/// What a message asks for; none: it is no request.
///
/// # Errors
/// [`RequestError`] where it is one that can't be carried out.
pub fn read(message: &Message) -> Option<Result<Action, RequestError>> {
    let (id, verb) = split(&message.publish.topic)?;
    Some(action(message, id, verb))
}

fn action(message: &Message, id: &str, verb: Verb) -> Result<Action, RequestError> {
    if message.publish.retain {
        return Err(RequestError::Retained);
    }
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(RequestError::Id(id.chars().take(64).collect()));
    }
    let nobody = message.publish.client.as_deref().unwrap_or(SOMEBODY);
    asked(&id.to_ascii_lowercase(), verb, &message.publish.payload, message.received_at, nobody)
}

/// What a verb and its payload ask of an alert at an instant; `nobody`: who asks where the payload does not say.
///
/// # Errors
/// [`RequestError`] where the payload can't be understood, or lacks what the verb needs.
pub fn asked(id: &str, verb: Verb, payload: &[u8], now: UtcMicros, nobody: &str) -> Result<Action, RequestError> {
    let body = body(payload)?;
    if body.who.len() > LONGEST_TEXT || body.note.len() > LONGEST_TEXT {
        return Err(RequestError::LongText);
    }
    let action = match verb {
        Verb::Ack => Deed::Acknowledge,
        Verb::Resolve => Deed::Resolve,
        Verb::Note if body.note.trim().is_empty() => return Err(RequestError::EmptyNote),
        Verb::Note => Deed::Note,
        Verb::Snooze => {
            let lasts = snooze(body.lasts.as_deref())?;
            let until = now.checked_add(lasts).ok_or_else(|| RequestError::For("too long".to_owned()))?;
            Deed::Snooze { until: until.0 }
        }
    };
    let who = match body.who.trim() {
        "" => nobody,
        who => who,
    };
    Ok(Action { id: id.to_owned(), action, who: who.to_owned(), note: body.note, ask: None })
}

fn body(payload: &[u8]) -> Result<Body, RequestError> {
    if payload.len() > LONGEST {
        return Err(RequestError::TooLarge(payload.len()));
    }
    if payload.trim_ascii().is_empty() {
        return Ok(Body::default());
    }
    serde_json::from_slice(payload).map_err(|error| RequestError::Payload(error.to_string()))
}

fn snooze(lasts: Option<&str>) -> Result<Duration, RequestError> {
    let text = lasts.ok_or_else(|| RequestError::For("it is missing".to_owned()))?;
    let lasts = humantime::parse_duration(text.trim()).map_err(|error| RequestError::For(error.to_string()))?;
    if lasts.is_zero() || lasts > LONGEST_SNOOZE {
        return Err(RequestError::For(format!("{text} is not within 1s to 366d")));
    }
    Ok(lasts)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Publish;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn ask(topic: &str, payload: &str) -> Option<Result<Action, RequestError>> {
        read(&message(topic, payload))
    }

    fn message(topic: &str, payload: &str) -> Message {
        let publish = Publish::plain(topic, Bytes::copy_from_slice(payload.as_bytes()), 1);
        Message { seq: 1, received_at: UtcMicros(1_000_000), publish }
    }

    fn verb(verb: &str, payload: &str) -> Result<Action, RequestError> {
        ask(&format!("tidegate/alerts/default/{ID}/{verb}"), payload).unwrap()
    }

    fn act(action: Deed, who: &str, note: &str) -> Result<Action, RequestError> {
        Ok(Action { id: ID.to_owned(), action, who: who.to_owned(), note: note.to_owned(), ask: None })
    }

    #[test]
    fn each_verb_is_understood_with_and_without_a_payload() {
        assert_eq!(verb("ack", ""), act(Deed::Acknowledge, "mqtt", ""));
        assert_eq!(verb("ack", " {\"who\": \" ann \"}\n"), act(Deed::Acknowledge, "ann", ""));
        assert_eq!(verb("resolve", r#"{"note":"new fan"}"#), act(Deed::Resolve, "mqtt", "new fan"));
        assert_eq!(verb("note", r#"{"who":"bo","note":"seen"}"#), act(Deed::Note, "bo", "seen"));
        assert_eq!(verb("snooze", r#"{"for":"2s"}"#), act(Deed::Snooze { until: 3_000_000 }, "mqtt", ""));
        let upper = ask(&format!("tidegate/alerts/t/{}/ack", ID.to_uppercase()), "").unwrap().unwrap();
        assert_eq!(upper.id, ID);
    }

    #[test]
    fn a_request_that_can_not_be_carried_out_says_why() {
        assert!(matches!(verb("ack", "now"), Err(RequestError::Payload(_))));
        assert!(matches!(verb("ack", r#"{"by":"ann"}"#), Err(RequestError::Payload(_))));
        assert!(matches!(verb("ack", "[1]"), Err(RequestError::Payload(_))));
        assert_eq!(verb("ack", &" ".repeat(LONGEST + 1)), Err(RequestError::TooLarge(LONGEST + 1)));
        let long = format!(r#"{{"who":"{}"}}"#, "x".repeat(LONGEST_TEXT + 1));
        assert_eq!(verb("ack", &long), Err(RequestError::LongText));
        assert_eq!(verb("note", ""), Err(RequestError::EmptyNote));
        for bad in ["", r#"{"for":"soon"}"#, r#"{"for":"0s"}"#, r#"{"for":"99999d"}"#] {
            assert!(matches!(verb("snooze", bad), Err(RequestError::For(_))), "{bad}");
        }
        for id in ["7", "g123456789abcdef0123456789abcdef", ""] {
            assert!(matches!(ask(&format!("tidegate/alerts/t/{id}/ack"), ""), Some(Err(RequestError::Id(_)))), "{id}");
        }
    }

    #[test]
    fn a_device_is_named_by_its_client_id_and_a_retained_request_is_left() {
        let mut message = message(&format!("tidegate/alerts/t/{ID}/ack"), "");
        message.publish.client = Some("panel-3".to_owned());
        assert_eq!(read(&message), Some(act(Deed::Acknowledge, "panel-3", "")));
        message.publish.retain = true;
        assert_eq!(read(&message), Some(Err(RequestError::Retained)));
    }

    #[test]
    fn other_topics_are_no_requests() {
        let other = [
            "tidegate/alerts/t/d/too-hot",
            "tidegate/alerts/t/summary",
            "tidegate/alerts/t/ack",
            "tidegate/alerts/t/i/ack/x",
        ];
        for topic in other.into_iter().chain(["tidegate/status/gw", "alerts/t/i/ack"]) {
            assert!(ask(topic, "").is_none() && !is_request(topic), "{topic}");
        }
        assert!(FILTERS.iter().all(|filter| is_request(&filter.replace('+', "x"))));
    }
}
